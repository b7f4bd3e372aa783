//! Handing preserved blocks out: at the head, once, and as what they were.

use luosim_abi::release::ReleaseId;
use luosim_physmem::{FrameState, FrameUse, Order};

use crate::world::{EACH, MIB, World, cold, order, pa, pfn};

fn preserved(release: ReleaseId, first: u64, pages: u64) -> World {
    let mut world = cold(release, 256 * MIB);
    world.kho.preserve_pages(&mut world.ram, pfn(first), pages).unwrap();
    world.kexec()
}

fn folio(world: &mut World, at: u64) -> Option<u32> {
    world.kho.restore_folio(&mut world.ram, pa(at), FrameUse::PageCache).map(Order::raw)
}

#[test]
fn a_block_is_handed_out_once_at_its_head() {
    for release in EACH {
        let mut world = preserved(release, 0x1000, 16);
        assert_eq!(folio(&mut world, 0x100_1000), None, "inside the block");
        assert_eq!(folio(&mut world, 0x100_0001), None, "not a page");
        assert_eq!(folio(&mut world, 0x200_0000), None, "never preserved");
        assert_eq!(folio(&mut world, u64::MAX), None, "outside memory");
        assert_eq!(folio(&mut world, 0x100_0000), Some(4));
        assert_eq!(folio(&mut world, 0x100_0000), None, "a second time");
        assert_eq!(world.ram.frames.outstanding(FrameUse::PageCache), 16);
        assert_eq!(world.ram.free(pfn(0x1000)), Ok(order(4)));
        assert!(!world.kho.restore_free(&mut world.ram, pa(0x100_0000)));
    }
}

#[test]
fn a_block_that_nobody_restores_stays_held_for_one_generation() {
    for release in EACH {
        let world = preserved(release, 0x1000, 16);
        assert!(world.held().contains(&(0x1000, 4)));
        let next = world.kexec();
        assert!(!next.held().contains(&(0x1000, 4)));
        assert_eq!(next.ram.frames.state(pfn(0x1000)), FrameState::Free);
    }
}

#[test]
fn blocks_above_order_10_are_restored_by_7_3_alone() {
    let mut world = preserved(ReleaseId::V6_19, 0x2000, 0x2000);
    assert!(world.held().contains(&(0x2000, 13)));
    assert_eq!(folio(&mut world, 0x200_0000), None);
    assert!(!world.kho.restore_pages(&mut world.ram, pfn(0x2000), 0x2000, FrameUse::Other));
    assert!(world.held().contains(&(0x2000, 13)), "it stays held");

    let mut world = preserved(ReleaseId::V7_3, 0x2000, 0x2000);
    assert_eq!(folio(&mut world, 0x200_0000), Some(13));
    let free = world.ram.frames.stats().free;
    world.ram.free(pfn(0x2000)).unwrap();
    assert_eq!(world.ram.frames.stats().free, free + 0x2000);
}

#[test]
fn a_run_comes_back_as_single_pages() {
    for release in EACH {
        let mut world = preserved(release, 0x1fe, 0x206);
        assert!([(0x1fe, 1), (0x200, 9), (0x400, 2)].iter().all(|block| world.held().contains(block)));
        assert!(world.kho.restore_pages(&mut world.ram, pfn(0x1fe), 0x206, FrameUse::Other));
        for page in 0x1fe..0x404 {
            assert_eq!(world.ram.free(pfn(page)), Ok(Order::ZERO));
        }
        assert!(!world.kho.restore_pages(&mut world.ram, pfn(0x1fe), 0x206, FrameUse::Other));
    }
}

#[test]
fn another_run_than_was_preserved_comes_back_in_part() {
    for release in EACH {
        // Preserved: one block of 8. Asked for: blocks of 4 and 2.
        let mut world = preserved(release, 0x1000, 8);
        assert!(!world.kho.restore_pages(&mut world.ram, pfn(0x1000), 6, FrameUse::Other));
        let allocated = (0x1000..0x1008)
            .filter(|page| world.ram.frames.state(pfn(*page)) == FrameState::AllocatedHead(Order::ZERO));
        assert_eq!(allocated.count(), 8, "the block found is handed out whole");
    }
}

#[test]
fn preserving_is_a_set_and_giving_back_must_match() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let World { ram, kho, .. } = &mut world;
        for _ in 0..2 {
            kho.preserve_folio(ram, pfn(0x1000), order(2)).unwrap();
        }
        kho.preserve_folio(ram, pfn(0x2000), order(2)).unwrap();
        kho.preserve_folio(ram, pfn(0x3000), order(2)).unwrap();
        kho.unpreserve_folio(ram, pfn(0x1000), order(2));
        kho.unpreserve_folio(ram, pfn(0x2000), order(1));
        kho.unpreserve_pages(ram, pfn(0x3000), 3);
        kho.unpreserve_folio(ram, pfn(0x3f00), order(7));
        let held = world.kexec().held();
        assert!(!held.contains(&(0x1000, 2)), "one unpreserve undoes two preserves");
        assert!(held.contains(&(0x2000, 2)) && held.contains(&(0x3000, 2)));
    }
}

#[test]
fn allocations_are_zeroed_rounded_and_limited() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let World { ram, kho, .. } = &mut world;
        let mut errno =
            |bytes| kho.alloc_preserve(ram, bytes, FrameUse::Luo).map_err(|refusal| refusal.errno.name());
        assert_eq!(errno(0), Err("EINVAL"));
        assert_eq!(errno((4 << 20) + 1), Err("E2BIG"));
        assert_eq!(errno(u64::MAX), Err("E2BIG"));
        let at = errno(5 * 4096).unwrap();
        let mut last = Ok(at);
        while last.is_ok() {
            last = errno(4 << 20);
        }
        assert_eq!(last, Err("ENOMEM"));
        assert!(ram.mem.is_filled_with(at, 8 * 4096, 0).unwrap());
        let next = world.kexec();
        assert!(next.held().contains(&(at.pfn().raw(), 3)), "5 pages are a block of 8");
    }
}

#[test]
fn finalising_again_replaces_the_list_and_a_failure_keeps_it() {
    let mut world = cold(ReleaseId::V6_19, 64 * MIB);
    let World { ram, kho, log, .. } = &mut world;
    kho.preserve_folio(ram, pfn(0x1000), order(2)).unwrap();
    kho.finalize(ram, log).unwrap();
    let pages = ram.frames.outstanding(FrameUse::Tracker);
    kho.finalize(ram, log).unwrap();
    assert_eq!(ram.frames.outstanding(FrameUse::Tracker), pages, "the old list is freed");

    kho.preserve_folio(ram, pfn(0x2000), order(2)).unwrap();
    kho.preserve_folio(ram, pfn(0x2100), order(5)).unwrap();
    while ram.alloc(Order::ZERO, FrameUse::Other).is_some() {}
    assert_eq!(kho.finalize(ram, log).map_err(|refusal| refusal.errno.name()), Err("ENOMEM"));
    assert!(log.contains("Failed to convert KHO state tree"));
    let params = kho.params_for_kexec(ram).unwrap().unwrap();
    let next = crate::world::boot(world.ram.into_mem(), crate::world::config(ReleaseId::V6_19), Some(params));
    let held = next.held();
    assert!(held.contains(&(0x1000, 2)) && held.contains(&(0x2000, 2)), "a bitmap in the list is live");
    assert!(!held.contains(&(0x2100, 5)), "a new bitmap is not in the list");
}
