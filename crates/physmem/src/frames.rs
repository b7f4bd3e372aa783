//! The frame allocator of one kernel: buddy blocks of orders 0 to 10, lowest address first.
//!
//! Every frame is free, or the head or tail of an allocated block, or the head or tail of a block that the
//! previous kernel preserved and nobody has restored yet, or reserved. The state is a byte a frame; free
//! blocks are also bits of one set per order. All of it is zero until touched, so that the allocator of a
//! terabyte is made in microseconds. Placement depends on nothing but the calls made.

use std::fmt;

use crate::addr::{Order, PAGE_SIZE, Pfn};
use crate::bitmap::Bitmap;
use crate::zeros::Zeros;

const ORDERS: u32 = Order::MAX_BUDDY.raw() + 1;

macro_rules! frame_uses {
    ($($name:ident = $text:literal;)*) => {
        /// What an allocated block is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FrameUse { $(#[doc = $text] $name,)* }

        impl FrameUse {
            /// Every use.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// In words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

frame_uses! {
    KernelImage = "the resident kernel";
    Scratch = "scratch";
    Fdt = "a device tree";
    Tracker = "a page of the tracker";
    Metadata = "kexec metadata";
    Luo = "session and file records";
    HandlerData = "a handler's structure";
    FolioTable = "a folio table";
    PageCache = "file contents";
    IommuTable = "an IOMMU table";
    Handover = "a block of the previous kernel";
    Other = "something else";
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// May be allocated.
    Free,
    /// First of an allocated block.
    AllocatedHead(Order),
    /// First of a block that came from the previous kernel and was not restored.
    PreservedHead(Order),
    /// Inside an allocated or preserved block.
    Tail,
    /// Taken out of the allocator for good.
    Reserved,
}

impl fmt::Display for FrameState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free => f.write_str("free"),
            Self::AllocatedHead(order) => write!(f, "the head of an allocated block of order {order}"),
            Self::PreservedHead(order) => write!(f, "the head of a preserved block of order {order}"),
            Self::Tail => f.write_str("inside a block"),
            Self::Reserved => f.write_str("reserved"),
        }
    }
}

const KIND_ALLOCATED: u8 = 1 << 6;
const KIND_PRESERVED: u8 = 2 << 6;
const KIND_OTHER: u8 = 3 << 6;
const RESERVED: u8 = KIND_OTHER;
const TAIL: u8 = KIND_OTHER | 1;

fn head(kind: u8, order: Order) -> u8 {
    kind | u8::try_from(order.raw()).expect("orders fit in six bits")
}

fn decode(byte: u8) -> FrameState {
    let order = Order::new(u32::from(byte & 0x3f)).unwrap_or(Order::ZERO);
    match byte & KIND_OTHER {
        0 => FrameState::Free,
        KIND_ALLOCATED => FrameState::AllocatedHead(order),
        KIND_PRESERVED => FrameState::PreservedHead(order),
        _ if byte == TAIL => FrameState::Tail,
        _ => FrameState::Reserved,
    }
}

/// A block that cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FreeError {
    /// The frame is free: never allocated, or freed before.
    #[error("frame {pfn} is free already")]
    DoubleFree {
        /// The frame.
        pfn: Pfn,
    },
    /// The frame is not the head of an allocated block.
    #[error("frame {pfn} is not allocated: it is {state}")]
    NotAllocated {
        /// The frame.
        pfn: Pfn,
        /// What it is.
        state: FrameState,
    },
    /// No such frame.
    #[error("frame {pfn} lies outside memory")]
    Outside {
        /// The frame.
        pfn: Pfn,
    },
}

/// Frames that cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// A frame is in use.
    #[error("frame {pfn} is {state}")]
    InUse {
        /// The first such frame.
        pfn: Pfn,
        /// What it is.
        state: FrameState,
    },
    /// Frames lie outside memory, or the block is not aligned to its size.
    #[error("{pages} frames at {pfn} are not a block of this memory")]
    NotABlock {
        /// First frame.
        pfn: Pfn,
        /// How many.
        pages: u64,
    },
}

/// Counts of the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameStats {
    /// Frames in memory.
    pub total: u64,
    /// Frames free.
    pub free: u64,
    /// Frames in allocated blocks.
    pub allocated: u64,
    /// Frames in preserved blocks that were not restored.
    pub preserved: u64,
    /// Frames reserved.
    pub reserved: u64,
    /// Blocks handed out.
    pub allocs: u64,
    /// Blocks taken back.
    pub frees: u64,
    /// Frees refused: leaks' opposite, a bug in whoever freed.
    pub bad_frees: u64,
}

/// The allocator.
#[derive(Clone, Debug)]
pub struct Frames {
    states: Zeros<u8>,
    uses: Zeros<u8>,
    free: [Bitmap; ORDERS as usize],
    stats: FrameStats,
    by_use: [u64; FrameUse::ALL.len()],
    failing: Failing,
}

/// Allocations that are to fail: 0 and 0 outside a test.
#[derive(Clone, Copy, Debug, Default)]
struct Failing {
    /// Allocations from now to the first that fails, itself counted; 0: none fails.
    nth: u32,
    /// How many fail from there on.
    times: u32,
}

fn index(pfn: u64) -> usize {
    usize::try_from(pfn).expect("frame numbers fit in memory")
}

impl Frames {
    /// All frames of `len` bytes of memory, all free.
    #[must_use]
    pub fn all_free(len: u64) -> Self {
        let total = len / PAGE_SIZE;
        let free = std::array::from_fn(|order| Bitmap::new((total >> order) + 1));
        let mut frames = Self {
            states: Zeros::new(index(total)),
            uses: Zeros::new(index(total)),
            free,
            stats: FrameStats { total, ..FrameStats::default() },
            by_use: [0; FrameUse::ALL.len()],
            failing: Failing::default(),
        };
        let top = Order::MAX_BUDDY.raw();
        let blocks = total >> top;
        frames.free[top as usize].insert_run(0, blocks);
        frames.stats.free = blocks << top;
        frames.give(blocks << top, total);
        frames
    }

    /// Frames in memory.
    #[must_use]
    pub fn frame_count(&self) -> u64 {
        self.stats.total
    }

    /// Frames in blocks that somebody has, or had in the previous kernel.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.stats.allocated + self.stats.preserved
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> FrameStats {
        self.stats
    }

    /// Free, allocated, preserved and reserved frames, counted one by one; `None` if some lie inside no block.
    #[must_use]
    pub fn recount(&self) -> Option<[u64; 4]> {
        let (mut counts, mut tails, mut want) = ([0u64; 4], 0u64, 0u64);
        for piece in self.states.chunks(64) {
            let len = u64::try_from(piece.len()).expect("at most 64");
            // Most of a memory is of one kind for long.
            if piece.iter().fold(0, |all, byte| all | *byte) == 0 {
                counts[0] += len;
                continue;
            }
            if piece.iter().fold(true, |all, byte| all & (*byte == RESERVED)) {
                counts[3] += len;
                continue;
            }
            for byte in piece {
                match decode(*byte) {
                    FrameState::Free => counts[0] += 1,
                    FrameState::AllocatedHead(order) => {
                        counts[1] += order.pages();
                        want += order.pages() - 1;
                    }
                    FrameState::PreservedHead(order) => {
                        counts[2] += order.pages();
                        want += order.pages() - 1;
                    }
                    FrameState::Reserved => counts[3] += 1,
                    FrameState::Tail => tails += 1,
                }
            }
        }
        (tails == want).then_some(counts)
    }

    /// The first of `pages` frames from `pfn` on that is not reserved.
    #[must_use]
    pub fn first_not_reserved(&self, pfn: Pfn, pages: u64) -> Option<Pfn> {
        let range = index(pfn.raw().min(self.stats.total))..index((pfn.raw() + pages).min(self.stats.total));
        let at = self.states[range].iter().position(|byte| *byte != RESERVED)?;
        Some(Pfn::new(pfn.raw() + u64::try_from(at).expect("an index")))
    }

    /// Frames allocated for `purpose`.
    #[must_use]
    pub fn outstanding(&self, purpose: FrameUse) -> u64 {
        self.by_use[purpose as usize]
    }

    /// What a frame is; `Reserved` outside memory.
    #[must_use]
    #[inline]
    pub fn state(&self, pfn: Pfn) -> FrameState {
        let byte = usize::try_from(pfn.raw()).ok().and_then(|at| self.states.get(at));
        byte.map_or(FrameState::Reserved, |byte| decode(*byte))
    }

    /// What the block with head `pfn` is for.
    #[must_use]
    #[inline]
    pub fn use_of(&self, pfn: Pfn) -> FrameUse {
        let byte = usize::try_from(pfn.raw()).ok().and_then(|at| self.uses.get(at)).copied().unwrap_or(0);
        FrameUse::ALL.get(usize::from(byte)).copied().unwrap_or(FrameUse::Other)
    }

    /// Makes the `nth` allocation from now on fail, the next being the first, and `times` in all; 0 ends it.
    pub fn fail_alloc(&mut self, nth: u32, times: u32) {
        self.failing = Failing { nth, times };
    }

    /// Whether what [`Self::fail_alloc`] told has not happened yet, or not as often.
    #[must_use]
    pub fn will_fail(&self) -> bool {
        self.failing.nth != 0
    }

    #[cold]
    fn fails_now(&mut self) -> bool {
        let fails = self.failing.nth == 1 && self.failing.times > 0;
        if fails {
            self.failing.times -= 1;
        } else {
            self.failing.nth = (self.failing.nth - 1).max(1);
        }
        if self.failing.times == 0 {
            self.failing.nth = 0;
        }
        fails
    }

    /// Takes the lowest block of the smallest order that fits.
    pub fn alloc(&mut self, order: Order, purpose: FrameUse) -> Option<Pfn> {
        if self.failing.nth != 0 && self.fails_now() {
            return None;
        }
        let want = order.raw();
        let (from, block) =
            (want..ORDERS).find_map(|o| self.free[o as usize].first().map(|block| (o, block)))?;
        self.free[from as usize].remove(block);
        let pfn = block << from;
        for o in (want..from).rev() {
            self.free[o as usize].insert((pfn >> o) + 1);
        }
        self.stats.free -= order.pages();
        self.stats.allocs += 1;
        self.occupy(pfn, order, KIND_ALLOCATED);
        self.account(pfn, order, purpose);
        Some(Pfn::new(pfn))
    }

    fn occupy(&mut self, pfn: u64, order: Order, kind: u8) {
        let at = index(pfn);
        self.states[at] = head(kind, order);
        if order > Order::ZERO {
            self.states[at + 1..index(pfn + order.pages())].fill(TAIL);
        }
    }

    #[inline]
    fn account(&mut self, pfn: u64, order: Order, purpose: FrameUse) {
        self.uses[index(pfn)] = purpose as u8;
        self.by_use[purpose as usize] += order.pages();
        self.stats.allocated += order.pages();
    }

    fn unaccount(&mut self, pfn: u64, order: Order) {
        self.by_use[self.use_of(Pfn::new(pfn)) as usize] -= order.pages();
        self.stats.allocated -= order.pages();
    }

    /// Changes what an allocated block is for.
    pub fn set_use(&mut self, pfn: Pfn, purpose: FrameUse) {
        if let FrameState::AllocatedHead(order) = self.state(pfn) {
            self.unaccount(pfn.raw(), order);
            self.account(pfn.raw(), order, purpose);
        }
    }

    /// Gives an allocated block back.
    ///
    /// # Errors
    /// [`FreeError`]; nothing changes but the count of bad frees.
    pub fn free(&mut self, pfn: Pfn) -> Result<Order, FreeError> {
        if pfn.raw() >= self.stats.total {
            self.stats.bad_frees += 1;
            return Err(FreeError::Outside { pfn });
        }
        let order = match self.state(pfn) {
            FrameState::AllocatedHead(order) => order,
            state => {
                self.stats.bad_frees += 1;
                let error = FreeError::NotAllocated { pfn, state };
                return Err(if state == FrameState::Free { FreeError::DoubleFree { pfn } } else { error });
            }
        };
        self.unaccount(pfn.raw(), order);
        self.stats.frees += 1;
        self.vacate(pfn.raw(), order.pages());
        Ok(order)
    }

    fn vacate(&mut self, pfn: u64, pages: u64) {
        self.states[index(pfn)..index(pfn + pages)].fill(0);
        self.give(pfn, pfn + pages);
    }

    /// Adds the frames `from..to` to the free sets as the largest aligned blocks, merged with their buddies.
    fn give(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let fit = 63 - (to - at).leading_zeros();
            let aligned = if at == 0 { fit } else { at.trailing_zeros() };
            let order = fit.min(aligned).min(ORDERS - 1);
            self.merge(at, order);
            at += 1 << order;
        }
        self.stats.free += to - from;
    }

    fn merge(&mut self, pfn: u64, order: u32) {
        let (mut block, mut order) = (pfn >> order, order);
        while order < ORDERS - 1 && self.free[order as usize].has(block ^ 1) {
            self.free[order as usize].remove(block ^ 1);
            block >>= 1;
            order += 1;
        }
        self.free[order as usize].insert(block);
    }

    /// Takes the free frames `from..to` out of the free sets.
    fn take(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let order = (0..ORDERS)
                .find(|order| self.free[*order as usize].has(at >> order))
                .expect("a frame whose state is free lies in a free block");
            self.free[order as usize].remove(at >> order);
            let start = (at >> order) << order;
            let end = start + (1 << order);
            self.stats.free -= end - start;
            self.give(start, at);
            if end > to {
                self.give(to, end);
            }
            at = end.min(to);
        }
    }

    fn check_free(&self, pfn: Pfn, pages: u64) -> Result<(), ReserveError> {
        let end = pfn.checked_add(pages).map(Pfn::raw).filter(|end| *end <= self.stats.total);
        let Some(end) = end.filter(|_| pages > 0) else {
            return Err(ReserveError::NotABlock { pfn, pages });
        };
        let states = &self.states[index(pfn.raw())..index(end)];
        // In pieces that the compiler turns into vector instructions.
        let used = |piece: &[u8]| piece.iter().fold(0, |all, byte| all | *byte) != 0;
        let Some(piece) = states.chunks(256).position(used) else { return Ok(()) };
        match states[piece * 256..].iter().position(|byte| *byte != 0).map(|at| piece * 256 + at) {
            None => Ok(()),
            Some(at) => {
                let pfn = Pfn::new(pfn.raw() + u64::try_from(at).expect("an index"));
                Err(ReserveError::InUse { pfn, state: self.state(pfn) })
            }
        }
    }

    /// Takes `pages` free frames from `pfn` on out of the allocator.
    ///
    /// # Errors
    /// [`ReserveError`]; nothing changes.
    pub fn reserve(&mut self, pfn: Pfn, pages: u64) -> Result<(), ReserveError> {
        self.check_free(pfn, pages)?;
        self.take(pfn.raw(), pfn.raw() + pages);
        self.states[index(pfn.raw())..index(pfn.raw() + pages)].fill(RESERVED);
        self.stats.reserved += pages;
        Ok(())
    }

    /// Gives reserved frames back.
    ///
    /// # Errors
    /// [`ReserveError`] if one of them is not reserved; nothing changes.
    pub fn unreserve(&mut self, pfn: Pfn, pages: u64) -> Result<(), ReserveError> {
        for at in pfn.raw()..pfn.raw().saturating_add(pages).min(self.stats.total) {
            let state = self.state(Pfn::new(at));
            if state != FrameState::Reserved {
                return Err(ReserveError::InUse { pfn: Pfn::new(at), state });
            }
        }
        if pfn.raw().saturating_add(pages) > self.stats.total {
            return Err(ReserveError::NotABlock { pfn, pages });
        }
        self.stats.reserved -= pages;
        self.vacate(pfn.raw(), pages);
        Ok(())
    }

    /// Takes a block that the previous kernel preserved out of the allocator and marks its head.
    ///
    /// # Errors
    /// [`ReserveError`]: not aligned, outside memory, or overlapping; nothing changes.
    pub fn hold_preserved(&mut self, pfn: Pfn, order: Order) -> Result<(), ReserveError> {
        self.hold_preserved_run(pfn, 1, order)
    }

    /// [`Self::hold_preserved`] for `blocks` adjacent blocks of one order.
    ///
    /// # Errors
    /// [`ReserveError`]; nothing changes.
    pub fn hold_preserved_run(&mut self, pfn: Pfn, blocks: u64, order: Order) -> Result<(), ReserveError> {
        let pages = blocks.saturating_mul(order.pages());
        if pfn.raw() & (order.pages() - 1) != 0 {
            return Err(ReserveError::NotABlock { pfn, pages });
        }
        self.check_free(pfn, pages)?;
        self.take(pfn.raw(), pfn.raw() + pages);
        self.stats.preserved += pages;
        if order == Order::ZERO {
            let states = &mut self.states[index(pfn.raw())..index(pfn.raw() + pages)];
            states.fill(head(KIND_PRESERVED, order));
            return Ok(());
        }
        for block in 0..blocks {
            self.occupy(pfn.raw() + (block << order.raw()), order, KIND_PRESERVED);
        }
        Ok(())
    }

    /// The order of the unrestored preserved block whose head is `pfn`.
    #[must_use]
    #[inline]
    pub fn preserved_order(&self, pfn: Pfn) -> Option<Order> {
        match self.state(pfn) {
            FrameState::PreservedHead(order) => Some(order),
            _ => None,
        }
    }

    /// Makes a preserved block an allocated one, once.
    #[inline]
    pub fn restore(&mut self, pfn: Pfn, purpose: FrameUse) -> Option<Order> {
        let order = self.preserved_order(pfn)?;
        self.states[index(pfn.raw())] = head(KIND_ALLOCATED, order);
        self.stats.preserved -= order.pages();
        self.stats.allocs += 1;
        self.account(pfn.raw(), order, purpose);
        Some(order)
    }

    /// Makes an allocated block of many pages as many allocated pages. Nothing for any other frame.
    pub fn split_allocated(&mut self, pfn: Pfn) {
        let FrameState::AllocatedHead(order) = self.state(pfn) else { return };
        let purpose = self.use_of(pfn) as u8;
        let range = index(pfn.raw())..index(pfn.raw() + order.pages());
        self.states[range.clone()].fill(head(KIND_ALLOCATED, Order::ZERO));
        self.uses[range].fill(purpose);
        self.stats.allocs += order.pages() - 1;
    }
}
