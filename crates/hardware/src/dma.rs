//! The way of a request from a device into memory: bus mastering, translation, then memory or the registers of another
//! device.
//!
//! A request is split at page boundaries; what passed before a refusal has happened. Nothing outside memory and no page
//! that is not mapped for the requester is touched.

use luosim_physmem::{PAGE_SIZE, PhysAddr, PhysMem};

use crate::Bdf;
use crate::iommu::{FaultReason, IommuUnit, Permissions, Request, Run};

/// Why a request did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Bus mastering is off in the function or in a bridge above it.
    MasterOff,
    /// Refused at this address.
    Fault(u64),
}

/// The registers of a device as other devices reach them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) base: u64,
    pub(crate) function: usize,
}

/// A write that reached another device's registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerWrite {
    pub(crate) function: usize,
    pub(crate) offset: u16,
    pub(crate) value: u32,
}

/// What a device sees of the machine during a step.
#[derive(Debug)]
pub(crate) struct Bus<'m> {
    pub(crate) mem: &'m mut PhysMem,
    pub(crate) unit: &'m mut IommuUnit,
    /// Translations of the run of ticks.
    pub(crate) run: &'m mut Run,
    /// Which device of the run it is.
    pub(crate) who: usize,
    pub(crate) windows: &'m [Window],
    pub(crate) peer_writes: &'m mut Vec<PeerWrite>,
    /// Frames written, if somebody watches.
    pub(crate) watch: Option<&'m mut std::collections::BTreeMap<luosim_physmem::Pfn, Bdf>>,
    pub(crate) rid: Bdf,
    pub(crate) master: bool,
    /// Whether a request was refused: the function's Status says so.
    pub(crate) aborted: bool,
    /// By a defect: what begins a page goes to the last page of memory too.
    pub(crate) astray: bool,
}

impl Bus<'_> {
    fn may(&self) -> Result<(), Denied> {
        if self.master { Ok(()) } else { Err(Denied::MasterOff) }
    }

    fn locate(&mut self, iova: u64, wants: Permissions) -> Result<PhysAddr, Denied> {
        let request = Request { rid: self.rid, iova, wants };
        self.unit.translate_in((self.run, self.who), &*self.mem, request).map_err(|_| {
            self.aborted = true;
            Denied::Fault(iova)
        })
    }

    fn refuse(&mut self, iova: u64, wants: Permissions) -> Denied {
        self.unit.record(Request { rid: self.rid, iova, wants }, FaultReason::Target);
        self.aborted = true;
        Denied::Fault(iova)
    }

    /// Reads memory.
    #[inline]
    pub(crate) fn read(&mut self, iova: u64, buf: &mut [u8]) -> Result<(), Denied> {
        self.may()?;
        let mut done = 0;
        while done < buf.len() {
            let at = step(iova, done)?;
            let addr = self.locate(at, Permissions::READ)?;
            let piece = in_page(at, buf.len() - done);
            if self.mem.read(addr, &mut buf[done..done + piece]).is_err() {
                return Err(self.refuse(at, Permissions::READ));
            }
            done += piece;
        }
        Ok(())
    }

    /// Writes memory.
    #[inline]
    pub(crate) fn write(&mut self, iova: u64, bytes: &[u8]) -> Result<(), Denied> {
        self.may()?;
        let mut done = 0;
        while done < bytes.len() {
            let at = step(iova, done)?;
            let addr = self.locate(at, Permissions::WRITE)?;
            let piece = in_page(at, bytes.len() - done);
            if self.mem.write(addr, &bytes[done..done + piece]).is_err() {
                return Err(self.refuse(at, Permissions::WRITE));
            }
            self.note(addr);
            if self.astray && addr.page_offset() == 0 {
                self.stray(&bytes[done..done + piece]);
            }
            done += piece;
        }
        Ok(())
    }

    #[inline]
    fn note(&mut self, addr: PhysAddr) {
        let anew = self.run.wrote(self.who, addr.pfn());
        if let Some(watch) = self.watch.as_mut().filter(|_| anew) {
            watch.insert(addr.pfn(), self.rid);
        }
    }

    fn stray(&mut self, bytes: &[u8]) {
        let last = PhysAddr::new(self.mem.len().saturating_sub(PAGE_SIZE));
        if self.mem.write(last, bytes).is_ok() {
            self.note(last);
        }
    }

    /// Writes registers of another device: whole words, in one page.
    pub(crate) fn write_peer(&mut self, iova: u64, bytes: &[u8]) -> Result<(), Denied> {
        self.may()?;
        let addr = self.locate(iova, Permissions::WRITE)?;
        let base = addr.raw() / PAGE_SIZE * PAGE_SIZE;
        let Some(window) = self.windows.iter().find(|window| window.base == base) else {
            return Err(self.refuse(iova, Permissions::WRITE));
        };
        let first = u16::try_from(addr.page_offset()).expect("below 4096");
        let words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        let function = window.function;
        let write = |(offset, value)| PeerWrite { function, offset, value };
        self.peer_writes.extend((first..).step_by(4).zip(words).map(write));
        Ok(())
    }
}

fn step(iova: u64, done: usize) -> Result<u64, Denied> {
    let done = u64::try_from(done).expect("a length");
    iova.checked_add(done).ok_or(Denied::Fault(u64::MAX))
}

fn in_page(iova: u64, left: usize) -> usize {
    let room = usize::try_from(PAGE_SIZE - iova % PAGE_SIZE).expect("at most 4096");
    room.min(left)
}
