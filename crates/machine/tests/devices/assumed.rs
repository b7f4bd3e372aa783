//! What rests on an assumption says so, and what does not, does not.

use luosim_abi::Errno;
use luosim_abi::profile::{Assumption, Profile};
use luosim_machine::Machine;

use crate::vmm::{
    BELOW, Vmm, arrive, errno, guest_memory, kexec, machine, open_device, preserve_all, reclaim, session,
};

/// What was assumed by what `body` did, and by nothing before it.
fn assumed<T>(machine: &mut Machine, body: impl FnOnce(&mut Machine) -> T) -> (T, Vec<Assumption>) {
    machine.take_assumed();
    let result = body(machine);
    (result, machine.take_assumed())
}

#[test]
fn an_iommufd_that_cannot_be_given_back_says_that_the_errno_is_not_known() {
    let mut machine = machine(Profile::Posted2026);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    kexec(&mut machine, vmm.pid, Profile::Posted2026).expect("nothing refuses");
    let (pid, own) = arrive(&mut machine, b"vm", &[BELOW]);
    let (ram, told) = assumed(&mut machine, |machine| machine.retrieve_fd(pid, own, 1));
    assert_eq!((ram.is_ok(), told), (true, vec![]), "memory files are released");
    let (iommufd, told) = assumed(&mut machine, |machine| machine.retrieve_fd(pid, own, 2));
    assert_eq!((errno(iommufd), told), (Some(Errno::EOPNOTSUPP), vec![Assumption::PhaseOneRetrieve]));
}

#[test]
fn a_boot_with_page_tables_and_their_way_back_are_assumed() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    let (report, told) = assumed(&mut machine, |machine| kexec(machine, vmm.pid, Profile::Target));
    assert!(report.is_ok() && told.contains(&Assumption::RestoredDomain), "{told:?}");
    assert!(!told.contains(&Assumption::RestoreCommand), "{told:?}");
    let (pid, own) = arrive(&mut machine, b"vm", &[BELOW]);
    let (back, told) = assumed(&mut machine, |machine| reclaim(machine, pid, own, BELOW));
    assert!(back.is_ok() && told.contains(&Assumption::RestoreCommand), "{told:?}");
    assert!(!told.contains(&Assumption::RestoredDomain), "{told:?}");
}

/// A kexec that carries nothing restores nothing.
#[test]
fn a_boot_without_page_tables_assumes_nothing_of_them() {
    let mut machine = machine(Profile::Target);
    let pid = machine.spawn("agent").expect("running");
    session(&mut machine, pid, b"vm");
    let (report, told) = assumed(&mut machine, |machine| kexec(machine, pid, Profile::Target));
    assert!(report.is_ok() && !told.contains(&Assumption::RestoredDomain), "{told:?}");
}

#[test]
fn an_iommufd_is_preserved_empty_only_if_nothing_is_marked() {
    for (marked, want) in [(false, vec![Assumption::EmptyIommufd]), (true, vec![])] {
        let mut machine = machine(Profile::Target);
        let pid = machine.spawn("vmm").expect("running");
        let ram = guest_memory(&mut machine, pid);
        let iommufd = machine.open(pid, "/dev/iommu", 2, 0).expect("a node");
        if marked {
            let ioas = machine.ioas_alloc(pid, iommufd).expect("room");
            let hwpt = machine.hwpt_alloc(pid, iommufd, ioas).expect("room");
            machine.hwpt_mark(pid, iommufd, hwpt, 7).expect("not marked yet");
        }
        let own = session(&mut machine, pid, b"vm");
        machine.preserve_fd(pid, own, ram, 1).expect("sealed");
        let (kept, told) = assumed(&mut machine, |machine| machine.preserve_fd(pid, own, iommufd, 2));
        assert_eq!((kept.is_ok(), told), (true, want), "marked: {marked}");
    }
}

#[test]
fn a_group_is_a_function_by_assumption_and_a_device_node_is_one_by_itself() {
    let mut machine = machine(Profile::Target);
    let pid = machine.spawn("vmm").expect("running");
    let (device, told) = assumed(&mut machine, |machine| open_device(machine, pid, BELOW));
    assert_eq!((device.is_ok(), told), (true, vec![]));
    let node = crate::vmm::node(&machine, BELOW).expect("bound");
    let (group, told) =
        assumed(&mut machine, |machine| machine.open(pid, &format!("/dev/vfio/{node}"), 2, 0));
    assert_eq!((group.is_ok(), told), (true, vec![Assumption::GroupOfOne]));
}
