//! The picture of who owns each page, as a standalone SVG. The same report gives the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use luosim_inspect::Owner;
use luosim_inspect::report::Report;
use luosim_physmem::PAGE_SIZE;

use super::picture::{CELLS, Picture, Row, kind};
use super::size;

const CELL: u64 = 11;
const LEFT: u64 = 130;
const TOP: u64 = 44;

/// Colours of session contents, in turn; apart from those of structures, and told apart without colour vision by
/// their lightness.
const CONTENTS: [&str; 6] = ["#4477aa", "#66ccee", "#228833", "#99bb55", "#aa3377", "#dd99bb"];

fn colour(owner: Owner) -> &'static str {
    match owner {
        Owner::Tracker => "#777777",
        Owner::ScratchArray => "#999933",
        Owner::Scratch(_) => "#e8e8e0",
        Owner::Root | Owner::Subtree(_) => "#cc3311",
        Owner::Sessions | Owner::Files(_) | Owner::Flbs => "#ee7733",
        Owner::FileState(..) | Owner::Table(..) => "#ccaa22",
        Owner::Contents(session, _) => CONTENTS[session % CONTENTS.len()],
        Owner::ReserveMem(_) => "#332288",
        Owner::KhoTest => "#887755",
        Owner::Unowned => "#000000",
    }
}

/// Text that may stand in an element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What the page is, in words.
fn described(owner: Owner, report: &Report) -> String {
    let sessions = report.luo.as_ref().map(|luo| luo.sessions.as_slice()).unwrap_or_default();
    let (_, words) = kind(owner);
    match owner {
        Owner::Files(session) => {
            let name = sessions.get(session).map(|session| session.name.to_string()).unwrap_or_default();
            format!("file records of session \"{name}\"")
        }
        Owner::FileState(session, file) | Owner::Table(session, file) | Owner::Contents(session, file) => {
            let found = sessions.get(session);
            let name = found.map(|session| session.name.to_string()).unwrap_or_default();
            let token = found.and_then(|session| session.files.get(file)).map_or(0, |file| file.token);
            let what = match owner {
                Owner::FileState(..) => "state",
                Owner::Table(..) => "folio table",
                _ => "contents",
            };
            format!("{what} of session \"{name}\", token {token:#x}")
        }
        Owner::Subtree(index) => {
            let subtree = report.root.as_ref().and_then(|root| root.subtrees.get(index));
            format!("subtree {}", subtree.map_or("", |subtree| subtree.name.as_str()))
        }
        Owner::ReserveMem(index) => {
            format!("reserve_mem {}", report.reserve_mem.get(index).map_or("", |one| one.name.as_str()))
        }
        _ => words.to_owned(),
    }
}

/// The picture of `report`.
pub(crate) fn draw(picture: &Picture, report: &Report) -> String {
    let mut body = String::new();
    let mut legend: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut y = TOP;
    let mut end = None;
    for row in &picture.rows {
        if end.is_some_and(|end| end != row.first.raw()) {
            y += CELL / 2;
            let _ = writeln!(
                body,
                r##"<line x1="{LEFT}" y1="{}" x2="{}" y2="{0}" class="gap"/>"##,
                y - 3,
                LEFT + CELLS * CELL
            );
        }
        draw_row(&mut body, row, y, picture, report, &mut legend);
        end = row.first.raw().checked_add(row.repeats * CELLS * picture.pages);
        y += CELL;
    }
    let (width, below) = (LEFT + CELLS * CELL + 150, y + 20);
    let mut out = String::new();
    let height = below + 16 * u64::try_from(legend.len()).expect("few colours") + 10;
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>text {{ font: 10px monospace; fill: #222 }} .head {{ font: bold 13px sans-serif }} .gap {{ stroke: #999; stroke-dasharray: 2 3 }}</style>
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="10" y="20" class="head">{}</text>
<text x="10" y="36">a cell is {}; dashed lines stand for what is not used</text>"##,
        escaped(&title(report)),
        size(picture.pages * PAGE_SIZE),
    );
    out.push_str(&body);
    draw_legend(&mut out, &legend, below);
    out.push_str("</svg>\n");
    out
}

fn title(report: &Report) -> String {
    let root = report.root.as_ref().map(|root| root.compatible.as_str()).unwrap_or_default();
    format!("Handover of {}, {root}", size(report.source.bytes))
}

fn draw_row(
    body: &mut String,
    row: &Row,
    y: u64,
    picture: &Picture,
    report: &Report,
    legend: &mut BTreeMap<&'static str, String>,
) {
    let base = y + CELL - 2;
    let _ = writeln!(
        body,
        r#"<text x="{}" y="{base}" text-anchor="end">{:#x}</text>"#,
        LEFT - 6,
        row.first.addr().raw()
    );
    let mut at = 0;
    for cells in row.cells.chunk_by(|one, other| one == other) {
        let len = u64::try_from(cells.len()).expect("at most 64");
        if let Some(owner) = cells[0] {
            let from = row.first.addr().raw() + at * picture.pages * PAGE_SIZE;
            let bytes = if row.repeats > 1 {
                row.repeats * picture.row_bytes()
            } else {
                len * picture.pages * PAGE_SIZE
            };
            let words = escaped(&described(owner, report));
            let _ = writeln!(
                body,
                r#"<rect x="{}" y="{y}" width="{}" height="{}" fill="{}"><title>{from:#x}, {}: {words}</title></rect>"#,
                LEFT + at * CELL,
                len * CELL - 1,
                CELL - 1,
                colour(owner),
                size(bytes),
            );
            legend.entry(colour(owner)).or_insert_with(|| escaped(&group(owner)));
        }
        at += len;
    }
    if row.repeats > 1 {
        let more = size(row.repeats * picture.row_bytes());
        let _ = writeln!(body, r#"<text x="{}" y="{base}">for {more}</text>"#, LEFT + CELLS * CELL + 6);
    }
}

/// What a colour stands for.
fn group(owner: Owner) -> String {
    match owner {
        Owner::Root | Owner::Subtree(_) => String::from("root tree and blobs of subtrees"),
        Owner::Sessions | Owner::Files(_) | Owner::Flbs => {
            String::from("records of sessions, files and objects")
        }
        Owner::FileState(..) | Owner::Table(..) => String::from("states and folio tables of files"),
        Owner::Contents(session, _) => {
            let (turn, turns) = (session % CONTENTS.len(), CONTENTS.len());
            format!("contents of files, sessions {turn}, {}, …", turn + turns)
        }
        _ => kind(owner).1.to_owned(),
    }
}

fn draw_legend(out: &mut String, legend: &BTreeMap<&'static str, String>, top: u64) {
    for (index, (colour, words)) in (0..).zip(legend) {
        let y = top + index * 16;
        let _ = writeln!(
            out,
            r#"<rect x="{LEFT}" y="{y}" width="{CELL}" height="{CELL}" fill="{colour}"/><text x="{}" y="{}">{words}</text>"#,
            LEFT + CELL + 8,
            y + 9,
        );
    }
}
