//! A machine with devices, and a VMM with guest memory, an iommufd and a device.

use luosim_abi::profile::Profile;
use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_files::shmem::Seals;
use luosim_hardware::driver::Driver;
use luosim_hardware::pci::Layout;
use luosim_hardware::{Bdf, Hardware};
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, BootReport, ImageKind, Machine};
use luosim_physmem::PhysMem;

/// Where guest memory lies for devices.
pub(crate) const IOVA: u64 = 4 << 30;
/// Bytes of guest memory.
pub(crate) const RAM: u64 = 1 << 20;
/// The device below the bridge.
pub(crate) const BELOW: Bdf = Bdf::new(1, 0, 0);
/// The device on the root bus.
pub(crate) const ROOT: Bdf = Bdf::new(0, 2, 0);
/// The second device below the bridge.
pub(crate) const BESIDE: Bdf = Bdf::new(1, 1, 0);

pub(crate) fn options(profile: Profile) -> BootOptions {
    BootOptions { profile, ..BootOptions::default() }
}

/// A machine that runs 7.3.
pub(crate) fn machine(profile: Profile) -> Machine {
    let mut machine = Machine::new(PhysMem::anonymous(64 << 20).expect("the host has room"));
    machine.plug_in(Hardware::new(Layout::reference()).expect("the plan can be built"));
    machine.cold_reset(ReleaseId::V7_3, &options(profile));
    machine
}

/// What a VMM has open.
#[derive(Clone, Debug)]
pub(crate) struct Vmm {
    pub(crate) pid: Pid,
    pub(crate) bdf: Bdf,
    pub(crate) ram: i32,
    pub(crate) iommufd: i32,
    pub(crate) ioas: u32,
    pub(crate) hwpt: u32,
    pub(crate) device: i32,
}

/// Guest memory, sealed as preserving wants it.
pub(crate) fn guest_memory(machine: &mut Machine, pid: Pid) -> i32 {
    let ram = machine.memfd_create(pid, "ram", 2, false).expect("room");
    machine.ftruncate(pid, ram, i64::try_from(RAM).expect("small")).expect("a new file");
    let seals = Seals::SEAL.with(Seals::GROW).with(Seals::SHRINK);
    machine.add_seals(pid, ram, seals).expect("may be sealed");
    ram
}

/// Opens a device by its node, bound to the driver first if it is not.
pub(crate) fn open_device(machine: &mut Machine, pid: Pid, bdf: Bdf) -> KResult<i32> {
    let node = node(machine, bdf).map_or_else(|| machine.vfio_bind_driver(pid, bdf), Ok)?;
    machine.open(pid, &format!("/dev/vfio/devices/vfio{node}"), 2, 0)
}

pub(crate) fn node(machine: &Machine, bdf: Bdf) -> Option<u32> {
    let devices = machine.kernel().expect("running").core().device_files();
    devices.vfio.nodes().find(|(_, found)| *found == bdf).map(|(node, _)| node)
}

impl Vmm {
    /// A process with everything, up to a device that is attached and a master.
    pub(crate) fn start(machine: &mut Machine, bdf: Bdf) -> Self {
        let pid = machine.spawn("vmm").expect("running");
        let ram = guest_memory(machine, pid);
        Self::with_ram(machine, pid, bdf, ram).expect("nothing refuses")
    }

    pub(crate) fn with_ram(machine: &mut Machine, pid: Pid, bdf: Bdf, ram: i32) -> KResult<Self> {
        let iommufd = machine.open(pid, "/dev/iommu", 2, 0)?;
        let ioas = machine.ioas_alloc(pid, iommufd)?;
        machine.ioas_map(pid, (iommufd, ioas), Some((ram, 0)), (IOVA, RAM))?;
        let hwpt = machine.hwpt_alloc(pid, iommufd, ioas)?;
        machine.hwpt_mark(pid, iommufd, hwpt, 0x77)?;
        let device = open_device(machine, pid, bdf)?;
        machine.vfio_bind(pid, device, iommufd)?;
        machine.vfio_attach(pid, device, hwpt)?;
        machine.vfio_master(pid, device, true)?;
        Ok(Self { pid, bdf, ram, iommufd, ioas, hwpt, device })
    }

    /// A device that copies stamps around guest memory for ever.
    pub(crate) fn loop_dma(&self, machine: &mut Machine) -> Driver {
        let mut driver = Driver::new(self.bdf, IOVA);
        let work = |hw: &mut Hardware, mem: &mut luosim_machine::GuestRam<'_>| {
            driver.start(hw, mem, false).expect("guest memory");
            for n in 0..8 {
                let at = driver.buffers() + 4096 * n;
                driver.post_fill(mem, at, 4096, 100 + n).expect("room in the ring");
            }
            driver.post_loop(mem).expect("room in the ring");
            driver.ring(hw);
        };
        machine.guest_driver(self.pid, self.device, (self.ram, IOVA), work).expect("usable");
        driver
    }
}

/// The device of the orchestrator, and a new session: the agent's part, done by the VMM.
pub(crate) fn session(machine: &mut Machine, pid: Pid, name: &[u8]) -> i32 {
    let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("LUO is on");
    let session = machine.create_session(pid, device, name).expect("a new name");
    machine.close(pid, device).expect("open");
    session
}

/// Memory, iommufd and device into a session, as tokens 1, 2 and 3.
pub(crate) fn preserve_all(machine: &mut Machine, vmm: &Vmm, session: i32) {
    for (token, fd) in [(1, vmm.ram), (2, vmm.iommufd), (3, vmm.device)] {
        machine.preserve_fd(vmm.pid, session, fd, token).unwrap_or_else(|why| panic!("token {token}: {why}"));
    }
}

pub(crate) fn kexec(machine: &mut Machine, pid: Pid, profile: Profile) -> KResult<BootReport> {
    kexec_with(machine, pid, options(profile))
}

pub(crate) fn kexec_with(machine: &mut Machine, pid: Pid, options: BootOptions) -> KResult<BootReport> {
    machine.load_image(pid, ReleaseId::V7_3, options, ImageKind::File)?;
    machine.reboot_kexec(pid)
}

/// A machine that jumped with two devices under way, which sessions `one` and `two` carried.
pub(crate) fn two_carried() -> Machine {
    let mut machine = machine(Profile::Target);
    let vmms = [Vmm::start(&mut machine, BELOW), Vmm::start(&mut machine, BESIDE)];
    for (vmm, name) in vmms.iter().zip([b"one", b"two"]) {
        vmm.loop_dma(&mut machine);
        let own = session(&mut machine, vmm.pid, name);
        preserve_all(&mut machine, vmm, own);
    }
    kexec(&mut machine, vmms[0].pid, Profile::Target).expect("nothing refuses");
    machine
}

/// A process of the new kernel with the session, after the devices were bound to their driver.
pub(crate) fn arrive(machine: &mut Machine, name: &[u8], bind: &[Bdf]) -> (Pid, i32) {
    let pid = machine.spawn("vmm").expect("running");
    for bdf in bind {
        machine.vfio_bind_driver(pid, *bdf).expect("it is there");
    }
    let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("LUO is on");
    let session = machine.retrieve_session(pid, device, name).expect("carried");
    machine.close(pid, device).expect("open");
    (pid, session)
}

/// Takes everything back by the published order and moves the device to a page table of this kernel.
pub(crate) fn reclaim(machine: &mut Machine, pid: Pid, session: i32, bdf: Bdf) -> KResult<Vmm> {
    let ram = machine.retrieve_fd(pid, session, 1)?;
    let iommufd = machine.retrieve_fd(pid, session, 2)?;
    let device = machine.retrieve_fd(pid, session, 3)?;
    machine.vfio_bind(pid, device, iommufd)?;
    let ioas = machine.ioas_alloc(pid, iommufd)?;
    machine.ioas_map(pid, (iommufd, ioas), Some((ram, 0)), (IOVA, RAM))?;
    machine.hwpt_restore(pid, iommufd, 0x77)?;
    let hwpt = machine.hwpt_alloc(pid, iommufd, ioas)?;
    machine.hwpt_mark(pid, iommufd, hwpt, 0x77)?;
    machine.vfio_attach(pid, device, hwpt)?;
    Ok(Vmm { pid, bdf, ram, iommufd, ioas, hwpt, device })
}

pub(crate) fn errno<T>(result: KResult<T>) -> Option<Errno> {
    result.err().map(|refusal| refusal.errno)
}
