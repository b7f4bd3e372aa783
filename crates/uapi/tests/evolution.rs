//! Evolution as a property: programs and kernels of two ages, through the argument copying of the simulated kernels.

use luosim_uapi::diff::{Verdict, diff};
use luosim_uapi::evolution::{Bytes, Draw, Evolution, Met, Seed, Step, draw, meet};
use proptest::prelude::*;

/// Who calls whom, and whether the program is no newer than the kernel.
const PAIRS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn pair(evolution: &Evolution, (program, kernel): (bool, bool), draw: &mut impl Draw) -> Result<Met, String> {
    let of = |new: bool| if new { &evolution.new } else { &evolution.old };
    meet(of(program), of(kernel), program <= kernel, draw)
}

/// What must hold for one evolution; gives how many pairs were run.
fn check(draw_from: &mut impl Draw) -> Result<usize, String> {
    let evolution = draw(draw_from);
    let found = diff(&evolution.old, &evolution.new);
    let shown = || {
        format!(
            "{}\nold: {:#?}\nnew: {:#?}",
            evolution.step.name(),
            evolution.old.commands,
            evolution.new.commands
        )
    };
    if evolution.step.is_allowed() {
        if let Some(change) = found.changes.iter().find(|change| change.verdict == Verdict::Break) {
            return Err(format!("diff calls {} a break: {change:?}\n{}", evolution.step.name(), shown()));
        }
        for which in PAIRS {
            pair(&evolution, which, draw_from).map_err(|why| format!("{which:?}: {why}\n{}", shown()))?;
        }
        return Ok(PAIRS.len());
    }
    if !found.breaks() {
        return Err(format!("diff does not see {}: {:?}\n{}", evolution.step.name(), found.changes, shown()));
    }
    // Programs and kernels of one age agree all the same: the mistake is in the step.
    for which in [PAIRS[0], PAIRS[3]] {
        pair(&evolution, which, draw_from).map_err(|why| format!("{which:?}: {why}\n{}", shown()))?;
    }
    Ok(2)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn allowed_steps_harm_nobody_and_forbidden_ones_are_seen(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        let result = check(&mut Bytes(&bytes));
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}

#[test]
fn ten_thousand_pairs() {
    let mut seed = Seed(0x6c75_6f73);
    let mut pairs = 0;
    while pairs < 10_000 {
        pairs += check(&mut seed).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// The property says something: each forbidden step harms a pair of different ages, soon.
#[test]
fn every_forbidden_step_harms_somebody() {
    let mut harmless: Vec<Step> = Step::ALL.iter().copied().filter(|step| !step.is_allowed()).collect();
    let mut seed = Seed(3);
    for _ in 0..20_000 {
        let evolution = draw(&mut seed);
        let harm = PAIRS[1..3].iter().any(|which| pair(&evolution, *which, &mut seed).is_err());
        if harm {
            harmless.retain(|step| *step != evolution.step);
        }
    }
    assert_eq!(harmless, []);
}

/// What is refused after an allowed step is refused as the rules say, and each of these happens.
#[test]
fn every_documented_refusal_is_met() {
    let mut seed = Seed(5);
    let mut met = std::collections::BTreeSet::new();
    for _ in 0..5_000 {
        let evolution = draw(&mut seed);
        if evolution.step.is_allowed()
            && let Ok(Met::Refused(errno)) = pair(&evolution, (true, false), &mut seed)
        {
            met.insert(errno.name());
        }
    }
    assert_eq!(met.into_iter().collect::<Vec<_>>(), ["E2BIG", "ENOTTY", "EOPNOTSUPP"]);
}
