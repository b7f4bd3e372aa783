//! Mistakes that kernels could make, each put into one: an invariant breaks, and none without it.

use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_hardware::verify::{Invariant, Violation};
use luosim_machine::{BootOptions, Machine, Outcome};

use crate::vmm::{
    BELOW, BESIDE, IOVA, Vmm, arrive, guest_memory, kexec_with, machine, options, preserve_all, reclaim,
    session,
};

/// What came of an update of two devices, of which one is carried, in kernels with these quirks.
fn update(quirks: &[Quirk]) -> (Vec<Violation>, Option<String>) {
    let options = BootOptions { quirks_on: quirks.to_vec(), ..options(Profile::Target) };
    let mut machine = machine(Profile::Target);
    machine.cold_reset(ReleaseId::V7_3, &options);
    let vmm = Vmm::start(&mut machine, BELOW);
    let driver = vmm.loop_dma(&mut machine);
    machine.tick(300);
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    let late = guest_memory(&mut machine, vmm.pid);
    let iommufd = (vmm.iommufd, vmm.ioas);
    // Refused by every kernel that is right.
    let _ = machine.ioas_map(vmm.pid, iommufd, Some((late, 0)), (IOVA - 0x1000, 0x1000));
    let report = kexec_with(&mut machine, vmm.pid, options).expect("nothing refuses");
    if let Outcome::Panicked { reason } = report.outcome {
        return (machine.take_violations(), Some(reason));
    }
    take_back(&mut machine, &driver, quirks.contains(&Quirk::FinishWhileAttached));
    (machine.take_violations(), None)
}

/// The new kernel's part, as far as it goes.
fn take_back(machine: &mut Machine, driver: &luosim_hardware::driver::Driver, early: bool) {
    let (pid, session) = arrive(machine, b"vm", &[BELOW]);
    // A new machine on the other device, with the lowest domain id that is free.
    Vmm::start(machine, BESIDE);
    if early {
        for token in [1, 2, 3] {
            machine.retrieve_fd(pid, session, token).expect("carried");
        }
        let device = machine.retrieve_fd(pid, session, 3).expect("carried");
        let iommufd = machine.retrieve_fd(pid, session, 2).expect("carried");
        machine.vfio_bind(pid, device, iommufd).expect("its own");
        machine.hwpt_restore(pid, iommufd, 0x77).expect("marked");
        machine.finish(pid, session, 0).expect("a kernel that lets it through");
        return;
    }
    // With a folio missing the memory cannot come back; what was seen before is enough.
    if reclaim(machine, pid, session, BELOW).is_ok() {
        machine.finish(pid, session, 0).expect("everything was taken back");
    }
    assert_eq!(driver.posted(), 9);
}

#[test]
fn a_kernel_that_is_right_breaks_nothing() {
    assert_eq!(update(&[]), (Vec::new(), None));
}

/// What is tried below, and the invariant that sees it.
const TRIED: [(Quirk, Invariant); 9] = [
    (Quirk::FolioSkipped, Invariant::D1),
    (Quirk::BridgeMasterCleared, Invariant::D4),
    (Quirk::LeafPoisoned, Invariant::D1),
    (Quirk::DomainIdReused, Invariant::D16),
    (Quirk::IoasMutable, Invariant::D2),
    (Quirk::ReplaceInTwoSteps, Invariant::D4),
    (Quirk::FinishWhileAttached, Invariant::D14),
    (Quirk::DeviceResetAtBoot, Invariant::D9),
    (Quirk::ScratchLent, Invariant::D12),
];

#[test]
fn every_mistake_breaks_an_invariant() {
    for (quirk, invariant) in TRIED {
        let (found, panicked) = update(&[quirk]);
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|one| one.invariant == invariant), "{quirk}: {names:?}, {panicked:?}");
    }
}

/// A table page that was not preserved: the kernel must not go on, and does not.
#[test]
fn a_table_page_that_is_missing_stops_the_boot() {
    let (found, panicked) = update(&[Quirk::TablePageSkipped]);
    let reason = panicked.expect("DMA may have gone anywhere");
    assert!(reason.contains("cannot be taken over"), "{reason}");
    assert!(found.iter().any(|one| one.invariant == Invariant::D3), "{found:?}");
}

/// Those that only the driver of a guest sees, or somebody who goes on after the update, are the explorer's.
#[test]
fn every_planted_mistake_of_devices_is_tried_here_or_by_the_explorer() {
    let elsewhere = [
        Quirk::RetrievedPageBlank,
        Quirk::RetrievedPageCopied,
        Quirk::UnmapLeavesEntries,
        Quirk::DeviceAstray,
        Quirk::DeviceCompletesFirst,
        Quirk::DeviceRunsTwice,
        Quirk::DeviceSkips,
        Quirk::DeviceLosesInterrupts,
        Quirk::OtherDeviceRunsOn,
        Quirk::AbortSilencesDevice,
    ];
    let here = TRIED.iter().map(|(quirk, _)| *quirk).chain([Quirk::TablePageSkipped]);
    let mut known: Vec<Quirk> = here.chain(elsewhere).collect();
    known.sort_unstable();
    let planted: Vec<Quirk> = Quirk::ALL.iter().copied().filter(|quirk| quirk.of_devices()).collect();
    assert_eq!(known, planted);
}
