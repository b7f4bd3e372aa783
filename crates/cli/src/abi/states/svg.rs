//! A state machine as a picture that stands alone: states in a row, moves to the right above it, moves to the left below.
//!
//! Arrows of one side are put on *lanes*, the shortest nearest to the row, so that none runs through another's label.

use std::fmt::Write as _;

use luosim_abi::posted::State;
use luosim_posted::states::StateMachine;

use super::diagram::{Edge, Kind, edges};

const BOX: (u32, u32) = (112, 40);
const GAP: u32 = 78;
const LANE: u32 = 30;
const MARGIN: u32 = 24;
const HEAD: u32 = 54;

/// An edge in its place: from the column `from` to the column `to`, on a lane counted from 1.
struct Placed<'a> {
    edge: &'a Edge,
    from: u32,
    to: u32,
    lane: u32,
}

impl Placed<'_> {
    fn span(&self) -> (u32, u32) {
        (self.from.min(self.to), self.from.max(self.to))
    }
}

fn column(machine: &StateMachine, state: State) -> u32 {
    let at = machine.states.iter().position(|other| *other == state).expect("a state of the machine");
    u32::try_from(at).expect("few states")
}

/// Gives each edge of one side the lowest lane that is free over its span, the shortest first.
fn place<'a>(machine: &StateMachine, all: &'a [Edge], right: bool) -> Vec<Placed<'a>> {
    let ends = |edge: &Edge| (column(machine, edge.from), column(machine, edge.to));
    let mut side: Vec<&Edge> = all.iter().filter(|edge| (ends(edge).0 < ends(edge).1) == right).collect();
    side.sort_by_key(|edge| ends(edge).0.abs_diff(ends(edge).1));
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for edge in side {
        let (from, to) = ends(edge);
        let mut one = Placed { edge, from, to, lane: 1 };
        let (left, end) = one.span();
        let clashes = |other: &&Placed<'_>| other.span().0 < end && other.span().1 > left;
        one.lane = 1 + placed.iter().filter(clashes).map(|other| other.lane).max().unwrap_or(0);
        placed.push(one);
    }
    placed
}

fn left_of(column: u32) -> u32 {
    MARGIN + column * (BOX.0 + GAP)
}

/// Where the arrows of a box begin and end: those on higher lanes nearer to its middle.
fn port(column: u32, outwards_right: bool, lane: u32) -> u32 {
    let inset = (10 + 14 * (lane - 1)).min(BOX.0 / 2 - 4);
    if outwards_right { left_of(column) + BOX.0 - inset } else { left_of(column) + inset }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn dash(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Event => ("", "#24405f"),
        Kind::Failure => (" stroke-dasharray=\"5 4\"", "#a03030"),
        Kind::Jump => (" stroke-dasharray=\"2 4\"", "#2f7a45"),
    }
}

fn arrow(out: &mut String, placed: &Placed<'_>, top: u32, above: bool) {
    let right = placed.from < placed.to;
    let (start, end) = (port(placed.from, right, placed.lane), port(placed.to, !right, placed.lane));
    let (edge, far) =
        if above { (top, top - LANE * placed.lane) } else { (top + BOX.1, top + BOX.1 + LANE * placed.lane) };
    let (dash, colour) = dash(placed.edge.kind);
    let name = match placed.edge.kind {
        Kind::Event => "event",
        Kind::Failure => "failure",
        Kind::Jump => "jump",
    };
    let _ = writeln!(
        out,
        "<path d=\"M{start} {edge} V{far} H{end} V{edge}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash} marker-end=\"url(#{name})\"/>"
    );
    label(out, placed, u32::midpoint(start, end), far);
}

/// The label on its arrow, which is interrupted for it.
fn label(out: &mut String, placed: &Placed<'_>, middle: u32, lane: u32) {
    let (text, colour) = (escape(&placed.edge.label), dash(placed.edge.kind).1);
    let width = 7 * u32::try_from(placed.edge.label.len()).expect("a short label") + 8;
    let _ = writeln!(
        out,
        "<rect x=\"{}\" y=\"{}\" width=\"{width}\" height=\"16\" fill=\"#ffffff\"/>",
        middle - width / 2,
        lane - 8
    );
    let _ = writeln!(
        out,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{colour}\">{text}</text>",
        lane + 4
    );
}

fn state_box(out: &mut String, machine: &StateMachine, state: State, top: u32) {
    let left = left_of(column(machine, state));
    let begins = machine.initial.iter().any(|(initial, _)| *initial == state);
    let (fill, width) = if begins { ("#eaf1f8", 2) } else { ("#ffffff", 1) };
    let _ = writeln!(
        out,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"{fill}\" stroke=\"#24405f\" stroke-width=\"{width}\"/>",
        BOX.0, BOX.1
    );
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"14\" font-weight=\"bold\" fill=\"#182838\">{}</text>",
        left + BOX.0 / 2,
        top + BOX.1 / 2 + 5,
        state.name().to_uppercase()
    );
}

fn marker(out: &mut String, name: &str, kind: Kind) {
    let colour = dash(kind).1;
    let _ = writeln!(
        out,
        "<marker id=\"{name}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 L10 5 L0 10 z\" fill=\"{colour}\"/></marker>"
    );
}

/// The picture.
pub(super) fn svg(design: &str, machine: &StateMachine) -> String {
    let all = edges(machine);
    let (above, below) = (place(machine, &all, true), place(machine, &all, false));
    let deepest = |side: &[Placed<'_>]| side.iter().map(|placed| placed.lane).max().unwrap_or(0);
    let top = HEAD + LANE * deepest(&above) + 12;
    let height = top + BOX.1 + LANE * deepest(&below) + 52;
    let columns = u32::try_from(machine.states.len()).expect("few states");
    let width = left_of(columns) - GAP + MARGIN;
    let title = format!("{design}, {} machine", machine.scope.name());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" role=\"img\">\n<title>{title}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n<defs>\n"
    );
    for (name, kind) in [("event", Kind::Event), ("failure", Kind::Failure), ("jump", Kind::Jump)] {
        marker(&mut out, name, kind);
    }
    let _ = writeln!(
        out,
        "</defs>\n<text x=\"{MARGIN}\" y=\"30\" font-size=\"16\" font-weight=\"bold\" fill=\"#182838\">{title}</text>"
    );
    for placed in &above {
        arrow(&mut out, placed, top, true);
    }
    for placed in &below {
        arrow(&mut out, placed, top, false);
    }
    for state in machine.states {
        state_box(&mut out, machine, *state, top);
    }
    let _ = writeln!(
        out,
        "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"11\" fill=\"#556070\">solid: events; dashed: a callback fails; dotted: the next kernel; shaded: where it may begin; every other event leaves the state as it is</text>\n</svg>",
        height - 16
    );
    out
}
