//! What a world does, step by step. Every action is one call, or one thing done to the machine, and has its line in a
//! scenario. Operands are *slots*, small numbers that a process gives to what it opens: an action whose slot is empty is
//! left out, so that any part of a list of actions is a list of actions.

use luosim_abi::release::ReleaseId;
use luosim_files::test_file::Callback;
use luosim_machine::faults::Argument;

/// Bytes of a cell: contents are written and compared in cells.
pub const CELL: u64 = 512;

/// A process, by its place.
pub type Proc = u8;
/// A descriptor or mapping of a process, by its place.
pub type Slot = u8;

/// A kernel to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    /// Its release.
    pub release: ReleaseId,
    /// Whether it has test files.
    pub test_files: bool,
    /// Whether it has the kernel's test objects.
    pub flbs: bool,
    /// Frames that are left free after its boot; all if none is said.
    pub free: Option<u16>,
}

impl Plan {
    /// A kernel of this release, with nothing besides.
    #[must_use]
    pub const fn new(release: ReleaseId) -> Self {
        Self { release, test_files: false, flbs: false, free: None }
    }

    /// Its command line.
    #[must_use]
    pub fn cmdline(&self) -> String {
        let mut line = String::from("kho=on liveupdate=on");
        for (on, word) in [(self.test_files, " luosim_test=on"), (self.flbs, " liveupdate_test=on")] {
            line.push_str(if on { word } else { "" });
        }
        if let Some(free) = self.free {
            line.push_str(&format!(" luosim_free={free}"));
        }
        line
    }
}

/// How metadata is spoiled between two kernels. What must come of it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// The second folio of a preserved file is said to be a frame that nobody preserved: RETRIEVE_FD must fail.
    Folio {
        /// Name of the session.
        name: u8,
        /// The token.
        token: u64,
    },
    /// The first block of session records is its own successor: the next kernel must not boot on it.
    Chain,
    /// Some word of some structure: what must come of it nobody knows, but luosim and its accounts must bear it.
    Word {
        /// Which of them, in the order of the pages that hold structures.
        at: u32,
        /// The bits that change.
        flip: u64,
    },
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are processes, slots, and arguments of the call that is named")]
pub enum Action {
    /// Opens the device.
    Open { p: Proc, new: Slot },
    /// memfd_create: 0 no seals allowed, 1 allowed, 2 not executable.
    Memfd { p: Proc, new: Slot, kind: u8, huge: bool },
    /// Opens a test file.
    TestFile { p: Proc, new: Slot },
    /// A pair of sockets.
    Sockets { p: Proc, new: Slot, peer: Slot },
    /// Sends a descriptor.
    Send { p: Proc, socket: Slot, fd: Slot },
    /// Receives one.
    Receive { p: Proc, socket: Slot, new: Slot },
    /// dup.
    Dup { p: Proc, fd: Slot, new: Slot },
    /// Opens a memfd again, for reading alone.
    ReadOnly { p: Proc, fd: Slot, new: Slot },
    /// close.
    Close { p: Proc, fd: Slot },
    /// fork.
    Fork { p: Proc, child: Proc },
    /// The process ends.
    Exit { p: Proc },
    /// ftruncate.
    Truncate { p: Proc, fd: Slot, size: u64 },
    /// pwrite of cells.
    Write { p: Proc, fd: Slot, at: u32, cells: u32, seed: u32 },
    /// fallocate.
    Allocate { p: Proc, fd: Slot, at: u32, cells: u32 },
    /// A hole.
    Punch { p: Proc, fd: Slot, at: u32, cells: u32 },
    /// lseek.
    Seek { p: Proc, fd: Slot, to: u32 },
    /// F_ADD_SEALS.
    Seal { p: Proc, fd: Slot, seals: u32 },
    /// A shared writable mapping of the first 64 cells.
    Map { p: Proc, fd: Slot, new: Slot },
    /// A write through it.
    Store { p: Proc, map: Slot, at: u32, cells: u32, seed: u32 },
    /// munmap.
    Unmap { p: Proc, map: Slot },
    /// A callback of a test file fails from now on, so often.
    Handler { p: Proc, fd: Slot, callback: Callback, times: u16 },
    /// CREATE_SESSION.
    Create { p: Proc, device: Slot, name: u8, new: Slot, arg: Argument },
    /// RETRIEVE_SESSION.
    Take { p: Proc, device: Slot, name: u8, new: Slot, arg: Argument },
    /// PRESERVE_FD.
    Preserve { p: Proc, session: Slot, fd: Slot, token: u64, arg: Argument },
    /// RETRIEVE_FD.
    Retrieve { p: Proc, session: Slot, token: u64, new: Slot, arg: Argument },
    /// FINISH.
    Finish { p: Proc, session: Slot, reserved: u32, arg: Argument },
    /// GET_NAME.
    GetName { p: Proc, session: Slot },
    /// The link of a session's descriptor.
    Link { p: Proc, session: Slot },
    /// Compares all that can be told of a file.
    Look { p: Proc, fd: Slot },
    /// Loads an image and jumps to it.
    Kexec { p: Proc, plan: Plan },
    /// Loads an image that preserves the context, jumps, and is back.
    Return { p: Proc },
    /// The kernel panics; a crash kernel, if wanted, was loaded before.
    Crash { p: Proc, image: bool },
    /// Power off and on.
    Reset { plan: Plan },
    /// An allocation of the next call fails.
    FailAlloc { nth: u32, times: u32 },
    /// The next reboot stops at a point.
    Stop { point: u32, panic: bool },
    /// A session is closed while the next reboot serialises.
    CloseInReboot { p: Proc, fd: Slot, point: u32 },
    /// Cells are written while the next reboot serialises.
    WriteInReboot { p: Proc, fd: Slot, at: u32, cells: u32, seed: u32, point: u32 },
    /// A position is moved while the next reboot serialises.
    SeekInReboot { p: Proc, fd: Slot, to: u32, point: u32 },
    /// Metadata is spoiled at the next kexec.
    Spoil(Spoil),
}

impl Action {
    /// Its name: findings of one cause have the same action at their end.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Memfd { .. } => "memfd-create",
            Self::TestFile { .. } => "open-test-file",
            Self::Sockets { .. } => "socketpair",
            Self::Send { .. } => "send-fd",
            Self::Receive { .. } => "recv-fd",
            Self::Dup { .. } => "dup",
            Self::ReadOnly { .. } => "reopen",
            Self::Close { .. } => "close",
            Self::Fork { .. } => "fork",
            Self::Exit { .. } => "exit",
            Self::Truncate { .. } => "ftruncate",
            Self::Write { .. } => "write",
            Self::Allocate { .. } => "fallocate",
            Self::Punch { .. } => "punch",
            Self::Seek { .. } => "lseek",
            Self::Seal { .. } => "add-seals",
            Self::Map { .. } => "mmap",
            Self::Store { .. } => "store",
            Self::Unmap { .. } => "munmap",
            Self::Handler { .. } => "fault",
            Self::Create { .. } => "create-session",
            Self::Take { .. } => "retrieve-session",
            Self::Preserve { .. } => "preserve",
            Self::Retrieve { .. } => "retrieve",
            Self::Finish { .. } => "finish",
            Self::GetName { .. } => "get-name",
            Self::Link { .. } => "readlink",
            Self::Look { .. } => "look",
            Self::Kexec { .. } => "kexec",
            Self::Return { .. } => "kexec-and-return",
            Self::Crash { .. } => "crash",
            Self::Reset { .. } => "cold-reset",
            Self::FailAlloc { .. } => "fail-alloc",
            Self::Stop { .. } => "stop-reboot",
            Self::CloseInReboot { .. } => "close-in-reboot",
            Self::WriteInReboot { .. } => "write-in-reboot",
            Self::SeekInReboot { .. } => "seek-in-reboot",
            Self::Spoil(_) => "spoil",
        }
    }

    /// Whether it is a fault, which the shrinker likes to be without.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Handler { .. }
                | Self::FailAlloc { .. }
                | Self::Stop { .. }
                | Self::CloseInReboot { .. }
                | Self::WriteInReboot { .. }
                | Self::SeekInReboot { .. }
                | Self::Spoil(_)
        )
    }

    /// Whether it only tells what shall happen at a later call.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.is_fault() && !matches!(self, Self::Handler { .. })
    }

    /// The same with the argument of its ioctl elsewhere; nothing if it is no ioctl with one.
    #[must_use]
    pub fn with_argument(&self, place: Argument) -> Option<Self> {
        let mut action = self.clone();
        match &mut action {
            Self::Create { arg, .. }
            | Self::Take { arg, .. }
            | Self::Preserve { arg, .. }
            | Self::Retrieve { arg, .. }
            | Self::Finish { arg, .. } => *arg = place,
            _ => return None,
        }
        Some(action)
    }

    /// The process that does it.
    #[must_use]
    pub fn process(&self) -> Option<Proc> {
        match self {
            Self::Open { p, .. }
            | Self::Memfd { p, .. }
            | Self::TestFile { p, .. }
            | Self::Sockets { p, .. }
            | Self::Send { p, .. }
            | Self::Receive { p, .. }
            | Self::Dup { p, .. }
            | Self::ReadOnly { p, .. }
            | Self::Close { p, .. }
            | Self::Fork { p, .. }
            | Self::Exit { p }
            | Self::Truncate { p, .. }
            | Self::Write { p, .. }
            | Self::Allocate { p, .. }
            | Self::Punch { p, .. }
            | Self::Seek { p, .. }
            | Self::Seal { p, .. }
            | Self::Map { p, .. }
            | Self::Store { p, .. }
            | Self::Unmap { p, .. }
            | Self::Handler { p, .. }
            | Self::Create { p, .. }
            | Self::Take { p, .. }
            | Self::Preserve { p, .. }
            | Self::Retrieve { p, .. }
            | Self::Finish { p, .. }
            | Self::GetName { p, .. }
            | Self::Link { p, .. }
            | Self::Look { p, .. }
            | Self::Kexec { p, .. }
            | Self::Return { p }
            | Self::Crash { p, .. }
            | Self::CloseInReboot { p, .. }
            | Self::WriteInReboot { p, .. }
            | Self::SeekInReboot { p, .. } => Some(*p),
            Self::Reset { .. } | Self::FailAlloc { .. } | Self::Stop { .. } | Self::Spoil(_) => None,
        }
    }

    /// The descriptor slots that it fills.
    #[must_use]
    pub fn fills(&self) -> [Option<Slot>; 2] {
        match *self {
            Self::Open { new, .. }
            | Self::Memfd { new, .. }
            | Self::TestFile { new, .. }
            | Self::Receive { new, .. }
            | Self::Dup { new, .. }
            | Self::ReadOnly { new, .. }
            | Self::Create { new, .. }
            | Self::Take { new, .. }
            | Self::Retrieve { new, .. } => [Some(new), None],
            Self::Sockets { new, peer, .. } => [Some(new), Some(peer)],
            _ => [None, None],
        }
    }

    /// Where an ioctl has its argument.
    #[must_use]
    pub fn argument(&self) -> Argument {
        match self {
            Self::Create { arg, .. }
            | Self::Take { arg, .. }
            | Self::Preserve { arg, .. }
            | Self::Retrieve { arg, .. }
            | Self::Finish { arg, .. } => *arg,
            _ => Argument::Normal,
        }
    }
}

/// Names from here on are longer than the link of a session could be in 6.19.
pub const LONG_NAMES: u8 = 200;
/// The empty name.
pub const EMPTY_NAME: u8 = 250;
/// 64 bytes without a NUL.
pub const ENDLESS_NAME: u8 = 251;

/// The bytes of a session's name.
#[must_use]
pub fn name_bytes(name: u8) -> Vec<u8> {
    match name {
        EMPTY_NAME => Vec::new(),
        ENDLESS_NAME => vec![b'x'; 64],
        LONG_NAMES.. => format!("a-session-whose-name-is-longer-than-links-are-{name}").into_bytes(),
        _ => format!("s{name}").into_bytes(),
    }
}
