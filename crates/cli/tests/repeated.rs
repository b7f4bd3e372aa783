//! The command at the head of a scenario that `luosim explore` wrote finds the same again.

use std::process::Command;

/// Lines of the results that are findings.
fn findings(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_luosim")).args(arguments).output().expect("it runs");
    let lines = String::from_utf8(output.stdout).expect("text");
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines.filter(|line| line["finding"].is_object() || line["kind"] == "finding").collect()
}

/// The first scenario that stands in a result.
fn scenario(value: &serde_json::Value) -> Option<&str> {
    match value {
        serde_json::Value::Object(fields) => match fields.get("scenario").and_then(|text| text.as_str()) {
            Some(text) => Some(text),
            None => fields.values().find_map(scenario),
        },
        _ => None,
    }
}

fn repeats(quirk: &str, seeds: &str) {
    let first = findings(&["explore", "--quirk", quirk, "--seeds", seeds, "--jobs", "1", "--format", "json"]);
    let text = first.iter().find_map(scenario).expect("a finding with its scenario");
    let head = text.lines().next().expect("a head");
    let command = head.split_once("luosim explore ").expect("a command").1;
    assert!(command.contains(&format!("--quirk {quirk}")), "{command}");
    let mut words = vec!["explore"];
    words.extend(command.split(' '));
    words.extend(["--jobs", "1", "--format", "json"]);
    let again = findings(&words);
    assert!(again.iter().filter_map(scenario).any(|other| other == text), "{command} finds {again:?}");
}

#[test]
fn a_planted_defect_is_found_again() {
    repeats("planted-canary", "0..20");
}

#[test]
fn a_mistake_among_devices_is_found_again() {
    repeats("table-page-skipped", "0..1");
}
