//! The descriptors that stand for sessions and for the device, and how their last close is noticed.
//!
//! A session is a Landlock ruleset: an anonymous inode like the real one, with the same magic, mode, and answers to
//! read, write, poll and epoll. A write lock of the *open file description* (`F_OFD_SETLK`) on a byte of its own
//! marks it: the lock belongs to the description and goes with its last copy, wherever that was, so that asking
//! whether the byte is still locked says, synchronously and exactly, whether the session still has a descriptor.
//! The device is marked alike. Nothing of this shows to the program.
#![expect(unsafe_code, reason = "fcntl commands and the Landlock system call")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{OFlags, Stat, fcntl_getfl, fstat};

/// Number of a marked description; never used again in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tag(pub(crate) u32);

/// The marks of one supervisor.
#[derive(Debug)]
pub(crate) struct Tags {
    /// A ruleset of our own, to ask through.
    probe: OwnedFd,
    anonymous: (u64, u64),
    /// First byte of ours: the anonymous inode is everybody's.
    base: i64,
    next: u32,
}

fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn ruleset() -> io::Result<OwnedFd> {
    // `struct landlock_ruleset_attr` of the first ABI: one access right, which is never enforced.
    let attr: u64 = 1;
    // SAFETY: the call reads eight bytes of a live u64 and gives a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, 8usize, 0u32) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    let kind = libc::c_short::try_from(kind).expect("lock types are small");
    libc::flock { l_type: kind, l_whence: 0, l_start: start, l_len: len, l_pid: 0 }
}

/// Locks a byte for the description behind `fd`.
fn mark(fd: BorrowedFd<'_>, at: i64) -> io::Result<()> {
    let writable = fcntl_getfl(fd)?.intersects(OFlags::WRONLY | OFlags::RDWR);
    let mut wanted = lock(if writable { libc::F_WRLCK } else { libc::F_RDLCK }, at, 1);
    // SAFETY: the command reads a live `flock`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw mut wanted) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether another description than `fd`'s has the byte locked.
///
/// # Errors
/// The descriptor has no locks: it was opened with `O_PATH`.
fn locked_by_another(fd: BorrowedFd<'_>, at: i64) -> io::Result<bool> {
    let mut asked = lock(libc::F_WRLCK, at, 1);
    // SAFETY: the command reads and writes a live `flock`.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut asked) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

impl Tags {
    /// # Errors
    /// The host has no Landlock.
    pub(crate) fn new() -> io::Result<Self> {
        let probe = ruleset()?;
        let mut random = [0u8; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let base = i64::from(u32::from_le_bytes(random) >> 2) << 32;
        Ok(Self { anonymous: inode(&fstat(&probe)?), probe, base, next: 0 })
    }

    fn at(&self, tag: Tag) -> i64 {
        self.base + i64::from(tag.0)
    }

    fn fresh(&mut self) -> Tag {
        self.next += 1;
        Tag(self.next)
    }

    /// A new description for a session.
    ///
    /// # Errors
    /// EMFILE, ENFILE of the host.
    pub(crate) fn new_session(&mut self) -> io::Result<(Tag, OwnedFd)> {
        let fd = ruleset()?;
        let tag = self.fresh();
        mark(fd.as_fd(), self.at(tag))?;
        Ok((tag, fd))
    }

    /// Marks a description of the device.
    ///
    /// # Errors
    /// What the host says of the lock.
    pub(crate) fn mark_device(&mut self, fd: BorrowedFd<'_>) -> io::Result<Tag> {
        let tag = self.fresh();
        mark(fd, self.at(tag))?;
        Ok(tag)
    }

    /// Whether a session's description still exists.
    pub(crate) fn is_alive(&self, tag: Tag) -> bool {
        locked_by_another(self.probe.as_fd(), self.at(tag)).unwrap_or(false)
    }

    /// Whether a description of the device still exists; `node` is a description of our own.
    pub(crate) fn is_device_alive(&self, node: &File, tag: Tag) -> bool {
        locked_by_another(node.as_fd(), self.at(tag)).unwrap_or(false)
    }

    /// Whether the file is an anonymous one, as sessions are.
    pub(crate) fn may_be_session(&self, stat: &Stat) -> bool {
        inode(stat) == self.anonymous
    }

    /// Whether `fd` is a copy of the description with this tag: it alone does not see its lock.
    pub(crate) fn is(&self, fd: BorrowedFd<'_>, tag: Tag) -> bool {
        self.is_alive(tag) && !self.is_locked_elsewhere(fd, tag)
    }

    /// Whether another description than `fd`'s has this tag, or `fd` cannot have any.
    pub(crate) fn is_locked_elsewhere(&self, fd: BorrowedFd<'_>, tag: Tag) -> bool {
        locked_by_another(fd, self.at(tag)).unwrap_or(true)
    }

    /// The tag of a description, from the locks that the host lists for it.
    pub(crate) fn read(&self, fd: BorrowedFd<'_>) -> Option<Tag> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        let starts = info.lines().filter(|line| line.starts_with("lock:") && line.contains("OFDLCK"));
        let offsets = starts.filter_map(|line| {
            let mut words = line.split_whitespace().rev();
            words.next()?;
            words.next()?.parse::<i64>().ok()
        });
        offsets.filter_map(|start| u32::try_from(start - self.base).ok()).find(|tag| *tag != 0).map(Tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lives_as_long_as_the_last_copy() {
        let mut tags = Tags::new().expect("Landlock");
        let (first, fd) = tags.new_session().expect("room");
        let (second, other) = tags.new_session().expect("room");
        let copy = fd.try_clone().expect("room");
        assert!(tags.is(copy.as_fd(), first) && !tags.is(copy.as_fd(), second));
        assert_eq!(tags.read(copy.as_fd()), Some(first));
        drop(fd);
        assert!(tags.is_alive(first), "a copy is left");
        drop(copy);
        assert!(!tags.is_alive(first) && tags.is_alive(second));
        drop(other);
        assert!(!tags.is_alive(second));
    }
}
