//! `luosim preflight`: exit codes, what is said, and its JSON form held to `docs/json.md`.

mod common;

use std::collections::BTreeMap;

use common::{check_json, json_tables, luosim, luosim_in, text, workshop};
use luosim_abi::release::RELEASES;
use luosim_sim::matrix;
use serde_json::{Map, Value};

/// A made-up kernel file of 7.2, packed: see the folder's README.
const KERNEL: &str = "crates/preflight/tests/data/kernel.xz";

/// A recorded handover.
const SMALL_7_3: &str = "crates/sim/tests/data/golden/7.3.4/small";

/// A made-up kernel file with these strings, flat for arm64, in a folder of its own. It does not say its page size.
fn image(strings: &[&str]) -> (tempfile::TempDir, String) {
    let mut file = vec![0; 64];
    file[0x38..0x3c].copy_from_slice(b"ARM\x64");
    for string in strings {
        file.extend_from_slice(string.as_bytes());
        file.push(0);
    }
    let folder = workshop();
    let path = folder.path().join("Image");
    std::fs::write(&path, file).expect("writable");
    let path = path.display().to_string();
    (folder, path)
}

fn code(arguments: &[&str]) -> Option<i32> {
    luosim(&[&["preflight"], arguments].concat()).status.code()
}

#[test]
fn the_exit_code_says_how_much_survives() {
    assert_eq!(code(&["7.3", KERNEL]), Some(0));
    assert_eq!(code(&["6.19", KERNEL]), Some(4));
    assert_eq!(code(&["7.3", "no/such/kernel"]), Some(2));
    assert_eq!(code(&["Cargo.toml", "7.3"]), Some(2));
    let (_folder, other) =
        image(&["Linux version 7.3.1 (a@b) #1", "kho-v4", "luo-v5", "vfio-pci-v1", "memfd-v2"]);
    let (_folder, without) = image(&["Linux version 7.3.1 (a@b) #1", "kho-v4", "luo-v5", "memfd-v2"]);
    assert_eq!(code(&[&other, &without]), Some(1));
    assert_eq!(code(&[&without, &other]), Some(0));
    assert_eq!(code(&["7.3", &other]), Some(4), "another machine");
}

#[test]
fn a_release_name_wins_over_a_file_unless_a_path_is_given() {
    let folder = workshop();
    std::fs::write(folder.path().join("7.3"), "no kernel").expect("writable");
    assert_eq!(luosim_in(folder.path(), &["preflight", "7.3", "7.3"]).status.code(), Some(0));
    assert_eq!(luosim_in(folder.path(), &["preflight", "./7.3", "7.3"]).status.code(), Some(2));
}

#[test]
fn a_kernel_without_kho_is_named() {
    let (_folder, path) = image(&[
        "Linux version 7.1.0-12-amd64 (a@b) #1",
        "Passed KHO data, but CONFIG_KEXEC_HANDOVER not set. Ignoring.",
    ]);
    let output = luosim(&["preflight", &path, &path]);
    assert_eq!(output.status.code(), Some(4));
    let shown = text(&output.stdout);
    let last = shown.lines().last().expect("a line");
    assert_eq!(last, "7.1.0-12-amd64: built without KEXEC_HANDOVER: nothing can survive");
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

#[test]
fn the_documented_fields_are_those_of_the_output() {
    let (_folder, odd) = image(&["kho-v1", "luo-v1", "luo-session-v2", "luo-flb-v1"]);
    let (_folder, none) = image(&["Linux version 7.1 (a@b) #1"]);
    let chapter = common::page("docs/json.md");
    let (fine, lost) = (["--handover", SMALL_7_3, "7.3", "7.2"], ["--handover", SMALL_7_3, "7.3", "7.1"]);
    let mut seen: BTreeMap<String, Vec<Map<String, Value>>> = BTreeMap::new();
    let runs: [&[&str]; 6] =
        [&["6.19", KERNEL], &["7.3", KERNEL], &[&odd, &odd], &["6.19", &none], &fine, &lost];
    for arguments in runs {
        let output = luosim(&[&["preflight", "--format", "json"], arguments].concat());
        let lines = text(&output.stdout);
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let report: Value = serde_json::from_str(&lines).expect("JSON");
        assert_eq!(report["version"], 1);
        let mut see =
            |name: &str, value: &Value| seen.entry(name.to_owned()).or_default().push(object(value));
        for kernel in [&report["old"], &report["new"]] {
            see("kernel", kernel);
            for option in kernel.get("config").map(object).into_iter().flat_map(|config| config.into_iter()) {
                assert!(chapter.contains(&format!("\n| `{}` |", option.0)), "{option:?}");
            }
        }
        for layer in report["layers"].as_array().expect("a list") {
            see("layer", layer);
        }
        for session in report.get("sessions").and_then(Value::as_array).into_iter().flatten() {
            see("session", session);
            session["files"].as_array().expect("a list").iter().for_each(|file| see("file", file));
        }
        see("verdict", &report);
    }
    check_json(&json_tables("json preflight"), &seen);
}

/// Each session and file of a recorded handover is named, with what becomes of it.
#[test]
fn a_real_handover_is_told_file_by_file() {
    let shown = |arguments: &[&str]| {
        let output = luosim(&[&["preflight", "--handover"], arguments].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, works, _) = shown(&[SMALL_7_3, "7.3", "7.2"]);
    assert!(works.contains("session \"alpha\": carried, 3 files"), "{works}");
    // The recording's kernel had the test objects, which a stock kernel does not ask for.
    assert_eq!(code, Some(1));
    let (code, panics, _) = shown(&["crates/sim/tests/data/golden/6.19.6/small", "6.19", "7.0"]);
    assert_eq!(code, Some(4));
    assert!(panics.contains("session \"alpha\": lost with 3 files") && panics.contains("panics"), "{panics}");
    let (_, other, _) = shown(&[SMALL_7_3, "7.1", "7.3"]);
    assert!(
        other.contains("this handover was not written by OLD: it has kho-v4 where OLD has kho-v3"),
        "{other}"
    );
    let (code, _, problem) = shown(&["Cargo.toml", "7.3", "7.3"]);
    assert_eq!(code, Some(2));
    assert!(problem.contains("Cargo.toml"), "{problem}");
}

#[test]
fn names_in_json_are_those_of_the_chapter() {
    let page = common::page("docs/json.md");
    let (_folder, odd) = image(&["Linux version 7.3.1 (a@b) #1", "kho-v1"]);
    for arguments in [["6.19", KERNEL], ["7.3", KERNEL], [odd.as_str(), odd.as_str()]] {
        let output = luosim(&[&["preflight", "--format", "json"], &arguments[..]].concat());
        let report: Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
        let layers = report["layers"].as_array().expect("a list");
        let names = layers.iter().flat_map(|layer| [&layer["layer"], &layer["state"]]);
        for name in names.chain([&report["survives"], &report["boot"]]) {
            let name = name.as_str().expect("a name");
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn the_model_does_what_is_said_for_every_pair_of_releases() {
    let cells = matrix::run(&matrix::all(), &matrix::all()).expect("room for a machine");
    assert_eq!(cells.len(), RELEASES.len() * RELEASES.len());
    for cell in cells {
        let pair = format!("{} to {}: {cell:?}", cell.from, cell.to);
        let output = luosim(&["preflight", "--format", "json", cell.from, cell.to]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let arrived = cell.files.iter().map(|file| file.found.is_some()).chain([cell.reservation]);
        let arrived: Vec<bool> = arrived.collect();
        let survives = match arrived.iter().filter(|arrived| **arrived).count() {
            0 => "nothing",
            count if count == arrived.len() => "all",
            _ => "part",
        };
        assert_eq!(said["survives"], survives, "{pair}");
        assert_eq!(said["boot"] == "panic", cell.verdict == matrix::Verdict::Panics, "{pair}");
        let found = cell.log.iter().any(|line| line.starts_with("KHO: found kexec handover data"));
        assert_eq!(said["boot"] != "cold", found, "{pair}");
    }
}
