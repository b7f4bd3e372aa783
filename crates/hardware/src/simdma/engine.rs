//! The engine: one step at a time.
//!
//! A step takes a descriptor if none is in flight, moves up to 64 bytes of payload, and writes the completion when the
//! payload is through.

use zerocopy::IntoBytes;

use super::layout::{Completion, Descriptor, FLAG_COPIED, MAX_RING, Op, Outcome, STEP, Stamp, UNIT, ctrl};
use super::{Defect, InFlight, InterruptMode, Looping, SimDma};
use crate::dma::{Bus, Denied};

/// Bytes of a descriptor and of a completion.
const ENTRY: u64 = 32;

impl SimDma {
    /// Whether a step would do anything: RUN is on, and there is an operation in flight or to be taken.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let takes = self.ctrl & ctrl::PAUSE == 0 && (self.looping.is_some() || self.head != self.tail);
        self.ctrl & ctrl::RUN != 0 && (self.in_flight.is_some() || takes)
    }

    /// Makes a step; true if an interrupt's message went out.
    pub(crate) fn step(&mut self, bus: &mut Bus<'_>, mode: InterruptMode) -> bool {
        if !self.is_active() {
            return false;
        }
        if self.in_flight.is_none() && !self.take(bus) {
            return false;
        }
        let Some(mut op) = self.in_flight.take() else { return false };
        if !op.ended {
            self.advance(bus, &mut op);
        }
        if op.ended {
            return self.complete(bus, op, mode);
        }
        self.in_flight = Some(op);
        false
    }

    fn drop_step(&mut self) {
        self.master_off_seen = true;
        self.drop_cnt = self.drop_cnt.wrapping_add(1);
        self.totals.drops += 1;
    }

    fn latch(&mut self, iova: u64) {
        if self.fault_cnt == 0 {
            self.fault_iova = iova;
        }
        self.fault_cnt = self.fault_cnt.saturating_add(1);
        self.totals.faults += 1;
    }

    /// The rings cannot be used.
    fn halt(&mut self, denied: Denied) {
        match denied {
            Denied::MasterOff => self.drop_step(),
            Denied::Fault(iova) => {
                self.latch(iova);
                self.ctrl &= !ctrl::RUN;
                self.looping = None;
            }
        }
    }

    /// Ring position of the next descriptor, if HEAD and RING_LEN make sense.
    fn position(&self) -> Result<u32, Denied> {
        let posted = self.head.wrapping_sub(self.tail);
        if !self.ring_len.is_power_of_two() || self.ring_len > MAX_RING || posted > self.ring_len {
            return Err(Denied::Fault(self.ring_iova));
        }
        Ok(self.looping.map_or(self.tail, |looping| looping.next))
    }

    fn slot_iova(&self, base: u64, slot: u32) -> Result<u64, Denied> {
        base.checked_add(ENTRY * u64::from(slot)).ok_or(Denied::Fault(base))
    }

    fn fetch(&self, bus: &mut Bus<'_>, slot: u32) -> Result<Descriptor, Denied> {
        let mut descriptor = Descriptor::default();
        bus.read(self.slot_iova(self.ring_iova, slot)?, descriptor.as_mut_bytes())?;
        Ok(descriptor)
    }

    /// Takes the next descriptor; false if the step is over.
    fn take(&mut self, bus: &mut Bus<'_>) -> bool {
        let fetched = self.position().and_then(|position| {
            let slot = position & (self.ring_len - 1);
            Ok((position, slot, self.fetch(bus, slot)?))
        });
        let (position, slot, descriptor) = match fetched {
            Ok(fetched) => fetched,
            Err(denied) => {
                self.halt(denied);
                return false;
            }
        };
        let at_tail = position == self.tail;
        let is_loop = Op::from_code(descriptor.op.get()) == Some(Op::Loop);
        if at_tail && is_loop && self.goes_back(&descriptor) {
            return false;
        }
        if at_tail && !is_loop {
            // The driver wrote something else over the loop.
            self.looping = None;
        }
        if self.defect == Some(Defect::Skips) && position % 8 == 7 {
            self.move_on();
            return false;
        }
        self.in_flight = Some(InFlight {
            descriptor,
            slot,
            done: 0,
            outcome: Outcome::Done,
            ended: false,
            early: false,
            again: false,
        });
        true
    }

    /// At a loop's descriptor: goes back to the first of its body, or not, if it did so often enough or has none.
    fn goes_back(&mut self, descriptor: &Descriptor) -> bool {
        let left = match (self.looping, descriptor.len.get()) {
            (None, 0) | (Some(Looping { left: None, .. }), _) => None,
            (None, times) => Some(times),
            (Some(Looping { left: Some(0), .. }), _) => return false,
            (Some(Looping { left: Some(left), .. }), _) => Some(left),
        };
        let slot = self.tail & (self.ring_len - 1);
        let body = match descriptor.flags.get() {
            0 => slot,
            flags => u32::from(flags),
        };
        if body == 0 || body >= self.ring_len {
            return false;
        }
        let first = self.tail.wrapping_sub(body);
        self.looping = Some(Looping { first, next: first, left: left.map(|left| left - 1) });
        true
    }

    /// A loop descriptor that does not go back: it has no body, lies in another's, or is through.
    fn loop_outcome(&self) -> Outcome {
        let through = self.looping.is_some_and(|looping| looping.next == self.tail);
        if through { Outcome::Done } else { Outcome::Bad }
    }

    /// Moves up to [`STEP`] bytes.
    fn advance(&mut self, bus: &mut Bus<'_>, op: &mut InFlight) {
        match op.descriptor.valid() {
            None => op.outcome = Outcome::Bad,
            Some(Op::Loop) => op.outcome = self.loop_outcome(),
            Some(kind) => {
                let len = op.descriptor.len.get();
                let piece = (len - op.done).min(STEP);
                if self.defect == Some(Defect::CompletionFirst) && !op.early && op.done + piece == len {
                    op.early = self.write_completion(bus, op).is_ok();
                    return;
                }
                match self.move_piece(bus, op, kind, piece) {
                    Ok(outcome) => {
                        op.done += piece;
                        op.outcome = outcome;
                        op.ended = op.done == len || outcome != Outcome::Done;
                    }
                    Err(Denied::MasterOff) => self.drop_step(),
                    Err(Denied::Fault(iova)) => {
                        self.latch(iova);
                        (op.outcome, op.ended) = (Outcome::Fault, true);
                    }
                }
                return;
            }
        }
        op.ended = true;
        if op.outcome == Outcome::Bad {
            let at = self.slot_iova(self.ring_iova, op.slot).unwrap_or(self.ring_iova);
            self.latch(at);
        }
    }

    fn move_piece(
        &mut self,
        bus: &mut Bus<'_>,
        op: &InFlight,
        kind: Op,
        piece: u32,
    ) -> Result<Outcome, Denied> {
        let mut buf = [0; STEP as usize];
        let buf = &mut buf[..usize::try_from(piece).expect("at most 64")];
        let done = u64::from(op.done);
        let (src, dst) = (op.descriptor.src_iova.get() + done, op.descriptor.dst_iova.get() + done);
        let mut outcome = Outcome::Done;
        match kind {
            Op::Fill => {
                self.stamp(buf, dst, op.descriptor.cookie.get());
                bus.write(dst, buf)?;
                if self.defect == Some(Defect::Overruns) && op.done + piece == op.descriptor.len.get() {
                    // Nobody is told when it does not pass.
                    let _ = bus.write(dst + u64::from(piece), &[0xee; UNIT]);
                }
            }
            Op::Copy | Op::Peer => {
                bus.read(src, buf)?;
                if kind == Op::Copy { bus.write(dst, buf)? } else { bus.write_peer(dst, buf)? }
            }
            Op::Verify => {
                bus.read(src, buf)?;
                let copied = op.descriptor.flags.get() & FLAG_COPIED != 0;
                let stamped_at = if copied { dst } else { src };
                outcome = verify(buf, stamped_at, op.descriptor.cookie.get());
            }
            Op::Loop => {}
        }
        self.count(kind, u64::from(piece));
        Ok(outcome)
    }

    fn count(&mut self, kind: Op, bytes: u64) {
        if kind != Op::Verify {
            self.bytes += bytes;
            self.totals.bytes_written += bytes;
        }
        if kind != Op::Fill {
            self.totals.bytes_read += bytes;
        }
    }

    fn stamp(&self, buf: &mut [u8], iova: u64, cookie: u64) {
        let units = buf.as_chunks_mut::<UNIT>().0;
        for (unit, at) in units.iter_mut().zip((iova..).step_by(UNIT)) {
            unit.copy_from_slice(Stamp::new(self.seq + 1, at, cookie).as_bytes());
        }
    }

    fn write_completion(&self, bus: &mut Bus<'_>, op: &InFlight) -> Result<(), Denied> {
        let slot = usize::try_from(op.slot).expect("below 65536");
        let count = self.executed.get(slot).copied().unwrap_or(0).wrapping_add(1);
        let completion = Completion::new(op.descriptor.cookie.get(), self.seq + 1, op.outcome, count);
        if !self.ring_len.is_power_of_two() || self.ring_len > MAX_RING {
            return Err(Denied::Fault(self.cq_iova));
        }
        let at = u32::try_from(self.seq & u64::from(self.ring_len - 1)).expect("below 65536");
        bus.write(self.slot_iova(self.cq_iova, at)?, completion.as_bytes())
    }

    /// Writes the completion, and is done with the descriptor.
    fn complete(&mut self, bus: &mut Bus<'_>, op: InFlight, mode: InterruptMode) -> bool {
        if !op.early
            && let Err(denied) = self.write_completion(bus, &op)
        {
            self.in_flight = Some(op);
            self.halt(denied);
            return false;
        }
        self.seq += 1;
        self.totals.ops += 1;
        self.note_execution(op.slot);
        if self.defect == Some(Defect::RunsTwice) && !op.again {
            self.in_flight = Some(InFlight { done: 0, ended: false, early: false, again: true, ..op });
        } else {
            self.move_on();
        }
        self.ctrl & ctrl::IRQ != 0 && self.raise(mode)
    }

    fn note_execution(&mut self, slot: u32) {
        let slot = usize::try_from(slot).expect("below 65536");
        if self.executed.len() <= slot {
            self.executed.resize(slot + 1, 0);
        }
        self.executed[slot] = self.executed[slot].wrapping_add(1);
    }

    /// To the next descriptor: in the body of a loop, or behind TAIL.
    fn move_on(&mut self) {
        match &mut self.looping {
            Some(looping) if looping.next != self.tail => looping.next = looping.next.wrapping_add(1),
            _ => {
                self.looping = None;
                self.tail = self.tail.wrapping_add(1);
            }
        }
    }
}

/// Whether all stamps are of an operation with this cookie at these addresses.
fn verify(buf: &[u8], iova: u64, cookie: u64) -> Outcome {
    let units = buf.as_chunks::<UNIT>().0.iter().zip((iova..).step_by(UNIT));
    let good = units.into_iter().all(|(unit, at)| {
        zerocopy::FromBytes::read_from_bytes(unit).is_ok_and(|stamp: Stamp| stamp.is_of(at, cookie))
    });
    if good { Outcome::Done } else { Outcome::Mismatch }
}
