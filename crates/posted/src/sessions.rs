//! The list of sessions of the fourth design, as one subsystem: its tree, its array, and each session's place in it.

use luosim_abi::posted::session::{
    COMPATIBLE, FileRecord, NODE, PROP_COUNT, PROP_DATA, PROP_PAGES, SessionEntry,
};
use luosim_abi::posted::v4::NAME_LENGTH;
use luosim_abi::posted::{Event, State};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult};
use luosim_kho::fdt::{Node, Tree};
use luosim_luo::{Event as Seen, FileId, FinishCause, Host, Memory, SessionKey};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr};
use zerocopy::{FromZeros, IntoBytes};

use crate::page::check;
use crate::record::{Handlers, Record, handler_named};
use crate::session::{FILE_SIZE, Session};
use crate::states::StateMachine;
use crate::trouble::{Answer, Trouble};

const ENTRY_SIZE: u64 = 80;
/// Bytes of the largest block, which no array exceeds.
const MAX_ARRAY: u64 = 4 << 20;

/// What is handed over.
#[derive(Debug)]
struct Serialized {
    tree: PhysAddr,
    array: Option<PhysAddr>,
    /// Which session has which slot.
    slots: Vec<SessionKey>,
}

impl Serialized {
    fn slot(&self, index: usize) -> Option<PhysAddr> {
        let index = u64::try_from(index).expect("an index fits in 64 bits");
        self.array.map(|array| array.checked_add(ENTRY_SIZE * index).expect("inside the array"))
    }
}

/// What the previous kernel left, read when it is asked for.
#[derive(Clone, Copy, Debug)]
struct Found {
    tree: PhysAddr,
    array: PhysAddr,
    count: u64,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    machine: &'static StateMachine,
    quirks: Quirks,
    sessions: Vec<Option<Session>>,
    /// In the order of creation.
    order: Vec<SessionKey>,
    found: Option<Found>,
    read: bool,
    out: Option<Serialized>,
}

fn at(key: SessionKey) -> usize {
    usize::try_from(key.0).expect("an index fits in usize")
}

impl Sessions {
    pub(crate) fn new(machine: &'static StateMachine, quirks: Quirks) -> Self {
        Self { machine, quirks, sessions: Vec::new(), order: Vec::new(), found: None, read: false, out: None }
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(at(key))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> &mut Session {
        self.sessions[at(key)].as_mut().expect("a session lives as long as its file")
    }

    fn find(&self, name: &[u8; NAME_LENGTH]) -> Option<SessionKey> {
        self.order.iter().copied().find(|key| self.get(*key).is_some_and(|session| session.name == *name))
    }

    fn insert(&mut self, session: Session) -> SessionKey {
        let key = SessionKey(u32::try_from(self.sessions.len()).expect("fewer than 2^32 sessions"));
        self.sessions.push(Some(session));
        self.order.push(key);
        key
    }

    fn forget(&mut self, key: SessionKey) {
        self.sessions[at(key)] = None;
        self.order.retain(|other| *other != key);
    }

    /// CREATE_SESSION. The caller has looked at the state of the machine.
    ///
    /// # Errors
    /// EEXIST; ENFILE; without quirk `empty-name-skipped` EINVAL.
    pub(crate) fn create<H: Host>(&mut self, host: &mut H, name: [u8; NAME_LENGTH]) -> KResult<FileId> {
        let mut session = Session::new(self.machine, name, State::Normal);
        let shown = session.shown();
        if name[0] == 0 && !self.quirks.has(Quirk::EmptyNameSkipped) {
            return Err(Errno::EINVAL.because("a session needs a name"));
        }
        if self.find(&name).is_some() {
            return Err(Errno::EEXIST.because(format!("a session {shown:?} exists")));
        }
        session.open = true;
        let key = self.insert(session);
        let file = host.open_session(key).inspect_err(|_| self.forget(key))?;
        host.emit(Seen::SessionCreated { session: shown });
        Ok(file)
    }

    /// RETRIEVE_SESSION, after the previous kernel's sessions were read.
    ///
    /// # Errors
    /// ENOENT; EADDRINUSE: given back before, or one of this kernel; ENFILE.
    pub(crate) fn retrieve<H: Host>(&mut self, host: &mut H, name: &[u8; NAME_LENGTH]) -> KResult<FileId> {
        let shown = luosim_luo::SessionName::from_bytes(name);
        let none = || Errno::ENOENT.because(format!("there is no session {shown:?}"));
        let key = self.find(name).ok_or_else(none)?;
        let session = self.get_mut(key);
        if session.open || session.state != State::Updated {
            let state = session.state.name().to_uppercase();
            let why = if session.open { String::from("is open already") } else { format!("is {state}") };
            return Err(Errno::EADDRINUSE.because(format!("session {shown:?} {why}")));
        }
        let file = host.open_session(key)?;
        self.get_mut(key).open = true;
        host.emit(Seen::SessionRetrieved { session: shown });
        Ok(file)
    }

    /// The last descriptor of a session was closed.
    pub(crate) fn close<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, key: SessionKey) {
        self.clear_slot(host, key, true);
        let session = self.get_mut(key);
        for event in [Event::Finish, Event::Cancel] {
            // From every other state both do nothing.
            session.moved(handlers, host, event, FinishCause::Close).expect("neither can fail");
        }
        session.drop_files(host);
        let name = session.shown();
        self.forget(key);
        host.emit(Seen::SessionRemoved { session: name, incoming: false });
    }

    /// Moves one session at a program's word.
    ///
    /// # Errors
    /// As the table says; the handler's.
    pub(crate) fn move_one<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        key: SessionKey,
        event: Event,
    ) -> KResult<()> {
        let result = self.get_mut(key).moved(handlers, host, event, FinishCause::Command);
        if self.get(key).is_some_and(|session| session.state == State::Normal) {
            self.clear_slot(host, key, false);
        } else {
            self.fill_slot(host, key);
        }
        result
    }

    fn slot_of(&self, key: SessionKey) -> Option<PhysAddr> {
        let out = self.out.as_ref()?;
        out.slot(out.slots.iter().position(|other| *other == key)?)
    }

    /// A session that is closed leaves zeros in its slot; one that was cancelled leaves its name, and no files.
    fn clear_slot<H: Host>(&mut self, host: &mut H, key: SessionKey, whole: bool) {
        let Some(slot) = self.slot_of(key) else { return };
        let mut entry = SessionEntry::new_zeroed();
        if !whole {
            entry.name = self.get(key).map_or([0; NAME_LENGTH], |session| session.name);
        }
        write_entry(host, slot, &entry);
    }

    fn fill_slot<H: Host>(&self, host: &mut H, key: SessionKey) {
        let (Some(slot), Some(session)) = (self.slot_of(key), self.get(key)) else { return };
        let mut entry = SessionEntry::new_zeroed();
        entry.name = session.name;
        if let Some(array) = session.array {
            (entry.files, entry.count) = (array.raw().into(), session.count().into());
        }
        write_entry(host, slot, &entry);
    }

    /// Prepares every session in NORMAL and writes array and tree; returns where the tree lies.
    ///
    /// # Errors
    /// The handler's; ENOMEM, E2BIG. All sessions are cancelled.
    pub(crate) fn prepare<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> KResult<u64> {
        self.out = Some(self.allocate(host)?);
        if let Err(refusal) = self.move_all(handlers, host, State::Normal, Event::Prepare) {
            self.cancel(handlers, host);
            return Err(refusal);
        }
        for key in self.order.clone() {
            self.fill_slot(host, key);
        }
        Ok(self.out.as_ref().expect("allocated above").tree.raw())
    }

    fn allocate<H: Host>(&self, host: &mut H) -> KResult<Serialized> {
        let slots = self.order.clone();
        let count = u64::try_from(slots.len()).expect("a count fits in 64 bits");
        let mem = host.memory();
        let tree = mem.kho.alloc_preserve(mem.ram, PAGE_SIZE, FrameUse::Luo)?;
        let array = if count == 0 {
            Ok(None)
        } else {
            mem.kho.alloc_preserve(mem.ram, ENTRY_SIZE * count, FrameUse::Luo).map(Some)
        };
        let array = array.inspect_err(|_| mem.kho.unpreserve_free(mem.ram, tree))?;
        let pages = (ENTRY_SIZE * count).div_ceil(PAGE_SIZE);
        let big = |value: u64| value.to_be_bytes().to_vec();
        let root = Node::new(COMPATIBLE)
            .with_bytes(PROP_COUNT, big(count))
            .with_bytes(PROP_DATA, big(array.map_or(0, PhysAddr::raw)))
            .with_bytes(PROP_PAGES, big(pages));
        let blob = Tree::named(NODE, root).to_blob_unchecked();
        mem.ram.mem.write(tree, &blob).expect("the page was just allocated");
        Ok(Serialized { tree, array, slots })
    }

    /// Moves every session that is in `state`, in the order of creation, to the first error.
    fn move_all<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        state: State,
        event: Event,
    ) -> KResult<()> {
        for key in self.order.clone() {
            let session = self.get_mut(key);
            if session.state == state {
                session.moved(handlers, host, event, FinishCause::Command)?;
            }
        }
        Ok(())
    }

    /// Freezes every session in PREPARED.
    ///
    /// # Errors
    /// The handler's. All sessions are cancelled.
    pub(crate) fn freeze<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        data: u64,
    ) -> KResult<u64> {
        if let Err(refusal) = self.move_all(handlers, host, State::Prepared, Event::Freeze) {
            self.cancel(handlers, host);
            return Err(refusal);
        }
        Ok(data)
    }

    /// Cancels every session, and frees what would have been handed over.
    pub(crate) fn cancel<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) {
        for key in self.order.clone() {
            let session = self.get_mut(key);
            session.moved(handlers, host, Event::Cancel, FinishCause::Command).expect("cancel cannot fail");
        }
        let Some(out) = self.out.take() else { return };
        let mem = host.memory();
        for block in out.array.into_iter().chain([out.tree]) {
            mem.kho.unpreserve_free(mem.ram, block);
        }
    }

    /// Sessions and files that are handed over: named, prepared or frozen.
    pub(crate) fn carried(&self) -> Vec<(luosim_luo::SessionName, Vec<u64>)> {
        let Some(out) = &self.out else { return Vec::new() };
        let sessions =
            out.slots.iter().filter_map(|key| self.get(*key)).filter(|session| session.name[0] != 0);
        let tokens = |session: &Session| match session.array {
            Some(_) => session.files.keys().copied().collect(),
            None => Vec::new(),
        };
        sessions.map(|session| (session.shown(), tokens(session))).collect()
    }

    /// Every session: whether it waits to be finished, having come of the previous kernel; its name and its tokens.
    pub(crate) fn listed(&self) -> Vec<(bool, luosim_luo::SessionName, Vec<u64>)> {
        let all = self.order.iter().filter_map(|key| self.get(*key));
        all.map(|session| {
            (session.state == State::Updated, session.shown(), session.files.keys().copied().collect())
        })
        .collect()
    }

    /// Finishes every session in UPDATED; those that nobody took are removed.
    pub(crate) fn finish<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> Answer<()> {
        self.read(handlers, host)?;
        for key in self.order.clone() {
            let session = self.get_mut(key);
            if session.state == State::Updated {
                session.moved(handlers, host, Event::Finish, FinishCause::Command)?;
            }
            if !session.open {
                let name = session.shown();
                session.drop_files(host);
                host.memory().log.warn(format!("liveupdate: session {name:?} was never retrieved, removed"));
                self.forget(key);
                host.emit(Seen::SessionRemoved { session: name, incoming: true });
            }
        }
        if let Some(found) = self.found.take() {
            let mem = host.memory();
            mem.kho.restore_free(mem.ram, found.array);
            mem.kho.restore_free(mem.ram, found.tree);
        }
        Ok(())
    }

    /// Reads the tree at boot: whatever is wrong with it panics.
    pub(crate) fn boot(&mut self, mem: &Memory<'_>, data: u64) -> Answer<()> {
        let bad = |what: &str| Trouble::restore(format!("the tree of sessions at {data:#x}: {what}"));
        let tree = Tree::read_named(&mem.ram.mem, PhysAddr::new(data), PAGE_SIZE);
        let tree = tree.map_err(|error| bad(&error.to_string()))?;
        check(tree.root(), COMPATIBLE).map_err(|refusal| bad(&refusal.reason))?;
        let big = |name: &str| {
            let bytes = tree.root().bytes(name).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
            bytes.map(u64::from_be_bytes).ok_or_else(|| bad(&format!("no 8-byte {name}")))
        };
        let (count, array) = (big(PROP_COUNT)?, PhysAddr::new(big(PROP_DATA)?));
        check_count(count, ENTRY_SIZE)?;
        big(PROP_PAGES)?;
        self.found = Some(Found { tree: PhysAddr::new(data), array, count });
        Ok(())
    }

    /// Whether the previous kernel's sessions were read.
    pub(crate) fn is_read(&self) -> bool {
        self.read
    }

    /// Reads the arrays, if that was not done before.
    pub(crate) fn read<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> Answer<()> {
        let Some(found) = self.found.filter(|_| !self.read) else { return Ok(()) };
        for index in 0..found.count {
            let entry = read_at::<SessionEntry>(&host.memory(), found.array, index, ENTRY_SIZE)?;
            if entry.name[0] == 0 {
                continue;
            }
            let mut session = Session::new(self.machine, entry.name, State::Updated);
            let shown = session.shown();
            if self.find(&entry.name).is_some() {
                return Err(Trouble::restore(format!("there is a session {shown:?} already")));
            }
            read_files(handlers, host, &entry, &mut session)?;
            host.emit(Seen::SessionFound { session: shown });
            self.insert(session);
        }
        self.read = true;
        Ok(())
    }
}

fn check_count(count: u64, size: u64) -> Answer<()> {
    if count <= MAX_ARRAY / size {
        return Ok(());
    }
    Err(Trouble::restore(format!("{count} entries of {size} bytes are more than a block holds")))
}

fn write_entry<H: Host>(host: &mut H, slot: PhysAddr, entry: &SessionEntry) {
    host.memory().ram.mem.write(slot, entry.as_bytes()).expect("the array is this kernel's");
}

/// Entry `index` of an array of the previous kernel.
fn read_at<T: zerocopy::FromBytes + IntoBytes>(
    mem: &Memory<'_>,
    array: PhysAddr,
    index: u64,
    size: u64,
) -> Answer<T> {
    let addr = index.checked_mul(size).and_then(|offset| array.checked_add(offset));
    let entry = addr.and_then(|addr| mem.ram.mem.read_obj::<T>(addr).ok());
    entry
        .ok_or_else(|| Trouble::restore(format!("entry {index} of the array at {array} lies outside memory")))
}

fn read_files<H: Host>(
    handlers: &Handlers<H>,
    host: &mut H,
    entry: &SessionEntry,
    session: &mut Session,
) -> Answer<()> {
    let (array, name) = (PhysAddr::new(entry.files.get()), session.shown());
    session.array = (array != PhysAddr::NULL).then_some(array);
    check_count(entry.count.get(), FILE_SIZE)?;
    for index in 0..entry.count.get() {
        let file = read_at::<FileRecord>(&host.memory(), array, index, FILE_SIZE)?;
        let token = file.token.get();
        let handler = handler_named(handlers, file.compatible_bytes()).ok_or_else(|| {
            let wanted = String::from_utf8_lossy(file.compatible_bytes()).escape_debug().to_string();
            Trouble::restore(format!("no handler '{wanted}' for token {token:#x} of session {name:?}"))
        })?;
        if session.files.insert(token, Record::found(handler, file.data.get())).is_some() {
            return Err(Trouble::restore(format!("token {token:#x} is there twice in session {name:?}")));
        }
        host.emit(Seen::Found { session: name, token });
    }
    Ok(())
}
