//! From the root tree to the last folio: reads everything the handover leads to and says what is wrong with it.
//!
//! Contract: any bytes give a report, without panic, in time and memory bounded by what the structures hold. A
//! page with a structure is read once, whoever leads to it. What the bytes say decides, not a release: a
//! `luo-v1` tree under a `kho-v4` root is read as what it is. Mirrors the readers of `kernel/liveupdate/`; where
//! they stop at the first error this one goes on.

mod luo;
mod memfd;
mod other;
pub(crate) mod root;
mod session;
mod table;

use std::collections::BTreeMap;

use luosim_physmem::{Order, PAGE_SIZE, Pfn, PhysAddr, ReadPhys};

use crate::claims::{Claims, Owned, Owner, unowned};
use crate::contents::Extent;
use crate::findings::Findings;
use crate::image::Memory;
use crate::preserved::Preserved;
use crate::report::{Addr, Area, Map, Report, Scratch, by_order};

/// What a walk is asked for besides the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Digests of the contents.
    pub(crate) digest: bool,
}

/// A walk.
pub(crate) struct Walk<'a> {
    pub(crate) mem: &'a Memory,
    pub(crate) wish: Wish,
    pub(crate) preserved: Preserved,
    pub(crate) claims: Claims,
    pub(crate) findings: Findings,
    pub(crate) report: Report,
    pub(crate) contents: Contents,
    /// Whether there is a memory map; without one nothing is said of what it lacks.
    pub(crate) mapped: bool,
}

/// Where the contents of memory files lie, by session and file.
type Contents = BTreeMap<(usize, usize), Vec<Extent>>;

/// A handover that was read.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    pub(crate) report: Report,
    /// Who owns which page, ascending.
    pub(crate) owned: Vec<Owned>,
    pub(crate) contents: Contents,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(mem: &'a Memory, wish: Wish, findings: Findings) -> Self {
        let (preserved, claims) = (Preserved::default(), Claims::default());
        let (report, contents) = (Report::default(), Contents::new());
        Self { mem, wish, preserved, claims, findings, report, contents, mapped: false }
    }

    /// Reads the handover whose root tree is at `root`.
    pub(crate) fn run(mut self, root: PhysAddr, scratch: Option<(PhysAddr, u64, &'static str)>) -> Walked {
        self.root(root);
        match scratch {
            Some((at, size, from)) => self.scratch(at, size, from),
            None => self.findings.info(
                PhysAddr::NULL,
                "scratch",
                "the scratch areas are not known: give their array with --scratch ADDR,SIZE",
            ),
        }
        self.finish()
    }

    /// The array of scratch areas.
    fn scratch(&mut self, at: PhysAddr, size: u64, from: &'static str) {
        let count = size / luosim_abi::kho::scratch::ENTRY_SIZE;
        if !(1..=1026).contains(&count) {
            self.findings.error(at, "scratch", format!("the scratch array has {count} areas"));
        }
        let mut areas: Vec<Area> = Vec::new();
        for index in 0..count.min(1026) {
            let entry = at.checked_add(index * 16);
            let entry = entry.and_then(|at| self.mem.read_struct::<luosim_abi::kho::scratch::Entry>(at).ok());
            let Some(entry) = entry else {
                self.findings.error(at, "scratch", "the scratch array lies outside memory");
                break;
            };
            areas.push(Area { at: Addr::new(entry.addr.get()), bytes: entry.size.get() });
        }
        self.claims.add(at.pfn(), crate::claims::pages_of(at, size.min(1026 * 16)), Owner::ScratchArray);
        self.check_areas(&areas);
        self.report.scratch = Some(Scratch { at: Addr(at), from, areas });
    }

    fn check_areas(&mut self, areas: &[Area]) {
        let mut sorted: Vec<(usize, &Area)> = areas.iter().enumerate().collect();
        sorted.sort_by_key(|(_, area)| area.at);
        let mut end_before = 0;
        for (index, area) in sorted {
            let (at, field) = (area.at.0, format!("scratch[{index}]"));
            let end = at.raw().checked_add(area.bytes).filter(|end| *end <= self.mem.size());
            if end.is_none() {
                self.findings.error(
                    at,
                    &field,
                    format!("{:#x} bytes at {at} do not lie in memory", area.bytes),
                );
            }
            if !at.is_page_aligned() || !area.bytes.is_multiple_of(PAGE_SIZE) {
                self.findings.error(at, &field, "the area is not made of whole pages");
            }
            if at.raw() < end_before && area.bytes > 0 {
                self.findings.error(at, &field, "the area overlaps another one");
            }
            end_before = end_before.max(end.unwrap_or(0));
            self.check_scratch(area, &field);
        }
    }

    /// Nothing that is preserved lies in scratch.
    fn check_scratch(&mut self, area: &Area, field: &str) {
        let first = area.at.0.pfn().raw();
        let end = first.saturating_add(area.bytes / PAGE_SIZE);
        let runs = self.preserved.runs();
        let from = runs.partition_point(|run| run.pfn.raw() + run.blocks * run.order.pages() <= first);
        for run in runs[from..].iter().take_while(|run| run.pfn.raw() < end) {
            let what =
                format!("blocks of order {} from frame {} on are preserved in scratch", run.order, run.pfn);
            self.findings.error(run.pfn.addr(), field, what);
        }
    }

    pub(crate) fn finish(mut self) -> Walked {
        for page in std::mem::take(&mut self.preserved.tracker) {
            if let Some(block) = self.preserved.find(page.pfn()) {
                let what =
                    format!("a page of the memory map is preserved, in a block of order {}", block.order);
                self.findings.error(page, "preserved-memory-map", what);
            }
            self.claims.add(page.pfn(), 1, Owner::Tracker);
            self.report.map.get_or_insert_default().tracker_pages += 1;
        }
        let mut owned = self.claims.finish(&mut self.findings);
        let (left, blocks) = unowned(self.preserved.runs(), &owned);
        self.report.map = self.report.map.map(|map| Map {
            unowned_blocks: blocks,
            unowned_bytes: left.iter().map(|run| run.pages * PAGE_SIZE).sum(),
            ..map
        });
        if let Some(first) = left.first() {
            let pages: u64 = left.iter().map(|run| run.pages).sum();
            let what = format!(
                "{blocks} preserved blocks, {pages} pages, belong to nothing known; the first at {}",
                first.pfn.addr()
            );
            self.findings.info(first.pfn.addr(), "preserved-memory-map", what);
        }
        owned.extend(left);
        owned.sort_by_key(|run| (run.pfn, run.owner));
        if let Some(failure) = self.mem.failure() {
            self.findings.error(PhysAddr::NULL, "source", failure);
        }
        self.report.findings = self.findings.kept;
        self.report.findings_left_out = self.findings.left_out;
        Walked { report: self.report, owned, contents: self.contents }
    }

    /// Claims the structure of `bytes` bytes at `at` for `owner`; it should be a preserved block of `order`. `false`
    /// if it must not be read: it lies nowhere, or was read before.
    pub(crate) fn structure(&mut self, at: PhysAddr, bytes: u64, order: Order, owner: Owner) -> bool {
        let field = owner.field();
        if !at.is_page_aligned() {
            self.findings.error(at, &field, format!("{at} is not the address of a page"));
            return false;
        }
        if at.checked_add(bytes).is_none_or(|end| end.raw() > self.mem.size()) {
            self.findings.error(at, &field, format!("{bytes} bytes at {at} do not lie in memory"));
            return false;
        }
        if let Err(before) = self.claims.read_once(at, owner) {
            self.findings.error(
                at,
                &field,
                format!("the page at {at} is used twice: also by {}", before.field()),
            );
            return false;
        }
        self.expect(at, order, &field);
        // A preserved allocation is a block: what is behind the structure in it is the owner's too.
        let block = self.preserved.head(at.pfn()).map_or(1, |block| block.order.pages());
        self.claims.add(at.pfn(), crate::claims::pages_of(at, bytes).max(block), owner);
        true
    }

    /// A block of `order` should be preserved at `at`: a kernel hands blocks out by their heads.
    pub(crate) fn expect(&mut self, at: PhysAddr, order: Order, field: &str) {
        if !self.mapped {
            return;
        }
        match self.preserved.find(at.pfn()) {
            None => self.findings.error(at, field, format!("the page at {at} is not preserved")),
            Some(block) if block.head != at.pfn() => {
                let (head, order) = (block.head.addr(), block.order);
                let what = format!(
                    "{at} is not the head of a preserved block but inside one of order {order} at {head}"
                );
                self.findings.error(at, field, what);
            }
            Some(block) if block.order != order => {
                let what = format!("the block at {at} is preserved as order {}, not {order}", block.order);
                self.findings.warning(at, field, what);
            }
            Some(_) => {}
        }
    }

    /// The memory map as the report has it.
    pub(crate) fn summarise(&self) -> Map {
        let orders = self.preserved.orders();
        let bytes = orders.iter().map(|(order, blocks)| (blocks << order).saturating_mul(PAGE_SIZE)).sum();
        Map { blocks: orders.values().sum(), bytes, orders: by_order(&orders), ..Map::default() }
    }
}

/// The order whose blocks hold `pages` pages.
pub(crate) fn order_of(pages: u64) -> Order {
    Order::holding(pages.saturating_mul(PAGE_SIZE)).unwrap_or(Order::ZERO)
}

/// The bytes of a field up to its NUL, and whether there is one.
pub(crate) fn text(field: &[u8]) -> (Vec<u8>, bool) {
    let bytes = luosim_abi::luo::record::field_text(field);
    (bytes.to_vec(), bytes.len() < field.len())
}

/// The page that holds the word at `pfn`, as an address in the 52 bits a frame number has.
pub(crate) fn frame(pfn: u64) -> Pfn {
    Pfn::new(pfn & ((1 << 52) - 1))
}
