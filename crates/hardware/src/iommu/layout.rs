//! What a unit reads in memory: root entries, context entries, page table entries.
//!
//! ```text
//!  ROOT_PA ──► root table, 1 frame: 256 × RootEntry, by bus
//!                └─► context table, 1 frame: 256 × ContextEntry, by device and function
//!                      └─► page table, 3 or 4 levels of 512 × u64 ──► frame
//! ```
//!
//! The format is luosim's; it has the parts of real ones (a table a bus, domain ids, permissions at each level,
//! reserved bits that must be zero) without their variants.

use std::mem::{offset_of, size_of};

use luosim_physmem::PhysAddr;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bit 0 of a root or context entry: the entry is in use.
pub const PRESENT: u64 = 1;
/// Bit 0 of a page table entry: reads pass.
pub const READ: u64 = 1;
/// Bit 1 of a page table entry: writes pass.
pub const WRITE: u64 = 2;
/// Bits of an entry that are the address of a frame.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a page table.
pub const ENTRIES: u64 = 512;
/// Entries of a root table and of a context table.
pub const CONTEXTS: u64 = 256;
/// Domain ids have 16 bits; id 0 is not used.
pub const MAX_DOMAIN_ID: u32 = 0xffff;

/// One bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RootEntry {
    /// Address of the context table and [`PRESENT`].
    pub context_table: U64,
    /// 0.
    pub reserved: U64,
}

/// One function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ContextEntry {
    /// Address of the top page table and [`PRESENT`].
    pub table_root: U64,
    /// Domain id: tags what the unit caches.
    pub domain_id: U32,
    /// Levels of the page table: 3 or 4.
    pub levels: U32,
}

const _: () = {
    assert!(size_of::<RootEntry>() == 16);
    assert!(offset_of!(RootEntry, context_table) == 0);
    assert!(offset_of!(RootEntry, reserved) == 8);
    assert!(size_of::<ContextEntry>() == 16);
    assert!(offset_of!(ContextEntry, table_root) == 0);
    assert!(offset_of!(ContextEntry, domain_id) == 8);
    assert!(offset_of!(ContextEntry, levels) == 12);
    assert!(CONTEXTS * 16 == 4096 && ENTRIES * 8 == 4096);
};

/// How deep a page table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Levels {
    /// 39 bits of addresses.
    Three,
    /// 48 bits of addresses.
    Four,
}

impl Levels {
    /// The number.
    #[must_use]
    pub const fn count(self) -> u32 {
        match self {
            Self::Three => 3,
            Self::Four => 4,
        }
    }

    /// From a context entry.
    #[must_use]
    pub const fn from_count(count: u32) -> Option<Self> {
        match count {
            3 => Some(Self::Three),
            4 => Some(Self::Four),
            _ => None,
        }
    }

    /// Bits of an address that are translated: 39 or 48.
    #[must_use]
    pub const fn address_bits(self) -> u32 {
        12 + 9 * self.count()
    }

    /// First address that is not translated.
    #[must_use]
    pub const fn end(self) -> u64 {
        1 << self.address_bits()
    }
}

/// Index into the table `level` levels above the leaf (0 for the leaf table).
#[must_use]
pub const fn index(iova: u64, level: u32) -> u64 {
    (iova >> (12 + 9 * level)) & (ENTRIES - 1)
}

impl RootEntry {
    /// An entry that leads to a context table.
    #[must_use]
    pub fn new(context_table: PhysAddr) -> Self {
        Self { context_table: (context_table.raw() | PRESENT).into(), reserved: 0.into() }
    }

    /// Whether the entry is in use.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.context_table.get() & PRESENT != 0
    }

    /// Address of the context table.
    #[must_use]
    pub fn address(&self) -> PhysAddr {
        PhysAddr::new(self.context_table.get() & ADDRESS)
    }

    /// Whether reserved bits are zero.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.context_table.get() & !(ADDRESS | PRESENT) == 0 && self.reserved.get() == 0
    }
}

impl ContextEntry {
    /// An entry not in use.
    pub const ABSENT: Self = Self { table_root: U64::ZERO, domain_id: U32::ZERO, levels: U32::ZERO };

    /// An entry that leads to a page table.
    #[must_use]
    pub fn new(top: PhysAddr, levels: Levels, domain_id: u32) -> Self {
        let table_root = (top.raw() | PRESENT).into();
        Self { table_root, domain_id: domain_id.into(), levels: levels.count().into() }
    }

    /// Whether the entry is in use.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.table_root.get() & PRESENT != 0
    }

    /// The page table that an entry in use leads to; `None` for an absent or malformed one.
    #[must_use]
    pub fn decode(&self) -> Option<Context> {
        let levels = Levels::from_count(self.levels.get())?;
        let domain_id = self.domain_id.get();
        let good = self.table_root.get() & !ADDRESS == PRESENT && (1..=MAX_DOMAIN_ID).contains(&domain_id);
        good.then(|| Context { top: PhysAddr::new(self.table_root.get() & ADDRESS), levels, domain_id })
    }
}

/// A context entry, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The top page table.
    pub top: PhysAddr,
    /// Its depth.
    pub levels: Levels,
    /// Domain id.
    pub domain_id: u32,
}

/// Which accesses an entry lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permissions(u64);

impl Permissions {
    /// Reads.
    pub const READ: Self = Self(READ);
    /// Writes.
    pub const WRITE: Self = Self(WRITE);
    /// Reads and writes.
    pub const READ_WRITE: Self = Self(READ | WRITE);

    /// The bits of an entry.
    #[must_use]
    pub const fn of(entry: u64) -> Self {
        Self(entry & (READ | WRITE))
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What both let pass.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether everything that `other` asks for passes.
    #[must_use]
    pub const fn allow(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
