//! Sessions and the two lists they live in. A session never moves from one list to the other.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::file_set::FileSet;
use crate::format::FileArea;
use crate::host::SessionKey;
use crate::name::SessionName;
use crate::ops::Direction;

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: SessionName,
    pub(crate) direction: Direction,
    /// Place in its list, given by the list.
    pub(crate) place: u64,
    /// Incoming: somebody has, or had, a descriptor. Never set on an outgoing session.
    pub(crate) retrieved: bool,
    pub(crate) files: FileSet,
    /// Where the file records are, or will be, written.
    pub(crate) area: FileArea,
}

/// All sessions of a kernel, each at the place that its key says.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slots: Vec<Option<Session>>,
    free: Vec<u32>,
}

impl Sessions {
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slots.get(key.index())?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slots.get_mut(key.index())?.as_mut()
    }

    /// Adds a session, in the place that became free last if there is one.
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        if let Some(index) = self.free.pop() {
            let key = SessionKey(index);
            self.slots[key.index()] = Some(session);
            return key;
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 sessions");
        self.slots.push(Some(session));
        SessionKey(index)
    }

    pub(crate) fn take(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.slots.get_mut(key.index())?.take()?;
        self.free.push(key.0);
        Some(session)
    }
}

/// Where one session of a list is found by its name.
#[derive(Clone, Copy, Debug)]
struct Named {
    hash: u64,
    key: SessionKey,
}

/// Sessions in the order of creation (outgoing) or of the handover (incoming).
///
/// The names are not repeated here: a hundred thousand of them would push everything else out of the cache.
#[derive(Debug, Default)]
pub(crate) struct SessionList {
    next: u64,
    order: BTreeMap<u64, SessionKey>,
    by_name: HashTable<Named>,
}

impl SessionList {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.order.len()).expect("a session count fits in 64 bits")
    }

    /// The session of this list with that name. `sessions` holds all the sessions of the list.
    pub(crate) fn find(&self, name: &SessionName, sessions: &Sessions) -> Option<SessionKey> {
        let hash = FxBuildHasher.hash_one(name);
        self.by_name.find(hash, |named| named.is(hash, name, sessions)).map(|named| named.key)
    }

    /// Adds a session whose name is not in the list, at its end.
    pub(crate) fn push(&mut self, key: SessionKey, sessions: &mut Sessions) {
        let place = self.next;
        self.next += 1;
        let session = sessions.get_mut(key).expect("the session was just made");
        session.place = place;
        let name = session.name;
        let hash = FxBuildHasher.hash_one(name);
        debug_assert!(self.find(&name, sessions).is_none(), "session {name:?} is in the list twice");
        self.by_name.insert_unique(hash, Named { hash, key }, |named| named.hash);
        self.order.insert(place, key);
    }

    /// Takes a session out that is in the list.
    pub(crate) fn remove(&mut self, key: SessionKey, session: &Session) {
        let hash = FxBuildHasher.hash_one(session.name);
        let found = self.by_name.find_entry(hash, |named| named.key == key);
        found.expect("a listed session is found by its name").remove();
        self.order.remove(&session.place);
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = SessionKey> + '_ {
        self.order.values().copied()
    }
}

impl Named {
    fn is(&self, hash: u64, name: &SessionName, sessions: &Sessions) -> bool {
        self.hash == hash && sessions.get(self.key).is_some_and(|session| session.name == *name)
    }
}
