//! The PCI core's object, FLB `pci` (**next**): which functions keep their identity, their bus numbers and bus
//! mastering over a kexec.
//!
//! A header, and a chain of one-page blocks ([`crate::luo::block`]) of 8-byte records. Bridges above a preserved
//! endpoint are records too, with the number of endpoints below them. Not here: the walk from a function to its root
//! port, and when bus mastering is left on.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::luo::block;

/// Name of the object in the [page of FLBs](crate::luo::flb).
pub const COMPATIBLE: &str = "pci";
/// The version in the header. A kernel that finds another one panics.
pub const VERSION: u32 = 2;
/// Records in one block.
pub const PER_BLOCK: u64 = block::capacity(8);

/// What the object's value points at (**next**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciSer {
    /// [`VERSION`]. Its place and width never change.
    pub version: U32,
    /// Records with a reference count above 0, bridges included.
    pub nr_devices: U32,
    /// Physical address of the first block; 0 if there is none.
    pub first_block: U64,
}

/// One function (**next**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciDevSer {
    /// Segment.
    pub domain: U32,
    /// Bus in bits 15:8, device in 7:3, function in 2:0.
    pub bdf: U16,
    /// 1 for an endpoint, preserved endpoints below it for a bridge, 0 for a free record.
    pub refcount: U16,
}

assert_layout!(PciSer, 16, version @ 0, nr_devices @ 4, first_block @ 8);
assert_layout!(PciDevSer, 8, domain @ 0, bdf @ 4, refcount @ 6);
const _: () = assert!(PER_BLOCK == 510);

impl PciDevSer {
    /// A record.
    #[must_use]
    pub fn new(domain: u32, bdf: u16, refcount: u16) -> Self {
        Self { domain: domain.into(), bdf: bdf.into(), refcount: refcount.into() }
    }

    /// The key of the function in the new kernel's lookup: the segment above the 16 bits of its address.
    #[must_use]
    pub fn key(&self) -> u64 {
        key(self.domain.get(), self.bdf.get())
    }
}

/// The key of a function.
#[must_use]
pub fn key(domain: u32, bdf: u16) -> u64 {
    (u64::from(domain) << 16) | u64::from(bdf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn a_worked_example() {
        let record = PciDevSer::new(1, 0x0208, 3);
        assert_eq!(record.as_bytes(), [1, 0, 0, 0, 8, 2, 3, 0]);
        assert_eq!(record.key(), 0x1_0208);
    }
}
