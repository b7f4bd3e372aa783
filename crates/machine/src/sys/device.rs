//! Device files: nodes, and their commands as calls.
//!
//! `/dev/kvm`, `/dev/iommu` and what is below `/dev/vfio` exist on a machine with hardware. A command is a function with the values
//! that the real one has in a structure; structures in a process's memory are not read.

use std::rc::Rc;

use luosim_abi::{Errno, KResult};
use luosim_devices::{DeviceHost, driver, guest_memfd, iommufd, kvm, vfio};
use luosim_files::{DriverFile, DriverId, FileKind, InodeId, Shmem};
use luosim_hardware::driver::GuestMemory;
use luosim_hardware::timeline::Phase;
use luosim_hardware::{Bdf, Hardware};
use luosim_luo::FileId;
use luosim_physmem::Ram;

use crate::core::Core;
use crate::module::Driver;
use crate::process::Pid;
use crate::{Kernel, Machine};

/// A memory file as the memory of a guest, from an address of its devices on.
pub struct GuestRam<'a> {
    ram: &'a mut Ram,
    file: &'a mut Shmem,
    base: u64,
    window: u64,
}

impl std::fmt::Debug for GuestRam<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestRam").field("base", &self.base).finish_non_exhaustive()
    }
}

impl GuestMemory for GuestRam<'_> {
    fn read(&self, iova: u64, buf: &mut [u8]) -> bool {
        let at = iova.checked_sub(self.base);
        at.is_some_and(|at| self.file.read_at(self.ram, at, buf) == buf.len())
    }

    fn write(&mut self, iova: u64, bytes: &[u8]) -> bool {
        let at = iova.checked_sub(self.base);
        at.is_some_and(|at| {
            self.file.write_at(self.ram, at, bytes, self.window).is_ok_and(|len| len == bytes.len())
        })
    }
}

impl Kernel {
    /// The driver of a module's file.
    pub(super) fn driver_for(&self, file: DriverFile, errno: Errno) -> KResult<Rc<dyn Driver>> {
        let found = self.drivers.get(file.driver).cloned();
        found
            .ok_or_else(|| errno.because(format!("{} has calls of its own", luosim_devices::link_text(file))))
    }

    pub(super) fn driver_text(&self, file: DriverFile) -> String {
        let module = self.drivers.get(file.driver).map(|driver| driver.path().to_owned());
        module.unwrap_or_else(|| luosim_devices::link_text(file).to_owned())
    }

    /// Opens a device node of the kernel's own, if `path` is one.
    pub(super) fn open_node(&mut self, path: &str) -> KResult<Option<FileId>> {
        if self.core.hardware.is_none() {
            return Ok(None);
        }
        let mut parts = self.core.parts();
        let (driver, object) = match path {
            "/dev/kvm" => (driver::KVM, 0),
            "/dev/iommu" => return iommufd::open(&mut parts, None).map(Some),
            _ if path.starts_with(vfio::GROUPS) => vfio::open(parts.devices, path)?,
            _ => return Ok(None),
        };
        let kind = FileKind::Driver(DriverFile { driver, object });
        let file = self.core.files.table.open(kind, luosim_files::flags::RDWR);
        file.inspect_err(|_| self.core.released.push(kind)).map(Some)
    }

    /// The object behind a descriptor of a driver's file.
    fn object(&self, pid: Pid, fd: i32, driver: DriverId, what: &str) -> KResult<(FileId, u32)> {
        let file = self.file(pid, fd)?;
        let object = luosim_devices::object_of(&self.core.files, driver, file);
        let object = object.ok_or_else(|| Errno::ENOTTY.because(format!("descriptor {fd} is {what}")))?;
        Ok((file, object))
    }

    fn context(&self, pid: Pid, fd: i32) -> KResult<u32> {
        self.object(pid, fd, driver::IOMMUFD, "no iommufd").map(|(_, context)| context)
    }

    fn device(&self, pid: Pid, fd: i32) -> KResult<u32> {
        self.object(pid, fd, driver::VFIO, "no device").map(|(_, device)| device)
    }
}

impl Machine {
    fn on_core<T>(&mut self, pid: Pid, body: impl FnOnce(&mut Kernel) -> KResult<T>) -> KResult<T> {
        self.call(pid, body)
    }

    /// `KVM_CREATE_VM` on `/dev/kvm`.
    ///
    /// # Errors
    /// EINVAL: no such type; EMFILE; ENFILE.
    pub fn create_vm(&mut self, pid: Pid, fd: i32, kind: u64) -> KResult<i32> {
        self.on_core(pid, |kernel| {
            kernel.object(pid, fd, driver::KVM, "not /dev/kvm")?;
            let file = kvm::create(&mut kernel.core.parts(), kind)?;
            Self::install(kernel, pid, file, true, false)
        })
    }

    /// `KVM_CREATE_GUEST_MEMFD` on a virtual machine.
    ///
    /// # Errors
    /// EINVAL: size or flags; EMFILE; ENFILE.
    pub fn create_guest_memfd(&mut self, pid: Pid, fd: i32, size: u64, flags: u64) -> KResult<i32> {
        self.on_core(pid, |kernel| {
            let (vm, _) = kernel.object(pid, fd, driver::VM, "no virtual machine")?;
            let file = guest_memfd::create(&mut kernel.core.parts(), vm, size, flags)?;
            Self::install(kernel, pid, file, true, false)
        })
    }

    /// A virtual machine dies of an error inside KVM.
    ///
    /// # Errors
    /// EBADF; ENOTTY.
    pub fn kill_vm(&mut self, pid: Pid, fd: i32) -> KResult<()> {
        self.on_core(pid, |kernel| {
            let (_, vm) = kernel.object(pid, fd, driver::VM, "no virtual machine")?;
            kernel.core.devices.vms.get_mut(vm).dead = true;
            Ok(())
        })
    }

    fn guest<T>(
        &mut self,
        pid: Pid,
        fd: i32,
        body: impl FnOnce(&mut guest_memfd::GuestMemfd, &mut Ram) -> KResult<T>,
    ) -> KResult<T> {
        self.on_core(pid, |kernel| {
            let (_, guest) = kernel.object(pid, fd, driver::GUEST_MEMFD, "no guest memory")?;
            let parts = kernel.core.parts();
            body(parts.devices.guests.get_mut(guest), parts.memory.ram)
        })
    }

    /// Reads guest memory through a mapping.
    ///
    /// # Errors
    /// EFAULT; EPERM: a page would have to be added, and the memory is frozen; EHWPOISON; ENOMEM.
    pub fn guest_load(&mut self, pid: Pid, fd: i32, at: u64, buf: &mut [u8]) -> KResult<()> {
        self.guest(pid, fd, |guest, ram| guest.read(ram, at, buf))
    }

    /// Writes guest memory through a mapping.
    ///
    /// # Errors
    /// As [`Self::guest_load`].
    pub fn guest_store(&mut self, pid: Pid, fd: i32, at: u64, bytes: &[u8]) -> KResult<()> {
        self.guest(pid, fd, |guest, ram| guest.write(ram, at, bytes))
    }

    /// `fallocate(2)` of guest memory: fills pages, or takes them out.
    ///
    /// # Errors
    /// EPERM while frozen; EINVAL; ENOMEM.
    pub fn guest_fallocate(&mut self, pid: Pid, fd: i32, at: u64, len: u64, punch: bool) -> KResult<()> {
        self.guest(pid, fd, |guest, ram| guest.fallocate(ram, at, len, punch))
    }

    /// A page of guest memory has a hardware error.
    ///
    /// # Errors
    /// EBADF; ENOTTY.
    pub fn guest_poison(&mut self, pid: Pid, fd: i32, page: u64) -> KResult<()> {
        self.guest(pid, fd, |guest, _| {
            guest.poison(page);
            Ok(())
        })
    }

    /// `IOMMU_IOAS_ALLOC`: a new address space.
    ///
    /// # Errors
    /// EBADF; ENOTTY.
    pub fn ioas_alloc(&mut self, pid: Pid, fd: i32) -> KResult<u32> {
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            Ok(iommufd::ioas_alloc(&mut kernel.core.devices, context))
        })
    }

    /// `IOMMU_IOAS_MAP_FILE`, or without a file `IOMMU_IOAS_MAP` of memory of the process.
    ///
    /// # Errors
    /// As [`iommufd::map_file`].
    pub fn ioas_map(
        &mut self,
        pid: Pid,
        (fd, ioas): (i32, u32),
        file: Option<(i32, u64)>,
        (iova, len): (u64, u64),
    ) -> KResult<()> {
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            let Some((file, offset)) = file else {
                return iommufd::map_anonymous(&mut kernel.core.parts(), (context, ioas), (iova, len));
            };
            let file = kernel.file(pid, file)?;
            iommufd::map_file(&mut kernel.core, (context, ioas), (file, offset), (iova, len))
        })
    }

    /// `IOMMU_IOAS_UNMAP` of a whole mapping.
    ///
    /// # Errors
    /// As [`iommufd::unmap`].
    pub fn ioas_unmap(&mut self, pid: Pid, fd: i32, ioas: u32, (iova, len): (u64, u64)) -> KResult<()> {
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            iommufd::unmap(&mut kernel.core, (context, ioas), (iova, len))
        })
    }

    /// `IOMMU_HWPT_ALLOC`: a page table of an address space.
    ///
    /// # Errors
    /// As [`iommufd::hwpt_alloc`].
    pub fn hwpt_alloc(&mut self, pid: Pid, fd: i32, ioas: u32) -> KResult<u32> {
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            iommufd::hwpt_alloc(&mut kernel.core.parts(), context, ioas, false)
        })
    }

    /// `IOMMU_DESTROY` of a page table.
    ///
    /// # Errors
    /// As [`iommufd::hwpt_destroy`].
    pub fn hwpt_destroy(&mut self, pid: Pid, fd: i32, hwpt: u32) -> KResult<()> {
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            iommufd::hwpt_destroy(&mut kernel.core.parts(), context, hwpt)
        })
    }

    /// `IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE`.
    ///
    /// # Errors
    /// As [`iommufd::mark`].
    pub fn hwpt_mark(&mut self, pid: Pid, fd: i32, hwpt: u32, token: u64) -> KResult<()> {
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            iommufd::mark(&mut kernel.core.devices, context, hwpt, token)
        })
    }

    /// `IOMMU_HWPT_LIVEUPDATE_RESTORE`.
    ///
    /// # Errors
    /// As [`iommufd::restore`].
    pub fn hwpt_restore(&mut self, pid: Pid, fd: i32, token: u64) -> KResult<u32> {
        self.spend(Phase::Reclaim);
        self.on_core(pid, |kernel| {
            let context = kernel.context(pid, fd)?;
            iommufd::restore(&mut kernel.core.parts(), context, token)
        })
    }

    /// Binds a function to the driver vfio-pci, as by sysfs; gives the number of its node.
    ///
    /// # Errors
    /// ENODEV; EBUSY.
    pub fn vfio_bind_driver(&mut self, pid: Pid, bdf: Bdf) -> KResult<u32> {
        self.on_core(pid, |kernel| vfio::bind_driver(&mut kernel.core.parts(), bdf))
    }

    /// `VFIO_GROUP_GET_DEVICE_FD`.
    ///
    /// # Errors
    /// As [`vfio::group_device`].
    pub fn vfio_group_device(&mut self, pid: Pid, fd: i32) -> KResult<i32> {
        self.on_core(pid, |kernel| {
            let (_, group) = kernel.object(pid, fd, driver::VFIO_GROUP, "no group")?;
            let file = vfio::group_device(&mut kernel.core.parts(), group)?;
            Self::install(kernel, pid, file, true, false)
        })
    }

    /// The function behind a device's descriptor.
    ///
    /// # Errors
    /// EBADF; ENOTTY.
    pub fn vfio_function(&mut self, pid: Pid, fd: i32) -> KResult<Bdf> {
        self.on_device(pid, fd, |parts, device| {
            let gone = || Errno::ENODEV.because("the device is closed");
            parts.devices.vfio.function(device).ok_or_else(gone)
        })
    }

    /// `VFIO_DEVICE_BIND_IOMMUFD`.
    ///
    /// # Errors
    /// As [`vfio::bind_iommufd`].
    pub fn vfio_bind(&mut self, pid: Pid, fd: i32, iommufd: i32) -> KResult<()> {
        self.on_core(pid, |kernel| {
            let (device, iommufd) = (kernel.device(pid, fd)?, kernel.file(pid, iommufd)?);
            vfio::bind_iommufd(&mut kernel.core.parts(), device, iommufd)
        })
    }

    fn on_device<T>(
        &mut self,
        pid: Pid,
        fd: i32,
        body: impl FnOnce(&mut luosim_devices::Parts<'_>, u32) -> KResult<T>,
    ) -> KResult<T> {
        self.on_core(pid, |kernel| {
            let device = kernel.device(pid, fd)?;
            body(&mut kernel.core.parts(), device)
        })
    }

    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT` to a page table or an address space; gives the page table.
    ///
    /// # Errors
    /// As [`vfio::attach`].
    pub fn vfio_attach(&mut self, pid: Pid, fd: i32, object: u32) -> KResult<u32> {
        let (hwpt, bdf) = self.on_device(pid, fd, |parts, device| {
            let hwpt = vfio::attach(parts, device, object)?;
            Ok((hwpt, parts.devices.vfio.function(device)))
        })?;
        if let Some(bdf) = bdf {
            self.watch_moved(bdf);
        }
        Ok(hwpt)
    }

    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`.
    ///
    /// # Errors
    /// As [`vfio::detach`].
    pub fn vfio_detach(&mut self, pid: Pid, fd: i32) -> KResult<()> {
        self.on_device(pid, fd, vfio::detach)
    }

    /// `VFIO_DEVICE_SET_IRQS`: message interrupts on or off.
    ///
    /// # Errors
    /// As [`vfio::set_irqs`].
    pub fn vfio_irqs(&mut self, pid: Pid, fd: i32, on: bool) -> KResult<()> {
        self.on_device(pid, fd, |parts, device| vfio::set_irqs(parts, device, on))
    }

    /// Power state: 0 or 3.
    ///
    /// # Errors
    /// As [`vfio::set_power`].
    pub fn vfio_power(&mut self, pid: Pid, fd: i32, state: u32) -> KResult<()> {
        self.on_device(pid, fd, |parts, device| vfio::set_power(parts, device, state))
    }

    /// Bus mastering on or off.
    ///
    /// # Errors
    /// As [`vfio::set_master`].
    pub fn vfio_master(&mut self, pid: Pid, fd: i32, on: bool) -> KResult<()> {
        self.on_device(pid, fd, |parts, device| vfio::set_master(parts, device, on))
    }

    /// Reads a register.
    ///
    /// # Errors
    /// As [`vfio::read_register`].
    pub fn vfio_read(&mut self, pid: Pid, fd: i32, offset: u16, width: u8) -> KResult<u64> {
        self.on_device(pid, fd, |parts, device| vfio::read_register(parts, device, offset, width))
    }

    /// Writes a register.
    ///
    /// # Errors
    /// As [`vfio::write_register`].
    pub fn vfio_write(&mut self, pid: Pid, fd: i32, (offset, width): (u16, u8), value: u64) -> KResult<()> {
        self.on_device(pid, fd, |parts, device| vfio::write_register(parts, device, offset, width, value))
    }

    /// Lets a driver of the guest work on a device: `body` has the hardware, and the memory file `ram` as the guest's memory from `base` on.
    ///
    /// # Errors
    /// EIO: the device is frozen; EINVAL: not bound, or `ram` is no memory file.
    pub fn guest_driver<T>(
        &mut self,
        pid: Pid,
        device: i32,
        (ram, base): (i32, u64),
        body: impl FnOnce(&mut Hardware, &mut GuestRam<'_>) -> T,
    ) -> KResult<T> {
        self.on_core(pid, |kernel| {
            let device = kernel.device(pid, device)?;
            vfio::hands_on(&kernel.core.devices, device)?;
            let inode = kernel.memory_inode(pid, ram)?;
            let window = kernel.write_window();
            let Core { files, ram, hardware, .. } = &mut kernel.core;
            let hardware = hardware.as_deref_mut().expect("there is a device");
            let mut guest = GuestRam { ram, file: files.inodes.get_mut(inode), base, window };
            Ok(body(hardware, &mut guest))
        })
    }

    /// A look at a memory file as a guest's memory from `base` on.
    ///
    /// # Errors
    /// EINVAL: no memory file.
    pub fn guest_memory<T>(
        &mut self,
        pid: Pid,
        (ram, base): (i32, u64),
        body: impl FnOnce(&mut GuestRam<'_>) -> T,
    ) -> KResult<T> {
        self.on_core(pid, |kernel| {
            let inode = kernel.memory_inode(pid, ram)?;
            let window = kernel.write_window();
            let Core { files, ram, .. } = &mut kernel.core;
            Ok(body(&mut GuestRam { ram, file: files.inodes.get_mut(inode), base, window }))
        })
    }
}

impl Kernel {
    fn memory_inode(&self, pid: Pid, fd: i32) -> KResult<InodeId> {
        match self.kind(self.file(pid, fd)?) {
            FileKind::Shmem(inode) => Ok(inode),
            kind => Err(Errno::EINVAL.because(format!("{} is no memory of a guest", kind.text()))),
        }
    }
}
