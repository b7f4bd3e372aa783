//! C headers, read into what they declare.
//!
//! Reading has three steps. `preprocess` does what the preprocessor would, in place. tree-sitter finds structures, enums
//! and typedefs in what is left, and says what it does not understand. `scope` and `layout` then give names values and
//! members places, on request. A header may include others; a [`Library`] reads each once.
//!
//! Hostile text gives problems, never a panic or a loop: work is bounded by the length of the text. Not here: files (the
//! caller gives the text of a header by its path), function bodies, and what a compiler would say of them.

mod doc;
mod ioctls;
mod items;
mod layout;
pub(crate) mod preprocess;
mod read;
mod scope;
mod token;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use doc::Doc;
pub use ioctls::{Ioctl, Transfer, ioctls, structure};
pub use items::{Enumeration, Enumerator, Header, Macro, Member, Problem, Record, Span};
pub use layout::{Hole, Layout, Placed, flatten, layout};
pub use scope::Scope;
pub use types::{Plain, Room, Tag, Target, Type, Width};

pub(crate) use scope::{arguments, bracketed, show_all, type_of};
pub(crate) use token::{Token, tokens};

/// Headers that include each other at most so deep.
const DEEPEST: usize = 40;
/// Largest header in bytes.
const LARGEST: usize = 8 << 20;

/// A header and everything it includes.
#[derive(Debug)]
pub struct Loaded {
    /// The header.
    pub header: Arc<Header>,
    /// What it includes, and what that includes, each once.
    pub closure: Vec<Arc<Header>>,
}

impl Loaded {
    /// What names mean in it.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope::new(&self.header, &self.closure)
    }
}

/// A header that an `#include` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, one for each header.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Finds the header that `#include` of the second means in the header named by the first.
pub trait Find {
    /// The header; nothing if it is not to be read.
    fn find(&mut self, from: &str, path: &str) -> Option<Found>;
}

/// What [`Find`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A header that was read before, by its name.
    Known(String),
    /// A header.
    New(Source),
}

/// No header includes another.
impl Find for () {
    fn find(&mut self, _: &str, _: &str) -> Option<Found> {
        None
    }
}

/// Headers that were read, each once.
#[derive(Debug)]
pub struct Library<F> {
    find: F,
    /// By name; nothing while it is being read.
    loaded: BTreeMap<String, Option<Arc<Loaded>>>,
    depth: usize,
    reader: read::Reader,
}

impl<F: Find> Library<F> {
    /// An empty library that finds included headers by `find`.
    #[must_use]
    pub fn new(find: F) -> Self {
        Self { find, loaded: BTreeMap::new(), depth: 0, reader: read::Reader::new() }
    }

    /// A header that was read already.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Loaded>> {
        self.loaded.get(name)?.clone()
    }

    /// Reads a header, unless one of this name was read before. A text of more than 8 MiB is left out, with a problem.
    pub fn read(&mut self, source: Source) -> Arc<Loaded> {
        if let Some(known) = self.get(&source.name) {
            return known;
        }
        let mut header = Header::new(source.name, source.text);
        if header.text.len() > LARGEST {
            header.text.clear();
            header.problems.push(Problem {
                what: String::from("it is larger than 8 MiB, and was not read"),
                span: 0..0,
            });
        }
        self.loaded.insert(header.name.clone(), None);
        self.depth += 1;
        let name = header.name.clone();
        let mut include = |path: &str| self.included(&name, path);
        let (mut header, closure, left) = preprocess::Preprocessor::new(header, &mut include).run();
        self.depth -= 1;
        self.reader.declarations(&mut header, &left);
        read::enumerators(&mut header, &closure);
        let loaded = Arc::new(Loaded { header: Arc::new(header), closure });
        self.loaded.insert(loaded.header.name.clone(), Some(Arc::clone(&loaded)));
        loaded
    }

    fn included(&mut self, from: &str, path: &str) -> Option<Arc<Loaded>> {
        if self.depth >= DEEPEST {
            return None;
        }
        match self.find.find(from, path)? {
            Found::Known(name) => self.get(&name),
            // A header that is being read includes itself.
            Found::New(source) if self.loaded.contains_key(&source.name) => self.get(&source.name),
            Found::New(source) => Some(self.read(source)),
        }
    }
}

/// Reads one header that includes no other.
#[must_use]
pub fn read_alone(name: &str, text: &str) -> Arc<Loaded> {
    Library::new(()).read(Source { name: name.to_owned(), text: text.to_owned() })
}
