//! `luo-v5` (7.2, 7.3): one 32-byte structure, chains of blocks for sessions and files, one page for FLBs.

use luosim_abi::luo::record::{FileRecord, SessionRecord};
use luosim_abi::luo::{block, v5 as abi};
use luosim_abi::quirk::Quirks;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_physmem::{FrameUse, PhysAddr, PhysMem};
use rustc_hash::FxHashSet;
use zerocopy::FromBytes;

use super::{FoundSession, Header, HeaderResult, Incoming, alloc_flbs};
use crate::blocks::{BadChain, BlockChain, FoundChain, read_chain, write};
use crate::host::Memory;

/// Bytes of a session record.
pub(crate) const SESSION_SIZE: u64 = 80;
/// Bytes of a file record.
pub(crate) const FILE_SIZE: u64 = 64;

/// What this kernel writes for the next.
#[derive(Debug)]
pub(crate) struct Outgoing {
    ser: PhysAddr,
    pub(crate) sessions: BlockChain<SESSION_SIZE>,
    pub(crate) flbs: PhysAddr,
}

impl Outgoing {
    /// Allocates the structure and the FLB page and registers the structure as subtree `LUO`.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn new(mem: &mut Memory<'_>, number: u64) -> KResult<Self> {
        let ser = mem.kho.alloc_preserve(mem.ram, abi::SIZE, FrameUse::Luo)?;
        let flbs = alloc_flbs(mem)?;
        let header = abi::LuoSer {
            compatible: abi::COMPATIBLE_FIELD,
            liveupdate_num: number.into(),
            sessions_pa: 0.into(),
            flbs_pa: flbs.raw().into(),
        };
        mem.ram.mem.write_obj(ser, &header).expect("the page was just allocated");
        mem.kho.add_subtree(mem.ram, "LUO", ser, abi::SIZE)?;
        Ok(Self { ser, sessions: BlockChain::default(), flbs })
    }

    pub(crate) fn set_sessions(&self, mem: &mut Memory<'_>, head: PhysAddr) {
        let field = self.ser.checked_add(abi::SESSIONS_PA_OFFSET).expect("the field lies in the page");
        write(mem, field, &head.raw().to_le_bytes());
    }
}

/// A chain of one session's files.
pub(crate) type FileChain = BlockChain<FILE_SIZE>;

/// Reads the structure and checks the chain of session blocks, at boot. Frees the structure's page, good or
/// bad.
///
/// # Errors
/// EINVAL: too small, another string, a bad chain. The kernel panics.
pub(crate) fn read_header(mem: &mut Memory<'_>, ser: PhysAddr, size: u64, quirks: Quirks) -> HeaderResult {
    let header = read_struct(mem, ser, size);
    mem.kho.restore_free(mem.ram, ser);
    let header = header?;
    let number = header.liveupdate_num.get();
    mem.log.info(format!("luo: Retrieved live update data, liveupdate number: {number}"));
    let head = PhysAddr::new(header.sessions_pa.get());
    let chain = read_chain(&mem.ram.mem, head, SESSION_SIZE, &mut FxHashSet::default(), quirks)
        .map_err(|bad| refuse_chain(mem, bad, "session"))?;
    let incoming = if chain.blocks.is_empty() { Incoming::Nothing } else { Incoming::V5 { chain } };
    Ok(Header { number, incoming, flbs: PhysAddr::new(header.flbs_pa.get()) })
}

fn read_struct(mem: &mut Memory<'_>, ser: PhysAddr, size: u64) -> Result<abi::LuoSer, Refusal> {
    if size < abi::SIZE {
        mem.log.err(format!("luo: LUO state is too small ({size} < {})", abi::SIZE));
        return Err(
            Errno::EINVAL.because(format!("the LUO structure has {size} bytes instead of {}", abi::SIZE))
        );
    }
    let header = mem.ram.mem.read_obj::<abi::LuoSer>(ser).map_err(|error| {
        Errno::EINVAL.because(format!("the LUO structure at {ser} cannot be read: {error}"))
    })?;
    if !header.is_compatible() {
        mem.log.err("luo: LUO state is incompatible with 'luo-v5'");
        return Err(Errno::EINVAL.because("the LUO structure is incompatible with 'luo-v5'"));
    }
    Ok(header)
}

/// Logs why a chain is bad and frees its blocks.
pub(crate) fn refuse_chain(mem: &mut Memory<'_>, bad: BadChain, what: &str) -> Refusal {
    let reason =
        format!("the chain of {what} blocks is refused ({})", bad.message.trim_start_matches("luo: "));
    mem.log.err(bad.message);
    free_pages(mem, &bad.free);
    bad.errno.because(reason)
}

/// Gives pages of the handover back to this kernel.
pub(crate) fn free_pages(mem: &mut Memory<'_>, pages: &[PhysAddr]) {
    for page in pages {
        mem.kho.restore_free(mem.ram, *page);
    }
}

/// The records of one block of a checked chain.
fn read_records<T: FromBytes>(mem: &PhysMem, (block, count): (PhysAddr, u64), entry_size: u64) -> Vec<T> {
    let size = usize::try_from(entry_size).expect("a record is small");
    let header = usize::try_from(block::HEADER_SIZE).expect("a header is small");
    let mut page = [0u8; 4096];
    if mem.read(block, &mut page).is_err() {
        return Vec::new();
    }
    let count = usize::try_from(count).expect("a checked count is below 64");
    let entries = page[header..].chunks_exact(size).take(count);
    entries.filter_map(|bytes| T::read_from_bytes(bytes).ok()).collect()
}

/// The sessions of one block of a chain that was checked at boot.
pub(crate) fn read_sessions(mem: &PhysMem, block: (PhysAddr, u64)) -> Vec<FoundSession> {
    read_records::<SessionRecord>(mem, block, SESSION_SIZE).iter().map(FoundSession::from_record).collect()
}

/// The files of one block of a chain that [`find_files`] checked.
pub(crate) fn read_files(mem: &PhysMem, block: (PhysAddr, u64)) -> Vec<FileRecord> {
    read_records(mem, block, FILE_SIZE)
}

/// Checks the chain of one session's files. `seen` are the blocks of all sessions so
/// far: a block that two sessions name makes the second chain a corrupt one, which also bounds the work.
///
/// # Errors
/// EINVAL, ENOSPC for a bad chain; EINVAL if the counts do not add up to the session's.
pub(crate) fn find_files(
    mem: &mut Memory<'_>,
    session: &FoundSession,
    seen: &mut FxHashSet<PhysAddr>,
    quirks: Quirks,
) -> Result<FoundChain, Refusal> {
    let chain = read_chain(&mem.ram.mem, session.files, FILE_SIZE, seen, quirks)
        .map_err(|bad| refuse_chain(mem, bad, "file"))?;
    if chain.records() != session.count {
        let (found, said) = (chain.records(), session.count);
        mem.log.warn(format!("luo: File count mismatch: expected {said}, found {found}"));
        let pages: Vec<PhysAddr> = chain.blocks.iter().map(|(page, _)| *page).collect();
        free_pages(mem, &pages);
        return Err(Errno::EINVAL
            .because(format!("session {:?} says {said} files but its blocks hold {found}", session.name)));
    }
    Ok(chain)
}
