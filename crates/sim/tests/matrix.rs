//! The matrix of the model against the one that was measured on real kernels, cell by cell (`data/oracle/cross.tsv`).
//!
//! A recorded cell says whether user space was reached, what opening and retrieving gave, each file as it came back, and
//! the messages of the new kernel. Messages of the module `test_kho`, which the model does not have, are left out, and
//! addresses are not compared.

use std::path::Path;

use luosim_abi::release::{RELEASES, ReleaseId};
use luosim_sim::matrix::{Cell, Verdict, all, cell, run};

/// A cell in the words of the recording.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    userspace: bool,
    results: String,
    messages: Vec<String>,
}

/// The text without the address in it.
fn comparable(message: &str) -> Option<String> {
    let relevant = ["KHO: ", "luo: ", "liveupdate test: "].iter().any(|prefix| message.starts_with(prefix));
    let text = match (message.find("(0x"), message.find(") is")) {
        (Some(from), Some(to)) => format!("{}(ADDRESS{}", &message[..from], &message[to..]),
        _ => message.to_owned(),
    };
    relevant.then_some(text)
}

fn recorded() -> Vec<(ReleaseId, ReleaseId, Seen)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle/cross.tsv");
    let text = std::fs::read_to_string(path).expect("the recording is there");
    let id =
        |name: &str| ReleaseId::from_name(name).unwrap_or_else(|| panic!("{name} is a known point release"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let messages = cells[4].split(" | ").filter_map(comparable).collect();
        let seen = Seen { userspace: cells[2] == "yes", results: cells[3].to_owned(), messages };
        (id(cells[0]), id(cells[1]), seen)
    };
    text.lines().skip(1).map(row).collect()
}

fn words(errno: &str) -> &str {
    match errno {
        "ENOENT" => "No such file or directory",
        "EIO" => "Input/output error",
        other => other,
    }
}

/// What the recorded program would have printed.
fn seen(cell: &Cell) -> Seen {
    let mut results: Vec<String> = Vec::new();
    let index = |session: &str| session.trim_start_matches('x').to_owned();
    results.extend(cell.files.iter().map(|file| format!("pres {}/{} ok", index(file.session), file.token)));
    results.extend(cell.open.map(|open| format!("stage2 open {}", words(open))));
    for (session, result) in &cell.sessions {
        if *result != "ok" {
            results.push(format!("retrieve {session} {}", words(result)));
        }
        for file in cell.files.iter().filter(|file| file.session == *session) {
            if let Some(found) = &file.found {
                results.push(format!(
                    "file {}/{} ok {} size {} pos {} seals {:#x}",
                    index(session),
                    file.token,
                    found.text,
                    found.size,
                    found.pos,
                    found.seals
                ));
            }
        }
    }
    let messages =
        cell.log.iter().filter_map(|line| comparable(line)).filter(|line| !line.contains("scratch"));
    Seen {
        userspace: cell.verdict != Verdict::Panics,
        results: results.join("; "),
        messages: messages.collect(),
    }
}

#[test]
fn every_measured_cell_is_the_models() {
    let rows = recorded();
    for (from, to, want) in &rows {
        let got = seen(&cell(*from, *to).expect("the host has room"));
        assert_eq!(got, *want, "from {} to {}", from.release().point, to.release().point);
    }
    assert_eq!(rows.len(), 18, "the recording is whole");
}

/// What no real kernel was measured for follows from the formats.
#[test]
fn every_pair_ends_as_its_formats_say() {
    let cells = run(&all(), &all()).expect("the host has room");
    assert_eq!(cells.len(), RELEASES.len() * RELEASES.len());
    for cell in cells {
        let row = |name| ReleaseId::from_name(name).expect("a release").release();
        let (old, new) = (row(cell.from), row(cell.to));
        let want = match (old.luo, new.luo) {
            _ if old.kho != new.kho && new.luo.is_some() => Verdict::Fresh,
            _ if old.kho != new.kho => Verdict::NoDevice,
            (None, _) => Verdict::KhoOnly,
            (Some(_), None) => Verdict::Ignored,
            (Some(_), Some(_)) if new.flb && !old.flb => Verdict::Panics,
            (Some(_), Some(_)) => Verdict::Works,
        };
        assert_eq!(cell.verdict, want, "from {} to {}", cell.from, cell.to);
        let carried = old.kho == new.kho && want != Verdict::Panics;
        assert_eq!(cell.reservation, carried, "the reservation from {} to {}", cell.from, cell.to);
        let lost = cell.files.iter().filter(|file| file.lost.is_some()).count();
        let expected = if want == Verdict::Works { 0 } else { cell.files.len() };
        assert_eq!(lost, expected, "every loss has a cause, from {} to {}", cell.from, cell.to);
    }
}

#[test]
fn the_same_pair_gives_the_same_cell() {
    for (from, to) in [(ReleaseId::V6_19, ReleaseId::V7_0), (ReleaseId::V7_2, ReleaseId::V7_3)] {
        assert_eq!(cell(from, to).expect("room"), cell(from, to).expect("room"));
    }
}
