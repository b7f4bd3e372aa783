//! `luosim abi` beyond what the book shows: exit codes, the JSON forms, SARIF, and scenarios of collisions that run.

mod common;

use std::path::Path;

use common::{json_document, list, luosim, luosim_in, root, text};
use serde_json::Value;

fn header(name: &str) -> String {
    root().join("crates/uapi/tests/headers").join(name).display().to_string()
}

fn json(arguments: &[&str], code: i32) -> Value {
    json_document(&[&["abi"], arguments].concat(), code)
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let (good, bad) = (header("merged.h"), header("posted-v2.h"));
    for (arguments, code) in [
        (vec!["show", "7.3"], 0),
        (vec!["show", "posted-v4"], 0),
        (vec!["show", "6.18"], 2),
        (vec!["show", "5.4"], 2),
        (vec!["show", "no-such-file.h"], 2),
        (vec!["diff", "6.19", "7.3"], 0),
        (vec!["diff", "posted-v2", "posted-v3"], 1),
        (vec!["diff", "7.3", &good], 0),
        (vec!["diff", "7.3", "nothing"], 2),
        (vec!["lint", &good], 0),
        (vec!["lint", &bad], 1),
        (vec!["lint", &good, &bad], 1),
        (vec!["lint", &good, "no-such-file.h"], 2),
        (vec!["lint", "--explain", "fd-type"], 0),
        (vec!["lint", "--explain", "no-such-rule"], 2),
        (vec!["lint", "--rules"], 0),
        (vec!["lint"], 2),
        (vec!["lint", "--registered", "no-such-file", &good], 2),
        (vec!["lint", "docs"], 2),
        (vec!["collide", "6.19", "7.0", "7.1", "7.2", "7.3"], 0),
        (vec!["collide"], 1),
    ] {
        let output = luosim(&[&["abi"], arguments.as_slice()].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn an_interface_as_json() {
    let document = json(&["show", "--format", "json", "posted-v2"], 0);
    assert_eq!(
        (&document["version"], &document["dispatch"]),
        (&Value::from(1), &Value::from("whole-number"))
    );
    let commands = list(&document, "commands");
    assert_eq!(commands.len(), 7);
    assert_eq!(commands[0]["number"], 0x4010_BA00);
    assert_eq!(commands[0]["argument"]["fields"][0]["type"], "int");
    assert!(commands[4].get("argument").is_none());
    assert_eq!(list(&document, "values").len(), 5);
}

#[test]
fn differences_as_json() {
    let document = json(&["diff", "--format", "json", "7.1", "7.2"], 0);
    assert_eq!(document["breaks"], false);
    let kinds: Vec<&str> = list(&document, "changes").iter().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"command-added") && kinds.contains(&"field-checked"), "{kinds:?}");
    assert_eq!(list(&document, "old_on_new").len(), 5);
    assert_eq!(list(&document, "new_on_old")[5]["outcome"], "refused");
    let document = json(&["diff", "--format", "json", "posted-v3", "posted-v4"], 1);
    let outcomes: Vec<&str> =
        list(&document, "old_on_new").iter().filter_map(|one| one["outcome"].as_str()).collect();
    assert!(outcomes.contains(&"runs-other"), "{outcomes:?}");
}

#[test]
fn a_header_that_grew() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, members: &str| {
        let text = format!(
            "#include <linux/types.h>\n/**\n * struct grow - ioctl(GROW)\n */\nstruct grow {{\n\t__u32 size;\n{members}}};\n\
             #define GROW _IO('G', 1)\n"
        );
        std::fs::write(folder.path().join(name), text).expect("writable");
    };
    put("old.h", "\t__u8 kind;\n\t__u8 __reserved[3];\n");
    put("appended.h", "\t__u8 kind;\n\t__u8 __reserved[3];\n\t__aligned_u64 more;\n");
    put("taken.h", "\t__u8 kind;\n\t__u8 colour;\n\t__u8 __reserved[2];\n");
    put("moved.h", "\t__u32 first;\n\t__u8 kind;\n\t__u8 __reserved[3];\n");
    put("hole.h", "\t__u8 kind;\n\t__u16 word;\n");
    for (new, code, kind) in [
        ("appended.h", 0, "field-appended"),
        ("taken.h", 0, "reserved-used"),
        ("moved.h", 1, "field-moved"),
        ("hole.h", 0, "reserved-used"),
    ] {
        let output = luosim_in(folder.path(), &["abi", "diff", "old.h", new]);
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{new}: {shown}");
        assert!(shown.contains(kind), "{new}: {shown}");
    }
    let output = luosim_in(folder.path(), &["abi", "diff", "hole.h", "old.h"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
}

#[test]
fn findings_as_json() {
    let document = json(&["lint", "--format", "json", &header("rules.h"), &header("merged.h")], 1);
    assert_eq!(document["allowed"], 6);
    let headers = list(&document, "headers");
    assert_eq!(headers.len(), 2);
    let first = &list(&headers[0], "findings")[0];
    assert_eq!((&first["rule"], &first["level"]), (&Value::from("plain-integer"), &Value::from("warning")));
    assert_eq!((&first["start"]["line"], &first["start"]["column"]), (&Value::from(9), &Value::from(8)));
    let allowed = list(&headers[1], "findings").iter().filter(|one| one["allowed"].is_string());
    assert_eq!(allowed.count(), 4);
}

#[test]
fn findings_as_sarif() {
    let document = json(&["lint", "--format", "sarif", &header("rules.h"), &header("merged.h")], 1);
    assert_eq!(document["version"], "2.1.0");
    let run = &list(&document, "runs")[0];
    let rules = list(&run["tool"]["driver"], "rules");
    let results = list(run, "results");
    assert!(results.len() > 40);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(result["ruleId"], rules[index]["id"]);
        assert!(matches!(result["level"].as_str(), Some("warning" | "note")));
        let place = &result["locations"][0]["physicalLocation"];
        assert!(place["artifactLocation"]["uri"].as_str().expect("a reference").starts_with("file:///"));
        let at = |name: &str| place["region"][name].as_u64().expect("a number");
        assert!(at("startLine") > 0 && at("startColumn") > 0, "{result}");
        assert!((at("startLine"), at("startColumn")) <= (at("endLine"), at("endColumn")), "{result}");
    }
    let suppressed: Vec<&Value> =
        results.iter().filter(|result| result.get("suppressions").is_some()).collect();
    assert_eq!(suppressed.len(), 6);
    assert_eq!(suppressed[0]["suppressions"][0]["kind"], "inSource");
}

/// What is wrong with a document under the published schema of SARIF.
fn schema_says(document: &Value) -> Result<(), String> {
    let schema = root().join("crates/cli/tests/schemas/sarif-2.1.0.json");
    let schema = serde_json::from_slice(&std::fs::read(schema).expect("readable")).expect("JSON");
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("sarif.json", schema).expect("a schema");
    let index = compiler.compile("sarif.json", &mut schemas).expect("it compiles");
    schemas.validate(document, index).map_err(|error| format!("{error:#}"))
}

#[test]
fn sarif_is_as_its_schema_demands() {
    let folder = tempfile::tempdir().expect("a folder");
    let clean = folder.path().join("a name, with blanks & umlauts \u{e4}.h");
    std::fs::write(&clean, "/* nothing */\n").expect("writable");
    let clean = clean.display().to_string();
    let (rules, good, bad) = (header("rules.h"), header("merged.h"), header("posted-v2.h"));
    for (headers, code) in [
        (vec![&rules, &good], 1),
        (vec![&bad], 1),
        (vec![&good], 0),
        (vec![&clean], 0),
        (vec![&clean, &bad], 1),
    ] {
        let headers: Vec<&str> = headers.into_iter().map(String::as_str).collect();
        let document = json(&[&["lint", "--format", "sarif"], headers.as_slice()].concat(), code);
        assert_eq!(schema_says(&document), Ok(()), "{headers:?}");
    }
}

#[test]
fn the_schema_of_sarif_finds_mistakes() {
    let document = json(&["lint", "--format", "sarif", &header("posted-v2.h")], 1);
    let mistake = |pointer: &str, value: Value| {
        let mut document = document.clone();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is there")) = value;
        schema_says(&document).expect_err(pointer)
    };
    let place = "/runs/0/results/0/locations/0/physicalLocation";
    mistake("/version", "2.0.0".into());
    mistake("/runs/0/tool", Value::Object(serde_json::Map::default()));
    mistake("/runs/0/results/0/level", "fatal".into());
    mistake("/runs/0/results/0/ruleIndex", (-2).into());
    mistake("/runs/0/results/0/message", Value::Object(serde_json::Map::default()));
    mistake(&format!("{place}/region/startLine"), 0.into());
    mistake(&format!("{place}/artifactLocation/uri"), "a file with blanks.h".into());
    mistake(place, serde_json::json!({ "line": 3 }));
}

#[test]
fn findings_for_people() {
    let output = luosim(&["abi", "lint", &header("posted-v2.h")]);
    let shown = text(&output.stderr) + &text(&output.stdout);
    for part in
        ["fd-type", "posted-v2.h:23:7", "fd of struct liveupdate_fd is int", "Write __s32.", "27 warnings"]
    {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let short = text(
        &luosim(&["abi", "lint", "--short", "--without", "doc-on-macro,fd-type", &header("posted-v2.h")])
            .stdout,
    );
    assert_eq!(short.lines().count(), 20, "{short}");
    assert!(!short.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn a_registered_type_byte_is_respected() {
    let folder = tempfile::tempdir().expect("a folder");
    let registered = folder.path().join("list.rst");
    std::fs::write(&registered, "Code  Seq#  Include File\n0xBA  00-0F linux/other.h\n").expect("writable");
    let registered = registered.display().to_string();
    let output = luosim(&["abi", "lint", "--short", "--registered", &registered, &header("merged.h")]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(shown.contains("type-taken") && shown.contains("linux/other.h has (line 2)"), "{shown}");
}

/// The scenarios of collisions on kernels that luosim boots: they are good, run as they expect, and show what they say.
#[test]
fn collisions_have_scenarios_that_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("found");
    let place = out.display().to_string();
    let document =
        json(&["collide", "--format", "json", "--out", &place, "posted-v3", "posted-v4", "6.19", "7.2"], 1);
    let collisions = list(&document, "collisions");
    let on = |kernel: &str| collisions.iter().filter(|one| one["kernel"] == kernel).collect::<Vec<_>>();
    for kernel in ["6.19", "7.2"] {
        assert!(
            on(kernel).len() >= 4 && on(kernel).iter().all(|one| one["scenario"].is_string()),
            "{collisions:?}"
        );
    }
    assert!(collisions.iter().all(|one| one.get("scenario").is_some() != one.get("no_scenario").is_some()));
    let checked = luosim(&["check", &place]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let ran = luosim(&["run", "--quiet", &place]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stdout));
    let shown =
        |name: &str| text(&luosim(&["run", &Path::new(&place).join(name).display().to_string()]).stdout);
    let unpreserve = shown("ba41-of-posted-v4-on-7.2.kdl");
    assert!(unpreserve.contains("UNPRESERVE_FD") && unpreserve.contains("RETRIEVE_FD"), "{unpreserve}");
    assert!(
        unpreserve.contains("retrieved"),
        "the program that took a file back has retrieved it\n{unpreserve}"
    );
    assert!(shown("ba43-of-posted-v4-on-7.2.kdl").contains("EINVAL"));
}

/// Every pair of kernels and designs that luosim knows: each collision on a kernel that it boots has a scenario; all of them
/// run as they expect, and the model answers what the command said of the collision.
#[test]
fn every_collision_is_shown_by_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("found");
    let place = out.display().to_string();
    let document = json(&["collide", "--format", "json", "--out", &place], 1);
    let collisions = list(&document, "collisions");
    let word = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    // Two revisions are known by their headers alone.
    let bootable = |kernel: &str| !["posted-rfc2", "posted-v5"].contains(&kernel);
    let (shown, hidden): (Vec<&Value>, Vec<&Value>) =
        collisions.iter().partition(|one| bootable(&word(one, "kernel")));
    assert_eq!((shown.len(), hidden.len()), (88, 12));
    assert!(
        hidden.iter().all(|one| word(one, "no_scenario").contains("no release luosim knows")),
        "{hidden:?}"
    );
    let paths: Vec<String> = shown.iter().map(|one| word(one, "scenario")).collect();
    let ran = luosim(&[&["run"], paths.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    let said = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(0), "{said}");
    assert!(said.ends_with("88 passed, 0 failed\n"), "{said}");
    for (one, path) in shown.iter().zip(&paths) {
        // The transcript of a scenario ends in the line with its path.
        let end = said.find(&format!("{path}: ok")).unwrap_or_else(|| panic!("{path} in\n{said}"));
        let call = said[..end].rfind("] ioctl(").map(|at| &said[at..end]).expect("it makes the call");
        let (then, runs) = (word(one, "then"), word(one, "runs"));
        let name = runs.trim_start_matches("LIVEUPDATE_").trim_start_matches("IOCTL_");
        match ["EINVAL", "E2BIG"].into_iter().find(|errno| then.contains(errno)) {
            Some(errno) => {
                let named = call.contains(name) || call.contains(name.trim_start_matches("SESSION_"));
                assert!(call.contains(&format!("= -{errno}\n")) && named, "{then}: {runs}\n{call}");
            }
            None => {
                let refused =
                    call.contains("ENOTTY") || call.contains("E2BIG") || call.contains("needs a structure");
                assert!(then == "it runs" && !refused, "{then}: {runs}\n{call}");
            }
        }
    }
}
