//! The set of preserved blocks, as the tracker names them.

use std::collections::BTreeMap;
use std::fmt;

use luosim_kho::walk::{BlockRun, MapFormat, MapSink, walk};
use luosim_physmem::{Order, PAGE_SIZE, Pfn, PhysAddr, ReadPhys};

use crate::findings::Findings;
use crate::image::Memory;

/// Runs kept: 192 MiB of them. A tracker of more is hostile, or of a machine of many terabytes.
const MAX_RUNS: usize = 8 << 20;
const FIELD: &str = "preserved-memory-map";

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) head: Pfn,
    pub(crate) order: Order,
}

/// The preserved blocks.
#[derive(Debug, Default)]
pub(crate) struct Preserved {
    /// Ascending by their first frame.
    runs: Vec<BlockRun>,
    /// Pages of the tracker, in the order they were read.
    pub(crate) tracker: Vec<PhysAddr>,
}

fn end(run: &BlockRun) -> u64 {
    run.pfn.raw() + run.blocks * run.order.pages()
}

impl Preserved {
    /// Reads the tracker at `map`.
    pub(crate) fn read(mem: &Memory, format: MapFormat, map: PhysAddr, findings: &mut Findings) -> Self {
        let frames = mem.size() / PAGE_SIZE;
        let mut list = List { frames, findings, found: Self::default() };
        walk(mem, format, map, &mut list);
        let mut found = list.found;
        if found.runs.len() >= MAX_RUNS {
            findings.warning(
                map,
                FIELD,
                format!("it names more than {MAX_RUNS} runs of blocks; the rest is not read"),
            );
        }
        found.runs.sort_by_key(|run| (run.pfn, run.order));
        found.check_overlaps(findings);
        found
    }

    /// The kernel stamps the head of every block: where blocks overlap, the last visited wins.
    fn check_overlaps(&self, findings: &mut Findings) {
        let mut before: Option<&BlockRun> = None;
        for run in &self.runs {
            if let Some(other) = before.filter(|other| end(other) > run.pfn.raw()) {
                let (pfn, order) = (run.pfn, run.order);
                let what = format!(
                    "frame {pfn} is preserved twice: in a block of order {} and as the head of one of order {order}",
                    other.order
                );
                findings.error(pfn.addr(), FIELD, what);
            }
            if before.is_none_or(|other| end(other) < end(run)) {
                before = Some(run);
            }
        }
    }

    /// The block that holds `pfn`.
    pub(crate) fn find(&self, pfn: Pfn) -> Option<Block> {
        let index = self.runs.partition_point(|run| run.pfn <= pfn);
        // One before it may reach over it, where runs overlap: a few are looked at.
        let runs = self.runs[..index].iter().rev().take(4);
        let run = runs.into_iter().find(|run| end(run) > pfn.raw())?;
        let inside = (pfn.raw() - run.pfn.raw()) / run.order.pages() * run.order.pages();
        Some(Block { head: Pfn::new(run.pfn.raw() + inside), order: run.order })
    }

    /// The block whose head is `pfn`.
    pub(crate) fn head(&self, pfn: Pfn) -> Option<Block> {
        self.find(pfn).filter(|block| block.head == pfn)
    }

    /// The runs, ascending.
    pub(crate) fn runs(&self) -> &[BlockRun] {
        &self.runs
    }

    /// Blocks by order.
    pub(crate) fn orders(&self) -> BTreeMap<u32, u64> {
        let mut orders = BTreeMap::new();
        for run in &self.runs {
            *orders.entry(run.order.raw()).or_default() += run.blocks;
        }
        orders
    }
}

/// Collects what the walker tells.
struct List<'a> {
    frames: u64,
    findings: &'a mut Findings,
    found: Preserved,
}

impl MapSink for List<'_> {
    fn tracker_page(&mut self, at: PhysAddr) {
        self.found.tracker.push(at);
    }

    fn run(&mut self, mut run: BlockRun) {
        let (pfn, order) = (run.pfn, run.order);
        if pfn.raw() & (order.pages() - 1) != 0 {
            let what = format!(
                "{} blocks of order {order} from frame {pfn} on are not aligned to their size",
                run.blocks
            );
            self.findings.error(pfn.addr(), FIELD, what);
        }
        let inside = self.frames.saturating_sub(pfn.raw()) >> order.raw();
        if inside < run.blocks {
            let outside = run.blocks - inside;
            let what = format!("{outside} blocks of order {order} from frame {pfn} on lie outside memory");
            self.findings.error(pfn.addr(), FIELD, what);
            run.blocks = inside;
        }
        if run.blocks == 0 {
            return;
        }
        match self.found.runs.last_mut() {
            Some(last) if last.order == order && end(last) == pfn.raw() => last.blocks += run.blocks,
            _ => self.found.runs.push(run),
        }
    }

    fn finding(&mut self, at: PhysAddr, what: fmt::Arguments<'_>) {
        self.findings.error(at, FIELD, what.to_string());
    }

    fn full(&self) -> bool {
        self.found.runs.len() >= MAX_RUNS
    }
}
