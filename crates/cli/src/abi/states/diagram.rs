//! The moves of a state machine as edges, and the two texts that other programs draw.

use std::fmt::Write as _;

use luosim_abi::posted::State;
use luosim_posted::states::{Cell, Failed, Rule, StateMachine};

/// What kind of move an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event that succeeds.
    Event,
    /// Work that fails on the way.
    Failure,
    /// The jump to the next kernel.
    Jump,
}

/// An arrow from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) label: String,
    pub(super) kind: Kind,
}

/// Every move that changes the state, once; and the jump, from the state that the reboot leaves.
pub(super) fn edges(machine: &StateMachine) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::new();
    for cell in machine.cells {
        for edge in moves(cell) {
            if !edges
                .iter()
                .any(|other| (other.from, other.to, &other.label) == (edge.from, edge.to, &edge.label))
            {
                edges.push(edge);
            }
        }
    }
    let jump =
        Edge { from: State::Frozen, to: State::Updated, label: String::from("kexec"), kind: Kind::Jump };
    edges.push(jump);
    edges
}

fn moves(cell: &Cell) -> Vec<Edge> {
    let Rule::Go { steps, to } = cell.rule else { return Vec::new() };
    let edge = |to: State, label: String, kind: Kind| Edge { from: cell.from, to, label, kind };
    let mut all = vec![edge(to, cell.event.name().to_owned(), Kind::Event)];
    for step in steps {
        let Failed::Undo { to, quirk, .. } = step.failed else { continue };
        let failure = format!("{} fails", cell.event.name());
        let with = quirk.map(|(_, state)| state);
        for state in [Some(to), with].into_iter().flatten().filter(|state| *state != cell.from) {
            all.push(edge(state, failure.clone(), Kind::Failure));
        }
    }
    all
}

/// A Mermaid state diagram.
pub(super) fn mermaid(design: &str, machine: &StateMachine) -> String {
    let mut out = format!("---\ntitle: {design}, {} machine\n---\nstateDiagram-v2\n", machine.scope.name());
    for (state, when) in machine.initial {
        let _ = writeln!(out, "    [*] --> {}: {}", state.name(), when.replace(':', ","));
    }
    for edge in edges(machine) {
        let _ = writeln!(out, "    {} --> {}: {}", edge.from.name(), edge.to.name(), edge.label);
    }
    out
}

/// A Graphviz graph.
pub(super) fn dot(design: &str, machine: &StateMachine) -> String {
    let title = format!("{design}, {} machine", machine.scope.name());
    let mut out = format!(
        "digraph states {{\n    label=\"{title}\";\n    rankdir=LR;\n    node [shape=box, style=rounded];\n"
    );
    for state in machine.states {
        let _ = writeln!(out, "    {};", state.name());
    }
    for edge in edges(machine) {
        let style = match edge.kind {
            Kind::Event => "solid",
            Kind::Failure => "dashed",
            Kind::Jump => "dotted",
        };
        let (from, to, label) = (edge.from.name(), edge.to.name(), edge.label);
        let _ = writeln!(out, "    {from} -> {to} [label=\"{label}\", style={style}];");
    }
    out.push_str("}\n");
    out
}
