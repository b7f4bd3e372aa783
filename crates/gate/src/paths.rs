//! Which file a program means by a path: the device, or the file behind a link in `/proc/PID/fd`.
//!
//! Paths are resolved in the program's own root, its working directory or the folder it names, through symbolic
//! links, as `openat(2)` would. Nothing is opened but the place (`O_PATH`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::mounts::DEVICE;
use crate::task::Task;

/// A link in somebody's `/proc/PID/fd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FdLink {
    /// The process, as its own namespace numbers it; `None`: the caller.
    pub(crate) pid: Option<u32>,
    pub(crate) fd: i32,
}

/// Reads `/proc/self/fd/N`, `/proc/thread-self/fd/N`, `/proc/PID/fd/N`, `/proc/PID/task/TID/fd/N`, `/dev/fd/N`.
pub(crate) fn fd_link(path: &Path) -> Option<FdLink> {
    let words: Vec<&str> =
        path.to_str()?.split('/').filter(|word| !word.is_empty() && *word != ".").collect();
    let (pid, fd) = match words.as_slice() {
        ["dev", "fd", fd] => (None, fd),
        ["dev", "stdin"] => (None, &"0"),
        ["dev", "stdout"] => (None, &"1"),
        ["dev", "stderr"] => (None, &"2"),
        ["proc", "self" | "thread-self", "fd", fd] | ["proc", "self", "task", _, "fd", fd] => (None, fd),
        ["proc", pid, "fd", fd] | ["proc", pid, "task", _, "fd", fd] => (Some(pid.parse().ok()?), fd),
        _ => return None,
    };
    Some(FdLink { pid, fd: fd.parse().ok()? })
}

fn proc_link(tid: i32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{tid}/{what}"))
}

/// The path from the program's root on, not yet resolved.
pub(crate) fn absolute(task: &Task, dirfd: i32, path: &Path) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path.to_owned());
    }
    let base = if dirfd == libc::AT_FDCWD {
        std::fs::read_link(proc_link(task.tid, "cwd")).ok()?
    } else {
        std::fs::read_link(proc_link(task.tid, &format!("fd/{dirfd}"))).ok()?
    };
    let root = std::fs::read_link(proc_link(task.tid, "root")).ok()?;
    let base = base.strip_prefix(&root).unwrap_or(&base);
    Some(Path::new("/").join(base).join(path))
}

/// The place that an absolute path of the program names; of `flags` only `O_NOFOLLOW` counts.
pub(crate) fn resolve(task: &Task, path: &Path, flags: OFlags) -> Option<OwnedFd> {
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, proc_link(task.tid, "root"), place | OFlags::DIRECTORY, Mode::empty());
    let flags = place | flags & OFlags::NOFOLLOW;
    openat2(root.ok()?.as_fd(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()
}

/// A path without `.` and `..`, as far as that can be told without looking.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// Host number of the thread group that numbers itself `pid` in the caller's PID namespace.
pub(crate) fn host_pid(caller: &Task, pid: u32) -> Option<i32> {
    let namespace = |tid: i32| std::fs::read_link(proc_link(tid, "ns/pid")).ok();
    let ours = namespace(caller.tid)?;
    let numbers =
        std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(|tid: &i32| {
        let status = std::fs::read_to_string(proc_link(*tid, "status")).unwrap_or_default();
        let own = status.lines().find_map(|line| line.strip_prefix("NStgid:"));
        own.and_then(|line| line.split_whitespace().next_back()?.parse().ok()) == Some(pid)
            && namespace(*tid).as_ref() == Some(&ours)
    })
}

/// Whether the descriptor was opened by a path that ends as the device's does.
pub(crate) fn is_named_as_device(fd: BorrowedFd<'_>) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|link| link.file_name() == Path::new(DEVICE).file_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_descriptors_are_known_in_all_their_forms() {
        for (path, want) in [
            ("/proc/self/fd/3", Some((None, 3))),
            ("/proc/thread-self/fd/3", Some((None, 3))),
            ("/proc/12/fd/4", Some((Some(12), 4))),
            ("/proc/12/task/13/fd/4", Some((Some(12), 4))),
            ("/dev/fd/0", Some((None, 0))),
            ("//proc//self/./fd/7", Some((None, 7))),
            ("/proc/self/fd/x", None),
            ("/proc/self/fdinfo/3", None),
            ("/dev/liveupdate", None),
        ] {
            let found = fd_link(Path::new(path)).map(|link| (link.pid, link.fd));
            assert_eq!(found, want, "{path}");
        }
    }

    #[test]
    fn dots_are_taken_out() {
        assert_eq!(normal(Path::new("/tmp/../dev/./liveupdate")), Path::new("/dev/liveupdate"));
    }
}
