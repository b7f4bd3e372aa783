//! A kernel of memory, KHO and a posted design; a process whose memory is 4 KiB; a handler whose files are numbers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use luosim_abi::extensible::UserMemory;
use luosim_abi::posted::{Design, Event, State, v2};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::release::{POSTED, Release};
use luosim_abi::{Errno, KResult};
use luosim_kho::log::KernelLog;
use luosim_kho::scratch::ScratchSpec;
use luosim_kho::{BootParams, Kho, KhoConfig};
use luosim_luo::{Caller, FileId, Host, Memory, SessionKey};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, PhysMem, Ram};
use luosim_posted::subsystem::TestSubsystem;
use luosim_posted::{Handler, OpenId, Posted, PostedConfig};

/// Where the process's memory begins.
pub(crate) const ARG: u64 = 0x1000;
const ROOM: usize = 4096;

pub(crate) struct World {
    pub(crate) ram: Ram,
    pub(crate) kho: Kho,
    pub(crate) log: KernelLog,
    sessions: Vec<SessionKey>,
    /// References that the orchestrator holds, by file.
    pub(crate) held: BTreeMap<u32, i64>,
    /// Sessions whose last reference was given back.
    dropped: Vec<u32>,
}

impl Host for World {
    fn memory(&mut self) -> Memory<'_> {
        Memory { ram: &mut self.ram, kho: &mut self.kho, log: &mut self.log }
    }

    fn file_get(&mut self, file: FileId) {
        *self.held.entry(file.0).or_default() += 1;
    }

    fn file_put(&mut self, file: FileId) {
        *self.held.entry(file.0).or_default() -= 1;
        if file.0 >= SESSIONS {
            self.dropped.push(file.0 - SESSIONS);
        }
    }

    fn open_session(&mut self, key: SessionKey) -> KResult<FileId> {
        self.sessions.push(key);
        Ok(FileId(SESSIONS + key.0))
    }

    fn emit(&mut self, _: luosim_luo::Event) {}
}

/// Numbers of session files begin here; those of restored files at 100.
const SESSIONS: u32 = 1000;

#[derive(Default)]
pub(crate) struct Process {
    pub(crate) memory: Vec<u8>,
    pub(crate) read_only: bool,
    /// From this byte on the memory cannot be written.
    pub(crate) read_only_from: Option<usize>,
    pub(crate) fds: BTreeMap<i32, FileId>,
    reserved: BTreeSet<i32>,
}

impl Process {
    fn range(&self, addr: u64, len: usize) -> KResult<std::ops::Range<usize>> {
        let from = addr.checked_sub(ARG).and_then(|from| usize::try_from(from).ok());
        let range = from.and_then(|from| Some(from..from.checked_add(len)?));
        range
            .filter(|range| range.end <= self.memory.len())
            .ok_or_else(|| Errno::EFAULT.because("outside the memory of the process"))
    }
}

impl UserMemory for Process {
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        buf.copy_from_slice(&self.memory[self.range(addr, buf.len())?]);
        Ok(())
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        let range = self.range(addr, bytes.len())?;
        if self.read_only || self.read_only_from.is_some_and(|from| range.end > from) {
            return Err(Errno::EFAULT.because("read-only"));
        }
        self.memory[range].copy_from_slice(bytes);
        Ok(())
    }
}

impl Caller for Process {
    fn reserve_fd(&mut self) -> KResult<i32> {
        let free = (0..).find(|fd| !self.fds.contains_key(fd) && !self.reserved.contains(fd)).unwrap();
        self.reserved.insert(free);
        Ok(free)
    }

    fn cancel_fd(&mut self, fd: i32) {
        self.reserved.remove(&fd);
    }

    fn install_fd(&mut self, fd: i32, file: FileId) {
        self.reserved.remove(&fd);
        self.fds.insert(fd, file);
    }

    /// Descriptors 500 and up are files of their number, preservable up to 599.
    fn lookup_fd(&self, fd: i32) -> KResult<FileId> {
        match (fd, self.fds.get(&fd)) {
            (_, Some(file)) => Ok(*file),
            (500..700, None) => Ok(FileId(u32::try_from(fd).unwrap())),
            _ => Err(Errno::EBADF.because("not open")),
        }
    }
}

/// A handler that writes down its calls, and fails when it is told to.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Rc<RefCell<Vec<String>>>,
    /// Callbacks that fail, once each: name and file. A file that was restored has another number, with the same last two
    /// digits.
    pub(crate) refuse: Rc<RefCell<Vec<(&'static str, u32)>>>,
}

impl Recorder {
    fn called(&self, what: &'static str, file: u32) -> KResult<()> {
        self.calls.borrow_mut().push(format!("{what} {file}"));
        let mut refuse = self.refuse.borrow_mut();
        match refuse.iter().position(|(told, number)| *told == what && number % 100 == file % 100) {
            Some(at) => {
                refuse.remove(at);
                Err(Errno::ENODEV.because("the test refuses"))
            }
            None => Ok(()),
        }
    }
}

impl Handler<World> for Recorder {
    fn compatible(&self) -> &'static str {
        "test-v1"
    }

    fn can_preserve(&self, _: &World, file: FileId) -> bool {
        file.0 < 600
    }

    fn describe(&self, _: &World, file: FileId) -> String {
        format!("file {}", file.0)
    }

    fn prepare(&self, host: &mut World, file: FileId) -> KResult<u64> {
        self.called("prepare", file.0)?;
        let mem = host.memory();
        let page = mem.kho.alloc_preserve(mem.ram, PAGE_SIZE, FrameUse::HandlerData)?;
        mem.ram.mem.write_u64(page, u64::from(file.0)).unwrap();
        Ok(page.raw())
    }

    fn freeze(&self, _: &mut World, file: FileId, data: u64) -> KResult<u64> {
        self.called("freeze", file.0)?;
        Ok(data)
    }

    fn cancel(&self, host: &mut World, file: FileId, data: u64) {
        self.calls.borrow_mut().push(format!("cancel {}", file.0));
        let mem = host.memory();
        mem.kho.unpreserve_free(mem.ram, PhysAddr::new(data));
    }

    fn finish(&self, host: &mut World, file: Option<FileId>, data: u64, reclaimed: bool) {
        let who = file.map_or_else(|| String::from("nobody"), |file| file.0.to_string());
        self.calls
            .borrow_mut()
            .push(format!("finish {who} {}", if reclaimed { "reclaimed" } else { "left" }));
        let mem = host.memory();
        mem.kho.restore_free(mem.ram, PhysAddr::new(data));
    }

    fn retrieve(&self, host: &mut World, data: u64) -> KResult<FileId> {
        let number = host
            .ram
            .mem
            .read_u64(PhysAddr::new(data))
            .map_err(|error| Errno::EINVAL.because(error.to_string()))?;
        let number = u32::try_from(number % 1000).unwrap();
        self.called("retrieve", number)?;
        let file = FileId(100 + number % 400);
        host.file_get(file);
        Ok(file)
    }
}

/// A booted kernel with the device open.
pub(crate) struct Kernel {
    pub(crate) world: World,
    pub(crate) luo: Posted<World>,
    pub(crate) process: Process,
    pub(crate) handler: Recorder,
    pub(crate) tests: [Rc<TestSubsystem>; 2],
    pub(crate) open: OpenId,
    quirks: Quirks,
}

pub(crate) fn row(design: Design) -> &'static Release {
    POSTED.iter().find(|row| row.posted == Some(design)).unwrap()
}

/// What ends a boot that panics.
pub(crate) type Booted = Result<Kernel, String>;

impl Kernel {
    pub(crate) fn cold(design: Design) -> Self {
        Self::cold_with(design, row(design).quirks)
    }

    pub(crate) fn cold_with(design: Design, quirks: Quirks) -> Self {
        Self::boot(design, quirks, PhysMem::anonymous(32 << 20).unwrap(), None, true).unwrap()
    }

    pub(crate) fn boot(
        design: Design,
        quirks: Quirks,
        memory: PhysMem,
        params: Option<BootParams>,
        kho: bool,
    ) -> Booted {
        let release = row(design);
        let (mut ram, mut log) = (Ram::new(memory), KernelLog::default());
        let config = KhoConfig { release, enabled: kho, scratch: ScratchSpec::default(), debug: true };
        let mut kho = Kho::boot(&mut ram, &mut log, config, params);
        kho.init_outgoing(&mut ram, &mut log);
        let mut world =
            World { ram, kho, log, sessions: Vec::new(), held: BTreeMap::new(), dropped: Vec::new() };
        let mut luo = Posted::boot(&mut world.memory(), PostedConfig { design, quirks, requested: true })?;
        let tests = [("first", 1), ("last", 2)].map(|(name, data)| Rc::new(TestSubsystem::new(name, data)));
        let handler = Recorder::default();
        let mut open = OpenId::default();
        if luo.enabled() {
            luo.register_handler(Rc::new(handler.clone())).unwrap();
            luo.register_subsystem(&mut world, tests[0].clone()).unwrap();
            luo.register_files(&mut world)?;
            luo.register_subsystem(&mut world, tests[1].clone()).unwrap();
            open = luo.open_device(true, false).unwrap();
        }
        let process = Process { memory: vec![0; ROOM], ..Process::default() };
        Ok(Self { world, luo, process, handler, tests, open, quirks })
    }

    /// Without these quirks.
    pub(crate) fn without(design: Design, quirks: &[Quirk]) -> Self {
        let set = quirks.iter().fold(row(design).quirks, |set, quirk| set.without(*quirk));
        Self::cold_with(design, set)
    }

    pub(crate) fn design(&self) -> Design {
        self.luo.design()
    }

    /// An ioctl on the device with these bytes.
    pub(crate) fn device(&mut self, code: u32, bytes: &[u8]) -> KResult<()> {
        self.process.memory[..bytes.len()].copy_from_slice(bytes);
        self.luo.device_ioctl(&mut self.world, &mut self.process, self.open, code, ARG)
    }

    /// An ioctl on a session with these bytes.
    pub(crate) fn session(&mut self, key: SessionKey, code: u32, bytes: &[u8]) -> KResult<()> {
        self.process.memory[..bytes.len()].copy_from_slice(bytes);
        let answer = self.luo.session_ioctl(&mut self.world, &mut self.process, key, code, ARG);
        self.settle();
        answer
    }

    /// Sessions whose file is gone end.
    pub(crate) fn settle(&mut self) {
        for key in std::mem::take(&mut self.world.dropped) {
            self.luo.release_session(&mut self.world, SessionKey(key));
        }
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.process.memory[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn state(&mut self) -> State {
        match self.design() {
            Design::V2 => self.device(v2::Command::GetState.code(), &[0; 4]).unwrap(),
            Design::V3 => self.device(0xBA03, &sized(8, &[])).unwrap(),
            Design::V4 => self.device(0xBA00, &sized(8, &[])).unwrap(),
        }
        let shown = State::from_raw(self.word(if self.design() == Design::V2 { 0 } else { 4 })).unwrap();
        assert_eq!(shown, self.luo.state(), "what a program is told");
        shown
    }

    /// An event of the machine as a program passes it.
    pub(crate) fn event(&mut self, event: Event) -> KResult<()> {
        match self.design() {
            Design::V2 => {
                let code = match event {
                    Event::Prepare => 0xBA04,
                    Event::Freeze => v2::HOLE,
                    Event::Cancel => 0xBA06,
                    Event::Finish => 0xBA07,
                };
                self.device(code, &[])
            }
            Design::V3 => self.device(0xBA04, &sized(8, &event.raw().to_le_bytes())),
            Design::V4 => self.device(0xBA01, &sized(8, &event.raw().to_le_bytes())),
        }
    }

    fn fd(&mut self, codes: [u32; 2], fd: i32, token: u64) -> KResult<()> {
        let v2 = self.design() == Design::V2;
        let first = if v2 { fd.to_le_bytes() } else { 16u32.to_le_bytes() };
        let second = if v2 { [0; 4] } else { fd.to_le_bytes() };
        let bytes = [&first[..], &second, &token.to_le_bytes()].concat();
        self.device(codes[usize::from(!v2)], &bytes)
    }

    /// FD_PRESERVE of the second and third design.
    pub(crate) fn preserve(&mut self, fd: i32, token: u64) -> KResult<()> {
        self.fd([0x4010_BA00, 0xBA00], fd, token)
    }

    /// FD_UNPRESERVE.
    pub(crate) fn unpreserve(&mut self, token: u64) -> KResult<()> {
        if self.design() == Design::V2 {
            return self.device(0x4008_BA01, &token.to_le_bytes());
        }
        self.fd([0, 0xBA01], 0, token)
    }

    /// FD_RESTORE.
    pub(crate) fn restore(&mut self, token: u64) -> KResult<()> {
        self.fd([0xC010_BA02, 0xBA02], -1, token)
    }

    /// SET_FD_EVENT.
    pub(crate) fn fd_event(&mut self, event: Event, token: u64) -> KResult<()> {
        self.device(0xBA06, &sized(16, &[&event.raw().to_le_bytes()[..], &token.to_le_bytes()].concat()))
    }

    /// GET_FD_STATE.
    pub(crate) fn fd_state(&mut self, token: u64, incoming: bool) -> KResult<State> {
        let rest = [&u32::from(incoming).to_le_bytes()[..], &token.to_le_bytes(), &[0; 8]].concat();
        self.device(0xBA05, &sized(24, &rest))?;
        Ok(State::from_raw(self.word(16)).unwrap())
    }

    /// CREATE_SESSION or RETRIEVE_SESSION.
    pub(crate) fn named(&mut self, create: bool, name: &[u8]) -> KResult<SessionKey> {
        let (code, len) = if create { (0xBA02, 64) } else { (0xBA03, 72) };
        let mut bytes = vec![0; len];
        bytes[0] = u8::try_from(len).unwrap();
        bytes[8..8 + name.len()].copy_from_slice(name);
        self.device(code, &bytes)?;
        Ok(*self.world.sessions.last().unwrap())
    }

    /// SESSION_SET_EVENT.
    pub(crate) fn session_event(&mut self, key: SessionKey, event: Event) -> KResult<()> {
        self.session(key, 0xBA44, &sized(8, &event.raw().to_le_bytes()))
    }

    /// SESSION_GET_STATE.
    pub(crate) fn session_state(&mut self, key: SessionKey) -> State {
        self.session(key, 0xBA43, &sized(12, &[0; 8])).unwrap();
        State::from_raw(self.word(8)).unwrap()
    }

    /// SESSION_PRESERVE_FD, SESSION_UNPRESERVE_FD, SESSION_RESTORE_FD.
    pub(crate) fn session_fd(&mut self, key: SessionKey, code: u32, fd: i32, token: u64) -> KResult<()> {
        self.session(key, code, &sized(16, &[&fd.to_le_bytes()[..], &token.to_le_bytes()].concat()))
    }

    /// The reboot's live update step, without the jump.
    pub(crate) fn freeze(&mut self) -> KResult<()> {
        self.luo.reboot(&mut self.world).map(|_| ())
    }

    /// What an image loaded now is given.
    pub(crate) fn load(&mut self) -> Option<BootParams> {
        self.world.kho.params_for_kexec(&mut self.world.ram).unwrap()
    }

    /// PREPARE, load, reboot: the next kernel of the same design.
    pub(crate) fn jump(mut self) -> Self {
        self.event(Event::Prepare).unwrap();
        let (params, design, quirks) = (self.load(), self.design(), self.quirks);
        self.freeze().unwrap();
        Self::boot(design, quirks, self.world.ram.into_mem(), params, true).unwrap()
    }

    /// [`Self::jump`] from NORMAL, PREPARED or FROZEN.
    pub(crate) fn leap(mut self) -> Self {
        if self.luo.state() == State::Normal {
            return self.jump();
        }
        let (params, design, quirks) = (self.load(), self.design(), self.quirks);
        self.freeze().unwrap();
        Self::boot(design, quirks, self.world.ram.into_mem(), params, true).unwrap()
    }

    /// Calls of handlers and subsystems since the last look, in order within each kind.
    pub(crate) fn calls(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.handler.calls.borrow_mut())
    }
}

/// A size-first structure.
pub(crate) fn sized(size: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = size.to_le_bytes().to_vec();
    bytes.extend_from_slice(rest);
    bytes.resize(usize::try_from(size).unwrap(), 0);
    bytes
}
