//! File contents that are told apart by a seed: byte *i* of seed *s* is
//! `131 s + 7 i + 13 (i >> 8) + 17 (i >> 12)` modulo 256.

/// Byte `index` of the pattern of `seed`.
#[must_use]
pub fn byte(seed: u32, index: u64) -> u8 {
    let sum = u64::from(seed)
        .wrapping_mul(131)
        .wrapping_add(index.wrapping_mul(7))
        .wrapping_add((index >> 8).wrapping_mul(13))
        .wrapping_add((index >> 12).wrapping_mul(17));
    sum.to_le_bytes()[0]
}

/// Fills `buf` with the pattern from byte `start` on.
pub fn fill(seed: u32, start: u64, buf: &mut [u8]) {
    let (mut rest, mut at) = (buf, start);
    while !rest.is_empty() {
        // Up to the next multiple of 256 only the first term changes: bytes, which the compiler adds many at a time.
        let run = usize::try_from(256 - at % 256).expect("at most 256").min(rest.len());
        let (piece, after) = rest.split_at_mut(run);
        let mut value = byte(seed, at);
        for slot in &mut *piece {
            *slot = value;
            value = value.wrapping_add(7);
        }
        at += u64::try_from(run).expect("at most 256");
        rest = after;
    }
}

/// The pattern as a fresh buffer.
#[must_use]
pub fn bytes(seed: u32, start: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    fill(seed, start, &mut buf);
    buf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_that_of_the_recorded_images() {
        assert_eq!((byte(1, 0), byte(1, 1), byte(3, 256), byte(5, 4096)), (131, 138, 150, 112));
        assert_eq!(bytes(2, 10, 2), [byte(2, 10), byte(2, 11)]);
        let (start, long) = (4001, bytes(9, 4001, 5000));
        assert!(long.iter().zip(start..).all(|(found, index)| *found == byte(9, index)));
    }
}
