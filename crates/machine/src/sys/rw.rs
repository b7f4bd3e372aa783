//! Reading, writing, seeking, resizing, attributes.

use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_files::shmem::{MAX_SIZE, Seals, Whence};
use luosim_files::test_file::TEST_PATH;
use luosim_files::{FileKind, InodeId, Shmem, ShmemKind, flags};
use luosim_luo::FileId;

use crate::process::Pid;
use crate::{Kernel, Machine};

/// What `fstat(2)` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// File type and permission bits.
    pub mode: u32,
    /// Inode number; anonymous files share one.
    pub ino: u64,
    /// Names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// 512-byte units.
    pub blocks: u64,
    /// The file system it lies on: equal for files of one mount. The numbers themselves mean nothing.
    pub dev: u64,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
}

/// The device node's numbers: the major of misc devices, and a minor as one is given out dynamically.
const LIVEUPDATE_RDEV: (u32, u32) = (10, 256);

const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFSOCK: u32 = 0o140_000;
/// Windows in which a write is checked against the size.
const WINDOW: u64 = 2 << 20;
const SMALL_WINDOW: u64 = 4096;

fn wrong(kind: FileKind, errno: Errno, what: &str) -> luosim_abi::Refusal {
    errno.because(format!("{} cannot be {what}", kind.text()))
}

impl Kernel {
    fn shmem(&self, file: FileId, errno: Errno, what: &str) -> KResult<InodeId> {
        match self.kind(file) {
            FileKind::Shmem(inode) => Ok(inode),
            kind => Err(wrong(kind, errno, what)),
        }
    }

    pub(crate) fn write_window(&self) -> u64 {
        if self.quirks.has(Quirk::WriteWindowPage) { SMALL_WINDOW } else { WINDOW }
    }

    fn writable(&self, pid: Pid, fd: i32, errno: Errno) -> KResult<FileId> {
        let file = self.file(pid, fd)?;
        if !self.core.files.table.get(file).writable() {
            return Err(errno.because(format!("descriptor {fd} is not open for writing")));
        }
        Ok(file)
    }

    fn readable(&self, pid: Pid, fd: i32) -> KResult<FileId> {
        let file = self.file(pid, fd)?;
        if !self.core.files.table.get(file).readable() {
            return Err(Errno::EBADF.because(format!("descriptor {fd} is not open for reading")));
        }
        Ok(file)
    }

    fn read_file(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> KResult<usize> {
        match self.kind(file) {
            FileKind::Shmem(inode) => Ok(self.core.files.inodes.get(inode).read_at(&self.core.ram, at, buf)),
            FileKind::Test(id) => Ok(self.core.files.tests.get(id).read_at(at, buf)),
            FileKind::Driver(file) => {
                self.driver_for(file, Errno::EINVAL)?.read(&mut self.core, file.object, at, buf)
            }
            FileKind::Null => Ok(0),
            FileKind::LuoState => {
                let text = self.state_text();
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
                let count = buf.len().min(text.len() - from);
                buf[..count].copy_from_slice(&text.as_bytes()[from..from + count]);
                Ok(count)
            }
            FileKind::Zero => {
                buf.fill(0);
                Ok(buf.len())
            }
            FileKind::Directory => Err(wrong(FileKind::Directory, Errno::EISDIR, "read")),
            kind => Err(wrong(kind, Errno::EINVAL, "read")),
        }
    }

    fn write_file(&mut self, file: FileId, at: u64, bytes: &[u8]) -> KResult<usize> {
        let window = self.write_window();
        match self.kind(file) {
            FileKind::Shmem(inode) => {
                let core = &mut self.core;
                core.files.inodes.get_mut(inode).write_at(&mut core.ram, at, bytes, window)
            }
            FileKind::Test(id) => self.core.files.tests.get_mut(id).write_at(at, bytes),
            FileKind::Driver(file) => {
                self.driver_for(file, Errno::EINVAL)?.write(&mut self.core, file.object, at, bytes)
            }
            FileKind::Null | FileKind::Zero => Ok(bytes.len()),
            kind => Err(wrong(kind, Errno::EINVAL, "written")),
        }
    }

    /// A file of sysfs has no end to seek from.
    fn seek_state(&mut self, file: FileId, offset: i64, whence: Whence) -> KResult<u64> {
        let open = self.core.files.table.get_mut(file);
        let from = match whence {
            Whence::Set => 0,
            Whence::Cur => open.pos,
            Whence::End | Whence::Data | Whence::Hole => {
                return Err(Errno::EINVAL.because("a file of sysfs has no end to seek from"));
            }
        };
        let to = from.checked_add_signed(offset).filter(|to| *to <= MAX_SIZE);
        open.pos = to.ok_or_else(|| Errno::EINVAL.because("a position cannot be negative"))?;
        Ok(open.pos)
    }

    fn check_seekable(&self, file: FileId) -> KResult<()> {
        match self.kind(file) {
            kind @ (FileKind::Pipe
            | FileKind::Socket(_)
            | FileKind::Session(_)
            | FileKind::EventFd
            | FileKind::Epoll) => Err(Errno::ESPIPE.because(format!("{} has no positions", kind.text()))),
            _ => Ok(()),
        }
    }
}

fn step(done: usize) -> u64 {
    u64::try_from(done).expect("a length fits in 64 bits")
}

impl Machine {
    /// `read(2)`; moves the position of the description.
    ///
    /// # Errors
    /// EBADF; EINVAL: the device and sessions; EISDIR.
    pub fn read(&mut self, pid: Pid, fd: i32, buf: &mut [u8]) -> KResult<usize> {
        self.call(pid, |kernel| {
            let file = kernel.readable(pid, fd)?;
            let at = kernel.core.files.table.get(file).pos;
            let done = kernel.read_file(file, at, buf)?;
            kernel.core.files.table.get_mut(file).pos += step(done);
            Ok(done)
        })
    }

    /// `pread(2)`.
    ///
    /// # Errors
    /// As [`Self::read`]; ESPIPE; EINVAL for a negative offset.
    pub fn pread(&mut self, pid: Pid, fd: i32, buf: &mut [u8], at: u64) -> KResult<usize> {
        self.call(pid, |kernel| {
            check_offset(at)?;
            kernel.check_seekable(kernel.file(pid, fd)?)?;
            let file = kernel.readable(pid, fd)?;
            kernel.read_file(file, at, buf)
        })
    }

    /// `write(2)`; with `O_APPEND` at the end. Moves the position.
    ///
    /// # Errors
    /// EBADF; EINVAL: the device and sessions; EPERM: frozen or sealed; EFBIG; ENOMEM.
    pub fn write(&mut self, pid: Pid, fd: i32, bytes: &[u8]) -> KResult<usize> {
        self.call(pid, |kernel| {
            let file = kernel.writable(pid, fd, Errno::EBADF)?;
            let open = *kernel.core.files.table.get(file);
            let at = kernel.append_at(file, open.flags).unwrap_or(open.pos);
            let done = kernel.write_file(file, at, bytes)?;
            kernel.core.files.table.get_mut(file).pos = at + step(done);
            Ok(done)
        })
    }

    /// `pwrite(2)`; with `O_APPEND` Linux writes at the end whatever the offset says.
    ///
    /// # Errors
    /// As [`Self::write`]; ESPIPE; EINVAL for a negative offset.
    pub fn pwrite(&mut self, pid: Pid, fd: i32, bytes: &[u8], at: u64) -> KResult<usize> {
        self.call(pid, |kernel| {
            check_offset(at)?;
            kernel.check_seekable(kernel.file(pid, fd)?)?;
            let file = kernel.writable(pid, fd, Errno::EBADF)?;
            let status = kernel.core.files.table.get(file).flags;
            let at = kernel.append_at(file, status).unwrap_or(at);
            kernel.write_file(file, at, bytes)
        })
    }

    /// `lseek(2)`.
    ///
    /// # Errors
    /// EBADF; ESPIPE: the device, sessions, pipes; EINVAL; ENXIO.
    pub fn lseek(&mut self, pid: Pid, fd: i32, offset: i64, whence: Whence) -> KResult<u64> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            if kernel.kind(file) == FileKind::LuoState {
                return kernel.seek_state(file, offset, whence);
            }
            let inode = kernel.shmem(file, Errno::ESPIPE, "positioned")?;
            let pos = kernel.core.files.table.get(file).pos;
            let target = kernel.core.files.inodes.get(inode).seek(pos, offset, whence)?;
            kernel.core.files.table.get_mut(file).pos = target;
            Ok(target)
        })
    }

    /// `ftruncate(2)`.
    ///
    /// # Errors
    /// EBADF; EINVAL: not opened for writing, no regular file, negative size; EPERM: frozen or sealed.
    pub fn ftruncate(&mut self, pid: Pid, fd: i32, size: i64) -> KResult<()> {
        self.call(pid, |kernel| {
            let size = u64::try_from(size);
            let size = size.map_err(|_| Errno::EINVAL.because("a size cannot be negative"))?;
            let file = kernel.file(pid, fd)?;
            let inode = kernel.shmem(file, Errno::EINVAL, "truncated")?;
            kernel.writable(pid, fd, Errno::EINVAL)?;
            let core = &mut kernel.core;
            core.files.inodes.get_mut(inode).truncate(&mut core.ram, size)
        })
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// EBADF; ENODEV: no regular file; ESPIPE: pipes; as the file says.
    pub fn fallocate(&mut self, pid: Pid, fd: i32, mode: u32, offset: i64, len: i64) -> KResult<()> {
        self.call(pid, |kernel| {
            kernel.file(pid, fd)?;
            Shmem::check_fallocate(mode, offset, len)?;
            let file = kernel.writable(pid, fd, Errno::EBADF)?;
            let inode = match kernel.kind(file) {
                FileKind::Shmem(inode) => inode,
                kind @ FileKind::Pipe => return Err(wrong(kind, Errno::ESPIPE, "allocated")),
                kind @ FileKind::Directory => return Err(wrong(kind, Errno::EISDIR, "allocated")),
                kind => return Err(wrong(kind, Errno::ENODEV, "allocated")),
            };
            let core = &mut kernel.core;
            core.files.inodes.get_mut(inode).fallocate(&mut core.ram, mode, offset, len)
        })
    }

    /// `fcntl(F_ADD_SEALS)`.
    ///
    /// # Errors
    /// EBADF; EINVAL: no memory file, unknown seals; EPERM: not opened for writing, or sealed; EBUSY.
    pub fn add_seals(&mut self, pid: Pid, fd: i32, seals: Seals) -> KResult<()> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            kernel.writable(pid, fd, Errno::EPERM)?;
            let inode = kernel.shmem(file, Errno::EINVAL, "sealed")?;
            kernel.core.files.inodes.get_mut(inode).add_seals(seals)
        })
    }

    /// `fcntl(F_GET_SEALS)`.
    ///
    /// # Errors
    /// EBADF; EINVAL: no memory file.
    pub fn get_seals(&mut self, pid: Pid, fd: i32) -> KResult<Seals> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            let inode = kernel.shmem(file, Errno::EINVAL, "sealed")?;
            Ok(kernel.core.files.inodes.get(inode).seals())
        })
    }

    /// `fchmod(2)`.
    ///
    /// # Errors
    /// EBADF; EPERM: F_SEAL_EXEC.
    pub fn fchmod(&mut self, pid: Pid, fd: i32, mode: u32) -> KResult<()> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            match kernel.kind(file) {
                FileKind::Shmem(inode) => kernel.core.files.inodes.get_mut(inode).chmod(mode),
                _ => Ok(()),
            }
        })
    }

    /// `fchown(2)`.
    ///
    /// # Errors
    /// EBADF.
    pub fn fchown(&mut self, pid: Pid, fd: i32, uid: u32, gid: u32) -> KResult<()> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            if let FileKind::Shmem(inode) = kernel.kind(file) {
                let inode = kernel.core.files.inodes.get_mut(inode);
                // -1 leaves a number as it is.
                let keep = |new: u32, old: u32| if new == u32::MAX { old } else { new };
                (inode.uid, inode.gid) = (keep(uid, inode.uid), keep(gid, inode.gid));
            }
            Ok(())
        })
    }

    /// `fstat(2)`.
    ///
    /// # Errors
    /// EBADF.
    pub fn fstat(&mut self, pid: Pid, fd: i32) -> KResult<Stat> {
        self.call(pid, |kernel| {
            let file = kernel.parts(pid)?.0.fds.get(fd)?.file;
            Ok(kernel.stat(file))
        })
    }

    /// `stat(2)`: of a path that [`Self::open`] knows.
    ///
    /// # Errors
    /// ENOENT.
    pub fn stat(&mut self, pid: Pid, path: &str) -> KResult<Stat> {
        let node = self.open(pid, path, flags::PATH, 0)?;
        let stat = self.fstat(pid, node);
        self.close(pid, node)?;
        stat
    }

    /// `fstatfs(2)`: the file system's magic number.
    ///
    /// # Errors
    /// EBADF.
    pub fn fstatfs(&mut self, pid: Pid, fd: i32) -> KResult<u64> {
        self.call(pid, |kernel| {
            let file = kernel.parts(pid)?.0.fds.get(fd)?.file;
            Ok(match kernel.kind(file) {
                FileKind::Session(_) | FileKind::EventFd | FileKind::Epoll => 0x0904_1934,
                FileKind::Pipe => 0x5049_5045,
                FileKind::Socket(_) => 0x534f_434b,
                FileKind::Proc => 0x9fa0,
                FileKind::LuoState => 0x6265_6572,
                FileKind::HugetlbMemfd => 0x9584_58f6,
                _ => 0x0102_1994,
            })
        })
    }

    /// Text of the link `/proc/self/fd/N`.
    ///
    /// # Errors
    /// ENOENT: not open; ENAMETOOLONG: quirk `short-link-text`.
    pub fn readlink_fd(&mut self, pid: Pid, fd: i32) -> KResult<Vec<u8>> {
        self.call(pid, |kernel| {
            let open = kernel.parts(pid)?.0.fds.get(fd);
            let file = open.map_err(|refusal| Errno::ENOENT.because(refusal.reason))?.file;
            kernel.link_text(file)
        })
    }

    /// `poll(2)` for everything: these files are always ready.
    ///
    /// # Errors
    /// EBADF.
    pub fn poll(&mut self, pid: Pid, fd: i32) -> KResult<u32> {
        self.call(pid, |kernel| kernel.file(pid, fd).map(|_| 0x145))
    }
}

const SHM_MOUNT: u64 = 1;
const TMP_MOUNT: u64 = 2;
const DEV_MOUNT: u64 = 3;

fn device_node(mode: u32, rdev: (u32, u32)) -> Stat {
    Stat { mode: S_IFCHR | mode, ino: 1, nlink: 1, dev: DEV_MOUNT, rdev, ..Stat::default() }
}

fn check_offset(at: u64) -> KResult<()> {
    if at > MAX_SIZE {
        return Err(Errno::EINVAL.because("an offset cannot be negative"));
    }
    Ok(())
}

impl Kernel {
    fn append_at(&self, file: FileId, status: u32) -> Option<u64> {
        match self.kind(file) {
            FileKind::Shmem(inode) if status & flags::APPEND != 0 => {
                Some(self.core.files.inodes.get(inode).size())
            }
            _ => None,
        }
    }

    fn stat(&self, file: FileId) -> Stat {
        let kind = self.kind(file);
        let other = |mode: u32| Stat { mode, ino: 1, nlink: 1, ..Stat::default() };
        match kind {
            FileKind::Shmem(inode) => {
                let inode = self.core.files.inodes.get(inode);
                Stat {
                    mode: S_IFREG | inode.mode,
                    ino: inode.ino,
                    nlink: inode.nlink,
                    uid: inode.uid,
                    gid: inode.gid,
                    size: inode.size(),
                    blocks: inode.blocks(),
                    dev: match inode.kind {
                        ShmemKind::Memfd => SHM_MOUNT,
                        ShmemKind::Tmpfs => TMP_MOUNT,
                    },
                    ..Stat::default()
                }
            }
            FileKind::Device | FileKind::Control(_) => device_node(0o600, LIVEUPDATE_RDEV),
            FileKind::LuoState => Stat { size: 4096, ..other(S_IFREG | 0o444) },
            FileKind::Null => device_node(0o666, (1, 3)),
            FileKind::Zero => device_node(0o666, (1, 5)),
            FileKind::Session(_) | FileKind::EventFd | FileKind::Epoll => other(0o600),
            FileKind::Pipe => other(S_IFIFO | 0o600),
            FileKind::Socket(_) => other(S_IFSOCK | 0o777),
            FileKind::Proc => other(S_IFREG | 0o444),
            FileKind::Directory => other(S_IFDIR | 0o755),
            // Outside programs ask the host.
            FileKind::Foreign => other(0),
            FileKind::Driver(_) => other(S_IFCHR | 0o600),
            FileKind::HugetlbMemfd => other(S_IFREG | 0o777),
            FileKind::Test(id) => {
                let size = step(self.core.files.tests.get(id).contents().len());
                Stat { ino: 2 + u64::from(id.0), size, ..other(S_IFREG | 0o600) }
            }
        }
    }

    fn link_text(&self, file: FileId) -> KResult<Vec<u8>> {
        Ok(match self.kind(file) {
            FileKind::Shmem(inode) => self.core.files.inodes.get(inode).link_text().into_bytes(),
            FileKind::Session(key) => {
                let name =
                    self.posted().map_or_else(|| self.luo.session_name(key), |luo| luo.session_name(key));
                let name = name.unwrap_or_else(|| luosim_luo::SessionName::from_bytes(b""));
                if self.quirks.has(Quirk::ShortLinkText) && name.len() >= 39 {
                    let why =
                        format!("the kernel's buffer holds names of 38 bytes; this one has {}", name.len());
                    return Err(Errno::ENAMETOOLONG.because(why));
                }
                [b"anon_inode:[luo_session] ", name.as_bytes()].concat()
            }
            FileKind::Device | FileKind::Control(_) => b"/dev/liveupdate".to_vec(),
            FileKind::LuoState => luosim_abi::posted::STATE_PATH.as_bytes().to_vec(),
            FileKind::Null => b"/dev/null".to_vec(),
            FileKind::Zero => b"/dev/zero".to_vec(),
            FileKind::EventFd => b"anon_inode:[eventfd]".to_vec(),
            FileKind::Epoll => b"anon_inode:[eventpoll]".to_vec(),
            FileKind::Pipe => b"pipe:[1]".to_vec(),
            FileKind::Socket(_) => b"socket:[1]".to_vec(),
            FileKind::Proc => b"/proc/self/status".to_vec(),
            FileKind::Directory => b"/tmp".to_vec(),
            FileKind::Foreign => b"(outside)".to_vec(),
            FileKind::Driver(file) => self.driver_text(file).into_bytes(),
            FileKind::HugetlbMemfd => b"/memfd: (deleted)".to_vec(),
            FileKind::Test(_) => TEST_PATH.as_bytes().to_vec(),
        })
    }
}
