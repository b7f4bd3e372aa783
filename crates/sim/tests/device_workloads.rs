//! Device workloads of the explorer: right kernels break nothing, and each planted mistake is found.

use luosim_abi::quirk::Quirk;
use luosim_scenario::print;
use luosim_sim::explore::devices::{Place, draw, seed, seed_in};
use luosim_sim::explore::invariant::Invariant;
use luosim_sim::transcript::Record;

#[test]
fn right_kernels_break_nothing() {
    for number in 0..150 {
        let found = seed(number, None, "").expect("room").finding;
        assert!(
            found.is_none(),
            "seed {number}: {}\n{}",
            found.as_ref().unwrap().detail,
            print(&draw(number, None))
        );
    }
}

/// Memory that other seeds left their bytes in is as good as new: a cold boot takes nothing from it.
#[test]
fn what_ran_before_in_the_same_memory_changes_nothing() {
    let mut place = Place::default();
    for number in 0..40 {
        let used = seed_in(&mut place, number, None, "").expect("room");
        let fresh = seed(number, None, "").expect("room");
        assert_eq!(used.digest, fresh.digest, "seed {number}");
        assert!(used.finding.is_none(), "seed {number}");
    }
    // A mistake that leaves memory unwritten shows in it too.
    for quirk in [Quirk::RetrievedPageBlank, Quirk::DeviceAstray] {
        let of = |place: &mut Place, number| seed_in(place, number, Some(quirk), "").expect("room").finding;
        let first = (0..60).find(|number| of(&mut Place::default(), *number).is_some());
        let first = first.unwrap_or_else(|| panic!("{quirk} is not found"));
        assert!(of(&mut place, first).is_some(), "{quirk}: seed {first}");
    }
}

/// Each mistake, and the invariants that it may break first: those that are meant to see it.
fn zoo() -> Vec<(Quirk, &'static [Invariant])> {
    use Invariant as I;
    vec![
        (Quirk::TablePageSkipped, &[I::D3]),
        (Quirk::FolioSkipped, &[I::D1]),
        (Quirk::BridgeMasterCleared, &[I::D4]),
        (Quirk::LeafPoisoned, &[I::D1]),
        (Quirk::DomainIdReused, &[I::D16]),
        // In a seed that has its reboot refused.
        (Quirk::IoasMutable, &[I::D2, I::D15]),
        (Quirk::ReplaceInTwoSteps, &[I::D4]),
        (Quirk::FinishWhileAttached, &[I::D14]),
        (Quirk::RetrievedPageBlank, &[I::D5]),
        (Quirk::RetrievedPageCopied, &[I::D6]),
        (Quirk::UnmapLeavesEntries, &[I::D14]),
        (Quirk::DeviceAstray, &[I::D7]),
        (Quirk::DeviceCompletesFirst, &[I::D10]),
        (Quirk::DeviceRunsTwice, &[I::D13]),
        (Quirk::DeviceSkips, &[I::D13]),
        (Quirk::DeviceLosesInterrupts, &[I::D11]),
        (Quirk::OtherDeviceRunsOn, &[I::D8]),
        (Quirk::DeviceResetAtBoot, &[I::D9]),
        (Quirk::AbortSilencesDevice, &[I::D15]),
        (Quirk::ScratchLent, &[I::D12]),
    ]
}

#[test]
fn the_zoo_has_every_planted_mistake_of_devices() {
    let planted = Quirk::ALL.iter().copied().filter(|quirk| quirk.of_devices());
    assert!(planted.eq(zoo().into_iter().map(|(quirk, _)| quirk)));
}

/// What is written down fails at its last step and nowhere else, and is far shorter than what was drawn.
#[test]
fn each_planted_mistake_of_devices_is_found_and_shrunk() {
    for (quirk, invariants) in zoo() {
        let found = (0..60).find_map(|number| seed(number, Some(quirk), "").expect("room").finding);
        let found = found.unwrap_or_else(|| panic!("{quirk} is not found"));
        assert!(invariants.contains(&found.invariant), "{quirk}: {}", found.scenario);
        assert!(found.steps < found.steps_found && found.steps <= 40, "{quirk}: {}", found.scenario);
        let scenario = luosim_scenario::parse(&found.scenario)
            .unwrap_or_else(|problems| panic!("{}\n{problems:?}", found.scenario));
        let report = luosim_sim::run(&scenario, &luosim_sim::Options::default()).expect("room");
        let wrong: Vec<usize> = report
            .records
            .iter()
            .enumerate()
            .filter(|(_, record)| matches!(record, Record::Failed { .. }))
            .map(|(at, _)| at)
            .collect();
        assert!(!wrong.is_empty(), "{quirk}: {}", found.scenario);
        let after = report.records[wrong[0]..].iter().any(|record| matches!(record, Record::Call { .. }));
        assert!(!after, "{quirk}: {}\n{:#?}", found.scenario, report.records);
    }
}

#[test]
fn a_seed_draws_the_same_and_its_scenario_reads_back() {
    for number in 0..40 {
        let drawn = draw(number, None);
        assert_eq!(drawn, draw(number, None));
        let printed = print(&drawn);
        let again =
            luosim_scenario::parse(&printed).unwrap_or_else(|problems| panic!("{printed}\n{problems:?}"));
        assert_eq!(again, drawn);
    }
}
