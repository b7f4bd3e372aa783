//! What a `simdma` reads and writes in memory, and where its registers are.
//!
//! Ring, completions and buffers lie behind the IOMMU, at addresses that the driver chooses.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Registers in BAR0. A 64-bit register can be accessed whole or by halves.
pub mod reg {
    /// u32 RO: [`super::ID`].
    pub const ID: u16 = 0x00;
    /// u32 RW: [`super::ctrl`].
    pub const CTRL: u16 = 0x04;
    /// u32 RO: [`super::status`].
    pub const STATUS: u16 = 0x08;
    /// u64 RW: address of the descriptor ring.
    pub const RING_IOVA: u16 = 0x10;
    /// u32 RW: entries of both rings, a power of two up to [`super::MAX_RING`].
    pub const RING_LEN: u16 = 0x18;
    /// u32 RW: descriptors that the driver has posted, counted on without end; the ring is indexed by its low bits.
    pub const HEAD: u16 = 0x1c;
    /// u32 RO: descriptors that the device is done with, counted as HEAD is.
    pub const TAIL: u16 = 0x20;
    /// u64 RW: address of the completion ring.
    pub const CQ_IOVA: u16 = 0x28;
    /// u64 RO: completed operations since the last reset.
    pub const SEQ: u16 = 0x30;
    /// u64 RO: bytes of payload written since the last reset.
    pub const BYTES: u16 = 0x38;
    /// u64 RO: address of the first fault since the last reset.
    pub const FAULT_IOVA: u16 = 0x40;
    /// u32 RO: faults since the last reset.
    pub const FAULT_CNT: u16 = 0x48;
    /// u32 RO: steps since the last reset that could not be made because bus mastering was off on the way.
    pub const DROP_CNT: u16 = 0x4c;
    /// u32 RO: resets since power on.
    pub const RESET_CNT: u16 = 0x50;
    /// u32 RO: kernel that last accessed a register, counted from 0. Not something hardware has.
    pub const EPOCH_SEEN: u16 = 0x54;
    /// u64 RO: ticks since the last reset.
    pub const UPTIME: u16 = 0x58;
    /// The MSI-X table: one entry of 16 bytes, address (u64), data (u32), control (u32, bit 0 masks).
    pub const MSIX_TABLE: u16 = 0x800;
    /// u64 RO: bit 0, the interrupt is pending.
    pub const MSIX_PENDING: u16 = 0xc00;
}

/// What the register ID says: `SDMA`.
pub const ID: u32 = 0x414d_4453;
/// Bytes of BAR0.
pub const BAR_SIZE: u64 = 4096;
/// Most entries of a ring.
pub const MAX_RING: u32 = 1 << 16;
/// Most bytes that a step moves.
pub const STEP: u32 = 64;
/// Bytes that carry one stamp.
pub const UNIT: usize = 16;

/// Bits of CTRL.
pub mod ctrl {
    /// Takes descriptors and executes them.
    pub const RUN: u32 = 1;
    /// Stops between two operations: finishes the one it is at, takes no other.
    pub const PAUSE: u32 = 2;
    /// Raises an interrupt at each completion.
    pub const IRQ: u32 = 4;
    /// Written as one: resets the device. Reads as zero.
    pub const RESET: u32 = 1 << 31;
    /// Bits that stay.
    pub const KEPT: u32 = RUN | PAUSE | IRQ;
}

/// Bits of STATUS.
pub mod status {
    /// An operation is under way.
    pub const BUSY: u32 = 1;
    /// There was a fault since the last reset.
    pub const FAULT: u32 = 2;
    /// An interrupt is pending.
    pub const IRQ: u32 = 4;
    /// Bus mastering was found off since the last reset.
    pub const MASTER_OFF: u32 = 8;
}

luosim_abi::named! {
    /// What a descriptor asks for; the number is the place in the table, from 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Op {
        Copy = "copy", "copies len bytes from src to dst";
        Fill = "fill", "writes stamps to len bytes at dst";
        Loop = "loop", "goes back over the descriptors before it";
        Verify = "verify", "reads len bytes at src and checks their stamps";
        Peer = "peer", "copies len bytes from src to registers of another device at dst";
    }
}

impl Op {
    /// The number in a descriptor.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16 + 1
    }

    /// From a descriptor.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|op| op.code() == code)
    }
}

/// Flag of a [`Op::Verify`]: the stamps are those of a fill at `dst`, which were copied to `src`.
pub const FLAG_COPIED: u16 = 1;

luosim_abi::named! {
    /// How an operation ended; the number is the place in the table, from 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Outcome {
        Done = "done", "everything was done";
        Bad = "bad", "the descriptor cannot be executed: unknown op, or len or an address does not fit it";
        Fault = "fault", "a request was refused; what was written before it stays";
        Mismatch = "mismatch", "a stamp is not what it must be";
    }
}

impl Outcome {
    /// The number in a completion.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// From a completion.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.code() == code)
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Descriptor {
    /// Where it reads.
    pub src_iova: U64,
    /// Where it writes.
    pub dst_iova: U64,
    /// Bytes; of a loop, how often it goes back, 0 for ever.
    pub len: U32,
    /// [`Op::code`].
    pub op: U16,
    /// [`FLAG_COPIED`]; of a loop, how many descriptors it goes back over, 0 for all from the first of the ring.
    pub flags: U16,
    /// The driver's name for it.
    pub cookie: U64,
}

/// One completion, written after everything that the operation wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Completion {
    /// Of the descriptor.
    pub cookie: U64,
    /// Number of the operation, from 1 at a reset: what SEQ was when it was done.
    pub seq: U64,
    /// [`Outcome::code`].
    pub status: U32,
    /// How often this place of the ring was executed since the last reset.
    pub exec_count: U32,
    /// Over the fields before it ([`Completion::is_intact`]).
    pub checksum: U64,
}

/// What a fill writes to each 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stamp {
    /// Number of the operation.
    pub seq: U64,
    /// [`checksum`] of it, the address of the 16 bytes and the cookie.
    pub checksum: U64,
}

/// An entry of the MSI-X table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsixEntry {
    /// Where the message goes.
    pub address: U64,
    /// The message.
    pub data: U32,
    /// Bit 0: masked.
    pub control: U32,
}

const _: () = {
    assert!(size_of::<Descriptor>() == 32);
    assert!(offset_of!(Descriptor, src_iova) == 0);
    assert!(offset_of!(Descriptor, dst_iova) == 8);
    assert!(offset_of!(Descriptor, len) == 16);
    assert!(offset_of!(Descriptor, op) == 20);
    assert!(offset_of!(Descriptor, flags) == 22);
    assert!(offset_of!(Descriptor, cookie) == 24);
    assert!(size_of::<Completion>() == 32);
    assert!(offset_of!(Completion, cookie) == 0);
    assert!(offset_of!(Completion, seq) == 8);
    assert!(offset_of!(Completion, status) == 16);
    assert!(offset_of!(Completion, exec_count) == 20);
    assert!(offset_of!(Completion, checksum) == 24);
    assert!(size_of::<Stamp>() == 16);
    assert!(offset_of!(Stamp, checksum) == 8);
    assert!(size_of::<MsixEntry>() == 16);
    assert!(offset_of!(MsixEntry, data) == 8);
    assert!(offset_of!(MsixEntry, control) == 12);
};

/// Mixes three words: what tells a stamp of this operation at this address from every other.
#[inline]
#[must_use]
pub fn checksum(seq: u64, iova: u64, cookie: u64) -> u64 {
    crate::digest::mix(crate::digest::mix(crate::digest::mix(0x5d4d, seq), iova), cookie)
}

impl Descriptor {
    /// A descriptor.
    #[must_use]
    pub fn new(op: Op, src_iova: u64, dst_iova: u64, len: u32, cookie: u64) -> Self {
        Self {
            src_iova: src_iova.into(),
            dst_iova: dst_iova.into(),
            len: len.into(),
            op: op.code().into(),
            flags: 0.into(),
            cookie: cookie.into(),
        }
    }

    /// With flags.
    #[must_use]
    pub fn with_flags(mut self, flags: u16) -> Self {
        self.flags = flags.into();
        self
    }

    /// What is asked for, if it can be executed at all.
    #[must_use]
    pub fn valid(&self) -> Option<Op> {
        let (src, dst) = (self.src_iova.get(), self.dst_iova.get());
        let len = u64::from(self.len.get());
        let whole = |unit: u64, at: u64| len.is_multiple_of(unit) && at.is_multiple_of(unit);
        let op = Op::from_code(self.op.get())?;
        let fits = match op {
            Op::Copy => true,
            Op::Fill => whole(16, dst),
            Op::Verify => whole(16, src) && whole(16, dst),
            Op::Peer => whole(4, dst),
            Op::Loop => return Some(op),
        };
        let reaches = |at: u64| at.checked_add(len).is_some();
        (fits && len > 0 && reaches(src) && reaches(dst)).then_some(op)
    }
}

impl Completion {
    pub(super) fn new(cookie: u64, seq: u64, outcome: Outcome, exec_count: u32) -> Self {
        let mut made = Self {
            cookie: cookie.into(),
            seq: seq.into(),
            status: outcome.code().into(),
            exec_count: exec_count.into(),
            checksum: 0.into(),
        };
        made.checksum = made.sum().into();
        made
    }

    fn sum(&self) -> u64 {
        let rest = (u64::from(self.status.get()) << 32) | u64::from(self.exec_count.get());
        checksum(self.seq.get(), rest, self.cookie.get())
    }

    /// Whether a device wrote it, whole. Zeros are not.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.seq.get() != 0 && self.checksum.get() == self.sum()
    }

    /// How the operation ended; `None` for a number that no device writes.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        Outcome::from_code(self.status.get())
    }
}

impl Stamp {
    /// The stamp of the operation `seq` with this cookie at this address.
    #[must_use]
    #[inline]
    pub fn new(seq: u64, iova: u64, cookie: u64) -> Self {
        Self { seq: seq.into(), checksum: checksum(seq, iova, cookie).into() }
    }

    /// Whether an operation with this cookie wrote it for this address.
    #[must_use]
    #[inline]
    pub fn is_of(&self, iova: u64, cookie: u64) -> bool {
        self.seq.get() != 0 && self.checksum.get() == checksum(self.seq.get(), iova, cookie)
    }
}
