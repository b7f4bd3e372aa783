//! Kinds of kernel images: what each does to what is preserved.

use luosim_abi::Errno;
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, ImageKind, Machine, Outcome};
use luosim_physmem::PhysMem;

/// A kernel with one session `s` that holds a memfd of a page as token 1; the session and the memfd.
fn world(release: ReleaseId, options: &BootOptions) -> (Machine, Pid, i32, i32) {
    let mut machine = Machine::new(PhysMem::anonymous(64 << 20).expect("small"));
    machine.cold_reset(release, options);
    let pid = machine.spawn("agent").expect("a kernel runs");
    let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("free");
    let session = machine.create_session(pid, device, b"s").expect("new");
    let memfd = machine.memfd_create(pid, "m", 0, false).expect("room");
    machine.pwrite(pid, memfd, &[7; 4096], 0).expect("room");
    machine.preserve_fd(pid, session, memfd, 1).expect("a memfd");
    (machine, pid, session, memfd)
}

fn load(machine: &mut Machine, pid: Pid, release: ReleaseId, kind: ImageKind) {
    machine.load_image(pid, release, BootOptions::default(), kind).expect("root may load");
}

const RELEASES: [ReleaseId; 5] =
    [ReleaseId::V6_19, ReleaseId::V7_0, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3];

#[test]
fn a_jump_that_comes_back_leaves_everything_usable() {
    for release in RELEASES {
        let (mut machine, pid, session, memfd) = world(release, &BootOptions::default());
        load(&mut machine, pid, release, ImageKind::PreserveContext);
        for _ in 0..2 {
            let report = machine.reboot_kexec(pid).expect("loaded");
            assert_eq!((report.outcome, report.generation), (Outcome::Returned, 1));
        }
        assert_eq!(machine.ftruncate(pid, memfd, 0).expect_err("frozen").errno, Errno::EPERM);
        machine.close(pid, session).expect("open");
        machine.ftruncate(pid, memfd, 0).expect("given back");
    }
}

#[test]
fn a_crash_image_is_used_by_a_panic_alone() {
    for release in RELEASES {
        let (mut machine, pid, ..) = world(release, &BootOptions::default());
        load(&mut machine, pid, release, ImageKind::Crash);
        assert_eq!(machine.reboot_kexec(pid).expect_err("another slot").errno, Errno::EINVAL);
        let report = machine.crash().expect("a crash kernel was loaded");
        let keeps = release.release().quirks.has(Quirk::CrashKernelKeepsKho);
        let expected = if keeps { "cold" } else { "luo-off" };
        assert_eq!(report.outcome.word(), expected);
        assert!(machine.crash().is_none(), "the crash kernel has none of its own");
        assert!(machine.kernel().is_none());
    }
}

#[test]
fn an_ordinary_image_does_not_survive_a_panic() {
    let (mut machine, pid, ..) = world(ReleaseId::V7_3, &BootOptions::default());
    load(&mut machine, pid, ReleaseId::V7_3, ImageKind::File);
    assert!(machine.crash().is_none());
}

/// A handover is taken over by a crash kernel only where the release does so, whatever was finalised.
#[test]
fn the_quirk_decides_what_a_crash_kernel_gets() {
    let without = |quirk| BootOptions { quirks_off: vec![quirk], ..BootOptions::default() };
    for (options, expected) in [
        (BootOptions::default(), "handover"),
        (without(Quirk::CrashImageTakesKho), "cold"),
        (without(Quirk::CrashKernelKeepsKho), "luo-off"),
    ] {
        let (mut machine, pid, ..) = world(ReleaseId::V6_19, &options);
        machine.kho_finalize(1).expect("6.19 has the file");
        machine.load_image(pid, ReleaseId::V6_19, options, ImageKind::Crash).expect("root may load");
        assert_eq!(machine.crash().expect("loaded").outcome.word(), expected);
    }
}
