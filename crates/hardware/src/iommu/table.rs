//! Builds tables in memory: page tables, and the root and context tables that lead to them.
//!
//! A handle here is an address and nothing else: the tables are the bytes. Frames come from the caller
//! ([`TableMemory`]), a kernel's allocator. Table pages of a page table stay until [`PageTable::destroy`], even when all
//! they mapped was unmapped, as a real unit may have cached the way to them. Nothing here tells a unit to forget: that
//! is the register INVAL, and whose duty it is, is what tests of stale entries are about.

use luosim_physmem::{AccessError, FrameUse, Order, PAGE_SIZE, Pfn, PhysAddr, PhysMem, Ram, ReadPhys};
use zerocopy::IntoBytes;

use super::layout::{ADDRESS, CONTEXTS, Context, ContextEntry, Levels, Permissions, RootEntry, index};
use super::walk::{self, Contents, TableError, Translation};
use crate::Bdf;

/// Memory with an allocator of frames for tables.
pub trait TableMemory: ReadPhys {
    /// Copies `bytes` to memory at `addr`.
    ///
    /// # Errors
    /// [`AccessError`]; nothing is copied.
    fn write_bytes(&mut self, addr: PhysAddr, bytes: &[u8]) -> Result<(), AccessError>;

    /// A frame of zeros; `None` when there is none.
    fn alloc_table(&mut self) -> Option<Pfn>;

    /// Takes back a frame of [`Self::alloc_table`].
    fn free_table(&mut self, pfn: Pfn);
}

impl ReadPhys for RamRef<'_> {
    fn size(&self) -> u64 {
        self.0.mem.len()
    }

    #[inline]
    fn read_bytes(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError> {
        self.0.mem.read(addr, buf)
    }
}

/// A kernel's memory as memory for tables: `RamRef(&mut ram)`.
#[derive(Debug)]
pub struct RamRef<'r>(pub &'r mut Ram);

impl TableMemory for RamRef<'_> {
    fn write_bytes(&mut self, addr: PhysAddr, bytes: &[u8]) -> Result<(), AccessError> {
        self.0.mem.write(addr, bytes)
    }

    fn alloc_table(&mut self) -> Option<Pfn> {
        self.0.alloc_zeroed(Order::ZERO, FrameUse::IommuTable)
    }

    fn free_table(&mut self, pfn: Pfn) {
        self.0.free(pfn).expect("a table page is the head of an allocated block of one page");
    }
}

/// Memory whose tables may be changed, but not grown: for firmware and for tests. No frame is ever allocated.
impl TableMemory for PhysMem {
    fn write_bytes(&mut self, addr: PhysAddr, bytes: &[u8]) -> Result<(), AccessError> {
        self.write(addr, bytes)
    }

    fn alloc_table(&mut self) -> Option<Pfn> {
        None
    }

    fn free_table(&mut self, _: Pfn) {}
}

/// A change to a table that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Not whole pages, none at all, or no permission.
    #[error("{len:#x} bytes at {iova:#x}: a mapping is whole pages, at least one, and lets something pass")]
    Shape {
        /// First address.
        iova: u64,
        /// Bytes.
        len: u64,
    },
    /// Past the addresses that the table translates, or of memory.
    #[error("{len:#x} bytes at {iova:#x} do not fit in {bits} bits of addresses")]
    Width {
        /// First address.
        iova: u64,
        /// Bytes.
        len: u64,
        /// Bits that are translated.
        bits: u32,
    },
    /// Something is mapped there already.
    #[error("{iova:#x} is mapped already")]
    Mapped {
        /// First such address.
        iova: u64,
    },
    /// Nothing is mapped there.
    #[error("{iova:#x} is not mapped")]
    Unmapped {
        /// First such address.
        iova: u64,
    },
    /// No frame for a table.
    #[error("no frame is free for a table page")]
    NoMemory,
    /// The tables in memory are not what a mapper left there.
    #[error("the tables are broken at {iova:#x}: {reason:?}")]
    Broken {
        /// Address whose walk went wrong.
        iova: u64,
        /// What the unit would say.
        reason: super::FaultReason,
    },
}

/// A page table: the address of its top page, and its depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTable {
    /// The top page.
    pub top: PhysAddr,
    /// The depth.
    pub levels: Levels,
}

impl PageTable {
    /// An empty page table of one page.
    ///
    /// # Errors
    /// [`MapError::NoMemory`].
    pub fn new(mem: &mut impl TableMemory, levels: Levels) -> Result<Self, MapError> {
        let top = mem.alloc_table().ok_or(MapError::NoMemory)?.addr();
        Ok(Self { top, levels })
    }

    /// The page table that a context entry leads to.
    #[must_use]
    pub fn of(context: Context) -> Self {
        Self { top: context.top, levels: context.levels }
    }

    fn check(&self, iova: u64, len: u64) -> Result<u64, MapError> {
        if len == 0 || !iova.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Shape { iova, len });
        }
        let end = iova.checked_add(len).filter(|end| *end <= self.levels.end());
        end.ok_or(MapError::Width { iova, len, bits: self.levels.address_bits() })
    }

    /// Maps `len` bytes from `iova` to the memory at `addr`.
    ///
    /// # Errors
    /// [`MapError`]; nothing is mapped then, but table pages made on the way stay for the next mapping.
    pub fn map(
        &self,
        mem: &mut impl TableMemory,
        iova: u64,
        addr: PhysAddr,
        len: u64,
        permissions: Permissions,
    ) -> Result<(), MapError> {
        let end = self.check(iova, len)?;
        if !addr.is_page_aligned() || permissions.bits() == 0 {
            return Err(MapError::Shape { iova, len });
        }
        if addr.checked_add(len).is_none_or(|end| end.raw() > ADDRESS + PAGE_SIZE) {
            return Err(MapError::Width { iova, len, bits: 52 });
        }
        for (base, first, count) in spans(iova, end) {
            let leaf = self.leaf(mem, base, true)?.expect("made on the way");
            if let Some(taken) = find_entry(mem, leaf, base, (first, count), |entry| entry != 0)? {
                return Err(MapError::Mapped { iova: base + PAGE_SIZE * small(taken) });
            }
        }
        for (base, first, count) in spans(iova, end) {
            let leaf = self.leaf(mem, base, false)?.ok_or(circular(base))?;
            let frame = addr.raw() + (base + PAGE_SIZE * small(first) - iova);
            write_entries(mem, leaf, first, count, |n| (frame + PAGE_SIZE * small(n)) | permissions.bits());
        }
        Ok(())
    }

    /// Unmaps `len` bytes from `iova`, all of which are mapped. Table pages stay.
    ///
    /// # Errors
    /// [`MapError`]; nothing is unmapped then.
    pub fn unmap(&self, mem: &mut impl TableMemory, iova: u64, len: u64) -> Result<(), MapError> {
        let end = self.check(iova, len)?;
        for (base, first, count) in spans(iova, end) {
            let hole = |at: usize| MapError::Unmapped { iova: base + PAGE_SIZE * small(at) };
            let leaf = self.leaf(mem, base, false)?.ok_or_else(|| hole(first))?;
            if let Some(at) = find_entry(mem, leaf, base, (first, count), |entry| entry == 0)? {
                return Err(hole(at));
            }
        }
        for (base, first, count) in spans(iova, end) {
            let leaf = self.leaf(mem, base, false)?.ok_or(circular(base))?;
            write_entries(mem, leaf, first, count, |_| 0);
        }
        Ok(())
    }

    /// The leaf table of an address, if it is there or may be made.
    fn leaf(&self, mem: &mut impl TableMemory, iova: u64, make: bool) -> Result<Option<PhysAddr>, MapError> {
        let broken = |reason| MapError::Broken { iova, reason };
        let mut table = self.top;
        for level in (1..self.levels.count()).rev() {
            let outside = broken(super::FaultReason::TableAddress);
            let slot = table.checked_add(8 * index(iova, level)).ok_or(outside)?;
            let entry = mem.read_word(slot).map_err(|_| outside)?;
            if entry & !(ADDRESS | Permissions::READ_WRITE.bits()) != 0 {
                return Err(broken(super::FaultReason::ReservedBits));
            }
            table = match (Permissions::of(entry).bits(), make) {
                (0, false) => return Ok(None),
                (0, true) => {
                    let made = mem.alloc_table().ok_or(MapError::NoMemory)?.addr();
                    let entry = made.raw() | Permissions::READ_WRITE.bits();
                    mem.write_bytes(slot, &entry.to_le_bytes()).map_err(|_| outside)?;
                    made
                }
                _ => PhysAddr::new(entry & ADDRESS),
            };
        }
        Ok(Some(table))
    }

    /// Where an address leads.
    ///
    /// # Errors
    /// [`super::FaultReason`], as the unit would record.
    pub fn translate(&self, mem: &impl ReadPhys, iova: u64) -> Result<Translation, super::FaultReason> {
        walk::translate(mem, self.top, self.levels, iova)
    }

    /// Everything that is mapped, and the table pages.
    ///
    /// # Errors
    /// [`TableError`]: the tables are not what a mapper left there.
    pub fn contents(&self, mem: &impl ReadPhys) -> Result<Contents, TableError> {
        walk::contents(mem, self.top, self.levels)
    }

    /// Gives the table pages back. What was mapped is not touched.
    ///
    /// # Errors
    /// [`TableError`]; nothing is given back then.
    pub fn destroy(self, mem: &mut impl TableMemory) -> Result<(), TableError> {
        for table in self.contents(mem)?.tables {
            mem.free_table(table);
        }
        Ok(())
    }
}

/// A leaf that was there a moment ago: it is a table of a higher level too, and was written over.
fn circular(iova: u64) -> MapError {
    MapError::Broken { iova, reason: super::FaultReason::NotPresent }
}

fn small(n: usize) -> u64 {
    u64::try_from(n).expect("at most 512")
}

/// The parts of a range that lie in one leaf table each: its first address, first entry and entries.
fn spans(iova: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    const LEAF: u64 = 512 * PAGE_SIZE;
    let mut at = iova;
    std::iter::from_fn(move || {
        let base = at / LEAF * LEAF;
        let to = end.min(base + LEAF);
        let pages = |bytes: u64| usize::try_from(bytes / PAGE_SIZE).expect("at most 512");
        let span = (at < end).then(|| (base, pages(at - base), pages(to - at)));
        at = to;
        span
    })
}

/// Entries that are read or written at once: memory files are mapped by the folio, which is often one page.
const PIECE: usize = 32;

/// The pieces of `count` entries from `first` on: first entry, entries.
fn pieces(first: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    (first..first + count).step_by(PIECE).map(move |at| (at, PIECE.min(first + count - at)))
}

/// The first of `count` entries from `first` on for which `wanted` holds.
fn find_entry(
    mem: &impl ReadPhys,
    leaf: PhysAddr,
    iova: u64,
    (first, count): (usize, usize),
    wanted: impl Fn(u64) -> bool,
) -> Result<Option<usize>, MapError> {
    let broken = MapError::Broken { iova, reason: super::FaultReason::TableAddress };
    let mut entries = [0u64; PIECE];
    for (from, len) in pieces(first, count) {
        let entries = &mut entries[..len];
        let at = leaf.checked_add(8 * small(from)).ok_or(broken)?;
        mem.read_bytes(at, entries.as_mut_bytes()).map_err(|_| broken)?;
        if let Some(found) = entries.iter().position(|entry| wanted(*entry)) {
            return Ok(Some(from + found));
        }
    }
    Ok(None)
}

/// Writes `count` entries from `first` on; `entry` makes them, counted from 0.
fn write_entries(
    mem: &mut impl TableMemory,
    leaf: PhysAddr,
    first: usize,
    count: usize,
    entry: impl Fn(usize) -> u64,
) {
    let mut entries = [0u64; PIECE];
    for (from, len) in pieces(first, count) {
        let entries = &mut entries[..len];
        (from - first..).zip(entries.iter_mut()).for_each(|(n, slot)| *slot = entry(n).to_le());
        let at = leaf.checked_add(8 * small(from)).expect("the table was read");
        mem.write_bytes(at, entries.as_bytes()).expect("the table was read");
    }
}

/// A root table: the address of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootTable(pub PhysAddr);

impl RootTable {
    /// A root table without a context table.
    ///
    /// # Errors
    /// [`MapError::NoMemory`].
    pub fn new(mem: &mut impl TableMemory) -> Result<Self, MapError> {
        Ok(Self(mem.alloc_table().ok_or(MapError::NoMemory)?.addr()))
    }

    fn root_slot(self, bus: u8) -> PhysAddr {
        PhysAddr::new(self.0.raw().saturating_add(16 * u64::from(bus)))
    }

    /// The context table of a bus.
    #[must_use]
    pub fn context_table(self, mem: &impl ReadPhys, bus: u8) -> Option<PhysAddr> {
        let entry: RootEntry = mem.read_struct(self.root_slot(bus)).ok()?;
        (entry.is_present() && entry.is_well_formed()).then(|| entry.address())
    }

    /// The context of a function, as the unit finds it.
    ///
    /// # Errors
    /// [`super::FaultReason`], as the unit would record.
    pub fn context(self, mem: &impl ReadPhys, rid: Bdf) -> Result<Context, super::FaultReason> {
        walk::context(mem, self.0, rid)
    }

    /// Attaches a function to a page table, in one store of the word that the unit looks at last: no request sees
    /// neither the old nor the new table.
    ///
    /// # Errors
    /// [`MapError::NoMemory`]; [`MapError::Broken`] if the root table lies outside memory.
    pub fn set_context(
        self,
        mem: &mut impl TableMemory,
        rid: Bdf,
        entry: ContextEntry,
    ) -> Result<(), MapError> {
        let reason = super::FaultReason::TableAddress;
        let broken = |_| MapError::Broken { iova: 0, reason };
        let table = match self.context_table(mem, rid.bus()) {
            Some(table) => table,
            None => {
                let table = mem.alloc_table().ok_or(MapError::NoMemory)?.addr();
                let entry = RootEntry::new(table);
                mem.write_bytes(self.root_slot(rid.bus()), entry.as_bytes()).map_err(broken)?;
                table
            }
        };
        let slot = PhysAddr::new(table.raw().saturating_add(16 * u64::from(rid.devfn())));
        mem.write_bytes(slot, entry.as_bytes()).map_err(broken)
    }

    /// Blocks a function: its entry is absent afterwards.
    pub fn clear_context(self, mem: &mut impl TableMemory, rid: Bdf) {
        if let Some(table) = self.context_table(mem, rid.bus()) {
            let slot = PhysAddr::new(table.raw().saturating_add(16 * u64::from(rid.devfn())));
            // A table outside memory blocks too.
            let _ = mem.write_bytes(slot, ContextEntry::ABSENT.as_bytes());
        }
    }

    /// Takes the context table of a bus out of the root table, without giving its page back; the page, if there was
    /// one.
    pub fn unlink(self, mem: &mut impl TableMemory, bus: u8) -> Option<Pfn> {
        let table = self.context_table(mem, bus)?;
        mem.write_bytes(self.root_slot(bus), &[0; 16]).ok()?;
        Some(table.pfn())
    }

    /// Every function that is attached, and to what; malformed entries are left out. In ascending order.
    #[must_use]
    pub fn contexts(self, mem: &impl ReadPhys) -> Vec<(Bdf, Context)> {
        // Whole pages are read: an entry at a time would be a walk for each of 65536 functions.
        let mut found = Vec::new();
        let Ok(root) = mem.read_struct::<[RootEntry; 256]>(self.0) else { return found };
        let buses =
            (0..=u8::MAX).zip(&root).filter(|(_, entry)| entry.is_present() && entry.is_well_formed());
        for (bus, entry) in buses {
            let Ok(table) = mem.read_struct::<[ContextEntry; 256]>(entry.address()) else { continue };
            let present = (0..=u8::MAX).zip(&table).filter(|(_, entry)| entry.is_present());
            found.extend(present.filter_map(|(devfn, entry)| Some((Bdf::on(bus, devfn), entry.decode()?))));
        }
        found
    }

    /// The root page and the context pages.
    #[must_use]
    pub fn pages(self, mem: &impl ReadPhys) -> Vec<Pfn> {
        let tables = (0..=u8::MAX).filter_map(|bus| self.context_table(mem, bus));
        std::iter::once(self.0.pfn()).chain(tables.map(PhysAddr::pfn)).collect()
    }
}

const _: () = assert!(CONTEXTS == 256, "contexts() and pages() go over every u8");

/// The domain ids of a kernel: handed out lowest first; those of the previous kernel are reserved.
#[derive(Clone, Debug, Default)]
pub struct DomainIds {
    used: std::collections::BTreeSet<u32>,
    /// Every id from 1 to below this one is in use.
    lowest: u32,
}

impl DomainIds {
    /// The lowest id not in use, from 1; `None` when all 65535 are.
    pub fn alloc(&mut self) -> Option<u32> {
        let mut candidates = self.lowest.max(1)..=super::layout::MAX_DOMAIN_ID;
        let free = candidates.find(|id| !self.used.contains(id))?;
        self.used.insert(free);
        self.lowest = free + 1;
        Some(free)
    }

    /// Takes an id that is in use already, by the previous kernel; false if it is taken or no id.
    pub fn reserve(&mut self, id: u32) -> bool {
        (1..=super::layout::MAX_DOMAIN_ID).contains(&id) && self.used.insert(id)
    }

    /// Gives an id back.
    pub fn release(&mut self, id: u32) {
        if self.used.remove(&id) {
            self.lowest = self.lowest.min(id);
        }
    }

    /// Ids in use, ascending.
    pub fn used(&self) -> impl Iterator<Item = u32> + '_ {
        self.used.iter().copied()
    }
}
