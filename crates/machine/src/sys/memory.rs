//! Shared mappings of memory files.

use luosim_abi::{Errno, KResult};
use luosim_files::FileKind;
use luosim_files::shmem::Shmem;
use luosim_physmem::PAGE_SIZE;

use crate::process::{FileMapping, Pid};
use crate::{Kernel, Machine};

/// A mapping of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapId(pub u32);

impl Machine {
    /// The memory file behind a descriptor, to look at; `None` if it is no open memory file.
    #[must_use]
    pub fn memory_file(&self, pid: Pid, fd: i32) -> Option<&Shmem> {
        let kernel = self.kernel()?;
        let file = kernel.file(pid, fd).ok()?;
        match kernel.kind(file) {
            FileKind::Shmem(inode) => Some(kernel.core.files.inodes.get(inode)),
            _ => None,
        }
    }

    /// `mmap(MAP_SHARED)` of `len` bytes at `offset`; `write` asks for `PROT_WRITE`.
    ///
    /// # Errors
    /// EBADF; ENODEV: the file has no mappings; EACCES: not opened for it; EPERM: sealed; EINVAL: length 0 or
    /// unaligned offset.
    pub fn mmap_shared(&mut self, pid: Pid, fd: i32, offset: u64, len: u64, write: bool) -> KResult<MapId> {
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            let open = *kernel.core.files.table.get(file);
            if len == 0 || !offset.is_multiple_of(PAGE_SIZE) {
                return Err(Errno::EINVAL.because(format!("{len} bytes at {offset} cannot be mapped")));
            }
            if !open.readable() || write && !open.writable() {
                return Err(Errno::EACCES.because("the file was not opened for that"));
            }
            let FileKind::Shmem(inode) = open.kind else {
                return Err(Errno::ENODEV.because(format!("{} cannot be mapped", open.kind.text())));
            };
            let (process, core) = kernel.parts(pid)?;
            let counted = open.writable();
            core.files.inodes.get_mut(inode).map_shared(write, counted)?;
            core.files.inodes.get_ref(inode);
            let id = process.next_mapping;
            process.next_mapping += 1;
            process.mappings.insert(id, FileMapping { inode, offset, len, writable: write, counted });
            Ok(MapId(id))
        })
    }

    /// `munmap(2)` of a whole mapping.
    ///
    /// # Errors
    /// EINVAL: no such mapping.
    pub fn munmap(&mut self, pid: Pid, map: MapId) -> KResult<()> {
        self.call(pid, |kernel| {
            let mapping = kernel.mapping(pid, map, 0, 0)?;
            let (process, core) = kernel.parts(pid)?;
            process.mappings.remove(&map.0);
            if mapping.counted {
                core.files.inodes.get_mut(mapping.inode).unmap_shared();
            }
            core.files.inodes.put(&mut core.ram, mapping.inode);
            Ok(())
        })
    }

    /// Reads through a mapping.
    ///
    /// # Errors
    /// EFAULT: outside the mapping, or SIGBUS beyond the end of the file; ENOMEM.
    pub fn load(&mut self, pid: Pid, map: MapId, at: u64, buf: &mut [u8]) -> KResult<()> {
        self.call(pid, |kernel| {
            let mapping = kernel.mapping(pid, map, at, len64(buf))?;
            let core = &mut kernel.core;
            core.files.inodes.get_mut(mapping.inode).load(&mut core.ram, mapping.offset + at, buf)
        })
    }

    /// Writes through a mapping.
    ///
    /// # Errors
    /// EFAULT: outside the mapping, not writable, or SIGBUS beyond the end of the file; ENOMEM.
    pub fn store(&mut self, pid: Pid, map: MapId, at: u64, bytes: &[u8]) -> KResult<()> {
        self.call(pid, |kernel| {
            let mapping = kernel.mapping(pid, map, at, len64(bytes))?;
            if !mapping.writable {
                return Err(Errno::EFAULT.because("SIGSEGV: the mapping is read-only"));
            }
            let core = &mut kernel.core;
            core.files.inodes.get_mut(mapping.inode).store(&mut core.ram, mapping.offset + at, bytes)
        })
    }

    /// `madvise(MADV_REMOVE)`: punches a hole under the mapping.
    ///
    /// # Errors
    /// EACCES: the mapping is read-only; EPERM: frozen or sealed.
    pub fn madvise_remove(&mut self, pid: Pid, map: MapId, at: u64, len: u64) -> KResult<()> {
        self.call(pid, |kernel| {
            let mapping = kernel.mapping(pid, map, at, len)?;
            if !mapping.writable {
                return Err(Errno::EACCES.because("the mapping is read-only"));
            }
            let (start, core) = (mapping.offset + at, &mut kernel.core);
            core.files.inodes.get_mut(mapping.inode).remove_range(&mut core.ram, start, start + len)
        })
    }
}

fn len64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits in 64 bits")
}

impl Kernel {
    fn mapping(&mut self, pid: Pid, map: MapId, at: u64, len: u64) -> KResult<FileMapping> {
        let mapping = self.parts(pid)?.0.mappings.get(&map.0).copied();
        let mapping = mapping.ok_or_else(|| Errno::EINVAL.because("there is no such mapping"))?;
        if at.checked_add(len).is_none_or(|end| end > mapping.len) {
            return Err(Errno::EFAULT.because("SIGSEGV: outside the mapping"));
        }
        Ok(mapping)
    }
}
