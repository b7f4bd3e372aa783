//! All of a machine that is neither memory nor a kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use luosim_physmem::{Pfn, PhysMem};

use crate::Bdf;
use crate::digest::Digest;
use crate::dma::{Bus, PeerWrite, Window};
use crate::iommu::{FaultReason, IommuUnit, PageTable, Run};
use crate::pci::config::{Effects, bits, command, reg};
use crate::pci::{ConfigSpace, FunctionInfo, Layout, LayoutError, Topology};
use crate::simdma::{Defect, InterruptMode, SimDma, Totals};
use crate::timeline::{DeviceSpan, Phase, Span, Timeline};

/// How an interrupt reached the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterruptKind {
    /// A message.
    Msix,
    /// A line that went up.
    Intx,
}

/// What an account began with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    phase: Phase,
    epoch: u32,
    from: u64,
    totals: Vec<Totals>,
    refused: u64,
}

/// The hardware: functions, IOMMU units, interrupts on their way, the clock. It outlives every kernel.
///
/// Cloning it is a snapshot; snapshots compare with `==`, or by [`Self::digest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    layout: Layout,
    topology: Topology,
    units: Vec<IommuUnit>,
    now: u64,
    epoch: u32,
    interrupts: BTreeMap<(Bdf, InterruptKind), u64>,
    watch: Option<BTreeMap<Pfn, Bdf>>,
    mark: Mark,
    past: Vec<Span>,
    phase_ticks: u32,
}

/// Ticks of each phase of a kexec, if nobody says so.
const PHASE_TICKS: u32 = 256;

/// A device that takes part in a tick.
#[derive(Clone, Copy, Debug)]
struct Runner {
    index: usize,
    master: bool,
    mode: InterruptMode,
}

impl Hardware {
    /// The hardware of a plan, after power on and firmware.
    ///
    /// # Errors
    /// [`LayoutError`]: the plan cannot be built.
    pub fn new(layout: Layout) -> Result<Self, LayoutError> {
        layout.check()?;
        let topology = Topology::new(&layout);
        let units = vec![IommuUnit::new(); layout.units()];
        let totals = vec![Totals::default(); topology.0.len()];
        let mark = Mark { phase: Phase::Run, epoch: 0, from: 0, totals, refused: 0 };
        let (interrupts, watch, past) = (BTreeMap::new(), None, Vec::new());
        let phase_ticks = PHASE_TICKS;
        Ok(Self { layout, topology, units, now: 0, epoch: 0, interrupts, watch, mark, past, phase_ticks })
    }

    /// Power off and on again. The clock begins anew; how long a phase takes is as it was.
    pub fn cold_reset(&mut self) {
        let fresh = Self::new(self.layout.clone()).expect("the plan was built before");
        *self = Self { phase_ticks: self.phase_ticks, ..fresh };
    }

    /// Ticks since power on.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    // Configuration space.

    /// Reads configuration space, 1, 2 or 4 bytes at a multiple of as many; ones where nothing answers.
    #[must_use]
    pub fn config_read(&self, bdf: Bdf, offset: u16, width: u8) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(width.clamp(1, 4)));
        self.topology
            .route(bdf)
            .map_or(ones, |index| self.topology.0[index].config.read(offset, width) & ones)
    }

    /// Writes configuration space, 1, 2 or 4 bytes at a multiple of as many. The function hears its bus number by it.
    pub fn config_write(&mut self, bdf: Bdf, offset: u16, width: u8, value: u32) {
        let Some(index) = self.topology.route(bdf) else { return };
        let function = &mut self.topology.0[index];
        function.bus = bdf.bus();
        let Effects { reset, interrupts } = function.config.write(offset, width, value);
        if reset {
            self.reset_at(index);
        }
        if interrupts {
            // Bridges decide over the messages of what is below them.
            (0..self.topology.0.len()).for_each(|index| self.settle(index));
        }
    }

    fn reset_at(&mut self, index: usize) {
        let now = self.now;
        let function = &mut self.topology.0[index];
        function.config.reset();
        if let Some(device) = &mut function.device {
            device.reset(now);
        }
    }

    /// Resets a function and puts Command, BAR0, MSI-X control and access control back, as a kernel's reset of a
    /// function does; false if nothing answers or it cannot be reset.
    pub fn try_reset_function(&mut self, bdf: Bdf) -> bool {
        let able = self.config_read(bdf, reg::DEVICE_CAPABILITIES, 4);
        if able == u32::MAX || able & bits::FUNCTION_RESET == 0 {
            return false;
        }
        let saved = [
            (reg::BAR0, 4),
            (reg::BAR0 + 4, 4),
            (reg::ACS_CONTROL, 2),
            (reg::MSIX_CONTROL, 2),
            (reg::INTERRUPT_LINE, 1),
            (reg::COMMAND, 2),
        ];
        let saved = saved.map(|(offset, width)| (offset, width, self.config_read(bdf, offset, width)));
        self.config_write(bdf, reg::DEVICE_CONTROL, 2, u32::from(bits::INITIATE_RESET));
        for (offset, width, value) in saved {
            self.config_write(bdf, offset, width, value);
        }
        true
    }

    /// Sets and clears bits of the Command register.
    pub fn change_command(&mut self, bdf: Bdf, set: u16, clear: u16) {
        let now = self.config_read(bdf, reg::COMMAND, 2);
        self.config_write(bdf, reg::COMMAND, 2, (now | u32::from(set)) & !u32::from(clear));
    }

    /// Every function, in the order of the layout.
    pub fn functions(&self) -> impl Iterator<Item = FunctionInfo> + '_ {
        (0..self.topology.0.len()).map(|index| self.topology.info(index))
    }

    /// The function at a place of [`Self::functions`].
    #[must_use]
    pub fn function_at(&self, index: usize) -> Option<FunctionInfo> {
        (index < self.topology.0.len()).then(|| self.topology.info(index))
    }

    /// The function at an address.
    #[must_use]
    pub fn function(&self, bdf: Bdf) -> Option<FunctionInfo> {
        self.topology.route(bdf).map(|index| self.topology.info(index))
    }

    /// The function and the bridges above it, upwards; empty if nothing answers at the address.
    #[must_use]
    pub fn path(&self, bdf: Bdf) -> Vec<Bdf> {
        let Some(index) = self.topology.route(bdf) else { return Vec::new() };
        self.topology.path(index).filter_map(|at| self.topology.address(at)).collect()
    }

    /// A look at the whole configuration space of a function.
    #[must_use]
    pub fn config(&self, bdf: Bdf) -> Option<&ConfigSpace> {
        self.topology.route(bdf).map(|index| &self.topology.0[index].config)
    }

    /// Whether requests of the function reach memory: it and every bridge above it is there, in D0, and has Bus Master.
    #[must_use]
    pub fn is_master(&self, bdf: Bdf) -> bool {
        self.topology.route(bdf).is_some_and(|index| self.topology.master(index))
    }

    /// Pulls a function out while it runs, and what is below it.
    pub fn surprise_remove(&mut self, bdf: Bdf) {
        let Some(index) = self.topology.route(bdf) else { return };
        let below = |at: &usize| self.topology.path(*at).any(|on_the_way| on_the_way == index);
        let gone: Vec<usize> = (0..self.topology.0.len()).filter(below).collect();
        gone.into_iter().for_each(|at| self.topology.0[at].present = false);
    }

    // Registers of devices and units.

    /// Reads a device's register, 4 or 8 bytes; ones where nothing answers: the function is gone or in D3, or memory
    /// access is off in it or in a bridge above it.
    pub fn mmio_read(&mut self, bdf: Bdf, offset: u16, width: u8) -> u64 {
        let (now, epoch) = (self.now, self.epoch);
        let ones = if width == 4 { u64::from(u32::MAX) } else { u64::MAX };
        let Some(index) = self.topology.route(bdf).filter(|index| self.topology.memory(*index)) else {
            return ones;
        };
        let device = self.topology.0[index].device.as_mut();
        device.map_or(ones, |device| device.read(offset, width, now, epoch))
    }

    /// Writes a device's register, 4 or 8 bytes; lost where [`Self::mmio_read`] reads ones.
    pub fn mmio_write(&mut self, bdf: Bdf, offset: u16, width: u8, value: u64) {
        if let Some(index) = self.topology.route(bdf) {
            self.write_register(index, offset, width, value);
        }
    }

    fn write_register(&mut self, index: usize, offset: u16, width: u8, value: u64) {
        let (now, epoch) = (self.now, self.epoch);
        if !self.topology.memory(index) {
            return;
        }
        if let Some(device) = &mut self.topology.0[index].device
            && device.write(offset, width, value, epoch)
        {
            device.reset(now);
        }
        self.settle(index);
    }

    /// A look at a device that nobody notices; `None` if nothing answers at the address, or it is a bridge.
    #[must_use]
    pub fn device(&self, bdf: Bdf) -> Option<&SimDma> {
        self.topology.route(bdf).and_then(|index| self.topology.0[index].device.as_deref())
    }

    /// The device at a place of [`Self::functions`]; `None` for a bridge, or if there is none.
    #[must_use]
    pub fn device_at(&self, index: usize) -> Option<&SimDma> {
        self.topology.0.get(index).and_then(|function| function.device.as_deref())
    }

    /// The place of a function in [`Self::functions`], which stays when its address changes.
    #[must_use]
    pub fn index_of(&self, bdf: Bdf) -> Option<usize> {
        self.topology.route(bdf)
    }

    /// Makes a device do something wrong, or nothing any more.
    pub fn set_defect(&mut self, bdf: Bdf, defect: Option<Defect>) {
        if let Some(index) = self.topology.route(bdf)
            && let Some(device) = &mut self.topology.0[index].device
        {
            device.set_defect(defect);
        }
    }

    /// IOMMU units, 1 or 2.
    #[must_use]
    pub fn units(&self) -> &[IommuUnit] {
        &self.units
    }

    /// A unit; functions name theirs ([`FunctionInfo::unit`]).
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn unit(&mut self, unit: usize) -> &mut IommuUnit {
        &mut self.units[unit]
    }

    /// The page table that the requests of a function go through now.
    ///
    /// # Errors
    /// [`FaultReason`] that its requests would meet. [`FaultReason::RootAbsent`] if its unit does not translate.
    pub fn page_table(&self, mem: &PhysMem, info: &FunctionInfo) -> Result<(PageTable, u32), FaultReason> {
        let unit = &self.units[info.unit];
        if !unit.is_enabled() {
            return Err(FaultReason::RootAbsent);
        }
        let context = unit.root().context(mem, info.rid)?;
        Ok((PageTable::of(context), context.domain_id))
    }

    // Time.

    /// A kernel starts: registers note its number, from 0, at each access, and interrupts on their way to the one before
    /// are lost.
    pub fn kernel_starts(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.interrupts.clear();
    }

    /// Lets `n` ticks pass: each device makes a step in each.
    pub fn tick(&mut self, mem: &mut PhysMem, n: u64) {
        let end = self.now.saturating_add(n);
        while self.now < end {
            let runners = self.runners();
            if runners.is_empty() {
                self.now = end;
                return;
            }
            self.run(mem, &runners, end);
        }
    }

    /// Lets ticks pass until no device has anything to do, at most `limit`; how many passed.
    pub fn settle_dma(&mut self, mem: &mut PhysMem, limit: u64) -> u64 {
        let (start, end) = (self.now, self.now.saturating_add(limit));
        while self.now < end {
            let runners = self.runners();
            if runners.is_empty() {
                break;
            }
            self.run(mem, &runners, end);
        }
        self.now - start
    }

    fn runners(&self) -> Vec<Runner> {
        let active = |index: &usize| {
            let device = self.topology.0[*index].device.as_ref();
            device.is_some_and(|device| device.is_active()) && self.topology.powered(*index)
        };
        let runner = |index| {
            let mode = self.topology.interrupt_mode(index);
            Runner { index, master: mode.master, mode }
        };
        (0..self.topology.0.len()).filter(active).map(runner).collect()
    }

    fn windows(&self) -> Vec<Window> {
        let all = self.topology.0.iter().enumerate();
        let answers =
            all.filter(|(index, function)| function.device.is_some() && self.topology.memory(*index));
        answers.map(|(function, at)| Window { base: at.config.bar0(), function }).collect()
    }

    /// Rounds of steps until `end`, until nobody has anything to do, or until a device wrote another's registers.
    fn run(&mut self, mem: &mut PhysMem, runners: &[Runner], end: u64) {
        let windows = self.windows();
        let mut peer_writes: Vec<PeerWrite> = Vec::new();
        let mut run = Run::new();
        while self.now < end && peer_writes.is_empty() {
            let mut active = false;
            for runner in runners {
                active |= self.step(mem, *runner, (&windows, &mut run), &mut peer_writes);
            }
            if !active {
                return;
            }
            self.now += 1;
        }
        for write in peer_writes {
            self.write_register(write.function, write.offset, 4, u64::from(write.value));
        }
    }

    /// A step of a device; false if it had nothing to do.
    fn step(
        &mut self,
        mem: &mut PhysMem,
        runner: Runner,
        (windows, run): (&[Window], &mut Run),
        peer_writes: &mut Vec<PeerWrite>,
    ) -> bool {
        let function = &mut self.topology.0[runner.index];
        let rid = function.rid();
        let Some(device) = function.device.as_mut().filter(|device| device.is_active()) else { return false };
        let unit = &mut self.units[function.unit];
        let watch = self.watch.as_mut();
        let (master, astray) = (runner.master, device.defect() == Some(Defect::Astray));
        let who = runner.index;
        let mut bus =
            Bus { mem, unit, run, who, windows, peer_writes, watch, rid, master, aborted: false, astray };
        let sent = device.step(&mut bus, runner.mode);
        let (aborted, line) = (bus.aborted, device.line(runner.mode));
        if aborted {
            function.config.note_abort();
        }
        if sent {
            *self.interrupts.entry((rid, InterruptKind::Msix)).or_default() += 1;
        }
        if line != function.line {
            self.settle(runner.index);
        }
        true
    }

    /// After anything that interrupts depend on: sends the message that may go now, and sets the line.
    fn settle(&mut self, index: usize) {
        let mode = self.topology.interrupt_mode(index);
        let function = &mut self.topology.0[index];
        let rid = function.rid();
        let Some(device) = &mut function.device else { return };
        if device.deliver(mode) {
            *self.interrupts.entry((rid, InterruptKind::Msix)).or_default() += 1;
        }
        let asserted = device.line(mode);
        function.config.set_interrupt_status(asserted);
        let disabled = function.config.u16(reg::COMMAND) & command::INTX_DISABLE != 0;
        let line = asserted && !disabled;
        if line && !function.line {
            *self.interrupts.entry((rid, InterruptKind::Intx)).or_default() += 1;
        }
        function.line = line;
    }

    /// Interrupts that reached the processor since the last call, by requester.
    pub fn take_interrupts(&mut self) -> BTreeMap<(Bdf, InterruptKind), u64> {
        std::mem::take(&mut self.interrupts)
    }

    // Looks from outside.

    /// Begins to note which frames devices write, or stops.
    pub fn watch_writes(&mut self, on: bool) {
        self.watch = on.then(BTreeMap::new);
    }

    /// Frames that devices wrote since they are watched, and who wrote them last; `None` if nobody watches.
    #[must_use]
    pub fn writes(&self) -> Option<&BTreeMap<Pfn, Bdf>> {
        self.watch.as_ref()
    }

    /// Frames that devices wrote since the last call, and who wrote them last; empty if nobody watches.
    pub fn take_writes(&mut self) -> BTreeMap<Pfn, Bdf> {
        self.watch.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn totals(&self) -> Vec<Totals> {
        let of = |function: &crate::pci::Function| function.device.as_ref().map(|device| device.totals());
        self.topology.0.iter().map(|function| of(function).unwrap_or_default()).collect()
    }

    fn refused(&self) -> u64 {
        self.units.iter().map(|unit| u64::from(unit.fault_count())).sum()
    }

    fn span(&self) -> Span {
        let mark = &self.mark;
        let devices = self.topology.0.iter().zip(self.totals().into_iter().zip(&mark.totals));
        let devices = devices.filter(|(function, _)| function.device.is_some());
        let devices = devices
            .map(|(function, (now, then))| DeviceSpan { rid: function.rid(), totals: now.since(then) })
            .collect();
        let refused = self.refused() - mark.refused;
        Span { phase: mark.phase, epoch: mark.epoch, from: mark.from, to: self.now, devices, refused }
    }

    /// A phase begins: what happens from now on is counted to it. Entering the phase it is in does nothing.
    pub fn enter(&mut self, phase: Phase) {
        if phase == self.mark.phase && self.epoch == self.mark.epoch {
            return;
        }
        self.past.push(self.span());
        self.mark =
            Mark { phase, epoch: self.epoch, from: self.now, totals: self.totals(), refused: self.refused() };
    }

    /// How many ticks each phase of a kexec takes, 256 at first: with none, a kexec takes devices no time.
    pub fn set_phase_ticks(&mut self, ticks: u32) {
        self.phase_ticks = ticks;
    }

    /// The time of a phase of a kexec passes.
    pub fn pass_phase(&mut self, mem: &mut PhysMem) {
        self.tick(mem, u64::from(self.phase_ticks));
    }

    /// The phases so far, the present one included.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        Timeline { spans: self.past.iter().cloned().chain([self.span()]).collect() }
    }

    /// A number that differs when any state differs, a collision aside.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        write!(digest, "{self:?}").expect("a digest takes everything");
        digest.get()
    }
}
