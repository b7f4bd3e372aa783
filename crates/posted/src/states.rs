//! The state machines as data: every state and every event of each, what is done, and where it leads.
//!
//! One table for both: the designs run by it ([`StateMachine::cell`]), and `luosim abi states` prints it, so that what is
//! shown cannot differ from what is done. A cell that names a quirk says what happens with it and without.
//!
//! Not here: how a piece of work is done ([`Work`] is a name), which descriptor an event comes through.

use luosim_abi::Errno;
use luosim_abi::posted::{Design, Event, State};
use luosim_abi::quirk::Quirk;

luosim_abi::named! {
    /// Whose state it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Scope {
        Global = "global", "the machine: one state for all";
        File = "file", "a registered file";
        Session = "session", "a session";
    }
}

luosim_abi::named! {
    /// A piece of work on the way from one state to another.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Work {
        BuildTree = "build-tree", "make the page that the next kernel finds, register it with KHO";
        RemoveTree = "remove-tree", "take the page out of KHO and free it";
        PrepareSubsystems = "prepare-subsystems", "call prepare of each subsystem, in order; on an error cancel those before it; write their values into the page";
        FreezeSubsystems = "freeze-subsystems", "call freeze of each subsystem, in order; on an error cancel those before it; write their values into the page";
        CancelSubsystems = "cancel-subsystems", "call cancel of each subsystem, in order; write zeros into the page";
        FinishSubsystems = "finish-subsystems", "read every subsystem's value, which panics if one is missing; call finish of each";
        FinalizeKho = "finalize-kho", "finalise KHO: nothing more can be preserved, and an image loaded from now on takes all along";
        AbortKho = "abort-kho", "undo the finalisation";
        PrepareFile = "prepare-file", "call prepare of the file's handler and keep its value";
        FreezeFile = "freeze-file", "call freeze of the file's handler and keep its value";
        CancelFile = "cancel-file", "call cancel of the file's handler; the value is 0 again";
        FinishFile = "finish-file", "call finish of the file's handler with what is known of the file";
        PrepareFiles = "prepare-files", "allocate the session's array, call prepare of each file, write the array";
        FreezeFiles = "freeze-files", "call freeze of each file, write their values into the array";
        CancelFiles = "cancel-files", "call cancel of each file that was prepared, free the array";
        FinishFiles = "finish-files", "call finish of each file, drop those that nobody took, free the array";
    }
}

/// What follows when a piece of work fails. Its error is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It cannot.
    Never,
    /// This is done, then the state is `to`. With the quirk nothing is done, and the state is the quirk's.
    Undo {
        /// What is done.
        undo: &'static [Work],
        /// The state after that.
        to: State,
        /// The quirk with which it is otherwise, and the state with it.
        quirk: Option<(Quirk, State)>,
    },
}

/// A piece of work in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub work: Work,
    /// What follows if it fails.
    pub failed: Failed,
}

/// What an event does in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The steps in order, then the state is `to`.
    Go {
        /// The steps.
        steps: &'static [Step],
        /// The state after the last.
        to: State,
    },
    /// Nothing; the answer is success.
    Ignore,
    /// A warning in the kernel log; the answer is success.
    Warn,
    /// Nothing; the answer is this error. With the quirk the work is done first, and its error comes first.
    Refuse {
        /// The answer.
        errno: Errno,
        /// The quirk, and what it does first.
        first: Option<(Quirk, Work)>,
    },
    /// The event looks in the other table, the previous kernel's files or the next one's: this answer, as for any unknown
    /// token.
    Elsewhere(Errno),
    /// No program gets so far: there is no device in this state.
    NoDevice,
}

/// What must hold before the state is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// In words.
    pub about: &'static str,
    /// The answer if not.
    pub errno: Errno,
}

/// How an event gets to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The event.
    pub event: Event,
    /// What a program calls; none if no program can.
    pub command: Option<&'static str>,
    /// What a program that passes the event all the same gets.
    pub refused: Option<Errno>,
    /// What else brings it.
    pub also: Option<&'static str>,
    /// What must hold, in the order of the checks.
    pub guards: &'static [Guard],
}

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// In this state
    pub from: State,
    /// at this event
    pub event: Event,
    /// this happens.
    pub rule: Rule,
}

/// A state machine: a cell for each state and event, states first.
#[derive(Clone, Copy, Debug)]
pub struct StateMachine {
    /// Whose.
    pub scope: Scope,
    /// Its states, in order.
    pub states: &'static [State],
    /// States that it may begin in, and when.
    pub initial: &'static [(State, &'static str)],
    /// Where a program reads the state.
    pub shown: &'static str,
    /// How events come, in the order of [`Event::ALL`].
    pub routes: &'static [Route],
    /// All cells.
    pub cells: &'static [Cell],
}

impl StateMachine {
    /// What `event` does in `from`; none for a state that is not one of this machine's.
    #[must_use]
    pub fn cell(&self, from: State, event: Event) -> Option<&'static Cell> {
        self.cells.iter().find(|cell| cell.from == from && cell.event == event)
    }

    /// How `event` comes.
    #[must_use]
    pub fn route(&self, event: Event) -> &'static Route {
        &self.routes[event as usize]
    }
}

/// The machine of this scope in a design, if it has one.
#[must_use]
pub fn machine(design: Design, scope: Scope) -> Option<&'static StateMachine> {
    machines(design).iter().copied().find(|machine| machine.scope == scope)
}

/// The machines of a design, the global one first.
#[must_use]
pub fn machines(design: Design) -> &'static [&'static StateMachine] {
    match design {
        Design::V2 => &[&GLOBAL_V2, &FILE_V2],
        Design::V3 => &[&GLOBAL_V3, &FILE_V3],
        Design::V4 => &[&GLOBAL_V4, &SESSION_V4],
    }
}

use Event::{Cancel, Finish, Freeze, Prepare};
use State::{Frozen, Normal, Prepared, Undefined, Updated};

const fn go(steps: &'static [Step], to: State) -> Rule {
    Rule::Go { steps, to }
}

const fn refuse(errno: Errno) -> Rule {
    Rule::Refuse { errno, first: None }
}

const fn sure(work: Work) -> Step {
    Step { work, failed: Failed::Never }
}

const fn or_stay(work: Work, to: State) -> Step {
    Step { work, failed: Failed::Undo { undo: &[], to, quirk: None } }
}

const fn or(work: Work, undo: &'static [Work], to: State, quirk: Option<(Quirk, State)>) -> Step {
    Step { work, failed: Failed::Undo { undo, to, quirk } }
}

const fn cell(from: State, event: Event, rule: Rule) -> Cell {
    Cell { from, event, rule }
}

const ABORT_FIRST: Rule =
    Rule::Refuse { errno: Errno::EINVAL, first: Some((Quirk::AbortBeforeState, Work::AbortKho)) };

/// The global machine: the same in all three designs.
const GLOBAL: &[Cell] = &[
    cell(Undefined, Prepare, Rule::NoDevice),
    cell(Undefined, Freeze, Rule::Ignore),
    cell(Undefined, Finish, Rule::NoDevice),
    cell(Undefined, Cancel, Rule::NoDevice),
    cell(
        Normal,
        Prepare,
        go(
            &[
                or_stay(Work::BuildTree, Normal),
                or(Work::PrepareSubsystems, &[Work::RemoveTree], Normal, None),
                or(
                    Work::FinalizeKho,
                    &[Work::CancelSubsystems, Work::RemoveTree],
                    Normal,
                    Some((Quirk::FinalizeKeepsPrepared, Prepared)),
                ),
            ],
            Prepared,
        ),
    ),
    cell(Normal, Freeze, Rule::Ignore),
    cell(Normal, Finish, refuse(Errno::EINVAL)),
    cell(Normal, Cancel, ABORT_FIRST),
    cell(Prepared, Prepare, refuse(Errno::EINVAL)),
    cell(
        Prepared,
        Freeze,
        go(
            &[or(
                Work::FreezeSubsystems,
                &[Work::AbortKho, Work::CancelSubsystems, Work::RemoveTree],
                Normal,
                Some((Quirk::FreezeLeavesLater, Normal)),
            )],
            Frozen,
        ),
    ),
    cell(Prepared, Finish, refuse(Errno::EINVAL)),
    cell(
        Prepared,
        Cancel,
        go(
            &[or_stay(Work::AbortKho, Prepared), sure(Work::CancelSubsystems), sure(Work::RemoveTree)],
            Normal,
        ),
    ),
    cell(Frozen, Prepare, refuse(Errno::EINVAL)),
    cell(Frozen, Freeze, Rule::Ignore),
    cell(Frozen, Finish, refuse(Errno::EINVAL)),
    cell(
        Frozen,
        Cancel,
        go(&[or_stay(Work::AbortKho, Frozen), sure(Work::CancelSubsystems), sure(Work::RemoveTree)], Normal),
    ),
    cell(Updated, Prepare, refuse(Errno::EINVAL)),
    cell(Updated, Freeze, Rule::Ignore),
    cell(Updated, Finish, go(&[sure(Work::FinishSubsystems)], Normal)),
    cell(Updated, Cancel, ABORT_FIRST),
];

const GLOBAL_INITIAL: &[(State, &str)] = &[
    (Undefined, "KHO is off: it stays so, and there is no device"),
    (Normal, "the previous kernel left nothing for the orchestrator"),
    (Updated, "it did"),
];

const AT_REBOOT: Option<&str> = Some("reboot(KEXEC), whose errno is that of a refused freeze");

const fn by(event: Event, command: &'static str) -> Route {
    Route { event, command: Some(command), refused: None, also: None, guards: &[] }
}

const fn by_reboot(refused: Errno) -> Route {
    Route { event: Freeze, command: None, refused: Some(refused), also: AT_REBOOT, guards: &[] }
}

const GLOBAL_STATES: &[State] = &[Undefined, Normal, Prepared, Frozen, Updated];

const GLOBAL_V2: StateMachine = StateMachine {
    scope: Scope::Global,
    states: GLOBAL_STATES,
    initial: GLOBAL_INITIAL,
    shown: "GET_STATE, and /sys/kernel/liveupdate/state",
    routes: &[by(Prepare, "PREPARE"), by_reboot(Errno::ENOTTY), by(Finish, "FINISH"), by(Cancel, "CANCEL")],
    cells: GLOBAL,
};

const GLOBAL_V3: StateMachine = StateMachine {
    routes: &[
        by(Prepare, "SET_EVENT"),
        by_reboot(Errno::EINVAL),
        by(Finish, "SET_EVENT"),
        by(Cancel, "SET_EVENT"),
    ],
    ..GLOBAL_V2
};

const GLOBAL_V4: StateMachine = StateMachine {
    shown: "GET_STATE",
    routes: &[
        by(Prepare, "SET_EVENT"),
        by_reboot(Errno::EOPNOTSUPP),
        by(Finish, "SET_EVENT"),
        by(Cancel, "SET_EVENT"),
    ],
    ..GLOBAL_V2
};

const FILE: &[Cell] = &[
    cell(Normal, Prepare, go(&[or_stay(Work::PrepareFile, Normal)], Prepared)),
    cell(Normal, Freeze, Rule::Warn),
    cell(Normal, Finish, Rule::Ignore),
    cell(Normal, Cancel, Rule::Ignore),
    cell(Prepared, Prepare, Rule::Ignore),
    cell(Prepared, Freeze, go(&[or_stay(Work::FreezeFile, Prepared)], Frozen)),
    cell(Prepared, Finish, Rule::Elsewhere(Errno::ENOENT)),
    cell(Prepared, Cancel, go(&[sure(Work::CancelFile)], Normal)),
    cell(Frozen, Prepare, Rule::Ignore),
    cell(Frozen, Freeze, Rule::Ignore),
    cell(Frozen, Finish, Rule::Elsewhere(Errno::ENOENT)),
    cell(Frozen, Cancel, go(&[sure(Work::CancelFile)], Normal)),
    cell(Updated, Prepare, Rule::Elsewhere(Errno::ENOENT)),
    cell(Updated, Freeze, Rule::Elsewhere(Errno::ENOENT)),
    cell(Updated, Finish, go(&[sure(Work::FinishFile)], Normal)),
    cell(Updated, Cancel, Rule::Elsewhere(Errno::ENOENT)),
];

const OUTGOING: Guard = Guard { about: "the token is registered with this kernel", errno: Errno::ENOENT };
const INCOMING: Guard = Guard { about: "the token is one of the previous kernel's", errno: Errno::ENOENT };
const IS_UPDATED: Guard = Guard { about: "the machine is UPDATED", errno: Errno::EBUSY };

const fn inside(event: Event, also: &'static str) -> Route {
    Route { event, command: None, refused: None, also: Some(also), guards: &[] }
}

const fn of_file(event: Event, also: &'static str, guards: &'static [Guard]) -> Route {
    Route { event, command: Some("SET_FD_EVENT"), refused: None, also: Some(also), guards }
}

const FILE_V2: StateMachine = StateMachine {
    scope: Scope::File,
    states: &[Normal, Prepared, Frozen, Updated],
    initial: &[(Normal, "registered by FD_PRESERVE"), (Updated, "named by the previous kernel")],
    shown: "nowhere",
    routes: &[
        inside(Prepare, "the machine's PREPARE"),
        inside(Freeze, "the machine's freeze"),
        inside(Finish, "the machine's FINISH"),
        inside(Cancel, "the machine's CANCEL"),
    ],
    cells: FILE,
};

const FILE_V3: StateMachine = StateMachine {
    shown: "GET_FD_STATE",
    routes: &[
        of_file(Prepare, "the machine's PREPARE", &[OUTGOING]),
        of_file(Freeze, "the machine's freeze", &[OUTGOING]),
        of_file(Finish, "the machine's FINISH", &[IS_UPDATED, INCOMING]),
        of_file(Cancel, "the machine's CANCEL, and a close of the device", &[OUTGOING]),
    ],
    ..FILE_V2
};

const SESSION: &[Cell] = &[
    cell(Normal, Prepare, go(&[or(Work::PrepareFiles, &[Work::CancelFiles], Normal, None)], Prepared)),
    cell(Normal, Freeze, refuse(Errno::EBUSY)),
    cell(Normal, Finish, Rule::Ignore),
    cell(Normal, Cancel, Rule::Ignore),
    cell(Prepared, Prepare, refuse(Errno::EBUSY)),
    cell(Prepared, Freeze, go(&[or(Work::FreezeFiles, &[Work::CancelFiles], Normal, None)], Frozen)),
    cell(Prepared, Finish, Rule::Ignore),
    cell(Prepared, Cancel, go(&[sure(Work::CancelFiles)], Normal)),
    cell(Frozen, Prepare, refuse(Errno::EBUSY)),
    cell(Frozen, Freeze, refuse(Errno::EBUSY)),
    cell(Frozen, Finish, Rule::Ignore),
    cell(Frozen, Cancel, go(&[sure(Work::CancelFiles)], Normal)),
    cell(Updated, Prepare, refuse(Errno::EBUSY)),
    cell(Updated, Freeze, refuse(Errno::EBUSY)),
    cell(Updated, Finish, go(&[sure(Work::FinishFiles)], Normal)),
    cell(Updated, Cancel, Rule::Ignore),
];

const fn of_session(event: Event, also: &'static str) -> Route {
    Route { event, command: Some("SESSION_SET_EVENT"), refused: None, also: Some(also), guards: &[] }
}

const SESSION_V4: StateMachine = StateMachine {
    scope: Scope::Session,
    states: &[Normal, Prepared, Frozen, Updated],
    initial: &[(Normal, "made by CREATE_SESSION"), (Updated, "named by the previous kernel")],
    shown: "SESSION_GET_STATE",
    routes: &[
        of_session(Prepare, "the machine's PREPARE, in NORMAL"),
        of_session(Freeze, "the machine's freeze, in PREPARED"),
        of_session(Finish, "the machine's FINISH, and a close, in UPDATED"),
        of_session(Cancel, "the machine's CANCEL, and a close"),
    ],
    cells: SESSION,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_each_cell_once() {
        for design in [Design::V2, Design::V3, Design::V4] {
            for machine in machines(design) {
                assert_eq!(machine.cells.len(), machine.states.len() * Event::ALL.len());
                for (index, cell) in machine.cells.iter().enumerate() {
                    let (from, event) = (machine.states[index / 4], Event::ALL[index % 4]);
                    assert_eq!((cell.from, cell.event), (from, event), "{design:?} {:?}", machine.scope);
                    assert_eq!(machine.cell(from, event), Some(cell));
                }
                for (route, event) in machine.routes.iter().zip(Event::ALL) {
                    assert_eq!(route.event, *event);
                    assert!(route.command.is_some() || route.also.is_some(), "an event that never comes");
                }
            }
        }
    }

    #[test]
    fn what_moves_ends_in_a_state_of_its_machine() {
        for machine in [Design::V2, Design::V3, Design::V4].iter().flat_map(|design| machines(*design)) {
            for cell in machine.cells {
                let Rule::Go { steps, to } = cell.rule else { continue };
                assert!(machine.states.contains(&to) && !steps.is_empty());
                assert_ne!(to, cell.from, "{:?} {:?}: a move goes somewhere", cell.from, cell.event);
            }
        }
    }
}
