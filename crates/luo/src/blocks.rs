//! Chains of one-page blocks of fixed-size records (7.2 and later).
//!
//! Writing: a block is allocated, preserved and linked when a record is *added*; counts are written at
//! reboot. Reading: the chain is checked first for a cycle (nothing freed), then block by block for its
//! count and length (all freed).

use luosim_abi::luo::block::{self, BlockHeader};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, PhysMem};
use rustc_hash::FxHashSet;

use crate::host::Memory;

/// A chain being written, of records of `ENTRY` bytes.
#[derive(Debug, Default)]
pub(crate) struct BlockChain<const ENTRY: u64> {
    blocks: Vec<PhysAddr>,
}

impl<const ENTRY: u64> BlockChain<ENTRY> {
    const PER_BLOCK: u64 = block::capacity(ENTRY);

    fn room(&self) -> u64 {
        Self::PER_BLOCK * len(&self.blocks)
    }

    /// Makes room for one more record than the `count` there are.
    ///
    /// # Errors
    /// ENOSPC at 10,000 blocks, ENOMEM.
    pub(crate) fn grow(&mut self, mem: &mut Memory<'_>, count: u64) -> KResult<()> {
        if count < self.room() {
            return Ok(());
        }
        if len(&self.blocks) >= block::MAX_BLOCKS {
            return Err(Errno::ENOSPC.because(format!(
                "all {} blocks are full: {count} records of {ENTRY} bytes",
                block::MAX_BLOCKS
            )));
        }
        let page = mem.kho.alloc_preserve(mem.ram, PAGE_SIZE, FrameUse::Luo)?;
        if let Some(last) = self.blocks.last() {
            write(mem, *last, &page.raw().to_le_bytes());
        }
        self.blocks.push(page);
        Ok(())
    }

    /// Gives back blocks that `count` records do not need.
    pub(crate) fn shrink(&mut self, mem: &mut Memory<'_>, count: u64) {
        while len(&self.blocks) > count.div_ceil(Self::PER_BLOCK) {
            let page = self.blocks.pop().expect("there is a block to give back");
            mem.kho.unpreserve_free(mem.ram, page);
            if let Some(last) = self.blocks.last() {
                write(mem, *last, &0u64.to_le_bytes());
            }
        }
    }

    /// Physical address of the first block; 0 if there is none.
    pub(crate) fn head(&self) -> PhysAddr {
        self.blocks.first().copied().unwrap_or(PhysAddr::NULL)
    }

    /// Address of record `index`.
    pub(crate) fn slot(&self, index: u64) -> PhysAddr {
        let block = usize::try_from(index / Self::PER_BLOCK).expect("block index");
        let offset = block::HEADER_SIZE + (index % Self::PER_BLOCK) * ENTRY;
        self.blocks[block].checked_add(offset).expect("a slot lies inside its block")
    }

    /// Writes how many of `count` records each block holds. Every block is written, the empty one too.
    pub(crate) fn write_counts(&self, mem: &mut Memory<'_>, count: u64) {
        let mut left = count;
        for page in &self.blocks {
            let here = left.min(Self::PER_BLOCK);
            left -= here;
            let field = page.checked_add(8).expect("the count lies inside the block");
            write(mem, field, &here.to_le_bytes());
        }
    }
}

fn len(blocks: &[PhysAddr]) -> u64 {
    u64::try_from(blocks.len()).expect("a block count fits in 64 bits")
}

/// Writes into a page that this kernel allocated.
pub(crate) fn write(mem: &mut Memory<'_>, at: PhysAddr, bytes: &[u8]) {
    mem.ram.mem.write(at, bytes).expect("pages of this kernel lie in memory");
}

/// A chain found in a handover.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundChain {
    /// Blocks with the number of records each says it has.
    pub(crate) blocks: Vec<(PhysAddr, u64)>,
}

impl FoundChain {
    /// Records in all blocks.
    pub(crate) fn records(&self) -> u64 {
        self.blocks.iter().map(|(_, count)| *count).sum()
    }
}

/// Why a chain was refused, and the blocks to free.
#[derive(Debug)]
pub(crate) struct BadChain {
    pub(crate) errno: Errno,
    pub(crate) message: String,
    pub(crate) free: Vec<PhysAddr>,
}

fn header(mem: &PhysMem, at: PhysAddr) -> Option<BlockHeader> {
    if !at.is_page_aligned() {
        return None;
    }
    mem.read_obj::<BlockHeader>(at).ok()
}

/// Reads the headers of a chain. `head` 0 is an empty chain; `seen` are blocks of other chains, which this one
/// may not share.
///
/// # Errors
/// EINVAL for a cycle (nothing to free), for a count of 0 or above the capacity, for a link out of memory;
/// ENOSPC above 10,000 blocks.
pub(crate) fn read_chain(
    mem: &PhysMem,
    head: PhysAddr,
    entry_size: u64,
    seen: &mut FxHashSet<PhysAddr>,
    quirks: Quirks,
) -> Result<FoundChain, BadChain> {
    let pages = walk(mem, head, seen, quirks.has(Quirk::ChainCycleAccepted))?;
    let capacity = block::capacity(entry_size);
    let mut found = FoundChain::default();
    for page in &pages {
        let count = header(mem, *page).map_or(0, |header| header.count.get());
        if count == 0 || count > capacity {
            let message = format!("luo: Block contains invalid entry count: {count}");
            return Err(BadChain { errno: Errno::EINVAL, message, free: pages });
        }
        found.blocks.push((*page, count));
    }
    if len(&pages) > block::MAX_BLOCKS {
        let message = format!("luo: Block set has more than {} blocks", block::MAX_BLOCKS);
        return Err(BadChain { errno: Errno::ENOSPC, message, free: pages });
    }
    Ok(found)
}

/// The pages of a chain in order. The kernel looks for a cycle with two runners and gives up after 10,000
/// double steps; a set of at most twice that many pages decides the same.
fn walk(
    mem: &PhysMem,
    head: PhysAddr,
    seen: &mut FxHashSet<PhysAddr>,
    cycles: bool,
) -> Result<Vec<PhysAddr>, BadChain> {
    let corrupted = || BadChain {
        errno: Errno::EINVAL,
        message: String::from("luo: Block set is corrupted"),
        free: Vec::new(),
    };
    let limit = usize::try_from(2 * block::MAX_BLOCKS).expect("a small constant");
    let mut pages = Vec::new();
    let mut at = head;
    while at != PhysAddr::NULL {
        if cycles && seen.contains(&at) {
            break;
        }
        if pages.len() >= limit || !seen.insert(at) {
            return Err(corrupted());
        }
        let found = header(mem, at).ok_or_else(corrupted)?;
        pages.push(at);
        at = PhysAddr::new(found.next.get());
    }
    Ok(pages)
}
