//! The model against recorded answers of real kernels, case by case.
//!
//! The probe makes the calls that a program made on Linux 6.19.6, 7.1.13, 7.2.13 and 7.3.4 (`data/oracle`), in its order and with
//! its values, on the model of the same release, and compares every recorded answer. A case that differs fails
//! the test with both answers; so does one that is neither answered nor listed in `LEFT_OUT`.
#![expect(clippy::print_stdout, reason = "the counts are part of the result")]

mod probe;

use std::collections::BTreeMap;

use luosim_abi::release::ReleaseId;

use probe::Probe;

/// Recorded lines that no answer of the model is compared with, and why.
const LEFT_OUT: [(&str, &str); 1] =
    [("pub.sess2.unretrieved-left", "a remark that the program prints, not an answer of the kernel")];

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

/// Answers of the model, by case.
fn answers(release: ReleaseId) -> BTreeMap<String, String> {
    let modes = [Probe::main, Probe::chain, Probe::danger, Probe::conc, Probe::none];
    modes.into_iter().flat_map(|mode| mode(release)).collect()
}

fn compare(release: ReleaseId, kernel: &str) {
    let (recorded, answers) = (recorded(kernel), answers(release));
    let (mut missing, mut differ, mut covered) = (Vec::new(), Vec::new(), 0);
    for (case, want) in &recorded {
        match answers.get(case) {
            Some(got) => {
                covered += 1;
                if got != want {
                    differ.push(format!("{case}\n    real  {want}\n    model {got}"));
                }
            }
            None if LEFT_OUT.iter().any(|(left, _)| left == case) => {}
            None => missing.push(case.as_str()),
        }
    }
    let (total, agree) = (recorded.len(), covered - differ.len());
    println!("{kernel}: {total} recorded, {covered} covered, {agree} agree, {} made besides", {
        answers.len() - covered
    });
    assert!(missing.is_empty(), "{kernel}: not answered: {}", missing.join(", "));
    assert!(differ.is_empty(), "{kernel}: {} differ\n{}", differ.len(), differ.join("\n"));
    assert!(covered > 500, "{kernel}: the recorded answers are not all there");
}

#[test]
fn linux_7_3_4() {
    compare(ReleaseId::V7_3, "7.3.4");
}

#[test]
fn linux_7_2_13() {
    compare(ReleaseId::V7_2, "7.2.13");
}

#[test]
fn linux_7_1_13() {
    compare(ReleaseId::V7_1, "7.1.13");
}

#[test]
fn linux_6_19_6() {
    compare(ReleaseId::V6_19, "6.19.6");
}

/// The same calls give the same answers, in a second run too.
#[test]
fn answers_are_deterministic() {
    for release in [ReleaseId::V6_19, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3] {
        assert_eq!(answers(release), answers(release));
    }
}
