//! A set of small integers that finds its least member in a few steps: bits in 64-bit words, with a word of
//! summary bits above each 64 words. Storage is zero until touched, so that huge empty sets cost nothing.

use crate::zeros::Zeros;

/// Levels of the largest set: 2^32 members.
const LEVELS: usize = 6;

/// The set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bitmap {
    /// Level after level in one piece. Level 0 holds the members; a bit of level n+1 says that a word of level n is
    /// not zero.
    words: Zeros<u64>,
    /// Where each level starts.
    starts: [usize; LEVELS],
    depth: usize,
    count: u64,
}

fn split(bit: u64) -> (usize, u64) {
    (usize::try_from(bit / 64).expect("bitmaps fit in memory"), 1 << (bit % 64))
}

impl Bitmap {
    /// A set for members below `len`, at most 2^36.
    pub(crate) fn new(len: u64) -> Self {
        let (mut starts, mut depth, mut total) = ([0; LEVELS], 0, 0);
        let mut words = len.div_ceil(64).max(1);
        loop {
            starts[depth] = total;
            depth += 1;
            total += usize::try_from(words).expect("bitmaps fit in memory");
            if words == 1 {
                return Self { words: Zeros::new(total), starts, depth, count: 0 };
            }
            words = words.div_ceil(64);
        }
    }

    #[cfg(test)]
    fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn has(&self, bit: u64) -> bool {
        let (word, mask) = split(bit);
        let end = if self.depth > 1 { self.starts[1] } else { self.words.len() };
        word < end && self.words[word] & mask != 0
    }

    pub(crate) fn insert(&mut self, bit: u64) {
        debug_assert!(!self.has(bit), "block {bit} is free already");
        self.count += 1;
        let mut at = bit;
        for start in &self.starts[..self.depth] {
            let (word, mask) = split(at);
            let level = &mut self.words[start + word];
            let before = *level;
            *level |= mask;
            if before != 0 {
                return;
            }
            at /= 64;
        }
    }

    pub(crate) fn remove(&mut self, bit: u64) {
        debug_assert!(self.has(bit), "block {bit} is not free");
        self.count -= 1;
        let mut at = bit;
        for start in &self.starts[..self.depth] {
            let (word, mask) = split(at);
            let level = &mut self.words[start + word];
            *level &= !mask;
            if *level != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The least member.
    pub(crate) fn first(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let mut at = 0u64;
        for start in self.starts[..self.depth].iter().rev() {
            let word = self.words[start + usize::try_from(at).expect("bitmaps fit in memory")];
            at = at * 64 + u64::from(word.trailing_zeros());
        }
        Some(at)
    }

    /// Adds all of `from..to` to a set that has none of them, by words.
    pub(crate) fn insert_run(&mut self, from: u64, to: u64) {
        let mut bit = from;
        while bit < to {
            if bit.is_multiple_of(64) && to - bit >= 64 {
                let (word, _) = split(bit);
                self.words[word] = u64::MAX;
                self.count += 64;
                self.summarize(bit / 64);
                bit += 64;
            } else {
                self.insert(bit);
                bit += 1;
            }
        }
    }

    fn summarize(&mut self, word: u64) {
        let mut at = word;
        for start in &self.starts[1..self.depth] {
            let (word, mask) = split(at);
            let level = &mut self.words[start + word];
            if *level & mask != 0 {
                return;
            }
            *level |= mask;
            at /= 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_least_member_is_found_whatever_was_done() {
        let mut set = Bitmap::new(1 << 20);
        let mut model = BTreeSet::new();
        let mut x = 12345u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bit = (x >> 33) % (1 << 20);
            if model.insert(bit) {
                set.insert(bit);
            } else {
                model.remove(&bit);
                set.remove(bit);
            }
            if x & 7 == 0
                && let Some(least) = model.pop_first()
            {
                assert_eq!(set.first(), Some(least));
                set.remove(least);
            }
            assert_eq!(set.len(), model.len() as u64);
        }
        assert_eq!(set.first(), model.first().copied());
    }

    #[test]
    fn runs_are_inserted_whole() {
        let mut set = Bitmap::new(10_000);
        set.insert_run(3, 9_999);
        assert_eq!(set.len(), 9_996);
        assert!(!set.has(2) && set.has(3) && set.has(9_998) && !set.has(9_999));
        for bit in 3..9_999 {
            assert_eq!(set.first(), Some(bit));
            set.remove(bit);
        }
        assert_eq!(set.first(), None);
    }
}
