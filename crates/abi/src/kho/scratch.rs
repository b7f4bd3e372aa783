//! The scratch array: where the next kernel may allocate before it knows what is preserved.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an entry.
pub const ENTRY_SIZE: u64 = 16;
/// Alignment of the array's copy that travels with the image.
pub const COPY_ALIGN: u64 = 64 << 10;

/// One area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// Physical address.
    pub addr: U64,
    /// Bytes.
    pub size: U64,
}

const _: () = {
    assert!(size_of::<Entry>() == 16);
    assert!(offset_of!(Entry, addr) == 0);
    assert!(offset_of!(Entry, size) == 8);
};
