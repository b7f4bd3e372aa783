//! The bytes of physical memory, in one reserved mapping.
//!
//! Private memory is anonymous and not reserved by the host: a machine of a terabyte costs the pages it
//! touches. Memory in a file is shared with whoever opens the file, so its bytes may change at any moment:
//! they are only ever copied, by volatile accesses, and no Rust reference into the mapping is made. Pages of a
//! program's own file can be mapped in ([`PhysMem::adopt`]). Every access is checked against the size in one
//! place, `PhysMem::locate`.
#![expect(unsafe_code, reason = "the one module that touches the mapping")]

mod adopted;
mod touched;
mod trial;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};

pub use adopted::{Adopted, HostFile};

/// Smallest memory: 64 KiB.
pub const MIN_LEN: u64 = 64 << 10;
/// Largest memory: 16 TiB.
pub const MAX_LEN: u64 = 16 << 40;

/// A memory that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemError {
    /// Not a multiple of the page size, or out of range.
    #[error("memory of {len:#x} bytes: the size must be a multiple of 4096 from 64 KiB to 16 TiB")]
    Size {
        /// Bytes asked for.
        len: u64,
    },
    /// The host refused the mapping or the file.
    #[error("memory of {len:#x} bytes could not be mapped")]
    Host {
        /// Bytes asked for.
        len: u64,
        /// What the host said.
        source: std::io::Error,
    },
}

/// An access outside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {addr} lie outside the {size:#x} bytes of memory")]
pub struct AccessError {
    /// First byte.
    pub addr: PhysAddr,
    /// Bytes.
    pub len: u64,
    /// Bytes of memory.
    pub size: u64,
}

#[derive(Debug)]
enum Backing {
    Private,
    File,
}

/// Physical memory, addresses from 0.
#[derive(Debug)]
pub struct PhysMem {
    map: MmapRaw,
    len: u64,
    backing: Backing,
    /// Runs of host files that lie in memory, by their first frame.
    adopted: BTreeMap<u64, Adopted>,
    /// What this trial wrote over.
    trial: Option<Box<trial::Trial>>,
}

fn check_len(len: u64) -> Result<usize, MemError> {
    if !len.is_multiple_of(PAGE_SIZE) || !(MIN_LEN..=MAX_LEN).contains(&len) {
        return Err(MemError::Size { len });
    }
    usize::try_from(len).map_err(|_| MemError::Size { len })
}

/// From so many zeros on pages are given back instead of written: the size of a huge page.
const DROPPED: u64 = 2 << 20;

impl PhysMem {
    /// Private memory of `len` zero bytes.
    ///
    /// # Errors
    /// [`MemError`] for a size out of range, or if the host has no room for the mapping.
    pub fn anonymous(len: u64) -> Result<Self, MemError> {
        let size = check_len(len)?;
        let map = MmapOptions::new()
            .len(size)
            .no_reserve_swap()
            .map_anon()
            .map_err(|source| MemError::Host { len, source })?;
        let map = MmapRaw::from(map);
        // Sparse machines must not pay for huge pages they never asked for; a host without them says no.
        let _ = map.advise(Advice::NoHugePage);
        // A child that the host forks off has no business in here.
        let _ = map.advise(Advice::DontFork);
        Ok(Self { map, len, backing: Backing::Private, adopted: BTreeMap::new(), trial: None })
    }

    /// Memory in the file at `path`, made `len` bytes long; it keeps its contents.
    ///
    /// # Errors
    /// [`MemError`] for a size out of range, or what the file system says.
    pub fn file(path: &Path, len: u64) -> Result<Self, MemError> {
        let size = check_len(len)?;
        let host = |source| MemError::Host { len, source };
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(host)?;
        file.set_len(len).map_err(host)?;
        let map = MmapOptions::new().len(size).map_raw(&file).map_err(host)?;
        Ok(Self { map, len, backing: Backing::File, adopted: BTreeMap::new(), trial: None })
    }

    /// Bytes of memory.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "memory is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The host pointer of `len` bytes at `addr`: the one bounds check.
    #[inline]
    fn locate(&self, addr: PhysAddr, len: u64) -> Result<*mut u8, AccessError> {
        let inside = addr.raw().checked_add(len).is_some_and(|end| end <= self.len);
        let offset = usize::try_from(addr.raw()).ok().filter(|_| inside);
        let offset = offset.ok_or(AccessError { addr, len, size: self.len })?;
        // SAFETY: `offset + len <= self.len`, the length of the mapping, so the pointer stays inside it (or
        // one past its end for an empty access at the end).
        Ok(unsafe { self.map.as_mut_ptr().add(offset) })
    }

    /// Copies memory at `addr` to `buf`.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied.
    #[inline]
    pub fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError> {
        let from = self.locate(addr, len64(buf.len()))?;
        if self.touches_adopted(addr, len64(buf.len())) {
            self.read_adopted(addr, buf);
            return Ok(());
        }
        // SAFETY: `locate` proved that `buf.len()` bytes at `from` lie in the mapping, which lives as long as
        // `self`; `buf` is a Rust slice and cannot overlap a mapping that no reference points into. Private
        // memory changes only through `&mut self`; file memory may change under us, hence volatile.
        unsafe {
            match self.backing {
                Backing::Private => std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()),
                Backing::File => volatile_copy(from, buf.as_mut_ptr(), buf.len()),
            }
        }
        Ok(())
    }

    /// Copies `bytes` to memory at `addr`.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied.
    #[inline]
    pub fn write(&mut self, addr: PhysAddr, bytes: &[u8]) -> Result<(), AccessError> {
        self.locate(addr, len64(bytes.len()))?;
        if self.trial.is_some() {
            self.keep(addr, len64(bytes.len()));
        }
        if self.touches_adopted(addr, len64(bytes.len())) {
            self.write_adopted(addr, bytes);
        } else {
            self.write_private(addr, bytes);
        }
        Ok(())
    }

    /// Stores to memory of our own. The range lies in memory.
    fn write_private(&mut self, addr: PhysAddr, bytes: &[u8]) {
        let to = self.locate(addr, len64(bytes.len())).expect("the caller located it");
        // SAFETY: as in `read`, with the directions exchanged; `&mut self` excludes other readers.
        unsafe {
            match self.backing {
                Backing::Private => std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()),
                Backing::File => volatile_copy(bytes.as_ptr(), to, bytes.len()),
            }
        }
    }

    /// Reads a structure.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, addr: PhysAddr) -> Result<T, AccessError> {
        let mut object = T::new_zeroed();
        self.read(addr, object.as_mut_bytes())?;
        Ok(object)
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn write_obj<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        addr: PhysAddr,
        object: &T,
    ) -> Result<(), AccessError> {
        self.write(addr, object.as_bytes())
    }

    /// Reads a little-endian u64 at any alignment.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn read_u64(&self, addr: PhysAddr) -> Result<u64, AccessError> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian u64 at any alignment.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn write_u64(&mut self, addr: PhysAddr, value: u64) -> Result<(), AccessError> {
        self.write(addr, &value.to_le_bytes())
    }

    /// Sets `len` bytes at `addr` to `byte`.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is written.
    pub fn fill(&mut self, addr: PhysAddr, len: u64, byte: u8) -> Result<(), AccessError> {
        let to = self.locate(addr, len)?;
        if self.trial.is_some() {
            self.keep(addr, len);
        }
        if self.touches_adopted(addr, len) {
            return self.fill_adopted(addr, len, byte);
        }
        if byte == 0 && len >= DROPPED && self.drop_pages(addr, len) {
            return Ok(());
        }
        let count = usize::try_from(len).expect("locate proved that it fits in the mapping");
        // SAFETY: `locate` proved that `count` bytes at `to` lie in the mapping; `&mut self` excludes others.
        // Whole bytes are stored, so it does not matter that a file's other users may look meanwhile.
        unsafe { std::ptr::write_bytes(to, byte, count) };
        Ok(())
    }

    /// Gives whole pages back to the host, which read as zeros from then on: guests of gigabytes are zeroed without being
    /// touched. `false` if it cannot be done here.
    fn drop_pages(&mut self, addr: PhysAddr, len: u64) -> bool {
        let (Ok(from), Ok(count)) = (usize::try_from(addr.raw()), usize::try_from(len)) else { return false };
        let whole = addr.is_page_aligned() && len.is_multiple_of(PAGE_SIZE);
        if !whole || !matches!(self.backing, Backing::Private) {
            return false;
        }
        // SAFETY: MADV_DONTNEED on whole pages of a private anonymous mapping drops them; later accesses read zeros. The
        // caller located the range in the mapping, and no Rust reference points into it.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, count).is_ok() }
    }

    /// [`Self::fill`] where some of the memory is a host file's.
    fn fill_adopted(&mut self, addr: PhysAddr, len: u64, byte: u8) -> Result<(), AccessError> {
        let piece = [byte; 4096];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(4096);
            let at = addr.checked_add(done).expect("the caller located the whole");
            self.write(at, &piece[..usize::try_from(step).expect("at most a page")])?;
            done += step;
        }
        Ok(())
    }

    /// Copies `len` bytes within memory; the ranges may overlap.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied.
    pub fn copy(&mut self, to: PhysAddr, from: PhysAddr, len: u64) -> Result<(), AccessError> {
        let source = self.locate(from, len)?;
        let target = self.locate(to, len)?;
        if self.trial.is_some() {
            self.keep(to, len);
        }
        if self.touches_adopted(from, len) || self.touches_adopted(to, len) {
            let mut bytes = vec![0; usize::try_from(len).expect("it lies in memory")];
            self.read(from, &mut bytes)?;
            return self.write(to, &bytes);
        }
        let count = usize::try_from(len).expect("locate proved that it fits in the mapping");
        // SAFETY: both ranges lie in the mapping; `copy` allows overlap; `&mut self` excludes others.
        unsafe { std::ptr::copy(source, target, count) };
        Ok(())
    }

    /// Whether all `len` bytes at `addr` are `byte`.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn is_filled_with(&self, addr: PhysAddr, len: u64, byte: u8) -> Result<bool, AccessError> {
        self.locate(addr, len)?;
        let mut buf = [0u8; 4096];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(4096);
            let piece = &mut buf[..usize::try_from(step).expect("at most a page")];
            let at = addr.checked_add(done).expect("locate proved that it lies in memory");
            self.read(at, piece)?;
            if piece.iter().any(|found| *found != byte) {
                return Ok(false);
            }
            done += step;
        }
        Ok(true)
    }

    /// Asks the host for huge pages behind `len` bytes at `addr`, which will soon be touched densely. Advice only.
    pub fn prefer_huge(&self, addr: PhysAddr, len: u64) {
        let end = addr.raw().saturating_add(len).min(self.len);
        let (Ok(from), Ok(to)) = (usize::try_from(addr.raw()), usize::try_from(end)) else { return };
        if let (Backing::Private, Some(len @ 1..)) = (&self.backing, to.checked_sub(from)) {
            let _ = self.map.advise_range(Advice::HugePage, from, len);
        }
    }

    /// Power off: every byte reads as zero afterwards, and the host has its pages back.
    pub fn discard_all(&mut self) {
        self.disown(Pfn::new(0), self.len / PAGE_SIZE);
        if self.trial.is_some() {
            self.keep(PhysAddr::NULL, self.len);
        }
        if let Backing::Private = self.backing {
            // SAFETY: MADV_DONTNEED on a private anonymous mapping drops its pages; later accesses read
            // zeros. No Rust reference points into the mapping, so no one sees memory change behind one.
            let dropped = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
            if dropped.is_ok() {
                return;
            }
        }
        let len = self.len;
        self.fill(PhysAddr::NULL, len, 0).expect("the whole memory lies in memory");
    }
}

fn len64(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

/// Copies `len` bytes by volatile accesses, words where both sides are aligned.
///
/// # Safety
/// `from` must be readable and `to` writable for `len` bytes; the ranges must not overlap.
unsafe fn volatile_copy(from: *const u8, to: *mut u8, len: usize) {
    let mut at = 0;
    if from.align_offset(8) == 0 && to.align_offset(8) == 0 {
        while at + 8 <= len {
            // SAFETY: `at + 8 <= len`, so both words lie in the ranges the caller vouches for, and both are
            // 8-aligned because the bases are and `at` is a multiple of 8.
            unsafe {
                let word = from.add(at).cast::<u64>().read_volatile();
                to.add(at).cast::<u64>().write_volatile(word);
            }
            at += 8;
        }
    }
    while at < len {
        // SAFETY: `at < len`: both bytes lie in the ranges the caller vouches for.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_are_named() {
        let mut mem = PhysMem::anonymous(64 << 10).expect("small");
        let end = PhysAddr::new(64 << 10);
        let mut two = [0; 2];
        for addr in [PhysAddr::new((64 << 10) - 1), end, PhysAddr::new(u64::MAX)] {
            let error = mem.read(addr, &mut two).expect_err("outside");
            assert_eq!(error, AccessError { addr, len: 2, size: 64 << 10 });
            assert!(mem.write(addr, &two).is_err() && mem.fill(addr, 2, 1).is_err());
            assert!(mem.copy(PhysAddr::NULL, addr, 2).is_err() && mem.copy(addr, PhysAddr::NULL, 2).is_err());
        }
        mem.read(end, &mut []).unwrap();
        assert!(mem.fill(PhysAddr::NULL, u64::MAX, 0).is_err());
    }

    #[test]
    fn a_trial_is_taken_back() {
        let mut mem = PhysMem::anonymous(64 << 10).expect("small");
        let at = PhysAddr::new(4090);
        mem.write(at, b"before").expect("inside");
        mem.begin_trials();
        for round in 0..3u8 {
            assert!(mem.written().is_empty());
            mem.write(at, &[round; 12]).expect("inside");
            mem.fill(PhysAddr::new(0x8000), 0x2000, round).expect("inside");
            mem.copy(PhysAddr::new(0xf000), at, 12).expect("inside");
            let written: Vec<u64> = mem.written().iter().map(|pfn| pfn.raw()).collect();
            assert_eq!(written, [0, 1, 8, 9, 15]);
            mem.take_back();
            let mut bytes = [1; 8];
            mem.read(at, &mut bytes).expect("inside");
            assert_eq!(&bytes, b"before\0\0");
            assert!(mem.is_filled_with(PhysAddr::new(0x2000), 0xe000, 0).expect("inside"));
        }
        mem.end_trials();
        mem.write(at, b"after!").expect("inside");
        mem.take_back();
        assert_eq!(mem.read_u64(at).expect("inside").to_le_bytes()[..6], *b"after!");
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for len in [0, 4096, (64 << 10) + 1, (16 << 40) + 4096, u64::MAX] {
            assert!(matches!(PhysMem::anonymous(len), Err(MemError::Size { .. })), "{len}");
        }
    }
}
