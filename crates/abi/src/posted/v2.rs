//! What a program passes to the second design (July 2025, the same as in the first of June): direction and size are in
//! the command number, one structure serves two commands, and number 0x05 is a hole.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Direction bits of a number: the kernel reads the argument.
const IOW: u32 = 1 << 30;
/// Direction bits of a number: the kernel writes the argument.
const IOR: u32 = 2 << 30;

#[expect(clippy::cast_possible_truncation, reason = "structures have a few bytes; a const fn cannot convert")]
const fn number(direction: u32, nr: u32, size: usize) -> u32 {
    direction | (size as u32) << 16 | 0xBA00 | nr
}

/// Argument of FD_PRESERVE and FD_RESTORE, 16 bytes. The header has `int` for the descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LiveupdateFd {
    /// FD_PRESERVE, in: descriptor to preserve. FD_RESTORE, out: the new descriptor.
    pub fd: I32,
    /// In: documented as 0; nobody looks.
    pub flags: U32,
    /// In: the program's name for the file, unique over all opens of the device.
    pub token: U64,
}

const _: () = {
    assert!(size_of::<LiveupdateFd>() == 16);
    assert!(offset_of!(LiveupdateFd, fd) == 0);
    assert!(offset_of!(LiveupdateFd, flags) == 4);
    assert!(offset_of!(LiveupdateFd, token) == 8);
    assert!(Command::FdPreserve.code() == 0x4010_BA00);
    assert!(Command::FdUnpreserve.code() == 0x4008_BA01);
    assert!(Command::FdRestore.code() == 0xC010_BA02);
    assert!(Command::GetState.code() == 0x8004_BA03);
    assert!(Command::Prepare.code() == 0x0000_BA04);
    assert!(Command::Cancel.code() == 0x0000_BA06);
    assert!(Command::Finish.code() == 0x0000_BA07);
};

crate::named! {
    /// A command of the device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Command {
        FdPreserve = "FD_PRESERVE", "registers a descriptor under a token";
        FdUnpreserve = "FD_UNPRESERVE", "forgets a token; the argument is a pointer to it";
        FdRestore = "FD_RESTORE", "gives the file of a token back";
        GetState = "GET_STATE", "writes the state, 4 bytes";
        Prepare = "PREPARE", "no argument";
        Cancel = "CANCEL", "no argument";
        Finish = "FINISH", "no argument";
    }
}

/// The number in the hole: FREEZE in the design before, a command of files in the design after.
pub const HOLE: u32 = 0x0000_BA05;

impl Command {
    /// The whole number as passed to `ioctl(2)`.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::FdPreserve => number(IOW, 0, size_of::<LiveupdateFd>()),
            Self::FdUnpreserve => number(IOW, 1, size_of::<U64>()),
            Self::FdRestore => number(IOW | IOR, 2, size_of::<LiveupdateFd>()),
            Self::GetState => number(IOR, 3, size_of::<U32>()),
            Self::Prepare => number(0, 4, 0),
            Self::Cancel => number(0, 6, 0),
            Self::Finish => number(0, 7, 0),
        }
    }

    /// The command with this whole number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|command| command.code() == code)
    }
}
