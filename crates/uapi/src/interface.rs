//! An ioctl interface as data: commands with their numbers, structures with their members, and the order in which a
//! kernel refuses.
//!
//! The same description is made of a release ([`release`]), whose numbers and offsets come from the structures that the
//! simulated kernel uses, and of a C header ([`of_header`]). [`crate::diff`] and [`crate::collide`] work on it.

mod of_header;
mod posted;
mod releases;

use serde::Serialize;

pub(crate) use of_header::is_room;
pub use of_header::of_header;
pub use releases::{NAMES, release};

use crate::header::Transfer;

/// What kind of descriptor a command is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fd {
    /// A descriptor of the device.
    Device,
    /// A descriptor of a session.
    Session,
    /// A header does not say.
    Any,
}

impl Fd {
    /// One word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Session => "session",
            Self::Any => "any",
        }
    }

    /// Whether a descriptor may be of both kinds.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }
}

/// What a member of a structure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The bytes of the structure as the program knows it.
    Size,
    /// The program gives it.
    In,
    /// The kernel gives it.
    Out,
    /// Both.
    InOut,
    /// Must be zero until it is given a meaning; a kernel refuses anything else.
    Reserved,
    /// Meant to be zero, but no kernel looks.
    Unchecked,
    /// A header does not say.
    Unknown,
}

impl Role {
    /// One word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::In => "in",
            Self::Out => "out",
            Self::InOut => "in-out",
            Self::Reserved => "reserved",
            Self::Unchecked => "unchecked",
            Self::Unknown => "",
        }
    }

    /// Whether the program must give it a meaning.
    #[must_use]
    pub const fn is_given(self) -> bool {
        matches!(self, Self::In | Self::InOut)
    }

    /// Whether it is room for later.
    #[must_use]
    pub const fn is_room(self) -> bool {
        matches!(self, Self::Reserved | Self::Unchecked)
    }
}

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name; with those of the structures that it is in.
    pub name: String,
    /// Its type in C.
    #[serde(rename = "type")]
    pub of: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// What it is for.
    pub role: Role,
}

impl Field {
    /// The byte behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// What a command passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// `struct x`, or the plain type that is passed by a bare pointer.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The least that a program may pass; a header does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Members by offset. None in a plain type.
    pub fields: Vec<Field>,
}

impl Argument {
    /// Whether its first member is its size: it can grow.
    #[must_use]
    pub fn is_extensible(&self) -> bool {
        self.fields.first().is_some_and(|field| field.role == Role::Size)
    }

    /// The least size, as far as it can be told: what is said, or the end of the last member that a program must give.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.min_size.unwrap_or(self.size)
    }

    /// The members that overlap a range of bytes.
    pub fn over(&self, start: u64, end: u64) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.offset < end && field.end() > start)
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// The name of its macro.
    pub name: String,
    /// The whole number as passed to `ioctl(2)`.
    pub number: u32,
    /// Which descriptors have it.
    pub fd: Fd,
    /// What it passes; nothing, or a header does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<Argument>,
    /// What it is refused with, in the order in which it is looked for; empty where a header does not say.
    pub refusals: Vec<String>,
}

impl Command {
    /// The direction bits.
    #[must_use]
    pub const fn transfer(&self) -> Transfer {
        Transfer::of(self.number)
    }

    /// The size bits, in bytes.
    #[must_use]
    pub const fn number_size(&self) -> u32 {
        self.number >> 16 & 0x3fff
    }

    /// Bits 15:8.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.number >> 8 & 0xff
    }

    /// Bits 7:0.
    #[must_use]
    pub const fn nr(&self) -> u32 {
        self.number & 0xff
    }
}

/// How a kernel finds the command of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dispatch {
    /// By the whole number; anything else is ENOTTY.
    WholeNumber,
    /// By the low byte in a table of each kind of descriptor: beyond it EINVAL, another type, direction or size ENOTTY.
    Table,
    /// A header does not say.
    Unknown,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// `7.3`, `posted-v2`, or the name of a header.
    pub name: String,
    /// A line about it.
    pub about: String,
    /// How a number is found.
    pub dispatch: Dispatch,
    /// Commands in order of descriptor and number.
    pub commands: Vec<Command>,
    /// Numbers with names that programs pass or are given: states, events.
    pub values: Vec<Value>,
    /// What is not known of it.
    pub unknown: Vec<String>,
}

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Value {
    /// What it is a value of.
    pub of: String,
    /// Its name.
    pub name: String,
    /// The number.
    pub value: i128,
}

impl Interface {
    /// The command with this name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name == name)
    }

    /// What a kernel with this interface runs when a descriptor of this kind is given this number.
    pub fn runs(&self, fd: Fd, number: u32) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(move |command| command.number == number && command.fd.meets(fd))
    }

    /// How a kernel with this interface refuses a number that none of its commands has.
    #[must_use]
    pub fn refuses(&self, fd: Fd, number: u32) -> &'static str {
        let in_table = |command: &&Command| command.fd.meets(fd) && command.nr() == number & 0xff;
        match self.dispatch {
            Dispatch::WholeNumber => "ENOTTY",
            Dispatch::Table if self.commands.iter().any(|command| in_table(&command)) => "ENOTTY",
            Dispatch::Table => "EINVAL",
            Dispatch::Unknown => "ENOTTY or EINVAL",
        }
    }
}
