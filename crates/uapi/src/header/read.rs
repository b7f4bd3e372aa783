//! Declarations, as tree-sitter finds them in a text without directives and comments.
//!
//! What the parser could not place is a problem with its span; a structure that has such a part in it keeps its members
//! and is marked broken, so that nobody trusts a layout.

use std::ops::ControlFlow;
use std::sync::Arc;

use tree_sitter::{Node, ParseOptions, Parser, Tree};

use super::doc::{self, Doc};
use super::items::{Enumeration, Enumerator, Header, Member, Problem, Record, Span};
use super::preprocess::{UNNAMED, comment_before};
use super::scope::Scope;
use super::types::{Plain, Tag, Type};

/// Deepest nesting of declarations.
const DEEPEST: u32 = 48;
/// Problems of one header that are kept.
const MOST_PROBLEMS: usize = 100;
/// Calls of the parser's progress function that a header may take, and those for each of its bytes.
const CALLS: usize = 10_000;
const CALLS_PER_BYTE: usize = 2;

/// The parser.
pub(crate) struct Reader(Parser);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    pub(crate) fn new() -> Self {
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_c::LANGUAGE.into()).expect("the grammar is of the parser's version");
        Self(parser)
    }

    fn parse(&mut self, text: &str) -> Option<Tree> {
        let mut left = CALLS.saturating_add(text.len().saturating_mul(CALLS_PER_BYTE));
        let mut progress = |_: &tree_sitter::ParseState| {
            left = left.saturating_sub(1);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let mut read = |at: usize, _| text.as_bytes().get(at..).unwrap_or(&[]);
        let tree = self.0.parse_with_options(&mut read, None, Some(options));
        self.0.reset();
        tree
    }

    /// Adds the declarations in `left`, the header's text with blanks, to the header.
    pub(crate) fn declarations(&mut self, header: &mut Header, left: &str) {
        match self.parse(left) {
            Some(tree) => Walk { header, left }.top(tree.root_node()),
            None => {
                let span = 0..header.text.len();
                header.problems.push(Problem { what: String::from("it takes too long to read"), span });
            }
        }
    }
}

/// Gives every enumerator its value.
pub(crate) fn enumerators(header: &mut Header, closure: &[Arc<Header>]) {
    for index in 0..header.enums.len() {
        let mut next: Result<i128, String> = Ok(0);
        for at in 0..header.enums[index].enumerators.len() {
            let enumerator = &header.enums[index].enumerators[at];
            let value = match &enumerator.value {
                Some(span) => Scope::new(header, closure).value(header.at(span)),
                None => next.clone(),
            };
            next = value.clone().map(|value| value.wrapping_add(1));
            let name = enumerator.name.clone();
            header.values.insert(name, value);
        }
    }
}

struct Walk<'a> {
    header: &'a mut Header,
    left: &'a str,
}

fn children(node: Node<'_>) -> Vec<Node<'_>> {
    node.named_children(&mut node.walk()).collect()
}

/// The children behind a field's name.
fn fields<'t>(node: Node<'t>, name: &str) -> Vec<Node<'t>> {
    node.children_by_field_name(name, &mut node.walk()).collect()
}

/// The first part of a node that was not understood.
fn first_error(node: Node<'_>) -> Option<Span> {
    if !node.has_error() {
        return None;
    }
    let mut here = node;
    loop {
        if here.is_error() || here.is_missing() {
            return Some(here.byte_range());
        }
        let mut cursor = here.walk();
        let next = here.children(&mut cursor).find(|child| child.has_error() || child.is_missing());
        match next {
            Some(child) => here = child,
            None => return Some(node.byte_range()),
        }
    }
}

impl Walk<'_> {
    fn text(&self, node: Node<'_>) -> &str {
        self.left.get(node.byte_range()).unwrap_or("")
    }

    fn problem(&mut self, what: &str, span: Span) {
        if self.header.problems.len() < MOST_PROBLEMS {
            self.header.problems.push(Problem { what: what.to_owned(), span });
        }
    }

    fn top(&mut self, root: Node<'_>) {
        let mut waiting = vec![root];
        while let Some(node) = waiting.pop() {
            for child in children(node) {
                match child.kind() {
                    "linkage_specification" | "declaration_list" => waiting.push(child),
                    "ERROR" => {
                        self.problem("this is no declaration that is understood", child.byte_range());
                        waiting.push(child);
                    }
                    _ => self.declaration(child),
                }
            }
        }
        self.header.enums.sort_by_key(|one| one.span.start);
        self.header.problems.sort_by_key(|problem| problem.span.start);
    }

    fn declaration(&mut self, node: Node<'_>) {
        match node.kind() {
            "struct_specifier" | "union_specifier" | "enum_specifier" => {
                self.of(node, node, 0);
            }
            "declaration" => {
                if let Some(of) = node.child_by_field_name("type") {
                    self.of(of, node, 0);
                }
            }
            "type_definition" => self.typedef(node),
            _ => {}
        }
    }

    fn typedef(&mut self, node: Node<'_>) {
        let Some(of) = node.child_by_field_name("type") else { return };
        let base = self.of(of, node, 0);
        for declarator in fields(node, "declarator") {
            let (name, of) = self.declarator(declarator, base.clone());
            if let Some((name, _)) = name {
                self.header.typedefs.insert(name, of);
            }
        }
    }

    /// The type that a specifier names or defines. `outer` is the whole declaration.
    fn of(&mut self, node: Node<'_>, outer: Node<'_>, depth: u32) -> Type {
        let tag = match node.kind() {
            "struct_specifier" => Tag::Struct,
            "union_specifier" => Tag::Union,
            "enum_specifier" => Tag::Enum,
            _ => return self.plain(node),
        };
        let name = node.child_by_field_name("name").map(|name| self.text(name).to_owned());
        match (node.child_by_field_name("body"), name) {
            (None, Some(name)) => Type::Tagged(tag, name),
            (None, None) => Type::Unknown(self.text(node).to_owned()),
            (Some(body), name) if tag == Tag::Enum => {
                self.enumeration(node, body, name);
                Type::InlineEnum
            }
            (Some(_), _) if depth >= DEEPEST => {
                self.problem("structures are nested too deep", node.byte_range());
                Type::Unknown(String::from("…"))
            }
            (Some(body), name) => self.record(node, body, outer, tag, name, depth),
        }
    }

    fn plain(&self, node: Node<'_>) -> Type {
        let text = self.text(node);
        let words: Vec<&str> = text.split_whitespace().collect();
        match (Plain::worded(&words), words.as_slice()) {
            (Some(plain), _) => Type::Plain(plain, words.join(" ")),
            (None, [name]) => Type::Named((*name).to_owned()),
            _ => Type::Unknown(words.join(" ")),
        }
    }

    fn record(
        &mut self,
        node: Node<'_>,
        body: Node<'_>,
        outer: Node<'_>,
        tag: Tag,
        name: Option<String>,
        depth: u32,
    ) -> Type {
        let broken = first_error(body)
            .map(|span| Problem { what: String::from("a part of it is not understood"), span });
        if let Some(problem) = &broken
            && depth == 0
        {
            self.problem("this part of a structure is not understood", problem.span.clone());
        }
        let mut members = Vec::new();
        for child in children(body) {
            if child.kind() == "field_declaration" {
                self.member(child, depth, &mut members);
            }
        }
        let name_node = node.child_by_field_name("name");
        let name_span =
            name_node.map_or(node.start_byte()..node.start_byte() + tag.word().len(), |n| n.byte_range());
        let mut attributes = self.attributes(node);
        let rest = self.attributes(outer);
        attributes.packed |= rest.packed && depth == 0;
        attributes.aligned = attributes.aligned.or(rest.aligned.filter(|_| depth == 0));
        let record = Record {
            tag,
            name: name.clone(),
            span: node.byte_range(),
            name_span,
            doc: self.doc_before(outer.start_byte()),
            members,
            packed: attributes.packed,
            aligned: attributes.aligned,
            broken,
        };
        let Some(name) = name else { return Type::Inline(Box::new(record)) };
        self.header.tags.insert(name.clone(), self.header.records.len());
        self.header.records.push(record);
        Type::Tagged(tag, name)
    }

    fn doc_before(&self, at: usize) -> Option<Doc> {
        let span = comment_before(self.header, at)?;
        doc::read(self.header.at(&span), span.clone())
    }

    fn member(&mut self, node: Node<'_>, depth: u32, members: &mut Vec<Member>) {
        let Some(of) = node.child_by_field_name("type") else { return };
        let base = self.of(of, node, depth + 1);
        let attributes = self.attributes(node);
        let declarators = fields(node, "declarator");
        if declarators.is_empty() {
            let span = node.byte_range();
            members.push(Member {
                name: None,
                of: base,
                bits: None,
                aligned: attributes.aligned,
                name_span: span.clone(),
                span,
            });
            return;
        }
        for (index, declarator) in declarators.iter().enumerate() {
            let next = declarators.get(index + 1).map_or(node.end_byte(), Node::start_byte);
            let bits = self.header.bits_between(declarator.start_byte(), next);
            let (name, of) = self.declarator(*declarator, base.clone());
            let named = name.filter(|(name, span)| name != UNNAMED || self.header.at(span) == UNNAMED);
            let (name, name_span) =
                named.map_or((None, node.byte_range()), |(name, span)| (Some(name), span));
            members.push(Member {
                name,
                of,
                bits,
                aligned: attributes.aligned.clone(),
                span: node.byte_range(),
                name_span,
            });
        }
    }

    /// The name that a declarator declares, and its type.
    fn declarator(&self, node: Node<'_>, base: Type) -> (Option<(String, Span)>, Type) {
        let (mut here, mut of) = (node, base);
        for _ in 0..DEEPEST {
            match here.kind() {
                "identifier" | "field_identifier" | "type_identifier" | "primitive_type" => {
                    return (Some((self.text(here).to_owned(), here.byte_range())), of);
                }
                "pointer_declarator" => of = Type::Pointer,
                "function_declarator" => of = Type::Unknown(String::from("a function")),
                "array_declarator" => of = self.array(here, of),
                _ => {}
            }
            let inner = here.child_by_field_name("declarator").or_else(|| here.named_child(0));
            match inner {
                Some(next) => here = next,
                None => break,
            }
        }
        (None, Type::Unknown(self.text(node).to_owned()))
    }

    /// Arrays of arrays are declared from the inside out: `a[2][3]` is an array of 2 arrays of 3.
    fn array(&self, node: Node<'_>, of: Type) -> Type {
        match node.child_by_field_name("size") {
            Some(size) => Type::Array(Box::new(of), size.byte_range()),
            None => Type::Flexible(Box::new(of)),
        }
    }

    fn enumeration(&mut self, node: Node<'_>, body: Node<'_>, name: Option<String>) {
        let mut enumerators = Vec::new();
        for child in children(body) {
            match (child.kind(), child.child_by_field_name("name")) {
                ("enumerator", Some(name)) => enumerators.push(Enumerator {
                    name: self.text(name).to_owned(),
                    value: child.child_by_field_name("value").map(|value| value.byte_range()),
                    span: name.byte_range(),
                }),
                ("ERROR", _) => self.problem("this part of an enum is not understood", child.byte_range()),
                _ => {}
            }
        }
        self.header.enums.push(Enumeration { name, span: node.byte_range(), enumerators });
    }

    fn attributes(&self, node: Node<'_>) -> Attributes {
        let mut found = Attributes { packed: false, aligned: None };
        for child in children(node) {
            // Attributes behind a member's name are read as a part of its declarator.
            if child.kind() == "attribute_specifier" {
                self.attribute(child, &mut found);
            } else if matches!(
                child.kind(),
                "attributed_declarator" | "array_declarator" | "pointer_declarator"
            ) {
                for inner in children(child) {
                    if inner.kind() == "attribute_specifier" {
                        self.attribute(inner, &mut found);
                    }
                }
            }
        }
        found
    }

    fn attribute(&self, node: Node<'_>, found: &mut Attributes) {
        let text = self.text(node);
        found.packed |= text.contains("packed");
        let Some(at) = text.find("aligned") else { return };
        let rest = &text[at..];
        let close = rest.find(')').unwrap_or(rest.len());
        if let Some(open) = rest.find('(').filter(|open| *open < close) {
            let start = node.start_byte() + at + open + 1;
            found.aligned = Some(start..node.start_byte() + at + close);
        }
    }
}

struct Attributes {
    packed: bool,
    aligned: Option<Span>,
}

#[cfg(test)]
mod tests {
    use super::super::{Tag, Type, read_alone};

    #[test]
    fn declarations_of_every_kind_are_found() {
        let text = "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\
            /** struct a - it\n * @x: one\n */\nstruct a { __u32 x, *y; char name[4 + 1]; unsigned long long z[]; };\n\
            typedef struct { int i; } b_t, *b_ptr;\ntypedef __u32 __bitwise c_t;\n\
            enum e { ONE = 1, TWO, FOUR = TWO << 1, };\nstruct n { struct inner { __u8 q; } in; union { int a; long b; }; };\n\
            static inline int f(struct a *a) { if (a) return 1; return 0; }\nextern int g(void);\n\
            #ifdef __cplusplus\n}\n#endif\n";
        let loaded = read_alone("x.h", text);
        let header = &loaded.header;
        let names: Vec<_> = header.records.iter().filter_map(|record| record.name.as_deref()).collect();
        assert_eq!(names, ["a", "inner", "n"]);
        let a = header.find_record(Tag::Struct, "a").expect("a");
        assert_eq!(a.doc.as_ref().and_then(|doc| doc.member("x")), Some("one"));
        assert!(matches!(a.members[1].of, Type::Pointer));
        assert!(matches!(a.members[3].of, Type::Flexible(_)));
        assert!(header.typedefs.contains_key("b_t") && matches!(header.typedefs["b_ptr"], Type::Pointer));
        assert_eq!(header.enumerator("FOUR"), Some(&Ok(4)));
        assert!(a.broken.is_none());
    }

    #[test]
    fn what_is_not_understood_has_a_place() {
        let text = "struct a { __u32 x; @@ 5 };\nstruct b { __u32 y; };\n%%%\n";
        let loaded = read_alone("x.h", text);
        let a = loaded.header.find_record(Tag::Struct, "a").expect("a");
        assert!(a.broken.is_some());
        let b = loaded.header.find_record(Tag::Struct, "b").expect("b");
        assert!(b.broken.is_none());
        let places: Vec<_> = loaded.header.problems.iter().map(|problem| problem.span.start).collect();
        assert!(places.contains(&text.find("@@").expect("there")), "{:?}", loaded.header.problems);
    }
}
