//! `luosim releases` and `luosim matrix` beyond what the book shows: the JSON forms and the page.

mod common;

use common::{json_document, list, luosim, text};
use serde_json::Value;

fn json(arguments: &[&str]) -> Value {
    json_document(arguments, 0)
}

#[test]
fn releases_as_json() {
    let document = json(&["releases", "--format", "json"]);
    assert_eq!(document["version"], 1);
    let releases = list(&document, "releases");
    let names: Vec<&str> = releases.iter().filter_map(|row| row["release"].as_str()).collect();
    assert_eq!(names, ["6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"]);
    let (old, new) = (&releases[2], &releases[7]);
    assert!(old.get("luo").is_none() && old.get("limits").is_none(), "{old}");
    assert_eq!(new["limits"]["sessions"], 510_000);
    assert_eq!(list(new, "commands").len(), 6);
    let quirk = &list(new, "quirks")[0];
    assert_eq!(quirk["name"], "empty-trailing-block");
    let some = json(&["releases", "7.1", "--format", "json"]);
    assert_eq!(list(&some, "releases").len(), 1);
}

#[test]
fn the_matrix_as_json() {
    let document = json(&["matrix", "--format", "json", "--from", "6.19", "--to", "6.19", "--to", "7.0"]);
    let cells = list(&document, "cells");
    assert_eq!((cells.len(), &document["version"]), (2, &Value::from(1)));
    let (works, panics) = (&cells[0], &cells[1]);
    assert_eq!((&works["verdict"], &works["open"]), (&Value::from("works"), &Value::from("ok")));
    assert_eq!(works["files"][2]["found"]["text"], "ABCDEFGH");
    assert_eq!(works["files"][2]["found"]["seals"], 1, "memfd-v1 has no room for them");
    assert_eq!(panics["verdict"], "panics");
    assert!(panics.get("open").is_none() && panics["files"][0]["lost"].is_string(), "{panics}");
}

#[test]
fn the_page_stands_alone() {
    let output = luosim(&["matrix", "--format", "html"]);
    let page = text(&output.stdout);
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert_eq!(page.matches("<td ").count(), 64);
    assert!(!page.contains("http") && !page.contains("<script"), "it needs nothing else");
    assert!(page.contains("class=\"panics\" title=\"The incoming tree failed"), "a cell says why");
    let open = page.matches('<').count();
    assert_eq!(open, page.matches('>').count(), "texts are escaped");
}

#[test]
fn explanations_name_every_loss() {
    let output = luosim(&["matrix", "--explain", "--from", "7.1", "--to", "7.2"]);
    let shown = text(&output.stdout);
    assert_eq!(shown.matches("lost: KHO root kho-v3 refused by kho-v4").count(), 3, "{shown}");
}
