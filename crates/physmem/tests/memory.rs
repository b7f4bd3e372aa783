//! Physical memory of every size and backing: bytes stay where they are put, nothing outside is touched, and what is
//! never touched costs nothing.

use luosim_physmem::{FrameUse, MemError, Order, PAGE_SIZE, PhysAddr, PhysMem, Ram};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const LEN: u64 = 16 * PAGE_SIZE;

/// Resident pages of this process, from `/proc/self/statm`.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
}

#[test]
fn any_size_is_made_and_costs_only_what_is_touched() {
    for len in [16 << 20, 1 << 30, 64 << 30, 1u64 << 40] {
        let before = resident();
        let mut ram = Ram::new(PhysMem::anonymous(len).expect("not reserved by the host"));
        for addr in [0, len / 2, len - 8] {
            let addr = PhysAddr::new(addr);
            assert_eq!(ram.mem.read_u64(addr).expect("inside"), 0);
            ram.mem.write_u64(addr, !addr.raw()).expect("inside");
            assert_eq!(ram.mem.read_u64(addr).expect("inside"), !addr.raw());
        }
        assert!(ram.alloc(Order::ZERO, FrameUse::Other).is_some());
        let used = resident().saturating_sub(before);
        assert!(used < 512, "{len:#x} bytes of memory made {used} pages resident");
    }
}

#[test]
fn memory_in_a_file_outlives_its_mapping() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ram");
    let mut mem = PhysMem::file(&path, LEN).expect("made");
    mem.write(PhysAddr::new(5000), b"handover").expect("inside");
    drop(mem);
    assert_eq!(std::fs::metadata(&path).expect("there").len(), LEN);
    let mem = PhysMem::file(&path, LEN).expect("opened");
    let mut bytes = [0; 8];
    mem.read(PhysAddr::new(5000), &mut bytes).expect("inside");
    assert_eq!(&bytes, b"handover");
    let missing = PhysMem::file(&folder.path().join("no/such/folder"), LEN);
    assert!(matches!(missing, Err(MemError::Host { .. })));
}

#[test]
fn power_off_loses_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = PhysMem::file(&folder.path().join("ram"), LEN).expect("made");
    for mut mem in [PhysMem::anonymous(LEN).expect("room"), file] {
        mem.fill(PhysAddr::NULL, LEN, 0xAA).expect("inside");
        assert!(mem.is_filled_with(PhysAddr::NULL, LEN, 0xAA).expect("inside"));
        mem.discard_all();
        assert!(mem.is_filled_with(PhysAddr::NULL, LEN, 0).expect("inside"));
    }
}

#[test]
fn freed_frames_are_poisoned_in_test_builds() {
    let mut ram = Ram::new(PhysMem::anonymous(1 << 20).expect("room"));
    let block = ram.alloc_zeroed(Order::ZERO, FrameUse::Other).expect("room");
    assert!(ram.mem.is_filled_with(block.addr(), PAGE_SIZE, 0).expect("inside"));
    ram.free(block).expect("a block");
    assert!(ram.mem.is_filled_with(block.addr(), PAGE_SIZE, 0x6b).expect("inside"));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Fill(u64, u64, u8),
    Copy(u64, u64, u64),
}

fn addr() -> impl Strategy<Value = u64> {
    prop_oneof![0..LEN, LEN - 200..LEN + 200, u64::MAX - 100..=u64::MAX]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (addr(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        (addr(), 0u64..10_000, any::<u8>()).prop_map(|(at, len, byte)| Step::Fill(at, len, byte)),
        (addr(), addr(), 0u64..10_000).prop_map(|(to, from, len)| Step::Copy(to, from, len)),
    ]
}

fn range(at: u64, len: u64) -> Option<std::ops::Range<usize>> {
    let end = at.checked_add(len).filter(|end| *end <= LEN)?;
    Some(usize::try_from(at).expect("small")..usize::try_from(end).expect("small"))
}

/// Makes the step on both; they agree on whether it lies inside.
fn take(mem: &mut PhysMem, model: &mut [u8], step: &Step) {
    match step {
        Step::Write(at, bytes) => {
            let inside = range(*at, bytes.len() as u64);
            assert_eq!(mem.write(PhysAddr::new(*at), bytes).is_ok(), inside.is_some());
            if let Some(range) = inside {
                model[range].copy_from_slice(bytes);
            }
        }
        Step::Fill(at, len, byte) => {
            let inside = range(*at, *len);
            assert_eq!(mem.fill(PhysAddr::new(*at), *len, *byte).is_ok(), inside.is_some());
            if let Some(range) = inside {
                model[range].fill(*byte);
            }
        }
        Step::Copy(to, from, len) => {
            let inside = range(*to, *len).zip(range(*from, *len));
            let copied = mem.copy(PhysAddr::new(*to), PhysAddr::new(*from), *len);
            assert_eq!(copied.is_ok(), inside.is_some());
            if let Some((to, from)) = inside {
                model.copy_within(from, to.start);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn bytes_are_where_they_were_put(steps in prop::collection::vec(step(), 1..30), in_file in any::<bool>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let mem = if in_file { PhysMem::file(&folder.path().join("ram"), LEN) } else { PhysMem::anonymous(LEN) };
        let (mut mem, mut model) = (mem.expect("room"), vec![0; usize::try_from(LEN).expect("small")]);
        for step in &steps {
            take(&mut mem, &mut model, step);
        }
        let mut all = vec![1; model.len()];
        mem.read(PhysAddr::NULL, &mut all).expect("inside");
        prop_assert!(all == model);
    }
}

/// Large runs of zeros are pages given back: nothing else may change by it.
#[test]
fn zeroing_much_is_zeroing_exactly_that() {
    let mut mem = PhysMem::anonymous(16 << 20).expect("the host has room");
    mem.fill(PhysAddr::new(0), 16 << 20, 7).expect("inside");
    mem.fill(PhysAddr::new(4 << 20), 4 << 20, 0).expect("inside");
    mem.fill(PhysAddr::new((12 << 20) + 1), 2 << 20, 0).expect("inside, and no whole pages");
    for (from, to, byte) in [
        (0, 4 << 20, 7),
        (4 << 20, 8 << 20, 0),
        (8 << 20, (12 << 20) + 1, 7),
        ((12 << 20) + 1, (14 << 20) + 1, 0),
        ((14 << 20) + 1, 16 << 20, 7),
    ] {
        assert!(mem.is_filled_with(PhysAddr::new(from), to - from, byte).expect("inside"), "{from:#x}");
    }
}
