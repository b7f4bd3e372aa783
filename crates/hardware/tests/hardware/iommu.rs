//! Units, and the tables that they walk.

use std::collections::BTreeMap;

use luosim_hardware::iommu::{
    ContextEntry, DomainIds, FaultReason, Invalidation, IommuUnit, Levels, MapError, PageTable, Permissions,
    RamRef, RootTable, TableError, reg, walk,
};
use luosim_hardware::pci::{Layout, config::command};
use luosim_hardware::simdma::layout::{Descriptor, Op, Stamp, reg as dma};
use luosim_hardware::{Bdf, Hardware};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Pfn, PhysAddr, PhysMem, Ram};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use zerocopy::IntoBytes;

use crate::world::GUEST;

const MEMORY: u64 = 4 << 20;

fn ram() -> Ram {
    let mut ram = Ram::new(PhysMem::anonymous(MEMORY).unwrap());
    ram.frames.reserve(Pfn::new(0), 1).unwrap();
    ram
}

fn unit(ram: &mut Ram, table: PageTable, rid: Bdf, domain: u32) -> IommuUnit {
    let root = RootTable::new(&mut RamRef(ram)).unwrap();
    root.set_context(&mut RamRef(ram), rid, ContextEntry::new(table.top, table.levels, domain)).unwrap();
    let mut unit = IommuUnit::new();
    unit.write(reg::ROOT_PA, 8, root.0.raw());
    unit.write(reg::CTRL, 4, 1);
    unit
}

fn set_entry(ram: &mut Ram, table: PhysAddr, index: u64, entry: u64) {
    ram.mem.write_u64(PhysAddr::new(table.raw() + 8 * index), entry).unwrap();
}

#[test]
fn faults_are_recorded_as_registers_say() {
    let mut ram = ram();
    let table = PageTable::new(&mut RamRef(&mut ram), Levels::Four).unwrap();
    table.map(&mut RamRef(&mut ram), 0x5000, PhysAddr::new(0x3000), PAGE_SIZE, Permissions::READ).unwrap();
    let mut unit = unit(&mut ram, table, GUEST, 7);
    let (read, write) = (Permissions::READ, Permissions::WRITE);
    assert_eq!(unit.translate(&ram.mem, GUEST, 0x5123, read), Ok(PhysAddr::new(0x3123)));
    assert_eq!(unit.read(reg::DID_USED, 4), 7);
    assert_eq!(unit.read(reg::FAULT_STS, 4), 0);
    assert_eq!(unit.translate(&ram.mem, GUEST, 0x5123, write), Err(FaultReason::WriteDenied));
    assert_eq!(unit.read(reg::FAULT_STS, 4), 1);
    assert_eq!(unit.read(reg::FAULT_ADDR, 8), 0x5123);
    assert_eq!(unit.read(reg::FAULT_RID, 4), 0x8007_0100);
    // The first stays until it is cleared.
    assert_eq!(unit.translate(&ram.mem, Bdf::new(1, 1, 0), 0, read), Err(FaultReason::ContextAbsent));
    assert_eq!((unit.read(reg::FAULT_STS, 4), unit.read(reg::FAULT_ADDR, 4)), (3, 0x5123));
    unit.write(reg::FAULT_STS, 4, 3);
    assert_eq!(unit.translate(&ram.mem, Bdf::new(9, 0, 0), 0x77, read), Err(FaultReason::RootAbsent));
    assert_eq!((unit.read(reg::FAULT_STS, 4), unit.read(reg::FAULT_RID, 4)), (1, 0x0001_0900));
    assert_eq!((unit.read(reg::FAULT_CNT, 4), unit.fault_count()), (3, 3));
    assert_eq!(unit.faults().len(), 3);
}

#[test]
fn every_reason_can_be_met() {
    let mut ram = ram();
    let table = PageTable::new(&mut RamRef(&mut ram), Levels::Three).unwrap();
    table.map(&mut RamRef(&mut ram), 0, PhysAddr::new(0x3000), PAGE_SIZE, Permissions::WRITE).unwrap();
    let tables = table.contents(&ram.mem).unwrap().tables;
    let leaf = tables[2].addr();
    set_entry(&mut ram, leaf, 1, 0x3000 | 4 | 3);
    set_entry(&mut ram, tables[1].addr(), 1, (MEMORY + 0x1000) | 3);
    set_entry(&mut ram, tables[1].addr(), 2, 0x000f_ffff_ffff_f003);
    let mut unit = unit(&mut ram, table, GUEST, 7);
    let mut meet = |iova| unit.translate(&ram.mem, GUEST, iova, Permissions::READ).unwrap_err();
    assert_eq!(meet(0), FaultReason::ReadDenied);
    assert_eq!(meet(0x1000), FaultReason::ReservedBits);
    assert_eq!(meet(0x2000), FaultReason::NotPresent);
    assert_eq!(meet(2 << 20), FaultReason::TableAddress);
    assert_eq!(meet(4 << 20), FaultReason::TableAddress);
    assert_eq!(meet(1 << 39), FaultReason::AddressWidth);
    assert_eq!(meet(u64::MAX), FaultReason::AddressWidth);
    let root = unit.root();
    for malformed in [(0, 3), (7, 2), (7, 5), (0x1_0000, 3)] {
        let mut entry = ContextEntry::new(table.top, Levels::Three, malformed.0);
        entry.levels = malformed.1.into();
        root.set_context(&mut RamRef(&mut ram), GUEST, entry).unwrap();
        let met = unit.translate(&ram.mem, GUEST, 0, Permissions::WRITE);
        assert_eq!(met, Err(FaultReason::Malformed), "{malformed:?}");
    }
    ram.mem.write(PhysAddr::new(root.0.raw() + 16 + 8), &[1]).unwrap();
    assert_eq!(unit.translate(&ram.mem, GUEST, 0, Permissions::WRITE), Err(FaultReason::Malformed));
    unit.write(reg::ROOT_PA, 8, 0x000f_ffff_ffff_f000);
    assert_eq!(unit.translate(&ram.mem, GUEST, 0, Permissions::WRITE), Err(FaultReason::TableAddress));
    let codes: Vec<u8> = FaultReason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(codes, (1..=10).collect::<Vec<u8>>());
}

#[test]
fn a_unit_that_is_off_passes_requests_as_they_are() {
    let ram = ram();
    let mut unit = IommuUnit::new();
    let passed = unit.translate(&ram.mem, GUEST, 0x1234, Permissions::WRITE);
    assert_eq!(passed, Ok(PhysAddr::new(0x1234)));
    assert_eq!(unit.fault_count(), 0);
}

#[test]
fn registers_have_their_widths() {
    let mut unit = IommuUnit::new();
    unit.write(reg::ROOT_PA, 8, 0xfff1_2345_6789_a0ff);
    assert_eq!(unit.read(reg::ROOT_PA, 8), 0x0001_2345_6789_a000);
    unit.write(reg::ROOT_PA, 4, 0x1111_1111);
    unit.write(reg::ROOT_PA + 4, 4, 0x22);
    assert_eq!(unit.read(reg::ROOT_PA, 8), 0x22_1111_1000);
    assert_eq!(unit.read(reg::ROOT_PA + 4, 4), 0x22);
    unit.write(reg::INVAL, 8, 1);
    unit.write(reg::INVAL, 4, 1);
    unit.write(reg::INVAL, 8, 0);
    assert_eq!((unit.read(reg::INVAL_CNT, 4), unit.read(reg::INVAL, 8)), (1, 0));
    for (offset, width) in [(0x02, 4), (0x08, 8), (0x30, 4), (0x10, 2), (0xffff, 8), (0x0c, 1)] {
        assert_eq!(unit.read(offset, width), u64::MAX, "{offset:#x}");
        let before = unit.clone();
        unit.write(offset, width, u64::MAX);
        assert_eq!(unit, before, "{offset:#x}");
    }
}

#[test]
fn what_a_unit_remembers_it_uses_until_told() {
    let mut ram = ram();
    let table = PageTable::new(&mut RamRef(&mut ram), Levels::Four).unwrap();
    let rw = Permissions::READ_WRITE;
    table.map(&mut RamRef(&mut ram), 0x1000, PhysAddr::new(0x3000), 2 * PAGE_SIZE, rw).unwrap();
    let mut unit = unit(&mut ram, table, GUEST, 7);
    unit.set_cache(Some(4));
    let root = unit.root();
    let go = |unit: &mut IommuUnit, ram: &Ram, iova| {
        unit.translate(&ram.mem, GUEST, iova, Permissions::WRITE).ok()
    };
    assert_eq!(go(&mut unit, &ram, 0x1008), Some(PhysAddr::new(0x3008)));
    assert_eq!(unit.cached_pages(), 1);
    table.unmap(&mut RamRef(&mut ram), 0x1000, PAGE_SIZE).unwrap();
    assert_eq!(go(&mut unit, &ram, 0x1010), Some(PhysAddr::new(0x3010)));
    for other in [Invalidation::Page { domain: 7, iova: 0x2000 }, Invalidation::Domain(8)] {
        unit.write(reg::INVAL, 8, other.encode());
        assert!(go(&mut unit, &ram, 0x1010).is_some());
    }
    unit.write(reg::INVAL, 8, Invalidation::Page { domain: 7, iova: 0x1000 }.encode());
    assert_eq!(go(&mut unit, &ram, 0x1010), None);
    assert!(go(&mut unit, &ram, 0x2000).is_some());
    // The context too: a device that is cut off goes on until its domain is forgotten.
    root.clear_context(&mut RamRef(&mut ram), GUEST);
    assert!(go(&mut unit, &ram, 0x2000).is_some());
    unit.write(reg::INVAL, 8, Invalidation::Domain(7).encode());
    assert_eq!(go(&mut unit, &ram, 0x2000), None);
    assert_eq!(unit.cached_pages(), 0);
}

#[test]
fn a_remembered_page_lets_pass_what_it_did() {
    let mut ram = ram();
    let table = PageTable::new(&mut RamRef(&mut ram), Levels::Four).unwrap();
    table.map(&mut RamRef(&mut ram), 0, PhysAddr::new(0x3000), PAGE_SIZE, Permissions::READ).unwrap();
    let mut unit = unit(&mut ram, table, GUEST, 7);
    unit.set_cache(Some(0));
    unit.translate(&ram.mem, GUEST, 0, Permissions::READ).unwrap();
    assert_eq!(unit.translate(&ram.mem, GUEST, 0, Permissions::WRITE), Err(FaultReason::WriteDenied));
}

#[test]
fn two_units_translate_for_their_own() {
    let other = Bdf::new(0, 2, 0);
    let mut hw = Hardware::new(Layout::reference().behind_unit(other, 1)).unwrap();
    assert_eq!(hw.units().len(), 2);
    assert_eq!((hw.function(GUEST).unwrap().unit, hw.function(other).unwrap().unit), (0, 1));
    // Each unit has a table, of other frames; the first knows nothing of the other function.
    let mut ram = ram();
    let frames = [PhysAddr::new(0x10_0000), PhysAddr::new(0x20_0000)];
    for (index, (rid, frame)) in [GUEST, other].into_iter().zip(frames).enumerate() {
        let table = PageTable::new(&mut RamRef(&mut ram), Levels::Three).unwrap();
        table.map(&mut RamRef(&mut ram), 0x4000, frame, 4 * PAGE_SIZE, Permissions::READ_WRITE).unwrap();
        *hw.unit(index) = unit(&mut ram, table, rid, 7);
        hw.change_command(rid, command::MASTER | command::MEMORY, 0);
        let fill = Descriptor::new(Op::Fill, 0, 0x6000, 64, 1);
        ram.mem.write_obj(frame, &fill).unwrap();
        let registers =
            [(dma::RING_IOVA, 0x4000), (dma::CQ_IOVA, 0x5000), (dma::RING_LEN, 8), (dma::HEAD, 1)];
        registers.iter().for_each(|(offset, value)| hw.mmio_write(rid, *offset, 4, *value));
        hw.mmio_write(rid, dma::CTRL, 4, 1);
    }
    hw.tick(&mut ram.mem, 5);
    for frame in frames {
        let stamp: Stamp = ram.mem.read_obj(PhysAddr::new(frame.raw() + 0x2000)).unwrap();
        assert!(stamp.is_of(0x6000, 1), "{frame}");
    }
    hw.mmio_write(other, dma::RING_IOVA, 4, 0x9000);
    hw.mmio_write(other, dma::HEAD, 4, 2);
    hw.tick(&mut ram.mem, 5);
    assert_eq!(hw.units().iter().map(IommuUnit::fault_count).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn tables_in_circles_are_named_and_translate() {
    let mut ram = ram();
    let table = PageTable::new(&mut RamRef(&mut ram), Levels::Four).unwrap();
    set_entry(&mut ram, table.top, 0, table.top.raw() | 3);
    assert_eq!(table.contents(&ram.mem), Err(TableError::Shared(table.top.pfn())));
    assert_eq!(table.translate(&ram.mem, 5).map(|to| to.addr.raw()), Ok(table.top.raw() | 5));
    let rw = Permissions::READ_WRITE;
    let mapped = table.map(&mut RamRef(&mut ram), 0, PhysAddr::new(0x3000), PAGE_SIZE, rw);
    assert_eq!(mapped, Err(MapError::Mapped { iova: 0 }));
    // Unmapping the table takes it away from itself on the way.
    let unmapped = table.unmap(&mut RamRef(&mut ram), 0, PAGE_SIZE);
    assert_eq!(unmapped, Ok(()));
    assert_eq!(table.contents(&ram.mem).unwrap().pages(), 0);
    set_entry(&mut ram, table.top, 1, 0xfff0_0000_0000_0003);
    assert!(matches!(table.contents(&ram.mem), Err(TableError::Reserved { index: 1, .. })));
    set_entry(&mut ram, table.top, 1, MEMORY | 3);
    assert_eq!(table.contents(&ram.mem), Err(TableError::Outside(PhysAddr::new(MEMORY).pfn())));
    assert!(table.destroy(&mut RamRef(&mut ram)).is_err());
}

#[test]
fn what_cannot_be_mapped_is_named_and_changes_nothing() {
    let mut ram = ram();
    let table = PageTable::new(&mut RamRef(&mut ram), Levels::Three).unwrap();
    let frame = PhysAddr::new(0x3000);
    let rw = Permissions::READ_WRITE;
    let mut map = |iova, addr, len| table.map(&mut RamRef(&mut ram), iova, addr, len, rw);
    assert_eq!(map(1, frame, 4096), Err(MapError::Shape { iova: 1, len: 4096 }));
    assert_eq!(map(0, frame, 0), Err(MapError::Shape { iova: 0, len: 0 }));
    assert_eq!(map(0, PhysAddr::new(1), 4096), Err(MapError::Shape { iova: 0, len: 4096 }));
    let end = 1 << 39;
    assert_eq!(map(end, frame, 4096), Err(MapError::Width { iova: end, len: 4096, bits: 39 }));
    let top = u64::MAX - 4095;
    assert_eq!(map(top, frame, 4096), Err(MapError::Width { iova: top, len: 4096, bits: 39 }));
    let far = PhysAddr::new(0x000f_ffff_ffff_f000);
    assert_eq!(map(0, far, 8192), Err(MapError::Width { iova: 0, len: 8192, bits: 52 }));
    assert_eq!(map(end - 4096, far, 4096), Ok(()));
    assert_eq!(map(end - 8192, frame, 8192), Err(MapError::Mapped { iova: end - 4096 }));
    assert_eq!(table.contents(&ram.mem).unwrap().pages(), 1);
    let hole = table.unmap(&mut RamRef(&mut ram), end - 8192, 8192);
    assert_eq!(hole, Err(MapError::Unmapped { iova: end - 8192 }));
    // No memory for tables: what was mapped stays, what was made on the way is used later.
    while ram.alloc(Order::ZERO, FrameUse::Other).is_some() {}
    let full = table.map(&mut RamRef(&mut ram), 0, frame, PAGE_SIZE, rw);
    assert_eq!(full, Err(MapError::NoMemory));
    assert_eq!(table.contents(&ram.mem).unwrap().pages(), 1);
}

#[test]
fn root_tables_tell_who_is_attached() {
    let mut ram = ram();
    let root = RootTable::new(&mut RamRef(&mut ram)).unwrap();
    let other = Bdf::new(0, 2, 0);
    for (rid, domain) in [(GUEST, 7), (other, 8)] {
        let entry = ContextEntry::new(PhysAddr::new(0x9000), Levels::Four, domain);
        root.set_context(&mut RamRef(&mut ram), rid, entry).unwrap();
    }
    let attached: Vec<(Bdf, u32)> =
        root.contexts(&ram.mem).iter().map(|(rid, context)| (*rid, context.domain_id)).collect();
    assert_eq!(attached, [(other, 8), (GUEST, 7)]);
    assert_eq!(root.pages(&ram.mem).len(), 3);
    root.clear_context(&mut RamRef(&mut ram), other);
    assert_eq!(root.context(&ram.mem, other), Err(FaultReason::ContextAbsent));
    let page = root.unlink(&mut RamRef(&mut ram), 0).unwrap();
    assert_eq!(root.unlink(&mut RamRef(&mut ram), 0), None);
    assert_eq!(root.context(&ram.mem, other), Err(FaultReason::RootAbsent));
    ram.free(page).unwrap();
    assert_eq!(root.contexts(&ram.mem).len(), 1);
}

#[test]
fn domain_ids_of_the_previous_kernel_are_not_given_again() {
    let mut ids = DomainIds::default();
    assert!(ids.reserve(2) && !ids.reserve(2) && !ids.reserve(0) && !ids.reserve(0x1_0000));
    assert_eq!([ids.alloc(), ids.alloc(), ids.alloc()], [Some(1), Some(3), Some(4)]);
    ids.release(3);
    assert_eq!(ids.alloc(), Some(3));
    assert_eq!(ids.used().collect::<Vec<_>>(), [1, 2, 3, 4]);
    while ids.alloc().is_some() {}
    assert_eq!(ids.used().count(), 0xffff);
}

#[derive(Clone, Debug)]
enum Change {
    Map { page: u64, frame: u64, pages: u64, bits: u64 },
    Unmap { page: u64, pages: u64 },
    Use { page: u64, offset: u64, write: bool },
}

/// Pages around the ends of leaf tables and of what is translated.
fn page() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..8, 508u64..520, (1u64 << 18) - 4..(1 << 18) + 4, (1u64 << 27) - 8..(1 << 27)]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (page(), 1u64..900, 1u64..6, 1u64..4).prop_map(|(page, frame, pages, bits)| Change::Map {
            page,
            frame,
            pages,
            bits
        }),
        (page(), 1u64..6).prop_map(|(page, pages)| Change::Unmap { page, pages }),
        (page(), 0u64..4096, any::<bool>()).prop_map(|(page, offset, write)| Change::Use {
            page,
            offset,
            write
        }),
    ]
}

type Model = BTreeMap<u64, (u64, Permissions)>;

/// Makes a change to the table and to the model, and compares the answers. True if pages were unmapped.
fn apply(ram: &mut Ram, table: PageTable, model: &mut Model, change: &Change) -> bool {
    let end = table.levels.end() / PAGE_SIZE;
    match *change {
        Change::Map { page, frame, pages, bits } => {
            let permissions = Permissions::of(bits);
            let got = table.map(
                &mut RamRef(ram),
                page * PAGE_SIZE,
                PhysAddr::new(frame * PAGE_SIZE),
                pages * PAGE_SIZE,
                permissions,
            );
            let fits = page + pages <= end && (page..page + pages).all(|at| !model.contains_key(&at));
            assert_eq!(got.is_ok(), fits, "{change:?}: {got:?}");
            if fits {
                model.extend((0..pages).map(|n| (page + n, (frame + n, permissions))));
            }
            false
        }
        Change::Unmap { page, pages } => {
            let got = table.unmap(&mut RamRef(ram), page * PAGE_SIZE, pages * PAGE_SIZE);
            let fits = (page..page + pages).all(|at| model.contains_key(&at));
            assert_eq!(got.is_ok(), fits, "{change:?}: {got:?}");
            if fits {
                model.retain(|at, _| !(page..page + pages).contains(at));
            }
            fits
        }
        Change::Use { .. } => false,
    }
}

fn flat(ram: &Ram, table: PageTable) -> Model {
    let contents = table.contents(&ram.mem).unwrap();
    let pages = contents.extents.iter().flat_map(|extent| {
        (0..extent.len / PAGE_SIZE).map(|n| {
            let frame = extent.addr.raw() / PAGE_SIZE + n;
            (extent.iova / PAGE_SIZE + n, (frame, extent.permissions))
        })
    });
    pages.collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// A page table maps what a map of pages maps; every frame taken for it is a table page, and comes back.
    #[test]
    fn a_page_table_is_a_map(changes in prop::collection::vec(change(), 0..60), four in any::<bool>()) {
        let mut ram = ram();
        let levels = if four { Levels::Four } else { Levels::Three };
        let table = PageTable::new(&mut RamRef(&mut ram), levels).unwrap();
        let mut model = Model::new();
        for change in &changes {
            apply(&mut ram, table, &mut model, change);
        }
        prop_assert_eq!(&flat(&ram, table), &model);
        for (page, (frame, permissions)) in &model {
            let to = table.translate(&ram.mem, page * PAGE_SIZE + 7).unwrap();
            prop_assert_eq!((to.addr.raw(), to.permissions), (frame * PAGE_SIZE + 7, *permissions));
        }
        let tables = u64::try_from(table.contents(&ram.mem).unwrap().tables.len()).unwrap();
        prop_assert_eq!(ram.frames.outstanding(FrameUse::IommuTable), tables);
        table.destroy(&mut RamRef(&mut ram)).unwrap();
        prop_assert_eq!(ram.frames.outstanding(FrameUse::IommuTable), 0);
    }

    /// A unit that remembers and is told of every page that is unmapped answers as one that walks each time.
    #[test]
    fn a_cache_that_is_told_is_a_walk(
        changes in prop::collection::vec(change(), 0..80),
        bits in 0u8..6,
        by_page in any::<bool>(),
    ) {
        let mut ram = ram();
        let table = PageTable::new(&mut RamRef(&mut ram), Levels::Four).unwrap();
        let mut remembers = unit(&mut ram, table, GUEST, 7);
        let mut walks = remembers.clone();
        remembers.set_cache(Some(bits));
        let mut model = Model::new();
        for change in &changes {
            if apply(&mut ram, table, &mut model, change) && let Change::Unmap { page, pages } = change {
                for page in *page..page + pages {
                    let iova = page * PAGE_SIZE;
                    let one = Invalidation::Page { domain: 7, iova };
                    let what = if by_page { one } else { Invalidation::Domain(7) };
                    remembers.write(reg::INVAL, 8, what.encode());
                }
            }
            if let Change::Use { page, offset, write } = change {
                let wants = if *write { Permissions::WRITE } else { Permissions::READ };
                let iova = page * PAGE_SIZE + offset;
                let walked = walks.translate(&ram.mem, GUEST, iova, wants);
                prop_assert_eq!(remembers.translate(&ram.mem, GUEST, iova, wants), walked);
                let known = model.get(page).filter(|(_, permissions)| permissions.allow(wants));
                prop_assert_eq!(walked.ok().map(PhysAddr::raw), known.map(|(frame, _)| frame * PAGE_SIZE + offset));
            }
        }
    }

    /// Tables may be anything: a walk ends, stays in memory, and says what a translation says.
    #[test]
    fn any_tables_can_be_walked(
        entries in prop::collection::vec((0u64..16, 0u64..512, 0u64..1100, 0u64..8), 0..200),
        wild in prop::collection::vec((0u64..16, 0u64..512, any::<u64>()), 0..20),
        iovas in prop::collection::vec(any::<u64>(), 20),
        root in 0u64..20,
    ) {
        let mut ram = ram();
        for (table, index, frame, bits) in entries {
            set_entry(&mut ram, PhysAddr::new(table * PAGE_SIZE), index, frame << 12 | bits & 3);
        }
        for (table, index, entry) in wild {
            set_entry(&mut ram, PhysAddr::new(table * PAGE_SIZE), index, entry);
        }
        let top = PhysAddr::new(root * PAGE_SIZE);
        for levels in [Levels::Three, Levels::Four] {
            let all = walk::contents(&ram.mem, top, levels);
            for iova in &iovas {
                let one = walk::translate(&ram.mem, top, levels, iova % levels.end());
                if let (Ok(contents), Ok(to)) = (&all, &one) {
                    let frame = to.addr.pfn();
                    prop_assert!(to.permissions.bits() == 0 || contents.frames().any(|found| found == frame));
                }
            }
            let table = PageTable { top, levels };
            for iova in &iovas {
                let iova = iova % levels.end() / PAGE_SIZE * PAGE_SIZE;
                let rw = Permissions::READ_WRITE;
                let _ = table.map(&mut RamRef(&mut ram), iova, PhysAddr::new(0x7000), PAGE_SIZE, rw);
                let _ = table.unmap(&mut RamRef(&mut ram), iova, 3 * PAGE_SIZE);
            }
        }
        let mut unit = IommuUnit::new();
        unit.write(reg::ROOT_PA, 8, root * PAGE_SIZE);
        unit.write(reg::CTRL, 4, 1);
        for iova in iovas {
            let rid = Bdf::from_raw(u16::try_from(iova & 0xffff).unwrap());
            let _ = unit.translate(&ram.mem, rid, iova, Permissions::WRITE);
        }
        let mut page = [0u8; 4096];
        ram.mem.read(PhysAddr::new(MEMORY - 4096), page.as_mut_bytes()).unwrap();
    }
}
