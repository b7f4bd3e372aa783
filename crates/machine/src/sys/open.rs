//! `open(2)` and the calls that make other descriptors.
//!
//! The tree has `/dev/liveupdate` (when LUO is on), `/dev/null`, `/dev/zero`, a tmpfs on `/tmp`, a few
//! files of `/proc`, and `/dev/luosim-test` when test files are on. Everything else is missing.

use luosim_abi::{Errno, KResult, ioctl};
use luosim_files::shmem::{MFD_CLOEXEC, MFD_HUGETLB, Seals};
use luosim_files::test_file::{Callback, Fault, TEST_PATH, TestFile};
use luosim_files::{DriverFile, FileKind, Shmem, ShmemKind, flags};

use crate::process::{Descriptor, Pid};
use crate::{Kernel, Machine};

impl Machine {
    /// `open(2)`: path, `O_*` flags, mode for a new file.
    ///
    /// # Errors
    /// ENOENT; EEXIST; ENOTDIR; EISDIR; EACCES for the device and another uid than root; for the device
    /// EBUSY and EIO; EMFILE; ENFILE.
    pub fn open(&mut self, pid: Pid, path: &str, open_flags: u32, mode: u32) -> KResult<i32> {
        let result = self.call(pid, |kernel| {
            // The number comes first: without one nothing is looked up, created or opened.
            kernel.parts(pid)?.0.fds.check_room(1)?;
            let path_only = open_flags & flags::PATH != 0;
            if !path_only && let Some(file) = kernel.open_node(path)? {
                return Self::install(kernel, pid, file, open_flags & flags::CLOEXEC != 0, false);
            }
            let kind = kernel.resolve(pid, path, open_flags, mode)?;
            let status = open_flags & (flags::ACCMODE | flags::SETTABLE | flags::PATH);
            let large = if path_only { 0 } else { flags::LARGEFILE };
            let file = kernel.core.files.table.open(kind, status | large);
            let file = file.inspect_err(|_| kernel.let_go(kind))?;
            if let FileKind::Shmem(inode) = kind
                && open_flags & flags::TRUNC != 0
            {
                kernel.core.files.inodes.get_mut(inode).truncate(&mut kernel.core.ram, 0)?;
            }
            Self::install(kernel, pid, file, open_flags & flags::CLOEXEC != 0, path_only)
        });
        if path == ioctl::DEVICE_PATH && open_flags & flags::PATH == 0 {
            self.after_device_open(&result);
        }
        result
    }

    /// The first open listed what came: what is missing, or unreadable, is lost.
    pub(crate) fn after_device_open<T>(&mut self, result: &KResult<T>) {
        if self.kernel().is_none_or(|kernel| kernel.control.is_some()) {
            return;
        }
        let Some(ledger) = &mut self.ledger else { return };
        match result {
            Ok(_) => ledger.listed("not found among the incoming sessions"),
            Err(refusal) if refusal.errno == Errno::EIO => ledger.handover_failed(&refusal.reason),
            Err(_) => {}
        }
    }

    /// Opens the file behind a descriptor again, as through `/proc/self/fd`: a new description.
    ///
    /// # Errors
    /// EBADF; ENXIO for sockets and anonymous files; EBUSY for the device; ENFILE; EMFILE.
    pub fn reopen(&mut self, pid: Pid, fd: i32, open_flags: u32) -> KResult<i32> {
        self.call(pid, |kernel| {
            let (process, _) = kernel.parts(pid)?;
            process.fds.check_room(1)?;
            let (file, root) = (process.fds.get(fd)?.file, process.uid == 0);
            let mut kind = kernel.kind(file);
            let path_only = open_flags & flags::PATH != 0;
            match kind {
                FileKind::Shmem(inode) => kernel.core.files.inodes.get_ref(inode),
                FileKind::Test(id) => kernel.core.files.tests.get_ref(id),
                FileKind::Device | FileKind::Control(_) if !path_only => {
                    let root = root || kernel.control.is_none();
                    kind = kernel.open_device(root, open_flags & flags::EXCL != 0)?;
                }
                FileKind::Session(_)
                | FileKind::EventFd
                | FileKind::Epoll
                | FileKind::Socket(_)
                | FileKind::Driver(_) => {
                    return Err(Errno::ENXIO.because(format!("{} cannot be opened by a path", kind.text())));
                }
                _ => {}
            }
            let status = open_flags & (flags::ACCMODE | flags::SETTABLE | flags::PATH);
            let large = if path_only { 0 } else { flags::LARGEFILE };
            let file = kernel.core.files.table.open(kind, status | large)?;
            Self::install(kernel, pid, file, open_flags & flags::CLOEXEC != 0, path_only)
        })
    }

    /// `memfd_create(2)`; `huge` prefers folios of 2 MiB (as `shmem_enabled` would).
    ///
    /// # Errors
    /// EINVAL: flags, or a name above 249 bytes; EMFILE; ENFILE.
    pub fn memfd_create(&mut self, pid: Pid, name: &str, mfd: u32, huge: bool) -> KResult<i32> {
        self.call(pid, |kernel| {
            if name.len() > 249 {
                return Err(
                    Errno::EINVAL.because(format!("a memfd name of {} bytes is too long", name.len()))
                );
            }
            let (mode, seals) = Shmem::memfd_setup(mfd)?;
            let cloexec = mfd & MFD_CLOEXEC != 0;
            let status = flags::RDWR | flags::LARGEFILE;
            let kind = if mfd & MFD_HUGETLB != 0 {
                FileKind::HugetlbMemfd
            } else {
                let inode = kernel.core.files.inodes.create(ShmemKind::Memfd, name, mode, seals);
                kernel.core.files.inodes.get_mut(inode).huge = huge;
                FileKind::Shmem(inode)
            };
            let file = kernel.core.files.table.open(kind, status)?;
            Self::install(kernel, pid, file, cloexec, false)
        })
    }

    /// A descriptor of a kind that LUO does not preserve: eventfd, epoll.
    ///
    /// # Errors
    /// EMFILE; ENFILE.
    pub fn open_kind(&mut self, pid: Pid, kind: FileKind) -> KResult<i32> {
        self.call(pid, |kernel| {
            let file = kernel.core.files.table.open(kind, flags::RDWR)?;
            Self::install(kernel, pid, file, false, false)
        })
    }

    /// `pipe(2)`: read end, write end.
    ///
    /// # Errors
    /// EMFILE; ENFILE.
    pub fn pipe(&mut self, pid: Pid) -> KResult<(i32, i32)> {
        self.call(pid, |kernel| {
            kernel.parts(pid)?.0.fds.check_room(2)?;
            let read = kernel.core.files.table.open(FileKind::Pipe, flags::RDONLY)?;
            let read = Self::install(kernel, pid, read, false, false)?;
            let write = kernel.core.files.table.open(FileKind::Pipe, flags::WRONLY)?;
            Ok((read, Self::install(kernel, pid, write, false, false)?))
        })
    }

    /// `socketpair(AF_UNIX)`: both ends.
    ///
    /// # Errors
    /// EMFILE; ENFILE.
    pub fn socketpair(&mut self, pid: Pid) -> KResult<(i32, i32)> {
        self.call(pid, |kernel| {
            kernel.parts(pid)?.0.fds.check_room(2)?;
            let (one, other) = kernel.core.files.socket_pair();
            let one = kernel.core.files.table.open(FileKind::Socket(one), flags::RDWR)?;
            let one = Self::install(kernel, pid, one, false, false)?;
            let other = kernel.core.files.table.open(FileKind::Socket(other), flags::RDWR)?;
            Ok((one, Self::install(kernel, pid, other, false, false)?))
        })
    }

    /// Sends descriptors through a socket (`sendmsg` with `SCM_RIGHTS`).
    ///
    /// # Errors
    /// EBADF; ENOTTY if it is no socket; EPIPE.
    pub fn send_fds(&mut self, pid: Pid, socket: i32, fds: &[i32]) -> KResult<()> {
        self.call(pid, |kernel| {
            let end = kernel.socket(pid, socket)?;
            let (process, core) = kernel.parts(pid)?;
            let files: KResult<Vec<_>> =
                fds.iter().map(|fd| process.fds.get(*fd).map(|descriptor| descriptor.file)).collect();
            if core.files.send(end, &files?) {
                Ok(())
            } else {
                Err(Errno::EPIPE.because("the other end is closed"))
            }
        })
    }

    /// Receives descriptors; without `MSG_CMSG_CLOEXEC` they stay open over exec.
    ///
    /// # Errors
    /// EBADF; EAGAIN: nothing was sent; EMFILE: none of them found a number.
    pub fn receive_fds(&mut self, pid: Pid, socket: i32) -> KResult<Vec<i32>> {
        self.call(pid, |kernel| {
            let end = kernel.socket(pid, socket)?;
            let files = kernel.core.files.receive(end);
            let files = files.ok_or_else(|| Errno::EAGAIN.because("no message waits in the socket"))?;
            // What finds no number is closed; the others stay (the kernel sets MSG_CTRUNC).
            let (mut fds, mut refused) = (Vec::new(), None);
            for file in files {
                let path = kernel.core.files.table.get(file).is_path();
                match Self::install(kernel, pid, file, false, path) {
                    Ok(fd) => fds.push(fd),
                    Err(refusal) => refused = Some(refusal),
                }
            }
            refused.filter(|_| fds.is_empty()).map_or(Ok(fds), Err)
        })
    }

    /// Tells the handler of a test file to fail in a callback.
    ///
    /// # Errors
    /// EBADF; ENOTTY: no test file.
    pub fn set_fault(&mut self, pid: Pid, fd: i32, callback: Callback, fault: Fault) -> KResult<()> {
        self.call(pid, |kernel| match kernel.kind(kernel.file(pid, fd)?) {
            FileKind::Test(id) => {
                kernel.core.files.tests.get_mut(id).set_fault(callback, fault);
                Ok(())
            }
            kind => Err(Errno::ENOTTY.because(format!("{} has no faults", kind.text()))),
        })
    }

    /// `unlink(2)` on tmpfs.
    ///
    /// # Errors
    /// ENOENT.
    pub fn unlink(&mut self, pid: Pid, path: &str) -> KResult<()> {
        self.call(pid, |kernel| {
            let inode = kernel.tmpfs.remove(path);
            let inode = inode.ok_or_else(|| Errno::ENOENT.because(format!("there is no {path}")))?;
            kernel.core.files.inodes.get_mut(inode).nlink -= 1;
            kernel.core.files.inodes.put(&mut kernel.core.ram, inode);
            Ok(())
        })
    }

    /// `link(2)` on tmpfs.
    ///
    /// # Errors
    /// ENOENT; EEXIST.
    pub fn link(&mut self, pid: Pid, from: &str, to: &str) -> KResult<()> {
        self.call(pid, |kernel| {
            let inode = *kernel
                .tmpfs
                .get(from)
                .ok_or_else(|| Errno::ENOENT.because(format!("there is no {from}")))?;
            if kernel.tmpfs.contains_key(to) {
                return Err(Errno::EEXIST.because(format!("{to} exists")));
            }
            kernel.core.files.inodes.get_ref(inode);
            kernel.core.files.inodes.get_mut(inode).nlink += 1;
            kernel.tmpfs.insert(to.to_owned(), inode);
            Ok(())
        })
    }
}

impl Kernel {
    fn socket(&self, pid: Pid, fd: i32) -> KResult<luosim_files::SocketEnd> {
        match self.kind(self.file(pid, fd)?) {
            FileKind::Socket(end) => Ok(end),
            kind => Err(Errno::ENOTTY.because(format!("descriptor {fd} is {}, not a socket", kind.text()))),
        }
    }

    /// No description was made for an object that a driver has opened already.
    fn let_go(&mut self, kind: FileKind) {
        if let FileKind::Driver(_) = kind {
            self.core.released.push(kind);
        }
    }

    /// Finds or makes what `path` names; for files with a reference for the new description.
    fn resolve(&mut self, pid: Pid, path: &str, open_flags: u32, mode: u32) -> KResult<FileKind> {
        let made = open_flags & (flags::CREAT | flags::EXCL) == flags::CREAT | flags::EXCL;
        let kind = match path {
            ioctl::DEVICE_PATH => return self.resolve_device(pid, open_flags, made),
            "/dev/null" => FileKind::Null,
            // Made below, when nothing can refuse the open any more.
            TEST_PATH if self.test_files => FileKind::Null,
            "/dev/zero" => FileKind::Zero,
            _ if self.drivers.by_path(path).is_some() => FileKind::Null,
            "/proc/self/status" | "/proc/cmdline" | "/proc/self/maps" => FileKind::Proc,
            path if self.is_state_file(path) => FileKind::LuoState,
            "/tmp" | "/" | "/dev" | "/proc" if open_flags & flags::TMPFILE != flags::TMPFILE => {
                FileKind::Directory
            }
            _ => return self.resolve_tmpfs(path, open_flags, mode, made),
        };
        if made {
            return Err(Errno::EEXIST.because(format!("{path} exists")));
        }
        if open_flags & flags::DIRECTORY != 0 && kind != FileKind::Directory {
            return Err(Errno::ENOTDIR.because(format!("{path} is no directory")));
        }
        if kind == FileKind::Directory && open_flags & flags::ACCMODE != flags::RDONLY {
            return Err(Errno::EISDIR.because(format!("{path} is a directory")));
        }
        if kind == FileKind::LuoState && open_flags & flags::ACCMODE != flags::RDONLY {
            return Err(Errno::EACCES.because(format!("{path} is only read")));
        }
        if path == TEST_PATH {
            return Ok(FileKind::Test(self.core.files.tests.create(TestFile::default())));
        }
        if let Some((id, driver)) = self.drivers.by_path(path).filter(|_| open_flags & flags::PATH == 0) {
            return Ok(FileKind::Driver(DriverFile { driver: id, object: driver.open(&mut self.core)? }));
        }
        Ok(kind)
    }

    fn resolve_device(&mut self, pid: Pid, open_flags: u32, made: bool) -> KResult<FileKind> {
        if !self.has_device() {
            return Err(
                Errno::ENOENT.because("the live update orchestrator is off, so there is no device node")
            );
        }
        if made {
            return Err(Errno::EEXIST.because("/dev/liveupdate exists"));
        }
        if open_flags & flags::DIRECTORY != 0 {
            return Err(Errno::ENOTDIR.because("/dev/liveupdate is no directory"));
        }
        if open_flags & flags::PATH == 0 {
            let uid = self.parts(pid)?.0.uid;
            if uid != 0 && self.control.is_none() {
                return Err(Errno::EACCES.because(format!("the device is for root alone; uid {uid}")));
            }
            return self.open_device(uid == 0, open_flags & flags::EXCL != 0);
        }
        Ok(FileKind::Device)
    }

    fn resolve_tmpfs(&mut self, path: &str, open_flags: u32, mode: u32, made: bool) -> KResult<FileKind> {
        let missing = || Errno::ENOENT.because(format!("there is no {path}"));
        let inodes = &mut self.core.files.inodes;
        if open_flags & flags::TMPFILE == flags::TMPFILE {
            if path != "/tmp" {
                return Err(missing());
            }
            let inode = inodes.create(ShmemKind::Tmpfs, "/tmp/#1", mode & 0o7777, Seals::SEAL);
            return Ok(FileKind::Shmem(inode));
        }
        if let Some(inode) = self.tmpfs.get(path) {
            if made {
                return Err(Errno::EEXIST.because(format!("{path} exists")));
            }
            inodes.get_ref(*inode);
            return Ok(FileKind::Shmem(*inode));
        }
        let name = path.strip_prefix("/tmp/").filter(|name| !name.is_empty() && !name.contains('/'));
        if name.is_none() || open_flags & flags::CREAT == 0 {
            return Err(missing());
        }
        let inode = inodes.create(ShmemKind::Tmpfs, path, mode & 0o7777, Seals::SEAL);
        inodes.get_mut(inode).nlink = 1;
        inodes.get_ref(inode);
        self.tmpfs.insert(path.to_owned(), inode);
        Ok(FileKind::Shmem(inode))
    }
}

/// A descriptor for the same description as another.
pub(super) fn same(descriptor: Descriptor, cloexec: bool) -> Descriptor {
    Descriptor { cloexec, ..descriptor }
}
