//! Memory in a file, read by position. The file is never mapped: one that shrinks under a mapping kills its
//! reader. Holes of the file are asked for, not read.

use std::cell::RefCell;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use luosim_physmem::{AccessError, PAGE_SIZE, PhysAddr};

use super::Visit;

const PAGE: usize = 4096;
/// Pages in the cache.
const SLOTS: u64 = 512;
/// Bytes read at a time in a search.
const STRIDE: u64 = 1 << 20;

/// A range of memory in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First physical address.
    pub(crate) start: u64,
    /// Bytes of memory; those behind `filed` are zeros.
    pub(crate) len: u64,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Bytes in the file.
    pub(crate) filed: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

#[derive(Debug)]
struct Slot {
    page: u64,
    bytes: Box<[u8; PAGE]>,
}

/// Memory in a file.
#[derive(Debug)]
pub(crate) struct FileMemory {
    file: File,
    /// Disjoint, ascending.
    segments: Vec<Segment>,
    cache: RefCell<Vec<Option<Slot>>>,
    /// The first read that the host refused.
    failure: RefCell<Option<String>>,
}

impl FileMemory {
    /// The memory that `segments` of `file` hold. Of segments that overlap the first by address is believed.
    pub(crate) fn new(file: File, mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| (segment.start, segment.offset));
        let mut end = 0;
        segments.retain_mut(|segment| {
            let cut = end.max(segment.start) - segment.start;
            if cut >= segment.len {
                return false;
            }
            segment.start += cut;
            segment.len -= cut;
            segment.offset += cut.min(segment.filed);
            segment.filed = segment.filed.saturating_sub(cut);
            end = segment.end();
            true
        });
        let cache = (0..SLOTS).map(|_| None).collect();
        Self { file, segments, cache: RefCell::new(cache), failure: RefCell::new(None) }
    }

    pub(crate) fn size(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// What the host said when the file could not be read.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    pub(crate) fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError> {
        let len = u64::try_from(buf.len()).expect("a length fits in 64 bits");
        let outside = AccessError { addr, len, size: self.size() };
        let mut at = addr.raw();
        let mut rest = buf;
        while !rest.is_empty() {
            let index = self.segments.partition_point(|segment| segment.end() <= at);
            let segment = self.segments.get(index).filter(|segment| segment.start <= at).ok_or(outside)?;
            let here = clip(segment.end() - at, rest.len());
            let (piece, after) = rest.split_at_mut(here);
            self.read_segment(segment, at - segment.start, piece).map_err(|()| outside)?;
            at += u64::try_from(here).expect("a length fits in 64 bits");
            rest = after;
        }
        Ok(())
    }

    /// Reads within one segment.
    fn read_segment(&self, segment: &Segment, skip: u64, buf: &mut [u8]) -> Result<(), ()> {
        let filed = clip(segment.filed.saturating_sub(skip), buf.len());
        let (piece, zeros) = buf.split_at_mut(filed);
        zeros.fill(0);
        if piece.is_empty() {
            return Ok(());
        }
        let offset = segment.offset + skip;
        if piece.len() > 4 * PAGE { self.direct(offset, piece) } else { self.cached(offset, piece) }
    }

    fn direct(&self, offset: u64, buf: &mut [u8]) -> Result<(), ()> {
        self.file.read_exact_at(buf, offset).map_err(|error| self.fail(offset, &error))
    }

    fn fail(&self, offset: u64, error: &std::io::Error) {
        let text = format!("the file cannot be read at byte {offset:#x}: {error}");
        self.failure.borrow_mut().get_or_insert(text);
    }

    /// Reads through the cache, page by page of the file.
    fn cached(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), ()> {
        while !buf.is_empty() {
            let (page, skip) = (offset / PAGE_SIZE, offset % PAGE_SIZE);
            let here = clip(PAGE_SIZE - skip, buf.len());
            let (piece, rest) = buf.split_at_mut(here);
            let mut cache = self.cache.borrow_mut();
            let slot = &mut cache[usize::try_from(page % SLOTS).expect("few slots")];
            if slot.as_ref().is_none_or(|slot| slot.page != page) {
                *slot = Some(Slot { page, bytes: self.load(page)? });
            }
            let bytes = &slot.as_ref().expect("it was just loaded").bytes;
            let skip = usize::try_from(skip).expect("inside a page");
            piece.copy_from_slice(&bytes[skip..skip + here]);
            offset += u64::try_from(here).expect("at most a page");
            buf = rest;
        }
        Ok(())
    }

    /// A page of the file; the last one may be short, its rest is not asked for by anyone.
    fn load(&self, page: u64) -> Result<Box<[u8; PAGE]>, ()> {
        let mut bytes = Box::new([0; PAGE]);
        let mut done = 0;
        while done < PAGE {
            let at = page * PAGE_SIZE + u64::try_from(done).expect("inside a page");
            match self.file.read_at(&mut bytes[done..], at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(at, &error);
                    return Err(());
                }
            }
        }
        if done == 0 {
            self.fail(page * PAGE_SIZE, &std::io::ErrorKind::UnexpectedEof.into());
            return Err(());
        }
        Ok(bytes)
    }

    /// Shows every range that is not a hole of the file, in pieces that begin at a page.
    pub(crate) fn visit(&self, visit: &mut Visit<'_>) -> ControlFlow<()> {
        let mut buf = vec![0; usize::try_from(STRIDE).expect("a mebibyte")];
        for segment in &self.segments {
            let mut done = 0;
            while done < segment.filed {
                let data = next_data(&self.file, segment.offset + done) - segment.offset;
                // A piece begins at a page of memory.
                let from = data.max(done) & !(PAGE_SIZE - 1);
                done = from.saturating_add(STRIDE).min(segment.filed);
                let Some(len @ 1..) = done.checked_sub(from) else { break };
                let piece = &mut buf[..usize::try_from(len).expect("at most the stride")];
                if self.direct(segment.offset + from, piece).is_ok() {
                    visit(PhysAddr::new(segment.start + from), piece)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// `most` or `len`, whichever is less.
fn clip(most: u64, len: usize) -> usize {
    usize::try_from(most).map_or(len, |most| most.min(len))
}

/// Where the next data begins in the file, at or after `at`; far behind its end if there is none.
fn next_data(file: &File, at: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(found) => found,
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        // A file system that does not tell.
        Err(_) => at,
    }
}
