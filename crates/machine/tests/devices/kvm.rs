//! Virtual machines and the memory that belongs to them.

use luosim_abi::Errno;
use luosim_abi::profile::{Assumption, Profile};
use luosim_machine::Machine;
use luosim_machine::process::Pid;

use crate::vmm::{arrive, errno, kexec, machine, session};

const SHARED: u64 = 3;

/// A virtual machine with 64 KiB of memory: its descriptor and the memory's.
fn virtual_machine(machine: &mut Machine, pid: Pid) -> (i32, i32) {
    let kvm = machine.open(pid, "/dev/kvm", 2, 0).expect("a node");
    let vm = machine.create_vm(pid, kvm, 0).expect("the default type");
    let memory = machine.create_guest_memfd(pid, vm, 64 << 10, SHARED).expect("room");
    (vm, memory)
}

/// Every order of the three calls that take things back.
#[test]
fn memory_comes_back_with_its_holes_in_every_order() {
    for order in [[1, 2, 2], [2, 1, 2], [2, 2, 1], [1, 1, 2]] {
        let mut machine = machine(Profile::Posted2026);
        let pid = machine.spawn("vmm").expect("running");
        let (vm, memory) = virtual_machine(&mut machine, pid);
        machine.guest_store(pid, memory, 4096 * 3 + 5, b"guest").expect("a new page");
        machine.guest_store(pid, memory, 4096 * 9 - 2, b"over").expect("two new pages");
        let own = session(&mut machine, pid, b"vm");
        // The memory before its machine: the order of preserving does not matter.
        machine.preserve_fd(pid, own, memory, 2).expect("the handler takes it");
        machine.preserve_fd(pid, own, vm, 1).expect("the handler takes it");
        machine.guest_store(pid, memory, 4096 * 3, b"late ").expect("a page that is there");
        kexec(&mut machine, pid, Profile::Posted2026).expect("nothing refuses");
        let (pid, session) = arrive(&mut machine, b"vm", &[]);
        let fds = order.map(|token| machine.retrieve_fd(pid, session, token).expect("carried"));
        let memory = fds[order.iter().position(|token| *token == 2).expect("asked for")];
        machine.finish(pid, session, 0).expect("never refused");
        let mut bytes = [0; 10];
        machine.guest_load(pid, memory, 4096 * 3, &mut bytes).expect("carried");
        assert_eq!(&bytes, b"late guest", "{order:?}");
        let mut bytes = [0; 4];
        machine.guest_load(pid, memory, 4096 * 9 - 2, &mut bytes).expect("carried");
        assert_eq!(&bytes, b"over");
        let guests = &machine.kernel().expect("running").core().device_files().guests;
        assert_eq!(guests.iter().map(|(_, guest)| guest.pages()).sum::<u64>(), 3, "holes stayed holes");
        assert!(machine.take_assumed().contains(&Assumption::VmRecord));
    }
}

#[test]
fn frozen_memory_takes_no_page_and_thaws_with_the_session() {
    let mut machine = machine(Profile::Posted2026);
    let pid = machine.spawn("vmm").expect("running");
    let (vm, memory) = virtual_machine(&mut machine, pid);
    machine.guest_store(pid, memory, 0, b"there").expect("a new page");
    let own = session(&mut machine, pid, b"vm");
    machine.preserve_fd(pid, own, vm, 1).expect("taken");
    machine.preserve_fd(pid, own, memory, 2).expect("taken");
    assert_eq!(errno(machine.guest_store(pid, memory, 4096, b"new")), Some(Errno::EPERM));
    assert_eq!(
        errno(machine.guest_load(pid, memory, 4096, &mut [0])),
        Some(Errno::EPERM),
        "a read would add it"
    );
    assert_eq!(errno(machine.guest_fallocate(pid, memory, 0, 4096, true)), Some(Errno::EPERM));
    machine.guest_store(pid, memory, 0, b"THERE").expect("it is there");
    machine.close(pid, own).expect("open");
    machine.guest_store(pid, memory, 4096, b"new").expect("thawed");
    machine.guest_fallocate(pid, memory, 0, 4096, true).expect("thawed");
}

/// U8: and that the refusal costs nothing.
#[test]
fn memory_without_its_machine_keeps_the_kernel_from_rebooting() {
    let mut machine = machine(Profile::Posted2026);
    let pid = machine.spawn("vmm").expect("running");
    let (vm, memory) = virtual_machine(&mut machine, pid);
    let (one, two) = (session(&mut machine, pid, b"one"), session(&mut machine, pid, b"two"));
    machine.preserve_fd(pid, one, memory, 2).expect("taken");
    assert_eq!(errno(kexec(&mut machine, pid, Profile::Posted2026)), Some(Errno::ENOENT));
    machine.preserve_fd(pid, two, vm, 1).expect("taken");
    assert_eq!(
        errno(kexec(&mut machine, pid, Profile::Posted2026)),
        Some(Errno::ENOENT),
        "another session's"
    );
    machine.close(pid, two).expect("open");
    machine.preserve_fd(pid, one, vm, 1).expect("taken");
    kexec(&mut machine, pid, Profile::Posted2026).expect("it is there now");
}

#[test]
fn what_cannot_be_preserved() {
    let mut machine = machine(Profile::Posted2026);
    let pid = machine.spawn("vmm").expect("running");
    let own = session(&mut machine, pid, b"vm");
    let (vm, memory) = virtual_machine(&mut machine, pid);
    machine.kill_vm(pid, vm).expect("a machine");
    assert_eq!(errno(machine.preserve_fd(pid, own, vm, 1)), Some(Errno::EINVAL), "dead");
    machine.guest_store(pid, memory, 0, b"x").expect("a new page");
    machine.guest_poison(pid, memory, 0).expect("memory");
    assert_eq!(errno(machine.preserve_fd(pid, own, memory, 2)), Some(Errno::EHWPOISON));
    machine.guest_store(pid, memory, 4096, b"y").expect("not frozen after a failure");
    let kvm = machine.open(pid, "/dev/kvm", 2, 0).expect("a node");
    assert_eq!(errno(machine.preserve_fd(pid, own, kvm, 3)), Some(Errno::ENOENT), "no handler");
    let private = machine.create_vm(pid, kvm, 1).expect("the other type");
    let memory = machine.create_guest_memfd(pid, private, 4096, SHARED).expect("room");
    assert_eq!(errno(machine.preserve_fd(pid, own, memory, 4)), Some(Errno::ENOENT), "private memory");
    let plain = machine.create_vm(pid, kvm, 0).expect("the default type");
    let memory = machine.create_guest_memfd(pid, plain, 4096, 1).expect("room");
    assert_eq!(
        errno(machine.preserve_fd(pid, own, memory, 5)),
        Some(Errno::ENOENT),
        "not shared from the start"
    );
    assert_eq!(errno(machine.create_guest_memfd(pid, plain, 4095, SHARED)), Some(Errno::EINVAL));
    assert_eq!(errno(machine.create_guest_memfd(pid, plain, 4096, 8)), Some(Errno::EINVAL));
}

#[test]
fn what_nobody_retrieves_is_freed_by_finish() {
    let mut machine = machine(Profile::Posted2026);
    let pid = machine.spawn("vmm").expect("running");
    let (vm, memory) = virtual_machine(&mut machine, pid);
    machine.guest_fallocate(pid, memory, 0, 64 << 10, false).expect("room");
    let own = session(&mut machine, pid, b"vm");
    machine.preserve_fd(pid, own, vm, 1).expect("taken");
    machine.preserve_fd(pid, own, memory, 2).expect("taken");
    kexec(&mut machine, pid, Profile::Posted2026).expect("nothing refuses");
    let held = |machine: &Machine| machine.kernel().expect("running").core().ram().frames.stats().preserved;
    let before = held(&machine);
    let (pid, session) = arrive(&mut machine, b"vm", &[]);
    machine.finish(pid, session, 0).expect("KVM files never refuse");
    assert!(before >= held(&machine) + 16 + 3, "{before} then {}", held(&machine));
}
