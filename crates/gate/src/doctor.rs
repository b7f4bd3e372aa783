//! Whether this host can run the gate, found out by trying, and what to do about each miss.
//!
//! [`Facts::gather`] tries things in forked children and must be called while the process has one thread;
//! [`judge`] only looks at what was found.
#![expect(unsafe_code, reason = "fork, _exit and prctl for trying things out")]

use std::io;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use serde::Serialize;

use crate::children::exit;
use crate::launcher::{fork, map_ids};
use crate::task::{PIDFD_THREAD, Task};
use crate::{bpf, mounts, notify, tag};

/// An errno of the host, or success.
pub type Tried = Result<(), i32>;

/// What was found on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Release of the kernel, `6.18.44`.
    pub release: String,
    /// Architecture, `x86_64`.
    pub machine: String,
    /// Whether we are root.
    pub privileged: bool,
    /// A filter with a listener that waits killably.
    pub listener: Tried,
    /// A Landlock ruleset with a lock on it.
    pub landlock: Tried,
    /// Namespaces of users (without privilege), processes and mounts.
    pub namespaces: Tried,
    /// A mount in them.
    pub mounting: Tried,
    /// A fresh `/proc` in them.
    pub fresh_proc: Tried,
    /// Yama's `ptrace_scope`, if there is Yama.
    pub yama: Option<u32>,
    /// A descriptor of a thread.
    pub pidfd_thread: Tried,
    /// Reading a child's memory.
    pub child_memory: Tried,
    /// The device that can stand for `/dev/liveupdate`, if a quiet one is there.
    pub device: Option<String>,
    /// Soft and hard limit of open files.
    pub open_files: (u64, u64),
}

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// The gate runs, and something is less exact or slower.
    Degraded,
    /// The gate cannot run.
    Missing,
}

/// One line of the diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How good it is.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn tried<T>(result: io::Result<T>) -> Tried {
    result.map(drop).map_err(|error| errno_of(&error))
}

/// The exit code of a child as a result: 0 or an errno.
fn ending(pid: i32) -> Tried {
    let mut status = 0;
    // SAFETY: the status is written to a live integer.
    let ended = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    match (ended == pid, status) {
        (true, 0) => Ok(()),
        (true, status) if status & 0x7f == 0 => Err(status >> 8 & 0xff),
        _ => Err(libc::ECHILD),
    }
}

fn leave(result: Tried) -> ! {
    exit(result.err().unwrap_or(0))
}

/// Tries something in a child, so that nothing of it stays.
fn in_child(work: impl FnOnce() -> Tried) -> Tried {
    // SAFETY: the caller's process has one thread, so the child finds every lock free; it leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => leave(work()),
        pid if pid > 0 => ending(pid),
        _ => Err(errno_of(&io::Error::last_os_error())),
    }
}

fn try_listener(privileged: bool) -> Tried {
    if !notify::supported() {
        return Err(libc::ENOSYS);
    }
    in_child(|| {
        if !privileged {
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        }
        tried(notify::install(&bpf::program(bpf::Served::default())))
    })
}

/// Tries something as the first process of new namespaces.
fn in_namespaces(privileged: bool, work: impl FnOnce() -> Tried) -> Tried {
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let users = if privileged { 0 } else { libc::CLONE_NEWUSER };
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | users;
    match fork(flags).map_err(|error| errno_of(&error))? {
        Some(pid) => ending(pid.as_raw_nonzero().get()),
        None => {
            let mapped = if privileged { Ok(()) } else { tried(map_ids(ids)) };
            leave(mapped.and_then(|()| work()))
        }
    }
}

fn try_mount() -> Tried {
    tried(
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .and_then(|()| mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, Some(c"mode=755")))
            .map_err(io::Error::from),
    )
}

fn try_proc() -> Tried {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let made = mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>);
    try_mount().and_then(|()| tried(made.map_err(io::Error::from)))
}

/// Reads a word of a child that waits to be killed.
fn try_child_memory() -> Tried {
    let word = 0x6c75_6f73_696d_u64;
    // SAFETY: as in `in_child`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: sleeps until the parent's signal.
        unsafe { libc::pause() };
        exit(0);
    }
    let Some(child) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Err(libc::EAGAIN) };
    let mut seen = [0; 8];
    let read = Task::open(pid).map_err(|error| errno_of(&error)).and_then(|task| {
        task.read((&raw const word).addr() as u64, &mut seen).map_err(|refusal| refusal.errno.raw())
    });
    let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    let _ = ending(pid);
    read.and_then(|()| if u64::from_ne_bytes(seen) == word { Ok(()) } else { Err(libc::EIO) })
}

fn quiet_device(privileged: bool) -> Option<String> {
    let usable = |name: &&str| {
        if privileged {
            return mounts::misc_minor(name).is_some();
        }
        std::fs::OpenOptions::new().read(true).write(true).open(format!("/dev/{name}")).is_ok()
    };
    mounts::QUIET.into_iter().find(usable).map(str::to_owned)
}

fn open_files() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

impl Facts {
    /// Tries everything on this host. The process must have one thread.
    #[must_use]
    pub fn gather() -> Self {
        let uname = rustix::system::uname();
        let privileged = rustix::process::geteuid().is_root();
        let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let thread = pidfd_open(rustix::process::getpid(), PidfdFlags::from_bits_retain(PIDFD_THREAD));
        Self {
            release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            privileged,
            listener: try_listener(privileged),
            landlock: tried(tag::Tags::new().and_then(|mut tags| tags.new_session())),
            namespaces: in_namespaces(privileged, || Ok(())),
            mounting: in_namespaces(privileged, try_mount),
            fresh_proc: in_namespaces(privileged, try_proc),
            yama: yama.ok().and_then(|text| text.trim().parse().ok()),
            pidfd_thread: tried(thread.map_err(io::Error::from)),
            child_memory: try_child_memory(),
            device: quiet_device(privileged),
            open_files: open_files(),
        }
    }
}

/// Major and minor number of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn finding(name: &'static str, grade: Grade, found: String, advice: &'static str) -> Finding {
    Finding { name, grade, found, advice: (grade != Grade::Ok).then_some(advice) }
}

fn of_try(name: &'static str, tried: Tried, bad: Grade, advice: &'static str) -> Finding {
    match tried {
        Ok(()) => finding(name, Grade::Ok, String::from("works"), ""),
        Err(errno) => finding(name, bad, io::Error::from_raw_os_error(errno).to_string(), advice),
    }
}

fn kernel(facts: &Facts) -> Finding {
    let new = version(&facts.release).is_some_and(|found| found >= (5, 19));
    let grade = if new { Grade::Ok } else { Grade::Missing };
    finding("kernel", grade, format!("Linux {}", facts.release), "the gate needs Linux 5.19 or newer")
}

fn architecture(facts: &Facts) -> Finding {
    let grade = if facts.machine == "x86_64" { Grade::Ok } else { Grade::Missing };
    finding("architecture", grade, facts.machine.clone(), "the gate knows the system calls of x86-64 only")
}

fn listener(facts: &Facts) -> Finding {
    let advice = match facts.listener {
        Err(libc::EBUSY) => {
            "another supervisor (container runtime, luosim itself) has a seccomp listener on us: run outside of it"
        }
        Err(libc::EACCES | libc::EPERM) => {
            "a policy forbids seccomp(2): in a container, allow it in the profile"
        }
        _ => "the kernel needs CONFIG_SECCOMP_FILTER, and Linux 5.19 for WAIT_KILLABLE_RECV",
    };
    of_try("seccomp listener", facts.listener, Grade::Missing, advice)
}

fn namespaces(facts: &Facts) -> Finding {
    let advice = if facts.privileged {
        "in a container, run with CAP_SYS_ADMIN"
    } else {
        "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, \
         kernel.apparmor_restrict_unprivileged_userns=0; or run as root"
    };
    of_try("namespaces", facts.namespaces, Grade::Missing, advice)
}

fn yama(facts: &Facts) -> Finding {
    let (grade, advice) = match facts.yama {
        None | Some(0 | 1) => (Grade::Ok, ""),
        Some(2) if facts.privileged => (Grade::Ok, ""),
        Some(_) => (Grade::Missing, "sysctl kernel.yama.ptrace_scope=1 (3 can only be left by a reboot)"),
    };
    let found = facts.yama.map_or_else(|| String::from("not there"), |scope| format!("ptrace_scope {scope}"));
    finding("Yama", grade, found, advice)
}

fn device(facts: &Facts) -> Finding {
    let advice = "read, write and lseek on the device answer as /dev/null does; root has better ones";
    match &facts.device {
        Some(name) => finding("quiet device", Grade::Ok, name.clone(), ""),
        None => finding("quiet device", Grade::Degraded, String::from("only /dev/null"), advice),
    }
}

fn limit(facts: &Facts) -> Finding {
    let (soft, hard) = facts.open_files;
    // Known threads, three for a preserved file, and the supervisor's own; it raises its soft limit itself, and as root the hard one.
    let grade = if facts.privileged || hard >= 4096 { Grade::Ok } else { Grade::Degraded };
    finding(
        "open files",
        grade,
        format!("{soft} of {hard}"),
        "ulimit -H -n 4096 or more: luosim needs three descriptors for each preserved file, and takes what the hard limit allows",
    )
}

/// The diagnosis, one finding a line.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let threads = "Linux 6.9 has descriptors of threads: before it, descriptors of a thread with a table of its own \
                   are not seen";
    let mount = "a policy forbids mount(2): in a container, allow it; without privilege, see namespaces";
    let proc = "/proc shows the host's process numbers: in a container, unmask /proc";
    let memory =
        "a policy forbids process_vm_readv(2) or pidfd_getfd(2): in a container, allow them (CAP_SYS_PTRACE)";
    vec![
        kernel(facts),
        architecture(facts),
        listener(facts),
        of_try(
            "Landlock",
            facts.landlock,
            Grade::Missing,
            "boot with Landlock: CONFIG_SECURITY_LANDLOCK, and landlock in lsm=",
        ),
        namespaces(facts),
        of_try("mounts", facts.mounting, Grade::Missing, mount),
        of_try("fresh /proc", facts.fresh_proc, Grade::Degraded, proc),
        yama(facts),
        of_try("child's memory", facts.child_memory, Grade::Missing, memory),
        of_try("thread descriptors", facts.pidfd_thread, Grade::Degraded, threads),
        device(facts),
        limit(facts),
    ]
}

/// Whether the gate runs on such a host.
#[must_use]
pub fn can_run(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.grade != Grade::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, want) in [("6.18.44", Some((6, 18))), ("5.4.0-generic", Some((5, 4))), ("x", None)] {
            assert_eq!(version(release), want, "{release}");
        }
        assert!(version("5.19.0-rc1") >= Some((5, 19)) && version("5.9.1") < Some((5, 19)));
    }
}
