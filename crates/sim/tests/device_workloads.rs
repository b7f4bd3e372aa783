//! Device workloads of the explorer: right kernels break nothing, and each planted mistake is found.

use luosim_abi::quirk::Quirk;
use luosim_scenario::print;
use luosim_sim::explore::devices::{draw, seed};
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

#[test]
fn each_planted_mistake_of_devices_is_found() {
    for quirk in Quirk::ALL.iter().copied().filter(|quirk| quirk.of_devices()) {
        let found = (0..40).find_map(|number| seed(number, Some(quirk), "").expect("room").finding);
        let found = found.unwrap_or_else(|| panic!("{quirk} is not found"));
        eprintln!("{quirk}: {} seed {} steps {} -> {}\n{}", found.invariant.name(), found.seed, found.steps_found, found.steps, found.scenario);
        assert!(found.steps < found.steps_found, "{quirk}: nothing was left out of {}", found.scenario);
        // What is written fails at its last step, and nowhere else.
        let scenario = luosim_scenario::parse(&found.scenario)
            .unwrap_or_else(|problems| panic!("{}\n{problems:?}", found.scenario));
        let report = luosim_sim::run(&scenario, &luosim_sim::Options::default()).expect("room");
        let failed = report.records.iter().any(|record| match record {
            Record::Failed { .. } => true,
            Record::Boot { outcome, .. } => outcome == "panic",
            _ => false,
        });
        assert!(failed, "{quirk}: {}", found.scenario);
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
