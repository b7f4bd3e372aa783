//! What a program passes to the fourth design (September 2025): the device makes named sessions, and a session has
//! commands of its own from 0x40 on.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{I32, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use super::v3::{Fd as SessionFd, FdUnpreserve as SessionUnpreserveFd, Word};

/// Bytes of a session's name with its NUL, where the kernel keeps it.
pub const NAME_LENGTH: usize = 56;
/// Bytes of the name that RETRIEVE_SESSION takes: another number than [`NAME_LENGTH`], by mistake.
pub const RETRIEVE_NAME_LENGTH: usize = 64;
/// Number of the first command of sessions.
pub const SESSION_BASE: u8 = 0x40;

/// Argument of CREATE_SESSION, 64 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateSession {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// Out: the new session descriptor.
    pub fd: I32,
    /// In: name; cut to 55 bytes.
    pub name: [u8; NAME_LENGTH],
}

/// Argument of RETRIEVE_SESSION, 72 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RetrieveSession {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// Out: the new session descriptor.
    pub fd: I32,
    /// In: name; the first 56 bytes are compared.
    pub name: [u8; RETRIEVE_NAME_LENGTH],
}

/// Argument of SESSION_GET_STATE, 12 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionGetState {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// In: read by nobody.
    pub incoming: u8,
    /// In: must be zero, or EOPNOTSUPP.
    pub reserved: [u8; 3],
    /// Out: the session's state.
    pub state: U32,
}

const _: () = {
    assert!(size_of::<CreateSession>() == 64);
    assert!(offset_of!(CreateSession, fd) == 4);
    assert!(offset_of!(CreateSession, name) == 8);
    assert!(size_of::<RetrieveSession>() == 72);
    assert!(offset_of!(RetrieveSession, fd) == 4);
    assert!(offset_of!(RetrieveSession, name) == 8);
    assert!(size_of::<SessionGetState>() == 12);
    assert!(offset_of!(SessionGetState, incoming) == 4);
    assert!(offset_of!(SessionGetState, reserved) == 5);
    assert!(offset_of!(SessionGetState, state) == 8);
};

crate::named! {
    /// A command of the device, in the order of the numbers from 0x00.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum DeviceCommand {
        GetState = "GET_STATE", "writes the state of the machine";
        SetEvent = "SET_EVENT", "moves the machine";
        CreateSession = "CREATE_SESSION", "makes a session";
        RetrieveSession = "RETRIEVE_SESSION", "gives a session of the previous kernel back";
    }
}

crate::named! {
    /// A command of a session, in the order of the numbers from 0x40.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum SessionCommand {
        PreserveFd = "SESSION_PRESERVE_FD", "registers a descriptor under a token";
        UnpreserveFd = "SESSION_UNPRESERVE_FD", "forgets a token";
        RestoreFd = "SESSION_RESTORE_FD", "gives the file of a token back";
        GetState = "SESSION_GET_STATE", "writes the state of the session";
        SetEvent = "SESSION_SET_EVENT", "moves the session";
    }
}

impl DeviceCommand {
    /// The whole number as passed to `ioctl(2)`.
    #[must_use]
    pub const fn code(self) -> u32 {
        0xBA00 + self as u32
    }

    /// Bytes of the structure; also the least a caller may pass.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::GetState | Self::SetEvent => size_of::<Word>(),
            Self::CreateSession => size_of::<CreateSession>(),
            Self::RetrieveSession => size_of::<RetrieveSession>(),
        }
    }
}

impl SessionCommand {
    /// The whole number as passed to `ioctl(2)`.
    #[must_use]
    pub const fn code(self) -> u32 {
        0xBA40 + self as u32
    }

    /// Bytes of the structure; also the least a caller may pass.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::PreserveFd | Self::RestoreFd => size_of::<SessionFd>(),
            Self::UnpreserveFd => size_of::<SessionUnpreserveFd>(),
            Self::GetState => size_of::<SessionGetState>(),
            Self::SetEvent => size_of::<Word>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_those_of_the_header() {
        let device: Vec<_> = DeviceCommand::ALL.iter().map(|one| (one.code(), one.size())).collect();
        assert_eq!(device, [(0xBA00, 8), (0xBA01, 8), (0xBA02, 64), (0xBA03, 72)]);
        let session: Vec<_> = SessionCommand::ALL.iter().map(|one| (one.code(), one.size())).collect();
        assert_eq!(session, [(0xBA40, 16), (0xBA41, 16), (0xBA42, 16), (0xBA43, 12), (0xBA44, 8)]);
    }
}
