//! The device `simdma`: takes descriptors from a ring in memory, copies, stamps and verifies bytes, and writes
//! completions to a second ring.
//!
//! It advances in steps of at most 64 bytes ([`layout::STEP`]) and depends on nothing but its registers and memory, so a run
//! repeats exactly. An operation of 64 bytes or less is one step: descriptor, payload, completion, in this order.
//!
//! Faults. A refused request of the payload ends the operation with [`Outcome::Fault`], and the next one is taken. Where the
//! rings themselves cannot be used (HEAD too far, RING_LEN no power of two, a refused descriptor or completion) the
//! device latches the fault and clears RUN. With bus mastering off on the way to memory the device stays where it is, and
//! counts the steps it could not make: a real bridge would lose posted writes instead.

mod engine;
pub mod layout;
mod registers;

pub use layout::{Completion, Descriptor, Op, Outcome, Stamp};

luosim_abi::named! {
    /// What a device can be made to do wrong, so that a check that should notice can be seen to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Defect {
        CompletionFirst = "completion-first", "writes a completion before the last bytes of the payload";
        RunsTwice = "runs-twice", "executes every descriptor twice";
        Skips = "skips", "passes over every eighth descriptor";
        LosesInterrupts = "loses-interrupts", "forgets an interrupt that it cannot deliver";
        Overruns = "overruns", "writes a unit more than a fill asks for";
        Astray = "astray", "writes what begins a page to the last page of memory too, past its IOMMU";
    }
}

/// What a device did since power on. No reset clears it: for tests and accounts, no register shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Completed operations, whatever their outcome.
    pub ops: u64,
    /// Bytes of payload written.
    pub bytes_written: u64,
    /// Bytes of payload read.
    pub bytes_read: u64,
    /// Faults.
    pub faults: u64,
    /// Steps that bus mastering denied.
    pub drops: u64,
    /// Resets.
    pub resets: u64,
    /// Interrupts raised: one a completion while CTRL says so.
    pub irqs_raised: u64,
    /// Interrupts that left the device.
    pub irqs_delivered: u64,
    /// Interrupts raised while one was pending: the pending one stands for them too.
    pub irqs_coalesced: u64,
    /// Pending interrupts that a reset took away.
    pub irqs_reset: u64,
}

impl Totals {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ops: self.ops - earlier.ops,
            bytes_written: self.bytes_written - earlier.bytes_written,
            bytes_read: self.bytes_read - earlier.bytes_read,
            faults: self.faults - earlier.faults,
            drops: self.drops - earlier.drops,
            resets: self.resets - earlier.resets,
            irqs_raised: self.irqs_raised - earlier.irqs_raised,
            irqs_delivered: self.irqs_delivered - earlier.irqs_delivered,
            irqs_coalesced: self.irqs_coalesced - earlier.irqs_coalesced,
            irqs_reset: self.irqs_reset - earlier.irqs_reset,
        }
    }

    /// The sum of two accounts.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            ops: self.ops + other.ops,
            bytes_written: self.bytes_written + other.bytes_written,
            bytes_read: self.bytes_read + other.bytes_read,
            faults: self.faults + other.faults,
            drops: self.drops + other.drops,
            resets: self.resets + other.resets,
            irqs_raised: self.irqs_raised + other.irqs_raised,
            irqs_delivered: self.irqs_delivered + other.irqs_delivered,
            irqs_coalesced: self.irqs_coalesced + other.irqs_coalesced,
            irqs_reset: self.irqs_reset + other.irqs_reset,
        }
    }
}

/// What the function's configuration lets an interrupt do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterruptMode {
    /// MSI-X is on.
    pub(crate) msix: bool,
    /// The whole function is masked.
    pub(crate) masked: bool,
    /// Messages are memory writes: bus mastering on the way.
    pub(crate) master: bool,
}

/// An operation that was taken and is not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InFlight {
    descriptor: Descriptor,
    slot: u32,
    done: u32,
    outcome: Outcome,
    /// Everything is done but the completion.
    ended: bool,
    /// The completion is written already, by a defect.
    early: bool,
    /// The second time, by a defect.
    again: bool,
}

/// A loop that is under way: the ring positions it goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looping {
    first: u32,
    next: u32,
    /// Times to go back again; `None` for ever.
    left: Option<u32>,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimDma {
    ctrl: u32,
    ring_iova: u64,
    ring_len: u32,
    head: u32,
    tail: u32,
    cq_iova: u64,
    seq: u64,
    bytes: u64,
    fault_iova: u64,
    fault_cnt: u32,
    drop_cnt: u32,
    reset_cnt: u32,
    epoch_seen: u32,
    reset_at: u64,
    master_off_seen: bool,
    irq_pending: bool,
    msix: layout::MsixEntry,
    in_flight: Option<InFlight>,
    looping: Option<Looping>,
    executed: Vec<u32>,
    totals: Totals,
    defect: Option<Defect>,
}

impl Default for SimDma {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDma {
    /// A device after power on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ctrl: 0,
            ring_iova: 0,
            ring_len: 0,
            head: 0,
            tail: 0,
            cq_iova: 0,
            seq: 0,
            bytes: 0,
            fault_iova: 0,
            fault_cnt: 0,
            drop_cnt: 0,
            reset_cnt: 0,
            epoch_seen: 0,
            reset_at: 0,
            master_off_seen: false,
            irq_pending: false,
            msix: layout::MsixEntry { control: 1.into(), ..Default::default() },
            in_flight: None,
            looping: None,
            executed: Vec::new(),
            totals: Totals::default(),
            defect: None,
        }
    }

    /// Everything but RESET_CNT, the account and a defect is as after power on.
    pub(crate) fn reset(&mut self, now: u64) {
        let (epoch_seen, defect) = (self.epoch_seen, self.defect);
        let irqs_reset = self.totals.irqs_reset + u64::from(self.irq_pending);
        let totals = Totals { resets: self.totals.resets + 1, irqs_reset, ..self.totals };
        let reset_cnt = self.reset_cnt.wrapping_add(1);
        *self = Self { reset_cnt, epoch_seen, defect, totals, reset_at: now, ..Self::new() };
    }

    /// What the device did since power on.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether an operation is under way, or a loop that is not paused.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some() || (self.looping.is_some() && self.ctrl & layout::ctrl::PAUSE == 0)
    }

    /// Whether an interrupt is pending.
    #[must_use]
    pub fn irq_pending(&self) -> bool {
        self.irq_pending
    }

    /// A register of 64 bits, or of 32 in the low half, without the device noticing.
    #[must_use]
    pub fn peek(&self, offset: u16, now: u64) -> u64 {
        let word = |at| u64::from(self.word(at, now).unwrap_or(u32::MAX));
        if offset.is_multiple_of(8) { word(offset) | (word(offset + 4) << 32) } else { word(offset) }
    }

    /// The level of the INTx line: a pending interrupt that MSI-X does not take.
    pub(crate) fn line(&self, mode: InterruptMode) -> bool {
        self.irq_pending && !mode.msix
    }

    /// Makes the device do something wrong, or nothing any more.
    pub(crate) fn defect(&self) -> Option<Defect> {
        self.defect
    }

    pub(crate) fn set_defect(&mut self, defect: Option<Defect>) {
        self.defect = defect;
    }

    /// Raises the interrupt; true if a message goes out.
    fn raise(&mut self, mode: InterruptMode) -> bool {
        self.totals.irqs_raised += 1;
        if self.irq_pending {
            self.totals.irqs_coalesced += 1;
            return false;
        }
        self.irq_pending = self.defect != Some(Defect::LosesInterrupts) || self.message_passes(mode);
        self.deliver(mode)
    }

    fn message_passes(&self, mode: InterruptMode) -> bool {
        mode.msix && !mode.masked && mode.master && self.msix.control.get() & 1 == 0
    }

    /// Sends the message of a pending interrupt if it may go; true if it went.
    pub(crate) fn deliver(&mut self, mode: InterruptMode) -> bool {
        let goes = self.irq_pending && self.message_passes(mode);
        if goes {
            self.irq_pending = false;
            self.totals.irqs_delivered += 1;
        }
        goes
    }
}
