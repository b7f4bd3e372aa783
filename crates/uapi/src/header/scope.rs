//! What names mean in a header: its own declarations first, then those of what it includes. Evaluates constants and
//! sizes.
//!
//! All work is bounded: nesting, and the steps that one header may spend, so that macros that multiply each other end
//! in "not understood" and not in a loop.

use std::cell::Cell;
use std::sync::Arc;

use super::items::{Header, Macro, Record};
use super::token::{Token, tokens};
use super::types::{Plain, Tag, Type};

/// Deepest nesting of brackets and macros.
const DEEPEST: u32 = 48;
/// Steps of evaluation that every header may spend, and those for each of its bytes.
const STEPS: u64 = 200_000;
const STEPS_PER_BYTE: u64 = 8;

/// Macros that every header finds defined, with their values: a 64-bit x86 program that is not the kernel.
const PREDEFINED: [(&str, i128); 12] = [
    ("__linux__", 1),
    ("__x86_64__", 1),
    ("__LP64__", 1),
    ("__GNUC__", 12),
    ("__STDC__", 1),
    ("__STDC_VERSION__", 201_112),
    ("__LITTLE_ENDIAN", 1234),
    ("__LITTLE_ENDIAN_BITFIELD", 1),
    ("__BYTE_ORDER", 1234),
    ("__BYTE_ORDER__", 1234),
    ("__ORDER_LITTLE_ENDIAN__", 1234),
    ("__BITS_PER_LONG", 64),
];

/// A header with what it includes.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The header.
    pub header: &'a Header,
    closure: &'a [Arc<Header>],
    left: Cell<u64>,
}

/// Why something has no value.
pub(crate) type Valued<T> = Result<T, String>;

impl<'a> Scope<'a> {
    /// The names of `header`, which includes `closure`.
    #[must_use]
    pub fn new(header: &'a Header, closure: &'a [Arc<Header>]) -> Self {
        let bytes = u64::try_from(header.text.len()).unwrap_or(u64::MAX);
        let left = STEPS.saturating_add(bytes.saturating_mul(STEPS_PER_BYTE));
        Self { header, closure, left: Cell::new(left) }
    }

    fn headers(&self) -> impl Iterator<Item = &'a Header> {
        std::iter::once(self.header).chain(self.closure.iter().map(Arc::as_ref))
    }

    pub(crate) fn find_macro(&self, name: &str) -> Option<(&'a Header, &'a Macro)> {
        self.headers().find_map(|header| header.find_macro(name).map(|found| (header, found)))
    }

    /// Whether a macro has this name.
    pub(crate) fn is_defined(&self, name: &str) -> bool {
        PREDEFINED.iter().any(|(known, _)| *known == name) || self.find_macro(name).is_some()
    }

    /// The structure or union with this tag.
    #[must_use]
    pub fn find_record(&self, tag: Tag, name: &str) -> Option<(&'a Header, &'a Record)> {
        self.headers().find_map(|header| header.find_record(tag, name).map(|found| (header, found)))
    }

    /// The typedef with this name.
    #[must_use]
    pub fn find_typedef(&self, name: &str) -> Option<(&'a Header, &'a Type)> {
        self.headers().find_map(|header| header.typedefs.get(name).map(|found| (header, found)))
    }

    /// Whether a name is a member of an enum.
    pub(crate) fn is_enumerator(&self, name: &str) -> bool {
        self.headers().any(|header| header.enumerator(name).is_some())
    }

    /// One step of work.
    pub(crate) fn step(&self) -> Valued<()> {
        let left = self.left.get().checked_sub(1).ok_or("evaluating this header takes too long")?;
        self.left.set(left);
        Ok(())
    }

    /// Whether the text behind `#if` holds.
    pub(crate) fn condition(&self, text: &str) -> Valued<bool> {
        let tokens = tokens(text);
        self.evaluate(&tokens, true, 0).map(|value| value != 0)
    }

    /// The value of a constant expression.
    ///
    /// # Errors
    /// In words, what in it is not understood.
    pub fn value(&self, text: &str) -> Valued<i128> {
        self.evaluate(&tokens(text), false, 0)
    }

    /// The value of a name: an enumerator's or a macro's.
    ///
    /// # Errors
    /// In words.
    pub fn constant(&self, name: &str) -> Valued<i128> {
        self.evaluate(&[Token::Name(name)], false, 0)
    }

    pub(crate) fn evaluate(&self, tokens: &[Token<'_>], condition: bool, depth: u32) -> Valued<i128> {
        let mut parser = Parser { scope: self, tokens, at: 0, condition, depth };
        let value = parser.ternary()?;
        match parser.peek() {
            None => Ok(value),
            Some(token) => Err(format!("{} is not expected there", show(token))),
        }
    }

    /// The value of a name that stands alone.
    fn name(&self, name: &str, condition: bool, depth: u32) -> Valued<i128> {
        if let Some((header, found)) = self.find_macro(name)
            && found.parameters.is_none()
        {
            let body = tokens(header.at(&found.body));
            if body != [Token::Name(name)] {
                return self.evaluate(&body, condition, depth + 1);
            }
        }
        if let Some((_, value)) = PREDEFINED.iter().find(|(known, _)| *known == name) {
            return Ok(*value);
        }
        let enumerator = self.headers().find_map(|header| header.enumerator(name));
        match enumerator {
            Some(value) => value.clone(),
            None if condition => Ok(0),
            None => Err(format!("{name} is not defined in this header or in those it includes")),
        }
    }

    /// What a call of a macro stands for.
    pub(crate) fn expand<'b>(&self, name: &str, arguments: &[&[Token<'b>]]) -> Option<Vec<Token<'b>>>
    where
        'a: 'b,
    {
        let (header, found) = self.find_macro(name)?;
        let parameters = found.parameters.as_ref()?;
        if parameters.len() != arguments.len() {
            return None;
        }
        let mut out = Vec::new();
        for token in tokens(header.at(&found.body)) {
            let argument = match token {
                Token::Name(name) => parameters.iter().position(|parameter| parameter == name),
                _ => None,
            };
            match argument {
                Some(index) => out.extend_from_slice(arguments[index]),
                None => out.push(token),
            }
        }
        Some(out)
    }

    /// Bytes of a type that is written as `tokens`.
    pub(crate) fn size_of(&self, tokens: &[Token<'_>], depth: u32) -> Valued<u64> {
        let of = type_of(tokens).ok_or_else(|| format!("{} is no type", show_all(tokens)))?;
        let room = super::layout::room(self, self.header, &of, super::types::Target::X86_64, depth + 1)?;
        Ok(room.size)
    }
}

/// The type that tokens of a macro or a `sizeof` name.
pub(crate) fn type_of(tokens: &[Token<'_>]) -> Option<Type> {
    let words: Option<Vec<&str>> = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Name("const" | "volatile")))
        .map(|token| match token {
            Token::Name(name) | Token::Sign(name @ "*") => Some(*name),
            _ => None,
        })
        .collect();
    Some(match words?.as_slice() {
        [.., "*"] => Type::Pointer,
        ["struct", name] => Type::Tagged(Tag::Struct, (*name).to_owned()),
        ["union", name] => Type::Tagged(Tag::Union, (*name).to_owned()),
        ["enum", name] => Type::Tagged(Tag::Enum, (*name).to_owned()),
        words => match (Plain::worded(words), words) {
            (Some(plain), _) => Type::Plain(plain, words.join(" ")),
            (None, [name]) => Type::Named((*name).to_owned()),
            _ => return None,
        },
    })
}

pub(crate) fn show(token: Token<'_>) -> String {
    match token {
        Token::Name(text) | Token::Sign(text) => format!("`{text}`"),
        Token::Number(number) => format!("`{number}`"),
        Token::Other => String::from("a text"),
    }
}

pub(crate) fn show_all(tokens: &[Token<'_>]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Name(text) | Token::Sign(text) => (*text).to_owned(),
            Token::Number(number) => number.to_string(),
            Token::Other => String::from("?"),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Splits tokens at commas that stand in no bracket.
pub(crate) fn arguments<'t, 's>(tokens: &'t [Token<'s>]) -> Vec<&'t [Token<'s>]> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0i32);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign("(" | "[" | "{") => depth += 1,
            Token::Sign(")" | "]" | "}") => depth -= 1,
            Token::Sign(",") if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !tokens.is_empty() {
        parts.push(&tokens[start..]);
    }
    parts
}

/// The tokens between the bracket at `open` and the one that closes it, and where that is.
pub(crate) fn bracketed<'t, 's>(tokens: &'t [Token<'s>], open: usize) -> Option<(&'t [Token<'s>], usize)> {
    let mut depth = 0u32;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign("(") => depth += 1,
            Token::Sign(")") => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some((&tokens[open + 1..at], at));
                }
            }
            _ => {}
        }
    }
    None
}

struct Parser<'p, 't, 's> {
    scope: &'p Scope<'p>,
    tokens: &'t [Token<'s>],
    at: usize,
    condition: bool,
    depth: u32,
}

/// Binary operators by how tightly they bind.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<", ">", "<=", ">="],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

fn binary(sign: &str, a: i128, b: i128) -> Option<i128> {
    let truth = i128::from;
    let shift = |b: i128| u32::try_from(b).ok().filter(|bits| *bits < 64);
    match sign {
        "||" => Some(truth(a != 0 || b != 0)),
        "&&" => Some(truth(a != 0 && b != 0)),
        "|" => Some(a | b),
        "^" => Some(a ^ b),
        "&" => Some(a & b),
        "==" => Some(truth(a == b)),
        "!=" => Some(truth(a != b)),
        "<" => Some(truth(a < b)),
        ">" => Some(truth(a > b)),
        "<=" => Some(truth(a <= b)),
        ">=" => Some(truth(a >= b)),
        "<<" => a.checked_mul(1 << shift(b)?),
        ">>" => Some(a >> shift(b)?),
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" => a.checked_div(b),
        "%" => a.checked_rem(b),
        _ => None,
    }
}

impl<'s> Parser<'_, '_, 's> {
    fn peek(&self) -> Option<Token<'s>> {
        self.tokens.get(self.at).copied()
    }

    fn eat(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Sign(found)) if found == sign);
        self.at += usize::from(there);
        there
    }

    fn want(&mut self, sign: &str) -> Valued<()> {
        if self.eat(sign) { Ok(()) } else { Err(format!("`{sign}` is missing")) }
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Valued<T>) -> Valued<T> {
        self.scope.step()?;
        if self.depth >= DEEPEST {
            return Err(String::from("it is nested too deep"));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn ternary(&mut self) -> Valued<i128> {
        let condition = self.level(0)?;
        if !self.eat("?") {
            return Ok(condition);
        }
        let then = self.deeper(Self::ternary)?;
        self.want(":")?;
        let otherwise = self.deeper(Self::ternary)?;
        Ok(if condition != 0 { then } else { otherwise })
    }

    fn level(&mut self, level: usize) -> Valued<i128> {
        let Some(signs) = LEVELS.get(level) else { return self.unary() };
        let mut value = self.level(level + 1)?;
        while let Some(Token::Sign(sign)) = self.peek()
            && signs.contains(&sign)
        {
            self.scope.step()?;
            self.at += 1;
            let other = self.level(level + 1)?;
            value = binary(sign, value, other).ok_or_else(|| format!("`{sign}` has no result there"))?;
        }
        Ok(value)
    }

    fn unary(&mut self) -> Valued<i128> {
        let token = self.peek().ok_or("the expression ends too early")?;
        self.at += 1;
        match token {
            Token::Number(number) => Ok(number),
            Token::Sign("-") => self.deeper(Self::unary).map(i128::wrapping_neg),
            Token::Sign("+") => self.deeper(Self::unary),
            Token::Sign("~") => self.deeper(Self::unary).map(|value| !value),
            Token::Sign("!") => self.deeper(Self::unary).map(|value| i128::from(value == 0)),
            Token::Sign("(") => self.bracket(),
            Token::Name("defined") if self.condition => self.defined(),
            Token::Name("sizeof") => self.size(),
            Token::Name(name) if matches!(self.peek(), Some(Token::Sign("("))) => self.call(name),
            Token::Name(name) => self.deeper(|this| this.scope.name(name, this.condition, this.depth)),
            other => Err(format!("{} is no value", show(other))),
        }
    }

    /// A cast, or an expression in brackets. The bracket is open.
    fn bracket(&mut self) -> Valued<i128> {
        let (inside, close) = bracketed(self.tokens, self.at - 1).ok_or("a bracket does not close")?;
        let cast = match type_of(inside) {
            Some(Type::Named(name)) => self.scope.find_typedef(&name).is_some(),
            Some(_) => true,
            None => false,
        };
        if cast {
            self.at = close + 1;
            return self.deeper(Self::unary);
        }
        let value = self.deeper(Self::ternary)?;
        self.want(")")?;
        Ok(value)
    }

    fn defined(&mut self) -> Valued<i128> {
        let bracket = self.eat("(");
        let Some(Token::Name(name)) = self.peek() else {
            return Err(String::from("`defined` wants a name"));
        };
        self.at += 1;
        if bracket {
            self.want(")")?;
        }
        Ok(i128::from(self.scope.is_defined(name)))
    }

    fn size(&mut self) -> Valued<i128> {
        let (inside, close) = bracketed(self.tokens, self.at).ok_or("`sizeof` wants a bracket")?;
        self.at = close + 1;
        let depth = self.depth;
        self.deeper(|this| this.scope.size_of(inside, depth).map(i128::from))
    }

    fn call(&mut self, name: &str) -> Valued<i128> {
        let (inside, close) = bracketed(self.tokens, self.at).ok_or("a bracket does not close")?;
        self.at = close + 1;
        let given = arguments(inside);
        let condition = self.condition;
        self.deeper(|this| {
            let one = |scope: &Scope<'_>| {
                let first = given.first().copied().unwrap_or(&[]);
                scope.evaluate(first, condition, this.depth)
            };
            match name {
                "_UL" | "_ULL" | "_AC" | "__AC" | "UL" | "ULL" | "__cpu_to_le32" | "__cpu_to_le16" => {
                    one(this.scope)
                }
                "_BITUL" | "_BITULL" | "BIT" | "BIT_ULL" => {
                    binary("<<", 1, one(this.scope)?).ok_or_else(|| format!("{name} has no such bit"))
                }
                _ if given.iter().map(|tokens| tokens.len()).sum::<usize>() > 4096 => {
                    Err(format!("{name} is given too much"))
                }
                _ => match this.scope.expand(name, &given) {
                    Some(body) if body.len() <= 16_384 => this.scope.evaluate(&body, condition, this.depth),
                    Some(_) => Err(format!("{name} stands for too much")),
                    None => Err(format!("{name}(…) is not understood")),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_alone;

    fn value(header: &str, expression: &str) -> Result<i128, String> {
        let loaded = read_alone("x.h", header);
        loaded.scope().value(expression)
    }

    #[test]
    fn arithmetic_as_in_c() {
        for (expression, want) in [
            ("1 + 2 * 3 - -4", 11),
            ("(1 << 4) | 0x0f & ~3", 28),
            ("1 ? 2 ? 3 : 4 : 5", 3),
            ("!0 && 3 > 2 || 0", 1),
            ("(__u64)1 << 40", 1 << 40),
            ("sizeof(__u32) * 3", 12),
            ("sizeof(struct s)", 16),
            ("B", 8),
            ("TWICE(A + 1)", 12),
            ("'a' % 10", 7),
            ("_BITUL(3) + _UL(1)", 9),
            ("LAST", 12),
        ] {
            let header = "#define A 5\n#define B (A + 3)\n#define TWICE(x) (x + x)\nenum { ONE = 10, TWO, LAST };\n\
                          struct s { __u64 a; __u32 b; };\n";
            assert_eq!(value(header, expression), Ok(want), "{expression}");
        }
    }

    #[test]
    fn what_has_no_value_says_why() {
        for (expression, why) in [
            ("A", "not defined"),
            ("1 +", "ends too early"),
            ("1 2", "not expected"),
            ("1 / 0", "no result"),
            ("1 << 64", "no result"),
            ("(1", "does not close"),
            ("f(1)", "not understood"),
            ("sizeof(struct none)", "struct none"),
            ("\"text\"", "no value"),
        ] {
            let why_not = value("", expression).expect_err(expression);
            assert!(why_not.contains(why), "{expression}: {why_not}");
        }
    }

    #[test]
    fn work_is_bounded() {
        let mut header = String::from("#define A0 1\n#define L L\n#define M N\n#define N M\n");
        for n in 1..60 {
            header.push_str(&format!("#define A{n} (A{} + A{})\n", n - 1, n - 1));
        }
        let never = |header: &str, expression: &str| value(header, expression).expect_err("no value");
        never(&header, "A59");
        assert_eq!(value(&header, "A4"), Ok(16));
        never(&header, "L");
        never(&header, "M");
        never("", &"(".repeat(100_000));
        never("", &"-".repeat(100_000));
        never("", &format!("{}1", "1?1:".repeat(100_000)));
    }
}
