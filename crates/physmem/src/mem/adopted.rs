//! Pages of a host file as physical memory: a program's own memfd, preserved without a copy.
//!
//! A run of the file is mapped over frames of the machine, shared and read-only, so that a seal against writing
//! can still be set on it. What the program stores meanwhile is what the frames hold. The file may shrink under
//! us at any moment, which makes an access through the mapping a fault: the bytes are therefore copied by the
//! host (`process_vm_readv` on ourselves), which answers with an error instead; a page that is gone reads as
//! zeros. Stores go through the file; one that the host refuses (a sealed file) is lost, as in a ROM.
#![expect(unsafe_code, reason = "maps host files over frames")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use super::{MemError, PhysMem, len64};
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};

/// A file of the host whose pages serve as physical memory.
#[derive(Clone, Debug)]
pub struct HostFile {
    /// What the program's descriptor refers to; kept for reading, writing and giving back.
    pub file: Arc<File>,
    /// What is mapped: opened for reading only where the host allows it.
    pub mapped: Arc<File>,
}

/// A run of a host file that lies in memory.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The file.
    pub file: HostFile,
    /// Page of the file that the first frame holds.
    pub page: u64,
    /// Frames.
    pub pages: u64,
}

impl PhysMem {
    /// Maps `pages` pages of `file`, from page `page` of it, over the frames at `pfn`.
    ///
    /// # Errors
    /// [`MemError::Size`] outside memory; [`MemError::Host`]: the host has no room for another mapping.
    pub fn adopt(&mut self, pfn: Pfn, pages: u64, file: &HostFile, page: u64) -> Result<(), MemError> {
        let (at, len) = self.frames_at(pfn, pages)?;
        // SAFETY: `frames_at` proved that the range lies in our mapping, which no Rust reference points into;
        // MAP_FIXED replaces exactly these pages, and the mapping as a whole is unmapped when `self` goes.
        let mapped = unsafe {
            let flags = MapFlags::SHARED.union(MapFlags::FIXED);
            mmap(at.cast(), len, ProtFlags::READ, flags, &*file.mapped, page * PAGE_SIZE)
        };
        mapped.map_err(|error| MemError::Host { len: len64(len), source: error.into() })?;
        self.adopted.insert(pfn.raw(), Adopted { file: file.clone(), page, pages });
        Ok(())
    }

    fn frames_at(&self, pfn: Pfn, pages: u64) -> Result<(*mut u8, usize), MemError> {
        let bytes = pages.saturating_mul(PAGE_SIZE);
        let at = self.locate(pfn.addr(), bytes).map_err(|_| MemError::Size { len: bytes })?;
        Ok((at, usize::try_from(bytes).map_err(|_| MemError::Size { len: bytes })?))
    }

    /// Gives `pages` frames at `pfn` private pages again, wherever they are a host file's.
    pub fn disown(&mut self, pfn: Pfn, pages: u64) {
        if self.adopted.is_empty() {
            return;
        }
        let (from, to) = (pfn.raw(), pfn.raw() + pages);
        while let Some((start, run)) = self.overlapping(from, to) {
            self.adopted.remove(&start);
            let (cut_from, cut_to) = (from.max(start), to.min(start + run.pages));
            self.make_private(Pfn::new(cut_from), cut_to - cut_from);
            if start < cut_from {
                self.adopted.insert(start, Adopted { pages: cut_from - start, ..run.clone() });
            }
            if cut_to < start + run.pages {
                let page = run.page + (cut_to - start);
                self.adopted.insert(cut_to, Adopted { page, pages: start + run.pages - cut_to, ..run });
            }
        }
    }

    fn overlapping(&self, from: u64, to: u64) -> Option<(u64, Adopted)> {
        let (start, run) = self.adopted.range(..to).next_back()?;
        (start + run.pages > from).then(|| (*start, run.clone()))
    }

    fn make_private(&mut self, pfn: Pfn, pages: u64) {
        let (at, len) = self.frames_at(pfn, pages).expect("adopted frames lie in memory");
        // SAFETY: as in `adopt`; the pages become private zero pages of ours again.
        let mapped = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            mmap_anonymous(at.cast(), len, ProtFlags::READ | ProtFlags::WRITE, flags)
        };
        mapped.expect("replacing a mapping by an anonymous one needs no more room than it had");
    }

    /// The host file that frame `pfn` is a page of, from that frame on.
    #[must_use]
    pub fn adopted_at(&self, pfn: Pfn) -> Option<Adopted> {
        let (start, run) = self.adopted.range(..=pfn.raw()).next_back()?;
        let into = pfn.raw() - start;
        (into < run.pages).then(|| Adopted {
            file: run.file.clone(),
            page: run.page + into,
            pages: run.pages - into,
        })
    }

    /// Runs of host files that lie in memory: first frame and count, ascending.
    #[must_use]
    pub fn adopted_runs(&self) -> Vec<(u64, u64)> {
        self.adopted.iter().map(|(first, run)| (*first, run.pages)).collect()
    }

    /// Whether any of `len` bytes at `addr` is a host file's.
    pub(super) fn touches_adopted(&self, addr: PhysAddr, len: u64) -> bool {
        if self.adopted.is_empty() || len == 0 {
            return false;
        }
        let end = addr.raw().saturating_add(len).div_ceil(PAGE_SIZE);
        self.overlapping(addr.pfn().raw(), end).is_some()
    }

    /// Copies memory that may be a host file's, page by page. The range lies in memory.
    pub(super) fn read_adopted(&self, addr: PhysAddr, buf: &mut [u8]) {
        for (at, piece) in pages_of(addr, buf) {
            let from = self.locate(at, len64(piece.len())).expect("the caller located the whole");
            if !copy_by_host(from, piece) {
                piece.fill(0);
            }
        }
    }

    /// Stores memory that may be a host file's. The range lies in memory.
    pub(super) fn write_adopted(&mut self, addr: PhysAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        for (at, piece) in pages_of(addr, &mut bytes) {
            match self.adopted_at(at.pfn()) {
                Some(run) => {
                    // A refusal loses the store: see the module's head.
                    let _ = run.file.file.write_all_at(piece, run.page * PAGE_SIZE + at.page_offset());
                }
                None => self.write_private(at, piece),
            }
        }
    }
}

/// The pieces of a buffer by page of memory.
fn pages_of(addr: PhysAddr, buf: &mut [u8]) -> impl Iterator<Item = (PhysAddr, &mut [u8])> {
    let mut rest = buf;
    let mut at = addr;
    std::iter::from_fn(move || {
        let taken = std::mem::take(&mut rest);
        if taken.is_empty() {
            return None;
        }
        let room = usize::try_from(PAGE_SIZE - at.page_offset()).expect("at most a page");
        let (piece, left) = taken.split_at_mut(room.min(taken.len()));
        rest = left;
        let here = at;
        at = at.checked_add(len64(piece.len())).expect("the range lies in memory");
        Some((here, piece))
    })
}

/// Lets the host copy from our own mapping: a page that cannot be had is an error and not a signal.
fn copy_by_host(from: *const u8, to: &mut [u8]) -> bool {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: from.cast_mut().cast(), iov_len: to.len() };
    // SAFETY: `local` is a live buffer of that length; `remote` is only read by the host, which checks it; the
    // pid is our own.
    let copied =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied) == Ok(to.len())
}
