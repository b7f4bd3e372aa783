//! Hardware of a machine, and what a kernel does with it at boot and at shutdown.
//!
//! The hardware belongs to the machine as its memory does: whichever kernel runs has it, and between two kernels nobody. Time passes
//! for it where the machine says so: [`Machine::tick`] while a kernel runs, and in each phase of a kexec [as many ticks](Hardware::set_phase_ticks)
//! as its owner says, so that DMA goes on in the middle of a boot.

use luosim_abi::devices::{iommu, pci};
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_hardware::Hardware;
use luosim_hardware::simdma::Defect;
use luosim_hardware::timeline::Phase;
use luosim_luo::Luo;
use luosim_physmem::PhysMem;

use luosim_devices::DeviceHost as _;

use crate::core::Core;
use crate::{Machine, State};

/// Ticks of each call that preserves, retrieves or finishes.
const CALL_TICKS: u64 = 16;

/// A phase begins, and some of its time passes.
pub(crate) fn pass(hardware: Option<&mut Hardware>, memory: &mut PhysMem, phase: Phase) {
    if let Some(hardware) = hardware {
        hardware.enter(phase);
        hardware.pass_phase(memory);
    }
}

/// An object of the previous kernel, if there is one; its core gets it while it is brought up and keeps no count on it.
fn retrieve(luo: &mut Luo<Core>, core: &mut Core, name: &str) -> Result<(), String> {
    match luo.get_incoming_flb(core, name) {
        Ok(_) => luo.put_incoming_flb(core, name).map_err(|refusal| refusal.to_string()),
        // Nothing came, or this kernel does not know of such objects.
        Err(refusal)
            if [Errno::ENODATA, Errno::ENOENT, Errno::EOPNOTSUPP].contains(&refusal.errno)
                || !luo.has_flb(name) =>
        {
            Ok(())
        }
        Err(refusal) => Err(format!("{name}: {refusal}")),
    }
}

/// The device part of a boot: handlers and objects, what came, functions and IOMMU units.
///
/// # Errors
/// Why the kernel must not go on.
pub(crate) fn bring_up(luo: &mut Luo<Core>, core: &mut Core, vfio: bool) -> Result<(), String> {
    if core.hardware.is_none() {
        return Ok(());
    }
    if luo.enabled() {
        let profile = core.devices.profile;
        luosim_devices::register(luo, profile, vfio).map_err(|refusal| refusal.to_string())?;
    }
    retrieve(luo, core, pci::COMPATIBLE)?;
    retrieve(luo, core, iommu::COMPATIBLE)?;
    luosim_devices::boot(&mut core.parts())?;
    pass(core.hardware.as_deref_mut(), &mut core.ram.mem, Phase::Boot);
    pass(core.hardware.as_deref_mut(), &mut core.ram.mem, Phase::UserSpace);
    Ok(())
}

impl Machine {
    /// Plugs hardware into a machine that is powered off.
    ///
    /// # Panics
    /// If a kernel is running.
    pub fn plug_in(&mut self, hardware: Hardware) {
        match &mut self.state {
            State::Down(world) => world.hardware = Some(Box::new(hardware)),
            _ => panic!("hardware is plugged in while the machine is off"),
        }
    }

    /// The hardware, whoever has it.
    #[must_use]
    pub fn hardware(&self) -> Option<&Hardware> {
        match &self.state {
            State::Down(world) => world.hardware.as_deref(),
            State::Running(kernel) => kernel.core.hardware.as_deref(),
            State::Moving => unreachable!("the machine is never left between two states"),
        }
    }

    /// The hardware and the memory beside it, whoever has them: for those who stand before the machine.
    pub fn hardware_and_memory(&mut self) -> (Option<&mut Hardware>, &mut PhysMem) {
        match &mut self.state {
            State::Down(world) => (world.hardware.as_deref_mut(), &mut world.memory),
            State::Running(kernel) => (kernel.core.hardware.as_deref_mut(), &mut kernel.core.ram.mem),
            State::Moving => unreachable!("the machine is never left between two states"),
        }
    }

    /// Lets time pass: devices make `n` steps each.
    pub fn tick(&mut self, n: u64) {
        if let (Some(hardware), memory) = self.hardware_and_memory() {
            hardware.tick(memory, n);
        }
    }

    /// A call of a phase was made: its time passes.
    pub(crate) fn spend(&mut self, phase: Phase) {
        if let (Some(hardware), memory) = self.hardware_and_memory() {
            hardware.enter(phase);
            hardware.tick(memory, CALL_TICKS);
        }
    }

    /// What happens from now on is counted to a phase of the live update.
    pub fn enter(&mut self, phase: Phase) {
        if let (Some(hardware), _) = self.hardware_and_memory() {
            hardware.enter(phase);
        }
    }

    /// The handle of an object that the running kernel preserves, by name: for those who look at memory, or change it.
    pub fn outgoing_object(&mut self, name: &str) -> Option<u64> {
        let kernel = self.running().ok()?;
        let data = kernel.luo.get_outgoing_flb(name).ok()?;
        kernel.luo.put_outgoing_flb(&mut kernel.core, name);
        Some(data)
    }

    /// The last thing that the old kernel does: devices that are not preserved are silenced.
    pub(crate) fn shut_devices_down(&mut self) {
        let Ok(kernel) = self.running() else { return };
        let (luo, core) = (&mut kernel.luo, &mut kernel.core);
        if core.hardware.is_none() {
            return;
        }
        let objects = [pci::COMPATIBLE, iommu::COMPATIBLE].map(|name| luo.get_outgoing_flb(name).ok());
        luosim_devices::shutdown(&mut core.parts(), objects[0], objects[1]);
        for (name, _) in
            [pci::COMPATIBLE, iommu::COMPATIBLE].into_iter().zip(objects).filter(|(_, data)| data.is_some())
        {
            luo.put_outgoing_flb(core, name);
        }
        let hardware = core.hardware.as_deref_mut();
        if let Some(hardware) = hardware {
            hardware.pass_phase(&mut core.ram.mem);
        }
    }

    /// A kernel that found that it cannot go on is gone, and with it the call.
    pub(crate) fn check_panic<T>(&mut self, result: KResult<T>) -> KResult<T> {
        let Ok(kernel) = self.running() else { return result };
        let Some(why) = kernel.core.devices.take_panic() else { return result };
        kernel.core.log.err(format!("Kernel panic - not syncing: {why}"));
        self.crash();
        Err(Errno::ESRCH.because(format!("the kernel panicked: {why}")))
    }
}

/// Gives every device the defect of a planted quirk that the kernel was told to have: a device that is wrong is looked for
/// as a kernel is.
pub(crate) fn plant(hardware: &mut Hardware, options: &crate::BootOptions) {
    const PLANTED: [(Quirk, Defect); 5] = [
        (Quirk::DeviceAstray, Defect::Astray),
        (Quirk::DeviceCompletesFirst, Defect::CompletionFirst),
        (Quirk::DeviceRunsTwice, Defect::RunsTwice),
        (Quirk::DeviceSkips, Defect::Skips),
        (Quirk::DeviceLosesInterrupts, Defect::LosesInterrupts),
    ];
    let Some((_, defect)) = PLANTED.iter().find(|(quirk, _)| options.quirks_on.contains(quirk)) else {
        return;
    };
    let places: Vec<_> = hardware.functions().filter_map(|info| info.bdf).collect();
    for place in places {
        hardware.set_defect(place, Some(*defect));
    }
}
