//! Holding what the previous kernel's tracker names.
//!
//! Runs while nothing is allocated yet: pages of the tracker are ordinary free pages of this kernel. The
//! types say so: memory is only read, and frames are only taken out of the allocator.
//!
//! Runs of blocks outside memory are cut off as runs; blocks that overlap something already held (or scratch:
//! nothing in scratch survives) are skipped one by one. Only the first [`LOGGED`] such findings are logged.
//! The kernel would take all of these blocks and be confused by them later.

use std::fmt;

use luosim_abi::release::KhoVersion;
use luosim_physmem::{Frames, Order, Pfn, PhysAddr, PhysMem};

use crate::log::KernelLog;
use crate::walk::{BlockRun, MapSink, walk};

/// Findings that are logged one by one; of more, only the number is.
const LOGGED: u64 = 16;

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
    let mut holder = Holder { frames, log, held: Held::default(), findings: 0 };
    walk(mem, version.into(), map, &mut holder);
    if let Some(more @ 1..) = holder.findings.checked_sub(LOGGED) {
        holder.log.warn(format!("KHO: {more} more findings in the memory map"));
    }
    holder.held
}

struct Holder<'a> {
    frames: &'a mut Frames,
    log: &'a mut KernelLog,
    held: Held,
    findings: u64,
}

impl MapSink for Holder<'_> {
    fn tracker_page(&mut self, _at: PhysAddr) {}

    fn run(&mut self, BlockRun { pfn, blocks, order }: BlockRun) {
        let inside = self.frames.frame_count().saturating_sub(pfn.raw()) >> order.raw();
        if inside < blocks {
            let outside = blocks - inside;
            self.warn(format_args!("{outside} blocks of order {order} from {pfn} on lie outside memory"));
        }
        let blocks = blocks.min(inside);
        if blocks > 0 && self.frames.hold_preserved_run(pfn, blocks, order).is_ok() {
            self.held.blocks += blocks;
            self.held.pages += blocks * order.pages();
            return;
        }
        for block in 0..blocks {
            self.one(Pfn::new(pfn.raw() + block * order.pages()), order);
        }
    }

    fn finding(&mut self, _at: PhysAddr, what: fmt::Arguments<'_>) {
        self.warn(what);
    }
}

impl Holder<'_> {
    fn warn(&mut self, text: fmt::Arguments<'_>) {
        self.findings = self.findings.saturating_add(1);
        if self.findings <= LOGGED {
            self.log.warn(format!("KHO: {text}"));
        }
    }

    fn one(&mut self, pfn: Pfn, order: Order) {
        match self.frames.hold_preserved(pfn, order) {
            Ok(()) => {
                self.held.blocks += 1;
                self.held.pages += order.pages();
            }
            Err(error) => {
                self.warn(format_args!("block of order {order} at {pfn} cannot be kept: {error}"));
            }
        }
    }
}
