//! Handover memory that no kernel wrote: boot ends, and what it hands out is consistent.

use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::release::ReleaseId;
use luosim_kho::fdt::{Node, Tree};
use luosim_kho::{BootParams, Handover};
use luosim_physmem::{FrameState, FrameUse, PAGE_SIZE, Pfn, PhysMem};
use proptest::prelude::*;

use crate::world::{EACH, MIB, World, boot, cold, config, order, pa, pfn};

const LEN: u64 = 16 * MIB;
/// Most lines that a boot may log, whatever it is given.
const LINES: usize = 32;

/// A handover with blocks of several orders, and the pages of its tracker.
fn handover(release: ReleaseId) -> (PhysMem, BootParams, Vec<u64>) {
    let mut world = cold(release, LEN);
    for (first, raw) in [(0x400, 0), (0x401, 0), (0x402, 1), (0x500, 4), (0x600, 9)] {
        world.kho.preserve_folio(&mut world.ram, pfn(first), order(raw)).unwrap();
    }
    world.kho.add_subtree(&mut world.ram, "LUO", pa(0x40_0000), 32).unwrap();
    world.kho.finalize(&mut world.ram, &mut world.log).unwrap();
    let params = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap();
    let frames = &world.ram.frames;
    let is_tracker = |page: &u64| {
        let head = matches!(frames.state(pfn(*page)), FrameState::AllocatedHead(_));
        head && frames.use_of(pfn(*page)) == FrameUse::Tracker
    };
    let tracker = (0..LEN / PAGE_SIZE).filter(is_tracker).map(|page| page * PAGE_SIZE).collect();
    (world.ram.into_mem(), params, tracker)
}

/// Uses everything a kernel could use of what it was given.
fn use_up(world: &mut World, area: Descriptor) -> Result<(), TestCaseError> {
    for name in ["LUO", "kexec-metadata", "kho_test", ""] {
        let _ = world.kho.subtree(name);
    }
    prop_assert!(world.log.lines.len() <= LINES, "{} lines", world.log.lines.len());
    let World { ram, kho, .. } = world;
    let _ = kho.restore_vmalloc(ram, &area);
    kho.restore_pages(ram, pfn(0x3ff), 16, FrameUse::Other);
    for page in 0..LEN / PAGE_SIZE {
        kho.restore_free(ram, pfn(page).addr());
    }
    let blob = kho.alloc_preserve(ram, 4096, FrameUse::Luo);
    prop_assert!(!kho.enabled() || blob.is_ok());
    let stats = ram.frames.stats();
    prop_assert_eq!(stats.free + stats.allocated + stats.preserved + stats.reserved, stats.total);
    Ok(())
}

/// Words that look like what belongs in a tracker.
fn word(tracker: Vec<u64>) -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => prop::sample::select(tracker),
        2 => (0..LEN / PAGE_SIZE).prop_map(|page| page * PAGE_SIZE),
        2 => (0u64..64, 0u64..300).prop_map(|(order, used)| order | used << 32),
        1 => prop::sample::select(vec![0, 1, LEN, LEN - 1, u64::MAX, !4095, 1 << 63]),
        1 => any::<u64>(),
    ]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    (0..LEN / PAGE_SIZE, any::<u32>(), any::<u16>(), 0u16..60).prop_map(|(page, total, flags, order)| {
        Descriptor {
            first: (page * PAGE_SIZE).into(),
            total_pages: (total % 70_000).into(),
            flags: flags.into(),
            order: order.into(),
        }
    })
}

/// Where words are written: (page of the tracker, word in it, value).
fn damage(release: ReleaseId) -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    let (_, _, tracker) = handover(release);
    let place = (prop::sample::select(tracker.clone()), prop_oneof![0u64..6, 0u64..512], word(tracker));
    prop::collection::vec(place, 0..24)
}

fn check_damaged(
    release: ReleaseId,
    damage: &[(u64, u64, u64)],
    area: Descriptor,
) -> Result<(), TestCaseError> {
    let (mut memory, params, _) = handover(release);
    for (page, index, value) in damage {
        memory.write_u64(pa(page + 8 * index), *value).unwrap();
    }
    use_up(&mut boot(memory, config(release), Some(params)), area)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_bitmaps(damage in damage(ReleaseId::V6_19), area in descriptor()) {
        check_damaged(ReleaseId::V6_19, &damage, area)?;
    }

    #[test]
    fn damaged_radix_trees(damage in damage(ReleaseId::V7_3), area in descriptor()) {
        check_damaged(ReleaseId::V7_3, &damage, area)?;
    }

    #[test]
    fn random_pages_of_the_tracker(which in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 4096), area in descriptor()) {
        for release in EACH {
            let (mut memory, params, tracker) = handover(release);
            memory.write(pa(*which.get(&tracker)), &bytes).unwrap();
            use_up(&mut boot(memory, config(release), Some(params)), area)?;
        }
    }

    #[test]
    fn damaged_root_trees(damage in prop::collection::vec((0u64..300, any::<u8>()), 0..8), area in descriptor()) {
        for release in EACH {
            let (mut memory, params, _) = handover(release);
            for (at, byte) in &damage {
                memory.write(params.fdt.checked_add(*at).unwrap(), &[*byte]).unwrap();
            }
            use_up(&mut boot(memory, config(release), Some(params)), area)?;
        }
    }

    #[test]
    fn damaged_scratch_arrays(damage in prop::collection::vec((0u64..6, any::<u64>(), 0u32..52), 1..6), area in descriptor()) {
        for release in EACH {
            let (mut memory, params, _) = handover(release);
            for (index, value, shift) in &damage {
                let at = params.scratch.checked_add(8 * index).unwrap();
                memory.write_u64(at, value >> shift & !4095).unwrap();
            }
            use_up(&mut boot(memory, config(release), Some(params)), area)?;
        }
    }

    #[test]
    fn parameters_that_point_anywhere(
        fdt in any::<u64>(), scratch in any::<u64>(), sizes in any::<(u64, u64)>(), shift in 0u32..56, area in descriptor(),
    ) {
        for release in EACH {
            let (memory, good, _) = handover(release);
            for params in [
                BootParams { fdt: pa(fdt >> shift), fdt_size: sizes.0, ..good },
                BootParams { scratch: pa(scratch >> shift), scratch_size: sizes.1 >> shift, ..good },
            ] {
                let copy = copy_of(&memory);
                use_up(&mut boot(copy, config(release), Some(params)), area)?;
            }
        }
    }

    #[test]
    fn trees_of_any_bytes(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), cut in any::<prop::sample::Index>(),
    ) {
        let child = Node::default().with_u64("blob-size", 73).with_u64("preserved-data", 0x1000);
        let root = Node::new("kho-v4").with_u64("preserved-memory-map", 1).with_child("a", child.clone());
        let mut blob = Tree::new(root.with_child("b", child)).to_blob();
        for (at, byte) in &damage {
            let at = at.index(blob.len());
            blob[at] = *byte;
        }
        let _ = Tree::parse(&blob);
        let _ = Tree::parse(&blob[..cut.index(blob.len())]);
    }
}

fn copy_of(memory: &PhysMem) -> PhysMem {
    let mut copy = PhysMem::anonymous(LEN).unwrap();
    let mut page = [0; 4096];
    for at in (0..LEN).step_by(4096) {
        memory.read(pa(at), &mut page).unwrap();
        if page.iter().any(|byte| *byte != 0) {
            copy.write(pa(at), &page).unwrap();
        }
    }
    copy
}

/// The held blocks of a handover whose root tree names a memory map made by `make`.
fn map_of(release: ReleaseId, make: impl FnOnce(&mut PhysMem)) -> World {
    let (mut memory, params, _) = handover(release);
    make(&mut memory);
    let root = Node::new(release.release().kho.compatible()).with_u64("preserved-memory-map", 0x40_0000);
    memory.write(params.fdt, &Tree::new(root).to_blob()).unwrap();
    let world = boot(memory, config(release), Some(params));
    assert!(matches!(world.kho.handover(), Handover::Accepted { .. }));
    assert!(world.log.lines.len() <= LINES);
    world
}

/// A chunk page at `at`.
fn chunk(memory: &mut PhysMem, at: u64, next: u64, order: u64, entries: &[(u64, u64)]) {
    memory.fill(pa(at), PAGE_SIZE, 0).unwrap();
    let used = u64::try_from(entries.len()).unwrap();
    let words = [next, order | used << 32];
    for (index, word) in
        (0..).zip(words.into_iter().chain(entries.iter().flat_map(|(start, map)| [*start, *map])))
    {
        memory.write_u64(pa(at + 8 * index), word).unwrap();
    }
}

#[test]
fn a_chain_of_chunks_in_a_circle_ends() {
    let world = map_of(ReleaseId::V6_19, |memory| {
        memory.fill(pa(0x40_2000), PAGE_SIZE, 0).unwrap();
        memory.write_u64(pa(0x40_2000), 0b11 << 32).unwrap();
        chunk(memory, 0x40_0000, 0x40_1000, 0, &[]);
        chunk(memory, 0x40_1000, 0x40_0000, 3, &[(0x50_0000, 0x40_2000)]);
    });
    assert_eq!(world.held().into_iter().collect::<Vec<_>>(), [(0x600, 3), (0x608, 3)]);
    assert!(world.log.contains("page 0x400000 of the memory map is used twice"));
}

#[test]
fn chunks_of_impossible_orders_are_skipped_and_the_chain_goes_on() {
    let world = map_of(ReleaseId::V6_19, |memory| {
        memory.fill(pa(0x40_2000), PAGE_SIZE, 0).unwrap();
        memory.write_u64(pa(0x40_2000), 1).unwrap();
        chunk(memory, 0x40_0000, 0x40_1000, 52, &[(0x50_0000, 0x40_2000)]);
        chunk(memory, 0x40_1000, 0, 51, &[(0, 0x40_2000)]);
    });
    assert!(world.held().is_empty());
    assert!(world.log.contains("chunk 0x400000 has blocks of order 52"));
    assert!(world.log.contains("1 blocks of order 51 from 0x0 on lie outside memory"));
}

#[test]
fn blocks_that_overlap_are_skipped_one_by_one() {
    let world = map_of(ReleaseId::V6_19, |memory| {
        for (map, bits) in [(0x40_2000, 0b1u64), (0x40_3000, 0b111)] {
            memory.fill(pa(map), PAGE_SIZE, 0).unwrap();
            memory.write_u64(pa(map), bits).unwrap();
        }
        chunk(memory, 0x40_0000, 0x40_1000, 1, &[(0x50_2000, 0x40_2000)]);
        chunk(memory, 0x40_1000, 0, 1, &[(0x50_0000, 0x40_3000)]);
    });
    assert_eq!(world.held().into_iter().collect::<Vec<_>>(), [(0x500, 1), (0x502, 1), (0x504, 1)]);
    assert!(world.log.contains("block of order 1 at 0x502 cannot be kept"));
}

#[test]
fn blocks_not_aligned_to_their_size_are_skipped() {
    let world = map_of(ReleaseId::V6_19, |memory| {
        memory.fill(pa(0x40_2000), PAGE_SIZE, 0xff).unwrap();
        let entries = [(0x50_0800, 0x40_3000), (0x50_1000, 0x40_2000)];
        chunk(memory, 0x40_0000, 0, 1, &entries);
    });
    assert!(world.held().is_empty());
    assert!(world.log.contains("bitmap 0x403000 is of blocks at 0x500800"));
    assert!(world.log.contains("more findings in the memory map"), "{:?}", world.log);
}

#[test]
fn a_table_that_is_its_own_child_ends() {
    let world = map_of(ReleaseId::V7_3, |memory| {
        for index in 0..512 {
            memory.write_u64(pa(0x40_0000 + 8 * index), 0x40_0000).unwrap();
        }
    });
    assert!(world.held().is_empty());
    assert!(world.log.contains("496 more findings in the memory map"), "{:?}", world.log);
}

/// A tree with one path to a leaf, by table indices from the root on.
fn path(memory: &mut PhysMem, indices: [u64; 5], leaf: [u64; 512]) {
    for (level, index) in (0..).zip(indices) {
        let table = 0x40_0000 + level * 0x1000;
        memory.fill(pa(table), PAGE_SIZE, 0).unwrap();
        memory.write_u64(pa(table + 8 * index), table + 0x1000).unwrap();
    }
    for (index, word) in (0..).zip(leaf) {
        memory.write_u64(pa(0x40_5000 + 8 * index), word).unwrap();
    }
}

#[test]
fn the_leaf_of_the_highest_orders_holds_keys_without_blocks() {
    // Keys 0 and 1 name nothing; keys 2 to 32767 are blocks of orders 51 to 38.
    let world = map_of(ReleaseId::V7_3, |memory| path(memory, [0; 5], [u64::MAX; 512]));
    assert!(world.held().is_empty());
    assert!(world.log.contains("key 0x0 names no block") && world.log.contains("key 0x1 names no block"));
    assert!(world.log.contains("blocks of order 51 from 0x0 on lie outside memory"));
}

#[test]
fn keys_above_53_bits_are_skipped() {
    let mut leaf = [0; 512];
    leaf[0] = 1;
    let world = map_of(ReleaseId::V7_3, |memory| path(memory, [511; 5], leaf));
    assert!(world.held().is_empty() && world.log.contains("names no block"));
}

#[test]
fn a_tracker_that_claims_all_memory_leaves_scratch_and_no_more() {
    let world = map_of(ReleaseId::V7_3, |memory| path(memory, [2, 0, 0, 0, 0], [u64::MAX; 512]));
    let stats = world.ram.frames.stats();
    assert_eq!((stats.free, stats.preserved), (0, stats.total - 8 * MIB / PAGE_SIZE));
    assert!(!world.kho.enabled(), "no page is left for the kernel's own tracker");
    assert_eq!(world.ram.frames.state(Pfn::new(0)), FrameState::PreservedHead(order(0)));
}
