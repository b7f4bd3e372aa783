//! Registers, descriptors, tables and configuration that hold anything: nothing panics, nothing hangs, and nothing is
//! written but what is mapped for the requester.

use std::collections::BTreeSet;

use luosim_hardware::driver::GuestMemory;
use luosim_hardware::iommu::reg as unit_reg;
use luosim_hardware::pci::config::{command, reg as pci_reg};
use luosim_hardware::simdma::layout::{Descriptor, Op, reg};
use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::world::{BASE, BRIDGE, GUEST, OTHER, World};

#[derive(Clone, Debug)]
enum Deed {
    Register { other: bool, offset: u16, width: u8, value: u64 },
    Memory { iova: u64, bytes: Vec<u8> },
    Table { table: usize, index: u64, entry: u64 },
    Config { which: u8, offset: u16, width: u8, value: u32 },
    Unit { offset: u16, width: u8, value: u64 },
    Tick(u64),
    Remove(u8),
}

/// Numbers near what makes sense, and some that do not.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..16,
        4 => (0u64..0xd000).prop_map(|at| BASE + at),
        2 => (0u32..33).prop_map(|bit| 1 << bit),
        1 => (0u64..32).prop_map(|less| u64::MAX - less),
        1 => any::<u64>(),
    ]
}

fn descriptor() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![4 => (1u32..40).prop_map(|n| 16 * n), 1 => 0u32..100, 1 => any::<u32>()];
    let op = prop_oneof![8 => 1u16..6, 1 => any::<u16>()];
    let flags = prop_oneof![4 => 0u16..3, 1 => any::<u16>()];
    (value(), value(), len, op, flags, any::<u64>()).prop_map(|(src, dst, len, op, flags, cookie)| {
        let words: [&[u8]; 6] = [
            &src.to_le_bytes(),
            &(dst & !15).to_le_bytes(),
            &len.to_le_bytes(),
            &op.to_le_bytes(),
            &flags.to_le_bytes(),
            &cookie.to_le_bytes(),
        ];
        words.concat()
    })
}

fn register() -> impl Strategy<Value = Deed> {
    let offset = prop_oneof![9 => (0u16..24).prop_map(|word| 4 * word), 1 => any::<u16>()];
    let width = prop_oneof![4 => Just(4u8), 4 => Just(8u8), 1 => any::<u8>()];
    (any::<bool>(), offset, width, value()).prop_map(|(other, offset, width, value)| Deed::Register {
        other,
        offset,
        width,
        value,
    })
}

fn rung() -> impl Strategy<Value = Deed> {
    let useful = [(reg::CTRL, 5), (reg::CTRL, 1), (reg::HEAD, 3), (reg::HEAD, 100), (reg::RING_LEN, 128)];
    (any::<bool>(), prop::sample::select(useful.to_vec()))
        .prop_map(|(other, (offset, value))| Deed::Register { other, offset, width: 4, value })
}

fn work() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0u64..128, descriptor()).prop_map(|(slot, bytes)| Deed::Memory { iova: BASE + 32 * slot, bytes }),
        1 => (0u64..0xc000, prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, bytes)| Deed::Memory { iova: BASE + at, bytes }),
        3 => rung(),
        3 => register(),
        4 => (1u64..200).prop_map(Deed::Tick),
    ]
}

fn anything() -> impl Strategy<Value = Deed> {
    let entry = prop_oneof![(0u64..2100, 0u64..8).prop_map(|(pfn, bits)| pfn << 12 | bits), any::<u64>()];
    let config = (0u8..4, 0u16..0x140, any::<u8>(), any::<u32>());
    let useful =
        (0u8..3, Just(pci_reg::COMMAND), Just(2u8), Just(u32::from(command::MASTER | command::MEMORY)));
    prop_oneof![
        6 => work(),
        2 => (0usize..8, 0u64..512, entry).prop_map(|(table, index, entry)| Deed::Table { table, index, entry }),
        1 => config.prop_map(|(which, offset, width, value)| Deed::Config { which, offset, width, value }),
        1 => useful.prop_map(|(which, offset, width, value)| Deed::Config { which, offset, width, value }),
        1 => (0u16..0x40, prop_oneof![Just(4u8), Just(8u8), any::<u8>()], value())
            .prop_map(|(offset, width, value)| Deed::Unit { offset, width, value }),
        1 => (0u8..16).prop_map(Deed::Remove),
    ]
}

fn apply(world: &mut World, tables: &[Pfn], deed: Deed) {
    let bdf = |which: u8| [GUEST, OTHER, BRIDGE, luosim_hardware::Bdf::new(1, 0, 1)][usize::from(which) % 4];
    match deed {
        Deed::Register { other, offset, width, value } => {
            let device = if other { OTHER } else { GUEST };
            world.hw.mmio_write(device, offset, width, value);
            world.hw.mmio_read(device, offset, width);
        }
        Deed::Memory { iova, bytes } => {
            // What lies behind the end of guest memory is not there.
            let _ = world.guest().1.write(iova, &bytes);
        }
        Deed::Table { table, index, entry } => {
            let at = tables[table % tables.len()].addr().raw() + 8 * index;
            world.ram.mem.write_u64(PhysAddr::new(at), entry).unwrap();
        }
        Deed::Config { which, offset, width, value } => {
            world.hw.config_write(bdf(which), offset, width, value);
        }
        Deed::Unit { offset, width, value } => world.hw.unit(0).write(offset, width, value),
        Deed::Tick(n) => world.tick(n),
        Deed::Remove(0) => world.hw.surprise_remove(OTHER),
        Deed::Remove(_) => {}
    }
}

/// Every frame but the two guests' memory.
fn rest(world: &World, all: bool) -> Vec<(u64, [u8; 4096])> {
    let mine: BTreeSet<Pfn> = world.frames.iter().chain(&world.other_frames).copied().collect();
    let frames = (0..world.ram.frames.frame_count()).map(Pfn::new);
    let rest = frames.filter(|pfn| all || !mine.contains(pfn));
    rest.map(|pfn| (pfn.raw(), world.ram.mem.read_obj(pfn.addr()).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever drivers write to registers and rings, devices write the memory that is mapped for them and no other.
    #[test]
    fn devices_write_what_is_mapped_for_them(
        deeds in prop::collection::vec(work(), 1..60),
        cache in prop::option::of(0u8..6),
    ) {
        let mut world = World::new(cache);
        world.driver(true);
        world.hw.watch_writes(true);
        let before = rest(&world, false);
        for deed in deeds {
            apply(&mut world, &[], deed);
        }
        prop_assert!(rest(&world, false) == before, "a frame outside was written");
        for (frame, writer) in world.hw.take_writes() {
            let own = if writer == GUEST { &world.frames } else { &world.other_frames };
            prop_assert!(own.contains(&frame), "{} wrote {}", writer, frame);
        }
    }

    /// Whatever is in tables, configuration and units' registers, nothing panics or hangs, and only frames in memory
    /// that some table can name are written.
    #[test]
    fn anything_is_survived(
        deeds in prop::collection::vec(anything(), 1..80),
        cache in prop::option::of(0u8..6),
    ) {
        let mut world = World::new(cache);
        world.driver(true);
        let tables = world.tables();
        let clock = world.hw.now();
        let mut ticks = 0;
        for deed in deeds {
            ticks += if let Deed::Tick(n) = deed { n } else { 0 };
            apply(&mut world, &tables, deed);
        }
        prop_assert_eq!(world.hw.now(), clock + ticks);
        let index = world.hw.functions().position(|info| info.rid.devfn() == GUEST.devfn()).unwrap();
        let tokens = luosim_hardware::verify::Tokens::default();
        let (view, contents) =
            luosim_hardware::verify::DeviceView::observe(&world.hw, &world.ram.mem, index, tokens);
        prop_assert!(view.mapping.is_ok() || contents.extents.is_empty());
    }

    /// The same deeds lead to the same state and the same memory.
    #[test]
    fn hostile_runs_repeat(deeds in prop::collection::vec(anything(), 1..40)) {
        let run = || {
            let mut world = World::new(Some(4));
            world.driver(true);
            let tables = world.tables();
            deeds.iter().for_each(|deed| apply(&mut world, &tables, deed.clone()));
            (world.hw.digest(), rest(&world, true))
        };
        let ((first, memory), (second, again)) = (run(), run());
        prop_assert_eq!(first, second);
        prop_assert!(memory == again);
    }

    /// An address that is not mapped is refused, and the refusal is recorded where drivers and kernels look for it: in the
    /// device, in its IOMMU, in the function's Status and in the completion. Nothing outside is written.
    #[test]
    fn a_request_outside_is_a_recorded_fault(
        iova in prop_oneof![value(), any::<u64>()],
        units in 1u32..300,
        reads in any::<bool>(),
        cache in prop::option::of(0u8..6),
    ) {
        let (iova, len) = (iova & !15, 16 * units);
        let end = BASE + 4096 * u64::try_from(crate::world::PAGES).unwrap();
        let inside = |at: u64| (BASE..end).contains(&at);
        prop_assume!(iova.checked_add(u64::from(len)).is_some());
        let first_outside = (iova..iova + u64::from(len)).step_by(16).find(|at| !inside(*at));
        prop_assume!(first_outside.is_some());
        // The rings are overwritten by what begins in them: that is another property.
        prop_assume!(!(BASE..BASE + 0x2000).contains(&(iova + u64::from(len) - 1)) && !(BASE..BASE + 0x2000).contains(&iova));
        let mut world = World::new(cache);
        let mut driver = world.driver(false);
        let before = rest(&world, false);
        let buffer = driver.buffers();
        let descriptor = if reads {
            Descriptor::new(Op::Copy, iova, buffer, len, 1)
        } else {
            Descriptor::new(Op::Fill, 0, iova, len, 1)
        };
        let (hw, mut guest) = world.guest();
        driver.post(&mut guest, descriptor).unwrap();
        driver.ring(hw);
        world.tick(200);
        let (hw, guest) = world.guest();
        let completions = driver.drain(&guest).unwrap();
        prop_assert_eq!(completions.iter().map(|one| one.status.get()).collect::<Vec<_>>(), vec![2]);
        prop_assert_eq!(hw.mmio_read(GUEST, reg::FAULT_CNT, 4), 1);
        let at = hw.mmio_read(GUEST, reg::FAULT_IOVA, 8);
        prop_assert_eq!(at >> 12, first_outside.unwrap() >> 12, "{:#x}", at);
        prop_assert_eq!(hw.units()[0].fault_count(), 1);
        prop_assert_eq!(hw.unit(0).read(unit_reg::FAULT_ADDR, 8) >> 12, at >> 12);
        prop_assert!(rest(&world, false) == before, "a frame outside was written");
    }
}

#[test]
fn a_device_may_write_the_tables_that_are_mapped_for_it() {
    // Nothing here protects a kernel that maps its own tables; the device's next request goes where they lead.
    let mut world = World::new(None);
    let leaf = world.tables()[3];
    let rw = luosim_hardware::iommu::Permissions::READ_WRITE;
    let mut mem = luosim_hardware::iommu::RamRef(&mut world.ram);
    world.table.map(&mut mem, BASE + 0x10_0000, leaf.addr(), PAGE_SIZE, rw).unwrap();
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    driver.post_fill(&mut guest, BASE + 0x10_0000, 4096, 1).unwrap();
    driver.ring(hw);
    world.tick(100);
    let refused = world.hw.units()[0].fault_count();
    assert!(refused > 0);
    assert_eq!(world.hw.mmio_read(GUEST, reg::CTRL, 4), 0);
}
