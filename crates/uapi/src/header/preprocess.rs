//! What the C preprocessor would do, done in place: comments, directives and what a false condition leaves out are
//! blanked, so that every byte that is left stands where it stood. What was blanked is kept as comments, macros and
//! includes.
//!
//! Conditions are taken as for a 64-bit x86 program that is not the kernel. Macros are not expanded, but for the few
//! that stand for declarations of members.

use std::ops::Range;
use std::sync::Arc;

use super::items::{Header, Macro, Problem, Span};
use super::scope::Scope;
use super::token::{Token, tokens};
use super::types::Plain;

/// One `#if` … `#endif`.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Whether what stands around it counts.
    outside: bool,
    /// Whether a branch was taken already.
    taken: bool,
    /// Whether the present branch counts.
    active: bool,
}

/// Gives the header that an `#include` names, if it can be read.
pub(crate) type Include<'a> = dyn FnMut(&str) -> Option<Arc<super::Loaded>> + 'a;

pub(crate) struct Preprocessor<'a> {
    /// What was found so far.
    pub(crate) header: Header,
    /// Headers that were included, and what those include.
    pub(crate) closure: Vec<Arc<Header>>,
    /// The text with blanks.
    blanked: Vec<u8>,
    groups: Vec<Group>,
    include: &'a mut Include<'a>,
}

impl<'a> Preprocessor<'a> {
    pub(crate) fn new(header: Header, include: &'a mut Include<'a>) -> Self {
        let blanked = header.text.clone().into_bytes();
        Self { header, closure: Vec::new(), blanked, groups: Vec::new(), include }
    }

    /// Goes through the text; gives what is left of it.
    pub(crate) fn run(mut self) -> (Header, Vec<Arc<Header>>, String) {
        let mut at = 0;
        let mut line_start = true;
        while at < self.blanked.len() {
            let rest = &self.header.text.as_bytes()[at..];
            match rest {
                [b'/', b'*' | b'/', ..] => at = self.comment(at),
                [b'#', ..] if line_start => {
                    let end = self.directive_end(at);
                    self.directive(at..end);
                    self.blank(at..end);
                    at = end;
                }
                [quote @ (b'"' | b'\''), ..] => {
                    let end = at + string_length(rest, *quote);
                    self.blank_if_inactive(at..end);
                    at = end;
                }
                [first, ..] => {
                    line_start = *first == b'\n' || line_start && first.is_ascii_whitespace();
                    self.blank_if_inactive(at..at + 1);
                    at += 1;
                }
                [] => break,
            }
        }
        if !self.groups.is_empty() {
            let end = self.header.text.len();
            self.problem("the text ends inside #if", end..end);
        }
        member_macros(&mut self.blanked);
        self.header.bits = bits(&mut self.blanked);
        let blanked = String::from_utf8(self.blanked)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        (self.header, self.closure, blanked)
    }

    fn problem(&mut self, what: &str, span: Span) {
        self.header.problems.push(Problem { what: what.to_owned(), span });
    }

    fn active(&self) -> bool {
        self.groups.last().is_none_or(|group| group.active)
    }

    fn blank(&mut self, range: Range<usize>) {
        self.blanked[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }

    fn blank_if_inactive(&mut self, range: Range<usize>) {
        if !self.active() {
            self.blank(range);
        }
    }

    /// The comment at `at`; gives its end.
    fn comment(&mut self, at: usize) -> usize {
        let text = &self.header.text.as_bytes()[at..];
        let length = if text.starts_with(b"/*") {
            find(&text[2..], b"*/").map_or(text.len(), |end| end + 4)
        } else {
            find(text, b"\n").unwrap_or(text.len())
        };
        if self.active() {
            self.header.comments.push(at..at + length);
        }
        self.blank(at..at + length);
        at + length
    }

    /// Where the directive at `at` ends: at the end of its line, but not in a comment or behind a backslash.
    fn directive_end(&mut self, at: usize) -> usize {
        let mut end = at;
        loop {
            let rest = &self.header.text.as_bytes()[end..];
            match rest {
                [b'\\', b'\r', b'\n', ..] => end += 3,
                [b'\\', b'\n', ..] => end += 2,
                [b'/', b'*' | b'/', ..] => end = self.comment(end),
                [quote @ (b'"' | b'\''), ..] => end += string_length(rest, *quote),
                [] | [b'\n', ..] => return end,
                _ => end += 1,
            }
        }
    }

    fn directive(&mut self, span: Span) {
        let text = self.header.text[span.clone()].to_owned();
        let body = text[1..].trim_start();
        let word_length = body.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(body.len());
        let (word, rest) = body.split_at(word_length);
        match word {
            "if" => self.open(|scope| scope.condition(rest), &span),
            "ifdef" => self.open(|scope| Ok(defined(scope, rest)), &span),
            "ifndef" => self.open(|scope| Ok(!defined(scope, rest)), &span),
            "elif" => self.branch(Some(rest), &span),
            "else" => self.branch(None, &span),
            "endif" if self.groups.pop().is_none() => self.problem("#endif without #if", span),
            "endif" => {}
            _ if !self.active() => {}
            "define" => self.define(rest, &span),
            "undef" => {
                self.header.forget_macro(rest.trim());
            }
            "include" => self.include(rest.trim(), span),
            _ => {}
        }
    }

    fn scope<T>(&self, ask: impl FnOnce(&Scope<'_>) -> T) -> T {
        ask(&Scope::new(&self.header, &self.closure))
    }

    fn open(&mut self, ask: impl FnOnce(&Scope<'_>) -> Result<bool, String>, span: &Span) {
        let outside = self.active();
        let holds = if outside { self.ask(ask, span) } else { false };
        self.groups.push(Group { outside, taken: holds, active: outside && holds });
    }

    /// A condition; one that is not understood does not hold, and is said.
    fn ask(&mut self, ask: impl FnOnce(&Scope<'_>) -> Result<bool, String>, span: &Span) -> bool {
        self.scope(ask).unwrap_or_else(|why| {
            self.problem(&format!("the condition is taken as false: {why}"), span.clone());
            false
        })
    }

    fn branch(&mut self, condition: Option<&str>, span: &Span) {
        let Some(group) = self.groups.last().copied() else {
            self.problem("#else or #elif without #if", span.clone());
            return;
        };
        let open = group.outside && !group.taken;
        let holds = open && condition.is_none_or(|text| self.ask(|scope| scope.condition(text), span));
        if let Some(last) = self.groups.last_mut() {
            *last = Group { taken: group.taken || holds, active: holds, ..group };
        }
    }

    /// `#define NAME body` or `#define NAME(a, b) body`.
    fn define(&mut self, rest: &str, span: &Span) {
        let trimmed = rest.trim_start();
        let start = span.end - trimmed.len();
        let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let length = trimmed.find(|letter| !good(letter)).unwrap_or(trimmed.len());
        if length == 0 || trimmed.starts_with(|letter: char| letter.is_ascii_digit()) {
            self.problem("#define without a name", span.clone());
            return;
        }
        let mut body = start + length;
        let mut parameters = None;
        if trimmed[length..].starts_with('(')
            && let Some(close) = trimmed.find(')')
        {
            let names = trimmed[length + 1..close].split(',').map(|name| name.trim().to_owned());
            parameters = Some(names.filter(|name| !name.is_empty()).collect());
            body = start + close + 1;
        }
        let comment = self.comment_before(span.start);
        let name = trimmed[..length].to_owned();
        let made = Macro { name, parameters, body: body..span.end, span: start..start + length, comment };
        self.header.add_macro(made);
    }

    /// The comment that ends right before `at`, with nothing but space between.
    fn comment_before(&self, at: usize) -> Option<Span> {
        comment_before(&self.header, at)
    }

    fn include(&mut self, path: &str, span: Span) {
        let path = path.split(['>', '"']).find(|part| !part.is_empty() && *part != "<").unwrap_or("");
        let path = path.trim_start_matches('<').to_owned();
        if let Some(loaded) = (self.include)(&path) {
            let new = std::iter::once(&loaded.header).chain(&loaded.closure);
            for header in new {
                if !self.closure.iter().any(|known| known.name == header.name) {
                    self.closure.push(Arc::clone(header));
                }
            }
        }
        self.header.includes.push((path, span));
    }
}

/// The comment of `header` that ends right before `at`, with nothing but space and at most one empty line between.
/// Comments that are meant for the linter are passed over.
pub(crate) fn comment_before(header: &Header, at: usize) -> Option<Span> {
    let index = header.comments.partition_point(|comment| comment.start < at);
    let mut at = at;
    for comment in header.comments[..index].iter().rev() {
        let between = header.text.get(comment.end..at)?;
        if between.matches('\n').count() > 2 || !between.trim().is_empty() {
            return None;
        }
        if !header.at(comment).contains(MARK) {
            return Some(comment.clone());
        }
        at = comment.start;
    }
    None
}

/// What comments for the linter have in them.
pub(crate) const MARK: &str = "luosim-abi:";

fn defined(scope: &Scope<'_>, rest: &str) -> bool {
    match tokens(rest).first() {
        Some(Token::Name(name)) => scope.is_defined(name),
        _ => false,
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Bytes of the string or character at the start of `text`; one that does not end on its line is its quote alone.
fn string_length(text: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            b'\n' if !escaped => break,
            _ if *byte == quote && !escaped => return at + 1,
            _ => escaped = *byte == b'\\' && !escaped,
        }
    }
    1
}

/// Macros that stand for members, or say something of them that is no matter for the layout.
const MEMBER_MACROS: [&[u8]; 7] = [
    b"__DECLARE_FLEX_ARRAY",
    b"__struct_group",
    b"__counted_by_le",
    b"__counted_by_be",
    b"__counted_by",
    b"__user",
    b"__kernel_nonstring",
];

/// Rewrites the macros of members as what they stand for, in the room that they have.
fn member_macros(text: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == b'_').map(|found| found + from) {
        let length =
            text[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        from = at + length;
        let whole = at == 0 || !text[at - 1].is_ascii_alphanumeric();
        let Some(which) = MEMBER_MACROS.iter().find(|name| whole && **name == &text[at..at + length]) else {
            continue;
        };
        rewrite(text, at..at + length, which);
    }
}

/// The name that bits without one are given in place of their colon: the grammar wants a name.
pub(crate) const UNNAMED: &str = "_";

/// Takes the bits out of members, `a : 3, b : 5`, of which the grammar knows only the simplest form. Gives for each the
/// place of its colon and its expression.
fn bits(text: &mut [u8]) -> Vec<(usize, Span)> {
    let mut found = Vec::new();
    let (mut start, mut part, mut at) = (0, 0, 0);
    while at < text.len() {
        match text[at] {
            b';' | b'{' | b'}' => (start, part) = (at + 1, at + 1),
            b',' => part = at + 1,
            b':' if is_member(&text[start..at]) => {
                let end = text[at..].iter().position(|byte| matches!(byte, b',' | b';' | b'}'));
                let end = end.map_or(text.len(), |length| at + length);
                let end = find(&text[at..end], b"__attribute").map_or(end, |length| at + length);
                let before = String::from_utf8_lossy(&text[part..at]).into_owned();
                let words: Vec<&str> = before.split_whitespace().collect();
                found.push((at, at + 1..end));
                fill(&mut text[at..end]);
                if part == start && Plain::worded(&words).is_some() {
                    text[at] = UNNAMED.as_bytes()[0];
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether a statement that goes on with a colon may be a member: `__u32 a`, and not a label or a choice.
fn is_member(statement: &[u8]) -> bool {
    let statement = statement.trim_ascii();
    let good =
        |byte: &u8| byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || matches!(byte, b'_' | b',');
    let label = [&b"case"[..], b"default"].iter().any(|word| statement.starts_with(word));
    !label && statement.iter().all(good) && statement.iter().any(u8::is_ascii_alphabetic)
}

fn rewrite(text: &mut [u8], name: Range<usize>, which: &[u8]) {
    let arguments = arguments(text, name.end);
    match (which, arguments) {
        // Text that moves must be of one byte a letter: what is found in it is pointed at where it stood.
        (b"__DECLARE_FLEX_ARRAY", Some((parts, end)))
            if parts.len() == 2 && text[name.start..end].is_ascii() =>
        {
            let part = |index: usize| text[parts[index].clone()].trim_ascii().to_vec();
            let made = [part(0), b" ".to_vec(), part(1), b"[]".to_vec()].concat();
            fill(&mut text[name.start..end]);
            text[end - made.len()..end].copy_from_slice(&made);
        }
        (b"__struct_group", Some((parts, end))) if parts.len() >= 4 => {
            fill(&mut text[name.start..parts[3].start]);
            fill(&mut text[end - 1..end]);
            if let Some(semicolon) = text[end..].iter().position(|byte| !byte.is_ascii_whitespace())
                && text[end + semicolon] == b';'
            {
                text[end + semicolon] = b' ';
            }
        }
        (_, Some((_, end))) if which.starts_with(b"__counted_by") => fill(&mut text[name.start..end]),
        (b"__user" | b"__kernel_nonstring", _) => fill(&mut text[name]),
        _ => {}
    }
}

fn fill(text: &mut [u8]) {
    text.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// The arguments of a call whose bracket is the next thing at `at`, and the end of the call.
fn arguments(text: &[u8], at: usize) -> Option<(Vec<Range<usize>>, usize)> {
    let open = at + text[at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    if text[open] != b'(' {
        return None;
    }
    let (mut parts, mut start, mut depth) = (Vec::new(), open + 1, 0u32);
    for (offset, byte) in text[open..].iter().enumerate() {
        let here = open + offset;
        match byte {
            b'(' | b'{' | b'[' => depth += 1,
            b',' if depth == 1 => {
                parts.push(start..here);
                start = here + 1;
            }
            b')' | b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    parts.push(start..here);
                    return Some((parts, here + 1));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blanked(text: &str) -> (Header, String) {
        let header = Header::new(String::new(), text.to_owned());
        let mut none = |_: &str| None;
        let (header, _, left) = Preprocessor::new(header, &mut none).run();
        assert_eq!(left.len(), text.len());
        (header, left)
    }

    fn left(text: &str) -> String {
        let (header, left) = blanked(text);
        assert_eq!(header.problems, [], "{text}");
        left.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn false_conditions_leave_nothing() {
        assert_eq!(left("#ifdef __KERNEL__\nint a;\n#else\nint b;\n#endif\nint c;"), "int b; int c;");
        assert_eq!(left("#if 1\n# if 0\na\n# elif 2 > 1\nb\n# else\nc\n# endif\n#else\nd\n#endif"), "b");
        assert_eq!(left("#ifndef X\n#define X\n#ifdef X\na\n#endif\n#endif"), "a");
        assert_eq!(left("#define X\n#undef X\n#if defined(X) || defined __cplusplus\na\n#endif"), "");
        assert_eq!(left("#if 0\n#if nonsense (\n#endif\n#include <x.h>\na\n#endif"), "");
    }

    #[test]
    fn comments_strings_and_continuations() {
        assert_eq!(left("a /* # x\n#if 0 */ b // c\nd \"/*\" e"), "a b d \"/*\" e");
        let (header, left) = blanked("#define A 1 /* two\nlines */\n#define B(x, y) \\\n\t(x + y)\nint c;");
        assert_eq!(left.trim(), "int c;");
        assert_eq!(header.macros.len(), 2);
        assert_eq!(header.at(&header.macros[1].body).trim_start_matches([' ', '\\', '\n', '\t']), "(x + y)");
        assert_eq!(header.macros[1].parameters.as_deref(), Some(&["x".to_owned(), "y".to_owned()][..]));
    }

    #[test]
    fn members_behind_macros() {
        assert_eq!(left("__DECLARE_FLEX_ARRAY(__u8,data);"), "__u8 data[];");
        assert_eq!(left("__u8 d[] __counted_by(n); char __user *p;"), "__u8 d[] ; char *p;");
        assert_eq!(left("__struct_group(tag, name, , int a; int b;);int c;"), "int a; int b; int c;");
    }

    #[test]
    fn what_does_not_close_is_said() {
        for (text, what) in [
            ("#if 1\nint a;", "ends inside #if"),
            ("#endif", "without #if"),
            ("#else", "without #if"),
            ("#define 1", "without a name"),
            ("#if (1\na\n#endif", "taken as false"),
        ] {
            let (header, _) = blanked(text);
            assert!(header.problems.iter().any(|problem| problem.what.contains(what)), "{text}");
        }
        blanked("/* never");
        blanked("#define A \\");
        blanked("\"\\");
        blanked("__DECLARE_FLEX_ARRAY(a");
        blanked("__struct_group(a,b,c,d");
        blanked("__counted_by)(");
    }
}
