//! Session and file records: the same bytes in every generation of the orchestrator.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the handler string field.
pub const COMPATIBLE_LEN: usize = 48;

/// One session, 80 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionRecord {
    /// Name, NUL-terminated, at most 63 bytes; readers cut at 63.
    pub name: [u8; 64],
    /// Physical address of the file array (`luo-v1`) or of the first file block; 0 without files.
    pub files: U64,
    /// Number of files.
    pub count: U64,
}

/// One file, 64 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileRecord {
    /// Handler string, NUL-terminated, at most 47 bytes.
    pub compatible: [u8; COMPATIBLE_LEN],
    /// The handler's value; for a memfd the physical address of its structure.
    pub data: U64,
    /// The user's token.
    pub token: U64,
}

const _: () = {
    assert!(size_of::<SessionRecord>() == 80);
    assert!(offset_of!(SessionRecord, name) == 0);
    assert!(offset_of!(SessionRecord, files) == 64);
    assert!(offset_of!(SessionRecord, count) == 72);
    assert!(size_of::<FileRecord>() == 64);
    assert!(offset_of!(FileRecord, compatible) == 0);
    assert!(offset_of!(FileRecord, data) == 48);
    assert!(offset_of!(FileRecord, token) == 56);
};

/// `text` in a NUL-padded field of `N` bytes, cut so that one NUL remains.
#[must_use]
pub fn text_field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N - 1);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

/// The bytes of a field before its first NUL. A field without NUL is returned whole: it matches no string
/// that fits with its NUL.
#[must_use]
pub fn field_text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

impl FileRecord {
    /// The record of a file.
    #[must_use]
    pub fn new(compatible: &str, data: u64, token: u64) -> Self {
        Self { compatible: text_field(compatible), data: data.into(), token: token.into() }
    }

    /// The handler string.
    #[must_use]
    pub fn compatible_bytes(&self) -> &[u8] {
        field_text(&self.compatible)
    }
}
