//! A program's thread as the caller of an ioctl.
//!
//! The argument is copied once, when the call arrives: checks and work then see the same bytes, whatever other threads
//! do to them. A new descriptor cannot be taken back once the host has installed it, so the reply is first tried with
//! the bytes that are there already, and gets its number when the descriptor is in.

use luosim_abi::extensible::UserMemory;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Caller, FileId};

use crate::task::Task;

/// Largest structure of the interface.
const LARGEST: usize = 72;
/// Where the descriptor is in every structure that has one.
const FD_OFFSET: u64 = 4;

/// The caller of one ioctl.
pub(crate) struct Guest<'a> {
    task: &'a Task,
    addr: u64,
    argument: [u8; LARGEST],
    len: usize,
    /// The descriptor that the call preserves, looked up beforehand.
    pub(crate) preserved: Option<(i32, KResult<FileId>)>,
    /// Whether the reply carries a new descriptor.
    gives_fd: bool,
    /// What is to be installed.
    pub(crate) installed: Option<FileId>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(task: &'a Task, addr: u64, gives_fd: bool) -> Self {
        let mut argument = [0; LARGEST];
        let len = task.read_some(addr, &mut argument);
        Self { task, addr, argument, len, preserved: None, gives_fd, installed: None }
    }

    /// The argument as it was when the call arrived.
    pub(crate) fn argument(&self) -> &[u8] {
        &self.argument[..self.len]
    }

    /// As much of the argument as can be read, up to the size it says and `limit`; and whether it says more.
    pub(crate) fn whole(&self, limit: usize) -> (Vec<u8>, bool) {
        let size =
            self.argument().get(..4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
        let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(self.len);
        let mut bytes = vec![0; size.max(self.len).min(limit)];
        let got = self.task.read_some(self.addr, &mut bytes);
        bytes.truncate(got);
        (bytes, got < size)
    }

    /// The descriptor in the argument.
    pub(crate) fn fd(&self) -> Option<i32> {
        let bytes = self.argument().get(4..8)?;
        Some(i32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    /// The name in the argument.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        let field = self.argument().get(8..LARGEST)?;
        Some(&field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())])
    }

    /// The token in the argument.
    pub(crate) fn token(&self) -> Option<u64> {
        let bytes = self.argument().get(8..16)?;
        Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// Writes the number of the descriptor that is now installed: also where another thread made the place
    /// read-only since the reply was tried.
    ///
    /// # Errors
    /// EFAULT: it was unmapped since then.
    pub(crate) fn tell_fd(&self, fd: i32) -> KResult<()> {
        let (addr, bytes) = (self.addr + FD_OFFSET, fd.to_le_bytes());
        self.task.write(addr, &bytes).or_else(|_| self.task.force(addr, &bytes))
    }
}

impl UserMemory for Guest<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        let offset = addr.checked_sub(self.addr).and_then(|offset| usize::try_from(offset).ok());
        let known = offset.and_then(|from| self.argument().get(from..from.checked_add(buf.len())?));
        match known {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.task.read(addr, buf),
        }
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        if self.gives_fd {
            return self.task.write(addr, &self.argument[..bytes.len().min(LARGEST)]);
        }
        self.task.write(addr, bytes)
    }
}

impl Caller for Guest<'_> {
    fn reserve_fd(&mut self) -> KResult<i32> {
        if self.task.has_free_descriptor() {
            // The number is the host's to choose; nobody sees this one.
            return Ok(-1);
        }
        Err(Errno::EMFILE.because("the program's descriptor table is full"))
    }

    fn cancel_fd(&mut self, _fd: i32) {}

    fn install_fd(&mut self, _fd: i32, file: FileId) {
        self.installed = Some(file);
    }

    fn lookup_fd(&self, fd: i32) -> KResult<FileId> {
        match &self.preserved {
            Some((known, result)) if *known == fd => result.clone(),
            _ => Err(Errno::EBADF.because(format!("descriptor {fd} was not there when the call was made"))),
        }
    }
}
