//! Transcripts, ledgers and diagnostics for people. Colour never carries meaning alone, and is taken out
//! where the output is no terminal or `NO_COLOR` is set.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use luosim_scenario::Diagnostic;
use luosim_sim::transcript::{InvariantLine, LedgerLine, TimelineLine};
use luosim_sim::{Record, Report};
use miette::{LabeledSpan, MietteDiagnostic, NamedSource};

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();

/// How much of a transcript is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Detail {
    /// Only calls that failed.
    pub(crate) explain: bool,
    /// The kernel log.
    pub(crate) log: bool,
}

pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Columns as wide as their widest text, two spaces between them; the first line is the head.
pub(crate) fn columns<L: AsRef<[String]>>(lines: &[L]) -> String {
    let wide = |column: usize| {
        lines.iter().filter_map(move |line| line.as_ref().get(column)).map(|text| text.chars().count())
    };
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.as_ref().iter().enumerate();
        let cells = cells.map(|(at, text)| format!("{text:<width$}", width = wide(at).max().unwrap_or(0)));
        let text = cells.collect::<Vec<_>>().join("  ");
        let text = text.trim_end();
        let _ = writeln!(out, "{}", if index == 0 { paint(BOLD, text) } else { text.to_owned() });
    }
    out
}

/// A document on a line of its own.
pub(crate) fn json(document: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(document).expect("our documents have text keys only");
    text + "\n"
}

/// The transcript and the ledger of a run.
pub(crate) fn report(report: &Report, detail: Detail) -> String {
    let mut out = format!("{}\n", paint(BOLD, &report.scenario));
    if !report.about.is_empty() {
        let _ = writeln!(out, "{}", report.about);
    }
    for record in &report.records {
        out.push_str(&line(record, detail));
    }
    out.push_str(&timeline(&report.timeline));
    out.push_str(&invariants(&report.invariants));
    out.push_str(&ledger(&report.ledger, usize::MAX, 0));
    out
}

/// The invariants of DMA, by what is known of them.
fn invariants(lines: &[InvariantLine]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut out = format!("{}\n", paint(BOLD, "== invariants of DMA"));
    for (standing, style) in [("holds", GOOD), ("broken", BAD), ("not-looked-at", DIM)] {
        let names = lines.iter().filter(|line| line.standing == standing).map(|line| line.name.as_str());
        let names = names.collect::<Vec<_>>().join(" ");
        if !names.is_empty() {
            let _ = writeln!(out, "  {}: {names}", paint(style, standing));
        }
    }
    out
}

/// The phases of a machine with devices, and what they did in each.
fn timeline(lines: &[TimelineLine]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let head = ["  kernel", "phase", "ns", "operations", "written", "read", "refused"].map(str::to_owned);
    let row = |line: &TimelineLine| {
        let phase = if line.blackout { format!("{} *", line.phase) } else { line.phase.clone() };
        let numbers = [line.nanoseconds, line.operations, line.written, line.read, line.refused];
        let numbers = numbers.map(|number| number.to_string());
        let [ns, operations, written, read, refused] = numbers;
        [format!("  {}", line.kernel), phase, ns, operations, written, read, refused]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(lines.iter().map(row)).collect();
    let blackout: u64 = lines.iter().filter(|line| line.blackout).map(|line| line.nanoseconds).sum();
    let written: u64 = lines.iter().filter(|line| line.blackout).map(|line| line.written).sum();
    let title = paint(BOLD, "== devices, in virtual time");
    format!("{title}\n{}  blackout (*): {blackout} ns, {written} bytes written\n", columns(&rows))
}

fn line(record: &Record, detail: Detail) -> String {
    match record {
        Record::Boot { .. } => boot(record, detail),
        Record::Kexec { .. } => kexec(record),
        Record::Call { process, pid, call, result, errno, reason } => {
            if detail.explain && errno.is_none() {
                return String::new();
            }
            let answer = match (result, errno) {
                (Some(value), _) => value.to_string(),
                (None, Some(errno)) => paint(WARN, &format!("-{errno}")),
                (None, None) => String::from("?"),
            };
            let mut text = format!("  {process}[{pid}] {call} = {answer}\n");
            if let Some(reason) = reason {
                let _ = writeln!(text, "      {} {reason}", paint(DIM, "because"));
            }
            text
        }
        Record::Assumed { .. } if detail.explain => String::new(),
        Record::Assumed { name, what } => format!("      {} {name}: {what}\n", paint(WARN, "assumed")),
        Record::Machine { action } => format!("{}\n", paint(BOLD, &format!("== {action}"))),
        Record::Expected { what } if !detail.explain => format!("    {} {what}\n", paint(GOOD, "ok")),
        Record::Expected { .. } => String::new(),
        Record::Failed { message, .. } => format!("    {} {message}\n", paint(BAD, "FAILED")),
    }
}

fn boot(record: &Record, detail: Detail) -> String {
    let Record::Boot { generation, release, outcome, reason, blocks, pages, log } = record else {
        return String::new();
    };
    let how = match outcome.as_str() {
        "handover" => format!("took over {blocks} blocks, {pages} pages"),
        "cold" => format!("boots without handover: {}", reason.as_deref().unwrap_or("")),
        "luo-off" => format!("runs without live update: {}", reason.as_deref().unwrap_or("")),
        _ => format!("PANICKED: {}", reason.as_deref().unwrap_or("")),
    };
    let mut text = format!("{}\n", paint(BOLD, &format!("== kernel {generation}, Linux {release}: {how}")));
    for logged in log {
        let ours = ["KHO", "luo", "Kernel panic", "Malformed"].iter().any(|start| logged.starts_with(start));
        if detail.log || ours {
            let _ = writeln!(text, "  {}", paint(DIM, &format!("[{generation}] {logged}")));
        }
    }
    text
}

fn kexec(record: &Record) -> String {
    let Record::Kexec { from, to, sessions, files, blocks, pages, bytes, passed } = record else {
        return String::new();
    };
    let head = paint(BOLD, &format!("== kexec from {from} to {to}"));
    let lost = if *passed { "" } else { "; the image passes nothing on" };
    format!(
        "{head}\n  carried: {sessions} sessions, {files} files; {blocks} blocks, {pages} pages, {bytes} bytes{lost}\n"
    )
}

/// The ledger: a line a file, but of files lost by one cause at most `alike`; `folded` more were lost that have no line.
pub(crate) fn ledger(lines: &[LedgerLine], alike: usize, folded: usize) -> String {
    if lines.is_empty() {
        return format!("{}\n  no file was preserved\n", paint(BOLD, "== ledger"));
    }
    let mut text = format!("{}\n", paint(BOLD, "== ledger"));
    let mut causes: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for line in lines {
        if let Some(cause) = &line.cause {
            let seen = causes.entry((line.generation, cause)).or_default();
            *seen += 1;
            if *seen > alike {
                continue;
            }
        }
        text.push_str(&ledger_line(line));
    }
    for ((generation, cause), count) in causes.iter().filter(|(_, count)| **count > alike) {
        let (more, lost) = (count - alike, paint(BAD, "lost"));
        let _ = writeln!(text, "  kernel {generation}, {more} more files: {lost}: {cause}");
    }
    let count = |fate: &str| lines.iter().filter(|line| line.fate == fate).count();
    let (retrieved, finished) = (count("retrieved"), count("finished"));
    let (preserved, lost) = (count("preserved"), count("lost") + folded);
    let _ = writeln!(
        text,
        "  {retrieved} retrieved, {finished} finished, {preserved} still preserved, {lost} lost"
    );
    text
}

fn ledger_line(line: &LedgerLine) -> String {
    let (style, fate) = match line.fate.as_str() {
        "lost" => (BAD, String::from("lost")),
        "preserved" => (WARN, String::from("still preserved")),
        fate => (GOOD, fate.to_owned()),
    };
    let cause = line.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let from =
        if line.generation == 0 { String::from("image") } else { format!("kernel {}", line.generation) };
    let (session, token, fate) = (&line.session, line.token, paint(style, &fate));
    format!("  {from}, session \"{session}\", token {token:#x}: {fate}{cause}\n")
}

/// One line for a scenario.
pub(crate) fn summary(path: &Path, report: &Report) -> String {
    let calls = report.records.iter().filter(|record| matches!(record, Record::Call { .. })).count();
    let kexecs = report.records.iter().filter(|record| matches!(record, Record::Kexec { .. })).count();
    let verdict = if report.passed() {
        paint(GOOD, "ok")
    } else {
        paint(BAD, &format!("FAILED ({} expectations)", report.failures))
    };
    format!("{}: {verdict}, {calls} calls, {kexecs} kexecs\n", path.display())
}

/// Where in the file each expectation stands that did not hold, one a line.
pub(crate) fn failures(path: &Path, document: &str, report: &Report) -> String {
    let mut out = String::new();
    for record in &report.records {
        if let Record::Failed { at, message } = record {
            let before = document.get(..*at).unwrap_or(document);
            let line = before.matches('\n').count() + 1;
            let _ = writeln!(out, "  {}:{line}: {message}", path.display());
        }
    }
    out
}

/// Prints problems of a scenario with the lines they point at.
pub(crate) fn diagnostics(path: &Path, text: &str, problems: &[Diagnostic]) {
    for problem in problems {
        let end = problem.span.end.min(text.len());
        let start = problem.span.start.min(end);
        let label = LabeledSpan::new(Some(String::from("here")), start, end - start);
        let mut diagnostic = MietteDiagnostic::new(problem.message.clone()).with_label(label);
        diagnostic.help.clone_from(&problem.help);
        let source = NamedSource::new(path.display().to_string(), text.to_owned());
        let report = miette::Report::new(diagnostic).with_source_code(source);
        crate::complain(format_args!("{report:?}"));
    }
}
