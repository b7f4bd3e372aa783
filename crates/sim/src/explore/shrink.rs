//! The shrinker: fewest steps, then fewest faults, smallest sizes, fewest kernels. Deterministic.
//!
//! Contract: what is returned fails as the original does; nothing that the shrinker tries is missing from it. A step
//! whose operand is gone means nothing, so any part of a list of steps can be tried.

use super::action::{Action, Plan};
use super::world::Case;

/// Most cases that are tried.
const TRIES: u32 = 4000;

struct Search<F> {
    best: Case,
    fails: F,
    left: u32,
}

impl<F: FnMut(&Case) -> Result<Option<usize>, String>> Search<F> {
    /// Keeps `case` if it fails as wanted, cut off behind the step that showed it.
    fn try_case(&mut self, mut case: Case) -> Result<bool, String> {
        if self.left == 0 || case == self.best {
            return Ok(false);
        }
        self.left -= 1;
        let Some(at) = (self.fails)(&case)? else { return Ok(false) };
        case.actions.truncate(at + 1);
        self.best = case;
        Ok(true)
    }

    /// Leaves out pieces of `size` steps, the last first.
    fn drop_pieces(&mut self, size: usize) -> Result<bool, String> {
        let mut changed = false;
        let mut end = self.best.actions.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let mut case = self.best.clone();
            case.actions.drain(start..end.min(self.best.actions.len()));
            changed |= self.try_case(case)?;
            end = start.min(self.best.actions.len());
        }
        Ok(changed)
    }

    fn drop_steps(&mut self) -> Result<(), String> {
        let mut size = self.best.actions.len() / 2;
        while size > 1 {
            self.drop_pieces(size)?;
            size /= 2;
        }
        while self.drop_pieces(1)? {}
        self.drop_pairs()
    }

    /// Leaves out two steps at once: one that opens and one that closes.
    fn drop_pairs(&mut self) -> Result<(), String> {
        let mut first = 0;
        while first < self.best.actions.len() && self.best.actions.len() <= 40 {
            let mut dropped = false;
            for second in first + 1..self.best.actions.len() {
                let mut case = self.best.clone();
                case.actions.remove(second);
                case.actions.remove(first);
                if self.try_case(case)? {
                    dropped = true;
                    break;
                }
            }
            first += usize::from(!dropped);
        }
        Ok(())
    }

    fn simplify_steps(&mut self) -> Result<(), String> {
        let mut at = 0;
        while at < self.best.actions.len() {
            for simpler in simpler(&self.best.actions[at]) {
                let mut case = self.best.clone();
                case.actions[at] = simpler;
                self.try_case(case)?;
                if at >= self.best.actions.len() {
                    return Ok(());
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn simplify_kernels(&mut self) -> Result<(), String> {
        let plain = |plan: Plan| {
            [
                Plan::new(plan.release),
                Plan { free: None, ..plan },
                Plan { flbs: false, ..plan },
                Plan { test_files: false, ..plan },
            ]
        };
        for index in 0..4 {
            let mut case = self.best.clone();
            case.first = plain(case.first)[index];
            for action in &mut case.actions {
                if let Action::Kexec { plan, .. } | Action::Reset { plan } = action {
                    *plan = plain(*plan)[index];
                }
            }
            self.try_case(case)?;
        }
        for memory in [64 << 20, 32 << 20] {
            let case = Case { memory, ..self.best.clone() };
            self.try_case(case)?;
        }
        Ok(())
    }
}

/// Switches on what need not be off: all at once, then one by one, as long as the case fails as wanted.
///
/// # Errors
/// What `fails` says.
pub fn fewer_off(case: &Case, mut fails: impl FnMut(&Case) -> Result<bool, String>) -> Result<Case, String> {
    let all_on = Case { quirks_off: Vec::new(), ..case.clone() };
    if fails(&all_on)? {
        return Ok(all_on);
    }
    let mut best = case.clone();
    for quirk in &case.quirks_off {
        let mut fewer = best.clone();
        fewer.quirks_off.retain(|off| off != quirk);
        if fails(&fewer)? {
            best = fewer;
        }
    }
    Ok(best)
}

/// Simpler forms of a step, the simplest first.
fn simpler(action: &Action) -> Vec<Action> {
    let mut found = Vec::new();
    let mut add = |simple: Action| {
        if simple != *action {
            found.push(simple);
        }
    };
    match *action {
        Action::Write { p, fd, at, cells, seed } => {
            add(Action::Write { p, fd, at: 0, cells: 1, seed: 1 });
            add(Action::Write { p, fd, at, cells: 1, seed });
            add(Action::Write { p, fd, at: 0, cells, seed });
            add(Action::Write { p, fd, at, cells, seed: 1 });
        }
        Action::Store { p, map, at, cells, seed } => {
            add(Action::Store { p, map, at: 0, cells: 1, seed: 1 });
            add(Action::Store { p, map, at, cells: 1, seed });
            add(Action::Store { p, map, at, cells, seed: 2 });
        }
        Action::Allocate { p, fd, at, .. } => {
            add(Action::Allocate { p, fd, at: 0, cells: 1 });
            add(Action::Allocate { p, fd, at, cells: 1 });
        }
        Action::Truncate { p, fd, size } => {
            for small in [512, 4096, 8192, size / 2] {
                if small < size {
                    add(Action::Truncate { p, fd, size: small });
                }
            }
        }
        Action::Seek { p, fd, .. } => add(Action::Seek { p, fd, to: 1 }),
        Action::Memfd { p, new, kind, .. } => {
            add(Action::Memfd { p, new, kind: 0, huge: false });
            add(Action::Memfd { p, new, kind, huge: false });
        }
        Action::FailAlloc { nth, .. } => {
            add(Action::FailAlloc { nth: 1, times: 1 });
            add(Action::FailAlloc { nth, times: 1 });
        }
        Action::Stop { point, panic } => {
            add(Action::Stop { point: 0, panic: false });
            add(Action::Stop { point: point / 2, panic });
        }
        Action::Handler { p, fd, callback, .. } => add(Action::Handler { p, fd, callback, times: 1 }),
        _ => {}
    }
    found
}

/// The smallest case found that fails: `fails` says at which step a case fails in the wanted way, if it does.
///
/// # Errors
/// What `fails` says.
pub fn shrink(
    case: &Case,
    fails: impl FnMut(&Case) -> Result<Option<usize>, String>,
) -> Result<Case, String> {
    let mut search = Search { best: case.clone(), fails, left: TRIES };
    let faultless = {
        let mut case = case.clone();
        case.actions.retain(|action| !action.is_fault());
        case
    };
    search.try_case(faultless)?;
    search.drop_steps()?;
    search.simplify_kernels()?;
    search.simplify_steps()?;
    search.drop_steps()?;
    Ok(search.best)
}
