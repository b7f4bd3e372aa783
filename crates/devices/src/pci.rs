//! PCI core: which functions keep their identity, bus numbers and bus mastering over a kexec, and its object, `pci`.
//!
//! A preserved endpoint has a record, and so has each bridge above it, with the number of preserved endpoints below. The records are
//! the truth and lie in preserved memory; a kernel remembers beside them only which functions came from the previous kernel and
//! whether it is shutting down. Mirrors the maintainers' tree.
//!
//! Not here: which driver takes a function, and what it does with it.

use std::collections::BTreeSet;

use luosim_abi::devices::pci::{COMPATIBLE, PER_BLOCK, PciDevSer, PciSer, VERSION};
use luosim_abi::luo::block::BlockHeader;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_hardware::pci::config::command;
use luosim_hardware::pci::{BusPolicy, Identity, enumerate};
use luosim_hardware::{Bdf, Hardware, SEGMENT};
use luosim_luo::Memory;
use luosim_luo::flb::FlbOps;
use luosim_physmem::{PhysAddr, PhysMem};

use crate::{DeviceHost, Parts};

/// Most blocks that a reader follows: more functions than a segment has.
const MAX_BLOCKS: u64 = 256;

/// What one kernel knows besides the records.
#[derive(Debug, Default)]
pub struct PciCore {
    /// Functions and bridges of the previous kernel that are not finished.
    incoming: BTreeSet<Bdf>,
    /// From the shutdown on nothing changes any more.
    frozen: bool,
    /// Records of the previous kernel; 0 if there are none.
    incoming_data: u64,
}

impl PciCore {
    /// Whether a function came from the previous kernel and is not finished.
    #[must_use]
    pub fn is_incoming(&self, bdf: Bdf) -> bool {
        self.incoming.contains(&bdf)
    }

    /// Functions that came from the previous kernel and are not finished, bridges included, ascending.
    pub fn incoming(&self) -> impl Iterator<Item = Bdf> + '_ {
        self.incoming.iter().copied()
    }
}

/// Every record in a chain of blocks, free ones included, with where it lies. Any bytes give an end.
fn records(mem: &PhysMem, first: u64) -> Vec<(PhysAddr, PciDevSer)> {
    let mut found = Vec::new();
    for block in blocks(mem, first) {
        let Ok(header) = mem.read_obj::<BlockHeader>(block) else { break };
        let slots =
            (0..header.count.get().min(PER_BLOCK)).filter_map(|slot| block.checked_add(16 + 8 * slot));
        found.extend(slots.filter_map(|at| Some((at, mem.read_obj::<PciDevSer>(at).ok()?))));
    }
    found
}

fn blocks(mem: &PhysMem, first: u64) -> Vec<PhysAddr> {
    let mut found = Vec::new();
    let mut next = first;
    for _ in 0..MAX_BLOCKS {
        let at = PhysAddr::new(next);
        let Ok(header) = mem.read_obj::<BlockHeader>(at) else { break };
        if next == 0 || found.contains(&at) {
            break;
        }
        found.push(at);
        next = header.next.get();
    }
    found
}

fn record_of(mem: &PhysMem, ser: &PciSer, bdf: Bdf) -> Option<(PhysAddr, PciDevSer)> {
    let mut all = records(mem, ser.first_block.get()).into_iter();
    all.find(|(_, record)| {
        record.refcount.get() > 0 && record.domain.get() == SEGMENT && record.bdf.get() == bdf.raw()
    })
}

/// Changes the reference count of a function by one; a record is made for it, or freed. Gives the new count.
fn count(memory: &mut Memory<'_>, data: u64, bdf: Bdf, up: bool) -> KResult<u16> {
    let mut ser: PciSer = memory.read_obj(data)?;
    let devices = ser.nr_devices.get();
    if let Some((at, record)) = record_of(&memory.ram.mem, &ser, bdf) {
        let refs = record.refcount.get();
        let refs = if up { refs.saturating_add(1) } else { refs - 1 };
        let new = if refs == 0 { PciDevSer::new(0, 0, 0) } else { PciDevSer::new(SEGMENT, bdf.raw(), refs) };
        memory.update_obj(at.raw(), &new);
        if refs == 0 {
            ser.nr_devices = (devices - 1).into();
            memory.update_obj(data, &ser);
        }
        return Ok(refs);
    }
    if !up {
        return Ok(0);
    }
    let at = free_slot(memory, &mut ser)?;
    memory.update_obj(at.raw(), &PciDevSer::new(SEGMENT, bdf.raw(), 1));
    ser.nr_devices = (devices + 1).into();
    memory.update_obj(data, &ser);
    Ok(1)
}

/// A free record, in a new block if need be.
fn free_slot(memory: &mut Memory<'_>, ser: &mut PciSer) -> KResult<PhysAddr> {
    let all = records(&memory.ram.mem, ser.first_block.get());
    if let Some((at, _)) = all.iter().find(|(_, record)| record.refcount.get() == 0) {
        return Ok(*at);
    }
    for block in blocks(&memory.ram.mem, ser.first_block.get()) {
        let mut header: BlockHeader = memory.read_obj(block.raw())?;
        let used = header.count.get();
        if used < PER_BLOCK {
            header.count = (used + 1).into();
            memory.update_obj(block.raw(), &header);
            return Ok(block.checked_add(16 + 8 * used).expect("inside the block"));
        }
    }
    let header = BlockHeader { next: ser.first_block, count: 1.into() };
    let block = memory.preserve_obj(&header)?;
    ser.first_block = block.into();
    Ok(PhysAddr::new(block + 16))
}

/// Whether a function may be preserved at all.
fn check(hardware: &Hardware, bdf: Bdf) -> KResult<()> {
    let info = hardware.function(bdf);
    let identity = info.ok_or_else(|| Errno::ENODEV.because(format!("nothing answers at {bdf}")))?.identity;
    match identity {
        Identity::Virtual => Err(Errno::EINVAL.because(format!("{bdf} is a virtual function"))),
        Identity::AcsQuirk => {
            Err(Errno::EINVAL.because(format!("{bdf} needs a quirk of its own for access control")))
        }
        Identity::Bridge | Identity::Endpoint => Ok(()),
    }
}

/// Preserves a function and counts on the bridges above it, in the records at `data`.
///
/// # Errors
/// ENODEV: it is gone; EINVAL: of a kind that cannot be preserved, or the kernel is shutting down; EBUSY: it is preserved; ENOMEM.
pub(crate) fn preserve(parts: &mut Parts<'_>, data: u64, bdf: Bdf) -> KResult<()> {
    if parts.devices.pci.frozen {
        return Err(Errno::EINVAL.because(format!("{bdf} is frozen: the kernel is shutting down")));
    }
    let hardware = parts.hardware()?;
    let path = hardware.path(bdf);
    check(hardware, bdf)?;
    path.iter().try_for_each(|on_the_way| check(hardware, *on_the_way))?;
    let ser: PciSer = parts.memory.read_obj(data)?;
    if record_of(&parts.memory.ram.mem, &ser, bdf).is_some() {
        return Err(Errno::EBUSY.because(format!("{bdf} is preserved already")));
    }
    for (done, on_the_way) in path.iter().enumerate() {
        if let Err(refusal) = count(&mut parts.memory, data, *on_the_way, true) {
            for undo in &path[..done] {
                count(&mut parts.memory, data, *undo, false).expect("it was counted just now");
            }
            return Err(refusal);
        }
    }
    Ok(())
}

/// Undoes [`preserve`].
pub(crate) fn unpreserve(parts: &mut Parts<'_>, data: u64, bdf: Bdf) {
    if parts.devices.pci.frozen {
        parts.memory.log.warn(format!("pci {bdf}: not unpreserved: the kernel is shutting down"));
        return;
    }
    let Ok(hardware) = parts.hardware() else { return };
    for on_the_way in hardware.path(bdf) {
        if let Err(refusal) = count(&mut parts.memory, data, on_the_way, false) {
            parts.memory.log.warn(format!("pci {on_the_way}: {refusal}"));
        }
    }
}

/// A file of the previous kernel that stood for this function is finished.
pub(crate) fn finish(parts: &mut Parts<'_>, bdf: Bdf) {
    if !parts.devices.pci.is_incoming(bdf) {
        parts.memory.log.warn(format!("pci {bdf}: finished, but it did not come from the previous kernel"));
        return;
    }
    let data = parts.devices.pci.incoming_data;
    let path = parts.hardware.as_deref().map(|hardware| hardware.path(bdf)).unwrap_or_default();
    for on_the_way in path {
        if count(&mut parts.memory, data, on_the_way, false).is_ok_and(|left| left == 0) {
            parts.devices.pci.incoming.remove(&on_the_way);
        }
    }
}

/// What a kernel does at boot: finds the functions. Those that came keep their bus numbers, and with them everybody.
pub(crate) fn scan(parts: &mut Parts<'_>) {
    let keep = !parts.devices.pci.incoming.is_empty();
    let Ok(hardware) = parts.hardware() else { return };
    let policy = if keep { BusPolicy::Keep } else { BusPolicy::Assign { first: 1 } };
    let found = enumerate(hardware, policy).len();
    let how = if keep { "bus numbers kept" } else { "bus numbers assigned" };
    parts.memory.log.info(format!("pci: {found} functions, {how}"));
    if parts.devices.has(Quirk::DeviceResetAtBoot) {
        let came: Vec<Bdf> = parts.devices.pci.incoming.iter().copied().collect();
        let hardware = parts.hardware.as_deref_mut().expect("it was scanned just now");
        for bdf in came {
            hardware.try_reset_function(bdf);
        }
    }
}

/// Shutdown: nothing changes any more; functions that are not preserved lose bus mastering, preserved ones and the bridges above them
/// keep it where the kernel knows of that.
pub(crate) fn shutdown(parts: &mut Parts<'_>, outgoing: Option<u64>, exempt: bool) {
    parts.devices.pci.frozen = true;
    let clears_bridges = parts.devices.has(Quirk::BridgeMasterCleared);
    let kept = outgoing.filter(|_| exempt).map(|data| preserved(&parts.memory, data)).unwrap_or_default();
    let Ok(hardware) = parts.hardware() else { return };
    let functions: Vec<Bdf> = hardware.functions().filter_map(|info| info.bdf).collect();
    for bdf in functions {
        let bridge = hardware.function(bdf).is_some_and(|info| info.identity == Identity::Bridge);
        if !kept.contains(&bdf) || bridge && clears_bridges {
            hardware.change_command(bdf, 0, command::MASTER);
        }
    }
}

/// Functions and bridges in the records at `data`.
#[must_use]
pub fn preserved(memory: &Memory<'_>, data: u64) -> BTreeSet<Bdf> {
    let Ok(ser) = memory.read_obj::<PciSer>(data) else { return BTreeSet::new() };
    let all = records(&memory.ram.mem, ser.first_block.get()).into_iter();
    all.filter(|(_, record)| record.refcount.get() > 0)
        .map(|(_, record)| Bdf::from_raw(record.bdf.get()))
        .collect()
}

/// PCI core's object.
#[derive(Clone, Copy, Debug)]
pub struct PciObject;

impl<H: DeviceHost> FlbOps<H> for PciObject {
    fn compatible(&self) -> &'static str {
        COMPATIBLE
    }

    fn preserve(&self, host: &mut H) -> KResult<u64> {
        let ser = PciSer { version: VERSION.into(), nr_devices: 0.into(), first_block: 0.into() };
        host.memory().preserve_obj(&ser)
    }

    fn unpreserve(&self, host: &mut H, data: u64) {
        let mut memory = host.memory();
        let ser: PciSer = memory.read_obj(data).expect("this kernel wrote it");
        for block in blocks(&memory.ram.mem, ser.first_block.get()) {
            memory.unpreserve_obj(block.raw());
        }
        memory.unpreserve_obj(data);
    }

    fn retrieve(&self, host: &mut H, data: u64) -> KResult<()> {
        let parts = host.parts();
        let ser: PciSer = parts.memory.read_obj(data)?;
        let version = ser.version.get();
        if version != VERSION {
            return Err(
                Errno::EINVAL.because(format!("version {version} of the PCI records is not {VERSION}"))
            );
        }
        parts.devices.pci.incoming = preserved(&parts.memory, data);
        parts.devices.pci.incoming_data = data;
        Ok(())
    }

    fn finish(&self, host: &mut H, data: u64) {
        let mut parts = host.parts();
        let Ok(ser) = parts.memory.read_obj::<PciSer>(data) else { return };
        if ser.nr_devices.get() != 0 {
            let left = ser.nr_devices.get();
            parts.devices.panic(format!("pci: {left} functions are left when the last file is finished"));
            return;
        }
        for block in blocks(&parts.memory.ram.mem, ser.first_block.get()) {
            parts.memory.discard_obj(block.raw());
        }
        parts.memory.discard_obj(data);
        parts.devices.pci.incoming_data = 0;
    }
}
