//! `luosim abi states`: the forms besides the text that the book shows, the pictures of the book, wrong requests; and where
//! posted designs may and may not be named.

mod common;

use common::{luosim, root, text};
use serde_json::Value;

fn good(arguments: &[&str]) -> String {
    let output = luosim(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn list<'a>(document: &'a Value, field: &str) -> &'a Vec<Value> {
    document[field].as_array().unwrap_or_else(|| panic!("{field} is a list"))
}

#[test]
fn every_cell_is_in_the_json_form() {
    let mut cells = 0;
    for design in ["posted-v2", "posted-v3", "posted-v4"] {
        let printed = good(&["abi", "states", design, "--format", "json"]);
        assert_eq!(printed.lines().count(), 1, "one document on one line");
        let document: Value = serde_json::from_str(&printed).expect("JSON");
        assert_eq!((&document["version"], &document["design"]), (&Value::from(1), &Value::from(design)));
        for machine in list(&document, "machines") {
            let states = list(machine, "states").len();
            assert_eq!(list(machine, "cells").len(), states * list(machine, "routes").len());
            cells += list(machine, "cells").len();
        }
    }
    assert_eq!(cells, 60 + 32 + 16);
    let document: Value = serde_json::from_str(&good(&[
        "abi",
        "states",
        "posted-v2",
        "--machine",
        "global",
        "--format",
        "json",
    ]))
    .expect("JSON");
    let machine = &list(&document, "machines")[0];
    let cell = |from: &str, event: &str| {
        let cells = list(machine, "cells").iter();
        let mut found = cells.filter(|cell| cell["from"] == from && cell["event"] == event);
        found.next().expect("a cell").clone()
    };
    let prepare = cell("normal", "prepare");
    assert_eq!((&prepare["rule"], &prepare["to"]), (&Value::from("go"), &Value::from("prepared")));
    assert_eq!(list(&prepare, "steps")[2]["on_error"]["with_quirk"], "prepared");
    let cancel = cell("normal", "cancel");
    assert_eq!((&cancel["errno"], &cancel["first"]), (&Value::from("EINVAL"), &Value::from("abort-kho")));
}

#[test]
fn the_pictures_of_the_book_are_those_that_are_drawn() {
    for (name, design) in [("global", "posted-v2"), ("file", "posted-v3"), ("session", "posted-v4")] {
        let drawn = good(&["abi", "states", design, "--machine", name, "--format", "svg"]);
        let kept =
            std::fs::read_to_string(root().join(format!("docs/posted/{name}.svg"))).expect("a picture");
        assert_eq!(
            kept, drawn,
            "luosim abi states {design} --machine {name} --format svg > docs/posted/{name}.svg"
        );
        assert!(drawn.starts_with("<svg xmlns=") && drawn.trim_end().ends_with("</svg>"), "it stands alone");
        assert!(!drawn.contains("href") && !drawn.contains("<script"), "it needs nothing else");
        assert_eq!(drawn.matches("<text").count(), drawn.matches("</text>").count());
    }
}

#[test]
fn a_graph_has_an_edge_for_each_move() {
    let graph = good(&["abi", "states", "posted-v4", "--machine", "session", "--format", "dot"]);
    assert!(graph.starts_with("digraph states {") && graph.ends_with("}\n"));
    assert_eq!(graph.matches(" -> ").count(), 7);
    assert!(graph.contains("prepared -> normal [label=\"freeze fails\", style=dashed];"), "{graph}");
}

#[test]
fn what_is_not_there_is_said() {
    for (arguments, want) in [
        (
            &["abi", "states", "posted-v2", "--machine", "session"][..],
            "posted-v2 has no session machine; it has global and file",
        ),
        (&["abi", "states", "7.3"], "the posted designs are posted-v2, posted-v3, posted-v4"),
        (
            &["explore", "--chain", "posted-v2", "--seeds", "1"],
            "it runs in scenarios and under `luosim exec`",
        ),
    ] {
        let output = luosim(arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(want), "{arguments:?}: {said}");
    }
}

#[test]
fn posted_designs_are_a_group_of_their_own() {
    let table = good(&["releases"]);
    assert!(table.contains("\nposted design  posted in"), "{table}");
    let document: Value = serde_json::from_str(&good(&["releases", "--format", "json"])).expect("JSON");
    let names: Vec<&str> =
        list(&document, "posted").iter().filter_map(|row| row["release"].as_str()).collect();
    assert_eq!(names, ["posted-v2", "posted-v3", "posted-v4"]);
    let full = good(&["releases", "posted-v3"]);
    assert!(full.starts_with("posted-v3: posted in August 2025, never released\n"), "{full}");
    assert!(full.contains("SET_FD_EVENT") && full.contains("preserve-error-lost"), "{full}");
}
