//! The explorer: it sees what is planted, and what it finds is a scenario that shows it again.

use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_machine::faults::Argument;
use luosim_sim::explore::action::{Action, Plan, Spoil};
use luosim_sim::explore::campaign::Campaign;
use luosim_sim::explore::finding::Finding;
use luosim_sim::explore::options::{Common, FaultKind, Faults, shipped_quirks};
use luosim_sim::explore::world::{Case, World};

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
        .filter(|quirk| !quirk.of_devices() && !quirk.of_posted_designs())
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
fn faults_strike_in_turn_and_nothing_breaks() {
    let common = Common { as_documented: true, in_turn: true, ..Common::default() };
    let mut campaign = Campaign::new(common.clone()).expect("room");
    let mut once = Campaign::new(Common { in_turn: false, ..common }).expect("room");
    let (mut turned, mut single) = (0, 0);
    for seed in 0..60 {
        let outcome = campaign.seed(seed).expect("room");
        assert!(outcome.findings.is_empty(), "{}", outcome.findings[0].scenario);
        turned += outcome.tally.steps;
        single += once.seed(seed).expect("room").tally.steps;
    }
    assert!(turned > 5 * single, "{turned} steps in turn, {single} once");
}

#[test]
fn what_only_one_allocation_shows_is_found_in_turn() {
    let common = Common {
        zoo: Some(Quirk::PreserveErrorUnits),
        faults: Faults::NONE.with(FaultKind::Alloc),
        in_turn: true,
        ..Common::default()
    };
    let mut campaign = Campaign::new(common).expect("room");
    let found = (0..60).flat_map(|seed| campaign.seed(seed).expect("room").findings).next();
    let finding = found.expect("every allocation of every PRESERVE_FD fails once");
    assert_eq!(finding.quirk, Some(Quirk::PreserveErrorUnits));
    replays(&finding);
}

/// One word of the metadata of a small handover is another one: whatever the kernel makes of it, luosim bears it.
#[test]
fn any_word_may_be_spoiled() {
    let arg = Argument::Normal;
    for release in [ReleaseId::V6_19, ReleaseId::V7_1, ReleaseId::V7_3] {
        let plan = Plan::new(release);
        let (quirks_on, quirks_off) = (Vec::new(), shipped_quirks());
        let case =
            Case { memory: 32 << 20, first: plan, quirks_on, quirks_off, max_procs: 1, actions: Vec::new() };
        let mut world = World::new(case.memory).expect("room");
        let mut fates = std::collections::BTreeSet::new();
        for at in 0..700 {
            let flip = 1u64.rotate_left(at * 7 % 64);
            let actions = vec![
                Action::Open { p: 0, new: 0 },
                Action::Create { p: 0, device: 0, name: 0, new: 1, arg },
                Action::Memfd { p: 0, new: 2, kind: 0, huge: false },
                Action::Write { p: 0, fd: 2, at: 0, cells: 24, seed: 1 },
                Action::Preserve { p: 0, session: 1, fd: 2, token: 1, arg },
                Action::Spoil(Spoil::Word { at, flip }),
                Action::Kexec { p: 0, plan },
            ];
            let run = world.run(&Case { actions, ..case.clone() }, false).expect("room");
            assert_eq!(run, Ok(()), "word {at} with {flip:#x} on {release:?}");
            fates.extend(world.reference().fates.iter().map(|fate| fate.word));
        }
        assert!(fates.len() >= 2, "some words matter and some do not: {fates:?} on {release:?}");
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

/// Seeds that once broke a promise because the explorer was wrong: about a descriptor that became another file before the
/// reboot, points behind the last, a folio that is the only one, a close that waits for a reboot in which the kernel dies.
#[test]
fn seeds_that_once_misled() {
    let mut campaign = Campaign::new(Common { as_documented: true, ..Common::default() }).expect("room");
    for seed in [73_651, 331_903, 1_070_538, 1_355_550, 1_872_875] {
        let findings = campaign.seed(seed).expect("room").findings;
        assert!(findings.is_empty(), "{}", findings[0].scenario);
    }
}

/// What is done to two files at any point of a reboot: a position follows until its file is frozen, contents always.
#[test]
fn calls_inside_a_reboot_are_carried_as_they_must() {
    let (arg, plan) = (Argument::Normal, Plan::new(ReleaseId::V7_3));
    let mut world = World::new(32 << 20).expect("room");
    for (fd, point) in [2, 3].into_iter().flat_map(|fd| (0..5).map(move |point| (fd, point))) {
        let inside = [
            Action::SeekInReboot { p: 0, fd, to: 700, point },
            Action::WriteInReboot { p: 0, fd, at: 0, cells: 1, seed: 9, point },
        ];
        for call in inside {
            let file = |new, token| {
                [
                    Action::Memfd { p: 0, new, kind: 0, huge: false },
                    Action::Write { p: 0, fd: new, at: 0, cells: 8, seed: 1 },
                    Action::Seek { p: 0, fd: new, to: 100 },
                    Action::Preserve { p: 0, session: 1, fd: new, token, arg },
                ]
            };
            let before =
                [Action::Open { p: 0, new: 0 }, Action::Create { p: 0, device: 0, name: 0, new: 1, arg }];
            let after = [
                Action::Kexec { p: 0, plan },
                Action::Open { p: 0, new: 0 },
                Action::Take { p: 0, device: 0, name: 0, new: 1, arg },
                Action::Retrieve { p: 0, session: 1, token: 1, new: 2, arg },
                Action::Retrieve { p: 0, session: 1, token: 2, new: 3, arg },
            ];
            let actions = [&before[..], &file(2, 1), &file(3, 2), &[call], &after].concat();
            let (quirks_on, quirks_off) = (Vec::new(), shipped_quirks());
            let case = Case { memory: 32 << 20, first: plan, quirks_on, quirks_off, max_procs: 1, actions };
            assert_eq!(world.run(&case, false).expect("room"), Ok(()), "{case:?}");
        }
    }
}
