//! Sessions and the two lists they live in. A session never moves from one list to the other.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

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
    /// Incoming: somebody has, or had, a descriptor. Never set on an outgoing session.
    pub(crate) retrieved: bool,
    pub(crate) files: FileSet,
    /// Where the file records are, or will be, written.
    pub(crate) area: FileArea,
}

/// Sessions in the order of creation (outgoing) or of the handover (incoming).
#[derive(Debug, Default)]
pub(crate) struct SessionList {
    next: u64,
    order: BTreeMap<u64, SessionKey>,
    by_name: FxHashMap<SessionName, (u64, SessionKey)>,
}

impl SessionList {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.order.len()).expect("a session count fits in 64 bits")
    }

    pub(crate) fn find(&self, name: &SessionName) -> Option<SessionKey> {
        self.by_name.get(name).map(|(_, key)| *key)
    }

    /// Adds a session whose name is not in the list.
    pub(crate) fn push(&mut self, name: SessionName, key: SessionKey) {
        let old = self.by_name.insert(name, (self.next, key));
        assert!(old.is_none(), "session {name:?} is in the list twice");
        self.order.insert(self.next, key);
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, name: &SessionName) {
        if let Some((at, _)) = self.by_name.remove(name) {
            self.order.remove(&at);
        }
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = SessionKey> + '_ {
        self.order.values().copied()
    }
}
