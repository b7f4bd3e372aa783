//! Scratch areas, the array's copy, and preserving inside scratch.

use luosim_abi::Errno;
use luosim_abi::release::ReleaseId;
use luosim_kho::scratch::{KERNEL_BYTES, ScratchSpec};
use luosim_physmem::{FrameState, PAGE_SIZE, Pfn, PhysMem};

use crate::world::{EACH, MIB, World, boot, cold, config, order, pa};

fn with(release: ReleaseId, bytes: u64, spec: &str) -> World {
    let mut config = config(release);
    config.scratch = ScratchSpec::parse(spec).unwrap();
    boot(PhysMem::anonymous(bytes).unwrap(), config, None)
}

#[test]
fn areas_are_low_global_and_node_rounded_as_the_release_rounds() {
    let sizes = |world: &World| world.kho.scratch().iter().map(|area| area.size / MIB).collect::<Vec<_>>();
    assert_eq!(sizes(&with(ReleaseId::V7_3, 64 * MIB, "5M,5M,5M")), [8, 8, 8]);
    assert_eq!(sizes(&with(ReleaseId::V6_19, 64 * MIB, "5M,5M,5M")), [5, 5, 6]);
    assert_eq!(sizes(&with(ReleaseId::V7_3, 64 * MIB, "200%")), [4, 0, 4]);
    assert_eq!(sizes(&with(ReleaseId::V6_19, 64 * MIB, "200%")), [2, 0, 2]);
    assert_eq!(sizes(&with(ReleaseId::V7_3, 64 * MIB, "0,16M,16M")), [0, 16, 16]);
}

#[test]
fn areas_are_aligned_reserved_disjoint_and_low_memory_is_below_4_gib() {
    for release in EACH {
        let world = with(release, 6 << 30, "16M,64M,32M");
        let areas = world.kho.scratch();
        assert!(areas[0].addr.raw() + areas[0].size <= 4 << 30);
        for (index, area) in areas.iter().enumerate() {
            assert_eq!(area.addr.raw() % release.release().scratch_align, 0);
            assert!(area.addr.raw() >= KERNEL_BYTES);
            assert!(
                areas[..index].iter().all(|other| !other.overlaps(area.addr.pfn(), area.size / PAGE_SIZE))
            );
            for frame in [area.addr.pfn(), Pfn::new(area.addr.pfn().raw() + area.size / PAGE_SIZE - 1)] {
                assert_eq!(world.ram.frames.state(frame), FrameState::Reserved);
            }
        }
    }
}

#[test]
fn with_0_percent_kho_works_but_no_image_can_be_loaded() {
    for release in EACH {
        let mut world = with(release, 64 * MIB, "0%");
        assert!(world.kho.enabled() && world.kho.scratch().len() == 3);
        let refusal = world.kho.params_for_kexec(&mut world.ram).unwrap_err();
        assert_eq!(refusal.errno, Errno::EADDRNOTAVAIL);
    }
}

#[test]
fn the_copy_of_the_array_lies_aligned_at_the_top_of_an_area() {
    let mut world = cold(ReleaseId::V7_3, 64 * MIB);
    let params = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap();
    assert_eq!((params.fdt_size, params.scratch_size), (4096, 48));
    assert_eq!(params.scratch.raw() % (64 << 10), 0);
    let area = world.kho.scratch()[0];
    assert!(params.scratch.raw() + params.scratch_size <= area.addr.raw() + area.size);
    assert!(params.scratch.raw() + (64 << 10) >= area.addr.raw() + area.size, "at the top");
    for (index, area) in (0..).zip(world.kho.scratch()) {
        let at = params.scratch.raw() + 16 * index;
        let entry = (world.ram.mem.read_u64(pa(at)).unwrap(), world.ram.mem.read_u64(pa(at + 8)).unwrap());
        assert_eq!(entry, (area.addr.raw(), area.size));
    }
    assert_eq!(
        world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap(),
        params,
        "loading again changes nothing"
    );
}

#[test]
fn an_area_without_room_for_the_copy_is_passed_over() {
    let mut world = with(ReleaseId::V6_19, 64 * MIB, "0,0,1M");
    let params = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap();
    let area = world.kho.scratch()[2];
    assert!(area.overlaps(params.scratch.pfn(), 1));
}

#[test]
fn preserving_in_scratch_is_refused_by_debug_kernels_and_lost_by_others() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let inside = world.kho.scratch()[2].addr.pfn();
        let before = Pfn::new(inside.raw() - 1);
        let refusal = world.kho.preserve_folio(&mut world.ram, inside, order(0)).unwrap_err();
        assert_eq!(refusal.errno, Errno::EINVAL);
        assert_eq!(world.kho.preserve_pages(&mut world.ram, before, 2).unwrap_err().errno, Errno::EINVAL);
        world.kho.preserve_pages(&mut world.ram, before, 1).unwrap();

        let mut config = config(release);
        config.debug = false;
        let mut world = boot(PhysMem::anonymous(64 * MIB).unwrap(), config, None);
        world.kho.preserve_folio(&mut world.ram, inside, order(0)).unwrap();
        let mut next = world.kexec();
        assert!(next.accepted() && next.log.contains("cannot be kept"));
        assert_eq!(
            next.kho.restore_folio(&mut next.ram, inside.addr(), luosim_physmem::FrameUse::Other),
            None
        );
    }
}
