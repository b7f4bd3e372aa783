//! Who owns which page: what the walk found in use, and what of it cannot be.

use luosim_kho::walk::BlockRun;
use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr};
use rustc_hash::FxHashMap;

use crate::findings::Findings;

/// What a page is used for. Numbers are places in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The tracker's own pages: not preserved.
    Tracker,
    /// The scratch array's copy.
    ScratchArray,
    /// A scratch area.
    Scratch(usize),
    /// The root tree.
    Root,
    /// The blob of a subtree.
    Subtree(usize),
    /// The session area, or a block of sessions.
    Sessions,
    /// The file array or a file block of a session.
    Files(usize),
    /// The page of file-lifecycle-bound objects.
    Flbs,
    /// The structure of a file.
    FileState(usize, usize),
    /// The folio table of a file.
    Table(usize, usize),
    /// The contents of a file.
    Contents(usize, usize),
    /// A named reservation.
    ReserveMem(usize),
    /// Folios of the test module.
    KhoTest,
    /// Preserved, and nothing leads to it.
    Unowned,
}

impl Owner {
    /// The owner in the words of a field, `session[1].file[0].data`.
    #[must_use]
    pub fn field(self) -> String {
        match self {
            Self::Tracker => String::from("preserved-memory-map"),
            Self::ScratchArray => String::from("scratch"),
            Self::Scratch(index) => format!("scratch[{index}]"),
            Self::Root => String::from("root"),
            Self::Subtree(index) => format!("subtree[{index}]"),
            Self::Sessions => String::from("luo.sessions"),
            Self::Files(session) => format!("session[{session}].files"),
            Self::Flbs => String::from("luo.flbs"),
            Self::FileState(session, file) => format!("session[{session}].file[{file}].data"),
            Self::Table(session, file) => format!("session[{session}].file[{file}].folios"),
            Self::Contents(session, file) => format!("session[{session}].file[{file}].contents"),
            Self::ReserveMem(index) => format!("reserve_mem[{index}]"),
            Self::KhoTest => String::from("kho_test.folios"),
            Self::Unowned => String::from("unowned"),
        }
    }

    /// Whether these pages must be preserved to survive.
    fn is_preserved(self) -> bool {
        !matches!(self, Self::Tracker | Self::ScratchArray | Self::Scratch(_))
    }
}

/// A run of pages with one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// First page.
    pub pfn: Pfn,
    /// Pages.
    pub pages: u64,
    /// Who has them.
    pub owner: Owner,
}

impl Owned {
    fn end(&self) -> u64 {
        self.pfn.raw().saturating_add(self.pages)
    }
}

/// Claims in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    list: Vec<Owned>,
    /// Pages with structures that were read: each is read once, so that no bytes make us read them again and again.
    read: FxHashMap<Pfn, Owner>,
}

impl Claims {
    /// The page at `at` is a structure of `owner` and will be read. An error, with who it is, if it was read before.
    pub(crate) fn read_once(&mut self, at: PhysAddr, owner: Owner) -> Result<(), Owner> {
        match self.read.insert(at.pfn(), owner) {
            None => Ok(()),
            Some(before) => {
                self.read.insert(at.pfn(), before);
                Err(before)
            }
        }
    }

    /// These pages are the owner's.
    pub(crate) fn add(&mut self, pfn: Pfn, pages: u64, owner: Owner) {
        match self.list.last_mut() {
            Some(last) if last.owner == owner && last.end() == pfn.raw() => last.pages += pages,
            _ => self.list.push(Owned { pfn, pages, owner }),
        }
    }

    /// Everything claimed, ascending; claims of one page by two are reported.
    pub(crate) fn finish(mut self, findings: &mut Findings) -> Vec<Owned> {
        self.list.sort_by_key(|claim| (claim.pfn, claim.owner));
        let mut before: Option<&Owned> = None;
        for claim in &self.list {
            if let Some(other) = before.filter(|other| other.end() > claim.pfn.raw()) {
                let (pfn, field) = (claim.pfn, claim.owner.field());
                let what = format!("frame {pfn} is used twice: also by {}", other.owner.field());
                findings.error(pfn.addr(), &field, what);
            }
            if before.is_none_or(|other| other.end() < claim.end()) {
                before = Some(claim);
            }
        }
        self.list
    }
}

/// Preserved blocks in which nobody has a page, merged to runs, and how many blocks they are.
pub(crate) fn unowned(runs: &[BlockRun], claims: &[Owned]) -> (Vec<Owned>, u64) {
    let mut found: Vec<Owned> = Vec::new();
    let mut blocks = 0;
    // Claims may overlap, so where one ends says nothing about those before it: the largest end so far does.
    let mut claims = claims.iter().filter(|claim| claim.owner.is_preserved()).peekable();
    let mut claimed_to = 0;
    for run in runs {
        let (mut at, end) = (run.pfn.raw(), run.pfn.raw() + run.blocks * run.order.pages());
        while at < end {
            while let Some(claim) = claims.next_if(|claim| claim.pfn.raw() <= at) {
                claimed_to = claimed_to.max(claim.end());
            }
            let step = run.order.pages();
            let head = |pfn: u64| run.pfn.raw() + (pfn - run.pfn.raw()) / step * step;
            if claimed_to > at {
                // On to the first block that begins behind what is claimed.
                at = head(claimed_to.min(end).saturating_add(step - 1)).max(at + step);
                continue;
            }
            let next = claims.peek().map_or(end, |claim| head(claim.pfn.raw().clamp(at, end)));
            if next == at {
                // Somebody has a later page of this block.
                at += step;
                continue;
            }
            blocks += (next - at) / step;
            push(&mut found, Pfn::new(at), next - at);
            at = next;
        }
    }
    (found, blocks)
}

fn push(found: &mut Vec<Owned>, pfn: Pfn, pages: u64) {
    match found.last_mut() {
        Some(last) if last.end() == pfn.raw() => last.pages += pages,
        _ => found.push(Owned { pfn, pages, owner: Owner::Unowned }),
    }
}

/// Pages that hold `bytes` from `at` on.
pub(crate) fn pages_of(at: PhysAddr, bytes: u64) -> u64 {
    at.page_offset().saturating_add(bytes).div_ceil(PAGE_SIZE).max(1)
}
