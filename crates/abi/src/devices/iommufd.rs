//! The iommufd handler's data, string `iommufd-v1` (**branch**), and the ioctls of live update on an iommufd.
//!
//! A header and an array with an entry for each page table that was marked. An entry leads to the domain's record in
//! [the IOMMU core's object](super::iommu); mappings of an IOAS are not carried: user space makes them again. The posted
//! series preserves only; taking an iommufd back is in work branches.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The handler's string (**branch**).
pub const COMPATIBLE: &str = "iommufd-v1";
/// The type byte of every iommufd command.
pub const IOCTL_TYPE: u8 = 0x3b;
/// Number of `IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE` (**own**: not known; the first that 7.3 leaves free).
pub const NR_MARK_PRESERVE: u8 = 0x96;
/// Number of `IOMMU_HWPT_LIVEUPDATE_RESTORE` (**own**: not known).
pub const NR_RESTORE: u8 = 0x97;

/// The number as passed to `ioctl(2)`: no direction, no size.
#[must_use]
pub const fn code(nr: u8) -> u32 {
    ((IOCTL_TYPE as u32) << 8) | nr as u32
}

/// One marked page table (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HwptSer {
    /// Physical address of the [`super::iommu::IommuDomainSer`].
    pub domain: U64,
    /// The token that user space marked it with.
    pub token: U64,
    /// 1 once it was taken back.
    pub reclaimed: u8,
    /// Zeros.
    pub padding: [u8; 7],
}

/// First bytes of what a file record points at (**branch**); [`HwptSer`]s follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IommufdSer {
    /// Entries that follow.
    pub nr_hwpts: U64,
}

/// Argument of MARK_PRESERVE (**posted**; the order of the fields is from a summary).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MarkPreserveArg {
    /// Bytes of the structure.
    pub size: U32,
    /// The page table.
    pub hwpt_id: U32,
    /// A number that is unique in this iommufd.
    pub hwpt_token: U64,
}

/// Argument of RESTORE (**own** order; the fields are those of a work branch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RestoreArg {
    /// Bytes of the structure.
    pub size: U32,
    /// Out: the new object.
    pub out_pt_id: U32,
    /// What it was marked with.
    pub hwpt_token: U64,
}

assert_layout!(HwptSer, 24, domain @ 0, token @ 8, reclaimed @ 16, padding @ 17);
assert_layout!(IommufdSer, 8, nr_hwpts @ 0);
assert_layout!(MarkPreserveArg, 16, size @ 0, hwpt_id @ 4, hwpt_token @ 8);
assert_layout!(RestoreArg, 16, size @ 0, out_pt_id @ 4, hwpt_token @ 8);
const _: () = assert!(code(NR_MARK_PRESERVE) == 0x3b96);

/// Bytes of a file's data with `hwpts` page tables.
#[must_use]
pub const fn size(hwpts: u64) -> u64 {
    8 + 24 * hwpts
}
