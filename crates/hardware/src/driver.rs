//! The driver of a `simdma` in a guest: posts work, reads completions, and knows what memory must hold afterwards.
//!
//! It is software of a guest, so its state lives in guest memory and in the VMM's process, and both cross a kexec with
//! the guest. Guest memory is reached through [`GuestMemory`], by the addresses that the device uses: whoever has the file
//! behind it (a memfd, read and written by a VMM) implements it. Registers are written through [`Hardware`].
//!
//! The first page of its memory is the ring, the second holds completions, so that both rings have at most 128 entries;
//! buffers follow.

mod stamps;

use zerocopy::IntoBytes;

pub use stamps::Stamps;

use crate::simdma::layout::{Completion, Descriptor, Op, Stamp, ctrl, reg};
use crate::{Bdf, Hardware};

/// Memory of a guest, by the addresses that its devices use.
pub trait GuestMemory {
    /// Copies memory at `iova` to `buf`; false if some of it is not there.
    #[must_use]
    fn read(&self, iova: u64, buf: &mut [u8]) -> bool;

    /// Copies `bytes` to memory at `iova`; false if some of it is not there.
    #[must_use]
    fn write(&mut self, iova: u64, bytes: &[u8]) -> bool;
}

/// Memory that begins at an address of the device.
#[derive(Debug)]
pub struct At<'m> {
    /// Address of its first byte.
    pub base: u64,
    /// The bytes.
    pub bytes: &'m mut [u8],
}

impl At<'_> {
    fn range(&self, iova: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(iova.checked_sub(self.base)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.bytes.len()).then_some(from..to)
    }
}

impl GuestMemory for At<'_> {
    fn read(&self, iova: u64, buf: &mut [u8]) -> bool {
        let Some(range) = self.range(iova, buf.len()) else { return false };
        buf.copy_from_slice(&self.bytes[range]);
        true
    }

    fn write(&mut self, iova: u64, bytes: &[u8]) -> bool {
        let Some(range) = self.range(iova, bytes.len()) else { return false };
        self.bytes[range].copy_from_slice(bytes);
        true
    }
}

/// Guest memory that is not where the driver expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// No guest memory there.
    #[error("there is no guest memory at {0:#x}")]
    NoMemory(u64),
    /// The ring is full: completions must be taken first.
    #[error("the ring of {0} descriptors is full")]
    Full(u32),
}

/// A stamped range that the driver knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// First byte.
    pub iova: u64,
    /// Bytes.
    pub len: u32,
    /// Cookie of the fill.
    pub cookie: u64,
    /// Number of the fill, once its completion was seen.
    pub seq: Option<u64>,
}

/// What is wrong with a stamped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadStamp {
    /// The 16 bytes.
    pub iova: u64,
    /// Cookie of the fill that should be there.
    pub cookie: u64,
    /// Its number, if it is known to be completed.
    pub seq: Option<u64>,
    /// What is there.
    pub found: Option<Stamp>,
}

/// The driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The device.
    pub bdf: Bdf,
    base: u64,
    len: u32,
    head: u32,
    seen: u64,
    completions: Vec<Completion>,
    payloads: Vec<Payload>,
    /// Cookies in the order they were posted, a loop's not among them.
    cookies: Vec<u64>,
    /// Whether what was posted is repeated for ever.
    loops: bool,
}

/// Entries of a ring that fill its page.
pub const RING_LEN: u32 = 128;

impl Driver {
    /// A driver whose rings lie at `base` in guest memory, two pages of it; [`Self::start`] starts the device.
    #[must_use]
    pub fn new(bdf: Bdf, base: u64) -> Self {
        Self {
            bdf,
            base,
            len: RING_LEN,
            head: 0,
            seen: 0,
            completions: Vec::new(),
            payloads: Vec::new(),
            cookies: Vec::new(),
            loops: false,
        }
    }

    /// First address behind the rings.
    #[must_use]
    pub fn buffers(&self) -> u64 {
        self.base + 0x2000
    }

    /// Clears the rings, tells the device where they are and lets it run; with an interrupt at each completion or not.
    /// The device must be reset and have memory access and bus mastering.
    ///
    /// # Errors
    /// [`DriverError::NoMemory`].
    pub fn start(
        &mut self,
        hw: &mut Hardware,
        mem: &mut impl GuestMemory,
        irq: bool,
    ) -> Result<(), DriverError> {
        if !mem.write(self.base, &[0; 8192]) {
            return Err(DriverError::NoMemory(self.base));
        }
        *self = Self::new(self.bdf, self.base);
        hw.mmio_write(self.bdf, reg::RING_IOVA, 8, self.base);
        hw.mmio_write(self.bdf, reg::CQ_IOVA, 8, self.base + 0x1000);
        hw.mmio_write(self.bdf, reg::RING_LEN, 4, u64::from(self.len));
        hw.mmio_write(self.bdf, reg::HEAD, 4, 0);
        let irq = if irq { ctrl::IRQ } else { 0 };
        hw.mmio_write(self.bdf, reg::CTRL, 4, u64::from(ctrl::RUN | irq));
        Ok(())
    }

    /// Descriptors posted since the start.
    #[must_use]
    pub fn posted(&self) -> u32 {
        self.head
    }

    /// Writes a descriptor behind the last. [`Self::ring`] tells the device.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn post(&mut self, mem: &mut impl GuestMemory, descriptor: Descriptor) -> Result<(), DriverError> {
        let done = u32::try_from(self.seen & 0xffff_ffff).expect("the low half");
        if self.head.wrapping_sub(done) >= self.len {
            return Err(DriverError::Full(self.len));
        }
        let at = self.base + 32 * u64::from(self.head % self.len);
        if !mem.write(at, descriptor.as_bytes()) {
            return Err(DriverError::NoMemory(at));
        }
        self.head = self.head.wrapping_add(1);
        if Op::from_code(descriptor.op.get()) == Some(Op::Loop) {
            self.loops = true;
        } else {
            self.cookies.push(descriptor.cookie.get());
        }
        if descriptor.valid() == Some(Op::Fill) {
            let (iova, len) = (descriptor.dst_iova.get(), descriptor.len.get());
            self.payloads.push(Payload { iova, len, cookie: descriptor.cookie.get(), seq: None });
        }
        Ok(())
    }

    /// Posts a fill of `len` bytes at `iova`, both multiples of 16.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn post_fill(
        &mut self,
        mem: &mut impl GuestMemory,
        iova: u64,
        len: u32,
        cookie: u64,
    ) -> Result<(), DriverError> {
        self.post(mem, Descriptor::new(Op::Fill, 0, iova, len, cookie))
    }

    /// Posts a loop over everything posted so far, for ever; in the first turn of the ring, and as the last thing posted.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn post_loop(&mut self, mem: &mut impl GuestMemory) -> Result<(), DriverError> {
        self.post(mem, Descriptor::new(Op::Loop, 0, 0, 0, u64::MAX))
    }

    /// Tells the device what was posted.
    pub fn ring(&self, hw: &mut Hardware) {
        hw.mmio_write(self.bdf, reg::HEAD, 4, u64::from(self.head));
    }

    /// Reads the completions that are new in memory, without asking the device.
    ///
    /// # Errors
    /// [`DriverError::NoMemory`].
    pub fn drain(&mut self, mem: &impl GuestMemory) -> Result<&[Completion], DriverError> {
        let first = self.completions.len();
        loop {
            let slot = u32::try_from(self.seen % u64::from(self.len)).expect("below the length");
            let at = self.base + 0x1000 + 32 * u64::from(slot);
            let mut completion = Completion::default();
            if !mem.read(at, completion.as_mut_bytes()) {
                return Err(DriverError::NoMemory(at));
            }
            if completion.seq.get() <= self.seen || completion.seq.get() == 0 {
                break;
            }
            // What was overwritten before it was looked at is not missed: its number is.
            self.seen = completion.seq.get();
            self.completions.push(completion);
            let done = |payload: &&mut Payload| payload.cookie == completion.cookie.get();
            if let Some(payload) = self.payloads.iter_mut().find(done) {
                payload.seq = Some(completion.seq.get());
            }
        }
        Ok(&self.completions[first..])
    }

    /// Completions that were read since the start.
    #[must_use]
    pub fn completions(&self) -> &[Completion] {
        &self.completions
    }

    /// Number of the last completion that was read, of those the device wrote since the start; 0 for none.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Forgets the completions that were read, and which were is still known: a look that is repeated for ever would
    /// collect them otherwise.
    pub fn forget_completions(&mut self) {
        self.completions.clear();
    }

    /// Stamped ranges that were posted.
    #[must_use]
    pub fn payloads(&self) -> &[Payload] {
        &self.payloads
    }

    /// The first completion that is not the one that its number belongs to: in the order posted, or round and round in a
    /// loop, each place of the ring executed once a turn.
    #[must_use]
    pub fn out_of_order(&self) -> Option<String> {
        let wrong = self.completions.iter().find_map(|completion| {
            let number = completion.seq.get().checked_sub(1)?;
            let turn = if self.loops { u64::try_from(self.cookies.len()).ok()? } else { u64::from(self.len) };
            let place = if self.loops { number % turn.max(1) } else { number };
            let cookie = usize::try_from(place).ok().and_then(|at| self.cookies.get(at)).copied();
            let due = (cookie, number / turn.max(1) + 1);
            let found = (Some(completion.cookie.get()), u64::from(completion.exec_count.get()));
            (found != due).then_some((completion, due))
        });
        wrong.map(|(completion, (cookie, count))| {
            format!(
                "{}: operation {} has cookie {:#x} and execution {}, and cookie {:x?} and execution {count} are due",
                self.bdf,
                completion.seq.get(),
                completion.cookie.get(),
                completion.exec_count.get(),
                cookie.unwrap_or_default(),
            )
        })
    }

    /// Compares memory with every stamped range whose completion was seen: each unit has a stamp of its fill, with the
    /// fill's number or a later one of a loop. At most `limit` that do not.
    #[must_use]
    pub fn bad_stamps(&self, mem: &impl GuestMemory, limit: usize) -> Vec<BadStamp> {
        Stamps::default().bad(&self.payloads, |iova, buf| mem.read(iova, buf), limit)
    }
}
