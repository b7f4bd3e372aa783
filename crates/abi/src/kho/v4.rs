//! `kho-v4` (7.2, 7.3; the same tree as `kho-v3` of 7.1): preserved pages as a radix tree of six levels.
//!
//! A block is one key: a marker bit for the order above the block's number. Five levels of tables with 512
//! physical addresses lead to a leaf, one page of 32768 bits.

/// The string in the root tree.
pub const COMPATIBLE: &str = "kho-v4";
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
/// Position of the marker bit of order 0.
const MARKER: u32 = 52;

/// The key of the block of `order` at physical address `pa`. `None` above order 51.
#[must_use]
pub const fn key(pa: u64, order: u32) -> Option<u64> {
    if order >= MARKER {
        return None;
    }
    Some((1 << (MARKER - order)) | (pa >> (12 + order)))
}

/// The block of a key: physical address and order. `None` for keys that no block has: 0, 1 (order 52) and
/// those above 53 bits.
#[must_use]
pub const fn block(key: u64) -> Option<(u64, u32)> {
    if key < 2 {
        return None;
    }
    let top = 63 - key.leading_zeros();
    if top > MARKER {
        return None;
    }
    let order = MARKER - top;
    Some(((key ^ (1 << top)) << (12 + order), order))
}

/// Index in the table at `level` (5 to 1).
#[must_use]
pub const fn index(key: u64, level: u32) -> u64 {
    (key >> (15 + 9 * (level - 1))) & (TABLE_ENTRIES - 1)
}

/// Bit in the leaf.
#[must_use]
pub const fn leaf_bit(key: u64) -> u64 {
    key & (LEAF_BITS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_examples_of_keys() {
        for (pa, order, want) in [
            (0x0, 0, 0x0010_0000_0000_0000),
            (0x7fff000, 0, 0x0010_0000_0000_7fff),
            (0x1_2345_6000, 0, 0x0010_0000_0012_3456),
            (0x2000, 1, 0x0008_0000_0000_0001),
            (0x4000_0000, 9, 0x0000_0800_0000_0200),
            (0x8000_0000, 10, 0x0000_0400_0000_0200),
            (0xf_ffff_ffff_f000, 0, 0x0010_00ff_ffff_ffff),
        ] {
            assert_eq!(key(pa, order), Some(want));
            assert_eq!(block(want), Some((pa, order)));
        }
        let last = 0x0010_00ff_ffff_ffff;
        let path: Vec<u64> = (1..=5).rev().map(|level| index(last, level)).collect();
        assert_eq!((path, leaf_bit(last)), (vec![2, 0, 127, 511, 511], 32767));
    }

    #[test]
    fn keys_that_no_block_has_are_refused() {
        assert_eq!(block(0), None);
        assert_eq!(block(1), None);
        assert_eq!(block(1 << 53), None);
        assert_eq!(key(0, 52), None);
    }
}
