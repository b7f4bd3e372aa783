//! Corrupted handovers: the model against what real kernels did.
//!
//! Each row of `data/oracle/corrupt-*.tsv` names one change to the recording `small`. The change is made from
//! its name ([`mutate`]), a model kernel of the same release is booted on it, and everything is opened, retrieved
//! and finished as the recorded program did ([`session`]). Compared are: user space or panic, every result, and the
//! kernel messages by meaning (addresses, traces and the messages of test modules left out).
#![expect(clippy::print_stdout, reason = "the counts are part of the result")]

mod mutate;
mod session;

use std::path::{Path, PathBuf};

use luosim_abi::release::ReleaseId;
use luosim_machine::{BootOptions, Machine, Outcome};
use luosim_sim::golden::{Manifest, load};

use mutate::Target;

/// Cases whose recorded answer hangs on something that is not in the recording.
const UNSTABLE: [&str; 1] = ["memfd-data-0"];

/// What a kernel did.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    userspace: bool,
    results: String,
    messages: Vec<String>,
}

struct Row {
    case: String,
    answer: Answer,
}

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// Messages that both worlds have: those of KHO, LUO and the memfd handler, and the panic. A module of the recorded
/// kernels restores a subtree of its own; traces name functions that the model does not have.
fn comparable(line: &str) -> Option<String> {
    let ours = ["KHO: ", "luo: ", "memfd_luo: ", "Kernel panic"].iter().any(|start| line.starts_with(start));
    if !ours || line.starts_with("KHO: scratch areas") {
        return None;
    }
    let words: Vec<&str> = line.split(' ').collect();
    let text = words.iter().enumerate().map(|(at, word)| {
        let address = at > 0 && words[at - 1] == "address:" || word.starts_with("(0x");
        if address || *word == "(<addr>)" { "ADDR" } else { word }
    });
    Some(text.collect::<Vec<_>>().join(" "))
}

fn rows(kernel: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(data(&format!("oracle/corrupt-{kernel}.tsv"))).expect("recorded");
    text.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let messages = cells[5].split(" | ").filter_map(comparable).collect();
            let answer =
                Answer { userspace: cells[3] == "userspace", results: cells[4].to_owned(), messages };
            let case = cells[0].strip_prefix("pub.corrupt.").expect("the group").to_owned();
            Row { case, answer }
        })
        .collect()
}

/// Boots the release on the recording with the change made.
fn ask(kernel: &str, release: ReleaseId, case: &str) -> Answer {
    let folder = data(&format!("golden/{kernel}/small"));
    let manifest = Manifest::read(&folder).expect("a manifest");
    let mut memory = load(&folder, &manifest).expect("its memory");
    let params = manifest.params().expect("checked when read");
    Target::new(&mut memory, params, release).apply(case);
    let mut machine = Machine::new(memory);
    let report = machine.boot_on_handover(params, release, &BootOptions::default());
    if let Outcome::Panicked { .. } = report.outcome {
        let messages = report.log.lines.iter().filter_map(|line| comparable(&line.text)).collect();
        return Answer { userspace: false, results: String::new(), messages };
    }
    let results = session::use_everything(&mut machine, &manifest);
    let kernel = machine.kernel().expect("it runs");
    let messages = kernel.log().lines.iter().filter_map(|line| comparable(&line.text)).collect();
    Answer { userspace: true, results, messages }
}

fn compare(kernel: &str, release: ReleaseId) {
    let rows = rows(kernel);
    let mut differ = Vec::new();
    let mut covered = 0;
    for row in rows.iter().filter(|row| !UNSTABLE.contains(&row.case.as_str())) {
        covered += 1;
        let answer = ask(kernel, release, &row.case);
        if answer != row.answer {
            differ.push(format!("{}\n  real  {:?}\n  model {answer:?}", row.case, row.answer));
        }
    }
    println!("{kernel}: {} recorded, {covered} covered, {} agree", rows.len(), covered - differ.len());
    assert!(differ.is_empty(), "{kernel}: {} differ\n{}", differ.len(), differ.join("\n"));
    assert!(covered > 25, "{kernel}: the recorded rows are not all there");
}

#[test]
fn linux_7_3_4() {
    compare("7.3.4", ReleaseId::V7_3);
}

#[test]
fn linux_6_19_6() {
    compare("6.19.6", ReleaseId::V6_19);
}

#[test]
fn linux_7_1_13() {
    compare("7.1.13", ReleaseId::V7_1);
}

/// The unstable cases have no expected answer, but they must have one.
#[test]
fn unstable_cases_are_survived() {
    let kernels = [("7.3.4", ReleaseId::V7_3), ("7.1.13", ReleaseId::V7_1), ("6.19.6", ReleaseId::V6_19)];
    for (kernel, release) in kernels {
        for case in UNSTABLE {
            assert!(ask(kernel, release, case).results.ends_with("end"), "{kernel} {case}");
        }
    }
}
