//! What LUO needs of the kernel around it and of the calling process. What handlers of file types do is in `handler`.

use luosim_abi::extensible::UserMemory;
use luosim_abi::{Errno, KResult};
use luosim_kho::{Kho, log::KernelLog};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, Ram};
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// What most handlers carry: a structure in a page of its own, whose physical address is the handle.
impl Memory<'_> {
    /// Writes a structure to a page that is kept over the kexec; gives its address.
    ///
    /// # Errors
    /// ENOMEM.
    ///
    /// # Panics
    /// If the structure is larger than a page.
    pub fn preserve_obj<T: IntoBytes + Immutable>(&mut self, obj: &T) -> KResult<u64> {
        assert!(size_of::<T>() <= 4096, "a structure larger than a page");
        let page = self.kho.alloc_preserve(self.ram, PAGE_SIZE, FrameUse::HandlerData)?;
        self.update_obj(page.raw(), obj);
        Ok(page.raw())
    }

    /// Writes it again.
    ///
    /// # Panics
    /// If `data` is not what [`Self::preserve_obj`] gave in this kernel.
    pub fn update_obj<T: IntoBytes + Immutable>(&mut self, data: u64, obj: &T) {
        let written = self.ram.mem.write_obj(PhysAddr::new(data), obj);
        written.expect("the page belongs to this kernel");
    }

    /// Reads what a kernel wrote, this one or the previous one, whose bytes may be anything.
    ///
    /// # Errors
    /// EINVAL: outside memory.
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, data: u64) -> KResult<T> {
        let read = self.ram.mem.read_obj(PhysAddr::new(data));
        read.map_err(|error| Errno::EINVAL.because(format!("no structure can be read at {data:#x}: {error}")))
    }

    /// Gives the page back before the kexec.
    pub fn unpreserve_obj(&mut self, data: u64) {
        self.kho.unpreserve_free(self.ram, PhysAddr::new(data));
    }

    /// Frees the page of the previous kernel; whether it was one that nobody had taken.
    pub fn discard_obj(&mut self, data: u64) -> bool {
        self.kho.restore_free(self.ram, PhysAddr::new(data))
    }
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
