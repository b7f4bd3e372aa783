//! Reading a tracker: which blocks it names, page by page, and what is wrong with it.
//!
//! One walker for two readers, which differ in their [`MapSink`]: a booting kernel holds the blocks (module
//! `hold`), the inspector lists them. The walker only reads memory.
//!
//! The tracker is hostile. A page of it is read once (so chains and trees end), and adjacent blocks of one
//! order are handed on as runs. Not here: whether a block lies in memory, is aligned or overlaps another; that
//! is the sink's to say.

use std::fmt;

use luosim_abi::kho::{v1, v4};
use luosim_abi::release::KhoVersion;
use luosim_physmem::{Order, Pfn, PhysAddr, ReadPhys};
use rustc_hash::FxHashSet;
use zerocopy::IntoBytes;

use crate::tracker::{bit_runs, nonzero_words};

/// How a tracker lists blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapFormat {
    /// `kho-v1`: a chain of chunks with bitmaps.
    Bitmaps,
    /// `kho-v2` and later: a radix tree.
    Radix,
}

impl From<KhoVersion> for MapFormat {
    fn from(version: KhoVersion) -> Self {
        match version {
            KhoVersion::V1 => Self::Bitmaps,
            KhoVersion::V3 | KhoVersion::V4 => Self::Radix,
        }
    }
}

/// Adjacent blocks of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// Head of the first block.
    pub pfn: Pfn,
    /// Blocks.
    pub blocks: u64,
    /// Order of each.
    pub order: Order,
}

/// What hears of the contents of a tracker.
pub trait MapSink {
    /// The page at `at` is part of the tracker and was read.
    fn tracker_page(&mut self, at: PhysAddr);

    /// The tracker names these blocks.
    fn run(&mut self, run: BlockRun);

    /// Something is wrong at `at`.
    fn finding(&mut self, at: PhysAddr, what: fmt::Arguments<'_>);

    /// Whether the sink has heard enough: the walk ends.
    fn full(&self) -> bool {
        false
    }
}

/// Tells `sink` what the tracker at `map` names.
pub fn walk(mem: &impl ReadPhys, format: MapFormat, map: PhysAddr, sink: &mut impl MapSink) {
    let (seen, buffer) = (FxHashSet::default(), Box::new([0; 512]));
    let mut walk = Walk { mem, sink, seen, buffer };
    match format {
        MapFormat::Bitmaps => walk.chunks(map),
        MapFormat::Radix => walk.node(map, v4::ROOT_LEVEL, 0),
    }
}

struct Walk<'a, M, S> {
    mem: &'a M,
    sink: &'a mut S,
    seen: FxHashSet<PhysAddr>,
    /// The page of the tracker read last.
    buffer: Box<[u64; 512]>,
}

impl<M: ReadPhys, S: MapSink> Walk<'_, M, S> {
    /// Reads a page of the tracker into the buffer, once; `false` if it is none.
    fn page(&mut self, at: PhysAddr) -> bool {
        let bad = if !at.is_page_aligned() {
            "is not aligned"
        } else if self.mem.read_bytes(at, self.buffer.as_mut_bytes()).is_err() {
            "lies outside memory"
        } else if !self.seen.insert(at) {
            "is used twice"
        } else {
            for word in self.buffer.iter_mut() {
                *word = u64::from_le(*word);
            }
            self.sink.tracker_page(at);
            return true;
        };
        self.sink.finding(at, format_args!("page {at} of the memory map {bad}"));
        false
    }

    /// `kho-v1`: the chain of chunks.
    fn chunks(&mut self, first: PhysAddr) {
        let mut at = first;
        while at != PhysAddr::NULL && !self.sink.full() {
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
            self.sink.finding(at, format_args!("chunk {at} claims {used} bitmaps"));
        }
        let Some(order) = Order::new(order) else {
            return self.sink.finding(at, format_args!("chunk {at} has blocks of order {order}"));
        };
        for entry in chunk[2..].chunks_exact(2).take(used) {
            self.bitmap(PhysAddr::new(entry[1]), PhysAddr::new(entry[0]), order);
        }
    }

    fn bitmap(&mut self, bitmap: PhysAddr, start: PhysAddr, order: Order) {
        if !start.is_page_aligned() {
            return self.sink.finding(bitmap, format_args!("bitmap {bitmap} is of blocks at {start}"));
        }
        if !self.page(bitmap) {
            return;
        }
        for (bit, blocks) in bit_runs(&self.buffer) {
            let offset = bit.checked_mul(order.bytes());
            match offset.and_then(|offset| start.checked_add(offset)) {
                Some(at) => self.sink.run(BlockRun { pfn: at.pfn(), blocks, order }),
                None => self
                    .sink
                    .finding(bitmap, format_args!("bitmap {bitmap} names blocks that no address has")),
            }
        }
    }

    /// The radix tree: a table or leaf and everything below it.
    fn node(&mut self, at: PhysAddr, level: u32, key: u64) {
        if self.sink.full() || !self.page(at) {
            return;
        }
        if level == 0 {
            return self.leaf(at, key);
        }
        let children: Vec<(u64, u64)> = nonzero_words(&self.buffer).collect();
        for (index, child) in children {
            self.node(PhysAddr::new(child), level - 1, key | (index << (15 + 9 * (level - 1))));
        }
    }

    /// The leaf in the buffer.
    fn leaf(&mut self, at: PhysAddr, prefix: u64) {
        for (bit, len) in bit_runs(&self.buffer) {
            let mut key = prefix | bit;
            let mut left = len;
            // A run of bits is a run of blocks, except where a key's marker moves: at a power of two.
            while left > 0 {
                let blocks = left.min(next_power(key) - key);
                match v4::block(key).and_then(|(pa, order)| Some((pa, Order::new(order)?))) {
                    Some((pa, order)) => {
                        self.sink.run(BlockRun { pfn: PhysAddr::new(pa).pfn(), blocks, order });
                    }
                    None => self.sink.finding(at, format_args!("key {key:#x} names no block")),
                }
                key += blocks;
                left -= blocks;
            }
        }
    }
}

/// The least power of two above `key`, which is below 2^60 (six levels); 1 for 0.
fn next_power(key: u64) -> u64 {
    1 << (64 - key.leading_zeros())
}
