//! The recorded answers of real kernels against the same program under the gate, case by case.
//!
//! The program is run in all its modes; each stage writes its answers to a file of its own. A case that differs fails
//! the test, unless it is in `ACCEPTED`; a case in `ACCEPTED` that agrees fails it too.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::gate::{Linkage, Workshop, is_root, skip};

/// Modes and how many kernels each goes over.
const MODES: [(&str, u32); 5] = [("main", 2), ("danger", 2), ("conc", 2), ("chain", 3), ("none", 3)];

/// Release, stage, case, and why the gate may answer it otherwise.
const ACCEPTED: [(&str, u32, &str, &str); 0] = [];

type Answers = BTreeMap<(u32, String), String>;

fn read_answers(path: &Path, stage: u32, into: &mut Answers) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = common::text(&bytes);
    let cases = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'));
    into.extend(cases.map(|(case, answer)| ((stage, case.to_owned()), answer.to_owned())));
}

fn recorded(kernel: &str) -> Answers {
    let folder = common::root().join("crates/machine/tests/data/oracle");
    let mut answers = Answers::new();
    for stage in 1..=3 {
        read_answers(&folder.join(format!("probe-{kernel}-s{stage}.tsv")), stage, &mut answers);
    }
    answers
}

/// Runs one mode over its kernels.
fn run(workshop: &Workshop, program: &Path, release: &str, (mode, kernels): (&str, u32), into: &mut Answers) {
    let answers = |stage: &str| workshop.path(&format!("{release}-{mode}-{stage}.tsv"));
    let script = workshop.path(&format!("{release}-{mode}.sh"));
    let body = format!(
        "#!/bin/sh\nLUO_PROBE_OUT={} exec {} -s $LUOSIM_GENERATION -m {mode}\n",
        answers("$LUOSIM_GENERATION").display(),
        program.display()
    );
    fs::write(&script, body).expect("room");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (script, number) = (script.display().to_string(), kernels.to_string());
    let ran = workshop.exec(
        None,
        &["-q", "--release", release, "--generations", &number, "--tmpfs", "/tmp", "--", &script],
    );
    assert!(ran.status.success(), "{release} {mode}: {}\n{}{}", ran.status, ran.stdout, ran.stderr);
    for stage in 1..=kernels {
        read_answers(&answers(&stage.to_string()), stage, into);
    }
}

fn compare(release: &str, kernel: &str) {
    if !is_root() {
        skip("the recorded answers are those that root got");
        return;
    }
    // The program's /tmp is a fresh one: it must be somewhere else itself, where others may go.
    let Some(workshop) = Workshop::in_folder(Path::new("/var/tmp")) else { return };
    let linkage = Linkage::Dynamic;
    let program = workshop.compile_from("oracle", "luo_probe", linkage).expect("it compiles");
    let mut got = Answers::new();
    for mode in MODES {
        run(&workshop, &program, release, mode, &mut got);
    }
    let wanted = recorded(kernel);
    assert!(wanted.len() > 500, "{kernel}: the recorded answers are not all there");
    let mut wrong = Vec::new();
    for ((stage, case), want) in &wanted {
        let answer = got.get(&(*stage, case.clone()));
        let accepted = ACCEPTED.iter().any(|(r, s, c, _)| *r == release && s == stage && c == case);
        if (answer == Some(want)) == accepted {
            let answer = answer.map_or("nothing", String::as_str);
            wrong.push(format!(
                "stage {stage} {case}, accepted: {accepted}\n    real {want}\n    gate {answer}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{kernel}: {} of {}\n{}", wrong.len(), wanted.len(), wrong.join("\n"));
}

#[test]
fn answers_of_6_19_are_a_kernels() {
    compare("6.19", "6.19.6");
}

#[test]
fn answers_of_7_1_are_a_kernels() {
    compare("7.1", "7.1.13");
}

#[test]
fn answers_of_7_2_are_a_kernels() {
    compare("7.2", "7.2.13");
}

#[test]
fn answers_of_7_3_are_a_kernels() {
    compare("7.3", "7.3.4");
}
