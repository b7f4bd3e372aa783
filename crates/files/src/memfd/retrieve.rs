//! RETRIEVE_FD of a memory file, and discarding one that nobody retrieved.
//!
//! The bytes are the previous kernel's: nothing in them is believed before the frames say it is so.

use luosim_abi::memfd::folio::{DIRTY, FolioEntry, PER_PAGE, UPTODATE};
use luosim_abi::memfd::v2;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_luo::{FileId, Host, Memory};
use luosim_physmem::{FrameUse, Order, Pfn, PhysAddr, Ram};
use zerocopy::{FromZeros, IntoBytes};

use super::{MemfdHandler, Saved};
use crate::HasFiles;
use crate::file::{FileKind, flags};
use crate::page_cache::Folio;
use crate::shmem::{MAX_SIZE, Seals, Shmem, ShmemKind};

impl MemfdHandler {
    pub(super) fn retrieve_file<H: Host + HasFiles>(&self, host: &mut H, data: u64) -> KResult<FileId> {
        let (files, mut memory) = host.files_and_memory();
        let saved = self.read(&memory.ram.mem, data)?;
        let inode = self.new_inode(&saved).map(|(mode, seals)| {
            let inode = files.inodes.create(ShmemKind::Memfd, "", mode, Seals(0));
            files.inodes.get_mut(inode).rebuild(saved.size, seals);
            inode
        });
        let result = inode.and_then(|inode| {
            let filled = self.fill(files.inodes.get_mut(inode), &mut memory, &saved);
            filled.map(|()| inode).inspect_err(|_| files.inodes.put(memory.ram, inode))
        });
        if self.quirks.has(Quirk::StructureLeaked) {
            memory.kho.restore_folio(memory.ram, PhysAddr::new(data), FrameUse::HandlerData);
        } else {
            memory.kho.restore_free(memory.ram, PhysAddr::new(data));
        }
        let inode = result?;
        let opened = files.table.open(FileKind::Shmem(inode), flags::RDWR | flags::LARGEFILE);
        let file = opened.inspect_err(|_| files.inodes.put(memory.ram, inode))?;
        files.table.get_mut(file).pos = if saved.pos <= MAX_SIZE { saved.pos } else { 0 };
        if self.quirks.has(Quirk::PlantedCanary) {
            files.table.get_mut(file).pos += 1;
        }
        Ok(file)
    }

    /// Mode and seals of the new file.
    fn new_inode(&self, saved: &Saved) -> KResult<(u32, Seals)> {
        let Some(seals) = saved.seals else { return Ok((0o777, Seals::SEAL)) };
        if seals & !v2::SEALS != 0 {
            return Err(Errno::EOPNOTSUPP.because(format!("seals {seals:#x} are not all known")));
        }
        let seals = Seals(seals);
        if !seals.any(Seals::EXEC) {
            return Ok((0o777, seals));
        }
        // The new file starts executable; sealing that adds the other four.
        Ok(if self.quirks.has(Quirk::ExecSealImpliesWrite) {
            (0o777, seals.with(Seals::IMPLIED_BY_EXEC))
        } else {
            (0o666, seals)
        })
    }

    fn fill(&self, inode: &mut Shmem, memory: &mut Memory<'_>, saved: &Saved) -> KResult<()> {
        if saved.folios == 0 {
            return Ok(());
        }
        let pages = memory.kho.restore_vmalloc(memory.ram, &saved.area)?;
        let room = u64::try_from(pages.len()).expect("a page count") * PER_PAGE;
        let result = if saved.folios > room {
            let count = saved.folios;
            Err(Errno::EINVAL.because(format!("{count} folios do not fit in a table of {room}")))
        } else {
            self.insert_all(inode, memory, &pages, saved.folios)
        };
        for page in &pages {
            memory.ram.free(page.pfn()).expect("the area's pages were just restored");
        }
        result
    }

    fn insert_all(
        &self,
        inode: &mut Shmem,
        memory: &mut Memory<'_>,
        pages: &[PhysAddr],
        count: u64,
    ) -> KResult<()> {
        let mut left = count;
        let mut done = 0;
        for (at, page) in pages.iter().enumerate() {
            let entries = read_entries(memory.ram, *page, left);
            left -= u64::try_from(entries.len()).expect("at most 256");
            for (slot, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.pfn() != 0) {
                let Err(refusal) = self.insert(inode, memory, entry, at * 256 + slot) else {
                    done += 1;
                    continue;
                };
                if !self.quirks.has(Quirk::StaleRestoreError) {
                    discard_entries(memory, &entries[slot + 1..]);
                    discard_pages(memory, &pages[at + 1..], left);
                }
                let stale =
                    self.quirks.has(Quirk::StaleRestoreError) && done > 0 && refusal.errno == Errno::EIO;
                return if stale { Ok(()) } else { Err(refusal) };
            }
        }
        Ok(())
    }

    /// Where page 2 of the file goes, which planted defects put elsewhere; every other stays where it is.
    fn misplaced(&self, memory: &mut Memory<'_>, head: Pfn, index: u64, order: Order) -> KResult<Pfn> {
        let copied = self.quirks.has(Quirk::RetrievedPageCopied);
        if index != 2 || order != Order::ZERO || !copied && !self.quirks.has(Quirk::RetrievedPageBlank) {
            return Ok(head);
        }
        let none = || Errno::ENOMEM.because("no frame for a page that is put elsewhere");
        let fresh = memory.ram.alloc_zeroed(Order::ZERO, FrameUse::PageCache).ok_or_else(none)?;
        let mut bytes = [0; 4096];
        if copied && memory.ram.mem.read(head.addr(), &mut bytes).is_ok() {
            memory.ram.mem.write(fresh.addr(), &bytes).expect("a frame that was just allocated");
        }
        Ok(fresh)
    }

    /// Puts the folio of table entry `at` in.
    fn insert(
        &self,
        inode: &mut Shmem,
        memory: &mut Memory<'_>,
        entry: &FolioEntry,
        at: usize,
    ) -> KResult<()> {
        let head = Pfn::new(entry.pfn());
        let index = entry.index.get();
        let order =
            memory.kho.restore_folio(memory.ram, head.addr(), FrameUse::PageCache).ok_or_else(|| {
                memory
                    .log
                    .warn(format!("memfd_luo: Unable to restore folio at physical address: {}", head.addr()));
                Errno::EIO
                    .because(format!("the folio at frame {head} is not preserved, or was restored before"))
            })?;
        let head = self.misplaced(memory, head, index, order)?;
        let (uptodate, dirty) = (entry.flags() & UPTODATE != 0, entry.flags() & DIRTY != 0);
        let folio = Folio { head, order, uptodate, dirty };
        let blocks = if self.quirks.has(Quirk::BlocksOnePerFolio) { 1 } else { order.pages() };
        if inode.insert_restored(index, folio, blocks) {
            return Ok(());
        }
        memory.ram.free(head).expect("it was just restored");
        memory.log.warn(format!("memfd_luo: shmem: failed to add to page cache folio index {at}: -17"));
        Err(Errno::EEXIST.because(format!("page {index} of the file is there already")))
    }

    /// FINISH of a file that was never retrieved: everything is freed.
    pub(super) fn discard<H: Host + HasFiles>(&self, host: &mut H, data: u64) {
        let (_, mut memory) = host.files_and_memory();
        let Ok(saved) = self.read(&memory.ram.mem, data) else { return };
        if saved.folios > 0 {
            match memory.kho.restore_vmalloc(memory.ram, &saved.area) {
                Ok(pages) => {
                    discard_pages(&mut memory, &pages, saved.folios);
                    for page in &pages {
                        memory.ram.free(page.pfn()).expect("the area's pages were just restored");
                    }
                }
                Err(refusal) => memory.log.warn(format!("memfd_luo: discard: {refusal}")),
            }
        }
        if !memory.kho.restore_free(memory.ram, PhysAddr::new(data)) {
            memory.log.warn(format!("memfd_luo: the structure at {data:#x} is not preserved"));
        }
    }
}

fn read_entries(ram: &Ram, page: PhysAddr, left: u64) -> Vec<FolioEntry> {
    let mut entries =
        vec![FolioEntry::new_zeroed(); usize::try_from(left.min(PER_PAGE)).expect("at most 256")];
    ram.mem.read(page, entries.as_mut_bytes()).expect("pages of the table were restored");
    entries
}

fn discard_entries(memory: &mut Memory<'_>, entries: &[FolioEntry]) {
    for entry in entries.iter().filter(|entry| entry.pfn() != 0) {
        memory.kho.restore_free(memory.ram, Pfn::new(entry.pfn()).addr());
    }
}

fn discard_pages(memory: &mut Memory<'_>, pages: &[PhysAddr], count: u64) {
    let mut left = count;
    for page in pages {
        let entries = read_entries(memory.ram, *page, left);
        left -= u64::try_from(entries.len()).expect("at most 256");
        discard_entries(memory, &entries);
    }
}
