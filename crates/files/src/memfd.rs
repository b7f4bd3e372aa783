//! The memfd handler: memory files without a name, over a kexec (`mm/memfd_luo.c`).
//!
//! Preserved is the memory: every page of the size, holes filled. A structure in a page of its own names
//! size, position, seals (`memfd-v2`) and a table of folios; the table is carried as a vmalloc area. Contents
//! are never copied: the next kernel puts the same frames into a new file. Lost: name, mode, owner, flags,
//! pages beyond the size; `memfd-v1` also loses seals.

mod preserve;
mod retrieve;

use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::memfd::{v1, v2};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::release::MemfdVersion;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Context, FileHandler, FileId, Host, Identity, RetrieveStatus};
use luosim_physmem::{PhysAddr, PhysMem};

use crate::file::FileKind;
use crate::shmem::{InodeId, Shmem};
use crate::{Files, HasFiles};

/// The handler of one kernel.
#[derive(Clone, Copy, Debug)]
pub struct MemfdHandler {
    version: MemfdVersion,
    quirks: Quirks,
}

/// Where seals stand with `memfd-v1` and quirk `seals-not-carried` off: luosim's own, in no kernel.
const EXTRA_SEALS_AT: u64 = 2048;
/// Tells seals from none.
const EXTRA_SEALS_PRESENT: u64 = 1 << 63;

/// A file's structure, whichever version.
#[derive(Clone, Copy, Debug)]
struct Saved {
    pos: u64,
    size: u64,
    /// `memfd-v1` has none.
    seals: Option<u32>,
    folios: u64,
    area: Descriptor,
}

impl MemfdHandler {
    /// The handler of this version, with the release's quirks.
    #[must_use]
    pub fn new(version: MemfdVersion, quirks: Quirks) -> Self {
        Self { version, quirks }
    }

    /// Seals behind a structure of `memfd-v1`.
    fn extra_seals(&self, mem: &PhysMem, data: u64) -> Option<u32> {
        if self.quirks.has(Quirk::SealsNotCarried) {
            return None;
        }
        let word = mem.read_u64(PhysAddr::new(data + EXTRA_SEALS_AT)).ok()?;
        (word & EXTRA_SEALS_PRESENT != 0).then(|| u32::try_from(word & 0xffff_ffff).expect("32 bits"))
    }

    fn read(&self, mem: &PhysMem, data: u64) -> KResult<Saved> {
        let at = PhysAddr::new(data);
        let bad = |error| Errno::EINVAL.because(format!("the file's structure cannot be read: {error}"));
        Ok(match self.version {
            MemfdVersion::V1 => {
                let ser = mem.read_obj::<v1::MemfdSer>(at).map_err(bad)?;
                let (pos, size, folios) = (ser.pos.get(), ser.size.get(), ser.nr_folios.get());
                Saved { pos, size, seals: self.extra_seals(mem, data), folios, area: ser.folios }
            }
            MemfdVersion::V2 => {
                let ser = mem.read_obj::<v2::MemfdSer>(at).map_err(bad)?;
                let (pos, size, folios) = (ser.pos.get(), ser.size.get(), ser.nr_folios.get());
                Saved { pos, size, seals: Some(ser.seals.get()), folios, area: ser.folios }
            }
        })
    }
}

fn shmem_of(files: &Files, file: FileId) -> Option<InodeId> {
    match files.table.get(file).kind {
        FileKind::Shmem(inode) => Some(inode),
        _ => None,
    }
}

fn inode_of(files: &Files, file: FileId) -> &Shmem {
    let inode = shmem_of(files, file).expect("only memory files are given to this handler");
    files.inodes.get(inode)
}

impl<H: Host + HasFiles> FileHandler<H> for MemfdHandler {
    fn compatible(&self) -> &'static str {
        self.version.compatible()
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        shmem_of(host.files(), file).is_some_and(|inode| host.files().inodes.get(inode).nlink == 0)
    }

    fn identity(&self, host: &H, file: FileId) -> Identity {
        Identity(inode_of(host.files(), file).ino)
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        inode_of(host.files(), file).describe()
    }

    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64> {
        self.preserve_file(cx.host, file)
    }

    fn unpreserve(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) {
        self.unpreserve_file(cx.host, file, data);
    }

    fn freeze(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) -> KResult<u64> {
        let (files, mut memory) = cx.host.files_and_memory();
        self.freeze_file(files, &mut memory, file, data);
        Ok(data)
    }

    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId> {
        self.retrieve_file(cx.host, data)
    }

    fn finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, data: u64) {
        if status == RetrieveStatus::Untried {
            self.discard(cx.host, data);
        }
    }
}
