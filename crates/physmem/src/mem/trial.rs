//! Trials: writes that are taken back, so that the same memory can be tried again and again.
//!
//! Between [`PhysMem::begin_trials`] and [`PhysMem::end_trials`] the first write to a page keeps what was there, and
//! [`PhysMem::take_back`] puts it back. What was kept once is kept for later trials: they start from the same memory,
//! so a trial costs a copy for each page it writes, and nothing for those it does not. Not for memory with pages of
//! host files in it, or in a file: those change without being written here.

use rustc_hash::FxHashMap;

use super::PhysMem;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};

type Page = [u8; 4096];

/// Pages written in a trial, and what they held before.
#[derive(Debug, Default)]
pub(super) struct Trial {
    written: Vec<Pfn>,
    /// A bit a frame.
    is_written: Vec<u64>,
    kept: FxHashMap<Pfn, Box<Page>>,
}

fn bit(pfn: u64) -> (usize, u64) {
    (usize::try_from(pfn / 64).expect("an index fits in usize"), 1 << (pfn % 64))
}

impl PhysMem {
    /// Starts trials on the memory as it is now.
    ///
    /// # Panics
    /// If pages of host files are in it.
    pub fn begin_trials(&mut self) {
        assert!(self.adopted.is_empty(), "pages of host files cannot be taken back");
        let words = usize::try_from((self.len / PAGE_SIZE).div_ceil(64)).expect("it fits in memory");
        self.trial = Some(Box::new(Trial { is_written: vec![0; words], ..Trial::default() }));
    }

    /// Ends trials; the memory stays as it is.
    pub fn end_trials(&mut self) {
        self.trial = None;
    }

    /// Pages that this trial wrote so far, in the order of their first write.
    #[must_use]
    pub fn written(&self) -> &[Pfn] {
        self.trial.as_ref().map_or(&[], |trial| &trial.written)
    }

    /// Makes memory what it was when trials began, and starts the next.
    pub fn take_back(&mut self) {
        let Some(mut trial) = self.trial.take() else { return };
        for pfn in trial.written.drain(..) {
            let (word, mask) = bit(pfn.raw());
            trial.is_written[word] &= !mask;
            self.write_private(pfn.addr(), &trial.kept[&pfn][..]);
        }
        self.trial = Some(trial);
    }

    /// Before `len` bytes at `addr`, which lie in memory, are written.
    pub(super) fn keep(&mut self, addr: PhysAddr, len: u64) {
        let Some(mut trial) = self.trial.take() else { return };
        let last = addr.raw() + len.max(1) - 1;
        for pfn in addr.raw() / PAGE_SIZE..=last / PAGE_SIZE {
            let (word, mask) = bit(pfn);
            if trial.is_written[word] & mask == 0 {
                trial.is_written[word] |= mask;
                let pfn = Pfn::new(pfn);
                trial.written.push(pfn);
                trial.kept.entry(pfn).or_insert_with(|| {
                    let mut page = Box::new([0; 4096]);
                    self.read(pfn.addr(), &mut page[..]).expect("the caller located it");
                    page
                });
            }
        }
        self.trial = Some(trial);
    }
}
