//! Reading the previous kernel's tracker and holding what it names.
//!
//! Runs while nothing is allocated yet: pages of the tracker are ordinary free pages of this kernel. The
//! types say so: memory is only read, and frames are only taken out of the allocator.
//!
//! The tracker is hostile. A page of it is read once (so chains and trees end), runs of blocks outside
//! memory are cut off as runs, blocks that overlap something already held (or scratch: nothing in scratch
//! survives) are skipped one by one. Only the first [`LOGGED`] such findings are logged. The kernel would
//! take all of these blocks and be confused by them later.

use std::fmt;

use luosim_abi::kho::{v1, v4};
use luosim_abi::release::KhoVersion;
use luosim_physmem::{Frames, Order, Pfn, PhysAddr, PhysMem};
use rustc_hash::FxHashSet;
use zerocopy::IntoBytes;

use crate::log::KernelLog;
use crate::tracker::bit_runs;

/// Findings that are logged one by one; of more, only the number is.
pub(crate) const LOGGED: u64 = 16;

/// What was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) blocks: u64,
    pub(crate) pages: u64,
}

/// Takes every block that the tracker at `map` names out of the allocator.
pub(crate) fn hold(
    mem: &PhysMem,
    frames: &mut Frames,
    log: &mut KernelLog,
    version: KhoVersion,
    map: PhysAddr,
) -> Held {
    let (seen, buffer) = (FxHashSet::default(), Box::new([0; 512]));
    let mut walk = Walk { mem, frames, log, seen, buffer, held: Held::default(), findings: 0 };
    match version {
        KhoVersion::V1 => walk.chunks(map),
        KhoVersion::V3 | KhoVersion::V4 => walk.node(map, v4::ROOT_LEVEL, 0),
    }
    walk.finish()
}

struct Walk<'a> {
    mem: &'a PhysMem,
    frames: &'a mut Frames,
    log: &'a mut KernelLog,
    seen: FxHashSet<PhysAddr>,
    /// The page of the tracker read last.
    buffer: Box<[u64; 512]>,
    held: Held,
    findings: u64,
}

impl Walk<'_> {
    fn finding(&mut self, text: fmt::Arguments<'_>) {
        self.findings = self.findings.saturating_add(1);
        if self.findings <= LOGGED {
            self.log.warn(format!("KHO: {text}"));
        }
    }

    fn finish(self) -> Held {
        if let Some(more @ 1..) = self.findings.checked_sub(LOGGED) {
            self.log.warn(format!("KHO: {more} more findings in the memory map"));
        }
        self.held
    }

    /// Reads a page of the tracker into the buffer, once; `false` if it is none.
    fn page(&mut self, at: PhysAddr) -> bool {
        if !at.is_page_aligned() {
            self.finding(format_args!("page {at} of the memory map is not aligned"));
        } else if self.mem.read(at, self.buffer.as_mut_bytes()).is_err() {
            self.finding(format_args!("page {at} of the memory map lies outside memory"));
        } else if !self.seen.insert(at) {
            self.finding(format_args!("page {at} of the memory map is used twice"));
        } else {
            for word in self.buffer.iter_mut() {
                *word = u64::from_le(*word);
            }
            return true;
        }
        false
    }

    /// `kho-v1`: the chain of chunks.
    fn chunks(&mut self, first: PhysAddr) {
        let mut at = first;
        while at != PhysAddr::NULL {
            if !self.page(at) {
                return;
            }
            let chunk = *self.buffer;
            self.chunk(at, &chunk);
            at = PhysAddr::new(chunk[0]);
        }
    }

    fn chunk(&mut self, at: PhysAddr, chunk: &[u64; 512]) {
        let order = u32::try_from(chunk[1] & 0xffff_ffff).expect("32 bits");
        let used = usize::try_from(chunk[1] >> 32).expect("32 bits");
        if used > v1::ENTRIES_PER_CHUNK {
            self.finding(format_args!("chunk {at} claims {used} bitmaps"));
        }
        let Some(order) = Order::new(order) else {
            return self.finding(format_args!("chunk {at} has blocks of order {order}"));
        };
        for entry in chunk[2..].chunks_exact(2).take(used) {
            self.bitmap(PhysAddr::new(entry[1]), PhysAddr::new(entry[0]), order);
        }
    }

    fn bitmap(&mut self, bitmap: PhysAddr, start: PhysAddr, order: Order) {
        if !start.is_page_aligned() {
            return self.finding(format_args!("bitmap {bitmap} is of blocks at {start}"));
        }
        if !self.page(bitmap) {
            return;
        }
        for (bit, len) in bit_runs(&self.buffer) {
            let offset = bit.checked_mul(order.bytes());
            match offset.and_then(|offset| start.checked_add(offset)) {
                Some(at) => self.run(at.pfn(), len, order),
                None => self.finding(format_args!("bitmap {bitmap} names blocks that no address has")),
            }
        }
    }

    /// `kho-v3`, `kho-v4`: a table or leaf and everything below it.
    fn node(&mut self, at: PhysAddr, level: u32, key: u64) {
        if !self.page(at) {
            return;
        }
        if level == 0 {
            return self.leaf(key);
        }
        let words = (0u64..).zip(self.buffer.iter().copied());
        let children: Vec<(u64, u64)> = words.filter(|(_, child)| *child != 0).collect();
        for (index, child) in children {
            self.node(PhysAddr::new(child), level - 1, key | (index << (15 + 9 * (level - 1))));
        }
    }

    /// The leaf in the buffer.
    fn leaf(&mut self, prefix: u64) {
        for (bit, len) in bit_runs(&self.buffer) {
            let mut key = prefix | bit;
            let mut left = len;
            // A run of bits is a run of blocks, except where a key's marker moves: at a power of two.
            while left > 0 {
                let here = left.min(next_power(key) - key);
                match v4::block(key).and_then(|(pa, order)| Some((pa, Order::new(order)?))) {
                    Some((pa, order)) => self.run(PhysAddr::new(pa).pfn(), here, order),
                    None => self.finding(format_args!("key {key:#x} names no block")),
                }
                key += here;
                left -= here;
            }
        }
    }

    /// Holds `len` adjacent blocks.
    fn run(&mut self, pfn: Pfn, len: u64, order: Order) {
        let inside = self.frames.frame_count().saturating_sub(pfn.raw()) >> order.raw();
        if inside < len {
            let outside = len - inside;
            self.finding(format_args!("{outside} blocks of order {order} from {pfn} on lie outside memory"));
        }
        let len = len.min(inside);
        if len > 0 && self.frames.hold_preserved_run(pfn, len, order).is_ok() {
            self.held.blocks += len;
            self.held.pages += len * order.pages();
            return;
        }
        for block in 0..len {
            self.one(Pfn::new(pfn.raw() + block * order.pages()), order);
        }
    }

    fn one(&mut self, pfn: Pfn, order: Order) {
        match self.frames.hold_preserved(pfn, order) {
            Ok(()) => {
                self.held.blocks += 1;
                self.held.pages += order.pages();
            }
            Err(error) => {
                self.finding(format_args!("block of order {order} at {pfn} cannot be kept: {error}"));
            }
        }
    }
}

/// The least power of two above `key`, which is below 2^60 (six levels); 1 for 0.
fn next_power(key: u64) -> u64 {
    1 << (64 - key.leading_zeros())
}
