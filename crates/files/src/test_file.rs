//! The test file: a file type of luosim's own whose handler fails when it is told to.
//!
//! No kernel has it. It stands for any driver's file: `/dev/luosim-test` (kernel parameter
//! `luosim_test=on`) gives a new one at each open, with a few bytes of contents. Each callback of its handler
//! can be told to fail with an errno, once, some times, or always; what concerns the next kernel is carried
//! with the file. Every callback is written to the kernel log, with the file's number, so that scenarios can
//! check their order.

use luosim_abi::{Errno, KResult};
use luosim_luo::{Context, FileHandler, FileId, Host, Identity, RetrieveStatus};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, PhysMem};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::file::{FileKind, flags};
use crate::{Files, HasFiles};

/// Path of the device that gives test files.
pub const TEST_PATH: &str = "/dev/luosim-test";
/// Most bytes of contents.
pub const CONTENTS: usize = 1024;
const MAGIC: u64 = u64::from_le_bytes(*b"LUOSTEST");

/// A test file in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestId(pub u32);

/// Where a test file's handler can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// The handler does not take the file: PRESERVE_FD answers ENOENT.
    CanPreserve,
    /// PRESERVE_FD fails.
    Preserve,
    /// The reboot fails.
    Freeze,
    /// RETRIEVE_FD fails, in the next kernel.
    Retrieve,
    /// FINISH answers EBUSY, in the next kernel.
    CanFinish,
    /// PREPARE fails. In the posted designs only, which have neither `preserve` nor `can_finish`.
    Prepare,
}

impl Callback {
    /// Every callback of the merged interface that can fail.
    pub const ALL: [Self; 5] =
        [Self::CanPreserve, Self::Preserve, Self::Freeze, Self::Retrieve, Self::CanFinish];

    /// The callback of this name, of either interface.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Prepare]).find(|callback| callback.name() == name)
    }

    /// The callback's name in `struct liveupdate_file_ops`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CanPreserve => "can_preserve",
            Self::Preserve => "preserve",
            Self::Freeze => "freeze",
            Self::Retrieve => "retrieve",
            Self::CanFinish => "can_finish",
            Self::Prepare => "prepare",
        }
    }
}

/// How often a callback fails, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Errno of the failure; `can_preserve` and `can_finish` only say no.
    pub errno: Errno,
    /// Calls that still fail; `u16::MAX`: all.
    pub times: u16,
}

impl Fault {
    const NONE: Self = Self { errno: Errno::EIO, times: 0 };

    /// Takes one failure, if there is one left.
    fn take(&mut self) -> bool {
        let fails = self.times > 0;
        if fails && self.times < u16::MAX {
            self.times -= 1;
        }
        fails
    }
}

/// One test file.
#[derive(Clone, Debug)]
pub struct TestFile {
    contents: Vec<u8>,
    faults: [Fault; 6],
    refs: u32,
}

impl Default for TestFile {
    fn default() -> Self {
        Self { contents: Vec::new(), faults: [Fault::NONE; 6], refs: 0 }
    }
}

impl TestFile {
    /// Its contents, at most [`CONTENTS`] bytes.
    #[must_use]
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }

    /// Copies contents at `pos`; returns how many bytes there were.
    pub fn read_at(&self, pos: u64, buf: &mut [u8]) -> usize {
        let from = usize::try_from(pos).unwrap_or(usize::MAX).min(self.contents.len());
        let count = buf.len().min(self.contents.len() - from);
        buf[..count].copy_from_slice(&self.contents[from..from + count]);
        count
    }

    /// Writes contents at `pos`, as many bytes as there is room for.
    ///
    /// # Errors
    /// EFBIG: no room at all.
    pub fn write_at(&mut self, pos: u64, bytes: &[u8]) -> KResult<usize> {
        let from = usize::try_from(pos).ok().filter(|from| *from < CONTENTS);
        let from = from.ok_or_else(|| Errno::EFBIG.because(format!("a test file has {CONTENTS} bytes")))?;
        let count = bytes.len().min(CONTENTS - from);
        if self.contents.len() < from + count {
            self.contents.resize(from + count, 0);
        }
        self.contents[from..from + count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Whether a callback is told to fail.
    pub(crate) fn fails(&self, callback: Callback) -> bool {
        self.faults[callback as usize].times > 0
    }

    /// Makes a callback fail from now on.
    pub fn set_fault(&mut self, callback: Callback, fault: Fault) {
        self.faults[callback as usize] = fault;
    }
}

/// All test files of a kernel.
#[derive(Debug, Default)]
pub struct TestTable {
    slots: Vec<Option<TestFile>>,
}

fn index(id: TestId) -> usize {
    usize::try_from(id.0).expect("an index fits in usize")
}

impl TestTable {
    /// Adds a file with one reference. Numbers are not used again, so that log lines stay unambiguous.
    pub fn create(&mut self, file: TestFile) -> TestId {
        self.slots.push(Some(TestFile { refs: 1, ..file }));
        TestId(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 files"))
    }

    /// The file.
    ///
    /// # Panics
    /// If it is gone: whoever has a [`TestId`] has a reference.
    #[must_use]
    pub fn get(&self, id: TestId) -> &TestFile {
        self.slots[index(id)].as_ref().expect("whoever has the id has a reference")
    }

    /// The file, to change it.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub fn get_mut(&mut self, id: TestId) -> &mut TestFile {
        self.slots[index(id)].as_mut().expect("whoever has the id has a reference")
    }

    /// One more reference.
    pub fn get_ref(&mut self, id: TestId) {
        self.get_mut(id).refs += 1;
    }

    /// One reference less.
    pub fn put(&mut self, id: TestId) {
        let file = self.get_mut(id);
        file.refs -= 1;
        if file.refs == 0 {
            self.slots[index(id)] = None;
        }
    }
}

/// A test file's structure, at the start of a preserved page; the contents follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Saved {
    /// `LUOSTEST`.
    magic: U64,
    /// Position.
    pos: U64,
    /// Bytes of contents, at most [`CONTENTS`].
    len: U32,
    retrieve_errno: U16,
    retrieve_times: U16,
    can_finish_times: U16,
    reserved: [u8; 6],
}

impl Saved {
    /// What `retrieve` fails with; EIO for a number that means nothing here.
    fn errno(&self) -> Errno {
        let raw = i32::from(self.retrieve_errno.get());
        Errno::ALL.iter().find(|known| known.raw() == raw).copied().unwrap_or(Errno::EIO)
    }
}

const _: () = assert!(size_of::<Saved>() == 32);
const CONTENTS_AT: u64 = 32;

/// The handler `luosim-test-v1`.
#[derive(Clone, Copy, Debug)]
pub struct TestHandler;

pub(crate) fn id_of(files: &Files, file: FileId) -> Option<TestId> {
    match files.table.get(file).kind {
        FileKind::Test(id) => Some(id),
        _ => None,
    }
}

pub(crate) fn owned(files: &Files, file: FileId) -> TestId {
    id_of(files, file).expect("only test files are given to this handler")
}

fn read(mem: &PhysMem, data: u64) -> KResult<Saved> {
    let saved = mem.read_obj::<Saved>(PhysAddr::new(data)).ok();
    saved
        .filter(|saved| saved.magic.get() == MAGIC && saved.len.get() as usize <= CONTENTS)
        .ok_or_else(|| Errno::EINVAL.because(format!("there is no test file at {data:#x}")))
}

impl TestHandler {
    /// Logs the callback; says whether it is told to fail.
    pub(crate) fn called<H: HasFiles>(host: &mut H, id: TestId, callback: Callback) -> KResult<()> {
        let (files, memory) = host.files_and_memory();
        let fault = &mut files.tests.get_mut(id).faults[callback as usize];
        let (fails, errno, name) = (fault.take(), fault.errno, callback.name());
        let word = if fails { ": fails" } else { "" };
        memory.log.info(format!("luosim_test: file {}: {name}{word}", id.0));
        if fails { Err(told(errno, name)) } else { Ok(()) }
    }

    pub(crate) fn say<H: HasFiles>(host: &mut H, id: TestId, what: &str) {
        host.files_and_memory().1.log.info(format!("luosim_test: file {}: {what}", id.0));
    }

    /// Writes the file as it is now to its page.
    pub(crate) fn write<H: HasFiles>(host: &mut H, file: FileId, data: u64) {
        let (files, memory) = host.files_and_memory();
        let id = owned(files, file);
        let test = files.tests.get(id);
        let fault = |callback: Callback| test.faults[callback as usize];
        let saved = Saved {
            magic: MAGIC.into(),
            pos: files.table.get(file).pos.into(),
            len: u32::try_from(test.contents.len()).expect("at most CONTENTS").into(),
            retrieve_errno: u16::try_from(fault(Callback::Retrieve).errno.raw()).expect("small").into(),
            retrieve_times: fault(Callback::Retrieve).times.into(),
            can_finish_times: fault(Callback::CanFinish).times.into(),
            reserved: [0; 6],
        };
        let (mem, contents) = (&mut memory.ram.mem, PhysAddr::new(data + CONTENTS_AT));
        mem.write_obj(PhysAddr::new(data), &saved).expect("the structure is a page of this kernel");
        mem.write(contents, &test.contents).expect("the contents fit in the page");
    }

    /// Makes the file again; fails as the previous kernel's file was told to.
    pub(crate) fn rebuild<H: HasFiles>(host: &mut H, data: u64) -> KResult<FileId> {
        let (files, memory) = host.files_and_memory();
        let saved = read(&memory.ram.mem, data)?;
        let mut fault = Fault { errno: saved.errno(), times: saved.retrieve_times.get() };
        if fault.take() {
            let left = Saved { retrieve_times: fault.times.into(), ..saved };
            memory.ram.mem.write_obj(PhysAddr::new(data), &left).expect("it was read there");
            memory.log.info("luosim_test: retrieve: fails");
            return Err(told(fault.errno, Callback::Retrieve.name()));
        }
        let mut contents = vec![0; usize::try_from(saved.len.get()).expect("at most CONTENTS")];
        let at = PhysAddr::new(data + CONTENTS_AT);
        memory.ram.mem.read(at, &mut contents).map_err(|error| Errno::EINVAL.because(error.to_string()))?;
        let id = files.tests.create(TestFile { contents, ..TestFile::default() });
        let opened = files.table.open(FileKind::Test(id), flags::RDWR | flags::LARGEFILE);
        let file = opened.inspect_err(|_| files.tests.put(id))?;
        files.table.get_mut(file).pos = saved.pos.get();
        memory.log.info(format!("luosim_test: file {}: retrieve", id.0));
        Ok(file)
    }
}

fn told(errno: Errno, name: &str) -> luosim_abi::Refusal {
    errno.because(format!("the test file was told to fail in {name}"))
}

impl<H: Host + HasFiles> FileHandler<H> for TestHandler {
    fn compatible(&self) -> &'static str {
        "luosim-test-v1"
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        let id = id_of(host.files(), file);
        id.is_some_and(|id| !host.files().tests.get(id).fails(Callback::CanPreserve))
    }

    fn identity(&self, host: &H, file: FileId) -> Identity {
        Identity(owned(host.files(), file).0.into())
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        format!("test file {}", owned(host.files(), file).0)
    }

    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64> {
        Self::called(cx.host, owned(cx.host.files(), file), Callback::Preserve)?;
        let (_, memory) = cx.host.files_and_memory();
        let page = memory.kho.alloc_preserve(memory.ram, PAGE_SIZE, FrameUse::HandlerData)?;
        Self::write(cx.host, file, page.raw());
        Ok(page.raw())
    }

    fn unpreserve(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) {
        Self::say(cx.host, owned(cx.host.files(), file), "unpreserve");
        let (_, memory) = cx.host.files_and_memory();
        memory.kho.unpreserve_free(memory.ram, PhysAddr::new(data));
    }

    fn freeze(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) -> KResult<u64> {
        Self::called(cx.host, owned(cx.host.files(), file), Callback::Freeze)?;
        Self::write(cx.host, file, data);
        Ok(data)
    }

    fn unfreeze(&self, cx: &mut Context<'_, H>, file: FileId, _data: u64) {
        Self::say(cx.host, owned(cx.host.files(), file), "unfreeze");
    }

    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId> {
        Self::rebuild(cx.host, data)
    }

    fn can_finish(&self, cx: &mut Context<'_, H>, _status: RetrieveStatus, data: u64) -> Result<(), String> {
        let (_, memory) = cx.host.files_and_memory();
        let Ok(saved) = read(&memory.ram.mem, data) else { return Ok(()) };
        let mut fault = Fault { times: saved.can_finish_times.get(), ..Fault::NONE };
        if fault.take() {
            let left = Saved { can_finish_times: fault.times.into(), ..saved };
            memory.ram.mem.write_obj(PhysAddr::new(data), &left).expect("it was read there");
            memory.log.info("luosim_test: can_finish: fails");
            return Err(String::from("the test file was told to fail in can_finish"));
        }
        Ok(())
    }

    fn finish(&self, cx: &mut Context<'_, H>, _status: RetrieveStatus, data: u64) {
        let (_, memory) = cx.host.files_and_memory();
        memory.log.info("luosim_test: finish");
        if !memory.kho.restore_free(memory.ram, PhysAddr::new(data)) {
            memory.log.warn(format!("luosim_test: the structure at {data:#x} is not preserved"));
        }
    }
}
