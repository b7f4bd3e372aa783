//! Orders that are refused, and that a refusal leaves nothing behind.

use luosim_abi::Errno;
use luosim_abi::profile::{Assumption, Profile};
use luosim_abi::quirk::Quirk;
use luosim_hardware::Bdf;
use luosim_machine::Machine;
use luosim_physmem::FrameUse;

use crate::vmm::{
    BELOW, BESIDE, IOVA, RAM, ROOT, Vmm, errno, guest_memory, kexec, machine, node, open_device, options,
    preserve_all, session,
};

/// Frames of structures and preserved blocks: what a refused call must leave alone.
fn print(machine: &Machine) -> (u64, u64, u64) {
    let core = machine.kernel().expect("running").core();
    let frames = &core.ram().frames;
    let tally = core.kho().tally().expect("KHO is on");
    (frames.outstanding(FrameUse::HandlerData), tally.blocks(), tally.pages())
}

/// U1.
#[test]
fn a_device_before_its_iommufd_is_refused_and_leaves_nothing() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    machine.preserve_fd(vmm.pid, own, vmm.ram, 1).expect("memory");
    let before = print(&machine);
    assert_eq!(errno(machine.preserve_fd(vmm.pid, own, vmm.device, 3)), Some(Errno::ENOENT));
    assert_eq!(print(&machine), before);
    machine.preserve_fd(vmm.pid, own, vmm.iommufd, 2).expect("its memory is there");
    machine.preserve_fd(vmm.pid, own, vmm.device, 3).expect("its iommufd is there");
    assert_eq!(errno(machine.preserve_fd(vmm.pid, own, vmm.device, 4)), Some(Errno::EBUSY));
}

/// U2.
#[test]
fn memory_in_another_session_is_not_seen() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let (one, two) = (session(&mut machine, vmm.pid, b"one"), session(&mut machine, vmm.pid, b"two"));
    machine.preserve_fd(vmm.pid, one, vmm.ram, 1).expect("memory");
    let before = print(&machine);
    assert_eq!(errno(machine.preserve_fd(vmm.pid, two, vmm.iommufd, 2)), Some(Errno::ENOENT));
    assert_eq!(print(&machine), before);
    machine.ioas_unmap(vmm.pid, vmm.iommufd, vmm.ioas, (IOVA, RAM)).expect("mutable again");
}

/// U3.
#[test]
fn memory_that_may_move_is_refused() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    machine.preserve_fd(vmm.pid, own, vmm.ram, 1).expect("memory");
    let iommufd = (vmm.iommufd, vmm.ioas);
    machine.ioas_map(vmm.pid, iommufd, None, (0x1000, 0x2000)).expect("anonymous memory");
    assert_eq!(errno(machine.preserve_fd(vmm.pid, own, vmm.iommufd, 2)), Some(Errno::EINVAL));
    machine.ioas_unmap(vmm.pid, vmm.iommufd, vmm.ioas, (0x1000, 0x2000)).expect("mapped");
    let late = machine.memfd_create(vmm.pid, "late", 2, false).expect("room");
    machine.ftruncate(vmm.pid, late, 4096).expect("new");
    machine.ioas_map(vmm.pid, iommufd, Some((late, 0)), (0x1000, 0x1000)).expect("free addresses");
    machine.add_seals(vmm.pid, late, luosim_files::shmem::Seals(7)).expect("may be sealed");
    machine.preserve_fd(vmm.pid, own, late, 4).expect("memory");
    assert_eq!(
        errno(machine.preserve_fd(vmm.pid, own, vmm.iommufd, 2)),
        Some(Errno::EINVAL),
        "sealed too late"
    );
    machine.ioas_unmap(vmm.pid, vmm.iommufd, vmm.ioas, (0x1000, 0x1000)).expect("mapped");
    machine.ioas_map(vmm.pid, iommufd, Some((late, 0)), (0x1000, 0x1000)).expect("mapped anew, sealed");
    machine.preserve_fd(vmm.pid, own, vmm.iommufd, 2).expect("all is as it must be");
}

/// U4.
#[test]
fn a_page_table_that_is_not_marked_is_refused() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let other = machine.hwpt_alloc(vmm.pid, vmm.iommufd, vmm.ioas).expect("room");
    machine.vfio_attach(vmm.pid, vmm.device, other).expect("replaces");
    let own = session(&mut machine, vmm.pid, b"vm");
    machine.preserve_fd(vmm.pid, own, vmm.ram, 1).expect("memory");
    machine.preserve_fd(vmm.pid, own, vmm.iommufd, 2).expect("the marked one");
    assert_eq!(errno(machine.preserve_fd(vmm.pid, own, vmm.device, 3)), Some(Errno::EINVAL));
    assert_eq!(errno(machine.hwpt_mark(vmm.pid, vmm.iommufd, other, 0x77)), Some(Errno::EADDRINUSE));
    assert_eq!(errno(machine.hwpt_destroy(vmm.pid, vmm.iommufd, vmm.hwpt)), Some(Errno::EBUSY), "marked");
    machine.hwpt_mark(vmm.pid, vmm.iommufd, other, 0x78).expect("another token");
    assert_eq!(
        errno(machine.preserve_fd(vmm.pid, own, vmm.device, 3)),
        Some(Errno::EINVAL),
        "marked too late"
    );
}

/// U5, and the attachment.
#[test]
fn nothing_changes_while_it_is_preserved() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    machine.take_assumed();
    let iommufd = (vmm.iommufd, vmm.ioas);
    assert_eq!(
        errno(machine.ioas_map(vmm.pid, iommufd, Some((vmm.ram, 0)), (0x1000, 0x1000))),
        Some(Errno::EBUSY)
    );
    assert_eq!(errno(machine.ioas_unmap(vmm.pid, vmm.iommufd, vmm.ioas, (IOVA, RAM))), Some(Errno::EBUSY));
    assert_eq!(errno(machine.vfio_detach(vmm.pid, vmm.device)), Some(Errno::EBUSY));
    assert_eq!(errno(machine.vfio_attach(vmm.pid, vmm.device, vmm.ioas)), Some(Errno::EBUSY));
    assert_eq!(machine.take_assumed(), [Assumption::ImmutableIoas, Assumption::AttachmentFixed]);
    // U19: closing the session gives everything back, and it can all be done again.
    machine.close(vmm.pid, own).expect("open");
    machine.ioas_map(vmm.pid, iommufd, Some((vmm.ram, 0)), (0x1000, 0x1000)).expect("mutable again");
    machine.ioas_unmap(vmm.pid, vmm.iommufd, vmm.ioas, (0x1000, 0x1000)).expect("mapped");
    machine.vfio_detach(vmm.pid, vmm.device).expect("free again");
    machine.vfio_attach(vmm.pid, vmm.device, vmm.hwpt).expect("free again");
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
}

/// A device that is preserved while it is detached stays so where its DMA would go on; the posted series let it be attached.
#[test]
fn a_device_preserved_without_a_page_table_gets_none() {
    for (profile, want) in [(Profile::Target, Some(Errno::EBUSY)), (Profile::Posted2026, None)] {
        let mut machine = machine(profile);
        let vmm = Vmm::start(&mut machine, BELOW);
        machine.vfio_detach(vmm.pid, vmm.device).expect("attached");
        let own = session(&mut machine, vmm.pid, b"vm");
        preserve_all(&mut machine, &vmm, own);
        machine.take_assumed();
        assert_eq!(errno(machine.vfio_attach(vmm.pid, vmm.device, vmm.hwpt)), want, "{profile:?}");
        assert_eq!(machine.take_assumed().contains(&Assumption::DetachedStays), want.is_some());
        machine.close(vmm.pid, own).expect("open");
        if want.is_some() {
            machine.vfio_attach(vmm.pid, vmm.device, vmm.hwpt).expect("free again");
        }
    }
}

#[test]
fn closing_the_session_gives_every_frame_back() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let before = print(&machine);
    for _ in 0..3 {
        let own = session(&mut machine, vmm.pid, b"vm");
        preserve_all(&mut machine, &vmm, own);
        assert_ne!(print(&machine), before);
        machine.close(vmm.pid, own).expect("open");
        assert_eq!(print(&machine), before);
    }
}

/// U6.
#[test]
fn a_device_with_interrupts_or_asleep_refuses_the_reboot() {
    for asleep in [false, true] {
        let mut machine = machine(Profile::Target);
        let vmm = Vmm::start(&mut machine, BELOW);
        let own = session(&mut machine, vmm.pid, b"vm");
        preserve_all(&mut machine, &vmm, own);
        let set = |machine: &mut Machine, on: bool| {
            if asleep {
                machine.vfio_power(vmm.pid, vmm.device, if on { 3 } else { 0 })
            } else {
                machine.vfio_irqs(vmm.pid, vmm.device, on)
            }
        };
        set(&mut machine, true).expect("usable");
        assert_eq!(errno(kexec(&mut machine, vmm.pid, Profile::Target)), Some(Errno::EINVAL));
        set(&mut machine, false).expect("the device at fault was not frozen");
        kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses now");
    }
}

/// U7.
#[test]
fn a_device_that_was_frozen_before_another_refused_stays_so_until_it_is_opened_anew() {
    let mut machine = machine(Profile::Posted2026);
    let vmm = Vmm::start(&mut machine, BELOW);
    let second = open_device(&mut machine, vmm.pid, BESIDE).expect("a node");
    machine.vfio_bind(vmm.pid, second, vmm.iommufd).expect("free");
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    machine.preserve_fd(vmm.pid, own, second, 4).expect("not attached: its identity alone");
    machine.vfio_irqs(vmm.pid, second, true).expect("usable");
    assert_eq!(errno(kexec(&mut machine, vmm.pid, Profile::Posted2026)), Some(Errno::EINVAL));
    let frozen = [
        errno(machine.vfio_read(vmm.pid, vmm.device, 0, 4)),
        errno(machine.vfio_irqs(vmm.pid, vmm.device, true)),
        errno(machine.vfio_attach(vmm.pid, vmm.device, vmm.hwpt)),
        errno(machine.vfio_master(vmm.pid, vmm.device, true)),
    ];
    assert_eq!(frozen, [Some(Errno::EIO); 4]);
    machine.vfio_read(vmm.pid, second, 0, 4).expect("not frozen");
    machine.close(vmm.pid, vmm.device).expect("open");
    let again = open_device(&mut machine, vmm.pid, BELOW).expect("a node");
    assert_eq!(
        errno(machine.vfio_bind(vmm.pid, again, vmm.iommufd)),
        Some(Errno::EIO),
        "the session holds it open"
    );
    machine.close(vmm.pid, own).expect("open");
    assert!(machine.take_assumed().contains(&Assumption::FrozenUntilReopened));
    machine.vfio_bind(vmm.pid, again, vmm.iommufd).expect("closed for good meanwhile");
    machine.vfio_attach(vmm.pid, again, vmm.hwpt).expect("usable");
}

#[test]
fn functions_that_cannot_be_preserved() {
    let mut machine = machine(Profile::Target);
    let pid = machine.spawn("vmm").expect("running");
    let own = session(&mut machine, pid, b"vm");
    let iommufd = machine.open(pid, "/dev/iommu", 2, 0).expect("a node");
    let mut open = |bdf| {
        let device = open_device(&mut machine, pid, bdf).expect("a node");
        let unbound = errno(machine.preserve_fd(pid, own, device, 9));
        machine.vfio_bind(pid, device, iommufd).expect("free");
        (unbound, errno(machine.preserve_fd(pid, own, device, u64::from(bdf.raw()))))
    };
    let unbound = Some(Errno::ENOENT);
    assert_eq!(open(Bdf::new(1, 0, 1)), (unbound, Some(Errno::EINVAL)), "a virtual function");
    assert_eq!(open(Bdf::new(0, 3, 0)), (unbound, Some(Errno::EINVAL)), "a quirk of its own");
    assert_eq!(open(ROOT), (unbound, None), "an endpoint, not attached");
    assert!(machine.take_assumed().contains(&Assumption::UnboundCdev));
    let bridge = machine.vfio_bind_driver(pid, Bdf::new(0, 1, 0));
    assert_eq!(errno(bridge), Some(Errno::ENODEV));
}

#[test]
fn groups_and_containers_have_no_handler() {
    let mut machine = machine(Profile::Posted2026);
    let pid = machine.spawn("vmm").expect("running");
    machine.vfio_bind_driver(pid, BELOW).expect("there");
    let node = node(&machine, BELOW).expect("bound");
    let own = session(&mut machine, pid, b"vm");
    let container = machine.open(pid, "/dev/vfio/vfio", 2, 0).expect("a node");
    let group = machine.open(pid, &format!("/dev/vfio/{node}"), 2, 0).expect("a node");
    let device = machine.vfio_group_device(pid, group).expect("the group has one");
    for (token, fd) in (0..).zip([container, group, device]) {
        assert_eq!(errno(machine.preserve_fd(pid, own, fd, token)), Some(Errno::ENOENT));
    }
    assert_eq!(errno(machine.open(pid, "/dev/vfio/devices/vfio9", 2, 0)), Some(Errno::ENOENT));
}

#[test]
fn profiles_without_handlers_know_no_device_file() {
    for profile in [Profile::Mainline, Profile::Next] {
        let mut machine = machine(profile);
        let vmm = Vmm::start(&mut machine, BELOW);
        let own = session(&mut machine, vmm.pid, b"vm");
        machine.preserve_fd(vmm.pid, own, vmm.ram, 1).expect("memory");
        for (token, fd) in [(2, vmm.iommufd), (3, vmm.device)] {
            assert_eq!(errno(machine.preserve_fd(vmm.pid, own, fd, token)), Some(Errno::ENOENT));
        }
        kexec(&mut machine, vmm.pid, profile).expect("memory alone");
        assert!(!machine.hardware().expect("plugged in").is_master(BELOW), "silenced");
    }
}

#[test]
fn another_release_does_not_use_a_profile() {
    let mut machine = machine(Profile::Target);
    machine.cold_reset(luosim_abi::release::ReleaseId::V7_1, &options(Profile::Target));
    let kernel = machine.kernel().expect("running");
    assert_eq!(kernel.profile(), Profile::Mainline);
    assert!(kernel.log().contains("profile target is of other releases than 7.1"));
}

/// The mutation `ioas-mutable` does what it says.
#[test]
fn a_kernel_that_lets_a_preserved_address_space_change() {
    let mut machine = machine(Profile::Target);
    let options =
        luosim_machine::BootOptions { quirks_on: vec![Quirk::IoasMutable], ..options(Profile::Target) };
    machine.cold_reset(luosim_abi::release::ReleaseId::V7_3, &options);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    let late = guest_memory(&mut machine, vmm.pid);
    machine
        .ioas_map(vmm.pid, (vmm.iommufd, vmm.ioas), Some((late, 0)), (0x1000, 0x1000))
        .expect("let through");
}
