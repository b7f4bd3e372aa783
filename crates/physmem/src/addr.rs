//! Physical addresses, frame numbers and block orders, as types that cannot be mixed up.

use std::fmt;

/// Bits of an offset in a page.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A byte address in physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// Address 0, which means "none" in every handover structure.
    pub const NULL: Self = Self(0);

    /// The address `raw`.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The frame that holds the byte.
    #[must_use]
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }

    /// Offset in the page.
    #[must_use]
    pub const fn page_offset(self) -> u64 {
        self.0 & (PAGE_SIZE - 1)
    }

    /// Whether the address is the first of a page.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.page_offset() == 0
    }

    /// The address `bytes` further on; `None` past the end of the address space.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A page frame number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pfn(u64);

impl Pfn {
    /// Frame `raw`.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Address of the frame's first byte. Frame numbers are below 2^52.
    #[must_use]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }

    /// The frame `pages` further on.
    #[must_use]
    pub const fn checked_add(self, pages: u64) -> Option<Self> {
        match self.0.checked_add(pages) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Size of a block of frames: `1 << order` of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u8);

impl Order {
    /// One page.
    pub const ZERO: Self = Self(0);
    /// The largest block the allocator hands out: 4 MiB.
    pub const MAX_BUDDY: Self = Self(10);
    /// The largest order at all: 51 is the last whose size fits in 64 bits.
    pub const MAX: u32 = 51;

    /// The order `raw`; `None` above 51.
    #[must_use]
    pub fn new(raw: u32) -> Option<Self> {
        u8::try_from(raw).ok().filter(|_| raw <= Self::MAX).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0 as u32
    }

    /// Pages in a block.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << self.0
    }

    /// Bytes in a block.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        PAGE_SIZE << self.0
    }

    /// The smallest order whose block holds `bytes`; `None` above order 51.
    #[must_use]
    pub fn holding(bytes: u64) -> Option<Self> {
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        Self::new(pages.next_power_of_two().trailing_zeros())
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_hold_what_they_must() {
        for (bytes, order) in [(0, 0), (1, 0), (4096, 0), (4097, 1), (5 * 4096, 3), (4 << 20, 10)] {
            assert_eq!(Order::holding(bytes).map(Order::raw), Some(order), "{bytes} bytes");
        }
        assert_eq!(Order::new(52), None);
        assert_eq!(Order::new(51).map(Order::bytes), Some(1 << 63));
    }
}
