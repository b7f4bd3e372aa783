//! `luosim abi diff`: what changes between two interfaces.

use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::Style;
use clap::Args;
use luosim_uapi::diff::{self, Diff, Meeting, Outcome, Verdict};
use serde::Serialize;

use super::source::{SourceError, interface};
use crate::Ending;
use crate::commands::{Format, print};
use crate::render::{BAD, BOLD, DIM, GOOD, WARN, columns, json, paint};

const EXAMPLES: &str = "\
Examples:
  luosim abi diff 7.1 7.2                        two releases
  luosim abi diff old/mine.h new/mine.h          two headers
  luosim abi diff 7.3 /usr/include/linux/liveupdate.h
  luosim abi diff --format json 7.1 7.2          for programs

Exit codes: 0 nothing breaks, 1 something does, 2 bad input, 3 luosim's own fault.";

/// Options of `luosim abi diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiffArguments {
    /// The old interface: a release, a posted design, or a header file
    #[arg(value_name = "OLD")]
    old: String,
    /// The new one: likewise
    #[arg(value_name = "NEW")]
    new: String,
    /// Folder with headers that the headers include; may be given several times
    #[arg(long, value_name = "DIR")]
    include: Vec<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    breaks: bool,
    #[serde(flatten)]
    diff: &'a Diff,
    unknown: Vec<&'a String>,
}

pub(super) fn diff(arguments: &DiffArguments) -> Result<Ending, SourceError> {
    let old = interface(&arguments.old, &arguments.include)?;
    let new = interface(&arguments.new, &arguments.include)?;
    let diff = diff::diff(&old, &new);
    let unknown: Vec<&String> = old.unknown.iter().chain(&new.unknown).collect();
    print(&match arguments.format {
        Format::Json => json(&Document { version: 1, breaks: diff.breaks(), diff: &diff, unknown }),
        Format::Text => text(&diff, &unknown),
    });
    Ok(if diff.breaks() { Ending::Failed } else { Ending::AsExpected })
}

fn text(diff: &Diff, unknown: &[&String]) -> String {
    let mut out = format!("{}\n", paint(BOLD, &format!("from {} to {}", diff.old, diff.new)));
    if diff.changes.is_empty() {
        out.push_str("nothing changes\n");
    }
    for change in &diff.changes {
        let (style, word) = match change.verdict {
            Verdict::Break => (BAD, "breaks"),
            Verdict::Compatible => (GOOD, "compatible"),
            Verdict::Note => (DIM, "note"),
        };
        let (word, kind) = (paint(style, &format!("{word:<10}")), change.kind.name());
        let _ = writeln!(out, "  {word}  {kind:<18} {}: {}", change.of, change.what);
    }
    out.push_str(&meetings(&format!("programs of {} on {}", diff.old, diff.new), &diff.old_on_new));
    out.push_str(&meetings(&format!("programs of {} on {}", diff.new, diff.old), &diff.new_on_old));
    if !unknown.is_empty() {
        let _ = writeln!(out, "\n{}", paint(BOLD, "not known, and not compared"));
        unknown.iter().for_each(|line| {
            let _ = writeln!(out, "  {line}");
        });
    }
    let count = |verdict| diff.changes.iter().filter(|change| change.verdict == verdict).count();
    let (breaks, fine, notes) = (count(Verdict::Break), count(Verdict::Compatible), count(Verdict::Note));
    let _ = writeln!(out, "\n{breaks} changes break programs, {fine} are compatible, {notes} are notes");
    out
}

const fn style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Works => GOOD,
        Outcome::WorksIfZero | Outcome::LosesReply | Outcome::Refused => WARN,
        Outcome::Misread | Outcome::RunsOther => BAD,
    }
}

fn meetings(head: &str, meetings: &[Meeting]) -> String {
    let mut lines = vec![[String::from("  command"), String::from("outcome"), String::from("why")]];
    lines.extend(
        meetings
            .iter()
            .map(|one| [format!("  {}", one.command), one.outcome.words().to_owned(), one.why.clone()]),
    );
    let mut table = columns(&lines);
    for outcome in [Outcome::Misread, Outcome::RunsOther] {
        table = table.replace(outcome.words(), &paint(style(outcome), outcome.words()));
    }
    format!("\n{}\n{table}", paint(BOLD, head))
}
