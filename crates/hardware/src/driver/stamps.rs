//! Stamps that were looked at before.
//!
//! Whether 16 bytes hold the stamp of a fill follows from the bytes, their address and the cookie of the fill. A look that is
//! repeated after each step of a run meets mostly bytes that it has seen, so it keeps those that were good and computes the checksums of
//! what changed. Every byte is read and compared each time, and how late the stamp is is checked against what is completed by now: what
//! is found is what a first look would find.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, IntoBytes};

use super::{BadStamp, Payload};
use crate::simdma::layout::{Stamp, UNIT};

/// Bytes that are looked at together: a page, as memory is looked up by pages.
const PIECE: usize = 4096;

/// Bytes that are compared with what is known before their stamps are looked at.
const BLOCK: usize = 16 * UNIT;

/// What was good when it was looked at last, by the address of its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(BTreeMap<u64, Good>);

/// Stamps of one fill that were all good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Good {
    cookie: u64,
    /// The lowest number among them; 0 if none is known.
    lowest: u64,
    bytes: Vec<u8>,
}

impl Stamps {
    /// Compares memory, read through a closure that says whether it could, with stamped ranges; at most `limit` that differ.
    pub fn bad(
        &mut self,
        payloads: &[Payload],
        mut read: impl FnMut(u64, &mut [u8]) -> bool,
        limit: usize,
    ) -> Vec<BadStamp> {
        let mut bad = Vec::new();
        let mut page = [0; PIECE];
        for payload in payloads.iter().filter(|payload| payload.seq.is_some()) {
            let end = payload.iova + u64::from(payload.len);
            let mut at = payload.iova;
            while at < end && bad.len() < limit {
                let left = usize::try_from(end - at).expect("a length of 32 bits");
                let piece = left.min(PIECE - usize::try_from(at % 4096).expect("below 4096"));
                let bytes = &mut page[..piece];
                let there = read(at, bytes);
                self.piece(payload, at, there.then_some(bytes), (&mut bad, limit));
                at += u64::try_from(piece).expect("at most a page");
            }
        }
        bad
    }

    /// Compares a piece of a range, `None` if it could not be read.
    fn piece(
        &mut self,
        payload: &Payload,
        at: u64,
        bytes: Option<&mut [u8]>,
        (bad, limit): (&mut Vec<BadStamp>, usize),
    ) {
        let (cookie, least) = (payload.cookie, payload.seq.unwrap_or_default());
        let wrong = |iova, found| BadStamp { iova, cookie, seq: payload.seq, found };
        let Some(bytes) = bytes else {
            self.0.remove(&at);
            return bad.push(wrong(at, None));
        };
        let good = self.0.entry(at).or_default();
        if good.cookie != cookie || good.bytes.len() != bytes.len() {
            // Nothing is known of these: zeros are no stamp, whatever the cookie.
            *good = Good { cookie, lowest: 0, bytes: vec![0; bytes.len()] };
        }
        // Whether all that is known is late enough: what did not change is good then.
        let settled = good.lowest > 0 && good.lowest >= least;
        if settled && good.bytes == *bytes {
            return;
        }
        if !settled {
            good.lowest = u64::MAX;
        }
        let first = bad.len();
        let rest = bytes.as_chunks::<UNIT>().1;
        let blocks = bytes.chunks(BLOCK).zip(good.bytes.chunks_mut(BLOCK)).zip((at..).step_by(BLOCK));
        let changed = blocks.filter(|((block, known), _)| !settled || block != known);
        for (iova, unit, known) in changed.flat_map(|((block, known), at)| units(at, block, known)) {
            let stamp = Stamp::read_from_bytes(unit).expect("as long as a stamp");
            let seq = stamp.seq.get();
            if seq > 0 && seq >= least && (known == unit || stamp.is_of(iova, cookie)) {
                *known = *unit;
                good.lowest = good.lowest.min(seq);
            } else if bad.len() < limit {
                bad.push(wrong(iova, Some(stamp)));
            }
        }
        if !rest.is_empty() && bad.len() < limit {
            // No fill writes less than a stamp.
            let mut stamp = Stamp::default();
            stamp.as_mut_bytes()[..rest.len()].copy_from_slice(rest);
            let whole = u64::try_from(bytes.len() - rest.len()).expect("at most a page");
            bad.push(wrong(at + whole, Some(stamp)));
        }
        if bad.len() > first {
            self.0.remove(&at);
        }
    }
}

/// Each whole unit of two blocks from address `at` on, with its own address.
fn units<'b>(
    at: u64,
    block: &'b [u8],
    known: &'b mut [u8],
) -> impl Iterator<Item = (u64, &'b [u8; UNIT], &'b mut [u8; UNIT])> {
    let pairs = block.as_chunks().0.iter().zip(known.as_chunks_mut().0);
    (at..).step_by(UNIT).zip(pairs).map(|(iova, (unit, known))| (iova, unit, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x10ff0;

    /// Memory from [`AT`] on, stamped by fill `seq` with cookie 9.
    fn stamped(seq: u64, len: usize) -> Vec<u8> {
        (AT..)
            .step_by(UNIT)
            .take(len / UNIT)
            .flat_map(|at| Stamp::new(seq, at, 9).as_bytes().to_vec())
            .collect()
    }

    fn look(stamps: &mut Stamps, memory: &[u8], seq: u64) -> Vec<u64> {
        let read = |iova: u64, buf: &mut [u8]| {
            let from = usize::try_from(iova - AT).unwrap();
            let Some(bytes) = memory.get(from..from + buf.len()) else { return false };
            buf.copy_from_slice(bytes);
            true
        };
        let payload = Payload { iova: AT, len: 8192, cookie: 9, seq: Some(seq) };
        let found: Vec<BadStamp> = stamps.bad(&[payload], read, 1000);
        let anew = Stamps::default().bad(&[payload], read, 1000);
        assert_eq!(found, anew, "what was remembered changed what is found");
        found.into_iter().map(|bad| bad.iova).collect()
    }

    #[test]
    fn what_was_good_is_bad_when_it_changes_or_is_late() {
        let mut stamps = Stamps::default();
        let mut memory = stamped(3, 8192);
        assert_eq!(look(&mut stamps, &memory, 3), []);
        assert_eq!(look(&mut stamps, &memory, 3), []);
        // The same bytes, once a later turn is completed.
        assert_eq!(look(&mut stamps, &memory, 4).len(), 512);
        assert_eq!(look(&mut stamps, &memory, 3), []);
        for at in [0, 15, 16, 4111, 8191] {
            memory[at] ^= 1;
            let unit = AT + u64::try_from(at / UNIT * UNIT).unwrap();
            assert_eq!(look(&mut stamps, &memory, 3), [unit], "byte {at}");
            assert_eq!(look(&mut stamps, &memory, 3), [unit], "byte {at}, a second time");
            memory[at] ^= 1;
            assert_eq!(look(&mut stamps, &memory, 3), []);
        }
        // A stamp of another turn moved to another place is bad, a later one in its place is good.
        let later = stamped(7, 8192);
        memory[32..48].copy_from_slice(&later[16..32]);
        assert_eq!(look(&mut stamps, &memory, 3), [AT + 32]);
        memory[32..48].copy_from_slice(&later[32..48]);
        assert_eq!(look(&mut stamps, &memory, 3), []);
        assert_eq!(look(&mut stamps, &later, 7), []);
        assert_eq!(look(&mut stamps, &later[..4096], 7).first(), Some(&(AT + 16)), "what cannot be read");
        assert_eq!(look(&mut stamps, &later, 7), []);
    }
}
