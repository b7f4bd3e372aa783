//! iommufd contexts (`/dev/iommu`): address spaces, page tables for devices, and the handler `iommufd-v1`.
//!
//! An address space (IOAS) is a list of mappings; a page table (HWPT) has all mappings of its address space and is what devices are
//! attached to. Page tables that shall survive are *marked* with a token. Preserving the context preserves the marked page tables and
//! makes their address spaces immutable; the memory behind them is the business of the files it came from, which have to be in the
//! same session. In the next kernel the mappings are made anew, the page tables taken back by token. Commands are functions here; the
//! numbers of the two that live update adds are not known.
//!
//! Not modelled: nested page tables, dirty tracking, PASIDs, faults to user space, limits on pinned memory.

use std::collections::BTreeMap;

use luosim_abi::devices::iommu::COMPATIBLE as IOMMU;
use luosim_abi::devices::iommufd::{COMPATIBLE, HwptSer, IommufdSer, size};
use luosim_abi::profile::Assumption;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_files::shmem::Seals;
use luosim_files::{FileKind, InodeId};
use luosim_hardware::iommu::{Levels, PageTable, Permissions, RamRef};
use luosim_luo::{Context, FileHandler, FileId, Memory, RetrieveStatus};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, PhysAddr};

use crate::iommu::{self, map_refusal};
use crate::{DeviceHost, Devices, Parts, driver, object_of, open_object};

/// Seals that the memory behind a preserved address space must have had when it was mapped.
pub const NEEDED_SEALS: Seals = Seals::SEAL.with(Seals::GROW).with(Seals::SHRINK);

/// What is behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Memory of the process: a kernel block of its own stands for it.
    Anonymous,
    /// A file, on which the mapping holds a reference.
    File {
        /// The description that was given.
        file: FileId,
        /// Its inode.
        inode: InodeId,
        /// First byte.
        offset: u64,
        /// Its seals at that time.
        seals: Seals,
    },
}

/// One mapping of an address space.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Bytes.
    pub len: u64,
    /// What is behind it.
    pub behind: Behind,
    extents: Vec<(PhysAddr, u64)>,
}

/// An address space.
#[derive(Debug, Default)]
pub struct Ioas {
    /// By first address.
    pub maps: BTreeMap<u64, Mapping>,
    /// Preserved page tables that keep it as it is.
    pub immutable: u32,
}

/// A page table.
#[derive(Debug)]
pub struct Hwpt {
    /// Its address space; none for one that came from the previous kernel.
    pub ioas: Option<u32>,
    /// The tables in memory.
    pub table: PageTable,
    /// What tags it in the units.
    pub domain_id: u32,
    /// The token it is marked with.
    pub token: Option<u64>,
    /// Made for an attachment, not asked for.
    pub auto: bool,
    /// Its record, while it is preserved.
    pub preserved: Option<u64>,
    /// Devices attached.
    pub attached: u32,
    /// The record of the previous kernel, for one that came from it.
    pub restored: Option<u64>,
}

/// One context.
#[derive(Debug, Default)]
pub struct Iommufd {
    /// Address spaces.
    pub ioas: BTreeMap<u32, Ioas>,
    /// Page tables.
    pub hwpts: BTreeMap<u32, Hwpt>,
    next: u32,
    /// The description it was opened by.
    pub file: Option<FileId>,
    /// What the previous kernel left, until the file is finished.
    pub incoming: Option<u64>,
}

impl Iommufd {
    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn ioas(&mut self, id: u32) -> KResult<&mut Ioas> {
        self.ioas.get_mut(&id).ok_or_else(|| none("address space", id))
    }

    /// A page table.
    ///
    /// # Errors
    /// ENOENT.
    pub fn hwpt(&self, id: u32) -> KResult<&Hwpt> {
        self.hwpts.get(&id).ok_or_else(|| none("page table", id))
    }

    pub(crate) fn hwpt_mut(&mut self, id: u32) -> Option<&mut Hwpt> {
        self.hwpts.get_mut(&id)
    }
}

fn none(what: &str, id: u32) -> Refusal {
    Errno::ENOENT.because(format!("there is no {what} {id}"))
}

/// `open(2)` of `/dev/iommu`, or retrieving a context: a description of a new one.
///
/// # Errors
/// ENODEV: there is no hardware; ENFILE.
pub fn open(parts: &mut Parts<'_>, incoming: Option<u64>) -> KResult<FileId> {
    parts.hardware()?;
    let context = parts.devices.iommufds.add(Iommufd { incoming, ..Iommufd::default() });
    let file = open_object(parts.files, driver::IOMMUFD, context);
    let file = file.inspect_err(|_| drop(parts.devices.iommufds.put(context)))?;
    parts.devices.iommufds.get_mut(context).file = Some(file);
    Ok(file)
}

/// `IOMMU_IOAS_ALLOC`: a new address space.
pub fn ioas_alloc(devices: &mut Devices, context: u32) -> u32 {
    let context = devices.iommufds.get_mut(context);
    let id = context.number();
    context.ioas.insert(id, Ioas::default());
    id
}

/// The page tables of an address space: table and domain id.
fn tables_of(context: &Iommufd, ioas: u32) -> Vec<(PageTable, u32)> {
    let mine = context.hwpts.values().filter(|hwpt| hwpt.ioas == Some(ioas));
    mine.map(|hwpt| (hwpt.table, hwpt.domain_id)).collect()
}

fn map_into(memory: &mut Memory<'_>, table: &PageTable, iova: u64, map: &Mapping) -> KResult<()> {
    let mut at = iova;
    for (addr, len) in &map.extents {
        let mapped = table.map(&mut RamRef(memory.ram), at, *addr, *len, Permissions::READ_WRITE);
        if let Err(error) = mapped {
            if at > iova {
                let undone = table.unmap(&mut RamRef(memory.ram), iova, at - iova);
                undone.expect("it was mapped just now");
            }
            return Err(map_refusal(&error));
        }
        at += len;
    }
    Ok(())
}

fn check_mutable(devices: &Devices, context: u32, ioas: u32, quirk: bool) -> KResult<()> {
    let space = devices.iommufds.get(context).ioas.get(&ioas).ok_or_else(|| none("address space", ioas))?;
    if space.immutable == 0 || quirk {
        return Ok(());
    }
    devices.assume(Assumption::ImmutableIoas);
    Err(Errno::EBUSY
        .because(format!("address space {ioas} is immutable: a session preserves its page table")))
}

fn insert(parts: &mut Parts<'_>, context: u32, ioas: u32, iova: u64, map: Mapping) -> KResult<()> {
    let tables = tables_of(parts.devices.iommufds.get(context), ioas);
    for (done, (table, _)) in tables.iter().enumerate() {
        if let Err(refusal) = map_into(&mut parts.memory, table, iova, &map) {
            for (undo, _) in &tables[..done] {
                let undone = undo.unmap(&mut RamRef(parts.memory.ram), iova, map.len);
                undone.expect("it was mapped just now");
            }
            return Err(refusal);
        }
    }
    parts.devices.iommufds.get_mut(context).ioas(ioas)?.maps.insert(iova, map);
    Ok(())
}

fn check_range(context: &Iommufd, ioas: u32, iova: u64, len: u64) -> KResult<()> {
    let end = iova.checked_add(len).filter(|end| *end <= Levels::Four.end());
    if len == 0 || !iova.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) || end.is_none() {
        return Err(Errno::EINVAL.because(format!("{len:#x} bytes at {iova:#x} cannot be mapped")));
    }
    let overlaps = |(start, map): (&u64, &Mapping)| *start < iova + len && iova < start + map.len;
    if context.ioas.get(&ioas).is_some_and(|space| space.maps.iter().any(overlaps)) {
        return Err(Errno::EEXIST.because(format!("something is mapped in {len:#x} bytes at {iova:#x}")));
    }
    Ok(())
}

/// `IOMMU_IOAS_MAP_FILE`: maps `len` bytes of a memory file from `offset` at `iova`. All its pages are made, and pinned.
///
/// # Errors
/// ENOENT: no such address space; EBUSY: it is immutable; EINVAL: not whole pages, outside the file, or no memory file; EEXIST; ENOMEM;
/// EPERM: a page would have to be added to a file that a session preserves.
pub fn map_file<H: DeviceHost>(
    host: &mut H,
    (context, ioas): (u32, u32),
    (file, offset): (FileId, u64),
    (iova, len): (u64, u64),
) -> KResult<()> {
    let mutable = host.devices().has(Quirk::IoasMutable);
    check_mutable(host.devices(), context, ioas, mutable)?;
    check_range(host.devices().iommufds.get(context), ioas, iova, len)?;
    let FileKind::Shmem(inode) = host.files().table.get(file).kind else {
        return Err(Errno::EINVAL.because("only memory files can be mapped"));
    };
    let mut parts = host.parts();
    let shmem = parts.files.inodes.get_mut(inode);
    let end = offset.checked_add(len).filter(|end| *end <= shmem.size().next_multiple_of(PAGE_SIZE));
    let Some(end) = end.filter(|_| offset % PAGE_SIZE == 0) else {
        return Err(Errno::EINVAL.because(format!("{len:#x} bytes at {offset:#x} are no pages of the file")));
    };
    shmem.populate(parts.memory.ram, end / PAGE_SIZE)?;
    let mut extents = Vec::new();
    let mut at = offset;
    while at < end {
        let folio = shmem.page(at / PAGE_SIZE).expect("every page was made");
        let first = at / PAGE_SIZE;
        let left = folio.order.pages() - (first & (folio.order.pages() - 1));
        let step = (left * PAGE_SIZE).min(end - at);
        extents.push((folio.frame(first).addr(), step));
        at += step;
    }
    let behind = Behind::File { file, inode, offset, seals: shmem.seals() };
    insert(&mut parts, context, ioas, iova, Mapping { len, behind, extents })?;
    parts.files.inodes.get_mut(inode).map_for_device();
    host.file_get(file);
    Ok(())
}

/// `IOMMU_IOAS_MAP`: maps memory of the process. What its contents are the model does not say.
///
/// # Errors
/// As [`map_file`]; E2BIG above 4 MiB.
pub fn map_anonymous(
    parts: &mut Parts<'_>,
    (context, ioas): (u32, u32),
    (iova, len): (u64, u64),
) -> KResult<()> {
    check_mutable(parts.devices, context, ioas, false)?;
    check_range(parts.devices.iommufds.get(context), ioas, iova, len)?;
    let order = Order::holding(len).filter(|order| *order <= Order::MAX_BUDDY);
    let order = order.ok_or_else(|| Errno::E2BIG.because(format!("{len} bytes are more than 4 MiB")))?;
    let block = parts.memory.ram.alloc_zeroed(order, FrameUse::Other);
    let block = block.ok_or_else(|| Errno::ENOMEM.because("no free block for the mapping"))?;
    let map = Mapping { len, behind: Behind::Anonymous, extents: vec![(block.addr(), len)] };
    insert(parts, context, ioas, iova, map).inspect_err(|_| {
        parts.memory.ram.free(block).expect("allocated above");
    })
}

/// `IOMMU_IOAS_UNMAP` of one whole mapping.
///
/// # Errors
/// ENOENT: no such address space, or nothing of this length is mapped there; EBUSY: it is immutable.
pub fn unmap<H: DeviceHost>(
    host: &mut H,
    (context, ioas): (u32, u32),
    (iova, len): (u64, u64),
) -> KResult<()> {
    check_mutable(host.devices(), context, ioas, false)?;
    let mut parts = host.parts();
    let space = parts.devices.iommufds.get_mut(context).ioas(ioas)?;
    if space.maps.get(&iova).is_none_or(|map| map.len != len) {
        return Err(Errno::ENOENT.because(format!("no mapping is {len:#x} bytes at {iova:#x}")));
    }
    let map = space.maps.remove(&iova).expect("it was found");
    let tables = tables_of(parts.devices.iommufds.get(context), ioas);
    let left = parts.devices.has(Quirk::UnmapLeavesEntries);
    for (table, id) in tables.into_iter().filter(|_| !left) {
        let undone = table.unmap(&mut RamRef(parts.memory.ram), iova, len);
        undone.map_err(|error| map_refusal(&error))?;
        iommu::invalidate(&mut parts, id);
    }
    drop_mapping(host, &map);
    Ok(())
}

/// Lets go of what is behind a mapping.
fn drop_mapping<H: DeviceHost>(host: &mut H, map: &Mapping) {
    match map.behind {
        Behind::Anonymous => {
            let block = map.extents[0].0.pfn();
            host.memory().ram.free(block).expect("the mapping owns its block");
        }
        Behind::File { file, inode, .. } => {
            host.parts().files.inodes.get_mut(inode).unmap_for_device();
            host.file_put(file);
        }
    }
}

/// `IOMMU_HWPT_ALLOC`: a page table of an address space.
///
/// # Errors
/// ENOENT; ENOMEM; ENOSPC: no domain id is free.
pub fn hwpt_alloc(parts: &mut Parts<'_>, context: u32, ioas: u32, auto: bool) -> KResult<u32> {
    let space = parts.devices.iommufds.get(context).ioas.get(&ioas);
    let maps: Vec<(u64, Mapping)> = space
        .ok_or_else(|| none("address space", ioas))?
        .maps
        .iter()
        .map(|(iova, map)| (*iova, map.clone()))
        .collect();
    let table = PageTable::new(&mut RamRef(parts.memory.ram), Levels::Four);
    let table = table.map_err(|error| map_refusal(&error))?;
    let filled = maps.iter().try_for_each(|(iova, map)| map_into(&mut parts.memory, &table, *iova, map));
    let id = filled.and_then(|()| {
        parts.devices.iommu.ids.alloc().ok_or_else(|| Errno::ENOSPC.because("all domain ids are in use"))
    });
    let domain_id = id.inspect_err(|_| destroy_table(parts, table))?;
    let context = parts.devices.iommufds.get_mut(context);
    let id = context.number();
    let (ioas, token, preserved, attached, restored) = (Some(ioas), None, None, 0, None);
    context.hwpts.insert(id, Hwpt { ioas, table, domain_id, token, auto, preserved, attached, restored });
    Ok(id)
}

fn destroy_table(parts: &mut Parts<'_>, table: PageTable) {
    if let Err(error) = table.destroy(&mut RamRef(parts.memory.ram)) {
        parts.memory.log.warn(format!("iommufd: a page table cannot be freed: {error}"));
    }
}

/// `IOMMU_DESTROY` of a page table.
///
/// # Errors
/// ENOENT; EBUSY: devices are attached, or it is marked.
pub fn hwpt_destroy(parts: &mut Parts<'_>, context: u32, id: u32) -> KResult<()> {
    let hwpt = parts.devices.iommufds.get(context).hwpt(id)?;
    if hwpt.attached > 0 {
        return Err(
            Errno::EBUSY.because(format!("{} devices are attached to page table {id}", hwpt.attached))
        );
    }
    if hwpt.token.is_some() {
        return Err(Errno::EBUSY.because(format!("page table {id} is marked to be preserved")));
    }
    if hwpt
        .restored
        .and_then(|record| parts.devices.iommu.restored(record))
        .is_some_and(|d| !d.attached.is_empty())
    {
        return Err(Errno::EBUSY.because(format!("devices still go through page table {id}")));
    }
    drop_hwpt(parts, context, id);
    Ok(())
}

fn drop_hwpt(parts: &mut Parts<'_>, context: u32, id: u32) {
    let hwpt = parts.devices.iommufds.get_mut(context).hwpts.remove(&id).expect("the caller found it");
    destroy_table(parts, hwpt.table);
    if hwpt.restored.is_none() {
        parts.devices.iommu.ids.release(hwpt.domain_id);
    }
}

/// `IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE`: a page table shall survive, under a token that is unique in the context. There is no way back.
///
/// # Errors
/// ENOENT; EADDRINUSE: another page table has the token; EBUSY: it has another one.
pub fn mark(devices: &mut Devices, context: u32, id: u32, token: u64) -> KResult<()> {
    let context = devices.iommufds.get_mut(context);
    let marked = context.hwpts.iter().find(|(_, hwpt)| hwpt.token == Some(token)).map(|(id, _)| *id);
    if let Some(other) = marked {
        return Err(Errno::EADDRINUSE.because(format!("page table {other} is marked with {token:#x}")));
    }
    let hwpt = context.hwpt_mut(id).ok_or_else(|| none("page table", id))?;
    if hwpt.token.is_some() {
        return Err(Errno::EBUSY.because(format!("page table {id} is marked already")));
    }
    hwpt.token = Some(token);
    Ok(())
}

/// `IOMMU_HWPT_LIVEUPDATE_RESTORE`: takes a page table of the previous kernel back by its token; gives its number.
///
/// # Errors
/// ENOTTY: the context was not retrieved; ENOENT: no such token, or taken back already.
pub fn restore(parts: &mut Parts<'_>, context: u32, token: u64) -> KResult<u32> {
    let data = parts.devices.iommufds.get(context).incoming;
    let data =
        data.ok_or_else(|| Errno::ENOTTY.because("the context did not come from the previous kernel"))?;
    parts.devices.assume(Assumption::RestoreCommand);
    let found = entries(&parts.memory, data)?
        .into_iter()
        .find(|(_, entry)| entry.token.get() == token && entry.reclaimed == 0);
    let gone = || Errno::ENOENT.because(format!("no page table {token:#x} is left to be taken back"));
    let (at, mut entry) = found.ok_or_else(gone)?;
    let record = entry.domain.get();
    let domain = parts.devices.iommu.restored(record).ok_or_else(gone)?;
    let (table, domain_id) = (domain.table, domain.attached.values().next().copied().unwrap_or(0));
    let attached = u32::try_from(domain.attached.len()).expect("few functions");
    entry.reclaimed = 1;
    parts.memory.update_obj(at, &entry);
    let context = parts.devices.iommufds.get_mut(context);
    let id = context.number();
    let (ioas, auto, preserved, restored) = (None, false, None, Some(record));
    let hwpt = Hwpt { ioas, table, domain_id, token: None, auto, preserved, attached, restored };
    context.hwpts.insert(id, hwpt);
    Ok(id)
}

/// The page tables in a context's data, with where each entry lies.
fn entries(memory: &Memory<'_>, data: u64) -> KResult<Vec<(u64, HwptSer)>> {
    let ser: IommufdSer = memory.read_obj(data)?;
    let count = ser.nr_hwpts.get();
    let room = memory.ram.mem.len().saturating_sub(data) / 24;
    if count > room {
        return Err(Errno::EFAULT.because(format!("{count} page tables do not fit in memory")));
    }
    (0..count).map(|n| data + 8 + 24 * n).map(|at| Ok((at, memory.read_obj::<HwptSer>(at)?))).collect()
}

/// The last descriptor of a description was closed, or a device let go of the context.
pub(crate) fn release<H: DeviceHost>(host: &mut H, context: u32) {
    let devices = host.parts().devices;
    let closed = devices.iommufds.find(context).and_then(|context| context.file);
    if let Some(file) = closed
        && object_of(host.files(), driver::IOMMUFD, file) != Some(context)
    {
        host.parts().devices.iommufds.get_mut(context).file = None;
    }
    put(host, context);
}

/// One reference less on a context.
pub(crate) fn put<H: DeviceHost>(host: &mut H, context: u32) {
    let mut parts = host.parts();
    let Some(gone) = parts.devices.iommufds.put(context) else { return };
    for hwpt in gone.hwpts.into_values() {
        // A table that devices of the previous kernel still go through stays where it is.
        let used = hwpt.restored.and_then(|record| parts.devices.iommu.restored(record));
        if used.is_some_and(|domain| !domain.attached.is_empty()) {
            continue;
        }
        destroy_table(&mut parts, hwpt.table);
        if hwpt.restored.is_none() {
            parts.devices.iommu.ids.release(hwpt.domain_id);
        }
    }
    for map in gone.ioas.into_values().flat_map(|space| space.maps.into_values()) {
        drop_mapping(host, &map);
    }
}

/// The handler of iommufd contexts.
#[derive(Clone, Copy, Debug)]
pub struct IommufdHandler;

fn context_of<H: DeviceHost>(host: &H, file: FileId) -> u32 {
    object_of(host.files(), driver::IOMMUFD, file).expect("only iommufds are given to this handler")
}

/// Whether an address space can be preserved: all memory files with the seals, in the same session.
fn check_ioas<H: DeviceHost>(cx: &mut Context<'_, H>, context: u32, ioas: u32) -> KResult<()> {
    let space = &cx.host.devices().iommufds.get(context).ioas[&ioas];
    let maps: Vec<(u64, Behind)> = space.maps.iter().map(|(iova, map)| (*iova, map.behind)).collect();
    for (iova, behind) in maps {
        let Behind::File { file, seals, .. } = behind else {
            return Err(Errno::EINVAL.because(format!("the mapping at {iova:#x} is no file's")));
        };
        if !seals.all(NEEDED_SEALS) {
            let why = format!("the file at {iova:#x} was not sealed against resizing when it was mapped");
            return Err(Errno::EINVAL.because(why));
        }
        cx.token_outgoing(file)
            .map_err(|why| Errno::ENOENT.because(format!("the file mapped at {iova:#x}: {}", why.reason)))?;
    }
    Ok(())
}

/// Preserves one marked page table; gives its entry.
fn preserve_hwpt<H: DeviceHost>(
    cx: &mut Context<'_, H>,
    (context, id): (u32, u32),
    object: u64,
) -> KResult<HwptSer> {
    let hwpt = cx.host.devices().iommufds.get(context).hwpt(id)?;
    if hwpt.preserved.is_some() {
        return Err(Errno::EBUSY.because(format!("page table {id} is preserved already")));
    }
    let token = hwpt.token.expect("only marked ones are preserved");
    let Some(ioas) = hwpt.ioas else {
        let why = format!("page table {id} came from the previous kernel and has no address space");
        return Err(Errno::EOPNOTSUPP.because(why));
    };
    cx.host.parts().devices.iommufds.get_mut(context).ioas(ioas)?.immutable += 1;
    let checked = check_ioas(cx, context, ioas);
    let mut parts = cx.host.parts();
    let table = parts.devices.iommufds.get(context).hwpt(id)?.table;
    let skip = parts.devices.has(Quirk::TablePageSkipped);
    let record = checked.and_then(|()| iommu::preserve_domain(&mut parts.memory, object, &table, skip));
    let context = parts.devices.iommufds.get_mut(context);
    match record {
        Ok(record) => {
            context.hwpt_mut(id).expect("it was found").preserved = Some(record);
            Ok(HwptSer { domain: record.into(), token: token.into(), reclaimed: 0, padding: [0; 7] })
        }
        Err(refusal) => {
            context.ioas(ioas)?.immutable -= 1;
            Err(refusal)
        }
    }
}

/// Undoes what is preserved of a context.
fn unpreserve_hwpts(parts: &mut Parts<'_>, context: u32) {
    let context = parts.devices.iommufds.get_mut(context);
    let mut mutable = Vec::new();
    for hwpt in context.hwpts.values_mut() {
        if let Some(record) = hwpt.preserved.take() {
            iommu::unpreserve_domain(&mut parts.memory, record);
            mutable.extend(hwpt.ioas);
        }
    }
    for ioas in mutable {
        if let Ok(space) = context.ioas(ioas) {
            space.immutable -= 1;
        }
    }
}

impl<H: DeviceHost> FileHandler<H> for IommufdHandler {
    fn compatible(&self) -> &'static str {
        COMPATIBLE
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        object_of(host.files(), driver::IOMMUFD, file).is_some()
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        format!("iommufd {}", context_of(host, file))
    }

    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64> {
        let context = context_of(cx.host, file);
        let hwpts = &cx.host.devices().iommufds.get(context).hwpts;
        let marked: Vec<u32> =
            hwpts.iter().filter(|(_, hwpt)| hwpt.token.is_some()).map(|(id, _)| *id).collect();
        let object = cx.get_outgoing_flb(IOMMU)?;
        let made: KResult<Vec<HwptSer>> =
            marked.iter().map(|id| preserve_hwpt(cx, (context, *id), object)).collect();
        cx.put_outgoing_flb(IOMMU);
        let made = made.and_then(|all| write(&mut cx.memory(), &all));
        if marked.is_empty() {
            cx.host.devices().assume(Assumption::EmptyIommufd);
        }
        made.inspect_err(|_| unpreserve_hwpts(&mut cx.host.parts(), context))
    }

    fn unpreserve(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) {
        let context = context_of(cx.host, file);
        unpreserve_hwpts(&mut cx.host.parts(), context);
        cx.memory().unpreserve_obj(data);
    }

    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId> {
        let mut parts = cx.host.parts();
        if !parts.devices.profile.restores_iommufd() {
            parts.devices.assume(Assumption::PhaseOneRetrieve);
            return Err(
                Errno::EOPNOTSUPP.because("this kernel preserves iommufds and does not give them back")
            );
        }
        let bad = |refusal: Refusal| Errno::EFAULT.because(refusal.reason.to_string());
        entries(&parts.memory, data).map_err(bad)?;
        open(&mut parts, Some(data))
    }

    fn can_finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, data: u64) -> Result<(), String> {
        let RetrieveStatus::Retrieved(_) = status else {
            return Err(String::from("the iommufd is not retrieved"));
        };
        let parts = cx.host.parts();
        for (_, entry) in entries(&parts.memory, data).map_err(|refusal| refusal.to_string())? {
            let token = entry.token.get();
            if entry.reclaimed == 0 {
                return Err(format!("page table {token:#x} is not taken back"));
            }
            let domain = parts.devices.iommu.restored(entry.domain.get());
            let left = domain.and_then(|domain| domain.attached.keys().next());
            if let Some(bdf) = left.filter(|_| !parts.devices.has(Quirk::FinishWhileAttached)) {
                return Err(format!("{bdf} still goes through page table {token:#x} of the previous kernel"));
            }
        }
        Ok(())
    }

    fn finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, data: u64) {
        let parts = cx.host.parts();
        if let RetrieveStatus::Retrieved(file) = status
            && let Some(context) = object_of(parts.files, driver::IOMMUFD, file)
        {
            parts.devices.iommufds.get_mut(context).incoming = None;
        }
        cx.memory().discard_obj(data);
    }
}

fn write(memory: &mut Memory<'_>, all: &[HwptSer]) -> KResult<u64> {
    let count = u64::try_from(all.len()).expect("a count");
    let page = memory.kho.alloc_preserve(memory.ram, size(count), FrameUse::HandlerData)?.raw();
    memory.update_obj(page, &IommufdSer { nr_hwpts: count.into() });
    for (n, entry) in (0..).zip(all) {
        memory.update_obj(page + 8 + 24 * n, entry);
    }
    Ok(page)
}
