//! `luosim abi show`: an interface as tables.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use luosim_uapi::interface::{Argument, Command, Dispatch, Field, Interface};
use serde::Serialize;

use super::source::{SourceError, interface};
use crate::Ending;
use crate::commands::{Format, print};
use crate::render::{BOLD, DIM, columns, json, paint};

const EXAMPLES: &str = "\
Examples:
  luosim abi show 7.3                            a release
  luosim abi show posted-v2                      a design that was posted and never merged
  luosim abi show /usr/include/linux/vfio.h      a header
  luosim abi show --format json 7.3              for programs

Exit codes: 0 shown, 2 bad input, 3 luosim's own fault.";

/// Options of `luosim abi show`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArguments {
    /// A release, a posted design, or a header file
    #[arg(value_name = "RELEASE")]
    of: String,
    /// Folder with headers that the header includes; may be given several times
    #[arg(long, value_name = "DIR")]
    include: Vec<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    interface: &'a Interface,
}

pub(super) fn show(arguments: &ShowArguments) -> Result<Ending, SourceError> {
    let interface = interface(&arguments.of, &arguments.include)?;
    print(&match arguments.format {
        Format::Json => json(&Document { version: 1, interface: &interface }),
        Format::Text => text(&interface),
    });
    Ok(Ending::AsExpected)
}

fn text(interface: &Interface) -> String {
    let mut out = format!("{}\n{}\n\n", paint(BOLD, &interface.name), interface.about);
    out.push_str(&table(interface));
    let numbers = match interface.dispatch {
        Dispatch::WholeNumber => "a number is compared whole; any other is ENOTTY",
        Dispatch::Table => {
            "the low byte of a number is looked for first: beyond the table EINVAL, then EFAULT, then ENOTTY for the rest of it"
        }
        Dispatch::Unknown => "a header does not say how a number is looked for",
    };
    let _ = writeln!(out, "\n{}", paint(DIM, numbers));
    for command in &interface.commands {
        out.push_str(&one(command));
    }
    if !interface.values.is_empty() {
        let _ = writeln!(out, "\n{}", paint(BOLD, "values"));
        for value in &interface.values {
            let _ = writeln!(out, "  {:>3}  {}", value.value, value.name);
        }
    }
    if !interface.unknown.is_empty() {
        let _ = writeln!(out, "\n{}", paint(BOLD, "not known"));
        for line in &interface.unknown {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

fn table(interface: &Interface) -> String {
    let head = ["number", "command", "fd", "made by", "passes", "bytes", "least"].map(str::to_owned);
    let line = |command: &Command| {
        let bytes = |of: fn(&Argument) -> Option<u64>| {
            command.argument.as_ref().and_then(of).map_or_else(|| String::from("-"), |size| size.to_string())
        };
        [
            format!("{:#010x}", command.number),
            command.name.clone(),
            command.fd.word().to_owned(),
            command.transfer().word().to_owned(),
            command.argument.as_ref().map_or_else(|| String::from("-"), |argument| argument.name.clone()),
            bytes(|argument| Some(argument.size)),
            bytes(|argument| argument.min_size),
        ]
    };
    let lines: Vec<[String; 7]> = [head].into_iter().chain(interface.commands.iter().map(line)).collect();
    columns(&lines)
}

fn one(command: &Command) -> String {
    let mut out = format!("\n{}\n", paint(BOLD, &command.name));
    if let Some(argument) = &command.argument {
        let row = |field: &Field| {
            let (offset, size) = (field.offset.to_string(), field.size.to_string());
            [offset, size, field.of.clone(), field.name.clone(), field.role.word().to_owned()]
        };
        let head = ["  at", "bytes", "type", "member", "role"].map(str::to_owned);
        let mut lines = vec![head];
        lines.extend(argument.fields.iter().map(row).map(|[offset, rest @ ..]| {
            let [a, b, c, d] = rest;
            [format!("  {offset:>2}"), a, b, c, d]
        }));
        out.push_str(&columns(&lines));
    }
    if !command.refusals.is_empty() {
        let _ = writeln!(out, "  {}", paint(DIM, "refused, in this order:"));
        for refusal in &command.refusals {
            let _ = writeln!(out, "    {refusal}");
        }
    }
    out
}
