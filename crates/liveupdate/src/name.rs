//! Names of sessions, checked before the kernel sees them.
//!
//! Mirrors the kernel's rule of 7.1 and later: 1 to 63 bytes, none of them NUL. Release 6.19 accepts an empty
//! name and cuts a long one off, both of which nobody can want, so the rule here is the same for all. It does
//! not restrict which bytes: slash, space, newline, non-UTF-8 are all good names to the kernel.

use std::fmt;
use std::str::FromStr;

use crate::sys::NAME_FIELD;

/// Name of a session: 1 to 63 bytes without NUL.
///
/// ```
/// use liveupdate::SessionName;
///
/// let name = SessionName::new("vm-7/ram")?;
/// assert_eq!(name.to_string(), "vm-7/ram");
/// assert!(SessionName::new("").is_err());
/// assert!(SessionName::new([b'x'; 64]).is_err());
/// # Ok::<(), liveupdate::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName(Vec<u8>);

/// Why some bytes are no name of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// No bytes at all.
    #[error("a session needs a name of at least one byte: choose one")]
    Empty,
    /// More than 63 bytes.
    #[error("a session name has at most 63 bytes, this one has {0}: shorten it, for instance to a hash")]
    TooLong(usize),
    /// A NUL byte inside, where the kernel would stop reading.
    #[error("a session name has no NUL byte, this one has one at offset {0}: remove it")]
    Nul(usize),
}

impl SessionName {
    /// Most bytes of a name.
    pub const MAX: usize = NAME_FIELD - 1;

    /// Checks `name`.
    ///
    /// # Errors
    /// [`InvalidName`] says what is wrong with it.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, InvalidName> {
        let bytes = name.as_ref();
        if bytes.is_empty() {
            return Err(InvalidName::Empty);
        }
        if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
            return Err(InvalidName::Nul(at));
        }
        if bytes.len() > Self::MAX {
            return Err(InvalidName::TooLong(bytes.len()));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The bytes, without NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The field of the ioctl structures: the bytes, padded with NUL.
    pub(crate) fn field(&self) -> [u8; NAME_FIELD] {
        let mut field = [0; NAME_FIELD];
        for (to, from) in field.iter_mut().zip(&self.0) {
            *to = *from;
        }
        field
    }

    /// Reads a field the kernel filled in: bytes after the first NUL mean nothing.
    pub(crate) fn from_field(field: &[u8; NAME_FIELD]) -> Result<Self, InvalidName> {
        let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
        Self::new(text)
    }
}

impl AsRef<[u8]> for SessionName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for SessionName {
    /// The text, bytes that are no UTF-8 replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl FromStr for SessionName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl TryFrom<&str> for SessionName {
    type Error = InvalidName;

    fn try_from(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_1_to_63_bytes() {
        assert_eq!(SessionName::new(""), Err(InvalidName::Empty));
        assert_eq!(SessionName::new([b'A'; 63]).unwrap().as_bytes().len(), 63);
        assert_eq!(SessionName::new([b'A'; 64]), Err(InvalidName::TooLong(64)));
    }

    #[test]
    fn any_byte_but_nul() {
        assert_eq!(SessionName::new("a\0b"), Err(InvalidName::Nul(1)));
        assert_eq!(SessionName::new(b"\xff/ \n:").unwrap().as_bytes(), b"\xff/ \n:");
        assert_eq!(format!("{:?}", SessionName::new(b"\xff\n").unwrap()), r#""\xff\n""#);
    }

    #[test]
    fn field_goes_there_and_back() {
        let name = SessionName::new([b'z'; 63]).unwrap();
        assert_eq!(name.field()[63], 0);
        assert_eq!(SessionName::from_field(&name.field()), Ok(name));
        let mut dirty = [b'?'; 64];
        dirty[..3].copy_from_slice(b"ab\0");
        assert_eq!(SessionName::from_field(&dirty).unwrap().as_bytes(), b"ab");
    }
}
