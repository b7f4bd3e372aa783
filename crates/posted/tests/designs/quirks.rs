//! Each defect of a posted design, switched on and switched off: what a program sees, and what it would see of a mended one.

use luosim_abi::KResult;
use luosim_abi::posted::{Design, Event};
use luosim_abi::quirk::Quirk;

use crate::world::{Kernel, sized};

/// What a call answered.
fn answer<T>(result: KResult<T>) -> String {
    result.map_or_else(|refusal| refusal.errno.to_string(), |_| String::from("0"))
}

fn one_file(mut kernel: Kernel) -> Kernel {
    kernel.preserve(500, 1).unwrap();
    kernel
}

/// An FD_PRESERVE of the second design with a flag set.
fn with_flags(kernel: &mut Kernel) -> String {
    answer(kernel.device(0x4010_BA00, &[500u32, 1, 1, 0].map(u32::to_le_bytes).concat()))
}

/// Descriptors that are open after an FD_RESTORE whose reply cannot be written.
fn restore_without_reply(kernel: Kernel) -> String {
    let mut kernel = one_file(kernel).jump();
    kernel.process.read_only = true;
    let (first, open) = (answer(kernel.restore(1)), kernel.process.fds.len());
    format!("{first}, {open} open")
}

/// A second FD_RESTORE after one that failed.
fn restore_again(kernel: Kernel) -> String {
    let mut kernel = one_file(kernel).jump();
    kernel.handler.refuse.borrow_mut().push(("retrieve", 500));
    format!("{}, {}", answer(kernel.restore(1)), answer(kernel.restore(1)))
}

/// GET_FD_STATE with the 16 bytes that end before the state.
fn short_state(kernel: Kernel) -> String {
    let mut kernel = one_file(kernel);
    let rest = [&0u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    answer(kernel.device(0xBA05, &sized(16, &rest)))
}

/// References to a file once the device is closed in PREPARED.
fn close_prepared(kernel: Kernel) -> String {
    let mut kernel = one_file(kernel);
    kernel.event(Event::Prepare).unwrap();
    let open = kernel.open;
    kernel.luo.release_device(&mut kernel.world, open);
    format!("{} held", kernel.world.held[&500])
}

/// The descriptor of a session that is made after one that was refused.
fn number_after_refusal(kernel: &mut Kernel) -> String {
    kernel.named(true, b"one").unwrap();
    let refused = answer(kernel.named(true, b"one"));
    kernel.named(true, b"two").unwrap();
    let last = kernel.process.fds.keys().next_back().unwrap();
    format!("{refused}, then {last}")
}

/// A name without a NUL, made, carried and asked for.
fn whole_name(mut kernel: Kernel) -> String {
    let made = answer(kernel.named(true, &[b'n'; 56]));
    let mut kernel = kernel.jump();
    format!("{made}, {}", answer(kernel.named(false, &[b'n'; 56])))
}

/// A session without a name, and how many the next kernel reads.
fn empty_name(mut kernel: Kernel) -> String {
    let made = answer(kernel.named(true, b""));
    let mut kernel = kernel.jump();
    format!("{made}, {}", answer(kernel.named(false, b"")))
}

/// RETRIEVE_SESSION with the size that CREATE_SESSION takes.
fn same_size(mut kernel: Kernel) -> String {
    kernel.named(true, b"one").unwrap();
    let mut kernel = kernel.jump();
    answer(kernel.device(0xBA03, &sized(64, &[0, 0, 0, 0, b'o', b'n', b'e'])))
}

/// A session of a name that the previous kernel's has, made before that was read.
fn same_name(mut kernel: Kernel) -> String {
    kernel.named(true, b"one").unwrap();
    let mut kernel = kernel.jump();
    answer(kernel.named(true, b"one"))
}

type Probe = fn(Kernel) -> String;

/// The defect, the designs that have it, what is asked, the answer with it and without.
#[rustfmt::skip]
const TABLE: [(Quirk, &[Design], Probe, &str, &str); 10] = [
    (Quirk::FlagsIgnored, &[Design::V2], |mut kernel| with_flags(&mut kernel), "0", "EOPNOTSUPP"),
    (Quirk::InstallBeforeReply, &[Design::V2, Design::V3], restore_without_reply, "EFAULT, 1 open", "EFAULT, 0 open"),
    (Quirk::RestoreOnce, &[Design::V2, Design::V3], restore_again, "ENODEV, EINVAL", "ENODEV, 0"),
    (Quirk::StateLostAtMin, &[Design::V3], short_state, "0", "EINVAL"),
    (Quirk::CloseDropsAll, &[Design::V3], close_prepared, "0 held", "1 held"),
    (Quirk::CreateLeaksFd, &[Design::V4], |mut kernel| number_after_refusal(&mut kernel), "EEXIST, then 2", "EEXIST, then 1"),
    (Quirk::NameCut, &[Design::V4], whole_name, "0, ENOENT", "EINVAL, ENOENT"),
    (Quirk::EmptyNameSkipped, &[Design::V4], empty_name, "0, ENOENT", "EINVAL, ENOENT"),
    (Quirk::RetrieveNameLonger, &[Design::V4], same_size, "EINVAL", "0"),
    (Quirk::CreateBlind, &[Design::V4], same_name, "0", "EEXIST"),
];

#[test]
fn each_defect_shows_and_its_mend_too() {
    for (quirk, designs, probe, with, without) in TABLE {
        for design in designs {
            assert_eq!(probe(Kernel::cold(*design)), with, "{quirk} in {design:?}");
            assert_eq!(probe(Kernel::without(*design, &[quirk])), without, "{design:?} without {quirk}");
        }
    }
}

#[test]
fn no_defect_is_left_out() {
    // These are switched on and off among the boundaries and the cells.
    let elsewhere = [
        Quirk::CloseLeaksPrepared,
        Quirk::FreezeLeavesLater,
        Quirk::FinalizeKeepsPrepared,
        Quirk::AbortBeforeState,
        Quirk::PreserveErrorLost,
        Quirk::ReplyUserSize,
    ];
    let mut tested: Vec<Quirk> = TABLE.iter().map(|row| row.0).chain(elsewhere).collect();
    tested.sort_unstable();
    let posted: Vec<Quirk> = Quirk::ALL.iter().copied().filter(|quirk| quirk.of_posted_designs()).collect();
    assert_eq!(tested, posted);
}
