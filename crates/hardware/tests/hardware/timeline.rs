//! The account of a machine's life, phase by phase.

use luosim_hardware::simdma::Totals;
use luosim_hardware::timeline::{NS_PER_TICK, Phase, Update};

use crate::world::{GUEST, OTHER, World};

/// The other device works all the time; each phase takes as many ticks as its place says.
fn live(phases: &[(Phase, u64)]) -> World {
    let mut world = World::new(None);
    world.start_other();
    for (phase, ticks) in phases {
        world.hw.enter(*phase);
        world.tick(*ticks);
    }
    world
}

fn names(update: &Update) -> Vec<&'static str> {
    update.phases().iter().map(|account| account.phase.name()).collect()
}

#[test]
fn an_update_is_what_its_freeze_is_for() {
    use Phase::{EarlyBoot, Finish, Freeze, Jump, Preserve, Reclaim, Retrieve, Run, UserSpace};
    let world = live(&[
        // The first kernel comes up: no blackout.
        (EarlyBoot, 7),
        (UserSpace, 7),
        (Run, 5),
        (Preserve, 2),
        (Run, 1),
        (Preserve, 2),
        // Refused: the guest goes on.
        (Freeze, 3),
        (Run, 10),
        (Preserve, 1),
        (Freeze, 3),
        (Jump, 4),
        (EarlyBoot, 5),
        (Retrieve, 6),
        (Run, 2),
        (Retrieve, 1),
        (Reclaim, 1),
        // The next update is prepared before this one is finished.
        (Preserve, 8),
        (Finish, 1),
        (Run, 1),
        (Freeze, 1),
        (Jump, 0),
    ]);
    let timeline = world.hw.timeline();
    let updates = timeline.updates();
    assert_eq!(updates.len(), 3);
    assert_eq!(names(&updates[0]), ["preserve", "freeze"]);
    assert_eq!(
        names(&updates[1]),
        ["preserve", "freeze", "jump", "early-boot", "retrieve", "reclaim", "finish"]
    );
    assert_eq!(names(&updates[2]), ["preserve", "freeze"]);
    assert_eq!(updates.iter().map(Update::was_carried_out).collect::<Vec<_>>(), [false, true, true]);
    let ticks: Vec<u64> = updates.iter().map(|update| update.blackout() / NS_PER_TICK).collect();
    assert_eq!(ticks, [3, 3 + 4 + 5 + 7, 1]);
    assert_eq!(timeline.blackout() / NS_PER_TICK, ticks.iter().sum::<u64>());
    let preserve = updates[2].phases()[0];
    assert_eq!(preserve.nanoseconds, 8 * NS_PER_TICK);
}

#[test]
fn what_is_done_is_counted_once() {
    let world = live(&[(Phase::Freeze, 100), (Phase::Jump, 63), (Phase::Run, 7), (Phase::Retrieve, 1)]);
    let timeline = world.hw.timeline();
    let all = timeline.spans.iter().fold(Totals::default(), |sum, span| sum.plus(&span.totals()));
    assert_eq!(all, world.hw.device(OTHER).unwrap().totals());
    let update = &timeline.updates()[0];
    let blackout = update.device_in_blackout(OTHER);
    // One tick in 65 goes back to the beginning, the others move 64 bytes.
    assert_eq!(blackout.bytes_written, 64 * (100 + 63 + 1 - 2));
    assert_eq!(update.device_in_blackout(GUEST), Totals::default());
    let accounts = update.phases();
    assert_eq!(accounts.iter().map(|one| one.totals.bytes_written).sum::<u64>(), blackout.bytes_written);
}

#[test]
fn refused_requests_are_counted_to_their_phase() {
    let mut world = live(&[(Phase::Freeze, 5)]);
    world.hw.enter(Phase::Jump);
    world.root.clear_context(&mut luosim_hardware::iommu::RamRef(&mut world.ram), OTHER);
    world.tick(5);
    let refused: Vec<u64> = world.hw.timeline().updates()[0].phases().iter().map(|one| one.refused).collect();
    // The payload, and then its completion: the device stops.
    assert_eq!(refused, [0, 2]);
}
