//! Walks tables in memory: one address, or all that is there.
//!
//! Tables may hold anything. A walk for one address reads at most a root entry, a context entry and an entry a level; a
//! walk for all visits each table page once, so that tables that share pages or lead back to themselves end it
//! ([`TableError::Shared`]). Nothing outside memory is read.

use std::collections::BTreeSet;

use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr, ReadPhys};
use zerocopy::little_endian::U64;

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

impl Translation {
    /// Whether an access passes.
    pub(super) fn check(&self, wants: Permissions) -> Result<(), FaultReason> {
        if self.permissions.allow(wants) {
            return Ok(());
        }
        let reads = wants == Permissions::READ;
        Err(if reads { FaultReason::ReadDenied } else { FaultReason::WriteDenied })
    }
}

/// The context of a requester.
///
/// # Errors
/// [`FaultReason`], as the unit would record.
pub fn context(mem: &impl ReadPhys, root: PhysAddr, rid: Bdf) -> Result<Context, FaultReason> {
    context_from(mem, root, rid).map(|(context, _)| context)
}

/// [`context()`], and the page of the context table that it was read from.
pub(super) fn context_from(
    mem: &impl ReadPhys,
    root: PhysAddr,
    rid: Bdf,
) -> Result<(Context, PhysAddr), FaultReason> {
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
    Ok((entry.decode().ok_or(FaultReason::Malformed)?, slot))
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
    translate_from(mem, top, levels, iova).map(|(translation, _)| translation)
}

/// [`translate`], and the entries that were read for it, top first; those of fewer levels are the first ones.
#[inline]
pub(super) fn translate_from(
    mem: &impl ReadPhys,
    top: PhysAddr,
    levels: Levels,
    iova: u64,
) -> Result<(Translation, [PhysAddr; 4]), FaultReason> {
    let mut slots = [top; 4];
    if iova >= levels.end() {
        return Err(FaultReason::AddressWidth);
    }
    let (mut table, mut permissions) = (top, Permissions::READ_WRITE);
    for (level, read) in (0..levels.count()).rev().zip(&mut slots) {
        let slot = table.checked_add(8 * index(iova, level)).ok_or(FaultReason::TableAddress)?;
        *read = slot;
        let entry = mem.read_word(slot).map_err(|_| FaultReason::TableAddress)?;
        permissions = permissions.and(Permissions::of(entry));
        if Permissions::of(entry).bits() == 0 {
            return Err(FaultReason::NotPresent);
        }
        if is_reserved(entry) {
            return Err(FaultReason::ReservedBits);
        }
        table = PhysAddr::new(entry & ADDRESS);
    }
    let addr = PhysAddr::new(table.raw() | (iova & (PAGE_SIZE - 1)));
    Ok((Translation { addr, permissions }, slots))
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

    fn push(&mut self, extent: Extent) {
        if let Some(last) = self.extents.last_mut()
            && last.permissions == extent.permissions
            && last.iova + last.len == extent.iova
            && last.addr.checked_add(last.len) == Some(extent.addr)
        {
            last.len += extent.len;
            return;
        }
        self.extents.push(extent);
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

/// A table, read.
type Page = [U64; 512];

impl<M: ReadPhys> All<'_, M> {
    /// The table `level` levels above the leaf, at most 3: the recursion is as deep.
    fn table(&mut self, table: Pfn, level: u32, base: u64, above: Permissions) -> Result<(), TableError> {
        let page: Page = self.mem.read_struct(table.addr()).map_err(|_| TableError::Outside(table))?;
        if !self.seen.insert(table) {
            return Err(TableError::Shared(table));
        }
        self.contents.tables.push(table);
        let mut slot = 0;
        while let Some(found) = page[slot..].iter().position(|entry| Permissions::of(entry.get()).bits() != 0)
        {
            slot += found;
            let run = if level == 0 { run(&page[slot..]) } else { 1 };
            let entry = page[slot].get();
            let index = u64::try_from(slot).expect("at most 511");
            let broken =
                page[slot..slot + run].iter().zip(index..).find(|(entry, _)| is_reserved(entry.get()));
            if let Some((entry, index)) = broken {
                return Err(TableError::Reserved { table, index, entry: entry.get() });
            }
            let (addr, permissions) = (PhysAddr::new(entry & ADDRESS), above.and(Permissions::of(entry)));
            let iova = base | (index << (12 + 9 * level));
            if level == 0 {
                let len = PAGE_SIZE * u64::try_from(run).expect("at most 512");
                self.contents.push(Extent { iova, addr, len, permissions });
            } else {
                self.table(addr.pfn(), level - 1, iova, permissions)?;
            }
            slot += run;
        }
        Ok(())
    }
}

fn is_reserved(entry: u64) -> bool {
    entry & !(ADDRESS | Permissions::READ_WRITE.bits()) != 0
}

/// How many entries at the front lead to one frame after the other with the same permissions.
fn run(entries: &[U64]) -> usize {
    let follows = |pair: &&[U64]| pair[1].get() == pair[0].get().wrapping_add(PAGE_SIZE);
    1 + entries.windows(2).take_while(follows).count()
}
