//! Sessions: groups of preserved files, alive as long as one copy of their descriptor is open.
//!
//! Mirrors the kernel's session descriptors; which way a session goes is in the type. Descriptors can be passed to
//! other processes (fork, exec without close-on-exec, SCM_RIGHTS) and become sessions again with `from_fd`.
//! The direction of a received descriptor is not checked: no command tells it; the first wrong call gives
//! [`Error::WrongDirection`] (6.19 does not notice).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use crate::error::{Call, Error};
use crate::name::SessionName;
use crate::sys;

/// What precedes the name in the link text of a session descriptor.
const LINK_PREFIX: &[u8] = b"anon_inode:[luo_session] ";

/// A session made in this kernel, for the next one.
///
/// Hold it until the kexec: with the last copy closed everything in it is given up and the name is free again.
#[derive(Debug)]
pub struct OutgoingSession(OwnedFd);

/// A session of the previous kernel.
///
/// Closing the last copy is an implicit [`finish`](Self::finish). It is not carried on to the kernel after this one.
#[derive(Debug)]
pub struct IncomingSession(OwnedFd);

impl OutgoingSession {
    /// Preserves the file behind `fd` under `token`, any number not used in this session.
    ///
    /// The descriptor may be closed afterwards: the session holds the file. A memfd can still be written in place;
    /// its size is frozen and seals added from now on will be lost. There is no way to take one file out again but
    /// closing the whole session.
    ///
    /// # Errors
    /// [`Error::TokenInUse`], [`Error::NoSpace`], [`Error::UnsupportedFile`], [`Error::AlreadyPreserved`],
    /// [`Error::TooBig`], [`Error::BadDescriptor`], [`Error::WrongDirection`], [`Error::NoMemory`].
    pub fn preserve(&self, fd: impl AsFd, token: u64) -> Result<(), Error> {
        sys::preserve(self.as_fd(), fd.as_fd().as_raw_fd(), token)
    }
}

impl IncomingSession {
    /// Gets the file of `token` back, as a close-on-exec descriptor.
    ///
    /// The file is open for reading and writing, at the position it had at the kexec: seek before reading. Another
    /// call gives another descriptor of the same open file.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RestoreFailed`], [`Error::WrongDirection`], [`Error::TooManyFiles`].
    pub fn retrieve(&self, token: u64) -> Result<OwnedFd, Error> {
        sys::retrieve(self.as_fd(), token)
    }

    /// Ends the session: what was not retrieved is discarded, what was retrieved becomes ordinary files.
    ///
    /// Only then can they be preserved again. All holders of the session are affected; a second call is good too.
    /// The name is free for nobody until the session is closed.
    ///
    /// # Errors
    /// [`Error::NotReady`], [`Error::WrongDirection`].
    pub fn finish(&self) -> Result<(), Error> {
        sys::finish(self.as_fd())
    }
}

/// GET_NAME, or the link text where the kernel does not know the command (before 7.2).
fn name_of(fd: BorrowedFd<'_>) -> Result<SessionName, Error> {
    match sys::get_name(fd) {
        Ok(field) => Ok(SessionName::from_field(&field)?),
        Err(error) if matches!(error.raw_errno(), Some(libc::EINVAL | libc::ENOTTY | libc::EOPNOTSUPP)) => {
            name_of_link(fd)
        }
        Err(error) => Err(error),
    }
}

fn name_of_link(fd: BorrowedFd<'_>) -> Result<SessionName, Error> {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map_err(|error| Error::from_errno(Call::ReadLink, error.raw_os_error().unwrap_or(libc::EIO)))?;
    name_in_link(target.as_os_str().as_bytes())
}

/// The name in `anon_inode:[luo_session] NAME`.
fn name_in_link(text: &[u8]) -> Result<SessionName, Error> {
    let name = text.strip_prefix(LINK_PREFIX).ok_or(Error::from_errno(Call::ReadLink, libc::ENOTTY))?;
    Ok(SessionName::new(name)?)
}

macro_rules! descriptor {
    ($($session:ident),*) => {$(
        impl $session {
            /// Makes a session of a received or inherited descriptor, checking that it is one.
            ///
            /// Its direction cannot be checked.
            ///
            /// # Errors
            /// [`Error::NotASession`]; the descriptor is closed then.
            pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
                match name_of(fd.as_fd()) {
                    // Names that cannot be shown are still sessions.
                    Ok(_) | Err(Error::NameUnreadable(_) | Error::Name(_)) => Ok(Self(fd)),
                    Err(error) => Err(error),
                }
            }

            /// The name it was made with.
            ///
            /// # Errors
            /// [`Error::NotASession`], [`Error::NameUnreadable`] on 6.19 for names over 38 bytes.
            pub fn name(&self) -> Result<SessionName, Error> {
                name_of(self.as_fd())
            }

            /// Another descriptor of the same session: it lives until both are closed.
            ///
            /// # Errors
            /// Of the operating system, such as a full descriptor table.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                self.0.try_clone().map(Self)
            }
        }

        /// Without any check; see `from_fd`.
        impl From<OwnedFd> for $session {
            fn from(fd: OwnedFd) -> Self {
                Self(fd)
            }
        }

        impl From<$session> for OwnedFd {
            fn from(session: $session) -> Self {
                session.0
            }
        }

        impl AsFd for $session {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $session {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl IntoRawFd for $session {
            fn into_raw_fd(self) -> RawFd {
                self.0.into_raw_fd()
            }
        }
    )*};
}

descriptor!(OutgoingSession, IncomingSession);

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_link_text_ends_in_the_name() {
        let name = |text: &[u8]| name_in_link(text);
        assert_eq!(name(b"anon_inode:[luo_session] a b\n/c").unwrap().as_bytes(), b"a b\n/c");
        assert!(matches!(name(b"anon_inode:[eventfd]"), Err(Error::NotASession(_))));
        assert!(matches!(name(b"/dev/null"), Err(Error::NotASession(_))));
        assert!(matches!(name(b"anon_inode:[luo_session] "), Err(Error::Name(_))));
    }

    #[test]
    fn other_descriptors_are_no_sessions() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        assert!(matches!(OutgoingSession::from_fd(null()), Err(Error::NotASession(_))));
        assert!(matches!(IncomingSession::from_fd(null()), Err(Error::NotASession(_))));
        let session = IncomingSession::from(null());
        assert!(matches!(session.retrieve(1), Err(Error::NotASession(_))));
        assert!(matches!(session.finish(), Err(Error::NotASession(_))));
    }

    #[test]
    fn the_descriptor_goes_in_and_out() {
        let session = OutgoingSession::from(OwnedFd::from(File::open("/dev/null").unwrap()));
        let number = session.as_raw_fd();
        let copy = session.try_clone().unwrap();
        assert_ne!(copy.as_raw_fd(), number);
        assert_eq!(OwnedFd::from(session).as_raw_fd(), number);
    }
}
