//! Which devices are watched, and until when.

use luosim_abi::profile::Profile;
use luosim_hardware::pci::config::command;
use luosim_hardware::verify::Invariant;

use crate::vmm::{BELOW, BESIDE, Vmm, arrive, machine, preserve_all, reclaim, session, two_carried};

/// Its session is closed, and so is it: what becomes of its page table is nobody's concern, also while another device is moved.
#[test]
fn a_device_whose_session_was_closed_is_watched_no_longer() {
    let mut machine = machine(Profile::Target);
    let vmms = [Vmm::start(&mut machine, BELOW), Vmm::start(&mut machine, BESIDE)];
    let sessions: Vec<i32> =
        vmms.iter().zip([b"one", b"two"]).map(|(vmm, name)| session(&mut machine, vmm.pid, name)).collect();
    for (vmm, own) in vmms.iter().zip(&sessions) {
        vmm.loop_dma(&mut machine);
        preserve_all(&mut machine, vmm, *own);
    }
    for (vmm, own) in vmms.iter().zip(sessions) {
        machine.close(vmm.pid, own).expect("open");
    }
    machine.vfio_detach(vmms[0].pid, vmms[0].device).expect("no longer preserved");
    machine.vfio_attach(vmms[1].pid, vmms[1].device, vmms[1].ioas).expect("no longer preserved");
    assert_eq!(machine.take_violations(), []);
}

/// The first VMM is through and preserves anew; the second has not come for its device yet.
#[test]
fn a_device_that_waits_for_its_vmm_is_watched_while_another_is_preserved_again() {
    for silenced in [false, true] {
        let mut machine = two_carried();
        let (pid, one) = arrive(&mut machine, b"one", &[BELOW, BESIDE]);
        let first = reclaim(&mut machine, pid, one, BELOW).expect("nothing refuses");
        machine.finish(pid, one, 0).expect("everything is taken back");
        let again = session(&mut machine, pid, b"one again");
        preserve_all(&mut machine, &first, again);
        if silenced {
            let (hardware, _) = machine.hardware_and_memory();
            hardware.expect("plugged in").change_command(BESIDE, 0, command::MASTER);
        }
        let (pid, two) = arrive(&mut machine, b"two", &[]);
        reclaim(&mut machine, pid, two, BESIDE).expect("nothing refuses");
        let found = machine.take_violations();
        assert_eq!(found.iter().any(|one| one.invariant == Invariant::D4), silenced, "{found:?}");
        assert_eq!(found.is_empty(), !silenced, "{found:?}");
    }
}
