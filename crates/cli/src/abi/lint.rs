//! `luosim abi lint`: headers against the rules for ioctls that are to grow.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use luosim_uapi::header::{Header, Library};
use luosim_uapi::lint::{self, Count, Finding, Findings, Level, Rule};
use luosim_uapi::registry::Registry;
use miette::{
    LabeledSpan, MietteDiagnostic, MietteSpanContents, Severity, SourceCode, SourceSpan, SpanContents,
};
use serde::Serialize;

use super::headers::{self, HeaderError, Includes};
use super::sarif;
use crate::Ending;
use crate::commands::print;
use crate::render::{BOLD, DIM, WARN, json, paint};

/// Findings that are shown with their lines; more are a line each.
const MOST_SHOWN: usize = 100;

const EXAMPLES: &str = "\
Examples:
  luosim abi lint include/uapi/linux/mine.h
  luosim abi lint --registered Documentation/userspace-api/ioctl/ioctl-number.rst mine.h
  luosim abi lint --explain size-first           one rule, its reason, how to mend it
  luosim abi lint --rules                        all rules, a line each
  luosim abi lint --format sarif mine.h > mine.sarif
  luosim abi lint --short /usr/include/linux     a line for each finding

What is meant to be so is allowed by a comment before it or on its line:
  /* luosim-abi: allow(plain-integer) as in the first release */

Exit codes: 0 nothing was found, 1 something was, 2 bad input, 3 luosim's own fault.";

/// How findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people.
    Text,
    /// One JSON document on a line; the form is versioned.
    Json,
    /// SARIF 2.1.0, for editors and code review.
    Sarif,
}

/// Options of `luosim abi lint`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LintArguments {
    /// Headers, or folders with headers below them
    #[arg(value_name = "HEADER", required_unless_present_any = ["explain", "rules"])]
    headers: Vec<PathBuf>,
    /// Say what a rule asks for, why, and how to mend what breaks it
    #[arg(long, value_name = "RULE", value_parser = rule, conflicts_with = "headers")]
    explain: Option<Rule>,
    /// Name all rules
    #[arg(long, conflicts_with_all = ["headers", "explain"])]
    rules: bool,
    /// List of registered type bytes, in the form of the kernel's ioctl-number.rst
    #[arg(long, value_name = "FILE")]
    registered: Option<PathBuf>,
    /// Folder with headers that the headers include; may be given several times. Folders above a header are looked at anyway
    #[arg(long, value_name = "DIR")]
    include: Vec<PathBuf>,
    /// Rules that are not looked at; several with commas
    #[arg(long, value_name = "RULE", value_parser = rule, value_delimiter = ',')]
    without: Vec<Rule>,
    /// A line for each finding
    #[arg(long, help_heading = "Output")]
    short: bool,
    /// How findings are written
    #[arg(long, value_enum, default_value = "text", help_heading = "Output")]
    format: Form,
}

fn rule(id: &str) -> Result<Rule, String> {
    Rule::from_id(id)
        .ok_or_else(|| String::from("there is no such rule; `luosim abi lint --rules` names them"))
}

/// A header and what was found in it.
pub(super) struct Linted {
    pub(super) header: Arc<Header>,
    pub(super) findings: Findings,
    lines: Vec<usize>,
}

impl Linted {
    fn new(header: Arc<Header>, findings: Findings) -> Self {
        let ends = header.text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Self { header, findings, lines }
    }

    /// Line and column of a byte, both from 1; columns in characters.
    pub(super) fn position(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        (line, self.header.text.get(start..at).map_or(0, |text| text.chars().count()) + 1)
    }
}

pub(super) fn lint(arguments: &LintArguments) -> Result<Ending, HeaderError> {
    if let Some(rule) = arguments.explain {
        print(&explain(rule));
        return Ok(Ending::AsExpected);
    }
    if arguments.rules {
        print(&rules());
        return Ok(Ending::AsExpected);
    }
    let linted = look(arguments)?;
    let mut count = Count::default();
    for one in &linted {
        let more = one.findings.count();
        count.warnings += more.warnings;
        count.notes += more.notes;
        count.allowed += more.allowed;
    }
    print(&match arguments.format {
        Form::Json => json(&document(&linted, count)),
        Form::Sarif => sarif::document(&linted),
        Form::Text => text(&linted, count, arguments.short),
    });
    Ok(if count.warnings == 0 { Ending::AsExpected } else { Ending::Failed })
}

fn look(arguments: &LintArguments) -> Result<Vec<Linted>, HeaderError> {
    let registry = match &arguments.registered {
        Some(path) => Some(Registry::parse(&headers::read(path)?.text)),
        None => None,
    };
    let mut library = Library::new(Includes::new(&arguments.include));
    let mut linted = Vec::new();
    for path in headers::find(&arguments.headers)? {
        let loaded = match library.get(&path.display().to_string()) {
            Some(loaded) => loaded,
            None => library.read(headers::read(&path)?),
        };
        let mut findings = lint::lint(&loaded, registry.as_ref());
        findings.list.retain(|finding| !arguments.without.contains(&finding.rule));
        linted.push(Linted::new(Arc::clone(&loaded.header), findings));
    }
    Ok(linted)
}

fn explain(rule: Rule) -> String {
    let mut out = format!("{}\n{}\n\n", paint(BOLD, rule.id()), rule.asks());
    let _ = writeln!(out, "why: {}", rule.why());
    let _ = writeln!(out, "fix: {}", rule.fix());
    let _ = writeln!(out, "allow: /* luosim-abi: allow({rule}) the reason */");
    out
}

fn rules() -> String {
    let width = Rule::ALL.iter().map(|rule| rule.id().len()).max().unwrap_or(0);
    Rule::ALL.iter().map(|rule| format!("{:width$}  {}\n", rule.id(), rule.asks())).collect()
}

fn text(linted: &[Linted], count: Count, short: bool) -> String {
    let mut out = String::new();
    let full = !short && count.warnings + count.notes <= MOST_SHOWN;
    for one in linted {
        for finding in one.findings.open() {
            if full {
                let _ = writeln!(out, "{:?}", report(one, finding));
            } else {
                out.push_str(&line(one, finding));
            }
        }
    }
    if !full && !short {
        out.push_str("more than 100 findings: a line for each\n");
    }
    let Count { warnings, notes, allowed } = count;
    let _ = writeln!(out, "{} headers: {warnings} warnings, {notes} notes, {allowed} allowed", linted.len());
    out
}

fn line(one: &Linted, finding: &Finding) -> String {
    let (line, column) = one.position(finding.span.start);
    let level = finding.rule.level();
    let style = if level == Level::Warning { WARN } else { DIM };
    let what = paint(style, &format!("{}[{}]", level.word(), finding.rule));
    format!("{}:{line}:{column}: {what}: {}\n", one.header.name, finding.message)
}

fn report(one: &Linted, finding: &Finding) -> miette::Report {
    let severity = if finding.rule.level() == Level::Warning { Severity::Warning } else { Severity::Advice };
    let span = &finding.span;
    let label = LabeledSpan::new(None, span.start, first_line(one, finding));
    let diagnostic = MietteDiagnostic::new(finding.message.clone())
        .with_code(finding.rule.id())
        .with_severity(severity)
        .with_help(finding.rule.fix())
        .with_label(label);
    let lines = Lines { header: Arc::clone(&one.header), starts: one.lines.clone() };
    miette::Report::new(diagnostic).with_source_code(lines)
}

/// Bytes of a finding on its first line.
fn first_line(one: &Linted, finding: &Finding) -> usize {
    let text = one.header.at(&finding.span);
    text.lines().next().unwrap_or("").len()
}

/// A header's text whose lines were counted once.
struct Lines {
    header: Arc<Header>,
    starts: Vec<usize>,
}

impl SourceCode for Lines {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, miette::MietteError> {
        let text = self.header.text.as_bytes();
        let line = |at: usize| self.starts.partition_point(|start| *start <= at).saturating_sub(1);
        let start_of = |line: usize| self.starts.get(line).copied().unwrap_or(text.len());
        let own = line(span.offset());
        let first = own.saturating_sub(before);
        // Without lines before it, what is shown begins in its line: the place in the heading is that of the span.
        let start = if before == 0 { span.offset() } else { start_of(first) };
        let column = if before == 0 { start - start_of(own) } else { 0 };
        let end = span.offset().saturating_add(span.len()).min(text.len());
        let last = line(end.saturating_sub(usize::from(!span.is_empty()))).saturating_add(after);
        let stop = start_of(last + 1);
        let data = text.get(start..stop).ok_or(miette::MietteError::OutOfBounds)?;
        let (shown, lines) = (SourceSpan::new(start.into(), data.len()), last - first + 1);
        let name = self.header.name.clone();
        Ok(Box::new(MietteSpanContents::new_named(name, data, shown, first, column, lines)))
    }
}

#[derive(Debug, Serialize)]
struct Place {
    line: usize,
    column: usize,
    offset: usize,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    rule: &'static str,
    level: &'static str,
    message: &'a str,
    start: Place,
    end: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct OneHeader<'a> {
    name: &'a str,
    findings: Vec<Found<'a>>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    count: Count,
    headers: Vec<OneHeader<'a>>,
}

fn document(linted: &[Linted], count: Count) -> Document<'_> {
    Document { version: 1, count, headers: linted.iter().map(one_header).collect() }
}

fn one_header(one: &Linted) -> OneHeader<'_> {
    let place = |at: usize| {
        let (line, column) = one.position(at);
        Place { line, column, offset: at }
    };
    let findings = one.findings.list.iter().map(|finding| Found {
        rule: finding.rule.id(),
        level: finding.rule.level().word(),
        message: &finding.message,
        start: place(finding.span.start),
        end: place(finding.span.end),
        allowed: finding.allowed.as_deref(),
    });
    OneHeader { name: &one.header.name, findings: findings.collect() }
}
