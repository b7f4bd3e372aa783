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
    let (seed, finding) = find(Quirk::PlantedCanary, 200).expect("a blind explorer");
    println!("seed {seed}\n{}", finding.scenario);
    replays(&finding);
}

#[test]
#[ignore = "a survey, for whoever works on the explorer: SEEDS=n"]
fn survey() {
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let as_documented = std::env::var("DOC").is_ok();
    let mut campaign = Campaign::new(Common { as_documented, ..Common::default() }).expect("room");
    let mut groups = std::collections::BTreeMap::<String, (u64, Finding)>::new();
    let mut tally = luosim_sim::explore::world::Tally::default();
    for seed in 0..seeds {
        let outcome = campaign.seed(seed).expect("room");
        tally.add(outcome.tally);
        for finding in outcome.findings {
            groups.entry(finding.cause.clone()).or_insert_with(|| (0, finding)).0 += 1;
        }
    }
    println!("{tally:?}");
    for (cause, (count, finding)) in groups {
        println!(
            "=== {count} x {cause}: {} -> {} steps\n{}",
            finding.steps_found, finding.steps, finding.detail
        );
        if finding.quirk.is_none() {
            println!("{}", finding.scenario);
            let report = luosim_scenario::parse(&finding.scenario).map(|scenario| {
                luosim_sim::run(&scenario, &luosim_sim::Options::default()).expect("it runs").failures
            });
            println!("replay: {report:?}");
        }
    }
}

#[test]
#[ignore = "the whole zoo takes minutes"]
fn the_whole_zoo_is_found() {
    let missed: Vec<&str> = Quirk::ALL
        .iter()
        .filter(|quirk| {
            let found = find(**quirk, 20_000);
            if let Some((seed, finding)) = &found {
                println!(
                    "{quirk}: seed {seed}, {} -> {} steps: {}",
                    finding.steps_found,
                    finding.steps,
                    finding.invariant.name()
                );
                replays(finding);
            }
            found.is_none()
        })
        .map(|quirk| quirk.name())
        .collect();
    assert_eq!(missed, ["crash-image-takes-kho", "flb-error-forgotten"]);
}
