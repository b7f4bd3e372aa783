//! `luosim abi states`: the state machines of a posted design, from the table that it runs by.

mod diagram;
mod svg;

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use luosim_abi::posted::{Design, Event};
use luosim_abi::release::{POSTED, ReleaseId};
use luosim_posted::states::{
    Cell, Failed, Guard, Route, Rule, Scope, StateMachine, Step, Work, machine, machines,
};
use serde::Serialize;

use crate::commands::print;
use crate::render::{BOLD, DIM, columns, json, paint};
use crate::{Ending, message};

const EXAMPLES: &str = "\
Examples:
  luosim abi states posted-v2                            every machine of the design
  luosim abi states posted-v3 --machine file             one of them
  luosim abi states posted-v4 --machine session --format svg > session.svg
  luosim abi states posted-v2 --format mermaid           for a page that draws it

Exit codes: 0 shown, 2 no such design or machine, 3 luosim's own fault.";

/// Options of `luosim abi states`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatesArguments {
    /// The posted design
    #[arg(value_name = "DESIGN", value_parser = design)]
    design: Design,
    /// One machine; without it every machine of the design (a picture has one: the global)
    #[arg(long, value_enum)]
    machine: Option<Which>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: StatesFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// One state for all
    Global,
    /// A registered file (posted-v2, posted-v3)
    File,
    /// A session (posted-v4)
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatesFormat {
    /// For people: every cell.
    Text,
    /// A Mermaid state diagram.
    Mermaid,
    /// A Graphviz graph.
    Dot,
    /// A picture that stands alone.
    Svg,
    /// For programs: JSON, a document on a line of its own; the form is versioned.
    Json,
}

fn design(text: &str) -> Result<Design, String> {
    let found = POSTED.iter().find(|row| row.name == text).and_then(|row| row.posted);
    found.ok_or_else(|| {
        let names: Vec<&str> = POSTED.iter().map(|row| row.name).collect();
        let why = if ReleaseId::from_name(text).is_some() {
            "a release has no state machine that a program drives; "
        } else {
            ""
        };
        format!("{why}the posted designs are {}", names.join(", "))
    })
}

/// The design's name.
fn name_of(design: Design) -> &'static str {
    POSTED.iter().find(|row| row.posted == Some(design)).map_or("", |row| row.name)
}

pub(crate) fn states(arguments: &StatesArguments) -> Ending {
    let design = arguments.design;
    let chosen = match arguments.machine.map(scope) {
        None => machines(design).to_vec(),
        Some(scope) => match machine(design, scope) {
            Some(machine) => vec![machine],
            None => {
                let known: Vec<&str> = machines(design).iter().map(|one| one.scope.name()).collect();
                let (name, scope, known) = (name_of(design), scope.name(), known.join(" and "));
                message(format_args!("{name} has no {scope} machine; it has {known}"));
                return Ending::BadInput;
            }
        },
    };
    print(&match arguments.format {
        StatesFormat::Text => text(design, &chosen),
        StatesFormat::Json => json(&document(design, &chosen)),
        StatesFormat::Mermaid => diagram::mermaid(name_of(design), chosen[0]),
        StatesFormat::Dot => diagram::dot(name_of(design), chosen[0]),
        StatesFormat::Svg => svg::svg(name_of(design), chosen[0]),
    });
    Ending::AsExpected
}

fn scope(which: Which) -> Scope {
    match which {
        Which::Global => Scope::Global,
        Which::File => Scope::File,
        Which::Session => Scope::Session,
    }
}

fn text(design: Design, chosen: &[&StateMachine]) -> String {
    let mut out = format!("{}, posted in {}\n", paint(BOLD, name_of(design)), design.posted());
    for machine in chosen {
        let _ = write!(out, "\n{}{}", head(machine), table(machine));
    }
    out.push_str(&works(chosen));
    out
}

fn head(machine: &StateMachine) -> String {
    let mut out =
        format!("{}\n", paint(BOLD, &format!("{}: {}", machine.scope.name(), machine.scope.describe())));
    for (state, when) in machine.initial {
        let _ = writeln!(out, "  begins {:<9} {when}", state.name());
    }
    let _ = writeln!(out, "  is shown by {}", machine.shown);
    for route in machine.routes {
        let _ = writeln!(out, "  {:<8} {}", route.event.name(), comes(route));
    }
    out
}

/// How an event comes, in words.
fn comes(route: &Route) -> String {
    let ways: Vec<&str> = route.command.iter().chain(&route.also).copied().collect();
    let mut out = format!("comes by {}", ways.join(", or "));
    if let Some(errno) = route.refused {
        let _ = write!(out, "; a program that passes it gets {errno}");
    }
    for Guard { about, errno } in route.guards {
        let _ = write!(out, "; {errno} unless {about}");
    }
    out
}

fn table(machine: &StateMachine) -> String {
    let mut lines = vec![["in", "at", "answer", "then", "by"].map(str::to_owned)];
    for cell in machine.cells {
        lines.extend(rows(cell));
    }
    format!("\n{}", columns(&lines))
}

/// A cell's line, and one for each way in which its work can fail.
fn rows(cell: &Cell) -> Vec<[String; 5]> {
    let (then, by) = match cell.rule {
        Rule::Go { steps, to } => (to, works_of(steps.iter().map(|step| step.work))),
        Rule::Warn => (cell.from, String::from("a warning in the kernel log")),
        _ => (cell.from, String::new()),
    };
    let by = if let Rule::Refuse { first: Some((quirk, work)), .. } = cell.rule {
        format!("{} first, whose error comes first (quirk {quirk})", work.name())
    } else {
        by
    };
    let line = |answer: String, then: &str, by: String| {
        [cell.from.name().to_owned(), cell.event.name().to_owned(), answer, then.to_owned(), by]
    };
    let mut lines = vec![line(answer(cell.rule), then.name(), by)];
    if let Rule::Go { steps, .. } = cell.rule {
        lines.extend(steps.iter().flat_map(|step| failures(step, &line)));
    }
    lines
}

fn failures(step: &Step, line: &impl Fn(String, &str, String) -> [String; 5]) -> Vec<[String; 5]> {
    let Failed::Undo { undo, to, quirk } = step.failed else { return Vec::new() };
    let answer = || format!("error of {}", step.work.name());
    let mut lines = Vec::new();
    if let Some((quirk, state)) = quirk {
        lines.push(line(answer(), state.name(), format!("nothing is undone (quirk {quirk})")));
    }
    let undone =
        if undo.is_empty() { String::from("nothing to undo") } else { works_of(undo.iter().copied()) };
    let without = quirk.map_or(String::new(), |_| String::from(" (without it)"));
    lines.push(line(answer(), to.name(), format!("{undone}{without}")));
    lines
}

fn answer(rule: Rule) -> String {
    match rule {
        Rule::Go { .. } | Rule::Ignore | Rule::Warn => String::from("0"),
        Rule::Refuse { errno, .. } | Rule::Elsewhere(errno) => errno.to_string(),
        Rule::NoDevice => String::from("no device"),
    }
}

fn works_of(works: impl Iterator<Item = Work>) -> String {
    works.map(Work::name).collect::<Vec<_>>().join(", ")
}

/// What the names of the work mean, as far as these machines use them.
fn works(chosen: &[&StateMachine]) -> String {
    let mut used: Vec<Work> = chosen.iter().flat_map(|machine| machine.cells).flat_map(pieces).collect();
    used.sort_unstable();
    used.dedup();
    let mut out = String::new();
    for work in used {
        let _ = writeln!(out, "\n{}\n    {}", work.name(), paint(DIM, work.describe()));
    }
    out
}

fn pieces(cell: &Cell) -> Vec<Work> {
    match cell.rule {
        Rule::Go { steps, .. } => {
            let undo = |step: &Step| match step.failed {
                Failed::Undo { undo, .. } => undo.to_vec(),
                Failed::Never => Vec::new(),
            };
            steps.iter().flat_map(|step| [vec![step.work], undo(step)].concat()).collect()
        }
        Rule::Refuse { first: Some((_, work)), .. } => vec![work],
        _ => Vec::new(),
    }
}

#[derive(Serialize)]
struct Document {
    version: u32,
    design: &'static str,
    posted: &'static str,
    machines: Vec<MachineLine>,
}

#[derive(Serialize)]
struct MachineLine {
    machine: &'static str,
    states: Vec<&'static str>,
    initial: Vec<Initial>,
    shown: &'static str,
    routes: Vec<RouteLine>,
    cells: Vec<CellLine>,
}

#[derive(Serialize)]
struct Initial {
    state: &'static str,
    when: &'static str,
}

#[derive(Serialize)]
struct RouteLine {
    event: &'static str,
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    also: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    guards: Vec<GuardLine>,
}

#[derive(Serialize)]
struct GuardLine {
    about: &'static str,
    errno: &'static str,
}

#[derive(Serialize)]
struct CellLine {
    from: &'static str,
    event: &'static str,
    /// `go`, `ignore`, `warn`, `refuse`, `elsewhere`, `no-device`.
    rule: &'static str,
    to: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quirk: Option<&'static str>,
    steps: Vec<StepLine>,
}

#[derive(Serialize)]
struct StepLine {
    work: &'static str,
    about: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_error: Option<ErrorLine>,
}

#[derive(Serialize)]
struct ErrorLine {
    undo: Vec<&'static str>,
    to: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quirk: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with_quirk: Option<&'static str>,
}

fn document(design: Design, chosen: &[&StateMachine]) -> Document {
    let machines = chosen.iter().map(|machine| machine_line(machine)).collect();
    Document { version: 1, design: name_of(design), posted: design.posted(), machines }
}

fn machine_line(machine: &StateMachine) -> MachineLine {
    MachineLine {
        machine: machine.scope.name(),
        states: machine.states.iter().map(|state| state.name()).collect(),
        initial: machine.initial.iter().map(|(state, when)| Initial { state: state.name(), when }).collect(),
        shown: machine.shown,
        routes: machine.routes.iter().map(route_line).collect(),
        cells: machine.cells.iter().map(cell_line).collect(),
    }
}

fn route_line(route: &Route) -> RouteLine {
    let guard = |guard: &Guard| GuardLine { about: guard.about, errno: guard.errno.name() };
    RouteLine {
        event: route.event.name(),
        number: Event::raw(route.event),
        command: route.command,
        also: route.also,
        refused: route.refused.map(|errno| errno.name()),
        guards: route.guards.iter().map(guard).collect(),
    }
}

fn cell_line(cell: &Cell) -> CellLine {
    let (rule, errno, first) = match cell.rule {
        Rule::Go { .. } => ("go", None, None),
        Rule::Ignore => ("ignore", None, None),
        Rule::Warn => ("warn", None, None),
        Rule::Refuse { errno, first } => ("refuse", Some(errno), first),
        Rule::Elsewhere(errno) => ("elsewhere", Some(errno), None),
        Rule::NoDevice => ("no-device", None, None),
    };
    let (steps, to) = match cell.rule {
        Rule::Go { steps, to } => (steps, to),
        _ => (&[][..], cell.from),
    };
    CellLine {
        from: cell.from.name(),
        event: cell.event.name(),
        rule,
        to: to.name(),
        errno: errno.map(|errno| errno.name()),
        first: first.map(|(_, work)| work.name()),
        quirk: first.map(|(quirk, _)| quirk.name()),
        steps: steps.iter().map(step_line).collect(),
    }
}

fn step_line(step: &Step) -> StepLine {
    let on_error = match step.failed {
        Failed::Never => None,
        Failed::Undo { undo, to, quirk } => Some(ErrorLine {
            undo: undo.iter().map(|work| work.name()).collect(),
            to: to.name(),
            quirk: quirk.map(|(quirk, _)| quirk.name()),
            with_quirk: quirk.map(|(_, state)| state.name()),
        }),
    };
    StepLine { work: step.work.name(), about: step.work.describe(), on_error }
}
