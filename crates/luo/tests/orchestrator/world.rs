//! A kernel of nothing but memory, KHO and LUO, and processes whose descriptor *n* is file *n*.

use std::collections::BTreeMap;

use luosim_abi::KResult;
use luosim_abi::extensible::UserMemory;
use luosim_abi::release::{Release, ReleaseId};
use luosim_kho::log::KernelLog;
use luosim_kho::scratch::ScratchSpec;
use luosim_kho::{BootParams, Kho, KhoConfig};
use luosim_luo::{BootPanic, Caller, Event, FileId, Host, Luo, LuoConfig, Memory, SessionKey};
use luosim_physmem::{PhysMem, Ram};

pub(crate) struct World {
    pub(crate) ram: Ram,
    pub(crate) kho: Kho,
    pub(crate) log: KernelLog,
    sessions: Vec<SessionKey>,
    /// References taken less those given back, by file.
    pub(crate) references: BTreeMap<u32, i64>,
}

impl Host for World {
    fn memory(&mut self) -> Memory<'_> {
        Memory { ram: &mut self.ram, kho: &mut self.kho, log: &mut self.log }
    }

    fn file_get(&mut self, file: FileId) {
        *self.references.entry(file.0).or_default() += 1;
    }

    fn file_put(&mut self, file: FileId) {
        *self.references.entry(file.0).or_default() -= 1;
    }

    fn open_session(&mut self, key: SessionKey) -> KResult<FileId> {
        self.sessions.push(key);
        Ok(FileId(0))
    }

    fn emit(&mut self, _: Event) {}
}

/// A process whose memory is one structure and whose descriptor *n* is file *n*.
struct Process {
    memory: Vec<u8>,
    /// The file behind the descriptor that it was given last.
    installed: Option<FileId>,
}

impl Process {
    fn new(memory: Vec<u8>) -> Self {
        Self { memory, installed: None }
    }
}

impl UserMemory for Process {
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        let at = usize::try_from(addr).expect("small");
        buf.copy_from_slice(&self.memory[at..at + buf.len()]);
        Ok(())
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        let at = usize::try_from(addr).expect("small");
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl Caller for Process {
    fn reserve_fd(&mut self) -> KResult<i32> {
        Ok(0)
    }

    fn cancel_fd(&mut self, _: i32) {}

    fn install_fd(&mut self, _: i32, file: FileId) {
        self.installed = Some(file);
    }

    fn lookup_fd(&self, fd: i32) -> KResult<FileId> {
        Ok(FileId(u32::try_from(fd).expect("positive")))
    }
}

/// A cold boot.
pub(crate) fn boot(release: ReleaseId) -> (World, Luo<World>) {
    boot_on(release, PhysMem::anonymous(64 << 20).expect("room"), None)
}

/// A boot on a memory, and what the kernel before left in it.
pub(crate) fn boot_on(
    release: ReleaseId,
    memory: PhysMem,
    params: Option<BootParams>,
) -> (World, Luo<World>) {
    boot_row(release.release(), memory, params).expect("nothing bad came")
}

/// A boot of any row, of a release that never was too; or the panic.
pub(crate) fn boot_row(
    release: &'static Release,
    memory: PhysMem,
    params: Option<BootParams>,
) -> Result<(World, Luo<World>), BootPanic> {
    let mut ram = Ram::new(memory);
    let mut log = KernelLog::default();
    let config = KhoConfig { release, enabled: true, scratch: ScratchSpec::default(), debug: true };
    let kho = Kho::boot(&mut ram, &mut log, config, params);
    let mut world = World { ram, kho, log, sessions: Vec::new(), references: BTreeMap::new() };
    let config = LuoConfig { release, quirks: release.quirks, requested: true };
    let luo = Luo::boot(&mut world.memory(), config)?;
    Ok((world, luo))
}

fn named(code: u32, luo: &mut Luo<World>, world: &mut World, name: &[u8]) -> KResult<SessionKey> {
    let mut argument = vec![0; 72];
    argument[0] = 72;
    argument[8..8 + name.len()].copy_from_slice(name);
    luo.device_ioctl(world, &mut Process::new(argument), code, 0)?;
    Ok(*world.sessions.last().expect("opened"))
}

/// CREATE_SESSION of a new name.
pub(crate) fn create(luo: &mut Luo<World>, world: &mut World, name: &[u8]) -> SessionKey {
    named(0xBA00, luo, world, name).expect("a new name")
}

/// RETRIEVE_SESSION; the device is opened before, which reads what came.
pub(crate) fn take(luo: &mut Luo<World>, world: &mut World, name: &[u8]) -> SessionKey {
    if luo.open_device(world).is_ok() {
        luo.release_device();
    }
    named(0xBA01, luo, world, name).expect("carried")
}

/// PRESERVE_FD of a file under its own number as token.
pub(crate) fn try_preserve(
    luo: &mut Luo<World>,
    world: &mut World,
    session: SessionKey,
    file: u8,
) -> KResult<()> {
    let argument = vec![16, 0, 0, 0, file, 0, 0, 0, file, 0, 0, 0, 0, 0, 0, 0];
    luo.session_ioctl(world, &mut Process::new(argument), session, 0xBA40, 0)
}

/// [`try_preserve`] that must succeed.
pub(crate) fn preserve(luo: &mut Luo<World>, world: &mut World, session: SessionKey, file: u8) {
    try_preserve(luo, world, session, file).expect("taken");
}

/// RETRIEVE_FD.
pub(crate) fn retrieve(
    luo: &mut Luo<World>,
    world: &mut World,
    session: SessionKey,
    token: u8,
) -> KResult<()> {
    retrieve_file(luo, world, session, token).map(|_| ())
}

/// RETRIEVE_FD; gives the file that is behind the new descriptor.
pub(crate) fn retrieve_file(
    luo: &mut Luo<World>,
    world: &mut World,
    session: SessionKey,
    token: u8,
) -> KResult<FileId> {
    let argument = vec![16, 0, 0, 0, 0, 0, 0, 0, token, 0, 0, 0, 0, 0, 0, 0];
    let mut process = Process::new(argument);
    luo.session_ioctl(world, &mut process, session, 0xBA41, 0)?;
    Ok(process.installed.expect("a descriptor was given"))
}

/// The jump: serialises, and boots the next kernel on what is in memory.
pub(crate) fn jump(mut world: World, mut luo: Luo<World>, release: ReleaseId) -> (World, Luo<World>) {
    luo.reboot(&mut world).expect("nobody refuses");
    let params = world.kho.params_for_kexec(&mut world.ram).expect("KHO is on");
    boot_on(release, world.ram.into_mem(), Some(params.expect("the root tree exists")))
}

/// FINISH.
pub(crate) fn finish(luo: &mut Luo<World>, world: &mut World, session: SessionKey) -> KResult<()> {
    luo.session_ioctl(world, &mut Process::new(vec![8, 0, 0, 0, 0, 0, 0, 0]), session, 0xBA42, 0)
}
