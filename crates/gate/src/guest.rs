//! A program's thread as the caller of an ioctl.
//!
//! The argument is copied once, when the call arrives: checks and work then see the same bytes, whatever other threads
//! do to them. A new descriptor cannot be taken back once the host has installed it, so the reply is first tried with
//! the number that is there already, and gets its own when the descriptor is in. Where what lies in the argument the
//! release says.

use luosim_abi::argument::{Argument, LARGEST};
use luosim_abi::extensible::UserMemory;
use luosim_abi::posted::State;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Caller, FileId};

use crate::task::Task;

/// The caller of one ioctl.
pub(crate) struct Guest<'a> {
    task: &'a Task,
    addr: u64,
    argument: [u8; LARGEST],
    len: usize,
    /// What is in it, if the kernel knows the command.
    layout: Option<Argument>,
    /// Whether it begins with its size.
    size_first: bool,
    /// The descriptor that the call preserves, looked up beforehand.
    pub(crate) preserved: Option<(i32, KResult<FileId>)>,
    /// What is to be installed.
    pub(crate) installed: Option<FileId>,
    /// The state that the reply told.
    pub(crate) told: Option<State>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(task: &'a Task, addr: u64, layout: Option<Argument>, size_first: bool) -> Self {
        let mut argument = [0; LARGEST];
        let len = task.read_some(addr, &mut argument);
        Self { task, addr, argument, len, layout, size_first, preserved: None, installed: None, told: None }
    }

    /// The argument as it was when the call arrived.
    pub(crate) fn argument(&self) -> &[u8] {
        &self.argument[..self.len]
    }

    /// Four bytes of it.
    fn word_at(&self, at: Option<usize>) -> Option<[u8; 4]> {
        let bytes = self.argument().get(at?..)?.first_chunk();
        bytes.copied()
    }

    /// The bytes that the program says it passes.
    pub(crate) fn said(&self) -> Option<usize> {
        if !self.size_first {
            return self.layout.map(|layout| layout.size);
        }
        usize::try_from(u32::from_le_bytes(self.word_at(Some(0))?)).ok()
    }

    /// As much of the argument as can be read, up to the size it says and `limit`; and whether it says more.
    pub(crate) fn whole(&self, limit: usize) -> (Vec<u8>, bool) {
        let size = self.said().unwrap_or(self.len);
        let mut bytes = vec![0; size.max(self.len).min(limit)];
        let got = self.task.read_some(self.addr, &mut bytes);
        bytes.truncate(got);
        (bytes, got < size)
    }

    /// The descriptor in the argument.
    pub(crate) fn fd(&self) -> Option<i32> {
        self.word_at(self.layout?.fd).map(i32::from_le_bytes)
    }

    /// The word in it.
    pub(crate) fn word(&self) -> Option<u32> {
        self.word_at(self.layout?.word).map(u32::from_le_bytes)
    }

    /// The name in the argument.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        let (at, len) = self.layout?.text?;
        let field = self.argument().get(at..at + len)?;
        Some(&field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())])
    }

    /// The token in the argument.
    pub(crate) fn token(&self) -> Option<u64> {
        let bytes = self.argument().get(self.layout?.token?..)?.first_chunk();
        bytes.copied().map(u64::from_le_bytes)
    }

    /// Where the new descriptor's number goes in the argument.
    fn new_fd(&self) -> Option<usize> {
        self.layout.filter(Argument::gives_fd)?.fd
    }

    /// Writes the number of the descriptor that is now installed: also where another thread made the place
    /// read-only since the reply was tried.
    ///
    /// # Errors
    /// EFAULT: it was unmapped since then.
    pub(crate) fn tell_fd(&self, fd: i32) -> KResult<()> {
        let at = self.new_fd().expect("only such a command installs one");
        let addr = self.addr + u64::try_from(at).expect("arguments are small");
        let bytes = fd.to_le_bytes();
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
        if addr != self.addr {
            return self.task.write(addr, bytes);
        }
        let state = self.layout.and_then(|layout| layout.state).and_then(|at| bytes.get(at..)?.first_chunk());
        self.told = state.copied().map(u32::from_le_bytes).and_then(State::from_raw);
        let field = self.new_fd().and_then(|at| Some((at, self.word_at(Some(at))?)));
        let Some((at, there)) = field else { return self.task.write(addr, bytes) };
        let mut tried = bytes.to_vec();
        if let Some(place) = tried.get_mut(at..at + there.len()) {
            place.copy_from_slice(&there);
        }
        self.task.write(addr, &tried)
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
