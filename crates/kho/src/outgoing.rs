//! The preserve side: blocks, page runs, allocations, subtrees, metadata, and what is passed at a kexec.

use luosim_abi::kho::metadata::{self, Metadata};
use luosim_abi::kho::{PROP_MEMORY_MAP, scratch as scratch_abi, v1, v3};
use luosim_abi::release::{Finalize, Release};
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
    release: &'static Release,
    /// Page of the root tree. None in a 6.18 that is not finalised: it makes a tree only then.
    root: Option<PhysAddr>,
    pub(crate) tracker: Tracker,
    map: PhysAddr,
    /// Newest last.
    subtrees: Vec<(String, PhysAddr, u64)>,
}

impl Outgoing {
    /// Tracker and root page. The tree is yet to be written.
    pub(crate) fn new(ram: &mut Ram, release: &'static Release) -> KResult<Self> {
        let mut tracker = Tracker::new(ram, release.kho)?;
        let map = if release.kho.is_radix() { tracker.finalize(ram)? } else { PhysAddr::NULL };
        let mut out = Self { release, root: None, tracker, map, subtrees: Vec::new() };
        if release.finalize != Finalize::BeforeLoad {
            out.make_root(ram)?;
        }
        Ok(out)
    }

    fn make_root(&mut self, ram: &mut Ram) -> KResult<()> {
        let root = ram.alloc_zeroed(Order::ZERO, FrameUse::Fdt).ok_or_else(|| no_pages(PAGE_SIZE))?;
        self.tracker.add(ram, root, Order::ZERO)?;
        self.root = Some(root.addr());
        Ok(())
    }

    /// Whether 6.18's set of preserved pages is closed.
    fn closed(&self) -> bool {
        self.release.finalize == Finalize::BeforeLoad && self.root.is_some()
    }

    fn tree(&self) -> Tree {
        let version = self.release.kho;
        let root = Node::new(version.compatible()).with_u64(PROP_MEMORY_MAP, self.map.raw());
        let add = |root: Node, (name, blob, size): &(String, PhysAddr, u64)| {
            let node = Node::default();
            let node = if version.is_radix() { node.with_u64(v3::PROP_SIZE, *size) } else { node };
            let property = if version.is_radix() { v3::PROP_SUBTREE } else { v1::PROP_SUBTREE };
            root.with_child(name, node.with_u64(property, blob.raw()))
        };
        // 6.18 writes the tree from its beginning to its end; later ones put a new node before the others.
        Tree::new(match self.release.finalize {
            Finalize::BeforeLoad => self.subtrees.iter().fold(root, add),
            Finalize::AtReboot | Finalize::Never => self.subtrees.iter().rev().fold(root, add),
        })
    }

    /// Writes the tree over the old one, in its page, if there is one.
    pub(crate) fn write_tree(&self, ram: &mut Ram) -> KResult<()> {
        let Some(page) = self.root else { return Ok(()) };
        let blob = self.tree().try_to_blob().map_err(|error| Errno::EINVAL.because(error.to_string()))?;
        if blob.len() > ROOT_ROOM {
            let count = self.subtrees.len();
            return Err(Errno::ENOMEM.because(format!("the root tree with {count} subtrees exceeds a page")));
        }
        ram.mem.write(page, &blob).expect("the root page lies in memory");
        Ok(())
    }

    fn finalize(&mut self, ram: &mut Ram) -> KResult<()> {
        if self.root.is_none() {
            self.make_root(ram)?;
        }
        self.map = self.tracker.finalize(ram)?;
        self.write_tree(ram)
    }

    /// 6.18: opens the set again, and forgets everything that was in it. In the posted designs, which preserve by calls and
    /// not when they are told, it stays.
    fn abort(&mut self, ram: &mut Ram) {
        if self.release.posted.is_none() {
            self.tracker.clear(ram);
        }
        if let Some(root) = self.root.take() {
            self.tracker.remove(ram, root.pfn(), Order::ZERO);
            ram.free(root.pfn()).expect("the root page is this kernel's");
        }
        self.map = PhysAddr::NULL;
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
    /// EINVAL: KHO off, or in scratch (debug builds of the kernel); ENOMEM; EBUSY: finalised (6.18).
    pub fn preserve_folio(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) -> KResult<()> {
        self.check_scratch(pfn, order.pages())?;
        let out = self.out_mut()?;
        if out.closed() {
            return Err(Errno::EBUSY.because("KHO is finalised: nothing more can be preserved"));
        }
        out.tracker.add(ram, pfn, order)
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

    /// `kho-v1`: writes the list of bitmaps and its address into the root tree; from 6.19 on it may be repeated. Later
    /// versions need no such step.
    ///
    /// # Errors
    /// ENOMEM: what was finalised before stays; EINVAL with KHO off.
    pub fn finalize(&mut self, ram: &mut Ram, log: &mut KernelLog) -> KResult<()> {
        let out = self.out_mut()?;
        if out.release.finalize == Finalize::Never {
            return Ok(());
        }
        out.finalize(ram).inspect_err(|refusal| {
            log.err(format!("KHO: Failed to convert KHO state tree: {refusal}"));
            if out.release.finalize == Finalize::BeforeLoad {
                out.abort(ram);
            }
        })
    }

    /// Writes to the control file `finalize` in debugfs.
    ///
    /// # Errors
    /// ENOENT: no such file (7.1 and later, or KHO off), or, in 6.18, 0 when nothing was finalised. EEXIST: 6.18, not 0
    /// when it was. EINVAL: 0 in 6.19 and 7.0. ENOMEM.
    pub fn write_finalize(&mut self, ram: &mut Ram, log: &mut KernelLog, value: u64) -> KResult<()> {
        let none = || Errno::ENOENT.because("this kernel's KHO has no finalize file");
        let out = self.out.as_mut().ok_or_else(none)?;
        match (out.release.finalize, value) {
            (Finalize::Never, _) => return Err(none()),
            (Finalize::AtReboot, 0) => {
                return Err(Errno::EINVAL.because("what was finalised cannot be taken back"));
            }
            (Finalize::BeforeLoad, 0) if !out.closed() => {
                return Err(Errno::ENOENT.because("KHO is not finalised"));
            }
            (Finalize::BeforeLoad, 0) => {
                out.abort(ram);
                return Ok(());
            }
            (Finalize::BeforeLoad, _) if out.closed() => {
                return Err(Errno::EEXIST.because("KHO is finalised already"));
            }
            (Finalize::AtReboot | Finalize::BeforeLoad, _) => {}
        }
        self.finalize(ram, log)
    }

    /// What is preserved now.
    ///
    /// # Errors
    /// EINVAL with KHO off.
    pub fn tally(&self) -> KResult<&Tally> {
        Ok(self.out()?.tracker.tally())
    }

    /// What an image loaded now passes on: writes the scratch array's copy into scratch. Nothing in a 6.18 that is not
    /// finalised.
    ///
    /// # Errors
    /// EADDRNOTAVAIL if scratch has no room for it; EINVAL with KHO off.
    pub fn params_for_kexec(&self, ram: &mut Ram) -> KResult<Option<BootParams>> {
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
        Ok(out.root.map(|fdt| BootParams { fdt, fdt_size: PAGE_SIZE, scratch: at, scratch_size }))
    }

    /// Why an image that was loaded by the right call got nothing from [`Self::params_for_kexec`].
    #[must_use]
    pub fn why_nothing_passed(&self) -> &'static str {
        match self.config.release.finalize {
            Finalize::BeforeLoad if self.enabled => "KHO was not finalised when the image was loaded",
            _ => "KHO was off when the image was loaded",
        }
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
