//! Walks tables in memory: one address, or all that is there.
//!
//! Tables may hold anything. A walk for one address reads at most a root entry, a context entry and an entry a level; a
//! walk for all visits each table page once, so that tables that share pages or lead back to themselves end it
//! ([`TableError::Shared`]). Nothing outside memory is read.

use std::collections::BTreeSet;

use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr, ReadPhys};

use super::fault::FaultReason;
use super::layout::{ADDRESS, Context, ContextEntry, Levels, Permissions, RootEntry, index};
use crate::Bdf;

/// One translated address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where the byte lies.
    pub addr: PhysAddr,
    /// What passes at every level.
    pub permissions: Permissions,
}

/// The context of a requester.
///
/// # Errors
/// [`FaultReason`], as the unit would record.
pub fn context(mem: &impl ReadPhys, root: PhysAddr, rid: Bdf) -> Result<Context, FaultReason> {
    let outside = |_| FaultReason::TableAddress;
    let at = |base: PhysAddr, index: u8| base.checked_add(16 * u64::from(index));
    let slot = at(root, rid.bus()).ok_or(FaultReason::TableAddress)?;
    let entry: RootEntry = mem.read_struct(slot).map_err(outside)?;
    if !entry.is_present() {
        return Err(FaultReason::RootAbsent);
    }
    if !entry.is_well_formed() {
        return Err(FaultReason::Malformed);
    }
    let slot = at(entry.address(), rid.devfn()).ok_or(FaultReason::TableAddress)?;
    let entry: ContextEntry = mem.read_struct(slot).map_err(outside)?;
    if !entry.is_present() {
        return Err(FaultReason::ContextAbsent);
    }
    entry.decode().ok_or(FaultReason::Malformed)
}

/// Walks a page table for one address.
///
/// # Errors
/// [`FaultReason`], as the unit would record; permissions are not compared with any access.
#[inline]
pub fn translate(
    mem: &impl ReadPhys,
    top: PhysAddr,
    levels: Levels,
    iova: u64,
) -> Result<Translation, FaultReason> {
    if iova >= levels.end() {
        return Err(FaultReason::AddressWidth);
    }
    let (mut table, mut permissions) = (top, Permissions::READ_WRITE);
    for level in (0..levels.count()).rev() {
        let slot = table.checked_add(8 * index(iova, level)).ok_or(FaultReason::TableAddress)?;
        let entry = mem.read_word(slot).map_err(|_| FaultReason::TableAddress)?;
        permissions = permissions.and(Permissions::of(entry));
        if Permissions::of(entry).bits() == 0 {
            return Err(FaultReason::NotPresent);
        }
        if entry & !(ADDRESS | Permissions::READ_WRITE.bits()) != 0 {
            return Err(FaultReason::ReservedBits);
        }
        table = PhysAddr::new(entry & ADDRESS);
    }
    let addr = PhysAddr::new(table.raw() | (iova & (PAGE_SIZE - 1)));
    Ok(Translation { addr, permissions })
}

/// A run of addresses that lies in a run of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First address.
    pub iova: u64,
    /// Where it lies.
    pub addr: PhysAddr,
    /// Bytes, whole pages.
    pub len: u64,
    /// What passes.
    pub permissions: Permissions,
}

/// A page table that cannot be walked to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A table lies outside memory.
    #[error("table page {0} lies outside memory")]
    Outside(Pfn),
    /// A table is reached twice: two entries share it, or the tables lead in a circle.
    #[error("table page {0} is reached twice")]
    Shared(Pfn),
    /// An entry has reserved bits.
    #[error("entry {index} of table page {table} has reserved bits: {entry:#x}")]
    Reserved {
        /// The table.
        table: Pfn,
        /// Which entry.
        index: u64,
        /// Its value.
        entry: u64,
    },
}

/// Everything a page table maps, in ascending order, and its table pages, in the order of the walk (top first).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// What is mapped. Neighbours that continue each other are one extent.
    pub extents: Vec<Extent>,
    /// The pages of the table.
    pub tables: Vec<Pfn>,
}

impl Contents {
    /// Pages that are mapped.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len / PAGE_SIZE).sum()
    }

    /// Frames that are mapped, in the order of their addresses.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.extents.iter().flat_map(|extent| {
            let first = extent.addr.pfn().raw();
            (first..first + extent.len / PAGE_SIZE).map(Pfn::new)
        })
    }

    fn push(&mut self, iova: u64, addr: PhysAddr, permissions: Permissions) {
        if let Some(last) = self.extents.last_mut()
            && last.permissions == permissions
            && last.iova + last.len == iova
            && last.addr.checked_add(last.len) == Some(addr)
        {
            last.len += PAGE_SIZE;
            return;
        }
        self.extents.push(Extent { iova, addr, len: PAGE_SIZE, permissions });
    }
}

/// Walks a page table for everything.
///
/// # Errors
/// [`TableError`]: where it cannot go on.
pub fn contents(mem: &impl ReadPhys, top: PhysAddr, levels: Levels) -> Result<Contents, TableError> {
    let mut walk = All { mem, seen: BTreeSet::new(), contents: Contents::default() };
    walk.table(top.pfn(), levels.count() - 1, 0, Permissions::READ_WRITE)?;
    Ok(walk.contents)
}

struct All<'m, M> {
    mem: &'m M,
    seen: BTreeSet<Pfn>,
    contents: Contents,
}

impl<M: ReadPhys> All<'_, M> {
    /// The table `level` levels above the leaf, at most 3: the recursion is as deep.
    fn table(&mut self, table: Pfn, level: u32, base: u64, above: Permissions) -> Result<(), TableError> {
        let mut page = [0; 4096];
        self.mem.read_bytes(table.addr(), &mut page).map_err(|_| TableError::Outside(table))?;
        if !self.seen.insert(table) {
            return Err(TableError::Shared(table));
        }
        self.contents.tables.push(table);
        for (slot, bytes) in page.as_chunks().0.iter().enumerate() {
            let entry = u64::from_le_bytes(*bytes);
            if Permissions::of(entry).bits() == 0 {
                continue;
            }
            let slot = u64::try_from(slot).expect("at most 511");
            if entry & !(ADDRESS | Permissions::READ_WRITE.bits()) != 0 {
                return Err(TableError::Reserved { table, index: slot, entry });
            }
            let (addr, permissions) = (PhysAddr::new(entry & ADDRESS), above.and(Permissions::of(entry)));
            let iova = base | (slot << (12 + 9 * level));
            match level {
                0 => self.contents.push(iova, addr, permissions),
                _ => self.table(addr.pfn(), level - 1, iova, permissions)?,
            }
        }
        Ok(())
    }
}
