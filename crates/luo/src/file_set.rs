//! The files of one session, in the order in which they were preserved.
//!
//! Files are only added at the end and leave from the end or all at once, as in the kernel. The token index
//! keeps the first file of a token: a corrupt handover may name a token twice, and the kernel's list walk
//! finds the first. Tokens are mostly asked for in the order of the files: the place behind the last one found is
//! looked at before the index, which for many files costs a miss of the cache.

use std::cell::Cell;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::host::{FileId, RetrieveStatus};

/// Index of a handler in order of registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HandlerIndex(pub(crate) usize);

/// One file that LUO looks after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    pub(crate) handler: HandlerIndex,
    /// The description that was preserved; none for a file of the previous kernel.
    pub(crate) preserved: Option<FileId>,
    pub(crate) data: u64,
    pub(crate) token: u64,
    pub(crate) status: RetrieveStatus,
}

/// The files of one session.
#[derive(Debug, Default)]
pub(crate) struct FileSet {
    files: Vec<File>,
    by_token: FxHashMap<u64, usize>,
    /// Behind the file found last.
    next: Cell<usize>,
}

impl FileSet {
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.files.len()).expect("a file count fits in 64 bits")
    }

    pub(crate) fn has(&self, token: u64) -> bool {
        self.by_token.contains_key(&token)
    }

    /// Whether `index` holds the first file with this token, where every token has one file.
    fn is_at(&self, index: usize, token: u64) -> bool {
        self.files.len() == self.by_token.len()
            && self.files.get(index).is_some_and(|file| file.token == token)
    }

    fn index_of(&self, token: u64) -> Option<usize> {
        let next = self.next.get();
        for index in [next, next.wrapping_sub(1)] {
            if self.is_at(index, token) {
                self.next.set(index + 1);
                return Some(index);
            }
        }
        let index = *self.by_token.get(&token)?;
        self.next.set(index + 1);
        Some(index)
    }

    pub(crate) fn find(&self, token: u64) -> Option<&File> {
        self.index_of(token).map(|index| &self.files[index])
    }

    pub(crate) fn find_mut(&mut self, token: u64) -> Option<&mut File> {
        self.index_of(token).map(|index| &mut self.files[index])
    }

    pub(crate) fn at(&self, index: usize) -> File {
        self.files[index]
    }

    pub(crate) fn set_data(&mut self, index: usize, data: u64) {
        self.files[index].data = data;
    }

    pub(crate) fn push(&mut self, file: File) {
        if let Entry::Vacant(slot) = self.by_token.entry(file.token) {
            slot.insert(self.files.len());
        }
        self.files.push(file);
    }

    pub(crate) fn pop(&mut self) -> Option<File> {
        let file = self.files.pop()?;
        if self.by_token.get(&file.token) == Some(&self.files.len()) {
            self.by_token.remove(&file.token);
        }
        Some(file)
    }

    pub(crate) fn tokens(&self) -> Vec<u64> {
        self.files.iter().map(|file| file.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(token: u64, data: u64) -> File {
        File { handler: HandlerIndex(0), preserved: None, data, token, status: RetrieveStatus::Untried }
    }

    #[test]
    fn the_first_file_of_a_token_is_found() {
        let mut set = FileSet::default();
        set.push(file(1, 10));
        set.push(file(2, 20));
        set.push(file(1, 30));
        assert_eq!(set.find(1).map(|found| found.data), Some(10));
        assert_eq!(set.pop().map(|last| last.data), Some(30));
        assert_eq!(set.find(1).map(|found| found.data), Some(10), "popping the second keeps the first");
        assert_eq!(set.pop().map(|last| last.data), Some(20));
        assert!(!set.has(2));
    }
}
