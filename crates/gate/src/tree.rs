//! The processes of one generation: a PID and mount namespace of their own, a first process that reaps orphans, and
//! the program under the filter.
//!
//! The namespace is what makes the kexec certain: when its first process is killed, the host kills everything in it,
//! daemonised or not, and nothing in it can signal the supervisor. If the supervisor dies, the first process dies
//! with it (`PR_SET_PDEATHSIG`). Without privilege a user namespace, with the same user id, makes the others
//! possible.
//!
//! The supervisor has one thread when it forks; the first process never executes anything else and leaves by
//! `_exit` alone.
#![expect(unsafe_code, reason = "clone, prctl, signals between fork and exec")]

use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, Signal};

use crate::bpf::{self, Served};
use crate::mounts::{self, Handles, View};
use crate::notify::{self, Listener};

/// What is started.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// The program and its arguments; the program is looked up in `PATH`.
    pub(crate) command: Vec<OsString>,
    /// Variables set besides those we have.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) served: Served,
    pub(crate) view: View,
}

/// Why a generation could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The host refused namespaces.
    #[error(
        "the host gives no namespaces of processes and mounts: {0}; `luosim doctor` says what is missing"
    )]
    Namespaces(#[source] io::Error),
    /// A step of the set-up failed.
    #[error("{0}")]
    SetUp(String),
    /// The host broke the connection to the first process.
    #[error("the generation's first process ended early")]
    Vanished,
}

/// What the processes of a generation report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The program could not be executed; the error number of `execve`.
    NotExecuted(i32),
    /// The program ended with this wait status.
    Ended(i32),
    /// No process is left.
    Empty,
    /// The connection is closed: the namespace is gone.
    Gone,
}

/// A running generation.
#[derive(Debug)]
pub(crate) struct Tree {
    init: Pid,
    reports: OwnedFd,
    pub(crate) listener: Listener,
    pub(crate) handles: Handles,
    dead: bool,
}

/// First byte of a message.
const FAILED: u8 = b'F';
const EXEC_FAILED: u8 = b'X';
const HANDLES: u8 = b'H';
const LISTENER: u8 = b'L';
const ENDED: u8 = b'E';
const EMPTY: u8 = b'0';
const GO: u8 = b'G';

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &[io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 4096];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [io::IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    bytes.truncate(got.bytes);
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((bytes, fds))
}

/// Forks into new namespaces; 0 in the child.
pub(crate) fn fork_into_namespaces(privileged: bool) -> io::Result<i32> {
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::SIGCHLD;
    if !privileged {
        flags |= libc::CLONE_NEWUSER;
    }
    let flags = libc::c_ulong::try_from(flags).expect("the flags are positive");
    // SAFETY: without CLONE_VM and with no stack given this is a fork; the supervisor has one thread, so the child
    // finds every lock free.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    let pid = i32::try_from(pid).unwrap_or(-1);
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends this process at once; nothing of the parent's is flushed or dropped here.
    unsafe { libc::_exit(code) }
}

impl Tree {
    /// Starts a generation and waits until the program is about to be executed.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub(crate) fn launch(spec: &Spec) -> Result<Self, LaunchError> {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| LaunchError::Namespaces(error.into()))?;
        let pid = fork_into_namespaces(spec.view.privileged).map_err(LaunchError::Namespaces)?;
        if pid == 0 {
            drop(ours);
            first_process(spec, &theirs, ids);
        }
        drop(theirs);
        let init = Pid::from_raw(pid).expect("a child's number is positive");
        let started = collect(&ours);
        match started {
            Ok((listener, handles)) => Ok(Self { init, reports: ours, listener, handles, dead: false }),
            Err(error) => {
                end(init);
                Err(error)
            }
        }
    }

    /// Where reports arrive.
    pub(crate) fn reports(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }

    /// The next report, if one waits.
    pub(crate) fn next_report(&self) -> Option<Report> {
        match receive(self.reports.as_fd(), RecvFlags::DONTWAIT) {
            Ok((bytes, _)) => Some(match bytes.split_first() {
                Some((&ENDED, status)) => Report::Ended(number(status)),
                Some((&EXEC_FAILED, errno)) => Report::NotExecuted(number(errno)),
                Some((&EMPTY, _)) => Report::Empty,
                _ => Report::Gone,
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Report::Gone),
        }
    }

    /// Kills every process of the generation and waits until the last is gone.
    pub(crate) fn kill(&mut self) {
        if !std::mem::replace(&mut self.dead, true) {
            end(self.init);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Kills the first process; its end is the end of all.
fn end(init: Pid) {
    let _ = rustix::process::kill_process(init, Signal::KILL);
    loop {
        match rustix::process::waitpid(Some(init), rustix::process::WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

fn number(bytes: &[u8]) -> i32 {
    bytes.try_into().map(i32::from_le_bytes).unwrap_or(0)
}

/// Takes the handles and the listener, and lets the program go.
fn collect(socket: &OwnedFd) -> Result<(Listener, Handles), LaunchError> {
    let mut handles = Handles::default();
    loop {
        let (bytes, mut fds) =
            receive(socket.as_fd(), RecvFlags::empty()).map_err(|_| LaunchError::Vanished)?;
        let (kind, rest) = bytes.split_first().ok_or(LaunchError::Vanished)?;
        match *kind {
            HANDLES => {
                let mut fds = fds.into_iter();
                handles.device = rest.contains(&b'd').then(|| fds.next()).flatten();
                handles.kexec_loaded = rest.contains(&b'k').then(|| fds.next()).flatten();
            }
            LISTENER => {
                let listener = Listener::new(fds.pop().ok_or(LaunchError::Vanished)?);
                send(socket.as_fd(), &[GO], &[]).map_err(|_| LaunchError::Vanished)?;
                return Ok((listener, handles));
            }
            _ => return Err(LaunchError::SetUp(String::from_utf8_lossy(rest).into_owned())),
        }
    }
}

// From here on: code of the children.

fn fail(socket: &OwnedFd, what: &str) -> ! {
    let message = [&[FAILED], what.as_bytes()].concat();
    let _ = send(socket.as_fd(), &message, &[]);
    exit(126)
}

/// The generation's first process.
fn first_process(spec: &Spec, socket: &OwnedFd, ids: (u32, u32)) -> ! {
    die_with_parent();
    if !spec.view.privileged
        && let Err(error) = map_ids(ids)
    {
        fail(socket, &format!("the user namespace cannot have our user id: {error}"));
    }
    match mounts::set_up(&spec.view) {
        Ok(handles) => {
            let mut kinds = vec![HANDLES];
            kinds
                .extend(handles.device.iter().map(|_| b'd').chain(handles.kexec_loaded.iter().map(|_| b'k')));
            let fds: Vec<BorrowedFd<'_>> =
                handles.device.iter().chain(&handles.kexec_loaded).map(AsFd::as_fd).collect();
            if send(socket.as_fd(), &kinds, &fds).is_err() {
                exit(126);
            }
        }
        Err(error) => fail(socket, &error.to_string()),
    }
    // SAFETY: this process has one thread.
    let program = unsafe { libc::fork() };
    if program == 0 {
        run_program(spec, socket);
    }
    if program < 0 {
        fail(socket, &format!("no process for the program: {}", io::Error::last_os_error()));
    }
    close_others(socket.as_raw_fd());
    reap(socket, program)
}

fn die_with_parent() {
    // SAFETY: these commands take numbers and a static text.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"luosim-init".as_ptr());
    }
}

pub(crate) fn map_ids((uid, gid): (u32, u32)) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
}

/// Closes every descriptor of the supervisor that was inherited.
fn close_others(keep: i32) {
    let keep = u32::try_from(keep).expect("descriptors are not negative");
    // SAFETY: nothing in this process uses the descriptors that are closed: it only waits, and reports on `keep`.
    unsafe {
        libc::close_range(0, keep.saturating_sub(1), 0);
        libc::close_range(keep + 1, u32::MAX, 0);
    }
}

/// Waits for children for ever; reports the program's end and the moment when nobody is left.
fn reap(socket: &OwnedFd, program: i32) -> ! {
    loop {
        let mut status = 0;
        // SAFETY: the status is written to a live integer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid == program {
            let message = [&[ENDED], status.to_le_bytes().as_slice()].concat();
            let _ = send(socket.as_fd(), &message, &[]);
        } else if pid < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) {
            let _ = send(socket.as_fd(), &[EMPTY], &[]);
            // SAFETY: sleeps until a signal, which only the supervisor can send.
            unsafe { libc::pause() };
        }
    }
}

/// The program's process, up to `execve`.
fn run_program(spec: &Spec, socket: &OwnedFd) -> ! {
    reset_signals();
    if !spec.view.privileged {
        // SAFETY: takes numbers. The filter may be installed by anybody who renounces new privileges.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    }
    let prepared = Prepared::new(spec);
    let filter = bpf::program(spec.served);
    let listener = match notify::install(&filter) {
        Ok(listener) => listener,
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => fail(
            socket,
            "another supervisor has a seccomp listener on this process already (a container runtime, or luosim \
             itself); run luosim outside of it",
        ),
        Err(error) => fail(socket, &format!("the seccomp filter cannot be installed: {error}")),
    };
    if send(socket.as_fd(), &[LISTENER], &[listener.as_fd()]).is_err() {
        exit(126);
    }
    drop(listener);
    let go = receive(socket.as_fd(), RecvFlags::empty());
    if !matches!(&go, Ok((bytes, _)) if bytes.first() == Some(&GO)) {
        exit(126);
    }
    let errno = prepared.execute();
    let message = [&[EXEC_FAILED], errno.to_le_bytes().as_slice()].concat();
    let _ = send(socket.as_fd(), &message, &[]);
    exit(127)
}

/// The standard library ignores SIGPIPE; a program expects to find every signal as it is by default.
fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition; the mask is a live, emptied set.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Arguments of `execve`, made before the filter is on.
struct Prepared {
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

fn c(text: Vec<u8>) -> CString {
    CString::new(text).unwrap_or_default()
}

impl Prepared {
    fn new(spec: &Spec) -> Self {
        let program = spec.command.first().cloned().unwrap_or_default();
        let candidates = if program.as_bytes().contains(&b'/') {
            vec![c(program.into_vec())]
        } else {
            let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
            std::env::split_paths(&path)
                .map(|folder| c(folder.join(&program).into_os_string().into_vec()))
                .collect()
        };
        let own = std::env::vars_os()
            .filter(|(name, _)| !spec.environment.iter().any(|(set, _)| name.as_bytes() == set.as_bytes()))
            .map(|(name, value)| c([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let set = spec.environment.iter().map(|(name, value)| c(format!("{name}={value}").into_bytes()));
        Self {
            candidates,
            arguments: spec.command.iter().map(|text| c(text.as_bytes().to_vec())).collect(),
            environment: own.chain(set).collect(),
        }
    }

    /// Becomes the program; returns the error number if it cannot.
    fn execute(&self) -> i32 {
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        let mut errno = libc::ENOENT;
        for candidate in &self.candidates {
            // SAFETY: all three are live, NUL-terminated, and the arrays end in a null pointer.
            unsafe { libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
            let now = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            if now != libc::ENOENT && now != libc::ENOTDIR {
                errno = now;
            }
        }
        errno
    }
}
