//! The frame allocator against a model of one state a frame: whatever the sequence of calls, blocks do not overlap,
//! are aligned, are found where a walk over all frames would find them, and everything given back is whole again.

use std::collections::BTreeMap;

use luosim_physmem::{FrameState, FrameStats, FrameUse, Frames, FreeError, Order, PAGE_SIZE, Pfn};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Not a power of two, so that the last block is cut.
const TOTAL: u64 = 3000;

#[derive(Clone, Debug)]
enum Step {
    Alloc(u32),
    Free(u64),
    FreeAt(u64),
    Reserve(u64, u64),
    Unreserve(u64, u64),
    Hold { at: u64, blocks: u64, order: u32 },
    Restore(u64),
    Split(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let frame = 0..TOTAL + 10;
    prop_oneof![
        5 => (0u32..=10).prop_map(Step::Alloc),
        4 => any::<u64>().prop_map(Step::Free),
        1 => frame.clone().prop_map(Step::FreeAt),
        2 => (frame.clone(), 0u64..50).prop_map(|(at, pages)| Step::Reserve(at, pages)),
        1 => (frame.clone(), 0u64..50).prop_map(|(at, pages)| Step::Unreserve(at, pages)),
        2 => (frame.clone(), 1u64..5, 0u32..8).prop_map(|(at, blocks, order)| Step::Hold { at, blocks, order }),
        2 => frame.clone().prop_map(Step::Restore),
        1 => frame.prop_map(Step::Split),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Free,
    Reserved,
    /// Part of the block with this head.
    Allocated(u64),
    Preserved(u64),
}

/// What each frame must be, and the blocks with their orders.
struct Model {
    pages: Vec<Page>,
    blocks: BTreeMap<u64, u32>,
}

impl Model {
    fn new() -> Self {
        Self { pages: vec![Page::Free; usize::try_from(TOTAL).expect("small")], blocks: BTreeMap::new() }
    }

    fn range(&self, at: u64, pages: u64) -> Option<std::ops::Range<usize>> {
        let end = at.checked_add(pages).filter(|end| *end <= TOTAL && pages > 0)?;
        Some(usize::try_from(at).expect("small")..usize::try_from(end).expect("small"))
    }

    fn all(&self, at: u64, pages: u64, wanted: Page) -> bool {
        self.range(at, pages).is_some_and(|range| self.pages[range].iter().all(|page| *page == wanted))
    }

    fn set(&mut self, at: u64, pages: u64, page: Page) {
        let range = self.range(at, pages).expect("the frames exist");
        self.pages[range].fill(page);
    }

    /// Lowest frame of an aligned free block, and nothing smaller would do: a walk over all of them.
    fn has_room(&self, order: u32) -> bool {
        (0..TOTAL >> order).any(|block| self.all(block << order, 1 << order, Page::Free))
    }

    fn count(&self, wanted: impl Fn(&Page) -> bool) -> u64 {
        u64::try_from(self.pages.iter().filter(|page| wanted(page)).count()).expect("small")
    }

    fn check(&self, frames: &Frames) {
        let stats = frames.stats();
        let counted = FrameStats {
            total: TOTAL,
            free: self.count(|page| *page == Page::Free),
            allocated: self.count(|page| matches!(page, Page::Allocated(_))),
            preserved: self.count(|page| matches!(page, Page::Preserved(_))),
            reserved: self.count(|page| *page == Page::Reserved),
            ..stats
        };
        assert_eq!(stats, counted);
        for (at, page) in (0u64..).zip(&self.pages) {
            let order = |head: u64| Order::new(self.blocks[&head]).expect("small");
            let want = match *page {
                Page::Free => FrameState::Free,
                Page::Reserved => FrameState::Reserved,
                Page::Allocated(head) if head == at => FrameState::AllocatedHead(order(head)),
                Page::Preserved(head) if head == at => FrameState::PreservedHead(order(head)),
                Page::Allocated(_) | Page::Preserved(_) => FrameState::Tail,
            };
            assert_eq!(frames.state(Pfn::new(at)), want, "frame {at}");
        }
    }
}

fn order(raw: u32) -> Order {
    Order::new(raw).expect("small")
}

/// Makes one call on both; they must agree on whether it succeeds.
fn take(frames: &mut Frames, model: &mut Model, step: &Step) {
    match *step {
        Step::Alloc(raw) => {
            let room = model.has_room(raw);
            let got = frames.alloc(order(raw), FrameUse::Other);
            assert_eq!(got.is_some(), room, "order {raw}");
            if let Some(pfn) = got.map(Pfn::raw) {
                assert!(pfn.is_multiple_of(1 << raw), "frame {pfn} of order {raw} is aligned");
                assert!(model.all(pfn, 1 << raw, Page::Free), "frame {pfn} of order {raw} was free");
                model.set(pfn, 1 << raw, Page::Allocated(pfn));
                model.blocks.insert(pfn, raw);
            }
        }
        Step::Free(which) => {
            let heads: Vec<u64> = model.blocks.keys().copied().collect();
            if !heads.is_empty() {
                let at = heads[usize::try_from(which % heads.len() as u64).expect("small")];
                free(frames, model, at);
            }
        }
        Step::FreeAt(at) => free(frames, model, at),
        Step::Reserve(at, pages) => {
            let good = model.all(at, pages, Page::Free);
            assert_eq!(frames.reserve(Pfn::new(at), pages).is_ok(), good);
            if good {
                model.set(at, pages, Page::Reserved);
            }
        }
        Step::Unreserve(at, pages) => {
            let good = pages == 0 && at <= TOTAL || model.all(at, pages, Page::Reserved);
            assert_eq!(frames.unreserve(Pfn::new(at), pages).is_ok(), good, "{pages} at {at}");
            if good && pages > 0 {
                model.set(at, pages, Page::Free);
            }
        }
        Step::Hold { at, blocks, order: raw } => {
            let good = at.is_multiple_of(1 << raw) && model.all(at, blocks << raw, Page::Free);
            assert_eq!(frames.hold_preserved_run(Pfn::new(at), blocks, order(raw)).is_ok(), good);
            for block in (0..blocks).filter(|_| good) {
                let head = at + (block << raw);
                model.set(head, 1 << raw, Page::Preserved(head));
                model.blocks.insert(head, raw);
            }
        }
        Step::Restore(at) => {
            let held =
                model.range(at, 1).is_some_and(|range| model.pages[range.start] == Page::Preserved(at));
            let got = frames.restore(Pfn::new(at), FrameUse::Other);
            assert_eq!(got.map(Order::raw), held.then(|| model.blocks[&at]));
            if held {
                model.set(at, 1 << model.blocks[&at], Page::Allocated(at));
            }
        }
        Step::Split(at) => {
            frames.split_allocated(Pfn::new(at));
            let head =
                model.range(at, 1).is_some_and(|range| model.pages[range.start] == Page::Allocated(at));
            for page in (0..1 << model.blocks.get(&at).copied().unwrap_or(0)).filter(|_| head) {
                model.set(at + page, 1, Page::Allocated(at + page));
                model.blocks.insert(at + page, 0);
            }
        }
    }
}

fn free(frames: &mut Frames, model: &mut Model, at: u64) {
    let page = model.range(at, 1).map(|range| model.pages[range.start]);
    match (frames.free(Pfn::new(at)), page) {
        (Ok(order), Some(Page::Allocated(head))) if head == at => {
            assert_eq!(model.blocks.remove(&at), Some(order.raw()));
            model.set(at, order.pages(), Page::Free);
        }
        (Err(FreeError::DoubleFree { .. }), Some(Page::Free))
        | (Err(FreeError::Outside { .. }), None)
        | (Err(FreeError::NotAllocated { .. }), Some(_)) => {}
        (result, page) => panic!("free of frame {at}, which is {page:?}: {result:?}"),
    }
}

/// Everything given back: the allocator is as it was at the start.
fn empty(frames: &mut Frames, model: &mut Model) {
    for (head, raw) in std::mem::take(&mut model.blocks) {
        if model.pages[usize::try_from(head).expect("small")] == Page::Preserved(head) {
            assert_eq!(frames.restore(Pfn::new(head), FrameUse::Other).map(Order::raw), Some(raw));
        }
        frames.free(Pfn::new(head)).expect("a block");
    }
    for at in (0..TOTAL).filter(|at| model.pages[usize::try_from(*at).expect("small")] == Page::Reserved) {
        frames.unreserve(Pfn::new(at), 1).expect("reserved");
    }
}

/// Placement of one block of every order, the largest first.
fn placement(frames: &mut Frames) -> Vec<Option<Pfn>> {
    (0..=10).rev().map(|raw| frames.alloc(order(raw), FrameUse::Other)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_sequence_agrees_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let (mut frames, mut twin) = (Frames::all_free(TOTAL * PAGE_SIZE), Frames::all_free(TOTAL * PAGE_SIZE));
        let (mut model, mut other) = (Model::new(), Model::new());
        for step in &steps {
            take(&mut frames, &mut model, step);
            take(&mut twin, &mut other, step);
            model.check(&frames);
        }
        prop_assert_eq!(&model.blocks, &other.blocks, "the same calls place the same blocks");
        empty(&mut frames, &mut model);
        prop_assert_eq!(frames.stats().free, TOTAL);
        prop_assert_eq!(placement(&mut frames), placement(&mut Frames::all_free(TOTAL * PAGE_SIZE)));
    }
}

#[test]
fn placement_is_the_lowest_block_of_the_smallest_order_that_fits() {
    let mut frames = Frames::all_free(TOTAL * PAGE_SIZE);
    let mut alloc = |raw| frames.alloc(order(raw), FrameUse::Other).map(Pfn::raw);
    // 3000 frames are two blocks of 1024, one of 512, 256, 128, 32, 16, and 8.
    assert_eq!(
        [alloc(3), alloc(0), alloc(10), alloc(9), alloc(9), alloc(9)].map(|pfn| pfn.expect("room")),
        [2992, 2976, 0, 2048, 1024, 1536]
    );
    assert_eq!(alloc(10), None);
}

#[test]
fn a_bad_free_is_counted_and_changes_nothing() {
    let mut frames = Frames::all_free(TOTAL * PAGE_SIZE);
    let block = frames.alloc(order(2), FrameUse::PageCache).expect("room");
    let inside = block.checked_add(1).expect("small");
    assert!(matches!(frames.free(inside), Err(FreeError::NotAllocated { state: FrameState::Tail, .. })));
    frames.free(block).expect("a block");
    assert!(matches!(frames.free(block), Err(FreeError::DoubleFree { .. })));
    assert!(matches!(frames.free(Pfn::new(u64::MAX)), Err(FreeError::Outside { .. })));
    assert_eq!((frames.stats().bad_frees, frames.stats().free), (3, TOTAL));
    assert_eq!(frames.outstanding(FrameUse::PageCache), 0);
}
