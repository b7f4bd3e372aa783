//! A freeze that is refused: the order of the undoing, and that everything stays as it was.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_kho::log::KernelLog;
use luosim_kho::scratch::ScratchSpec;
use luosim_kho::{Kho, KhoConfig};
use luosim_luo::{
    Caller, Event, FileHandler, FileId, Host, Identity, Luo, LuoConfig, Memory, RetrieveStatus, SessionKey,
};
use luosim_physmem::{PhysMem, Ram};

struct World {
    ram: Ram,
    kho: Kho,
    log: KernelLog,
    sessions: Vec<SessionKey>,
}

impl Host for World {
    fn memory(&mut self) -> Memory<'_> {
        Memory { ram: &mut self.ram, kho: &mut self.kho, log: &mut self.log }
    }

    fn file_get(&mut self, _: FileId) {}

    fn file_put(&mut self, _: FileId) {}

    fn open_session(&mut self, key: SessionKey) -> KResult<FileId> {
        self.sessions.push(key);
        Ok(FileId(0))
    }

    fn emit(&mut self, _: Event) {}
}

/// A handler that writes down its calls and refuses to freeze one file.
struct Recorder {
    calls: Rc<RefCell<Vec<String>>>,
    refuse: Rc<Cell<u32>>,
}

impl FileHandler<World> for Recorder {
    fn compatible(&self) -> &'static str {
        "test-v1"
    }

    fn can_preserve(&self, _: &World, _: FileId) -> bool {
        true
    }

    fn identity(&self, _: &World, file: FileId) -> Identity {
        Identity(u64::from(file.0))
    }

    fn describe(&self, _: &World, file: FileId) -> String {
        format!("file {}", file.0)
    }

    fn preserve(&self, _: &mut World, file: FileId) -> KResult<u64> {
        Ok(u64::from(file.0))
    }

    fn unpreserve(&self, _: &mut World, file: FileId, _: u64) {
        self.calls.borrow_mut().push(format!("unpreserve {}", file.0));
    }

    fn freeze(&self, _: &mut World, file: FileId, data: u64) -> KResult<u64> {
        if self.refuse.get() == file.0 {
            return Err(Errno::EAGAIN.because("the test refuses"));
        }
        self.calls.borrow_mut().push(format!("freeze {}", file.0));
        Ok(data)
    }

    fn unfreeze(&self, _: &mut World, file: FileId, _: u64) {
        self.calls.borrow_mut().push(format!("unfreeze {}", file.0));
    }

    fn retrieve(&self, _: &mut World, _: u64) -> KResult<FileId> {
        Err(Errno::EIO.because("not in this test"))
    }

    fn can_finish(&self, _: &mut World, _: RetrieveStatus, _: u64) -> bool {
        true
    }

    fn finish(&self, _: &mut World, _: RetrieveStatus, _: u64) {}
}

/// A process whose memory is one structure and whose descriptor *n* is file *n*.
struct Process(Vec<u8>);

impl Caller for Process {
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        let at = usize::try_from(addr).expect("small");
        buf.copy_from_slice(&self.0[at..at + buf.len()]);
        Ok(())
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        let at = usize::try_from(addr).expect("small");
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn reserve_fd(&mut self) -> KResult<i32> {
        Ok(0)
    }

    fn cancel_fd(&mut self, _: i32) {}

    fn install_fd(&mut self, _: i32, _: FileId) {}

    fn lookup_fd(&self, fd: i32) -> KResult<FileId> {
        Ok(FileId(u32::try_from(fd).expect("positive")))
    }
}

fn boot(release: ReleaseId) -> (World, Luo<World>) {
    let release = release.release();
    let mut ram = Ram::new(PhysMem::anonymous(64 << 20).expect("room"));
    let mut log = KernelLog::default();
    let config = KhoConfig { release, enabled: true, scratch: ScratchSpec::default(), debug: true };
    let kho = Kho::boot(&mut ram, &mut log, config, None);
    let mut world = World { ram, kho, log, sessions: Vec::new() };
    let config = LuoConfig { release, quirks: release.quirks, requested: true };
    let luo = Luo::boot(&mut world.memory(), config).expect("nothing came");
    (world, luo)
}

fn create(luo: &mut Luo<World>, world: &mut World, name: &[u8]) -> SessionKey {
    let mut argument = vec![0; 72];
    argument[0] = 72;
    argument[8..8 + name.len()].copy_from_slice(name);
    luo.device_ioctl(world, &mut Process(argument), 0xBA00, 0).expect("a new name");
    *world.sessions.last().expect("opened")
}

fn preserve(luo: &mut Luo<World>, world: &mut World, session: SessionKey, file: u8) {
    let argument = vec![16, 0, 0, 0, file, 0, 0, 0, file, 0, 0, 0, 0, 0, 0, 0];
    luo.session_ioctl(world, &mut Process(argument), session, 0xBA40, 0).expect("taken");
}

fn refused_freeze(release: ReleaseId) {
    let (mut world, mut luo) = boot(release);
    let (calls, refuse) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(6)));
    let handler = Recorder { calls: calls.clone(), refuse: refuse.clone() };
    luo.register_handler(Rc::new(handler)).expect("the first");
    let one = create(&mut luo, &mut world, b"one");
    let two = create(&mut luo, &mut world, b"two");
    let three = create(&mut luo, &mut world, b"three");
    for (session, files) in [(one, 1..3), (two, 3..5), (three, 5..8)] {
        files.for_each(|file| preserve(&mut luo, &mut world, session, file));
    }
    let refusal = luo.reboot(&mut world).expect_err("file 6 refuses");
    assert_eq!(refusal.errno, Errno::EAGAIN);
    assert!(!luo.serialized());
    // Frozen in order; thawed: the session at fault first, then the earlier ones last to first, files forward.
    let undone = ["unfreeze 5", "unfreeze 3", "unfreeze 4", "unfreeze 1", "unfreeze 2"];
    let frozen: Vec<String> = (1..6).map(|file| format!("freeze {file}")).collect();
    assert_eq!(calls.borrow()[..5], frozen[..]);
    assert_eq!(calls.borrow()[5..], undone);
    // Nothing is lost: the next try starts from the start and carries everything.
    refuse.set(0);
    let carried = luo.reboot(&mut world).expect("nobody refuses");
    assert_eq!((carried.sessions, carried.files), (3, 7));
}

#[test]
fn a_refused_freeze_is_undone_in_reverse_6_19() {
    refused_freeze(ReleaseId::V6_19);
}

#[test]
fn a_refused_freeze_is_undone_in_reverse_7_3() {
    refused_freeze(ReleaseId::V7_3);
}

#[test]
fn closing_a_session_gives_files_back_from_the_last() {
    let (mut world, mut luo) = boot(ReleaseId::V7_3);
    let calls = Rc::new(RefCell::new(Vec::new()));
    let handler = Recorder { calls: calls.clone(), refuse: Rc::new(Cell::new(0)) };
    luo.register_handler(Rc::new(handler)).expect("the first");
    let before = world.ram.frames.stats().allocated;
    let session = create(&mut luo, &mut world, b"one");
    (1..4).for_each(|file| preserve(&mut luo, &mut world, session, file));
    luo.release_session(&mut world, session);
    assert_eq!(*calls.borrow(), ["unpreserve 3", "unpreserve 2", "unpreserve 1"]);
    assert_eq!(luo.outgoing_sessions(), 0);
    let tracker = world.ram.frames.outstanding(luosim_physmem::FrameUse::Tracker);
    assert!(world.ram.frames.stats().allocated <= before + tracker, "blocks of records are given back");
}
