//! `luosim abi`: the interfaces of releases and posted designs.

use clap::{Args, Subcommand};

use crate::Ending;
use crate::abi_states;

const EXAMPLES: &str = "\
Examples:
  luosim abi states posted-v2                    the state machines of a posted design

Exit codes: 0 shown, 2 bad input, 3 luosim's own fault.";

/// Options of `luosim abi`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AbiArguments {
    #[command(subcommand)]
    command: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// The state machines of a posted design
    States(abi_states::StatesArguments),
}

pub(crate) fn abi(arguments: &AbiArguments) -> Ending {
    match &arguments.command {
        Ask::States(arguments) => abi_states::states(arguments),
    }
}
