//! A 64-bit digest of bytes and words, the same on every host: to compare states in tests and at time points. Not
//! for anything hostile.

/// Mixes a word into a digest.
#[inline]
#[must_use]
pub fn mix(digest: u64, word: u64) -> u64 {
    let mixed = (digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// A digest that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0x6c75_6f73_696d)
    }
}

impl Digest {
    /// Mixes a word in.
    pub fn word(&mut self, word: u64) -> &mut Self {
        self.0 = mix(self.0, word);
        self
    }

    /// Mixes bytes in, and how many there are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last)).word(u64::try_from(bytes.len()).expect("a length"))
    }

    /// The digest.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Text is mixed in piece by piece.
impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let of = |bytes: &[u8]| Digest::default().bytes(bytes).get();
        let base = [7u8; 19];
        for at in 0..19 {
            let mut other = base;
            other[at] ^= 1;
            assert_ne!(of(&base), of(&other), "byte {at}");
        }
        assert_ne!(of(&[0; 7]), of(&[0; 8]));
        assert_ne!(of(&[]), of(&[0]));
    }
}
