//! Errors by name: what an errno means depends on the call that returned it.
//!
//! EINVAL of RETRIEVE_SESSION says "somebody has it already", EINVAL of PRESERVE_FD "this session goes the other
//! way", ENOENT of PRESERVE_FD "no handler for this kind of file". The table is [`Error::from_errno`]. The raw
//! errno and the call are always kept in [`Failure`]. Numbers without a known meaning become [`Error::Other`]:
//! this module does not guess.

use std::{fmt, io};

use crate::name::InvalidName;

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `open(2)` of the device.
    Open,
    /// CREATE_SESSION on the device.
    CreateSession,
    /// RETRIEVE_SESSION on the device.
    RetrieveSession,
    /// PRESERVE_FD on a session.
    PreserveFd,
    /// RETRIEVE_FD on a session.
    RetrieveFd,
    /// FINISH on a session.
    Finish,
    /// GET_NAME on a session.
    GetName,
    /// `readlink(2)` of the session's link in `/proc/self/fd`.
    ReadLink,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::CreateSession => "CREATE_SESSION",
            Self::RetrieveSession => "RETRIEVE_SESSION",
            Self::PreserveFd => "PRESERVE_FD",
            Self::RetrieveFd => "RETRIEVE_FD",
            Self::Finish => "FINISH",
            Self::GetName => "GET_NAME",
            Self::ReadLink => "readlink",
        })
    }
}

/// The call that failed and its raw errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The call.
    pub call: Call,
    /// The errno, as `libc::E*`.
    pub errno: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, io::Error::from_raw_os_error(self.errno))
    }
}

/// A failed call, by what it means and what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device has one opener at a time.
    #[error(
        "{0}: another process has the live update device open; ask it for a session, or wait until it closes"
    )]
    Busy(Failure),
    /// There is no live update device.
    #[error("{0}: no live update device; boot with `kho=on liveupdate=on`, or run under an emulator")]
    NoDevice(Failure),
    /// The device node may not be opened by this user.
    #[error("{0}: the live update device is for its owner only; run as that user or get a session passed")]
    Permission(Failure),
    /// The first open of this boot could not read what the previous kernel left.
    #[error(
        "{0}: this kernel cannot read the previous one's sessions (a file handler may be missing); they stay \
         unreachable until the next boot, see the kernel log"
    )]
    IncomingUnreadable(Failure),
    /// An outgoing session of this name is open somewhere.
    #[error("{0}: an outgoing session of this name is open; close all copies of it, or choose another name")]
    NameExists(Failure),
    /// No incoming session of this name, or no file of this token.
    #[error(
        "{0}: not found; it was never preserved, its session was closed before the kexec, it was finished \
         already, or the two kernels' formats differ"
    )]
    NotFound(Failure),
    /// Another client retrieved the session.
    #[error("{0}: the session was retrieved already; ask its holder to pass it")]
    AlreadyRetrieved(Failure),
    /// The session was taken out of the kernel's list but could not be delivered: it is gone.
    #[error("{0}: the session could not be delivered and its contents are lost; start afresh")]
    SessionLost(Failure),
    /// The token names another file of this session.
    #[error("{0}: the token is in use in this session; choose another")]
    TokenInUse(Failure),
    /// No handler preserves this kind of file.
    #[error("{0}: this kind of file cannot be preserved; use a memfd (without huge pages)")]
    UnsupportedFile(Failure),
    /// The file is in a session, or was retrieved and its session not finished.
    #[error(
        "{0}: the file is preserved already, or its incoming session is not finished; finish that one first"
    )]
    AlreadyPreserved(Failure),
    /// The session or the device has no room for one more.
    #[error("{0}: no room for one more; up to 7.1 a session holds 128 files: use a further session")]
    NoSpace(Failure),
    /// No memory, or (up to 7.1) 819 sessions exist.
    #[error("{0}: out of memory, or the limit of 819 sessions of kernels up to 7.1; close some")]
    NoMemory(Failure),
    /// The descriptor table is full.
    #[error("{0}: no free descriptor number; close some or raise RLIMIT_NOFILE, then call again")]
    TooManyFiles(Failure),
    /// The descriptor to preserve is not open, or opened with `O_PATH`.
    #[error("{0}: the descriptor is not open for use; open it without O_PATH")]
    BadDescriptor(Failure),
    /// The file has more pages than the handler can describe.
    #[error("{0}: the file is too big for its handler; split it")]
    TooBig(Failure),
    /// The session goes the other way.
    #[error(
        "{0}: most likely the session goes the other way: only sessions created here preserve, only sessions \
         of the previous kernel retrieve and finish"
    )]
    WrongDirection(Failure),
    /// A file of the session cannot be finished yet; nothing was changed.
    #[error("{0}: a file is not ready to be finished; complete its own restore, then finish again")]
    NotReady(Failure),
    /// The kernel could not bring a preserved file back, and will not try again.
    #[error("{0}: the preserved file could not be restored; it is lost, see the kernel log")]
    RestoreFailed(Failure),
    /// The descriptor is no session.
    #[error("{0}: the descriptor is not a live update session; check what was passed")]
    NotASession(Failure),
    /// 6.19 cannot show names of more than 38 bytes.
    #[error("{0}: this kernel cannot tell the name of this session; keep names to 38 bytes for kernel 6.19")]
    NameUnreadable(Failure),
    /// The name is not one (found before, or in what a kernel returned).
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Any other errno.
    #[error("{0}")]
    Other(Failure),
}

impl Error {
    /// The error that `errno` means when `call` returns it.
    #[must_use]
    pub fn from_errno(call: Call, errno: i32) -> Self {
        let failure = Failure { call, errno };
        let meaning = match call {
            Call::Open => open_error(errno),
            Call::CreateSession | Call::RetrieveSession => device_error(call, errno),
            Call::PreserveFd => preserve_error(errno),
            Call::RetrieveFd | Call::Finish => incoming_error(call, errno),
            Call::GetName | Call::ReadLink => name_error(errno),
        };
        meaning.or_else(|| common_error(errno)).unwrap_or(Self::Other)(failure)
    }

    /// The call and errno behind the error; none if no call was made.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match *self {
            Self::Name(_) => None,
            Self::Busy(failure)
            | Self::NoDevice(failure)
            | Self::Permission(failure)
            | Self::IncomingUnreadable(failure)
            | Self::NameExists(failure)
            | Self::NotFound(failure)
            | Self::AlreadyRetrieved(failure)
            | Self::SessionLost(failure)
            | Self::TokenInUse(failure)
            | Self::UnsupportedFile(failure)
            | Self::AlreadyPreserved(failure)
            | Self::NoSpace(failure)
            | Self::NoMemory(failure)
            | Self::TooManyFiles(failure)
            | Self::BadDescriptor(failure)
            | Self::TooBig(failure)
            | Self::WrongDirection(failure)
            | Self::NotReady(failure)
            | Self::RestoreFailed(failure)
            | Self::NotASession(failure)
            | Self::NameUnreadable(failure)
            | Self::Other(failure) => Some(failure),
        }
    }

    /// The raw errno; none if no call was made.
    #[must_use]
    pub fn raw_errno(&self) -> Option<i32> {
        self.failure().map(|failure| failure.errno)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = error
            .raw_errno()
            .map_or(io::ErrorKind::InvalidInput, |errno| Self::from_raw_os_error(errno).kind());
        Self::new(kind, error)
    }
}

/// Makes an error of a failure: a variant of [`Error`].
type Meaning = fn(Failure) -> Error;

fn open_error(errno: i32) -> Option<Meaning> {
    Some(match errno {
        libc::EBUSY => Error::Busy,
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoDevice,
        libc::EACCES | libc::EPERM => Error::Permission,
        libc::EIO => Error::IncomingUnreadable,
        _ => return None,
    })
}

fn device_error(call: Call, errno: i32) -> Option<Meaning> {
    Some(match (call, errno) {
        (_, libc::ENOTTY) => Error::NoDevice,
        (Call::CreateSession, libc::EEXIST) => Error::NameExists,
        (Call::RetrieveSession, libc::ENOENT) => Error::NotFound,
        (Call::RetrieveSession, libc::EINVAL) => Error::AlreadyRetrieved,
        (Call::RetrieveSession, libc::EFAULT) => Error::SessionLost,
        _ => return None,
    })
}

fn preserve_error(errno: i32) -> Option<Meaning> {
    Some(match errno {
        libc::EEXIST => Error::TokenInUse,
        libc::ENOENT => Error::UnsupportedFile,
        libc::EBUSY => Error::AlreadyPreserved,
        libc::EBADF => Error::BadDescriptor,
        libc::EFBIG => Error::TooBig,
        libc::EINVAL => Error::WrongDirection,
        libc::ENOTTY => Error::NotASession,
        _ => return None,
    })
}

fn incoming_error(call: Call, errno: i32) -> Option<Meaning> {
    Some(match (call, errno) {
        (Call::RetrieveFd, libc::ENOENT) => Error::NotFound,
        (Call::RetrieveFd, libc::EIO) => Error::RestoreFailed,
        (Call::Finish, libc::EBUSY) => Error::NotReady,
        (_, libc::EINVAL) => Error::WrongDirection,
        (_, libc::ENOTTY) => Error::NotASession,
        _ => return None,
    })
}

fn name_error(errno: i32) -> Option<Meaning> {
    Some(match errno {
        libc::ENOTTY | libc::EINVAL => Error::NotASession,
        libc::ENAMETOOLONG => Error::NameUnreadable,
        _ => return None,
    })
}

fn common_error(errno: i32) -> Option<Meaning> {
    Some(match errno {
        libc::ENOMEM => Error::NoMemory,
        libc::ENOSPC => Error::NoSpace,
        libc::EMFILE | libc::ENFILE => Error::TooManyFiles,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(call: Call, errno: i32) -> Error {
        let error = Error::from_errno(call, errno);
        assert_eq!(error.failure(), Some(Failure { call, errno }));
        error
    }

    #[test]
    fn one_errno_means_different_things() {
        assert!(matches!(of(Call::Open, libc::EBUSY), Error::Busy(_)));
        assert!(matches!(of(Call::PreserveFd, libc::EBUSY), Error::AlreadyPreserved(_)));
        assert!(matches!(of(Call::Finish, libc::EBUSY), Error::NotReady(_)));
        assert!(matches!(of(Call::Open, libc::ENOENT), Error::NoDevice(_)));
        assert!(matches!(of(Call::PreserveFd, libc::ENOENT), Error::UnsupportedFile(_)));
        assert!(matches!(of(Call::RetrieveFd, libc::ENOENT), Error::NotFound(_)));
        assert!(matches!(of(Call::RetrieveSession, libc::EINVAL), Error::AlreadyRetrieved(_)));
        assert!(matches!(of(Call::PreserveFd, libc::EINVAL), Error::WrongDirection(_)));
        assert!(matches!(of(Call::CreateSession, libc::EEXIST), Error::NameExists(_)));
        assert!(matches!(of(Call::PreserveFd, libc::EEXIST), Error::TokenInUse(_)));
    }

    #[test]
    fn unknown_numbers_are_kept() {
        let error = of(Call::Finish, libc::EXDEV);
        assert!(matches!(error, Error::Other(_)));
        assert_eq!(error.raw_errno(), Some(libc::EXDEV));
        assert!(error.to_string().starts_with("FINISH: "));
    }

    #[test]
    fn full_tables_are_the_same_everywhere() {
        for call in [Call::CreateSession, Call::RetrieveSession, Call::RetrieveFd, Call::Open] {
            assert!(matches!(of(call, libc::EMFILE), Error::TooManyFiles(_)));
        }
        assert!(matches!(of(Call::PreserveFd, libc::ENOSPC), Error::NoSpace(_)));
        assert!(matches!(of(Call::CreateSession, libc::ENOMEM), Error::NoMemory(_)));
    }

    #[test]
    fn io_error_keeps_the_kind_and_the_text() {
        let error = io::Error::from(of(Call::RetrieveFd, libc::ENOENT));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("never preserved"));
        let error = io::Error::from(Error::Name(InvalidName::Empty));
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
