//! `kho-v1`: bitmaps by order, listed in chunks only when KHO is finalised.
//!
//! Finalising may be repeated: a new list is written and the old one freed. The list names the bitmaps
//! themselves: what is preserved later in one of them is handed over, what needs a new bitmap only when it is
//! finalised again.

use std::collections::BTreeMap;

use luosim_abi::KResult;
use luosim_abi::kho::v1::{self, ChunkEntry, ChunkHeader};
use luosim_physmem::{Order, Pfn, PhysAddr, Ram};

use super::{Tally, change_bit, new_page};

/// The bitmaps of one kernel, by order and index.
#[derive(Debug, Default)]
pub struct Bitmaps {
    pages: BTreeMap<(u32, u64), PhysAddr>,
    last: Option<((u32, u64), PhysAddr)>,
    chunks: Vec<PhysAddr>,
    tally: Tally,
}

impl Bitmaps {
    /// What is in the set.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn find(&mut self, at: (u32, u64)) -> Option<PhysAddr> {
        match self.last {
            Some((last, page)) if last == at => Some(page),
            _ => {
                let page = *self.pages.get(&at)?;
                self.last = Some((at, page));
                Some(page)
            }
        }
    }

    /// Adds a block.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn add(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) -> KResult<()> {
        let (index, bit) = v1::locate(pfn.raw(), order.raw());
        let at = (order.raw(), index);
        let page = match self.find(at) {
            Some(page) => page,
            None => {
                let page = new_page(ram)?;
                self.pages.insert(at, page);
                page
            }
        };
        if change_bit(ram, page, bit, true) {
            self.tally.add(order);
        }
        Ok(())
    }

    /// Removes a block if it is there.
    pub fn remove(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) {
        let (index, bit) = v1::locate(pfn.raw(), order.raw());
        if let Some(page) = self.find((order.raw(), index))
            && change_bit(ram, page, bit, false)
        {
            self.tally.sub(order);
        }
    }

    /// Writes the list of chunks: orders ascending, bitmaps ascending, 255 to a chunk. Returns the first; 0
    /// if nothing was ever preserved.
    ///
    /// # Errors
    /// ENOMEM; the list written before, if any, stays.
    pub fn finalize(&mut self, ram: &mut Ram) -> KResult<PhysAddr> {
        let mut new = Vec::new();
        let written = self.write_chunks(ram, &mut new);
        let unused = if written.is_ok() { std::mem::replace(&mut self.chunks, new) } else { new };
        for chunk in unused {
            ram.free(chunk.pfn()).expect("chunks are this tracker's pages");
        }
        written.map(|()| self.chunks.first().copied().unwrap_or(PhysAddr::NULL))
    }

    /// Forgets every block, and gives the bitmaps and the list back.
    pub fn clear(&mut self, ram: &mut Ram) {
        for page in std::mem::take(self).into_pages() {
            ram.free(page.pfn()).expect("bitmaps and chunks are this tracker's pages");
        }
    }

    fn into_pages(self) -> impl Iterator<Item = PhysAddr> {
        self.pages.into_values().chain(self.chunks)
    }

    fn write_chunks(&self, ram: &mut Ram, chunks: &mut Vec<PhysAddr>) -> KResult<()> {
        let mut open: Option<(u32, usize)> = None;
        for ((order, index), page) in &self.pages {
            let used = match open {
                Some((current, used)) if current == *order && used < v1::ENTRIES_PER_CHUNK => used,
                _ => {
                    let chunk = new_page(ram)?;
                    if let Some(before) = chunks.last() {
                        ram.mem.write_u64(*before, chunk.raw()).expect("chunks lie in memory");
                    }
                    chunks.push(chunk);
                    0
                }
            };
            let chunk = *chunks.last().expect("pushed above");
            write_entry(ram, chunk, *order, used, *index, *page);
            open = Some((*order, used + 1));
        }
        Ok(())
    }
}

fn write_entry(ram: &mut Ram, chunk: PhysAddr, order: u32, used: usize, index: u64, page: PhysAddr) {
    let used = u32::try_from(used).expect("at most 255");
    let next = ram.mem.read_u64(chunk).expect("chunks lie in memory");
    let header = ChunkHeader { next: next.into(), order: order.into(), num_elms: (used + 1).into() };
    ram.mem.write_obj(chunk, &header).expect("chunks lie in memory");
    let entry = ChunkEntry { phys_start: v1::phys_start(index, order).into(), bitmap: page.raw().into() };
    let at = chunk.checked_add(16 + 16 * u64::from(used)).expect("inside the page");
    ram.mem.write_obj(at, &entry).expect("chunks lie in memory");
}
