//! Changing size and layout: truncate, fallocate, punching holes. A frozen file refuses all of it.

use luosim_abi::{Errno, KResult};
use luosim_physmem::{PAGE_SIZE, Ram};

use super::{Fresh, MAX_SIZE, Seals, Shmem};
use crate::page_cache::Folio;

/// Allocate without growing the file.
const KEEP_SIZE: u32 = 1;
/// Take pages out; needs [`KEEP_SIZE`].
const PUNCH_HOLE: u32 = 2;
/// Ways to allocate, of which a call names one: punch, collapse, zero, insert, unshare, write zeroes.
const WAYS: u32 = 0xfa;
/// Ways that move the end of the file: never with [`KEEP_SIZE`].
const MOVING: u32 = 0x08 | 0x20 | 0x80;

fn unknown(mode: u32) -> luosim_abi::Refusal {
    Errno::EOPNOTSUPP.because(format!("memory files do not know fallocate mode {mode:#x}"))
}

fn sealed(file: &Shmem, seal: &str) -> luosim_abi::Refusal {
    Errno::EPERM.because(format!("{} has {seal}", file.describe()))
}

impl Shmem {
    /// Sets the size.
    ///
    /// # Errors
    /// EPERM: frozen and another size, F_SEAL_SHRINK, F_SEAL_GROW; EFBIG above 2^63 - 1.
    pub fn truncate(&mut self, ram: &mut Ram, size: u64) -> KResult<()> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG.because("a file has at most 2^63 - 1 bytes"));
        }
        if size < self.size && self.seals.any(Seals::SHRINK) {
            return Err(sealed(self, "F_SEAL_SHRINK"));
        }
        if size > self.size && self.seals.any(Seals::GROW) {
            return Err(sealed(self, "F_SEAL_GROW"));
        }
        if size != self.size && self.frozen {
            return Err(self.frozen_refusal("its size may not change"));
        }
        if size < self.size {
            self.check_device_maps()?;
        }
        if size <= self.size {
            self.drop_pages(ram, size, u64::MAX);
        }
        self.size = size;
        Ok(())
    }

    /// Removes the pages wholly inside `from..to` and zeroes the parts of pages at its ends.
    fn drop_pages(&mut self, ram: &mut Ram, from: u64, to: u64) {
        let first = from.div_ceil(PAGE_SIZE);
        let end = if to == u64::MAX { u64::MAX } else { to / PAGE_SIZE };
        if !from.is_multiple_of(PAGE_SIZE) {
            let stop = to.min((from / PAGE_SIZE + 1) * PAGE_SIZE);
            self.zero_part(ram, from, stop);
        }
        if to != u64::MAX && !to.is_multiple_of(PAGE_SIZE) && to / PAGE_SIZE >= first {
            self.zero_part(ram, to - to % PAGE_SIZE, to);
        }
        if first < end {
            self.remove_pages(ram, first, end);
        }
    }

    /// Zeroes bytes of one page, if it is there.
    fn zero_part(&mut self, ram: &mut Ram, from: u64, to: u64) {
        let index = from / PAGE_SIZE;
        if let Some(folio) = self.cache.get(index).filter(|folio| folio.uptodate) {
            let at = folio.frame(index).addr().checked_add(from % PAGE_SIZE).expect("inside the page");
            ram.mem.fill(at, to - from, 0).expect("folios lie in memory");
            self.cache.mark(index, true, true);
        }
    }

    fn remove_pages(&mut self, ram: &mut Ram, first: u64, end: u64) {
        for edge in [first, end] {
            let inside = |folio: &Folio| edge & (folio.order.pages() - 1) != 0;
            if let Some(folio) = self.cache.get(edge).filter(inside) {
                ram.frames.split_allocated(folio.head);
                self.cache.split(edge);
            }
        }
        let gone: Vec<u64> =
            self.cache.iter_from(first).map(|(index, _)| index).take_while(|index| *index < end).collect();
        for index in gone {
            let folio = self.cache.remove(index).expect("listed above");
            self.free_folio(ram, folio);
        }
    }

    /// Allocates or punches. `offset` and `len` as signed numbers of the system call.
    ///
    /// # Errors
    /// EINVAL: negative offset, length below 1; EOPNOTSUPP: other modes; EFBIG; EPERM: frozen, F_SEAL_GROW,
    /// F_SEAL_WRITE; ENOMEM.
    pub fn fallocate(&mut self, ram: &mut Ram, mode: u32, offset: i64, len: i64) -> KResult<()> {
        let (start, bytes) = Self::check_fallocate(mode, offset, len)?;
        let end = start.checked_add(bytes).filter(|end| *end <= MAX_SIZE);
        let end = end.ok_or_else(|| Errno::EFBIG.because("the range ends beyond 2^63 - 1"))?;
        if mode & !(KEEP_SIZE | PUNCH_HOLE) != 0 {
            return Err(unknown(mode));
        }
        if self.frozen {
            return Err(self.frozen_refusal("its layout may not change"));
        }
        let hole = mode & PUNCH_HOLE != 0;
        if hole { self.punch(ram, start, end) } else { self.preallocate(ram, mode, start, end) }
    }

    /// What is checked of the arguments before the file is looked at; start and length.
    ///
    /// # Errors
    /// EINVAL: no range; EOPNOTSUPP: a mode that no file system has.
    pub fn check_fallocate(mode: u32, offset: i64, len: i64) -> KResult<(u64, u64)> {
        let start = u64::try_from(offset).ok();
        let bytes = u64::try_from(len).ok().filter(|bytes| *bytes > 0);
        let (Some(start), Some(bytes)) = (start, bytes) else {
            return Err(Errno::EINVAL.because(format!("a range of {len} bytes at {offset} is no range")));
        };
        let (way, keep) = (mode & WAYS, mode & KEEP_SIZE != 0);
        let punches = way & PUNCH_HOLE != 0;
        if mode & !(WAYS | KEEP_SIZE) != 0
            || way.count_ones() > 1
            || punches && !keep
            || way & MOVING != 0 && keep
        {
            return Err(unknown(mode));
        }
        Ok((start, bytes))
    }

    fn punch(&mut self, ram: &mut Ram, start: u64, end: u64) -> KResult<()> {
        if self.seals.any(Seals::WRITE.with(Seals::FUTURE_WRITE)) {
            return Err(sealed(self, "F_SEAL_WRITE"));
        }
        self.drop_pages(ram, start, end);
        Ok(())
    }

    fn preallocate(&mut self, ram: &mut Ram, mode: u32, start: u64, end: u64) -> KResult<()> {
        if self.seals.any(Seals::GROW) && end > self.size {
            return Err(sealed(self, "F_SEAL_GROW"));
        }
        let pages = end.div_ceil(PAGE_SIZE);
        let first = start / PAGE_SIZE;
        if pages - first > ram.frames.stats().free + self.cache.pages() {
            return Err(Errno::ENOSPC.because("no free pages for the range"));
        }
        for index in first..pages {
            match self.cache.get(index) {
                None => {
                    self.allocate(ram, index, pages, Fresh::Unused)?;
                }
                // Allocated twice: the kernel finds the page again and zeroes it for good.
                Some(folio) if !folio.uptodate => self.clear(ram, index, folio),
                Some(_) => {}
            }
        }
        if mode & KEEP_SIZE == 0 && end > self.size {
            self.size = end;
        }
        Ok(())
    }

    /// Zeroes a folio that was allocated but never used; it is valid from now on.
    fn clear(&mut self, ram: &mut Ram, index: u64, folio: Folio) {
        ram.mem.fill(folio.head.addr(), folio.order.bytes(), 0).expect("folios lie in memory");
        self.cache.mark(index, true, folio.dirty);
    }

    /// `madvise(MADV_REMOVE)` on a mapping of the file: punches a hole.
    ///
    /// # Errors
    /// EPERM: frozen, or sealed against writing.
    pub fn remove_range(&mut self, ram: &mut Ram, start: u64, end: u64) -> KResult<()> {
        if self.frozen {
            return Err(self.frozen_refusal("its layout may not change"));
        }
        self.punch(ram, start, end)
    }
}
