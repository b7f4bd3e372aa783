//! The preserve side: blocks, page runs, allocations, subtrees, metadata, and what is passed at a kexec.

use luosim_abi::kho::metadata::{self, Metadata};
use luosim_abi::kho::{PROP_MEMORY_MAP, scratch as scratch_abi, v1, v4};
use luosim_abi::release::KhoVersion;
use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Pfn, PhysAddr, Ram};

use crate::fdt::{Node, Tree};
use crate::log::KernelLog;
use crate::run::split;
use crate::tracker::{Tally, Tracker};
use crate::{BootParams, Kho};

/// Bytes of the page that the root tree must fit in.
const ROOT_ROOM: usize = 4096;

/// This kernel's root tree and tracker.
#[derive(Debug)]
pub(crate) struct Outgoing {
    root: PhysAddr,
    pub(crate) tracker: Tracker,
    map: PhysAddr,
    /// Newest last; the tree lists them newest first.
    subtrees: Vec<(String, PhysAddr, u64)>,
}

impl Outgoing {
    /// Tracker and root page. The tree is yet to be written.
    pub(crate) fn new(ram: &mut Ram, version: KhoVersion) -> KResult<Self> {
        let mut tracker = Tracker::new(ram, version)?;
        let map = match version {
            KhoVersion::V1 => PhysAddr::NULL,
            KhoVersion::V4 => tracker.finalize(ram)?,
        };
        let root = ram.alloc_zeroed(Order::ZERO, FrameUse::Fdt).ok_or_else(|| no_pages(PAGE_SIZE))?;
        tracker.add(ram, root, Order::ZERO)?;
        Ok(Self { root: root.addr(), tracker, map, subtrees: Vec::new() })
    }

    fn version(&self) -> KhoVersion {
        match self.tracker {
            Tracker::Bitmaps(_) => KhoVersion::V1,
            Tracker::Radix(_) => KhoVersion::V4,
        }
    }

    fn tree(&self) -> Tree {
        let version = self.version();
        let root = Node::new(version.compatible()).with_u64(PROP_MEMORY_MAP, self.map.raw());
        Tree::new(self.subtrees.iter().rev().fold(root, |root, (name, blob, size)| {
            root.with_child(
                name,
                match version {
                    KhoVersion::V1 => Node::default().with_u64(v1::PROP_SUBTREE, blob.raw()),
                    KhoVersion::V4 => {
                        Node::default().with_u64(v4::PROP_SIZE, *size).with_u64(v4::PROP_SUBTREE, blob.raw())
                    }
                },
            )
        }))
    }

    /// Writes the tree over the old one, in its page.
    pub(crate) fn write_tree(&self, ram: &mut Ram) -> KResult<()> {
        let blob = self.tree().try_to_blob().map_err(|error| Errno::EINVAL.because(error.to_string()))?;
        if blob.len() > ROOT_ROOM {
            let count = self.subtrees.len();
            return Err(Errno::ENOMEM.because(format!("the root tree with {count} subtrees exceeds a page")));
        }
        ram.mem.write(self.root, &blob).expect("the root page lies in memory");
        Ok(())
    }
}

fn no_pages(bytes: u64) -> luosim_abi::Refusal {
    Errno::ENOMEM.because(format!("no free block of {bytes} bytes"))
}

impl Kho {
    fn check_scratch(&self, pfn: Pfn, pages: u64) -> KResult<()> {
        if self.config.debug && self.scratch.iter().any(|area| area.overlaps(pfn, pages)) {
            return Err(Errno::EINVAL.because(format!("{pages} pages at {pfn} lie in scratch")));
        }
        Ok(())
    }

    /// Preserves a block with its own order.
    ///
    /// # Errors
    /// EINVAL: KHO off, or in scratch (debug builds of the kernel); ENOMEM.
    pub fn preserve_folio(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) -> KResult<()> {
        self.check_scratch(pfn, order.pages())?;
        self.out_mut()?.tracker.add(ram, pfn, order)
    }

    /// Gives a block back; nothing if it is not preserved with this order.
    pub fn unpreserve_folio(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) {
        if let Some(out) = self.out.as_mut() {
            out.tracker.remove(ram, pfn, order);
        }
    }

    /// Preserves `pages` pages as the largest blocks that fit.
    ///
    /// # Errors
    /// As [`Self::preserve_folio`]; nothing stays preserved.
    pub fn preserve_pages(&mut self, ram: &mut Ram, pfn: Pfn, pages: u64) -> KResult<()> {
        self.check_scratch(pfn, pages)?;
        let mut done = 0;
        for (block, order) in split(pfn, pages) {
            if let Err(refusal) = self.preserve_folio(ram, block, order) {
                self.unpreserve_pages(ram, pfn, done);
                return Err(refusal);
            }
            done += order.pages();
        }
        Ok(())
    }

    /// Gives a run back; it must be the run that was preserved.
    pub fn unpreserve_pages(&mut self, ram: &mut Ram, pfn: Pfn, pages: u64) {
        for (block, order) in split(pfn, pages) {
            self.unpreserve_folio(ram, block, order);
        }
    }

    /// Allocates zeroed memory that is preserved from the start: `bytes` rounded up to a block.
    ///
    /// # Errors
    /// EINVAL for 0 bytes; E2BIG above 4 MiB; ENOMEM; EINVAL with KHO off.
    pub fn alloc_preserve(&mut self, ram: &mut Ram, bytes: u64, purpose: FrameUse) -> KResult<PhysAddr> {
        if bytes == 0 {
            return Err(Errno::EINVAL.because("nothing to allocate: 0 bytes"));
        }
        let order = Order::holding(bytes).filter(|order| *order <= Order::MAX_BUDDY);
        let order =
            order.ok_or_else(|| Errno::E2BIG.because(format!("{bytes} bytes are more than 4 MiB")))?;
        let pfn = ram.alloc_zeroed(order, purpose).ok_or_else(|| no_pages(order.bytes()))?;
        if let Err(refusal) = self.preserve_folio(ram, pfn, order) {
            ram.free(pfn).expect("allocated above");
            return Err(refusal);
        }
        Ok(pfn.addr())
    }

    /// Gives back what [`Self::alloc_preserve`] gave.
    pub fn unpreserve_free(&mut self, ram: &mut Ram, addr: PhysAddr) {
        if let luosim_physmem::FrameState::AllocatedHead(order) = ram.frames.state(addr.pfn()) {
            self.unpreserve_folio(ram, addr.pfn(), order);
            ram.free(addr.pfn()).expect("it is the head of an allocated block");
        }
    }

    /// Registers a blob, which the caller preserves, in the root tree.
    ///
    /// # Errors
    /// EEXIST; ENOMEM when the tree exceeds its page; EINVAL with KHO off, or for a name that is none of a
    /// node. The tree is as it was.
    pub fn add_subtree(&mut self, ram: &mut Ram, name: &str, blob: PhysAddr, size: u64) -> KResult<()> {
        let out = self.out_mut()?;
        if out.subtrees.iter().any(|(found, ..)| found == name) {
            return Err(Errno::EEXIST.because(format!("a subtree '{name}' is registered already")));
        }
        out.subtrees.push((name.to_owned(), blob, size));
        out.write_tree(ram).inspect_err(|_| drop(out.subtrees.pop()))
    }

    /// Takes the first subtree with this blob, the newest, out of the root tree; nothing if there is none.
    pub fn remove_subtree(&mut self, ram: &mut Ram, blob: PhysAddr) {
        let Some(out) = self.out.as_mut() else { return };
        if let Some(index) = out.subtrees.iter().rposition(|(_, found, _)| *found == blob) {
            out.subtrees.remove(index);
            out.write_tree(ram).expect("a tree that fitted fits with a subtree less");
        }
    }

    /// `kho-v1`: writes the list of bitmaps and its address into the root tree; may be repeated. Later
    /// versions need no such step.
    ///
    /// # Errors
    /// ENOMEM: what was finalised before stays; EINVAL with KHO off.
    pub fn finalize(&mut self, ram: &mut Ram, log: &mut KernelLog) -> KResult<()> {
        let out = self.out_mut()?;
        if out.version() == KhoVersion::V4 {
            return Ok(());
        }
        out.map = out.tracker.finalize(ram).inspect_err(|refusal| {
            log.err(format!("KHO: Failed to convert KHO state tree: {refusal}"));
        })?;
        out.write_tree(ram)
    }

    /// What is preserved now.
    ///
    /// # Errors
    /// EINVAL with KHO off.
    pub fn tally(&self) -> KResult<&Tally> {
        Ok(self.out()?.tracker.tally())
    }

    /// What an image loaded now passes on: writes the scratch array's copy into scratch.
    ///
    /// # Errors
    /// EADDRNOTAVAIL if scratch has no room for it; EINVAL with KHO off.
    pub fn params_for_kexec(&self, ram: &mut Ram) -> KResult<BootParams> {
        let out = self.out()?;
        let scratch_size = scratch_abi::ENTRY_SIZE * u64::try_from(self.scratch.len()).expect("few areas");
        let at = self
            .place_copy(scratch_size)
            .ok_or_else(|| Errno::EADDRNOTAVAIL.because("scratch is too small to place the image in it"))?;
        for (index, area) in (0u64..).zip(&self.scratch) {
            let entry = scratch_abi::Entry { addr: area.addr.raw().into(), size: area.size.into() };
            let slot = at.checked_add(index * scratch_abi::ENTRY_SIZE).expect("inside scratch");
            ram.mem.write_obj(slot, &entry).expect("scratch lies in memory");
        }
        Ok(BootParams { fdt: out.root, fdt_size: PAGE_SIZE, scratch: at, scratch_size })
    }

    /// The highest 64 KiB border in a scratch area with `bytes` behind it.
    fn place_copy(&self, bytes: u64) -> Option<PhysAddr> {
        self.scratch.iter().find_map(|area| {
            let end = area.addr.raw() + area.size;
            let at = end.checked_sub(bytes)?;
            let at = at - at % scratch_abi::COPY_ALIGN;
            (area.size >= bytes && at >= area.addr.raw()).then(|| PhysAddr::new(at))
        })
    }

    pub(crate) fn write_metadata(&mut self, ram: &mut Ram) -> KResult<()> {
        let page = self.alloc_preserve(ram, metadata::SIZE, FrameUse::Metadata)?;
        let blob = Metadata::new(self.config.release.point, self.kexec_count.wrapping_add(1));
        ram.mem.write_obj(page, &blob).expect("the page was just allocated");
        self.add_subtree(ram, metadata::SUBTREE, page, metadata::SIZE)
    }
}
