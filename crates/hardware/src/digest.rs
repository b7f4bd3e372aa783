//! A 64-bit digest of bytes and words, the same on every host: to compare states in tests and at time points. Not
//! for anything hostile.

/// Mixes a word into a digest.
#[inline]
#[must_use]
pub fn mix(digest: u64, word: u64) -> u64 {
    let mixed = (digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// A product of 128 bits, folded.
#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    let high = u64::try_from(product >> 64).expect("the upper half");
    let low = u64::try_from(product & u128::from(u64::MAX)).expect("the lower half");
    high ^ low
}

/// The digest of a page, made of four digests side by side: the words of one wait for each other, those of four do not.
#[must_use]
pub fn page(bytes: &[u8; 4096]) -> u64 {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut lanes = [1, 2, 3, 4];
    for block in bytes.as_chunks::<64>().0 {
        for (lane, pair) in lanes.iter_mut().zip(block.as_chunks::<16>().0) {
            let (first, second) = (word(&pair[..8]), word(&pair[8..]));
            *lane = fold(*lane ^ first ^ 0xa076_1d64_78bd_642f, second ^ 0xe703_7ed1_a0b4_28db)
                .wrapping_add(*lane);
        }
    }
    lanes.into_iter().fold(0, mix)
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
        let base = [7u8; 4096];
        for at in 0..4096 {
            let mut other = base;
            other[at] ^= 1;
            assert_ne!(page(&base), page(&other), "byte {at} of a page");
        }
        let mut moved = base;
        moved[64..72].fill(1);
        let mut other = base;
        other[72..80].fill(1);
        assert_ne!(page(&moved), page(&other), "where it is");
        assert_ne!(of(&[0; 7]), of(&[0; 8]));
        assert_ne!(of(&[]), of(&[0]));
    }
}
