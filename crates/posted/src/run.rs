//! Follows a cell of a state machine: the one place where a table becomes behaviour.

use luosim_abi::posted::State;
use luosim_abi::quirk::Quirks;
use luosim_abi::{Errno, Refusal};

use crate::states::{Cell, Failed, Rule, Step, Work};

/// Does what `cell` says; gives the state afterwards and the answer. `why` says in words who refuses.
pub(crate) fn run<E: From<Refusal>>(
    cell: &Cell,
    quirks: Quirks,
    why: impl Fn() -> String,
    mut work: impl FnMut(Work) -> Result<(), E>,
) -> (State, Result<(), E>) {
    let no = |errno: Errno| {
        let state = cell.from.name().to_uppercase();
        E::from(errno.because(format!("{} is {state}, where {} is refused", why(), cell.event.name())))
    };
    match cell.rule {
        Rule::Ignore | Rule::Warn => (cell.from, Ok(())),
        Rule::NoDevice => (cell.from, Err(no(Errno::ENODEV))),
        Rule::Elsewhere(errno) => (cell.from, Err(no(errno))),
        Rule::Refuse { errno, first } => {
            let asked = first.filter(|(quirk, _)| quirks.has(*quirk));
            let result = asked.map_or(Ok(()), |(_, first)| work(first));
            (cell.from, result.and_then(|()| Err(no(errno))))
        }
        Rule::Go { steps, to } => follow(steps, to, cell.from, quirks, work),
    }
}

fn follow<E>(
    steps: &[Step],
    to: State,
    from: State,
    quirks: Quirks,
    mut work: impl FnMut(Work) -> Result<(), E>,
) -> (State, Result<(), E>) {
    for step in steps {
        let Err(error) = work(step.work) else { continue };
        let Failed::Undo { undo, to, quirk } = step.failed else { return (from, Err(error)) };
        if let Some((_, state)) = quirk.filter(|(quirk, _)| quirks.has(*quirk)) {
            return (state, Err(error));
        }
        for piece in undo {
            // The first error is the answer; what undoes has none that matters.
            let _ = work(*piece);
        }
        return (to, Err(error));
    }
    (to, Ok(()))
}
