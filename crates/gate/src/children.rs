//! What the processes of a generation do: the first one, which reaps orphans, and the program's, up to `execve`.
//!
//! The first process never executes anything else and leaves by `_exit` alone. Its signals are blocked; the program
//! starts with none blocked.
#![expect(unsafe_code, reason = "fork, prctl, signals between fork and exec")]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::net::RecvFlags;

use crate::bpf::{self, Served};
use crate::mounts::{self, Common, View};
use crate::notify;
use crate::tree::{EMPTY, ENDED, EXEC_FAILED, FAILED, GO, READY, receive, send};

/// What is started.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Number of the generation, from 1.
    pub(crate) number: u32,
    /// The program and its arguments; the program is looked up in `PATH`.
    pub(crate) command: Vec<OsString>,
    pub(crate) served: Served,
    /// Folders that get a fresh tmpfs.
    pub(crate) tmpfs: Vec<PathBuf>,
    /// Whether we are root.
    pub(crate) privileged: bool,
}

pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends this process at once; nothing of the parent's is flushed or dropped here.
    unsafe { libc::_exit(code) }
}

pub(crate) fn fail(socket: &OwnedFd, what: &str) -> ! {
    let message = [&[FAILED], what.as_bytes()].concat();
    let _ = send(socket.as_fd(), &message, &[]);
    exit(126)
}

/// The generation's first process.
pub(crate) fn first_process(spec: &Spec, common: &Common, socket: &OwnedFd) -> ! {
    let view = match mounts::set_up(common, spec.privileged, &spec.tmpfs) {
        Ok(view) => view,
        Err(error) => fail(socket, &error.to_string()),
    };
    // SAFETY: this process has one thread.
    let program = unsafe { libc::fork() };
    if program == 0 {
        run_program(spec, socket, &view, common);
    }
    if program < 0 {
        fail(socket, &format!("no process for the program: {}", io::Error::last_os_error()));
    }
    close_others(socket.as_raw_fd());
    reap(socket, program)
}

/// Ends this process when its parent ends, and gives it a name.
pub(crate) fn die_with_parent(name: &'static std::ffi::CStr) {
    // SAFETY: these commands take numbers and a static text.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
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
fn run_program(spec: &Spec, socket: &OwnedFd, view: &View, common: &Common) -> ! {
    if !spec.privileged {
        // SAFETY: takes numbers. The filter may be installed by anybody who renounces new privileges.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    }
    let mut prepared = Prepared::new(spec);
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
    let handles = [&listener, &view.cmdline, &view.device].into_iter().chain(&common.sysfs);
    let handles: Vec<BorrowedFd<'_>> = handles.map(AsFd::as_fd).collect();
    if send(socket.as_fd(), &[READY], &handles).is_err() {
        exit(126);
    }
    drop(listener);
    let order = receive(socket.as_fd(), RecvFlags::empty()).map(|(bytes, _)| bytes).unwrap_or_default();
    let [GO, device, release @ ..] = order.as_slice() else { exit(126) };
    if *device == 0
        && let Err(error) = mounts::take_device_away()
    {
        fail(socket, &format!("the device cannot be taken away: {error}"));
    }
    prepared.set("LUOSIM_RELEASE", release);
    reset_signals();
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
            .map(|(name, value)| c([name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect();
        let arguments = spec.command.iter().map(|text| c(text.as_bytes().to_vec())).collect();
        let mut prepared = Self { candidates, arguments, environment: own };
        prepared.set("LUOSIM_GENERATION", spec.number.to_string().as_bytes());
        prepared
    }

    /// Sets a variable.
    fn set(&mut self, name: &str, value: &[u8]) {
        let start = format!("{name}=").into_bytes();
        self.environment.retain(|variable| !variable.as_bytes().starts_with(&start));
        self.environment.push(c([start.as_slice(), value].concat()));
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
