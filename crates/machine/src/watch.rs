//! The invariants of DMA through a kexec, checked whenever a machine with devices makes a live update.
//!
//! From the moment a device is preserved until its session is finished, the watch looks at it at each time point
//! ([`TimePoint`]) and feeds what it sees to the checks of the hardware ([`Checker`]). It stands beside the machine as the ledger does:
//! no kernel can see it, and it changes nothing. What does not hold is a [`Violation`], which says what was found, with numbers
//! ([`Machine::take_violations`]).
//!
//! Every frame that a watched device writes is noted by the hardware, and must be one that was mapped for it when it was preserved
//! (D7). Once a device is finished it must reach no frame that is free ([`Machine::watch_ended`], D14). Payloads and completions (D5,
//! D6, D10, D13) need the driver of the guest, whom the runner of scenarios has.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use luosim_abi::devices::pci::COMPATIBLE as PCI;
use luosim_abi::profile::Assumption;
use luosim_hardware::digest;
use luosim_hardware::iommu::Contents;
use luosim_hardware::verify::{
    Checker, DeviceView, FrameOwner, Invariant, Mode, Observer, TimePoint, Tokens, Violation,
};
use luosim_hardware::{Bdf, Hardware};
use luosim_luo::Host as _;
use luosim_physmem::{FrameState, FrameUse, Frames, Order, Pfn, PhysMem};

use crate::{Kernel, Machine, Outcome, World};

/// Most frames whose contents are compared over the boot: more would take longer than the boot itself.
const MOST_FRAMES: u64 = 1 << 14;

/// What is watched of one live update after the other.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Devices that are preserved, or came, by their place.
    devices: BTreeMap<usize, Watched>,
    /// The devices that are not, over one kexec.
    others: Option<Checker>,
    /// Digests of the frames that devices reach, when the old kernel was gone.
    contents: BTreeMap<Pfn, u64>,
    /// Places of devices that went on to page tables of this kernel.
    ended: BTreeSet<usize>,
    found: Vec<Violation>,
    observer: Observer,
    /// What was looked at since power on, and what of it was broken.
    looked: BTreeSet<Invariant>,
    broken: BTreeSet<Invariant>,
}

luosim_abi::named! {
    /// What is known of an invariant after a run.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Standing {
        Holds = "holds", "it was looked at, and held every time";
        Broken = "broken", "it did not hold";
        NotLooked = "not-looked-at", "nothing in the run could show it";
    }
}

/// A device under watch, from the moment it is preserved.
#[derive(Debug)]
struct Watched {
    checker: Checker,
    /// The top page table that it was seen to go through last.
    top: Option<Pfn>,
    /// What it puts on its requests.
    rid: Bdf,
    /// Runs of frames that were mapped for it when it was preserved, by their first frames, none inside another.
    windows: BTreeMap<u64, u64>,
}

impl Watched {
    fn new(checker: Checker, view: &DeviceView, contents: &Contents) -> Self {
        let mut windows = BTreeMap::new();
        for extent in &contents.extents {
            let (first, end) = (extent.addr.pfn().raw(), (extent.addr.raw() + extent.len).div_ceil(4096));
            let known = windows.entry(first).or_insert(end);
            *known = end.max(*known);
        }
        Self { checker, top: contents.tables.first().copied(), rid: view.rid, windows }
    }

    /// Whether a frame may be written by the device.
    fn may_write(&self, frame: Pfn) -> bool {
        self.windows.range(..=frame.raw()).next_back().is_some_and(|(_, end)| frame.raw() < *end)
    }
}

/// Places and addresses of the devices that there are.
fn endpoints(hardware: &Hardware) -> Vec<(usize, Option<Bdf>)> {
    let all = hardware.functions().enumerate();
    all.filter(|(index, _)| hardware.device_at(*index).is_some())
        .map(|(index, info)| (index, info.bdf))
        .collect()
}

/// Who has frames of a kernel, asked one after the other: a block of many frames is looked up once.
struct Owners<'k> {
    frames: &'k Frames,
    /// The last block: its first frame, the first one behind it, and who has it.
    last: Cell<(u64, u64, FrameOwner)>,
}

impl<'k> Owners<'k> {
    fn of(kernel: &'k Kernel) -> Self {
        Self { frames: &kernel.core.ram.frames, last: Cell::new((0, 0, FrameOwner::Free)) }
    }

    fn owner(&self, frame: Pfn) -> FrameOwner {
        let (first, end, owner) = self.last.get();
        if (first..end).contains(&frame.raw()) {
            return owner;
        }
        let found = self.look_up(frame);
        self.last.set(found);
        found.2
    }

    fn look_up(&self, frame: Pfn) -> (u64, u64, FrameOwner) {
        let head = (0..=20)
            .map(|order| Pfn::new(frame.raw() >> order << order))
            .find(|head| !matches!(self.frames.state(*head), FrameState::Tail));
        let block = |head: Pfn, order: Order, owner| (head.raw(), head.raw() + order.pages(), owner);
        match head.map(|head| (head, self.frames.state(head), self.frames.use_of(head))) {
            Some((head, FrameState::Free, _)) => block(head, Order::ZERO, FrameOwner::Free),
            Some((head, FrameState::PreservedHead(order), _)) => block(head, order, FrameOwner::Preserved),
            Some((head, FrameState::AllocatedHead(order), FrameUse::PageCache | FrameUse::IommuTable)) => {
                block(head, order, FrameOwner::File)
            }
            Some((head, FrameState::AllocatedHead(order), other)) => {
                block(head, order, FrameOwner::Other(other.text()))
            }
            _ => block(frame, Order::ZERO, FrameOwner::Other("reserved")),
        }
    }
}

fn digests(mem: &PhysMem, contents: &Contents, into: &mut BTreeMap<Pfn, u64>) {
    if contents.pages() > MOST_FRAMES {
        return;
    }
    let mut bytes = [0; 4096];
    for frame in contents.frames() {
        if mem.read(frame.addr(), &mut bytes).is_ok() {
            into.insert(frame, digest::page(&bytes));
        }
    }
}

impl Watch {
    fn say(&mut self, invariant: Invariant, at: TimePoint, what: String) {
        self.note([Violation { invariant, at, what }]);
    }

    fn note(&mut self, violations: impl IntoIterator<Item = Violation>) {
        for violation in violations {
            self.broken.insert(violation.invariant);
            self.found.push(violation);
        }
    }

    /// Looks at every device.
    fn look(&mut self, at: TimePoint, hardware: &Hardware, mem: &PhysMem, kernel: Option<&Kernel>) {
        use Invariant::{D1, D2, D3, D4, D7, D8, D9, D11, D16};
        let mut found = Vec::new();
        for (index, _) in endpoints(hardware) {
            let (view, contents) = self.observer.observe(hardware, mem, index, Tokens::default());
            if let Some(Watched { checker, top, .. }) = self.devices.get_mut(&index) {
                checker.device(at, index, &view);
                let before = [D2, D3, D9, D11, D16].into_iter();
                self.looked.extend(before.chain((at >= TimePoint::T2).then_some(D4)));
                if let Some(kernel) = kernel {
                    self.looked.insert(D1);
                    let owners = Owners::of(kernel);
                    checker.frames(at, &contents, |frame| owners.owner(frame));
                }
                *top = contents.tables.first().copied();
                self.looked.insert(D7);
                found.extend(checker.take_violations());
            } else if (TimePoint::T2..=TimePoint::T5).contains(&at) {
                // Later somebody may have started it in the new kernel.
                let checker = self.others.get_or_insert_with(|| Checker::new(Mode::Continues));
                checker.other_device(at, index, &view);
                self.looked.insert(D8);
                found.extend(checker.take_violations());
            }
        }
        self.note(found);
        self.look_at_writes(at, hardware);
    }

    /// Frames that watched devices wrote: none but what was mapped for them.
    fn look_at_writes(&mut self, at: TimePoint, hardware: &Hardware) {
        let Some(writes) = hardware.writes() else { return };
        let astray = writes.iter().find_map(|(frame, rid)| {
            let mine = self.devices.values().find(|watched| watched.rid == *rid)?;
            (!mine.may_write(*frame)).then_some((*frame, *rid))
        });
        if let Some((frame, rid)) = astray {
            let what =
                format!("{rid} wrote frame {frame}, which was not mapped for it when it was preserved");
            self.say(Invariant::D7, at, what);
        }
    }

    /// Domain ids: one that two page tables have means that a unit may take one for the other.
    fn look_at_ids(&mut self, at: TimePoint, hardware: &Hardware, mem: &PhysMem) {
        for unit in hardware.units().iter().filter(|unit| unit.is_enabled()) {
            let contexts = unit.root().contexts(mem);
            let twice = contexts.iter().find_map(|(rid, context)| {
                let same = |other: &&(Bdf, luosim_hardware::iommu::Context)| {
                    other.1.domain_id == context.domain_id && other.1.top != context.top
                };
                contexts.iter().find(same).map(|(other, _)| (*rid, *other, context.domain_id))
            });
            if let Some((one, other, id)) = twice {
                self.say(
                    Invariant::D16,
                    at,
                    format!("{one} and {other} have page tables with the one domain id {id}"),
                );
                return;
            }
        }
    }

    /// What a kernel wrote while it booted: frames that changed, and no device wrote.
    fn compare(&mut self, at: TimePoint, mem: &PhysMem, by_devices: &BTreeMap<Pfn, Bdf>) {
        let mut bytes = [0; 4096];
        let changed = std::mem::take(&mut self.contents).into_iter().find(|(frame, before)| {
            !by_devices.contains_key(frame)
                && mem.read(frame.addr(), &mut bytes).is_ok()
                && digest::page(&bytes) != *before
        });
        if let Some((frame, _)) = changed {
            self.say(
                Invariant::D1,
                at,
                format!("a kernel wrote frame {frame}, which a preserved device reaches"),
            );
        }
    }

    /// The old kernel is gone, the new one has not started.
    pub(crate) fn between(&mut self, world: &mut World) {
        let Some(hardware) = &mut world.hardware else { return };
        if self.devices.is_empty() {
            return;
        }
        self.look(TimePoint::T3, hardware, &world.memory, None);
        for index in self.devices.keys() {
            let (_, contents) = self.observer.observe(hardware, &world.memory, *index, Tokens::default());
            digests(&world.memory, &contents, &mut self.contents);
        }
        hardware.watch_writes(true);
    }
}

impl Machine {
    /// What of the invariants of DMA did not hold since the last question.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.watch.found)
    }

    /// A time point of the running kernel.
    pub(crate) fn observe(&mut self, at: TimePoint) {
        let mut watch = std::mem::take(&mut self.watch);
        if !watch.devices.is_empty()
            && let Some(kernel) = self.kernel()
            && let Some(hardware) = kernel.core.hardware.as_deref()
        {
            watch.look(at, hardware, &kernel.core.ram.mem, Some(kernel));
            watch.look_at_ids(at, hardware, &kernel.core.ram.mem);
        }
        self.watch = watch;
    }

    /// A file was preserved: devices among what is preserved now are watched from here on.
    pub(crate) fn watch_preserved(&mut self) {
        if self.hardware().is_none() {
            return;
        }
        let preserved = self.watch_given_up();
        let fresh: Vec<usize> =
            preserved.into_iter().filter(|index| !self.watch.devices.contains_key(index)).collect();
        let Some(kernel) = self.kernel() else { return };
        let resets = kernel.profile().resets_at_freeze();
        if fresh.is_empty() {
            return;
        }
        let mode = if resets { Mode::ResetInFreeze } else { Mode::Continues };
        let mut watch = std::mem::take(&mut self.watch);
        if let Some(kernel) = self.kernel()
            && let Some(hardware) = kernel.core.hardware.as_deref()
        {
            for index in fresh {
                let mem = &kernel.core.ram.mem;
                let (view, contents) = watch.observer.observe(hardware, mem, index, Tokens::default());
                let mut checker = Checker::new(mode);
                checker.device(TimePoint::T1, index, &view);
                watch.devices.insert(index, Watched::new(checker, &view, &contents));
            }
        }
        self.watch = watch;
        self.note_writes_anew();
    }

    /// The reboot goes through: devices that came and were not finished are not carried on, and nothing is promised for them.
    pub(crate) fn watch_carried(&mut self) {
        let preserved = self.preserved_devices();
        self.watch.devices.retain(|index, _| preserved.contains(index));
    }

    /// Devices that are neither preserved any more nor came from the previous kernel are watched no longer: their sessions were
    /// closed. Gives the places of those that are preserved.
    fn watch_given_up(&mut self) -> BTreeSet<usize> {
        let preserved = self.preserved_devices();
        let came = |hardware: &Hardware, kernel: &Kernel, index: usize| {
            let bdf = hardware.function_at(index).and_then(|info| info.bdf);
            bdf.is_some_and(|bdf| kernel.core.devices.pci.is_incoming(bdf))
        };
        let mut watch = std::mem::take(&mut self.watch);
        if let Some(kernel) = self.kernel()
            && let Some(hardware) = kernel.core.hardware.as_deref()
        {
            watch.devices.retain(|index, _| preserved.contains(index) || came(hardware, kernel, *index));
        }
        self.watch = watch;
        preserved
    }

    /// Places of the endpoints in the records that PCI core preserves now.
    fn preserved_devices(&mut self) -> BTreeSet<usize> {
        let Some(data) = self.outgoing_object(PCI) else { return BTreeSet::new() };
        let Ok(kernel) = self.running() else { return BTreeSet::new() };
        let preserved = luosim_devices::pci::preserved(&kernel.core.memory(), data);
        let Some(hardware) = kernel.core.hardware.as_deref() else { return BTreeSet::new() };
        let mine =
            |(index, bdf): (usize, Option<Bdf>)| bdf.filter(|bdf| preserved.contains(bdf)).map(|_| index);
        endpoints(hardware).into_iter().filter_map(mine).collect()
    }

    /// A reboot that came to nothing.
    pub(crate) fn watch_abort(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        let mut found = Vec::new();
        if let Some(kernel) = self.kernel()
            && let Some(hardware) = kernel.core.hardware.as_deref()
        {
            for (index, Watched { checker, .. }) in &mut watch.devices {
                let (view, _) =
                    watch.observer.observe(hardware, &kernel.core.ram.mem, *index, Tokens::default());
                checker.aborted(TimePoint::T2, *index, &view);
                watch.looked.insert(Invariant::D15);
                found.extend(checker.take_violations());
            }
        }
        watch.note(found);
        self.watch = watch;
    }

    /// The new kernel is up, or came to nothing.
    pub(crate) fn watch_boot(&mut self, outcome: &Outcome) {
        if self.watch.devices.is_empty() {
            return;
        }
        if let Outcome::Panicked { reason } = outcome {
            self.watch_tables(reason);
            self.watch_panic();
        }
        let mut watch = std::mem::take(&mut self.watch);
        let by_devices = self.hardware_and_memory().0.map(|hardware| {
            watch.look_at_writes(TimePoint::T5, hardware);
            hardware.take_writes()
        });
        self.watch = watch;
        if let Some(by_devices) = by_devices {
            let mut watch = std::mem::take(&mut self.watch);
            watch.compare(TimePoint::T5, self.memory(), &by_devices);
            self.watch = watch;
        }
        self.watch_scratch();
        self.observe(TimePoint::T5);
        self.watch.others = None;
    }

    /// A kernel that stopped while it booted: devices went on until then.
    fn watch_panic(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        if let (Some(hardware), memory) = self.hardware_and_memory() {
            watch.look(TimePoint::T4, hardware, memory, None);
        }
        self.watch = watch;
    }

    /// A kernel that stopped because a page of tables was not kept for it: one that a watched device goes through (D3).
    fn watch_tables(&mut self, reason: &str) {
        let mut watch = std::mem::take(&mut self.watch);
        let mut lost = None;
        if let (Some(hardware), memory) = self.hardware_and_memory() {
            for index in watch.devices.keys() {
                let (view, contents) = watch.observer.observe(hardware, memory, *index, Tokens::default());
                let named = |table: &&Pfn| reason.contains(&format!("frame {table} cannot be taken over"));
                lost = lost.or(contents.tables.iter().find(named).map(|table| (view.rid, *table)));
            }
        }
        if let Some((rid, table)) = lost {
            let what = format!("frame {table} is a table page of {rid}, and was not kept: {reason}");
            watch.say(Invariant::D3, TimePoint::T4, what);
        }
        self.watch = watch;
    }

    /// Where the new kernel allocated at first there must be nothing that a device reaches.
    fn watch_scratch(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        let mut found = Vec::new();
        if let Some(kernel) = self.kernel()
            && let Some(hardware) = kernel.core.hardware.as_deref()
        {
            let areas = kernel.core.kho.scratch().iter();
            let regions: Vec<(Pfn, u64)> = areas.map(|area| (area.addr.pfn(), area.size / 4096)).collect();
            for (index, Watched { checker, .. }) in &mut watch.devices {
                let mem = &kernel.core.ram.mem;
                let (_, contents) = watch.observer.observe(hardware, mem, *index, Tokens::default());
                checker.disjoint(TimePoint::T5, &regions, contents.frames());
                watch.looked.insert(Invariant::D12);
                found.extend(checker.take_violations());
            }
        }
        watch.note(found);
        self.watch = watch;
    }

    /// Each invariant of DMA, and what is known of it since power on.
    #[must_use]
    pub fn invariants(&self) -> Vec<(Invariant, Standing)> {
        let standing = |invariant: &Invariant| {
            if self.watch.broken.contains(invariant) {
                Standing::Broken
            } else if self.watch.looked.contains(invariant) {
                Standing::Holds
            } else {
                Standing::NotLooked
            }
        };
        Invariant::ALL.iter().map(|invariant| (*invariant, standing(invariant))).collect()
    }

    /// A look at one device.
    fn view(&mut self, index: usize) -> Option<(DeviceView, Rc<Contents>)> {
        let mut observer = std::mem::take(&mut self.watch.observer);
        let (hardware, mem) = (self.hardware(), self.memory());
        let seen = hardware.map(|hardware| observer.observe(hardware, mem, index, Tokens::default()));
        self.watch.observer = observer;
        seen
    }

    /// A device moved on to another page table: what it went through before does not bind it any more.
    pub(crate) fn watch_moved(&mut self, bdf: Bdf) {
        self.watch_given_up();
        let Some(hardware) = self.hardware() else { return };
        let found = endpoints(hardware).into_iter().find(|(_, at)| *at == Some(bdf)).map(|(index, _)| index);
        let Some(index) = found.filter(|index| self.watch.devices.contains_key(index)) else { return };
        let Some((view, _)) = self.view(index) else { return };
        let mut watch = std::mem::take(&mut self.watch);
        if let Some(Watched { checker, .. }) = watch.devices.get_mut(&index) {
            checker.device(TimePoint::T7, index, &view);
            // What a program maps in its new address space is its own affair.
            let found = checker.take_violations().into_iter();
            watch.note(found.filter(|violation| violation.invariant != Invariant::D2));
        }
        watch.devices.remove(&index);
        watch.ended.insert(index);
        self.watch = watch;
        self.note_writes_anew();
        self.observe(TimePoint::T6);
    }

    /// What devices write is noted from here on, as long as one is watched.
    fn note_writes_anew(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        if let (Some(hardware), _) = self.hardware_and_memory() {
            watch.look_at_writes(TimePoint::T1, hardware);
            hardware.watch_writes(!watch.devices.is_empty());
        }
        self.watch = watch;
    }

    /// Something was unmapped, closed or finished: what a device that is no longer preserved reaches must not be free (D14). Also
    /// what watched devices wrote is looked at, which is noted anyway.
    pub fn watch_ended(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        let mut found = None;
        if let Some(kernel) = self.kernel()
            && let Some(hardware) = kernel.core.hardware.as_deref()
        {
            for index in &watch.ended {
                let (view, contents) =
                    watch.observer.observe(hardware, &kernel.core.ram.mem, *index, Tokens::default());
                let owners = Owners::of(kernel);
                let free = contents.frames().find(|frame| owners.owner(*frame) == FrameOwner::Free);
                watch.looked.insert(Invariant::D14);
                found = found.or(free.map(|frame| (view.rid, frame)));
            }
        }
        if let Some((rid, frame)) = found {
            let what = format!("{rid} is no longer preserved and still reaches frame {frame}, which is free");
            watch.say(Invariant::D14, TimePoint::T8, what);
        }
        self.watch = watch;
    }

    /// A retrieval that failed may have freed memory that a device still reaches, as the memory file's does.
    pub(crate) fn note_lost_memory(&mut self, failed: bool) {
        let broken = self.watch.found.iter().any(|violation| violation.invariant == Invariant::D1);
        if let (true, Ok(kernel)) = (failed && broken, self.running()) {
            kernel.core.assume(Assumption::UnfinishedMemory);
        }
    }

    /// A session was finished.
    pub(crate) fn watch_finish(&mut self) {
        let Some(kernel) = self.kernel() else { return };
        let pci = &kernel.core.devices.pci;
        let Some(hardware) = kernel.core.hardware.as_deref() else { return };
        let done: Vec<usize> = endpoints(hardware)
            .into_iter()
            .filter(|(index, bdf)| {
                self.watch.devices.contains_key(index) && bdf.is_some_and(|bdf| !pci.is_incoming(bdf))
            })
            .map(|(index, _)| index)
            .collect();
        for index in done {
            let Some((view, contents)) = self.view(index) else { return };
            let top = contents.tables.first().copied();
            self.watch.looked.insert(Invariant::D14);
            let watched = self.watch.devices.remove(&index);
            self.watch.ended.insert(index);
            if watched.is_some_and(|watched| top.is_some() && top == watched.top) {
                let what =
                    format!("{} goes through the page table of the previous kernel after finish", view.rid);
                self.watch.say(Invariant::D14, TimePoint::T8, what);
            }
        }
    }
}
