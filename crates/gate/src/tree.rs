//! The processes of one generation, as the supervisor sees them: a PID namespace with a first process, and what they
//! report.
//!
//! The namespace is what makes the kexec certain: when its first process is killed, the host kills everything in it,
//! daemonised or not, and nothing in it can signal the supervisor. If the supervisor dies, the first process dies
//! with it (`PR_SET_PDEATHSIG`). Without privilege a user namespace, with the same user id, makes the others
//! possible. Who makes them is in `launcher`, what they do in `children`.
//!
//! A generation is made ahead, up to the execution of its program, and waits for the order to go on.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal};

use crate::notify::Listener;

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

/// What is known only when a generation begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// Name of its kernel's release.
    pub(crate) release: &'a str,
    /// Whether its kernel has the device.
    pub(crate) device: bool,
    /// Its kernel's command line.
    pub(crate) cmdline: &'a str,
}

/// What the supervisor has of a generation's view, see `mounts`.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) cmdline: OwnedFd,
    /// The device node, opened for reading and writing, until it is taken; likewise the last one.
    pub(crate) device: Option<OwnedFd>,
    pub(crate) sysfs: Option<OwnedFd>,
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

/// First byte of a message: what a generation's processes say, and `GO`, the order.
pub(crate) const FAILED: u8 = b'F';
pub(crate) const EXEC_FAILED: u8 = b'X';
pub(crate) const READY: u8 = b'R';
pub(crate) const ENDED: u8 = b'E';
pub(crate) const EMPTY: u8 = b'0';
pub(crate) const GO: u8 = b'G';
/// Longest message.
const LONGEST: usize = 4096;

/// Sends a message and at most four descriptors.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &[io::IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message with its descriptors; none of either at the end.
pub(crate) fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; LONGEST];
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

impl Tree {
    /// Takes over a generation that is being made, and waits until only the order is missing.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing of the generation is left.
    pub(crate) fn take(init: Pid, reports: OwnedFd) -> Result<Self, LaunchError> {
        match collect(&reports) {
            Ok((listener, handles)) => Ok(Self { init, reports, listener, handles, dead: false }),
            Err(error) => {
                end(init);
                Err(error)
            }
        }
    }

    /// Lets the program be executed.
    ///
    /// # Errors
    /// The generation is gone.
    pub(crate) fn go(&self, order: &Order<'_>) -> Result<(), LaunchError> {
        let cmdline = format!("{}\n", order.cmdline);
        let written = rustix::io::pwrite(&self.handles.cmdline, cmdline.as_bytes(), 0);
        written.map_err(|error| LaunchError::SetUp(format!("/proc/cmdline: {error}")))?;
        let message = [&[GO, u8::from(order.device)], order.release.as_bytes()].concat();
        send(self.reports.as_fd(), &message, &[]).map_err(|_| LaunchError::Vanished)
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

/// Kills a child and waits for its end; a first process takes all of its namespace with it.
pub(crate) fn end(child: Pid) {
    let _ = rustix::process::kill_process(child, Signal::KILL);
    loop {
        match rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// A number in a message.
pub(crate) fn number(bytes: &[u8]) -> i32 {
    bytes.try_into().map(i32::from_le_bytes).unwrap_or(0)
}

/// Takes the listener and the handles.
fn collect(socket: &OwnedFd) -> Result<(Listener, Handles), LaunchError> {
    let (bytes, fds) = receive(socket.as_fd(), RecvFlags::empty()).map_err(|_| LaunchError::Vanished)?;
    match bytes.split_first() {
        Some((&READY, _)) => {
            let mut fds = fds.into_iter();
            let mut next = || fds.next().ok_or(LaunchError::Vanished);
            let (listener, cmdline, device) = (next()?, next()?, next()?);
            Ok((Listener::new(listener), Handles { cmdline, device: Some(device), sysfs: fds.next() }))
        }
        Some((&FAILED, what)) => Err(LaunchError::SetUp(String::from_utf8_lossy(what).into_owned())),
        _ => Err(LaunchError::Vanished),
    }
}
