//! `kho-v4` (7.2, 7.3): byte for byte the tree of [`super::v3`] under another name.
//!
//! The version was raised when the blocks of the orchestrator's records were declared part of KHO's formats; what
//! KHO itself writes did not change, but the string differs and so each refuses the other's handover.

pub use super::v3::{
    KEY_BITS, LEAF_BITS, PROP_SIZE, PROP_SUBTREE, ROOT_LEVEL, TABLE_ENTRIES, block, index, key, leaf_bit,
};

/// The string in the root tree.
pub const COMPATIBLE: &str = "kho-v4";

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
