//! Memory files of real programs: the contents are the host's, the rules are the model's.
//!
//! Such a file has no pages here until it is preserved: then runs of the host's file are mapped over frames, in
//! folios as large as their place in the file allows, and nothing is copied. Size and seals are told by whoever
//! brings the file; holes are filled, if at all, on the host.

use std::ops::Range;

use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, HostFile, Order, PAGE_SIZE, Pfn, Ram};

use super::{InodeId, InodeTable, Seals, Shmem, ShmemKind, no_memory};
use crate::page_cache::Folio;

/// Largest folio of such a file: 2 MiB.
const LARGEST: u32 = super::HUGE;

/// The host's side of a memory file.
#[derive(Clone, Debug)]
pub struct Backing {
    /// The file.
    pub file: HostFile,
    /// Pages that were allocated and never used; a release may take a note of that (`memfd-v1`).
    pub unused: Vec<Range<u64>>,
}

/// A run of frames that will show a run of the file.
struct Run {
    pfn: Pfn,
    page: u64,
    pages: u64,
}

impl InodeTable {
    /// A file of a real program, as it is now: name, mode, size, seals.
    pub fn create_host(&mut self, name: &str, mode: u32, size: u64, seals: Seals, host: Backing) -> InodeId {
        let inode = self.create(ShmemKind::Memfd, name, mode, seals);
        let file = self.get_mut(inode);
        file.size = size;
        file.host = Some(Box::new(host));
        inode
    }
}

impl Shmem {
    /// The host's side, if this is a real program's file.
    #[must_use]
    pub fn host(&self) -> Option<&Backing> {
        self.host.as_deref()
    }

    /// Tells what the host says of the file now; not while it is held.
    pub fn refresh(&mut self, size: u64, seals: Seals, unused: Vec<Range<u64>>) {
        self.seals = seals;
        if let Some(host) = self.host.as_mut().filter(|_| !self.frozen) {
            self.size = size;
            host.unused = unused;
        }
    }

    /// Puts `pages` pages of the host's file into memory, if they are not there yet.
    ///
    /// # Errors
    /// ENOMEM: no frames, or no room for mappings.
    pub(crate) fn adopt(&mut self, ram: &mut Ram, pages: u64) -> KResult<()> {
        let Some(host) = self.host.clone() else { return Ok(()) };
        if self.cache.pages() >= pages {
            return Ok(());
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut page = self.cache.pages();
        while page < pages {
            let folio = self.place(ram, page, pages, &host.unused).inspect_err(|_| self.forget(ram))?;
            match runs.last_mut() {
                Some(run) if run.pfn.raw() + run.pages == folio.head.raw() => {
                    run.pages += folio.order.pages();
                }
                _ => runs.push(Run { pfn: folio.head, page, pages: folio.order.pages() }),
            }
            page += folio.order.pages();
        }
        for run in runs {
            let adopted = ram.mem.adopt(run.pfn, run.pages, &host.file, run.page);
            let refused = |error| Errno::ENOMEM.because(format!("the host cannot map the file: {error}"));
            adopted.map_err(refused).inspect_err(|_| self.forget(ram))?;
        }
        Ok(())
    }

    /// Allocates the frames of the folio at `page`.
    fn place(&mut self, ram: &mut Ram, page: u64, pages: u64, unused: &[Range<u64>]) -> KResult<Folio> {
        let stale = unused.iter().find(|range| range.contains(&page));
        let next = unused.iter().map(|range| range.start).find(|start| *start > page).unwrap_or(u64::MAX);
        let room = stale.map_or(next, |range| range.end).min(pages) - page;
        let aligned = if page == 0 { LARGEST } else { page.trailing_zeros() };
        let order = aligned.min(room.ilog2()).min(LARGEST);
        let order = Order::new(order).expect("at most the largest folio");
        let head = ram.alloc_for_adoption(order, FrameUse::PageCache).ok_or_else(no_memory)?;
        let used = stale.is_none();
        let folio = Folio { head, order, uptodate: used, dirty: used };
        assert!(self.account_insert(page, folio), "page {page} was not in memory");
        Ok(folio)
    }

    /// Takes every page out of memory again; the host's file keeps its contents.
    fn forget(&mut self, ram: &mut Ram) {
        for folio in self.cache.drain() {
            ram.free(folio.head).expect("the file owns its folios");
        }
        self.accounted = 0;
    }

    /// The contents are another host file's from now on.
    pub fn rehost(&mut self, ram: &mut Ram, backing: Backing) {
        self.forget(ram);
        self.host = Some(Box::new(backing));
    }

    /// Where the file's contents lie on the host, if all of them are one host file at its own place.
    #[must_use]
    pub fn host_contents(&self, ram: &Ram) -> Option<HostFile> {
        let mut found: Option<HostFile> = None;
        let mut covered = 0;
        for (page, folio) in self.cache.iter() {
            let run = ram.mem.adopted_at(folio.head).filter(|run| run.page == page)?;
            if run.pages < folio.order.pages() || page != covered {
                return None;
            }
            match &found {
                Some(file) if !std::sync::Arc::ptr_eq(&file.file, &run.file.file) => return None,
                _ => found = Some(run.file),
            }
            covered = page + folio.order.pages();
        }
        found.filter(|_| covered >= self.size.div_ceil(PAGE_SIZE))
    }

    /// Ranges of pages that read as zeros whatever lies in their frames.
    #[must_use]
    pub fn stale_ranges(&self) -> Vec<Range<u64>> {
        let stale = self.cache.iter().filter(|(_, folio)| !folio.uptodate);
        stale.map(|(page, folio)| page..page + folio.order.pages()).collect()
    }
}
