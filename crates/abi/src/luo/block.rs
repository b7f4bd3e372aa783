//! Serialisation blocks (7.2 and later): one preserved page, a 16-byte header, records of one size.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes before the first record.
pub const HEADER_SIZE: u64 = 16;
/// Blocks in a chain at most.
pub const MAX_BLOCKS: u64 = 10_000;

/// Header of a block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockHeader {
    /// Physical address of the next block; 0 for the last.
    pub next: U64,
    /// Records used in this block, 1 to its capacity; written at reboot.
    pub count: U64,
}

const _: () = {
    assert!(size_of::<BlockHeader>() == 16);
    assert!(offset_of!(BlockHeader, next) == 0);
    assert!(offset_of!(BlockHeader, count) == 8);
    assert!(capacity(80) == 51);
    assert!(capacity(64) == 63);
};

/// Records of `entry_size` bytes in one block.
#[must_use]
pub const fn capacity(entry_size: u64) -> u64 {
    (4096 - HEADER_SIZE) / entry_size
}
