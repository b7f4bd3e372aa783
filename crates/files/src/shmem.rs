//! Memory files: what is behind a memfd or a regular file on tmpfs.
//!
//! Contents lie in folios of physical memory; a hole costs nothing until it is written, mapped and touched,
//! allocated, or preserved. While LUO holds a file it is *frozen*: its size and layout may not change, its
//! contents may. Mirrors `mm/shmem.c` and `mm/memfd.c` as far as programs can tell.

mod host;
mod io;
mod resize;
mod seals;

use luosim_abi::{Errno, KResult, Refusal};
use luosim_luo::slab::Slab;
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Ram};

use crate::page_cache::{Folio, PageCache};

pub use host::Backing;
pub use io::Whence;
pub use seals::{MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_EXEC, MFD_HUGETLB, MFD_NOEXEC_SEAL, Seals};

/// Largest size and position.
pub const MAX_SIZE: u64 = 0x7fff_ffff_ffff_ffff;
/// Order of a huge folio: 2 MiB.
pub const HUGE: u32 = 9;

/// A memory file's inode in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

/// Where a memory file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShmemKind {
    /// `memfd_create`, or a retrieved file.
    Memfd,
    /// A file on a tmpfs mount.
    Tmpfs,
}

/// One memory file.
#[derive(Debug)]
pub struct Shmem {
    /// Inode number.
    pub ino: u64,
    /// Name given to `memfd_create`; empty for a retrieved file.
    pub name: Box<str>,
    /// Where it comes from.
    pub kind: ShmemKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names in a directory.
    pub nlink: u32,
    /// Prefer folios of 2 MiB.
    pub huge: bool,
    size: u64,
    seals: Seals,
    frozen: bool,
    pins: u32,
    /// Mappings of an IOMMU: its pages must stay where they are.
    device_maps: u32,
    /// Shared mappings through which a program may write.
    writable_mappings: u32,
    cache: PageCache,
    /// Pages as `st_blocks` counts them.
    accounted: u64,
    /// A file of a real program, whose pages are in memory only while LUO holds it.
    host: Option<Box<Backing>>,
    refs: u32,
}

/// What a new folio is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    /// Zeros that are contents.
    Zeroed,
    /// Nothing yet: it reads as zeros until it is used.
    Unused,
    /// The caller writes the whole page at once: zeroing it before would be for nothing.
    Overwritten,
}

fn no_memory() -> Refusal {
    Errno::ENOMEM.because("no free page for the file's contents")
}

impl Shmem {
    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its seals.
    #[must_use]
    pub fn seals(&self) -> Seals {
        self.seals
    }

    /// Whether LUO holds it.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Pages of memory it has.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.cache.pages()
    }

    /// `st_blocks`: 512-byte units.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.accounted * (PAGE_SIZE / 512)
    }

    /// Its folios with their page index, ascending.
    pub fn folios(&self) -> impl Iterator<Item = (u64, Folio)> + '_ {
        self.cache.iter()
    }

    /// Text of the link in `/proc/PID/fd`.
    #[must_use]
    pub fn link_text(&self) -> String {
        match self.kind {
            ShmemKind::Memfd if self.name.is_empty() => String::from("/ (deleted)"),
            ShmemKind::Memfd => format!("/memfd:{} (deleted)", self.name),
            ShmemKind::Tmpfs if self.nlink == 0 => format!("{} (deleted)", self.name),
            ShmemKind::Tmpfs => self.name.to_string(),
        }
    }

    /// In words, for reasons.
    #[must_use]
    pub fn describe(&self) -> String {
        let what = match self.kind {
            ShmemKind::Memfd => "memfd",
            ShmemKind::Tmpfs => "tmpfs file",
        };
        format!("{what} \"{}\" (inode {})", self.name.escape_default(), self.ino)
    }

    fn frozen_refusal(&self, what: &str) -> Refusal {
        let why = format!("{} is frozen: a live update session preserves it, {what}", self.describe());
        Errno::EPERM.because(why)
    }

    fn account_insert(&mut self, index: u64, folio: Folio) -> bool {
        let inserted = self.cache.insert(index, folio);
        if inserted {
            self.accounted += folio.order.pages();
        }
        inserted
    }

    /// Allocates a folio for page `index`: huge if the file prefers it and it fits in `end` pages.
    fn allocate(&mut self, ram: &mut Ram, index: u64, end: u64, fresh: Fresh) -> KResult<Folio> {
        let huge = Order::new(HUGE).expect("a small order");
        let first = index & !(huge.pages() - 1);
        let fits = self.huge && first + huge.pages() <= end && self.cache.is_vacant(index, huge);
        let order = if fits && ram.frames.stats().free >= huge.pages() { huge } else { Order::ZERO };
        let head = if fresh == Fresh::Overwritten && order == Order::ZERO {
            ram.alloc(order, FrameUse::PageCache)
        } else {
            ram.alloc_zeroed(order, FrameUse::PageCache)
        };
        let head =
            head.or_else(|| ram.alloc_zeroed(Order::ZERO, FrameUse::PageCache)).ok_or_else(no_memory)?;
        let order = match ram.frames.state(head) {
            luosim_physmem::FrameState::AllocatedHead(order) => order,
            state => unreachable!("just allocated, but {state}"),
        };
        let folio = Folio { head, order, uptodate: fresh != Fresh::Unused, dirty: false };
        let inserted = self.account_insert(index, folio);
        assert!(inserted, "page {index} of {} was vacant", self.describe());
        Ok(folio)
    }

    fn free_folio(&mut self, ram: &mut Ram, folio: Folio) {
        self.accounted = self.accounted.saturating_sub(folio.order.pages());
        ram.free(folio.head).expect("the file owns its folios");
    }

    /// Fills every hole of the first `pages` pages with zeros and pins the file (what preserving does).
    pub(crate) fn fill_holes(&mut self, ram: &mut Ram, pages: u64) -> KResult<()> {
        let missing = pages.saturating_sub(self.cache.pages().min(pages));
        if missing > ram.frames.stats().free + pages.min(self.cache.pages()) {
            return Err(no_memory());
        }
        let mut from = 0;
        while let Some(index) = self.cache.first_vacant(from, pages) {
            self.allocate(ram, index, pages, Fresh::Zeroed)?;
            from = index + 1;
        }
        Ok(())
    }

    /// Makes the first `pages` pages, as zeros where there are none, and marks them used: what pinning them does.
    ///
    /// # Errors
    /// EPERM: a page would have to be added, and the file is frozen; ENOMEM.
    pub fn populate(&mut self, ram: &mut Ram, pages: u64) -> KResult<()> {
        if self.frozen && self.cache.first_vacant(0, pages).is_some() {
            return Err(self.frozen_refusal("no page can be added"));
        }
        self.fill_holes(ram, pages)?;
        self.make_uptodate(ram);
        Ok(())
    }

    /// The folio that holds page `index`.
    #[must_use]
    pub fn page(&self, index: u64) -> Option<Folio> {
        self.cache.get(index)
    }

    /// Pins the file for a mapping of an IOMMU. The caller holds a reference on it meanwhile.
    pub fn map_for_device(&mut self) {
        self.device_maps += 1;
        self.pins += 1;
    }

    /// Undoes [`Self::map_for_device`].
    pub fn unmap_for_device(&mut self) {
        self.device_maps = self.device_maps.saturating_sub(1);
        self.unpin();
    }

    /// Refuses to take pages out while devices reach them. A kernel would take them out and keep them for the device alone, which
    /// is not modelled.
    pub(crate) fn check_device_maps(&self) -> KResult<()> {
        if self.device_maps == 0 {
            return Ok(());
        }
        Err(Errno::EBUSY.because(format!("{} is mapped for devices", self.describe())))
    }

    pub(crate) fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    pub(crate) fn pin(&mut self) {
        self.pins += 1;
    }

    pub(crate) fn unpin(&mut self) {
        self.pins = self.pins.saturating_sub(1);
    }

    /// Zeroes folios that were allocated but never used, and marks everything used and written (`memfd-v2`).
    pub(crate) fn make_uptodate(&mut self, ram: &mut Ram) {
        let stale: Vec<(u64, Folio)> = self.cache.iter().filter(|(_, folio)| !folio.uptodate).collect();
        for (_, folio) in stale {
            ram.mem.fill(folio.head.addr(), folio.order.bytes(), 0).expect("folios lie in memory");
        }
        self.cache.mark_all();
    }

    /// A file rebuilt from a handover: size and seals as given.
    pub(crate) fn rebuild(&mut self, size: u64, seals: Seals) {
        self.size = size;
        self.seals = seals;
    }

    /// Puts a restored folio in; `blocks` pages are accounted for it. `false` if a page of it is there.
    pub(crate) fn insert_restored(&mut self, index: u64, folio: Folio, blocks: u64) -> bool {
        let inserted = self.cache.insert(index, folio);
        if inserted {
            self.accounted += blocks;
        }
        inserted
    }
}

/// All memory files of a kernel.
#[derive(Debug, Default)]
pub struct InodeTable {
    files: Slab<Shmem>,
    last_ino: u64,
}

impl InodeTable {
    /// Makes an empty file with one reference.
    pub fn create(&mut self, kind: ShmemKind, name: &str, mode: u32, seals: Seals) -> InodeId {
        self.last_ino += 1;
        let inode = Shmem {
            ino: self.last_ino,
            name: name.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            nlink: 0,
            huge: false,
            size: 0,
            seals,
            frozen: false,
            pins: 0,
            device_maps: 0,
            writable_mappings: 0,
            cache: PageCache::default(),
            accounted: 0,
            host: None,
            refs: 1,
        };
        InodeId(self.files.insert(inode))
    }

    /// The file.
    ///
    /// # Panics
    /// If it is gone: whoever has an [`InodeId`] has a reference.
    #[must_use]
    pub fn get(&self, inode: InodeId) -> &Shmem {
        self.find(inode).expect("whoever has the id has a reference")
    }

    /// The file, to change it.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub fn get_mut(&mut self, inode: InodeId) -> &mut Shmem {
        self.files.get_mut(inode.0).expect("whoever has the id has a reference")
    }

    /// The file, if there is one with this id.
    #[must_use]
    pub fn find(&self, inode: InodeId) -> Option<&Shmem> {
        self.files.get(inode.0)
    }

    /// Files that exist.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// One more reference.
    pub fn get_ref(&mut self, inode: InodeId) {
        self.get_mut(inode).refs += 1;
    }

    /// One reference less; at the last the file's memory is freed.
    pub fn put(&mut self, ram: &mut Ram, inode: InodeId) {
        let file = self.get_mut(inode);
        file.refs -= 1;
        // A file that LUO keeps pinned by mistake (6.19, misused) has lost its owner: the frames leak.
        if file.refs > 0 || file.pins > 0 {
            return;
        }
        for folio in file.cache.drain() {
            ram.free(folio.head).expect("the file owns its folios");
        }
        self.files.take(inode.0);
    }
}
