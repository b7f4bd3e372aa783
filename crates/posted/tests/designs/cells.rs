//! Every cell of every state machine that a program can drive: the answer and the state afterwards, written down here from
//! the descriptions of the designs and not from the tables that the code follows.

use luosim_abi::posted::{Design, Event, State};
use luosim_abi::{Errno, KResult};
use luosim_posted::states::{Scope, machine, machines};

use crate::world::Kernel;
use Event::{Cancel, Finish, Freeze, Prepare};
use State::{Frozen, Normal, Prepared, Undefined, Updated};

const DESIGNS: [Design; 3] = [Design::V2, Design::V3, Design::V4];

/// The answer: none is success. Then the state.
type Want = (Option<Errno>, State);

fn answer(result: KResult<()>) -> Option<Errno> {
    result.err().map(|refusal| refusal.errno)
}

/// A kernel whose machine is in this state.
fn at(design: Design, state: State) -> Kernel {
    let mut kernel = Kernel::cold(design);
    match state {
        Normal => {}
        Prepared => kernel.event(Prepare).unwrap(),
        Frozen => {
            kernel.event(Prepare).unwrap();
            kernel.freeze().unwrap();
        }
        Updated => kernel = kernel.jump(),
        Undefined => unreachable!("there is no device to drive it by"),
    }
    assert_eq!(kernel.state(), state);
    kernel
}

/// The global machine: rows are states, columns prepare, freeze by the reboot, finish, cancel.
const GLOBAL: [(State, [Want; 4]); 4] = [
    (
        Normal,
        [(None, Prepared), (None, Normal), (Some(Errno::EINVAL), Normal), (Some(Errno::ENOENT), Normal)],
    ),
    (
        Prepared,
        [(Some(Errno::EINVAL), Prepared), (None, Frozen), (Some(Errno::EINVAL), Prepared), (None, Normal)],
    ),
    (Frozen, [(Some(Errno::EINVAL), Frozen), (None, Frozen), (Some(Errno::EINVAL), Frozen), (None, Normal)]),
    (
        Updated,
        [(Some(Errno::EINVAL), Updated), (None, Updated), (None, Normal), (Some(Errno::ENOENT), Updated)],
    ),
];

#[test]
fn every_cell_of_the_global_machines() {
    let mut cells = 0;
    for design in DESIGNS {
        for (from, row) in GLOBAL {
            for (event, want) in Event::ALL.iter().zip(row) {
                let mut kernel = at(design, from);
                let found = match event {
                    Freeze => kernel.freeze(),
                    event => kernel.event(*event),
                };
                assert_eq!((answer(found), kernel.state()), want, "{design:?}: {event:?} in {from:?}");
                cells += 1;
            }
            // Without the quirk the state is looked at first.
            let quirks = [luosim_abi::quirk::Quirk::AbortBeforeState];
            if from == Normal {
                let found = Kernel::without(design, &quirks).event(Cancel);
                assert_eq!(answer(found), Some(Errno::EINVAL));
            }
        }
        // UNDEFINED: KHO is off, there is no device, and a reboot is not refused.
        let memory = luosim_physmem::PhysMem::anonymous(32 << 20).unwrap();
        let quirks = crate::world::row(design).quirks;
        let mut off = Kernel::boot(design, quirks, memory, None, false).unwrap();
        assert_eq!((off.luo.enabled(), off.luo.state()), (false, Undefined));
        assert_eq!((answer(off.freeze()), off.luo.state()), (None, Undefined));
        cells += 4;
    }
    assert_eq!(cells, 60);
}

#[test]
fn no_program_freezes_the_machine() {
    let wants = [Errno::ENOTTY, Errno::EINVAL, Errno::EOPNOTSUPP];
    for (design, want) in DESIGNS.into_iter().zip(wants) {
        for state in [Normal, Prepared, Frozen, Updated] {
            let mut kernel = at(design, state);
            assert_eq!((answer(kernel.event(Freeze)), kernel.state()), (Some(want), state), "{design:?}");
            let route = machine(design, Scope::Global).unwrap().route(Freeze);
            assert_eq!(route.refused, Some(want), "as the table says");
        }
    }
}

/// A file of this kernel in this state, or one that came, under token 7; the machine is UPDATED for the latter.
fn file_at(state: State) -> Kernel {
    let mut kernel = Kernel::cold(Design::V3);
    kernel.preserve(500, 7).unwrap();
    match state {
        Prepared => kernel.fd_event(Prepare, 7).unwrap(),
        Frozen => {
            kernel.fd_event(Prepare, 7).unwrap();
            kernel.fd_event(Freeze, 7).unwrap();
        }
        Updated => {
            kernel = kernel.jump();
            kernel.restore(7).unwrap();
        }
        _ => {}
    }
    assert_eq!(kernel.fd_state(7, state == Updated).unwrap(), state);
    kernel
}

/// The machine of a file: FINISH of one of this kernel's asks for UPDATED first.
const FILE: [(State, [Want; 4]); 4] = [
    (Normal, [(None, Prepared), (None, Normal), (Some(Errno::EBUSY), Normal), (None, Normal)]),
    (Prepared, [(None, Prepared), (None, Frozen), (Some(Errno::EBUSY), Prepared), (None, Normal)]),
    (Frozen, [(None, Frozen), (None, Frozen), (Some(Errno::EBUSY), Frozen), (None, Normal)]),
    (
        Updated,
        [
            (Some(Errno::ENOENT), Updated),
            (Some(Errno::ENOENT), Updated),
            (None, Normal),
            (Some(Errno::ENOENT), Updated),
        ],
    ),
];

#[test]
fn every_cell_of_the_file_machine() {
    let mut cells = 0;
    for (from, row) in FILE {
        for (event, want) in Event::ALL.iter().zip(row) {
            let mut kernel = file_at(from);
            let found = kernel.fd_event(*event, 7);
            let state = kernel.fd_state(7, from == Updated).unwrap();
            assert_eq!((answer(found), state), want, "{event:?} in {from:?}");
            cells += 1;
        }
    }
    // The second design has the same machine, inside.
    let [second, third] = [Design::V2, Design::V3].map(|design| machine(design, Scope::File).unwrap());
    assert_eq!(second.cells, third.cells);
    assert_eq!(cells, 16);
}

#[test]
fn finish_of_a_file_looks_only_among_those_that_came() {
    // In UPDATED, where FINISH is let through, a token of this kernel is unknown to it in every state.
    for (events, state) in [(vec![], Normal), (vec![Prepare], Prepared), (vec![Prepare, Freeze], Frozen)] {
        let mut kernel = at(Design::V3, Updated);
        kernel.preserve(500, 9).unwrap();
        for event in events {
            kernel.fd_event(event, 9).unwrap();
        }
        assert_eq!(answer(kernel.fd_event(Finish, 9)), Some(Errno::ENOENT));
        assert_eq!(kernel.fd_state(9, false).unwrap(), state);
    }
    // One that came and is finished stays where it is, and is finished again without a word.
    let mut kernel = file_at(Updated);
    for _ in 0..2 {
        kernel.fd_event(Finish, 7).unwrap();
        assert_eq!(kernel.fd_state(7, true).unwrap(), Normal);
    }
    assert_eq!(kernel.calls(), ["retrieve 500", "finish 200 reclaimed"]);
}

const SESSION: [(State, [Want; 4]); 4] = [
    (Normal, [(None, Prepared), (Some(Errno::EBUSY), Normal), (None, Normal), (None, Normal)]),
    (Prepared, [(Some(Errno::EBUSY), Prepared), (None, Frozen), (None, Prepared), (None, Normal)]),
    (Frozen, [(Some(Errno::EBUSY), Frozen), (Some(Errno::EBUSY), Frozen), (None, Frozen), (None, Normal)]),
    (
        Updated,
        [(Some(Errno::EBUSY), Updated), (Some(Errno::EBUSY), Updated), (None, Normal), (None, Updated)],
    ),
];

#[test]
fn every_cell_of_the_session_machine() {
    let mut cells = 0;
    for (from, row) in SESSION {
        for (event, want) in Event::ALL.iter().zip(row) {
            let mut kernel = Kernel::cold(Design::V4);
            let mut key = kernel.named(true, b"s").unwrap();
            kernel.session_fd(key, 0xBA40, 500, 1).unwrap();
            match from {
                Prepared => kernel.session_event(key, Prepare).unwrap(),
                Frozen => {
                    kernel.session_event(key, Prepare).unwrap();
                    kernel.session_event(key, Freeze).unwrap();
                }
                Updated => {
                    kernel = kernel.jump();
                    key = kernel.named(false, b"s").unwrap();
                }
                _ => {}
            }
            assert_eq!(kernel.session_state(key), from);
            let found = kernel.session_event(key, *event);
            assert_eq!((answer(found), kernel.session_state(key)), want, "{event:?} in {from:?}");
            cells += 1;
        }
    }
    assert_eq!(cells, 16);
}

#[test]
fn every_machine_of_every_design_is_tested_above() {
    let all: Vec<(Design, Scope)> =
        DESIGNS.iter().flat_map(|design| machines(*design).iter().map(|one| (*design, one.scope))).collect();
    let known = [
        (Design::V2, Scope::Global),
        (Design::V2, Scope::File),
        (Design::V3, Scope::Global),
        (Design::V3, Scope::File),
        (Design::V4, Scope::Global),
        (Design::V4, Scope::Session),
    ];
    assert_eq!(all, known);
}
