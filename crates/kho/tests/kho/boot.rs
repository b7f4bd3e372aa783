//! Accepting, refusing and not using a handover, and what the log says.

use luosim_abi::Errno;
use luosim_abi::release::ReleaseId;
use luosim_kho::fdt::{Node, Tree};
use luosim_kho::{BootParams, Handover};
use luosim_physmem::{FrameUse, PhysAddr, PhysMem};

use crate::world::{EACH, MIB, World, boot, cold, config, order, pa, pfn};

const LEN: u64 = 64 * MIB;
const BLOCK: u64 = 0x1000;

/// A kernel that preserved one block, gone.
fn left(release: ReleaseId) -> (PhysMem, BootParams) {
    let mut world = cold(release, LEN);
    world.kho.preserve_folio(&mut world.ram, pfn(BLOCK), order(4)).unwrap();
    world.leave()
}

fn refused(world: &World) -> &str {
    let Handover::Refused { reason } = world.kho.handover() else { panic!("{:?}", world.kho.handover()) };
    assert!(world.held().is_empty() && world.kho.enabled());
    assert_eq!(world.kho.subtree("LUO").unwrap_err().errno, Errno::ENOENT);
    reason
}

#[test]
fn a_handover_of_the_same_version_is_taken_over() {
    for release in EACH {
        let before = cold(release, LEN);
        let areas = before.kho.scratch().to_vec();
        let world = before.kexec();
        assert!(world.accepted() && world.logged("KHO: found kexec handover data."));
        assert_eq!(world.kho.scratch(), areas, "scratch is reused");
        assert_eq!(world.kexec().kho.scratch(), areas);
    }
}

#[test]
fn another_version_is_refused_by_name_and_its_memory_is_free() {
    let (memory, params) = left(ReleaseId::V6_19);
    let world = boot(memory, config(ReleaseId::V7_3), Some(params));
    assert_eq!(refused(&world), "KHO root kho-v1 refused by kho-v4");
    let line = format!("KHO: setup: handover FDT ({}) is incompatible with 'kho-v4': 1", params.fdt);
    assert!(world.logged(&line) && world.logged("KHO: disabling KHO revival"));

    let (memory, params) = left(ReleaseId::V7_3);
    let world = boot(memory, config(ReleaseId::V6_19), Some(params));
    assert_eq!(refused(&world), "KHO root kho-v4 refused by kho-v1");
    assert!(world.logged("KHO: disabling KHO revival: -22"));
}

#[test]
fn a_tree_without_magic_is_invalid() {
    for (release, revival) in
        EACH.into_iter().zip(["KHO: disabling KHO revival: -22", "KHO: disabling KHO revival"])
    {
        let (mut memory, params) = left(release);
        memory.write(params.fdt, &[0]).unwrap();
        let world = boot(memory, config(release), Some(params));
        let line = format!("KHO: setup: handover FDT ({}) is invalid: -9", params.fdt);
        assert!(world.logged(&line) && world.logged(revival), "{:?}", world.log);
        refused(&world);
    }
}

#[test]
fn a_v1_kernel_that_was_not_finalised_is_refused() {
    let mut world = cold(ReleaseId::V6_19, LEN);
    let params = world.kho.params_for_kexec(&mut world.ram).unwrap().unwrap();
    let world = boot(world.ram.into_mem(), config(ReleaseId::V6_19), Some(params));
    assert!(refused(&world).contains("not finalised"));
    assert!(world.logged("KHO: disabling KHO revival: -2"));
}

#[test]
fn a_root_with_a_bad_map_property_is_refused() {
    for (root, code) in [
        (Node::new("kho-v4"), None),
        (Node::new("kho-v4").with_u64("preserved-memory-map", 0), None),
        (Node::default().with_u64("preserved-memory-map", 0x1000), Some(-1)),
    ] {
        let (mut memory, params) = left(ReleaseId::V7_3);
        memory.write(params.fdt, &Tree::new(root).to_blob()).unwrap();
        let world = boot(memory, config(ReleaseId::V7_3), Some(params));
        refused(&world);
        let line = code.map(|code| format!("is incompatible with 'kho-v4': {code}"));
        assert!(line.is_none_or(|line| world.log.contains(&line)), "{:?}", world.log);
    }
}

#[test]
fn a_bad_scratch_array_is_refused() {
    let bad = |change: fn(&mut PhysMem, &mut BootParams)| {
        let (mut memory, mut params) = left(ReleaseId::V7_3);
        change(&mut memory, &mut params);
        refused(&boot(memory, config(ReleaseId::V7_3), Some(params))).to_owned()
    };
    assert!(bad(|_, params| params.scratch_size = 15).contains("it has 0 areas"));
    assert!(bad(|_, params| params.scratch = PhysAddr::new(LEN - 16)).contains("lie outside"));
    assert!(bad(|_, params| params.scratch = PhysAddr::new(u64::MAX)).contains("outside"));
    assert!(bad(|memory, params| memory.write_u64(params.scratch, 0x1001).unwrap()).contains("area 0"));
    assert!(bad(|memory, params| memory.write_u64(params.scratch, LEN).unwrap()).contains("area 0"));
    let overlap = bad(|memory, params| {
        let first = memory.read_u64(params.scratch).unwrap();
        memory.write_u64(params.scratch.checked_add(32).unwrap(), first).unwrap();
    });
    assert!(overlap.contains("area 2"), "{overlap}");
}

#[test]
fn kho_off_keeps_the_memory_but_nobody_can_use_it() {
    for release in EACH {
        let (memory, params) = left(release);
        let mut off = config(release);
        off.enabled = false;
        let mut world = boot(memory, off, Some(params));
        assert!(world.accepted() && !world.kho.enabled());
        assert_eq!(world.ram.frames.preserved_order(pfn(BLOCK)), Some(order(4)));
        assert!(!world.log.contains("exec from"));
        let ram = &mut world.ram;
        let errors = [
            world.kho.preserve_folio(ram, pfn(BLOCK), order(4)).unwrap_err(),
            world.kho.alloc_preserve(ram, 1, FrameUse::Luo).unwrap_err(),
            world.kho.add_subtree(ram, "x", pa(0x1000), 1).unwrap_err(),
            world.kho.finalize(ram, &mut world.log).unwrap_err(),
            world.kho.params_for_kexec(ram).unwrap_err(),
        ];
        assert!(errors.iter().all(|refusal| refusal.errno == Errno::EINVAL), "{errors:?}");
        assert_eq!(world.ram.frames.stats().allocated, 0, "a failed alloc_preserve gives its pages back");
    }
}

#[test]
fn the_metadata_counts_kexecs_and_restarts_after_a_refusal() {
    let world = cold(ReleaseId::V7_3, LEN);
    assert_eq!(world.kho.kexec_count(), 0);
    let world = world.kexec();
    assert!(world.kho.kexec_count() == 1 && world.logged("KHO: exec from: 7.3.4 (count 1)"));
    let world = world.kexec();
    assert!(world.kho.kexec_count() == 2 && world.logged("KHO: exec from: 7.3.4 (count 2)"));
    let world = world.kexec_into(ReleaseId::V6_19).kexec_into(ReleaseId::V7_3);
    assert_eq!(world.kho.kexec_count(), 0);
}

#[test]
fn metadata_that_is_not_understood_is_ignored_with_a_warning() {
    for (offset, bytes) in [(0, [2u8; 4]), (0, [0; 4])] {
        let world = cold(ReleaseId::V7_3, LEN).kexec();
        let page = world.kho.subtree("kexec-metadata").unwrap().addr;
        let next = world.kexec();
        let at = next.kho.subtree("kexec-metadata").unwrap().addr;
        assert_ne!(at, page, "the old page is still held");
        let (mut memory, params) = next.leave();
        let root = Tree::read(&memory, params.fdt, 4096).unwrap();
        let page = root.root().child("kexec-metadata").and_then(|node| node.u64("preserved-data")).unwrap();
        memory.write(pa(page + offset), &bytes).unwrap();
        let world = boot(memory, config(ReleaseId::V7_3), Some(params));
        assert!(world.accepted() && world.kho.kexec_count() == 0);
        assert!(world.log.contains("metadata version"), "{:?}", world.log);
    }
}

#[test]
fn memory_the_size_of_nothing_boots_with_kho_off() {
    for release in EACH {
        let world = boot(PhysMem::anonymous(64 << 10).unwrap(), config(release), None);
        assert!(!world.kho.enabled());
        assert!(world.logged("KHO: Failed to reserve scratch area, disabling kexec handover"));
    }
}
