//! Device workloads of the explorer: right kernels break nothing, and each planted mistake is found.

use luosim_abi::quirk::Quirk;
use luosim_scenario::print;
use luosim_sim::explore::devices::{draw, seed};

#[test]
fn right_kernels_break_nothing() {
    for number in 0..150 {
        let found = seed(number, None).expect("room");
        assert!(
            found.is_none(),
            "seed {number}: {}\n{}",
            found.as_ref().unwrap().message,
            print(&draw(number, None))
        );
    }
}

#[test]
fn each_planted_mistake_of_devices_is_found() {
    for quirk in Quirk::ALL.iter().copied().filter(|quirk| quirk.of_devices()) {
        let found = (0..40).find_map(|number| seed(number, Some(quirk)).expect("room"));
        assert!(found.is_some(), "{quirk}");
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
