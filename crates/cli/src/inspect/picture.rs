//! Who owns each page, as rows of cells: what the picture and its text version have in common.
//!
//! Only what is used is in it. A cell is a page, or a power of two of them when the picture would be too long; a
//! row is 64 cells. Rows that lie whole in one owner's range are told once with their number.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use luosim_inspect::report::Report;
use luosim_inspect::{Inspection, Owned, Owner};
use luosim_physmem::{PAGE_SIZE, Pfn};

use super::size;

/// Cells in a row.
pub(crate) const CELLS: u64 = 64;
/// Rows in a picture at most.
const MOST: usize = 256;

type Cells = [Option<Owner>; 64];

/// Rows of one picture line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// First page.
    pub(crate) first: Pfn,
    /// How many rows in memory it stands for.
    pub(crate) repeats: u64,
    pub(crate) cells: Cells,
}

/// The picture.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Pages in a cell.
    pub(crate) pages: u64,
    /// Ascending.
    pub(crate) rows: Vec<Row>,
}

/// What is painted, in the order it is: small things over large ones.
fn painted(inspection: &Inspection) -> Vec<Owned> {
    let areas = inspection.report.scratch.iter().flat_map(|scratch| scratch.areas.iter().enumerate());
    let areas = areas.map(|(index, area)| Owned {
        pfn: area.at.0.pfn(),
        pages: area.bytes / PAGE_SIZE,
        owner: Owner::Scratch(index),
    });
    let most = inspection.memory_size().div_ceil(PAGE_SIZE);
    let inside = areas.chain(inspection.owned.iter().copied()).filter_map(|mut run| {
        run.pages = run.pages.min(most.saturating_sub(run.pfn.raw()));
        (run.pages > 0).then_some(run)
    });
    inside.collect()
}

impl Picture {
    pub(crate) fn new(inspection: &Inspection) -> Self {
        let runs = painted(inspection);
        let total: u64 = runs.iter().fold(0, |sum, run| sum.saturating_add(run.pages));
        // A start from which few steps are left.
        let mut pages = (total / (CELLS << 16)).max(1).next_power_of_two();
        loop {
            let rows = rows(&runs, pages);
            if rows.len() <= MOST || pages >= 1 << 40 {
                return Self { pages, rows };
            }
            pages *= 2;
        }
    }

    /// The text version: a letter a cell, and a legend.
    pub(crate) fn text(&self, report: &Report) -> String {
        let mut out = format!("a letter is {}\n", size(self.pages * PAGE_SIZE));
        let mut letters: BTreeMap<char, &'static str> = BTreeMap::new();
        let mut end = None;
        for row in &self.rows {
            if end.is_some_and(|end| end != row.first.raw()) {
                out.push_str("    ...\n");
            }
            let cells: String =
                row.cells.iter().map(|cell| cell.map_or('-', |owner| letter(owner, &mut letters))).collect();
            let more = match row.repeats {
                1 => String::new(),
                repeats => format!("  and so on for {}", size(repeats * self.row_bytes())),
            };
            let _ = writeln!(out, "{:>#14x} {cells}{more}", row.first.addr().raw());
            end = row.first.raw().checked_add(row.repeats * CELLS * self.pages);
        }
        for (letter, what) in letters {
            let _ = writeln!(out, "  {letter} {what}");
        }
        for session in
            report.luo.iter().flat_map(|luo| &luo.sessions).filter(|session| !session.files.is_empty())
        {
            let _ = writeln!(
                out,
                "  {} contents of session \"{}\"",
                contents_letter(session.index),
                session.name
            );
        }
        out
    }

    /// Bytes in a row.
    pub(crate) fn row_bytes(&self) -> u64 {
        CELLS * self.pages * PAGE_SIZE
    }
}

/// The rows for cells of `pages` pages.
fn rows(runs: &[Owned], pages: u64) -> Vec<Row> {
    let width = CELLS * pages;
    let mut partial: BTreeMap<u64, Cells> = BTreeMap::new();
    let mut solid: Vec<(u64, u64, Owner)> = Vec::new();
    for run in runs {
        let (from, to) = (run.pfn.raw(), run.pfn.raw() + run.pages);
        let (first, last) = (from.div_ceil(width), to / width);
        if first < last {
            solid.push((first, last, run.owner));
        }
        for row in [from / width, last] {
            if !(first..last).contains(&row) {
                paint(&mut partial, row, from, to, pages, run.owner);
            }
        }
    }
    join(partial, &solid, width)
}

/// Paints the part of a run that is in `row`. What is small hides what is large: scratch is painted first.
fn paint(partial: &mut BTreeMap<u64, Cells>, row: u64, from: u64, to: u64, pages: u64, owner: Owner) {
    let start = row * CELLS * pages;
    let (from, to) = (from.max(start), to.min(start + CELLS * pages));
    if from >= to {
        return;
    }
    let cells = partial.entry(row).or_insert([None; 64]);
    for cell in (from - start) / pages..=(to - 1 - start) / pages {
        cells[usize::try_from(cell).expect("at most 64")] = Some(owner);
    }
}

/// Puts whole rows between and behind the partial ones.
fn join(mut partial: BTreeMap<u64, Cells>, solid: &[(u64, u64, Owner)], width: u64) -> Vec<Row> {
    let mut whole = Vec::new();
    for (first, last, owner) in solid {
        let mut at = *first;
        for (row, cells) in partial.range_mut(first..last) {
            whole.push((at, *row, *owner));
            for cell in cells.iter_mut().filter(|cell| cell.is_none()) {
                *cell = Some(*owner);
            }
            at = row + 1;
        }
        whole.push((at, *last, *owner));
    }
    let whole = whole.into_iter().filter(|(from, to, _)| from < to);
    let mut rows: Vec<Row> = whole
        .map(|(from, to, owner)| (from, to - from, [Some(owner); 64]))
        .chain(partial.into_iter().map(|(row, cells)| (row, 1, cells)))
        .map(|(row, repeats, cells)| Row { first: Pfn::new(row * width), repeats, cells })
        .collect();
    rows.sort_by_key(|row| row.first);
    // Where two ranges overlap, a row may be there twice.
    rows.dedup_by_key(|row| row.first);
    rows
}

/// What kind of owner it is: a letter and words.
pub(crate) fn kind(owner: Owner) -> (char, &'static str) {
    match owner {
        Owner::Tracker => ('T', "memory map (not preserved)"),
        Owner::ScratchArray => ('A', "scratch array"),
        Owner::Scratch(_) => ('.', "scratch"),
        Owner::Root => ('R', "root tree"),
        Owner::Subtree(_) => ('F', "blobs of subtrees"),
        Owner::Sessions => ('S', "session records"),
        Owner::Files(_) => ('L', "file records"),
        Owner::Flbs => ('B', "file-lifecycle-bound objects"),
        Owner::FileState(..) => ('M', "states of files"),
        Owner::Table(..) => ('V', "folio tables"),
        Owner::Contents(..) => ('c', "contents of files"),
        Owner::ReserveMem(_) => ('N', "reserve_mem"),
        Owner::KhoTest => ('K', "the test module's folios"),
        Owner::Unowned => ('?', "preserved, and nothing leads to it"),
    }
}

fn contents_letter(session: usize) -> char {
    char::from(b'a' + u8::try_from(session % 26).expect("below 26"))
}

fn letter(owner: Owner, letters: &mut BTreeMap<char, &'static str>) -> char {
    if let Owner::Contents(session, _) = owner {
        return contents_letter(session);
    }
    let (letter, what) = kind(owner);
    letters.insert(letter, what);
    letter
}
