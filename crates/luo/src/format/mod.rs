//! How sessions and files are laid out for the next kernel, per version of the orchestrator's data.

pub(crate) mod v1;
pub(crate) mod v5;

use luosim_abi::luo::flb::FlbHeader;
use luosim_abi::luo::record::SessionRecord;
use luosim_abi::{KResult, Refusal};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr};

use crate::blocks::FoundChain;
use crate::host::Memory;
use crate::name::SessionName;

/// Where this kernel writes what the next one reads.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// `luo-v1`: device tree and one fixed array of sessions.
    V1(v1::Outgoing),
    /// `luo-v5`: one structure and a chain of session blocks.
    V5(v5::Outgoing),
}

/// What the previous kernel left, checked at boot as far as the release checks it then.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// No handover, or no sessions in it.
    Nothing,
    /// `luo-v1`: the array of sessions.
    V1 {
        /// Its first page.
        area: PhysAddr,
    },
    /// `luo-v5`: the chain of session blocks.
    V5 {
        /// Blocks and their counts.
        chain: FoundChain,
    },
}

/// Where the records of one session's files are.
#[derive(Debug)]
pub(crate) enum FileArea {
    /// Outgoing, no file yet (`luo-v1`), or an incoming session that has none or gave its pages back.
    None,
    /// Outgoing `luo-v1`: two pages.
    Array(PhysAddr),
    /// Outgoing `luo-v5`.
    Blocks(v5::FileChain),
    /// Incoming: pages to give back when the session is finished.
    Found(Box<[PhysAddr]>),
}

/// What the handover said besides the sessions.
#[derive(Debug)]
pub(crate) struct Header {
    /// Live update number handed to this kernel.
    pub(crate) number: u64,
    /// Sessions.
    pub(crate) incoming: Incoming,
    /// Page of the file-lifecycle-bound objects; 0 if there is none.
    pub(crate) flbs: PhysAddr,
}

/// A session as found in a handover.
#[derive(Debug)]
pub(crate) struct FoundSession {
    pub(crate) name: SessionName,
    pub(crate) files: PhysAddr,
    pub(crate) count: u64,
}

impl FoundSession {
    pub(crate) fn from_record(record: &SessionRecord) -> Self {
        Self {
            name: SessionName::from_bytes(&record.name),
            files: PhysAddr::new(record.files.get()),
            count: record.count.get(),
        }
    }
}

impl FileArea {
    /// Makes sure one more record fits besides the `count` there are, before the descriptor is looked at.
    ///
    /// # Errors
    /// ENOSPC when full; ENOMEM.
    pub(crate) fn reserve(&mut self, mem: &mut Memory<'_>, count: u64) -> KResult<()> {
        match self {
            Self::None | Self::Array(_) => v1::check_room(count),
            Self::Blocks(chain) => chain.grow(mem, count),
            Self::Found(_) => Ok(()),
        }
    }

    /// Allocates what [`Self::reserve`] left for after the descriptor was found good.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn allocate(&mut self, mem: &mut Memory<'_>) -> KResult<()> {
        if let Self::None = self {
            *self = Self::Array(v1::alloc_files(mem)?);
        }
        Ok(())
    }

    /// Gives back what `count` records do not need.
    pub(crate) fn shrink(&mut self, mem: &mut Memory<'_>, count: u64) {
        match self {
            Self::Blocks(chain) => chain.shrink(mem, count),
            Self::Array(pages) if count == 0 => {
                mem.kho.unpreserve_free(mem.ram, *pages);
                *self = Self::None;
            }
            Self::None | Self::Array(_) | Self::Found(_) => {}
        }
    }

    /// Address of the record area for the session record; 0 if there are no files.
    pub(crate) fn head(&self) -> PhysAddr {
        match self {
            Self::None | Self::Found(_) => PhysAddr::NULL,
            Self::Array(pages) => *pages,
            Self::Blocks(chain) => chain.head(),
        }
    }

    /// Address of file record `index`.
    pub(crate) fn slot(&self, index: u64) -> PhysAddr {
        match self {
            Self::Array(pages) => v1::file_slot(*pages, index),
            Self::Blocks(chain) => chain.slot(index),
            Self::None | Self::Found(_) => unreachable!("only outgoing sessions with files are serialised"),
        }
    }

    /// Writes the counts that the area itself holds.
    pub(crate) fn write_counts(&self, mem: &mut Memory<'_>, count: u64) {
        if let Self::Blocks(chain) = self {
            chain.write_counts(mem, count);
        }
    }
}

impl Outgoing {
    /// Makes room for one more session besides the `count` there are.
    ///
    /// # Errors
    /// `luo-v1`: ENOMEM at 819. `luo-v5`: ENOSPC at 510,000; ENOMEM.
    pub(crate) fn reserve_session(&mut self, mem: &mut Memory<'_>, count: u64) -> KResult<()> {
        match self {
            Self::V1(_) => v1::check_session_room(count),
            Self::V5(out) => out.sessions.grow(mem, count),
        }
    }

    /// Gives back what `count` sessions do not need.
    pub(crate) fn shrink_sessions(&mut self, mem: &mut Memory<'_>, count: u64) {
        if let Self::V5(out) = self {
            out.sessions.shrink(mem, count);
        }
    }

    /// A fresh area for a new session's files.
    pub(crate) fn new_file_area(&self) -> FileArea {
        match self {
            Self::V1(_) => FileArea::None,
            Self::V5(_) => FileArea::Blocks(v5::FileChain::default()),
        }
    }

    /// Address of session record `index`.
    pub(crate) fn session_slot(&self, index: u64) -> PhysAddr {
        match self {
            Self::V1(out) => out.session_slot(index),
            Self::V5(out) => out.sessions.slot(index),
        }
    }

    /// The page of FLBs, where the release has them.
    pub(crate) fn flbs(&self) -> Option<PhysAddr> {
        match self {
            Self::V1(out) => out.flbs,
            Self::V5(out) => Some(out.flbs),
        }
    }

    /// First thing of a serialisation: the next kernel must find nothing if it stops half way.
    pub(crate) fn begin(&self, mem: &mut Memory<'_>) {
        if let Self::V5(out) = self {
            out.set_sessions(mem, PhysAddr::NULL);
        }
    }

    /// After a commit that came to nothing: the count of sessions is as it was before.
    pub(crate) fn take_back(&self, mem: &mut Memory<'_>) {
        match self {
            Self::V1(out) => out.set_count(mem, 0),
            Self::V5(out) => out.set_sessions(mem, PhysAddr::NULL),
        }
    }

    /// Last thing of a serialisation: `count` sessions are there.
    pub(crate) fn commit(&self, mem: &mut Memory<'_>, count: u64) {
        match self {
            Self::V1(out) => out.set_count(mem, count),
            Self::V5(out) => {
                out.sessions.write_counts(mem, count);
                out.set_sessions(mem, out.sessions.head());
            }
        }
    }
}

/// An empty page of FLBs.
fn alloc_flbs(mem: &mut Memory<'_>) -> KResult<PhysAddr> {
    let page = mem.kho.alloc_preserve(mem.ram, PAGE_SIZE, FrameUse::Luo)?;
    let table = FlbHeader { pgcnt: 1.into(), count: 0.into() };
    mem.ram.mem.write_obj(page, &table).expect("the page was just allocated");
    Ok(page)
}

/// A handover that LUO cannot read, at boot: the kernel panics with this errno.
pub(crate) type HeaderResult = Result<Header, Refusal>;
