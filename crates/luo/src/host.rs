//! What LUO needs of the kernel around it, of the calling process, and of the handlers of file types.

use luosim_abi::extensible::UserMemory;
use luosim_abi::{Errno, KResult};
use luosim_kho::{Kho, log::KernelLog};
use luosim_physmem::Ram;

use crate::Event;

/// An open file description in the kernel's file table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// What makes two files the same for LUO: for a memfd its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub u64);

/// A session, as an open file description of a session refers to it. Valid until that file is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u32);

impl SessionKey {
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).expect("a session index fits in usize")
    }
}

/// The kernel's physical memory, its KHO and its log, borrowed together.
#[derive(Debug)]
pub struct Memory<'a> {
    /// Physical memory and its frame allocator.
    pub ram: &'a mut Ram,
    /// The page tracker and root tree.
    pub kho: &'a mut Kho,
    /// The kernel log.
    pub log: &'a mut KernelLog,
}

/// The kernel around the orchestrator.
pub trait Host {
    /// Memory, KHO and log.
    fn memory(&mut self) -> Memory<'_>;
    /// Takes one more reference on an open file description.
    fn file_get(&mut self, file: FileId);
    /// Gives a reference back. If it was the last the file is released; a session file's release reaches
    /// [`crate::Luo::release_session`] before the next system call of anyone.
    fn file_put(&mut self, file: FileId);
    /// Makes the open file description of a session, with one reference.
    ///
    /// # Errors
    /// ENFILE or ENOMEM.
    fn open_session(&mut self, key: SessionKey) -> KResult<FileId>;
    /// Something happened that an observer outside the kernel wants to know (ledger, transcript).
    fn emit(&mut self, event: Event);
    /// A reboot is at the point of its serialisation where [`crate::Disturbance`] has somebody make a call.
    fn intrude(&mut self) {}
}

/// The process that makes an ioctl: its memory and its descriptors.
pub trait Caller: UserMemory {
    /// Takes the lowest free descriptor number, not yet visible to the process.
    ///
    /// # Errors
    /// EMFILE at the process's limit.
    fn reserve_fd(&mut self) -> KResult<i32>;
    /// Gives a reserved number back.
    fn cancel_fd(&mut self, fd: i32);
    /// Makes a reserved number refer to `file` (the reference passes to the table), close-on-exec set.
    fn install_fd(&mut self, fd: i32, file: FileId);
    /// The open file description behind a descriptor.
    ///
    /// # Errors
    /// EBADF for closed, negative and `O_PATH` descriptors.
    fn lookup_fd(&self, fd: i32) -> KResult<FileId>;
}

/// How far the retrieval of an incoming file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetrieveStatus {
    /// Nobody asked for it.
    Untried,
    /// It was given out; this is its open file description.
    Retrieved(FileId),
    /// The handler failed; the errno is answered for ever (6.19 forgets it).
    Failed(Errno),
}

/// What makes one type of file survive a kexec (`struct liveupdate_file_ops`).
///
/// `data` is the handler's 64-bit handle, carried to the next kernel: for a memfd the physical address of its
/// structure. Callbacks get the whole kernel; they keep no state of their own across a kexec.
pub trait FileHandler<H: Host> {
    /// The string in the file record, at most 47 bytes.
    fn compatible(&self) -> &'static str;
    /// Whether this handler takes the file; the first handler that does, in order of registration, gets it.
    fn can_preserve(&self, host: &H, file: FileId) -> bool;
    /// What makes a second descriptor the same file.
    fn identity(&self, host: &H, file: FileId) -> Identity;
    /// The file in words, for reasons: `memfd "guest-ram" (inode 7)`.
    fn describe(&self, host: &H, file: FileId) -> String;
    /// Makes the file's state survive from now on; returns `data`.
    ///
    /// # Errors
    /// The handler's errno; nothing is left preserved.
    fn preserve(&self, host: &mut H, file: FileId) -> KResult<u64>;
    /// Undoes [`Self::preserve`].
    fn unpreserve(&self, host: &mut H, file: FileId, data: u64);
    /// Last call before the jump; may replace `data`.
    ///
    /// # Errors
    /// The handler's errno; it becomes the errno of `reboot`.
    fn freeze(&self, host: &mut H, file: FileId, data: u64) -> KResult<u64>;
    /// Undoes [`Self::freeze`] when the reboot fails.
    fn unfreeze(&self, host: &mut H, file: FileId, data: u64);
    /// Rebuilds the file in the new kernel: an open file description with one reference, which is LUO's.
    ///
    /// # Errors
    /// The handler's errno, after it has cleaned up.
    fn retrieve(&self, host: &mut H, data: u64) -> KResult<FileId>;
    /// Whether the file may be finished now.
    fn can_finish(&self, host: &mut H, status: RetrieveStatus, data: u64) -> bool;
    /// The new kernel is done with the handover of this file; discards it if it was never retrieved.
    fn finish(&self, host: &mut H, status: RetrieveStatus, data: u64);
}
