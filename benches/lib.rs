//! Worlds that the benchmarks run on.

#![forbid(unsafe_code)]

/// So that pages which the allocator gives back to the host and takes again are not what is measured. The command has the
/// C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use luosim_abi::release::ReleaseId;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, ImageKind, Machine};
use luosim_physmem::PhysMem;

/// A machine with `memory` bytes, booted cold, and its first process.
///
/// # Panics
/// If the host has no room for the memory.
#[must_use]
pub fn booted(memory: u64, release: ReleaseId) -> (Machine, Pid) {
    let mut machine = Machine::without_ledger(PhysMem::anonymous(memory).expect("the host has room"));
    machine.cold_reset(release, &BootOptions::default());
    let pid = machine.spawn("bench").expect("a kernel runs");
    (machine, pid)
}

/// Boots the machine cold on the memory it has, without giving it back to the host.
///
/// # Panics
/// Never, but for a bug.
pub fn rebooted(machine: &mut Machine, release: ReleaseId) -> Pid {
    machine.cold_boot_in_place(release, &BootOptions::default());
    machine.spawn("bench").expect("a kernel runs")
}

/// Loads an image and jumps; gives the first process of the new kernel.
///
/// # Panics
/// If the kexec is refused.
pub fn kexec(machine: &mut Machine, pid: Pid, release: ReleaseId) -> Pid {
    machine.load_image(pid, release, BootOptions::default(), ImageKind::File).expect("root may load");
    machine.reboot_kexec(pid).expect("an image is loaded");
    machine.spawn("bench").expect("a kernel runs")
}

/// Opens the device.
///
/// # Panics
/// If it is busy or missing.
pub fn device(machine: &mut Machine, pid: Pid) -> i32 {
    machine.open(pid, "/dev/liveupdate", 2, 0).expect("the device is free")
}

/// One small cycle: two sessions of two memfds of four pages, kexec, retrieve all, finish.
///
/// # Panics
/// If any call fails.
pub fn small_cycle(machine: &mut Machine, pid: Pid, release: ReleaseId) -> Pid {
    let page = [7u8; 4096];
    let dev = device(machine, pid);
    for name in [b"one", b"two"] {
        let session = machine.create_session(pid, dev, name).expect("a new name");
        for token in 0..2 {
            let file = machine.memfd_create(pid, "m", 0, false).expect("room");
            for index in 0..4 {
                machine.pwrite(pid, file, &page, index * 4096).expect("room");
            }
            machine.preserve_fd(pid, session, file, token).expect("a memfd");
        }
    }
    let pid = kexec(machine, pid, release);
    let dev = device(machine, pid);
    for name in [b"one", b"two"] {
        let session = machine.retrieve_session(pid, dev, name).expect("carried");
        for token in 0..2 {
            let file = machine.retrieve_fd(pid, session, token).expect("carried");
            machine.close(pid, file).expect("open");
        }
        machine.finish(pid, session, 0).expect("incoming");
        machine.close(pid, session).expect("open");
    }
    machine.close(pid, dev).expect("open");
    pid
}
