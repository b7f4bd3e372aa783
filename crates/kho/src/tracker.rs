//! The trackers: which blocks are preserved, in the bytes the next kernel reads.
//!
//! A tracker is a set of (frame, order) keys, not a count: preserving twice and giving back once leaves
//! nothing. Its pages are ordinary pages of this kernel and are not in the set.

pub mod bitmap;
pub mod radix;

use luosim_abi::release::KhoVersion;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_physmem::{FrameUse, Order, Pfn, PhysAddr, Ram};

/// How much is preserved, per order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    blocks: [u64; 52],
}

impl Default for Tally {
    fn default() -> Self {
        Self { blocks: [0; 52] }
    }
}

impl Tally {
    fn slot(&mut self, order: Order) -> &mut u64 {
        &mut self.blocks[order.raw() as usize]
    }

    pub(crate) fn add(&mut self, order: Order) {
        *self.slot(order) += 1;
    }

    pub(crate) fn sub(&mut self, order: Order) {
        *self.slot(order) -= 1;
    }

    /// Blocks of every order.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks.iter().sum()
    }

    /// Pages in them.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.by_order().map(|(order, count)| count << order).sum()
    }

    /// Orders in use with their blocks, ascending.
    pub fn by_order(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0u32..).zip(self.blocks.iter().copied()).filter(|(_, count)| *count > 0)
    }
}

/// One kernel's tracker.
#[derive(Debug)]
pub enum Tracker {
    /// `kho-v1`.
    Bitmaps(bitmap::Bitmaps),
    /// `kho-v3`, `kho-v4`.
    Radix(radix::Radix),
}

impl Tracker {
    /// An empty tracker.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(ram: &mut Ram, version: KhoVersion) -> KResult<Self> {
        Ok(match version {
            KhoVersion::V1 => Self::Bitmaps(bitmap::Bitmaps::default()),
            KhoVersion::V3 | KhoVersion::V4 => Self::Radix(radix::Radix::new(ram)?),
        })
    }

    /// Adds a block, which is aligned to its size, to the set.
    ///
    /// # Errors
    /// ENOMEM; the set is unchanged.
    pub fn add(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) -> KResult<()> {
        debug_assert!(pfn.raw() & (order.pages() - 1) == 0, "no block of order {order} starts at {pfn}");
        match self {
            Self::Bitmaps(tracker) => tracker.add(ram, pfn, order),
            Self::Radix(tracker) => tracker.add(ram, pfn, order),
        }
    }

    /// Takes a block out of the set; nothing if it is not in it.
    pub fn remove(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) {
        match self {
            Self::Bitmaps(tracker) => tracker.remove(ram, pfn, order),
            Self::Radix(tracker) => tracker.remove(ram, pfn, order),
        }
    }

    /// Forgets every block (6.18; only `kho-v1` is ever undone).
    pub fn clear(&mut self, ram: &mut Ram) {
        match self {
            Self::Bitmaps(tracker) => tracker.clear(ram),
            Self::Radix(_) => unreachable!("a radix tree is never finalised, so there is nothing to undo"),
        }
    }

    /// What is in the set.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        match self {
            Self::Bitmaps(tracker) => tracker.tally(),
            Self::Radix(tracker) => tracker.tally(),
        }
    }

    /// Makes the bytes current and gives the address for the root tree.
    ///
    /// # Errors
    /// ENOMEM (`kho-v1` only).
    pub fn finalize(&mut self, ram: &mut Ram) -> KResult<PhysAddr> {
        match self {
            Self::Bitmaps(tracker) => tracker.finalize(ram),
            Self::Radix(tracker) => Ok(tracker.root()),
        }
    }
}

pub(crate) fn no_memory() -> Refusal {
    Errno::ENOMEM.because("no free page for the tracker of preserved memory")
}

pub(crate) fn new_page(ram: &mut Ram) -> KResult<PhysAddr> {
    ram.alloc_zeroed(Order::ZERO, FrameUse::Tracker).map(Pfn::addr).ok_or_else(no_memory)
}

/// Sets or clears bit `bit` of the bitmap page at `page`; `true` if it changed.
pub(crate) fn change_bit(ram: &mut Ram, page: PhysAddr, bit: u64, set: bool) -> bool {
    let at = page.checked_add(bit / 8).expect("inside the page");
    let mask = 1u8 << (bit % 8);
    let mut byte = [0];
    ram.mem.read(at, &mut byte).expect("pages of the tracker lie in memory");
    let new = if set { byte[0] | mask } else { byte[0] & !mask };
    ram.mem.write(at, &[new]).expect("pages of the tracker lie in memory");
    new != byte[0]
}

/// The words of a page that are not 0, with their indices. Most pages of a tracker are nearly empty: eight words are
/// looked at at once.
pub(crate) fn nonzero_words(page: &[u64; 512]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let eights = (0u64..).step_by(8).zip(page.chunks_exact(8));
    let used = eights.filter(|(_, words)| words.iter().fold(0, |all, word| all | *word) != 0);
    used.flat_map(|(first, words)| (first..).zip(words.iter().copied())).filter(|(_, word)| *word != 0)
}

/// The runs of set bits in a bitmap page, as (first bit, bits).
pub(crate) fn bit_runs(page: &[u64; 512]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (index, mut word) in nonzero_words(page) {
        let mut base = index * 64;
        while word != 0 {
            let skip = word.trailing_zeros();
            word >>= skip;
            base += u64::from(skip);
            let ones = word.trailing_ones();
            match runs.last_mut() {
                Some((first, len)) if *first + *len == base => *len += u64::from(ones),
                _ => runs.push((base, u64::from(ones))),
            }
            word = word.checked_shr(ones).unwrap_or(0);
            base += u64::from(ones);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cross_words() {
        let mut page = [0; 512];
        page[0] = 0b1101 | (1 << 63);
        page[1] = 0b11;
        page[3] = u64::MAX;
        assert_eq!(bit_runs(&page), [(0, 1), (2, 2), (63, 3), (192, 64)]);
        assert_eq!(bit_runs(&[u64::MAX; 512]), [(0, 32768)]);
    }
}
