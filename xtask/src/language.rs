//! Chapters that are made from tables of the code: the reference of the scenario language and the list of quirks.
//!
//! The text is a function of the tables alone; `xtask book` refuses a chapter that differs from it.

use std::fmt::Write as _;

use luosim_abi::quirk::Quirk;
use luosim_abi::release::{POSTED, RELEASES};
use luosim_scenario::table::{Kind, OPERATIONS, Spec};

const HEAD: &str = "\
# The scenario language

A scenario is a [KDL 2](https://kdl.dev) document: a `scenario` node with a name and `about`, an optional `machine` node with
`memory`, `profile` and `phase-ticks` (time that each phase of a kexec takes devices; 256 if nothing is said), and steps in order.
Steps of a process stand in a block `process NAME { … }`; a process starts at its first step. `as=` gives a descriptor a label, by
which later steps of the process (and of children it forks later) name it. After a kexec or reset all processes and labels are gone.

Every step must succeed, or fail with the errno in `error=`. Numbers may be hexadecimal; sizes are numbers or texts such as
`\"64KiB\"` and `\"1GiB+5\"`; flags are names joined by `|` in a text. Contents are given as `text`, as `hex`, or as the pattern
of a `seed`: byte *i* is `131 seed + 7 i + 13 (i >> 8) + 17 (i >> 12)` modulo 256.

This page is made from the table that the parser follows.
";

/// `scenario-language.md`.
pub(crate) fn language() -> String {
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

const QUIRKS: &str = "\
# Quirks

Where a real release has a defect, luosim has it too, under a name. A quirk is on for the releases that have it; a scenario
switches it with `quirks-on` and `quirks-off` at [`boot`](scenario-language.md#boot),
[`cold-reset`](scenario-language.md#cold-reset), [`boot-image`](scenario-language.md#boot-image) and
[`kexec-load`](scenario-language.md#kexec-load).

Switched off, `seals-not-carried` makes a kernel carry seals that its format has no room for: luosim keeps them behind the structure of `memfd-v1`, where
no real kernel looks. *Planted* quirks are in no release: mistakes of the kind that was made and mended, for [the explorer](explore.md) to find.

Defects of the designs that were [posted and never merged](posted-designs.md) are quirks too.

The second column names the releases that luosim can boot and that have the quirk; the text says which real ones do. This page
is made from the table that the machine follows.

";

/// `quirks.md`.
pub(crate) fn quirks() -> String {
    let mut text = String::from(QUIRKS);
    text.push_str("| quirk | on in | who has it, what triggers it, what is seen |\n|---|---|---|\n");
    for quirk in Quirk::ALL {
        let on = RELEASES.iter().chain(POSTED).filter(|row| row.quirks.has(*quirk)).map(|row| row.name);
        let on: Vec<&str> = on.collect();
        let _ = writeln!(text, "| `{quirk}` | {} | {} |", on.join(", "), quirk.describe());
    }
    text
}
