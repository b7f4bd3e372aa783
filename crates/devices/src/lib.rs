//! Device file types of one simulated kernel, and the handlers that carry them over a kexec.
//!
//! [`kvm`] has virtual machines, [`guest_memfd`] the memory that belongs to one, [`iommufd`] address spaces and page tables for
//! devices, [`vfio`] devices in the hands of a program. Below them are two cores, which keep what all files of a kernel share:
//! [`pci`] identity, bus numbers and bus mastering, [`iommu`] units, domains and who is attached to what. Each core has an object
//! bound to the life of preserved files (an FLB).
//!
//! What of it is carried lies in memory, in the layouts of [`luosim_abi::devices`]; everything in [`Devices`] belongs to one
//! kernel and is dropped at a kexec. The hardware stays: it belongs to the machine ([`luosim_hardware`]).
//!
//! No released kernel has handlers for these files. What they do follows a [`Profile`]; a rule that nobody has published is noted
//! where it is relied on ([`Devices::assume`]).
//!
//! Not here: paths, descriptors and processes (crate `luosim-machine`), and raw command structures: each command is a function.

#![forbid(unsafe_code)]

pub mod guest_memfd;
pub mod iommu;
pub mod iommufd;
pub mod kvm;
pub mod pci;
mod table;
pub mod vfio;

use luosim_abi::profile::{Assumption, Profile};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult, Refusal};
use luosim_files::{DriverFile, DriverId, FileKind, Files, HasFiles};
use luosim_hardware::Hardware;
use luosim_luo::{FileId, Host, Luo, Memory};
use std::cell::RefCell;
use std::rc::Rc;

pub use table::Table;

use crate::guest_memfd::GuestMemfd;
use crate::iommu::IommuCore;
use crate::iommufd::Iommufd;
use crate::kvm::Vm;
use crate::pci::PciCore;
use crate::vfio::Vfio;

/// The kernel's own drivers, by number.
pub mod driver {
    use luosim_files::DriverId;

    /// `/dev/kvm`.
    pub const KVM: DriverId = DriverId(0);
    /// A virtual machine.
    pub const VM: DriverId = DriverId(1);
    /// A virtual machine's memory.
    pub const GUEST_MEMFD: DriverId = DriverId(2);
    /// `/dev/iommu`.
    pub const IOMMUFD: DriverId = DriverId(3);
    /// A device, opened by its node.
    pub const VFIO: DriverId = DriverId(4);
    /// A group of devices.
    pub const VFIO_GROUP: DriverId = DriverId(5);
    /// A container of groups.
    pub const VFIO_CONTAINER: DriverId = DriverId(6);
    /// A device, got through its group.
    pub const VFIO_BY_GROUP: DriverId = DriverId(7);
    /// The first number that none of these has.
    pub const END: u16 = 8;
}

/// All device files of a kernel, and the cores below them.
#[derive(Debug, Default)]
pub struct Devices {
    /// What kind of kernel it is.
    pub profile: Profile,
    /// Its defects.
    pub quirks: Quirks,
    /// Virtual machines.
    pub vms: Table<Vm>,
    /// Memory of virtual machines.
    pub guests: Table<GuestMemfd>,
    /// iommufd contexts.
    pub iommufds: Table<Iommufd>,
    /// Devices bound to vfio-pci, and who has them open.
    pub vfio: Vfio,
    /// PCI core.
    pub pci: PciCore,
    /// IOMMU core.
    pub iommu: IommuCore,
    assumed: RefCell<Vec<Assumption>>,
    panicked: Option<String>,
}

/// A kernel's insides, borrowed apart.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Device files.
    pub devices: &'a mut Devices,
    /// The other files.
    pub files: &'a mut Files,
    /// Memory, KHO and log.
    pub memory: Memory<'a>,
    /// The machine's hardware, if it has any.
    pub hardware: Option<&'a mut Hardware>,
}

/// A kernel that may have device files.
pub trait DeviceHost: Host + HasFiles {
    /// The device files.
    fn devices(&self) -> &Devices;
    /// Everything, borrowed apart.
    fn parts(&mut self) -> Parts<'_>;
}

impl Devices {
    /// Those of a kernel that boots.
    #[must_use]
    pub fn new(profile: Profile, quirks: Quirks) -> Self {
        Self { profile, quirks, ..Self::default() }
    }

    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.quirks.has(quirk)
    }

    /// Notes that something rests on a rule that nobody has published.
    pub fn assume(&self, assumption: Assumption) {
        let mut assumed = self.assumed.borrow_mut();
        if !assumed.contains(&assumption) {
            assumed.push(assumption);
        }
    }

    /// What was relied on since the last question, in order.
    pub fn take_assumed(&mut self) -> Vec<Assumption> {
        self.assumed.take()
    }

    /// The kernel cannot go on.
    pub(crate) fn panic(&mut self, why: String) {
        self.panicked.get_or_insert(why);
    }

    /// Why the kernel cannot go on, if it is so.
    pub fn take_panic(&mut self) -> Option<String> {
        self.panicked.take()
    }
}

impl<'a> Parts<'a> {
    /// The hardware.
    ///
    /// # Errors
    /// ENODEV: the machine has none.
    pub fn hardware(&mut self) -> KResult<&mut Hardware> {
        self.hardware.as_deref_mut().ok_or_else(no_hardware)
    }
}

fn no_hardware() -> Refusal {
    Errno::ENODEV.because("the machine has no devices: give it a profile that has")
}

/// The object of `driver` behind a description.
#[must_use]
pub fn object_of(files: &Files, driver: DriverId, file: FileId) -> Option<u32> {
    match files.table.find(file)?.kind {
        FileKind::Driver(found) if found.driver == driver => Some(found.object),
        _ => None,
    }
}

/// Opens a description of an object of a driver, with one reference.
///
/// # Errors
/// ENFILE.
pub(crate) fn open_object(files: &mut Files, driver: DriverId, object: u32) -> KResult<FileId> {
    let kind = FileKind::Driver(DriverFile { driver, object });
    files.table.open(kind, luosim_files::flags::RDWR)
}

/// Registers the handlers and objects that the profile has; `vfio` is whether the one of devices is built in.
///
/// # Errors
/// As [`Luo::register_handler`] and [`Luo::register_flb`].
pub fn register<H: DeviceHost + 'static>(luo: &mut Luo<H>, profile: Profile, vfio: bool) -> KResult<()> {
    if profile == Profile::Mainline {
        return Ok(());
    }
    let (pci, iommu) = (Rc::new(pci::PciObject), Rc::new(iommu::IommuObject));
    luo.add_flb(pci.clone())?;
    if !profile.devices() {
        return Ok(());
    }
    luo.add_flb(iommu.clone())?;
    if vfio {
        luo.register_handler(Rc::new(vfio::VfioHandler))?;
        luo.register_flb(luosim_abi::devices::vfio::COMPATIBLE, pci)?;
        luo.register_flb(luosim_abi::devices::vfio::COMPATIBLE, iommu.clone())?;
    }
    luo.register_handler(Rc::new(iommufd::IommufdHandler))?;
    luo.register_flb(luosim_abi::devices::iommufd::COMPATIBLE, iommu)?;
    luo.register_handler(Rc::new(kvm::VmHandler))?;
    luo.register_handler(Rc::new(guest_memfd::GuestMemfdHandler))
}

/// Early in a boot: finds the functions and takes the IOMMU units over. The objects of the previous kernel have been retrieved before.
///
/// # Errors
/// Something that must not be gone on with: the kernel panics.
pub fn boot(parts: &mut Parts<'_>) -> Result<(), String> {
    if parts.hardware.is_none() {
        return Ok(());
    }
    pci::scan(parts);
    iommu::boot(parts)
}

/// The last thing that a kernel does with its devices: what is not preserved is silenced. `pci` and `iommu` are the handles of the
/// outgoing objects.
pub fn shutdown(parts: &mut Parts<'_>, pci: Option<u64>, iommu: Option<u64>) {
    if parts.devices.pci.incoming().next().is_some() {
        parts.devices.assume(Assumption::NotCarriedTwice);
    }
    if parts.devices.has(Quirk::OtherDeviceRunsOn) {
        return;
    }
    let exempt = parts.devices.profile.keeps_bus_mastering();
    pci::shutdown(parts, pci, exempt);
    iommu::shutdown(parts, iommu);
}

/// The last descriptor of a description was closed.
pub fn release<H: DeviceHost>(host: &mut H, file: DriverFile) {
    match file.driver {
        driver::VM => kvm::put(host.parts().devices, file.object),
        driver::GUEST_MEMFD => guest_memfd::release(&mut host.parts(), file.object),
        driver::IOMMUFD => iommufd::release(host, file.object),
        driver::VFIO => vfio::release(host, file.object),
        _ => {}
    }
}

/// What the link of a descriptor says.
#[must_use]
pub fn link_text(file: DriverFile) -> &'static str {
    match file.driver {
        driver::KVM => "/dev/kvm",
        driver::VM => "anon_inode:kvm-vm",
        driver::GUEST_MEMFD => "anon_inode:[kvm-gmem]",
        driver::IOMMUFD => "/dev/iommu",
        driver::VFIO => "/dev/vfio/devices/vfio",
        driver::VFIO_GROUP => "/dev/vfio/group",
        driver::VFIO_CONTAINER => "/dev/vfio/vfio",
        _ => "anon_inode:[vfio-device]",
    }
}
