//! The command as a user calls it: exit codes, messages, the forms of output.

mod common;

use common::{luosim, root, text};

fn scenario(body: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("case.kdl");
    std::fs::write(&path, body).expect("writable");
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn the_readme_command_prints_transcript_and_ledger() {
    let output = luosim(&["run", "sim-scenarios/basics/vm-live-update.kdl"]);
    assert_eq!(output.status.code(), Some(0));
    let text = text(&output.stdout);
    for part in [
        "== kernel 1",
        "because memfd \"guest-ram\"",
        "== kexec from 7.3 to 7.3",
        "carried: 2 sessions, 3 files",
        "== ledger",
        "3 finished",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let (_folder, wrong) = scenario("scenario \"x\"\nprocess p {\n    open \"/dev/nothing\" as=a\n}\n");
    assert_eq!(luosim(&["run", &wrong]).status.code(), Some(1));
    let (_folder, bad) = scenario("scenario \"x\"\nprocess p {\n    opn \"/dev/null\" as=a\n}\n");
    assert_eq!(luosim(&["run", &bad]).status.code(), Some(2));
    assert_eq!(luosim(&["check", &bad]).status.code(), Some(2));
    assert_eq!(luosim(&["run", "no-such-file.kdl"]).status.code(), Some(2));
    assert_eq!(luosim(&["run", "--release", "5.4", &bad]).status.code(), Some(2));
    assert_eq!(luosim(&["run", "sim-scenarios/devices/busy.kdl"]).status.code(), Some(0));
    // The highest code counts, wherever it stands. Code 3 is tested in the command itself: no input leads there.
    let good = "sim-scenarios/devices/busy.kdl";
    assert_eq!(luosim(&["run", &bad, &wrong, good]).status.code(), Some(2));
    assert_eq!(luosim(&["run", &wrong, good]).status.code(), Some(1));
}

#[test]
fn output_that_cannot_be_written_is_bad_input_and_a_lost_message_changes_nothing() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
    let command = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_luosim"));
        command.current_dir(root());
        command
    };
    let output = command().args(["list"]).stdout(full()).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("standard output cannot be written"));
    let output = command().args(["run", "no-such-file.kdl"]).stderr(full()).output();
    assert_eq!(output.expect("the command starts").status.code(), Some(2));
}

#[test]
fn a_second_run_gives_the_same_report_and_the_same_memory() {
    let run = || {
        let folder = tempfile::tempdir().expect("a folder");
        let dump = folder.path().display().to_string();
        let files = ["sim-scenarios/basics/vm-live-update.kdl", "sim-scenarios/releases/three-kernels.kdl"];
        let output = luosim(&["run", "--format", "json", "--dump-handover", &dump, files[0], files[1]]);
        assert_eq!(output.status.code(), Some(0));
        let memory = |kexec: &str| std::fs::read(folder.path().join(kexec).join("ram.bin")).expect("dumped");
        let kexecs = ["vm-live-update/kexec-1", "three-kernels/kexec-1", "three-kernels/kexec-2"];
        (output.stdout, kexecs.map(memory))
    };
    let (first, second) = (run(), run());
    assert_eq!(text(&first.0), text(&second.0));
    assert!(first.1 == second.1, "the memory that crossed differs");
}

#[test]
fn a_failed_expectation_is_named_with_its_line() {
    let (_folder, wrong) = scenario("scenario \"x\"\n\nprocess p {\n    open \"/dev/nothing\" as=a\n}\n");
    for mode in ["--quiet", "--explain", "--verbose"] {
        let shown = text(&luosim(&["run", mode, &wrong]).stdout);
        assert!(shown.contains("case.kdl:4: `open` failed with ENOENT"), "{mode}: {shown}");
    }
}

#[test]
fn a_wrong_scenario_gets_a_diagnostic_that_points_at_the_line() {
    let body = "scenario \"x\"\nprocess p {\n    open \"/dev/liveupdate\" as=dev\n    create-session dev \"vm-1\" as=s\n    retrieve-session dev \"vm1\" as=t\n}\n";
    let (_folder, path) = scenario(body);
    let output = luosim(&["check", &path]);
    let shown = text(&output.stderr);
    assert!(shown.contains("unknown session `vm1`") && shown.contains("did you mean `vm-1`?"), "{shown}");
    assert!(shown.contains("case.kdl:5:5"), "{shown}");
}

#[test]
fn json_is_one_versioned_document_a_line() {
    let output = luosim(&[
        "run",
        "--format",
        "json",
        "sim-scenarios/sessions/names.kdl",
        "sim-scenarios/files/token-reused.kdl",
    ]);
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(line.starts_with("{\"version\":1,\"scenario\":"), "{line}");
    }
}

#[test]
fn a_dump_at_a_kexec_boots_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let dump = folder.path().display().to_string();
    let output =
        luosim(&["run", "--quiet", "--dump-handover", &dump, "sim-scenarios/basics/vm-live-update.kdl"]);
    assert_eq!(output.status.code(), Some(0));
    let image = folder.path().join("vm-live-update/kexec-1");
    let length = std::fs::metadata(image.join("ram.bin")).expect("written").len();
    assert_eq!(length, 64 << 20);
    let scenario = folder.path().join("again.kdl");
    let text = "scenario again\nboot-image \"vm-live-update/kexec-1\" release=\"7.3\"\nexpect-boot \"handover\"\n\
                process p {\n    open \"/dev/liveupdate\" as=dev\n    retrieve-session dev \"vm-1\" as=s\n}\n";
    std::fs::write(&scenario, text).expect("written");
    let output = luosim(&["run", &scenario.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
