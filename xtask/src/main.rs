//! Developer chores: `cargo run -p xtask -- book` checks the book, `-- language` rewrites the reference of the
//! scenario language from its table.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "chores talk to a terminal")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use luosim_scenario::table::{Kind, OPERATIONS, Spec};

fn main() -> ExitCode {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let result = match std::env::args().nth(1).as_deref() {
        Some("book") => check_book(&docs),
        Some("language") => {
            std::fs::write(docs.join("scenario-language.md"), language()).map_err(|error| error.to_string())
        }
        _ => Err(String::from("usage: cargo run -p xtask -- book|language")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Every chapter of the summary exists, and the language reference is the one of the table.
fn check_book(docs: &Path) -> Result<(), String> {
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).map_err(|error| error.to_string())?;
    let chapters: Vec<PathBuf> =
        summary.split("](").skip(1).filter_map(|rest| Some(docs.join(rest.split(')').next()?))).collect();
    if let Some(missing) = chapters.iter().find(|chapter| !chapter.is_file()) {
        return Err(format!("the summary names {}, which is not there", missing.display()));
    }
    let written =
        std::fs::read_to_string(docs.join("scenario-language.md")).map_err(|error| error.to_string())?;
    if written != language() {
        return Err(String::from("docs/scenario-language.md is old: cargo run -p xtask -- language"));
    }
    println!("{} chapters", chapters.len());
    Ok(())
}

const HEAD: &str = "\
# The scenario language

A scenario is a [KDL 2](https://kdl.dev) document: a `scenario` node with a name and `about`, an optional `machine` node with
`memory`, and steps in order. Steps of a process stand in a block `process NAME { … }`; a process starts at its first
step. `as=` gives a descriptor a label, by which later steps of the process (and of children it forks later) name it. After a
kexec or reset all processes and labels are gone.

Every step must succeed, or fail with the errno in `error=`. Numbers may be hexadecimal; sizes are numbers or texts such as
`\"64KiB\"` and `\"1GiB+5\"`; flags are names joined by `|` in a text. Contents are given as `text`, as `hex`, or as the pattern
of a `seed`: byte *i* is `131 seed + 7 i + 13 (i >> 8) + 17 (i >> 12)` modulo 256.

This page is made from the table that the parser follows.
";

fn language() -> String {
    let mut text = String::from(HEAD);
    for (title, by_process) in [("Done to the machine", false), ("System calls of a process", true)] {
        let _ = writeln!(text, "\n## {title}");
        for (_, spec) in OPERATIONS.iter().filter(|(_, spec)| spec.by_process == by_process) {
            text.push_str(&step(spec));
        }
    }
    text
}

fn step(spec: &Spec) -> String {
    let mut text = format!("\n### `{}`\n\n{}.\n", spec.name, spec.about);
    for param in spec.params {
        let need = if param.required { "" } else { ", optional" };
        let place = if param.positional { "in order" } else { "by name" };
        let _ = write!(text, "\n- `{}` ({}, {place}{need}): {}", param.name, kind(param.kind), param.about);
    }
    if !spec.params.is_empty() {
        text.push('\n');
    }
    text
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Fd => String::from("descriptor"),
        Kind::NewFd | Kind::NewMap => String::from("new label"),
        Kind::Map => String::from("mapping"),
        Kind::Process | Kind::NewProcess => String::from("process"),
        Kind::Text => String::from("text"),
        Kind::Hex => String::from("hexadecimal digits"),
        Kind::Number(..) => String::from("number"),
        Kind::Size => String::from("size"),
        Kind::Bool => String::from("`#true` or `#false`"),
        Kind::Flags(table) => {
            let names: Vec<String> = table.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("flags {}", names.join(" "))
        }
        Kind::Release => String::from("release"),
        Kind::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
        Kind::Quirks => String::from("quirks"),
    }
}
