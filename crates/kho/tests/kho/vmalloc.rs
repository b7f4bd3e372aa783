//! Virtually contiguous areas.

use luosim_abi::Errno;
use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::release::ReleaseId;
use luosim_physmem::{FrameUse, Order, PhysAddr};

use crate::world::{EACH, MIB, World, cold, order, pa, pfn};

/// `blocks` allocated blocks, each marked with its number.
fn pages(world: &mut World, blocks: u64, order: Order) -> Vec<PhysAddr> {
    (0..blocks)
        .map(|number| {
            let page = world.ram.alloc_zeroed(order, FrameUse::Other).unwrap().addr();
            world.ram.mem.write_u64(page, number).unwrap();
            page
        })
        .collect()
}

fn chunks(world: &World, area: &Descriptor) -> Vec<(u64, Vec<u64>)> {
    let mut found = Vec::new();
    let mut at = area.first.get();
    while at != 0 {
        let words: Vec<u64> =
            (1..512).map(|index| world.ram.mem.read_u64(pa(at + 8 * index)).unwrap()).collect();
        found.push((at, words));
        at = world.ram.mem.read_u64(pa(at)).unwrap();
    }
    found
}

#[test]
fn a_full_chunk_is_followed_by_another_even_an_empty_one() {
    for release in EACH {
        for (blocks, expected) in [(0, 1), (1, 1), (510, 1), (511, 2), (512, 2), (1022, 3)] {
            let mut world = cold(release, 64 * MIB);
            let list = pages(&mut world, blocks, Order::ZERO);
            let area = world.kho.preserve_vmalloc(&mut world.ram, &list, 1, Order::ZERO).unwrap();
            assert_eq!(
                (u64::from(area.total_pages.get()), area.flags.get(), area.order.get()),
                (blocks, 1, 0)
            );
            let found = chunks(&world, &area);
            assert_eq!(found.len(), expected, "{blocks} blocks");
            let listed: Vec<u64> = found.iter().flat_map(|(_, words)| words).copied().collect();
            let (used, rest) = listed.split_at(list.len());
            assert!(used.iter().zip(&list).all(|(word, page)| *word == page.raw()));
            assert!(rest.iter().all(|word| *word == 0));

            let mut next = world.kexec();
            assert!(found.iter().all(|(chunk, _)| next.held().contains(&(chunk >> 12, 0))));
            let restored = next.kho.restore_vmalloc(&mut next.ram, &area).unwrap();
            assert_eq!(restored, list);
            assert!((0..).zip(&restored).all(|(number, page)| next.ram.mem.read_u64(*page) == Ok(number)));
            assert_eq!(next.ram.frames.outstanding(FrameUse::FolioTable), blocks, "the chunks are freed");
            assert!(found.iter().all(|(chunk, _)| !next.held().contains(&(chunk >> 12, 0))));
        }
    }
}

#[test]
fn entries_may_cover_larger_blocks() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let list = pages(&mut world, 3, order(4));
        let area = world.kho.preserve_vmalloc(&mut world.ram, &list, 2, order(4)).unwrap();
        assert_eq!((area.total_pages.get(), area.order.get()), (48, 4));
        let mut next = world.kexec();
        assert_eq!(next.kho.restore_vmalloc(&mut next.ram, &area), Ok(list.clone()));
        assert_eq!(next.ram.free(list[0].pfn()), Ok(order(4)));
    }
}

#[test]
fn giving_back_leaves_nothing_and_the_pages_with_their_owner() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let list = pages(&mut world, 600, Order::ZERO);
        let tally = world.kho.tally().unwrap().clone();
        let area = world.kho.preserve_vmalloc(&mut world.ram, &list, 1, Order::ZERO).unwrap();
        assert_eq!(world.ram.frames.outstanding(FrameUse::FolioTable), 2);
        assert_eq!(world.kho.unpreserve_vmalloc(&mut world.ram, &area), list);
        assert_eq!(world.kho.tally().unwrap(), &tally);
        assert_eq!(world.ram.frames.outstanding(FrameUse::FolioTable), 0);
    }
}

#[test]
fn a_failure_takes_back_what_was_done_and_nothing_else() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let World { ram, kho, .. } = &mut world;
        let list = [pa(0x100_0000), kho.scratch()[0].addr, pa(0x200_0000)];
        kho.preserve_folio(ram, list[2].pfn(), Order::ZERO).unwrap();
        let before = kho.tally().unwrap().clone();
        let refusal = kho.preserve_vmalloc(ram, &list, 1, Order::ZERO).unwrap_err();
        assert_eq!(refusal.errno, Errno::EINVAL);
        assert_eq!(kho.tally().unwrap(), &before, "what another had preserved stays");
        assert_eq!(kho.preserve_vmalloc(ram, &[], 4, Order::ZERO).unwrap_err().errno, Errno::EOPNOTSUPP);
        let huge = kho.preserve_vmalloc(ram, &list[..1], 2, order(32)).unwrap_err();
        assert_eq!(huge.errno, Errno::EINVAL);
    }
}

/// A handed-over area of 600 pages, to be damaged.
fn handed_over(release: ReleaseId) -> (World, Descriptor, Vec<PhysAddr>) {
    let mut world = cold(release, 64 * MIB);
    let list = pages(&mut world, 600, Order::ZERO);
    let area = world.kho.preserve_vmalloc(&mut world.ram, &list, 1, Order::ZERO).unwrap();
    (world.kexec(), area, list)
}

#[test]
fn an_area_that_does_not_add_up_is_refused_and_leaks_no_page_that_was_handed_out() {
    type Damage = fn(&mut World, &mut Descriptor, &[PhysAddr]);
    let damages: [(&str, Damage); 9] = [
        ("no chunk", |_, area, _| area.first.set(0)),
        ("a chunk outside memory", |_, area, _| area.first.set(!4095)),
        ("a chunk that is no page", |_, area, _| area.first.set(area.first.get() + 8)),
        ("one page too many", |_, area, _| area.total_pages.set(601)),
        ("one page too few", |_, area, _| area.total_pages.set(599)),
        ("another order", |_, area, _| area.order.set(1)),
        ("no order", |_, area, _| area.order.set(52)),
        ("a page listed twice", |world, area, list| {
            world.ram.mem.write_u64(pa(area.first.get() + 16), list[0].raw()).unwrap();
        }),
        ("a cycle", |world, area, _| {
            world.ram.mem.write_u64(pa(area.first.get()), area.first.get()).unwrap();
        }),
    ];
    for release in EACH {
        for (what, damage) in damages {
            let (mut world, mut area, list) = handed_over(release);
            let allocated = world.ram.frames.stats().allocated;
            damage(&mut world, &mut area, &list);
            let refusal = world.kho.restore_vmalloc(&mut world.ram, &area).unwrap_err();
            assert_eq!(refusal.errno, Errno::EINVAL, "{what}: {refusal}");
            assert_eq!(world.ram.frames.stats().allocated, allocated, "{what}");
        }
    }
}

#[test]
fn unknown_flags_of_an_incoming_area_are_ignored() {
    let (mut world, mut area, list) = handed_over(ReleaseId::V7_3);
    area.flags.set(0xfff0);
    assert_eq!(world.kho.restore_vmalloc(&mut world.ram, &area), Ok(list));
}

#[test]
fn a_chunk_that_6_19_cannot_restore_ends_the_walk() {
    // A chunk at the head of a block of order 11, linked to itself: it is there, but is never consumed.
    let mut world = cold(ReleaseId::V6_19, 64 * MIB);
    world.kho.preserve_folio(&mut world.ram, pfn(0x1000), order(11)).unwrap();
    world.ram.mem.write_u64(pa(0x100_0000), 0x100_0000).unwrap();
    let mut next = world.kexec();
    let area =
        Descriptor { first: 0x100_0000.into(), total_pages: 1.into(), flags: 1.into(), order: 0.into() };
    let refusal = next.kho.restore_vmalloc(&mut next.ram, &area).unwrap_err();
    assert!(refusal.reason.contains("is not preserved"), "{refusal}");
}
