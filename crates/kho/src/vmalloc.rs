//! Virtually contiguous areas: a chain of chunks that lists page addresses.
//!
//! The writer opens the next chunk as soon as one is full, even when nothing follows. Chunks are preserved
//! pages of their own; the reader consumes them.

use std::fmt;

use luosim_abi::kho::vmalloc::{Descriptor, FLAG_HUGE, FLAG_PLAIN, PER_CHUNK};
use luosim_abi::{Errno, KResult, Refusal};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, PhysAddr, Ram};
use zerocopy::IntoBytes;

use crate::Kho;

impl Kho {
    /// Preserves an area made of the blocks `pages`, each of order `order`.
    ///
    /// # Errors
    /// EOPNOTSUPP for other flags; EINVAL for 2^32 base pages or more, or with KHO off; ENOMEM. Nothing of it
    /// stays preserved.
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
        let total = u64::try_from(pages.len()).ok().and_then(|blocks| blocks.checked_mul(order.pages()));
        let total = total.and_then(|total| u32::try_from(total).ok());
        let total = total.ok_or_else(|| Errno::EINVAL.because("the area has 2^32 pages or more"))?;
        self.preserve_all(ram, pages, order)?;
        let mut chunks = Vec::new();
        if let Err(refusal) = self.write_chunks(ram, pages, &mut chunks) {
            self.drop_vmalloc(ram, pages, order, &chunks);
            return Err(refusal);
        }
        Ok(Descriptor {
            first: chunks.first().map_or(0, |chunk| chunk.raw()).into(),
            total_pages: total.into(),
            flags: flags.into(),
            order: u16::try_from(order.raw()).expect("orders are small").into(),
        })
    }

    fn preserve_all(&mut self, ram: &mut Ram, pages: &[PhysAddr], order: Order) -> KResult<()> {
        for (done, page) in pages.iter().enumerate() {
            if let Err(refusal) = self.preserve_folio(ram, page.pfn(), order) {
                self.drop_vmalloc(ram, &pages[..done], order, &[]);
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn write_chunks(&mut self, ram: &mut Ram, pages: &[PhysAddr], chunks: &mut Vec<PhysAddr>) -> KResult<()> {
        let mut rest = pages;
        loop {
            let chunk = self.alloc_preserve(ram, PAGE_SIZE, FrameUse::FolioTable)?;
            if let Some(before) = chunks.last() {
                ram.mem.write_u64(*before, chunk.raw()).expect("chunks lie in memory");
            }
            chunks.push(chunk);
            let (here, after) = rest.split_at(rest.len().min(PER_CHUNK));
            let words: Vec<u64> = here.iter().map(|page| page.raw().to_le()).collect();
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
    /// A block must have the area's order; the kernel only looks for its head. Unknown flags are ignored.
    ///
    /// # Errors
    /// EINVAL: a chunk or block that is not there, or a list that does not add up to the descriptor's pages.
    /// What was handed out before the mismatch was seen is freed again (the kernel leaks it); the chunk in
    /// which it was seen and those behind it stay preserved.
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
        let order = area.order.get();
        let order =
            Order::new(u32::from(order)).ok_or_else(|| mismatch(format_args!("its order is {order}")))?;
        let want = u64::from(area.total_pages.get()) / order.pages();
        let mut at = PhysAddr::new(area.first.get());
        // Ends: every turn frees a preserved block.
        while at != PhysAddr::NULL {
            at = self.take_chunk(ram, at, order, want, pages)?;
        }
        let found = u64::try_from(pages.len()).expect("a page count") * order.pages();
        if found == u64::from(area.total_pages.get()) {
            return Ok(());
        }
        Err(mismatch(format_args!("it lists {found} of its {} pages", area.total_pages.get())))
    }

    /// Takes the blocks that a chunk lists, frees it, and gives the address of the next.
    fn take_chunk(
        &mut self,
        ram: &mut Ram,
        at: PhysAddr,
        order: Order,
        want: u64,
        pages: &mut Vec<PhysAddr>,
    ) -> KResult<PhysAddr> {
        let gone = || mismatch(format_args!("chunk {at} is not preserved"));
        if !at.is_page_aligned() || ram.frames.preserved_order(at.pfn()).is_none() {
            return Err(gone());
        }
        let mut listed = Vec::new();
        let next = list_chunk(ram, at, &mut listed).ok_or_else(gone)?;
        for page in listed {
            if u64::try_from(pages.len()).expect("a page count") == want {
                return Err(mismatch(format_args!("it lists more than {want} blocks of order {order}")));
            }
            self.take_block(ram, page, order)?;
            pages.push(page);
        }
        if self.restore_free(ram, at) { Ok(next) } else { Err(gone()) }
    }

    fn take_block(&mut self, ram: &mut Ram, page: PhysAddr, order: Order) -> KResult<()> {
        let there = ram.frames.preserved_order(page.pfn()) == Some(order)
            && self.restore_folio(ram, page, FrameUse::FolioTable).is_some();
        if there {
            Ok(())
        } else {
            Err(mismatch(format_args!("no block of order {order} is preserved at {page}")))
        }
    }
}

fn mismatch(what: fmt::Arguments<'_>) -> Refusal {
    Errno::EINVAL.because(format!("the vmalloc area cannot be restored: {what}"))
}

/// Words of a chunk read at a time: most areas are short.
const PIECE: usize = 32;

/// Reads one chunk: the link, and the addresses up to the first zero.
fn list_chunk(ram: &Ram, at: PhysAddr, pages: &mut Vec<PhysAddr>) -> Option<PhysAddr> {
    let next = ram.mem.read_u64(at).ok()?;
    let mut words = [0u64; PIECE];
    for piece in 0..512 / PIECE {
        let offset = u64::try_from(piece * PIECE * 8).expect("inside the page");
        ram.mem.read(at.checked_add(offset)?, words.as_mut_bytes()).ok()?;
        let listed = if piece == 0 { &words[1..] } else { &words[..] };
        let used = listed.iter().position(|word| *word == 0).unwrap_or(listed.len());
        pages.extend(listed[..used].iter().map(|word| PhysAddr::new(u64::from_le(*word))));
        if used < listed.len() {
            break;
        }
    }
    Some(PhysAddr::new(next))
}
