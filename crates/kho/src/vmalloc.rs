//! Virtually contiguous areas: a chain of chunks that lists page addresses.
//!
//! The writer opens the next chunk as soon as one is full, even when nothing follows. Chunks are preserved
//! pages of their own; the reader consumes them.

use luosim_abi::kho::vmalloc::{Descriptor, FLAG_HUGE, FLAG_PLAIN, PER_CHUNK};
use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, PhysAddr, Ram};
use zerocopy::IntoBytes;

use crate::Kho;

impl Kho {
    /// Preserves an area made of the blocks `pages`, each of order `order`.
    ///
    /// # Errors
    /// EOPNOTSUPP for other flags; ENOMEM; EINVAL with KHO off. Nothing stays preserved.
    pub fn preserve_vmalloc(
        &mut self,
        ram: &mut Ram,
        pages: &[PhysAddr],
        flags: u16,
        order: Order,
    ) -> KResult<Descriptor> {
        if flags & !(FLAG_PLAIN | FLAG_HUGE) != 0 {
            return Err(Errno::EOPNOTSUPP.because(format!("vmalloc flags {flags:#x} are not supported")));
        }
        let mut chunks = Vec::new();
        let result = self.write_chunks(ram, pages, order, &mut chunks);
        if let Err(refusal) = result {
            self.drop_vmalloc(ram, pages, order, &chunks);
            return Err(refusal);
        }
        let total = u64::try_from(pages.len()).expect("a page count") * order.pages();
        let total =
            u32::try_from(total).map_err(|_| Errno::EINVAL.because("the area has 2^32 pages or more"));
        let total_pages = total.inspect_err(|_| self.drop_vmalloc(ram, pages, order, &chunks))?;
        Ok(Descriptor {
            first: chunks.first().map_or(0, |chunk| chunk.raw()).into(),
            total_pages: total_pages.into(),
            flags: flags.into(),
            order: u16::try_from(order.raw()).expect("orders are small").into(),
        })
    }

    fn write_chunks(
        &mut self,
        ram: &mut Ram,
        pages: &[PhysAddr],
        order: Order,
        chunks: &mut Vec<PhysAddr>,
    ) -> KResult<()> {
        for page in pages {
            self.preserve_folio(ram, page.pfn(), order)?;
        }
        let mut rest = pages;
        loop {
            let chunk = self.alloc_preserve(ram, PAGE_SIZE, FrameUse::FolioTable)?;
            if let Some(before) = chunks.last() {
                ram.mem.write_u64(*before, chunk.raw()).expect("chunks lie in memory");
            }
            chunks.push(chunk);
            let (here, after) = rest.split_at(rest.len().min(PER_CHUNK));
            let mut words = [0u64; PER_CHUNK];
            for (word, page) in words.iter_mut().zip(here) {
                *word = page.raw().to_le();
            }
            let slot = chunk.checked_add(8).expect("inside the page");
            ram.mem.write(slot, words.as_bytes()).expect("chunks lie in memory");
            if here.len() < PER_CHUNK {
                return Ok(());
            }
            rest = after;
        }
    }

    fn drop_vmalloc(&mut self, ram: &mut Ram, pages: &[PhysAddr], order: Order, chunks: &[PhysAddr]) {
        for chunk in chunks {
            self.unpreserve_free(ram, *chunk);
        }
        for page in pages {
            self.unpreserve_folio(ram, page.pfn(), order);
        }
    }

    /// Undoes [`Self::preserve_vmalloc`]; the pages themselves stay with their owner, who gets them back as a
    /// list.
    pub fn unpreserve_vmalloc(&mut self, ram: &mut Ram, area: &Descriptor) -> Vec<PhysAddr> {
        let order = Order::new(u32::from(area.order.get())).unwrap_or(Order::ZERO);
        let mut pages = Vec::new();
        let mut chunks = Vec::new();
        let mut at = PhysAddr::new(area.first.get());
        let most = 2 + u64::from(area.total_pages.get()) / 511;
        while at != PhysAddr::NULL && u64::try_from(chunks.len()).expect("a count") < most {
            chunks.push(at);
            at = list_chunk(ram, at, &mut pages).unwrap_or(PhysAddr::NULL);
        }
        self.drop_vmalloc(ram, &pages, order, &chunks);
        pages
    }

    /// Hands out an area of the previous kernel: its blocks become allocated ones, its chunks are freed.
    ///
    /// # Errors
    /// EINVAL: a chunk or block that is not there, or a list that does not add up to the descriptor's pages.
    /// What was handed out before the mismatch was seen is freed again.
    pub fn restore_vmalloc(&mut self, ram: &mut Ram, area: &Descriptor) -> KResult<Vec<PhysAddr>> {
        let mut pages = Vec::new();
        let result = self.take_area(ram, area, &mut pages);
        if result.is_err() {
            for page in &pages {
                ram.free(page.pfn()).expect("they were handed out just now");
            }
        }
        result.map(|()| pages)
    }

    fn take_area(&mut self, ram: &mut Ram, area: &Descriptor, pages: &mut Vec<PhysAddr>) -> KResult<()> {
        let bad =
            |what: String| Errno::EINVAL.because(format!("the vmalloc area cannot be restored: {what}"));
        let order = Order::new(u32::from(area.order.get())).ok_or_else(|| bad(String::from("its order")))?;
        let want = u64::from(area.total_pages.get());
        let mut at = PhysAddr::new(area.first.get());
        let mut found = 0u64;
        while at != PhysAddr::NULL {
            let mut listed = Vec::new();
            if ram.frames.preserved_order(at.pfn()).is_none() || !at.is_page_aligned() {
                return Err(bad(format!("chunk {at} is not preserved")));
            }
            let next = list_chunk(ram, at, &mut listed).ok_or_else(|| bad(format!("chunk {at}")))?;
            self.restore_free(ram, at);
            for page in listed {
                found = found.saturating_add(order.pages());
                if found > want {
                    return Err(bad(format!("it lists more than its {want} pages")));
                }
                if ram.frames.preserved_order(page.pfn()) != Some(order)
                    || self.restore_folio(ram, page, FrameUse::FolioTable).is_none()
                {
                    return Err(bad(format!("page {page} is not preserved")));
                }
                pages.push(page);
            }
            at = next;
        }
        if found == want { Ok(()) } else { Err(bad(format!("it lists {found} of its {want} pages"))) }
    }
}

/// Reads one chunk: the link, and the addresses up to the first zero.
fn list_chunk(ram: &Ram, at: PhysAddr, pages: &mut Vec<PhysAddr>) -> Option<PhysAddr> {
    let mut words = [0u64; 512];
    ram.mem.read(at, words.as_mut_bytes()).ok()?;
    let listed = words[1..].iter().map(|word| u64::from_le(*word)).take_while(|word| *word != 0);
    pages.extend(listed.map(PhysAddr::new));
    Some(PhysAddr::new(u64::from_le(words[0])))
}
