//! What the fourth design leaves: a tree of one page, and packed arrays of sessions and files.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::v4::NAME_LENGTH;
pub use crate::luo::record::FileRecord;

/// The subsystem of sessions: its property is the physical address of the tree.
pub const SUBSYSTEM: &str = "luo-session-v1";
/// Name of the tree's root.
pub const NODE: &str = "luo-session";
/// The string of the root: any change of the two structures must change it.
pub const COMPATIBLE: &str = "luo-session-v1";
/// Property, **big-endian** u64: entries of the array.
pub const PROP_COUNT: &str = "count";
/// Property, **big-endian** u64: physical address of the array, 0 without sessions.
pub const PROP_DATA: &str = "data";
/// Property, **big-endian** u64: pages of the array.
pub const PROP_PAGES: &str = "pgcnt";

/// One session, 80 bytes. The files that it names are [`FileRecord`]s, whose 64 bytes did not change until the merge.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionEntry {
    /// Name, NUL-terminated; all zeros in a slot whose session was closed: readers skip it.
    pub name: [u8; NAME_LENGTH],
    /// Physical address of the array of files; 0 without files.
    pub files: U64,
    /// Pages of that array: never written.
    pub pages: U64,
    /// Number of files.
    pub count: U64,
}

const _: () = {
    assert!(size_of::<SessionEntry>() == 80);
    assert!(offset_of!(SessionEntry, name) == 0);
    assert!(offset_of!(SessionEntry, files) == 56);
    assert!(offset_of!(SessionEntry, pages) == 64);
    assert!(offset_of!(SessionEntry, count) == 72);
};
