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
use crate::slab::Slab;

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
pub(crate) struct Sessions(Slab<Session>);

impl Sessions {
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.0.get(key.0)
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.0.get_mut(key.0)
    }

    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        SessionKey(self.0.insert(session))
    }

    pub(crate) fn take(&mut self, key: SessionKey) -> Option<Session> {
        self.0.take(key.0)
    }
}

/// Where one session of a list is found by its name: 8 bytes, as there may be many.
#[derive(Clone, Copy, Debug)]
struct Named {
    hash: u32,
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
        let hash = hash(name);
        self.by_name.find(spread(hash), |named| named.is(hash, name, sessions)).map(|named| named.key)
    }

    /// Adds a session whose name is not in the list, at its end.
    pub(crate) fn push(&mut self, key: SessionKey, sessions: &mut Sessions) {
        let place = self.next;
        self.next += 1;
        let session = sessions.get_mut(key).expect("the session was just made");
        session.place = place;
        let name = session.name;
        let hash = hash(&name);
        debug_assert!(self.find(&name, sessions).is_none(), "session {name:?} is in the list twice");
        self.by_name.insert_unique(spread(hash), Named { hash, key }, |named| spread(named.hash));
        self.order.insert(place, key);
    }

    /// Takes a session out that is in the list.
    pub(crate) fn remove(&mut self, key: SessionKey, session: &Session) {
        let found = self.by_name.find_entry(spread(hash(&session.name)), |named| named.key == key);
        found.expect("a listed session is found by its name").remove();
        self.order.remove(&session.place);
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = SessionKey> + '_ {
        self.order.values().copied()
    }
}

fn hash(name: &SessionName) -> u32 {
    let hash = FxBuildHasher.hash_one(name);
    u32::try_from(hash >> 32).expect("the upper half")
        ^ u32::try_from(hash & 0xffff_ffff).expect("the lower half")
}

/// The table looks at both ends of a hash.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl Named {
    fn is(&self, hash: u32, name: &SessionName, sessions: &Sessions) -> bool {
        self.hash == hash && sessions.get(self.key).is_some_and(|session| session.name == *name)
    }
}
