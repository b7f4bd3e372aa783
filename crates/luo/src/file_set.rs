//! The files of one session, in the order in which they were preserved.
//!
//! Files are only added at the end and leave from the end or all at once, as in the kernel. A corrupt handover
//! may name a token twice: the first file of a token is found, as by the kernel's list walk.
//!
//! Tokens are found without an index as long as they ascend, which is how programs number their files: half a
//! million files cost no second table, and a miss of the cache less for each call. The first token that does not
//! ascend makes an index of all. Files are mostly asked for in their order: the place behind the one found last is
//! looked at first.
//!
//! Handlers that depend on other files ask for the token of a file. The first such question makes an index; sessions of
//! memory files never have one. Either index stands outside the set: most sessions have none, and there may be many.

use std::cell::Cell;

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
    /// Behind the file found last.
    next: Cell<usize>,
    indexes: Option<Box<Indexes>>,
}

/// What few sessions need.
#[derive(Debug, Default)]
struct Indexes {
    /// The first file of each token; none while the tokens ascend.
    by_token: Option<FxHashMap<u64, usize>>,
    /// The first place of each preserved description; none until somebody asks by file.
    by_file: Option<FxHashMap<FileId, usize>>,
}

impl Indexes {
    fn push(&mut self, file: &File, place: usize) {
        if let Some(index) = &mut self.by_token {
            index.entry(file.token).or_insert(place);
        }
        if let (Some(index), Some(id)) = (&mut self.by_file, file.preserved) {
            index.entry(id).or_insert(place);
        }
    }

    fn pop(&mut self, file: &File, place: usize) {
        if let Some(index) = &mut self.by_token
            && index.get(&file.token) == Some(&place)
        {
            index.remove(&file.token);
        }
        if let (Some(index), Some(id)) = (&mut self.by_file, file.preserved)
            && index.get(&id) == Some(&place)
        {
            index.remove(&id);
        }
    }
}

impl FileSet {
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.files.len()).expect("a file count fits in 64 bits")
    }

    pub(crate) fn has(&self, token: u64) -> bool {
        self.look_up(token).is_some()
    }

    fn tokens_by_hash(&self) -> Option<&FxHashMap<u64, usize>> {
        self.indexes.as_ref()?.by_token.as_ref()
    }

    fn is_last_or_above(&self, token: u64) -> bool {
        self.files.last().is_none_or(|last| last.token <= token)
    }

    fn look_up(&self, token: u64) -> Option<usize> {
        if let Some(index) = self.tokens_by_hash() {
            return index.get(&token).copied();
        }
        // Where preserving files in order looks: above the last there is nothing.
        if self.is_last_or_above(token) {
            return self.files.last().filter(|last| last.token == token).map(|_| self.files.len() - 1);
        }
        self.files.binary_search_by_key(&token, |file| file.token).ok()
    }

    /// Whether `index` holds the only file with this token.
    fn is_at(&self, index: usize, token: u64) -> bool {
        self.tokens_by_hash().is_none_or(|tokens| tokens.len() == self.files.len())
            && self.files.get(index).is_some_and(|file| file.token == token)
    }

    fn index_of(&self, token: u64) -> Option<usize> {
        let next = self.next.get();
        let near = [next, next.wrapping_sub(1)].into_iter().find(|index| self.is_at(*index, token));
        let index = near.or_else(|| self.look_up(token))?;
        self.next.set(index + 1);
        Some(index)
    }

    pub(crate) fn find(&self, token: u64) -> Option<&File> {
        self.index_of(token).map(|index| &self.files[index])
    }

    pub(crate) fn find_mut(&mut self, token: u64) -> Option<(usize, &mut File)> {
        self.index_of(token).map(|index| (index, &mut self.files[index]))
    }

    pub(crate) fn at(&self, index: usize) -> File {
        self.files[index]
    }

    /// The file whose preserved description is `id`.
    pub(crate) fn find_preserved(&mut self, id: FileId) -> Option<&File> {
        let files = &self.files;
        let index = self.indexes.get_or_insert_default().by_file.get_or_insert_with(|| {
            let mut index = FxHashMap::default();
            for (at, file) in files.iter().enumerate() {
                if let Some(id) = file.preserved {
                    index.entry(id).or_insert(at);
                }
            }
            index
        });
        index.get(&id).map(|at| &self.files[*at])
    }

    pub(crate) fn set_data(&mut self, index: usize, data: u64) {
        self.files[index].data = data;
    }

    /// Makes room for `count` files: no more than a handover has bytes for.
    pub(crate) fn reserve(&mut self, count: u64) {
        self.files.reserve(usize::try_from(count).expect("a count of records in memory"));
    }

    pub(crate) fn push(&mut self, file: File) {
        let ascends = self.files.last().is_none_or(|last| last.token < file.token);
        if !ascends && self.tokens_by_hash().is_none() {
            let tokens = self.files.iter().map(|file| file.token);
            self.indexes.get_or_insert_default().by_token = Some(tokens.zip(0..).collect());
        }
        if let Some(indexes) = &mut self.indexes {
            indexes.push(&file, self.files.len());
        }
        self.files.push(file);
    }

    pub(crate) fn pop(&mut self) -> Option<File> {
        let file = self.files.pop()?;
        if let Some(indexes) = &mut self.indexes {
            indexes.pop(&file, self.files.len());
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

    #[test]
    fn files_are_found_by_their_description_before_and_after_the_first_question() {
        let described = |token, id| File { preserved: Some(FileId(id)), ..file(token, 0) };
        let mut set = FileSet::default();
        set.push(described(5, 1));
        set.push(described(6, 2));
        let token = |set: &mut FileSet, id| set.find_preserved(FileId(id)).map(|file| file.token);
        assert_eq!((token(&mut set, 1), token(&mut set, 3)), (Some(5), None));
        set.push(described(7, 3));
        set.push(described(8, 3));
        assert_eq!(token(&mut set, 3), Some(7), "pushed after the index was made; the first counts");
        set.pop();
        assert_eq!(token(&mut set, 3), Some(7), "popping the second keeps the first");
        set.pop();
        assert_eq!(token(&mut set, 3), None);
    }

    #[test]
    fn any_order_of_tokens_is_found_like_by_a_list_walk() {
        for tokens in [vec![1, 5, 9], vec![1, 9, 5, 9, 0, 1], vec![3, 2, 1], vec![7, 7], vec![0, u64::MAX]] {
            let mut set = FileSet::default();
            for (data, token) in (0..).zip(&tokens) {
                set.push(file(*token, data));
                for asked in [0, 1, 2, 3, 5, 7, 9, u64::MAX] {
                    let want = set.files.iter().position(|file| file.token == asked);
                    assert_eq!((set.index_of(asked), set.has(asked)), (want, want.is_some()), "{tokens:?}");
                }
            }
        }
    }
}
