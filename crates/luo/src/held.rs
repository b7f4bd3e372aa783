//! Which session holds a file now: what makes a second PRESERVE_FD of the same file EBUSY (7.1 and later), also across
//! sessions and for files that were retrieved and not yet finished.
//!
//! One table per handler, since an identity means something to its handler only. Inode numbers mostly ascend, so a sorted
//! table is filled at its end, where the last entries still are in the cache; a hashed one misses it at every file once
//! there are half a million. Does not decide anything; see `ops`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::file_set::HandlerIndex;
use crate::host::{Identity, SessionKey};

/// A place in a session's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) session: SessionKey,
    file: u32,
}

impl Place {
    pub(crate) fn new(session: SessionKey, file: usize) -> Self {
        Self { session, file: u32::try_from(file).expect("a session has fewer than 2^32 files") }
    }

    pub(crate) fn file(self) -> usize {
        usize::try_from(self.file).expect("an index fits in usize")
    }
}

/// Every file that LUO holds, by handler and identity.
#[derive(Debug, Default)]
pub(crate) struct HeldFiles(Vec<BTreeMap<Identity, Place>>);

impl HeldFiles {
    /// Notes that a file is held at `place`; if it is held already, changes nothing and gives where.
    pub(crate) fn claim(&mut self, handler: HandlerIndex, identity: Identity, place: Place) -> Option<Place> {
        match self.of(handler).entry(identity) {
            Entry::Occupied(held) => Some(*held.get()),
            Entry::Vacant(free) => {
                free.insert(place);
                None
            }
        }
    }

    fn of(&mut self, handler: HandlerIndex) -> &mut BTreeMap<Identity, Place> {
        if self.0.len() <= handler.0 {
            self.0.resize_with(handler.0 + 1, BTreeMap::new);
        }
        &mut self.0[handler.0]
    }

    /// The holder of a file of any handler.
    pub(crate) fn find(&self, identity: Identity) -> Option<Place> {
        self.0.iter().find_map(|files| files.get(&identity).copied())
    }

    pub(crate) fn insert(&mut self, handler: HandlerIndex, identity: Identity, place: Place) {
        self.of(handler).insert(identity, place);
    }

    pub(crate) fn remove(&mut self, handler: HandlerIndex, identity: Identity) {
        if let Some(files) = self.0.get_mut(handler.0) {
            files.remove(&identity);
        }
    }
}
