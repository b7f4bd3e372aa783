//! The model against recorded answers of real kernels, case by case.
//!
//! The probe makes the calls that a program made on Linux 6.19.6 and 7.3.4 (`data/oracle`), on the model of the
//! same release, and compares every published answer that it covers. Cases about the test machine itself
//! (device numbers, kernel messages) are left out. A case that differs fails the test with both answers.
#![expect(clippy::print_stdout, reason = "the counts are part of the result")]

mod probe;

use std::collections::BTreeMap;

use luosim_abi::release::ReleaseId;

use probe::Probe;

fn recorded(kernel: &str) -> BTreeMap<String, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/oracle");
    (1..=3)
        .flat_map(|stage| {
            let path = format!("{folder}/probe-{kernel}-s{stage}.tsv");
            let text = std::fs::read_to_string(path).expect("the recorded answers are there");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t').map(|(case, answer)| (case.to_owned(), answer.to_owned())))
        .collect()
}

fn compare(release: ReleaseId, kernel: &str, least: usize) {
    let recorded = recorded(kernel);
    let mut answers = BTreeMap::new();
    for mode in [Probe::main, Probe::chain, Probe::danger, Probe::none] {
        answers.extend(mode(release));
    }
    let covered: Vec<_> =
        recorded.iter().filter_map(|(case, want)| Some((case, want, answers.get(case)?))).collect();
    let differ: Vec<String> = covered
        .iter()
        .filter(|(_, want, got)| want != got)
        .map(|(case, want, got)| format!("{case}\n    real  {want}\n    model {got}"))
        .collect();
    println!(
        "{kernel}: {} recorded, {} covered, {} agree",
        recorded.len(),
        covered.len(),
        covered.len() - differ.len()
    );
    assert!(covered.len() >= least, "{kernel}: only {} cases are covered", covered.len());
    assert!(
        differ.is_empty(),
        "{kernel}: {} of {} differ\n{}",
        differ.len(),
        covered.len(),
        differ.join("\n")
    );
}

#[test]
fn linux_7_3_4() {
    compare(ReleaseId::V7_3, "7.3.4", 330);
}

#[test]
fn linux_6_19_6() {
    compare(ReleaseId::V6_19, "6.19.6", 330);
}
