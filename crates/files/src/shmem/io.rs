//! Reading, writing, seeking and shared mappings.

use luosim_abi::{Errno, KResult};
use luosim_physmem::{PAGE_SIZE, Ram};

use super::{Fresh, MAX_SIZE, Seals, Shmem, no_memory};
use crate::page_cache::Folio;

/// The ways of `lseek(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// From the start.
    Set,
    /// From the position.
    Cur,
    /// From the end.
    End,
    /// The next byte with memory behind it.
    Data,
    /// The next hole; the end counts as one.
    Hole,
}

fn part(len: u64) -> usize {
    usize::try_from(len).expect("at most a page")
}

impl Shmem {
    /// Copies up to `buf.len()` bytes at `pos`; returns how many there were.
    pub fn read_at(&self, ram: &Ram, pos: u64, buf: &mut [u8]) -> usize {
        let want = u64::try_from(buf.len()).expect("a length fits in 64 bits");
        let len = want.min(self.size.saturating_sub(pos));
        let mut done = 0;
        while done < len {
            let at = pos + done;
            let step = (PAGE_SIZE - at % PAGE_SIZE).min(len - done);
            let piece = &mut buf[usize::try_from(done).expect("below the buffer's length")..][..part(step)];
            self.read_page(ram, at, piece);
            done += step;
        }
        usize::try_from(len).expect("at most the buffer's length")
    }

    fn read_page(&self, ram: &Ram, at: u64, piece: &mut [u8]) {
        let index = at / PAGE_SIZE;
        match self.cache.get(index).filter(|folio| folio.uptodate) {
            Some(folio) => {
                let from = folio.frame(index).addr().checked_add(at % PAGE_SIZE).expect("inside the page");
                ram.mem.read(from, piece).expect("folios lie in memory");
            }
            None => piece.fill(0),
        }
    }

    /// Writes `bytes` at `pos`, in windows that end at multiples of `window` bytes; returns how many were
    /// written.
    ///
    /// # Errors
    /// EPERM: sealed against writing, or the first window ends beyond the size of a frozen or grow-sealed
    /// file; EFBIG; ENOMEM. After a first window the count so far is returned instead.
    pub fn write_at(&mut self, ram: &mut Ram, pos: u64, bytes: &[u8], window: u64) -> KResult<usize> {
        let len = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        if len == 0 {
            return Ok(0);
        }
        let room = MAX_SIZE.saturating_sub(pos);
        if room == 0 {
            return Err(Errno::EFBIG.because("the position is the largest there is"));
        }
        let len = len.min(room);
        let mut done = 0;
        while done < len {
            let at = pos + done;
            let step = (window - at % window).min(len - done);
            let piece = &bytes[usize::try_from(done).expect("below the length")..]
                [..usize::try_from(step).expect("below the length")];
            match self.write_window(ram, at, piece) {
                Ok(written) => done += written,
                Err(refusal) if done == 0 => return Err(refusal),
                Err(_) => break,
            }
            // Memory ran out inside the window: what was written counts.
            if !(pos + done).is_multiple_of(window) {
                break;
            }
        }
        Ok(usize::try_from(done).expect("below the length"))
    }

    fn check_write(&self, end: u64) -> KResult<()> {
        if self.seals.any(Seals::WRITE.with(Seals::FUTURE_WRITE)) {
            return Err(Errno::EPERM.because(format!("{} is sealed against writing", self.describe())));
        }
        if end > self.size && self.seals.any(Seals::GROW) {
            return Err(Errno::EPERM.because(format!("{} has F_SEAL_GROW", self.describe())));
        }
        if end > self.size && self.frozen {
            return Err(self.frozen_refusal("a write may not pass its end"));
        }
        Ok(())
    }

    /// Writes one window, page by page; returns how many bytes found memory.
    fn write_window(&mut self, ram: &mut Ram, pos: u64, bytes: &[u8]) -> KResult<u64> {
        let len = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        self.check_write(pos + len)?;
        let pages = (pos + len).max(self.size).div_ceil(PAGE_SIZE);
        let mut done = 0;
        while done < len {
            let at = pos + done;
            let index = at / PAGE_SIZE;
            let step = (PAGE_SIZE - at % PAGE_SIZE).min(len - done);
            let fresh = if step == PAGE_SIZE { Fresh::Overwritten } else { Fresh::Zeroed };
            let folio = match self.page_for_write(ram, index, pages, fresh) {
                Ok(folio) => folio,
                Err(refusal) if done == 0 => return Err(refusal),
                Err(_) => return Ok(done),
            };
            let to = folio.frame(index).addr().checked_add(at % PAGE_SIZE).expect("inside the page");
            let piece = &bytes[usize::try_from(done).expect("below the length")..][..part(step)];
            ram.mem.write(to, piece).expect("folios lie in memory");
            done += step;
            self.size = self.size.max(pos + done);
        }
        Ok(len)
    }

    /// The folio of a page, made valid and dirty.
    fn page_for_write(&mut self, ram: &mut Ram, index: u64, pages: u64, fresh: Fresh) -> KResult<Folio> {
        let folio = match self.cache.get(index) {
            Some(folio) => folio,
            None => self.allocate(ram, index, pages, fresh)?,
        };
        if !folio.uptodate {
            ram.mem.fill(folio.head.addr(), folio.order.bytes(), 0).expect("folios lie in memory");
        }
        self.cache.mark(index, true, true);
        self.cache.get(index).ok_or_else(no_memory)
    }

    /// Where `lseek` ends: `offset` from `pos` or the end, or the next data or hole.
    ///
    /// # Errors
    /// EINVAL: before 0 or beyond 2^63 - 1; ENXIO: no data, or beyond the end.
    pub fn seek(&self, pos: u64, offset: i64, whence: Whence) -> KResult<u64> {
        let base = match whence {
            Whence::Set => 0,
            Whence::Cur => pos,
            Whence::End => self.size,
            Whence::Data | Whence::Hole => return self.seek_pages(offset, whence == Whence::Data),
        };
        let target = base.checked_add_signed(offset).filter(|target| *target <= MAX_SIZE);
        target.ok_or_else(|| Errno::EINVAL.because(format!("{base} and {offset} give no position")))
    }

    fn seek_pages(&self, offset: i64, data: bool) -> KResult<u64> {
        let nothing = || Errno::ENXIO.because("there is no data at or after the position");
        let start = u64::try_from(offset).ok().filter(|start| *start < self.size).ok_or_else(nothing)?;
        let first = start / PAGE_SIZE;
        if data {
            let here = self.cache.get(first).is_some_and(|folio| folio.uptodate);
            if here {
                return Ok(start);
            }
            let next = self.cache.iter_from(first).find(|(_, folio)| folio.uptodate);
            let at = next.map(|(index, _)| index * PAGE_SIZE).filter(|at| *at < self.size);
            return at.ok_or_else(nothing);
        }
        let mut index = first;
        while let Some(folio) = self.cache.get(index).filter(|folio| folio.uptodate) {
            index = (index & !(folio.order.pages() - 1)) + folio.order.pages();
        }
        Ok((index * PAGE_SIZE).max(start).min(self.size))
    }

    /// Checks a new shared mapping and counts it if a program may write through it.
    ///
    /// # Errors
    /// EPERM: writable, and sealed against writing.
    pub fn map_shared(&mut self, write: bool, may_write: bool) -> KResult<()> {
        if write && self.seals.any(Seals::WRITE.with(Seals::FUTURE_WRITE)) {
            return Err(Errno::EPERM.because(format!("{} is sealed against writing", self.describe())));
        }
        if may_write && !self.seals.any(Seals::WRITE) {
            self.writable_mappings += 1;
        }
        Ok(())
    }

    /// A mapping that [`Self::map_shared`] counted is gone.
    pub fn unmap_shared(&mut self) {
        self.writable_mappings = self.writable_mappings.saturating_sub(1);
    }

    /// Reads through a mapping. Pages are made by touching them.
    ///
    /// # Errors
    /// EFAULT with SIGBUS in the reason beyond the last page; ENOMEM.
    pub fn load(&mut self, ram: &mut Ram, offset: u64, buf: &mut [u8]) -> KResult<()> {
        self.touch(ram, offset, buf.len(), false)?;
        for (byte, at) in buf.iter_mut().zip(offset..) {
            self.read_page(ram, at, std::slice::from_mut(byte));
        }
        Ok(())
    }

    /// Writes through a mapping; bytes after the end, in the last page, are kept but are not in the file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn store(&mut self, ram: &mut Ram, offset: u64, bytes: &[u8]) -> KResult<()> {
        self.touch(ram, offset, bytes.len(), true)?;
        for (byte, at) in bytes.iter().zip(offset..) {
            let index = at / PAGE_SIZE;
            let folio = self.cache.get(index).expect("touched above");
            let to = folio.frame(index).addr().checked_add(at % PAGE_SIZE).expect("inside the page");
            ram.mem.write(to, std::slice::from_ref(byte)).expect("folios lie in memory");
        }
        Ok(())
    }

    fn touch(&mut self, ram: &mut Ram, offset: u64, len: usize, write: bool) -> KResult<()> {
        let len = u64::try_from(len).expect("a length fits in 64 bits");
        let pages = self.size.div_ceil(PAGE_SIZE);
        let end = offset.saturating_add(len).div_ceil(PAGE_SIZE);
        if end > pages && len > 0 {
            let size = self.size;
            let why = format!(
                "SIGBUS: byte {} lies beyond the last page of {size} bytes",
                offset.saturating_add(len)
            );
            return Err(Errno::EFAULT.because(why));
        }
        for index in offset / PAGE_SIZE..end {
            let dirty = self.cache.get(index).is_some_and(|folio| folio.dirty);
            self.page_for_write(ram, index, pages, Fresh::Zeroed)?;
            self.cache.mark(index, true, dirty || write);
        }
        Ok(())
    }
}
