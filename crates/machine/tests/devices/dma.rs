//! DMA over a kexec under the target profile: it goes on, lands where it should, and stops where it must.

use luosim_abi::Errno;
use luosim_abi::profile::{Assumption, Profile};
use luosim_hardware::pci::config::command;
use luosim_hardware::simdma::layout::reg;
use luosim_hardware::timeline::Phase;
use luosim_machine::Outcome;

use crate::vmm::{BELOW, BESIDE, IOVA, Vmm, arrive, errno, kexec, machine, preserve_all, reclaim, session};

#[test]
fn a_loop_of_dma_goes_on_through_the_kexec_and_is_seen_in_the_retrieved_memory() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let mut driver = vmm.loop_dma(&mut machine);
    machine.tick(1000);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    machine.tick(500);
    let before = machine.hardware().expect("plugged in").device(BELOW).expect("there").totals();
    let report = kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses");
    assert!(matches!(report.outcome, Outcome::Handover { .. }), "{:?}", report.outcome);
    assert!(machine.take_assumed().contains(&Assumption::NoReset));
    let hardware = machine.hardware().expect("plugged in");
    let after = hardware.device(BELOW).expect("there").totals();
    assert!(
        after.bytes_written > before.bytes_written + 10_000,
        "DMA went on: {} then {}",
        before.bytes_written,
        after.bytes_written
    );
    assert_eq!(hardware.units()[0].fault_count(), 0, "{:?}", hardware.units()[0].faults());
    for phase in [Phase::Freeze, Phase::Jump, Phase::EarlyBoot, Phase::Boot, Phase::UserSpace] {
        let (ticks, totals) = hardware.timeline().of(phase);
        assert!(
            ticks > 0 && totals.bytes_written > 0,
            "{}: {ticks} ticks, {} bytes",
            phase.name(),
            totals.bytes_written
        );
    }
    let (pid, session) = arrive(&mut machine, b"vm", &[BELOW]);
    let vmm = reclaim(&mut machine, pid, session, BELOW).expect("nothing refuses");
    machine.tick(500);
    machine.finish(pid, session, 0).expect("everything was taken back");
    machine.tick(500);
    let hardware = machine.hardware().expect("plugged in");
    assert_eq!(hardware.units()[0].fault_count(), 0, "{:?}", hardware.units()[0].faults());
    let (drained, bad) = machine
        .guest_memory(pid, (vmm.ram, IOVA), |mem| {
            (driver.drain(mem).expect("guest memory").len(), driver.bad_stamps(mem, 4))
        })
        .expect("a memory file");
    assert!(drained > 8, "{drained} completions");
    assert_eq!(bad, []);
    assert_eq!(machine.vfio_read(pid, vmm.device, reg::RESET_CNT, 4).expect("usable"), 0, "not reset");
    assert_eq!(machine.take_violations(), [], "no invariant is broken");
}

#[test]
fn three_kexecs_in_a_row_carry_the_same_device() {
    let mut machine = machine(Profile::Target);
    let mut vmm = Vmm::start(&mut machine, BELOW);
    let driver = vmm.loop_dma(&mut machine);
    for round in 0..3 {
        let own = session(&mut machine, vmm.pid, b"vm");
        preserve_all(&mut machine, &vmm, own);
        kexec(&mut machine, vmm.pid, Profile::Target).unwrap_or_else(|why| panic!("round {round}: {why}"));
        let (pid, session) = arrive(&mut machine, b"vm", &[BELOW]);
        vmm = reclaim(&mut machine, pid, session, BELOW).unwrap_or_else(|why| panic!("round {round}: {why}"));
        machine.finish(pid, session, 0).unwrap_or_else(|why| panic!("round {round}: {why}"));
        machine.close(pid, session).expect("open");
        machine.tick(200);
    }
    let hardware = machine.hardware().expect("plugged in");
    assert_eq!(hardware.units()[0].fault_count(), 0, "{:?}", hardware.units()[0].faults());
    assert_eq!(driver.posted(), 9);
    assert_eq!(machine.kernel().expect("running").core().device_files().pci.incoming().count(), 0);
}

#[test]
fn a_device_that_is_not_preserved_is_silenced_and_blocked() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    let other = Vmm::start(&mut machine, BESIDE);
    vmm.loop_dma(&mut machine);
    other.loop_dma(&mut machine);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    machine.tick(100);
    kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses");
    let hardware = machine.hardware().expect("plugged in");
    assert!(hardware.is_master(BELOW) && !hardware.is_master(BESIDE));
    let device = hardware.function(BESIDE).expect("there");
    assert!(hardware.page_table(machine.memory(), &device).is_err(), "it has no way to memory");
    let device = hardware.function(BELOW).expect("there");
    hardware.page_table(machine.memory(), &device).expect("it has");
}

#[test]
fn the_posted_series_reset_the_device_and_nothing_lands_afterwards() {
    let mut machine = machine(Profile::Posted2026);
    let vmm = Vmm::start(&mut machine, BELOW);
    vmm.loop_dma(&mut machine);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    machine.tick(100);
    kexec(&mut machine, vmm.pid, Profile::Posted2026).expect("nothing refuses");
    let hardware = machine.hardware().expect("plugged in");
    let device = hardware.device(BELOW).expect("there");
    assert_eq!(device.totals().resets, 1);
    let late: u64 = [Phase::Jump, Phase::EarlyBoot, Phase::Boot, Phase::UserSpace]
        .map(|phase| hardware.timeline().of(phase).1.bytes_written)
        .iter()
        .sum();
    assert_eq!(late, 0);
    let master = hardware.config(BELOW).expect("there").u16(luosim_hardware::pci::config::reg::COMMAND);
    assert_eq!(master & command::MASTER, 0);
    let (pid, session) = arrive(&mut machine, b"vm", &[BELOW]);
    assert_eq!(errno(machine.retrieve_fd(pid, session, 2)), Some(Errno::EOPNOTSUPP), "phase one");
    let device = machine.retrieve_fd(pid, session, 3).expect("its identity came");
    let fresh = machine.open(pid, "/dev/iommu", 2, 0).expect("a node");
    assert_eq!(errno(machine.vfio_bind(pid, device, fresh)), Some(Errno::EPERM));
    assert_eq!(errno(machine.finish(pid, session, 0)), Some(Errno::EBUSY));
}
