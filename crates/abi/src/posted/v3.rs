//! What a program passes to the third design (August 2025): the first with a size as the first member, plain `_IO`
//! numbers without gaps, a structure for each command.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Argument of FD_PRESERVE and FD_RESTORE, 16 bytes: two structures of the header with the same members.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fd {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// FD_PRESERVE, in: descriptor to preserve. FD_RESTORE, out: the new descriptor.
    pub fd: I32,
    /// In: the program's name for the file.
    pub token: U64,
}

/// Argument of FD_UNPRESERVE, 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FdUnpreserve {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// Padding of the compiler, without a name in the header; nobody looks.
    pub hole: U32,
    /// In: the token.
    pub token: U64,
}

/// Argument of GET_STATE and SET_EVENT, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Word {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// GET_STATE, out: the state. SET_EVENT, in: the event.
    pub value: U32,
}

/// Argument of GET_FD_STATE, 24 bytes, of which 16 are enough for the kernel to go on.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FdState {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// In: not 0: the token is one of the previous kernel's.
    pub incoming: u8,
    /// Padding of the compiler; nobody looks.
    pub hole: [u8; 3],
    /// In: the token.
    pub token: U64,
    /// Out: the file's state.
    pub state: U32,
    /// Padding of the compiler at the end.
    pub tail: U32,
}

/// Argument of SET_FD_EVENT, 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FdEvent {
    /// In: bytes of the structure as the caller knows it.
    pub size: U32,
    /// In: the event.
    pub event: U32,
    /// In: the token.
    pub token: U64,
}

const _: () = {
    assert!(size_of::<Fd>() == 16);
    assert!(offset_of!(Fd, size) == 0);
    assert!(offset_of!(Fd, fd) == 4);
    assert!(offset_of!(Fd, token) == 8);
    assert!(size_of::<FdUnpreserve>() == 16);
    assert!(offset_of!(FdUnpreserve, token) == 8);
    assert!(size_of::<Word>() == 8);
    assert!(offset_of!(Word, value) == 4);
    assert!(size_of::<FdState>() == 24);
    assert!(offset_of!(FdState, incoming) == 4);
    assert!(offset_of!(FdState, token) == 8);
    assert!(offset_of!(FdState, state) == 16);
    assert!(size_of::<FdEvent>() == 16);
    assert!(offset_of!(FdEvent, event) == 4);
    assert!(offset_of!(FdEvent, token) == 8);
};

crate::named! {
    /// A command of the device, in the order of the numbers from 0x00.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Command {
        FdPreserve = "FD_PRESERVE", "registers a descriptor under a token";
        FdUnpreserve = "FD_UNPRESERVE", "forgets a token";
        FdRestore = "FD_RESTORE", "gives the file of a token back";
        GetState = "GET_STATE", "writes the state of the machine";
        SetEvent = "SET_EVENT", "moves the machine";
        GetFdState = "GET_FD_STATE", "writes the state of a file";
        SetFdEvent = "SET_FD_EVENT", "moves a file";
    }
}

impl Command {
    /// The whole number as passed to `ioctl(2)`.
    #[must_use]
    pub const fn code(self) -> u32 {
        0xBA00 + self as u32
    }

    /// Bytes of the structure.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::FdPreserve | Self::FdRestore => size_of::<Fd>(),
            Self::FdUnpreserve => size_of::<FdUnpreserve>(),
            Self::GetState | Self::SetEvent => size_of::<Word>(),
            Self::GetFdState => size_of::<FdState>(),
            Self::SetFdEvent => size_of::<FdEvent>(),
        }
    }

    /// The least size that a caller may pass: the end of the last member that the kernel must be given.
    #[must_use]
    pub const fn min_size(self) -> usize {
        match self {
            Self::GetFdState => offset_of!(FdState, state),
            other => other.size(),
        }
    }
}
