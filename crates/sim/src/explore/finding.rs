//! A finding: a broken promise with its cause and the shortest case that shows it, written as a scenario.

use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_scenario::Scenario;

use super::campaign::{Broken, guarded};
use super::invariant::Invariant;
use super::shrink;
use super::world::{Case, Violation, World};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// The promise that is broken.
    pub invariant: Invariant,
    /// The step that showed it.
    pub action: String,
    /// What was expected and what was found.
    pub detail: String,
    /// What findings with the same cause share.
    pub cause: String,
    /// The quirk that explains it, if one does.
    #[serde(skip)]
    pub quirk: Option<Quirk>,
    /// Name of that quirk.
    pub quirk_name: Option<String>,
    /// Steps before shrinking.
    pub steps_found: usize,
    /// Steps of the scenario.
    pub steps: usize,
    /// The scenario; empty if there is none.
    pub scenario: String,
}

impl Finding {
    /// A finding that no scenario shows.
    #[must_use]
    pub fn bare(seed: u64, violation: Violation) -> Self {
        let cause = cause(&violation, None);
        let Violation { invariant, action, detail, .. } = violation;
        Self {
            seed,
            invariant,
            action: action.to_owned(),
            detail,
            cause,
            quirk: None,
            quirk_name: None,
            steps_found: 0,
            steps: 0,
            scenario: String::new(),
        }
    }
}

fn cause(violation: &Violation, quirk: Option<Quirk>) -> String {
    match quirk {
        Some(quirk) => format!("quirk {quirk}"),
        None => format!("{}: {}: {}", violation.invariant.name(), violation.action, violation.class),
    }
}

/// Whether two broken promises have the same cause, as far as can be told without a quirk's name.
fn same(one: &Violation, other: &Violation) -> bool {
    one.invariant == other.invariant && one.action == other.action && one.class == other.class
}

/// The first broken promise of a case, and the number of the step that showed it.
///
/// # Errors
/// The host has no room for a machine.
pub fn replay(world: &mut World, case: &Case) -> Result<Option<(usize, Violation)>, String> {
    let (mut result, mut at) = (Ok(()), 0);
    let violation = guarded(|| match world.run(case, false) {
        Ok(Ok(())) => None,
        Ok(Err((step, broken))) => {
            at = step;
            Some(*broken)
        }
        Err(error) => {
            result = Err(error);
            None
        }
    });
    result?;
    if violation.as_ref().is_some_and(|violation| violation.invariant == Invariant::Alive) {
        at = case.actions.len();
        world.replace()?;
    }
    Ok(violation.map(|violation| (at, violation)))
}

/// Shrinks a broken run, finds the quirk behind it and writes the scenario.
///
/// # Errors
/// The host has no room for a machine.
pub fn investigate(world: &mut World, seed: u64, broken: &Broken, options: &str) -> Result<Finding, String> {
    let steps_found = broken.case.actions.len();
    let quirk = attribute(world, broken)?;
    let wanted = broken.violation.clone();
    let case = shrink::shrink(&broken.case, |case| {
        let found = replay(world, case)?;
        let good = |violation: &Violation| same(violation, &wanted);
        let Some((at, _)) = found.filter(|(_, violation)| good(violation)) else { return Ok(None) };
        // What a quirk explains it must go on explaining.
        let explained = match quirk {
            Some(quirk) => {
                replay(world, &without(case, quirk))?.is_none_or(|(_, violation)| !good(&violation))
            }
            None => true,
        };
        Ok(explained.then_some(at))
    })?;
    // Another defect that shows in the same way explains nothing.
    let case = shrink::fewer_off(&case, |case| {
        let Some((_, violation)) = replay(world, case)?.filter(|(_, found)| same(found, &wanted)) else {
            return Ok(false);
        };
        Ok(attribute(world, &Broken { case: case.clone(), violation })? == quirk)
    })?;
    let violation = replay(world, &case)?.map_or(wanted, |(_, violation)| violation);
    let scenario = write(world, &case, (seed, options), &violation, quirk)?;
    let mut finding = Finding::bare(seed, violation.clone());
    finding.cause = cause(&violation, quirk);
    finding.quirk = quirk;
    finding.quirk_name = quirk.map(|quirk| quirk.name().to_owned());
    (finding.steps_found, finding.steps) = (steps_found, case.actions.len());
    finding.scenario = scenario;
    Ok(finding)
}

fn without(case: &Case, quirk: Quirk) -> Case {
    let mut case = case.clone();
    case.quirks_on.retain(|on| *on != quirk);
    case.quirks_off.push(quirk);
    case
}

/// The quirk without which the promise is kept.
fn attribute(world: &mut World, broken: &Broken) -> Result<Option<Quirk>, String> {
    for quirk in active(&broken.case) {
        let found = replay(world, &without(&broken.case, quirk))?;
        if found.is_none_or(|(at, violation)| {
            !same(&violation, &broken.violation) || at + 1 < broken.case.actions.len()
        }) {
            return Ok(Some(quirk));
        }
    }
    Ok(None)
}

/// Quirks that some kernel of the case has.
fn active(case: &Case) -> Vec<Quirk> {
    use super::action::Action;
    let plans = case.actions.iter().filter_map(|action| match action {
        Action::Kexec { plan, .. } | Action::Reset { plan } => Some(*plan),
        _ => None,
    });
    let plans: Vec<_> = std::iter::once(case.first).chain(plans).collect();
    let on = |quirk: &&Quirk| {
        case.quirks_on.contains(quirk)
            || !case.quirks_off.contains(quirk)
                && plans.iter().any(|plan| plan.release.release().quirks.has(**quirk))
    };
    // What was switched on by hand is asked first.
    let (mut first, rest): (Vec<Quirk>, Vec<Quirk>) =
        Quirk::ALL.iter().filter(on).partition(|quirk| case.quirks_on.contains(quirk));
    first.extend(rest);
    first
}

/// The scenario of a case, with what it shows at its head.
fn write(
    world: &mut World,
    case: &Case,
    (seed, options): (u64, &str),
    violation: &Violation,
    quirk: Option<Quirk>,
) -> Result<String, String> {
    world.write_script();
    let run = replay_writing(world, case);
    let steps = world.take_script();
    run?;
    let scenario = Scenario {
        name: format!("explore-{seed}"),
        about: format!("breaks `{}`: {}", violation.invariant.name(), violation.class),
        memory: case.memory,
        profile: Profile::Mainline,
        phase_ticks: None,
        steps,
    };
    let body = luosim_scenario::print(&scenario);
    let explained = quirk.map(|quirk| format!("// Explained by quirk `{quirk}`.\n")).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let detail = violation.detail.replace('\n', " ");
    Ok(format!(
        "// Found by luosim {version}, seed {seed}: luosim explore --seeds {seed}..{} {options}\n\
         // Repeat: luosim run --explain FILE\n\
         // Broken: {} ({})\n// {}\n{explained}// {detail}\n{body}",
        seed + 1,
        violation.invariant.name(),
        violation.action,
        violation.invariant.describe(),
    ))
}

fn replay_writing(world: &mut World, case: &Case) -> Result<(), String> {
    let mut result = Ok(());
    let panicked = guarded(|| {
        result = world.run(case, true).map(|_| ());
        None
    });
    // A panic of luosim ends the script where it happened, which is what it shows.
    drop(panicked);
    result
}
