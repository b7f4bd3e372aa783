//! Functions, the ways to them, and what configuration accesses do to a device.

use luosim_hardware::pci::config::{bits, command, reg, status};
use luosim_hardware::pci::{BusPolicy, Found, Identity, Layout, enumerate};
use luosim_hardware::simdma::layout::reg as dma_reg;
use luosim_hardware::{Bdf, Hardware};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::world::{BASE, BRIDGE, GUEST, OTHER, World};

fn addresses(found: &[Found]) -> Vec<Bdf> {
    found.iter().map(|one| one.bdf).collect()
}

fn reference() -> Hardware {
    Hardware::new(Layout::reference()).unwrap()
}

#[test]
fn the_reference_machine_is_found_as_it_is_drawn() {
    let mut hw = reference();
    let found = enumerate(&mut hw, BusPolicy::Keep);
    let at = Bdf::new;
    let want = [at(0, 1, 0), at(0, 2, 0), at(0, 3, 0), at(1, 0, 0), at(1, 0, 1), at(1, 1, 0)];
    assert_eq!(addresses(&found), want);
    assert!(found.iter().all(|one| one.bridge == (one.bdf == BRIDGE)));
    assert_eq!(found[4].parent, Some(BRIDGE));
    let identity = |bdf| hw.function(bdf).map(|info| info.identity);
    assert_eq!(identity(at(1, 0, 1)), Some(Identity::Virtual));
    assert_eq!(identity(at(0, 3, 0)), Some(Identity::AcsQuirk));
    assert_eq!(hw.config_read(at(0, 3, 0), reg::ACS, 4), 0);
    assert_eq!(hw.config_read(at(0, 2, 0), reg::ACS, 2), 0x0d);
    assert_eq!(hw.path(GUEST), [GUEST, BRIDGE]);
    assert_eq!(hw.path(at(0, 2, 0)), [at(0, 2, 0)]);
    assert_eq!(hw.path(at(2, 0, 0)), []);
}

#[test]
fn nothing_answers_with_ones() {
    let mut hw = reference();
    for absent in [Bdf::new(0, 0, 0), Bdf::new(1, 2, 0), Bdf::new(2, 0, 0)] {
        assert_eq!(hw.config_read(absent, 0, 4), u32::MAX);
        assert_eq!(hw.config_read(absent, 0, 2), 0xffff);
        assert_eq!(hw.mmio_read(absent, 0, 4), 0xffff_ffff);
        assert!(!hw.try_reset_function(absent));
    }
    // Memory access is off after power on.
    assert_eq!(hw.mmio_read(GUEST, dma_reg::ID, 4), 0xffff_ffff);
    hw.change_command(GUEST, command::MEMORY, 0);
    assert_eq!(hw.mmio_read(GUEST, dma_reg::ID, 4), 0x414d_4453);
    hw.change_command(BRIDGE, 0, command::MEMORY);
    assert_eq!(hw.mmio_read(GUEST, dma_reg::ID, 4), 0xffff_ffff);
    assert_eq!(hw.config_read(GUEST, 0, 2), 0x1b36);
}

#[test]
fn bus_mastering_is_the_whole_ways() {
    let mut world = World::new(None);
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    for n in 0..4 {
        driver.post_fill(&mut guest, BASE + 0x2000, 64, n).unwrap();
    }
    driver.ring(hw);
    world.tick(1);
    for off in [GUEST, BRIDGE] {
        let before = world.hw.device(GUEST).unwrap().totals();
        world.hw.change_command(off, 0, command::MASTER);
        assert!(!world.hw.is_master(GUEST));
        world.tick(5);
        let after = world.hw.device(GUEST).unwrap().totals();
        assert_eq!((after.ops, after.drops), (before.ops, before.drops + 5));
        world.hw.change_command(off, command::MASTER, 0);
        world.tick(1);
    }
    world.tick(10);
    world.drain(&mut driver);
    // Nothing was lost, and nothing done twice.
    assert_eq!(driver.completions().len(), 4);
    assert_eq!(driver.out_of_order(), None);
    assert_eq!(world.hw.mmio_read(GUEST, dma_reg::STATUS, 4), 8);
    assert_eq!(world.hw.mmio_read(GUEST, dma_reg::DROP_CNT, 4), 10);
}

#[test]
fn a_device_sleeps_in_d3_and_forgets_when_it_wakes() {
    let mut world = World::new(None);
    world.start_other();
    world.tick(10);
    let sleep = |hw: &mut Hardware, bdf, state| hw.config_write(bdf, reg::PM_CONTROL, 2, state);
    let ops = |hw: &Hardware| hw.device(OTHER).unwrap().totals().bytes_written;
    sleep(&mut world.hw, OTHER, 3);
    let before = ops(&world.hw);
    world.tick(10);
    assert_eq!((ops(&world.hw), world.hw.mmio_read(OTHER, 0, 4)), (before, 0xffff_ffff));
    assert_eq!(world.hw.device(OTHER).unwrap().totals().drops, 0);
    sleep(&mut world.hw, OTHER, 0);
    world.hw.change_command(OTHER, command::MEMORY, 0);
    assert_eq!(world.hw.mmio_read(OTHER, dma_reg::RESET_CNT, 4), 1);
    assert_eq!(world.hw.mmio_read(OTHER, dma_reg::SEQ, 8), 0);
    // A bridge in D3 cuts off what is below it, and keeps its numbers.
    sleep(&mut world.hw, BRIDGE, 3);
    assert_eq!(world.hw.config_read(GUEST, 0, 2), 0xffff);
    sleep(&mut world.hw, BRIDGE, 0);
    assert_eq!(world.hw.config_read(GUEST, 0, 2), 0x1b36);
}

#[test]
fn resets_of_a_function_can_be_undone_in_its_configuration() {
    let mut world = World::new(None);
    let hw = &mut world.hw;
    hw.config_write(GUEST, reg::MSIX_CONTROL, 2, u32::from(bits::MSIX_ENABLE));
    let bar = hw.config(GUEST).unwrap().bar0();
    let kept = |hw: &Hardware| {
        let config = hw.config(GUEST).unwrap();
        (config.u16(reg::COMMAND), config.bar0(), config.u16(reg::MSIX_CONTROL))
    };
    let before = kept(hw);
    assert!(hw.try_reset_function(GUEST));
    assert_eq!(kept(hw), before);
    assert_eq!(hw.mmio_read(GUEST, dma_reg::RESET_CNT, 4), 1);
    hw.config_write(GUEST, reg::DEVICE_CONTROL, 2, 0x8000);
    assert_eq!(kept(hw), (0, 0, 0));
    assert_ne!(bar, 0);
    assert!(!hw.try_reset_function(BRIDGE));
}

#[test]
fn renumbering_changes_what_devices_put_on_their_requests() {
    let mut hw = reference();
    let again = enumerate(&mut hw, BusPolicy::Assign { first: 1 });
    assert_eq!(addresses(&again), addresses(&enumerate(&mut hw, BusPolicy::Keep)));
    assert_eq!(hw.function(GUEST).unwrap().rid, GUEST);
    let index = hw.index_of(GUEST).unwrap();
    // The bridge has another number, and nothing has told the device yet.
    hw.config_write(BRIDGE, reg::SECONDARY, 1, 4);
    hw.config_write(BRIDGE, reg::SUBORDINATE, 1, 4);
    let info = hw.functions().nth(index).unwrap();
    assert_eq!((info.bdf, info.rid), (Some(Bdf::new(4, 0, 0)), GUEST));
    let found = enumerate(&mut hw, BusPolicy::Assign { first: 7 });
    assert!(addresses(&found).contains(&Bdf::new(7, 0, 0)));
    let info = hw.functions().nth(index).unwrap();
    assert_eq!((info.bdf, info.rid), (Some(Bdf::new(7, 0, 0)), Bdf::new(7, 0, 0)));
}

#[test]
fn a_bridge_without_sensible_numbers_loses_them() {
    for (secondary, subordinate) in [(0, 0), (3, 2), (0, 9)] {
        let mut hw = reference();
        hw.config_write(BRIDGE, reg::SECONDARY, 1, secondary);
        hw.config_write(BRIDGE, reg::SUBORDINATE, 1, subordinate);
        let found = enumerate(&mut hw, BusPolicy::Keep);
        assert_eq!(found.len(), 3, "{secondary} to {subordinate}");
        assert_eq!(hw.config(BRIDGE).unwrap().buses(), (0, 0, 0));
    }
}

#[test]
fn what_is_pulled_out_is_gone_with_everything_below() {
    let mut world = World::new(None);
    world.start_other();
    world.hw.surprise_remove(BRIDGE);
    let found = enumerate(&mut world.hw, BusPolicy::Keep);
    assert_eq!(addresses(&found), [Bdf::new(0, 2, 0), Bdf::new(0, 3, 0)]);
    assert_eq!(world.hw.functions().filter(|info| info.present).count(), 2);
    let before = world.hw.digest();
    world.tick(10);
    assert_eq!(world.hw.now(), 10);
    assert_ne!(world.hw.digest(), before);
    let gone = world.hw.functions().filter(|info| !info.present);
    assert!(gone.into_iter().all(|info| info.bdf.is_none()));
}

#[test]
fn status_remembers_a_refused_request() {
    let mut world = World::new(None);
    world.root.clear_context(&mut luosim_hardware::iommu::RamRef(&mut world.ram), OTHER);
    world.start_other();
    world.tick(3);
    let abort = u32::from(status::RECEIVED_MASTER_ABORT);
    assert_eq!(world.hw.config_read(OTHER, reg::STATUS, 2) & abort, abort);
    world.hw.config_write(OTHER, reg::STATUS, 2, abort);
    assert_eq!(world.hw.config_read(OTHER, reg::STATUS, 2) & abort, 0);
}

#[test]
fn power_off_forgets_everything() {
    let mut world = World::new(None);
    let fresh = reference();
    world.start_other();
    world.tick(10);
    assert_ne!(world.hw, fresh);
    world.hw.cold_reset();
    assert_eq!(world.hw, fresh);
    assert_eq!(world.hw.digest(), fresh.digest());
}

fn deep() -> Layout {
    let at = Bdf::new;
    Layout::empty()
        .bridge(at(0, 1, 0), 1)
        .bridge(at(1, 0, 0), 2)
        .endpoint(at(2, 0, 0))
        .bridge(at(1, 1, 0), 3)
        .endpoint(at(3, 0, 0))
        .bridge(at(0, 2, 0), 4)
        .endpoint(at(4, 5, 0))
}

#[test]
fn numbers_are_given_depth_first() {
    let mut hw = Hardware::new(deep()).unwrap();
    let before = addresses(&enumerate(&mut hw, BusPolicy::Keep));
    assert_eq!(addresses(&enumerate(&mut hw, BusPolicy::Assign { first: 1 })), before);
    let found = enumerate(&mut hw, BusPolicy::Assign { first: 0x40 });
    let at = Bdf::new;
    let want = [
        at(0, 1, 0),
        at(0, 2, 0),
        at(0x40, 0, 0),
        at(0x40, 1, 0),
        at(0x41, 0, 0),
        at(0x42, 0, 0),
        at(0x43, 5, 0),
    ];
    assert_eq!(addresses(&found), want);
    assert_eq!(hw.config(at(0, 1, 0)).unwrap().buses(), (0, 0x40, 0x42));
    // Where numbers end, what is left is not found; nothing else is.
    assert_eq!(enumerate(&mut hw, BusPolicy::Assign { first: 0xff }).len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever numbers bridges have, looking for functions ends, finds none twice, and every one where it is found.
    #[test]
    fn any_bus_numbers_can_be_enumerated(
        numbers in prop::collection::vec((0usize..4, 0u16..3, any::<u8>()), 0..20),
        keep in any::<bool>(),
        first in any::<u8>(),
    ) {
        let mut hw = Hardware::new(deep()).unwrap();
        let bridges: Vec<usize> =
            (0..7).filter(|at| hw.functions().nth(*at).unwrap().identity == Identity::Bridge).collect();
        for (bridge, register, value) in numbers {
            let bdf = hw.functions().nth(bridges[bridge]).unwrap().bdf;
            if let Some(bdf) = bdf {
                hw.config_write(bdf, reg::PRIMARY + register, 1, u32::from(value));
            }
        }
        let policy = if keep { BusPolicy::Keep } else { BusPolicy::Assign { first } };
        let found = enumerate(&mut hw, policy);
        let mut unique = addresses(&found);
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), found.len());
        for one in found {
            prop_assert_eq!(hw.function(one.bdf).and_then(|info| info.bdf), Some(one.bdf));
        }
    }

    /// Configuration accesses of any kind do not panic, and never write what is read-only.
    #[test]
    fn any_configuration_access_is_harmless(
        accesses in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u32>()), 0..50),
    ) {
        let mut hw = reference();
        for (offset, width, value) in accesses {
            let (offset, width) = (offset % 0x140, [1, 2, 4, width][usize::from(width % 4)]);
            hw.config_write(GUEST, offset, width, value);
            let _ = hw.config_read(GUEST, offset, width);
        }
        prop_assert_eq!(hw.config_read(GUEST, reg::VENDOR, 4), 0x5d4d_1b36);
        prop_assert_eq!(hw.config_read(GUEST, reg::HEADER_TYPE, 1), 0x80);
    }
}
