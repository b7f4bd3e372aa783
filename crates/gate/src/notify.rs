//! The listener of a filter: `SECCOMP_RET_USER_NOTIF` as in `seccomp_unotify(2)`.
//!
//! A notified call sleeps until it is answered. Installed with `WAIT_KILLABLE_RECV` (Linux 5.19): a signal that
//! arrives after the notification was received must not restart the call, or it would be served twice.
#![expect(unsafe_code, reason = "ioctls of the listener")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::bpf::Instruction;

/// The call that waits.
pub(crate) type Notification = libc::seccomp_notif;

/// `SECCOMP_FD_SYNC_WAKE_UP`: wake the waiting side on our own processor.
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;
const SET_MODE_FILTER: libc::c_uint = 1;
const GET_NOTIF_SIZES: libc::c_uint = 3;

/// Where a filter's notifications arrive.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// What there is to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Quiet,
    /// Nobody is left under the filter; nothing will ever come. Not a sign that descriptors are closed.
    Orphaned,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Done,
    /// The caller was killed meanwhile.
    Gone,
}

fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// ENOENT and ESRCH say that the caller is gone.
fn delivery(result: io::Result<i32>) -> io::Result<Delivery> {
    match result {
        Ok(_) => Ok(Delivery::Done),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(Delivery::Gone),
        Err(error) => Err(error),
    }
}

impl Listener {
    /// Takes over the descriptor of a listener.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let flags = SYNC_WAKE_UP;
        // SAFETY: the command takes its argument by value; an older kernel refuses it, which costs only speed.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags) };
        Self(fd)
    }

    /// For the event loop, which waits and does not receive.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Whether a notification waits. Receiving without asking would block, whatever the descriptor's flags.
    pub(crate) fn state(&self) -> State {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live `pollfd`, and a timeout of zero.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        match poll.revents {
            _ if ready < 1 => State::Quiet,
            events if events & libc::POLLIN != 0 => State::Pending,
            _ => State::Orphaned,
        }
    }

    /// Takes the next notification; `None` if it went away with its caller.
    pub(crate) fn receive(&self) -> io::Result<Option<Notification>> {
        // SAFETY: all-zero is a valid `seccomp_notif`, and what the kernel asks for.
        let mut notification: Notification = unsafe { std::mem::zeroed() };
        // SAFETY: the command writes one `seccomp_notif` to a live one.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification) };
        match done(result) {
            Ok(_) => Ok(Some(notification)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&self, response: &libc::seccomp_notif_resp) -> io::Result<Delivery> {
        // SAFETY: the command reads one live `seccomp_notif_resp`.
        let result = unsafe {
            let response = std::ptr::from_ref(response);
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, response)
        };
        delivery(done(result))
    }

    /// Lets the call run natively.
    pub(crate) fn go_on(&self, id: u64) -> io::Result<Delivery> {
        self.send(&libc::seccomp_notif_resp { id, val: 0, error: 0, flags: CONTINUE })
    }

    /// Answers with a value, or with minus an error number.
    pub(crate) fn answer(&self, id: u64, value: i64) -> io::Result<Delivery> {
        let error = if value < 0 { i32::try_from(value).unwrap_or(-libc::EIO) } else { 0 };
        self.send(&libc::seccomp_notif_resp { id, val: value.max(0), error, flags: 0 })
    }

    /// Whether the caller still waits: what was read of its memory is its own, and not a successor's.
    pub(crate) fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the command reads one live u64.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
    }

    /// Installs a copy of `file` in the caller, at the lowest free number. `None`: the caller is gone.
    ///
    /// # Errors
    /// EMFILE.
    pub(crate) fn add_fd(&self, id: u64, file: BorrowedFd<'_>, cloexec: bool) -> io::Result<Option<i32>> {
        let srcfd = u32::try_from(file.as_raw_fd()).expect("descriptors are not negative");
        let newfd_flags = if cloexec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
        let request = libc::seccomp_notif_addfd { id, flags: 0, srcfd, newfd: 0, newfd_flags };
        // SAFETY: the command reads one live `seccomp_notif_addfd`.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request) };
        match done(result) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Puts the filter on the calling thread and what it will execute; gives the listener.
///
/// # Errors
/// EBUSY: a filter with a listener is on us already; EACCES: neither privileged nor without new privileges.
pub(crate) fn install(program: &[Instruction]) -> io::Result<OwnedFd> {
    let code: Vec<libc::sock_filter> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = libc::c_ushort::try_from(code.len()).expect("the filter is short");
    let filter = libc::sock_fprog { len, filter: code.as_ptr().cast_mut() };
    // Some hosts switch a mitigation on for whoever has a filter (`spec_store_bypass_disable=seccomp`), which slows
    // it down; no secrets are guarded here.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `filter` points at `len` live instructions, which the kernel copies and checks.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const filter) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the running kernel has user notification at all, with structures of the size we know.
pub(crate) fn supported() -> bool {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the operation writes one live `seccomp_notif_sizes`.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, GET_NOTIF_SIZES, 0, &raw mut sizes) };
    result == 0 && usize::from(sizes.seccomp_notif) <= size_of::<Notification>()
}

const _: () = assert!(size_of::<libc::seccomp_notif>() == 80 && size_of::<libc::seccomp_notif_resp>() == 24);
