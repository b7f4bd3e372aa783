//! `luo-v1` (6.19, 7.0, 7.1): a device tree, a 16-page array of sessions, 2-page arrays of files; from 7.0 on also a
//! page of FLBs, whose node readers of 7.0 and 7.1 insist on.

use luosim_abi::luo::record::{FileRecord, SessionRecord};
use luosim_abi::luo::{flb as flb_abi, v1 as abi};
use luosim_abi::{Errno, KResult, Refusal};
use luosim_kho::fdt::{Node, Tree};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, PhysMem};

use super::{FoundSession, Header, HeaderResult, Incoming, alloc_flbs};
use crate::blocks::write;
use crate::host::Memory;

const SESSION_SIZE: u64 = 80;
const FILE_SIZE: u64 = 64;

/// What this kernel writes for the next.
#[derive(Debug)]
pub(crate) struct Outgoing {
    sessions: PhysAddr,
    /// The page of FLBs, where the release has them.
    pub(crate) flbs: Option<PhysAddr>,
}

impl Outgoing {
    /// Allocates the session array, with `flb` the FLB page, and the device tree, and registers the tree as subtree
    /// `LUO`.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn new(mem: &mut Memory<'_>, number: u64, flb: bool) -> KResult<Self> {
        let sessions = mem.kho.alloc_preserve(mem.ram, abi::SESSION_AREA_PAGES * PAGE_SIZE, FrameUse::Luo)?;
        let session = Node::new(abi::SESSION_COMPATIBLE).with_u64(abi::PROP_SESSION_HEADER, sessions.raw());
        let root = Node::new(abi::COMPATIBLE).with_u64(abi::PROP_NUMBER, number);
        let mut root = root.with_child(abi::NODE_SESSION, session);
        let flbs = if flb { Some(alloc_flbs(mem)?) } else { None };
        if let Some(page) = flbs {
            let node = Node::new(flb_abi::COMPATIBLE).with_u64(abi::PROP_FLB_HEADER, page.raw());
            root = root.with_child(abi::NODE_FLB, node);
        }
        let blob = Tree::new(root).to_blob();
        let page = mem.kho.alloc_preserve(mem.ram, PAGE_SIZE, FrameUse::Fdt)?;
        write(mem, page, &blob);
        let size = u64::try_from(blob.len()).expect("the tree is smaller than a page");
        mem.kho.add_subtree(mem.ram, "LUO", page, size)?;
        Ok(Self { sessions, flbs })
    }

    pub(crate) fn session_slot(&self, index: u64) -> PhysAddr {
        offset(self.sessions, abi::SESSION_HEADER_SIZE + index * SESSION_SIZE)
    }

    pub(crate) fn set_count(&self, mem: &mut Memory<'_>, count: u64) {
        write(mem, self.sessions, &count.to_le_bytes());
    }
}

fn offset(base: PhysAddr, bytes: u64) -> PhysAddr {
    base.checked_add(bytes).expect("record areas lie in memory")
}

pub(crate) fn check_session_room(count: u64) -> KResult<()> {
    if count < abi::MAX_SESSIONS {
        return Ok(());
    }
    Err(Errno::ENOMEM.because(format!("the session area is full: {count} sessions in 16 pages")))
}

pub(crate) fn check_room(count: u64) -> KResult<()> {
    if count < abi::MAX_FILES {
        return Ok(());
    }
    Err(Errno::ENOSPC.because(format!("the session's file area is full: {count} files in 2 pages")))
}

pub(crate) fn alloc_files(mem: &mut Memory<'_>) -> KResult<PhysAddr> {
    mem.kho.alloc_preserve(mem.ram, abi::FILE_AREA_PAGES * PAGE_SIZE, FrameUse::Luo)
}

pub(crate) fn file_slot(area: PhysAddr, index: u64) -> PhysAddr {
    offset(area, index * FILE_SIZE)
}

/// Reads the device tree at boot.
///
/// # Errors
/// EINVAL for a wrong string, number, node or property, in the order the kernel looks at them; with `flb` also ENOENT
/// for a missing FLB node.
pub(crate) fn read_header(mem: &PhysMem, fdt: PhysAddr, flb: bool) -> HeaderResult {
    let bad = |what: &str| Errno::EINVAL.because(format!("the LUO tree at {fdt} {what}"));
    let tree = Tree::read(mem, fdt, PAGE_SIZE).map_err(|error| bad(&format!("cannot be read: {error}")))?;
    let root = tree.root();
    if !root.is_compatible(abi::COMPATIBLE) {
        return Err(bad("is incompatible with 'luo-v1'"));
    }
    let number = root.u64(abi::PROP_NUMBER).ok_or_else(|| bad("has no 8-byte liveupdate-number"))?;
    let session = root.child(abi::NODE_SESSION).ok_or_else(|| bad("has no luo-session node"))?;
    if !session.is_compatible(abi::SESSION_COMPATIBLE) {
        return Err(bad("has a luo-session node incompatible with 'luo-session-v2'"));
    }
    let area =
        session.u64(abi::PROP_SESSION_HEADER).ok_or_else(|| bad("has no 8-byte luo-session-header"))?;
    let flbs = if flb { read_flb_node(root, fdt)? } else { PhysAddr::NULL };
    Ok(Header { number, incoming: Incoming::V1 { area: PhysAddr::new(area) }, flbs })
}

fn read_flb_node(root: &Node, fdt: PhysAddr) -> Result<PhysAddr, Refusal> {
    let node = root.child(abi::NODE_FLB).ok_or_else(|| {
        Errno::ENOENT.because(format!("the LUO tree at {fdt} has no luo-flb node, as one of 6.19 has none"))
    })?;
    let bad = |what: &str| Errno::EINVAL.because(format!("the LUO tree at {fdt} has a luo-flb node {what}"));
    if !node.is_compatible(flb_abi::COMPATIBLE) {
        return Err(bad("incompatible with 'luo-flb-v1'"));
    }
    let page = node.u64(abi::PROP_FLB_HEADER).ok_or_else(|| bad("without an 8-byte luo-flb-header"))?;
    Ok(PhysAddr::new(page))
}

/// Reads the session array. A count above what the area holds is cut: nothing outside it is looked at.
pub(crate) fn read_sessions(mem: &PhysMem, area: PhysAddr) -> Vec<FoundSession> {
    let count = mem.read_u64(area).unwrap_or(0).min(abi::MAX_SESSIONS);
    (0..count)
        .map_while(|index| area.checked_add(abi::SESSION_HEADER_SIZE + index * SESSION_SIZE))
        .map_while(|at| mem.read_obj::<SessionRecord>(at).ok())
        .map(|record| FoundSession::from_record(&record))
        .collect()
}

/// Reads the file array of one session; the count of the session record is trusted up to 128.
pub(crate) fn read_files(mem: &PhysMem, session: &FoundSession) -> Vec<FileRecord> {
    (0..session.count.min(abi::MAX_FILES))
        .map_while(|index| session.files.checked_add(index * FILE_SIZE))
        .map_while(|at| mem.read_obj::<FileRecord>(at).ok())
        .collect()
}
