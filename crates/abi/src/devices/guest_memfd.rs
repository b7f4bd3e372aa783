//! The data of the `guest_memfd` handler, string `guest_memfd_luo_v1` (**posted**): size, flags, the machine it belongs
//! to, and the folios that are there. Holes stay holes.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::kho::vmalloc::Descriptor;
use crate::memfd::folio::FolioEntry;

/// The handler's string.
pub const COMPATIBLE: &str = "guest_memfd_luo_v1";
/// Flag: may be mapped by the VMM.
pub const FLAG_MMAP: u64 = 1;
/// Flag: shared from the start. Only such files are preserved.
pub const FLAG_INIT_SHARED: u64 = 2;
/// Flags a reader accepts.
pub const FLAGS: u64 = FLAG_MMAP | FLAG_INIT_SHARED;
/// Flag of a folio: its contents are valid.
pub const FOLIO_UPTODATE: u16 = 1;
/// Folios in one page of the table.
pub const PER_PAGE: u64 = 256;

/// What a file record points at (**posted**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuestMemfdSer {
    /// Bytes of the file, whole pages, never 0.
    pub size: U64,
    /// [`FLAGS`].
    pub flags: U64,
    /// Entries of the table.
    pub nr_folios: U64,
    /// Token of its machine in the session.
    pub vm_token: U64,
    /// The table of [`GuestFolio`]s.
    pub folios: Descriptor,
}

/// One folio (**posted**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuestFolio {
    /// Bits 51:0 head frame; bits 63:52 flags.
    pub word: U64,
    /// Page of the file at which it begins.
    pub index: U64,
}

assert_layout!(GuestMemfdSer, 48, size @ 0, flags @ 8, nr_folios @ 16, vm_token @ 24, folios @ 32);
assert_layout!(GuestFolio, 16, word @ 0, index @ 8);

impl GuestFolio {
    /// The entry of the folio with head frame `pfn` (52 bits) at page `index` of the file.
    #[must_use]
    pub fn new(pfn: u64, flags: u16, index: u64) -> Self {
        let FolioEntry { word, index } = FolioEntry::new(pfn, flags, index);
        Self { word, index }
    }

    /// The same 16 bytes as a memfd's: only the flags mean something else.
    fn as_memfd(self) -> FolioEntry {
        FolioEntry { word: self.word, index: self.index }
    }

    /// The head frame.
    #[must_use]
    pub fn pfn(&self) -> u64 {
        self.as_memfd().pfn()
    }

    /// The 12 flag bits.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.as_memfd().flags()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn a_worked_example() {
        let folio = GuestFolio::new(0x40000, FOLIO_UPTODATE, 7);
        assert_eq!(folio.as_bytes(), [0, 0, 4, 0, 0, 0, 0x10, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((folio.pfn(), folio.flags()), (0x40000, 1));
    }
}
