//! The state of a preserved memory file, and its folios.

use std::collections::BTreeMap;

use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::memfd::folio::{DIRTY, FolioEntry, PER_PAGE, UPTODATE};
use luosim_abi::memfd::{v1, v2};
use luosim_physmem::{Order, PAGE_SIZE, PhysAddr, ReadPhys};

use super::{Walk, frame};
use crate::claims::Owner;
use crate::contents::{Extent, sha256};
use crate::report::{Addr, Memfd, by_order};

/// The structure, whichever version.
struct State {
    pos: u64,
    size: u64,
    seals: Option<u32>,
    flags: Option<u32>,
    folios: u64,
    area: Descriptor,
}

impl State {
    fn read(mem: &impl ReadPhys, at: PhysAddr, version: u32) -> Option<Self> {
        Some(if version == 1 {
            let ser = mem.read_struct::<v1::MemfdSer>(at).ok()?;
            let (pos, size, folios) = (ser.pos.get(), ser.size.get(), ser.nr_folios.get());
            Self { pos, size, seals: None, flags: None, folios, area: ser.folios }
        } else {
            let ser = mem.read_struct::<v2::MemfdSer>(at).ok()?;
            let (pos, size, folios) = (ser.pos.get(), ser.size.get(), ser.nr_folios.get());
            let (seals, flags) = (Some(ser.seals.get()), Some(ser.flags.get()));
            Self { pos, size, seals, flags, folios, area: ser.folios }
        })
    }

    fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }
}

/// What the folio table says.
#[derive(Default)]
struct Folios {
    orders: BTreeMap<u32, u64>,
    not_uptodate: u64,
    extents: Vec<Extent>,
}

impl Walk<'_> {
    pub(crate) fn memfd(
        &mut self,
        session: usize,
        number: usize,
        record: PhysAddr,
        data: PhysAddr,
        version: u32,
    ) -> Option<Memfd> {
        let field = format!("session[{session}].file[{number}]");
        if data == PhysAddr::NULL {
            self.findings.error(
                record,
                &format!("{field}.data"),
                "it leads to no structure, which no reader notices",
            );
            return None;
        }
        if !self.structure(data, PAGE_SIZE, Order::ZERO, Owner::FileState(session, number)) {
            return None;
        }
        let state = State::read(self.mem, data, version)?;
        self.check_state(&state, data, &field);
        let owner = Owner::Table(session, number);
        let pages = if state.area.first.get() == 0 && state.folios == 0 {
            Vec::new()
        } else {
            self.table(&state.area, owner, data)
        };
        let folios = self.folios(session, number, &state, &pages);
        let covered: u64 = folios.extents.iter().map(|extent| extent.within(state.pages())).sum();
        let memfd = Memfd {
            size: state.size,
            pos: state.pos,
            seals: state.seals,
            flags: state.flags,
            folios: state.folios,
            holes: state.pages().saturating_sub(covered),
            sha256: self.digest(&state, &folios.extents, data, &field),
            orders: by_order(&folios.orders),
            not_uptodate: folios.not_uptodate,
            table_at: Some(Addr::new(state.area.first.get())).filter(|at| at.0 != PhysAddr::NULL),
            table_pages: u64::try_from(pages.len()).expect("a page count"),
        };
        self.contents.insert((session, number), folios.extents);
        Some(memfd)
    }

    fn digest(&mut self, state: &State, extents: &[Extent], at: PhysAddr, field: &str) -> Option<String> {
        if !self.wish.digest {
            return None;
        }
        if state.size > self.mem.size() {
            self.findings.info(at, &format!("{field}.size"), "the file is larger than memory: no digest");
            return None;
        }
        Some(sha256(self.mem, extents, state.size))
    }

    fn check_state(&mut self, state: &State, at: PhysAddr, field: &str) {
        let unknown = state.seals.unwrap_or(0) & !v2::SEALS;
        if unknown != 0 {
            let what = format!("unknown seals {unknown:#x}: retrieving it fails with EOPNOTSUPP");
            self.findings.error(at, &format!("{field}.seals"), what);
        }
        if let Some(flags) = state.flags.filter(|flags| *flags != 0) {
            self.findings.warning(
                at,
                &format!("{field}.flags"),
                format!("flags {flags:#x}: kernels write 0"),
            );
        }
        if state.size > i64::MAX.unsigned_abs() {
            self.findings.error(at, &format!("{field}.size"), format!("no file has {:#x} bytes", state.size));
        }
        if state.pos > i64::MAX.unsigned_abs() {
            self.findings.error(
                at,
                &format!("{field}.pos"),
                format!("{:#x} is a negative position", state.pos),
            );
        }
        if state.size == 0 && (state.folios > 0 || state.area.first.get() != 0) {
            self.findings.warning(at, &format!("{field}.size"), "an empty file has folios");
        }
        let needed = state.folios.div_ceil(PER_PAGE);
        let there = u64::from(state.area.total_pages.get());
        if needed > there {
            let what = format!("{} folios need {needed} pages of table, and there are {there}", state.folios);
            self.findings.error(at, &format!("{field}.nr_folios"), what);
        } else if needed < there && state.folios > 0 {
            let what = format!("{} folios need {needed} pages of table, not {there}", state.folios);
            self.findings.warning(at, &format!("{field}.nr_folios"), what);
        }
    }

    /// Reads the folio table.
    fn folios(&mut self, session: usize, number: usize, state: &State, pages: &[PhysAddr]) -> Folios {
        let owner = Owner::Contents(session, number);
        let field = format!("session[{session}].file[{number}].folio");
        let mut found = Folios::default();
        let mut left = state.folios;
        for page in pages {
            if left == 0 {
                break;
            }
            let Ok(entries) = self.mem.read_struct::<[[u64; 2]; 256]>(*page) else { continue };
            let here = usize::try_from(left.min(PER_PAGE)).expect("at most 256");
            for (slot, entry) in entries[..here].iter().enumerate() {
                let entry =
                    FolioEntry { word: u64::from_le(entry[0]).into(), index: u64::from_le(entry[1]).into() };
                let at = PhysAddr::new(page.raw() + 16 * u64::try_from(slot).expect("at most 256"));
                self.folio(&entry, at, &field, owner, state, &mut found);
            }
            left -= left.min(PER_PAGE);
        }
        self.check_extents(&mut found.extents, &field);
        found
    }

    fn folio(
        &mut self,
        entry: &FolioEntry,
        at: PhysAddr,
        field: &str,
        owner: Owner,
        state: &State,
        found: &mut Folios,
    ) {
        if entry.pfn() == 0 {
            return;
        }
        let (pfn, index, flags) = (frame(entry.pfn()), entry.index.get(), entry.flags());
        let order = match self.preserved.find(pfn) {
            Some(block) if block.head == pfn => block.order,
            Some(block) => {
                let what = format!(
                    "frame {pfn} is inside a block of order {} at frame {}, not its head",
                    block.order, block.head
                );
                return self.findings.error(at, field, what + ": retrieving the file fails with EIO");
            }
            None => {
                let what = format!("frame {pfn} is not preserved: retrieving the file fails with EIO");
                return self.findings.error(at, field, what);
            }
        };
        if flags & !(DIRTY | UPTODATE) != 0 {
            self.findings.warning(at, field, format!("the folio has unknown flags {flags:#x}"));
        }
        if index & (order.pages() - 1) != 0 {
            self.findings.error(
                at,
                field,
                format!("a folio of order {order} at page {index} of the file is not aligned"),
            );
        }
        if index >= state.pages() {
            self.findings.warning(
                at,
                field,
                format!("the folio is at page {index} of a file of {} pages", state.pages()),
            );
        }
        let uptodate = flags & UPTODATE != 0;
        found.not_uptodate += u64::from(!uptodate);
        *found.orders.entry(order.raw()).or_default() += 1;
        self.claims.add(pfn, order.pages(), owner);
        Extent::push(
            &mut found.extents,
            Extent { index, pages: order.pages(), at: uptodate.then_some(pfn), entry: at },
        );
    }

    /// Sorts the extents; where two have a page of the file in common, only one can be in the page cache.
    fn check_extents(&mut self, extents: &mut [Extent], field: &str) {
        extents.sort_by_key(|extent| extent.index);
        let mut end = 0;
        for extent in extents {
            if extent.index < end {
                let what = format!("page {} of the file is in two folios: retrieving it fails", extent.index);
                self.findings.error(extent.entry, field, what);
                extent.cut(end);
            }
            end = end.max(extent.index.saturating_add(extent.pages));
        }
    }
}
