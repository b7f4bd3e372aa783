//! A freeze that is refused: the order of the undoing, and that everything stays as it was.

use luosim_abi::Errno;
use luosim_abi::release::ReleaseId;
use std::rc::Rc;

use crate::recorder::Recorder;
use crate::world::{boot, create, preserve};

fn refused_freeze(release: ReleaseId) {
    let (mut world, mut luo) = boot(release);
    let handler = Recorder::default();
    let (calls, refuse) = (handler.calls.clone(), handler.refuse.clone());
    refuse.set(6);
    luo.register_handler(Rc::new(handler)).expect("the first");
    let one = create(&mut luo, &mut world, b"one");
    let two = create(&mut luo, &mut world, b"two");
    let three = create(&mut luo, &mut world, b"three");
    for (session, files) in [(one, 1..3), (two, 3..5), (three, 5..8)] {
        files.for_each(|file| preserve(&mut luo, &mut world, session, file));
    }
    let refusal = luo.reboot(&mut world).expect_err("file 6 refuses");
    assert_eq!(refusal.errno, Errno::EAGAIN);
    assert!(!luo.serialized());
    // Frozen in order; thawed: the session at fault first, then the earlier ones last to first, files forward.
    let undone = ["unfreeze 5", "unfreeze 3", "unfreeze 4", "unfreeze 1", "unfreeze 2"];
    let frozen: Vec<String> = (1..6).map(|file| format!("freeze {file}")).collect();
    assert_eq!(calls.borrow()[..5], frozen[..]);
    assert_eq!(calls.borrow()[5..], undone);
    // Nothing is lost: the next try starts from the start and carries everything.
    refuse.set(0);
    let carried = luo.reboot(&mut world).expect("nobody refuses");
    assert_eq!((carried.sessions, carried.files), (3, 7));
}

#[test]
fn a_refused_freeze_is_undone_in_reverse_6_19() {
    refused_freeze(ReleaseId::V6_19);
}

#[test]
fn a_refused_freeze_is_undone_in_reverse_7_1() {
    refused_freeze(ReleaseId::V7_1);
}

#[test]
fn a_refused_freeze_is_undone_in_reverse_7_3() {
    refused_freeze(ReleaseId::V7_3);
}

#[test]
fn closing_a_session_gives_files_back_from_the_last() {
    let (mut world, mut luo) = boot(ReleaseId::V7_3);
    let handler = Recorder::default();
    let calls = handler.calls.clone();
    luo.register_handler(Rc::new(handler)).expect("the first");
    let before = world.ram.frames.stats().allocated;
    let session = create(&mut luo, &mut world, b"one");
    (1..4).for_each(|file| preserve(&mut luo, &mut world, session, file));
    luo.release_session(&mut world, session);
    assert_eq!(*calls.borrow(), ["unpreserve 3", "unpreserve 2", "unpreserve 1"]);
    assert_eq!(luo.outgoing_sessions(), 0);
    let tracker = world.ram.frames.outstanding(luosim_physmem::FrameUse::Tracker);
    assert!(world.ram.frames.stats().allocated <= before + tracker, "blocks of records are given back");
}
