//! Accepting a handover at boot: from memory alone, before an allocator exists.
//!
//! [`accept`] checks in the kernel's order and touches nothing. [`hold`] walks the tracker and takes every
//! preserved block out of the allocator. Hostile trackers: a page is walked once, blocks outside memory are
//! skipped by runs, blocks that overlap are skipped one by one, each with one line in the log.

use luosim_abi::kho::{PROP_MEMORY_MAP, scratch, v1, v4};
use luosim_abi::release::KhoVersion;
use luosim_abi::{Errno, Refusal};
use luosim_physmem::{Order, PAGE_SIZE, Pfn, PhysAddr, PhysMem, Ram};
use rustc_hash::FxHashSet;

use crate::BootParams;
use crate::fdt::Tree;
use crate::log::KernelLog;
use crate::scratch::ScratchArea;
use crate::tracker::bit_runs;

/// A handover that will be taken over.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) tree: Tree,
    pub(crate) map: PhysAddr,
    pub(crate) scratch: Vec<ScratchArea>,
}

/// Most scratch areas believed: low, global and one for each of 1024 nodes.
const MAX_AREAS: u64 = 1026;

/// Checks the root tree and the scratch array.
pub(crate) fn accept(
    mem: &PhysMem,
    version: KhoVersion,
    params: BootParams,
    log: &mut KernelLog,
) -> Result<Accepted, Refusal> {
    check(mem, version, params, log).inspect_err(|refusal| {
        let number = match version {
            KhoVersion::V1 => format!(": -{}", refusal.errno.raw()),
            KhoVersion::V4 => String::new(),
        };
        log.warn(format!("KHO: disabling KHO revival{number}"));
    })
}

fn check(
    mem: &PhysMem,
    version: KhoVersion,
    params: BootParams,
    log: &mut KernelLog,
) -> Result<Accepted, Refusal> {
    let BootParams { fdt, fdt_size, .. } = params;
    let wanted = version.compatible();
    let tree = Tree::read(mem, fdt, fdt_size.min(PAGE_SIZE)).map_err(|error| {
        log.warn(format!("KHO: setup: handover FDT ({fdt}) is invalid: {}", error.code()));
        Errno::EINVAL.because(format!("KHO root at {fdt} refused: {error}"))
    })?;
    let root = tree.root();
    if !root.is_compatible(wanted) {
        let found = root.compatible();
        let code = if found.is_some() { 1 } else { -1 };
        log.warn(format!("KHO: setup: handover FDT ({fdt}) is incompatible with '{wanted}': {code}"));
        let found = found.unwrap_or_else(|| String::from("without a version"));
        return Err(Errno::EINVAL.because(format!("KHO root {found} refused by {wanted}")));
    }
    let map = root
        .u64(PROP_MEMORY_MAP)
        .ok_or_else(|| Errno::EINVAL.because("KHO root refused: it has no 8-byte preserved-memory-map"))?;
    if map == 0 {
        let why = "KHO root refused: its preserved-memory-map is 0 (the old kernel was not finalised)";
        return Err(Errno::ENOENT.because(why));
    }
    let scratch = read_scratch(mem, params)?;
    Ok(Accepted { tree, map: PhysAddr::new(map), scratch })
}

fn read_scratch(mem: &PhysMem, params: BootParams) -> Result<Vec<ScratchArea>, Refusal> {
    let bad = |why: String| Errno::EINVAL.because(format!("the scratch array is refused: {why}"));
    let count = params.scratch_size / scratch::ENTRY_SIZE;
    if count == 0 || count > MAX_AREAS {
        return Err(bad(format!("it has {count} areas")));
    }
    let mut areas: Vec<ScratchArea> = Vec::new();
    for index in 0..count {
        let at = params.scratch.checked_add(index * scratch::ENTRY_SIZE);
        let at = at.ok_or_else(|| bad(String::from("it lies outside memory")))?;
        let entry = mem.read_obj::<scratch::Entry>(at).map_err(|error| bad(error.to_string()))?;
        let area = ScratchArea { addr: PhysAddr::new(entry.addr.get()), size: entry.size.get() };
        let end = area.addr.checked_add(area.size).filter(|end| end.raw() <= mem.len());
        let aligned = area.addr.is_page_aligned() && area.size.is_multiple_of(PAGE_SIZE);
        let pages = area.size / PAGE_SIZE;
        let overlaps = areas.iter().any(|other| other.overlaps(area.addr.pfn(), pages));
        if end.is_none() || !aligned || overlaps {
            return Err(bad(format!("area {index} ({:#x} bytes at {}) is not one", area.size, area.addr)));
        }
        areas.push(area);
    }
    Ok(areas)
}

/// Takes every preserved block out of the allocator; returns blocks and pages held.
pub(crate) fn hold(ram: &mut Ram, log: &mut KernelLog, version: KhoVersion, map: PhysAddr) -> (u64, u64) {
    let mut walk = Walk { ram, log, seen: FxHashSet::default(), blocks: 0, pages: 0 };
    match version {
        KhoVersion::V1 => walk.chunks(map),
        KhoVersion::V4 => walk.node(map, v4::ROOT_LEVEL, 0),
    }
    (walk.blocks, walk.pages)
}

struct Walk<'a> {
    ram: &'a mut Ram,
    log: &'a mut KernelLog,
    seen: FxHashSet<PhysAddr>,
    blocks: u64,
    pages: u64,
}

impl Walk<'_> {
    /// Reads a page of the tracker, once.
    fn page(&mut self, at: PhysAddr) -> Option<[u64; 512]> {
        let mut page = [0u64; 512];
        if !at.is_page_aligned() || !self.seen.insert(at) {
            self.log.warn(format!("KHO: page {at} of the memory map is not aligned or is used twice"));
            return None;
        }
        if self.ram.mem.read(at, zerocopy::IntoBytes::as_mut_bytes(&mut page)).is_err() {
            self.log.warn(format!("KHO: page {at} of the memory map lies outside memory"));
            return None;
        }
        Some(page.map(u64::from_le))
    }

    fn chunks(&mut self, first: PhysAddr) {
        let mut at = first;
        while at != PhysAddr::NULL {
            let Some(chunk) = self.page(at) else { return };
            let order = u32::try_from(chunk[1] & 0xffff_ffff).expect("32 bits");
            let used = usize::try_from(chunk[1] >> 32).expect("32 bits").min(v1::ENTRIES_PER_CHUNK);
            match Order::new(order) {
                Some(order) => {
                    for entry in chunk[2..].chunks_exact(2).take(used) {
                        self.bitmap(PhysAddr::new(entry[1]), PhysAddr::new(entry[0]), order);
                    }
                }
                None => self.log.warn(format!("KHO: chunk {at} has blocks of order {order}")),
            }
            at = PhysAddr::new(chunk[0]);
        }
    }

    fn bitmap(&mut self, bitmap: PhysAddr, start: PhysAddr, order: Order) {
        let Some(page) = self.page(bitmap) else { return };
        for (bit, len) in bit_runs(&page) {
            let offset = bit.checked_mul(order.bytes());
            if let Some(at) = offset.and_then(|offset| start.checked_add(offset)) {
                self.run(at.pfn(), len, order);
            }
        }
    }

    fn node(&mut self, at: PhysAddr, level: u32, key: u64) {
        let Some(page) = self.page(at) else { return };
        if level == 0 {
            self.leaf(&page, key);
            return;
        }
        for (index, child) in (0u64..).zip(page) {
            if child != 0 {
                self.node(PhysAddr::new(child), level - 1, key | (index << (15 + 9 * (level - 1))));
            }
        }
    }

    fn leaf(&mut self, page: &[u64; 512], prefix: u64) {
        for (bit, len) in bit_runs(page) {
            let mut key = prefix | bit;
            let mut left = len;
            // A run of bits is a run of blocks, except where a key's marker moves: at a power of two.
            while left > 0 {
                let here = if key == 0 { 1 } else { left.min(next_power(key) - key) };
                match v4::block(key).and_then(|(pa, order)| Some((pa, Order::new(order)?))) {
                    Some((pa, order)) => self.run(PhysAddr::new(pa).pfn(), here, order),
                    None => self.log.warn(format!("KHO: key {key:#x} names no block")),
                }
                key += here;
                left -= here;
            }
        }
    }

    /// Holds `len` adjacent blocks.
    fn run(&mut self, pfn: Pfn, len: u64, order: Order) {
        let frames = self.ram.frames.frame_count();
        let inside = frames.saturating_sub(pfn.raw()) >> order.raw();
        if inside < len {
            self.log
                .warn(format!("KHO: {} blocks of order {order} at {pfn} lie outside memory", len - inside));
        }
        let len = len.min(inside);
        if len == 0 {
            return;
        }
        if self.ram.frames.hold_preserved_run(pfn, len, order).is_ok() {
            self.blocks += len;
            self.pages += len * order.pages();
            return;
        }
        for block in 0..len {
            self.one(Pfn::new(pfn.raw() + block * order.pages()), order);
        }
    }

    fn one(&mut self, pfn: Pfn, order: Order) {
        match self.ram.frames.hold_preserved(pfn, order) {
            Ok(()) => {
                self.blocks += 1;
                self.pages += order.pages();
            }
            Err(error) => {
                self.log.warn(format!("KHO: block of order {order} at {pfn} cannot be kept: {error}"));
            }
        }
    }
}

fn next_power(key: u64) -> u64 {
    1u64.checked_shl(64 - key.leading_zeros()).unwrap_or(u64::MAX)
}
