//! IOMMU units: registers, and the translation of every DMA request through tables in memory.
//!
//! A unit knows an address, a switch and a record of faults; everything else it reads in memory at each request
//! ([`layout`], [`walk`]). With the switch off requests pass as they are: that is the state after power on, and what a
//! kernel that loses a unit falls back to. Optionally a unit remembers ([`IommuUnit::set_cache`]). [`table`] is for kernels
//! and builds the tables. Not modelled: interrupt remapping, PASIDs, page requests, a queue for invalidations (a write to
//! INVAL has taken effect when it returns). In a run of ticks, when nobody but devices acts, a walk is made anew only if a device wrote to a
//! page that it read, which nothing can tell from a walk each time.

mod cache;
pub mod fault;
pub mod layout;
mod run;
pub mod table;
pub mod walk;

use luosim_physmem::{PAGE_SIZE, PhysAddr, ReadPhys};

pub use cache::Invalidation;
pub use fault::{Fault, FaultReason};
pub use layout::{Context, ContextEntry, Levels, Permissions, RootEntry};
pub(crate) use run::Run;
pub use table::{DomainIds, MapError, PageTable, RamRef, RootTable, TableMemory};
pub use walk::{Contents, Extent, TableError, Translation};

use crate::Bdf;

/// Register offsets of a unit.
pub mod reg {
    /// u64 RW: address of the root table; bits 11:0 read as zero.
    pub const ROOT_PA: u16 = 0x00;
    /// u32 RW: bit 0 translates.
    pub const CTRL: u16 = 0x08;
    /// u32, a one clears: bit 0 a fault is recorded, bit 1 there were more than the one recorded.
    pub const FAULT_STS: u16 = 0x0c;
    /// u64 RO: address of the recorded fault.
    pub const FAULT_ADDR: u16 = 0x10;
    /// u32 RO: requester in bits 15:0, reason in 23:16, bit 31 for a write.
    pub const FAULT_RID: u16 = 0x18;
    /// u32 RO: faults since power on.
    pub const FAULT_CNT: u16 = 0x1c;
    /// u64 WO: what to forget ([`super::Invalidation`]).
    pub const INVAL: u16 = 0x20;
    /// u32 RO: invalidations since power on.
    pub const INVAL_CNT: u16 = 0x28;
    /// u32 RO, for debugging: domain id of the last request that was translated.
    pub const DID_USED: u16 = 0x2c;
}

/// CTRL: translates.
pub const CTRL_ENABLE: u32 = 1;
/// FAULT_STS: a fault is recorded.
pub const FAULT_RECORDED: u32 = 1;
/// FAULT_STS: more faults than the recorded one.
pub const FAULT_OVERFLOW: u32 = 2;
/// Faults that [`IommuUnit::faults`] keeps.
pub const FAULT_LOG: usize = 256;

/// What a device asks a unit for: one address, to read or to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) rid: Bdf,
    pub(crate) iova: u64,
    pub(crate) wants: Permissions,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuUnit {
    root: u64,
    ctrl: u32,
    fault_sts: u32,
    fault_addr: u64,
    fault_rid: u32,
    fault_cnt: u32,
    inval_cnt: u32,
    did_used: u32,
    cache: Option<cache::Cache>,
    log: Vec<Fault>,
}

impl Default for IommuUnit {
    fn default() -> Self {
        Self::new()
    }
}

impl IommuUnit {
    /// A unit after power on: requests pass untranslated, nothing is remembered.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: 0,
            ctrl: 0,
            fault_sts: 0,
            fault_addr: 0,
            fault_rid: 0,
            fault_cnt: 0,
            inval_cnt: 0,
            did_used: 0,
            cache: None,
            log: Vec::new(),
        }
    }

    /// Lets the unit remember contexts and `1 << bits` pages (bits up to 16), or nothing.
    pub fn set_cache(&mut self, bits: Option<u8>) {
        self.cache = bits.map(cache::Cache::new);
    }

    /// Pages that the unit remembers.
    #[must_use]
    pub fn cached_pages(&self) -> usize {
        self.cache.as_ref().map_or(0, cache::Cache::len)
    }

    /// Address of the root table.
    #[must_use]
    pub fn root(&self) -> RootTable {
        RootTable(PhysAddr::new(self.root))
    }

    /// Whether the unit translates.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.ctrl & CTRL_ENABLE != 0
    }

    /// The first [`FAULT_LOG`] faults since power on or [`Self::clear_log`]: for tests, no register shows them.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.log
    }

    /// Empties [`Self::faults`].
    pub fn clear_log(&mut self) {
        self.log.clear();
    }

    /// Faults since power on.
    #[must_use]
    pub fn fault_count(&self) -> u32 {
        self.fault_cnt
    }

    /// Reads a register: `width` 4 at a multiple of 4, or 8 at the first byte of a u64. Anything else is ones.
    #[must_use]
    pub fn read(&self, offset: u16, width: u8) -> u64 {
        let whole = |value: u64, base: u16| match (width, offset - base) {
            (8, 0) => value,
            (4, 0) => value & 0xffff_ffff,
            (4, 4) => value >> 32,
            _ => u64::MAX,
        };
        let word = |value: u32| if width == 4 { u64::from(value) } else { u64::MAX };
        match offset {
            0x00 | 0x04 => whole(self.root, reg::ROOT_PA),
            reg::CTRL => word(self.ctrl),
            reg::FAULT_STS => word(self.fault_sts),
            0x10 | 0x14 => whole(self.fault_addr, reg::FAULT_ADDR),
            reg::FAULT_RID => word(self.fault_rid),
            reg::FAULT_CNT => word(self.fault_cnt),
            0x20 | 0x24 => whole(0, reg::INVAL),
            reg::INVAL_CNT => word(self.inval_cnt),
            reg::DID_USED => word(self.did_used),
            _ => u64::MAX,
        }
    }

    /// Writes a register, as wide as [`Self::read`] reads it. Anything else does nothing; so does a half of INVAL.
    pub fn write(&mut self, offset: u16, width: u8, value: u64) {
        match (offset, width) {
            (reg::ROOT_PA, 8) => self.root = value & layout::ADDRESS,
            (0x00, 4) => self.root = (self.root & !0xffff_ffff) | (value & 0xffff_f000),
            (0x04, 4) => self.root = (self.root & 0xffff_ffff) | ((value & 0x000f_ffff) << 32),
            (reg::CTRL, 4) => self.ctrl = u32::from(value & 1 != 0),
            (reg::FAULT_STS, 4) => self.fault_sts &= !u32::try_from(value & 3).expect("two bits"),
            (reg::INVAL, 8) => self.invalidate(value),
            _ => {}
        }
    }

    fn invalidate(&mut self, value: u64) {
        let Some(what) = Invalidation::decode(value) else { return };
        self.inval_cnt = self.inval_cnt.wrapping_add(1);
        if let Some(cache) = &mut self.cache {
            cache.forget(what);
        }
    }

    /// Translates one address of a request. A refusal is recorded.
    ///
    /// # Errors
    /// Why the request is refused.
    #[inline]
    pub fn translate(
        &mut self,
        mem: &impl ReadPhys,
        rid: Bdf,
        iova: u64,
        wants: Permissions,
    ) -> Result<PhysAddr, FaultReason> {
        if !self.is_enabled() {
            return Ok(PhysAddr::new(iova));
        }
        let request = Request { rid, iova, wants };
        self.look_up(mem, request).inspect_err(|reason| self.record(request, *reason))
    }

    #[inline]
    fn look_up(&mut self, mem: &impl ReadPhys, request: Request) -> Result<PhysAddr, FaultReason> {
        let Request { rid, iova, wants } = request;
        let context = match self.cache.as_ref().and_then(|cache| cache.context(rid)) {
            Some(context) => context,
            None => self.fetch_context(mem, rid)?,
        };
        self.did_used = context.domain_id;
        if let Some(cache) = &self.cache
            && let Some(hit) = cache.page(context.domain_id, iova, wants)
        {
            return Ok(PhysAddr::new(hit.addr.raw() | (iova & (PAGE_SIZE - 1))));
        }
        let to = walk::translate(mem, context.top, context.levels, iova)?;
        to.check(wants)?;
        if let Some(cache) = &mut self.cache {
            let page = Translation { addr: to.addr.pfn().addr(), ..to };
            cache.keep_page(context.domain_id, iova, page);
        }
        Ok(to.addr)
    }

    /// [`Self::translate`] within a run of ticks, for the device `who` of it.
    #[inline]
    pub(crate) fn translate_in(
        &mut self,
        (run, who): (&mut Run, usize),
        mem: &impl ReadPhys,
        request: Request,
    ) -> Result<PhysAddr, FaultReason> {
        let Request { rid, iova, wants } = request;
        if self.cache.is_some() || !self.is_enabled() {
            return self.translate(mem, rid, iova, wants);
        }
        if let Some((addr, domain_id)) = run.find(who, iova, wants) {
            self.did_used = domain_id;
            return Ok(addr);
        }
        self.walk_in((run, who), mem, request).inspect_err(|reason| self.record(request, *reason))
    }

    /// A walk whose result is good for the run, until a device writes to one of the pages that it read.
    fn walk_in(
        &mut self,
        (run, who): (&mut Run, usize),
        mem: &impl ReadPhys,
        Request { rid, iova, wants }: Request,
    ) -> Result<PhysAddr, FaultReason> {
        let root = PhysAddr::new(self.root);
        let (context, from) = walk::context_from(mem, root, rid)?;
        self.did_used = context.domain_id;
        let (to, [first, second, third, fourth]) =
            walk::translate_from(mem, context.top, context.levels, iova)?;
        to.check(wants)?;
        run.keep((who, iova), to, context.domain_id, &[root, from, first, second, third, fourth]);
        Ok(to.addr)
    }

    fn fetch_context(&mut self, mem: &impl ReadPhys, rid: Bdf) -> Result<Context, FaultReason> {
        let context = walk::context(mem, PhysAddr::new(self.root), rid)?;
        if let Some(cache) = &mut self.cache {
            cache.keep_context(rid, context);
        }
        Ok(context)
    }

    /// Records a refused request: the registers hold the first until it is cleared.
    pub(crate) fn record(&mut self, Request { rid, iova, wants }: Request, reason: FaultReason) {
        let write = wants.allow(Permissions::WRITE);
        self.fault_cnt = self.fault_cnt.wrapping_add(1);
        if self.log.len() < FAULT_LOG {
            self.log.push(Fault { rid, iova, write, reason });
        }
        if self.fault_sts & FAULT_RECORDED != 0 {
            self.fault_sts |= FAULT_OVERFLOW;
            return;
        }
        self.fault_sts |= FAULT_RECORDED;
        self.fault_addr = iova;
        self.fault_rid = u32::from(rid.raw()) | (u32::from(reason.code()) << 16) | (u32::from(write) << 31);
    }
}
