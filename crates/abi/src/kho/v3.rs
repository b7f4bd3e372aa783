//! `kho-v3` (7.1): preserved pages as a radix tree of six levels.
//!
//! A block is one key: a marker bit for the order above the block's number. Five levels of tables with 512
//! physical addresses lead to a leaf, one page of 32768 bits. Subtrees may be any blob, so the root tells their size.
//! ([`super::geometry`] has the arithmetic for every page size; this is the one of 4 KiB.)

use super::geometry::Geometry;

/// The string in the root tree.
pub const COMPATIBLE: &str = "kho-v3";
/// Property of a subtree node: physical address of its blob, 8 bytes.
pub const PROP_SUBTREE: &str = "preserved-data";
/// Property of a subtree node: bytes of its blob, 8 bytes.
pub const PROP_SIZE: &str = "blob-size";
/// Address entries in a table.
pub const TABLE_ENTRIES: u64 = 512;
/// Bits in a leaf.
pub const LEAF_BITS: u64 = 32768;
/// Level of the root; level 0 is the leaf.
pub const ROOT_LEVEL: u32 = 5;
/// Bits a key may have: 52 for the frame number space and the marker.
pub const KEY_BITS: u32 = 53;

const GEOMETRY: Geometry = Geometry::PAGE_4K;

const _: () = {
    assert!(TABLE_ENTRIES == GEOMETRY.table_entries());
    assert!(LEAF_BITS == GEOMETRY.bitmap_bits());
    assert!(ROOT_LEVEL == GEOMETRY.root_level());
    assert!(KEY_BITS == GEOMETRY.key_bits());
    assert!(super::MAX_ORDER == GEOMETRY.max_order());
};

/// The key of the block of `order` at physical address `pa`. `None` above order 51.
#[must_use]
pub const fn key(pa: u64, order: u32) -> Option<u64> {
    GEOMETRY.key(pa, order)
}

/// The block of a key: physical address and order. `None` for keys that no block has: 0, 1 (order 52) and
/// those above 53 bits.
#[must_use]
pub const fn block(key: u64) -> Option<(u64, u32)> {
    GEOMETRY.block(key)
}

/// Index in the table at `level` (5 to 1).
#[must_use]
pub const fn index(key: u64, level: u32) -> u64 {
    GEOMETRY.index(key, level)
}

/// Bit in the leaf.
#[must_use]
pub const fn leaf_bit(key: u64) -> u64 {
    GEOMETRY.leaf_bit(key)
}
