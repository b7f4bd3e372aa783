//! DMA of simulated devices: operations of 64 bytes, each with a descriptor, a payload and a completion that go through the
//! IOMMU's tables.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use luosim_hardware::iommu::{
    ContextEntry, Levels, PageTable, Permissions, RamRef, RootTable, reg as iommu_reg,
};
use luosim_hardware::pci::{Layout, config::command};
use luosim_hardware::simdma::layout::{Descriptor, Op, ctrl, reg};
use luosim_hardware::verify::{DeviceView, Tokens};
use luosim_hardware::{Bdf, Hardware};
use luosim_physmem::{FrameUse, Order, PAGE_SIZE, Pfn, PhysAddr, PhysMem, Ram};

const GUEST: Bdf = Bdf::new(1, 0, 0);
const BASE: u64 = 0x1_0000_0000;

/// A machine whose device executes `op` on 64 bytes for ever, over 60 pages.
fn looping(op: Op, levels: Levels, cache: Option<u8>) -> (Hardware, Ram) {
    let mut hw = Hardware::new(Layout::reference()).expect("a plan that can be built");
    let mut ram = Ram::new(PhysMem::anonymous(16 << 20).expect("the host has room"));
    let table = PageTable::new(&mut RamRef(&mut ram), levels).expect("room");
    let root = RootTable::new(&mut RamRef(&mut ram)).expect("room");
    let mut first = Pfn::new(0);
    for page in 0..64 {
        let frame = ram.alloc_zeroed(Order::ZERO, FrameUse::PageCache).expect("room");
        first = if page == 0 { frame } else { first };
        let (iova, rw) = (BASE + page * PAGE_SIZE, Permissions::READ_WRITE);
        table.map(&mut RamRef(&mut ram), iova, frame.addr(), PAGE_SIZE, rw).expect("free addresses");
    }
    let entry = ContextEntry::new(table.top, levels, 7);
    root.set_context(&mut RamRef(&mut ram), GUEST, entry).expect("room");
    hw.unit(0).set_cache(cache);
    hw.unit(0).write(iommu_reg::ROOT_PA, 8, root.0.raw());
    hw.unit(0).write(iommu_reg::CTRL, 4, 1);
    hw.change_command(GUEST, command::MEMORY | command::MASTER, 0);
    for slot in 0..60 {
        let at = BASE + (slot + 2) * PAGE_SIZE + 64 * slot;
        let descriptor = Descriptor::new(op, at, at + 1024, 64, slot);
        ram.mem.write_obj(PhysAddr::new(first.addr().raw() + 32 * slot), &descriptor).expect("inside");
    }
    let again = Descriptor::new(Op::Loop, 0, 0, 0, 0);
    ram.mem.write_obj(PhysAddr::new(first.addr().raw() + 32 * 60), &again).expect("inside");
    for (offset, width, value) in [
        (reg::RING_IOVA, 8, BASE),
        (reg::CQ_IOVA, 8, BASE + PAGE_SIZE),
        (reg::RING_LEN, 4, 128),
        (reg::HEAD, 4, 61),
        (reg::CTRL, 4, u64::from(ctrl::RUN)),
    ] {
        hw.mmio_write(GUEST, offset, width, value);
    }
    (hw, ram)
}

fn operations(c: &mut Criterion) {
    const TICKS: u64 = 61_000;
    let mut group = c.benchmark_group("dma-operations");
    group.throughput(Throughput::Elements(60_000));
    for (name, op, levels, cache) in [
        ("fill, 4 levels walked", Op::Fill, Levels::Four, None),
        ("copy, 4 levels walked", Op::Copy, Levels::Four, None),
        ("copy, 3 levels walked", Op::Copy, Levels::Three, None),
        ("copy, 64 pages remembered", Op::Copy, Levels::Four, Some(6)),
    ] {
        let (mut hw, mut ram) = looping(op, levels, cache);
        group.bench_function(name, |b| b.iter(|| hw.tick(&mut ram.mem, TICKS)));
        hw.tick(&mut ram.mem, TICKS);
        let totals = hw.device(GUEST).expect("a device").totals();
        assert!(totals.ops > 0 && totals.faults == 0 && totals.drops == 0, "{totals:?}");
    }
    group.finish();
}

fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("dma-tables");
    for gib in [1u64, 4] {
        let pages = gib << 18;
        group.throughput(Throughput::Elements(pages));
        group.bench_with_input(BenchmarkId::new("map", format!("{gib} GiB")), &gib, |b, gib| {
            let mut ram = Ram::new(PhysMem::anonymous(64 << 20).expect("the host has room"));
            b.iter(|| {
                let mut mem = RamRef(&mut ram);
                let table = PageTable::new(&mut mem, Levels::Four).expect("room");
                let rw = Permissions::READ_WRITE;
                table.map(&mut mem, BASE, PhysAddr::new(BASE), gib << 30, rw).expect("free addresses");
                table.destroy(&mut mem).expect("our own tables");
            });
        });
    }
    // A guest's memory of huge folios, and pages in reverse order, no two of which are one extent.
    for (name, step) in [("observe/1 GiB", 1), ("observe/1 GiB scattered", -1i64)] {
        let (mut hw, mut ram) = looping(Op::Fill, Levels::Four, None);
        let (table, _) =
            hw.page_table(&ram.mem, &hw.function(GUEST).expect("it is there")).expect("attached");
        let pages = 1u64 << 18;
        for page in 0..pages {
            let (iova, frame) =
                ((1 << 40) + page * PAGE_SIZE, (1i64 << 20) + step * i64::try_from(page).expect("small"));
            let frame = Pfn::new(u64::try_from(frame).expect("above 0")).addr();
            table
                .map(&mut RamRef(&mut ram), iova, frame, PAGE_SIZE, Permissions::READ)
                .expect("free addresses");
        }
        hw.tick(&mut ram.mem, 100);
        let index = hw.index_of(GUEST).expect("it is there");
        group.throughput(Throughput::Elements(pages));
        group.bench_function(name, |b| {
            b.iter(|| DeviceView::observe(&hw, &ram.mem, index, Tokens::default()));
        });
    }
    group.finish();
}

/// The virtual machine story from end to end, with every invariant looked at: two VMMs of 4 GiB each.
fn story(c: &mut Criterion) {
    let text = include_str!("../sim-scenarios/devices-vm/vm-story.kdl");
    let text = text.replace("8MiB", "4GiB").replace("64MiB", "10GiB");
    let scenario = luosim_scenario::parse(&text).expect("a scenario of ours");
    let mut group = c.benchmark_group("vm-story");
    group.sample_size(10);
    group.bench_function("two of 4 GiB", |b| {
        b.iter(|| {
            let report =
                luosim_sim::run(&scenario, &luosim_sim::Options::default()).expect("the host has room");
            assert_eq!(report.failures, 0, "a step or an invariant");
        });
    });
    group.finish();
}

criterion_group!(benches, operations, tables, story);
criterion_main!(benches);
