//! Memory and allocator together, as one running kernel has them.
//!
//! In debug builds freed and freshly allocated frames are filled with a byte, so that a use after free shows.

use crate::addr::{Order, PAGE_SIZE, Pfn};
use crate::frames::{FrameState, FrameUse, Frames, FreeError};
use crate::mem::PhysMem;

/// What freed frames are filled with in debug builds.
pub const POISON_FREE: u8 = 0x6b;
/// What allocated frames that are not asked to be zero are filled with in debug builds.
pub const POISON_ALLOC: u8 = 0x5a;

/// The memory of a running kernel.
#[derive(Debug)]
pub struct Ram {
    /// The bytes.
    pub mem: PhysMem,
    /// Who has which frame.
    pub frames: Frames,
    /// Frames below this one were looked at for huge pages of the host.
    huge_to: u64,
}

/// Frames in use from which on a machine counts as a busy one: 16 MiB.
const BUSY: u64 = 4096;
/// Frames in a huge page of the host.
const HUGE: u64 = 512;

impl Ram {
    /// A kernel's memory with every frame free.
    #[must_use]
    pub fn new(mem: PhysMem) -> Self {
        let frames = Frames::all_free(mem.len());
        Self { mem, frames, huge_to: 0 }
    }

    /// The kernel is gone: only the bytes are left.
    #[must_use]
    pub fn into_mem(self) -> PhysMem {
        self.mem
    }

    fn fill(&mut self, pfn: Pfn, order: Order, byte: u8) {
        self.mem.fill(pfn.addr(), order.bytes(), byte).expect("allocated blocks lie in memory");
    }

    /// Takes a block. The host's page faults would cost a busy machine half of its time: what lies ahead of the
    /// highest block, an eighth of what is in use, is asked for in huge pages. Small and sparse machines stay small.
    fn take(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        let pfn = self.alloc_for_adoption(order, purpose)?;
        let end = pfn.raw() + order.pages();
        let in_use = self.frames.in_use();
        if end > self.huge_to && in_use >= BUSY {
            let from = self.huge_to.max(pfn.raw() / HUGE * HUGE);
            let ahead = (in_use / 8).max(order.pages());
            self.huge_to = (end + ahead).next_multiple_of(HUGE);
            self.mem.prefer_huge(Pfn::new(from).addr(), (self.huge_to - from) * PAGE_SIZE);
        }
        Some(pfn)
    }

    /// Allocates a block with undefined contents.
    pub fn alloc(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        let pfn = self.take(order, purpose)?;
        if cfg!(debug_assertions) {
            self.fill(pfn, order, POISON_ALLOC);
        }
        Some(pfn)
    }

    /// Allocates a block of zeros.
    pub fn alloc_zeroed(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        let pfn = self.take(order, purpose)?;
        self.fill(pfn, order, 0);
        Some(pfn)
    }

    /// Allocates a block that a host file's pages will be mapped over: nothing is written to it.
    pub fn alloc_for_adoption(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        let pfn = self.frames.alloc(order, purpose)?;
        // A page that a lost file of the previous kernel left here.
        self.mem.disown(pfn, order.pages());
        Some(pfn)
    }

    /// Lets go of every page of a host file that this kernel neither holds for its predecessor nor has in use.
    pub fn let_go_of_lost_files(&mut self) {
        for (first, pages) in self.mem.adopted_runs() {
            let lost = |pfn: &u64| self.frames.state(Pfn::new(*pfn)) == FrameState::Free;
            let gone: Vec<u64> = (first..first + pages).filter(lost).collect();
            for run in gone.chunk_by(|before, after| before + 1 == *after) {
                self.mem.disown(Pfn::new(run[0]), u64::try_from(run.len()).expect("a frame count"));
            }
        }
    }

    /// Gives a block back. Pages of a host file that lie in it are let go.
    ///
    /// # Errors
    /// [`FreeError`]: the frame is not the head of an allocated block.
    pub fn free(&mut self, pfn: Pfn) -> Result<Order, FreeError> {
        let order = self.frames.free(pfn)?;
        self.mem.disown(pfn, order.pages());
        if cfg!(debug_assertions) {
            self.fill(pfn, order, POISON_FREE);
        }
        Ok(order)
    }
}
