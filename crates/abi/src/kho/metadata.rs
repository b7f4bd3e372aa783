//! The `kexec-metadata` subtree (7.1 and later): who the previous kernel was. Packed, 73 bytes.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the subtree.
pub const SUBTREE: &str = "kexec-metadata";
/// The only version.
pub const VERSION: u32 = 1;
/// Bytes of the release field, NUL included.
pub const RELEASE_LEN: usize = 65;
/// Bytes of the structure.
pub const SIZE: u64 = 73;

/// The structure. The last field is not aligned.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Metadata {
    /// [`VERSION`]; another one is ignored with a warning.
    pub version: U32,
    /// `uname -r` of the writer, NUL-terminated.
    pub previous_release: [u8; RELEASE_LEN],
    /// 1 from the first kernel of a chain, then one more each time.
    pub kexec_count: U32,
}

const _: () = {
    assert!(size_of::<Metadata>() == 73);
    assert!(offset_of!(Metadata, version) == 0);
    assert!(offset_of!(Metadata, previous_release) == 4);
    assert!(offset_of!(Metadata, kexec_count) == 69);
};

impl Metadata {
    /// The structure of the kernel `release`.
    #[must_use]
    pub fn new(release: &str, kexec_count: u32) -> Self {
        let mut field = [0; RELEASE_LEN];
        let len = release.len().min(RELEASE_LEN - 1);
        field[..len].copy_from_slice(&release.as_bytes()[..len]);
        Self { version: VERSION.into(), previous_release: field, kexec_count: kexec_count.into() }
    }

    /// The release as text, up to the first NUL.
    #[must_use]
    pub fn release(&self) -> String {
        let end = self.previous_release.iter().position(|byte| *byte == 0).unwrap_or(RELEASE_LEN);
        String::from_utf8_lossy(&self.previous_release[..end]).into_owned()
    }
}
