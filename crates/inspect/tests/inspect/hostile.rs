//! Bytes that no kernel wrote: inspection ends, without panic, and says something of bounded length.

use luosim_inspect::{Hints, Inspection, Options, Owner, Source, inspect};
use luosim_physmem::PhysAddr;
use proptest::prelude::*;

use crate::world::{World, small};

/// Most findings a report may have.
const FINDINGS: usize = 1000;

/// First addresses of the pages with structures.
fn structures(inspection: &Inspection) -> Vec<u64> {
    let owned =
        inspection.owned.iter().filter(|run| !matches!(run.owner, Owner::Contents(..) | Owner::KhoTest));
    owned.flat_map(|run| (0..run.pages.min(16)).map(|page| (run.pfn.raw() + page) * 4096)).collect()
}

fn kernel() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["6.19.6", "7.1.13", "7.2.13", "7.3.4"])
}

/// Words that lead somewhere: pages with structures, plausible counts, extremes.
fn word(pages: Vec<u64>, size: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => prop::sample::select(pages),
        2 => (0..size / 4096).prop_map(|page| page * 4096),
        2 => 0u64..600,
        1 => prop::sample::select(vec![0, 1, size, size - 1, u64::MAX, !4095, 1 << 63, 1 << 52]),
        1 => any::<u64>(),
    ]
}

fn whole(inspection: &Inspection) -> Result<(), TestCaseError> {
    prop_assert!(inspection.report.findings.len() <= FINDINGS);
    for run in &inspection.owned {
        prop_assert!(run.pages > 0);
    }
    prop_assert!(serde_json::to_string(&inspection.report).is_ok());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_in_structures(kernel in kernel(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0u64..4096, 0u8..8), 1..12)) {
        let mut world = World::new(kernel);
        let pages = structures(&world.inspect());
        for (page, offset, bit) in flips {
            let at = page.get(&pages) + offset;
            let old = world.read(at & !7).to_le_bytes()[usize::try_from(at & 7).expect("below 8")];
            world.write(at, &[old ^ 1 << bit]);
        }
        whole(&world.inspect())?;
        whole(&world.inspect_at(Hints::default()))?;
    }

    #[test]
    fn words_that_lead_elsewhere(
        kernel in kernel(),
        (places, words) in Just(()).prop_flat_map(|()| {
            let world = World::new("7.3.4");
            let (pages, size) = (structures(&world.inspect()), world.size);
            let places = (any::<prop::sample::Index>(), prop_oneof![0u64..10, 0u64..512]);
            (prop::collection::vec(places, 1..24), prop::collection::vec(word(pages, size), 24))
        }),
    ) {
        let mut world = World::new(kernel);
        let pages = structures(&world.inspect());
        for ((page, offset), word) in places.into_iter().zip(words) {
            world.word(page.get(&pages) + 8 * offset, word);
        }
        whole(&world.inspect())?;
    }

    #[test]
    fn memory_of_nothing_but_plausible_words(words in prop::collection::vec((0u64..64 * 512, word((1..64).map(|page| page * 4096).collect(), 64 * 4096)), 64..2000)) {
        let world = World::new("7.3.4");
        let root = world.hints.root.expect("the manifest says it").raw();
        let tree: Vec<u64> = (0..64).map(|word| world.read(root + 8 * word)).collect();
        let map = world.inspect().report.root.expect("a root").map_at.expect("a map").0.raw();
        let map = tree.iter().position(|word| *word == map);
        let mut small = World::small(64 * 4096);
        for (at, word) in words {
            small.word(8 * at, word);
        }
        for (at, word) in (0..).zip(tree) {
            small.word(4096 + 8 * at, word);
        }
        if let Some(map) = map {
            small.word(4096 + 8 * map as u64, 2 * 4096);
        }
        whole(&small.inspect_at(Hints { root: Some(PhysAddr::new(4096)), scratch: Some((PhysAddr::new(8192), 64)) }))?;
        whole(&small.inspect_at(Hints::default()))?;
    }

    #[test]
    fn packed_files_that_are_damaged(kernel in kernel(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut bytes = std::fs::read(small(kernel).join("ram.zst")).expect("readable");
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("writable");
        if let Ok(source) = Source::open(file.path(), None) {
            whole(&inspect(source, &Options::default()))?;
        }
    }

    #[test]
    fn files_that_begin_like_something(
        head in prop::sample::select(vec![&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0"[..], b"\xd0\x0d\xfe\xed", b"luo-v5\0\0", b"luo-v", b"\x28\xb5\x2f\xfd", b""]),
        rest in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..6000),
    ) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [head, &rest].concat()).expect("writable");
        if let Ok(source) = Source::open(file.path(), None) {
            whole(&inspect(source, &Options { digest: true, ..Options::default() }))?;
        }
    }
}
