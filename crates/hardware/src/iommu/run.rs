//! Translations while nobody but devices acts.
//!
//! In a run of ticks no kernel writes registers or memory: what a request is translated to changes only when a device writes to a page
//! that the walk for it read. Until then it is kept, which no register and no device can tell from a walk for each request. This is not
//! the memory of a unit ([`super::cache`]), which may be out of date; a unit that has one is asked instead. Refusals are not kept.

use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr};

use super::layout::Permissions;
use super::walk::Translation;

/// Pages that are kept.
const LINES: usize = 64;
/// Most table pages that they may come from: each write of a device is compared with them.
const MOST_TABLES: usize = 24;
/// Devices whose last writes are known.
const WRITERS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Line {
    /// Which device.
    who: usize,
    page: u64,
    frame: u64,
    permissions: Permissions,
    domain_id: u32,
}

/// The translations of one run, and the pages that were read for them.
#[derive(Debug)]
pub(crate) struct Run {
    lines: [Option<Line>; LINES],
    tables: Vec<Pfn>,
    /// A bit for each of `tables`, by its number: most frames that are written have none of them.
    bits: u64,
    /// The frame that each of the first devices wrote last, if no other wrote it since.
    last: [Option<Pfn>; WRITERS],
}

fn place(who: usize, page: u64) -> usize {
    let page = usize::try_from(page % 64).expect("below 64");
    (page + 23 * who) % LINES
}

fn bit(frame: Pfn) -> u64 {
    1 << (frame.raw() % 64)
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { lines: [None; LINES], tables: Vec::new(), bits: 0, last: [None; WRITERS] }
    }

    /// Where an address leads, and the domain id it went by, if that is known and the access passes.
    #[inline]
    pub(super) fn find(&self, who: usize, iova: u64, wants: Permissions) -> Option<(PhysAddr, u32)> {
        let page = iova / PAGE_SIZE;
        let line = self.lines[place(who, page)].as_ref()?;
        let hit = line.page == page && line.who == who && line.permissions.allow(wants);
        hit.then(|| (PhysAddr::new(line.frame | (iova % PAGE_SIZE)), line.domain_id))
    }

    /// Keeps a translation, and the table pages that it was read from.
    pub(super) fn keep(
        &mut self,
        (who, iova): (usize, u64),
        to: Translation,
        domain_id: u32,
        tables: &[PhysAddr],
    ) {
        if self.tables.len() + tables.len() > MOST_TABLES {
            self.forget();
        }
        for table in tables.iter().map(|table| table.pfn()) {
            if !self.tables.contains(&table) {
                self.tables.push(table);
                self.bits |= bit(table);
            }
        }
        let (page, frame) = (iova / PAGE_SIZE, to.addr.pfn().addr().raw());
        let line = Line { who, page, frame, permissions: to.permissions, domain_id };
        self.lines[place(who, page)] = Some(line);
    }

    fn forget(&mut self) {
        self.lines = [None; LINES];
        self.tables.clear();
        self.bits = 0;
    }

    /// A device wrote to a frame; false if it did so before, and nobody else since, for certain.
    #[inline]
    pub(crate) fn wrote(&mut self, who: usize, frame: Pfn) -> bool {
        if self.bits & bit(frame) != 0 && self.tables.contains(&frame) {
            self.forget();
        }
        if self.last.get(who) == Some(&Some(frame)) {
            return false;
        }
        for last in self.last.iter_mut().filter(|last| **last == Some(frame)) {
            *last = None;
        }
        if let Some(last) = self.last.get_mut(who) {
            *last = Some(frame);
        }
        true
    }
}
