//! `memfd-v1` (6.19, 7.0): no seals.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::kho::vmalloc::Descriptor;

/// Bytes of the structure, alone in a preserved page.
pub const SIZE: u64 = 40;

/// The structure.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemfdSer {
    /// File position, taken again at reboot.
    pub pos: U64,
    /// Bytes of the file.
    pub size: U64,
    /// Entries of the folio table.
    pub nr_folios: U64,
    /// The folio table; zeros for an empty file.
    pub folios: Descriptor,
}

const _: () = {
    assert!(size_of::<MemfdSer>() == 40);
    assert!(offset_of!(MemfdSer, pos) == 0);
    assert!(offset_of!(MemfdSer, size) == 8);
    assert!(offset_of!(MemfdSer, nr_folios) == 16);
    assert!(offset_of!(MemfdSer, folios) == 24);
};
