//! The bytes, read back by hand: the trackers' worked examples and the root tree.

use luosim_abi::release::ReleaseId;
use luosim_kho::fdt::Tree;
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, PhysMem};

use crate::world::{MIB, World, cold, order, pa, pfn};

fn root(memory: &PhysMem, fdt: PhysAddr) -> Tree {
    Tree::read(memory, fdt, PAGE_SIZE).unwrap()
}

fn preserve(world: &mut World, blocks: &[(u64, u32)]) {
    for (at, raw) in blocks {
        world.kho.preserve_folio(&mut world.ram, pa(*at).pfn(), order(*raw)).unwrap();
    }
}

fn word(memory: &PhysMem, page: u64, index: u64) -> u64 {
    memory.read_u64(pa(page + 8 * index)).unwrap()
}

fn bit(memory: &PhysMem, page: u64, byte: u64, bit: u32) -> bool {
    let mut buf = [0];
    memory.read(pa(page + byte), &mut buf).unwrap();
    buf[0] >> bit & 1 == 1
}

/// (order, first address, bitmap page) of every bitmap, in the order of the list.
fn bitmaps(memory: &PhysMem, map: u64) -> Vec<(u64, u64, u64)> {
    let mut found = Vec::new();
    let mut chunk = map;
    while chunk != 0 {
        let header = word(memory, chunk, 1);
        for entry in 0..header >> 32 {
            let at = 2 + 2 * entry;
            found.push((header & 0xffff_ffff, word(memory, chunk, at), word(memory, chunk, at + 1)));
        }
        chunk = word(memory, chunk, 0);
    }
    found
}

#[test]
fn v1_bitmaps_hold_the_worked_examples() {
    let mut world = cold(ReleaseId::V6_19, 6 << 30);
    let blocks = [(0x1000, 0), (0x800_0000, 0), (0x1_2345_6000, 0), (0x4000_0000, 9), (0x8000_0000, 10)];
    preserve(&mut world, &blocks);
    let (memory, params) = world.leave();
    let map = root(&memory, params.fdt).root().u64("preserved-memory-map").unwrap();
    let found = bitmaps(&memory, map);
    let starts: Vec<(u64, u64)> = found.iter().map(|(order, start, _)| (*order, *start)).collect();
    assert_eq!(starts, [(0, 0), (0, 0x800_0000), (0, 0x1_2000_0000), (9, 0), (10, 0)]);
    let bits = [(0x000, 1), (0x000, 0), (0x68a, 6), (0x040, 0), (0x040, 0)];
    for ((.., page), (byte, at)) in found.iter().zip(bits) {
        assert!(bit(&memory, *page, byte, at), "byte {byte:#x} bit {at} of {page:#x}");
    }
}

#[test]
fn v1_bitmaps_beyond_255_go_on_in_another_chunk() {
    let mut world = cold(ReleaseId::V6_19, 40 << 30);
    let blocks: Vec<(u64, u32)> = (0..260).map(|index| (0x200_0000 + (index << 27), 0)).collect();
    let (before, after) = blocks.split_at(32);
    preserve(&mut world, before);
    preserve(&mut world, after);
    world.kho.preserve_folio(&mut world.ram, pfn(512), order(9)).unwrap();
    let (memory, params) = world.leave();
    let map = root(&memory, params.fdt).root().u64("preserved-memory-map").unwrap();
    let chunks: Vec<u64> =
        std::iter::successors(Some(map), |at| Some(word(&memory, *at, 0)).filter(|next| *next != 0))
            .collect();
    let used: Vec<(u64, u64)> =
        chunks.iter().map(|at| (word(&memory, *at, 1) & 0xffff_ffff, word(&memory, *at, 1) >> 32)).collect();
    assert_eq!(used, [(0, 255), (0, 5), (9, 1)]);
    let next = crate::world::boot(memory, crate::world::config(ReleaseId::V6_19), Some(params));
    assert!(blocks.iter().all(|(at, _)| next.ram.frames.preserved_order(pa(*at).pfn()).is_some()));
}

#[test]
fn v1_emits_bitmaps_that_were_emptied() {
    let mut world = cold(ReleaseId::V6_19, 64 * MIB);
    preserve(&mut world, &[(0x100_0000, 3)]);
    world.kho.unpreserve_folio(&mut world.ram, pfn(0x1000), order(3));
    let (memory, params) = world.leave();
    let map = root(&memory, params.fdt).root().u64("preserved-memory-map").unwrap();
    let found = bitmaps(&memory, map);
    assert_eq!(found.iter().map(|(order, ..)| *order).collect::<Vec<_>>(), [0, 3]);
    assert!(memory.is_filled_with(pa(found[1].2), PAGE_SIZE, 0).unwrap());
}

#[test]
fn v4_leaves_hold_the_worked_examples() {
    let mut world = cold(ReleaseId::V7_3, 6 << 30);
    // Address, order, the five table indices, byte and bit in the leaf.
    let examples = [
        (0x1000, 0, [2, 0, 0, 0, 0], 0x000, 1),
        (0x7ff_f000, 0, [2, 0, 0, 0, 0], 0xfff, 7),
        (0x800_0000, 0, [2, 0, 0, 0, 1], 0x000, 0),
        (0x1_0000_0000, 0, [2, 0, 0, 0, 32], 0x000, 0),
        (0x1_2345_6000, 0, [2, 0, 0, 0, 36], 0x68a, 6),
        (0x2000, 1, [1, 0, 0, 0, 0], 0x000, 1),
        (0x4000, 2, [0, 256, 0, 0, 0], 0x000, 1),
        (0x1_0000, 4, [0, 64, 0, 0, 0], 0x000, 1),
        (0x4000_0000, 9, [0, 2, 0, 0, 0], 0x040, 0),
        (0x4020_0000, 9, [0, 2, 0, 0, 0], 0x040, 1),
        (0x8000_0000, 10, [0, 1, 0, 0, 0], 0x040, 0),
        (0x4000_0000, 18, [0, 0, 2, 0, 0], 0x000, 1),
    ];
    for (at, raw, ..) in examples {
        preserve(&mut world, &[(at, raw)]);
    }
    let (memory, params) = world.leave();
    let map = root(&memory, params.fdt).root().u64("preserved-memory-map").unwrap();
    for (at, raw, path, byte, in_byte) in examples {
        let leaf = path.iter().fold(map, |table, index| word(&memory, table, *index));
        assert!(bit(&memory, leaf, byte, in_byte), "{at:#x} order {raw}");
    }
}

#[test]
fn v4_tree_of_two_orders_has_eleven_pages() {
    let mut world = cold(ReleaseId::V7_3, 2 << 30);
    preserve(&mut world, &[(0x1000, 0), (0x4000_0000, 9)]);
    assert_eq!(world.ram.frames.outstanding(FrameUse::Tracker), 11);
    world.kho.unpreserve_folio(&mut world.ram, pa(0x4000_0000).pfn(), order(9));
    assert_eq!(world.ram.frames.outstanding(FrameUse::Tracker), 11, "nodes are never freed");
}

#[test]
fn the_root_tree_has_the_measured_sizes_and_the_newest_subtree_first() {
    let mut world = cold(ReleaseId::V7_3, 64 * MIB);
    let total = |world: &mut World| {
        let fdt = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap().fdt;
        let word =
            |at: u64| u32::from_be(world.ram.mem.read_obj::<u32>(fdt.checked_add(at).unwrap()).unwrap());
        (word(0), word(4), word(8))
    };
    assert_eq!(total(&mut world), (0xd00d_feed, 233, 0x38), "with kexec-metadata");
    let blob = world.kho.alloc_preserve(&mut world.ram, 32, FrameUse::Luo).unwrap();
    world.kho.add_subtree(&mut world.ram, "LUO", blob, 32).unwrap();
    assert_eq!(total(&mut world), (0xd00d_feed, 285, 0x38));
    let fdt = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap().fdt;
    let tree = root(&world.ram.mem, fdt);
    let names: Vec<&str> = tree.root().children().map(|(name, _)| name).collect();
    assert_eq!(names, ["LUO", "kexec-metadata"]);
    let luo = tree.root().child("LUO").unwrap();
    assert_eq!((luo.u64("preserved-data"), luo.u64("blob-size")), (Some(blob.raw()), Some(32)));
}

#[test]
fn v1_subtrees_have_an_address_alone_and_the_map_is_0_until_finalised() {
    let mut world = cold(ReleaseId::V6_19, 64 * MIB);
    world.kho.add_subtree(&mut world.ram, "LUO", pa(0x20_0000), 300).unwrap();
    let fdt = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap().fdt;
    let tree = root(&world.ram.mem, fdt);
    assert_eq!(tree.root().u64("preserved-memory-map"), Some(0));
    let luo = tree.root().child("LUO").unwrap();
    assert_eq!((luo.u64("fdt"), luo.u64("blob-size")), (Some(0x20_0000), None));
    world.kho.finalize(&mut world.ram, &mut world.log).unwrap();
    assert_ne!(root(&world.ram.mem, fdt).root().u64("preserved-memory-map"), Some(0));
}

#[test]
fn metadata_lies_in_memory_as_73_bytes() {
    let world = cold(ReleaseId::V7_3, 64 * MIB).kexec();
    let found = world.kho.subtree("kexec-metadata").unwrap();
    let mut bytes = [0xff; 73];
    world.ram.mem.read(found.addr, &mut bytes).unwrap();
    assert_eq!(found.size, Some(73));
    assert_eq!((&bytes[..4], &bytes[69..]), (&[1, 0, 0, 0][..], &[1, 0, 0, 0][..]));
    assert_eq!(&bytes[4..10], b"7.3.4\0");
    assert!(bytes[10..69].iter().all(|byte| *byte == 0));
}
