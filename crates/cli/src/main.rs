//! The `luosim` command.
//!
//! Exit codes: 0 everything as expected; 1 an expectation failed; 2 bad input (a scenario that does not read,
//! a file that is not there, wrong options); 3 luosim's own fault; `luosim exec` and `luosim preflight` have others ([`exec`], [`preflight`]). Output that a program reads goes to
//! standard output, messages to standard error. A message that cannot be written changes no exit code.

#![forbid(unsafe_code)]

mod abi;
mod commands;
mod ctl;
mod doctor;
mod exec;
mod explore;
mod files;
mod inspect;
mod matrix;
mod preflight;
mod record;
mod releases;
mod render;

use std::fmt::Arguments;
use std::io::Write;
use std::panic::UnwindSafe;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An emulator of Linux live update: KHO and LUO in userspace.
///
/// A scenario is a list of system calls by named processes, with kexecs between them. luosim runs it on a
/// simulated machine whose memory survives the kexec, says why each call failed, and what became of every
/// preserved file. `luosim exec` does the same for programs.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  luosim run sim-scenarios/basics/vm-live-update.kdl
  luosim run --quiet sim-scenarios              every scenario below a folder
  luosim run --release 6.19 --explain FILE      another release; only failures
  luosim check FILE                             read without running
  luosim list                                   the scenarios in sim-scenarios
  luosim matrix                                 what survives from release to release
  luosim explore --for 10m                      worlds that nobody wrote, with faults
  luosim exec --generations 2 -- ./agent        a program, over a kexec
  luosim inspect IMAGE                          what a kernel left for the next
  luosim preflight /boot/vmlinuz-7.3.1 bzImage  what would survive a kexec
  luosim abi diff 7.1 7.2                       what changed for programs

Exit codes: 0 as expected, 1 an expectation failed, 2 bad input, 3 luosim's own fault; \
`luosim exec` has those of its program, and others; `luosim preflight` has 4 for nothing survives.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios in the model
    Run(commands::RunArguments),
    /// Read scenarios and say what is wrong with them, without running
    Check(commands::CheckArguments),
    /// List scenarios with one line each
    List(commands::ListArguments),
    /// The table of releases: versions, commands, limits, quirks
    Releases(releases::ReleasesArguments),
    /// What survives from every release to every release
    Matrix(matrix::MatrixArguments),
    /// Look for broken promises in worlds drawn from seeds, with faults
    Explore(Box<explore::ExploreArguments>),
    /// Run a program with an emulated /dev/liveupdate, over simulated kexecs
    Exec(Box<exec::ExecArguments>),
    /// Show what is in handover memory, and what is wrong with it
    Inspect(Box<inspect::InspectArguments>),
    /// Look at a run of `luosim exec`, or make its machine jump
    Ctl(ctl::CtlArguments),
    /// Say what would survive a kexec from one kernel file to another
    Preflight(preflight::PreflightArguments),
    /// Show, compare and check ioctl interfaces: releases, posted designs, C headers
    Abi(abi::AbiArguments),
    /// Say whether this host can run `luosim exec`, and what to do if not
    Doctor(doctor::DoctorArguments),
}

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    AsExpected = 0,
    Failed = 1,
    BadInput = 2,
    OwnFault = 3,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

/// Writes a line to standard error. When that fails there is nowhere to say so.
fn complain(text: Arguments<'_>) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Writes a message to standard error.
fn message(text: Arguments<'_>) {
    complain(format_args!("luosim: {text}"));
}

/// Runs `work`; a panic in it is our own fault and ends with this exit code.
fn guarded<E: Into<ExitCode>>(fault: u8, work: impl FnOnce() -> E + UnwindSafe) -> ExitCode {
    match std::panic::catch_unwind(work) {
        Ok(ending) => ending.into(),
        Err(_) => {
            message(format_args!("this is a bug in luosim; please report it with the input that shows it"));
            ExitCode::from(fault)
        }
    }
}

/// What was asked for. Wrong options of `luosim exec` have the exit code of our own faults there: any other may be
/// the program's.
fn command_line() -> CommandLine {
    CommandLine::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() && std::env::args_os().nth(1).is_some_and(|name| name == "exec") {
            // A message that cannot be written changes no exit code.
            let _ = error.print();
            std::process::exit(exec::OWN_FAULT.into());
        }
        error.exit()
    })
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LUOSIM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let command = command_line().command;
    let fault = if matches!(command, Command::Exec(_)) { exec::OWN_FAULT } else { Ending::OwnFault as u8 };
    guarded(fault, || match command {
        Command::Run(arguments) => commands::run(&arguments).into(),
        Command::Check(arguments) => commands::check(&arguments).into(),
        Command::List(arguments) => commands::list(&arguments).into(),
        Command::Releases(arguments) => releases::releases(&arguments).into(),
        Command::Matrix(arguments) => matrix::matrix(&arguments).into(),
        Command::Explore(arguments) => explore::explore(&arguments).into(),
        Command::Exec(arguments) => exec::exec(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments).into(),
        Command::Ctl(arguments) => ctl::ctl(&arguments).into(),
        Command::Preflight(arguments) => preflight::preflight(&arguments).into(),
        Command::Abi(arguments) => abi::abi(&arguments).into(),
        Command::Doctor(arguments) => doctor::doctor(&arguments).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_exit_code_3_and_other_endings_have_theirs() {
        assert_eq!(
            guarded::<Ending>(3, || panic!("on purpose: this test looks at the exit code")),
            ExitCode::from(3)
        );
        assert_eq!(guarded(3, || Ending::BadInput), ExitCode::from(2));
        assert_eq!(guarded(3, || Ending::Failed), ExitCode::from(1));
        assert_eq!(guarded(3, || Ending::AsExpected), ExitCode::SUCCESS);
    }
}
