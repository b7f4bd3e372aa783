//! Every scenario of the suite, in the model: expectations hold, and a second run is the same to the letter.

use std::path::{Path, PathBuf};

use luosim_scenario::{parse, print};
use luosim_sim::{Options, Report, run};

fn suite() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sim-scenarios");
    let mut files = Vec::new();
    add_below(&root, &mut files);
    files.sort();
    files
}

/// A theme is a folder, or a folder of folders.
fn add_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the suite is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            add_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn run_file(path: &Path) -> Report {
    let text = std::fs::read_to_string(path).expect("readable");
    let scenario = parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
    let base = path.parent().expect("a file has a folder").to_path_buf();
    run(&scenario, &Options { base, ..Options::default() })
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_scenario_goes_as_it_says() {
    let files = suite();
    assert!(files.len() >= 20, "only {} scenarios", files.len());
    for path in files {
        let report = run_file(&path);
        assert!(report.passed(), "{}: {:#?}", path.display(), report.records);
    }
}

#[test]
fn a_second_run_is_the_same() {
    for path in suite().iter().filter(|path| !path.to_string_lossy().contains("recorded")) {
        assert_eq!(run_file(path), run_file(path), "{}", path.display());
    }
}

#[test]
fn every_scenario_starts_with_a_comment_and_says_what_it_is_about() {
    for path in suite() {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("// "), "{}", path.display());
        assert!(!parse(&text).expect("checked elsewhere").about.is_empty(), "{}", path.display());
    }
}

#[test]
fn printing_a_scenario_gives_it_back() {
    for path in suite() {
        let scenario = parse(&std::fs::read_to_string(&path).expect("readable")).expect("checked elsewhere");
        let printed = print(&scenario);
        let again = parse(&printed).unwrap_or_else(|problems| panic!("{printed}\n{problems:?}"));
        assert_eq!(again, scenario, "{}", path.display());
    }
}

#[test]
fn a_failed_expectation_is_reported_where_it_stands() {
    let text =
        "scenario \"x\"\nboot \"7.3\"\nprocess p {\n    open \"/dev/liveupdate\" as=d\n    finish d\n}\n";
    let report = run(&parse(text).expect("good"), &Options::default()).expect("runs");
    assert_eq!(report.failures, 1);
    let found = report.records.iter().find_map(|record| match record {
        luosim_sim::Record::Failed { at, message } => Some((*at, message.clone())),
        _ => None,
    });
    let (at, message) = found.expect("a failure");
    assert_eq!(&text[at..at + 6], "finish");
    assert!(message.contains("EINVAL"), "{message}");
}

/// Phases of a kexec are as long as the machine says, and devices write in each as much as there is time; with none, a device that never
/// stops has no time to write between the kernels.
#[test]
fn a_phase_lasts_as_long_as_the_machine_says() {
    let path = suite().into_iter().find(|path| path.ends_with("dma-through-the-kexec.kdl")).expect("there");
    let text = std::fs::read_to_string(path).expect("readable");
    for (written, ticks) in
        [("", 256), (" phase-ticks=0", 0), (" phase-ticks=40", 40), (" phase-ticks=9000", 9000)]
    {
        let machine = format!("machine memory=\"64MiB\" profile=\"target\"{written}");
        let text = text.replace("machine memory=\"64MiB\" profile=\"target\"", &machine);
        // What the scenario expects of each phase holds for its own.
        let text: String =
            text.lines().filter(|line| !line.contains("in=")).map(|line| format!("{line}\n")).collect();
        let report = run(&parse(&text).expect("good"), &Options::default()).expect("room");
        assert!(report.passed(), "{written}: {:#?}", report.records);
        for phase in ["jump", "early-boot", "boot", "user-space"] {
            let second = if phase == "jump" { 1 } else { 2 };
            let line = report.timeline.iter().find(|line| line.phase == phase && line.kernel == second);
            let found = line.map_or((0, 0), |line| (line.nanoseconds / 100, line.written));
            let least = if ticks > 1 { 64 * (ticks - ticks / 64 - 2) } else { 0 };
            assert!(
                found.0 == ticks && (least..=64 * ticks).contains(&found.1),
                "{written}, {phase}: {found:?}"
            );
        }
    }
}
