//! The pages of a memory file: a sparse map from page index to folio, in nodes of 64 slots.
//!
//! A folio of order *k* lies at an index aligned to its size and fills `1 << k` slots, so that any index in it
//! finds it. The map owns nothing: who inserts and removes accounts for the frames.
//!
//! A file without pages has no map: sessions of half a million files are mostly files of a few pages or none,
//! and what an inode weighs decides how fast they go.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use luosim_physmem::{Order, Pfn};

const SLOTS: u64 = 64;
const PRESENT: u64 = 1 << 63;
const UPTODATE: u64 = 1 << 62;
const DIRTY: u64 = 1 << 61;
const ORDER_SHIFT: u32 = 52;
const ORDER_MASK: u64 = 0x3f << ORDER_SHIFT;
const PFN_MASK: u64 = (1 << ORDER_SHIFT) - 1;

/// A block of memory that holds part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folio {
    /// Its first frame.
    pub head: Pfn,
    /// Its size.
    pub order: Order,
    /// Whether its contents are valid; otherwise it reads as zeros.
    pub uptodate: bool,
    /// Whether it was written.
    pub dirty: bool,
}

impl Folio {
    fn pack(self) -> u64 {
        let order = u64::from(self.order.raw()) << ORDER_SHIFT;
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        PRESENT
            | flag(self.uptodate, UPTODATE)
            | flag(self.dirty, DIRTY)
            | order
            | (self.head.raw() & PFN_MASK)
    }

    fn unpack(slot: u64) -> Option<Self> {
        let order = u32::try_from((slot & ORDER_MASK) >> ORDER_SHIFT).expect("six bits");
        (slot & PRESENT != 0).then(|| Self {
            head: Pfn::new(slot & PFN_MASK),
            order: Order::new(order).expect("only valid orders are packed"),
            uptodate: slot & UPTODATE != 0,
            dirty: slot & DIRTY != 0,
        })
    }

    /// The frame of page `index` of the file.
    #[must_use]
    pub fn frame(&self, index: u64) -> Pfn {
        Pfn::new(self.head.raw() + (index & (self.order.pages() - 1)))
    }
}

/// The pages of one file: a map that is made with its first page.
#[derive(Debug, Default)]
pub struct PageCache(Option<Box<Pages>>);

static NO_PAGES: Pages =
    Pages { nodes: BTreeMap::new(), slots: Vec::new(), free: Vec::new(), last: None, pages: 0 };

impl Deref for PageCache {
    type Target = Pages;

    fn deref(&self) -> &Pages {
        self.0.as_deref().unwrap_or(&NO_PAGES)
    }
}

impl DerefMut for PageCache {
    fn deref_mut(&mut self) -> &mut Pages {
        self.0.get_or_insert_default()
    }
}

impl PageCache {
    /// Marks every folio valid and written.
    pub fn mark_all(&mut self) {
        if let Some(pages) = &mut self.0 {
            pages.mark_all();
        }
    }

    /// Removes and gives every folio, ascending.
    pub fn drain(&mut self) -> Vec<Folio> {
        self.0.take().map(|pages| pages.iter().map(|(_, folio)| folio).collect()).unwrap_or_default()
    }
}

/// The map of a file that has pages.
#[derive(Debug, Default)]
pub struct Pages {
    /// Place in `slots` of each node.
    nodes: BTreeMap<u64, usize>,
    slots: Vec<[u64; 64]>,
    /// Places of nodes that went; all zero.
    free: Vec<usize>,
    /// The node used last and its place: runs of pages need not look it up.
    last: Option<(u64, usize)>,
    pages: u64,
}

fn slot_of(index: u64) -> usize {
    usize::try_from(index % SLOTS).expect("below 64")
}

impl Pages {
    /// Pages in the map.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The folio that holds page `index`.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<Folio> {
        Folio::unpack(self.node(index / SLOTS)?[slot_of(index)])
    }

    fn node(&self, number: u64) -> Option<&[u64; 64]> {
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => *self.nodes.get(&number)?,
        };
        Some(&self.slots[place])
    }

    /// The node, made if it is missing.
    fn node_mut(&mut self, number: u64) -> &mut [u64; 64] {
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => self.place_of(number),
        };
        self.last = Some((number, place));
        &mut self.slots[place]
    }

    fn place_of(&mut self, number: u64) -> usize {
        let (slots, free) = (&mut self.slots, &mut self.free);
        *self.nodes.entry(number).or_insert_with(|| {
            free.pop().unwrap_or_else(|| {
                slots.push([0; 64]);
                slots.len() - 1
            })
        })
    }

    /// The first page of `from..end` that is not in the map.
    #[must_use]
    pub fn first_vacant(&self, from: u64, end: u64) -> Option<u64> {
        let mut index = from;
        while index < end {
            let Some(slots) = self.node(index / SLOTS) else { return Some(index) };
            if let Some(vacant) = (index..).zip(&slots[slot_of(index)..]).find(|(_, slot)| **slot == 0) {
                return Some(vacant.0).filter(|vacant| *vacant < end);
            }
            index = (index / SLOTS + 1) * SLOTS;
        }
        None
    }

    fn mark_all(&mut self) {
        for slot in self.slots.as_flattened_mut().iter_mut().filter(|slot| **slot != 0) {
            *slot |= UPTODATE | DIRTY;
        }
    }

    fn first(index: u64, order: Order) -> u64 {
        index & !(order.pages() - 1)
    }

    /// Calls `each` with the slots that a folio fills, a node's share at a time.
    fn each_node(&mut self, index: u64, order: Order, mut each: impl FnMut(&mut [u64])) {
        let first = Self::first(index, order);
        if order.pages() < SLOTS {
            let len = usize::try_from(order.pages()).expect("below 64");
            each(&mut self.node_mut(first / SLOTS)[slot_of(first)..slot_of(first) + len]);
            return;
        }
        for node in 0..order.pages() / SLOTS {
            each(&mut self.node_mut(first / SLOTS + node)[..]);
        }
    }

    /// Whether no page of the block of `order` around `index` is in the map.
    #[must_use]
    pub fn is_vacant(&self, index: u64, order: Order) -> bool {
        let first = Self::first(index, order);
        if order == Order::ZERO {
            return self.get(first).is_none();
        }
        let mut nodes = self.nodes.range(first / SLOTS..=(first + order.pages() - 1) / SLOTS);
        nodes.all(|(node, place)| {
            (0..SLOTS).all(|slot| {
                let at = node * SLOTS + slot;
                at < first || at >= first + order.pages() || self.slots[*place][slot_of(at)] == 0
            })
        })
    }

    /// Puts a folio at the block around `index`. `false`, and nothing done, if a page of it is there.
    pub fn insert(&mut self, index: u64, folio: Folio) -> bool {
        if !self.is_vacant(index, folio.order) {
            return false;
        }
        let word = folio.pack();
        self.each_node(index, folio.order, |slots| slots.fill(word));
        self.pages += folio.order.pages();
        true
    }

    /// Replaces the flags of the folio at `index`.
    pub fn mark(&mut self, index: u64, uptodate: bool, dirty: bool) {
        if let Some(folio) = self.get(index)
            && (folio.uptodate != uptodate || folio.dirty != dirty)
        {
            let word = Folio { uptodate, dirty, ..folio }.pack();
            self.each_node(index, folio.order, |slots| slots.fill(word));
        }
    }

    /// Takes the folio at `index` out of the map.
    pub fn remove(&mut self, index: u64) -> Option<Folio> {
        let folio = self.get(index)?;
        self.each_node(index, folio.order, |slots| slots.fill(0));
        self.pages -= folio.order.pages();
        let first = Self::first(index, folio.order) / SLOTS;
        for node in first..=first + (folio.order.pages() - 1) / SLOTS {
            if self.node(node).is_some_and(|slots| slots.iter().all(|slot| *slot == 0)) {
                self.free.extend(self.nodes.remove(&node));
                self.last = None;
            }
        }
        Some(folio)
    }

    /// Makes the folio at `index` as many folios of one page.
    pub fn split(&mut self, index: u64) {
        let Some(folio) = self.remove(index) else { return };
        let first = Self::first(index, folio.order);
        for page in 0..folio.order.pages() {
            let head = Pfn::new(folio.head.raw() + page);
            self.insert(first + page, Folio { head, order: Order::ZERO, ..folio });
        }
    }

    /// The folios with their first index, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Folio)> + '_ {
        self.iter_from(0)
    }

    /// The folios whose first index is `from` or above, ascending.
    pub fn iter_from(&self, from: u64) -> impl Iterator<Item = (u64, Folio)> + '_ {
        self.nodes.range(from / SLOTS..).flat_map(move |(node, place)| {
            let base = node * SLOTS;
            self.slots[*place].iter().zip(base..).filter_map(move |(slot, index)| {
                let folio = Folio::unpack(*slot)?;
                (index >= from && Self::first(index, folio.order) == index).then_some((index, folio))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folio(head: u64, order: u32) -> Folio {
        let order = Order::new(order).expect("small");
        Folio { head: Pfn::new(head), order, uptodate: true, dirty: false }
    }

    #[test]
    fn large_folios_are_found_by_every_index() {
        let mut cache = PageCache::default();
        assert!(cache.insert(512, folio(0x1000, 9)));
        assert!(cache.insert(3, folio(7, 0)));
        assert!(!cache.insert(600, folio(9, 0)), "taken");
        assert_eq!(cache.get(700).map(|found| found.frame(700)), Some(Pfn::new(0x1000 + 188)));
        let firsts: Vec<u64> = cache.iter().map(|(index, _)| index).collect();
        assert_eq!((firsts, cache.pages()), (vec![3, 512], 513));
        cache.split(600);
        assert_eq!(cache.iter_from(600).next(), Some((600, folio(0x1000 + 88, 0))));
        cache.remove(600);
        assert!(cache.get(600).is_none() && cache.get(601).is_some());
        assert_eq!(cache.drain().len(), 512);
    }
}
