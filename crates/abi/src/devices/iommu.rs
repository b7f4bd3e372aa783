//! The IOMMU core's object, FLB `iommu-liveupdate` (**branch**): units, paging domains, and which device is attached to
//! which domain.
//!
//! Three chains of one-page arrays hang off [`IommuFlbSer`]; objects refer to each other by the physical address of
//! their records. A record that is given up is marked deleted, and its slot is not used again. Vendor code appends
//! fields to units and devices; those of real vendors are not published with their widths, so luosim's unit has its own
//! ([`SimHwSer`], **own**). Not here: the tables themselves, which are the hardware's format.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the object in the page of FLBs.
pub const COMPATIBLE: &str = "iommu-liveupdate";
/// The version in the first field.
pub const VERSION: u64 = 1;
/// Bytes before the first object of an array.
pub const ARRAY_HEADER_SIZE: u64 = 16;
/// Flag of an object: given up; its slot is not used again.
pub const FLAG_DELETED: u32 = 1;
/// Flag of an object: it came from the previous kernel.
pub const FLAG_INCOMING: u32 = 2;
/// [`IommuHwSer::kind`] of luosim's unit (**own**): `SIMU`.
pub const KIND_SIM: u64 = 0x554d_4953;

/// Objects of `size` bytes in one array.
#[must_use]
pub const fn capacity(size: u64) -> u64 {
    (4096 - ARRAY_HEADER_SIZE) / size
}

/// What the object's value points at (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IommuFlbSer {
    /// [`VERSION`].
    pub version: U64,
    /// Physical address of the first array of units; never 0.
    pub hw_array: U64,
    /// Physical address of the first array of domains; never 0.
    pub domain_array: U64,
    /// Physical address of the first array of devices; never 0.
    pub device_array: U64,
}

/// First bytes of an array (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ArrayHeader {
    /// Physical address of the next array; 0 for the last.
    pub next: U64,
    /// Objects used in this one, deleted ones included.
    pub nr_objects: U64,
}

/// First bytes of every object (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ObjectHeader {
    /// References: of a unit, the preserved devices behind it.
    pub ref_count: U32,
    /// [`FLAG_DELETED`], [`FLAG_INCOMING`].
    pub flags: U32,
}

/// A paging domain (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IommuDomainSer {
    /// References and flags.
    pub header: ObjectHeader,
    /// Physical address of the top table.
    pub top_table: U64,
    /// Level of the top table: 2 for three levels, 3 for four.
    pub top_level: U64,
    /// Bits of an address that the table translates: 39 or 48.
    pub vasz: U32,
    /// Bit 0: addresses are sign-extended.
    pub sign_extend: U32,
    /// A pointer of the kernel that restored it: means nothing to another kernel.
    pub restored_domain: U64,
}

/// What ties a device to its domain and its unit (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DevMapSer {
    /// The hardware's name of the attachment: the domain id.
    pub attachment_id: U64,
    /// Physical address of the [`IommuDomainSer`].
    pub domain: U64,
    /// Physical address of the [`IommuHwSer`].
    pub iommu: U64,
}

/// An attached device (**branch**). Vendors append fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IommuDeviceSer {
    /// References and flags.
    pub header: ObjectHeader,
    /// Bus, device and function, as in [`super::pci::PciDevSer::bdf`].
    pub devid: U32,
    /// Segment.
    pub pci_domain_nr: U32,
    /// Its attachment.
    pub dev_map: DevMapSer,
}

/// An IOMMU unit (**branch**). Vendors append fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IommuHwSer {
    /// References and flags.
    pub header: ObjectHeader,
    /// What the unit is known by: the address of its registers.
    pub token: U64,
    /// Which driver's.
    pub kind: U64,
}

/// A unit of luosim's (**own**): [`IommuHwSer`] and the root table it translates with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SimHwSer {
    /// The common part; its kind is [`KIND_SIM`].
    pub hw: IommuHwSer,
    /// Physical address of the root table.
    pub root_table: U64,
}

assert_layout!(IommuFlbSer, 32, version @ 0, hw_array @ 8, domain_array @ 16, device_array @ 24);
assert_layout!(ArrayHeader, 16, next @ 0, nr_objects @ 8);
assert_layout!(ObjectHeader, 8, ref_count @ 0, flags @ 4);
assert_layout!(
    IommuDomainSer, 40,
    header @ 0, top_table @ 8, top_level @ 16, vasz @ 24, sign_extend @ 28, restored_domain @ 32,
);
assert_layout!(DevMapSer, 24, attachment_id @ 0, domain @ 8, iommu @ 16);
assert_layout!(IommuDeviceSer, 40, header @ 0, devid @ 8, pci_domain_nr @ 12, dev_map @ 16);
assert_layout!(IommuHwSer, 24, header @ 0, token @ 8, kind @ 16);
assert_layout!(SimHwSer, 32, hw @ 0, root_table @ 24);
const _: () = {
    assert!(capacity(40) == 102);
    assert!(capacity(32) == 127);
};
