//! Booting a kernel on a memory, and the jump from one kernel to the next.

use luosim_abi::profile::Profile;
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::release::{Release, ReleaseId};
use luosim_abi::{Errno, KResult};
use luosim_devices::Devices;
use luosim_files::Files;
use luosim_files::memfd::MemfdHandler;
use luosim_files::test_file::TestHandler;
use luosim_hardware::timeline::Phase;
use luosim_hardware::verify::TimePoint;
use luosim_kho::log::KernelLog;
use luosim_kho::tracker::Tally;
use luosim_kho::{BootParams, Handover, Kho, KhoConfig};
use luosim_luo::test_flbs::TestFlbs;
use luosim_luo::{Carried, FileHandler, Luo, LuoConfig, Memory};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Pfn, PhysMem, Ram};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::cmdline::Parameters;
use crate::core::Core;
use crate::faults::Faults;
use crate::image::ImageKind;
use crate::module::{Drivers, Modules};
use crate::posted::Control;
use crate::process::Pid;
use crate::{Kernel, Machine, State, World, devices};

/// How a kernel is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootOptions {
    /// The command line.
    pub cmdline: String,
    /// Quirks switched on besides the release's own.
    pub quirks_on: Vec<Quirk>,
    /// Quirks of the release switched off.
    pub quirks_off: Vec<Quirk>,
    /// Built with the KHO debug option.
    pub kho_debug: bool,
    /// Which file types it has beside the release's; a release that is not [`Release::takes_profiles`] says so in its log and
    /// has its own alone.
    pub profile: Profile,
}

/// The command line of a kernel with live update on.
const DEFAULT_CMDLINE: &str = "kho=on liveupdate=on";

impl Default for BootOptions {
    fn default() -> Self {
        Self {
            cmdline: DEFAULT_CMDLINE.to_owned(),
            quirks_on: Vec::new(),
            quirks_off: Vec::new(),
            kho_debug: true,
            profile: Profile::Mainline,
        }
    }
}

impl BootOptions {
    fn quirks(&self, release: &Release) -> Quirks {
        let on = self.quirks_on.iter().fold(release.quirks, |set, quirk| set.with(*quirk));
        self.quirks_off.iter().fold(on, |set, quirk| set.without(*quirk))
    }
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The previous kernel's data was taken over.
    Handover {
        /// Blocks held.
        blocks: u64,
        /// Pages in them.
        pages: u64,
    },
    /// Nothing was taken over.
    Cold {
        /// Why: no handover, or who refused it.
        reason: String,
    },
    /// The kernel runs without `/dev/liveupdate`.
    LuoOff {
        /// Why.
        reason: String,
    },
    /// No other kernel stayed: the image that was jumped to came back, and the same kernel goes on.
    Returned,
    /// The kernel stopped.
    Panicked {
        /// The panic text.
        reason: String,
    },
}

impl Outcome {
    /// One word: `handover`, `cold`, `luo-off`, `returned`, `panic`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Handover { .. } => "handover",
            Self::Cold { .. } => "cold",
            Self::LuoOff { .. } => "luo-off",
            Self::Returned => "returned",
            Self::Panicked { .. } => "panic",
        }
    }

    /// Why, for all but a handover.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Handover { .. } | Self::Returned => None,
            Self::Cold { reason } | Self::LuoOff { reason } | Self::Panicked { reason } => Some(reason),
        }
    }
}

/// What crossed at a kexec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossing {
    /// Sessions and files serialised.
    pub carried: Carried,
    /// Blocks and pages preserved.
    pub tally: Tally,
    /// Whether the image was loaded by a call that passes the handover on.
    pub passed: bool,
}

/// A boot, as seen from outside.
#[derive(Clone, Debug)]
pub struct BootReport {
    /// The release that booted.
    pub release: &'static Release,
    /// Its number in the run, from 1.
    pub generation: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What it logged while booting.
    pub log: KernelLog,
    /// After a kexec: what crossed.
    pub crossing: Option<Crossing>,
    /// After a kexec: the two address/size pairs it was given.
    pub params: Option<BootParams>,
}

/// What is left of a kernel that panicked while it booted: the world, its log, and why.
type Panicked = (World, KernelLog, String);
/// A kernel that booted, or what is left of it.
type Booted = Result<Kernel, Panicked>;
/// How the line of a panic begins.
const PANIC: &str = "Kernel panic - not syncing: ";

/// The handlers of a kernel, each with the test FLBs if they are built in.
fn register_handlers(luo: &mut Luo<Core>, core: &mut Core, memfd: Rc<MemfdHandler>, parameters: &Parameters) {
    let flbs = TestFlbs::new();
    let mut handlers: Vec<Rc<dyn FileHandler<Core>>> = vec![memfd];
    if parameters.test_files {
        handlers.push(Rc::new(TestHandler));
    }
    for handler in handlers {
        let name = handler.compatible();
        luo.register_handler(handler).expect("every handler has a name of its own");
        if parameters.test_flbs
            && let Err(refusal) = flbs.bind(luo, core, name)
        {
            core.log.warn(format!("liveupdate test: {}", refusal.reason));
        }
    }
}

/// Takes free frames away until so many are left: a kernel short of memory.
fn leave_free(ram: &mut Ram, left: u64) {
    let mut order = Order::MAX_BUDDY.raw();
    loop {
        let step = Order::new(order).expect("a small order");
        while ram.frames.stats().free >= left + step.pages()
            && ram.frames.alloc(step, FrameUse::KernelImage).is_some()
        {}
        let Some(smaller) = order.checked_sub(1) else { return };
        order = smaller;
    }
}

/// Quirk `scratch-lent`: every second frame of the end of scratch is free to be allocated, single frames as files want them.
fn lend_scratch(core: &mut Core) {
    let Some(area) = core.kho.scratch().last() else { return };
    let end = (area.addr.raw() + area.size) / PAGE_SIZE;
    for frame in (end - area.size / PAGE_SIZE..end).rev().step_by(2).take(8) {
        core.ram.frames.unreserve(Pfn::new(frame), 1).expect("scratch is reserved");
    }
}

/// The profile of a kernel: work that is not released has one release as its base.
fn profile_for(release: &Release, wanted: Profile, log: &mut KernelLog) -> Profile {
    if wanted == Profile::Mainline || release.takes_profiles() {
        return wanted;
    }
    log.warn(format!(
        "luosim: profile {} is of other releases than {}: not used",
        wanted.name(),
        release.name
    ));
    Profile::Mainline
}

/// What a kernel is built with and told, before it looks at memory.
struct Setup<'a> {
    release: &'static Release,
    options: &'a BootOptions,
    quirks: Quirks,
    profile: Profile,
    parameters: Parameters,
}

impl<'a> Setup<'a> {
    fn read(release: &'static Release, options: &'a BootOptions, log: &mut KernelLog) -> Self {
        let quirks = options.quirks(release);
        log.info(format!("Linux version {} (luosim)", release.point));
        log.info(format!("Command line: {}", options.cmdline));
        let profile = profile_for(release, options.profile, log);
        let mut parameters = Parameters::parse(&options.cmdline, release, log);
        // The kernel's test objects came with the first real ones.
        parameters.test_flbs &= release.flb;
        if parameters.kho && parameters.crash_kernel && !quirks.has(Quirk::CrashKernelKeepsKho) {
            log.info("KHO: disabled in the kdump kernel");
            parameters.kho = false;
        }
        Self { release, options, quirks, profile, parameters }
    }

    /// Memory, KHO and the orchestrator.
    fn early(
        &self,
        world: World,
        params: Option<BootParams>,
        mut log: KernelLog,
    ) -> Result<(Luo<Core>, Core), Panicked> {
        let Self { release, options, quirks, profile, parameters } = self;
        let World { memory, mut hardware } = world;
        let mut ram = Ram::new(memory);
        let config = KhoConfig {
            release,
            enabled: parameters.kho,
            scratch: parameters.scratch,
            debug: options.kho_debug && !quirks.has(Quirk::ScratchLent),
        };
        let mut kho = Kho::boot(&mut ram, &mut log, config, params);
        devices::pass(hardware.as_deref_mut(), &mut ram.mem, Phase::EarlyBoot);
        kho.reserve_mem(&mut ram, &mut log, &parameters.reserve);
        ram.let_go_of_lost_files();
        let config = LuoConfig { release, quirks: *quirks, requested: parameters.liveupdate };
        let luo = match Luo::boot(&mut Memory { ram: &mut ram, kho: &mut kho, log: &mut log }, config) {
            Ok(luo) => luo,
            Err(panic) => {
                log.err(format!("{PANIC}{panic}"));
                let world = World { memory: ram.into_mem(), hardware };
                return Err((world, log, format!("{panic} ({})", panic.refusal.reason)));
            }
        };
        if let Err(refusal) = kho.carry_reservations(&mut ram) {
            log.err(format!("reserve_mem: nothing is carried: {}", refusal.reason));
        }
        if let Some(free) = parameters.free {
            leave_free(&mut ram, free);
        }
        let core = Core {
            ram,
            kho,
            log,
            files: Files::default(),
            released: Vec::new(),
            watched: true,
            events: Vec::new(),
            devices: Devices::new(*profile, *quirks),
            hardware,
            intrusion: None,
            assumed: Vec::new(),
        };
        Ok((luo, core))
    }

    /// Handlers, devices, drivers, and the orchestrator of a posted design.
    ///
    /// # Errors
    /// Why the kernel panics.
    fn late(
        &self,
        luo: &mut Luo<Core>,
        core: &mut Core,
        modules: &Modules,
    ) -> Result<(Drivers, Option<Control>), String> {
        let Self { release, quirks, parameters, .. } = self;
        if let Some(version) = release.memfd.filter(|_| luo.enabled()) {
            register_handlers(luo, core, Rc::new(MemfdHandler::new(version, *quirks)), parameters);
        }
        devices::bring_up(luo, core, parameters.vfio)?;
        let drivers = modules.init(luo, core);
        if quirks.has(Quirk::ScratchLent) {
            lend_scratch(core);
        }
        let control = release.posted.map(|design| Control::boot(core, design, *quirks, parameters));
        Ok((drivers, control.transpose()?))
    }
}

impl Kernel {
    /// Builds a kernel from a memory and the two pairs: nothing else crosses.
    fn boot(
        world: World,
        params: Option<BootParams>,
        release: &'static Release,
        options: &BootOptions,
        modules: &Modules,
    ) -> Booted {
        let mut log = KernelLog::default();
        let setup = Setup::read(release, options, &mut log);
        let (mut luo, mut core) = setup.early(world, params, log)?;
        let (drivers, control) = match setup.late(&mut luo, &mut core, modules) {
            Ok(made) => made,
            Err(why) => {
                core.log.err(format!("{PANIC}{why}"));
                let world = World { memory: core.ram.into_mem(), hardware: core.hardware };
                return Err((world, core.log, why));
            }
        };
        Ok(Self {
            release,
            profile: setup.profile,
            quirks: setup.quirks,
            cmdline: options.cmdline.clone(),
            test_files: setup.parameters.test_files,
            core,
            luo,
            control,
            processes: BTreeMap::new(),
            image: None,
            crash_image: None,
            tmpfs: BTreeMap::new(),
            drivers,
        })
    }

    fn comes_back(&self) -> bool {
        self.image.as_ref().is_some_and(|image| image.kind == ImageKind::PreserveContext)
    }

    fn why_off(&self) -> &'static str {
        if self.release.luo.is_none() && self.control.is_none() {
            "this release has no live update orchestrator"
        } else if self.core.kho.enabled() {
            "liveupdate is not on"
        } else {
            "KHO is off"
        }
    }

    fn outcome(&self) -> Outcome {
        if !self.has_device() {
            return Outcome::LuoOff { reason: String::from(self.why_off()) };
        }
        match self.core.kho.handover() {
            Handover::Accepted { blocks, pages } => Outcome::Handover { blocks: *blocks, pages: *pages },
            Handover::Refused { reason } => Outcome::Cold { reason: reason.clone() },
            Handover::None => Outcome::Cold { reason: String::from("there is no handover") },
        }
    }
}

impl Machine {
    pub(crate) fn boot(
        &mut self,
        world: World,
        params: Option<BootParams>,
        release: ReleaseId,
        options: &BootOptions,
    ) -> BootReport {
        let mut world = world;
        if let Some(hardware) = &mut world.hardware {
            hardware.kernel_starts(self.generation);
            devices::plant(hardware, options);
        }
        self.generation += 1;
        self.next_pid = 1;
        self.faults = Faults::after_boot(&self.faults);
        let release = release.release();
        let (state, outcome, log) = match Kernel::boot(world, params, release, options, &self.modules) {
            Ok(mut kernel) => {
                kernel.core.watched = self.ledger.is_some();
                let (outcome, log) = (kernel.outcome(), kernel.core.log.clone());
                (State::Running(Box::new(kernel)), outcome, log)
            }
            Err((world, log, reason)) => (State::Down(world), Outcome::Panicked { reason }, log),
        };
        self.state = state;
        if params.is_none() {
            self.enter(Phase::Run);
        }
        self.collect_assumed();
        self.tell_ledger(&outcome);
        BootReport { release, generation: self.generation, outcome, log, crossing: None, params }
    }

    fn tell_ledger(&mut self, outcome: &Outcome) {
        let Some(ledger) = &mut self.ledger else { return };
        match outcome {
            Outcome::Handover { .. } | Outcome::Returned => {}
            Outcome::Cold { reason } => ledger.handover_failed(reason),
            Outcome::LuoOff { reason } => {
                ledger.handover_failed(&format!("the new kernel runs without live update: {reason}"));
            }
            Outcome::Panicked { reason } => {
                ledger.handover_failed(&format!("the new kernel panicked: {reason}"));
            }
        }
    }

    /// Powers on with the memory as it is and boots the release on a handover that lies in it.
    pub fn boot_on_handover(
        &mut self,
        params: BootParams,
        release: ReleaseId,
        options: &BootOptions,
    ) -> BootReport {
        let world = self.take_world();
        self.lose("the machine was powered on with another memory");
        self.boot(world, Some(params), release, options)
    }

    /// `reboot(LINUX_REBOOT_CMD_KEXEC)`. On success the old kernel and all processes are gone; with an image that
    /// preserves the context the call returns to them, with [`Outcome::Returned`].
    ///
    /// # Errors
    /// EPERM, EINVAL without an image, or the errno of the serialisation: the system goes on as before.
    pub fn reboot_kexec(&mut self, pid: Pid) -> KResult<BootReport> {
        self.kexec_with(pid, |_, _| {})
    }

    /// The live update steps of a reboot.
    fn serialize(&mut self, pid: Pid) -> KResult<Carried> {
        let kernel = self.running()?;
        let carried = match &mut kernel.control {
            Some(control) => control.luo.reboot(&mut kernel.core),
            None => kernel.luo.reboot(&mut kernel.core),
        };
        self.settle(pid);
        carried
    }

    /// The jump to an image that preserves the context. It stays loaded. Where the release runs the live update
    /// steps for it, nothing undoes them: what was frozen for the next kernel stays so.
    fn jump_and_return(&mut self, pid: Pid) -> KResult<BootReport> {
        let kernel = self.running()?;
        let log_before = kernel.core.log.lines.len();
        if kernel.quirks.has(Quirk::PreserveContextRunsLuo) {
            self.serialize(pid)?;
        }
        self.alloc_again();
        let generation = self.generation;
        let kernel = self.running()?;
        let log = KernelLog { lines: kernel.core.log.lines[log_before..].to_vec() };
        let (release, outcome) = (kernel.release, Outcome::Returned);
        Ok(BootReport { release, generation, outcome, log, crossing: None, params: None })
    }

    /// [`Self::reboot_kexec`], showing the memory and the two pairs to `look` between the kernels.
    ///
    /// # Errors
    /// As [`Self::reboot_kexec`].
    pub fn kexec_with(
        &mut self,
        pid: Pid,
        look: impl FnOnce(&PhysMem, Option<BootParams>),
    ) -> KResult<BootReport> {
        self.check_reboot(pid)?;
        if self.running()?.comes_back() {
            return self.jump_and_return(pid);
        }
        let disturbed = self.disturb()?;
        self.enter(Phase::Freeze);
        let carried = self.serialize(pid);
        let died = disturbed.panics && carried.as_ref().is_err_and(|refusal| refusal.errno == Errno::ESRCH);
        self.calm(&disturbed, carried.is_err() && !died);
        if carried.is_err() {
            self.watch_abort();
        }
        let carried = match carried {
            Err(_) if died => {
                self.crash();
                return Err(crate::faults::died());
            }
            carried => carried?,
        };
        self.watch_carried();
        self.shut_devices_down();
        self.observe(TimePoint::T2);
        let kernel = self.running()?;
        let image = kernel.image.take().expect("check_reboot saw it");
        let tally = kernel.core.kho.tally().cloned().unwrap_or_default();
        let crossing = Crossing { carried, tally, passed: image.params.is_some() };
        let why_lost = match image.kind {
            ImageKind::Old | ImageKind::PreserveContext => {
                "the image was loaded by kexec_load, which passes no handover on"
            }
            ImageKind::File | ImageKind::Crash => kernel.core.kho.why_nothing_passed(),
        };
        let mut world = self.take_world();
        if let Some(ledger) = &mut self.ledger {
            ledger.kernel_left("not serialised before the kexec");
            if image.params.is_none() {
                ledger.handover_failed(why_lost);
            }
        }
        for (addr, value) in self.take_pokes() {
            // A word outside memory changes nothing.
            let _ = world.memory.write_u64(addr, value);
        }
        look(&world.memory, image.params);
        self.watch.between(&mut world);
        devices::pass(world.hardware.as_deref_mut(), &mut world.memory, Phase::Jump);
        let mut report = self.boot(world, image.params, image.release, &image.options);
        report.crossing = Some(crossing);
        self.watch_boot(&report.outcome);
        Ok(report)
    }
}
