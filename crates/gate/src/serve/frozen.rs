//! What may not be done to a memory file that a session holds: its size and layout stay, its contents may change.
//!
//! Everything that the release allows runs natively.

use std::os::fd::{AsFd, OwnedFd};

use luosim_abi::{Errno, Refusal};
use luosim_luo::SessionKey;
use luosim_machine::process::Pid;
use rustix::fs::{OFlags, SealFlags, SeekFrom, fcntl_get_seals, fcntl_getfl, fstat, seek};

use super::ioctl::caller;
use super::{AUDIT_ARCH_I386, Reply, low, signed};
use crate::calls::Call;
use crate::deed::{Answer, Change, Deed};
use crate::gate::Gate;
use crate::memory::{HostInode, host_inode};
use crate::notify::{Listener, Notification};
use crate::task::Task;

const F_ADD_SEALS: u32 = 1033;
const F_SEAL_SEAL: u32 = 1;
const F_SEAL_WRITE: u32 = 8;
const F_SEAL_FUTURE_WRITE: u32 = 0x10;
const ALL_SEALS: u32 = 0x3f;
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
/// Most vectors of one call.
const IOV_MAX: u64 = 1024;
/// Most bytes of one write.
const MAX_RW: u64 = 0x7fff_f000;
const PIECE: usize = 1 << 20;

/// A held file, as the call finds it.
struct Held {
    file: OwnedFd,
    /// Number of the model's file, if a session holds it.
    inode: Option<u64>,
    size: u64,
    writable: bool,
    append: bool,
}

/// A write that may pass the end.
struct Writing {
    /// Where it starts; `None`: at the position, which moves.
    at: Option<u64>,
    /// Address and length of each piece in the program's memory; a single one without address for calls that take
    /// the bytes from another file.
    pieces: Vec<(Option<u64>, u64)>,
}

impl Gate {
    /// The model's inode number of the frozen file behind a host inode.
    pub(super) fn frozen(&mut self, host: HostInode) -> Option<u64> {
        let frozen = |gate: &mut Self| {
            let known = gate.known(host)?;
            let file = gate.machine.kernel()?.memory_file(known.inode, known.ino)?;
            file.frozen().then_some(known.ino)
        };
        let ino = frozen(self)?;
        // Whoever holds it may be gone by now.
        let holder: Option<SessionKey> = self.machine.holder_of(ino);
        let settled = match holder {
            Some(key) => {
                let kernel = self.machine.kernel()?;
                let name = kernel.luo().session_name(key)?;
                let name = name.as_bytes().to_vec();
                self.settle_name(&name);
                true
            }
            None => self.settle_all(),
        };
        if settled { frozen(self) } else { Some(ino) }
    }

    /// A call that may change a file.
    pub(super) fn change(&mut self, listener: &Listener, n: &Notification, call: Call) -> Reply {
        if !self.used {
            return Reply::GoOn;
        }
        let write = !matches!(call, Call::Ftruncate | Call::Truncate | Call::Fallocate | Call::Fcntl);
        if self.files.held.is_empty() && !write {
            return Reply::GoOn;
        }
        let Some(task) = caller(self, i32::try_from(n.pid).unwrap_or(0)) else { return Reply::Gone };
        let args = n.data.args;
        let fd = match call {
            Call::Truncate => return self.truncate(&task, args),
            Call::CopyFileRange | Call::Splice => signed(args[2]),
            _ => signed(args[0]),
        };
        let Some(held) = self.held(&task, fd, write) else { return Reply::GoOn };
        if !listener.is_valid(n.id) {
            return Reply::Gone;
        }
        let reply = match call {
            Call::Ftruncate => ftruncate(&held, args[1].cast_signed()),
            Call::Fallocate => fallocate(&held, low(args[1]), args[2].cast_signed(), args[3].cast_signed()),
            Call::Fcntl => add_seals(&held, low(args[1]), low(args[2])),
            _ => self.write(&task, &held, call, n),
        };
        let answer = match &reply {
            Reply::Value(count) => Answer::Value(*count),
            Reply::Refuse(refusal) => Answer::Refused(refusal.clone()),
            _ => return reply,
        };
        let user = Pid(task.identity().pid);
        let (inode, change) = (held.inode, change_of(&task, &held, call, n));
        self.note(user, || Deed::Frozen { call: words(call, fd, args), inode, change }, answer);
        reply
    }

    /// The file behind a descriptor, if a session holds it; for a write also if it may not grow by a seal: then too
    /// the release decides how much of a write over the end is done.
    fn held(&mut self, task: &Task, fd: i32, write: bool) -> Option<Held> {
        let file = task.descriptor(fd).ok()?;
        let stat = fstat(&file).ok()?;
        let sealed = || fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::GROW));
        let inode = if self.files.held.is_empty() { None } else { self.frozen(host_inode(&stat)) };
        if inode.is_none() {
            (write && stat.st_mode & libc::S_IFMT == libc::S_IFREG && sealed()).then_some(())?;
        }
        let flags = fcntl_getfl(&file).ok()?;
        Some(Held {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            writable: flags.intersects(OFlags::WRONLY | OFlags::RDWR) && !flags.contains(OFlags::PATH),
            append: flags.contains(OFlags::APPEND),
            inode,
            file,
        })
    }

    /// `truncate` through a link in `/proc`.
    fn truncate(&mut self, task: &Task, args: [u64; 6]) -> Reply {
        let Ok(text) = task.read_text(args[0], 4096) else { return Reply::GoOn };
        let path = std::path::PathBuf::from(String::from_utf8_lossy(&text).into_owned());
        let link =
            crate::paths::absolute(task, libc::AT_FDCWD, &path).and_then(|p| crate::paths::fd_link(&p));
        let owner = link.and_then(|link| Some((self.owner_of(task, link)?, link.fd)));
        let held = owner.and_then(|(owner, fd)| self.held(&owner, fd, false));
        held.map_or(Reply::GoOn, |held| ftruncate(&Held { writable: true, ..held }, args[1].cast_signed()))
    }

    fn write(&mut self, task: &Task, held: &Held, call: Call, n: &Notification) -> Reply {
        let sealed = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
        let seals = fcntl_get_seals(&held.file).map_or(0, |seals| seals.bits());
        let Some(writing) = writing(task, held, call, n).filter(|_| held.writable && seals & sealed == 0)
        else {
            return Reply::GoOn;
        };
        let position = || seek(&held.file, SeekFrom::Current(0)).unwrap_or(0);
        let start = if held.append { held.size } else { writing.at.unwrap_or_else(position) };
        let len: u64 = writing.pieces.iter().map(|(_, len)| *len).fold(0, u64::saturating_add).min(MAX_RW);
        if len == 0 || start.checked_add(len).is_none_or(|end| end <= held.size) {
            return Reply::GoOn;
        }
        let room = self.machine.kernel().map_or(0, |kernel| kernel.write_room(held.size, start, len));
        if room == 0 {
            return match held.inode {
                Some(_) => frozen("a write may not pass its end").into(),
                None => Errno::EPERM.because("the memory file has F_SEAL_GROW").into(),
            };
        }
        match copy_in(task, held, &writing, start, room) {
            Ok(()) => {
                if writing.at.is_none() {
                    // The position is the description's, and moves with what was written.
                    let _ = seek(&held.file, SeekFrom::Start(start + room));
                }
                Reply::Value(i64::try_from(room).expect("at most MAX_RW"))
            }
            Err(refusal) => refusal.into(),
        }
    }
}

fn frozen(what: &str) -> Refusal {
    Errno::EPERM.because(format!("the memory file is frozen: a live update session preserves it, {what}"))
}

fn ftruncate(held: &Held, size: i64) -> Reply {
    let same = u64::try_from(size).is_ok_and(|size| size == held.size);
    // What is no request at all is the host's to refuse.
    if size < 0 || same || !held.writable {
        return Reply::GoOn;
    }
    frozen("its size may not change").into()
}

fn fallocate(held: &Held, mode: u32, offset: i64, len: i64) -> Reply {
    let hole = mode & PUNCH_HOLE != 0;
    let unknown = mode & !(KEEP_SIZE | PUNCH_HOLE) != 0 || hole && mode & KEEP_SIZE == 0;
    if offset < 0 || len <= 0 || unknown || offset.checked_add(len).is_none() || !held.writable {
        return Reply::GoOn;
    }
    frozen("its layout may not change").into()
}

/// `F_SEAL_WRITE` waits for the pages to be let go, and gives up. Other seals are set, and not carried.
fn add_seals(held: &Held, command: u32, seals: u32) -> Reply {
    let has = fcntl_get_seals(&held.file).map_or(0, |seals| seals.bits());
    let refused_anyway = !held.writable || seals & !ALL_SEALS != 0 || has & F_SEAL_SEAL != 0;
    let new_write_seal = seals & !has & F_SEAL_WRITE != 0;
    if command != F_ADD_SEALS || refused_anyway || !new_write_seal || held.size == 0 {
        return Reply::GoOn;
    }
    Errno::EBUSY.because("the file's pages are pinned: a live update session preserves it").into()
}

/// What a call wants to write; `None` for calls that are not writes, or whose arguments cannot be read.
fn writing(task: &Task, held: &Held, call: Call, n: &Notification) -> Option<Writing> {
    let args = n.data.args;
    let vectors = || vectors(task, args[1], args[2], n.data.arch == AUDIT_ARCH_I386);
    let single = |at| Some(Writing { at, pieces: vec![(Some(args[1]), args[2])] });
    match call {
        Call::Write => single(None),
        Call::Pwrite => single(Some(args[3])),
        Call::Writev => Some(Writing { at: None, pieces: vectors()? }),
        Call::Pwritev => Some(Writing { at: Some(args[3]), pieces: vectors()? }),
        Call::Pwritev2 => {
            let at = (args[3] != u64::MAX).then_some(args[3]);
            Some(Writing { at, pieces: vectors()? })
        }
        Call::Sendfile => Some(Writing { at: None, pieces: vec![(None, source_left(task, args)?)] }),
        Call::CopyFileRange => Some(Writing { at: offset(task, args[3])?, pieces: vec![(None, args[4])] }),
        Call::Splice => Some(Writing { at: offset(task, args[3])?, pieces: vec![(None, args[4])] }),
        _ => None,
    }
    .filter(|_| held.writable)
}

/// Bytes that `sendfile` finds in its source at most.
fn source_left(task: &Task, args: [u64; 6]) -> Option<u64> {
    let source = task.descriptor(signed(args[1])).ok()?;
    let size = u64::try_from(fstat(&source).ok()?.st_size).ok()?;
    let from = match offset(task, args[2])? {
        Some(from) => from,
        None => seek(&source, SeekFrom::Current(0)).ok()?,
    };
    Some(args[3].min(size.saturating_sub(from)))
}

/// An offset behind a pointer that may be null.
fn offset(task: &Task, pointer: u64) -> Option<Option<u64>> {
    if pointer == 0 {
        return Some(None);
    }
    let mut bytes = [0; 8];
    task.read(pointer, &mut bytes).ok()?;
    Some(Some(u64::from_le_bytes(bytes)))
}

/// Address and length of each piece; two words of four bytes in a 32-bit program (`compat`), of eight in others.
fn vectors(task: &Task, addr: u64, count: u64, compat: bool) -> Option<Vec<(Option<u64>, u64)>> {
    let count = usize::try_from(count.min(IOV_MAX)).ok()?;
    let width = if compat { 4 } else { 8 };
    let mut bytes = vec![0; count * 2 * width];
    task.read(addr, &mut bytes).ok()?;
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let pieces = bytes.chunks_exact(2 * width);
    Some(pieces.map(|piece| (Some(word(&piece[..width])), word(&piece[width..]))).collect())
}

/// Writes the first `room` bytes of the request at `start`: the windows before the one that would pass the end.
fn copy_in(task: &Task, held: &Held, writing: &Writing, start: u64, room: u64) -> Result<(), Refusal> {
    let mut left = room;
    let mut at = start;
    let mut buffer = vec![0; PIECE];
    for (addr, len) in &writing.pieces {
        let Some(addr) = addr else { return Err(frozen("and may not be extended from another file")) };
        let mut done = 0;
        while done < *len && left > 0 {
            let step = usize::try_from((*len - done).min(left)).unwrap_or(PIECE).min(PIECE);
            task.read(addr + done, &mut buffer[..step])?;
            let written = rustix::io::pwrite(held.file.as_fd(), &buffer[..step], at);
            let written = written.map_err(|error| super::host_refusal(&error.into(), "write"))?;
            let written = u64::try_from(written).expect("at most a piece");
            (done, left, at) = (done + written, left - written, at + written);
        }
    }
    Ok(())
}

/// What a call asked for, for who records it.
fn change_of(task: &Task, held: &Held, call: Call, n: &Notification) -> Change {
    let args = n.data.args;
    match call {
        Call::Ftruncate => Change::Size(args[1].cast_signed()),
        Call::Fallocate => {
            Change::Layout { mode: low(args[1]), at: args[2].cast_signed(), len: args[3].cast_signed() }
        }
        Call::Fcntl => Change::Seals(low(args[2])),
        _ => {
            let writing = writing(task, held, call, n);
            let at = writing.as_ref().and_then(|writing| writing.at).unwrap_or(held.size);
            let pieces = writing.map(|writing| writing.pieces).unwrap_or_default();
            Change::Write { at, len: pieces.iter().map(|(_, len)| *len).fold(0, u64::saturating_add) }
        }
    }
}

fn words(call: Call, fd: i32, args: [u64; 6]) -> String {
    match call {
        Call::Ftruncate => format!("ftruncate({fd}, {})", args[1].cast_signed()),
        Call::Fallocate => {
            format!(
                "fallocate({fd}, {:#x}, {}, {})",
                low(args[1]),
                args[2].cast_signed(),
                args[3].cast_signed()
            )
        }
        Call::Fcntl => format!("fcntl({fd}, F_ADD_SEALS, {:#x})", low(args[2])),
        Call::Pwrite => format!("pwrite({fd}, {} bytes, {})", args[2], args[3]),
        Call::Write => format!("write({fd}, {} bytes)", args[2]),
        call => format!("{call:?}({fd})").to_lowercase(),
    }
}
