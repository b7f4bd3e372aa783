//! `luosim abi`: ioctl interfaces of releases, of posted designs and of C headers: shown, compared, checked.

mod collide;
mod diff;
mod headers;
mod lint;
mod sarif;
mod scenarios;
mod show;
mod source;
mod states;

use clap::{Args, Subcommand};

use crate::{Ending, message};

const EXAMPLES: &str = "\
Examples:
  luosim abi show 7.3                            commands, structures, refusals
  luosim abi diff 7.1 7.2                        what changed, and whom it breaks
  luosim abi diff old/liveupdate.h liveupdate.h  the same of two headers
  luosim abi lint include/uapi/linux/mine.h      the rules for ioctls that are to grow
  luosim abi lint --explain size-first           one rule, its reason, how to mend it
  luosim abi collide posted-v4 7.2               numbers that mean something else there
  luosim abi states posted-v2                    the state machines of a posted design

Exit codes: 0 nothing wrong, 1 something breaks, is found or collides, 2 bad input, 3 luosim's own fault.";

/// Options of `luosim abi`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AbiArguments {
    #[command(subcommand)]
    command: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// The commands and structures of a release or a header
    Show(show::ShowArguments),
    /// What changes between two releases or headers, and which programs it breaks
    Diff(diff::DiffArguments),
    /// Check headers against the rules for ioctls that are to grow
    Lint(lint::LintArguments),
    /// Numbers that mean one command in one interface and another in another
    Collide(collide::CollideArguments),
    /// The state machines of a posted design
    States(states::StatesArguments),
}

pub(crate) fn abi(arguments: &AbiArguments) -> Ending {
    match &arguments.command {
        Ask::Show(arguments) => or_bad(show::show(arguments)),
        Ask::Diff(arguments) => or_bad(diff::diff(arguments)),
        Ask::Lint(arguments) => or_bad(lint::lint(arguments)),
        Ask::Collide(arguments) => or_bad(collide::collide(arguments)),
        Ask::States(arguments) => states::states(arguments),
    }
}

/// The ending, or what is wrong with the input.
fn or_bad<E: std::fmt::Display>(done: Result<Ending, E>) -> Ending {
    done.unwrap_or_else(|problem| {
        message(format_args!("{problem}"));
        Ending::BadInput
    })
}
