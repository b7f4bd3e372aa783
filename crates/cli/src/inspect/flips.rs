//! `luosim inspect --flip-survey`: what a single wrong bit in each structure of a handover does.
#![expect(clippy::disallowed_types, reason = "the rate is said on standard error, of the host's time")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use luosim_abi::kho::scratch::ENTRY_SIZE;
use luosim_abi::release::{LuoVersion, RELEASES, ReleaseId};
use luosim_inspect::report::Report;
use luosim_inspect::{Inspection, Owner};
use luosim_kho::BootParams;
use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr, PhysMem};
use luosim_sim::flips::{BITS_PER_PAGE, Class, Row, Structure, survey};
use serde::Serialize;

use super::Failure;
use crate::message;
use crate::render;

/// Version of the JSON form.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: u32,
    release: &'static str,
    classes: [&'static str; 4],
    structures: &'a [Row],
}

/// The release to boot: the one that wrote the memory, if the image says so; or else the newest with its formats.
fn release_of(report: &Report) -> Option<ReleaseId> {
    let writer = report.source.kernel.as_deref().and_then(ReleaseId::from_name);
    let root = report.root.as_ref()?;
    let luo = report.luo.as_ref().map(|luo| luo.compatible.as_str());
    let speaks = |row: &&luosim_abi::release::Release| {
        let wanted = luo.is_none() || row.luo.map(LuoVersion::compatible) == luo;
        row.kho.compatible() == root.compatible && row.luo.is_some() && wanted
    };
    writer.or_else(|| RELEASES.iter().rfind(speaks).map(|row| row.id))
}

fn params(report: &Report) -> Option<BootParams> {
    let scratch = report.scratch.as_ref()?;
    let areas = u64::try_from(scratch.areas.len()).expect("a count");
    Some(BootParams {
        fdt: report.root.as_ref()?.at.0,
        fdt_size: PAGE_SIZE,
        scratch: scratch.at.0,
        scratch_size: areas * ENTRY_SIZE,
    })
}

/// What a page is, for the table; `None` for contents and what no kernel reads.
fn structure(report: &Report, owner: Owner, page: Pfn) -> Option<String> {
    let text = |name: &str| Some(String::from(name));
    match owner {
        Owner::Root => text("KHO root tree"),
        Owner::Tracker => text("page tracker"),
        Owner::ScratchArray => text("scratch array"),
        Owner::Subtree(index) => Some(format!("subtree {}", report.root.as_ref()?.subtrees.get(index)?.name)),
        Owner::Sessions => text("session records"),
        Owner::Files(_) => text("file records"),
        Owner::Flbs => text("FLB page"),
        Owner::FileState(..) => text("memfd structures"),
        Owner::Table(session, file) => {
            let file = report.luo.as_ref()?.sessions.get(session)?.files.get(file)?;
            let chunk = file.memfd.as_ref().and_then(|memfd| memfd.table_at);
            text(if chunk.is_some_and(|at| at.0.pfn() == page) { "vmalloc chunks" } else { "folio tables" })
        }
        Owner::Scratch(_) | Owner::Contents(..) | Owner::ReserveMem(_) | Owner::KhoTest | Owner::Unowned => {
            None
        }
    }
}

/// Every page of metadata by structure, in the order in which a kernel meets them.
fn structures(inspection: &Inspection) -> Vec<Structure> {
    let report = &inspection.report;
    let mut found: BTreeMap<(Owner, String), Vec<Pfn>> = BTreeMap::new();
    let scratch = report.scratch.iter().map(|scratch| (Owner::ScratchArray, scratch.at.0.pfn()));
    let owned = inspection
        .owned
        .iter()
        .flat_map(|run| (run.pfn.raw()..run.pfn.raw() + run.pages).map(|pfn| (run.owner, Pfn::new(pfn))));
    for (owner, page) in scratch.chain(owned) {
        if let Some(name) = structure(report, owner, page) {
            let kind = match owner {
                Owner::Files(_) => Owner::Files(0),
                Owner::FileState(..) => Owner::FileState(0, 0),
                Owner::Table(..) => Owner::Table(0, 0),
                other => other,
            };
            let pages = found.entry((kind, name)).or_default();
            if !pages.contains(&page) {
                pages.push(page);
            }
        }
    }
    found.into_iter().map(|((_, name), pages)| Structure { name, pages }).collect()
}

/// Deals the pages out to `jobs` workers, each with every structure.
fn deal(structures: &[Structure], jobs: usize) -> Vec<Vec<Structure>> {
    let share = |worker: usize| {
        let mine = |structure: &Structure| Structure {
            name: structure.name.clone(),
            pages: structure.pages.iter().skip(worker).step_by(jobs).copied().collect(),
        };
        structures.iter().map(mine).collect()
    };
    (0..jobs).map(share).collect()
}

fn join(parts: Vec<Vec<Row>>) -> Vec<Row> {
    let mut parts = parts.into_iter();
    let mut rows = parts.next().unwrap_or_default();
    for part in parts {
        for (row, other) in rows.iter_mut().zip(part) {
            row.add(other);
        }
    }
    rows
}

fn bar(flips: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} flips, {per_sec}, {eta} left");
    let bar = ProgressBar::new(flips);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn run(
    inspection: &Inspection,
    release: ReleaseId,
    structures: &[Structure],
    jobs: usize,
) -> Result<Vec<Row>, Failure> {
    let params =
        params(&inspection.report).ok_or("the scratch array is not known: give --scratch ADDR,SIZE")?;
    let pages: usize = structures.iter().map(|structure| structure.pages.len()).sum();
    let flips = u64::try_from(pages).expect("a count") * BITS_PER_PAGE;
    let (bar, start) = (bar(flips), Instant::now());
    // Every worker has a memory of its own.
    let copy =
        |share| inspection.copy_owned().map(|memory| (memory, share)).map_err(|error| error.to_string());
    let shares: Vec<(PhysMem, Vec<Structure>)> =
        deal(structures, jobs).into_iter().map(copy).collect::<Result<_, _>>()?;
    let work = |(memory, share): (PhysMem, Vec<Structure>)| {
        survey(memory, params, release, &share, |done| bar.inc(done)).map_err(|error| error.to_string())
    };
    let parts: Result<Vec<Vec<Row>>, Failure> = std::thread::scope(|scope| {
        let running: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| work(share))).collect();
        let failed = || Err(String::from("a worker failed"));
        running.into_iter().map(|worker| worker.join().unwrap_or_else(|_| failed())).collect()
    });
    bar.finish_and_clear();
    let rows = join(parts?);
    let millis = start.elapsed().as_millis().max(1);
    let rate = u128::from(flips) * 1000 / millis;
    message(format_args!("{flips} flips, {rate} a second, by {jobs} jobs"));
    Ok(rows)
}

fn text(rows: &[Row]) -> String {
    let head = ["structure", "pages", "flips"].into_iter().chain(Class::ALL.map(Class::word));
    let mut lines: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    let mut total = [0u64; 6];
    for row in rows {
        let numbers = [row.pages, row.flips()].into_iter().chain(row.counts);
        for (sum, number) in total.iter_mut().zip(numbers.clone()) {
            *sum += number;
        }
        lines.push([row.structure.clone()].into_iter().chain(numbers.map(|n| n.to_string())).collect());
    }
    lines.push([String::from("all")].into_iter().chain(total.map(|n| n.to_string())).collect());
    let mut out = render::columns(&lines);
    for row in rows.iter().filter(|row| !row.silent.is_empty()) {
        let _ = writeln!(out, "\n{}: bits that nothing protects", row.structure);
        for (first, bytes, bits) in runs(row) {
            let _ = writeln!(out, "  {first}, {bytes} bytes: {bits} bits");
        }
    }
    out
}

/// Runs of bytes with silent bits: address of the first, bytes, bits.
fn runs(row: &Row) -> Vec<(PhysAddr, u64, usize)> {
    let mut bits: Vec<u64> = row.silent.iter().map(|(addr, _)| addr.0.raw()).collect();
    bits.sort_unstable();
    let same_run = |before: &u64, after: &u64| after - before <= 1;
    let chunks = bits.chunk_by(same_run);
    chunks.map(|run| (PhysAddr::new(run[0]), run[run.len() - 1] - run[0] + 1, run.len())).collect()
}

/// What is asked for.
pub(super) struct Wish<'a> {
    /// The kernel that boots.
    pub(super) release: Option<ReleaseId>,
    /// Only these structures; all if none is named.
    pub(super) structures: &'a [String],
    /// Threads.
    pub(super) jobs: Option<NonZero<usize>>,
    /// JSON instead of text.
    pub(super) as_json: bool,
}

/// The structures that are asked for.
fn chosen(inspection: &Inspection, names: &[String]) -> Result<Vec<Structure>, Failure> {
    let all = structures(inspection);
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|structure| structure.name != **name)) {
        let known: Vec<&str> = all.iter().map(|structure| structure.name.as_str()).collect();
        return Err(format!("there is no structure \"{unknown}\" here; there are {}", known.join(", ")));
    }
    let wanted = |structure: &Structure| names.is_empty() || names.contains(&structure.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// Makes the survey and gives what is printed.
pub(super) fn flip_survey(inspection: &Inspection, wish: &Wish<'_>) -> Result<String, Failure> {
    let release = wish.release.or_else(|| release_of(&inspection.report));
    let release = release.ok_or("no release with an orchestrator speaks these formats: give --release")?;
    let jobs = wish.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let rows = run(inspection, release, &chosen(inspection, wish.structures)?, jobs)?;
    if !wish.as_json {
        return Ok(text(&rows));
    }
    let (release, classes) = (release.release().name, Class::ALL.map(Class::word));
    Ok(render::json(&Document { version: VERSION, release, classes, structures: &rows }))
}
