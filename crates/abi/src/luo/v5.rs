//! `luo-v5` (7.2, 7.3): the 32-byte structure that is the `LUO` subtree.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::record::field_text;

/// The string.
pub const COMPATIBLE: &str = "luo-v5";
/// The string as the field holds it.
pub const COMPATIBLE_FIELD: [u8; 8] = *b"luo-v5\0\0";
/// Bytes of the structure.
pub const SIZE: u64 = 32;
/// Where `sessions_pa` is: it is written last.
pub const SESSIONS_PA_OFFSET: u64 = 16;

/// The structure.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LuoSer {
    /// [`COMPATIBLE_FIELD`]; compared up to its NUL.
    pub compatible: [u8; 8],
    /// The number handed to the next kernel: the sender has added 1.
    pub liveupdate_num: U64,
    /// Physical address of the first session block; 0 until the reboot sets it, and without sessions.
    pub sessions_pa: U64,
    /// Physical address of the FLB page; 0 for none.
    pub flbs_pa: U64,
}

const _: () = {
    assert!(size_of::<LuoSer>() == 32);
    assert!(offset_of!(LuoSer, compatible) == 0);
    assert!(offset_of!(LuoSer, liveupdate_num) == 8);
    assert!(offset_of!(LuoSer, sessions_pa) == 16);
    assert!(offset_of!(LuoSer, flbs_pa) == 24);
};

impl LuoSer {
    /// Whether the string is ours; bytes after its NUL do not count.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        field_text(&self.compatible) == COMPATIBLE.as_bytes()
    }
}
