//! Devices in the hands of a program (`/dev/vfio/devices/vfioN`) and their handler, `vfio-pci-v1`.
//!
//! A device is bound to the driver vfio-pci, opened by its node, bound to an iommufd and attached to a page table or an address space;
//! only then its registers can be reached. What is preserved is its identity. Frozen, it refuses everything, and since there is no way
//! back it stays so until it is closed and opened anew. In the new kernel its node cannot be opened until it is finished, so that the
//! way to it is RETRIEVE_FD; it must be bound again before FINISH.
//!
//! What freezing does to the device is the profile's: the posted series resets it and takes bus mastering away, the target leaves it
//! running. Devices got through a group, groups and containers are here only to be refused.
//!
//! Not modelled: mappings of the registers (they are read and written), interrupts as eventfds, hot reset, regions but one.

use std::collections::BTreeMap;

use luosim_abi::devices::iommu::COMPATIBLE as IOMMU;
use luosim_abi::devices::pci::COMPATIBLE as PCI;
use luosim_abi::devices::vfio::{COMPATIBLE, VfioPciSer, VfioPciSerV2};
use luosim_abi::profile::Assumption;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_hardware::Bdf;
use luosim_hardware::pci::Identity;
use luosim_hardware::pci::config::{bits, command, reg};
use luosim_luo::{Context, FileHandler, FileId, RetrieveStatus};

use crate::table::Table;
use crate::{DeviceHost, Devices, Parts, driver, iommu, iommufd, no_hardware, object_of, open_object, pci};

/// Folder of the device nodes.
pub const NODES: &str = "/dev/vfio/devices/vfio";
/// The container.
pub const CONTAINER: &str = "/dev/vfio/vfio";
/// Folder of the group nodes.
pub const GROUPS: &str = "/dev/vfio/";
/// No iommufd, where a token of one is carried.
const NO_TOKEN: u32 = u32::MAX;

/// What a device is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The page table, in the context that the device is bound to.
    pub hwpt: u32,
}

/// What a kernel knows of a device that is preserved.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    /// Its record in IOMMU core's object, if it is attached.
    iommu: Option<u64>,
}

/// A device bound to vfio-pci.
#[derive(Debug, Default)]
pub struct VfioDevice {
    /// The open file that bound it to an iommufd.
    owner: Option<u32>,
    /// The context it is bound to, on which it holds a reference.
    context: Option<u32>,
    attached: Option<Attachment>,
    /// Message interrupts are on.
    irq: bool,
    frozen: bool,
    outgoing: Option<Outgoing>,
}

/// All devices bound to vfio-pci.
#[derive(Debug, Default)]
pub struct Vfio {
    devices: BTreeMap<Bdf, VfioDevice>,
    nodes: BTreeMap<u32, Bdf>,
    files: Table<Bdf>,
}

impl Vfio {
    /// A device, if it is bound to vfio-pci.
    #[must_use]
    pub fn device(&self, bdf: Bdf) -> Option<&VfioDevice> {
        self.devices.get(&bdf)
    }

    /// Nodes and the functions behind them, ascending.
    pub fn nodes(&self) -> impl Iterator<Item = (u32, Bdf)> + '_ {
        self.nodes.iter().map(|(node, bdf)| (*node, *bdf))
    }

    /// The function behind an open file.
    #[must_use]
    pub fn function(&self, file: u32) -> Option<Bdf> {
        self.files.find(file).copied()
    }

    fn device_mut(&mut self, bdf: Bdf) -> &mut VfioDevice {
        self.devices.get_mut(&bdf).expect("open files are of bound devices")
    }
}

impl VfioDevice {
    /// Whether a reboot froze it.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// What it is attached to.
    #[must_use]
    pub fn attached(&self) -> Option<Attachment> {
        self.attached
    }
}

/// Binds a function to the driver vfio-pci; gives the number of its node.
///
/// # Errors
/// ENODEV: nothing answers there, or it is a bridge; EBUSY: it is bound already.
pub fn bind_driver(parts: &mut Parts<'_>, bdf: Bdf) -> KResult<u32> {
    let info = parts.hardware()?.function(bdf);
    let info = info.filter(|info| info.identity != Identity::Bridge);
    info.ok_or_else(|| Errno::ENODEV.because(format!("no device answers at {bdf}")))?;
    let vfio = &mut parts.devices.vfio;
    if vfio.devices.contains_key(&bdf) {
        return Err(Errno::EBUSY.because(format!("{bdf} is bound to vfio-pci already")));
    }
    let node = (0..).find(|node| !vfio.nodes.contains_key(node)).expect("few devices");
    vfio.nodes.insert(node, bdf);
    vfio.devices.insert(bdf, VfioDevice::default());
    Ok(node)
}

fn gate(devices: &Devices, bdf: Bdf) -> KResult<()> {
    if devices.pci.is_incoming(bdf) {
        let why =
            format!("{bdf} came from the previous kernel: it is got by RETRIEVE_FD until it is finished");
        return Err(Errno::EBUSY.because(why));
    }
    Ok(())
}

/// `open(2)` below `/dev/vfio`: the driver and its object.
///
/// # Errors
/// ENOENT: no such node; EBUSY: the device came from the previous kernel and is not finished.
pub fn open(devices: &mut Devices, path: &str) -> KResult<(luosim_files::DriverId, u32)> {
    let missing = || Errno::ENOENT.because(format!("there is no {path}"));
    if path == CONTAINER {
        return Ok((driver::VFIO_CONTAINER, 0));
    }
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|text| text.parse::<u32>().ok());
    if let Some(node) = number(NODES) {
        let bdf = *devices.vfio.nodes.get(&node).ok_or_else(missing)?;
        gate(devices, bdf)?;
        return Ok((driver::VFIO, devices.vfio.files.add(bdf)));
    }
    let group = number(GROUPS).ok_or_else(missing)?;
    devices.assume(Assumption::GroupOfOne);
    if devices.vfio.nodes.contains_key(&group) { Ok((driver::VFIO_GROUP, group)) } else { Err(missing()) }
}

/// `VFIO_GROUP_GET_DEVICE_FD`: the device of a group, as a description of its own.
///
/// # Errors
/// EBUSY: the device came from the previous kernel and is not finished; ENOENT; ENFILE.
pub fn group_device(parts: &mut Parts<'_>, group: u32) -> KResult<FileId> {
    let bdf = parts.devices.vfio.nodes.get(&group).copied();
    let bdf = bdf.ok_or_else(|| Errno::ENOENT.because(format!("group {group} has no device")))?;
    gate(parts.devices, bdf)?;
    open_object(parts.files, driver::VFIO_BY_GROUP, group)
}

fn frozen(bdf: Bdf) -> Refusal {
    Errno::EIO.because(format!("{bdf} is frozen by a reboot: close it and the session, and open it anew"))
}

/// The function behind an open file that may be used: bound to an iommufd by this file, and not frozen.
fn usable(devices: &Devices, file: u32) -> KResult<Bdf> {
    let bdf = *devices.vfio.files.get(file);
    let device = devices.vfio.device(bdf).expect("open files are of bound devices");
    if device.frozen {
        return Err(frozen(bdf));
    }
    if device.owner != Some(file) {
        return Err(Errno::EINVAL.because(format!("{bdf} is not bound to an iommufd by this file")));
    }
    Ok(bdf)
}

/// `VFIO_DEVICE_BIND_IOMMUFD`.
///
/// # Errors
/// EIO: frozen; EINVAL: bound already; EPERM: the device's DMA belongs to an iommufd of the previous kernel, and this is another one;
/// EBADF: the file is no iommufd.
pub fn bind_iommufd(parts: &mut Parts<'_>, file: u32, iommufd: FileId) -> KResult<()> {
    let bdf = *parts.devices.vfio.files.get(file);
    let context = object_of(parts.files, driver::IOMMUFD, iommufd);
    let context = context.ok_or_else(|| Errno::EBADF.because("the descriptor is no iommufd"))?;
    let device = parts.devices.vfio.device(bdf).expect("open files are of bound devices");
    if device.frozen {
        return Err(frozen(bdf));
    }
    if device.owner.is_some() {
        return Err(Errno::EINVAL.because(format!("{bdf} is bound to an iommufd already")));
    }
    let inherited = parts.devices.iommu.restored_of(bdf);
    if inherited.is_some() && parts.devices.iommufds.get(context).incoming.is_none() {
        let why = format!("the DMA of {bdf} belongs to the iommufd of the previous kernel");
        return Err(Errno::EPERM.because(why));
    }
    parts.devices.iommufds.get_ref(context);
    let device = parts.devices.vfio.device_mut(bdf);
    (device.owner, device.context) = (Some(file), Some(context));
    if inherited.is_none() {
        parts.hardware()?.change_command(bdf, command::MEMORY, command::MASTER);
    }
    Ok(())
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`: attaches to a page table, or to an address space through a page table made for it. A device that is
/// attached moves on in one step. Gives the page table.
///
/// # Errors
/// EIO: frozen; EINVAL: not bound; ENOENT: no such object; EBUSY: the device is preserved; ENOMEM.
pub fn attach(parts: &mut Parts<'_>, file: u32, object: u32) -> KResult<u32> {
    let bdf = usable(parts.devices, file)?;
    check_fixed(parts.devices, bdf)?;
    let context = parts.devices.vfio.device_mut(bdf).context.expect("it is bound");
    let hwpt = page_table(parts, context, object)?;
    let found = parts.devices.iommufds.get(context).hwpt(hwpt)?;
    let (table, id) = (found.table, found.domain_id);
    if parts.devices.has(Quirk::ReplaceInTwoSteps) {
        iommu::detach(parts, bdf);
        if let Some(hardware) = parts.hardware.as_deref_mut() {
            hardware.tick(&mut parts.memory.ram.mem, 1);
        }
        return attach_to(parts, bdf, context, (hwpt, table, id));
    }
    attach_to(parts, bdf, context, (hwpt, table, id))
}

fn attach_to(
    parts: &mut Parts<'_>,
    bdf: Bdf,
    context: u32,
    (hwpt, table, id): (u32, luosim_hardware::iommu::PageTable, u32),
) -> KResult<u32> {
    iommu::attach(parts, bdf, table, id)?;
    leave(parts, bdf);
    if let Some(found) = parts.devices.iommufds.get_mut(context).hwpt_mut(hwpt) {
        found.attached += 1;
    }
    parts.devices.vfio.device_mut(bdf).attached = Some(Attachment { hwpt });
    Ok(hwpt)
}

/// The page table that `object` is or, for an address space, has for attachments.
fn page_table(parts: &mut Parts<'_>, context: u32, object: u32) -> KResult<u32> {
    let iommufd = parts.devices.iommufds.get(context);
    if iommufd.hwpts.contains_key(&object) {
        return Ok(object);
    }
    let auto = iommufd.hwpts.iter().find(|(_, hwpt)| hwpt.auto && hwpt.ioas == Some(object));
    match auto {
        Some((id, _)) => Ok(*id),
        None => iommufd::hwpt_alloc(parts, context, object, true),
    }
}

fn check_fixed(devices: &Devices, bdf: Bdf) -> KResult<()> {
    let device = devices.vfio.device(bdf).expect("open files are of bound devices");
    let Some(outgoing) = device.outgoing else { return Ok(()) };
    let (rule, why) = match outgoing.iommu {
        Some(_) => (Assumption::AttachmentFixed, "with its page table"),
        // What it would be attached to now is not carried, and the DMA that goes on would meet nothing at shutdown.
        None if devices.profile.restores_iommufd() => (Assumption::DetachedStays, "without a page table"),
        None => return Ok(()),
    };
    devices.assume(rule);
    Err(Errno::EBUSY.because(format!("{bdf} is preserved {why}")))
}

/// The device is not attached to what it was attached to any more.
fn leave(parts: &mut Parts<'_>, bdf: Bdf) {
    let devices = &mut *parts.devices;
    let device = devices.vfio.device_mut(bdf);
    let left = device.attached.take().zip(device.context);
    let (old, context) = match (left, devices.iommu.restored_of(bdf)) {
        (Some((old, context)), _) => (Some(old.hwpt), Some(context)),
        // It went through a table of the previous kernel: the page table that stands for it has one device less.
        (None, Some(record)) => {
            let context = devices.vfio.device_mut(bdf).context;
            let mine = context.map(|context| devices.iommufds.get(context).hwpts.iter());
            let found = mine.into_iter().flatten().find(|(_, hwpt)| hwpt.restored == Some(record));
            (found.map(|(id, _)| *id), context)
        }
        (None, None) => (None, None),
    };
    devices.iommu.leave_restored(bdf);
    let Some((old, context)) = old.zip(context) else { return };
    let Some(hwpt) = devices.iommufds.get_mut(context).hwpt_mut(old) else { return };
    hwpt.attached = hwpt.attached.saturating_sub(1);
    if hwpt.auto && hwpt.attached == 0 && hwpt.token.is_none() {
        // It was made for attachments and goes with the last.
        let _ = iommufd::hwpt_destroy(parts, context, old);
    }
}

/// `VFIO_DEVICE_DETACH_IOMMUFD_PT`: the device is blocked.
///
/// # Errors
/// As [`attach`].
pub fn detach(parts: &mut Parts<'_>, file: u32) -> KResult<()> {
    let bdf = usable(parts.devices, file)?;
    check_fixed(parts.devices, bdf)?;
    iommu::detach(parts, bdf);
    leave(parts, bdf);
    Ok(())
}

/// `VFIO_DEVICE_SET_IRQS`: message interrupts on or off.
///
/// # Errors
/// As [`read_register`].
pub fn set_irqs(parts: &mut Parts<'_>, file: u32, on: bool) -> KResult<()> {
    let bdf = usable(parts.devices, file)?;
    parts.devices.vfio.device_mut(bdf).irq = on;
    let hardware = parts.hardware()?;
    let now = hardware.config_read(bdf, reg::MSIX_CONTROL, 2);
    let enable = u32::from(bits::MSIX_ENABLE);
    hardware.config_write(bdf, reg::MSIX_CONTROL, 2, if on { now | enable } else { now & !enable });
    Ok(())
}

/// `VFIO_DEVICE_FEATURE`: power state D0 or D3.
///
/// # Errors
/// As [`read_register`].
pub fn set_power(parts: &mut Parts<'_>, file: u32, state: u32) -> KResult<()> {
    let bdf = usable(parts.devices, file)?;
    let hardware = parts.hardware()?;
    let mask = u32::from(bits::PM_STATE);
    let now = hardware.config_read(bdf, reg::PM_CONTROL, 2);
    hardware.config_write(bdf, reg::PM_CONTROL, 2, now & !mask | state & mask);
    Ok(())
}

/// Reads a register, 4 or 8 bytes: ones where nothing answers.
///
/// # Errors
/// EIO: frozen; EINVAL: not bound by this file; ENODEV.
pub fn read_register(parts: &mut Parts<'_>, file: u32, offset: u16, width: u8) -> KResult<u64> {
    let bdf = usable(parts.devices, file)?;
    Ok(parts.hardware()?.mmio_read(bdf, offset, width))
}

/// Writes a register, 4 or 8 bytes.
///
/// # Errors
/// As [`read_register`].
pub fn write_register(parts: &mut Parts<'_>, file: u32, offset: u16, width: u8, value: u64) -> KResult<()> {
    let bdf = usable(parts.devices, file)?;
    parts.hardware()?.mmio_write(bdf, offset, width, value);
    Ok(())
}

/// Sets or clears bus mastering, as a program does by writing the Command register.
///
/// # Errors
/// As [`read_register`].
pub fn set_master(parts: &mut Parts<'_>, file: u32, on: bool) -> KResult<()> {
    let bdf = usable(parts.devices, file)?;
    let (set, clear) = if on { (command::MASTER, 0) } else { (0, command::MASTER) };
    parts.hardware()?.change_command(bdf, set, clear);
    Ok(())
}

/// The hardware and memory of a device that may be used, for a driver that runs in the program.
///
/// # Errors
/// As [`read_register`].
pub fn hands_on(devices: &Devices, file: u32) -> KResult<Bdf> {
    usable(devices, file)
}

/// The last descriptor of a description was closed.
pub(crate) fn release<H: DeviceHost>(host: &mut H, file: u32) {
    let mut parts = host.parts();
    let Some(bdf) = parts.devices.vfio.files.put(file) else { return };
    let device = parts.devices.vfio.device_mut(bdf);
    if device.owner != Some(file) {
        return;
    }
    let context = device.context;
    // A device that goes through a table of the previous kernel keeps it: nobody is left who could move it.
    if parts.devices.iommu.restored_of(bdf).is_none() {
        if let Some(hardware) = parts.hardware.as_deref_mut() {
            hardware.change_command(bdf, 0, command::MASTER | command::MEMORY);
            hardware.try_reset_function(bdf);
        }
        iommu::detach(&mut parts, bdf);
        leave(&mut parts, bdf);
    }
    let device = parts.devices.vfio.device_mut(bdf);
    if std::mem::take(&mut device.frozen) {
        parts.devices.assume(Assumption::FrozenUntilReopened);
    }
    let device = parts.devices.vfio.device_mut(bdf);
    (device.owner, device.context, device.irq, device.attached) = (None, None, false, None);
    if let Some(context) = context {
        iommufd::put(host, context);
    }
}

/// The handler of devices.
#[derive(Clone, Copy, Debug)]
pub struct VfioHandler;

fn file_of<H: DeviceHost>(host: &H, file: FileId) -> u32 {
    object_of(host.files(), driver::VFIO, file).expect("only devices are given to this handler")
}

fn function_of<H: DeviceHost>(host: &H, file: FileId) -> Bdf {
    *host.devices().vfio.files.get(file_of(host, file))
}

/// What is carried with an attached device: its token, and its page table's record and domain id.
struct Carried {
    token: u64,
    domain: (u64, u32),
}

/// Checks what an attached device needs.
fn check_attached<H: DeviceHost>(cx: &mut Context<'_, H>, bdf: Bdf) -> KResult<Option<Carried>> {
    let devices = cx.host.devices();
    let device = devices.vfio.device(bdf).expect("open files are of bound devices");
    let (Some(attached), Some(context)) = (device.attached, device.context) else { return Ok(None) };
    let context = devices.iommufds.get(context);
    let hwpt = context.hwpt(attached.hwpt)?;
    let (id, marked, record) = (hwpt.domain_id, hwpt.token.is_some(), hwpt.preserved);
    if !marked {
        let why = format!("{bdf} is attached to page table {}, which is not marked", attached.hwpt);
        return Err(Errno::EINVAL.because(why));
    }
    let closed = || Errno::ENOENT.because(format!("the iommufd of {bdf} is closed and in no session"));
    let token = cx.token_outgoing(context.file.ok_or_else(closed)?);
    let token =
        token.map_err(|why| Errno::ENOENT.because(format!("{bdf} needs its iommufd: {}", why.reason)))?;
    let record = record.ok_or_else(|| {
        Errno::EINVAL.because(format!("the page table of {bdf} was marked after its iommufd was preserved"))
    })?;
    Ok(Some(Carried { token, domain: (record, id) }))
}

impl VfioHandler {
    fn preserve_in<H: DeviceHost>(
        cx: &mut Context<'_, H>,
        bdf: Bdf,
        (pci_data, iommu_data): (u64, u64),
    ) -> KResult<u64> {
        pci::preserve(&mut cx.host.parts(), pci_data, bdf)?;
        let undo = |cx: &mut Context<'_, H>| pci::unpreserve(&mut cx.host.parts(), pci_data, bdf);
        let carried = check_attached(cx, bdf).inspect_err(|_| undo(cx))?;
        let mut parts = cx.host.parts();
        let record = carried
            .as_ref()
            .map(|carried| iommu::preserve_device(&mut parts, iommu_data, bdf, carried.domain));
        let record = record.transpose().inspect_err(|_| undo(cx))?;
        let saved = write(&mut cx.host.parts(), bdf, carried.as_ref().map(|carried| carried.token));
        let saved = saved.inspect_err(|_| {
            if let Some(record) = record {
                iommu::unpreserve_device(&mut cx.host.parts(), iommu_data, record);
            }
            undo(cx);
        })?;
        let device = cx.host.parts().devices.vfio.devices.get_mut(&bdf).expect("it is open");
        device.outgoing = Some(Outgoing { iommu: record });
        Ok(saved)
    }
}

/// Writes the structure of the profile.
fn write(parts: &mut Parts<'_>, bdf: Bdf, iommufd: Option<u64>) -> KResult<u64> {
    let (domain, bdf) = (luosim_hardware::SEGMENT.into(), bdf.raw().into());
    if !parts.devices.profile.restores_iommufd() {
        return parts.memory.preserve_obj(&VfioPciSer { domain, bdf });
    }
    let low = |token: u64| u32::try_from(token & 0xffff_ffff).expect("the low half");
    let iommufd_token = iommufd.map_or(NO_TOKEN, low).into();
    parts.memory.preserve_obj(&VfioPciSerV2 { domain, bdf, reset_works: 1, iommufd_token })
}

/// The function, and the token of its iommufd, in a structure of the profile.
fn read<H: DeviceHost>(cx: &mut Context<'_, H>, data: u64) -> KResult<(Bdf, Option<u32>)> {
    if !cx.host.devices().profile.restores_iommufd() {
        let ser: VfioPciSer = cx.memory().read_obj(data)?;
        return Ok((Bdf::from_raw(ser.bdf.get()), None));
    }
    let ser: VfioPciSerV2 = cx.memory().read_obj(data)?;
    let token = Some(ser.iommufd_token.get()).filter(|token| *token != NO_TOKEN);
    Ok((Bdf::from_raw(ser.bdf.get()), token))
}

impl<H: DeviceHost> FileHandler<H> for VfioHandler {
    fn compatible(&self) -> &'static str {
        COMPATIBLE
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        let Some(object) = object_of(host.files(), driver::VFIO, file) else { return false };
        let devices = host.devices();
        let bdf = *devices.vfio.files.get(object);
        if devices.vfio.device(bdf).is_none_or(|device| device.owner != Some(object)) {
            devices.assume(Assumption::UnboundCdev);
            return false;
        }
        true
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        format!("device {}", function_of(host, file))
    }

    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64> {
        let bdf = function_of(cx.host, file);
        let objects = (cx.get_outgoing_flb(PCI)?, cx.get_outgoing_flb(IOMMU)?);
        let saved = Self::preserve_in(cx, bdf, objects);
        cx.put_outgoing_flb(IOMMU);
        cx.put_outgoing_flb(PCI);
        saved
    }

    fn unpreserve(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) {
        let bdf = function_of(cx.host, file);
        cx.memory().unpreserve_obj(data);
        let outgoing = cx.host.parts().devices.vfio.device_mut(bdf).outgoing.take();
        if let Some(record) = outgoing.and_then(|outgoing| outgoing.iommu)
            && let Ok(object) = cx.get_outgoing_flb(IOMMU)
        {
            iommu::unpreserve_device(&mut cx.host.parts(), object, record);
            cx.put_outgoing_flb(IOMMU);
        }
        if let Ok(object) = cx.get_outgoing_flb(PCI) {
            pci::unpreserve(&mut cx.host.parts(), object, bdf);
            cx.put_outgoing_flb(PCI);
        }
    }

    fn freeze(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) -> KResult<u64> {
        let bdf = function_of(cx.host, file);
        let mut parts = cx.host.parts();
        if parts.devices.vfio.device_mut(bdf).irq {
            return Err(Errno::EINVAL.because(format!("{bdf} has interrupts enabled")));
        }
        let state = parts.hardware()?.config_read(bdf, reg::PM_CONTROL, 2) & u32::from(bits::PM_STATE);
        if state != 0 {
            return Err(Errno::EINVAL.because(format!("{bdf} is in power state D{state}, not in D0")));
        }
        if parts.devices.profile.resets_at_freeze() {
            let hardware = parts.hardware.as_deref_mut().ok_or_else(no_hardware)?;
            hardware.try_reset_function(bdf);
            hardware.config_write(bdf, reg::COMMAND, 2, u32::from(command::INTX_DISABLE));
        } else {
            parts.devices.assume(Assumption::NoReset);
        }
        parts.devices.vfio.device_mut(bdf).frozen = true;
        Ok(data)
    }

    fn unfreeze(&self, cx: &mut Context<'_, H>, file: FileId, _: u64) {
        // Otherwise nothing: a device stays frozen until it is closed, and its DMA goes on.
        if cx.host.devices().has(Quirk::AbortSilencesDevice) {
            let bdf = function_of(cx.host, file);
            let parts = cx.host.parts();
            if let Some(hardware) = parts.hardware {
                hardware.change_command(bdf, 0, command::MASTER);
                hardware.tick(&mut parts.memory.ram.mem, 8);
            }
        }
    }

    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId> {
        let (bdf, token) = read(cx, data)?;
        let gone = cx.host.devices().vfio.device(bdf).is_none();
        let present = |parts: &mut Parts<'_>| parts.hardware().is_ok_and(|hw| hw.function(bdf).is_some());
        if gone || !present(&mut cx.host.parts()) {
            return Err(Errno::ENODEV.because(format!("{bdf} is not bound to vfio-pci")));
        }
        if let Some(token) = token {
            cx.host.devices().assume(Assumption::DevicePullsIommufd);
            let iommufd = cx.file_incoming(u64::from(token))?;
            cx.host.file_put(iommufd);
        }
        let parts = cx.host.parts();
        let object = parts.devices.vfio.files.add(bdf);
        let file = open_object(parts.files, driver::VFIO, object);
        file.inspect_err(|_| {
            parts.devices.vfio.files.put(object);
        })
    }

    fn can_finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, _: u64) -> Result<(), String> {
        let RetrieveStatus::Retrieved(file) = status else {
            return Err(String::from("the device is not retrieved"));
        };
        let object = file_of(cx.host, file);
        let bdf = function_of(cx.host, file);
        let device = cx.host.devices().vfio.device(bdf);
        if device.is_none_or(|device| device.owner != Some(object)) {
            return Err(format!("{bdf} is not bound to an iommufd"));
        }
        Ok(())
    }

    fn finish(&self, cx: &mut Context<'_, H>, _: RetrieveStatus, data: u64) {
        if let Ok((bdf, _)) = read(cx, data) {
            pci::finish(&mut cx.host.parts(), bdf);
        }
        cx.memory().discard_obj(data);
    }
}
