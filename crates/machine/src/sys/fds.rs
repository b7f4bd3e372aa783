//! Descriptor numbers: close, dup, flags.

use luosim_abi::{Errno, KResult};
use luosim_files::flags;

use super::open::same;
use crate::Machine;
use crate::process::Pid;

impl Machine {
    /// `close(2)`.
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&mut self, pid: Pid, fd: i32) -> KResult<()> {
        self.call(pid, |kernel| {
            let (process, core) = kernel.parts(pid)?;
            let descriptor = process.fds.remove(fd)?;
            core.files.put(&mut core.ram, descriptor.file, &mut core.released);
            Ok(())
        })
    }

    /// `dup(2)`.
    ///
    /// # Errors
    /// EBADF; EMFILE.
    pub fn dup(&mut self, pid: Pid, fd: i32) -> KResult<i32> {
        self.call(pid, |kernel| {
            let (process, core) = kernel.parts(pid)?;
            let descriptor = process.fds.get(fd)?;
            let new = process.fds.reserve()?;
            process.fds.install(new, same(descriptor, false));
            core.files.table.get_ref(descriptor.file);
            Ok(new)
        })
    }

    /// `dup2(2)`: `to` is closed first, unless it is `fd` itself.
    ///
    /// # Errors
    /// EBADF.
    pub fn dup2(&mut self, pid: Pid, fd: i32, to: i32) -> KResult<i32> {
        self.call(pid, |kernel| {
            let (process, core) = kernel.parts(pid)?;
            let descriptor = process.fds.get(fd)?;
            if fd == to {
                return Ok(to);
            }
            core.files.table.get_ref(descriptor.file);
            match process.fds.put_at(to, same(descriptor, false)) {
                Ok(Some(old)) => core.files.put(&mut core.ram, old.file, &mut core.released),
                Ok(None) => {}
                Err(refusal) => {
                    core.files.table.put(descriptor.file);
                    return Err(refusal);
                }
            }
            Ok(to)
        })
    }

    /// `fcntl(F_GETFL)`.
    ///
    /// # Errors
    /// EBADF.
    pub fn get_status(&mut self, pid: Pid, fd: i32) -> KResult<u32> {
        self.call(pid, |kernel| {
            let (process, core) = kernel.parts(pid)?;
            let descriptor = process.fds.get(fd)?;
            Ok(core.files.table.get(descriptor.file).flags)
        })
    }

    /// `fcntl(F_SETFL)`: only the flags that may be changed are.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_status(&mut self, pid: Pid, fd: i32, status: u32) -> KResult<()> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            let open = kernel.core.files.table.get_mut(file);
            open.flags = open.flags & !flags::SETTABLE | status & flags::SETTABLE;
            Ok(())
        })
    }

    /// `fcntl(F_GETFD)`: whether the descriptor is closed on exec.
    ///
    /// # Errors
    /// EBADF.
    pub fn get_cloexec(&mut self, pid: Pid, fd: i32) -> KResult<bool> {
        self.call(pid, |kernel| Ok(kernel.parts(pid)?.0.fds.get(fd)?.cloexec))
    }

    /// `fcntl(F_SETFD)`.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_cloexec(&mut self, pid: Pid, fd: i32, cloexec: bool) -> KResult<()> {
        self.call(pid, |kernel| kernel.parts(pid)?.0.fds.set_cloexec(fd, cloexec))
    }

    /// `setrlimit(RLIMIT_NOFILE)`, soft limit.
    ///
    /// # Errors
    /// ESRCH.
    pub fn set_nofile(&mut self, pid: Pid, limit: usize) -> KResult<()> {
        self.call(pid, |kernel| {
            kernel.parts(pid)?.0.fds.set_limit(limit);
            Ok(())
        })
    }

    /// `getrlimit(RLIMIT_NOFILE)`, soft limit.
    ///
    /// # Errors
    /// ESRCH.
    pub fn nofile(&mut self, pid: Pid) -> KResult<usize> {
        self.call(pid, |kernel| Ok(kernel.parts(pid)?.0.fds.limit()))
    }

    /// Whether two descriptors refer to the same inode.
    ///
    /// # Errors
    /// EBADF.
    pub fn same_inode(&mut self, pid: Pid, one: i32, other: i32) -> KResult<bool> {
        let (one, other) = (self.fstat(pid, one)?, self.fstat(pid, other)?);
        Ok(one.ino == other.ino && one.ino != 0)
    }

    /// Checks that a descriptor may be used for the file itself.
    ///
    /// # Errors
    /// EBADF.
    pub fn check_fd(&mut self, pid: Pid, fd: i32) -> KResult<()> {
        self.call(pid, |kernel| {
            kernel.file(pid, fd).map(|_| ()).map_err(|refusal| Errno::EBADF.because(refusal.reason))
        })
    }
}
