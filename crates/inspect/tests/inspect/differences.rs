//! Two handovers compared by meaning.

use luosim_inspect::Inspection;
use luosim_inspect::diff::diff;

use crate::world::{World, inspected, small};

/// The differences as lines.
fn lines(a: &Inspection, b: &Inspection, addresses: bool) -> Vec<String> {
    let found = diff(a, b, addresses);
    assert_eq!(found.same, found.differences.is_empty());
    let side = |side: &Option<String>| side.clone().unwrap_or_else(|| String::from("-"));
    found.differences.iter().map(|one| format!("{}: {} / {}", one.what, side(&one.a), side(&one.b))).collect()
}

#[test]
fn a_handover_is_the_same_as_itself() {
    let world = World::new("7.3.4");
    assert_eq!(lines(&world.inspect(), &world.inspect(), true), Vec::<String>::new());
}

#[test]
fn kernels_that_keep_the_same_files_differ_in_versions_only() {
    let (old, new) = (inspected(&small("6.19.6")), inspected(&small("7.3.4")));
    let found = lines(&old, &new, false);
    for line in
        ["root, version: kho-v1 / kho-v4", "LUO, version: luo-v1 / luo-v5", "metadata, release: - / 7.3.4"]
    {
        assert!(found.iter().any(|found| found == line), "{line} in {found:#?}");
    }
    assert!(!found.iter().any(|line| line.contains("size") && line.contains("token")), "{found:#?}");
    assert!(!found.iter().any(|line| line.contains("contents")), "{found:#?}");
    assert!(lines(&old, &new, true).len() > found.len(), "addresses differ");
}

#[test]
fn what_differs_is_named() {
    let world = World::new("7.3.4");
    let before = world.inspect();
    let luo = before.report.luo.as_ref().expect("an orchestrator");
    let file = &luo.sessions[0].files[0];
    let mut changed = world.clone();
    changed.word(file.data.0.raw(), 7);
    changed.write(file.data.0.raw() + 16, &[2]);
    let table = world.read(file.memfd.as_ref().expect("one").table_at.expect("a table").0.raw() + 8);
    let folio = (world.read(table) & ((1 << 52) - 1)) * 4096;
    changed.write(folio + 4096 + 5, b"different");
    changed.write(luo.sessions[2].at.0.raw(), b"m");
    let found = lines(&before, &changed.inspect(), false);
    let name = "n".repeat(63);
    let digest = file.memfd.as_ref().and_then(|memfd| memfd.sha256.clone()).expect("a digest");
    assert_eq!(found[0], "session \"alpha\", token 0x1, position: 123 / 7");
    assert_eq!(found[1], "session \"alpha\", token 0x1, seals: none / SHRINK");
    assert!(found[2].starts_with(&format!(
        "session \"alpha\", token 0x1, contents (1 pages, from byte 0x1005 on): {digest} / "
    )));
    assert_eq!(found[3], format!("session \"m{}\": - / 0 files", &name[1..]));
    assert_eq!(found[4], format!("session \"{name}\": 0 files / -"));
    assert_eq!(found.len(), 5);
}
