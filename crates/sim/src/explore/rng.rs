//! The explorer's own random numbers: xoshiro256++, seeded by splitmix64. Integers only, and never changed: a seed
//! means the same run in every version that has the same actions.

/// A generator.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Rng {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| splitmix(&mut state)))
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.0 = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `bound`; 0 for a bound of 0. The bias is below 2^-32, which no run notices.
    pub fn below(&mut self, bound: u32) -> u32 {
        let high = (self.word() >> 32).wrapping_mul(u64::from(bound)) >> 32;
        u32::try_from(high).expect("below a 32-bit bound")
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// True `count` times in `of`.
    pub fn chance(&mut self, count: u32, of: u32) -> bool {
        self.below(of) < count
    }

    /// One of `items`; `None` if there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        items.get(usize::try_from(self.below(count)).expect("an index"))
    }

    /// An index, each as likely as its weight says; 0 if all weights are 0.
    pub fn weighted(&mut self, weights: &[u16]) -> usize {
        let total = weights.iter().map(|weight| u32::from(*weight)).sum();
        let mut left = self.below(total);
        for (index, weight) in weights.iter().enumerate() {
            match left.checked_sub(u32::from(*weight)) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut rng = Rng::new(0);
        // Reference: xoshiro256++ of Blackman and Vigna, its state from splitmix64 of 0.
        assert_eq!([rng.word(), rng.word()], [0x5317_5d61_490b_23df, 0x61da_6f3d_c380_d507]);
    }

    #[test]
    fn bounds_and_weights_hold() {
        let mut rng = Rng::new(7);
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            assert!((4..=6).contains(&rng.between(4, 6)));
            assert_ne!(rng.weighted(&[1, 0, 2]), 1, "a weight of 0 is never drawn");
        }
        assert_eq!(rng.below(0), 0);
        assert!(rng.pick::<u8>(&[]).is_none());
    }
}
