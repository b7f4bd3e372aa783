//! Each fault at each place in turn: a short run without them, and then the same run once for every place where one of
//! them can strike. What chance leaves out is done here: every allocation of every call fails once, every argument
//! cannot be read or written once, every reboot stops at each of its points, every step finds its process killed, its
//! kernel dead.
//!
//! Contract: a call that failed so is made again at once, because it must then succeed; the rest of the run follows. The
//! run itself breaks no promise: its caller has made sure.

use luosim_machine::faults::Argument;

use super::action::Action;
use super::campaign::Broken;
use super::finding;
use super::options::{FaultKind, Faults};
use super::world::{Case, World};

/// Kinds of faults that have places.
pub const KINDS: [FaultKind; 5] =
    [FaultKind::Alloc, FaultKind::Efault, FaultKind::Kill, FaultKind::Abort, FaultKind::Panic];
/// Most allocations of one call that fail in turn. No call of a short run makes as many.
const MOST_ALLOCATIONS: u32 = 4096;

/// Steps in place of one step.
type Instead = Vec<Action>;

/// Runs the case with each of these faults at each place, until a promise breaks.
///
/// # Errors
/// The host has no room for a machine.
pub fn run(world: &mut World, case: &Case, kinds: Faults) -> Result<Option<Broken>, String> {
    let points = points(world, case)?;
    for (at, points) in points.iter().enumerate() {
        for instead in places(&case.actions[at], *points, kinds) {
            if let Some(broken) = attempt(world, case, at, &instead)? {
                return Ok(Some(broken));
            }
        }
        if kinds.has(FaultKind::Alloc)
            && let Some(broken) = allocations(world, case, at)?
        {
            return Ok(Some(broken));
        }
    }
    Ok(None)
}

/// The points of each step's serialisation: none where it is no reboot.
fn points(world: &mut World, case: &Case) -> Result<Vec<u32>, String> {
    world.begin(Case { actions: Vec::new(), ..case.clone() }, false)?;
    let mut points = Vec::with_capacity(case.actions.len());
    for action in &case.actions {
        let reboot = matches!(action, Action::Kexec { .. });
        points.push(if reboot { world.reference().points() } else { 0 });
        // The caller has run the case: nothing breaks.
        let _ = world.step(action);
    }
    Ok(points)
}

/// What stands in place of a step for each fault that can strike it.
fn places(action: &Action, points: u32, kinds: Faults) -> Vec<Instead> {
    let mut found = Vec::new();
    if kinds.has(FaultKind::Efault) {
        for place in [Argument::ReadOnly, Argument::Unmapped] {
            found.extend(action.with_argument(place).map(|faulty| vec![faulty, action.clone()]));
        }
    }
    if kinds.has(FaultKind::Abort) {
        let stop = |point| Action::Stop { point, panic: false };
        found.extend((0..points).map(|point| vec![stop(point), action.clone(), action.clone()]));
    }
    if kinds.has(FaultKind::Panic) {
        found.extend((0..points).map(|point| vec![Action::Stop { point, panic: true }, action.clone()]));
    }
    let Some(p) = action.process() else { return found };
    if kinds.has(FaultKind::Kill) {
        found.push(vec![Action::Exit { p }, action.clone()]);
    }
    if kinds.has(FaultKind::Panic) {
        found.push(vec![Action::Crash { p, image: false }, action.clone()]);
    }
    found
}

/// The first allocation of a step fails, then the second, and so on to its last.
fn allocations(world: &mut World, case: &Case, at: usize) -> Result<Option<Broken>, String> {
    let action = &case.actions[at];
    if matches!(action, Action::Look { .. }) {
        return Ok(None);
    }
    for nth in 1..=MOST_ALLOCATIONS {
        let instead = [Action::FailAlloc { nth, times: 1 }, action.clone(), action.clone()];
        let broken = attempt(world, case, at, &instead)?;
        if broken.is_some() || !world.alloc_failed() {
            return Ok(broken);
        }
    }
    Ok(None)
}

fn attempt(world: &mut World, case: &Case, at: usize, instead: &[Action]) -> Result<Option<Broken>, String> {
    let (before, after) = (&case.actions[..at], &case.actions[at + 1..]);
    let mut changed = Case { actions: [before, instead, after].concat(), ..case.clone() };
    let Some((step, violation)) = finding::replay(world, &changed)? else { return Ok(None) };
    changed.actions.truncate(step + 1);
    Ok(Some(Broken { case: changed, violation }))
}

#[cfg(test)]
mod tests {
    use luosim_abi::release::ReleaseId;

    use super::*;
    use crate::explore::action::Plan;

    const ARG: Argument = Argument::Normal;

    #[test]
    fn every_fault_has_its_places() {
        let create = Action::Create { p: 0, device: 0, name: 0, new: 1, arg: ARG };
        assert_eq!(places(&create, 0, Faults::ALL).len(), 4, "two arguments, a kill, a panic");
        let kexec = Action::Kexec { p: 0, plan: Plan::new(ReleaseId::V7_3) };
        assert_eq!(places(&kexec, 3, Faults::ALL).len(), 8, "three points, twice, a kill, a panic");
        assert_eq!(places(&kexec, 3, Faults::NONE.with(FaultKind::Abort)).len(), 3);
        assert_eq!(places(&create, 0, Faults::NONE), [] as [Instead; 0]);
    }

    #[test]
    fn allocations_fail_in_turn_until_there_is_none_left() {
        let plan = Plan::new(ReleaseId::V7_3);
        let quirks_off = crate::explore::options::shipped_quirks();
        let actions = vec![
            Action::Open { p: 0, new: 0 },
            Action::Create { p: 0, device: 0, name: 0, new: 1, arg: ARG },
            Action::Memfd { p: 0, new: 2, kind: 0, huge: false },
            Action::Write { p: 0, fd: 2, at: 0, cells: 24, seed: 1 },
        ];
        let case =
            Case { memory: 32 << 20, first: plan, quirks_on: Vec::new(), quirks_off, max_procs: 1, actions };
        let mut world = World::new(case.memory).expect("room");
        let mut struck = 0;
        for nth in 1..10 {
            let instead = [Action::FailAlloc { nth, times: 1 }, case.actions[3].clone()];
            assert!(attempt(&mut world, &case, 3, &instead).expect("room").is_none());
            struck += u32::from(world.alloc_failed());
        }
        assert_eq!(struck, 3, "three pages are written");
    }
}
