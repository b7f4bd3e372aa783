//! Every shipped release to every other: the whole matrix of what real kernels do, and the pairs that were measured.

use luosim_abi::release::RELEASES as KNOWN;
use luosim_preflight::{Arch, Boot, Formats, Layer, State, Survival, Verdict};

/// What the releases carry, said here again and independently of the table of releases: 6.16 and 6.17 are as 6.18.
fn formats(release: &str) -> Formats {
    let some = |text: &str| Some(text.to_owned());
    let kho_only = Formats {
        arch: Some(Arch::X86_64),
        page_size: Some(4096),
        kho: some("kho-v1"),
        memblock: some("memblock-v1"),
        ..Formats::default()
    };
    let tree = Formats {
        luo: some("luo-v1"),
        session: some("luo-session-v2"),
        handlers: vec![String::from("memfd-v1")],
        ..kho_only.clone()
    };
    let with_flb = Formats { flb: some("luo-flb-v1"), ..tree.clone() };
    let second = vec![String::from("memfd-v2")];
    match release {
        "6.16" | "6.17" | "6.18" => kho_only,
        "6.19" => tree,
        "7.0" => with_flb,
        "7.1" => Formats { kho: some("kho-v3"), handlers: second, ..with_flb },
        "7.2" | "7.3" => Formats {
            kho: some("kho-v4"),
            luo: some("luo-v5"),
            session: None,
            flb: None,
            handlers: second,
            ..tree
        },
        "7.4-dev" => Formats { luo: some("luo-v6"), ..formats("7.3") },
        "none" => Formats { arch: Some(Arch::X86_64), page_size: Some(4096), ..Formats::default() },
        other => panic!("{other}"),
    }
}

fn between(old: &str, new: &str) -> Verdict {
    Verdict::of(&formats(old), &formats(new))
}

fn state(verdict: &Verdict, layer: Layer) -> Option<State> {
    verdict.layers.iter().find(|finding| finding.layer == layer).map(|finding| finding.state)
}

/// Where the first refusal is.
fn refused(verdict: &Verdict) -> Option<Layer> {
    verdict.first_refusal().map(|finding| finding.layer)
}

/// A row for each old release, a column for each new one, both in this order.
const RELEASES: [&str; 6] = ["6.18", "6.19", "7.0", "7.1", "7.2", "7.3"];

/// What happens, in a letter. `w` everything is taken over; `k` KHO alone works; `f` the handover too, and the orchestrator starts afresh; `r`
/// refused at the KHO root; `l` the orchestrator's entry is ignored; `p` panic; `i` works, FLBs are ignored.
const MATRIX: [&str; 6] = [
    "k f f r r r", // 6.18
    "l w p r r r", // 6.19
    "l i w r r r", // 7.0
    "r r r w r r", // 7.1
    "r r r r w w", // 7.2
    "r r r r w w", // 7.3
];

#[test]
fn the_table_of_releases_has_these_strings() {
    for release in KNOWN {
        assert_eq!(Formats::of_release(release), formats(release.name), "{}", release.name);
    }
    assert_eq!(KNOWN.len(), 8);
    for (old, new) in [("6.16", "6.18"), ("6.17", "6.19"), ("6.16", "7.1")] {
        assert_eq!(between(old, new), between("6.18", new), "{old} to {new}");
    }
}

#[test]
fn every_cell_of_the_matrix() {
    for (old, row) in RELEASES.iter().zip(MATRIX) {
        for (new, cell) in RELEASES.iter().zip(row.split(' ')) {
            let verdict = between(old, new);
            let expected = match cell {
                "w" | "f" | "i" => (Survival::All, Boot::Handover, None),
                "k" => (Survival::All, Boot::LuoOff, None),
                "r" => (Survival::Nothing, Boot::Cold, Some(Layer::KhoRoot)),
                "l" => (Survival::Part, Boot::LuoOff, Some(Layer::LuoEntry)),
                "p" => (Survival::Nothing, Boot::Panic, Some(Layer::Flb)),
                other => panic!("{other}"),
            };
            let pair = format!("{old} to {new}: {verdict:#?}");
            assert_eq!((verdict.survives, verdict.boot, refused(&verdict)), expected, "{pair}");
            assert_eq!(state(&verdict, Layer::Flb) == Some(State::Ignored), cell == "i", "{pair}");
            let fresh = state(&verdict, Layer::LuoEntry) == Some(State::Absent);
            assert_eq!(fresh, matches!(cell, "f" | "k"), "{pair}");
            for finding in &verdict.layers {
                assert!(finding.state != State::Refused || !finding.text.is_empty(), "{pair}");
            }
        }
    }
}

/// The pairs of which somebody has seen the second kernel: old, new, whether the first file of the first session came
/// back, whether the second kernel had the device.
const MEASURED: &[(&str, &str, bool, bool)] = &[
    ("6.19", "6.19", true, true),
    ("6.19", "7.1", false, true),
    ("6.19", "7.2", false, true),
    ("6.19", "7.3", false, true),
    ("7.1", "6.19", false, true),
    ("7.1", "7.1", true, true),
    ("7.1", "7.2", false, true),
    ("7.1", "7.3", false, true),
    ("7.2", "6.19", false, true),
    ("7.2", "7.1", false, true),
    ("7.2", "7.2", true, true),
    ("7.2", "7.3", true, true),
    ("7.3", "6.19", false, true),
    ("7.3", "7.1", false, true),
    ("7.3", "7.2", true, true),
    ("7.3", "7.3", true, true),
    ("7.3", "6.18", false, false),
    ("6.19", "6.18", false, false),
];

#[test]
fn what_was_measured_is_what_is_said() {
    for (old, new, came_back, device) in MEASURED {
        let verdict = between(old, new);
        let files =
            state(&verdict, Layer::Handler) == Some(State::Accepted) && verdict.boot == Boot::Handover;
        assert_eq!(files, *came_back, "{old} to {new}");
        // Without the orchestrator there is no device, whatever was handed over.
        assert_eq!(formats(new).luo.is_some(), *device, "{old} to {new}");
        let taken_over = matches!(verdict.boot, Boot::Handover | Boot::LuoOff);
        let found = *came_back || (*old, *new) == ("6.19", "6.18");
        assert_eq!(taken_over, found, "{old} to {new}: did the second kernel find the handover?");
    }
    assert_eq!(MEASURED.len(), 18);
}

#[test]
fn without_kho_nothing_crosses() {
    for (old, new) in [("none", "7.3"), ("7.3", "none"), ("none", "none")] {
        let verdict = between(old, new);
        assert_eq!((verdict.survives, verdict.boot), (Survival::Nothing, Boot::Cold));
        assert_eq!(refused(&verdict), Some(Layer::BootParameters));
        assert_eq!(state(&verdict, Layer::KhoRoot), Some(State::NotReached));
    }
}

#[test]
fn development_snapshots_panic() {
    let mut snapshot = formats("7.3");
    for luo in ["luo-v3", "luo-v4"] {
        snapshot.luo = Some(luo.to_owned());
        for verdict in [Verdict::of(&snapshot, &formats("7.3")), Verdict::of(&formats("7.2"), &snapshot)] {
            assert_eq!((verdict.survives, verdict.boot), (Survival::Nothing, Boot::Panic));
            assert_eq!(refused(&verdict), Some(Layer::LuoRoot));
            assert_eq!(state(&verdict, Layer::Sessions), Some(State::NotReached));
        }
    }
    assert_eq!(between("7.3", "7.4-dev").boot, Boot::Panic);
}

#[test]
fn other_nodes_of_a_tree_panic_too() {
    let mut other = formats("7.1");
    other.session = Some(String::from("luo-session-v3"));
    assert_eq!(refused(&Verdict::of(&formats("7.1"), &other)), Some(Layer::Sessions));
    let mut other = formats("7.1");
    other.flb = Some(String::from("luo-flb-v2"));
    assert_eq!(refused(&Verdict::of(&formats("7.1"), &other)), Some(Layer::Flb));
}

#[test]
fn lists_of_entries_become_refusals_of_handlers() {
    let mut old = formats("7.3");
    old.handlers.push(String::from("vfio-pci-v1"));
    let verdict = Verdict::of(&old, &formats("7.3"));
    assert_eq!((verdict.survives, verdict.boot), (Survival::Part, Boot::Handover));
    let finding = verdict.first_refusal().unwrap();
    assert_eq!((finding.layer, finding.old.as_deref()), (Layer::Handler, Some("vfio-pci-v1")));
    assert!(finding.text.contains("EIO"));
    let mut new = formats("6.19");
    new.handlers.clear();
    let verdict = Verdict::of(&formats("6.19"), &new);
    assert_eq!(verdict.survives, Survival::Part, "the sessions themselves are there");
    assert!(verdict.first_refusal().unwrap().text.contains("behind them"));
}

#[test]
fn another_version_of_a_handler_is_shown_beside_it() {
    let mut new = formats("7.3");
    new.handlers = vec![String::from("memfd-v3")];
    let verdict = Verdict::of(&formats("7.3"), &new);
    let finding = verdict.first_refusal().unwrap();
    assert_eq!((finding.old.as_deref(), finding.new.as_deref()), (Some("memfd-v2"), Some("memfd-v3")));
}

#[test]
fn objects_need_somebody_who_asks_for_them() {
    let mut old = formats("7.0");
    old.flbs = vec![String::from("liveupdate-test-flb-v0")];
    assert_eq!(Verdict::of(&old, &old).survives, Survival::All);
    let verdict = Verdict::of(&old, &formats("7.0"));
    assert_eq!((verdict.survives, refused(&verdict)), (Survival::Part, Some(Layer::FlbObject)));
    assert_eq!(Verdict::of(&old, &formats("6.19")).survives, Survival::Part);
}

#[test]
fn regions_survive_where_their_subtree_is_read() {
    let mut new = formats("7.3");
    new.memblock = None;
    let verdict = Verdict::of(&formats("7.3"), &new);
    assert_eq!((verdict.survives, refused(&verdict)), (Survival::Part, Some(Layer::ReserveMem)));
    // With nothing to hand over but sessions, an orchestrator that is missing leaves nothing.
    let mut old = formats("6.19");
    old.memblock = None;
    assert_eq!(Verdict::of(&old, &formats("6.18")).survives, Survival::Nothing);
}

#[test]
fn machines_must_be_alike() {
    let mut other = formats("7.3");
    other.arch = Some(Arch::Arm64);
    let verdict = Verdict::of(&formats("7.3"), &other);
    assert_eq!((verdict.survives, verdict.boot), (Survival::Nothing, Boot::NotLoaded));
    let mut large = other.clone();
    (other.page_size, large.page_size) = (Some(4096), Some(65536));
    let verdict = Verdict::of(&other, &large);
    assert_eq!((verdict.survives, verdict.boot), (Survival::Nothing, Boot::Undefined));
    assert_eq!(Verdict::of(&large, &large).survives, Survival::All);
    large.page_size = None;
    let verdict = Verdict::of(&other, &large);
    assert_eq!(verdict.survives, Survival::All);
    assert!(verdict.notes.iter().any(|note| note.contains("page size")), "{:?}", verdict.notes);
}

#[test]
fn a_kernel_without_luo_is_finalised_by_hand() {
    let noted = |old: &str, new: &str| between(old, new).notes.iter().any(|note| note.contains("finalize"));
    assert!(noted("6.18", "6.18") && noted("6.18", "7.0"));
    assert!(!noted("6.18", "7.3") && !noted("6.19", "6.19") && !noted("7.3", "7.3"));
}
