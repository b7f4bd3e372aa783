//! Processes of the model: descriptor tables, memory, limits.
//!
//! A process here is what a kernel keeps of one: it does not run code. References on open file descriptions
//! are counted by the kernel's file table; this module only moves numbers.

use std::collections::BTreeMap;

use luosim_abi::{Errno, KResult};
use luosim_files::InodeId;
use luosim_luo::FileId;

use crate::address_space::AddressSpace;

/// Process number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub u32);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One slot of a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The open file description.
    pub file: FileId,
    /// `FD_CLOEXEC`.
    pub cloexec: bool,
    /// Opened with `O_PATH`: good for nothing that needs the file itself.
    pub path: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// Taken by a call that is still running; not visible to the process.
    Reserved,
    Used(Descriptor),
}

/// The descriptors of one process.
#[derive(Clone, Debug)]
pub struct FdTable {
    slots: Vec<Slot>,
    /// No free slot lies below this one.
    lowest: usize,
    /// `RLIMIT_NOFILE`.
    limit: usize,
}

/// Default of `RLIMIT_NOFILE` (soft), as `init` gets it.
pub const DEFAULT_NOFILE: usize = 1024;

impl Default for FdTable {
    fn default() -> Self {
        Self { slots: Vec::new(), lowest: 0, limit: DEFAULT_NOFILE }
    }
}

fn number(index: usize) -> i32 {
    i32::try_from(index).expect("descriptor numbers stay below 2^31")
}

impl FdTable {
    /// Sets `RLIMIT_NOFILE`; numbers already in use stay.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(1 << 30);
    }

    /// `RLIMIT_NOFILE`.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes the lowest free number at or above `from`.
    ///
    /// # Errors
    /// EMFILE at the limit.
    pub fn reserve_from(&mut self, from: usize) -> KResult<i32> {
        let start = from.max(self.lowest);
        let free = (start..self.slots.len()).find(|index| self.slots[*index] == Slot::Free);
        let index = free.unwrap_or_else(|| self.slots.len().max(start));
        if index >= self.limit {
            return Err(Errno::EMFILE.because(format!("all {} descriptors are in use", self.limit)));
        }
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::Free);
        }
        self.slots[index] = Slot::Reserved;
        if from <= self.lowest {
            self.lowest = index + 1;
        }
        Ok(number(index))
    }

    /// Whether `count` numbers are free.
    ///
    /// # Errors
    /// EMFILE if not.
    pub fn check_room(&self, count: usize) -> KResult<()> {
        let below = self.slots.iter().take(self.limit).skip(self.lowest);
        let holes = below.filter(|slot| **slot == Slot::Free).count();
        if holes + self.limit.saturating_sub(self.slots.len()) >= count {
            return Ok(());
        }
        Err(Errno::EMFILE.because(format!("of {} descriptors fewer than {count} are free", self.limit)))
    }

    /// Takes the lowest free number.
    ///
    /// # Errors
    /// EMFILE at the limit.
    pub fn reserve(&mut self) -> KResult<i32> {
        self.reserve_from(0)
    }

    fn slot(&self, fd: i32) -> Option<usize> {
        usize::try_from(fd).ok().filter(|index| *index < self.slots.len())
    }

    /// Gives a reserved number back.
    pub fn cancel(&mut self, fd: i32) {
        if let Some(index) = self.slot(fd) {
            self.free(index);
        }
    }

    fn free(&mut self, index: usize) {
        self.slots[index] = Slot::Free;
        self.lowest = self.lowest.min(index);
    }

    /// Fills a reserved number.
    pub fn install(&mut self, fd: i32, descriptor: Descriptor) {
        let index = self.slot(fd).expect("only reserved numbers are filled");
        self.slots[index] = Slot::Used(descriptor);
    }

    /// Puts `descriptor` at exactly `fd`; returns what was there.
    ///
    /// # Errors
    /// EBADF for a number that is negative or at the limit.
    pub fn put_at(&mut self, fd: i32, descriptor: Descriptor) -> KResult<Option<Descriptor>> {
        let bad = || Errno::EBADF.because(format!("{fd} cannot be a descriptor number here"));
        let index = usize::try_from(fd).ok().filter(|index| *index < self.limit).ok_or_else(bad)?;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::Free);
        }
        let old = std::mem::replace(&mut self.slots[index], Slot::Used(descriptor));
        Ok(if let Slot::Used(old) = old { Some(old) } else { None })
    }

    /// What `fd` refers to.
    ///
    /// # Errors
    /// EBADF.
    pub fn get(&self, fd: i32) -> KResult<Descriptor> {
        match self.slot(fd).map(|index| self.slots[index]) {
            Some(Slot::Used(descriptor)) => Ok(descriptor),
            _ => Err(Errno::EBADF.because(format!("descriptor {fd} is not open"))),
        }
    }

    /// Sets or clears `FD_CLOEXEC`.
    ///
    /// # Errors
    /// EBADF.
    pub fn set_cloexec(&mut self, fd: i32, cloexec: bool) -> KResult<()> {
        let descriptor = self.get(fd)?;
        let index = self.slot(fd).expect("get found it");
        self.slots[index] = Slot::Used(Descriptor { cloexec, ..descriptor });
        Ok(())
    }

    /// Removes `fd`.
    ///
    /// # Errors
    /// EBADF.
    pub fn remove(&mut self, fd: i32) -> KResult<Descriptor> {
        let descriptor = self.get(fd)?;
        let index = self.slot(fd).expect("get found it");
        self.free(index);
        Ok(descriptor)
    }

    /// Removes every descriptor, ascending, or only those closed by `exec`.
    pub fn drain(&mut self, only_cloexec: bool) -> Vec<Descriptor> {
        let mut gone = Vec::new();
        for index in 0..self.slots.len() {
            if let Slot::Used(descriptor) = self.slots[index]
                && (descriptor.cloexec || !only_cloexec)
            {
                self.free(index);
                gone.push(descriptor);
            }
        }
        gone
    }

    /// Open descriptors, ascending by number.
    pub fn iter(&self) -> impl Iterator<Item = (i32, Descriptor)> + '_ {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Used(descriptor) => Some((number(index), *descriptor)),
            _ => None,
        })
    }
}

/// A shared mapping of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileMapping {
    /// The file's inode, on which the mapping holds a reference.
    pub inode: InodeId,
    /// First byte of the file that is mapped, page-aligned.
    pub offset: u64,
    /// Bytes mapped.
    pub len: u64,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether the file counts it as a mapping that may be written.
    pub counted: bool,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Name in transcripts.
    pub name: String,
    /// Descriptors.
    pub fds: FdTable,
    /// Memory for system call arguments.
    pub memory: AddressSpace,
    /// Shared file mappings by their handle.
    pub mappings: BTreeMap<u32, FileMapping>,
    /// Next mapping handle.
    pub next_mapping: u32,
    /// User id; 0 may load images and reboot.
    pub uid: u32,
    /// Address of the page that holds ioctl arguments of the typed calls; 0 until first used.
    pub argument: u64,
}

impl Process {
    /// A process with nothing open, run by root.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            fds: FdTable::default(),
            memory: AddressSpace::default(),
            mappings: BTreeMap::new(),
            next_mapping: 1,
            uid: 0,
            argument: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(file: u32) -> Descriptor {
        Descriptor { file: FileId(file), cloexec: false, path: false }
    }

    #[test]
    fn the_lowest_free_number_is_taken() {
        let mut fds = FdTable::default();
        for file in 0..4 {
            let fd = fds.reserve().expect("free");
            assert_eq!(fd, i32::try_from(file).expect("small"));
            fds.install(fd, descriptor(file));
        }
        fds.remove(2).expect("open");
        fds.remove(1).expect("open");
        assert_eq!(fds.reserve().expect("free"), 1);
        assert_eq!(fds.reserve().expect("free"), 2);
        assert_eq!(fds.reserve().expect("free"), 4);
        assert_eq!(fds.get(1).expect_err("reserved").errno, Errno::EBADF, "reserved numbers are not visible");
        fds.cancel(1);
        assert_eq!(fds.reserve_from(3).expect("free"), 5);
        assert_eq!(fds.reserve().expect("free"), 1);
    }

    #[test]
    fn the_limit_is_on_numbers() {
        let mut fds = FdTable::default();
        fds.set_limit(2);
        for _ in 0..2 {
            let fd = fds.reserve().expect("below the limit");
            fds.install(fd, descriptor(9));
        }
        assert_eq!(fds.reserve().expect_err("at the limit").errno, Errno::EMFILE);
        assert_eq!(fds.put_at(2, descriptor(1)).expect_err("at the limit").errno, Errno::EBADF);
        assert_eq!(fds.put_at(1, descriptor(1)).expect("in reach"), Some(descriptor(9)));
    }
}
