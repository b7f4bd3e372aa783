//! A simulated machine: one physical memory, and kernels of any release booted on it one after the other.
//!
//! [`Machine`] is what a power supply and a front panel see: memory, boot, kexec, crash, reset. While a kernel
//! runs, processes make system calls (`sys`), each answered with a value or a [`luosim_abi::Refusal`]. At a
//! kexec the old [`Kernel`] is consumed; the next one is built from nothing but the memory and two
//! address/size pairs ([`luosim_kho::BootParams`]). Whatever was not written into memory is gone.
//!
//! The [`ledger`] watches from outside and says what became of every preserved file. Deterministic: no clock,
//! no threads; the same calls give the same answers and the same memory, byte for byte.

#![forbid(unsafe_code)]

pub mod address_space;
mod boot;
mod caller;
pub mod cmdline;
mod core;
mod devices;
pub mod faults;
pub mod image;
pub mod ledger;
pub mod module;
pub mod outside;
mod posted;
pub mod process;
pub mod sys;
mod watch;

use std::collections::BTreeMap;
use std::rc::Rc;

use luosim_abi::profile::{Assumption, Profile};
use luosim_abi::quirk::Quirks;
use luosim_abi::release::{Release, ReleaseId};
use luosim_abi::{Errno, KResult};
use luosim_files::InodeId;
use luosim_hardware::Hardware;
use luosim_kho::log::KernelLog;
use luosim_luo::Luo;
use luosim_physmem::PhysMem;

pub use boot::{BootOptions, BootReport, Outcome};
pub use core::Core;
pub use image::{Image, ImageKind};
pub use sys::GuestRam;
pub use watch::Standing;

use crate::faults::Faults;
use crate::ledger::Ledger;
use crate::module::{Drivers, Modules, Registration};
use crate::posted::Control;
use crate::process::{Pid, Process};
use crate::watch::Watch;

/// A running kernel.
#[derive(Debug)]
pub struct Kernel {
    release: &'static Release,
    profile: Profile,
    quirks: Quirks,
    cmdline: String,
    test_files: bool,
    core: Core,
    luo: Luo<Core>,
    /// The orchestrator of a posted design; `luo` is off then.
    control: Option<Control>,
    processes: BTreeMap<Pid, Process>,
    image: Option<Image>,
    /// The crash kernel, in its own slot.
    crash_image: Option<Image>,
    /// Linked files on tmpfs, by path.
    tmpfs: BTreeMap<String, InodeId>,
    drivers: Drivers,
}

impl Kernel {
    /// The release.
    #[must_use]
    pub fn release(&self) -> &'static Release {
        self.release
    }

    /// Which file types it has beside the release's.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The quirks in force.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// The command line (`/proc/cmdline`).
    #[must_use]
    pub fn cmdline(&self) -> &str {
        &self.cmdline
    }

    /// The kernel log.
    #[must_use]
    pub fn log(&self) -> &KernelLog {
        &self.core.log
    }

    /// The merged orchestrator; off in a release without it, and in a posted design ([`Self::posted`]).
    #[must_use]
    pub fn luo(&self) -> &Luo<Core> {
        &self.luo
    }

    /// Memory, KHO and files.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The processes.
    #[must_use]
    pub fn processes(&self) -> &BTreeMap<Pid, Process> {
        &self.processes
    }

    /// The loaded image (`/sys/kernel/kexec_loaded`).
    #[must_use]
    pub fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }
}

/// What outlives a kernel.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) memory: PhysMem,
    pub(crate) hardware: Option<Box<Hardware>>,
}

/// What the machine is doing.
#[derive(Debug)]
enum State {
    /// No kernel runs; the memory keeps its bytes, and the hardware its state.
    Down(World),
    Running(Box<Kernel>),
    /// Between two states, inside a call.
    Moving,
}

/// One simulated machine.
#[derive(Debug)]
pub struct Machine {
    state: State,
    generation: u32,
    next_pid: u32,
    ledger: Option<Ledger>,
    faults: Faults,
    modules: Modules,
    /// What kernels relied on since somebody asked.
    assumed: Vec<Assumption>,
    watch: Watch,
    /// The crash kernel that booted inside a system call.
    crashed: Option<BootReport>,
}

fn down() -> luosim_abi::Refusal {
    Errno::ESRCH.because("no kernel is running: the machine is down")
}

impl Machine {
    /// A machine with this memory, powered off. Its ledger is kept.
    #[must_use]
    pub fn new(memory: PhysMem) -> Self {
        Self {
            state: State::Down(World { memory, hardware: None }),
            generation: 0,
            next_pid: 1,
            ledger: Some(Ledger::default()),
            faults: Faults::default(),
            modules: Modules::default(),
            assumed: Vec::new(),
            watch: Watch::default(),
            crashed: None,
        }
    }

    /// Builds a module into every kernel that is booted from now on: `init` runs in each boot, when the kernel's own file
    /// types are registered. What it makes there belongs to that kernel alone.
    pub fn add_module(&mut self, name: &str, init: impl Fn(&mut Registration<'_>) -> KResult<()> + 'static) {
        self.modules.add(name, Rc::new(init));
    }

    /// A machine that keeps no ledger, for benchmarks.
    #[must_use]
    pub fn without_ledger(memory: PhysMem) -> Self {
        Self { ledger: None, ..Self::new(memory) }
    }

    /// Kernels booted so far.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What became of every preserved file; `None` if none is kept.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The running kernel.
    #[must_use]
    pub fn kernel(&self) -> Option<&Kernel> {
        match &self.state {
            State::Running(kernel) => Some(kernel),
            _ => None,
        }
    }

    fn running(&mut self) -> KResult<&mut Kernel> {
        match &mut self.state {
            State::Running(kernel) => Ok(kernel),
            _ => Err(down()),
        }
    }

    /// The bytes of memory, whoever has them.
    #[must_use]
    pub fn memory(&self) -> &PhysMem {
        match &self.state {
            State::Down(world) => &world.memory,
            State::Running(kernel) => &kernel.core.ram.mem,
            State::Moving => unreachable!("the machine is never left between two states"),
        }
    }

    /// The bytes of memory for a fault injector or an image loader, whoever has them.
    pub fn memory_mut(&mut self) -> &mut PhysMem {
        match &mut self.state {
            State::Down(world) => &mut world.memory,
            State::Running(kernel) => &mut kernel.core.ram.mem,
            State::Moving => unreachable!("the machine is never left between two states"),
        }
    }

    /// The assumptions that calls and boots relied on since the last question, each once, in order: what they say is worth no
    /// more than these.
    pub fn take_assumed(&mut self) -> Vec<Assumption> {
        self.collect_assumed();
        std::mem::take(&mut self.assumed)
    }

    /// Keeps what the running kernel relied on.
    fn collect_assumed(&mut self) {
        let Ok(kernel) = self.running() else { return };
        let relied = std::mem::take(&mut kernel.core.assumed).into_iter();
        let relied: Vec<Assumption> = relied.chain(kernel.core.devices.take_assumed()).collect();
        for assumption in relied {
            if !self.assumed.contains(&assumption) {
                self.assumed.push(assumption);
            }
        }
    }

    /// Takes memory and hardware away from whoever has them; the kernel, if one ran, is gone without a word.
    pub(crate) fn take_world(&mut self) -> World {
        self.collect_assumed();
        match std::mem::replace(&mut self.state, State::Moving) {
            State::Down(world) => world,
            State::Running(kernel) => {
                World { memory: kernel.core.ram.into_mem(), hardware: kernel.core.hardware }
            }
            State::Moving => unreachable!("the machine is never left between two states"),
        }
    }

    /// The memory with its bytes; whatever else there was is gone.
    #[must_use]
    pub fn into_memory(mut self) -> PhysMem {
        self.take_world().memory
    }

    /// As new, but for the memory, which keeps its bytes: no kernel, no history, an empty ledger.
    pub fn renew(&mut self) {
        let mut world = self.take_world();
        if let Some(hardware) = &mut world.hardware {
            hardware.cold_reset();
        }
        self.state = State::Down(world);
        self.watch = Watch::default();
        self.generation = 0;
        self.faults = Faults::default();
        if let Some(ledger) = &mut self.ledger {
            *ledger = Ledger::default();
        }
    }

    /// Power off and on: memory is lost, then the release boots cold.
    pub fn cold_reset(&mut self, release: ReleaseId, options: &BootOptions) -> BootReport {
        let mut world = self.take_world();
        self.lose("cold reset: memory is lost");
        world.memory.discard_all();
        if let Some(hardware) = &mut world.hardware {
            hardware.cold_reset();
        }
        self.watch = Watch::default();
        self.boot(world, None, release, options)
    }

    /// Resets without losing the memory's bytes, as a warm reset may: nothing is handed over all the same. Spares
    /// a benchmark the host's page faults.
    pub fn cold_boot_in_place(&mut self, release: ReleaseId, options: &BootOptions) -> BootReport {
        let mut world = self.take_world();
        self.lose("reset without handover");
        if let Some(hardware) = &mut world.hardware {
            hardware.cold_reset();
        }
        self.watch = Watch::default();
        self.boot(world, None, release, options)
    }

    /// The running kernel panics. A crash kernel that was loaded is booted; without one the machine is down until
    /// the next reset.
    pub fn crash(&mut self) -> Option<BootReport> {
        let image = self.running().ok().and_then(|kernel| kernel.crash_image.take());
        let world = self.take_world();
        self.lose("the kernel panicked before the kexec");
        let Some(mut image) = image else {
            self.state = State::Down(world);
            return None;
        };
        // The tools that load a crash kernel add where it finds what it is to dump: it knows itself by that.
        image.options.cmdline.push_str(" elfcorehdr=0x1000");
        Some(self.boot(world, image.params, image.release, &image.options))
    }

    fn lose(&mut self, cause: &str) {
        if let Some(ledger) = &mut self.ledger {
            ledger.kernel_left(cause);
            ledger.handover_failed(cause);
        }
    }

    /// Starts a process of this name.
    ///
    /// # Errors
    /// ESRCH if the machine is down.
    pub fn spawn(&mut self, name: &str) -> KResult<Pid> {
        let pid = Pid(self.next_pid);
        self.running()?.processes.insert(pid, Process::new(name));
        self.next_pid += 1;
        Ok(pid)
    }
}
