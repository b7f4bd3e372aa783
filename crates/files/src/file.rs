//! Open file descriptions and their reference counts.

use luosim_abi::{Errno, KResult};
use luosim_luo::slab::Slab;
use luosim_luo::{FileId, SessionKey};
use luosim_posted::OpenId;

use crate::shmem::InodeId;
use crate::socket::SocketEnd;
use crate::test_file::TestId;

/// Status flags as `open(2)` takes them and `F_GETFL` shows them, on x86-64.
pub mod flags {
    /// Mask of the access mode.
    pub const ACCMODE: u32 = 0o3;
    /// Read only.
    pub const RDONLY: u32 = 0o0;
    /// Write only.
    pub const WRONLY: u32 = 0o1;
    /// Read and write.
    pub const RDWR: u32 = 0o2;
    /// Create if missing.
    pub const CREAT: u32 = 0o100;
    /// With CREAT: fail if it exists.
    pub const EXCL: u32 = 0o200;
    /// Cut to nothing.
    pub const TRUNC: u32 = 0o1000;
    /// Writes go to the end.
    pub const APPEND: u32 = 0o2000;
    /// Do not wait.
    pub const NONBLOCK: u32 = 0o4000;
    /// Sizes above 2 GiB: set by the kernel on every opened file of a 64-bit program.
    pub const LARGEFILE: u32 = 0o100_000;
    /// Must be a directory.
    pub const DIRECTORY: u32 = 0o200_000;
    /// Close on exec: of the descriptor, not of the description.
    pub const CLOEXEC: u32 = 0o2_000_000;
    /// Only a place in the tree, not the file.
    pub const PATH: u32 = 0o10_000_000;
    /// An unlinked file in the directory.
    pub const TMPFILE: u32 = 0o20_200_000;
    /// Flags that `F_SETFL` may change.
    pub const SETTABLE: u32 = APPEND | NONBLOCK | 0o40_000 | 0o1_000_000;
}

/// A driver of a kernel, by the place in which it registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverId(pub u16);

/// What a driver's open file description stands for. The driver counts the references on its objects itself: one for each
/// description, given back when the description is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverFile {
    /// Whose it is.
    pub driver: DriverId,
    /// Which of the driver's objects.
    pub object: u32,
}

/// What an open file description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A memory file: memfd, or a regular file on tmpfs.
    Shmem(InodeId),
    /// `/dev/liveupdate`.
    Device,
    /// `/dev/liveupdate` of a posted design, where each open counts.
    Control(OpenId),
    /// `/sys/kernel/liveupdate/state` of a posted design.
    LuoState,
    /// A session.
    Session(SessionKey),
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
    /// Either end of a pipe.
    Pipe,
    /// An eventfd.
    EventFd,
    /// An epoll instance.
    Epoll,
    /// One end of a socket pair.
    Socket(SocketEnd),
    /// A file in `/proc`.
    Proc,
    /// A directory.
    Directory,
    /// A memfd of huge pages: another file system than shmem.
    HugetlbMemfd,
    /// A test file of luosim's own.
    Test(TestId),
    /// A file of an outside program that no handler takes.
    Foreign,
    /// A file of a driver.
    Driver(DriverFile),
}

impl FileKind {
    /// In words, for reasons.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Shmem(_) => "a memory file",
            Self::Device | Self::Control(_) => "the live update device",
            Self::LuoState => "the live update state",
            Self::Session(_) => "a live update session",
            Self::Null => "/dev/null",
            Self::Zero => "/dev/zero",
            Self::Pipe => "a pipe",
            Self::EventFd => "an eventfd",
            Self::Epoll => "an epoll instance",
            Self::Socket(_) => "a socket",
            Self::Proc => "a file in /proc",
            Self::Directory => "a directory",
            Self::HugetlbMemfd => "a hugetlb memfd",
            Self::Test(_) => "a test file",
            Self::Foreign => "a file of another type",
            Self::Driver(_) => "a driver's file",
        }
    }
}

/// One open file description.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile {
    /// What it is.
    pub kind: FileKind,
    /// Access mode and status flags, see [`flags`].
    pub flags: u32,
    /// Position, 0 to 2^63 - 1.
    pub pos: u64,
    refs: u32,
}

impl OpenFile {
    /// How many refer to it: descriptors, messages, sessions.
    #[must_use]
    pub fn references(&self) -> u32 {
        self.refs
    }

    /// Whether it was opened for reading.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.flags & flags::PATH == 0 && self.flags & flags::ACCMODE != flags::WRONLY
    }

    /// Whether it was opened for writing.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.flags & flags::PATH == 0 && self.flags & flags::ACCMODE != flags::RDONLY
    }

    /// Whether it is only a place in the tree.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.flags & flags::PATH != 0
    }
}

/// All open file descriptions of a kernel.
#[derive(Debug, Default)]
pub struct FileTable {
    open: Slab<OpenFile>,
    limit: Option<usize>,
}

impl FileTable {
    /// Sets how many descriptions may exist at once (`fs.file-max`).
    pub fn set_limit(&mut self, limit: Option<usize>) {
        self.limit = limit;
    }

    /// Descriptions that exist.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Makes a description with one reference.
    ///
    /// # Errors
    /// ENFILE at the limit.
    pub fn open(&mut self, kind: FileKind, flags: u32) -> KResult<FileId> {
        if self.limit.is_some_and(|limit| self.count() >= limit) {
            return Err(Errno::ENFILE.because("the system has no room for another open file"));
        }
        Ok(FileId(self.open.insert(OpenFile { kind, flags, pos: 0, refs: 1 })))
    }

    /// The description.
    ///
    /// # Panics
    /// If it was released: whoever holds a [`FileId`] holds a reference.
    #[must_use]
    pub fn get(&self, file: FileId) -> &OpenFile {
        self.find(file).expect("whoever has the id has a reference")
    }

    /// The description, if there is one with this id.
    #[must_use]
    pub fn find(&self, file: FileId) -> Option<&OpenFile> {
        self.open.get(file.0)
    }

    /// The description, to change position or flags.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub fn get_mut(&mut self, file: FileId) -> &mut OpenFile {
        self.open.get_mut(file.0).expect("whoever has the id has a reference")
    }

    /// One more reference.
    pub fn get_ref(&mut self, file: FileId) {
        self.get_mut(file).refs += 1;
    }

    /// One reference less; the description as it was, if that was the last.
    pub fn put(&mut self, file: FileId) -> Option<OpenFile> {
        let open = self.get_mut(file);
        open.refs -= 1;
        if open.refs > 0 {
            return None;
        }
        self.open.take(file.0)
    }
}
