//! What must be true: files as maps of cells, sessions as lists, and for every call the answer that the documentation
//! promises. No bytes, no frames, and nothing of the code under test.
//!
//! Contract: [`Reference::expect`] says what a call must answer and changes nothing; [`Reference::happened`] follows once it
//! was answered so. Releases differ in what they have (GET_NAME, bound objects, room in a session), never in what is right:
//! what a release gets wrong is a quirk, and shows as a broken promise.

mod calls;
mod files;
mod jump;

use std::collections::{BTreeMap, VecDeque};

use luosim_abi::Errno;
use luosim_abi::release::{LuoVersion, Release};
use luosim_files::test_file::Callback;

pub use jump::Crossing;

use super::action::{Action, Plan, Proc, Slot, Spoil};

/// Cells that were written, by the seed of their contents; others are zero.
pub type Cells = BTreeMap<u32, u32>;

/// What a call must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The action means nothing here and is left out.
    Skip,
    /// Success, with this value where it is one.
    Value(i64),
    /// This errno.
    Fails(Errno),
}

/// A memory file.
#[derive(Clone, Debug, Default)]
pub struct Inode {
    /// Bytes.
    pub size: u64,
    /// Seals.
    pub seals: u32,
    /// Whether it may be executed.
    pub exec: bool,
    /// Its contents.
    pub cells: Cells,
    /// Whether a session holds it for the next kernel.
    pub frozen: bool,
    /// Whether a session holds it at all.
    pub owned: bool,
    /// Whether it came from the previous kernel.
    pub came: bool,
    /// Shared mappings through which it may be written.
    pub mappings: u32,
    /// Whether it prefers folios of 2 MiB.
    pub huge: bool,
}

/// A test file.
#[derive(Clone, Debug, Default)]
pub struct Test {
    /// Bytes.
    pub size: u64,
    /// Its contents.
    pub cells: Cells,
    /// Failures left, by callback.
    pub faults: [u16; 5],
    /// Whether a session holds it.
    pub owned: bool,
    /// Whether it came from the previous kernel.
    pub came: bool,
}

/// What an open file description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The device.
    Device,
    /// A session.
    Session(usize),
    /// A memory file.
    File(usize),
    /// A test file.
    Test(usize),
    /// A socket: which pair, which side.
    Socket(usize, usize),
}

/// An open file description.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// What it is.
    pub kind: Kind,
    /// Descriptors, messages and sessions that refer to it.
    pub refs: u32,
    /// Position.
    pub pos: u64,
    /// Whether it is open for writing.
    pub writable: bool,
}

/// A file as it crossed.
#[derive(Clone, Debug)]
pub enum Carried {
    /// A memory file and its position.
    Memory(Inode, u64),
    /// A test file and its position.
    Test(Test, u64),
}

/// How far the retrieval of a file got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody asked.
    Untried,
    /// Its description.
    Given(usize),
    /// Failed, for ever.
    Failed(Errno),
}

/// A file of a session.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its token.
    pub token: u64,
    /// Outgoing: the description that was preserved.
    pub desc: Option<usize>,
    /// Incoming: what came.
    pub carried: Option<Carried>,
    /// Incoming: how far it got.
    pub status: Status,
    /// Whether its second folio was spoiled.
    pub spoiled: bool,
    /// Its line in the ledger.
    pub fate: usize,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its name.
    pub name: u8,
    /// Whether it was made in this kernel.
    pub outgoing: bool,
    /// Incoming: whether somebody took it.
    pub taken: bool,
    /// Whether it exists.
    pub alive: bool,
    /// Whether a reply of it could not be written back before.
    pub faulted: bool,
    /// Its files.
    pub files: Vec<Held>,
}

/// What must have become of a preserved file, by the ledger's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Name of its session.
    pub name: u8,
    /// Its token.
    pub token: u64,
    /// `preserved`, `retrieved`, `finished`, `lost`.
    pub word: &'static str,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Descriptions by slot.
    pub fds: Vec<Option<usize>>,
    /// Slots by descriptor number: the lowest free number is given out, as in a kernel.
    pub numbers: Vec<Option<Slot>>,
    /// Inodes mapped, by slot, and whether the mapping counts as one that writes.
    pub maps: Vec<Option<(usize, bool)>>,
}

/// Two sockets: what is on its way to each, and which are closed.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    queues: [VecDeque<usize>; 2],
    closed: [bool; 2],
}

/// The state that the calls so far must have led to.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The kernel that runs.
    pub plan: Plan,
    /// The kernel before it, if its handover was taken over.
    pub before: Option<Plan>,
    /// Processes by their place; `p0` is there when it does something.
    pub procs: Vec<Option<Process>>,
    /// Descriptions.
    pub descs: Vec<Desc>,
    /// Memory files.
    pub inodes: Vec<Inode>,
    /// Test files, by their number in the log.
    pub tests: Vec<Test>,
    /// Sockets.
    pub pairs: Vec<Pair>,
    /// Sessions.
    pub sessions: Vec<Session>,
    /// Lines of the ledger.
    pub fates: Vec<Fate>,
    /// What handlers and test objects must have logged in this kernel, not yet compared.
    pub calls: Vec<String>,
    /// Whether the device is open.
    pub device_open: bool,
    /// Whether it was ever opened in this kernel.
    pub listed: bool,
    /// Whether what came cannot be read: opening answers EIO for ever.
    pub broken: bool,
    /// Files that count for the test objects, to the next kernel and from the previous one.
    flb_out: u64,
    flb_in: Option<u64>,
    /// The next call may run out of memory.
    pub starved: bool,
    /// Whether the device is there.
    pub luo: bool,
    /// The next reboot stops here.
    pub stop: Option<(u32, bool)>,
    /// What somebody does in the next reboot.
    pub intruder: Option<Action>,
    /// What is spoiled at the next kexec.
    pub spoil: Option<Spoil>,
    /// Processes that there may be.
    pub max_procs: u8,
    /// A spoiled table names other frames than were preserved: those stay for ever.
    leaky: bool,
}

impl Reference {
    /// A machine that booted this kernel cold.
    #[must_use]
    pub fn new(plan: Plan, max_procs: u8) -> Self {
        Self {
            plan,
            before: None,
            procs: Vec::new(),
            descs: Vec::new(),
            inodes: Vec::new(),
            tests: Vec::new(),
            pairs: Vec::new(),
            sessions: Vec::new(),
            fates: Vec::new(),
            calls: Vec::new(),
            device_open: false,
            listed: false,
            broken: false,
            flb_out: 0,
            flb_in: None,
            starved: false,
            luo: plan.release.has_luo(),
            stop: None,
            intruder: None,
            spoil: None,
            max_procs,
            leaky: false,
        }
    }

    /// The running release.
    #[must_use]
    pub fn release(&self) -> &'static Release {
        self.plan.release.release()
    }

    /// Files that a session has room for.
    fn room(&self) -> usize {
        if self.release().luo == Some(LuoVersion::V1) { 128 } else { 630_000 }
    }

    fn has_flbs(&self) -> bool {
        self.plan.flbs && self.release().flb
    }

    /// The description behind a slot.
    #[must_use]
    pub fn desc(&self, p: Proc, slot: Slot) -> Option<usize> {
        *self.procs.get(usize::from(p))?.as_ref()?.fds.get(usize::from(slot))?
    }

    fn kind(&self, p: Proc, slot: Slot) -> Option<Kind> {
        self.desc(p, slot).map(|desc| self.descs[desc].kind)
    }

    /// What a socket would receive next.
    #[must_use]
    pub fn next_message(&self, p: Proc, socket: Slot) -> Option<Kind> {
        match self.kind(p, socket)? {
            Kind::Socket(pair, side) => Some(self.descs[*self.pairs[pair].queues[side].front()?].kind),
            _ => None,
        }
    }

    /// The memory file behind a slot, and whether it may be written through it.
    #[must_use]
    pub fn file(&self, p: Proc, slot: Slot) -> Option<(usize, bool)> {
        let desc = self.descs[self.desc(p, slot)?];
        match desc.kind {
            Kind::File(inode) => Some((inode, desc.writable)),
            _ => None,
        }
    }

    /// The session behind a slot.
    #[must_use]
    pub fn session(&self, p: Proc, slot: Slot) -> Option<usize> {
        match self.kind(p, slot)? {
            Kind::Session(session) => Some(session),
            _ => None,
        }
    }

    /// A process that exists; `p0` always can.
    #[must_use]
    pub fn exists(&self, p: Proc) -> bool {
        p == 0 || self.procs.get(usize::from(p)).is_some_and(Option::is_some)
    }

    fn process(&mut self, p: Proc) -> &mut Process {
        let index = usize::from(p);
        if self.procs.len() <= index {
            self.procs.resize(index + 1, None);
        }
        self.procs[index].get_or_insert_default()
    }

    fn install(&mut self, p: Proc, slot: Slot, desc: usize) {
        let Process { fds, numbers, .. } = self.process(p);
        if fds.len() <= usize::from(slot) {
            fds.resize(usize::from(slot) + 1, None);
        }
        let old = fds[usize::from(slot)].replace(desc);
        debug_assert!(old.is_none(), "slot {slot} is free");
        match numbers.iter().position(Option::is_none) {
            Some(number) => numbers[number] = Some(slot),
            None => numbers.push(Some(slot)),
        }
    }

    /// Frees a slot and its number; gives the description.
    fn uninstall(&mut self, p: Proc, slot: Slot) -> Option<usize> {
        let Process { fds, numbers, .. } = self.process(p);
        let number = numbers.iter().position(|given| *given == Some(slot))?;
        numbers[number] = None;
        fds.get_mut(usize::from(slot))?.take()
    }

    /// The descriptor number of a slot; -1 for one that is not open.
    #[must_use]
    pub fn number(&self, p: Proc, slot: Slot) -> i32 {
        let process = self.procs.get(usize::from(p)).and_then(Option::as_ref);
        let found = process.and_then(|process| process.numbers.iter().position(|given| *given == Some(slot)));
        found.and_then(|number| i32::try_from(number).ok()).unwrap_or(-1)
    }

    /// The number that the next descriptor of a process gets, and the one after it.
    #[must_use]
    pub fn next_numbers(&self, p: Proc) -> (i64, i64) {
        let process = self.procs.get(usize::from(p)).and_then(Option::as_ref);
        let numbers = process.map_or(&[][..], |process| &process.numbers);
        let len = numbers.len();
        let mut free = (0..len).filter(|number| numbers[*number].is_none()).chain(len..);
        let mut next = || free.next().and_then(|number| i64::try_from(number).ok()).unwrap_or(-1);
        (next(), next())
    }

    fn open(&mut self, p: Proc, slot: Slot, kind: Kind) -> usize {
        self.descs.push(Desc { kind, refs: 1, pos: 0, writable: true });
        let desc = self.descs.len() - 1;
        self.install(p, slot, desc);
        desc
    }

    /// The lowest slot that a process has not used.
    #[must_use]
    pub fn free_slot(&self, p: Proc) -> Slot {
        let process = self.procs.get(usize::from(p)).and_then(Option::as_ref);
        let fds = process.map_or(&[][..], |process| &process.fds);
        let free = fds.iter().position(Option::is_none).unwrap_or(fds.len());
        Slot::try_from(free).unwrap_or(Slot::MAX)
    }

    /// An outgoing session by name.
    #[must_use]
    pub fn outgoing(&self, name: u8) -> Option<usize> {
        self.sessions.iter().position(|session| session.alive && session.outgoing && session.name == name)
    }

    /// An incoming session by name.
    #[must_use]
    pub fn incoming(&self, name: u8) -> Option<usize> {
        let mine = |session: &Session| session.alive && !session.outgoing && session.name == name;
        if self.listed && !self.broken { self.sessions.iter().position(mine) } else { None }
    }

    /// Nothing is open and no session exists: only the kernel itself is left.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.listed
            && !self.broken
            && !self.leaky
            && self.procs.iter().all(Option::is_none)
            && self.sessions.iter().all(|session| !session.alive)
    }

    /// Whether the action asks for a file that nobody asked for before.
    #[must_use]
    pub fn is_untried(&self, action: &Action) -> bool {
        let Action::Retrieve { p, session, token, .. } = *action else { return false };
        let files = self.session(p, session).map_or(&[][..], |session| &self.sessions[session].files);
        files.iter().any(|file| file.token == token && file.status == Status::Untried)
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if self.plan.test_files || self.has_flbs() {
            self.calls.push(text());
        }
    }

    fn say_objects(&mut self, what: &str, reversed: bool) {
        for index in 0..3 {
            let number = if reversed { 2 - index } else { index };
            self.calls.push(format!("flb-v{number}: {what} was triggered"));
        }
    }

    fn get_objects(&mut self) {
        if self.has_flbs() {
            self.flb_out += 1;
            if self.flb_out == 1 {
                self.say_objects("preserve", false);
            }
        }
    }

    fn put_objects(&mut self) {
        if self.has_flbs() {
            self.flb_out -= 1;
            if self.flb_out == 0 {
                self.say_objects("unpreserve", true);
            }
        }
    }

    fn finish_objects(&mut self) {
        if let Some(left) = self.flb_in.as_mut().filter(|left| **left > 0) {
            *left -= 1;
            if *left == 0 {
                self.say_objects("finish", true);
            }
        }
    }

    fn fault(&self, test: usize, callback: Callback) -> bool {
        self.tests[test].faults[callback as usize] > 0
    }

    fn take_fault(&mut self, test: usize, callback: Callback) {
        take_one(&mut self.tests[test].faults[callback as usize]);
    }

    /// What the next call must answer.
    #[must_use]
    pub fn expect(&self, action: &Action) -> Want {
        if action.process().is_some_and(|p| !self.exists(p)) {
            return Want::Skip;
        }
        let p = action.process().unwrap_or(0);
        if action.fills().into_iter().flatten().any(|slot| self.desc(p, slot).is_some()) {
            return Want::Skip;
        }
        self.expect_call(action)
            .or_else(|| self.expect_file(action))
            .unwrap_or_else(|| self.expect_jump(action))
    }

    /// The call was answered as it must.
    pub fn happened(&mut self, action: &Action, answer: Result<i64, Errno>) {
        if let Some(p) = action.process() {
            self.process(p);
        }
        if !(self.call_happened(action, answer) || self.file_happened(action, answer)) {
            self.jump_happened(action, answer);
        }
    }
}

/// One failure less, unless all fail.
fn take_one(times: &mut u16) {
    if *times < u16::MAX {
        *times = times.saturating_sub(1);
    }
}
