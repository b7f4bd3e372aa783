//! Making generations ahead: each is ready, up to the execution of its program, before the kexec that it follows.
//!
//! A fork copies what the forking process has touched, and both pay again for each page that they write afterwards.
//! The supervisor, with a machine's memory in it, therefore forks once, before it has any: the only generation's
//! first process, or, if there may be several, a *launcher*, which forks the first processes of all. The launcher
//! keeps what generations see alike: the user namespace, where there is no privilege, and the mounts that no program
//! changes. It makes one generation at once, and another one whenever it is asked for one.
//!
//! First processes are the *supervisor's* children in either case (`CLONE_PARENT`): it waits for them, and they die
//! with it. Signals are blocked in them and in the launcher: those of the terminal are not meant for them.
#![expect(unsafe_code, reason = "fork, clone, unshare and the signal mask")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;

use crate::bpf::Served;
use crate::children::{Spec, die_with_parent, exit, fail, first_process};
use crate::mounts::{self, Common};
use crate::tree::{LaunchError, Tree, end, number, receive, send};

/// What is started in the generations.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Program and arguments of each generation; the last one repeats.
    pub(crate) commands: Vec<Vec<OsString>>,
    pub(crate) served: Served,
    /// Folders that get a fresh tmpfs in each generation.
    pub(crate) tmpfs: Vec<PathBuf>,
    pub(crate) privileged: bool,
    /// Whether there is only one generation.
    pub(crate) single: bool,
}

/// First byte of what the launcher says: the process number of a first process, or why there is none.
const MADE: u8 = b'M';
const REFUSED: u8 = b'N';
/// What it is told.
const ANOTHER: u8 = b'A';

/// A generation that is being made: its first process, and where it reports.
type Standby = (Pid, OwnedFd);

/// Where generations come from.
#[derive(Debug)]
pub(crate) enum Launcher {
    /// From ourselves, once.
    Single(Option<Standby>),
    /// From the launcher's process. `due`: one is made or being made.
    Process { process: Pid, socket: OwnedFd, due: bool },
}

impl Plan {
    /// Program and arguments of a generation.
    pub(crate) fn command(&self, number: u32) -> &[OsString] {
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        &self.commands[index.min(self.commands.len() - 1)]
    }

    fn spec(&self, number: u32) -> Spec {
        Spec {
            number,
            command: self.command(number).to_vec(),
            served: self.served,
            tmpfs: self.tmpfs.clone(),
            privileged: self.privileged,
        }
    }

    /// Namespaces of mounts, and without privilege of users.
    fn namespaces(&self) -> i32 {
        libc::CLONE_NEWNS | if self.privileged { 0 } else { libc::CLONE_NEWUSER }
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Launcher {
    /// Begins to make the first generation. The process must have one thread, and should be small.
    ///
    /// # Errors
    /// The host gives no process or no namespaces.
    pub(crate) fn start(plan: &Plan) -> Result<Self, LaunchError> {
        let ids = own_ids();
        let (socket, theirs) = pair().map_err(LaunchError::Namespaces)?;
        let flags = if plan.single { libc::CLONE_NEWPID | plan.namespaces() } else { 0 };
        let process = match fork(flags).map_err(LaunchError::Namespaces)? {
            Some(process) => process,
            None if plan.single => only_generation(plan, &theirs, ids),
            None => launch_for_ever(plan, &theirs, ids),
        };
        Ok(if plan.single {
            Self::Single(Some((process, socket)))
        } else {
            Self::Process { process, socket, due: true }
        })
    }

    /// The next generation, of which only the order is missing. `last`: no other is to be made.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub(crate) fn next(&mut self, last: bool) -> Result<Tree, LaunchError> {
        match self {
            Self::Single(standby) => {
                let (init, reports) = standby.take().ok_or(LaunchError::Vanished)?;
                Tree::take(init, reports)
            }
            Self::Process { socket, due, .. } => {
                let (init, reports) = standby(socket.as_fd())?;
                let tree = Tree::take(init, reports)?;
                *due = !last && send(socket.as_fd(), &[ANOTHER], &[]).is_ok();
                Ok(tree)
            }
        }
    }
}

/// What the launcher has made.
fn standby(socket: BorrowedFd<'_>) -> Result<Standby, LaunchError> {
    let (bytes, mut fds) = receive(socket, RecvFlags::empty()).map_err(|_| LaunchError::Vanished)?;
    match bytes.split_first() {
        Some((&MADE, pid)) => Pid::from_raw(number(pid)).zip(fds.pop()).ok_or(LaunchError::Vanished),
        Some((&REFUSED, errno)) => Err(LaunchError::Namespaces(io::Error::from_raw_os_error(number(errno)))),
        _ => Err(LaunchError::Vanished),
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        match self {
            Self::Single(None) => {}
            Self::Single(Some((init, _))) => end(*init),
            Self::Process { process, socket, due } => {
                if *due && let Ok((init, _)) = standby(socket.as_fd()) {
                    end(init);
                }
                end(*process);
            }
        }
    }
}

fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Forks, into the namespaces in `flags`; `None` in the child.
pub(crate) fn fork(flags: i32) -> io::Result<Option<Pid>> {
    let flags = libc::c_ulong::try_from(libc::SIGCHLD | flags).expect("the flags are positive");
    // SAFETY: without CLONE_VM and with no stack given this is a fork; the process has one thread, so the child
    // finds every lock free.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    let pid = i32::try_from(pid).unwrap_or(-1);
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }
}

// From here on: code of the children.

pub(crate) fn map_ids((uid, gid): (u32, u32)) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
}

fn block_signals() {
    // SAFETY: the set is live and filled before it is used.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// What all generations see alike, in our new namespaces; reports what fails.
fn prepare(privileged: bool, ids: (u32, u32)) -> io::Result<Common> {
    if !privileged {
        let what = "the user namespace cannot have our user id";
        map_ids(ids).map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))?;
    }
    mounts::prepare()
}

fn only_generation(plan: &Plan, socket: &OwnedFd, ids: (u32, u32)) -> ! {
    die_with_parent(c"luosim-init");
    block_signals();
    match prepare(plan.privileged, ids) {
        Ok(common) => first_process(&plan.spec(1), &common, socket),
        Err(error) => fail(socket, &error.to_string()),
    }
}

fn launch_for_ever(plan: &Plan, socket: &OwnedFd, ids: (u32, u32)) -> ! {
    die_with_parent(c"luosim-launch");
    block_signals();
    // SAFETY: takes flags. The process has one thread, and shares nothing with another.
    let common = if unsafe { libc::unshare(plan.namespaces()) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        prepare(plan.privileged, ids)
    };
    let common = common.unwrap_or_else(|error| refuse(socket, &error));
    for number in 1.. {
        match launch(plan, number, &common) {
            Ok((init, reports)) => {
                let message = [&[MADE], init.as_raw_nonzero().get().to_le_bytes().as_slice()].concat();
                if send(socket.as_fd(), &message, &[reports.as_fd()]).is_err() {
                    exit(1);
                }
            }
            Err(error) => refuse(socket, &error),
        }
        let told = receive(socket.as_fd(), RecvFlags::empty());
        if !told.is_ok_and(|(bytes, _)| bytes == [ANOTHER]) {
            break;
        }
    }
    exit(0)
}

fn refuse(socket: &OwnedFd, error: &io::Error) -> ! {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let message = [&[REFUSED], errno.to_le_bytes().as_slice()].concat();
    let _ = send(socket.as_fd(), &message, &[]);
    exit(1)
}

/// Makes a generation's first process, as the supervisor's child.
fn launch(plan: &Plan, number: u32, common: &Common) -> io::Result<Standby> {
    let (theirs, reports) = pair()?;
    match fork(libc::CLONE_PARENT | libc::CLONE_NEWPID | libc::CLONE_NEWNS)? {
        Some(init) => Ok((init, theirs)),
        None => {
            drop(theirs);
            die_with_parent(c"luosim-init");
            first_process(&plan.spec(number), common, &reports)
        }
    }
}
