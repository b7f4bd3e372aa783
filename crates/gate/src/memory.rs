//! Memory files of programs: what the host says of them, and how a retrieved one becomes a real file again.
//!
//! Preserving maps the program's own pages; retrieving opens the same host file anew. Contents are copied only where
//! the host file cannot be given back as the release would have it: seals cannot be taken off an inode, and a file
//! sealed against execution cannot become executable.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use luosim_abi::{Errno, KResult};
use luosim_files::shmem::Backing;
use luosim_files::{InodeId, Shmem};
use luosim_machine::outside::HostMemory;
use luosim_physmem::{HostFile, PAGE_SIZE, Ram};
use rustix::fs::{
    FallocateFlags, Gid, MemfdFlags, Mode, OFlags, SealFlags, SeekFrom, Stat, Uid, fallocate,
    fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, fstatfs, memfd_create, seek,
};

use crate::task::told;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const F_SEAL_SEAL: u32 = 1;
const F_SEAL_EXEC: u32 = 0x20;
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Inode of the host: device and number.
pub(crate) type HostInode = (u64, u64);

/// The model's file behind a host inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) inode: InodeId,
    pub(crate) ino: u64,
}

/// Whether holes of a file are filled when it is preserved, as a kernel does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holes {
    /// Up to [`AUTO_FILL`] bytes of holes; larger ones are left, so that sparse guest memory costs nothing.
    #[default]
    Auto,
    /// Always, whatever it costs.
    Fill,
    /// Never.
    Keep,
}

/// Most bytes of holes that [`Holes::Auto`] fills.
pub const AUTO_FILL: u64 = 64 << 20;

pub(crate) fn host_inode(stat: &Stat) -> HostInode {
    (stat.st_dev, stat.st_ino)
}

fn is_regular(stat: &Stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Whether the handler would take the file: on shmem, without a name. hugetlb has another file system.
pub(crate) fn is_preservable(file: BorrowedFd<'_>, stat: &Stat) -> bool {
    let on_shmem = || fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC);
    is_regular(stat) && stat.st_nlink == 0 && on_shmem()
}

fn link_of(file: BorrowedFd<'_>) -> String {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(path).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The name in a link like `/memfd:NAME (deleted)`; for a file on tmpfs its path.
fn name_of(file: BorrowedFd<'_>) -> String {
    let link = link_of(file);
    let bare = link.strip_suffix(" (deleted)").unwrap_or(&link);
    bare.strip_prefix("/memfd:").unwrap_or(bare).to_owned()
}

/// Opens the file behind a descriptor anew.
pub(crate) fn reopen(file: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// The file, for reading, writing and mapping by the supervisor, apart from the program's position.
fn backing_file(file: BorrowedFd<'_>) -> io::Result<HostFile> {
    let copy = || file.try_clone_to_owned().map(File::from);
    let for_writing = reopen(file, OFlags::RDWR).map(File::from).or_else(|_| copy())?;
    let mapped = reopen(file, OFlags::RDONLY).map(File::from).or_else(|_| copy())?;
    Ok(HostFile { file: Arc::new(for_writing), mapped: Arc::new(mapped) })
}

/// Ranges of pages without data, up to the end of the file.
fn holes(file: &File, size: u64) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = seek(file, SeekFrom::Hole(at)) else { break };
        if start >= size {
            break;
        }
        let end = seek(file, SeekFrom::Data(start)).unwrap_or(size).min(size);
        holes.push(start / PAGE_SIZE..end.div_ceil(PAGE_SIZE));
        at = end;
    }
    holes
}

/// Pages that were allocated and never used. The host tells used pages from others, and how many there are in all:
/// if every page is allocated, those without data are the unused ones.
fn unused(file: &File, stat: &Stat, size: u64) -> Vec<Range<u64>> {
    if is_full(stat, size) { holes(file, size) } else { Vec::new() }
}

/// Whether every page is allocated.
fn is_full(stat: &Stat, size: u64) -> bool {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512 / PAGE_SIZE >= size.div_ceil(PAGE_SIZE)
}

/// Seals of a file; a file on tmpfs that was no memfd has `F_SEAL_SEAL`.
fn seals_of(file: BorrowedFd<'_>) -> u32 {
    fcntl_get_seals(file).map_or(F_SEAL_SEAL, |seals| seals.bits())
}

/// Describes the file behind a program's descriptor, as it is now. Its unused pages are looked for only where the
/// release takes note of them: in a large file that takes long.
///
/// # Errors
/// EIO: the host does not let us open it.
pub(crate) fn describe(file: BorrowedFd<'_>, stat: &Stat, note_unused: bool) -> KResult<HostMemory> {
    let failed = |error: io::Error| {
        Errno::EIO.because(format!("the host does not let us have the file: {}", told(&error)))
    };
    let host = backing_file(file).map_err(failed)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let unused = if note_unused { unused(&host.mapped, stat, size) } else { Vec::new() };
    Ok(HostMemory {
        name: name_of(file),
        mode: stat.st_mode & 0o7777,
        size,
        seals: seals_of(file),
        flags: fcntl_getfl(file).map_or(0, |flags| flags.bits()),
        position: seek(file, SeekFrom::Current(0)).unwrap_or(0),
        backing: Backing { file: host, unused },
    })
}

/// Fills the holes of a file that was just preserved, as far as `policy` says.
pub(crate) fn fill_holes(host: &HostFile, size: u64, policy: Holes) -> io::Result<()> {
    // Looking takes long in a large file.
    if is_full(&fstat(&*host.mapped)?, size) {
        return Ok(());
    }
    let found = holes(&host.mapped, size);
    let bytes: u64 = found.iter().map(|range| (range.end - range.start) * PAGE_SIZE).sum();
    let wanted = match policy {
        Holes::Auto => bytes <= AUTO_FILL,
        Holes::Fill => true,
        Holes::Keep => false,
    };
    if !wanted {
        return Ok(());
    }
    for range in found {
        let (at, end) = (range.start * PAGE_SIZE, (range.end * PAGE_SIZE).min(size));
        fallocate(&*host.file, FallocateFlags::KEEP_SIZE, at, end - at)?;
    }
    Ok(())
}

/// A file for a retrieved one: the host's own where it can be, a copy where not. `Some` second part: the copy.
/// It belongs to `owner`, user and group, where we may give files away.
///
/// # Errors
/// What the host says.
pub(crate) fn export(
    file: &Shmem,
    ram: &Ram,
    position: u64,
    owner: Option<(u32, u32)>,
) -> io::Result<(OwnedFd, Option<Backing>)> {
    let same = file.host_contents(ram).and_then(|host| give_back(file, &host).ok());
    let (fd, copy) = match same {
        Some(fd) => (fd, None),
        None => {
            let fd = copy_out(file, ram)?;
            let host = backing_file(fd.as_fd())?;
            (fd, Some(Backing { file: host, unused: Vec::new() }))
        }
    };
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    seek(&fd, SeekFrom::Start(position))?;
    Ok((fd, copy))
}

/// Makes the host's file what the release gives back, and opens it anew.
fn give_back(file: &Shmem, host: &HostFile) -> io::Result<OwnedFd> {
    let refused = || io::Error::from_raw_os_error(libc::EPERM);
    let has = seals_of(host.file.as_fd());
    let wanted = file.seals().0;
    let stat = fstat(&*host.file)?;
    if has & !wanted != 0 || u64::try_from(stat.st_size).ok() != Some(file.size()) {
        return Err(refused());
    }
    for range in file.stale_ranges() {
        let (at, len) = (range.start * PAGE_SIZE, (range.end - range.start) * PAGE_SIZE);
        fallocate(&*host.file, FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE, at, len)?;
        fallocate(&*host.file, FallocateFlags::KEEP_SIZE, at, len)?;
    }
    if stat.st_mode & 0o7777 != file.mode {
        rustix::fs::fchmod(&*host.file, Mode::from_raw_mode(file.mode))?;
    }
    add_seals(host.file.as_fd(), wanted & !has)?;
    reopen(host.file.as_fd(), OFlags::RDWR)
}

fn add_seals(file: BorrowedFd<'_>, seals: u32) -> io::Result<()> {
    // F_SEAL_SEAL last: nothing can be added after it.
    for part in [seals & !F_SEAL_SEAL & !F_SEAL_EXEC, seals & F_SEAL_EXEC, seals & F_SEAL_SEAL] {
        if part != 0 {
            fcntl_add_seals(file, SealFlags::from_bits_retain(part))?;
        }
    }
    Ok(())
}

fn copy_out(file: &Shmem, ram: &Ram) -> io::Result<OwnedFd> {
    let new = memfd_create("", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let target = File::from(new);
    target.set_len(file.size())?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < file.size() {
        let got = file.read_at(ram, at, &mut piece);
        if got == 0 {
            break;
        }
        target.write_all_at(&piece[..got], at)?;
        at += u64::try_from(got).expect("at most a piece");
    }
    rustix::fs::fchmod(&target, Mode::from_raw_mode(file.mode))?;
    add_seals(target.as_fd(), file.seals().0)?;
    // A new description: the copy was written through the first.
    reopen(target.as_fd(), OFlags::RDWR)
}
