//! `luosim abi collide`: numbers that mean one command here and another there, and scenarios that show it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use luosim_uapi::collide::{self, Collision};
use luosim_uapi::interface::{Interface, NAMES};
use serde::Serialize;

use super::scenarios;
use super::source::{SourceError, interface};
use crate::Ending;
use crate::commands::{Format, print};
use crate::render::{BOLD, DIM, WARN, json, paint};

const EXAMPLES: &str = "\
Examples:
  luosim abi collide                             every release and design with every other
  luosim abi collide posted-v4 7.2               programs of each on kernels of the other
  luosim abi collide --out found posted-v4 7.2   with a scenario for each, to run
  luosim abi collide 7.3 mine.h                  a release and a header

Exit codes: 0 no number collides, 1 some do, 2 bad input, 3 luosim's own fault.";

/// Options of `luosim abi collide`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CollideArguments {
    /// Releases, posted designs, or header files; without any, everything that luosim knows
    #[arg(value_name = "RELEASE")]
    of: Vec<String>,
    /// Write a scenario for each collision into this folder, where luosim can boot the kernel
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder with headers that the headers include; may be given several times
    #[arg(long, value_name = "DIR")]
    include: Vec<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// A collision, and the scenario that shows it.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    collision: Collision,
    #[serde(skip_serializing_if = "Option::is_none")]
    scenario: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_scenario: Option<String>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    collisions: &'a [Shown],
}

/// What stops the command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollideError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{path}: {source}")]
    Write { path: String, source: std::io::Error },
}

pub(super) fn collide(arguments: &CollideArguments) -> Result<Ending, CollideError> {
    let names: Vec<String> =
        if arguments.of.is_empty() { NAMES.map(str::to_owned).to_vec() } else { arguments.of.clone() };
    let mut interfaces: Vec<Interface> = Vec::new();
    for name in &names {
        interfaces.push(interface(name, &arguments.include)?);
    }
    let mut shown = Vec::new();
    for program in &interfaces {
        for kernel in interfaces.iter().filter(|kernel| kernel.name != program.name) {
            for collision in collide::collide(program, kernel) {
                shown.push(scenario(collision, arguments)?);
            }
        }
    }
    print(&match arguments.format {
        Format::Json => json(&Document { version: 1, collisions: &shown }),
        Format::Text => text(&shown),
    });
    Ok(if shown.is_empty() { Ending::AsExpected } else { Ending::Failed })
}

/// Writes the scenario of a collision, if one is wanted.
fn scenario(collision: Collision, arguments: &CollideArguments) -> Result<Shown, CollideError> {
    let mut shown = Shown { collision, scenario: None, no_scenario: None };
    let Some(folder) = &arguments.out else { return Ok(shown) };
    match scenarios::make(&shown.collision) {
        Ok((name, document)) => {
            let path = folder.join(format!("{name}.kdl"));
            let failed = |source| CollideError::Write { path: path.display().to_string(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
            std::fs::write(&path, document).map_err(failed)?;
            shown.scenario = Some(path.display().to_string());
        }
        Err(why) => shown.no_scenario = Some(why),
    }
    Ok(shown)
}

fn text(shown: &[Shown]) -> String {
    let mut out = String::new();
    let mut pair = (String::new(), String::new());
    for Shown { collision, scenario, no_scenario } in shown {
        let now = (collision.program.clone(), collision.kernel.clone());
        if now != pair {
            let head = format!("programs of {} on {}", now.0, now.1);
            let _ = writeln!(out, "{}", paint(BOLD, &head));
            pair = now;
        }
        let Collision { number, fd, means, runs, then, .. } = collision;
        let runs = paint(WARN, runs);
        let _ = writeln!(out, "  {number:#010x} on a descriptor of the {} means {means}", what(fd.word()));
        let _ = writeln!(out, "             and is {runs} there: {then}");
        for line in scenario.iter().chain(no_scenario) {
            let _ = writeln!(out, "             {}", paint(DIM, line));
        }
    }
    let _ = writeln!(out, "{} numbers mean something else on another kernel", shown.len());
    out
}

fn what(fd: &str) -> &str {
    if fd == "any" { "device or a session" } else { fd }
}
