//! Memory that belongs to a virtual machine (`KVM_CREATE_GUEST_MEMFD`) and its handler, `guest_memfd_luo_v1`.
//!
//! The file has a size from the start and folios of one page, made when they are touched. It is preserved as it is: holes stay holes,
//! and while it is preserved none can be filled, for the guest as for anybody else. It needs its virtual machine in the same
//! session: that is looked for at freeze, so the order in which the two are preserved does not matter, and one without the other keeps
//! the machine from rebooting. Mirrors the posted series; pages of the host's mapping are reached by [`GuestMemfd::read`] and
//! [`GuestMemfd::write`].

use std::collections::BTreeSet;

use luosim_abi::devices::guest_memfd::{
    COMPATIBLE, FLAG_INIT_SHARED, FLAGS, FOLIO_UPTODATE, GuestFolio, GuestMemfdSer, PER_PAGE,
};
use luosim_abi::kho::vmalloc::{Descriptor, FLAG_PLAIN};
use luosim_abi::{Errno, KResult, Refusal};
use luosim_files::{Folio, PageCache};
use luosim_luo::{Context, FileHandler, FileId, Memory, RetrieveStatus};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Pfn, PhysAddr, Ram};
use zerocopy::{FromZeros, IntoBytes};

use crate::{DeviceHost, Parts, driver, kvm, object_of, open_object};

/// Memory of a virtual machine.
#[derive(Debug)]
pub struct GuestMemfd {
    /// The machine, on which it holds a reference.
    pub vm: u32,
    /// Description of the machine, as the program gave it; compared with the files of a session, no reference.
    vm_file: FileId,
    size: u64,
    flags: u64,
    frozen: bool,
    pages: PageCache,
    poisoned: BTreeSet<u64>,
}

impl GuestMemfd {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a session preserves it.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Pages that are there.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages.pages()
    }

    fn frozen_refusal(what: &str) -> Refusal {
        Errno::EPERM.because(format!("the guest memory is frozen: a session preserves it, {what}"))
    }

    /// The frame of a page, made if it is not there: a fault of the guest or of the host.
    ///
    /// # Errors
    /// EFAULT: outside the file; EPERM: not there, and the file is frozen; EHWPOISON; ENOMEM.
    pub fn fault(&mut self, ram: &mut Ram, index: u64) -> KResult<Pfn> {
        if index >= self.size / PAGE_SIZE {
            return Err(Errno::EFAULT.because(format!("page {index} lies outside the guest memory")));
        }
        if self.poisoned.contains(&index) {
            return Err(Errno::EHWPOISON.because(format!("page {index} has a hardware error")));
        }
        if let Some(folio) = self.pages.get(index) {
            return Ok(folio.frame(index));
        }
        if self.frozen {
            return Err(Self::frozen_refusal("no page can be added"));
        }
        let head = ram.alloc_zeroed(Order::ZERO, FrameUse::PageCache);
        let head = head.ok_or_else(|| Errno::ENOMEM.because("no free page for guest memory"))?;
        self.pages.insert(index, Folio { head, order: Order::ZERO, uptodate: true, dirty: true });
        Ok(head)
    }

    /// Each page that `len` bytes from `at` touch: its frame's address of the first byte, and the range of the buffer.
    fn spans(at: u64, len: usize) -> impl Iterator<Item = (u64, u64, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let here = at.checked_add(u64::try_from(done).ok()?)?;
            let room = usize::try_from(PAGE_SIZE - here % PAGE_SIZE).expect("at most a page");
            let step = room.min(len - done);
            let span = (step > 0).then(|| (here / PAGE_SIZE, here % PAGE_SIZE, done..done + step));
            done += step;
            span
        })
    }

    /// Reads through a mapping.
    ///
    /// # Errors
    /// As [`Self::fault`].
    pub fn read(&mut self, ram: &mut Ram, at: u64, buf: &mut [u8]) -> KResult<()> {
        for (index, offset, range) in Self::spans(at, buf.len()) {
            let addr = self.fault(ram, index)?.addr().checked_add(offset).expect("inside the page");
            ram.mem.read(addr, &mut buf[range]).expect("folios lie in memory");
        }
        Ok(())
    }

    /// Writes through a mapping.
    ///
    /// # Errors
    /// As [`Self::fault`]; what lies before the page at fault is written.
    pub fn write(&mut self, ram: &mut Ram, at: u64, bytes: &[u8]) -> KResult<()> {
        for (index, offset, range) in Self::spans(at, bytes.len()) {
            let addr = self.fault(ram, index)?.addr().checked_add(offset).expect("inside the page");
            ram.mem.write(addr, &bytes[range]).expect("folios lie in memory");
        }
        Ok(())
    }

    /// `fallocate(2)`: fills pages, or with `punch` takes them out.
    ///
    /// # Errors
    /// EPERM while frozen; EINVAL: not whole pages inside the file; ENOMEM.
    pub fn fallocate(&mut self, ram: &mut Ram, at: u64, len: u64, punch: bool) -> KResult<()> {
        if self.frozen {
            return Err(Self::frozen_refusal("its pages stay as they are"));
        }
        let end = at.checked_add(len).filter(|end| *end <= self.size && len > 0);
        let Some(end) = end.filter(|end| at.is_multiple_of(PAGE_SIZE) && end.is_multiple_of(PAGE_SIZE))
        else {
            return Err(Errno::EINVAL.because(format!("{len} bytes at {at} are no whole pages of the file")));
        };
        for index in at / PAGE_SIZE..end / PAGE_SIZE {
            if !punch {
                self.fault(ram, index)?;
            } else if let Some(folio) = self.pages.remove(index) {
                ram.free(folio.head).expect("the file owns its folios");
            }
        }
        Ok(())
    }

    /// A hardware error in a page.
    pub fn poison(&mut self, index: u64) {
        self.poisoned.insert(index);
    }

    fn drop_pages(&mut self, ram: &mut Ram) {
        for folio in self.pages.drain() {
            ram.free(folio.head).expect("the file owns its folios");
        }
    }
}

/// `KVM_CREATE_GUEST_MEMFD` on the machine behind `vm_file`: a description of new memory.
///
/// # Errors
/// EINVAL: size 0 or not whole pages, or unknown flags; ENFILE.
pub fn create(parts: &mut Parts<'_>, vm_file: FileId, size: u64, flags: u64) -> KResult<FileId> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL.because(format!("flags {flags:#x} of guest memory are not all known")));
    }
    if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.because(format!("{size} bytes are no whole pages")));
    }
    add(parts, vm_file, size, flags)
}

fn add(parts: &mut Parts<'_>, vm_file: FileId, size: u64, flags: u64) -> KResult<FileId> {
    let vm = object_of(parts.files, driver::VM, vm_file)
        .ok_or_else(|| Errno::EINVAL.because("the file is no virtual machine"))?;
    parts.devices.vms.get_ref(vm);
    let (pages, poisoned) = (PageCache::default(), BTreeSet::new());
    let guest = GuestMemfd { vm, vm_file, size, flags, frozen: false, pages, poisoned };
    let guest = parts.devices.guests.add(guest);
    open_object(parts.files, driver::GUEST_MEMFD, guest).inspect_err(|_| release(parts, guest))
}

/// The last descriptor of a description was closed.
pub(crate) fn release(parts: &mut Parts<'_>, guest: u32) {
    if let Some(mut gone) = parts.devices.guests.put(guest) {
        gone.drop_pages(parts.memory.ram);
        kvm::put(parts.devices, gone.vm);
    }
}

/// The handler of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct GuestMemfdHandler;

fn guest_of<H: DeviceHost>(host: &H, file: FileId) -> u32 {
    object_of(host.files(), driver::GUEST_MEMFD, file).expect("only guest memory is given to this handler")
}

/// Preserves the folios and writes their table; gives how many there are.
fn preserve_folios(guest: &GuestMemfd, memory: &mut Memory<'_>) -> KResult<(u64, Descriptor)> {
    if let Some(index) = guest.poisoned.first() {
        return Err(
            Errno::EHWPOISON.because(format!("page {index} of the guest memory has a hardware error"))
        );
    }
    let mut entries = Vec::new();
    let mut table = Vec::new();
    let result = guest.pages.iter().try_for_each(|(index, folio)| {
        memory.kho.preserve_folio(memory.ram, folio.head, folio.order)?;
        entries.push(GuestFolio::new(folio.head.raw(), FOLIO_UPTODATE, index));
        Ok(())
    });
    let result = result.and_then(|()| write_table(memory, &entries, &mut table));
    result.inspect_err(|_| {
        unpreserve_folios(memory, &entries);
        for page in &table {
            memory.ram.free(page.pfn()).expect("the table's own pages");
        }
    })
}

fn write_table(
    memory: &mut Memory<'_>,
    entries: &[GuestFolio],
    table: &mut Vec<PhysAddr>,
) -> KResult<(u64, Descriptor)> {
    if entries.is_empty() {
        return Ok((0, Descriptor::new_zeroed()));
    }
    for chunk in entries.chunks(usize::try_from(PER_PAGE).expect("256")) {
        let page = memory.ram.alloc_zeroed(Order::ZERO, FrameUse::FolioTable);
        let page = page.ok_or_else(|| Errno::ENOMEM.because("no free page for the folio table"))?.addr();
        table.push(page);
        memory.ram.mem.write(page, chunk.as_bytes()).expect("the page was just allocated");
    }
    let area = memory.kho.preserve_vmalloc(memory.ram, table, FLAG_PLAIN, Order::ZERO)?;
    Ok((u64::try_from(entries.len()).expect("a count"), area))
}

fn unpreserve_folios(memory: &mut Memory<'_>, entries: &[GuestFolio]) {
    for entry in entries {
        memory.kho.unpreserve_folio(memory.ram, Pfn::new(entry.pfn()), Order::ZERO);
    }
}

/// The entries of a table whose pages are this kernel's, at most `count`.
fn read_table(ram: &Ram, pages: &[PhysAddr], count: u64) -> Vec<GuestFolio> {
    let mut entries = Vec::new();
    let mut left = count;
    for page in pages {
        let here = usize::try_from(left.min(PER_PAGE)).expect("at most a page");
        let mut chunk = vec![GuestFolio::new_zeroed(); here];
        ram.mem.read(*page, chunk.as_mut_bytes()).expect("the pages of the table are in memory");
        left -= u64::try_from(here).expect("at most a page");
        entries.extend(chunk);
    }
    entries
}

/// Takes the table of the previous kernel: its entries; its pages are freed.
fn take_table(memory: &mut Memory<'_>, record: &GuestMemfdSer) -> KResult<Vec<GuestFolio>> {
    if record.nr_folios.get() == 0 {
        return Ok(Vec::new());
    }
    let pages = memory.kho.restore_vmalloc(memory.ram, &record.folios)?;
    let entries = read_table(memory.ram, &pages, record.nr_folios.get());
    for page in &pages {
        memory.ram.free(page.pfn()).expect("the area's pages were just restored");
    }
    if u64::try_from(entries.len()).expect("a count") < record.nr_folios.get() {
        let why = format!("the table has room for fewer than {} folios", record.nr_folios.get());
        return Err(Errno::EINVAL.because(why));
    }
    Ok(entries)
}

fn insert(parts: &mut Parts<'_>, guest: u32, entries: &[GuestFolio]) -> KResult<()> {
    let memory = &mut parts.memory;
    for (done, entry) in entries.iter().enumerate() {
        let (head, index) = (Pfn::new(entry.pfn()), entry.index.get());
        let guest = parts.devices.guests.get_mut(guest);
        let restored = memory.kho.restore_folio(memory.ram, head.addr(), FrameUse::PageCache);
        let folio = Folio { head, order: Order::ZERO, uptodate: true, dirty: true };
        if restored == Some(Order::ZERO) && index < guest.size / PAGE_SIZE && guest.pages.insert(index, folio)
        {
            continue;
        }
        if restored.is_some() {
            memory.ram.free(head).expect("it was just restored");
        }
        for rest in &entries[done + 1..] {
            memory.kho.restore_free(memory.ram, Pfn::new(rest.pfn()).addr());
        }
        return Err(
            Errno::EIO.because(format!("the folio at frame {head} cannot be taken back as page {index}"))
        );
    }
    Ok(())
}

impl<H: DeviceHost> FileHandler<H> for GuestMemfdHandler {
    fn compatible(&self) -> &'static str {
        COMPATIBLE
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        object_of(host.files(), driver::GUEST_MEMFD, file).is_some_and(|guest| {
            let guest = host.devices().guests.get(guest);
            guest.flags & FLAG_INIT_SHARED != 0 && !host.devices().vms.get(guest.vm).has_private_memory()
        })
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        format!("guest memory {}", guest_of(host, file))
    }

    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64> {
        let guest = guest_of(cx.host, file);
        let mut parts = cx.host.parts();
        let memory = &mut parts.memory;
        parts.devices.guests.get_mut(guest).frozen = true;
        let result = preserve_folios(parts.devices.guests.get(guest), memory).and_then(|(count, area)| {
            let guest = parts.devices.guests.get(guest);
            let record = GuestMemfdSer {
                size: guest.size.into(),
                flags: guest.flags.into(),
                nr_folios: count.into(),
                vm_token: 0.into(),
                folios: area,
            };
            memory.preserve_obj(&record).inspect_err(|_| drop_table(memory, &record))
        });
        result.inspect_err(|_| parts.devices.guests.get_mut(guest).frozen = false)
    }

    fn unpreserve(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) {
        let guest = guest_of(cx.host, file);
        let mut parts = cx.host.parts();
        if let Ok(record) = parts.memory.read_obj(data) {
            drop_table(&mut parts.memory, &record);
        }
        parts.memory.unpreserve_obj(data);
        parts.devices.guests.get_mut(guest).frozen = false;
    }

    fn freeze(&self, cx: &mut Context<'_, H>, file: FileId, data: u64) -> KResult<u64> {
        let guest = guest_of(cx.host, file);
        let vm_file = cx.host.devices().guests.get(guest).vm_file;
        let machine = cx.host.devices().guests.get(guest).vm;
        // The program may have closed the machine's descriptor: its number may be another file's by now.
        let alive = object_of(cx.host.files(), driver::VM, vm_file) == Some(machine);
        let token =
            if alive { cx.token_outgoing(vm_file) } else { Err(Errno::ENOENT.because("it is closed")) };
        let token = token.map_err(|why| {
            Errno::ENOENT.because(format!("guest memory {guest} needs its virtual machine: {}", why.reason))
        })?;
        let mut record: GuestMemfdSer = cx.memory().read_obj(data).expect("this kernel wrote it");
        record.vm_token = token.into();
        cx.memory().update_obj(data, &record);
        Ok(data)
    }

    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId> {
        let record: GuestMemfdSer = cx.memory().read_obj(data)?;
        let made = check(&record).and_then(|()| retrieve_checked(cx, &record));
        if made.is_err() {
            discard(&mut cx.memory(), &record);
        }
        cx.memory().discard_obj(data);
        made
    }

    fn finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, data: u64) {
        if status != RetrieveStatus::Untried {
            return;
        }
        let mut memory = cx.memory();
        if let Ok(record) = memory.read_obj(data) {
            discard(&mut memory, &record);
        }
        memory.discard_obj(data);
    }
}

/// Undoes what the record names, in the kernel that wrote it.
fn drop_table(memory: &mut Memory<'_>, record: &GuestMemfdSer) {
    let pages = memory.kho.unpreserve_vmalloc(memory.ram, &record.folios);
    let entries = read_table(memory.ram, &pages, record.nr_folios.get());
    unpreserve_folios(memory, &entries);
    for page in &pages {
        memory.ram.free(page.pfn()).expect("the table's own pages");
    }
}

/// Frees what the record names, if it is still there.
fn discard(memory: &mut Memory<'_>, record: &GuestMemfdSer) {
    for entry in take_table(memory, record).unwrap_or_default() {
        memory.kho.restore_free(memory.ram, Pfn::new(entry.pfn()).addr());
    }
}

fn check(record: &GuestMemfdSer) -> KResult<()> {
    let (size, flags) = (record.size.get(), record.flags.get());
    if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.because(format!("{size} bytes of guest memory are no whole pages")));
    }
    if flags & !FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP.because(format!("flags {flags:#x} of guest memory are not all known")));
    }
    Ok(())
}

fn retrieve_checked<H: DeviceHost>(cx: &mut Context<'_, H>, record: &GuestMemfdSer) -> KResult<FileId> {
    let vm_file = cx.file_incoming(record.vm_token.get())?;
    let mut parts = cx.host.parts();
    let made = add(&mut parts, vm_file, record.size.get(), record.flags.get());
    let made = made.and_then(|file| {
        let guest = object_of(parts.files, driver::GUEST_MEMFD, file).expect("it was just made");
        let filled = take_table(&mut parts.memory, record).and_then(|all| insert(&mut parts, guest, &all));
        filled.map(|()| file).inspect_err(|_| {
            parts.files.table.put(file);
            release(&mut parts, guest);
        })
    });
    cx.host.file_put(vm_file);
    made
}
