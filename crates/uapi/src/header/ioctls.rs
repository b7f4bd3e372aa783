//! Ioctl commands: macros that stand for `_IO`, `_IOR`, `_IOW` or `_IOWR`, and the structure that each passes.
//!
//! A number made by `_IO` does not say which structure it passes. Headers tell it elsewhere, and all these are believed,
//! in this order: kernel-doc of a structure that says `ioctl(NAME)`, or has the name of the command as its subject; a
//! comment before the macro that shows the number as `_IOR(…, struct x)`; a structure with the macro's name in small
//! letters.

use super::items::{Header, Macro, Record, Span};
use super::scope::Scope;
use super::types::{Tag, Type};
use super::{Token, arguments, bracketed, show_all, tokens, type_of};

/// Macros within macros.
const DEEPEST: u32 = 8;

/// What the direction bits of a number say, as the program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// `_IO`: nothing said.
    None,
    /// `_IOW`: the program gives.
    Write,
    /// `_IOR`: the program gets.
    Read,
    /// `_IOWR`: both.
    Both,
}

impl Transfer {
    /// Bits 31:30 of the number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Write => 1,
            Self::Read => 2,
            Self::Both => 3,
        }
    }

    /// The direction bits of a number.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number >> 30 {
            1 => Self::Write,
            2 => Self::Read,
            3 => Self::Both,
            _ => Self::None,
        }
    }

    /// The macro that makes such a number.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "_IO",
            Self::Write => "_IOW",
            Self::Read => "_IOR",
            Self::Both => "_IOWR",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::None, Self::Write, Self::Read, Self::Both].into_iter().find(|transfer| transfer.word() == name)
    }
}

/// A command as its macro makes it.
#[derive(Clone, Debug)]
pub struct Ioctl {
    /// The macro's name.
    pub name: String,
    /// The name's place.
    pub span: Span,
    /// The macro's body.
    pub body: Span,
    /// What the direction bits say.
    pub transfer: Transfer,
    /// The type byte.
    pub kind: Result<u32, String>,
    /// The command number, bits 7:0.
    pub nr: Result<u32, String>,
    /// The command number as it is written.
    pub nr_text: String,
    /// The type whose size is in the number, as it is written.
    pub argument: Option<(Type, String)>,
    /// Its size in bytes.
    pub size: Result<u64, String>,
    /// The comment before the macro.
    pub comment: Option<Span>,
}

impl Ioctl {
    /// The whole number as passed to `ioctl(2)`.
    ///
    /// # Errors
    /// In words, which part of it is not known.
    pub fn number(&self) -> Result<u32, String> {
        let size = u32::try_from(self.size.clone()?).unwrap_or(u32::MAX);
        if size > 0x3fff {
            return Err(format!("{size} bytes do not fit in the number"));
        }
        Ok(self.transfer.bits() << 30 | size << 16 | self.kind.clone()? << 8 | self.nr.clone()?)
    }
}

/// The commands of the header, in order of their macros. Macros that are no longer defined at the end are left out.
#[must_use]
pub fn ioctls(scope: &Scope<'_>) -> Vec<Ioctl> {
    let header = scope.header;
    let defined = header.macros.iter().filter(|made| {
        header.find_macro(&made.name).is_some_and(|last| last.span == made.span) && made.parameters.is_none()
    });
    defined.filter_map(|made| ioctl(scope, made)).collect()
}

fn ioctl(scope: &Scope<'_>, made: &Macro) -> Option<Ioctl> {
    let body = scope.header.at(&made.body);
    if !body.contains('(') {
        return None;
    }
    let (transfer, parts) = call(scope, &tokens(body), 0)?;
    let byte = |part: Option<&Vec<Token<'_>>>| {
        let part = part.ok_or_else(|| String::from("it is missing"))?;
        let value = scope.evaluate(part, false, 0)?;
        u32::try_from(value)
            .ok()
            .filter(|value| *value < 256)
            .ok_or_else(|| format!("{value} is more than a byte"))
    };
    let argument = parts.get(2).map(|part| {
        let text = show_all(part);
        (type_of(part).unwrap_or_else(|| Type::Unknown(text.clone())), text)
    });
    let size = match (&argument, parts.get(2)) {
        (Some(_), Some(part)) => scope.size_of(part, 0),
        _ => Ok(0),
    };
    Some(Ioctl {
        name: made.name.clone(),
        span: made.span.clone(),
        body: made.body.clone(),
        transfer,
        kind: byte(parts.first()),
        nr: byte(parts.get(1)),
        nr_text: parts.get(1).map(|part| show_all(part)).unwrap_or_default(),
        argument,
        size,
        comment: made.comment.clone(),
    })
}

/// The call of `_IO` or one of its kind that the tokens stand for.
fn call<'s>(scope: &Scope<'s>, tokens: &[Token<'s>], depth: u32) -> Option<(Transfer, Vec<Vec<Token<'s>>>)> {
    scope.step().ok()?;
    match tokens {
        [Token::Sign("("), ..] => {
            let (inside, close) = bracketed(tokens, 0)?;
            if close + 1 == tokens.len() { call(scope, inside, depth + 1) } else { None }
        }
        [Token::Name(name), Token::Sign("("), ..] if depth < DEEPEST => {
            let (inside, close) = bracketed(tokens, 1)?;
            if close + 1 != tokens.len() {
                return None;
            }
            let parts = arguments(inside);
            match Transfer::named(name) {
                Some(transfer) => Some((transfer, parts.into_iter().map(<[Token<'s>]>::to_vec).collect())),
                None => call(scope, &expand(scope, name, &parts)?, depth + 1),
            }
        }
        _ => None,
    }
}

fn expand<'s>(scope: &Scope<'s>, name: &str, parts: &[&[Token<'s>]]) -> Option<Vec<Token<'s>>> {
    let body = scope.expand(name, parts)?;
    (body.len() <= 1024).then_some(body)
}

/// The structure that the command passes, and where it is declared.
#[must_use]
pub fn structure<'s>(scope: &Scope<'s>, ioctl: &Ioctl) -> Option<(&'s Header, &'s Record)> {
    if let Some((of, _)) = &ioctl.argument {
        return match of {
            Type::Tagged(tag, name) => scope.find_record(*tag, name),
            _ => None,
        };
    }
    if ioctl.transfer != Transfer::None {
        return None;
    }
    documented(scope, ioctl)
        .or_else(|| commented(scope, ioctl))
        .or_else(|| scope.find_record(Tag::Struct, &ioctl.name.to_ascii_lowercase()))
}

fn documented<'s>(scope: &Scope<'s>, ioctl: &Ioctl) -> Option<(&'s Header, &'s Record)> {
    let says = |record: &&Record| {
        record
            .doc
            .as_ref()
            .is_some_and(|doc| doc.subject == ioctl.name || doc.ioctls().any(|name| name == ioctl.name))
    };
    scope.header.records.iter().find(says).map(|record| (scope.header, record))
}

fn commented<'s>(scope: &Scope<'s>, ioctl: &Ioctl) -> Option<(&'s Header, &'s Record)> {
    let comment = scope.header.at(ioctl.comment.as_ref()?);
    let shown = ["_IOWR(", "_IOW(", "_IOR("].into_iter().find_map(|word| {
        let rest = comment.split_once(word)?.1;
        rest.split_once(')').map(|(inside, _)| inside)
    })?;
    let name = shown.split_once("struct ")?.1.trim();
    scope.find_record(Tag::Struct, name)
}

#[cfg(test)]
mod tests {
    use super::super::read_alone;
    use super::*;

    #[test]
    fn numbers_of_every_form() {
        let text = "#define T 'x'\nenum { BASE = 0x40, ONE = BASE, TWO };\nstruct s { __u32 a; };\n\
            #define A _IO(T, TWO)\n#define B (_IOW(T, ONE + 1, struct s))\n#define MY(nr, t) _IOWR(T, nr, t)\n\
            #define C MY(3, struct s)\n#define D _IOR(T, 4, __u64)\n#define E A\n#define F(x) _IO(T, x)\n\
            #define G _IOR(T, 5, struct none)\n#define H _IO(T, 300)\n";
        let loaded = read_alone("x.h", text);
        let found = ioctls(&loaded.scope());
        let numbers: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.number().ok())).collect();
        assert_eq!(
            numbers,
            [
                ("A", Some(0x7841)),
                ("B", Some(0x4004_7841)),
                ("C", Some(0xc004_7803)),
                ("D", Some(0x8008_7804)),
                ("G", None),
                ("H", None),
            ]
        );
        assert_eq!((found[1].nr_text.as_str(), found[0].nr_text.as_str()), ("ONE + 1", "TWO"));
    }

    #[test]
    fn structures_are_found_by_what_headers_say() {
        let text = "/** struct p - ioctl(DO_P)\n */\nstruct p { __u32 size; };\n#define DO_P _IO(1, 1)\n\
            struct do_q { __u32 size; };\n#define DO_Q _IO(1, 2)\nstruct r { __u32 size; };\n\
            /* DO_R - _IOR(1, 3, struct r) */\n#define DO_R _IO(1, 3)\n#define DO_S _IO(1, 4)\n\
            #define DO_T _IOW(1, 5, struct r)\n\
            /** DO_U - it does\n */\nstruct u { __u32 size; };\n#define DO_U _IO(1, 6)\n";
        let loaded = read_alone("x.h", text);
        let scope = loaded.scope();
        let found = ioctls(&scope);
        let names: Vec<_> = found
            .iter()
            .map(|one| structure(&scope, one).and_then(|(_, record)| record.name.as_deref()))
            .collect();
        assert_eq!(names, [Some("p"), Some("do_q"), Some("r"), None, Some("r"), Some("u")]);
    }

    #[test]
    fn macros_that_go_in_circles_end() {
        let loaded = read_alone(
            "x.h",
            "#define A(x) B(x)\n#define B(x) A(x)\n#define C A(1)\n#define D ((((((((((1\n",
        );
        assert!(ioctls(&loaded.scope()).is_empty());
    }
}
