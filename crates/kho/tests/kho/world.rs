//! A kernel's memory, KHO and log, and the jump to the next kernel, which gets the bytes alone.

use std::collections::BTreeSet;

use luosim_abi::release::{Release, ReleaseId};
use luosim_kho::log::KernelLog;
use luosim_kho::scratch::ScratchSpec;
use luosim_kho::{BootParams, Handover, Kho, KhoConfig};
use luosim_physmem::{FrameState, Order, Pfn, PhysAddr, PhysMem, Ram};

/// Releases of both trackers.
/// One release for each version of the root tree, and the one that finalises otherwise.
pub(crate) const EACH: [ReleaseId; 4] = [ReleaseId::V6_19, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3];

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct World {
    pub(crate) ram: Ram,
    pub(crate) kho: Kho,
    pub(crate) log: KernelLog,
    release: &'static Release,
}

/// Small explicit scratch areas.
pub(crate) fn config(release: ReleaseId) -> KhoConfig {
    let scratch = ScratchSpec::parse("4M,0,4M").unwrap();
    KhoConfig { release: release.release(), enabled: true, scratch, debug: true }
}

pub(crate) fn boot(memory: PhysMem, config: KhoConfig, params: Option<BootParams>) -> World {
    let mut ram = Ram::new(memory);
    let mut log = KernelLog::default();
    let mut kho = Kho::boot(&mut ram, &mut log, config, params);
    kho.init_outgoing(&mut ram, &mut log);
    World { ram, kho, log, release: config.release }
}

pub(crate) fn cold(release: ReleaseId, bytes: u64) -> World {
    boot(PhysMem::anonymous(bytes).unwrap(), config(release), None)
}

impl World {
    /// Finalises and leaves: what the next kernel gets.
    pub(crate) fn leave(mut self) -> (PhysMem, BootParams) {
        self.kho.finalize(&mut self.ram, &mut self.log).unwrap();
        let params = self.kho.params_for_kexec(&mut self.ram).unwrap().unwrap();
        (self.ram.into_mem(), params)
    }

    /// Kexec into the same release.
    pub(crate) fn kexec(self) -> World {
        let id = self.release.id;
        self.kexec_into(id)
    }

    pub(crate) fn kexec_into(self, release: ReleaseId) -> World {
        let (memory, params) = self.leave();
        boot(memory, config(release), Some(params))
    }

    pub(crate) fn logged(&self, text: &str) -> bool {
        self.log.lines.iter().any(|line| line.text == text)
    }

    /// What is held of the previous kernel.
    pub(crate) fn held(&self) -> BTreeSet<(u64, u32)> {
        (0..self.ram.frames.frame_count())
            .filter_map(|pfn| match self.ram.frames.state(Pfn::new(pfn)) {
                FrameState::PreservedHead(order) => Some((pfn, order.raw())),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn accepted(&self) -> bool {
        matches!(self.kho.handover(), Handover::Accepted { .. })
    }
}

pub(crate) fn order(raw: u32) -> Order {
    Order::new(raw).unwrap()
}

pub(crate) fn pfn(raw: u64) -> Pfn {
    Pfn::new(raw)
}

pub(crate) fn pa(raw: u64) -> PhysAddr {
    PhysAddr::new(raw)
}
