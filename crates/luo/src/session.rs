//! Sessions and the two lists they live in. A session never moves from one list to the other.

use hashbrown::HashTable;

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
    pub(crate) place: u32,
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
    /// Keys at their places, and gaps where a session left.
    order: Vec<Option<SessionKey>>,
    by_name: HashTable<Named>,
}

impl SessionList {
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.len()).expect("a session count fits in 64 bits")
    }

    /// The session of this list with that name. `sessions` holds all the sessions of the list.
    pub(crate) fn find(&self, name: &SessionName, sessions: &Sessions) -> Option<SessionKey> {
        let hash = hash(name);
        self.by_name.find(spread(hash), |named| named.is(hash, name, sessions)).map(|named| named.key)
    }

    /// Makes room for `count` sessions.
    pub(crate) fn reserve(&mut self, count: u64) {
        let count = usize::try_from(count).expect("a count of records in memory");
        self.order.reserve(count);
        self.by_name.reserve(count, |named| spread(named.hash));
    }

    /// Adds a session whose name is not in the list, at its end.
    pub(crate) fn push(&mut self, key: SessionKey, sessions: &mut Sessions) {
        if self.order.len() > 2 * self.len() + FEW {
            self.close_gaps(sessions);
        }
        let session = sessions.get_mut(key).expect("the session was just made");
        session.place = place(self.order.len());
        let name = session.name;
        let hash = hash(&name);
        debug_assert!(self.find(&name, sessions).is_none(), "session {name:?} is in the list twice");
        self.by_name.insert_unique(spread(hash), Named { hash, key }, |named| spread(named.hash));
        self.order.push(Some(key));
    }

    fn close_gaps(&mut self, sessions: &mut Sessions) {
        self.order.retain(Option::is_some);
        for (at, key) in self.order.iter().flatten().enumerate() {
            sessions.get_mut(*key).expect("listed sessions exist").place = place(at);
        }
    }

    /// Takes a session out that is in the list.
    pub(crate) fn remove(&mut self, key: SessionKey, session: &Session) {
        let found = self.by_name.find_entry(spread(hash(&session.name)), |named| named.key == key);
        found.expect("a listed session is found by its name").remove();
        self.order[usize::try_from(session.place).expect("an index fits in usize")] = None;
        if self.len() == 0 {
            self.order.clear();
        }
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = SessionKey> + '_ {
        self.order.iter().flatten().copied()
    }
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 places, as gaps are closed")
}

/// Gaps that are not worth closing.
const FEW: usize = 64;

/// Names that are numbered one after the other, as programs number them, get neighbouring hashes: walking through a
/// hundred thousand of them walks through the table, too, instead of missing the cache each time.
fn hash(name: &SessionName) -> u32 {
    name.as_bytes().iter().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

/// The table takes the place from the lower end of a hash, and a tag, which should not be alike for neighbours, from
/// the upper.
fn spread(hash: u32) -> u64 {
    u64::from(hash.wrapping_mul(0x9e37_79b1)) << 32 | u64::from(hash)
}

impl Named {
    fn is(&self, hash: u32, name: &SessionName, sessions: &Sessions) -> bool {
        self.hash == hash && sessions.get(self.key).is_some_and(|session| session.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::FileArea;

    fn session(name: &str) -> Session {
        Session {
            name: SessionName::from_bytes(name.as_bytes()),
            direction: Direction::Outgoing,
            place: 0,
            retrieved: false,
            files: FileSet::default(),
            area: FileArea::None,
        }
    }

    /// A list and what it should be.
    #[derive(Default)]
    struct Pair {
        sessions: Sessions,
        list: SessionList,
        model: Vec<(String, SessionKey)>,
    }

    impl Pair {
        fn push(&mut self, name: String) {
            let key = self.sessions.insert(session(&name));
            self.list.push(key, &mut self.sessions);
            self.model.push((name, key));
        }

        fn remove(&mut self, at: usize) {
            let (_, key) = self.model.remove(at);
            let session = self.sessions.take(key).expect("it is there");
            self.list.remove(key, &session);
        }

        fn check(&self) {
            assert!(self.list.keys().eq(self.model.iter().map(|(_, key)| *key)));
            assert_eq!(self.list.len(), self.model.len());
            for (name, key) in &self.model {
                let name = SessionName::from_bytes(name.as_bytes());
                assert_eq!(self.list.find(&name, &self.sessions), Some(*key));
            }
        }
    }

    #[test]
    fn the_order_stands_and_gaps_do_not_pile_up() {
        let mut pair = Pair::default();
        (0..10).for_each(|index| pair.push(format!("old-{index}")));
        for index in 0..1000 {
            pair.push(format!("new-{index}"));
            pair.remove(if index % 3 == 0 { 5 } else { 10 });
            pair.check();
            assert!(pair.list.order.len() <= 2 * 10 + FEW + 1, "{} places for 10", pair.list.order.len());
        }
        (0..10).for_each(|_| pair.remove(0));
        pair.check();
        assert!(pair.list.order.is_empty());
    }
}
