//! `docs/json.md` held to real output, and `docs/formats/image.md` to what manifests need.

mod common;

use std::collections::BTreeMap;

use common::{cells, check_json, json_tables, luosim, page, text};
use serde_json::{Map, Value};

/// The reports of scenarios that between them have every kind of record and every field.
fn reports() -> Vec<Map<String, Value>> {
    let runs: [(&[&str], i32); 3] = [
        (&["sim-scenarios/files/seals.kdl", "sim-scenarios/sessions/killed-custodian.kdl"], 0),
        (&["--release", "6.19", "sim-scenarios/basics/vm-live-update.kdl"], 1),
        (&["sim-scenarios/devices-vm/vm-story.kdl"], 0),
    ];
    let mut found = Vec::new();
    for (arguments, code) in runs {
        let output = luosim(&[&["run", "--format", "json"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let lines = text(&output.stdout);
        found.extend(lines.lines().map(|line| match serde_json::from_str(line) {
            Ok(Value::Object(report)) => report,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(found.len(), 4);
    found
}

fn objects(list: &Value) -> impl Iterator<Item = Map<String, Value>> {
    let list = list.as_array().expect("a list");
    list.iter().map(|value| value.as_object().expect("an object").clone())
}

#[test]
fn the_documented_fields_are_those_of_the_output() {
    let mut seen: BTreeMap<String, Vec<Map<String, Value>>> = BTreeMap::new();
    for report in reports() {
        assert_eq!(report["version"], luosim_sim::transcript::VERSION);
        for record in objects(&report["records"]) {
            let kind = record["kind"].as_str().expect("a kind").to_owned();
            seen.entry(kind).or_default().push(record);
        }
        for list in ["ledger", "timeline", "invariants"] {
            let lines = report.get(list).into_iter().flat_map(objects);
            seen.entry(list.to_owned()).or_default().extend(lines);
        }
        seen.entry(String::from("report")).or_default().push(report);
    }
    check_json(&json_tables("json"), &seen);
}

#[test]
fn a_failed_record_points_at_its_step() {
    let reports = reports();
    let document = page("sim-scenarios/basics/vm-live-update.kdl");
    let failed = objects(&reports[2]["records"]).filter(|record| record["kind"] == "failed");
    let steps: Vec<&str> = failed
        .map(|record| {
            let at = usize::try_from(record["at"].as_u64().expect("a number")).expect("small");
            document[at..].split(' ').next().expect("a step")
        })
        .collect();
    assert_eq!(steps, ["preserve", "expect-file"]);
}

/// A value of the documented type.
fn sample(path: &str, kind: &str) -> Value {
    match kind {
        "number" => Value::from(4096),
        _ if path.ends_with("_phys") => Value::from("0x1000"),
        _ => Value::from("00"),
    }
}

/// Puts a value at a path such as `sessions[].files[].pos`.
fn put(into: &mut Value, path: &str, value: Value) {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let (name, list) = head.strip_suffix("[]").map_or((head, false), |name| (name, true));
    let slot = &mut into[name];
    if rest.is_empty() {
        *slot = value;
        return;
    }
    if slot.is_null() {
        *slot = if list { serde_json::json!([{}]) } else { serde_json::json!({}) };
    }
    put(if list { &mut slot[0] } else { slot }, rest, value);
}

#[test]
fn a_manifest_needs_each_documented_field_and_no_other() {
    let page = page("docs/formats/image.md");
    let table = page.split("| field | type | meaning |").nth(1).expect("a table");
    let fields: Vec<(String, String)> = table
        .lines()
        .skip(2)
        .take_while(|row| row.starts_with('|'))
        .map(|row| (cells(row)[0].to_owned(), cells(row)[1].to_owned()))
        .collect();
    assert_eq!(fields.len(), 12);
    let folder = tempfile::tempdir().expect("a folder");
    let reads = |without: Option<&str>| {
        let mut manifest = serde_json::json!({});
        for (path, kind) in fields.iter().filter(|(path, _)| Some(path.as_str()) != without) {
            put(&mut manifest, path, sample(path, kind));
        }
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).expect("writable");
        luosim_sim::golden::Manifest::read(folder.path()).is_ok()
    };
    assert!(reads(None), "the documented fields are enough");
    for (path, _) in &fields {
        assert!(!reads(Some(path)), "a manifest is read without {path}");
    }
}
