//! What can be seen of a device and of memory at a time point.

use std::collections::BTreeMap;
use std::rc::Rc;

use luosim_physmem::{AccessError, PAGE_SIZE, Pfn, PhysMem, ReadPhys};

use crate::digest::{self, Digest};
use crate::iommu::{Contents, FaultReason, PageTable, TableError};
use crate::simdma::Totals;
use crate::simdma::layout::reg;
use crate::{Bdf, Hardware};

/// Numbers that user space gave, as far as the observer knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Token of the device in its session.
    pub luo: Option<u64>,
    /// Token of its page table in its iommufd.
    pub hwpt: Option<u64>,
}

/// What a device's requests go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Domain id.
    pub domain_id: u32,
    /// Pages that are mapped.
    pub pages: u64,
    /// Digest of every address, frame and permission.
    pub translations: u64,
    /// Table pages, top first, each with the digest of its bytes.
    pub tables: Vec<(Pfn, u64)>,
}

/// Why there is no mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMapping {
    /// The device's requests are refused, or not translated ([`FaultReason::RootAbsent`]).
    #[error("its requests are refused: {}", .0.describe())]
    Refused(FaultReason),
    /// The tables are broken.
    #[error("its page table is broken: {0}")]
    Broken(TableError),
}

impl Mapping {
    /// The digests of what was walked.
    ///
    /// # Errors
    /// [`AccessError`]: a table page lies outside memory; a walk of the same memory would have said so.
    pub fn of(mem: &impl ReadPhys, domain_id: u32, contents: &Contents) -> Result<Self, AccessError> {
        let mut digest = Digest::default();
        for extent in &contents.extents {
            digest.word(extent.iova).word(extent.addr.raw()).word(extent.len).word(extent.permissions.bits());
        }
        let page = |pfn: &Pfn| {
            let mut bytes = [0; 4096];
            mem.read_bytes(pfn.addr(), &mut bytes)?;
            Ok((*pfn, digest::page(&bytes)))
        };
        let tables = contents.tables.iter().map(page).collect::<Result<_, AccessError>>()?;
        Ok(Self { domain_id, pages: contents.pages(), translations: digest.get(), tables })
    }
}

/// A device at a time point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Where configuration accesses find it; `None` if they do not.
    pub bdf: Option<Bdf>,
    /// What it puts on its requests.
    pub rid: Bdf,
    /// What user space calls it.
    pub tokens: Tokens,
    /// What its requests go through.
    pub mapping: Result<Mapping, NoMapping>,
    /// Ticks since power on.
    pub now: u64,
    /// Whether it has work and RUN is on.
    pub active: bool,
    /// Whether it and every bridge above it are bus masters.
    pub master: bool,
    /// What it did since power on.
    pub totals: Totals,
    /// Requests of it that its IOMMU unit recorded as refused, as far as the unit's log goes.
    pub refused: u64,
    /// Completed operations since its last reset.
    pub seq: u64,
    /// Descriptors it is done with since its last reset.
    pub tail: u32,
    /// Resets since power on.
    pub resets: u32,
    /// Ticks since its last reset.
    pub uptime: u64,
    /// Whether an interrupt is pending.
    pub irq_pending: bool,
}

impl DeviceView {
    /// Looks at the device whose place in [`Hardware::functions`] is `index`, without any access that it would notice, and
    /// gives also what it can reach.
    ///
    /// The place is what an observer goes by: the address may change, and that is one of the things to notice.
    ///
    /// # Panics
    /// If the function is a bridge or there is none at that place.
    #[must_use]
    pub fn observe(hw: &Hardware, mem: &PhysMem, index: usize, tokens: Tokens) -> (Self, Rc<Contents>) {
        Observer::default().observe(hw, mem, index, tokens)
    }

    fn of(hw: &Hardware, index: usize, tokens: Tokens, mapping: Result<Mapping, NoMapping>) -> Self {
        let info = hw.function_at(index).expect("a function at that place");
        let device = hw.device_at(index).expect("an endpoint");
        let faults = hw.units()[info.unit].faults();
        Self {
            bdf: info.bdf,
            rid: info.rid,
            tokens,
            mapping,
            now: hw.now(),
            active: device.is_active(),
            master: info.bdf.is_some_and(|bdf| hw.is_master(bdf)),
            totals: device.totals(),
            refused: faults.iter().filter(|fault| fault.rid == info.rid).map(|_| 1).sum(),
            seq: device.peek(reg::SEQ, hw.now()),
            tail: u32::try_from(device.peek(reg::TAIL, hw.now()) & 0xffff_ffff).expect("32 bits"),
            resets: u32::try_from(device.peek(reg::RESET_CNT, hw.now()) & 0xffff_ffff).expect("32 bits"),
            uptime: device.peek(reg::UPTIME, hw.now()),
            irq_pending: device.irq_pending(),
        }
    }
}

/// Looks at devices again and again.
///
/// What a page table maps follows from the bytes of its pages. They are all read and compared with those of the last walk, and a table is
/// walked anew where one differs: what is seen is what [`DeviceView::observe`] sees.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    /// The last walk for each device, by its place.
    walked: BTreeMap<usize, Walked>,
}

/// A walk that came to its end, and what it read.
#[derive(Clone, Debug)]
struct Walked {
    table: PageTable,
    mapping: Mapping,
    contents: Rc<Contents>,
    bytes: Vec<u8>,
}

/// Most bytes of tables that are kept for a device: the tables of 8 GiB.
const MOST_KEPT: usize = 16 << 20;

impl Walked {
    fn new(mem: &PhysMem, table: PageTable) -> Result<Self, NoMapping> {
        let contents = table.contents(mem).map_err(NoMapping::Broken)?;
        let mapping = Mapping::of(mem, 0, &contents).expect("the walk read every table page");
        let size = contents.tables.len().saturating_mul(4096);
        let mut bytes = vec![0; if size <= MOST_KEPT { size } else { 0 }];
        for (table, page) in contents.tables.iter().zip(bytes.chunks_mut(4096)) {
            mem.read(table.addr(), page).expect("the walk read every table page");
        }
        Ok(Self { table, mapping, contents: Rc::new(contents), bytes })
    }

    /// Whether a walk now would read the same.
    fn holds(&self, mem: &PhysMem, table: PageTable) -> bool {
        let mut now = [0; 4096];
        let mut pages = self.contents.tables.iter().zip(self.bytes.chunks(4096));
        self.table == table
            && !self.bytes.is_empty()
            && pages.all(|(table, then)| mem.read(table.addr(), &mut now).is_ok() && now == *then)
    }
}

impl Observer {
    /// As [`DeviceView::observe`].
    ///
    /// # Panics
    /// If the function is a bridge or there is none at that place.
    #[must_use]
    pub fn observe(
        &mut self,
        hw: &Hardware,
        mem: &PhysMem,
        index: usize,
        tokens: Tokens,
    ) -> (DeviceView, Rc<Contents>) {
        let info = hw.function_at(index).expect("a function at that place");
        let walked = hw
            .page_table(mem, &info)
            .map_err(NoMapping::Refused)
            .and_then(|(table, domain_id)| Ok((self.walk(mem, index, table)?, domain_id)));
        let (mapping, contents) = match walked {
            Ok((walked, domain_id)) => {
                (Ok(Mapping { domain_id, ..walked.mapping.clone() }), Rc::clone(&walked.contents))
            }
            Err(why) => (Err(why), Rc::default()),
        };
        (DeviceView::of(hw, index, tokens, mapping), contents)
    }

    fn walk(&mut self, mem: &PhysMem, index: usize, table: PageTable) -> Result<&Walked, NoMapping> {
        if !self.walked.get(&index).is_some_and(|walked| walked.holds(mem, table)) {
            self.walked.remove(&index);
            self.walked.insert(index, Walked::new(mem, table)?);
        }
        Ok(&self.walked[&index])
    }
}

/// Frames filled with a byte, which nobody may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canaries {
    byte: u8,
    frames: Vec<Pfn>,
}

impl Canaries {
    /// Fills frames.
    ///
    /// # Errors
    /// [`AccessError`]: a frame lies outside memory.
    pub fn plant(mem: &mut PhysMem, byte: u8, frames: Vec<Pfn>) -> Result<Self, AccessError> {
        for frame in &frames {
            mem.fill(frame.addr(), PAGE_SIZE, byte)?;
        }
        Ok(Self { byte, frames })
    }

    /// Frames that were changed.
    #[must_use]
    pub fn dead(&self, mem: &PhysMem) -> Vec<Pfn> {
        let alive = |frame: &Pfn| mem.is_filled_with(frame.addr(), PAGE_SIZE, self.byte).unwrap_or(false);
        self.frames.iter().copied().filter(|frame| !alive(frame)).collect()
    }
}
