//! How the two address/size pairs reach the next kernel on x86: a node of the boot protocol's `setup_data`
//! list. The model passes the payload; the header is for readers of images.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SETUP_KEXEC_KHO`.
pub const TYPE: u32 = 10;

/// Header of any node.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Physical address of the next node; 0 at the end.
    pub next: U64,
    /// [`TYPE`].
    pub kind: U32,
    /// Bytes of the payload, 32.
    pub len: U32,
}

/// The payload.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Payload {
    /// Physical address of the root tree.
    pub fdt_addr: U64,
    /// Always the page size, not the tree's own.
    pub fdt_size: U64,
    /// Physical address of a copy of the scratch array, inside a scratch area.
    pub scratch_addr: U64,
    /// 16 times the number of areas.
    pub scratch_size: U64,
}

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(offset_of!(Header, next) == 0);
    assert!(offset_of!(Header, kind) == 8);
    assert!(offset_of!(Header, len) == 12);
    assert!(size_of::<Payload>() == 32);
    assert!(offset_of!(Payload, fdt_addr) == 0);
    assert!(offset_of!(Payload, fdt_size) == 8);
    assert!(offset_of!(Payload, scratch_addr) == 16);
    assert!(offset_of!(Payload, scratch_size) == 24);
};
