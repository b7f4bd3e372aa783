//! Whether a handover is taken over: decided from memory alone, before anything is reserved or allocated.
//!
//! The checks and their order are the kernel's: header of the root tree, its version, a memory map that is
//! not 0, the scratch array. [`accept`] changes nothing; what it returns is a plan, which
//! [`crate::Kho::boot`] carries out: scratch is reserved, then [`crate::hold`] holds the preserved blocks.
//! The scratch array itself needs no reservation: it is read here, once.

use luosim_abi::kho::{PROP_MEMORY_MAP, scratch};
use luosim_abi::release::{Finalize, KhoVersion, Release};
use luosim_abi::{Errno, KResult};
use luosim_physmem::{PAGE_SIZE, PhysAddr, PhysMem};

use crate::BootParams;
use crate::fdt::{Node, Tree, TreeError};
use crate::log::KernelLog;
use crate::scratch::ScratchArea;

/// A handover that will be taken over.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The page of the previous kernel's root tree.
    pub(crate) fdt: PhysAddr,
    /// The tree.
    pub(crate) tree: Tree,
    /// First page of its memory map.
    pub(crate) map: PhysAddr,
    /// Its scratch areas: aligned, inside memory, disjoint.
    pub(crate) scratch: Vec<ScratchArea>,
}

/// Most scratch areas believed: low, global and one for each of 1024 nodes.
const MAX_AREAS: u64 = 1026;

/// Checks the root tree and the scratch array.
pub(crate) fn accept(
    mem: &PhysMem,
    release: &Release,
    params: BootParams,
    log: &mut KernelLog,
) -> KResult<Accepted> {
    let version = release.kho;
    check(mem, release, params, log).inspect_err(|refusal| {
        let number = if version.is_radix() { String::new() } else { format!(": -{}", refusal.errno.raw()) };
        log.warn(format!("KHO: disabling KHO revival{number}"));
    })
}

fn check(mem: &PhysMem, release: &Release, params: BootParams, log: &mut KernelLog) -> KResult<Accepted> {
    let version = release.kho;
    let tree = read_root(mem, version, params, log)?;
    check_version(tree.root(), version, params.fdt, log)?;
    let map = match release.finalize {
        // 6.18 looks at it when it walks it: without one nothing is preserved, which is no reason to refuse.
        Finalize::BeforeLoad => PhysAddr::new(tree.root().u64(PROP_MEMORY_MAP).unwrap_or(0)),
        Finalize::AtReboot | Finalize::Never => memory_map(tree.root(), version, log)?,
    };
    let scratch = read_scratch(mem, params)?;
    Ok(Accepted { fdt: params.fdt, tree, map, scratch })
}

fn incompatible(log: &mut KernelLog, fdt: PhysAddr, version: KhoVersion, code: i32) {
    let wanted = version.compatible();
    log.warn(format!("KHO: setup: handover FDT ({fdt}) is incompatible with '{wanted}': {code}"));
}

fn read_root(mem: &PhysMem, version: KhoVersion, params: BootParams, log: &mut KernelLog) -> KResult<Tree> {
    let BootParams { fdt, fdt_size, .. } = params;
    Tree::read(mem, fdt, fdt_size.min(PAGE_SIZE)).map_err(|error| {
        match error {
            // The kernel checks the header alone; it meets a broken structure when it looks for the version.
            TreeError::Structure(_) => incompatible(log, fdt, version, error.code()),
            _ => log.warn(format!("KHO: setup: handover FDT ({fdt}) is invalid: {}", error.code())),
        }
        Errno::EINVAL.because(format!("KHO root at {fdt} refused: {error}"))
    })
}

fn check_version(root: &Node, version: KhoVersion, fdt: PhysAddr, log: &mut KernelLog) -> KResult<()> {
    let wanted = version.compatible();
    if root.is_compatible(wanted) {
        return Ok(());
    }
    let found = root.compatible();
    incompatible(log, fdt, version, if found.is_some() { 1 } else { -1 });
    let found =
        found.map_or_else(|| String::from("without a version"), |text| text.escape_debug().to_string());
    Err(Errno::EINVAL.because(format!("KHO root {found} refused by {wanted}")))
}

fn memory_map(root: &Node, version: KhoVersion, log: &mut KernelLog) -> KResult<PhysAddr> {
    let map = root.u64(PROP_MEMORY_MAP).ok_or_else(|| {
        let what = if version == KhoVersion::V1 { "bitmaps" } else { "map" };
        log.err(format!("KHO: failed to get preserved memory {what}"));
        Errno::ENOENT.because("KHO root refused: it has no 8-byte preserved-memory-map")
    })?;
    if map == 0 {
        let why = "KHO root refused: its preserved-memory-map is 0 (the old kernel was not finalised)";
        return Err(Errno::ENOENT.because(why));
    }
    Ok(PhysAddr::new(map))
}

fn read_scratch(mem: &PhysMem, params: BootParams) -> KResult<Vec<ScratchArea>> {
    let bad = |why: String| Errno::EINVAL.because(format!("the scratch array is refused: {why}"));
    let count = params.scratch_size / scratch::ENTRY_SIZE;
    if count == 0 || count > MAX_AREAS {
        return Err(bad(format!("it has {count} areas")));
    }
    let mut areas: Vec<ScratchArea> = Vec::new();
    for index in 0..count {
        let at = params.scratch.checked_add(index * scratch::ENTRY_SIZE);
        let at = at.ok_or_else(|| bad(String::from("it lies outside memory")))?;
        let entry = mem.read_obj::<scratch::Entry>(at).map_err(|error| bad(error.to_string()))?;
        let area = ScratchArea { addr: PhysAddr::new(entry.addr.get()), size: entry.size.get() };
        if !area.fits(mem.len()) || areas.iter().any(|other| other.meets(&area)) {
            return Err(bad(format!("area {index} ({:#x} bytes at {}) is not one", area.size, area.addr)));
        }
        areas.push(area);
    }
    Ok(areas)
}
