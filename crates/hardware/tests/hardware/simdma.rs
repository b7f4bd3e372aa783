//! The device: registers, operations, rings, interrupts.

use luosim_hardware::driver::{Driver, GuestMemory};
use luosim_hardware::iommu::{Permissions, RamRef};
use luosim_hardware::pci::config::{bits, command, reg as pci_reg, status as pci_status};
use luosim_hardware::simdma::layout::{FLAG_COPIED, ctrl, reg, status};
use luosim_hardware::simdma::{Completion, Descriptor, Op, Outcome, Stamp};
use luosim_hardware::{Hardware, InterruptKind};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use zerocopy::{FromBytes, IntoBytes};

use crate::world::{BASE, GUEST, Guest, OTHER, World};

/// Runs descriptors to their end; their outcomes.
fn run(world: &mut World, descriptors: &[Descriptor]) -> Vec<Outcome> {
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    descriptors.iter().for_each(|descriptor| driver.post(&mut guest, *descriptor).unwrap());
    driver.ring(hw);
    world.hw.settle_dma(&mut world.ram.mem, 100_000);
    world.drain(&mut driver);
    assert_eq!(world.hw.mmio_read(GUEST, reg::SEQ, 8), u64::try_from(driver.completions().len()).unwrap());
    driver.completions().iter().map(|completion| completion.outcome().unwrap()).collect()
}

fn fill(dst: u64, len: u32, cookie: u64) -> Descriptor {
    Descriptor::new(Op::Fill, 0, dst, len, cookie)
}

fn bytes(world: &mut World, iova: u64, len: usize) -> Vec<u8> {
    let mut found = vec![0; len];
    assert!(world.guest().1.read(iova, &mut found));
    found
}

#[test]
fn a_fill_stamps_every_unit() {
    let mut world = World::new(None);
    assert_eq!(
        run(&mut world, &[fill(BASE + 0x2fe0, 96, 5), fill(BASE + 0x4000, 16, 6)]),
        [Outcome::Done; 2]
    );
    let found = bytes(&mut world, BASE + 0x2fd0, 128);
    assert_eq!((&found[..16], &found[112..]), (&[0; 16][..], &[0; 16][..]));
    for (unit, at) in found[16..112].chunks(16).zip((BASE + 0x2fe0..).step_by(16)) {
        assert_eq!(Stamp::read_from_bytes(unit).unwrap(), Stamp::new(1, at, 5));
    }
    let stamp = Stamp::read_from_bytes(&bytes(&mut world, BASE + 0x4000, 16)).unwrap();
    assert!(
        stamp.is_of(BASE + 0x4000, 6) && !stamp.is_of(BASE + 0x4000, 5) && !stamp.is_of(BASE + 0x4010, 6)
    );
    assert_eq!(world.hw.mmio_read(GUEST, reg::BYTES, 8), 112);
}

#[test]
fn copies_need_no_alignment() {
    let mut world = World::new(None);
    let text: Vec<u8> = (0..=255).cycle().take(700).collect();
    assert!(world.guest().1.write(BASE + 0x2f01, &text));
    let copy = Descriptor::new(Op::Copy, BASE + 0x2f01, BASE + 0x5eff, 700, 1);
    assert_eq!(run(&mut world, &[copy]), [Outcome::Done]);
    assert_eq!(bytes(&mut world, BASE + 0x5eff, 700), text);
    assert_eq!(bytes(&mut world, BASE + 0x5efe, 1), [0]);
    // Eleven steps, and not one more.
    assert_eq!(world.hw.now(), 11);
}

#[test]
fn verifying_finds_what_was_changed() {
    let mut world = World::new(None);
    let verify = |src, dst, cookie| Descriptor::new(Op::Verify, src, dst, 128, cookie);
    let (a, b) = (BASE + 0x2000, BASE + 0x3000);
    let copied = verify(b, a, 5).with_flags(FLAG_COPIED);
    let outcomes = run(
        &mut world,
        &[
            fill(a, 128, 5),
            verify(a, 0, 5),
            Descriptor::new(Op::Copy, a, b, 128, 9),
            copied,
            verify(b, 0, 5),
            verify(a, 0, 6),
        ],
    );
    use Outcome::{Done, Mismatch};
    assert_eq!(outcomes, [Done, Done, Done, Done, Mismatch, Mismatch]);
    assert!(world.hw.try_reset_function(GUEST));
    assert!(world.guest().1.write(a + 100, &[0xff]));
    assert_eq!(run(&mut world, &[verify(a, 0, 5)]), [Mismatch]);
}

#[test]
fn descriptors_that_make_no_sense_are_said_to_be_bad() {
    let mut world = World::new(None);
    let mut wrong = vec![
        fill(BASE + 0x2008, 16, 0),
        fill(BASE + 0x2000, 24, 0),
        fill(BASE + 0x2000, 0, 0),
        fill(u64::MAX - 15, 16, 0),
        Descriptor::new(Op::Verify, BASE + 8, 0, 16, 0),
        Descriptor::new(Op::Peer, BASE, BASE + 2, 4, 0),
        Descriptor::new(Op::Copy, BASE, u64::MAX, 4, 0),
    ];
    for op in [0, 6, 0xffff] {
        let mut unknown = fill(BASE + 0x2000, 16, 0);
        unknown.op = op.into();
        wrong.push(unknown);
    }
    let before = bytes(&mut world, BASE + 0x2000, 4096);
    assert_eq!(run(&mut world, &wrong), vec![Outcome::Bad; 10]);
    assert_eq!(bytes(&mut world, BASE + 0x2000, 4096), before);
    assert_eq!(world.hw.mmio_read(GUEST, reg::FAULT_CNT, 4), 10);
    assert_eq!(world.hw.mmio_read(GUEST, reg::FAULT_IOVA, 8), BASE);
    assert_eq!(world.hw.mmio_read(GUEST, reg::STATUS, 4), u64::from(status::FAULT));
}

#[test]
fn a_refused_payload_ends_the_operation_where_it_is() {
    let mut world = World::new(None);
    let last = BASE + 0xb000;
    let outcomes = run(&mut world, &[fill(last + 0xf80, 256, 5), fill(BASE + 0x2000, 16, 6)]);
    assert_eq!(outcomes, [Outcome::Fault, Outcome::Done]);
    assert_eq!(world.hw.mmio_read(GUEST, reg::FAULT_IOVA, 8), BASE + 0xc000);
    assert_eq!(world.hw.mmio_read(GUEST, reg::BYTES, 8), 128 + 16);
    assert_eq!(world.hw.units()[0].faults()[0].iova, BASE + 0xc000);
    assert_eq!(world.hw.mmio_read(GUEST, reg::CTRL, 4), u64::from(ctrl::RUN));
}

#[test]
fn rings_that_cannot_be_used_stop_the_device() {
    for (register, width, value, fault) in [
        (reg::RING_LEN, 4, 100, BASE),
        (reg::RING_LEN, 4, 0, BASE),
        (reg::RING_LEN, 4, 1 << 17, BASE),
        (reg::HEAD, 4, 129, BASE),
        (reg::HEAD, 4, 0xffff_ffff, BASE),
        (reg::RING_IOVA, 8, 0x4000, 0x4000),
        (reg::RING_IOVA, 8, u64::MAX - 3, u64::MAX - 3),
        (reg::CQ_IOVA, 8, 0x4000, 0x4000),
        (reg::CQ_IOVA, 8, u64::MAX, u64::MAX),
    ] {
        let mut world = World::new(None);
        let mut driver = world.driver(false);
        let (hw, mut guest) = world.guest();
        driver.post_fill(&mut guest, BASE + 0x2000, 16, 5).unwrap();
        driver.ring(hw);
        hw.mmio_write(GUEST, register, width, value);
        world.tick(10);
        let hw = &mut world.hw;
        assert_eq!(hw.mmio_read(GUEST, reg::CTRL, 4), 0, "{register:#x} {value:#x}");
        assert_eq!(hw.mmio_read(GUEST, reg::FAULT_CNT, 4), 1);
        assert_eq!(hw.mmio_read(GUEST, reg::FAULT_IOVA, 8), fault, "{register:#x} {value:#x}");
        assert_eq!(hw.mmio_read(GUEST, reg::SEQ, 8), 0);
    }
}

#[test]
fn a_completion_that_was_refused_is_written_later() {
    let mut world = World::new(None);
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    driver.post_fill(&mut guest, BASE + 0x2000, 16, 5).unwrap();
    driver.ring(hw);
    hw.mmio_write(GUEST, reg::CQ_IOVA, 8, 0);
    world.tick(5);
    world.hw.mmio_write(GUEST, reg::CQ_IOVA, 8, BASE + 0x1000);
    world.hw.mmio_write(GUEST, reg::CTRL, 4, u64::from(ctrl::RUN));
    world.tick(5);
    world.drain(&mut driver);
    assert_eq!((driver.completions().len(), driver.out_of_order()), (1, None));
    assert_eq!(world.hw.mmio_read(GUEST, reg::BYTES, 8), 16);
}

#[test]
fn a_device_can_ring_for_another() {
    let mut world = World::new(None);
    // The other device's registers, mapped for the guest's.
    let bar = world.hw.config(OTHER).unwrap().bar0();
    let window = luosim_physmem::PhysAddr::new(bar);
    let rw = luosim_hardware::iommu::Permissions::READ_WRITE;
    let mut mem = luosim_hardware::iommu::RamRef(&mut world.ram);
    world.table.map(&mut mem, BASE + 0x10_0000, window, 4096, rw).unwrap();
    let mut other = Driver::new(OTHER, BASE);
    let mut guest = Guest { mem: &mut world.ram.mem, frames: &world.other_frames };
    other.start(&mut world.hw, &mut guest, false).unwrap();
    other.post_fill(&mut guest, BASE + 0x2000, 64, 7).unwrap();
    assert!(world.guest().1.write(BASE + 0x2000, &1u32.to_le_bytes()));
    let register = BASE + 0x10_0000 + u64::from(reg::HEAD);
    let ring = Descriptor::new(Op::Peer, BASE + 0x2000, register, 4, 1);
    let copy = Descriptor::new(Op::Copy, BASE + 0x2000, register, 4, 2);
    let lost = Descriptor::new(Op::Peer, BASE + 0x2000, BASE + 0x3000, 4, 3);
    assert_eq!(run(&mut world, &[ring, copy, lost]), [Outcome::Done, Outcome::Fault, Outcome::Fault]);
    assert_eq!(world.hw.mmio_read(OTHER, reg::SEQ, 8), 1);
    assert_eq!(world.hw.device(OTHER).unwrap().totals().bytes_written, 64);
}

#[test]
fn loops_go_back_as_often_as_they_say() {
    let mut world = World::new(None);
    let (a, b) = (fill(BASE + 0x2000, 16, 1), fill(BASE + 0x3000, 16, 2));
    let twice = Descriptor::new(Op::Loop, 0, 0, 2, 3);
    let one = Descriptor::new(Op::Loop, 0, 0, 1, 4).with_flags(1);
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    [a, b, twice, a, one].iter().for_each(|descriptor| driver.post(&mut guest, *descriptor).unwrap());
    driver.ring(hw);
    world.hw.settle_dma(&mut world.ram.mem, 1000);
    world.drain(&mut driver);
    let seen: Vec<(u64, u32)> =
        driver.completions().iter().map(|one| (one.cookie.get(), one.exec_count.get())).collect();
    assert_eq!(seen, [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 1), (1, 1), (1, 2), (4, 1)]);
    assert_eq!(world.hw.mmio_read(GUEST, reg::TAIL, 4), 5);
}

#[test]
fn loops_without_a_body_are_bad() {
    let mut world = World::new(None);
    let empty = Descriptor::new(Op::Loop, 0, 0, 0, 1);
    let far = Descriptor::new(Op::Loop, 0, 0, 0, 2).with_flags(200);
    assert_eq!(run(&mut world, &[empty, far]), [Outcome::Bad; 2]);
    assert!(world.hw.try_reset_function(GUEST));
    // A loop in the body of another.
    let (work, around) = (fill(BASE + 0x2000, 16, 1), Descriptor::new(Op::Loop, 0, 0, 1, 2));
    let outcomes = run(&mut world, &[work, around, around]);
    use Outcome::{Bad, Done};
    assert_eq!(outcomes, [Done, Done, Done, Done, Bad, Done]);
}

#[test]
fn a_loop_ends_when_it_is_written_over_or_run_is_off() {
    let mut world = World::new(None);
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    driver.post(&mut guest, fill(BASE + 0x2000, 16, 1)).unwrap();
    driver.post_loop(&mut guest).unwrap();
    driver.ring(hw);
    world.tick(100);
    assert!(world.hw.device(GUEST).unwrap().is_busy());
    world.hw.mmio_write(GUEST, reg::CTRL, 4, 0);
    let stopped = world.hw.mmio_read(GUEST, reg::SEQ, 8);
    world.tick(10);
    assert_eq!(world.hw.mmio_read(GUEST, reg::SEQ, 8), stopped);
    world.hw.mmio_write(GUEST, reg::CTRL, 4, 1);
    world.tick(10);
    let again = world.hw.mmio_read(GUEST, reg::SEQ, 8);
    assert!(again > stopped);
    assert!(world.guest().1.write(BASE + 32, fill(BASE + 0x3000, 16, 2).as_bytes()));
    world.tick(10);
    assert_eq!(world.hw.mmio_read(GUEST, reg::TAIL, 4), 2);
    let device = world.hw.device(GUEST).unwrap();
    assert!(!device.is_busy() && !device.is_active());
}

#[test]
fn pausing_stops_between_operations() {
    let mut world = World::new(None);
    let mut driver = world.driver(false);
    let (hw, mut guest) = world.guest();
    for cookie in 0..2 {
        driver.post_fill(&mut guest, BASE + 0x2000, 256, cookie).unwrap();
    }
    driver.ring(hw);
    world.tick(2);
    assert_eq!(world.hw.mmio_read(GUEST, reg::STATUS, 4), u64::from(status::BUSY));
    world.hw.mmio_write(GUEST, reg::CTRL, 4, u64::from(ctrl::RUN | ctrl::PAUSE));
    world.tick(20);
    assert_eq!((world.hw.mmio_read(GUEST, reg::SEQ, 8), world.hw.mmio_read(GUEST, reg::STATUS, 4)), (1, 0));
    world.hw.mmio_write(GUEST, reg::CTRL, 4, u64::from(ctrl::RUN));
    world.tick(20);
    assert_eq!(world.hw.mmio_read(GUEST, reg::SEQ, 8), 2);
}

#[test]
fn a_reset_forgets_everything_but_how_often() {
    let mut world = World::new(None);
    world.start_other();
    world.tick(20);
    world.hw.mmio_write(OTHER, reg::CTRL, 4, u64::from(ctrl::RESET | ctrl::RUN));
    world.tick(3);
    for (register, width, value) in [
        (reg::CTRL, 4, 0),
        (reg::STATUS, 4, 0),
        (reg::RING_IOVA, 8, 0),
        (reg::RING_LEN, 4, 0),
        (reg::HEAD, 4, 0),
        (reg::TAIL, 4, 0),
        (reg::SEQ, 8, 0),
        (reg::BYTES, 8, 0),
        (reg::RESET_CNT, 4, 1),
        (reg::UPTIME, 8, 3),
        (reg::MSIX_TABLE + 12, 4, 1),
    ] {
        assert_eq!(world.hw.mmio_read(OTHER, register, width), value, "{register:#x}");
    }
}

#[test]
fn registers_have_their_widths() {
    let mut world = World::new(None);
    let hw = &mut world.hw;
    hw.mmio_write(GUEST, reg::RING_IOVA, 8, 0x1122_3344_5566_7788);
    assert_eq!(hw.mmio_read(GUEST, reg::RING_IOVA, 4), 0x5566_7788);
    assert_eq!(hw.mmio_read(GUEST, reg::RING_IOVA + 4, 4), 0x1122_3344);
    hw.mmio_write(GUEST, reg::RING_IOVA + 4, 4, 9);
    assert_eq!(hw.mmio_read(GUEST, reg::RING_IOVA, 8), 0x9_5566_7788);
    let before = hw.digest();
    for offset in
        [reg::ID, reg::STATUS, reg::TAIL, reg::SEQ, reg::BYTES, reg::FAULT_CNT, reg::RESET_CNT, 0x60]
    {
        hw.mmio_write(GUEST, offset, 4, 0xffff_ffff);
    }
    for (offset, width) in [(0x11, 4), (0x14, 8), (0x10, 2), (0x10, 1), (0xfff, 4), (0x1000, 4), (0xfffc, 8)]
    {
        hw.mmio_write(GUEST, offset, width, 0);
        let ones = if width == 4 { 0xffff_ffff } else { u64::MAX };
        assert_eq!(hw.mmio_read(GUEST, offset, width) | !ones, u64::MAX, "{offset:#x}");
    }
    assert_eq!(hw.digest(), before);
}

#[test]
fn a_register_says_which_kernel_looked() {
    let mut world = World::new(None);
    let epoch = |hw: &mut Hardware| hw.device(GUEST).unwrap().peek(reg::EPOCH_SEEN, 0) & 0xffff_ffff;
    world.hw.kernel_starts(3);
    assert_eq!(epoch(&mut world.hw), 0);
    world.hw.mmio_read(GUEST, reg::ID, 4);
    assert_eq!(epoch(&mut world.hw), 3);
}

/// A driver with an interrupt for each of `n` operations, which are not rung for yet.
fn interrupting(world: &mut World, n: u64) -> Driver {
    let mut driver = world.driver(true);
    let (_, mut guest) = world.guest();
    (0..n).for_each(|cookie| driver.post_fill(&mut guest, BASE + 0x2000, 16, cookie).unwrap());
    driver
}

fn msix(hw: &mut Hardware, enable: bool, function_mask: bool, vector_mask: bool) {
    let bit = |on: bool, bit: u16| if on { bit } else { 0 };
    let control = bit(enable, bits::MSIX_ENABLE) | bit(function_mask, bits::MSIX_FUNCTION_MASK);
    hw.mmio_write(GUEST, reg::MSIX_TABLE + 12, 4, u64::from(vector_mask));
    hw.config_write(GUEST, pci_reg::MSIX_CONTROL, 2, u32::from(control));
}

#[test]
fn messages_go_out_or_wait() {
    for (enable, function_mask, vector_mask, master, goes) in [
        (true, false, false, true, true),
        (false, false, false, true, false),
        (true, true, false, true, false),
        (true, false, true, true, false),
        (true, false, false, false, false),
    ] {
        let mut world = World::new(None);
        let driver = interrupting(&mut world, 3);
        driver.ring(&mut world.hw);
        msix(&mut world.hw, enable, function_mask, vector_mask);
        world.tick(1);
        if !master {
            // The operation is in flight when mastering goes; its completion waits with the interrupt.
            world.hw.take_interrupts();
            world.hw.change_command(GUEST, 0, command::MASTER);
        }
        world.tick(5);
        let out = world.hw.take_interrupts();
        if goes {
            assert_eq!(out.get(&(GUEST, InterruptKind::Msix)), Some(&3));
            continue;
        }
        assert!(out.is_empty(), "{out:?}");
        world.hw.change_command(GUEST, command::MASTER, 0);
        if master {
            assert_eq!(world.hw.mmio_read(GUEST, reg::MSIX_PENDING, 8), 1);
            assert_eq!(world.hw.mmio_read(GUEST, reg::STATUS, 4), u64::from(status::IRQ));
        }
        msix(&mut world.hw, true, false, false);
        world.tick(5);
        let out = world.hw.take_interrupts();
        assert_eq!(out.get(&(GUEST, InterruptKind::Msix)), Some(if master { &1 } else { &2 }));
        assert_eq!(world.hw.mmio_read(GUEST, reg::MSIX_PENDING, 8), 0);
        let totals = world.hw.device(GUEST).unwrap().totals();
        assert_eq!(totals.irqs_raised, totals.irqs_delivered + totals.irqs_coalesced);
    }
}

#[test]
fn without_messages_the_line_goes_up_once() {
    let mut world = World::new(None);
    let driver = interrupting(&mut world, 3);
    driver.ring(&mut world.hw);
    let status = |hw: &Hardware| hw.config(GUEST).unwrap().u16(pci_reg::STATUS) & pci_status::INTERRUPT != 0;
    world.tick(5);
    // Disabled, so nobody hears of it; Status shows it all the same.
    assert!(world.hw.take_interrupts().is_empty() && status(&world.hw));
    world.hw.change_command(GUEST, 0, command::INTX_DISABLE);
    assert_eq!(world.hw.take_interrupts().get(&(GUEST, InterruptKind::Intx)), Some(&1));
    world.tick(5);
    assert!(world.hw.take_interrupts().is_empty() && status(&world.hw));
    world.hw.mmio_write(GUEST, reg::CTRL, 4, u64::from(ctrl::RESET));
    assert!(!status(&world.hw));
}

#[test]
fn interrupts_on_their_way_to_a_dead_kernel_are_lost() {
    let mut world = World::new(None);
    let driver = interrupting(&mut world, 1);
    driver.ring(&mut world.hw);
    msix(&mut world.hw, true, false, false);
    world.tick(2);
    world.hw.kernel_starts(1);
    assert!(world.hw.take_interrupts().is_empty());
}

#[test]
fn a_full_ring_is_told_and_drained() {
    let mut world = World::new(None);
    let mut driver = world.driver(false);
    for turn in 0..3u64 {
        let (hw, mut guest) = world.guest();
        for n in 0..128 {
            driver.post_fill(&mut guest, BASE + 0x2000 + 16 * n, 16, 1000 * turn + n).unwrap();
        }
        let full = driver.post_fill(&mut guest, BASE + 0x2000, 16, 0).unwrap_err();
        assert_eq!(full.to_string(), "the ring of 128 descriptors is full");
        driver.ring(hw);
        world.tick(200);
        world.drain(&mut driver);
    }
    assert_eq!((driver.completions().len(), driver.out_of_order()), (384, None));
    let (_, guest) = world.guest();
    assert_eq!(driver.bad_stamps(&guest, 500).len(), 256, "what later turns wrote over");
}

#[test]
fn completions_that_no_device_wrote_are_not_intact() {
    let mut world = World::new(None);
    run(&mut world, &[fill(BASE + 0x2000, 16, 5)]);
    let good = bytes(&mut world, BASE + 0x1000, 32);
    assert!(Completion::read_from_bytes(&good).unwrap().is_intact());
    assert!(!Completion::default().is_intact());
    for at in 0..32 {
        let mut torn = good.clone();
        torn[at] ^= 0x10;
        assert!(!Completion::read_from_bytes(&torn).unwrap().is_intact(), "byte {at}");
    }
}

/// Where the device's own tables are mapped for it: leaf, the level above, contexts, root.
const TABLES: u64 = BASE + 0x10_0000;

/// A machine whose device may write the tables that it is translated by, and has entries to write in the last page of its memory.
fn self_mapped() -> World {
    let mut world = World::new(None);
    let tables = world.tables();
    let frames = [tables[3], tables[2], tables[5], tables[4]];
    for (iova, frame) in (TABLES..).step_by(4096).zip(frames) {
        let mut mem = RamRef(&mut world.ram);
        world.table.map(&mut mem, iova, frame.addr(), 4096, Permissions::READ_WRITE).unwrap();
    }
    let entries: Vec<u8> = (0..512usize)
        .map(|word| match word % 8 {
            5 => 0,
            // Reading only.
            6 => world.frames[2 + word % 9].addr().raw() | 1,
            _ => world.frames[2 + word % 9].addr().raw() | 3,
        })
        .flat_map(u64::to_le_bytes)
        .collect();
    assert!(world.guest().1.write(BASE + 0xb000, &entries));
    world
}

#[test]
fn what_a_device_writes_to_its_tables_holds_from_the_next_request() {
    let mut world = self_mapped();
    // Pages 2 and 3 change places between two fills, and page 4 goes: all in one run of ticks.
    let entry = |world: &World, page: usize| world.frames[page].addr().raw() | 3;
    let swapped = [entry(&world, 3), entry(&world, 2), 0].map(u64::to_le_bytes).concat();
    assert!(world.guest().1.write(BASE + 0xa000, &swapped));
    let work = [
        fill(BASE + 0x2000, 64, 1),
        fill(BASE + 0x3000, 64, 2),
        fill(BASE + 0x4000, 64, 3),
        Descriptor::new(Op::Copy, BASE + 0xa000, TABLES + 16, 24, 4),
        fill(BASE + 0x2040, 64, 5),
        fill(BASE + 0x4040, 64, 6),
    ];
    let outcomes = run(&mut world, &work);
    use Outcome::{Done, Fault};
    assert_eq!(outcomes, [Done, Done, Done, Done, Done, Fault]);
    let written =
        |world: &mut World, page: u64, at: u64| bytes(world, BASE + 0x1000 * page + at, 16) != [0; 16];
    assert!(written(&mut world, 2, 0) && written(&mut world, 3, 0x40) && !written(&mut world, 2, 0x40));
    assert!(!written(&mut world, 4, 0x40));
}

/// Fills, and copies of entries into tables.
fn rewriting() -> impl Strategy<Value = Descriptor> {
    let fills = (2u64..11, 0u64..16, 1u32..12)
        .prop_map(|(page, at, units)| fill(BASE + 4096 * page + 64 * at, 16 * units, page));
    let copies = (0u64..500, prop::sample::select(vec![0u64, 0, 0, 0, 0, 1, 2, 3]), 2u64..11, 1u32..5);
    let copies = copies.prop_map(|(word, table, slot, words)| {
        let to = TABLES + 4096 * table + 8 * slot;
        Descriptor::new(Op::Copy, BASE + 0xb000 + 8 * word, to, 8 * words, word)
    });
    prop_oneof![2 => fills, 1 => copies]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let at = || (0x20u64..0xc0).prop_map(|unit| BASE + 0x2000 + 16 * unit);
    (prop::sample::select(Op::ALL), at(), at(), 1u32..20, any::<u64>()).prop_map(
        |(op, src, dst, units, cookie)| {
            let len = if op == Op::Loop { units % 3 + 1 } else { 16 * units };
            Descriptor::new(op, src, dst, len, cookie)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// How time is cut into calls makes no difference, and neither does a snapshot in between.
    #[test]
    fn time_can_be_cut_anywhere(
        descriptors in prop::collection::vec(descriptor(), 1..12),
        cuts in prop::collection::vec(1u64..40, 1..20),
    ) {
        let mut worlds = [World::new(Some(3)), World::new(Some(3))];
        for world in &mut worlds {
            let mut driver = world.driver(true);
            let (hw, mut guest) = world.guest();
            descriptors.iter().for_each(|one| driver.post(&mut guest, *one).unwrap());
            driver.ring(hw);
            world.start_other();
        }
        let [whole, cut] = &mut worlds;
        whole.tick(cuts.iter().sum());
        for n in cuts {
            let copy = cut.hw.clone();
            prop_assert_eq!(&copy, &cut.hw);
            cut.hw = copy;
            cut.tick(n);
        }
        prop_assert_eq!(whole.hw.digest(), cut.hw.digest());
        prop_assert_eq!(&whole.hw, &cut.hw);
        for frame in whole.frames.iter().chain(&whole.other_frames) {
            let page = |world: &World| world.ram.mem.read_obj::<[u8; 4096]>(frame.addr()).unwrap();
            prop_assert_eq!(page(whole), page(cut));
        }
    }

    /// A device that rewrites the tables it goes through is translated as if each request were walked for.
    #[test]
    fn tables_that_a_device_rewrites_are_those_it_goes_through(
        descriptors in prop::collection::vec(rewriting(), 1..60),
    ) {
        let mut worlds = [self_mapped(), self_mapped()];
        for world in &mut worlds {
            let mut driver = world.driver(false);
            let (hw, mut guest) = world.guest();
            descriptors.iter().for_each(|one| driver.post(&mut guest, *one).unwrap());
            driver.ring(hw);
            world.start_other();
        }
        let [whole, cut] = &mut worlds;
        whole.tick(400);
        (0..400).for_each(|_| cut.tick(1));
        prop_assert_eq!(&whole.hw, &cut.hw);
        for frame in (1..whole.ram.frames.frame_count()).map(luosim_physmem::Pfn::new) {
            let page = |world: &World| world.ram.mem.read_obj::<[u8; 4096]>(frame.addr()).unwrap();
            prop_assert_eq!(page(whole), page(cut));
        }
    }

    /// Each operation is executed once, in order, whatever stops the device on the way.
    #[test]
    fn stops_lose_nothing_and_repeat_nothing(
        lens in prop::collection::vec(1u32..30, 1..40),
        stops in prop::collection::vec((1u64..30, 0u8..4), 0..20),
    ) {
        let mut world = World::new(None);
        let mut driver = world.driver(false);
        let (hw, mut guest) = world.guest();
        for (n, units) in lens.iter().enumerate() {
            let n = u64::try_from(n).unwrap();
            driver.post_fill(&mut guest, BASE + 0x2000 + 512 * n, 16 * units, n).unwrap();
        }
        driver.ring(hw);
        for (ticks, stop) in stops {
            world.tick(ticks);
            match stop {
                0 => world.hw.change_command(GUEST, 0, command::MASTER),
                1 => world.hw.mmio_write(GUEST, reg::CTRL, 4, 0),
                2 => world.hw.mmio_write(GUEST, reg::CTRL, 4, u64::from(ctrl::RUN | ctrl::PAUSE)),
                _ => world.hw.config_write(crate::world::BRIDGE, pci_reg::PM_CONTROL, 2, 3),
            }
            world.tick(ticks);
            world.hw.config_write(crate::world::BRIDGE, pci_reg::PM_CONTROL, 2, 0);
            world.hw.change_command(GUEST, command::MASTER, 0);
            world.hw.mmio_write(GUEST, reg::CTRL, 4, u64::from(ctrl::RUN));
        }
        world.hw.settle_dma(&mut world.ram.mem, 10_000);
        world.drain(&mut driver);
        prop_assert_eq!(driver.completions().len(), lens.len());
        prop_assert_eq!(driver.out_of_order(), None);
        let totals = world.hw.device(GUEST).unwrap().totals();
        prop_assert_eq!(totals.bytes_written, u64::from(16 * lens.iter().sum::<u32>()));
        prop_assert_eq!(totals.faults, 0);
    }
}
