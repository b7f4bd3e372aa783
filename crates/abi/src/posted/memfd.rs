//! What the memfd handler of all three designs leaves for a file: a tree of its own, without a version in it.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The handler's string. 6.19 has the same, over another structure.
pub const COMPATIBLE: &str = "memfd-v1";
/// Root property, u64: position of the description.
pub const PROP_POS: &str = "pos";
/// Root property, u64: bytes of the file.
pub const PROP_SIZE: &str = "size";
/// Root property: [`Folio`]s, one after the other; missing in an empty file.
pub const PROP_FOLIOS: &str = "folios";
/// Flag: the contents differ from any backing store.
pub const DIRTY: u64 = 1;
/// Flag: the contents are valid; without it they read as zeros.
pub const UPTODATE: u64 = 2;
/// Bits of the first word below the frame number.
pub const FLAG_BITS: u32 = 12;

/// One folio, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Folio {
    /// Bits 63:12 head frame; bits 11:0 flags.
    pub word: U64,
    /// Position in the file of the folio's first page, in base pages.
    pub index: U64,
}

const _: () = {
    assert!(size_of::<Folio>() == 16);
    assert!(offset_of!(Folio, word) == 0);
    assert!(offset_of!(Folio, index) == 8);
};

impl Folio {
    /// The entry of the folio with head frame `pfn` (52 bits) at page `index` of the file.
    #[must_use]
    pub fn new(pfn: u64, flags: u64, index: u64) -> Self {
        Self { word: (pfn << FLAG_BITS | flags & 0xfff).into(), index: index.into() }
    }

    /// The head frame.
    #[must_use]
    pub fn pfn(&self) -> u64 {
        self.word.get() >> FLAG_BITS
    }

    /// The twelve flag bits.
    #[must_use]
    pub fn flags(&self) -> u64 {
        self.word.get() & 0xfff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        let folio = Folio::new(0x40000, DIRTY | UPTODATE, 7);
        assert_eq!(folio.as_bytes(), [3, 0, 0, 0x40, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((folio.pfn(), folio.flags()), (0x40000, 3));
    }
}
