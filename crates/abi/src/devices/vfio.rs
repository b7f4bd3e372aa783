//! The data of the handler of VFIO devices, string `vfio-pci-v1`, in the variants that were seen.
//!
//! The newest posted series carries the identity of the device alone and resets it; the others show what a kernel that
//! does not reset it would carry. The structure lies alone in a preserved page that the file record points at.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The handler's string (**posted**).
pub const COMPATIBLE: &str = "vfio-pci-v1";
/// The string of the back-port that also carries the iommufd (**branch**).
pub const COMPATIBLE_WITH_IOMMUFD: &str = "vfio-pci-v2";

crate::named! {
    /// Which structure a handler writes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Variant {
        Identity = "identity", "segment and address, 6 bytes; the newest posted series";
        ShortToken = "short-token", "with a 32-bit token of the iommufd, 9 bytes; the first series with an IOMMU patch";
        WithIommufd = "with-iommufd", "with reset and a 32-bit token, 11 bytes; a back-port";
        FullState = "full-state", "with configuration space and BARs, 8235 bytes; the RFC";
    }
}

impl Variant {
    /// Bytes of its structure.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Identity => size_of::<VfioPciSer>(),
            Self::ShortToken => size_of::<VfioPciSerV1>(),
            Self::WithIommufd => size_of::<VfioPciSerV2>(),
            Self::FullState => size_of::<VfioPciSerFull>(),
        }
    }
}

/// The newest posted series (**posted**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VfioPciSer {
    /// Segment.
    pub domain: U32,
    /// Bus, device and function.
    pub bdf: U16,
}

/// The first series, with the patch that carries the iommufd (**posted**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VfioPciSerV1 {
    /// Bus, device and function.
    pub bdf: U16,
    /// Segment.
    pub domain: U16,
    /// Whether the device can be reset.
    pub reset_works: u8,
    /// Token of the iommufd in the session, cut to 32 bits.
    pub iommufd_token: U32,
}

/// A back-port (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VfioPciSerV2 {
    /// Segment.
    pub domain: U32,
    /// Bus, device and function.
    pub bdf: U16,
    /// Whether the device can be reset.
    pub reset_works: u8,
    /// Token of the iommufd in the session, cut to 32 bits.
    pub iommufd_token: U32,
}

/// The RFC, which did not reset the device (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VfioPciSerFull {
    /// Bus, device and function.
    pub bdf: U16,
    /// Bytes of configuration space: the same in the new kernel, or the device is not taken back.
    pub cfg_size: U32,
    /// Which bits of configuration space a user may write.
    pub permissions: [U32; 1024],
    /// Configuration space as the user sees it.
    pub config: [U32; 1024],
    /// Base addresses and the ROM's.
    pub bars: [U32; 7],
    /// Whether the device can be reset.
    pub reset_works: u8,
    /// Physical address of what the PCI core saved.
    pub saved_state: U64,
}

assert_layout!(VfioPciSer, 6, domain @ 0, bdf @ 4);
assert_layout!(VfioPciSerV1, 9, bdf @ 0, domain @ 2, reset_works @ 4, iommufd_token @ 5);
assert_layout!(VfioPciSerV2, 11, domain @ 0, bdf @ 4, reset_works @ 6, iommufd_token @ 7);
assert_layout!(
    VfioPciSerFull, 8235,
    bdf @ 0, cfg_size @ 2, permissions @ 6, config @ 4102, bars @ 8198, reset_works @ 8226, saved_state @ 8227,
);

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn a_worked_example() {
        let ser = VfioPciSer { domain: 0.into(), bdf: 0x0100.into() };
        assert_eq!(ser.as_bytes(), [0, 0, 0, 0, 0, 1]);
        assert_eq!(Variant::ALL.iter().map(|variant| variant.size()).collect::<Vec<_>>(), [6, 9, 11, 8235]);
    }
}
