//! Session names: 1 to 63 bytes of anything but NUL (6.19: also none).

use std::fmt;

use luosim_abi::ioctl::NAME_LEN;

/// A session's name as the kernel stores it: the bytes before the first NUL, at most 63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionName {
    bytes: [u8; NAME_LEN],
    len: u8,
}

impl std::hash::Hash for SessionName {
    fn hash<S: std::hash::Hasher>(&self, state: &mut S) {
        state.write(self.as_bytes());
    }
}

impl SessionName {
    /// The name in a 64-byte field: up to the first NUL, cut to 63 bytes where there is none.
    #[must_use]
    pub fn from_field(field: &[u8; NAME_LEN]) -> Self {
        Self::from_bytes(field)
    }

    /// The name made of `text` up to its first NUL, cut to 63 bytes.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Self {
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len()).min(NAME_LEN - 1);
        let mut bytes = [0; NAME_LEN];
        bytes[..end].copy_from_slice(&text[..end]);
        Self { bytes, len: u8::try_from(end).expect("a name is shorter than 64 bytes") }
    }

    /// The bytes of the name, without NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The 64-byte field: name, then zeros.
    #[must_use]
    pub fn field(&self) -> &[u8; NAME_LEN] {
        &self.bytes
    }

    /// Bytes in the name, 0 to 63.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the name has no bytes (only 6.19 lets such a session exist).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' || c == '"' {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_first_nul_and_is_cut_at_63() {
        assert_eq!(SessionName::from_bytes(b"vm\0junk").as_bytes(), b"vm");
        assert_eq!(SessionName::from_field(&[b'c'; 64]).len(), 63);
        assert!(SessionName::from_bytes(b"\0abc").is_empty());
        assert_eq!(SessionName::from_bytes(b"gar\0one"), SessionName::from_bytes(b"gar\0two"));
    }

    #[test]
    fn odd_bytes_are_escaped_in_messages() {
        assert_eq!(SessionName::from_bytes(b"a\n\"\xff/b").to_string(), "a\\n\\\"\\xff/b");
    }
}
