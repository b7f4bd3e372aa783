//! Any sequence of calls against a small reference: maps of tokens, a state for each thing that has one, and what the
//! descriptions of the designs say about each call. Nothing of the tables or of the code under test is in it.

use std::collections::BTreeMap;

use luosim_abi::posted::{Design, Event, State};
use luosim_abi::{Errno, KResult};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::world::Kernel;
use Event::{Cancel, Finish, Freeze, Prepare};
use State::{Frozen, Normal, Prepared, Updated};

/// One call. Tokens are 0 to 2, sessions 0 and 1; each token's file is number 500 and the token.
#[derive(Clone, Debug)]
enum Call {
    Preserve(u64),
    Unpreserve(u64),
    Restore(u64),
    Event(Event),
    /// The reboot's freeze, without the jump.
    Reboot,
    /// PREPARE if need be, then the next kernel.
    Jump,
    FileEvent(Event, u64),
    /// Closes the device and opens it again.
    Reopen,
    Create(usize),
    Retrieve(usize),
    SessionEvent(Event, usize),
    Close(usize),
    SessionPreserve(usize, u64),
    SessionUnpreserve(usize, u64),
    SessionRestore(usize, u64),
    /// The next call of this callback fails for the file of a token.
    Refuse(bool, u64),
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Token to: whether it was given back.
    files: BTreeMap<u64, bool>,
    state: Option<State>,
    open: bool,
    /// It stands in the array that is handed over, and its files do.
    carried: bool,
}

/// The reference.
#[derive(Clone, Debug)]
struct Model {
    design: Design,
    state: State,
    /// Whether KHO is finalised.
    finalized: bool,
    /// Files of this kernel.
    files: BTreeMap<u64, State>,
    /// What the tree names that is handed over.
    tree: Vec<u64>,
    /// Files of the previous kernel: state, and whether given back.
    incoming: BTreeMap<u64, (State, bool)>,
    sessions: BTreeMap<usize, Session>,
    /// Sessions in the order in which they are asked: of their creation.
    order: Vec<usize>,
    /// Sessions of the previous kernel that were not read yet, in its order.
    unread: Vec<usize>,
    refuse: Vec<(&'static str, u64)>,
}

type Answer = Option<Errno>;

impl Model {
    fn new(design: Design) -> Self {
        Self {
            design,
            state: Normal,
            finalized: false,
            files: BTreeMap::new(),
            tree: Vec::new(),
            incoming: BTreeMap::new(),
            sessions: BTreeMap::new(),
            order: Vec::new(),
            unread: Vec::new(),
            refuse: Vec::new(),
        }
    }

    fn idle(&self) -> bool {
        matches!(self.state, Normal | Updated)
    }

    /// Whether a callback is told to fail; it does so once.
    fn refused(&mut self, what: &'static str, token: u64) -> bool {
        let at = self.refuse.iter().position(|told| *told == (what, token));
        at.map(|at| self.refuse.remove(at)).is_some()
    }

    /// Prepares one file; EBUSY of KHO when it is finalised.
    fn prepare_file(&mut self, token: u64) -> Answer {
        if self.refused("prepare", token) {
            return Some(Errno::ENODEV);
        }
        self.finalized.then_some(Errno::EBUSY)
    }

    fn call(&mut self, call: &Call) -> Answer {
        match *call {
            Call::Preserve(token) => self.preserve(token),
            Call::Unpreserve(token) => self.unpreserve(token),
            Call::Restore(token) => self.restore(token),
            Call::Event(event) => self.event(event),
            Call::Reboot => self.freeze(),
            Call::Jump => {
                self.jump();
                None
            }
            Call::FileEvent(event, token) => self.file_event(event, token),
            Call::Reopen => {
                self.reopen();
                None
            }
            Call::Create(name) => self.create(name),
            Call::Retrieve(name) => self.retrieve(name),
            Call::SessionEvent(event, name) => self.session_event(event, name),
            Call::Close(name) => {
                self.sessions.remove(&name);
                self.order.retain(|other| *other != name);
                None
            }
            Call::SessionPreserve(name, token) => self.session_preserve(name, token),
            Call::SessionUnpreserve(name, token) => self.session_unpreserve(name, token),
            Call::SessionRestore(name, token) => self.session_restore(name, token),
            Call::Refuse(prepare, token) => {
                self.refuse.push((if prepare { "prepare" } else { "freeze" }, token));
                None
            }
        }
    }

    fn preserve(&mut self, token: u64) -> Answer {
        let refused = if !self.idle() {
            Some(Errno::EBUSY)
        } else if let std::collections::btree_map::Entry::Vacant(place) = self.files.entry(token) {
            place.insert(Normal);
            None
        } else {
            Some(Errno::EEXIST)
        };
        // The third design hides it.
        refused.filter(|_| self.design == Design::V2)
    }

    fn unpreserve(&mut self, token: u64) -> Answer {
        if !self.idle() {
            return Some(Errno::EBUSY);
        }
        if self.files.remove(&token).is_none() {
            return Some(Errno::ENOENT);
        }
        self.tree.retain(|other| *other != token);
        None
    }

    fn restore(&mut self, token: u64) -> Answer {
        if self.state != Updated {
            return Some(Errno::EBUSY);
        }
        match self.incoming.get_mut(&token) {
            None => Some(Errno::ENOENT),
            Some((_, true)) => Some(Errno::EINVAL),
            Some((_, taken)) => {
                *taken = true;
                None
            }
        }
    }

    fn event(&mut self, event: Event) -> Answer {
        match (event, self.state) {
            (Freeze, _) => Some(match self.design {
                Design::V2 => Errno::ENOTTY,
                Design::V3 => Errno::EINVAL,
                Design::V4 => Errno::EOPNOTSUPP,
            }),
            (Prepare, Normal) => self.prepare(),
            (Finish, Updated) => {
                self.finish();
                None
            }
            (Prepare | Finish, _) => Some(Errno::EINVAL),
            (Cancel, Prepared | Frozen) => {
                self.finalized = false;
                self.cancel_all();
                self.state = Normal;
                None
            }
            (Cancel, _) if self.finalized => {
                self.finalized = false;
                Some(Errno::EINVAL)
            }
            (Cancel, _) => Some(Errno::ENOENT),
        }
    }

    fn prepare(&mut self) -> Answer {
        // The page of the orchestrator cannot be preserved then.
        if self.finalized {
            return Some(Errno::EBUSY);
        }
        let error = if self.design == Design::V4 { self.prepare_sessions() } else { self.prepare_files() };
        if error.is_none() {
            (self.state, self.finalized) = (Prepared, true);
        }
        error
    }

    fn prepare_files(&mut self) -> Answer {
        let tokens: Vec<u64> = self.files.keys().copied().collect();
        for (index, token) in tokens.iter().enumerate() {
            if self.files[token] != Normal {
                continue;
            }
            if let Some(error) = self.prepare_file(*token) {
                for token in &tokens[..index] {
                    self.files.insert(*token, Normal);
                }
                return Some(error);
            }
            self.files.insert(*token, Prepared);
        }
        self.tree = tokens;
        None
    }

    fn prepare_sessions(&mut self) -> Answer {
        for name in self.order.clone() {
            if self.sessions[&name].state == Some(Normal)
                && let Some(error) = self.session_event(Prepare, name)
            {
                self.cancel_all();
                return Some(error);
            }
        }
        for session in self.sessions.values_mut() {
            session.carried = true;
        }
        None
    }

    fn cancel_all(&mut self) {
        for state in self.files.values_mut() {
            *state = Normal;
        }
        self.tree.clear();
        for session in self.sessions.values_mut() {
            if matches!(session.state, Some(Prepared | Frozen)) {
                session.state = Some(Normal);
            }
            session.carried = false;
        }
    }

    fn freeze(&mut self) -> Answer {
        if self.state != Prepared {
            return None;
        }
        let error = if self.design == Design::V4 { self.freeze_sessions() } else { self.freeze_files() };
        self.state = if error.is_some() { Normal } else { Frozen };
        error
    }

    fn freeze_files(&mut self) -> Answer {
        let tokens: Vec<u64> = self.files.keys().copied().collect();
        for (index, token) in tokens.iter().enumerate() {
            if self.files[token] != Prepared {
                continue;
            }
            if self.refused("freeze", *token) {
                for token in &tokens[..index] {
                    self.files.insert(*token, Normal);
                }
                self.tree.clear();
                return Some(Errno::ENODEV);
            }
            self.files.insert(*token, Frozen);
        }
        None
    }

    fn freeze_sessions(&mut self) -> Answer {
        for name in self.order.clone() {
            if self.sessions[&name].state == Some(Prepared)
                && let Some(error) = self.session_event(Freeze, name)
            {
                self.cancel_all();
                return Some(error);
            }
        }
        None
    }

    fn finish(&mut self) {
        self.incoming.clear();
        self.read();
        self.sessions.retain(|_, session| session.open);
        self.order.retain(|name| self.sessions.contains_key(name));
        for session in self.sessions.values_mut().filter(|session| session.state == Some(Updated)) {
            finish(session);
        }
        self.state = Normal;
    }

    fn read(&mut self) {
        self.order.append(&mut self.unread);
    }

    /// The next kernel has what was handed over, if the jump is made from PREPARED or FROZEN with nothing refused.
    fn jump(&mut self) {
        let mut next = Self::new(self.design);
        next.state = Updated;
        // A file that was cancelled by itself is still named by the tree, with nothing behind it.
        next.incoming = self.tree.iter().map(|token| (*token, (Updated, false))).collect();
        for name in &self.order {
            let session = &self.sessions[name];
            if !session.carried {
                continue;
            }
            next.unread.push(*name);
            let kept = matches!(session.state, Some(Prepared | Frozen));
            let files = session.files.keys().filter(|_| kept).map(|token| (*token, false)).collect();
            next.sessions.insert(*name, Session { files, state: Some(Updated), open: false, carried: false });
        }
        *self = next;
    }

    fn file_event(&mut self, event: Event, token: u64) -> Answer {
        if event == Finish {
            if self.state != Updated {
                return Some(Errno::EBUSY);
            }
            let Some((state, _)) = self.incoming.get_mut(&token) else { return Some(Errno::ENOENT) };
            *state = Normal;
            return None;
        }
        let Some(state) = self.files.get(&token).copied() else { return Some(Errno::ENOENT) };
        let next = match (event, state) {
            (Prepare, Normal) => match self.prepare_file(token) {
                None => Prepared,
                error => return error,
            },
            (Freeze, Prepared) if self.refused("freeze", token) => return Some(Errno::ENODEV),
            (Freeze, Prepared) => Frozen,
            (Cancel, _) => Normal,
            (_, state) => state,
        };
        self.files.insert(token, next);
        None
    }

    fn reopen(&mut self) {
        match self.design {
            // What is prepared leaks: nobody reaches it, and it is handed over.
            Design::V2 if !self.idle() => self.files.clear(),
            Design::V2 => {
                self.tree.retain(|token| !self.files.contains_key(token));
                self.files.clear();
            }
            // Only what was prepared is taken out of the tree; what was cancelled by itself is still named there.
            Design::V3 => {
                let files = &self.files;
                self.tree.retain(|token| files.get(token).is_none_or(|state| *state == Normal));
                self.files.clear();
            }
            Design::V4 => {}
        }
    }

    fn create(&mut self, name: usize) -> Answer {
        if !self.idle() {
            return Some(Errno::EAGAIN);
        }
        if self.sessions.contains_key(&name) {
            return Some(Errno::EEXIST);
        }
        self.order.push(name);
        self.sessions.insert(name, Session { state: Some(Normal), open: true, ..Session::default() });
        None
    }

    fn retrieve(&mut self, name: usize) -> Answer {
        if self.state != Updated {
            return Some(Errno::EAGAIN);
        }
        self.read();
        match self.sessions.get_mut(&name) {
            None => Some(Errno::ENOENT),
            Some(session) if session.open => Some(Errno::EADDRINUSE),
            Some(session) => {
                session.open = true;
                None
            }
        }
    }

    fn session_event(&mut self, event: Event, name: usize) -> Answer {
        let mut session = self.sessions[&name].clone();
        let state = session.state.expect("it has one");
        let error = match (event, state) {
            (Prepare, Normal) | (Freeze, Prepared) => self.walk(&mut session, event),
            (Prepare | Freeze, _) => return Some(Errno::EBUSY),
            (Cancel, Prepared | Frozen) => {
                session.state = Some(Normal);
                None
            }
            (Finish, Updated) => {
                finish(&mut session);
                None
            }
            (Cancel | Finish, _) => return None,
        };
        self.sessions.insert(name, session);
        error
    }

    fn walk(&mut self, session: &mut Session, event: Event) -> Answer {
        let tokens: Vec<u64> = session.files.keys().copied().collect();
        // The array is allocated before the first file is asked.
        if event == Prepare && !tokens.is_empty() && self.finalized {
            return Some(Errno::EBUSY);
        }
        for token in tokens {
            let error = match event {
                Prepare => self.prepare_file(token),
                _ => self.refused("freeze", token).then_some(Errno::ENODEV),
            };
            if error.is_some() {
                session.state = Some(Normal);
                return error;
            }
        }
        session.state = Some(if event == Prepare { Prepared } else { Frozen });
        None
    }

    fn session_preserve(&mut self, name: usize, token: u64) -> Answer {
        let idle = self.idle();
        let session = self.sessions.get_mut(&name).expect("open");
        if !idle || session.state != Some(Normal) {
            return Some(Errno::EBUSY);
        }
        if session.files.contains_key(&token) {
            return Some(Errno::EEXIST);
        }
        session.files.insert(token, false);
        None
    }

    fn session_unpreserve(&mut self, name: usize, token: u64) -> Answer {
        let idle = self.idle();
        let session = self.sessions.get_mut(&name).expect("open");
        if !idle || session.state != Some(Normal) {
            return Some(Errno::EBUSY);
        }
        session.files.remove(&token).map_or(Some(Errno::ENOENT), |_| None)
    }

    fn session_restore(&mut self, name: usize, token: u64) -> Answer {
        let machine = self.state;
        let session = self.sessions.get_mut(&name).expect("open");
        if machine != Updated || session.state != Some(Updated) {
            return Some(Errno::EBUSY);
        }
        match session.files.get_mut(&token) {
            None => Some(Errno::ENOENT),
            Some(true) => Some(Errno::EADDRINUSE),
            Some(taken) => {
                *taken = true;
                None
            }
        }
    }

    /// Calls that this design has and that can be made now.
    fn allows(&self, call: &Call) -> bool {
        let open = |name: &usize| self.sessions.get(name).is_some_and(|session| session.open);
        match call {
            Call::Preserve(_) | Call::Unpreserve(_) | Call::Restore(_) => self.design != Design::V4,
            Call::FileEvent(..) => self.design == Design::V3,
            Call::Create(name) => {
                // A clash with one that was not read yet panics: another test's.
                self.design == Design::V4
                    && !(self.state == Updated && self.sessions.get(name).is_some_and(|one| !one.open))
            }
            Call::Retrieve(_) => self.design == Design::V4,
            Call::SessionEvent(_, name)
            | Call::Close(name)
            | Call::SessionPreserve(name, _)
            | Call::SessionUnpreserve(name, _)
            | Call::SessionRestore(name, _) => self.design == Design::V4 && open(name),
            // A jump from NORMAL is a PREPARE and a jump; what fails on the way is not a jump.
            Call::Jump => {
                let whole = self.files.values().all(|state| *state != Normal) || self.state == Normal;
                let calm =
                    self.refuse.is_empty() && (self.finalized == matches!(self.state, Prepared | Frozen));
                calm && self.state != Updated && whole
            }
            Call::Event(_) | Call::Reboot | Call::Reopen | Call::Refuse(..) => true,
        }
    }

    fn step(&mut self, call: &Call) -> Answer {
        if matches!(call, Call::Jump) {
            if self.state == Normal {
                assert_eq!(self.event(Prepare), None, "allowed only then");
            }
            self.freeze();
        }
        self.call(call)
    }
}

/// Files that nobody took are dropped; the others stay for the next time.
fn finish(session: &mut Session) {
    session.files.retain(|_, taken| *taken);
    for taken in session.files.values_mut() {
        *taken = false;
    }
    session.state = Some(Normal);
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Call;

    fn init_state() -> BoxedStrategy<Self> {
        prop_oneof![Just(Design::V2), Just(Design::V3), Just(Design::V4)].prop_map(Self::new).boxed()
    }

    /// Calls of the design, mostly those that get somewhere.
    fn transitions(state: &Self) -> BoxedStrategy<Call> {
        let (token, name) = (0u64..3, 0usize..2);
        let event = prop_oneof![3 => Just(Prepare), 1 => Just(Freeze), 2 => Just(Finish), 1 => Just(Cancel)];
        let common = prop_oneof![
            3 => event.clone().prop_map(Call::Event),
            1 => Just(Call::Reboot),
            4 => Just(Call::Jump),
            1 => Just(Call::Reopen),
            1 => (any::<bool>(), token.clone()).prop_map(|(prepare, token)| Call::Refuse(prepare, token)),
        ];
        if state.design != Design::V4 {
            return prop_oneof![
                5 => common,
                3 => token.clone().prop_map(Call::Preserve),
                1 => token.clone().prop_map(Call::Unpreserve),
                3 => token.clone().prop_map(Call::Restore),
                3 => (event, token).prop_map(|(event, token)| Call::FileEvent(event, token)),
            ]
            .boxed();
        }
        prop_oneof![
            6 => common,
            3 => name.clone().prop_map(Call::Create),
            3 => name.clone().prop_map(Call::Retrieve),
            2 => (event, name.clone()).prop_map(|(event, name)| Call::SessionEvent(event, name)),
            1 => name.clone().prop_map(Call::Close),
            4 => (name.clone(), token.clone()).prop_map(|(name, token)| Call::SessionPreserve(name, token)),
            1 => (name.clone(), token.clone()).prop_map(|(name, token)| Call::SessionUnpreserve(name, token)),
            5 => (name, token).prop_map(|(name, token)| Call::SessionRestore(name, token)),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, call: &Call) -> bool {
        state.allows(call)
    }

    fn apply(mut state: Self, call: &Call) -> Self {
        state.step(call);
        state
    }
}

struct Machine {
    kernel: Kernel,
    reference: Model,
    keys: BTreeMap<usize, luosim_luo::SessionKey>,
}

const NAMES: [&[u8]; 2] = [b"a", b"b"];

fn file_of(token: u64) -> i32 {
    500 + i32::try_from(token).unwrap()
}

fn answer(result: KResult<()>) -> Answer {
    result.err().map(|refusal| refusal.errno)
}

impl Machine {
    fn named(&mut self, create: bool, name: usize) -> KResult<()> {
        let key = self.kernel.named(create, NAMES[name])?;
        self.keys.insert(name, key);
        Ok(())
    }

    fn make(mut self, call: &Call) -> (Self, Answer) {
        let kernel = &mut self.kernel;
        let result = match *call {
            Call::Preserve(token) => kernel.preserve(file_of(token), token),
            Call::Unpreserve(token) => kernel.unpreserve(token),
            Call::Restore(token) => kernel.restore(token),
            Call::Event(event) => kernel.event(event),
            Call::Reboot => kernel.freeze(),
            Call::FileEvent(event, token) => kernel.fd_event(event, token),
            Call::Reopen => {
                let open = kernel.open;
                kernel.luo.release_device(&mut kernel.world, open);
                kernel.luo.open_device(true, false).map(|open| kernel.open = open)
            }
            Call::Create(name) => self.named(true, name),
            Call::Retrieve(name) => self.named(false, name),
            Call::SessionEvent(event, name) => kernel.session_event(self.keys[&name], event),
            Call::Close(name) => {
                kernel.luo.release_session(&mut kernel.world, self.keys[&name]);
                Ok(())
            }
            Call::SessionPreserve(name, token) => {
                kernel.session_fd(self.keys[&name], 0xBA40, file_of(token), token)
            }
            Call::SessionUnpreserve(name, token) => kernel.session_fd(self.keys[&name], 0xBA41, 0, token),
            Call::SessionRestore(name, token) => kernel.session_fd(self.keys[&name], 0xBA42, -1, token),
            Call::Refuse(prepare, token) => {
                let what = if prepare { "prepare" } else { "freeze" };
                let file = 500 + u32::try_from(token).unwrap();
                kernel.handler.refuse.borrow_mut().push((what, file));
                Ok(())
            }
            Call::Jump => {
                self.kernel = self.kernel.leap();
                self.keys.clear();
                Ok(())
            }
        };
        (self, answer(result))
    }
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(state: &Model) -> Self {
        Self { kernel: Kernel::cold(state.design), reference: state.clone(), keys: BTreeMap::new() }
    }

    fn apply(mut world: Self, _: &Model, call: Call) -> Self {
        let want = world.reference.step(&call);
        let (mut world, found) = world.make(&call);
        assert_eq!(found, want, "{call:?}");
        assert_eq!(world.kernel.state(), world.reference.state, "after {call:?}");
        for (token, state) in &world.reference.files {
            if world.reference.design == Design::V3 {
                assert_eq!(
                    world.kernel.fd_state(*token, false).unwrap(),
                    *state,
                    "token {token} after {call:?}"
                );
            }
        }
        for (name, key) in &world.keys {
            if let Some(session) = world.reference.sessions.get(name) {
                assert_eq!(
                    Some(world.kernel.session_state(*key)),
                    session.state,
                    "session {name} after {call:?}"
                );
            }
        }
        world
    }

    fn check_invariants(world: &Self, _: &Model) {
        assert!(world.kernel.world.held.values().all(|held| *held >= 0), "a reference was given back twice");
        assert_eq!(world.kernel.world.ram.frames.stats().bad_frees, 0, "a frame was freed twice");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_designs_are_as_the_reference(sequential 1..80 => Machine);
}
