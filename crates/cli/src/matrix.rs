//! `luosim matrix`: what survives from every release to every release, run in the model.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use luosim_abi::release::ReleaseId;
use luosim_sim::matrix::{self, Cell, Verdict};
use serde::Serialize;

use crate::commands::{print, release};
use crate::render::{self, BOLD, paint};
use crate::{Ending, message};

const EXAMPLES: &str = "\
Examples:
  luosim matrix                                  every release to every release
  luosim matrix --from 6.19 --to 7.0 --to 7.1    some of them
  luosim matrix --explain                        with what is lost in each cell, and why
  luosim matrix --format html > matrix.html      a page to open in a browser
  luosim matrix --format json                    for programs

Exit codes: 0 shown, 2 bad input, 3 luosim's own fault.";

/// How the matrix is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A table for terminals.
    Text,
    /// One JSON document; the form is versioned.
    Json,
    /// A page of its own, without scripts.
    Html,
}

/// Options of `luosim matrix`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MatrixArguments {
    /// Old kernels; may be given several times [default: every release]
    #[arg(long, value_name = "RELEASE", value_parser = release)]
    from: Vec<ReleaseId>,
    /// New kernels; may be given several times [default: every release]
    #[arg(long, value_name = "RELEASE", value_parser = release)]
    to: Vec<ReleaseId>,
    /// Say for each pair what is lost and why
    #[arg(long)]
    explain: bool,
    /// How results are written
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    cells: &'a [Cell],
}

fn names(ids: &[ReleaseId]) -> Vec<&'static str> {
    ids.iter().map(|id| id.release().name).collect()
}

fn at<'a>(cells: &'a [Cell], from: &str, to: &str) -> &'a Cell {
    let found = cells.iter().find(|cell| cell.from == from && cell.to == to);
    found.expect("every pair was run")
}

/// The verdicts that occur, best first.
fn used(cells: &[Cell]) -> Vec<Verdict> {
    let found: BTreeSet<Verdict> = cells.iter().map(|cell| cell.verdict).collect();
    found.into_iter().collect()
}

fn text(cells: &[Cell], from: &[&'static str], to: &[&'static str], explain: bool) -> String {
    let mut lines =
        vec![[String::from("old \\ new")].into_iter().chain(to.iter().map(|n| (*n).to_owned())).collect()];
    for old in from {
        let words = to.iter().map(|new| at(cells, old, new).verdict.word().to_owned());
        lines.push([(*old).to_owned()].into_iter().chain(words).collect::<Vec<String>>());
    }
    let mut out = render::columns(&lines);
    out.push('\n');
    for verdict in used(cells) {
        let _ = writeln!(out, "{:<10} {}", verdict.word(), verdict.meaning());
    }
    if explain {
        out.extend(cells.iter().map(explain_cell));
    }
    out
}

/// What there is to say about a cell besides its verdict.
fn remarks(cell: &Cell) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = &cell.reason {
        lines.push(reason.clone());
    }
    for file in &cell.files {
        let what = format!("session {} token {:#x}", file.session, file.token);
        match (&file.found, &file.lost) {
            (Some(found), _) if found.seals != matrix::FILE_SEALS => {
                let (had, has) = (matrix::FILE_SEALS, found.seals);
                lines.push(format!("{what}: seals {had:#x} came back as {has:#x}"));
            }
            (Some(_), _) => lines.push(format!("{what}: as it was")),
            (None, Some(cause)) => lines.push(format!("{what}: lost: {cause}")),
            (None, None) => lines.push(format!("{what}: lost")),
        }
    }
    let reservation = if cell.reservation { "revived" } else { "lost" };
    lines.push(format!("named reservation: {reservation}"));
    lines
}

fn explain_cell(cell: &Cell) -> String {
    let head = format!("from {} to {}: {}", cell.from, cell.to, cell.verdict.word());
    let mut out = format!("\n{}\n", paint(BOLD, &head));
    for line in remarks(cell) {
        let _ = writeln!(out, "  {line}");
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:15px system-ui,sans-serif;margin:2em;color:#1c1c1c;background:#fff}\
table{border-collapse:collapse}th,td{border:1px solid #c8c8c8;padding:.45em .8em;text-align:center}\
th{background:#f3f3f3}caption{text-align:left;padding:.6em 0}dt{float:left;clear:left;width:7em;padding:.1em .4em}\
dd{margin:0 0 .4em 8.5em}.works{background:#bfe8c4}.kho-only{background:#d9ecf7}.fresh{background:#fbe6b8}\
.ignored{background:#f7d3b0}.no-device{background:#e4e0d8}.device-error{background:#f3bcbc}\
.panics{background:#d9534f;color:#fff}";

fn class(verdict: Verdict) -> String {
    serde_json::to_value(verdict).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A page that needs nothing else; what a cell loses is shown when the pointer rests on it.
fn html(cells: &[Cell], from: &[&'static str], to: &[&'static str]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Live update between releases</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>Live update between releases</h1>\n<table>\n\
         <caption>Rows: the old kernel. Columns: the new one. Run by luosim {}.</caption>\n<tr><th></th>",
        env!("CARGO_PKG_VERSION")
    );
    for new in to {
        let _ = write!(out, "<th scope=\"col\">{new}</th>");
    }
    out.push_str("</tr>\n");
    for old in from {
        let _ = write!(out, "<tr><th scope=\"row\">{old}</th>");
        for new in to {
            let cell = at(cells, old, new);
            let (class, word) = (class(cell.verdict), cell.verdict.word());
            let title = escape(&remarks(cell).join("\n"));
            let _ = write!(out, "<td class=\"{class}\" title=\"{title}\">{word}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n<dl>\n");
    for verdict in used(cells) {
        let (class, word, meaning) = (class(verdict), verdict.word(), verdict.meaning());
        let _ = writeln!(out, "<dt class=\"{class}\">{word}</dt><dd>{meaning}</dd>");
    }
    out.push_str("</dl>\n</body></html>\n");
    out
}

pub(crate) fn matrix(arguments: &MatrixArguments) -> Ending {
    let or_all = |ids: &[ReleaseId]| if ids.is_empty() { matrix::all() } else { ids.to_vec() };
    let (from, to) = (or_all(&arguments.from), or_all(&arguments.to));
    let cells = match matrix::run(&from, &to) {
        Ok(cells) => cells,
        Err(error) => {
            message(format_args!("there is no room for a machine's memory: {error}"));
            return Ending::BadInput;
        }
    };
    let (from, to) = (names(&from), names(&to));
    print(&match arguments.format {
        Form::Text => text(&cells, &from, &to, arguments.explain),
        Form::Json => render::json(&Document { version: 1, cells: &cells }),
        Form::Html => html(&cells, &from, &to),
    });
    Ending::AsExpected
}
