//! A report as a tree for people.

use std::fmt::{Display, Write as _};

use anstyle::{AnsiColor, Style};
use luosim_inspect::report::{Blob, File, Luo, Map, Memfd, OrderCount, Report, Root, Session, seal_names};
use luosim_inspect::{Finding, Severity};

use super::{counted, size};
use crate::render::{BOLD, DIM, WARN, paint};

const BAD: Style = AnsiColor::Red.on_default().bold();

/// Lines with their depth.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, depth: usize, line: impl Display) {
        let _ = writeln!(self.0, "{:1$}{line}", "", depth * 2);
    }
}

/// The whole report.
pub(crate) fn tree(report: &Report) -> String {
    let mut lines = Lines::default();
    let source = &report.source;
    let by = source.kernel.as_ref().map(|kernel| format!(", written by {kernel}")).unwrap_or_default();
    let head = format!("{} of {}{by}", kind(source.kind), size(source.bytes));
    lines.put(0, paint(BOLD, &head));
    candidates(&mut lines, report);
    if let Some(blob) = &report.blob {
        values(&mut lines, blob);
    }
    if let Some(root) = &report.root {
        root_tree(&mut lines, root);
    }
    if let Some(map) = &report.map {
        memory_map(&mut lines, map, report);
    }
    scratch(&mut lines, report);
    others(&mut lines, report);
    if let Some(found) = &report.luo {
        luo(&mut lines, found);
    }
    findings(&mut lines, report);
    lines.0
}

fn kind(kind: &str) -> &'static str {
    match kind {
        "raw" => "raw memory",
        "zstd" => "packed memory",
        "image" => "image",
        "elf-core" => "ELF core",
        _ => "blob",
    }
}

fn candidates(lines: &mut Lines, report: &Report) {
    if report.candidates.len() < 2 {
        return;
    }
    lines.put(0, format_args!("{} root trees were found; the first is taken", report.candidates.len()));
    for candidate in &report.candidates {
        lines.put(1, format_args!("{} {}: {}", candidate.at, candidate.compatible, candidate.why));
    }
}

fn values(lines: &mut Lines, blob: &Blob) {
    lines.put(0, blob.kind);
    for value in &blob.values {
        lines.put(1, format_args!("{} = {}", value.path, value.value));
    }
}

fn root_tree(lines: &mut Lines, root: &Root) {
    lines.put(0, format_args!("root tree {} at {}, {} bytes", root.compatible, root.at, root.bytes));
    for subtree in &root.subtrees {
        let at = subtree.at.map(|at| format!(" at {at}")).unwrap_or_default();
        let bytes = subtree.bytes.map(|bytes| format!(", {bytes} bytes")).unwrap_or_default();
        lines.put(1, format_args!("subtree {}{at}{bytes}", subtree.name));
    }
}

/// `31 of order 0, 5 of order 1`.
fn orders(orders: &[OrderCount]) -> String {
    let list: Vec<String> =
        orders.iter().map(|count| format!("{} of order {}", count.blocks, count.order)).collect();
    if list.is_empty() { String::from("none") } else { list.join(", ") }
}

fn memory_map(lines: &mut Lines, map: &Map, report: &Report) {
    let at = report.root.as_ref().and_then(|root| root.map_at);
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    let (blocks, bytes) = (counted(map.blocks, "block"), size(map.bytes));
    lines.put(
        0,
        format_args!("memory map{at}: {blocks}, {bytes}; {} of its own", counted(map.tracker_pages, "page")),
    );
    lines.put(1, orders(&map.orders));
    if map.unowned_blocks > 0 {
        let (blocks, bytes) = (map.unowned_blocks, size(map.unowned_bytes));
        lines.put(1, format_args!("nothing leads to {blocks} of them, {bytes}"));
    }
}

fn scratch(lines: &mut Lines, report: &Report) {
    let Some(scratch) = &report.scratch else { return };
    let from = match scratch.from {
        "given" => "as given",
        "manifest" => "as the manifest says",
        _ => "as the boot parameters say",
    };
    lines.put(0, format_args!("scratch array at {}, {from}", scratch.at));
    for area in &scratch.areas {
        lines.put(1, format_args!("{} at {}", size(area.bytes), area.at));
    }
}

fn others(lines: &mut Lines, report: &Report) {
    if let Some(metadata) = &report.metadata {
        let (release, count, at) = (&metadata.release, metadata.kexec_count, metadata.at);
        lines.put(0, format_args!("metadata at {at}: written by {release}, kexec count {count}"));
    }
    for one in &report.reserve_mem {
        lines.put(0, format_args!("reserve_mem {}: {} at {}", one.name, size(one.bytes), one.at));
    }
    if let Some(test) = &report.kho_test {
        let sum = test.csum.map(|sum| format!(", sum {sum:#x}")).unwrap_or_default();
        lines.put(0, format_args!("test module at {}: {}{sum}", test.at, counted(test.folios, "folio")));
        lines.put(1, orders(&test.orders));
    }
    for one in &report.unknown {
        let what = one.compatible.as_ref().map(|text| format!(", a tree '{text}'")).unwrap_or_default();
        lines.put(0, format_args!("unknown subtree {} at {}{what}", one.name, one.at));
        for (index, row) in one.head.as_bytes().chunks(32).enumerate() {
            let pairs: Vec<&str> = row.chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok()).collect();
            lines.put(1, format_args!("{:04x}: {}", index * 16, pairs.join(" ")));
        }
    }
}

fn luo(lines: &mut Lines, luo: &Luo) {
    let (version, at, number) = (&luo.compatible, luo.at, luo.number);
    lines.put(0, format_args!("LUO {version} at {at}: live update {number}"));
    if let Some(at) = luo.flbs_at {
        lines.put(1, format_args!("{} at {at}", counted(luo.flbs.len(), "file-lifecycle-bound object")));
    }
    for flb in &luo.flbs {
        lines.put(2, format_args!("\"{}\": {}, data {}", flb.name, counted(flb.count, "file"), flb.data));
    }
    let at = luo.sessions_at.map(|at| format!(" at {at}")).unwrap_or_default();
    lines.put(1, format_args!("{}{at}", counted(luo.sessions.len(), "session")));
    for one in &luo.sessions {
        session(lines, one);
    }
}

fn session(lines: &mut Lines, session: &Session) {
    let at = session.files_at.map(|at| format!(" at {at}")).unwrap_or_default();
    let name = paint(BOLD, &format!("\"{}\"", session.name));
    lines.put(2, format_args!("session[{}] {name}: {}{at}", session.index, counted(session.count, "file")));
    for one in &session.files {
        file(lines, one);
    }
}

fn file(lines: &mut Lines, file: &File) {
    let (index, token, handler, data) = (file.index, file.token, &file.handler, file.data);
    let Some(memfd) = &file.memfd else {
        return lines.put(3, format_args!("file[{index}] token {token:#x}: {handler}, data {data}"));
    };
    let seals =
        memfd
            .seals
            .map(|seals| {
                if seals == 0 { String::from(", no seals") } else { format!(", seals {}", seal_names(seals)) }
            })
            .unwrap_or_default();
    let (bytes, pos) = (size(memfd.size), memfd.pos);
    lines.put(
        3,
        format_args!("file[{index}] token {token:#x}: {handler} at {data}, {bytes}, position {pos}{seals}"),
    );
    contents(lines, memfd);
}

fn contents(lines: &mut Lines, memfd: &Memfd) {
    if memfd.folios > 0 {
        let table = memfd.table_at.map(|at| format!("; table at {at}")).unwrap_or_default();
        let mut text = format!("{} ({}){table}", counted(memfd.folios, "folio"), orders(&memfd.orders));
        if memfd.not_uptodate > 0 {
            let _ = write!(text, "; {} without contents", memfd.not_uptodate);
        }
        if memfd.holes > 0 {
            let _ = write!(text, "; holes of {}", counted(memfd.holes, "page"));
        }
        lines.put(4, text);
    }
    if let Some(digest) = &memfd.sha256 {
        lines.put(4, format_args!("sha256 {digest}"));
    }
}

fn findings(lines: &mut Lines, report: &Report) {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let head = match (errors, warnings) {
        (0, 0) => String::from("nothing is wrong with it"),
        _ => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    lines.put(0, paint(BOLD, &head));
    for one in &report.findings {
        lines.put(1, finding(one));
    }
    if report.findings_left_out > 0 {
        lines.put(1, format_args!("and {} more", report.findings_left_out));
    }
}

fn finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => paint(BAD, "error"),
        Severity::Warning => paint(WARN, "warning"),
        Severity::Info => paint(DIM, "info"),
    };
    let at = if finding.at.0.raw() == 0 { String::new() } else { format!("{} ", finding.at) };
    let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
    format!("{severity} {at}{field}{}", finding.what)
}
