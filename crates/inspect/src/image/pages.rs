//! Memory of which only the pages that are not zero are kept: what a packed image becomes.

use std::ops::ControlFlow;

use luosim_physmem::{AccessError, PAGE_SIZE, PhysAddr};

use super::Visit;

const PAGE: usize = 4096;
/// Pages in a chunk.
const CHUNK: usize = 256;

/// The pages that are not zero.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    size: u64,
    /// Numbers of the kept pages, ascending.
    numbers: Vec<u64>,
    /// Their contents, in chunks that never move.
    chunks: Vec<Vec<u8>>,
}

impl Pages {
    /// Memory with the bytes of `memory`.
    pub(crate) fn of(memory: &[u8]) -> Self {
        let mut pages = Self::default();
        pages.append(0, memory);
        pages.set_size(u64::try_from(memory.len()).expect("a length fits in 64 bits"));
        pages
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    /// Bytes kept.
    pub(crate) fn kept(&self) -> usize {
        self.numbers.len() * PAGE
    }

    /// Stores `bytes` at `at`, behind everything stored before or in its last page.
    pub(crate) fn append(&mut self, at: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let skip = usize::try_from(at % PAGE_SIZE).expect("inside a page");
            let (piece, after) = rest.split_at(rest.len().min(PAGE - skip));
            if !is_zero(piece) {
                self.put(at / PAGE_SIZE, skip, piece);
            }
            at += u64::try_from(piece.len()).expect("at most a page");
            rest = after;
        }
    }

    fn put(&mut self, number: u64, skip: usize, piece: &[u8]) {
        if self.numbers.last() != Some(&number) {
            if self.numbers.len().is_multiple_of(CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK * PAGE));
            }
            self.numbers.push(number);
            let chunk = self.chunks.last_mut().expect("there is one");
            chunk.resize(chunk.len() + PAGE, 0);
        }
        let chunk = self.chunks.last_mut().expect("there is one");
        let base = chunk.len() - PAGE + skip;
        chunk[base..base + piece.len()].copy_from_slice(piece);
    }

    fn at(&self, index: usize) -> &[u8] {
        let within = index % CHUNK * PAGE;
        &self.chunks[index / CHUNK][within..within + PAGE]
    }

    fn page(&self, number: u64) -> Option<&[u8]> {
        self.numbers.binary_search(&number).ok().map(|index| self.at(index))
    }

    pub(crate) fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError> {
        let len = u64::try_from(buf.len()).expect("a length fits in 64 bits");
        if addr.raw().checked_add(len).is_none_or(|end| end > self.size) {
            return Err(AccessError { addr, len, size: self.size });
        }
        let (mut at, mut rest) = (addr.raw(), buf);
        while !rest.is_empty() {
            let skip = usize::try_from(at % PAGE_SIZE).expect("inside a page");
            let here = rest.len().min(PAGE - skip);
            let (piece, after) = rest.split_at_mut(here);
            match self.page(at / PAGE_SIZE) {
                Some(page) => piece.copy_from_slice(&page[skip..skip + here]),
                None => piece.fill(0),
            }
            at += u64::try_from(here).expect("at most a page");
            rest = after;
        }
        Ok(())
    }

    /// Shows every kept page.
    pub(crate) fn visit(&self, visit: &mut Visit<'_>) -> ControlFlow<()> {
        for (index, number) in self.numbers.iter().enumerate() {
            visit(PhysAddr::new(number * PAGE_SIZE), self.at(index))?;
        }
        ControlFlow::Continue(())
    }
}

/// Whether all bytes are zero. In pieces that the compiler makes vector code of: images are mostly zeros, and
/// looking at them byte by byte takes longer than unpacking them.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}
