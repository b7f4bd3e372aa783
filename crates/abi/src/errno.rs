//! Error numbers as a Linux program sees them, and the reason that luosim puts beside each.
//!
//! The kernel tells a program only the number. Every refusal of the model is a [`Refusal`]: the number and
//! one sentence in words, with the names and values that decided it. Source of the numbers:
//! `asm-generic/errno-base.h` and `errno.h`.

use std::borrow::Cow;
use std::fmt;

/// An error number of Linux on x86-64, always positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            /// Every error number known here, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The symbolic name, `EBUSY`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "E?",
                }
            }

            /// The text of `strerror(3)` in the C locale, `Device or resource busy`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "Unknown error",
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted";
    ENOENT = 2, "No such file or directory";
    ESRCH = 3, "No such process";
    EINTR = 4, "Interrupted system call";
    EIO = 5, "Input/output error";
    ENXIO = 6, "No such device or address";
    E2BIG = 7, "Argument list too long";
    ENOEXEC = 8, "Exec format error";
    EBADF = 9, "Bad file descriptor";
    ECHILD = 10, "No child processes";
    EAGAIN = 11, "Resource temporarily unavailable";
    ENOMEM = 12, "Cannot allocate memory";
    EACCES = 13, "Permission denied";
    EFAULT = 14, "Bad address";
    EBUSY = 16, "Device or resource busy";
    EEXIST = 17, "File exists";
    EXDEV = 18, "Invalid cross-device link";
    ENODEV = 19, "No such device";
    ENOTDIR = 20, "Not a directory";
    EISDIR = 21, "Is a directory";
    EINVAL = 22, "Invalid argument";
    ENFILE = 23, "Too many open files in system";
    EMFILE = 24, "Too many open files";
    ENOTTY = 25, "Inappropriate ioctl for device";
    ETXTBSY = 26, "Text file busy";
    EFBIG = 27, "File too large";
    ENOSPC = 28, "No space left on device";
    ESPIPE = 29, "Illegal seek";
    EROFS = 30, "Read-only file system";
    EMLINK = 31, "Too many links";
    EPIPE = 32, "Broken pipe";
    ERANGE = 34, "Numerical result out of range";
    EDEADLK = 35, "Resource deadlock avoided";
    ENAMETOOLONG = 36, "File name too long";
    ENOSYS = 38, "Function not implemented";
    ELOOP = 40, "Too many levels of symbolic links";
    ENODATA = 61, "No data available";
    EOVERFLOW = 75, "Value too large for defined data type";
    EOPNOTSUPP = 95, "Operation not supported";
    EADDRINUSE = 98, "Address already in use";
    EADDRNOTAVAIL = 99, "Cannot assign requested address";
    EHWPOISON = 133, "Memory page has hardware error";
}

impl Errno {
    /// The positive number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0 as i32
    }

    /// The error with this symbolic name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|errno| errno.name() == name)
    }

    /// The error with this positive number, if it is one known here.
    #[must_use]
    pub fn from_raw(raw: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|errno| errno.raw() == raw)
    }

    /// This error with a reason beside it.
    #[must_use]
    pub fn because(self, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(self, reason)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a simulated kernel answers instead of success: the errno a program sees, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the program sees.
    pub errno: Errno,
    /// One clause in words, without a final period: `token 0x10 is already used in session "vm-1"`.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with this errno for this reason.
    #[must_use]
    pub fn new(errno: Errno, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { errno, reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.errno, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// Result of anything a simulated kernel may refuse.
pub type KResult<T> = Result<T, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_one_to_one() {
        for errno in Errno::ALL {
            assert_eq!(Errno::from_name(errno.name()), Some(*errno));
            assert_eq!(Errno::from_raw(errno.raw()), Some(*errno));
        }
        assert!(Errno::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn numbers_are_those_of_linux() {
        assert_eq!(Errno::EBUSY.raw(), 16);
        assert_eq!(Errno::EOPNOTSUPP.raw(), 95);
        assert_eq!(Errno::from_name("ENOTHING"), None);
    }
}
