//! Whatever bytes the previous kernel left, luosim does not panic: the simulated kernel boots, or panics with its reason,
//! in the boot or in the call that reads them.

use luosim_abi::posted::{Design, Event};
use luosim_physmem::{FrameState, FrameUse, Pfn, PhysAddr};
use proptest::prelude::*;

use crate::world::Kernel;

const DESIGNS: [Design; 3] = [Design::V2, Design::V3, Design::V4];

/// A kernel with files that is about to jump.
fn prepared(design: Design) -> Kernel {
    let mut kernel = Kernel::cold(design);
    if design == Design::V4 {
        for name in [&b"one"[..], b"two"] {
            let key = kernel.named(true, name).unwrap();
            for file in [500, 501] {
                kernel.session_fd(key, 0xBA40, file, u64::try_from(file).unwrap()).unwrap();
            }
        }
    } else {
        for file in [500, 501, 502] {
            kernel.preserve(file, u64::try_from(file).unwrap()).unwrap();
        }
    }
    kernel.event(Event::Prepare).unwrap();
    kernel
}

/// Pages of the orchestrator, of the trees and of the arrays.
fn pages(kernel: &Kernel) -> Vec<PhysAddr> {
    let frames = &kernel.world.ram.frames;
    let all = (0..frames.frame_count()).map(Pfn::new);
    let ours = all.filter(|pfn| {
        matches!(frames.state(*pfn), FrameState::AllocatedHead(_)) && frames.use_of(*pfn) == FrameUse::Luo
    });
    ours.map(Pfn::addr).collect()
}

/// Every call that reads what came. Gives the panics of the simulated kernel.
fn use_all(mut kernel: Kernel) -> Option<String> {
    for token in [0, 500, 501, 502] {
        match kernel.design() {
            Design::V4 => {
                for name in [&b"one"[..], b"two", b""] {
                    let Ok(key) = kernel.named(false, name) else { continue };
                    let _ = kernel.session_fd(key, 0xBA42, -1, token);
                }
            }
            _ => {
                let _ = kernel.restore(token);
            }
        }
        if let Some(text) = kernel.luo.take_panic() {
            return Some(text);
        }
    }
    let _ = kernel.event(Event::Finish);
    if let Some(text) = kernel.luo.take_panic() {
        return Some(text);
    }
    kernel.event(Event::Prepare).ok().map(|()| String::new())
}

/// Jumps with some bytes of the handover changed.
fn jump(design: Design, changes: &[(usize, usize, Vec<u8>)]) -> Option<String> {
    let mut kernel = prepared(design);
    let params = kernel.load();
    kernel.freeze().unwrap();
    let pages = pages(&kernel);
    for (page, at, bytes) in changes {
        let at = (at % 4096).min(4096 - bytes.len());
        let addr = PhysAddr::new(pages[page % pages.len()].raw() + u64::try_from(at).unwrap());
        kernel.world.ram.mem.write(addr, bytes).unwrap();
    }
    let quirks = crate::world::row(design).quirks;
    match Kernel::boot(design, quirks, kernel.world.ram.into_mem(), params, true) {
        Ok(next) => use_all(next),
        Err(text) => Some(text),
    }
}

fn change() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    // Trees and arrays begin at the start of their pages: most changes hit something.
    let at = prop_oneof![0usize..512, 0usize..4096];
    let word = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        any::<u32>().prop_map(|word| word.to_be_bytes().to_vec()),
        prop_oneof![Just(0u64), Just(u64::MAX), Just(0x1000), Just(1 << 40), any::<u64>()]
            .prop_map(|word| word.to_le_bytes().to_vec()),
    ];
    (0usize..8, at, word)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_boot_or_panic_with_a_reason(design in 0usize..3, changes in prop::collection::vec(change(), 1..6)) {
        if let Some(text) = jump(DESIGNS[design], &changes) {
            prop_assert!(text.is_empty() || text.starts_with("live update data cannot be restored: "), "{}", text);
        }
    }

    #[test]
    fn any_ioctl_is_answered(
        design in 0usize..3,
        calls in prop::collection::vec((any::<u32>(), 0u32..16, any::<bool>(), prop::collection::vec(any::<u8>(), 0..96), 0u64..4200), 1..40),
    ) {
        let mut kernel = Kernel::cold(DESIGNS[design]);
        for (code, nr, near, bytes, at) in calls {
            let code = if near { 0xBA00 | nr } else { code };
            let (open, arg) = (kernel.open, crate::world::ARG - 100 + at);
            kernel.process.memory[..bytes.len()].copy_from_slice(&bytes);
            let _ = kernel.luo.device_ioctl(&mut kernel.world, &mut kernel.process, open, code, arg);
            if DESIGNS[design] == Design::V4 && let Ok(key) = kernel.named(true, b"s") {
                let _ = kernel.luo.session_ioctl(&mut kernel.world, &mut kernel.process, key, code ^ 0x40, arg);
            }
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let damaged = |design: Design, page: usize, find: &[u8], put: &[u8]| {
        let mut kernel = prepared(design);
        let params = kernel.load();
        kernel.freeze().unwrap();
        let addr = pages(&kernel)[page];
        let mut bytes = vec![0; 4096];
        kernel.world.ram.mem.read(addr, &mut bytes).unwrap();
        let at = bytes.windows(find.len()).position(|window| window == find).expect("it is there");
        bytes[at..at + put.len()].copy_from_slice(put);
        kernel.world.ram.mem.write(addr, &bytes).unwrap();
        let quirks = crate::world::row(design).quirks;
        match Kernel::boot(design, quirks, kernel.world.ram.into_mem(), params, true) {
            Ok(next) => use_all(next).unwrap(),
            Err(text) => text,
        }
    };
    for (design, page, find, put, want) in [
        (Design::V2, 0, &b"luo-v1"[..], &b"luo-v9"[..], "compatible with luo-v9, wanted is luo-v1"),
        (Design::V3, 0, b"subsystems-v1", b"subsystems-v2", "wanted is subsystems-v1"),
        (Design::V3, 0, b"subsystems\0", b"subsustems\0", "no node 'subsystems'"),
        (
            Design::V2,
            0,
            b"file-descriptors\0",
            b"file-descriptorz\0",
            "no 8-byte value of subsystem 'file-descriptors'",
        ),
        (Design::V2, 1, b"file-descriptors-v1", b"file-descriptors-v2", "wanted is file-descriptors-v1"),
        (Design::V3, 1, b"0x1f5", b"0x1f4", "token 0x1f4 is there twice"),
        (Design::V3, 1, b"0x1f5", b"0x1g5", "'0x1g5' is no token"),
        (Design::V2, 1, b"test-v1", b"test-v2", "no handler 'test-v2'"),
        (Design::V2, 1, b"\0data\0", b"\0dat4\0", "no 8-byte data"),
        (
            Design::V4,
            0,
            b"luo-session-v1\0",
            b"luo-session-v9\0",
            "no 8-byte value of subsystem 'luo-session-v1'",
        ),
        (Design::V4, 1, b"luo-session-v1\0", b"luo-session-v9\0", "wanted is luo-session-v1"),
        (Design::V4, 2, b"two", b"one", "there is a session \"one\" already"),
    ] {
        let found = damaged(design, page, find, put);
        assert!(found.contains(want), "{design:?} page {page}: {found}");
    }
}
