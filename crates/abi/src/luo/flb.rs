//! The page of file-lifecycle-bound objects (7.0 and later, unchanged since).

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::record::{field_text, text_field};

/// The string of the node in `luo-v1` trees that have one.
pub const COMPATIBLE: &str = "luo-flb-v1";
/// Bytes before the first entry.
pub const HEADER_SIZE: u64 = 16;
/// Bytes of an entry.
pub const ENTRY_SIZE: u64 = 64;
/// Entries that fit.
pub const MAX_ENTRIES: usize = (4096 - 16) / 64;

/// First 16 bytes of the page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlbHeader {
    /// Pages of the table: 1. Readers ignore it.
    pub pgcnt: U64,
    /// Entries used; written at reboot.
    pub count: U64,
}

/// One object.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlbEntry {
    /// Its string, NUL-terminated, at most 47 bytes.
    pub name: [u8; 48],
    /// Its owner's value.
    pub data: U64,
    /// Files that depended on it.
    pub count: U64,
}

const _: () = {
    assert!(size_of::<FlbHeader>() == 16);
    assert!(offset_of!(FlbHeader, pgcnt) == 0);
    assert!(offset_of!(FlbHeader, count) == 8);
    assert!(size_of::<FlbEntry>() == 64);
    assert!(offset_of!(FlbEntry, name) == 0);
    assert!(offset_of!(FlbEntry, data) == 48);
    assert!(offset_of!(FlbEntry, count) == 56);
    assert!(MAX_ENTRIES == 63);
};

impl FlbEntry {
    /// The entry of an object.
    #[must_use]
    pub fn new(name: &str, data: u64, count: u64) -> Self {
        Self { name: text_field(name), data: data.into(), count: count.into() }
    }

    /// Whether the entry is the object `name`.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        field_text(&self.name) == name.as_bytes()
    }
}
