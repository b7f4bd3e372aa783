//! What people read, kept as snapshots: help, transcripts, lists, summaries, and diagnostics of wrong scenarios.
//!
//! After a change on purpose: `INSTA_UPDATE=always cargo test -p luosim --test snapshots`, and look at the difference.

mod common;

use std::path::Path;

use common::{luosim, luosim_in, root, text, workshop};

/// Compares with the snapshot `name`: the exit code, what went to standard error, what to standard output.
fn compare(name: &str, output: &std::process::Output) {
    let code = output.status.code().expect("it ends");
    let mut shown = format!("exit code {code}\n");
    for (title, bytes) in [("standard error", &output.stderr), ("standard output", &output.stdout)] {
        if !bytes.is_empty() {
            shown += &format!("---- {title}\n{}", text(bytes));
        }
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

const COMMANDS: [&str; 12] = [
    "run",
    "check",
    "list",
    "releases",
    "matrix",
    "explore",
    "exec",
    "inspect",
    "ctl",
    "preflight",
    "abi",
    "doctor",
];

#[test]
fn help_texts() {
    compare("help", &luosim(&["--help"]));
    compare("help-short", &luosim(&["-h"]));
    for command in COMMANDS {
        compare(&format!("help-{command}"), &luosim(&[command, "--help"]));
    }
}

#[test]
fn every_subcommand_has_examples_and_exit_codes_in_its_help() {
    for command in COMMANDS {
        for option in ["-h", "--help"] {
            let help = text(&luosim(&[command, option]).stdout);
            assert!(help.contains(&format!("Examples:\n  luosim {command}")), "{help}");
            assert!(help.contains("Exit codes: "), "{help}");
        }
    }
}

#[test]
fn transcripts() {
    for (name, file) in [
        ("transcript-vm-live-update", "basics/vm-live-update.kdl"),
        ("transcript-empty-trailing-block", "sessions/empty-trailing-block.kdl"),
        ("transcript-freeze-refused", "handlers/freeze-refused.kdl"),
        ("transcript-recorded-7.3.4", "recorded/linux-7.3.4.kdl"),
    ] {
        compare(name, &luosim(&["run", &format!("sim-scenarios/{file}")]));
    }
    compare("transcript-verbose", &luosim(&["run", "--verbose", "sim-scenarios/releases/new-to-old.kdl"]));
    compare("transcript-explain", &luosim(&["run", "--explain", "sim-scenarios/sessions/names.kdl"]));
}

#[test]
fn inspections() {
    let recorded = |kernel: &str| format!("crates/sim/tests/data/golden/{kernel}/small");
    for kernel in ["6.19.6", "7.1.13", "7.3.4"] {
        compare(&format!("inspect-{kernel}"), &luosim(&["inspect", "--digest", &recorded(kernel)]));
    }
    let (old, new) = (recorded("6.19.6"), recorded("7.3.4"));
    compare("inspect-raw", &luosim(&["inspect", "--session", "alpha", &format!("{new}/ram.zst")]));
    compare("inspect-json", &luosim(&["inspect", "--format", "json", &new]));
    compare("inspect-map", &luosim(&["inspect", "--map", "-", &new]));
    compare("inspect-diff", &luosim(&["inspect", "--diff", &old, &new]));
    compare(
        "inspect-diff-addresses",
        &luosim(&["inspect", "--diff", "--format", "json", "--addresses", &old, &new]),
    );
    compare("inspect-no-memory", &luosim(&["inspect", "Cargo.toml"]));
    let folder = tempfile::tempdir().expect("a folder");
    luosim_in(folder.path(), &["inspect", "--map", "map.svg", &root().join(&old).display().to_string()]);
    let picture = std::fs::read_to_string(folder.path().join("map.svg")).expect("a picture");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("inspect-svg", picture));
}

#[test]
fn preflights() {
    let kernel = "crates/preflight/tests/data/kernel.xz";
    compare("preflight-file", &luosim(&["preflight", "7.1", kernel]));
    compare("preflight-all", &luosim(&["preflight", kernel, "7.3"]));
    compare("preflight-panic", &luosim(&["preflight", "6.19", "7.0"]));
    compare("preflight-part", &luosim(&["preflight", "7.0", "6.18"]));
    compare("preflight-ignored", &luosim(&["preflight", "7.0", "6.19"]));
    compare("preflight-json", &luosim(&["preflight", "--format", "json", "6.18", kernel]));
    compare("preflight-bad", &luosim(&["preflight", "6.20", "Cargo.toml"]));
}

/// A folder of four scenarios that no change of the suite touches: two good, one that fails, one that does not read.
fn four() -> tempfile::TempDir {
    let folder = workshop();
    let put = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(path, text).expect("writable");
    };
    put("four/a.kdl", "scenario \"a\" about=\"It is empty\"\n");
    put(
        "four/b/long-name.kdl",
        "scenario \"b\" about=\"One call\"\nprocess p {\n    memfd-create \"m\" as=m\n}\n",
    );
    put("four/c.kdl", "scenario \"c\"\nprocess p {\n    memfd-create \"m\" as=m error=\"EPERM\"\n}\n");
    put("four/d.kdl", "scenario \"d\"\nproces p {\n}\n");
    put("four/notes.txt", "no scenario");
    folder
}

#[test]
fn lists_and_summaries() {
    let folder = four();
    let run = |arguments: &[&str]| luosim_in(folder.path(), arguments);
    compare("list", &run(&["list", "four"]));
    compare("list-good", &run(&["list", "four/a.kdl", "four/b"]));
    compare("check-several", &run(&["check", "four"]));
    compare("run-several", &run(&["run", "four"]));
    compare("run-several-quiet", &run(&["run", "--quiet", "four/a.kdl", "four/b", "four/c.kdl"]));
    compare("run-several-json", &run(&["run", "--format", "json", "four/b", "four/c.kdl"]));
}

#[test]
fn bad_input() {
    let folder = four();
    std::fs::create_dir(folder.path().join("empty")).expect("writable");
    let run = |arguments: &[&str]| luosim_in(folder.path(), arguments);
    compare("no-command", &run(&[]));
    compare("no-file", &run(&["run"]));
    compare("missing-file", &run(&["run", "four/a.kdl", "four/nothing.kdl"]));
    compare("empty-folder", &run(&["check", "empty"]));
    compare("unknown-release", &run(&["run", "--release", "5.4", "four/a.kdl"]));
    compare("unknown-option", &run(&["run", "--explian", "four/a.kdl"]));
    compare("bad-transcript", &run(&["run", "--transcript", "no/such/folder", "four/a.kdl"]));
}

#[test]
fn wrong_scenarios() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut count = 0;
    let mut names: Vec<_> = std::fs::read_dir(tests.join("wrong"))
        .expect("wrong scenarios")
        .map(|entry| {
            entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    for name in names {
        let path = format!("wrong/{name}.kdl");
        let output = luosim_in(&tests, &["check", &path]);
        let document = text(&std::fs::read(tests.join(&path)).expect("readable"));
        if name != "not-utf8" {
            // The line that is wrong says so, and the diagnostic points at it.
            let line =
                1 + document.lines().position(|line| line.ends_with("// wrong")).expect("a wrong line");
            let shown = text(&output.stderr);
            assert!(shown.contains(&format!("[{path}:{line}:")), "{path}:{line} in\n{shown}");
        }
        assert_eq!(output.status.code(), Some(2), "{path}");
        compare(&format!("wrong-{name}"), &output);
        count += 1;
    }
    assert_eq!(count, 32);
}
