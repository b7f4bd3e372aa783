//! What goes wrong in the new kernel, and what stays as it is then.

use luosim_abi::Errno;
use luosim_abi::profile::{Assumption, Profile};
use luosim_hardware::verify::Invariant;
use luosim_machine::{BootOptions, Machine, Outcome};
use luosim_physmem::PhysAddr;

use crate::vmm::{
    BELOW, BESIDE, Vmm, arrive, errno, kexec, kexec_with, machine, node, options, preserve_all, reclaim,
    session, two_carried,
};

/// A machine that jumped with a device under way.
fn carried(profile: Profile) -> Machine {
    let mut machine = machine(profile);
    let vmm = Vmm::start(&mut machine, BELOW);
    vmm.loop_dma(&mut machine);
    machine.tick(100);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    kexec(&mut machine, vmm.pid, profile).expect("nothing refuses");
    machine
}

/// The device still reaches memory, and what it reaches is nobody else's.
fn still_translated(machine: &mut Machine) {
    let before = machine.hardware().expect("plugged in").device(BELOW).expect("there").totals().bytes_written;
    machine.tick(300);
    let hardware = machine.hardware().expect("plugged in");
    assert!(hardware.device(BELOW).expect("there").totals().bytes_written > before, "it goes on");
    assert_eq!(hardware.units()[0].fault_count(), 0, "{:?}", hardware.units()[0].faults());
    let info = hardware.function(BELOW).expect("there");
    let (table, _) = hardware.page_table(machine.memory(), &info).expect("it has a table");
    let reached = table.contents(machine.memory()).expect("whole");
    let frames = &machine.kernel().expect("running").core().ram().frames;
    for frame in reached.frames().chain(reached.tables.iter().copied()) {
        assert_ne!(frames.state(frame), luosim_physmem::FrameState::Free, "frame {frame}");
    }
}

/// U9.
#[test]
fn a_device_asked_for_too_early_is_lost_until_the_next_boot() {
    let mut machine = carried(Profile::Target);
    let (pid, session) = arrive(&mut machine, b"vm", &[]);
    assert_eq!(errno(machine.retrieve_fd(pid, session, 3)), Some(Errno::ENODEV));
    machine.vfio_bind_driver(pid, BELOW).expect("there");
    assert_eq!(errno(machine.retrieve_fd(pid, session, 3)), Some(Errno::ENODEV), "sticky");
    assert_eq!(errno(machine.finish(pid, session, 0)), Some(Errno::EBUSY));
    still_translated(&mut machine);
}

/// U10 and U12.
#[test]
fn the_node_opens_after_finish_and_finish_comes_after_everything_else() {
    let mut machine = carried(Profile::Target);
    let (pid, session) = arrive(&mut machine, b"vm", &[BELOW]);
    let path = format!("/dev/vfio/devices/vfio{}", node(&machine, BELOW).expect("bound"));
    let group = machine.open(pid, &format!("/dev/vfio/{}", node(&machine, BELOW).expect("bound")), 2, 0);
    let group = group.expect("a node");
    assert_eq!(errno(machine.open(pid, &path, 2, 0)), Some(Errno::EBUSY));
    assert_eq!(errno(machine.vfio_group_device(pid, group)), Some(Errno::EBUSY));
    let refused = |machine: &mut Machine, what: &str| {
        assert_eq!(errno(machine.finish(pid, session, 0)), Some(Errno::EBUSY), "{what}");
    };
    refused(&mut machine, "nothing is retrieved");
    let ram = machine.retrieve_fd(pid, session, 1).expect("carried");
    let device = machine.retrieve_fd(pid, session, 3).expect("it pulls its iommufd in");
    assert!(machine.take_assumed().contains(&Assumption::DevicePullsIommufd));
    refused(&mut machine, "the device is not bound");
    let iommufd = machine.retrieve_fd(pid, session, 2).expect("it is there");
    let fresh = machine.open(pid, "/dev/iommu", 2, 0).expect("a node");
    assert_eq!(errno(machine.vfio_bind(pid, device, fresh)), Some(Errno::EPERM), "U11");
    machine.vfio_bind(pid, device, iommufd).expect("its own iommufd");
    refused(&mut machine, "the page table is not taken back");
    assert_eq!(errno(machine.hwpt_restore(pid, fresh, 0x77)), Some(Errno::ENOTTY));
    assert_eq!(errno(machine.hwpt_restore(pid, iommufd, 0x78)), Some(Errno::ENOENT));
    machine.hwpt_restore(pid, iommufd, 0x77).expect("marked with it");
    assert_eq!(errno(machine.hwpt_restore(pid, iommufd, 0x77)), Some(Errno::ENOENT), "once");
    refused(&mut machine, "the device still goes through it");
    let ioas = machine.ioas_alloc(pid, iommufd).expect("room");
    let map = machine.ioas_map(pid, (iommufd, ioas), Some((ram, 0)), (crate::vmm::IOVA, crate::vmm::RAM));
    map.expect("free addresses");
    machine.vfio_attach(pid, device, ioas).expect("moves on");
    machine.finish(pid, session, 0).expect("everything is taken back");
    machine.close(pid, device).expect("open");
    machine.open(pid, &path, 2, 0).expect("finished");
    machine.vfio_group_device(pid, group).expect("finished");
}

/// U13.
#[test]
fn a_vmm_that_dies_before_finish_leaves_a_wedged_session_and_a_running_device() {
    let mut machine = carried(Profile::Target);
    let (pid, session) = arrive(&mut machine, b"vm", &[BELOW]);
    for token in [1, 2, 3] {
        machine.retrieve_fd(pid, session, token).expect("carried");
    }
    machine.exit(pid).expect("running");
    let log = machine.kernel().expect("running").log();
    assert!(log.contains("Unable to finish session [vm] on release"));
    let agent = machine.spawn("agent").expect("running");
    let device = machine.open(agent, "/dev/liveupdate", 2, 0).expect("LUO is on");
    assert_eq!(errno(machine.retrieve_session(agent, device, b"vm")), Some(Errno::EINVAL));
    let path = format!("/dev/vfio/devices/vfio{}", node(&machine, BELOW).expect("bound"));
    assert_eq!(errno(machine.open(agent, &path, 2, 0)), Some(Errno::EBUSY), "claimed");
    still_translated(&mut machine);
}

/// U14.
#[test]
fn a_session_that_nobody_wants_keeps_memory_and_device() {
    let mut machine = carried(Profile::Target);
    still_translated(&mut machine);
    let devices = machine.kernel().expect("running").core().device_files();
    assert!(devices.pci.is_incoming(BELOW));
}

/// U15.
#[test]
fn an_object_that_two_sessions_share_lives_until_both_are_finished() {
    let mut machine = two_carried();
    let (pid, one) = arrive(&mut machine, b"one", &[BELOW, BESIDE]);
    let (other, two) = arrive(&mut machine, b"two", &[]);
    reclaim(&mut machine, pid, one, BELOW).expect("nothing refuses");
    machine.finish(pid, one, 0).expect("everything is taken back");
    let pci =
        |machine: &Machine| machine.kernel().expect("running").core().device_files().pci.incoming().count();
    assert_eq!(pci(&machine), 2, "the other device and the bridge above both");
    machine.tick(100);
    reclaim(&mut machine, other, two, BESIDE).expect("the other session is not affected");
    machine.finish(other, two, 0).expect("everything is taken back");
    assert_eq!(pci(&machine), 0);
    assert_eq!(machine.hardware().expect("plugged in").units()[0].fault_count(), 0);
}

/// U16.
#[test]
fn a_kernel_without_the_handler_keeps_memory_and_translation() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    vmm.loop_dma(&mut machine);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    let cmdline = String::from("kho=on liveupdate=on vfio_liveupdate=off");
    let options = BootOptions { cmdline, ..options(Profile::Target) };
    kexec_with(&mut machine, vmm.pid, options).expect("nothing refuses");
    let pid = machine.spawn("agent").expect("running");
    assert_eq!(errno(machine.open(pid, "/dev/liveupdate", 2, 0)), Some(Errno::EIO));
    still_translated(&mut machine);
}

/// U17: what the records at the two objects say is changed between the kernels.
#[test]
fn another_version_of_an_object_stops_the_boot() {
    for name in ["pci", "iommu-liveupdate"] {
        let mut machine = machine(Profile::Target);
        let vmm = Vmm::start(&mut machine, BELOW);
        let own = session(&mut machine, vmm.pid, b"vm");
        preserve_all(&mut machine, &vmm, own);
        let data = machine.outgoing_object(name).expect("preserved");
        machine.poke_at_kexec(PhysAddr::new(data), 99);
        let report = kexec(&mut machine, vmm.pid, Profile::Target).expect("the old kernel is done");
        let Outcome::Panicked { reason } = report.outcome else { panic!("{name}: {:?}", report.outcome) };
        assert!(reason.contains("version 99"), "{reason}");
        assert!(machine.kernel().is_none());
    }
}

/// U18.
#[test]
fn a_device_that_disappears_is_never_finished() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses");
    if let (Some(hardware), _) = machine.hardware_and_memory() {
        hardware.surprise_remove(BELOW);
    }
    let pid = machine.spawn("vmm").expect("running");
    assert_eq!(errno(machine.vfio_bind_driver(pid, BELOW)), Some(Errno::ENODEV), "there is nothing to bind");
    let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("LUO is on");
    let session = machine.retrieve_session(pid, device, b"vm").expect("carried");
    assert_eq!(errno(machine.retrieve_fd(pid, session, 3)), Some(Errno::ENODEV));
    assert_eq!(errno(machine.finish(pid, session, 0)), Some(Errno::EBUSY));
}

/// U20.
#[test]
fn what_is_not_finished_is_not_carried_on() {
    let mut machine = carried(Profile::Target);
    let pid = machine.spawn("agent").expect("running");
    machine.take_assumed();
    kexec(&mut machine, pid, Profile::Target).expect("nothing refuses");
    assert!(machine.take_assumed().contains(&Assumption::NotCarriedTwice));
    let hardware = machine.hardware().expect("plugged in");
    assert!(!hardware.is_master(BELOW));
    let pid = machine.spawn("agent").expect("running");
    let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("LUO is on");
    assert_eq!(errno(machine.retrieve_session(pid, device, b"vm")), Some(Errno::ENOENT));
}

/// U21: what the memory file's handler does is what it does; the machine says what it means for the device.
#[test]
fn memory_that_fails_half_way_is_freed_under_the_device_and_that_is_reported() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    let luo = machine.kernel().expect("running").luo();
    let data = luo.preserved_data(&luosim_luo::SessionName::from_bytes(b"vm"), 1).expect("preserved");
    let mem = machine.memory();
    let record: luosim_abi::memfd::v2::MemfdSer = mem.read_obj(PhysAddr::new(data)).expect("a record");
    let page = mem.read_u64(PhysAddr::new(record.folios.first.get() + 8)).expect("a page of the table");
    machine.poke_at_kexec(PhysAddr::new(page + 16 * 7), 0x1234_5678);
    kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses");
    assert_eq!(machine.take_violations(), []);
    let (pid, session) = arrive(&mut machine, b"vm", &[BELOW]);
    assert_eq!(errno(machine.retrieve_fd(pid, session, 1)), Some(Errno::EIO));
    let found = machine.take_violations();
    assert!(found.iter().any(|one| one.invariant == Invariant::D1), "{found:?}");
    assert!(machine.take_assumed().contains(&Assumption::UnfinishedMemory));
}

/// P1: bus numbers stay where something came.
#[test]
fn addresses_stay_where_a_device_came() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    let report = kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses");
    assert!(report.log.contains("bus numbers kept"));
    let info = machine.hardware().expect("plugged in").function(BELOW).expect("there");
    assert_eq!((info.bdf, info.rid), (Some(BELOW), BELOW));
}
