//! The checks.

use std::collections::BTreeMap;

use luosim_physmem::{Pfn, PhysMem};

use super::view::{Canaries, DeviceView, Mapping, NoMapping};
use super::{Invariant, TimePoint, Violation};
use crate::Bdf;
use crate::driver::{BadStamp, Driver, Stamps};
use crate::iommu::Contents;

/// What a preserved device does over a kexec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It goes on.
    Continues,
    /// Freeze resets it; it does nothing until a driver starts it again.
    ResetInFreeze,
}

/// Who has a frame, as the kernel that runs knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameOwner {
    /// It came from the previous kernel and nobody took it yet.
    Preserved,
    /// The preserved file.
    File,
    /// Nobody: it may be allocated.
    Free,
    /// Something else.
    Other(&'static str),
}

/// The checker of one live update: views by device, and what was wrong.
#[derive(Clone, Debug)]
pub struct Checker {
    mode: Mode,
    /// Views of preserved devices by their place, in the order of time.
    devices: BTreeMap<usize, Vec<(TimePoint, DeviceView)>>,
    /// The same of devices that are not preserved.
    others: BTreeMap<usize, Vec<(TimePoint, DeviceView)>>,
    /// Digests of which frame each page of a file lies in, by token.
    files: BTreeMap<u64, Vec<(TimePoint, u64)>>,
    /// What drivers found good, by their devices.
    stamps: BTreeMap<Bdf, Stamps>,
    violations: Vec<Violation>,
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let (devices, others, files) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { mode, devices, others, files, stamps: BTreeMap::new(), violations: Vec::new() }
    }

    /// What was wrong so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What was wrong since the last call.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    fn say(&mut self, invariant: Invariant, at: TimePoint, what: String) {
        self.violations.push(Violation { invariant, at, what });
    }

    fn check(&mut self, invariant: Invariant, at: TimePoint, wrong: Option<String>) {
        if let Some(what) = wrong {
            self.say(invariant, at, what);
        }
    }

    /// A preserved device: D2, D3, D4, D9, D11 and D16 against what it was before. `index` is its place among the
    /// functions.
    pub fn device(&mut self, at: TimePoint, index: usize, view: &DeviceView) {
        use Invariant::{D2, D3, D4, D9, D11, D16};
        let seen = self.devices.entry(index).or_default();
        let first = of(seen, TimePoint::T1).cloned();
        let frozen = of(seen, TimePoint::T2).cloned();
        let last = seen.last().map(|(_, view)| view.clone());
        seen.push((at, view.clone()));
        if let Some(first) = &first {
            if at <= TimePoint::T7 {
                self.check(D2, at, translations_changed(first, view));
            }
            if at <= TimePoint::T6 {
                self.check(D3, at, tables_changed(first, view));
                self.check(D16, at, identity_changed(first, view));
                self.check(D9, at, reset(self.mode, at, first, view));
            }
        }
        if let (Some(frozen), true) = (&frozen, at <= TimePoint::T7) {
            let master = first.as_ref().is_none_or(|first| first.master);
            self.check(D4, at, dma(self.mode, master, frozen, view));
        }
        if let (Some(frozen), true) = (&frozen, at <= TimePoint::T6) {
            self.check(D11, at, delivered(frozen, view));
        }
        if let (Some(last), Some(_)) = (&last, &first) {
            self.check(D9, at, went_back(last, view));
        }
        self.check(D11, at, unaccounted(view));
    }

    /// A device that is not preserved: D8 from T3 on, against T2.
    pub fn other_device(&mut self, at: TimePoint, index: usize, view: &DeviceView) {
        let seen = self.others.entry(index).or_default();
        let frozen = of(seen, TimePoint::T2).cloned();
        seen.push((at, view.clone()));
        let Some(frozen) = frozen else { return };
        let written = view.totals.bytes_written - frozen.totals.bytes_written;
        if written > 0 || view.totals.ops > frozen.totals.ops {
            let ops = view.totals.ops - frozen.totals.ops;
            let what = format!(
                "{} is not preserved, and completed {ops} operations and wrote {written} bytes after T2",
                view.rid
            );
            self.say(Invariant::D8, at, what);
        }
    }

    /// Which frame each page of a preserved file lies in, as a digest of the caller's: D2 against T1.
    pub fn file(&mut self, at: TimePoint, token: u64, frames: u64) {
        let seen = self.files.entry(token).or_default();
        let first = seen.iter().find(|(then, _)| *then == TimePoint::T1).map(|(_, frames)| *frames);
        seen.push((at, frames));
        if let Some(first) = first.filter(|first| *first != frames) {
            let what = format!(
                "the pages of the file with token {token:#x} moved: digest {first:#x} is {frames:#x}"
            );
            self.say(Invariant::D2, at, what);
        }
    }

    /// Frames that a preserved device can reach, and table pages that it is translated by: D1. At most one violation
    /// a call, with the number of frames.
    pub fn frames(&mut self, at: TimePoint, contents: &Contents, owner: impl Fn(Pfn) -> FrameOwner) {
        if !(TimePoint::T1..=TimePoint::T7).contains(&at) {
            return;
        }
        let mut wrong = contents.frames().filter_map(|frame| match owner(frame) {
            FrameOwner::Free => Some((frame, "free")),
            FrameOwner::Other(what) => Some((frame, what)),
            FrameOwner::Preserved | FrameOwner::File => None,
        });
        if let Some((frame, what)) = wrong.next() {
            let more = wrong.count();
            let what =
                format!("frame {frame} can be reached by the device, and is {what}; {more} more are like it");
            self.say(Invariant::D1, at, what);
        }
        let free = contents.tables.iter().find(|table| owner(**table) == FrameOwner::Free);
        if let Some(table) = free {
            self.say(Invariant::D1, at, format!("frame {table} is a table page of the device, and is free"));
        }
    }

    /// Frames that a kernel wrote since the last time point: D1.
    pub fn kernel_wrote(&mut self, at: TimePoint, contents: &Contents, written: &[Pfn]) {
        let reached: std::collections::BTreeSet<Pfn> = contents.frames().collect();
        if let Some(frame) = written.iter().find(|frame| reached.contains(frame)) {
            self.say(Invariant::D1, at, format!("a kernel wrote frame {frame}, which the device can reach"));
        }
    }

    /// The first stamp of a driver's completed fills that is not in memory.
    pub fn bad_stamps(&mut self, driver: &Driver, read: impl FnMut(u64, &mut [u8]) -> bool) -> Vec<BadStamp> {
        self.stamps.entry(driver.bdf).or_default().bad(driver.payloads(), read, 1)
    }

    /// What a driver finds in memory, read by address through a closure that says whether it could: D5, or D6 once the
    /// files are retrieved. `seq` is what the device says it completed: every completion must be there too.
    pub fn payloads(
        &mut self,
        at: TimePoint,
        driver: &Driver,
        read: impl FnMut(u64, &mut [u8]) -> bool,
        seq: u64,
    ) {
        let invariant = if at <= TimePoint::T6 { Invariant::D5 } else { Invariant::D6 };
        if !self.not_early(at, driver, seq) {
            return;
        }
        let bad = self.bad_stamps(driver, read);
        self.check(invariant, at, bad.first().map(|bad| bad_stamp(driver, bad)));
        let seen = driver.seen();
        if seen != seq {
            let what = format!(
                "{}: the device completed {seq} operations, memory has {seen} completions",
                driver.bdf
            );
            self.say(invariant, at, what);
        }
    }

    /// Whether memory has no completion of an operation that the device has not completed: D10.
    pub fn not_early(&mut self, at: TimePoint, driver: &Driver, seq: u64) -> bool {
        let (seen, bdf) = (driver.seen(), driver.bdf);
        if seen > seq {
            let what =
                format!("{bdf}: memory has {seen} completions, and the device completed {seq} operations");
            self.say(Invariant::D10, at, what);
        }
        seen <= seq
    }

    /// After completions were read ([`Driver::drain`]) and before anything else happens: D10, and D13. Gives the first stamp that is not
    /// in memory.
    pub fn completions(
        &mut self,
        at: TimePoint,
        driver: &Driver,
        read: impl FnMut(u64, &mut [u8]) -> bool,
    ) -> Vec<BadStamp> {
        self.order(at, driver);
        let bad = self.bad_stamps(driver, read);
        self.check(Invariant::D10, at, bad.first().map(|bad| bad_stamp(driver, bad)));
        bad
    }

    /// Completions that were read, apart from what they complete: D10, and D13. Enough where [`Self::payloads`] found nothing.
    pub fn order(&mut self, at: TimePoint, driver: &Driver) {
        let torn = driver.completions().iter().find(|completion| !completion.is_intact());
        if let Some(completion) = torn {
            let what = format!("{}: a completion is torn: {completion:?}", driver.bdf);
            self.say(Invariant::D10, at, what);
        }
        self.check(Invariant::D13, at, driver.out_of_order());
    }

    /// Frames next to what is mapped: D7.
    pub fn canaries(&mut self, at: TimePoint, mem: &PhysMem, canaries: &Canaries) {
        let dead = canaries.dead(mem);
        if let Some(first) = dead.first() {
            let what =
                format!("{} frames outside every mapping were written, the first is {first}", dead.len());
            self.say(Invariant::D7, at, what);
        }
    }

    /// Where the new kernel boots and allocates at first, runs of a first frame and frames, against what is preserved: D12.
    pub fn disjoint(
        &mut self,
        at: TimePoint,
        regions: &[(Pfn, u64)],
        preserved: impl IntoIterator<Item = Pfn>,
    ) {
        let inside = |frame: &Pfn| {
            let holds = |(first, frames): &&(Pfn, u64)| {
                frame.raw() >= first.raw() && frame.raw() - first.raw() < *frames
            };
            regions.iter().find(holds).map(|region| (*frame, *region))
        };
        if let Some((frame, (first, frames))) = preserved.into_iter().find_map(|frame| inside(&frame)) {
            let what = format!("preserved frame {frame} lies in the region of {frames} frames at {first}");
            self.say(Invariant::D12, at, what);
        }
    }

    /// After the interrupt that the VMM injects, the driver drained: D11.
    pub fn drained(&mut self, at: TimePoint, driver: &Driver, seq: u64) {
        let seen = driver.seen();
        if seen < seq {
            let what = format!("{}: {} completions of {seq} are left after draining", driver.bdf, seq - seen);
            self.say(Invariant::D11, at, what);
        }
    }

    /// The device was given work in memory that is no longer mapped, between the two views: D14.
    pub fn after_finish(&mut self, before: &DeviceView, after: &DeviceView) {
        let written = after.totals.bytes_written - before.totals.bytes_written;
        let faults = after.totals.faults - before.totals.faults;
        if written > 0 || faults == 0 {
            let what = format!(
                "{} wrote {written} bytes to memory that is unmapped, and met {faults} faults",
                after.rid
            );
            self.say(Invariant::D14, TimePoint::T8, what);
        }
    }

    /// The update was given up, by a failed freeze or a closed session, and the old kernel runs on: D15 against T1.
    pub fn aborted(&mut self, at: TimePoint, index: usize, view: &DeviceView) {
        let Some(first) = self.devices.get(&index).and_then(|seen| of(seen, TimePoint::T1)).cloned() else {
            return;
        };
        let wrong = [
            translations_changed(&first, view),
            tables_changed(&first, view),
            match self.mode {
                Mode::Continues => dma(Mode::Continues, first.master, &first, view),
                // It may have been reset, or not have come to it.
                Mode::ResetInFreeze => None,
            },
        ];
        wrong.into_iter().for_each(|wrong| self.check(Invariant::D15, at, wrong));
    }
}

fn of(seen: &[(TimePoint, DeviceView)], point: TimePoint) -> Option<&DeviceView> {
    seen.iter().rev().find(|(at, _)| *at == point).map(|(_, view)| view)
}

/// Both mappings, if there was one at first.
fn mappings<'v>(
    first: &'v DeviceView,
    view: &'v DeviceView,
) -> Option<(&'v Mapping, Result<&'v Mapping, &'v NoMapping>)> {
    Some((first.mapping.as_ref().ok()?, view.mapping.as_ref()))
}

fn translations_changed(first: &DeviceView, view: &DeviceView) -> Option<String> {
    let (then, now) = mappings(first, view)?;
    let rid = first.rid;
    match now {
        Err(error) => Some(format!("{rid} had {} pages mapped, now {error}", then.pages)),
        Ok(now) => (now.translations != then.translations).then(|| {
            let (before, after) = (then.translations, now.translations);
            format!("{rid}: {} pages with digest {before:#x} are {} with {after:#x}", then.pages, now.pages)
        }),
    }
}

fn tables_changed(first: &DeviceView, view: &DeviceView) -> Option<String> {
    let (then, now) = mappings(first, view)?;
    let now = now.ok()?;
    let rid = first.rid;
    if then.tables.len() != now.tables.len() {
        return Some(format!("{rid}: {} table pages are {}", then.tables.len(), now.tables.len()));
    }
    let (before, after) = then.tables.iter().zip(&now.tables).find(|(before, after)| before != after)?;
    Some(format!(
        "{rid}: table page {} with digest {:#x} is {} with {:#x}",
        before.0, before.1, after.0, after.1
    ))
}

fn identity_changed(first: &DeviceView, view: &DeviceView) -> Option<String> {
    let domain = |view: &DeviceView| view.mapping.as_ref().ok().map(|mapping| mapping.domain_id);
    let moved = |then: Option<u64>, now: Option<u64>| now.is_some() && then.is_some() && then != now;
    let (then, now) = (first, view);
    if now.bdf != then.bdf {
        return Some(format!("the device at {:?} is at {:?}", then.bdf, now.bdf));
    }
    if now.rid != then.rid {
        return Some(format!("requester {} is {}", then.rid, now.rid));
    }
    if domain(then).is_some() && domain(now).is_some() && domain(now) != domain(then) {
        return Some(format!("{}: domain id {:?} is {:?}", then.rid, domain(then), domain(now)));
    }
    if moved(then.tokens.luo, now.tokens.luo) || moved(then.tokens.hwpt, now.tokens.hwpt) {
        return Some(format!("{}: tokens {:x?} are {:x?}", then.rid, then.tokens, now.tokens));
    }
    None
}

/// `master`: whether its requests passed when it was preserved. What could not go on before need not go on now.
fn dma(mode: Mode, master: bool, then: &DeviceView, now: &DeviceView) -> Option<String> {
    let did = now.totals.since(&then.totals);
    let rid = then.rid;
    match mode {
        Mode::Continues if did.faults > 0 || now.refused > then.refused => {
            let refused = now.refused.saturating_sub(then.refused);
            Some(format!("{rid} met {} faults, {refused} of them recorded by its IOMMU", did.faults))
        }
        Mode::Continues if !master => None,
        Mode::Continues if did.drops > 0 => {
            Some(format!("{} steps of {rid} were stopped because bus mastering was off", did.drops))
        }
        // At the end of a loop's body a step goes back to its start and does nothing else.
        Mode::Continues
            if then.active
                && now.now > then.now + 1
                && (did.ops, did.bytes_written, did.bytes_read) == (0, 0, 0) =>
        {
            Some(format!("{rid} has work, and did nothing in {} ticks", now.now - then.now))
        }
        Mode::ResetInFreeze if did.ops > 0 || did.bytes_written > 0 => Some(format!(
            "{rid} was reset, and completed {} operations and wrote {} bytes",
            did.ops, did.bytes_written
        )),
        _ => None,
    }
}

fn reset(mode: Mode, at: TimePoint, first: &DeviceView, now: &DeviceView) -> Option<String> {
    let resets = now.resets.wrapping_sub(first.resets);
    let due = u32::from(mode == Mode::ResetInFreeze && at >= TimePoint::T2);
    (resets != due && at > TimePoint::T1)
        .then(|| format!("{} was reset {resets} times since T1, and {due} are due", first.rid))
}

/// What only grows without a reset.
fn went_back(last: &DeviceView, now: &DeviceView) -> Option<String> {
    if now.resets != last.resets {
        return None;
    }
    let tail = now.tail.wrapping_sub(last.tail);
    let back = now.seq < last.seq || now.uptime < last.uptime || tail > u32::MAX / 2;
    back.then(|| {
        let (rid, before, after) = (last.rid, last.seq, now.seq);
        format!(
            "{rid} went back: sequence {before} to {after}, position {} to {}, uptime {} to {}",
            last.tail, now.tail, last.uptime, now.uptime
        )
    })
}

fn delivered(frozen: &DeviceView, now: &DeviceView) -> Option<String> {
    let delivered = now.totals.irqs_delivered - frozen.totals.irqs_delivered;
    (delivered > 0).then(|| format!("{} interrupts of {} were delivered after freeze", delivered, now.rid))
}

fn unaccounted(now: &DeviceView) -> Option<String> {
    // A reset takes a pending interrupt with it.
    let totals = now.totals;
    let known =
        totals.irqs_delivered + totals.irqs_coalesced + totals.irqs_reset + u64::from(now.irq_pending);
    (known != totals.irqs_raised).then(|| {
        format!(
            "{} raised {} interrupts: {} were delivered, {} are covered by others, {} are pending",
            now.rid,
            totals.irqs_raised,
            totals.irqs_delivered,
            totals.irqs_coalesced,
            u8::from(now.irq_pending)
        )
    })
}

fn bad_stamp(driver: &Driver, bad: &BadStamp) -> String {
    let seq = bad.seq.unwrap_or_default();
    let found = match bad.found {
        None => String::from("nothing could be read"),
        Some(stamp) => format!("found sequence {} and checksum {:#x}", stamp.seq.get(), stamp.checksum.get()),
    };
    format!(
        "{}: operation {seq} with cookie {:#x} is completed, and its stamp at {:#x} is not there: {found}",
        driver.bdf, bad.cookie, bad.iova
    )
}
