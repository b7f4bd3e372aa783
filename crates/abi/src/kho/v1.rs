//! `kho-v1` (6.16 to 7.0): preserved pages as a list of chunks, each with bitmaps of one order.
//!
//! A bitmap is one page: 32768 bits, bit *n* for the block of the chunk's order at
//! `phys_start + (n << (12 + order))`.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::geometry::Geometry;

/// The string in the root tree.
pub const COMPATIBLE: &str = "kho-v1";
/// Property of a subtree node: physical address of its blob, 8 bytes.
pub const PROP_SUBTREE: &str = "fdt";
/// Bits in one bitmap page.
pub const BITS_PER_BITMAP: u64 = 32768;
/// Entries in one chunk page.
pub const ENTRIES_PER_CHUNK: usize = 255;

/// First 16 bytes of a chunk page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChunkHeader {
    /// Physical address of the next chunk; 0 for the last.
    pub next: U64,
    /// Order of every block in this chunk.
    pub order: U32,
    /// Entries used, at most [`ENTRIES_PER_CHUNK`].
    pub num_elms: U32,
}

/// One bitmap of a chunk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChunkEntry {
    /// Physical address of the block of bit 0.
    pub phys_start: U64,
    /// Physical address of the bitmap page.
    pub bitmap: U64,
}

const _: () = {
    assert!(size_of::<ChunkHeader>() == 16);
    assert!(offset_of!(ChunkHeader, next) == 0);
    assert!(offset_of!(ChunkHeader, order) == 8);
    assert!(offset_of!(ChunkHeader, num_elms) == 12);
    assert!(size_of::<ChunkEntry>() == 16);
    assert!(offset_of!(ChunkEntry, phys_start) == 0);
    assert!(offset_of!(ChunkEntry, bitmap) == 8);
    assert!(BITS_PER_BITMAP == Geometry::PAGE_4K.bitmap_bits());
    assert!(ENTRIES_PER_CHUNK as u64 == Geometry::PAGE_4K.chunk_entries());
    assert!(size_of::<ChunkHeader>() + ENTRIES_PER_CHUNK * size_of::<ChunkEntry>() == 4096);
};

/// Index of the bitmap that holds the block at frame `pfn`, and the bit in it.
#[must_use]
pub const fn locate(pfn: u64, order: u32) -> (u64, u64) {
    Geometry::PAGE_4K.locate(pfn, order)
}

/// Physical address of the block of bit 0 of bitmap `index`.
#[must_use]
pub const fn phys_start(index: u64, order: u32) -> u64 {
    Geometry::PAGE_4K.phys_start(index, order)
}
