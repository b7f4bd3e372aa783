//! Programs that run outside the model, on the host, and are served by a supervisor.
//!
//! Their descriptors and their memory are the host's; the supervisor tells when a description was closed for the
//! last time and brings the files that are to be preserved. The kernel keeps what it keeps for a model process:
//! open file descriptions of the device, of sessions and of memory files, and who made a call. Everything else,
//! from dispatch to the bytes in memory, is the same code that the model runs.

use luosim_abi::KResult;
use luosim_files::shmem::{Backing, Seals};
use luosim_files::{FileKind, InodeId, Shmem, flags};
use luosim_luo::{Caller, FileId, SessionKey};

use crate::posted::dispatch;
use crate::process::{Pid, Process};
use crate::{Kernel, Machine};

/// A memory file of an outside program, as the host describes it now.
#[derive(Clone, Debug)]
pub struct HostMemory {
    /// Name given to `memfd_create`.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Seals.
    pub seals: u32,
    /// Status flags of the description.
    pub flags: u32,
    /// Position of the description.
    pub position: u64,
    /// The file itself.
    pub backing: Backing,
}

/// Outside processes that a kernel knows by name. A program that forks all day must not fill the memory with those that
/// are gone; one that is forgotten is met again at its next call.
const KNOWN: usize = 4096;

impl Kernel {
    /// The memory file, if it still exists and still is the one with this inode number.
    #[must_use]
    pub fn memory_file(&self, inode: InodeId, ino: u64) -> Option<&Shmem> {
        self.core.files.inodes.find(inode).filter(|file| file.ino == ino)
    }

    /// What an open file description is, if it exists.
    #[must_use]
    pub fn description(&self, file: FileId) -> Option<FileKind> {
        self.core.files.table.find(file).map(|open| open.kind)
    }

    /// How far a write of `len` bytes at `pos` gets in a memory file that may not grow: the kernel checks whole
    /// windows of the request.
    #[must_use]
    pub fn write_room(&self, size: u64, pos: u64, len: u64) -> u64 {
        let window = self.write_window();
        let mut done = 0;
        while done < len {
            let at = pos + done;
            let step = (window - at % window).min(len - done);
            if at + step > size {
                break;
            }
            done += step;
        }
        done
    }
}

impl Machine {
    /// Makes a process of the host known by its number and name, so that reasons and the ledger can name it. With very
    /// many of them the lowest number is forgotten.
    ///
    /// # Errors
    /// ESRCH if the machine is down.
    pub fn meet(&mut self, pid: Pid, name: &str, uid: u32) -> KResult<()> {
        let processes = &mut self.running()?.processes;
        if processes.len() >= KNOWN && !processes.contains_key(&pid) {
            processes.pop_first();
        }
        let process = processes.entry(pid).or_insert_with(|| Process::new(name));
        if process.name != name {
            name.clone_into(&mut process.name);
        }
        process.uid = uid;
        Ok(())
    }

    /// `open("/dev/liveupdate")` by an outside program: a description with one reference.
    ///
    /// # Errors
    /// EBUSY; EIO.
    pub fn open_device_outside(&mut self, pid: Pid, open_flags: u32) -> KResult<FileId> {
        let result = self.call(pid, |kernel| {
            let root = kernel.processes.get(&pid).is_none_or(|process| process.uid == 0);
            let kind = kernel.open_device(root, open_flags & flags::EXCL != 0)?;
            let status = open_flags & (flags::ACCMODE | flags::SETTABLE);
            kernel.core.files.table.open(kind, status | flags::LARGEFILE)
        });
        self.after_device_open(&result);
        result
    }

    /// `ioctl(2)` of an outside program on a description of the device or of a session.
    ///
    /// # Errors
    /// As the dispatch says.
    pub fn ioctl_outside(
        &mut self,
        pid: Pid,
        file: FileId,
        caller: &mut impl Caller,
        code: u32,
        arg: u64,
    ) -> KResult<()> {
        self.call(pid, |kernel| {
            let kind = kernel.kind(file);
            dispatch((&mut kernel.luo, &mut kernel.control), &mut kernel.core, kind, caller, code, arg)
        })
    }

    /// A new description of a memory file of an outside program: of `known`, or of a file not met before.
    ///
    /// # Errors
    /// ENFILE.
    pub fn open_memory_outside(
        &mut self,
        pid: Pid,
        known: Option<InodeId>,
        host: HostMemory,
    ) -> KResult<(FileId, InodeId)> {
        self.call(pid, |kernel| {
            let files = &mut kernel.core.files;
            let seals = Seals(host.seals);
            let inode = match known {
                Some(inode) => {
                    files.inodes.get_ref(inode);
                    files.inodes.get_mut(inode).refresh(host.size, seals, host.backing.unused);
                    inode
                }
                None => files.inodes.create_host(&host.name, host.mode, host.size, seals, host.backing),
            };
            let file = files.table.open(FileKind::Shmem(inode), host.flags);
            let file = file.inspect_err(|_| files.inodes.put(&mut kernel.core.ram, inode))?;
            files.table.get_mut(file).pos = host.position;
            Ok((file, inode))
        })
    }

    /// The contents of a retrieved file were copied: from now on they are this host file's.
    pub fn rehost_outside(&mut self, inode: InodeId, backing: Backing) {
        if let Ok(kernel) = self.running() {
            let core = &mut kernel.core;
            core.files.inodes.get_mut(inode).rehost(&mut core.ram, backing);
        }
    }

    /// A memory file of an outside program may have been changed since it was met: it is as the host describes it now,
    /// where the kernel has not taken its pages yet.
    pub fn refresh_outside(&mut self, file: FileId, host: HostMemory) {
        let Ok(kernel) = self.running() else { return };
        if let Some(FileKind::Shmem(inode)) = kernel.description(file) {
            let files = &mut kernel.core.files;
            files.inodes.get_mut(inode).refresh(host.size, Seals(host.seals), host.backing.unused);
            files.table.get_mut(file).pos = host.position;
        }
    }

    /// A description of a file that no handler takes.
    ///
    /// # Errors
    /// ENFILE.
    pub fn open_foreign_outside(&mut self, pid: Pid) -> KResult<FileId> {
        self.call(pid, |kernel| kernel.core.files.table.open(FileKind::Foreign, flags::RDWR))
    }

    /// Tells the position of a description, which LUO reads at the reboot.
    pub fn set_position_outside(&mut self, file: FileId, position: u64) {
        if let Ok(kernel) = self.running()
            && kernel.core.files.table.find(file).is_some()
        {
            kernel.core.files.table.get_mut(file).pos = position;
        }
    }

    /// The last copy of a description was closed; `pid` is who is held responsible.
    pub fn close_outside(&mut self, pid: Pid, file: FileId) {
        let closed: KResult<()> = self.call(pid, |kernel| {
            let core = &mut kernel.core;
            core.files.put(&mut core.ram, file, &mut core.released);
            Ok(())
        });
        // A machine that is down has no descriptions left to close.
        drop(closed);
    }

    /// The session that holds a memory file, where the release keeps account of that.
    #[must_use]
    pub fn holder_of(&self, ino: u64) -> Option<SessionKey> {
        self.kernel()?.luo.holder_of(luosim_luo::Identity(ino))
    }
}
