//! The device: where sessions are made and taken over.
//!
//! Mirrors `/dev/liveupdate`: one opener at a time, opened by path, two commands. Closing it has no effect on
//! sessions. It does not keep a list of sessions: the kernel has no command for that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::error::{Call, Error};
use crate::name::SessionName;
use crate::session::{IncomingSession, OutgoingSession};
use crate::sys;

/// Where the device is.
pub const DEVICE_PATH: &str = "/dev/liveupdate";

/// The open device. Nobody else can open it until the last copy is closed, so close it when the sessions are made.
#[derive(Debug)]
pub struct LiveUpdate(OwnedFd);

impl LiveUpdate {
    /// Opens [`DEVICE_PATH`].
    ///
    /// The first open of a boot reads what the previous kernel left.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Busy`], [`Error::Permission`], [`Error::IncomingUnreadable`].
    pub fn open() -> Result<Self, Error> {
        Self::open_at(DEVICE_PATH)
    }

    /// Opens the device at another path, as in a container or a chroot.
    ///
    /// ```
    /// use liveupdate::{Error, LiveUpdate};
    ///
    /// assert!(matches!(LiveUpdate::open_at("/dev/no-such-device"), Err(Error::NoDevice(_))));
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, Error> {
        // Read and write, as all clients do, though the kernel does not look at the mode. std adds O_CLOEXEC.
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.map_err(|error| open_error(&error))?;
        Ok(Self(file.into()))
    }

    /// Makes a session for the next kernel. Its descriptor is close-on-exec.
    ///
    /// ```no_run
    /// # use liveupdate::{LiveUpdate, SessionName};
    /// let session = LiveUpdate::open()?.create_session(&SessionName::new("vm-7")?)?;
    /// # Ok::<(), liveupdate::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NameExists`], [`Error::NoSpace`], [`Error::NoMemory`], [`Error::TooManyFiles`].
    pub fn create_session(&self, name: &SessionName) -> Result<OutgoingSession, Error> {
        sys::session(self.as_fd(), Call::CreateSession, name.field()).map(OutgoingSession::from)
    }

    /// Takes over a session of the previous kernel.
    ///
    /// A session can be taken once; closing the last copy of it discards what was not retrieved.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AlreadyRetrieved`], [`Error::TooManyFiles`].
    pub fn retrieve_session(&self, name: &SessionName) -> Result<IncomingSession, Error> {
        sys::session(self.as_fd(), Call::RetrieveSession, name.field()).map(IncomingSession::from)
    }
}

fn open_error(error: &io::Error) -> Error {
    // Without an errno the path had a NUL: no such file.
    Error::from_errno(Call::Open, error.raw_os_error().unwrap_or(libc::ENOENT))
}

/// Wraps a device descriptor that was inherited or received; it is not checked.
impl From<OwnedFd> for LiveUpdate {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<LiveUpdate> for OwnedFd {
    fn from(device: LiveUpdate) -> Self {
        device.0
    }
}

impl AsFd for LiveUpdate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LiveUpdate {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl IntoRawFd for LiveUpdate {
    fn into_raw_fd(self) -> RawFd {
        self.0.into_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_errors_have_names() {
        let dir = tempfile::tempdir().unwrap();
        let error = LiveUpdate::open_at(dir.path().join("none")).unwrap_err();
        assert!(matches!(error, Error::NoDevice(_)), "{error}");
        let error = LiveUpdate::open_at("/a\0b").unwrap_err();
        assert!(matches!(error, Error::NoDevice(_)), "{error}");
        let error = LiveUpdate::open_at(dir.path()).unwrap_err();
        assert_eq!(error.raw_errno(), Some(libc::EISDIR));
    }

    #[test]
    fn a_file_that_is_no_device_makes_no_sessions() {
        let device = LiveUpdate::open_at("/dev/null").unwrap();
        let name = SessionName::new("s").unwrap();
        assert!(matches!(device.create_session(&name), Err(Error::NoDevice(_))));
        assert!(matches!(device.retrieve_session(&name), Err(Error::NoDevice(_))));
    }
}
