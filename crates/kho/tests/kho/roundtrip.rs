//! Any set of blocks that is preserved is what the next kernel holds; whatever is done and undone, no frame
//! is lost.

use std::collections::BTreeSet;

use luosim_abi::release::ReleaseId;
use luosim_kho::VmallocArea;
use luosim_kho::run::split;
use luosim_physmem::{FrameUse, Order, PhysAddr};
use proptest::prelude::*;

use crate::world::{EACH, MIB, World, cold, order, pfn};

/// Frames that the tests preserve: behind the kernel's own pages, before scratch.
const FROM: u64 = 0x1000;
const TO: u64 = 0x6000;

type Blocks = BTreeSet<(u64, u32)>;

/// Those of the candidates that are aligned, fit and overlap none before them.
fn disjoint(candidates: &[(u64, u32)]) -> Blocks {
    let mut taken = BTreeSet::new();
    let mut blocks = BTreeSet::new();
    for (at, order) in candidates {
        let first = (FROM + at % (TO - FROM)) >> order << order;
        let frames = first..first + (1 << order);
        if first >= FROM && frames.end <= TO && frames.clone().all(|frame| !taken.contains(&frame)) {
            taken.extend(frames);
            blocks.insert((first, *order));
        }
    }
    blocks
}

/// What the kernel itself preserves.
fn own(world: &World) -> u64 {
    world.kho.tally().unwrap().blocks()
}

fn preserve_all(world: &mut World, blocks: &Blocks) {
    for (first, raw) in blocks {
        world.kho.preserve_folio(&mut world.ram, pfn(*first), order(*raw)).unwrap();
    }
}

fn check_held(next: &World, blocks: &Blocks, own: u64) -> Result<(), TestCaseError> {
    let held = next.held();
    let ours: Blocks = held.iter().copied().filter(|(first, _)| (FROM..TO).contains(first)).collect();
    prop_assert_eq!(&ours, blocks);
    prop_assert_eq!(u64::try_from(held.len()).unwrap(), u64::try_from(blocks.len()).unwrap() + own);
    prop_assert_eq!(next.log.contains("cannot be kept"), false);
    let stats = next.ram.frames.stats();
    prop_assert_eq!(stats.free + stats.allocated + stats.preserved + stats.reserved, stats.total);
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Folio(u64, u32),
    Pages(u64, u64),
    Vmalloc(u64),
    Alloc(u64),
    Finalize,
    Undo(usize),
}

/// What a step made, to be undone.
enum Made {
    Folio(u64, u32),
    Pages(u64, u64),
    Vmalloc(VmallocArea),
    Alloc(PhysAddr),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..0x40, 0u32..6).prop_map(|(slot, order)| Step::Folio(FROM + (slot << 6), order)),
        (0u64..0x40, 1u64..64).prop_map(|(slot, pages)| Step::Pages(FROM + 0x1000 + (slot << 6), pages)),
        (0u64..1100).prop_map(Step::Vmalloc),
        (1u64..100_000).prop_map(Step::Alloc),
        Just(Step::Finalize),
        any::<usize>().prop_map(Step::Undo),
    ]
}

/// The world and a model of what is preserved in it.
struct Play {
    world: World,
    made: Vec<Made>,
    model: Blocks,
}

impl Play {
    fn new(release: ReleaseId) -> Self {
        let mut world = cold(release, 512 * MIB);
        // What is preserved by frame number must not be allocated for something else.
        world.ram.frames.reserve(pfn(FROM), TO - FROM).unwrap();
        Self { world, made: Vec::new(), model: BTreeSet::new() }
    }

    fn run(&mut self, step: &Step) {
        let World { ram, kho, log, .. } = &mut self.world;
        match *step {
            Step::Folio(first, raw) => {
                kho.preserve_folio(ram, pfn(first), order(raw)).unwrap();
                self.model.insert((first, raw));
                self.made.push(Made::Folio(first, raw));
            }
            Step::Pages(first, pages) => {
                kho.preserve_pages(ram, pfn(first), pages).unwrap();
                self.model.extend(split(pfn(first), pages).map(|(first, order)| (first.raw(), order.raw())));
                self.made.push(Made::Pages(first, pages));
            }
            Step::Vmalloc(count) => {
                let alloc = |_| ram.alloc(Order::ZERO, FrameUse::Other).unwrap().addr();
                let pages: Vec<PhysAddr> = (0..count).map(alloc).collect();
                let area = kho.preserve_vmalloc(ram, &pages, 1, Order::ZERO).unwrap();
                self.made.push(Made::Vmalloc(area));
            }
            Step::Alloc(bytes) => {
                self.made.push(Made::Alloc(kho.alloc_preserve(ram, bytes, FrameUse::Luo).unwrap()));
            }
            Step::Finalize => kho.finalize(ram, log).unwrap(),
            Step::Undo(which) if !self.made.is_empty() => {
                let made = self.made.swap_remove(which % self.made.len());
                self.undo(&made);
            }
            Step::Undo(_) => {}
        }
    }

    fn undo(&mut self, made: &Made) {
        let World { ram, kho, .. } = &mut self.world;
        match made {
            Made::Folio(first, raw) => {
                kho.unpreserve_folio(ram, pfn(*first), order(*raw));
                self.model.remove(&(*first, *raw));
            }
            Made::Pages(first, pages) => {
                kho.unpreserve_pages(ram, pfn(*first), *pages);
                for (first, order) in split(pfn(*first), *pages) {
                    self.model.remove(&(first.raw(), order.raw()));
                }
            }
            Made::Vmalloc(area) => {
                for page in kho.unpreserve_vmalloc(ram, area) {
                    ram.free(page.pfn()).unwrap();
                }
            }
            Made::Alloc(at) => kho.unpreserve_free(ram, *at),
        }
    }

    fn uses(&self) -> [u64; 4] {
        [FrameUse::Other, FrameUse::Luo, FrameUse::FolioTable, FrameUse::Fdt]
            .map(|purpose| self.world.ram.frames.outstanding(purpose))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_next_kernel_holds_exactly_what_was_preserved(
        candidates in prop::collection::vec((any::<u64>(), 0u32..13), 0..60),
    ) {
        let blocks = disjoint(&candidates);
        for release in EACH {
            let mut world = cold(release, 128 * MIB);
            let own = own(&world);
            preserve_all(&mut world, &blocks);
            check_held(&world.kexec(), &blocks, own)?;
        }
    }

    #[test]
    fn what_is_given_back_is_not_held(
        candidates in prop::collection::vec((any::<u64>(), 0u32..13), 0..60),
        keep in any::<u64>(),
    ) {
        let blocks = disjoint(&candidates);
        for release in EACH {
            let mut world = cold(release, 128 * MIB);
            let own = own(&world);
            preserve_all(&mut world, &blocks);
            let mut kept = BTreeSet::new();
            for (index, (first, raw)) in blocks.iter().enumerate() {
                if keep >> (index % 64) & 1 == 1 {
                    kept.insert((*first, *raw));
                } else {
                    world.kho.unpreserve_folio(&mut world.ram, pfn(*first), order(*raw));
                }
            }
            check_held(&world.kexec(), &kept, own)?;
        }
    }

    #[test]
    fn every_held_block_is_restored_once_with_its_order(
        candidates in prop::collection::vec((any::<u64>(), 0u32..11), 0..60),
    ) {
        let blocks = disjoint(&candidates);
        for release in EACH {
            let mut world = cold(release, 128 * MIB);
            preserve_all(&mut world, &blocks);
            let mut next = world.kexec();
            let free = next.ram.frames.stats().free;
            for (first, raw) in &blocks {
                let restored = next.kho.restore_folio(&mut next.ram, pfn(*first).addr(), FrameUse::Other);
                prop_assert_eq!(restored.map(Order::raw), Some(*raw));
                prop_assert!(!next.kho.restore_free(&mut next.ram, pfn(*first).addr()));
                next.ram.free(pfn(*first)).unwrap();
            }
            let pages: u64 = blocks.iter().map(|(_, raw)| 1 << raw).sum();
            prop_assert_eq!(next.ram.frames.stats().free, free + pages);
        }
    }

    #[test]
    fn doing_and_undoing_loses_no_frame(steps in prop::collection::vec(step(), 1..40)) {
        for release in EACH {
            let mut play = Play::new(release);
            let (uses, tally) = (play.uses(), play.world.kho.tally().unwrap().clone());
            for step in &steps {
                play.run(step);
            }
            let made = std::mem::take(&mut play.made);
            for made in &made {
                play.undo(made);
            }
            // The set does not count: what was preserved twice and given back once is gone already.
            prop_assert!(play.model.is_empty());
            prop_assert_eq!(play.world.kho.tally().unwrap(), &tally);
            prop_assert_eq!(play.uses(), uses);
            let stats = play.world.ram.frames.stats();
            let tracker = play.world.ram.frames.outstanding(FrameUse::Tracker);
            let metadata = play.world.ram.frames.outstanding(FrameUse::Metadata);
            prop_assert_eq!(stats.allocated, tracker + metadata + uses[3], "nothing but the kernel's own");
            prop_assert_eq!(stats.bad_frees, 0);
        }
    }

    #[test]
    fn a_sequence_of_steps_is_what_the_next_kernel_holds(steps in prop::collection::vec(step(), 1..40)) {
        for release in EACH {
            let mut play = Play::new(release);
            for step in &steps {
                play.run(step);
            }
            let tally = play.world.kho.tally().unwrap().clone();
            let next = play.world.kexec();
            let held = next.held();
            // Blocks that overlap others of another order may have been skipped; the rest must be there.
            let overlaps = |(first, raw): &(u64, u32)| play.model.iter().any(|(other, order)| {
                (other, order) != (first, raw) && other < &(first + (1 << raw)) && first < &(other + (1 << order))
            });
            for block in play.model.iter().filter(|block| !overlaps(block)) {
                prop_assert!(held.contains(block), "{:?} is not held", block);
            }
            prop_assert!(u64::try_from(held.len()).unwrap() <= tally.blocks());
        }
    }
}
