//! PRESERVE_FD of a memory file, and its undoing.

use luosim_abi::kho::vmalloc::{Descriptor, FLAG_PLAIN};
use luosim_abi::memfd::folio::{DIRTY, FolioEntry, PER_PAGE, UPTODATE};
use luosim_abi::memfd::{v1, v2};
use luosim_abi::quirk::Quirk;
use luosim_abi::release::MemfdVersion;
use luosim_abi::{Errno, KResult};
use luosim_luo::{FileId, Host, Memory};
use luosim_physmem::{FrameState, FrameUse, Order, PAGE_SIZE, Pfn, PhysAddr};
use zerocopy::{FromZeros, IntoBytes};

use super::{EXTRA_SEALS_AT, EXTRA_SEALS_PRESENT, MemfdHandler, shmem_of};
use crate::shmem::{InodeId, Seals, Shmem};
use crate::{Files, HasFiles};

/// Most bytes of the temporary array of page pointers: above, the kernel's allocator refuses.
const MAX_ARRAY: u64 = 0x7fff_ffff;

impl MemfdHandler {
    pub(super) fn preserve_file<H: Host + HasFiles>(&self, host: &mut H, file: FileId) -> KResult<u64> {
        let (files, mut memory) = host.files_and_memory();
        let inode = shmem_of(files, file).expect("can_preserve was asked");
        self.check_mode(files, file)?;
        let was_frozen = files.inodes.get(inode).frozen();
        files.inodes.get_mut(inode).set_frozen(true);
        let result = self.preserve_inode(files, &mut memory, inode, file);
        let inode = files.inodes.get_mut(inode);
        match result {
            Ok(data) => {
                inode.pin();
                Ok(data)
            }
            Err(refusal) => {
                let stays = was_frozen && self.quirks.has(Quirk::SameInodeTwice);
                inode.set_frozen(stays || self.quirks.has(Quirk::FrozenAfterError));
                Err(refusal)
            }
        }
    }

    /// What comes back is open for reading and writing: a description that is not would gain by it.
    fn check_mode(&self, files: &Files, file: FileId) -> KResult<()> {
        let open = files.table.get(file);
        if open.readable() && open.writable() || self.quirks.has(Quirk::AccessModeGrows) {
            return Ok(());
        }
        Err(Errno::EACCES
            .because("the description is not open for reading and writing, as the file would come back"))
    }

    fn preserve_inode(
        &self,
        files: &mut Files,
        memory: &mut Memory<'_>,
        inode: InodeId,
        file: FileId,
    ) -> KResult<u64> {
        let page = memory.kho.alloc_preserve(memory.ram, PAGE_SIZE, FrameUse::HandlerData)?;
        let pos = files.table.get(file).pos;
        let inode = files.inodes.get_mut(inode);
        match self.preserve_contents(inode, memory) {
            Ok((folios, area)) => {
                self.write(memory, page, (pos, inode.size(), inode.seals()), folios, area);
                Ok(page.raw())
            }
            Err(refusal) => {
                memory.kho.unpreserve_free(memory.ram, page);
                Err(refusal)
            }
        }
    }

    fn write(
        &self,
        memory: &mut Memory<'_>,
        page: PhysAddr,
        (pos, size, seals): (u64, u64, Seals),
        folios: u64,
        area: Descriptor,
    ) {
        let (pos, size, nr_folios, folios) = (pos.into(), size.into(), folios.into(), area);
        let written = match self.version {
            MemfdVersion::V1 => {
                memory.ram.mem.write_obj(page, &v1::MemfdSer { pos, size, nr_folios, folios })
            }
            MemfdVersion::V2 => {
                let seals = if self.quirks.has(Quirk::SealsNotCarried) { Seals::SEAL } else { seals };
                let (seals, flags) = (seals.0.into(), 0.into());
                memory.ram.mem.write_obj(page, &v2::MemfdSer { pos, size, seals, flags, nr_folios, folios })
            }
        };
        written.expect("the page was just allocated");
        self.write_late_seals(memory, page.raw(), seals);
    }

    /// Seals where `memfd-v1` has no field for them: behind the structure, with quirk `seals-not-carried` off.
    fn write_late_seals(&self, memory: &mut Memory<'_>, data: u64, seals: Seals) {
        if self.version == MemfdVersion::V1 && !self.quirks.has(Quirk::SealsNotCarried) {
            let word = u64::from(seals.0) | EXTRA_SEALS_PRESENT;
            memory
                .ram
                .mem
                .write_u64(PhysAddr::new(data + EXTRA_SEALS_AT), word)
                .expect("inside the structure's page");
        }
    }

    /// The last look at a file before the jump: its position, and seals that were added since.
    pub(super) fn freeze_file(&self, files: &Files, memory: &mut Memory<'_>, file: FileId, data: u64) {
        if !self.quirks.has(Quirk::PositionAtPreserve) {
            let pos = files.table.get(file).pos;
            memory
                .ram
                .mem
                .write_u64(PhysAddr::new(data), pos)
                .expect("the structure is a page of this kernel");
        }
        if self.quirks.has(Quirk::LateSealsLost) || self.quirks.has(Quirk::SealsNotCarried) {
            return;
        }
        let inode = shmem_of(files, file).expect("the handler preserved it");
        let seals = files.inodes.get(inode).seals();
        if self.version == MemfdVersion::V2 {
            let field = data + u64::try_from(std::mem::offset_of!(v2::MemfdSer, seals)).expect("small");
            let bytes = seals.0.to_le_bytes();
            memory
                .ram
                .mem
                .write(PhysAddr::new(field), &bytes)
                .expect("the structure is a page of this kernel");
        } else {
            self.write_late_seals(memory, data, seals);
        }
    }

    /// Pages to preserve, by the release's arithmetic.
    fn pages(&self, inode: &Shmem) -> KResult<u64> {
        let pages = inode.size().div_ceil(PAGE_SIZE);
        let pages = if self.quirks.has(Quirk::LargeFileTruncatedCount) {
            let cut = pages & 0xffff_ffff;
            if cut == 0 && pages != 0 {
                return Err(Errno::EINVAL.because(format!("{pages} pages are 0 in 32 bits: nothing to pin")));
            }
            cut
        } else if pages > 0xffff_ffff {
            return Err(Errno::EFBIG.because(format!("{pages} pages are more than 2^32 - 1")));
        } else {
            pages
        };
        if pages * 8 > MAX_ARRAY {
            return Err(Errno::ENOMEM.because(format!("no room for an array of {pages} page pointers")));
        }
        Ok(pages)
    }

    fn preserve_contents(&self, inode: &mut Shmem, memory: &mut Memory<'_>) -> KResult<(u64, Descriptor)> {
        if inode.size() == 0 {
            return Ok((0, Descriptor::new_zeroed()));
        }
        let pages = self.pages(inode)?;
        if inode.host().is_some() {
            inode.adopt(memory.ram, pages)?;
        } else {
            inode.fill_holes(memory.ram, pages)?;
        }
        if !self.quirks.has(Quirk::FolioFlagsAtPreserve) {
            inode.make_uptodate(memory.ram);
        }
        let mut table = Table { skip_one: self.quirks.has(Quirk::FolioSkipped), ..Table::default() };
        let result = table.fill(inode, memory, pages);
        let result = result
            .and_then(|()| memory.kho.preserve_vmalloc(memory.ram, &table.pages, FLAG_PLAIN, Order::ZERO));
        match result {
            Ok(area) => Ok((table.count, area)),
            Err(refusal) => {
                table.undo(inode, memory, self.quirks.has(Quirk::PreserveErrorUnits));
                Err(refusal)
            }
        }
    }

    pub(super) fn unpreserve_file<H: Host + HasFiles>(&self, host: &mut H, file: FileId, data: u64) {
        let (files, memory) = host.files_and_memory();
        let inode = shmem_of(files, file).expect("the handler preserved it");
        let inode = files.inodes.get_mut(inode);
        inode.set_frozen(false);
        inode.unpin();
        let Ok(saved) = self.read(&memory.ram.mem, data) else { return };
        let pages = memory.kho.unpreserve_vmalloc(memory.ram, &saved.area);
        let mut left = saved.folios;
        for page in &pages {
            left -= unpreserve_entries(memory.kho, memory.ram, *page, left);
            if memory.ram.free(page.pfn()).is_err() {
                memory.log.warn(format!("memfd_luo: page {page} of the folio table is not ours"));
            }
        }
        memory.kho.unpreserve_free(memory.ram, PhysAddr::new(data));
    }
}

/// Gives back the folios that one page of the table lists, at most `left`; returns how many.
fn unpreserve_entries(
    kho: &mut luosim_kho::Kho,
    ram: &mut luosim_physmem::Ram,
    page: PhysAddr,
    left: u64,
) -> u64 {
    let mut entries = [FolioEntry::new_zeroed(); 256];
    if ram.mem.read(page, entries.as_mut_bytes()).is_err() {
        return 0;
    }
    let count = left.min(PER_PAGE);
    for entry in &entries[..usize::try_from(count).expect("at most a page")] {
        let head = Pfn::new(entry.pfn());
        if let FrameState::AllocatedHead(order) = ram.frames.state(head) {
            kho.unpreserve_folio(ram, head, order);
        }
    }
    count
}

/// The folio table while it is written, a page of entries at a time.
#[derive(Default)]
struct Table {
    pages: Vec<PhysAddr>,
    count: u64,
    /// Quirk `folio-skipped`.
    skip_one: bool,
}

impl Table {
    fn fill(&mut self, inode: &Shmem, memory: &mut Memory<'_>, pages: u64) -> KResult<()> {
        let mut buffer = Vec::new();
        let mut folios = inode.folios().take_while(|(index, _)| *index < pages);
        folios.try_for_each(|(index, folio)| {
            if !std::mem::take(&mut self.skip_one) {
                memory.kho.preserve_folio(memory.ram, folio.head, folio.order)?;
            }
            let flag = |on: bool, bit: u16| if on { bit } else { 0 };
            let flags = flag(folio.uptodate, UPTODATE) | flag(folio.dirty, DIRTY);
            buffer.push(FolioEntry::new(folio.head.raw(), flags, index));
            self.count += 1;
            if self.count.is_multiple_of(PER_PAGE) {
                self.flush(memory, &buffer)?;
                buffer.clear();
            }
            KResult::Ok(())
        })?;
        if !buffer.is_empty() {
            self.flush(memory, &buffer)?;
        }
        Ok(())
    }

    /// Writes a page of the table: the entries, then zeros.
    fn flush(&mut self, memory: &mut Memory<'_>, buffer: &[FolioEntry]) -> KResult<()> {
        let page = memory.ram.alloc(Order::ZERO, FrameUse::FolioTable);
        let page = page.ok_or_else(|| Errno::ENOMEM.because("no free page for the folio table"))?;
        let bytes = buffer.as_bytes();
        memory.ram.mem.write(page.addr(), bytes).expect("the page was just allocated");
        let used = u64::try_from(bytes.len()).expect("at most a page");
        let rest = page.addr().checked_add(used).expect("at most a page");
        memory.ram.mem.fill(rest, PAGE_SIZE - used, 0).expect("the page was just allocated");
        self.pages.push(page.addr());
        Ok(())
    }

    fn undo(&self, inode: &Shmem, memory: &mut Memory<'_>, wrong_units: bool) {
        for (_, folio) in inode.folios() {
            memory.kho.unpreserve_folio(memory.ram, folio.head, folio.order);
        }
        let divisor = if wrong_units { 4096 } else { 1 };
        for page in &self.pages[..self.pages.len() / divisor] {
            memory.ram.free(page.pfn()).expect("the table's own pages");
        }
    }
}
