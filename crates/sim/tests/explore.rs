//! The explorer: it sees what is planted, and what it finds is a scenario that shows it again.

use luosim_abi::quirk::Quirk;
use luosim_sim::explore::campaign::Campaign;
use luosim_sim::explore::finding::Finding;
use luosim_sim::explore::options::Common;

/// The first finding that is put down to the quirk, and the seed.
fn find(quirk: Quirk, seeds: u64) -> Option<(u64, Finding)> {
    let mut campaign = Campaign::new(Common { zoo: Some(quirk), ..Common::default() }).expect("room");
    (0..seeds).find_map(|seed| {
        let outcome = campaign.seed(seed).expect("room");
        let found = outcome.findings.into_iter().find(|finding| finding.quirk == Some(quirk));
        found.map(|finding| (seed, finding))
    })
}

fn replays(finding: &Finding) {
    let parsed = luosim_scenario::parse(&finding.scenario);
    let scenario = parsed.unwrap_or_else(|error| panic!("{error:?}\n{}", finding.scenario));
    let report = luosim_sim::run(&scenario, &luosim_sim::Options::default()).expect("it runs");
    assert_eq!(report.failures, 1, "{}\n{:#?}", finding.scenario, report.records);
}

#[test]
fn the_canary_is_found() {
    let (_, finding) = find(Quirk::PlantedCanary, 200).expect("a blind explorer");
    replays(&finding);
}

#[test]
#[ignore = "the whole zoo takes minutes"]
fn the_whole_zoo_is_found() {
    let missed: Vec<&str> = Quirk::ALL
        .iter()
        .filter(|quirk| {
            let found = find(**quirk, 20_000);
            if let Some((_, finding)) = &found {
                replays(finding);
            }
            found.is_none()
        })
        .map(|quirk| quirk.name())
        .collect();
    assert_eq!(missed, ["crash-image-takes-kho", "flb-error-forgotten"]);
}

#[test]
fn the_book_has_every_promise_and_every_fault() {
    use luosim_sim::explore::invariant::Invariant;
    use luosim_sim::explore::options::FaultKind;
    let page = include_str!("../../../docs/promises.md");
    let promises = Invariant::ALL.iter().map(|one| (one.name(), one.describe()));
    let faults = FaultKind::ALL.iter().map(|one| (one.name(), one.describe()));
    for (name, about) in promises.chain(faults) {
        assert!(page.contains(&format!("- **`{name}`** {about}\n")), "{name}");
    }
}

#[test]
fn a_seed_does_the_same_on_used_and_on_fresh_memory() {
    let mut used = Campaign::new(Common::default()).expect("room");
    for seed in 0..40 {
        let mut fresh = Campaign::new(Common::default()).expect("room");
        let (one, other) = (used.seed(seed).expect("room"), fresh.seed(seed).expect("room"));
        assert_eq!((one.digest, one.findings), (other.digest, other.findings), "seed {seed}");
    }
}

#[test]
fn nothing_breaks_without_quirks() {
    let mut campaign = Campaign::new(Common { as_documented: true, ..Common::default() }).expect("room");
    for seed in 0..400 {
        let findings = campaign.seed(seed).expect("room").findings;
        assert!(findings.is_empty(), "{}", findings[0].scenario);
    }
}

#[test]
fn a_few_of_the_zoo_are_found_and_repeat_in_a_few_steps() {
    for quirk in [
        Quirk::TokenTwice,
        Quirk::StructureLeaked,
        Quirk::SerializeRacesClose,
        Quirk::UndoFirstOnly,
        Quirk::SealsNotCarried,
    ] {
        let (_, finding) = find(quirk, 400).unwrap_or_else(|| panic!("{quirk} is not found"));
        assert!(finding.steps <= 12, "{quirk}: {}", finding.scenario);
        replays(&finding);
    }
}
