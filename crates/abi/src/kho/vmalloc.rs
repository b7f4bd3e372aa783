//! A virtually contiguous area: a 16-byte descriptor and a chain of one-page chunks of page addresses
//! (6.18 and later, the same bytes in every generation).

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::geometry::Geometry;

/// Flag: a plain area.
pub const FLAG_PLAIN: u16 = 1;
/// Flag: an area that may be mapped by large pages.
pub const FLAG_HUGE: u16 = 2;
/// Addresses in one chunk, after the link.
pub const PER_CHUNK: usize = 511;

/// The descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// Physical address of the first chunk; 0 when there is none.
    pub first: U64,
    /// Base pages in the area.
    pub total_pages: U32,
    /// [`FLAG_PLAIN`] or [`FLAG_HUGE`]; unknown bits are ignored.
    pub flags: U16,
    /// Each listed address covers `1 << order` pages.
    pub order: U16,
}

const _: () = {
    assert!(size_of::<Descriptor>() == 16);
    assert!(offset_of!(Descriptor, first) == 0);
    assert!(offset_of!(Descriptor, total_pages) == 8);
    assert!(offset_of!(Descriptor, flags) == 12);
    assert!(offset_of!(Descriptor, order) == 14);
    assert!(8 + PER_CHUNK * 8 == 4096);
    assert!(PER_CHUNK as u64 == Geometry::PAGE_4K.vmalloc_per_chunk());
};
