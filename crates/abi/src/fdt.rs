//! The header of a flattened device tree (DTB version 17), as far as a kernel checks it before it believes
//! the rest. Everything in it is big-endian.
//!
//! Not here: nodes and properties, which a library reads (crate `luosim-kho`, module `fdt`).

use std::fmt;
use std::mem::{offset_of, size_of};

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of every tree.
pub const MAGIC: u32 = 0xd00d_feed;
/// Version written.
pub const VERSION: u32 = 17;
/// Oldest version a reader must accept; also `last_comp_version` as written.
pub const FIRST_VERSION: u32 = 16;
/// Bytes of the header.
pub const HEADER_SIZE: usize = size_of::<FdtHeader>();

/// The 40-byte header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FdtHeader {
    /// [`MAGIC`].
    pub magic: U32,
    /// Bytes of the whole tree, header included.
    pub totalsize: U32,
    /// Offset of the structure block.
    pub off_dt_struct: U32,
    /// Offset of the strings block.
    pub off_dt_strings: U32,
    /// Offset of the memory reserve map, 8-aligned.
    pub off_mem_rsvmap: U32,
    /// [`VERSION`].
    pub version: U32,
    /// Oldest version this tree is compatible with.
    pub last_comp_version: U32,
    /// Unused here.
    pub boot_cpuid_phys: U32,
    /// Bytes of the strings block.
    pub size_dt_strings: U32,
    /// Bytes of the structure block.
    pub size_dt_struct: U32,
}

const _: () = {
    assert!(size_of::<FdtHeader>() == 40);
    assert!(offset_of!(FdtHeader, totalsize) == 4);
    assert!(offset_of!(FdtHeader, off_dt_struct) == 8);
    assert!(offset_of!(FdtHeader, off_dt_strings) == 12);
    assert!(offset_of!(FdtHeader, off_mem_rsvmap) == 16);
    assert!(offset_of!(FdtHeader, version) == 20);
    assert!(offset_of!(FdtHeader, last_comp_version) == 24);
    assert!(offset_of!(FdtHeader, boot_cpuid_phys) == 28);
    assert!(offset_of!(FdtHeader, size_dt_strings) == 32);
    assert!(offset_of!(FdtHeader, size_dt_struct) == 36);
};

/// What is wrong with a header, with the number that kernel messages print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Blocks lie outside the tree, or the tree is larger than its room.
    Truncated,
    /// The first word is another.
    BadMagic,
    /// Neither this version nor one compatible with it.
    BadVersion,
}

impl HeaderError {
    /// The library's number, negative.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Truncated => -8,
            Self::BadMagic => -9,
            Self::BadVersion => -10,
        }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "its blocks do not fit in it",
            Self::BadMagic => "it does not begin with the magic d00dfeed",
            Self::BadVersion => "its version is not supported",
        })
    }
}

impl std::error::Error for HeaderError {}

impl FdtHeader {
    /// Checks what can be told from the header alone; `room` is what may be read at its address.
    ///
    /// # Errors
    /// [`HeaderError`], the first that applies.
    pub fn check(&self, room: u64) -> Result<(), HeaderError> {
        if self.magic.get() != MAGIC {
            return Err(HeaderError::BadMagic);
        }
        let (version, oldest) = (self.version.get(), self.last_comp_version.get());
        if version < FIRST_VERSION || oldest > VERSION || version < oldest {
            return Err(HeaderError::BadVersion);
        }
        let total = u64::from(self.totalsize.get());
        let fits =
            |offset: U32, len: u64| u64::from(offset.get()).checked_add(len).is_some_and(|end| end <= total);
        let whole = total >= 40
            && total <= room
            && fits(self.off_mem_rsvmap, 16)
            && fits(self.off_dt_struct, u64::from(self.size_dt_struct.get()))
            && fits(self.off_dt_strings, u64::from(self.size_dt_strings.get()));
        if whole { Ok(()) } else { Err(HeaderError::Truncated) }
    }
}
