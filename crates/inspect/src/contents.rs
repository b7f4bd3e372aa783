//! The contents of a preserved memory file: where they lie, their digest, and writing them out.

use std::fs::File;
use std::os::unix::fs::FileExt;

use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr, ReadPhys};
use sha2::{Digest, Sha256};

use crate::image::{Memory, is_zero};
use crate::report::hex;

/// Bytes handled at a time.
const STEP: u64 = 1 << 16;

/// A run of pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// First page in the file.
    pub(crate) index: u64,
    pub(crate) pages: u64,
    /// First frame; `None` if the contents are not valid and read as zeros.
    pub(crate) at: Option<Pfn>,
    /// The entry of the folio table.
    pub(crate) entry: PhysAddr,
}

impl Extent {
    /// Adds an extent; one that goes on where the last ends is put to it.
    pub(crate) fn push(list: &mut Vec<Self>, next: Self) {
        if let Some(last) = list.last_mut() {
            let follows = last.index.checked_add(last.pages) == Some(next.index);
            let adjacent = match (last.at, next.at) {
                (Some(before), Some(after)) => before.checked_add(last.pages) == Some(after),
                (before, after) => before.is_none() && after.is_none(),
            };
            if follows && adjacent {
                last.pages += next.pages;
                return;
            }
        }
        list.push(next);
    }

    /// Pages of it below page `end` of the file.
    pub(crate) fn within(&self, end: u64) -> u64 {
        end.saturating_sub(self.index).min(self.pages)
    }

    /// Takes away the pages below `index`.
    pub(crate) fn cut(&mut self, index: u64) {
        let gone = index.saturating_sub(self.index).min(self.pages);
        self.index = self.index.saturating_add(gone);
        self.pages -= gone;
        self.at = self.at.and_then(|at| at.checked_add(gone));
    }
}

/// Shows the pieces of the file that may hold something else than zeros, with their offsets, ascending.
fn pieces(
    mem: &Memory,
    extents: &[Extent],
    size: u64,
    mut show: impl FnMut(u64, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; usize::try_from(STEP).expect("64 KiB")];
    for extent in extents {
        let (Some(pfn), Some(mut offset)) = (extent.at, extent.index.checked_mul(PAGE_SIZE)) else {
            continue;
        };
        let mut at = pfn.addr();
        let end = offset.saturating_add(extent.pages.saturating_mul(PAGE_SIZE)).min(size);
        while offset < end {
            let len = (end - offset).min(STEP);
            let piece = &mut buffer[..usize::try_from(len).expect("at most a step")];
            mem.read_bytes(at, piece).map_err(std::io::Error::other)?;
            if !is_zero(piece) {
                show(offset, piece)?;
            }
            offset += len;
            at = PhysAddr::new(at.raw() + len);
        }
    }
    Ok(())
}

/// The digest of the contents, hexadecimal. What cannot be read counts as zeros.
pub(crate) fn sha256(mem: &Memory, extents: &[Extent], size: u64) -> String {
    let mut digest = Sha256::new();
    let mut done = 0;
    let _ = pieces(mem, extents, size, |offset, piece| {
        zeros(&mut digest, offset - done);
        digest.update(piece);
        done = offset + u64::try_from(piece.len()).expect("at most a step");
        Ok(())
    });
    zeros(&mut digest, size - done);
    hex(&digest.finalize())
}

fn zeros(digest: &mut Sha256, mut count: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while count > 0 {
        let step = count.min(4096);
        digest.update(&ZEROS[..usize::try_from(step).expect("at most a page")]);
        count -= step;
    }
}

/// Writes the contents into `to`, an empty file. Pages of zeros become holes.
///
/// # Errors
/// What the host says, or that the contents do not lie in memory.
pub(crate) fn write(mem: &Memory, extents: &[Extent], size: u64, to: &File) -> std::io::Result<()> {
    to.set_len(size)?;
    pieces(mem, extents, size, |offset, piece| {
        let pages = (0..).map(|page| page * PAGE_SIZE).zip(piece.chunks(4096));
        pages
            .filter(|(_, page)| !is_zero(page))
            .try_for_each(|(skip, page)| to.write_all_at(page, offset + skip))
    })
}

/// A file whose contents are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'a> {
    pub(crate) mem: &'a Memory,
    pub(crate) extents: &'a [Extent],
    pub(crate) size: u64,
}

impl Contents<'_> {
    /// Page `index` of the file; zeros where there is none.
    fn page(&self, index: u64, page: &mut [u8; 4096]) {
        page.fill(0);
        let place = self.extents.partition_point(|extent| extent.index <= index).checked_sub(1);
        let Some(extent) = place.map(|place| &self.extents[place]) else { return };
        let skip = index - extent.index;
        let Some(pfn) = extent.at.filter(|_| skip < extent.pages).and_then(|at| at.checked_add(skip)) else {
            return;
        };
        let start = index * PAGE_SIZE;
        let len = usize::try_from(self.size.saturating_sub(start).min(PAGE_SIZE)).expect("at most a page");
        if self.mem.read_bytes(pfn.addr(), &mut page[..len]).is_err() {
            page.fill(0);
        }
    }

    /// Where contents may be, in pages of the file.
    fn spans(&self) -> impl Iterator<Item = (u64, u64)> {
        let pages = self.size.div_ceil(PAGE_SIZE);
        let there = self.extents.iter().filter(|extent| extent.at.is_some());
        there.map(move |extent| (extent.index, extent.index.saturating_add(extent.within(pages))))
    }

    /// The digest; not of a file that claims to be larger than memory, which would take for ever.
    pub(crate) fn sha256(&self) -> String {
        if self.size > self.mem.size() {
            return String::from("larger than memory");
        }
        sha256(self.mem, self.extents, self.size)
    }
}

/// How two contents differ: the first byte, and the number of pages. Neither is read where both have holes.
pub(crate) fn compare(one: Contents<'_>, other: Contents<'_>) -> Option<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = one.spans().chain(other.spans()).collect();
    spans.sort_unstable();
    let (mut left, mut right) = ([0; 4096], [0; 4096]);
    let (mut first, mut pages, mut done) = (None, 0, 0);
    for (from, to) in spans {
        for index in from.max(done)..to {
            one.page(index, &mut left);
            other.page(index, &mut right);
            if left != right {
                let at = (0u64..).zip(left.iter().zip(&right)).find(|(_, (left, right))| left != right);
                first = first.or(at.map(|(at, _)| index * PAGE_SIZE + at));
                pages += 1;
            }
        }
        done = done.max(to);
    }
    first.map(|first| (first, pages))
}
