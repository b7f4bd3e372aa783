//! The user interface of `/dev/liveupdate` and of session descriptors (`linux/liveupdate.h`).
//!
//! Every command is `_IO(0xBA, nr)`: no direction and no size in the number; the size is the first field of
//! the structure, so that structures may grow. Commands of the device have numbers from 0, commands of a
//! session from 0x40. Which commands a release knows is in [`crate::release::Release::session_commands`].

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The type byte of every command, bits 15:8.
pub const TYPE: u32 = 0xBA;
/// First command number of a session descriptor; everything below belongs to the device.
pub const SESSION_BASE: u8 = 0x40;
/// Bytes of a session name field, the terminating NUL included.
pub const NAME_LEN: usize = 64;
/// Path of the device node.
pub const DEVICE_PATH: &str = "/dev/liveupdate";

/// A command number as passed to `ioctl(2)`: `_IO(0xBA, nr)`.
const fn io(nr: u32) -> u32 {
    (TYPE << 8) | nr
}

/// The commands of every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Make an outgoing session. Device.
    CreateSession,
    /// Take over an incoming session. Device.
    RetrieveSession,
    /// Preserve a descriptor under a token. Outgoing session.
    PreserveFd,
    /// Get a preserved file back. Incoming session.
    RetrieveFd,
    /// Give up what was not retrieved. Incoming session.
    Finish,
    /// Read the name. Any session, 7.2 and later.
    GetName,
}

impl Command {
    /// All commands, device first, ascending by number.
    pub const ALL: [Self; 6] = [
        Self::CreateSession,
        Self::RetrieveSession,
        Self::PreserveFd,
        Self::RetrieveFd,
        Self::Finish,
        Self::GetName,
    ];

    /// Number within the type byte, bits 7:0.
    #[must_use]
    pub const fn nr(self) -> u8 {
        match self {
            Self::CreateSession => 0x00,
            Self::RetrieveSession => 0x01,
            Self::PreserveFd => 0x40,
            Self::RetrieveFd => 0x41,
            Self::Finish => 0x42,
            Self::GetName => 0x43,
        }
    }

    /// The whole number as passed to `ioctl(2)`, `0xBA40`.
    #[must_use]
    pub const fn code(self) -> u32 {
        io(self.nr() as u32)
    }

    /// Bytes of the structure this release of the header knows; also the least a caller may pass.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::CreateSession | Self::RetrieveSession => size_of::<SessionArg>(),
            Self::PreserveFd | Self::RetrieveFd => size_of::<FdArg>(),
            Self::Finish => size_of::<FinishArg>(),
            Self::GetName => size_of::<GetNameArg>(),
        }
    }

    /// Name in transcripts, `PRESERVE_FD`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateSession => "CREATE_SESSION",
            Self::RetrieveSession => "RETRIEVE_SESSION",
            Self::PreserveFd => "PRESERVE_FD",
            Self::RetrieveFd => "RETRIEVE_FD",
            Self::Finish => "FINISH",
            Self::GetName => "GET_NAME",
        }
    }

    /// Which sessions may be given this command, where the release checks it.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::PreserveFd => Direction::Outgoing,
            Self::RetrieveFd | Self::Finish => Direction::Incoming,
            Self::GetName | Self::CreateSession | Self::RetrieveSession => Direction::Both,
        }
    }

    /// The command with this whole number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.code() == code)
    }
}

/// Where a session came from: made here, or by the previous kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Made by CREATE_SESSION in this kernel, for the next.
    Outgoing,
    /// Made by the previous kernel, obtained by RETRIEVE_SESSION.
    Incoming,
    /// Either.
    Both,
}

/// Argument of CREATE_SESSION and RETRIEVE_SESSION, 72 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionArg {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// Out: the new session descriptor.
    pub fd: I32,
    /// In: name, NUL-terminated.
    pub name: [u8; NAME_LEN],
}

/// Argument of PRESERVE_FD and RETRIEVE_FD, 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FdArg {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// PRESERVE_FD, in: descriptor to preserve. RETRIEVE_FD, out: the new descriptor.
    pub fd: I32,
    /// In: the user's name for the file, unique in the session; any value.
    pub token: U64,
}

/// Argument of FINISH, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FinishArg {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// In: must be zero from 7.2 on; ignored before.
    pub reserved: U32,
}

/// Argument of GET_NAME, 72 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetNameArg {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// In: must be zero.
    pub reserved: U32,
    /// Out: name as NUL-terminated text; bytes after the NUL are left as the caller gave them.
    pub name: [u8; NAME_LEN],
}

const _: () = {
    assert!(size_of::<SessionArg>() == 72);
    assert!(offset_of!(SessionArg, size) == 0);
    assert!(offset_of!(SessionArg, fd) == 4);
    assert!(offset_of!(SessionArg, name) == 8);
    assert!(size_of::<FdArg>() == 16);
    assert!(offset_of!(FdArg, size) == 0);
    assert!(offset_of!(FdArg, fd) == 4);
    assert!(offset_of!(FdArg, token) == 8);
    assert!(size_of::<FinishArg>() == 8);
    assert!(offset_of!(FinishArg, reserved) == 4);
    assert!(size_of::<GetNameArg>() == 72);
    assert!(offset_of!(GetNameArg, reserved) == 4);
    assert!(offset_of!(GetNameArg, name) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_carry_no_direction_and_no_size() {
        let codes: Vec<u32> = Command::ALL.iter().map(|command| command.code()).collect();
        assert_eq!(codes, [0xBA00, 0xBA01, 0xBA40, 0xBA41, 0xBA42, 0xBA43]);
        assert_eq!(Command::from_code(0xBA42), Some(Command::Finish));
        assert_eq!(Command::from_code(0xC048_BA00), None);
    }

    #[test]
    fn sizes_are_those_of_the_header() {
        let sizes: Vec<usize> = Command::ALL.iter().map(|command| command.size()).collect();
        assert_eq!(sizes, [72, 72, 16, 16, 8, 72]);
    }
}
