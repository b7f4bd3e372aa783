//! Kexec HandOver (KHO) of one simulated kernel.
//!
//! *Preserve* side: a tracker of preserved blocks ([`tracker`]), the root tree with its subtrees, vmalloc
//! areas, scratch. *Boot* side: what the previous kernel left is believed only after it was checked (module
//! `accept`), every preserved block is held before anything is allocated (`hold`), and each is handed out
//! once (`incoming`). Reading a tracker ([`walk`]) and a tree ([`fdt`]) is for any memory that can be read.
//!
//! Contract: handover bytes are hostile. Whatever they are, boot ends, without panic, in "accepted" or
//! "refused and booted cold"; loops are bounded by the pages of memory. Pages of the tracker are not in the
//! tracker: they are read before anything is allocated.
//!
//! Mirrors `kernel/liveupdate/kexec_handover.c` of 6.18 and 6.19 (`kho-v1`), 7.1 (`kho-v3`) and 7.2, 7.3 (`kho-v4`). Not here: who
//! preserves what (crates `luosim-luo`, `luosim-files`), NUMA (one node), the early memory of 7.3.

#![forbid(unsafe_code)]

mod accept;
pub mod fdt;
mod hold;
mod incoming;
pub mod log;
mod outgoing;
pub mod reserve_mem;
pub mod run;
pub mod scratch;
pub mod tracker;
mod vmalloc;
pub mod walk;

use luosim_abi::release::{Finalize, KhoVersion, Release};
use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, PhysAddr, Ram};

pub use luosim_abi::kho::vmalloc::Descriptor as VmallocArea;

use crate::fdt::Tree;
use crate::log::KernelLog;
use crate::outgoing::Outgoing;
use crate::reserve_mem::Reserved;
use crate::scratch::{ScratchArea, ScratchSpec};

/// The two address/size pairs: all that a kernel is given besides the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootParams {
    /// The root tree.
    pub fdt: PhysAddr,
    /// Always one page.
    pub fdt_size: u64,
    /// A copy of the scratch array, inside a scratch area.
    pub scratch: PhysAddr,
    /// 16 bytes for each area.
    pub scratch_size: u64,
}

/// How a kernel's KHO is set up.
#[derive(Clone, Copy, Debug)]
pub struct KhoConfig {
    /// The release.
    pub release: &'static Release,
    /// `kho=`.
    pub enabled: bool,
    /// `kho_scratch=`; not used on a boot that takes over a handover.
    pub scratch: ScratchSpec,
    /// Built with the KHO debug option: preserving inside scratch is refused.
    pub debug: bool,
}

/// What became of the previous kernel's handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// There was none.
    None,
    /// Accepted: so many blocks and pages are held.
    Accepted {
        /// Blocks held.
        blocks: u64,
        /// Pages in them.
        pages: u64,
    },
    /// Not understood; the memory is free and its contents lost.
    Refused {
        /// In words: `KHO root kho-v1 refused by kho-v4`.
        reason: String,
    },
}

/// A subtree of the previous kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its blob.
    pub addr: PhysAddr,
    /// Bytes of the blob; `kho-v1` does not say.
    pub size: Option<u64>,
}

/// KHO of one kernel. Dropped at a kexec.
#[derive(Debug)]
pub struct Kho {
    config: KhoConfig,
    enabled: bool,
    scratch: Vec<ScratchArea>,
    handover: Handover,
    incoming: Option<Tree>,
    kexec_count: u32,
    out: Option<Outgoing>,
    reserved: Vec<Reserved>,
}

impl Kho {
    /// Early boot: takes the handover over or boots cold; then every frame is held, reserved or free.
    #[must_use]
    pub fn boot(ram: &mut Ram, log: &mut KernelLog, config: KhoConfig, params: Option<BootParams>) -> Self {
        let mut kho = Self {
            config,
            enabled: config.enabled,
            scratch: Vec::new(),
            handover: Handover::None,
            incoming: None,
            kexec_count: 0,
            out: None,
            reserved: Vec::new(),
        };
        match params.map(|params| accept::accept(&ram.mem, config.release, params, log)) {
            Some(Ok(accepted)) => kho.take_over(ram, log, accepted),
            Some(Err(refusal)) => {
                kho.handover = Handover::Refused { reason: refusal.reason.into_owned() };
                kho.boot_cold(ram, log);
            }
            None => kho.boot_cold(ram, log),
        }
        kho
    }

    fn boot_cold(&mut self, ram: &mut Ram, log: &mut KernelLog) {
        scratch::reserve_kernel(ram);
        if !self.enabled {
            return;
        }
        match scratch::place(ram, &self.config.scratch, self.config.release) {
            Ok(areas) => self.scratch = areas,
            Err(problem) => {
                log.warn("KHO: Failed to reserve scratch area, disabling kexec handover");
                log.info(format!("KHO: {problem}"));
                self.enabled = false;
            }
        }
    }

    fn take_over(&mut self, ram: &mut Ram, log: &mut KernelLog, accepted: accept::Accepted) {
        log.info(match self.config.release.finalize {
            Finalize::BeforeLoad => "KHO: found kexec handover data. Will skip init for some devices",
            Finalize::AtReboot | Finalize::Never => "KHO: found kexec handover data.",
        });
        for area in &accepted.scratch {
            scratch::reserve(ram, *area);
        }
        let held = hold::hold(&ram.mem, &mut ram.frames, log, self.version(), accepted.map);
        scratch::reserve_kernel(ram);
        if self.config.release.finalize == Finalize::BeforeLoad {
            // Later kernels leave the old root's page held.
            self.restore_folio(ram, accepted.fdt, FrameUse::Fdt);
        }
        self.scratch = accepted.scratch;
        self.incoming = Some(accepted.tree);
        self.handover = Handover::Accepted { blocks: held.blocks, pages: held.pages };
    }

    /// Whether KHO is on in this kernel.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The tracker version.
    #[must_use]
    pub fn version(&self) -> KhoVersion {
        self.config.release.kho
    }

    /// Scratch areas: low, global, one per node.
    #[must_use]
    pub fn scratch(&self) -> &[ScratchArea] {
        &self.scratch
    }

    /// What became of the previous kernel's handover.
    #[must_use]
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// Kexecs since the last cold boot, as the metadata counts them; 0 without metadata.
    #[must_use]
    pub fn kexec_count(&self) -> u32 {
        self.kexec_count
    }

    /// Late boot: makes this kernel's own tracker, root tree and metadata. A failure turns KHO off. Nothing
    /// with `kho=off`, not even a look at the previous kernel's metadata.
    pub fn init_outgoing(&mut self, ram: &mut Ram, log: &mut KernelLog) {
        if !self.enabled {
            return;
        }
        if let Err(refusal) = self.set_up(ram, log) {
            self.disable(log, &refusal);
        }
    }

    fn set_up(&mut self, ram: &mut Ram, log: &mut KernelLog) -> KResult<()> {
        self.out = Some(Outgoing::new(ram, self.config.release)?);
        if self.config.release.metadata {
            self.read_metadata(ram, log);
            // Adding a subtree writes the root tree.
            return self.write_metadata(ram);
        }
        self.out()?.write_tree(ram)
    }

    fn disable(&mut self, log: &mut KernelLog, refusal: &luosim_abi::Refusal) {
        log.err(format!("KHO: failed to set up outgoing state: {refusal}"));
        self.enabled = false;
        self.out = None;
    }

    fn out(&self) -> KResult<&Outgoing> {
        self.out.as_ref().ok_or_else(|| Errno::EINVAL.because("KHO is off in this kernel"))
    }

    fn out_mut(&mut self) -> KResult<&mut Outgoing> {
        self.out.as_mut().ok_or_else(|| Errno::EINVAL.because("KHO is off in this kernel"))
    }
}
