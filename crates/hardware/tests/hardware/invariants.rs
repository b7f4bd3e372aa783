//! A live update in which every invariant holds, and one for each thing that a kernel or a device can do wrong, which
//! breaks the invariant that is meant to notice.

use std::collections::BTreeSet;

use luosim_hardware::driver::Driver;
use luosim_hardware::iommu::{ContextEntry, DomainIds, Invalidation, Levels, Permissions, RamRef, reg};
use luosim_hardware::pci::config::{bits, command, reg as pci_reg};
use luosim_hardware::pci::{BusPolicy, enumerate};
use luosim_hardware::simdma::Defect;
use luosim_hardware::simdma::layout::reg as dma_reg;
use luosim_hardware::timeline::Phase;
use luosim_hardware::verify::{Canaries, Checker, DeviceView, Invariant, Mode, TimePoint, Tokens, Violation};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Pfn};

use crate::world::{BASE, BRIDGE, DOMAINS, GUEST, Guest, OTHER, World, mapped, read_guest};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A kernel does not preserve a page of the page table.
    LosesTablePage,
    /// A kernel does not preserve a folio of the guest's memory.
    LosesFolio,
    /// A kernel does not leave bus mastering on in the bridge.
    ClearsBridgeMaster,
    /// The new kernel writes a frame of the guest.
    PoisonsLeaf,
    /// The new kernel gives the preserved domain id to another domain.
    ReusesDomainId,
    /// The old kernel lets user space map and unmap after it preserved.
    MapsAfterPreserve,
    /// The new kernel takes the old domain away before it sets the new one.
    ReplacesInSteps,
    /// The new kernel finishes while the device is attached to the memory that is freed.
    FinishesAttached,
    /// The new kernel renumbers buses.
    RenumbersBuses,
    /// The new kernel resets the device.
    ResetsDevice,
    /// The new kernel turns translation off while it boots.
    StopsTranslating,
    /// The old kernel leaves a device attached that is not preserved.
    LeavesOtherAttached,
    /// The new kernel's boot memory holds a preserved frame.
    BootsOnPreserved,
    /// MSI-X stays on.
    LeavesInterruptsOn,
    /// The new kernel does not tell the unit that it unmapped.
    ForgetsToInvalidate,
    /// The new kernel puts the file's pages in another order.
    MovesPages,
    /// A defect of the device.
    Device(Defect),
}

struct Run {
    wrong: Wrong,
    mode: Mode,
    world: World,
    checker: Checker,
    driver: Driver,
    guest: usize,
    other: usize,
    preserved: BTreeSet<Pfn>,
}

const TOKENS: Tokens = Tokens { luo: Some(0x10), hwpt: Some(0x20) };

impl Run {
    fn new(wrong: Wrong, mode: Mode) -> Self {
        // What a unit remembers hides for a while that a table is gone.
        let mut world = World::new((wrong != Wrong::LosesTablePage).then_some(6));
        let (guest, other) = (world.hw.index_of(GUEST).unwrap(), world.hw.index_of(OTHER).unwrap());
        let driver = world.driver(true);
        let checker = Checker::new(mode);
        Self { wrong, mode, world, checker, driver, guest, other, preserved: BTreeSet::new() }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }

    /// Checks what can be checked at every point, and lets time pass.
    fn look(&mut self, at: TimePoint) {
        let world = &mut self.world;
        let (view, contents) = DeviceView::observe(&world.hw, &world.ram.mem, self.guest, TOKENS);
        self.checker.device(at, self.guest, &view);
        self.checker.frames(at, &contents, |pfn| world.owner(pfn));
        let (other, _) = DeviceView::observe(&world.hw, &world.ram.mem, self.other, Tokens::default());
        self.checker.other_device(at, self.other, &other);
        let frames = world.frames.iter().fold(0u64, |hash, pfn| hash.wrapping_mul(31) ^ pfn.raw());
        self.checker.file(at, 0x11, frames);
        self.checker.canaries(at, &world.ram.mem, &world.guards);
        self.step(3);
        self.step(200);
    }

    /// Lets a few ticks pass, and reads what was completed as soon as it can be seen.
    fn step(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.world.tick(1);
            self.world.drain(&mut self.driver);
        }
    }

    fn sight(&mut self, at: TimePoint) {
        let world = &self.world;
        let read = |iova, buf: &mut [u8]| read_guest(&world.ram.mem, &world.frames, iova, buf);
        self.checker.completions(at, &self.driver, read);
    }

    fn payloads(&mut self, at: TimePoint) {
        self.world.drain(&mut self.driver);
        let world = &self.world;
        let seq = world.hw.device(GUEST).map_or(0, |device| device.peek(dma_reg::SEQ, 0));
        let read = |iova, buf: &mut [u8]| read_guest(&world.ram.mem, &world.frames, iova, buf);
        self.checker.payloads(at, &self.driver, read, seq);
    }

    fn guest_works(&mut self) {
        let (hw, mut guest) = self.world.guest();
        let msix = u32::from(bits::MSIX_ENABLE);
        hw.config_write(GUEST, pci_reg::MSIX_CONTROL, 2, msix);
        hw.mmio_write(GUEST, dma_reg::MSIX_TABLE + 12, 4, 0);
        for n in 0..9 {
            let (iova, len) = (BASE + 0x2000 + n * 0x1000, if n % 2 == 0 { 64 } else { 320 });
            self.driver.post_fill(&mut guest, iova, len, 100 + n).unwrap();
        }
        self.driver.post_loop(&mut guest).unwrap();
        self.driver.ring(hw);
        self.world.start_other();
        if let Wrong::Device(defect) = self.wrong {
            self.world.hw.set_defect(GUEST, Some(defect));
        }
        for _ in 0..40 {
            self.step(1);
            self.sight(TimePoint::T0);
        }
        self.world.hw.enter(Phase::Preserve);
    }

    fn preserve(&mut self) {
        let tables = self.world.tables();
        self.preserved = self.world.frames.iter().copied().chain(tables.iter().copied()).collect();
        self.look(TimePoint::T1);
        if self.is(Wrong::LosesTablePage) {
            self.preserved.remove(&tables[2]);
        }
        if self.is(Wrong::LosesFolio) {
            self.preserved.remove(&self.world.frames[5]);
        }
        if self.is(Wrong::MapsAfterPreserve) {
            let spare = self.world.other_frames[0].addr();
            let (table, mut mem) = (self.world.table, RamRef(&mut self.world.ram));
            table.unmap(&mut mem, BASE + 0x5000, PAGE_SIZE).unwrap();
            table.map(&mut mem, BASE + 0x5000, spare, PAGE_SIZE, Permissions::READ_WRITE).unwrap();
        }
    }

    fn freeze(&mut self) {
        self.world.hw.enter(Phase::Freeze);
        let hw = &mut self.world.hw;
        if !matches!(self.wrong, Wrong::LeavesInterruptsOn) {
            hw.config_write(GUEST, pci_reg::MSIX_CONTROL, 2, 0);
        }
        if self.mode == Mode::ResetInFreeze {
            assert!(hw.try_reset_function(GUEST));
            hw.config_write(GUEST, pci_reg::COMMAND, 2, u32::from(command::INTX_DISABLE));
        }
        if !self.is(Wrong::LeavesOtherAttached) {
            self.world.root.clear_context(&mut RamRef(&mut self.world.ram), OTHER);
            self.world.invalidate(Invalidation::Domain(8));
            self.world.hw.change_command(OTHER, 0, command::MASTER);
        }
        if self.is(Wrong::ClearsBridgeMaster) {
            self.world.hw.change_command(BRIDGE, 0, command::MASTER);
        }
        self.look(TimePoint::T2);
    }

    /// From the end of the old kernel to the user space of the new one.
    fn boot(&mut self) {
        let world = &mut self.world;
        world.hw.enter(Phase::Jump);
        let other: Vec<Pfn> = world.other_table.contents(&world.ram.mem).unwrap().frames().collect();
        let kept: BTreeSet<Pfn> = if self.wrong == Wrong::LeavesOtherAttached {
            let tables = world.other_table.contents(&world.ram.mem).unwrap().tables;
            self.preserved.iter().copied().chain(tables).chain(other).collect()
        } else {
            self.preserved.clone()
        };
        world.jump(&kept);
        // The guards were free memory of the old kernel; the new one leaves them alone from here on.
        world.guards = guards(world, &self.preserved);
        if self.wrong == Wrong::StopsTranslating {
            world.hw.unit(0).write(reg::CTRL, 4, 0);
        }
        self.look(TimePoint::T3);
        self.world.hw.enter(Phase::EarlyBoot);
        self.early_boot();
        self.look(TimePoint::T4);
        self.world.hw.enter(Phase::UserSpace);
        self.look(TimePoint::T5);
    }

    fn early_boot(&mut self) {
        let first = if self.is(Wrong::RenumbersBuses) { 5 } else { 1 };
        let policy = if first == 1 { BusPolicy::Keep } else { BusPolicy::Assign { first } };
        enumerate(&mut self.world.hw, policy);
        let scratch = if self.is(Wrong::BootsOnPreserved) { self.world.frames[0] } else { Pfn::new(0x700) };
        self.checker.disjoint(TimePoint::T4, &[(scratch, 64)], self.preserved.iter().copied());
        if self.is(Wrong::ResetsDevice) {
            assert!(self.world.hw.try_reset_function(GUEST));
        }
        if self.is(Wrong::PoisonsLeaf) {
            let frame = self.world.frames[3];
            self.world.ram.mem.fill(frame.addr(), PAGE_SIZE, 0x6b).unwrap();
            let contents = self.world.table.contents(&self.world.ram.mem).unwrap();
            self.checker.kernel_wrote(TimePoint::T4, &contents, &[frame]);
        }
        self.attach_other();
    }

    /// The new kernel gives the other device memory, and runs it.
    fn attach_other(&mut self) {
        let mut ids = DomainIds::default();
        let known = if self.is(Wrong::ReusesDomainId) { DOMAINS[0] - 1 } else { DOMAINS[0] };
        assert!((1..=known).all(|id| ids.reserve(id)));
        let world = &mut self.world;
        if self.wrong == Wrong::LeavesOtherAttached {
            return;
        }
        let take = |_| world.ram.alloc_zeroed(Order::ZERO, FrameUse::Other).unwrap();
        world.other_frames = (0..crate::world::PAGES).map(take).collect();
        world.other_table = mapped(&mut world.ram, &world.other_frames.clone(), Levels::Four);
        if self.wrong == Wrong::ReusesDomainId {
            let (table, id) = (world.other_table, ids.alloc().unwrap());
            let entry = ContextEntry::new(table.top, table.levels, id);
            world.root.set_context(&mut RamRef(&mut world.ram), OTHER, entry).unwrap();
            world.hw.change_command(OTHER, command::MEMORY | command::MASTER, 0);
            world.invalidate(Invalidation::Domain(7));
            world.start_other();
        }
    }

    fn retrieve(&mut self) {
        self.world.hw.enter(Phase::Retrieve);
        if self.is(Wrong::MovesPages) {
            self.world.frames.swap(3, 4);
        }
        if self.is(Wrong::LosesFolio) {
            // Reading a hole of the file.
            self.world.frames[5] = self.world.ram.alloc_zeroed(Order::ZERO, FrameUse::PageCache).unwrap();
        }
        self.look(TimePoint::T6);
        if self.mode == Mode::Continues {
            self.payloads(TimePoint::T6);
            let seq = self.world.hw.device(GUEST).map_or(0, |device| device.peek(dma_reg::SEQ, 0));
            self.checker.drained(TimePoint::T6, &self.driver, seq);
            self.sight(TimePoint::T6);
        }
    }

    /// A new domain with the same mappings.
    fn reclaim(&mut self) {
        self.world.hw.enter(Phase::Reclaim);
        let frames = self.world.frames.clone();
        let table = mapped(&mut self.world.ram, &frames, Levels::Four);
        let root = self.world.root;
        if self.is(Wrong::ReplacesInSteps) {
            root.clear_context(&mut RamRef(&mut self.world.ram), GUEST);
            self.world.invalidate(Invalidation::Domain(7));
            self.look(TimePoint::T6);
        }
        let entry = ContextEntry::new(table.top, table.levels, 9);
        root.set_context(&mut RamRef(&mut self.world.ram), GUEST, entry).unwrap();
        self.world.invalidate(Invalidation::Domain(7));
        self.world.table = table;
        self.look(TimePoint::T7);
    }

    fn finish(&mut self) {
        self.world.hw.enter(Phase::Finish);
        if self.mode == Mode::ResetInFreeze {
            let bits = command::MEMORY | command::MASTER;
            self.world.hw.change_command(GUEST, bits, 0);
            self.driver = self.world.driver(false);
            let (hw, mut guest) = self.world.guest();
            self.driver.post_fill(&mut guest, BASE + 0x2000, 64, 1).unwrap();
            self.driver.ring(hw);
        }
        self.look(TimePoint::T8);
        self.payloads(TimePoint::T8);
        self.sight(TimePoint::T8);
        self.unmap();
    }

    /// The guest is gone: its memory is unmapped and freed, and the device is given work there.
    fn unmap(&mut self) {
        let (table, len) = (self.world.table, 4096 * u64::try_from(self.world.frames.len()).unwrap());
        if !self.is(Wrong::FinishesAttached) {
            table.unmap(&mut RamRef(&mut self.world.ram), BASE, len).unwrap();
            if !self.is(Wrong::ForgetsToInvalidate) {
                self.world.invalidate(Invalidation::Domain(9));
            }
        }
        let (before, _) = DeviceView::observe(&self.world.hw, &self.world.ram.mem, self.guest, TOKENS);
        let (hw, mut guest) = self.world.guest();
        if self.mode == Mode::ResetInFreeze {
            self.driver.post_fill(&mut guest, BASE + 0x3000, 64, 2).unwrap();
            self.driver.ring(hw);
        }
        self.world.tick(20);
        let (after, _) = DeviceView::observe(&self.world.hw, &self.world.ram.mem, self.guest, TOKENS);
        self.checker.after_finish(&before, &after);
    }

    fn all(mut self) -> (World, Vec<Violation>) {
        self.guest_works();
        self.preserve();
        self.freeze();
        self.boot();
        self.retrieve();
        self.reclaim();
        self.finish();
        (self.world, self.checker.take_violations())
    }
}

/// Guards among what is free now: frames before and behind those that devices can reach.
fn guards(world: &mut World, preserved: &BTreeSet<Pfn>) -> Canaries {
    let next = |pfn: &Pfn| [Pfn::new(pfn.raw() - 1), Pfn::new(pfn.raw() + 1)];
    let around: BTreeSet<Pfn> = world.frames.iter().flat_map(next).collect();
    let free: Vec<Pfn> = around.difference(preserved).copied().collect();
    let taken = free.iter().filter(|pfn| world.ram.frames.reserve(**pfn, 1).is_ok()).copied().collect();
    Canaries::plant(&mut world.ram.mem, 0xc5, taken).unwrap()
}

fn broken(wrong: Wrong, mode: Mode) -> BTreeSet<Invariant> {
    let (_, violations) = Run::new(wrong, mode).all();
    violations.iter().map(|violation| violation.invariant).collect()
}

#[test]
fn a_good_update_breaks_nothing() {
    let (world, violations) = Run::new(Wrong::Nothing, Mode::Continues).all();
    assert_eq!(violations, []);
    let timeline = world.hw.timeline();
    for phase in [Phase::Run, Phase::Preserve, Phase::Freeze, Phase::Jump, Phase::EarlyBoot, Phase::Retrieve]
    {
        let (ticks, totals) = timeline.of(phase);
        assert!(ticks > 0 && totals.ops > 0 && totals.bytes_written > 0, "{phase:?}: {totals:?}");
    }
    assert_eq!(timeline.spans.iter().map(|span| span.to - span.from).sum::<u64>(), world.hw.now());
}

#[test]
fn a_good_update_that_resets_the_device_breaks_nothing() {
    let (world, violations) = Run::new(Wrong::Nothing, Mode::ResetInFreeze).all();
    assert_eq!(violations, []);
    assert_eq!(world.hw.timeline().of(Phase::Jump).1.ops, 0);
}

#[test]
fn everything_that_goes_wrong_breaks_what_is_meant_to_notice() {
    use Invariant::*;
    let table: &[(Wrong, &[Invariant])] = &[
        (Wrong::LosesTablePage, &[D2, D4]),
        (Wrong::LosesFolio, &[D1, D2, D5]),
        (Wrong::ClearsBridgeMaster, &[D4]),
        (Wrong::PoisonsLeaf, &[D1]),
        (Wrong::ReusesDomainId, &[D5]),
        (Wrong::MapsAfterPreserve, &[D2, D3]),
        (Wrong::ReplacesInSteps, &[D2, D4]),
        (Wrong::FinishesAttached, &[D14]),
        (Wrong::RenumbersBuses, &[D4, D16]),
        (Wrong::ResetsDevice, &[D9]),
        (Wrong::StopsTranslating, &[D2, D4]),
        (Wrong::LeavesOtherAttached, &[D8]),
        (Wrong::BootsOnPreserved, &[D12]),
        (Wrong::LeavesInterruptsOn, &[D11]),
        (Wrong::ForgetsToInvalidate, &[D14]),
        (Wrong::MovesPages, &[D2, D5]),
        (Wrong::Device(Defect::CompletionFirst), &[D10]),
        (Wrong::Device(Defect::RunsTwice), &[D13]),
        (Wrong::Device(Defect::Skips), &[D13]),
        (Wrong::Device(Defect::LosesInterrupts), &[D11]),
    ];
    let mut unnoticed = Vec::new();
    for (wrong, meant) in table {
        let broken = broken(*wrong, Mode::Continues);
        let missed: Vec<_> = meant.iter().filter(|invariant| !broken.contains(invariant)).collect();
        if !missed.is_empty() {
            unnoticed.push(format!("{wrong:?} breaks {broken:?}, and not {missed:?}"));
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

#[test]
fn a_device_that_is_not_reset_breaks_the_weak_promises() {
    let mut run = Run::new(Wrong::Nothing, Mode::Continues);
    run.checker = Checker::new(Mode::ResetInFreeze);
    let (_, violations) = run.all();
    let broken: BTreeSet<Invariant> = violations.iter().map(|violation| violation.invariant).collect();
    assert!(broken.contains(&Invariant::D4) && broken.contains(&Invariant::D9), "{broken:?}");
}

#[test]
fn an_abort_is_checked_against_what_was_preserved() {
    for (wrong, want) in
        [(Wrong::Nothing, false), (Wrong::MapsAfterPreserve, true), (Wrong::ClearsBridgeMaster, true)]
    {
        let mut run = Run::new(wrong, Mode::Continues);
        run.guest_works();
        run.preserve();
        run.freeze();
        run.checker.take_violations();
        let (view, _) = DeviceView::observe(&run.world.hw, &run.world.ram.mem, run.guest, TOKENS);
        run.checker.aborted(TimePoint::T2, run.guest, &view);
        let found = run.checker.take_violations();
        assert_eq!(
            found.iter().any(|violation| violation.invariant == Invariant::D15),
            want,
            "{wrong:?}: {found:?}"
        );
    }
}

/// An abort that finds nothing to say, of a device after what `before` did to it, and after some ticks.
fn abort_is_quiet(before: impl Fn(&mut Run), ticks: u64) {
    let mut run = Run::new(Wrong::Nothing, Mode::Continues);
    run.guest_works();
    before(&mut run);
    let look = |run: &Run| DeviceView::observe(&run.world.hw, &run.world.ram.mem, run.guest, TOKENS).0;
    run.checker.device(TimePoint::T1, run.guest, &look(&run));
    run.world.tick(ticks);
    let view = look(&run);
    run.checker.aborted(TimePoint::T2, run.guest, &view);
    assert_eq!(run.checker.take_violations(), [], "{view:?}");
}

/// Whichever tick of a loop the abort finds it in, also the one in which it goes back to the start.
#[test]
fn a_device_is_not_reproached_with_a_single_tick() {
    for ticks in 0..80 {
        abort_is_quiet(|run| run.world.tick(ticks), 1);
    }
}

#[test]
fn a_device_that_was_no_bus_master_before_need_not_be_one_after() {
    abort_is_quiet(|run| run.world.hw.change_command(GUEST, 0, command::MASTER), 100);
}

#[test]
fn a_fill_that_overruns_kills_a_canary() {
    // The unit behind the fill lies in the next page, which is mapped for the device by a table that is too long.
    let mut world = World::new(None);
    let guard = world.ram.alloc_zeroed(Order::ZERO, FrameUse::Other).unwrap();
    let end = BASE + 4096 * u64::try_from(world.frames.len()).unwrap();
    let mut mem = RamRef(&mut world.ram);
    world.table.map(&mut mem, end, guard.addr(), PAGE_SIZE, Permissions::READ_WRITE).unwrap();
    let canaries = Canaries::plant(&mut world.ram.mem, 0xc5, vec![guard]).unwrap();
    let mut checker = Checker::new(Mode::Continues);
    for defect in [None, Some(Defect::Overruns)] {
        world.hw.set_defect(GUEST, defect);
        let mut driver = world.driver(false);
        let (hw, mut guest) = world.guest();
        driver.post_fill(&mut guest, end - 4096, 4096, 1).unwrap();
        driver.ring(hw);
        world.tick(70);
        checker.canaries(TimePoint::T3, &world.ram.mem, &canaries);
        let broken = checker.take_violations();
        assert_eq!(broken.iter().any(|one| one.invariant == Invariant::D7), defect.is_some(), "{broken:?}");
        assert!(world.hw.try_reset_function(GUEST));
    }
}

#[test]
fn what_is_written_later_is_looked_for_too() {
    let mut world = World::new(None);
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    driver.post_fill(&mut guest, BASE + 0x3000, 256, 5).unwrap();
    driver.ring(hw);
    world.tick(10);
    world.drain(&mut driver);
    let mut checker = Checker::new(Mode::Continues);
    let other = Guest { mem: &mut world.ram.mem, frames: &world.other_frames };
    let read = |iova, buf: &mut [u8]| luosim_hardware::driver::GuestMemory::read(&other, iova, buf);
    checker.payloads(TimePoint::T8, &driver, read, 1);
    assert_eq!(checker.violations()[0].invariant, Invariant::D6);
    assert!(
        checker.violations()[0].to_string().starts_with("D6 at T8: 01:00.0: operation 1 with cookie 0x5")
    );
}
