//! What a header declares, each with its place. Pure data: nothing is evaluated here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::doc::Doc;
use super::types::{Tag, Type};

/// Bytes of a header's text.
pub type Span = Range<usize>;

/// A structure or union.
#[derive(Clone, Debug)]
pub struct Record {
    /// Structure or union.
    pub tag: Tag,
    /// Its name; none inside another, or behind `typedef`.
    pub name: Option<String>,
    /// All of it.
    pub span: Span,
    /// Its name, or the keyword.
    pub name_span: Span,
    /// The documentation before it.
    pub doc: Option<Doc>,
    /// Members, in order.
    pub members: Vec<Member>,
    /// `__attribute__((packed))`.
    pub packed: bool,
    /// `__attribute__((aligned(n)))`, the expression.
    pub aligned: Option<Span>,
    /// What in it was not understood.
    pub broken: Option<Problem>,
}

/// A member of a structure.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name; none for an anonymous structure or union, and for bits without a name.
    pub name: Option<String>,
    /// Its type.
    pub of: Type,
    /// Bits, the expression.
    pub bits: Option<Span>,
    /// `aligned`, the expression.
    pub aligned: Option<Span>,
    /// All of it.
    pub span: Span,
    /// Its name, or all of it.
    pub name_span: Span,
}

/// An enum.
#[derive(Clone, Debug)]
pub struct Enumeration {
    /// Its name.
    pub name: Option<String>,
    /// All of it.
    pub span: Span,
    /// Its members, in order.
    pub enumerators: Vec<Enumerator>,
}

/// A member of an enum.
#[derive(Clone, Debug)]
pub struct Enumerator {
    /// Its name.
    pub name: String,
    /// The expression, if there is one; otherwise one more than the member before.
    pub value: Option<Span>,
    /// Its name's place.
    pub span: Span,
}

/// A macro.
#[derive(Clone, Debug)]
pub struct Macro {
    /// Its name.
    pub name: String,
    /// Names of its parameters, if it has a list of them.
    pub parameters: Option<Vec<String>>,
    /// What it stands for; empty if it is nothing.
    pub body: Span,
    /// Its name's place.
    pub span: Span,
    /// The comment before it.
    pub comment: Option<Span>,
}

/// Something that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What, one clause.
    pub what: String,
    /// Where.
    pub span: Span,
}

/// A header as it was read.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// Its name, a path.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Structures and unions with a name, in order; nested ones with a name are here too.
    pub records: Vec<Record>,
    /// Enums, in order.
    pub enums: Vec<Enumeration>,
    /// Macros, in order.
    pub macros: Vec<Macro>,
    /// Typedefs.
    pub typedefs: BTreeMap<String, Type>,
    /// Comments, in order.
    pub comments: Vec<Span>,
    /// Paths of included headers, with the place.
    pub includes: Vec<(String, Span)>,
    /// What was not understood.
    pub problems: Vec<Problem>,
    /// Bits of members: where the colon stands, and the expression.
    pub(crate) bits: Vec<(usize, Span)>,
    /// Macros that are defined at the end, by name.
    defined: BTreeMap<String, usize>,
    /// Values of enumerators, or why they have none.
    pub(crate) values: BTreeMap<String, Result<i128, String>>,
    /// Structures and unions, by name.
    pub(crate) tags: BTreeMap<String, usize>,
}

impl Header {
    /// A header of which nothing was read yet.
    pub(crate) fn new(name: String, text: String) -> Self {
        Self { name, text, ..Self::default() }
    }

    pub(crate) fn add_macro(&mut self, made: Macro) {
        self.defined.insert(made.name.clone(), self.macros.len());
        self.macros.push(made);
    }

    pub(crate) fn forget_macro(&mut self, name: &str) {
        self.defined.remove(name);
    }

    /// The expression of the bits whose colon stands in this part.
    pub(crate) fn bits_between(&self, start: usize, end: usize) -> Option<Span> {
        let index = self.bits.partition_point(|(colon, _)| *colon < start);
        self.bits.get(index).filter(|(colon, _)| *colon < end).map(|(_, span)| span.clone())
    }

    /// The macro with this name.
    #[must_use]
    pub fn find_macro(&self, name: &str) -> Option<&Macro> {
        self.defined.get(name).map(|index| &self.macros[*index])
    }

    /// The structure or union with this name.
    #[must_use]
    pub fn find_record(&self, tag: Tag, name: &str) -> Option<&Record> {
        self.tags.get(name).map(|index| &self.records[*index]).filter(|record| record.tag == tag)
    }

    /// The value of an enumerator, or why it has none.
    #[must_use]
    pub fn enumerator(&self, name: &str) -> Option<&Result<i128, String>> {
        self.values.get(name)
    }

    /// A part of the text; empty where the span is not one of this text.
    #[must_use]
    pub fn at(&self, span: &Span) -> &str {
        self.text.get(span.clone()).unwrap_or("")
    }

    /// Line and column of a byte, both from 1; columns in characters.
    #[must_use]
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    }
}
