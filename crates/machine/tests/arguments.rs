//! Any ioctl argument, and any kernel parameter: an errno a kernel gives, never a panic, and no frame leaked.

use luosim_abi::release::ReleaseId;
use luosim_machine::{BootOptions, Machine};
use luosim_physmem::PhysMem;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn machine(release: ReleaseId, cmdline: &str) -> Machine {
    let mut machine = Machine::new(PhysMem::anonymous(64 << 20).expect("room"));
    machine.cold_reset(release, &BootOptions { cmdline: cmdline.to_owned(), ..BootOptions::default() });
    machine
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_argument_is_answered(
        calls in prop::collection::vec((any::<bool>(), 0u32..0x100, any::<bool>(), prop::collection::vec(any::<u8>(), 0..100), 0u32..200), 1..20),
        new in any::<bool>(),
    ) {
        let release = if new { ReleaseId::V7_3 } else { ReleaseId::V6_19 };
        let mut machine = machine(release, "kho=on liveupdate=on");
        let pid = machine.spawn("p").expect("up");
        let before = machine.kernel().expect("up").core().ram().frames.stats();
        let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("free");
        let session = machine.create_session(pid, device, b"s").expect("new");
        let base = machine.process_memory(pid).expect("alive").map(4096);
        for (on_device, number, right_type, bytes, size) in calls {
            let memory = machine.process_memory(pid).expect("alive");
            memory.write(base, &bytes).expect("mapped");
            memory.write(base, &size.to_le_bytes()).expect("mapped");
            let code = if right_type { 0xBA00 | number } else { number << 8 };
            let fd = if on_device { device } else { session };
            let _ = machine.ioctl(pid, fd, code, base);
        }
        machine.exit(pid).expect("alive");
        let after = machine.kernel().expect("up").core().ram().frames.stats();
        // Pages of the tracker stay: tables and bitmaps are never given back.
        let tracker = machine.kernel().expect("up").core().ram().frames.outstanding(luosim_physmem::FrameUse::Tracker);
        prop_assert!(after.allocated <= before.allocated + tracker, "{before:?} {after:?}");
    }

    #[test]
    fn any_command_line_boots_somehow(text in "(kho|liveupdate|kho_scratch|quiet)=\\PC{0,12}( (kho_scratch|liveupdate)=[0-9a-zMGK%,]{0,16})?") {
        let machine = machine(ReleaseId::V7_3, &text);
        prop_assert!(machine.kernel().is_some());
    }
}
