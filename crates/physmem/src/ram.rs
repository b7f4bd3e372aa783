//! Memory and allocator together, as one running kernel has them.
//!
//! In debug builds freed and freshly allocated frames are filled with a byte, so that a use after free shows.

use crate::addr::{Order, Pfn};
use crate::frames::{FrameUse, Frames, FreeError};
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
}

impl Ram {
    /// A kernel's memory with every frame free.
    #[must_use]
    pub fn new(mem: PhysMem) -> Self {
        let frames = Frames::all_free(mem.len());
        Self { mem, frames }
    }

    /// The kernel is gone: only the bytes are left.
    #[must_use]
    pub fn into_mem(self) -> PhysMem {
        self.mem
    }

    fn fill(&mut self, pfn: Pfn, order: Order, byte: u8) {
        self.mem.fill(pfn.addr(), order.bytes(), byte).expect("allocated blocks lie in memory");
    }

    /// Allocates a block with undefined contents.
    pub fn alloc(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        let pfn = self.frames.alloc(order, purpose)?;
        if cfg!(debug_assertions) {
            self.fill(pfn, order, POISON_ALLOC);
        }
        Some(pfn)
    }

    /// Allocates a block of zeros.
    pub fn alloc_zeroed(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        let pfn = self.frames.alloc(order, purpose)?;
        self.fill(pfn, order, 0);
        Some(pfn)
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// [`FreeError`]: the frame is not the head of an allocated block.
    pub fn free(&mut self, pfn: Pfn) -> Result<Order, FreeError> {
        let order = self.frames.free(pfn)?;
        if cfg!(debug_assertions) {
            self.fill(pfn, order, POISON_FREE);
        }
        Ok(order)
    }
}
