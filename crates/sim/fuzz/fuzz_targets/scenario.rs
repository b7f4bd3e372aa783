//! Any text is read as a scenario or refused; what is read is printed so that it reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(scenario) = luosim_scenario::parse(text) {
        let printed = luosim_scenario::print(&scenario);
        assert_eq!(luosim_scenario::parse(&printed).ok(), Some(scenario), "{printed}");
    }
});
