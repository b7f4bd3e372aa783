//! `memfd-v2` (7.1 and later): with seals.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::kho::vmalloc::Descriptor;

/// Bytes of the structure, alone in a preserved page.
pub const SIZE: u64 = 48;
/// Seals a reader accepts.
pub const SEALS: u32 = 0x3f;

/// The structure.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemfdSer {
    /// File position, taken again at reboot.
    pub pos: U64,
    /// Bytes of the file.
    pub size: U64,
    /// Seals at the moment of PRESERVE_FD; within [`SEALS`].
    pub seals: U32,
    /// Written 0, never checked.
    pub flags: U32,
    /// Entries of the folio table.
    pub nr_folios: U64,
    /// The folio table; zeros for an empty file.
    pub folios: Descriptor,
}

const _: () = {
    assert!(size_of::<MemfdSer>() == 48);
    assert!(offset_of!(MemfdSer, pos) == 0);
    assert!(offset_of!(MemfdSer, size) == 8);
    assert!(offset_of!(MemfdSer, seals) == 16);
    assert!(offset_of!(MemfdSer, flags) == 20);
    assert!(offset_of!(MemfdSer, nr_folios) == 24);
    assert!(offset_of!(MemfdSer, folios) == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_as_it_lay_in_memory_of_7_3_4() {
        let bytes = [
            5, 0, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0,
            0, 0, 0x20, 0xfc, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
        ];
        let ser = MemfdSer::read_from_bytes(&bytes).expect("48 bytes");
        assert_eq!((ser.pos.get(), ser.size.get(), ser.seals.get(), ser.nr_folios.get()), (5, 0x3000, 4, 3));
        assert_eq!((ser.folios.first.get(), ser.folios.total_pages.get()), (0x1fc_2000, 1));
        assert_eq!((ser.folios.flags.get(), ser.folios.order.get()), (1, 0));
    }
}
