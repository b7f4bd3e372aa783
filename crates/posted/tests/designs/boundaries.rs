//! Order of callbacks, what a failure undoes and what it leaves, arguments that are wrong, references that are kept.

use luosim_abi::posted::{Design, Event, State};
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_posted::subsystem::{Callback, Fault};

use crate::world::{ARG, Kernel, sized};

const DESIGNS: [Design; 3] = [Design::V2, Design::V3, Design::V4];

fn errno<T>(result: KResult<T>) -> Option<Errno> {
    result.err().map(|refusal| refusal.errno)
}

/// Three files, 500 to 502; in the fourth design two in one session and one in another.
fn three(mut kernel: Kernel) -> Kernel {
    if kernel.design() == Design::V4 {
        let [one, two] = [&b"one"[..], b"two"].map(|name| kernel.named(true, name).unwrap());
        for (key, file) in [(one, 500), (one, 501), (two, 502)] {
            kernel.session_fd(key, 0xBA40, file, u64::try_from(file).unwrap()).unwrap();
        }
    } else {
        for file in [500, 501, 502] {
            kernel.preserve(file, u64::try_from(file).unwrap()).unwrap();
        }
    }
    kernel
}

/// What the kernel's subsystems logged, and files' handlers were asked, is in different places: the log has the order of
/// subsystems.
fn subsystems(kernel: &Kernel) -> Vec<String> {
    let lines = kernel.world.log.lines.iter();
    lines.filter_map(|line| line.text.strip_prefix("luosim_test: subsystem ").map(str::to_owned)).collect()
}

#[test]
fn a_failing_prepare_cancels_those_before_it() {
    for design in DESIGNS {
        for (at, file) in [500, 501, 502].into_iter().enumerate() {
            let mut kernel = three(Kernel::cold(design));
            kernel.handler.refuse.borrow_mut().push(("prepare", file));
            assert_eq!(errno(kernel.event(Event::Prepare)), Some(Errno::ENODEV));
            let want: Vec<String> = (500..=file)
                .map(|file| format!("prepare {file}"))
                // The fourth design cancels the session at fault first, then those before it.
                .chain(match (design, at) {
                    (_, 0) => vec![],
                    (_, 1) => vec![String::from("cancel 500")],
                    _ => vec![String::from("cancel 500"), String::from("cancel 501")],
                })
                .collect();
            assert_eq!(kernel.calls(), want, "{design:?}, file {file}");
            assert_eq!(kernel.state(), State::Normal);
            assert_eq!(subsystems(&kernel), ["first: prepare", "first: cancel"], "the last was never asked");
            assert_eq!(kernel.world.kho.tally().unwrap().blocks(), 0, "nothing stays preserved");
            kernel.event(Event::Prepare).unwrap();
        }
    }
}

#[test]
fn a_subsystem_that_fails_last_cancels_all() {
    for design in DESIGNS {
        let mut kernel = three(Kernel::cold(design));
        kernel.tests[1].set_fault(Fault { callback: Callback::Prepare, errno: Errno::EAGAIN, times: 1 });
        assert_eq!(errno(kernel.event(Event::Prepare)), Some(Errno::EAGAIN));
        assert_eq!(subsystems(&kernel), ["first: prepare", "last: prepare: fails", "first: cancel"]);
        assert_eq!(kernel.calls().len(), 6, "three prepared and cancelled");
        assert_eq!(kernel.world.kho.tally().unwrap().blocks(), 0);
    }
}

#[test]
fn a_failing_freeze_leaves_what_stands_behind() {
    for design in DESIGNS {
        let mut kernel = three(Kernel::cold(design));
        kernel.event(Event::Prepare).unwrap();
        kernel.tests[0].set_fault(Fault { callback: Callback::Freeze, errno: Errno::EBUSY, times: 1 });
        assert_eq!(errno(kernel.freeze()), Some(Errno::EBUSY));
        assert_eq!(kernel.state(), State::Normal);
        // The first failed: nobody before it, so nobody is cancelled, and the files stay prepared.
        assert_eq!(subsystems(&kernel), ["first: prepare", "last: prepare", "first: freeze: fails"]);
        assert!(kernel.calls().iter().all(|call| call.starts_with("prepare")));
        assert_eq!(errno(kernel.event(Event::Prepare)), Some(Errno::EBUSY), "KHO is finalised");
        assert_eq!(errno(kernel.event(Event::Cancel)), Some(Errno::EINVAL), "the state is NORMAL");
        // KHO was aborted on the way to that answer.
        kernel.event(Event::Prepare).unwrap();
        assert_eq!(kernel.calls(), Vec::<String>::new(), "files that are prepared are skipped");
    }
}

#[test]
fn without_the_quirk_a_failing_freeze_undoes_all() {
    for design in DESIGNS {
        let mut kernel = three(Kernel::without(design, &[Quirk::FreezeLeavesLater]));
        kernel.event(Event::Prepare).unwrap();
        kernel.tests[0].set_fault(Fault { callback: Callback::Freeze, errno: Errno::EBUSY, times: 1 });
        assert_eq!(errno(kernel.freeze()), Some(Errno::EBUSY));
        assert_eq!(kernel.world.kho.tally().unwrap().blocks(), 0);
        kernel.event(Event::Prepare).unwrap();
        let calls = kernel.calls();
        let count = |what: &str| calls.iter().filter(|call| call.starts_with(what)).count();
        assert_eq!((count("prepare"), count("cancel")), (6, 3), "{calls:?}");
    }
}

#[test]
fn cancel_gives_back_every_frame_and_block() {
    for design in DESIGNS {
        let mut kernel = three(Kernel::cold(design));
        // What the tracker keeps for itself is there after the first round.
        for _ in 0..2 {
            kernel.event(Event::Prepare).unwrap();
            kernel.event(Event::Cancel).unwrap();
        }
        let before = kernel.world.ram.frames.stats().allocated;
        for _ in 0..5 {
            kernel.event(Event::Prepare).unwrap();
            kernel.event(Event::Cancel).unwrap();
        }
        assert_eq!(kernel.world.ram.frames.stats().allocated, before, "{design:?}");
        assert_eq!(kernel.world.kho.tally().unwrap().blocks(), 0);
    }
}

#[test]
fn after_finish_nothing_of_the_previous_kernel_is_held() {
    for design in DESIGNS {
        let mut kernel = three(Kernel::cold(design)).jump();
        assert!(kernel.world.ram.frames.stats().preserved > 0);
        kernel.event(Event::Finish).unwrap();
        assert_eq!(kernel.world.ram.frames.stats().preserved, 0, "{design:?}");
        assert_eq!(kernel.calls(), ["finish nobody left"; 3]);
    }
}

#[test]
fn references_are_kept_as_long_as_the_file_is() {
    let mut kernel = three(Kernel::cold(Design::V3));
    assert_eq!(kernel.world.held[&500], 1);
    kernel.unpreserve(500).unwrap();
    assert_eq!(kernel.world.held[&500], 0);
    let open = kernel.open;
    kernel.luo.release_device(&mut kernel.world, open);
    assert!(kernel.world.held.values().all(|held| *held == 0), "{:?}", kernel.world.held);
    // The fourth design keeps a file that was given back until its session is closed.
    let mut kernel = three(Kernel::cold(Design::V4)).jump();
    let one = kernel.named(false, b"one").unwrap();
    kernel.session_fd(one, 0xBA42, -1, 500).unwrap();
    assert_eq!(kernel.world.held[&200], 2, "the program's and the session's");
    kernel.event(Event::Finish).unwrap();
    assert_eq!(kernel.world.held[&200], 2);
    kernel.luo.release_session(&mut kernel.world, one);
    assert_eq!(kernel.world.held[&200], 1, "the program's");
}

#[test]
fn a_closed_open_leaks_in_the_second_design() {
    let mut kernel = three(Kernel::cold(Design::V2));
    kernel.event(Event::Prepare).unwrap();
    let open = kernel.open;
    kernel.luo.release_device(&mut kernel.world, open);
    kernel.open = kernel.luo.open_device(true, false).unwrap();
    kernel.calls();
    kernel.event(Event::Cancel).unwrap();
    assert_eq!(kernel.calls(), Vec::<String>::new(), "CANCEL does not reach them");
    assert_eq!(kernel.world.held[&500], 1);
    let mut kernel = three(Kernel::without(Design::V2, &[Quirk::CloseLeaksPrepared]));
    kernel.event(Event::Prepare).unwrap();
    let open = kernel.open;
    kernel.luo.release_device(&mut kernel.world, open);
    assert_eq!(kernel.world.held[&500], 0);
}

#[test]
fn wrong_arguments_of_the_second_design() {
    let mut kernel = Kernel::cold(Design::V2);
    let open = kernel.open;
    let mut call = |code: u32, arg: u64| {
        errno(kernel.luo.device_ioctl(&mut kernel.world, &mut kernel.process, open, code, arg))
    };
    for (code, arg, want) in [
        (0x4010_BA00, 8, Some(Errno::EFAULT)),
        (0x4010_BA00, ARG + 4096 - 15, Some(Errno::EFAULT)),
        (0x4008_BA01, 8, Some(Errno::EFAULT)),
        (0xC010_BA02, u64::MAX, Some(Errno::EFAULT)),
        (0x8004_BA03, ARG + 4093, Some(Errno::EFAULT)),
        (0x8004_BA03, ARG + 4092, None),
        // The right number with other bits, another type, no number at all.
        (0x0000_BA00, ARG, Some(Errno::ENOTTY)),
        (0xC010_BA00, ARG, Some(Errno::ENOTTY)),
        (0x0000_BB04, ARG, Some(Errno::ENOTTY)),
        (0x0000_BA05, ARG, Some(Errno::ENOTTY)),
        (u32::MAX, ARG, Some(Errno::ENOTTY)),
    ] {
        assert_eq!(call(code, arg), want, "{code:#x} at {arg:#x}");
    }
}

#[test]
fn wrong_arguments_of_the_size_first_designs() {
    for design in [Design::V3, Design::V4] {
        let mut kernel = Kernel::cold(design);
        let (open, state) = (kernel.open, if design == Design::V3 { 0xBA03 } else { 0xBA00 });
        let last = if design == Design::V3 { 0xBA07 } else { 0xBA04 };
        let mut call = |code: u32, arg: u64, size: u32| {
            kernel.process.memory.fill(0);
            kernel.process.memory[..4].copy_from_slice(&size.to_le_bytes());
            kernel.process.memory[4092..].copy_from_slice(&8u32.to_le_bytes());
            errno(kernel.luo.device_ioctl(&mut kernel.world, &mut kernel.process, open, code, arg))
        };
        for (code, arg, size, want) in [
            (last, ARG, 8, Some(Errno::EINVAL)),
            (last, 8, 8, Some(Errno::EINVAL)),
            (0xBAFF, ARG, 8, Some(Errno::EINVAL)),
            // A wrong type byte is seen after the size word.
            (0x1200 | state & 0xff, 8, 8, Some(Errno::EFAULT)),
            (0x1200 | state & 0xff, ARG, 8, Some(Errno::ENOTTY)),
            (0x8008_0000 | state, ARG, 8, Some(Errno::ENOTTY)),
            (state, ARG, 0, Some(Errno::EINVAL)),
            (state, ARG, 7, Some(Errno::EINVAL)),
            (state, ARG, 8, None),
            (state, ARG, 4000, None),
            // The last word of memory is not zero; behind it there is none.
            (state, ARG, 4096, Some(Errno::E2BIG)),
            (state, ARG, u32::MAX, Some(Errno::E2BIG)),
            (state, ARG + 4092, 8, Some(Errno::EFAULT)),
        ] {
            assert_eq!(call(code, arg, size), want, "{design:?}: {code:#x} at {arg:#x}, size {size}");
        }
    }
}

#[test]
fn a_reply_is_as_long_as_the_caller_says_in_the_third_design() {
    // Memory behind the kernel's own 8 bytes can be read, and not written.
    let long = |mut kernel: Kernel, size: u32| {
        kernel.process.memory.fill(0);
        kernel.process.memory[..4].copy_from_slice(&size.to_le_bytes());
        kernel.process.read_only_from = Some(8);
        let open = kernel.open;
        errno(kernel.luo.device_ioctl(&mut kernel.world, &mut kernel.process, open, 0xBA03, ARG))
    };
    let mended = || Kernel::without(Design::V3, &[Quirk::ReplyUserSize]);
    for size in [9, 64, 4096] {
        assert_eq!(long(Kernel::cold(Design::V3), size), Some(Errno::EFAULT));
        assert_eq!(long(mended(), size), None);
    }
    assert_eq!(long(Kernel::cold(Design::V3), 8), None);
}

#[test]
fn the_inverted_test_of_the_third_design() {
    let mut kernel = Kernel::cold(Design::V3);
    kernel.preserve(9, 1).unwrap();
    assert_eq!(errno(kernel.fd_state(1, false)), Some(Errno::ENOENT), "the error was hidden");
    kernel.process.read_only = true;
    // Success writes nothing, so it does not fault; failure does.
    kernel.process.memory[..16]
        .copy_from_slice(&sized(16, &[&500u32.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()));
    let open = kernel.open;
    let call = |kernel: &mut Kernel| {
        errno(kernel.luo.device_ioctl(&mut kernel.world, &mut kernel.process, open, 0xBA00, ARG))
    };
    assert_eq!(call(&mut kernel), None);
    assert_eq!(call(&mut kernel), Some(Errno::EFAULT), "EEXIST, and the reply cannot be written");
    let mut kernel = Kernel::without(Design::V3, &[Quirk::PreserveErrorLost]);
    assert_eq!(errno(kernel.preserve(9, 1)), Some(Errno::EBADF));
    assert_eq!(errno(kernel.preserve(600, 1)), Some(Errno::ENOENT));
}

#[test]
fn opens_of_the_device() {
    let mut kernel = Kernel::cold(Design::V2);
    assert_eq!(errno(kernel.luo.open_device(false, false)), Some(Errno::EACCES));
    assert_eq!(errno(kernel.luo.open_device(true, true)), Some(Errno::EINVAL));
    let second = kernel.luo.open_device(true, false).unwrap();
    assert_ne!(second, kernel.open);
    for design in [Design::V3, Design::V4] {
        let mut kernel = Kernel::cold(design);
        assert_eq!(errno(kernel.luo.open_device(true, true)), Some(Errno::EBUSY));
        let open = kernel.open;
        kernel.luo.release_device(&mut kernel.world, open);
        kernel.luo.open_device(true, true).unwrap();
    }
}

#[test]
fn handlers_and_subsystems_register_while_nothing_is_under_way() {
    use luosim_posted::subsystem::TestSubsystem;
    use std::rc::Rc;
    let mut kernel = Kernel::cold(Design::V2);
    let again = Rc::new(crate::world::Recorder::default());
    assert_eq!(errno(kernel.luo.register_handler(again.clone())), Some(Errno::EEXIST));
    let test = |name| Rc::new(TestSubsystem::new(name, 0));
    assert_eq!(errno(kernel.luo.register_subsystem(&mut kernel.world, test("last"))), Some(Errno::EEXIST));
    kernel.event(Event::Prepare).unwrap();
    assert_eq!(errno(kernel.luo.register_handler(again)), Some(Errno::EBUSY));
    assert_eq!(errno(kernel.luo.register_subsystem(&mut kernel.world, test("new"))), Some(Errno::EBUSY));
}

#[test]
fn a_finalisation_that_fails_leaves_prepared_or_nothing() {
    for design in DESIGNS {
        // Everything up to the page of the root is allocated; it is not.
        let fail = |kernel: &mut Kernel| {
            let mut nth = 1;
            loop {
                kernel.world.ram.frames.fail_alloc(nth, 1000);
                let found = errno(kernel.event(Event::Prepare));
                kernel.world.ram.frames.fail_alloc(0, 0);
                assert_eq!(
                    found,
                    Some(Errno::ENOMEM),
                    "{design:?}: not one of {nth} allocations was the last step's"
                );
                let finalizing =
                    kernel.world.log.lines.iter().any(|line| line.text.contains("Failed to convert"));
                if finalizing || kernel.luo.state() == State::Prepared {
                    return;
                }
                nth += 1;
            }
        };
        let mut kernel = Kernel::cold(design);
        fail(&mut kernel);
        assert_eq!(kernel.state(), State::Prepared, "{design:?}");
        assert_eq!(errno(kernel.event(Event::Cancel)), Some(Errno::ENOENT), "KHO was not finalised");
        assert_eq!(kernel.state(), State::Prepared);
        let mut kernel = Kernel::without(design, &[Quirk::FinalizeKeepsPrepared]);
        fail(&mut kernel);
        assert_eq!(kernel.state(), State::Normal, "{design:?}");
        kernel.event(Event::Prepare).unwrap();
    }
}

#[test]
fn a_session_that_is_closed_leaves_nothing_in_its_slot() {
    let mut kernel = three(Kernel::cold(Design::V4));
    kernel.event(Event::Prepare).unwrap();
    let [one, two] = [luosim_luo::SessionKey(0), luosim_luo::SessionKey(1)];
    kernel.luo.release_session(&mut kernel.world, one);
    assert_eq!(kernel.calls().iter().filter(|call| call.starts_with("cancel")).count(), 2);
    assert_eq!(kernel.session_state(two), State::Prepared);
    let mut kernel = kernel.leap();
    assert_eq!(errno(kernel.named(false, b"one")), Some(Errno::ENOENT));
    assert_eq!(errno(kernel.named(false, b"")), Some(Errno::ENOENT), "an empty slot is no session");
    let two = kernel.named(false, b"two").unwrap();
    kernel.session_fd(two, 0xBA42, -1, 502).unwrap();
    assert_eq!(errno(kernel.session_fd(two, 0xBA42, -1, 502)), Some(Errno::EADDRINUSE));
}
