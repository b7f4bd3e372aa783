//! The types of C, with their sizes on the two machines that a header must agree on.

use std::ops::Range;

use super::items::Record;

/// A machine whose rules of layout count. The two differ in `long`, in pointers, and in the alignment of 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// 64-bit programs.
    X86_64,
    /// 32-bit programs, which a 64-bit kernel serves too.
    I386,
}

/// Bytes and alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
}

/// What a plain type is good for in a structure that programs and kernels share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// The same bytes everywhere: `__u32`, `uint8_t`.
    Fixed,
    /// A character: the same everywhere, but with or without sign.
    Char,
    /// Nobody promises the width: `int`, `unsigned short`, `long long`.
    Plain,
    /// Another width in 32-bit programs: `long`, `size_t`.
    Long,
    /// `bool`.
    Bool,
    /// A number with a point.
    Float,
}

/// A type that is made of no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Bytes on a 64-bit machine.
    pub size: u64,
    /// Bytes on a 32-bit machine.
    pub size32: u64,
    /// Alignment on a 32-bit machine; on a 64-bit one it is the size.
    pub align32: u64,
    /// Whether it has a sign.
    pub signed: bool,
    /// What it is good for.
    pub width: Width,
}

impl Plain {
    /// A fixed type of `size` bytes.
    const fn fixed(size: u64, signed: bool) -> Self {
        let align32 = if size < 4 { size } else { 4 };
        Self { size, size32: size, align32, signed, width: Width::Fixed }
    }

    const fn of(size: u64, size32: u64, signed: bool, width: Width) -> Self {
        let align32 = if size32 < 4 { size32 } else { 4 };
        Self { size, size32, align32, signed, width }
    }

    /// Its room on a machine.
    #[must_use]
    pub const fn room(self, target: Target) -> Room {
        match target {
            Target::X86_64 => Room { size: self.size, align: self.size },
            Target::I386 => Room { size: self.size32, align: self.align32 },
        }
    }

    /// The type with this single name: one of C's, of the kernel's or of `stdint.h`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "__u8" | "u8" | "uint8_t" => Self::fixed(1, false),
            "__s8" | "s8" | "int8_t" => Self::fixed(1, true),
            "__u16" | "u16" | "uint16_t" | "__le16" | "__be16" | "__sum16" => Self::fixed(2, false),
            "__s16" | "s16" | "int16_t" => Self::fixed(2, true),
            "__u32" | "u32" | "uint32_t" | "__le32" | "__be32" | "__wsum" | "__poll_t" => {
                Self::fixed(4, false)
            }
            "__s32" | "s32" | "int32_t" => Self::fixed(4, true),
            "__u64" | "u64" | "uint64_t" | "__le64" | "__be64" => Self::fixed(8, false),
            "__s64" | "s64" | "int64_t" | "__kernel_loff_t" | "__kernel_time64_t" => Self::fixed(8, true),
            "__aligned_u64" | "__aligned_le64" | "__aligned_be64" => {
                Self { align32: 8, ..Self::fixed(8, false) }
            }
            "__aligned_s64" => Self { align32: 8, ..Self::fixed(8, true) },
            "bool" | "_Bool" => Self::of(1, 1, false, Width::Bool),
            "char" => Self::of(1, 1, true, Width::Char),
            "short" => Self::of(2, 2, true, Width::Plain),
            "int" | "signed" | "__kernel_pid_t" | "pid_t" | "__kernel_key_t" | "key_t" => {
                Self::of(4, 4, true, Width::Plain)
            }
            "unsigned" | "__kernel_uid32_t" | "__kernel_gid32_t" | "uid_t" | "gid_t" | "mode_t" => {
                Self::of(4, 4, false, Width::Plain)
            }
            "long"
            | "ssize_t"
            | "off_t"
            | "time_t"
            | "__kernel_long_t"
            | "__kernel_ssize_t"
            | "__kernel_off_t"
            | "__kernel_time_t"
            | "__kernel_old_time_t"
            | "__kernel_suseconds_t"
            | "__kernel_clock_t"
            | "__kernel_ptrdiff_t"
            | "intptr_t" => Self::of(8, 4, true, Width::Long),
            "size_t" | "__kernel_size_t" | "__kernel_ulong_t" | "uintptr_t" => {
                Self::of(8, 4, false, Width::Long)
            }
            "float" => Self::of(4, 4, true, Width::Float),
            "double" => Self::of(8, 8, true, Width::Float),
            _ => return None,
        })
    }

    /// The type with these words, in any order: `unsigned long int`.
    #[must_use]
    pub fn worded(words: &[&str]) -> Option<Self> {
        if let [word] = words {
            return Self::named(word);
        }
        let count = |wanted: &str| words.iter().filter(|word| **word == wanted).count();
        let known = ["unsigned", "signed", "long", "short", "int", "char", "double", "__signed__"];
        if words.is_empty() || !words.iter().all(|word| known.contains(word)) {
            return None;
        }
        let signed = count("unsigned") == 0;
        let base = match (count("long"), count("short"), count("char"), count("double")) {
            (0, 0, 0, 0) => Self::of(4, 4, signed, Width::Plain),
            (0, 1, 0, 0) => Self::of(2, 2, signed, Width::Plain),
            (0, 0, 1, 0) => Self::of(1, 1, signed, Width::Plain),
            (1, 0, 0, 0) => Self::of(8, 4, signed, Width::Long),
            (2, 0, 0, 0) => Self::of(8, 8, signed, Width::Plain),
            (1, 0, 0, 1) => Self { size: 16, size32: 12, align32: 4, signed: true, width: Width::Float },
            _ => return None,
        };
        Some(base)
    }
}

/// What a tag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// `struct`.
    Struct,
    /// `union`.
    Union,
    /// `enum`.
    Enum,
}

impl Tag {
    /// The keyword.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Enum => "enum",
        }
    }
}

/// A type as a header writes it.
#[derive(Clone, Debug)]
pub enum Type {
    /// One of C's own, and how it is written.
    Plain(Plain, String),
    /// A typedef.
    Named(String),
    /// `struct x`, defined elsewhere.
    Tagged(Tag, String),
    /// A structure or union defined in place.
    Inline(Box<Record>),
    /// An enum defined in place.
    InlineEnum,
    /// A pointer to anything.
    Pointer,
    /// So many of it.
    Array(Box<Type>, Range<usize>),
    /// As many of it as there is room, at the end of a structure.
    Flexible(Box<Type>),
    /// Something that is not understood, as it is written.
    Unknown(String),
}

impl Type {
    /// The type of an element, for arrays of any depth.
    #[must_use]
    pub fn element(&self) -> &Self {
        let mut inner = self;
        while let Self::Array(of, _) | Self::Flexible(of) = inner {
            inner = of;
        }
        inner
    }

    /// Whether it is an array.
    #[must_use]
    pub const fn is_array(&self) -> bool {
        matches!(self, Self::Array(..) | Self::Flexible(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_any_order_and_both_machines() {
        let size = |words: &[&str], target| Plain::worded(words).map(|plain| plain.room(target).size);
        assert_eq!(size(&["long", "unsigned", "int"], Target::X86_64), Some(8));
        assert_eq!(size(&["long", "unsigned", "int"], Target::I386), Some(4));
        assert_eq!(size(&["unsigned", "long", "long"], Target::I386), Some(8));
        assert_eq!(size(&["short", "char"], Target::I386), None);
        assert_eq!(size(&["unsigned", "thing"], Target::I386), None);
    }

    #[test]
    fn only_64_bit_numbers_part_the_machines() {
        let align = |name, target| Plain::named(name).map(|plain| plain.room(target).align);
        assert_eq!((align("__u64", Target::X86_64), align("__u64", Target::I386)), (Some(8), Some(4)));
        assert_eq!(align("__aligned_u64", Target::I386), Some(8));
        assert_eq!((align("__u32", Target::X86_64), align("__u32", Target::I386)), (Some(4), Some(4)));
    }
}
