//! One folio of a preserved memfd: 16 bytes; the table is carried as a vmalloc area of order-0 pages.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries in one page of the table.
pub const PER_PAGE: u64 = 256;
/// Bits of the head frame number in the first word.
pub const PFN_BITS: u32 = 52;
/// Flag: the contents differ from any backing store.
pub const DIRTY: u16 = 1;
/// Flag: the contents are valid; without it they read as zeros.
pub const UPTODATE: u16 = 2;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FolioEntry {
    /// Bits 51:0 head frame, 0 to skip the entry; bits 63:52 flags.
    pub word: U64,
    /// Position in the file of the folio's first page, in base pages.
    pub index: U64,
}

const _: () = {
    assert!(size_of::<FolioEntry>() == 16);
    assert!(offset_of!(FolioEntry, word) == 0);
    assert!(offset_of!(FolioEntry, index) == 8);
};

impl FolioEntry {
    /// The entry of the folio with head frame `pfn` (52 bits) at page `index` of the file.
    #[must_use]
    pub fn new(pfn: u64, flags: u16, index: u64) -> Self {
        let word = (pfn & ((1 << PFN_BITS) - 1)) | (u64::from(flags) << PFN_BITS);
        Self { word: word.into(), index: index.into() }
    }

    /// The head frame; 0 means: skip.
    #[must_use]
    pub fn pfn(&self) -> u64 {
        self.word.get() & ((1 << PFN_BITS) - 1)
    }

    /// The 12 flag bits.
    #[must_use]
    pub fn flags(&self) -> u16 {
        u16::try_from(self.word.get() >> PFN_BITS).expect("twelve bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn a_worked_example() {
        let entry = FolioEntry::new(0x40000, DIRTY | UPTODATE, 7);
        assert_eq!(entry.as_bytes(), [0, 0, 4, 0, 0, 0, 0x30, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((entry.pfn(), entry.flags()), (0x40000, 3));
    }
}
