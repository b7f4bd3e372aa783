//! `luosim inspect`: exit codes, what is written where, and its JSON form held to `docs/json.md`.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::{check_json, json_tables, luosim, luosim_in, text, workshop};
use serde_json::{Map, Value};

const SMALL: &str = "crates/sim/tests/data/golden/7.3.4/small";
const OLD: &str = "crates/sim/tests/data/golden/6.19.6/small";

/// A workshop with the memory that crossed in two scenarios.
fn dumps() -> tempfile::TempDir {
    let folder = workshop();
    for scenario in [
        "basics/vm-live-update",
        "handlers/retrieve-fails",
        "releases/kho-only",
        "sessions/empty-trailing-block",
    ] {
        let path = format!("sim-scenarios/{scenario}.kdl");
        let output = luosim_in(folder.path(), &["run", "--quiet", "--dump-handover", "dump", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    folder
}

const VM: &str = "dump/vm-live-update/kexec-1";

fn code(folder: &Path, arguments: &[&str]) -> Option<i32> {
    luosim_in(folder, &[&["inspect"], arguments].concat()).status.code()
}

/// Replaces `from` by `to`, of the same length, everywhere in the low memory of a dump.
fn replace(dump: &Path, from: &[u8], to: &[u8]) {
    let file = std::fs::File::options().read(true).write(true).open(dump.join("ram.bin")).expect("a dump");
    let mut low = vec![0; 4 << 20];
    file.read_exact_at(&mut low, 0).expect("memory");
    let places = low.windows(from.len()).enumerate().filter(|(_, bytes)| *bytes == from);
    for (at, _) in places {
        file.write_all_at(to, at as u64).expect("writable");
    }
}

#[test]
fn exit_codes() {
    let folder = dumps();
    let code = |arguments: &[&str]| code(folder.path(), arguments);
    assert_eq!(code(&["--strict", VM]), Some(0));
    assert_eq!(code(&["dump/empty-trailing-block/kexec-1"]), Some(0));
    assert_eq!(code(&["--strict", "dump/empty-trailing-block/kexec-1"]), Some(1));
    assert_eq!(code(&["--diff", VM, VM]), Some(0));
    assert_eq!(code(&["--diff", VM, "dump/empty-trailing-block/kexec-1"]), Some(1));
    for bad in [
        &["no-such-file"][..],
        &[],
        &["--session", "vm-3", VM],
        &["--file", "0x99", VM],
        &["--file", "0x10", "--extract", "out", VM],
        &["--session", "vm-1", "--file", "0x10", "--extract", "no/such/folder", VM],
        &["--map", "no/such/folder.svg", VM],
        &["--extract", "out", VM],
        &["--root", "0x3000", "--scratch", "1", VM],
        &["--low-memory", "1000", VM],
        &["--diff", VM],
        &["--flip-survey", "--structure", "nothing", VM],
        &["--structure", "page tracker", VM],
        &["--diff", VM, VM, VM],
    ] {
        assert_eq!(code(bad), Some(2), "{bad:?}");
    }
    assert!(!folder.path().join("out").exists(), "nothing is made when it is not clear what to write");
}

#[test]
fn an_extracted_file_is_the_file_and_its_zeros_are_holes() {
    let folder = dumps();
    let extract = |token: &str, to: &str| {
        let arguments = ["--session", "vm-2", "--file", token, "--extract", to, VM];
        assert_eq!(code(folder.path(), &arguments), Some(0));
        std::fs::read(folder.path().join(to)).expect("it was written")
    };
    assert_eq!(extract("32", "state"), b"queue 7, index 42");
    let ram = extract("0x10", "ram");
    assert_eq!(ram.len(), 64 << 10);
    assert!(ram[..16 << 10].iter().chain(&ram[20 << 10..]).all(|byte| *byte == 0));
    assert!(ram[16 << 10..20 << 10].iter().any(|byte| *byte != 0));
    let blocks = folder.path().join("ram").metadata().expect("it is there").blocks();
    assert!(blocks * 512 < 64 << 10, "{blocks} blocks");
}

#[test]
fn the_picture_is_the_same_every_time_and_stands_alone() {
    let folder = dumps();
    let draw = |to: &str| {
        assert_eq!(code(folder.path(), &["--map", to, VM]), Some(0));
        std::fs::read_to_string(folder.path().join(to)).expect("a picture")
    };
    let picture = draw("one.svg");
    assert_eq!(picture, draw("two.svg"));
    assert!(
        picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && picture.ends_with("</svg>\n")
    );
    assert!(picture.contains("contents of session &quot;vm-1&quot;, token 0x10</title>"));
    assert_eq!(picture.matches("<rect").count() - picture.matches("<title>").count(), 1 + 8, "{picture}");
    assert!(!picture.contains("href") && !picture.contains("<script"));
}

#[test]
fn names_with_odd_bytes_are_found_as_they_are_shown() {
    let shown = r"beta/with odd\u{a}\xff name";
    let output = luosim(&["inspect", "--session", shown, SMALL]);
    assert!(text(&output.stdout).contains(&format!("session[1] \"{shown}\": 3 files")));
    assert!(!text(&output.stdout).contains("alpha"));
}

/// A structure of a handover of the model, every bit of it.
#[test]
fn a_survey_of_wrong_bits_counts_every_bit_once() {
    let folder = dumps();
    let survey = |more: &[&str]| {
        let arguments = [&["inspect", "--flip-survey", "--structure", "subtree LUO"], more, &[VM]].concat();
        let output = luosim_in(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("luosim: 32768 flips, "), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let shown = survey(&[]);
    let row: Vec<&str> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
    let [_, _, pages, flips, harmless, refused, panics, silent] = row[..] else { panic!("{shown}") };
    assert_eq!((pages, flips), ("1", "32768"), "{shown}");
    let counts = [harmless, refused, panics, silent].map(|count| count.parse::<u32>().expect("a number"));
    assert_eq!(counts.iter().sum::<u32>(), 32_768);
    // The version of 7.3 is compared up to its NUL: 6 letters and the NUL, and the head of the chain of sessions. The
    // number of the update is believed whatever it is.
    assert_eq!(counts[3], 64, "{shown}");
    assert!(counts[2] > 56, "{shown}");
    let report: Value = serde_json::from_str(&survey(&["--jobs", "3", "--format", "json"])).expect("JSON");
    let numbers: Vec<u32> =
        serde_json::from_value(report["structures"][0]["counts"].clone()).expect("numbers");
    assert_eq!(numbers, counts, "the number of workers changes nothing");
    let mut seen = Seen::new();
    seen.entry(String::from("survey")).or_default().push(report.as_object().expect("an object").clone());
    let structure = report["structures"][0].as_object().expect("an object").clone();
    seen.entry(String::from("structure")).or_default().push(structure);
    check_json(&json_tables("json flips"), &seen);
}

/// Objects by the name of their table.
type Seen = BTreeMap<String, Vec<Map<String, Value>>>;

/// Puts every object of a report to its table; names of fields tell which.
fn collect(name: &str, value: &Value, seen: &mut Seen) {
    let table = match name {
        "candidates" => "candidate",
        "subtrees" => "subtree",
        "orders" => "order",
        "areas" => "area",
        "sessions" => "session",
        "files" => "file",
        "flbs" => "flb",
        "findings" => "finding",
        "values" => "value",
        "differences" => "difference",
        other => other,
    };
    match value {
        Value::Array(list) => list.iter().for_each(|one| collect(name, one, seen)),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, one)| collect(name, one, seen));
            seen.entry(table.to_owned()).or_default().push(fields.clone());
        }
        _ => {}
    }
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = luosim_in(folder, &[&["inspect", "--format", "json"], arguments].concat());
    let line = text(&output.stdout);
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{}", text(&output.stderr));
    serde_json::from_str(&line).expect("JSON")
}

/// Dumps that were changed so that between them and the others every field is there, and absent where it may be.
fn odd(folder: &Path) -> Vec<Value> {
    let scenario = "sim-scenarios/basics/vm-live-update.kdl";
    let output =
        luosim_in(folder, &["run", "--quiet", "--release", "7.1", "--dump-handover", "tree", scenario]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let changed = |dump: &str, name: &str, changes: &[(&[u8], &[u8])]| {
        let (from, to) = (folder.join(dump), folder.join(name));
        std::fs::create_dir(&to).expect("writable");
        for file in ["ram.bin", "manifest.json"] {
            std::fs::copy(from.join(file), to.join(file)).expect("a copy");
        }
        for (from, to) in changes {
            replace(&folder.join(name), from, to);
        }
        json(folder, &[name])
    };
    let copy = |name: &str, changes: &[(&[u8], &[u8])]| changed(VM, name, changes);
    let strings = copy("unknown", &[(b"kexec-metadata\0", b"kexec-metabase\0"), (b"LUO\0", b"LUA\0")]);
    vec![
        strings,
        changed("tree/vm-live-update/kexec-1", "unknown-tree", &[(b"LUO\0", b"LUA\0")]),
        copy("no-address", &[(b"preserved-data\0", b"preserved-date\0")]),
        copy("no-map", &[(b"preserved-memory-map\0", b"preserved-memory-mop\0")]),
        copy("no-version", &[(b"kho-v4\0", b"kho-v9\0")]),
        copy("no-sessions", &[(&0x10_a000_u64.to_le_bytes(), &[0; 8])]),
    ]
}

#[test]
fn the_documented_fields_are_those_of_the_output() {
    let (folder, mut seen) = (dumps(), Seen::new());
    let root = std::fs::canonicalize(common::root()).expect("the workspace");
    let image = |name: &str| root.join(name).display().to_string();
    let blob = folder.path().join("blob");
    let ram = std::fs::File::open(folder.path().join(VM).join("ram.bin")).expect("a dump");
    let mut page = [0; 4096];
    ram.read_exact_at(&mut page, 0x10_1000).expect("the root tree");
    std::fs::write(&blob, page).expect("writable");
    let packed = image(&format!("{SMALL}/ram.zst"));
    let mut reports = vec![
        json(folder.path(), &["--digest", &image(SMALL)]),
        json(folder.path(), &[&image(OLD)]),
        json(folder.path(), &[&packed]),
        json(folder.path(), &["dump/retrieve-fails/kexec-1"]),
        json(folder.path(), &["dump/kho-only/kexec-2"]),
        json(folder.path(), &["blob"]),
    ];
    reports.extend(odd(folder.path()));
    for report in &reports {
        assert_eq!(report["version"], luosim_inspect::report::VERSION);
        collect("report", report, &mut seen);
    }
    collect("diff", &json(folder.path(), &["--diff", VM, "no-sessions"]), &mut seen);
    collect("diff", &json(folder.path(), &["--diff", &image(OLD), &image(SMALL)]), &mut seen);
    // No recorded kernel has a test module without a sum.
    let mut without = seen["kho_test"][0].clone();
    without.remove("csum");
    seen.get_mut("kho_test").expect("the recorded ones").push(without);
    check_json(&json_tables("json inspect"), &seen);
}
