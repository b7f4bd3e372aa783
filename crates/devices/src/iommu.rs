//! IOMMU core: units, domains and who is attached to what, and its object, `iommu-liveupdate`.
//!
//! A kernel gives each unit a root table of its own and switches it on, so that a function without a context is blocked. What is
//! preserved of it are table pages and records that lead to them; the next kernel takes over the same pages, and the unit goes on
//! translating in between. A page that cannot be taken over stops the boot: DMA may have gone anywhere. Mirrors the authors' work
//! branches; the tables are those of [`luosim_hardware::iommu`].
//!
//! Not here: which addresses are mapped ([`crate::iommufd`]), and leaf pages, which belong to the files behind them.

use std::collections::BTreeMap;

use luosim_abi::devices::iommu::{
    ARRAY_HEADER_SIZE, ArrayHeader, COMPATIBLE, DevMapSer, FLAG_DELETED, IommuDeviceSer, IommuDomainSer,
    IommuFlbSer, IommuHwSer, KIND_SIM, ObjectHeader, SimHwSer, VERSION, capacity,
};
use luosim_abi::profile::Assumption;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_hardware::iommu::{
    ContextEntry, DomainIds, Invalidation, Levels, MapError, PageTable, RamRef, RootTable, reg,
};
use luosim_hardware::{Bdf, SEGMENT};
use luosim_luo::Memory;
use luosim_luo::flb::FlbOps;
use luosim_physmem::{FrameUse, Order, Pfn, PhysAddr, PhysMem, ReadPhys as _};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{DeviceHost, Parts};

/// Address of the first unit's registers, by which it is known; each further unit's is a page above.
pub const UNIT_BASE: u64 = 0xfed9_0000;
/// Most arrays of a chain that a reader follows.
const MAX_ARRAYS: usize = 1024;

/// A domain of the previous kernel.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its page table.
    pub table: PageTable,
    /// Functions that still go through it, with their domain id.
    pub attached: BTreeMap<Bdf, u32>,
}

/// What one kernel knows of its units.
#[derive(Debug, Default)]
pub struct IommuCore {
    roots: Vec<RootTable>,
    /// Domain ids in use; those of the previous kernel are reserved.
    pub(crate) ids: DomainIds,
    /// Domains of the previous kernel by the address of their record.
    restored: BTreeMap<u64, Restored>,
    incoming_data: u64,
}

impl IommuCore {
    /// The root table of a unit.
    #[must_use]
    pub fn root(&self, unit: usize) -> Option<RootTable> {
        self.roots.get(unit).copied()
    }

    /// A domain of the previous kernel, by the address of its record.
    #[must_use]
    pub fn restored(&self, record: u64) -> Option<&Restored> {
        self.restored.get(&record)
    }

    /// The domain of the previous kernel that a function still goes through: the address of its record.
    #[must_use]
    pub fn restored_of(&self, bdf: Bdf) -> Option<u64> {
        let mut all = self.restored.iter();
        all.find(|(_, domain)| domain.attached.contains_key(&bdf)).map(|(record, _)| *record)
    }

    /// The function has moved on to another domain.
    pub(crate) fn leave_restored(&mut self, bdf: Bdf) {
        for domain in self.restored.values_mut() {
            domain.attached.remove(&bdf);
        }
    }
}

/// Why a page table could not be changed, as an errno.
pub(crate) fn map_refusal(error: &MapError) -> Refusal {
    let errno = match error {
        MapError::Shape { .. } | MapError::Width { .. } => Errno::EINVAL,
        MapError::Mapped { .. } => Errno::EEXIST,
        MapError::Unmapped { .. } => Errno::ENOENT,
        MapError::NoMemory => Errno::ENOMEM,
        MapError::Broken { .. } => Errno::EIO,
    };
    errno.because(error.to_string())
}

/// Attaches a function to a page table, in one store; it never sees neither the old nor the new one.
///
/// # Errors
/// ENODEV: it is gone; ENOMEM.
pub(crate) fn attach(parts: &mut Parts<'_>, bdf: Bdf, table: PageTable, id: u32) -> KResult<()> {
    let hardware = parts.hardware.as_deref_mut().ok_or_else(crate::no_hardware)?;
    let info = hardware.function(bdf);
    let info = info.ok_or_else(|| Errno::ENODEV.because(format!("nothing answers at {bdf}")))?;
    let root = parts.devices.iommu.root(info.unit).expect("units are set up at boot");
    let entry = ContextEntry::new(table.top, table.levels, id);
    let set = root.set_context(&mut RamRef(parts.memory.ram), info.rid, entry);
    set.map_err(|error| map_refusal(&error))?;
    hardware.unit(info.unit).write(reg::INVAL, 8, Invalidation::Global.encode());
    Ok(())
}

/// Blocks a function.
pub(crate) fn detach(parts: &mut Parts<'_>, bdf: Bdf) {
    let Some(hardware) = parts.hardware.as_deref_mut() else { return };
    let Some(info) = hardware.function(bdf) else { return };
    let root = parts.devices.iommu.root(info.unit).expect("units are set up at boot");
    root.clear_context(&mut RamRef(parts.memory.ram), info.rid);
    hardware.unit(info.unit).write(reg::INVAL, 8, Invalidation::Global.encode());
}

/// What a unit remembers of a domain id is forgotten: after unmapping.
pub(crate) fn invalidate(parts: &mut Parts<'_>, id: u32) {
    let Some(hardware) = parts.hardware.as_deref_mut() else { return };
    let id = u16::try_from(id).expect("domain ids have sixteen bits");
    for unit in 0..hardware.units().len() {
        hardware.unit(unit).write(reg::INVAL, 8, Invalidation::Domain(id).encode());
    }
}

// Records.

/// The address of every object in a chain of arrays, deleted ones included. Any bytes give an end.
fn objects(mem: &PhysMem, first: u64, size: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    let mut next = first;
    while next != 0 && !seen.contains(&next) && seen.len() < MAX_ARRAYS {
        seen.push(next);
        let Ok(header) = mem.read_obj::<ArrayHeader>(PhysAddr::new(next)) else { break };
        let count = header.nr_objects.get().min(capacity(size));
        found.extend((0..count).map(|slot| next + ARRAY_HEADER_SIZE + slot * size));
        next = header.next.get();
    }
    found
}

/// The pages of a chain.
fn arrays(mem: &PhysMem, first: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut next = first;
    while next != 0 && !seen.contains(&next) && seen.len() < MAX_ARRAYS {
        seen.push(next);
        let Ok(header) = mem.read_obj::<ArrayHeader>(PhysAddr::new(next)) else { break };
        next = header.next.get();
    }
    seen
}

fn size_of_object<T>() -> u64 {
    u64::try_from(size_of::<T>()).expect("the records are small")
}

/// Adds an object behind the last of a chain; gives its address.
fn append<T: IntoBytes + Immutable>(memory: &mut Memory<'_>, first: u64, object: &T) -> KResult<u64> {
    let size = size_of_object::<T>();
    let last = *arrays(&memory.ram.mem, first).last().expect("the first array is there");
    let mut header: ArrayHeader = memory.read_obj(last)?;
    let (mut array, mut count) = (last, header.nr_objects.get());
    if count >= capacity(size) {
        array = memory.preserve_obj(&ArrayHeader { next: 0.into(), nr_objects: 0.into() })?;
        header.next = array.into();
        memory.update_obj(last, &header);
        (header, count) = (ArrayHeader { next: 0.into(), nr_objects: 0.into() }, 0);
    }
    header.nr_objects = (count + 1).into();
    memory.update_obj(array, &header);
    let at = array + ARRAY_HEADER_SIZE + count * size;
    memory.update_obj(at, object);
    Ok(at)
}

fn living<T: FromBytes + IntoBytes>(
    mem: &PhysMem,
    first: u64,
    header: impl Fn(&T) -> ObjectHeader,
) -> Vec<(u64, T)> {
    let all = objects(mem, first, size_of_object::<T>()).into_iter();
    let read = all.filter_map(|at| Some((at, mem.read_obj::<T>(PhysAddr::new(at)).ok()?)));
    read.filter(|(_, object)| header(object).flags.get() & FLAG_DELETED == 0).collect()
}

fn domains(mem: &PhysMem, ser: &IommuFlbSer) -> Vec<(u64, IommuDomainSer)> {
    living(mem, ser.domain_array.get(), |domain: &IommuDomainSer| domain.header)
}

fn devices(mem: &PhysMem, ser: &IommuFlbSer) -> Vec<(u64, IommuDeviceSer)> {
    living(mem, ser.device_array.get(), |device: &IommuDeviceSer| device.header)
}

fn units(mem: &PhysMem, ser: &IommuFlbSer) -> Vec<(u64, SimHwSer)> {
    living(mem, ser.hw_array.get(), |unit: &SimHwSer| unit.hw.header)
}

const NEW: fn() -> ObjectHeader = || ObjectHeader { ref_count: 1.into(), flags: 0.into() };
const NONE: fn() -> ObjectHeader = || ObjectHeader { ref_count: 0.into(), flags: 0.into() };
const GONE: fn() -> ObjectHeader = || ObjectHeader { ref_count: 0.into(), flags: FLAG_DELETED.into() };

fn bdf_of(device: &IommuDeviceSer) -> Bdf {
    Bdf::from_raw(u16::try_from(device.devid.get() & 0xffff).expect("sixteen bits"))
}

/// Preserves the pages of a table; all or none.
fn preserve_pages(memory: &mut Memory<'_>, pages: &[Pfn]) -> KResult<()> {
    for (done, page) in pages.iter().enumerate() {
        if let Err(refusal) = memory.kho.preserve_folio(memory.ram, *page, Order::ZERO) {
            unpreserve_pages(memory, &pages[..done]);
            return Err(refusal);
        }
    }
    Ok(())
}

fn unpreserve_pages(memory: &mut Memory<'_>, pages: &[Pfn]) {
    for page in pages {
        memory.kho.unpreserve_folio(memory.ram, *page, Order::ZERO);
    }
}

fn table_pages(memory: &Memory<'_>, table: &PageTable) -> KResult<Vec<Pfn>> {
    let contents = table.contents(&memory.ram.mem);
    contents.map(|contents| contents.tables).map_err(|error| Errno::EIO.because(error.to_string()))
}

/// Preserves a domain in the object at `data`; gives the address of its record.
///
/// # Errors
/// ENOMEM; EIO: the tables are broken.
pub(crate) fn preserve_domain(
    memory: &mut Memory<'_>,
    data: u64,
    table: &PageTable,
    skip_one: bool,
) -> KResult<u64> {
    let ser: IommuFlbSer = memory.read_obj(data)?;
    let mut pages = table_pages(memory, table)?;
    if skip_one {
        pages.pop();
    }
    preserve_pages(memory, &pages)?;
    let record = IommuDomainSer {
        header: NEW(),
        top_table: table.top.raw().into(),
        top_level: u64::from(table.levels.count() - 1).into(),
        vasz: table.levels.address_bits().into(),
        sign_extend: 0.into(),
        restored_domain: 0.into(),
    };
    append(memory, ser.domain_array.get(), &record).inspect_err(|_| unpreserve_pages(memory, &pages))
}

/// Undoes [`preserve_domain`].
pub(crate) fn unpreserve_domain(memory: &mut Memory<'_>, record: u64) {
    let Ok(mut domain) = memory.read_obj::<IommuDomainSer>(record) else { return };
    if let Some(table) = table_of(&domain)
        && let Ok(pages) = table_pages(memory, &table)
    {
        unpreserve_pages(memory, &pages);
    }
    domain.header = GONE();
    memory.update_obj(record, &domain);
}

fn table_of(domain: &IommuDomainSer) -> Option<PageTable> {
    let count = u32::try_from(domain.top_level.get().checked_add(1)?).ok()?;
    Some(PageTable { top: PhysAddr::new(domain.top_table.get()), levels: Levels::from_count(count)? })
}

/// Preserves an attached function, its unit and the tables that lead to its domain; gives the address of its record.
///
/// # Errors
/// ENODEV: it is gone; ENOMEM.
pub(crate) fn preserve_device(
    parts: &mut Parts<'_>,
    data: u64,
    bdf: Bdf,
    (domain, id): (u64, u32),
) -> KResult<u64> {
    let unit = unit_of(parts, bdf)?;
    let root = parts.devices.iommu.root(unit).expect("units are set up at boot");
    let memory = &mut parts.memory;
    let ser: IommuFlbSer = memory.read_obj(data)?;
    let token = UNIT_BASE + 0x1000 * u64::try_from(unit).expect("two units");
    let pages = root_pages(memory, root, bdf);
    preserve_pages(memory, &pages)?;
    let known = units(&memory.ram.mem, &ser).into_iter().find(|(_, hw)| hw.hw.token.get() == token);
    let fresh = known.is_none();
    let hw = match known {
        Some((at, _)) => at,
        None => {
            let hw = IommuHwSer { header: NONE(), token: token.into(), kind: KIND_SIM.into() };
            let unit = SimHwSer { hw, root_table: root.0.raw().into() };
            append(memory, ser.hw_array.get(), &unit).inspect_err(|_| unpreserve_pages(memory, &pages))?
        }
    };
    let dev_map = DevMapSer { attachment_id: u64::from(id).into(), domain: domain.into(), iommu: hw.into() };
    let devid = u32::from(bdf.raw()).into();
    let record = IommuDeviceSer { header: NEW(), devid, pci_domain_nr: SEGMENT.into(), dev_map };
    let record = append(memory, ser.device_array.get(), &record);
    let mut unit: SimHwSer = memory.read_obj(hw)?;
    match &record {
        Ok(_) => unit.hw.header.ref_count = (unit.hw.header.ref_count.get() + 1).into(),
        // A unit without devices is given up again; one with devices keeps its pages.
        Err(_) if fresh => {
            unit.hw.header = GONE();
            unpreserve_pages(memory, &pages);
        }
        Err(_) => {}
    }
    memory.update_obj(hw, &unit);
    record
}

fn unit_of(parts: &mut Parts<'_>, bdf: Bdf) -> KResult<usize> {
    let info = parts.hardware()?.function(bdf);
    info.map(|info| info.unit).ok_or_else(|| Errno::ENODEV.because(format!("nothing answers at {bdf}")))
}

/// The root page and the context page that leads to a function.
fn root_pages(memory: &Memory<'_>, root: RootTable, bdf: Bdf) -> Vec<Pfn> {
    let context = root.context_table(&memory.ram.mem, bdf.bus());
    std::iter::once(root.0.pfn()).chain(context.map(PhysAddr::pfn)).collect()
}

/// Undoes [`preserve_device`].
pub(crate) fn unpreserve_device(parts: &mut Parts<'_>, data: u64, record: u64) {
    let memory = &mut parts.memory;
    let (Ok(ser), Ok(mut device)) =
        (memory.read_obj::<IommuFlbSer>(data), memory.read_obj::<IommuDeviceSer>(record))
    else {
        return;
    };
    device.header = GONE();
    memory.update_obj(record, &device);
    let at = device.dev_map.iommu.get();
    let Ok(mut hw) = memory.read_obj::<SimHwSer>(at) else { return };
    let root = RootTable(PhysAddr::new(hw.root_table.get()));
    let left = hw.hw.header.ref_count.get() - 1;
    hw.hw.header = if left == 0 { GONE() } else { ObjectHeader { ref_count: left.into(), flags: 0.into() } };
    memory.update_obj(at, &hw);
    let bdf = bdf_of(&device);
    let bus_used = devices(&memory.ram.mem, &ser).iter().any(|(_, other)| bdf_of(other).bus() == bdf.bus());
    let mut pages = root_pages(memory, root, bdf);
    pages.retain(|page| if *page == root.0.pfn() { left == 0 } else { !bus_used });
    unpreserve_pages(memory, &pages);
}

// Shutdown and boot.

/// Shutdown: a unit with preserved functions goes on translating for them and for nobody else; the others are switched off.
pub(crate) fn shutdown(parts: &mut Parts<'_>, outgoing: Option<u64>) {
    let kept: Vec<Bdf> = outgoing
        .and_then(|data| parts.memory.read_obj::<IommuFlbSer>(data).ok())
        .map(|ser| devices(&parts.memory.ram.mem, &ser).iter().map(|(_, device)| bdf_of(device)).collect())
        .unwrap_or_default();
    let Some(hardware) = parts.hardware.as_deref_mut() else { return };
    for (unit, root) in parts.devices.iommu.roots.iter().enumerate() {
        let mem = &mut RamRef(parts.memory.ram);
        let contexts = root.contexts(mem);
        let mine = |rid: &Bdf| kept.contains(rid);
        if !contexts.iter().any(|(rid, _)| mine(rid)) {
            hardware.unit(unit).write(reg::CTRL, 4, 0);
            continue;
        }
        for (rid, _) in contexts.iter().filter(|(rid, _)| !mine(rid)) {
            root.clear_context(mem, *rid);
        }
        for bus in 0..=u8::MAX {
            if !kept.iter().any(|rid| rid.bus() == bus) {
                root.unlink(mem, bus);
            }
        }
        hardware.unit(unit).write(reg::INVAL, 8, Invalidation::Global.encode());
    }
}

/// Boot: takes over the units, tables and domain ids of the previous kernel, or gives units tables of their own.
///
/// # Errors
/// A page that cannot be taken over: the kernel must not go on.
pub(crate) fn boot(parts: &mut Parts<'_>) -> Result<(), String> {
    let count = parts.hardware.as_deref().map_or(0, |hardware| hardware.units().len());
    let incoming = match parts.devices.iommu.incoming_data {
        0 => None,
        data => Some(parts.memory.read_obj::<IommuFlbSer>(data).map_err(|refusal| refusal.to_string())?),
    };
    for unit in 0..count {
        boot_unit(parts, unit, incoming.as_ref())?;
    }
    if let Some(ser) = incoming {
        take_domains(parts, &ser)?;
        poison(parts);
        take_devices(parts, &ser)?;
    }
    Ok(())
}

/// Quirk `leaf-poisoned`: a frame that somebody else owns is written over.
fn poison(parts: &mut Parts<'_>) {
    let quirk = parts.devices.has(Quirk::LeafPoisoned);
    for domain in parts.devices.iommu.restored.values().filter(|_| quirk) {
        let contents = domain.table.contents(&parts.memory.ram.mem).unwrap_or_default();
        if let Some(frame) = contents.frames().last() {
            parts.memory.ram.mem.fill(frame.addr(), 4096, 0xaa).expect("the frame is in memory");
        }
    }
}

fn boot_unit(parts: &mut Parts<'_>, unit: usize, incoming: Option<&IommuFlbSer>) -> Result<(), String> {
    let token = UNIT_BASE + 0x1000 * u64::try_from(unit).expect("two units");
    let known = |hw: &SimHwSer| hw.hw.token.get() == token && hw.hw.kind.get() == KIND_SIM;
    let all = incoming.map(|ser| units(&parts.memory.ram.mem, ser)).unwrap_or_default();
    let found = all.into_iter().find(|(_, hw)| known(hw)).map(|(_, hw)| hw.root_table.get());
    let hardware = parts.hardware.as_deref_mut().expect("the machine has units");
    let root = match found {
        Some(root) => {
            let root = RootTable(PhysAddr::new(root));
            for page in root.pages(&parts.memory.ram.mem) {
                take(&mut parts.memory, page, "a context table")?;
            }
            root
        }
        None => {
            let root = RootTable::new(&mut RamRef(parts.memory.ram));
            root.map_err(|error| format!("IOMMU unit {unit}: {error}"))?
        }
    };
    parts.devices.iommu.roots.push(root);
    let unit = hardware.unit(unit);
    unit.write(reg::ROOT_PA, 8, root.0.raw());
    unit.write(reg::INVAL, 8, Invalidation::Global.encode());
    unit.write(reg::CTRL, 4, u64::from(luosim_hardware::iommu::CTRL_ENABLE));
    Ok(())
}

fn take(memory: &mut Memory<'_>, page: Pfn, what: &str) -> Result<(), String> {
    let taken = memory.kho.restore_folio(memory.ram, page.addr(), FrameUse::IommuTable);
    taken.map(|_| ()).ok_or_else(|| format!("IOMMU: {what} at frame {page} cannot be taken over"))
}

fn take_domains(parts: &mut Parts<'_>, ser: &IommuFlbSer) -> Result<(), String> {
    for (record, domain) in domains(&parts.memory.ram.mem, ser) {
        let table =
            table_of(&domain).ok_or_else(|| format!("IOMMU: the domain at {record:#x} has no table"))?;
        let pages = table_pages(&parts.memory, &table).map_err(|refusal| refusal.to_string())?;
        for page in pages {
            take(&mut parts.memory, page, "a page table")?;
        }
        parts.devices.assume(Assumption::RestoredDomain);
        parts.devices.iommu.restored.insert(record, Restored { table, attached: BTreeMap::new() });
    }
    Ok(())
}

fn take_devices(parts: &mut Parts<'_>, ser: &IommuFlbSer) -> Result<(), String> {
    let quirks = parts.devices.quirks;
    for (_, device) in devices(&parts.memory.ram.mem, ser) {
        let (bdf, map) = (bdf_of(&device), &device.dev_map);
        let id = u32::try_from(map.attachment_id.get()).unwrap_or(u32::MAX);
        let core = &mut parts.devices.iommu;
        let domain = core.restored.get_mut(&map.domain.get());
        let domain = domain.ok_or_else(|| format!("IOMMU: {bdf} is attached to no domain that came"))?;
        domain.attached.insert(bdf, id);
        if !quirks.has(Quirk::DomainIdReused) {
            core.ids.reserve(id);
        }
    }
    Ok(())
}

/// IOMMU core's object.
#[derive(Clone, Copy, Debug)]
pub struct IommuObject;

impl<H: DeviceHost> FlbOps<H> for IommuObject {
    fn compatible(&self) -> &'static str {
        COMPATIBLE
    }

    fn preserve(&self, host: &mut H) -> KResult<u64> {
        let mut memory = host.memory();
        let mut pages = Vec::new();
        let mut array = || -> KResult<u64> {
            let page = memory.preserve_obj(&ArrayHeader { next: 0.into(), nr_objects: 0.into() })?;
            pages.push(page);
            Ok(page)
        };
        let made = (|| Ok((array()?, array()?, array()?)))();
        let made = made.and_then(|(hw, domain, device)| {
            memory.preserve_obj(&IommuFlbSer {
                version: VERSION.into(),
                hw_array: hw.into(),
                domain_array: domain.into(),
                device_array: device.into(),
            })
        });
        made.inspect_err(|_| pages.iter().for_each(|page| memory.unpreserve_obj(*page)))
    }

    fn unpreserve(&self, host: &mut H, data: u64) {
        let mut memory = host.memory();
        let ser: IommuFlbSer = memory.read_obj(data).expect("this kernel wrote it");
        for page in chain_pages(&memory.ram.mem, &ser) {
            memory.unpreserve_obj(page);
        }
        memory.unpreserve_obj(data);
    }

    fn retrieve(&self, host: &mut H, data: u64) -> KResult<()> {
        let parts = host.parts();
        let ser: IommuFlbSer = parts.memory.read_obj(data)?;
        let version = ser.version.get();
        if version != VERSION {
            let why = format!("version {version} of the IOMMU records is not {VERSION}");
            return Err(Errno::EINVAL.because(why));
        }
        parts.devices.iommu.incoming_data = data;
        Ok(())
    }

    fn finish(&self, host: &mut H, data: u64) {
        let parts = host.parts();
        let mut memory = parts.memory;
        let Ok(ser) = memory.read_obj::<IommuFlbSer>(data) else { return };
        for page in chain_pages(&memory.ram.mem, &ser) {
            memory.discard_obj(page);
        }
        memory.discard_obj(data);
        let core = &mut parts.devices.iommu;
        core.incoming_data = 0;
        core.restored.clear();
    }
}

fn chain_pages(mem: &PhysMem, ser: &IommuFlbSer) -> Vec<u64> {
    let firsts = [ser.hw_array, ser.domain_array, ser.device_array];
    firsts.iter().flat_map(|first| arrays(mem, first.get())).collect()
}

/// Whether memory holds an object of this version: for tests that change one.
#[must_use]
pub fn version_at(mem: &PhysMem, data: u64) -> Option<u64> {
    mem.read_word(PhysAddr::new(data)).ok()
}
