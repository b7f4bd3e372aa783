//! Each inconsistency is found, with its address and its field, and nothing else is blamed.

use luosim_inspect::Severity;
use luosim_inspect::report::{File, Luo, Report};
use luosim_physmem::PhysAddr;

use crate::world::{World, complaints};

fn luo(report: &Report) -> &Luo {
    report.luo.as_ref().expect("an orchestrator")
}

fn file(report: &Report, session: usize, file: usize) -> &File {
    &luo(report).sessions[session].files[file]
}

fn raw(at: Option<luosim_inspect::report::Addr>) -> u64 {
    at.expect("an address").0.raw()
}

/// Changes recorded memory, and expects a finding on `field` at `at` that says `what`.
fn found(world: &World, at: u64, field: &str, what: &str) {
    let inspection = world.inspect();
    let hit = inspection.report.findings.iter().find(|finding| {
        finding.field == field && finding.at.0 == PhysAddr::new(at) && finding.what.contains(what)
    });
    assert!(hit.is_some(), "no '{what}' of {field} at {at:#x} in {:#?}", complaints(&inspection));
    assert!(hit.is_some_and(|finding| finding.severity > Severity::Info));
}

/// A changed copy of the memory of 7.3.4.
fn changed(change: impl FnOnce(&mut World, &Report)) -> World {
    changed_of("7.3.4", change)
}

fn changed_of(kernel: &str, change: impl FnOnce(&mut World, &Report)) -> World {
    let mut world = World::new(kernel);
    let report = world.inspect().report;
    change(&mut world, &report);
    world
}

#[test]
fn the_root_tree() {
    let root = World::new("7.3.4").hints.root.expect("the manifest says it").raw();
    let world = changed(|world, _| world.write(root, &[0]));
    found(&world, root, "root", "magic");
    // "kho-v4" to "kho-v9", wherever it stands in the tree.
    let mut world = World::new("7.3.4");
    let at = (root..root + 4096).find(|at| world.read(*at).to_le_bytes().starts_with(b"kho-v4")).expect("it");
    world.write(at + 5, b"9");
    found(&world, root, "root.compatible", "'kho-v9'");
    let mut world = World::new("7.3.4");
    let map = raw(world.inspect().report.root.expect("a root").map_at);
    let at = (root..root + 4096).find(|at| world.read(*at) == map).expect("it");
    world.word(at, 0);
    found(&world, root, "root.preserved-memory-map", "the memory map is 0");
    world.word(at, map + 8);
    found(&world, map + 8, "preserved-memory-map", "is not aligned");
    world.word(at, world.size);
    found(&world, world.size, "preserved-memory-map", "lies outside memory");
}

#[test]
fn the_tracker() {
    // A table that leads to itself.
    let map = |report: &Report| raw(report.root.as_ref().expect("a root").map_at);
    let world = changed(|world, report| world.word(map(report) + 8 * 100, map(report)));
    let at = map(&World::new("7.3.4").inspect().report);
    found(&world, at, "preserved-memory-map", "is used twice");
    // kho-v1: too many bitmaps, an order that is none, blocks in scratch.
    let world = changed_of("6.19.6", |world, report| world.write(map(report) + 12, &300u32.to_le_bytes()));
    let at = map(&World::new("6.19.6").inspect().report);
    found(&world, at, "preserved-memory-map", "claims 300 bitmaps");
    let world = changed_of("6.19.6", |world, report| world.write(map(report) + 8, &60u32.to_le_bytes()));
    found(&world, at, "preserved-memory-map", "order 60");
}

#[test]
fn blocks_where_they_must_not_be() {
    let report = World::new("6.19.6").inspect().report;
    let chunk = raw(report.root.as_ref().expect("a root").map_at);
    let scratch = report.scratch.as_ref().expect("known").areas[0].at.0.raw();
    // The first chunk is of order 0.
    let bitmap = |world: &World| world.read(chunk + 24);
    let world = changed_of("6.19.6", |world, _| {
        let bit = scratch / 4096;
        world.write(bitmap(world) + bit / 8, &[1 << (bit % 8)]);
    });
    found(&world, scratch, "scratch[0]", "are preserved in scratch");
    let world = changed_of("6.19.6", |world, _| {
        let bit = 0x07ff_f000 / 4096;
        world.write(chunk + 16, &0x1000_0000_u64.to_le_bytes());
        world.write(bitmap(world) + bit / 8, &[1 << (bit % 8)]);
    });
    let said = complaints(&world.inspect());
    assert!(said.iter().any(|line| line.contains("lie outside memory")), "{said:?}");
    // A page of the tracker that is preserved.
    let world = changed_of("6.19.6", |world, _| {
        let bit = chunk / 4096;
        let at = bitmap(world) + bit / 8;
        let old = world.read(at).to_le_bytes()[0];
        world.write(at, &[old | 1 << (bit % 8)]);
    });
    found(&world, chunk, "preserved-memory-map", "a page of the memory map is preserved");
    // The head of a large block, preserved once more as a page.
    let folio =
        World::new("6.19.6").inspect().owned.iter().find(|run| run.pages > 500).expect("2 MiB").pfn.raw();
    let world = changed_of("6.19.6", |world, _| {
        let at = bitmap(world) + folio / 8;
        let old = world.read(at).to_le_bytes()[0];
        world.write(at, &[old | 1 << (folio % 8)]);
    });
    found(&world, folio * 4096, "preserved-memory-map", "is preserved twice");
}

#[test]
fn the_orchestrators_structure() {
    let at = luo(&World::new("7.3.4").inspect().report).at.0.raw();
    let world = changed(|world, _| world.write(at, b"luo-v4"));
    found(&world, at, "luo.compatible", "'luo-v4' is not known");
    let world = changed(|world, _| world.word(at + 16, 0x1234));
    found(&world, 0x1234, "luo.sessions", "is not the address of a page");
    let world = changed(|world, _| world.word(at + 16, 0x100_0000));
    found(&world, 0x100_0000, "luo.sessions", "is not preserved");
    let flbs = raw(luo(&World::new("7.3.4").inspect().report).flbs_at);
    let world = changed(|world, _| world.word(flbs + 8, 64));
    found(&world, flbs, "luo.flbs", "64 objects");
    let world = changed(|world, _| world.write(flbs + 16, &[b'x'; 48]));
    found(&world, flbs, "luo.flb[0]", "does not end with a NUL");
}

#[test]
fn chains_of_blocks() {
    let report = World::new("7.3.4").inspect().report;
    let head = raw(luo(&report).sessions_at);
    for count in [0, 52] {
        let world = changed(|world, _| world.word(head + 8, count));
        found(&world, head, "luo.sessions.count", &format!("block 0 has {count} records"));
    }
    let world = changed(|world, _| world.word(head, head));
    found(&world, head, "luo.sessions", "is used twice: also by luo.sessions");
    let session = &luo(&report).sessions[0];
    let world = changed(|world, _| world.word(session.at.0.raw() + 72, 9));
    found(&world, session.at.0.raw(), "session[0].count", "says 9 files, its blocks have 3");
    let world = changed(|world, _| world.word(session.at.0.raw() + 64, 0));
    found(&world, session.at.0.raw(), "session[0].count", "says 3 files and leads to none");
    let other = raw(luo(&report).sessions[1].files_at);
    let world = changed(|world, _| world.word(session.at.0.raw() + 64, other));
    found(&world, other, "session[1].files", "is used twice: also by session[0].files");
}

#[test]
fn arrays() {
    let report = World::new("6.19.6").inspect().report;
    let area = raw(luo(&report).sessions_at);
    let world = changed_of("6.19.6", |world, _| world.word(area, 820));
    found(&world, area, "luo.sessions.count", "820 sessions: the area holds 819");
    let session = luo(&report).sessions[0].at.0.raw();
    let world = changed_of("6.19.6", |world, _| world.word(session + 72, 129));
    found(&world, session, "session[0].count", "129 files: the array holds 128");
    let world = changed_of("6.19.6", |world, _| world.word(session + 64, 0x770_0000));
    found(&world, 0x770_0000, "session[0].files", "is not preserved");
}

#[test]
fn names_and_tokens() {
    let report = World::new("7.3.4").inspect().report;
    let sessions = &luo(&report).sessions;
    let (first, second) = (sessions[0].at.0.raw(), sessions[1].at.0.raw());
    let world = changed(|world, _| world.write(second, b"alpha\0"));
    found(&world, second, "session[1].name", "session[0] has the same name");
    let world = changed(|world, _| world.write(first, &[b'n'; 64]));
    found(&world, first, "session[0].name", "does not end with a NUL");
    let token = file(&report, 0, 0).token;
    let record = file(&report, 0, 1).at.0.raw();
    let world = changed(|world, _| world.word(record + 56, token));
    found(&world, record, "session[0].file[1].token", "file[0] of the session has the same token");
    let world = changed(|world, _| world.write(record, &[b'h'; 48]));
    found(&world, record, "session[0].file[1].compatible", "does not end with a NUL");
    let world = changed(|world, _| world.write(record, b"vfio-v1\0"));
    found(
        &world,
        record,
        "session[0].file[1].compatible",
        "no handler of a stock kernel is named \"vfio-v1\"",
    );
    let world = changed(|world, _| world.word(record + 48, 0));
    found(&world, record, "session[0].file[1].data", "leads to no structure");
}

#[test]
fn states_of_files() {
    let report = World::new("7.3.4").inspect().report;
    let state = file(&report, 0, 0).data.0.raw();
    for (offset, value, field, what) in [
        (16, 0x40, "seals", "unknown seals 0x40"),
        (16, 7 << 32, "flags", "flags 0x7"),
        (8, 1 << 63, "size", "no file has"),
        (0, u64::MAX, "pos", "negative position"),
        (24, 300, "nr_folios", "300 folios need 2 pages of table, and there are 1"),
    ] {
        let world = changed(|world, _| world.word(state + offset, value));
        found(&world, state, &format!("session[0].file[0].{field}"), what);
    }
    let world = changed(|world, _| world.write(state + 40, &2u32.to_le_bytes()));
    found(&world, state, "session[0].file[0].folios", "the chunks list 1 pages, the descriptor says 2");
    let chunk = raw(file(&report, 0, 0).memfd.as_ref().expect("a memory file").table_at);
    let world = changed(|world, _| world.word(chunk, chunk));
    found(&world, chunk, "session[0].file[0].folios", "is used twice");
    let other = file(&report, 0, 2).data.0.raw();
    let record = file(&report, 0, 0).at.0.raw();
    let world = changed(|world, _| world.word(record + 48, other));
    found(&world, other, "session[0].file[2].data", "is used twice: also by session[0].file[0].data");
}

#[test]
fn folios() {
    let report = World::new("7.3.4").inspect().report;
    let memfd = file(&report, 1, 0).memfd.as_ref().expect("a memory file");
    let world = World::new("7.3.4");
    // The first page of the table, from the first entry of the chunk.
    let table = world.read(raw(memfd.table_at) + 8);
    let field = "session[1].file[0].folio";
    let entries: Vec<(u64, u64)> =
        (0..3).map(|entry| (world.read(table + 16 * entry), world.read(table + 16 * entry + 8))).collect();
    let flags = 3 << 52;
    let world = changed(|world, _| world.word(table, 0x100 | flags));
    found(&world, table, field, "frame 0x100 is not preserved");
    let large = entries.iter().position(|(word, _)| {
        let pfn = word & ((1 << 52) - 1);
        pfn % 8 == 0
    });
    let large = large.expect("an order-3 folio") as u64;
    let (word, index) = entries[usize::try_from(large).expect("few")];
    let world = changed(|world, _| world.word(table + 16 * large, word + 1));
    found(&world, table + 16 * large, field, "not its head");
    let world = changed(|world, _| world.word(table + 16 * large + 8, index + 1));
    found(&world, table + 16 * large, field, "is not aligned");
    let world = changed(|world, _| world.word(table + 16 * large + 8, 1 << 40));
    found(&world, table + 16 * large, field, "the folio is at page 1099511627776 of a file of 11 pages");
    let world = changed(|world, _| world.word(table, entries[0].0 | 1 << 60));
    found(&world, table, field, "unknown flags");
    let world = changed(|world, _| world.word(table + 24, entries[0].1));
    let said = complaints(&world.inspect());
    assert!(
        said.iter().any(|line| line.contains("is in two folios") || line.contains("is not aligned")),
        "{said:?}"
    );
    // The same folio twice.
    let world = changed(|world, _| world.word(table + 16, entries[0].0));
    let said = complaints(&world.inspect());
    assert!(
        said.iter().any(|line| line.contains("is used twice: also by session[1].file[0].contents")),
        "{said:?}"
    );
}

#[test]
fn a_hole_is_counted_and_reads_as_zeros() {
    let report = World::new("7.3.4").inspect().report;
    let memfd = file(&report, 0, 2).memfd.as_ref().expect("a memory file");
    let world = changed(|world, _| {
        let table = world.read(raw(memfd.table_at) + 8);
        world.word(table, 0);
    });
    let report = world.inspect().report;
    let memfd = file(&report, 0, 2).memfd.as_ref().expect("a memory file");
    assert!(memfd.holes > 0 && report.map.expect("a map").unowned_blocks == 1);
}

#[test]
fn scratch_areas() {
    let world = World::new("7.3.4");
    let array = world.hints.scratch.expect("known").0.raw();
    let first = world.read(array);
    let world = changed(|world, _| world.word(array, first + 1));
    found(&world, first + 1, "scratch[0]", "not made of whole pages");
    let second = world.read(array + 16);
    let world = changed(|world, _| world.word(array, second));
    let said = complaints(&world.inspect());
    assert!(said.iter().any(|line| line.contains("overlaps another one")), "{said:?}");
    let world = changed(|world, _| world.word(array, 1 << 40));
    found(&world, 1 << 40, "scratch[0]", "do not lie in memory");
}

#[test]
fn metadata_that_readers_ignore() {
    let at = World::new("7.3.4").inspect().report.metadata.expect("there is some").at.0.raw();
    let world = changed(|world, _| world.write(at, &[2]));
    found(&world, at, "kexec-metadata", "version 2 is not known");
    let world = changed(|world, _| world.write(at + 4, &[b'x'; 65]));
    found(&world, at, "kexec-metadata", "does not end with a NUL");
}

#[test]
fn versions_from_between_releases() {
    // kho-v2 had no blob sizes; that they are there does no harm.
    let mut world = World::new("7.1.13");
    let root = world.hints.root.expect("the manifest says it").raw();
    let at = (root..root + 4096).find(|at| world.read(*at).to_le_bytes().starts_with(b"kho-v3")).expect("it");
    world.write(at + 5, b"2");
    let inspection = world.inspect();
    assert_eq!(complaints(&inspection), Vec::<String>::new());
    assert_eq!(luo(&inspection.report).sessions.len(), 3);
    for version in ["luo-v2", "luo-v3", "luo-v4"] {
        let at = luo(&World::new("7.3.4").inspect().report).at.0.raw();
        let world = changed(|world, _| world.write(at, version.as_bytes()));
        found(&world, at, "luo.compatible", &format!("'{version}' is not known: the kernel panics"));
    }
}

#[test]
fn a_luo_tree_without_its_nodes() {
    let mut world = World::new("7.1.13");
    let tree = luo(&world.inspect().report).at.0.raw();
    let bytes: Vec<u8> = (tree..tree + 4096)
        .map(|at| world.read(at & !7).to_le_bytes()[usize::try_from(at & 7).expect("below 8")])
        .collect();
    let at = bytes.windows(12).position(|bytes| bytes == b"luo-session\0").expect("the node") as u64;
    world.write(tree + at, b"luo-sessiom\0");
    found(&world, tree, "luo.luo-session", "there is no node 'luo-session': the kernel panics");
    assert!(
        world.inspect().report.map.expect("a map").unowned_blocks > 0,
        "what hangs on it belongs to nobody"
    );
}
