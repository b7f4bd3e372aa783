//! A model process as the caller of an ioctl.

use luosim_abi::Errno;
use luosim_abi::KResult;
use luosim_abi::extensible::UserMemory;
use luosim_luo::{Caller, FileId};

use crate::process::{Descriptor, Process};

/// The process that makes the call.
pub(crate) struct ProcessCaller<'a>(pub(crate) &'a mut Process);

impl UserMemory for ProcessCaller<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        self.0.memory.read(addr, buf)
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        self.0.memory.write(addr, bytes)
    }
}

impl Caller for ProcessCaller<'_> {
    fn reserve_fd(&mut self) -> KResult<i32> {
        self.0.fds.reserve()
    }

    fn cancel_fd(&mut self, fd: i32) {
        self.0.fds.cancel(fd);
    }

    fn install_fd(&mut self, fd: i32, file: FileId) {
        self.0.fds.install(fd, Descriptor { file, cloexec: true, path: false });
    }

    fn lookup_fd(&self, fd: i32) -> KResult<FileId> {
        let descriptor = self.0.fds.get(fd)?;
        if descriptor.path {
            return Err(Errno::EBADF.because(format!("descriptor {fd} was opened with O_PATH")));
        }
        Ok(descriptor.file)
    }
}
