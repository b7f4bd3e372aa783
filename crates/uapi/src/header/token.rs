//! C in tokens, as far as constants, macros and types in macros need it.
//!
//! Comments and line continuations are space. What is no token of C is one of its own, which no expression has a use for.

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A name or keyword.
    Name(&'a str),
    /// A whole number or a character.
    Number(i128),
    /// An operator or a bracket.
    Sign(&'a str),
    /// A text, a number with a point, a stray character.
    Other,
}

const SIGNS: [&str; 18] = [
    "<<=", ">>=", "...", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "##", "->", "++", "--", "+=", "-=",
    "*=",
];

/// Splits `text`.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = skip(rest) {
        let (token, length) = one(start);
        out.push(token);
        rest = &start[length..];
    }
    out
}

/// What follows spaces and comments; nothing at the end.
fn skip(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\\');
        if let Some(comment) = text.strip_prefix("/*") {
            text = comment.split_once("*/").map_or("", |(_, rest)| rest);
        } else if let Some(comment) = text.strip_prefix("//") {
            text = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else {
            return (!text.is_empty()).then_some(text);
        }
    }
}

/// Bytes at the start of `text` for which `good` holds.
fn run(text: &str, good: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !good(letter)).unwrap_or(text.len())
}

/// The token at the start of `text`, which is not empty, and its bytes.
fn one(text: &str) -> (Token<'_>, usize) {
    let first = text.chars().next().unwrap_or(' ');
    if first.is_ascii_alphabetic() || first == '_' {
        let length = run(text, |letter| letter.is_ascii_alphanumeric() || letter == '_');
        return (Token::Name(&text[..length]), length);
    }
    if first.is_ascii_digit() {
        let length = run(text, |letter| letter.is_ascii_alphanumeric() || letter == '.');
        return (number(&text[..length]).map_or(Token::Other, Token::Number), length);
    }
    if first == '\'' || first == '"' {
        return quoted(text, first);
    }
    if let Some(sign) = SIGNS.iter().find(|sign| text.starts_with(**sign)) {
        return (Token::Sign(&text[..sign.len()]), sign.len());
    }
    let length = first.len_utf8();
    let token = if first.is_ascii_punctuation() { Token::Sign(&text[..length]) } else { Token::Other };
    (token, length)
}

/// A whole number with its suffix.
fn number(text: &str) -> Option<i128> {
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return i128::from_str_radix(hex, 16).ok();
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return i128::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

/// A character or a text.
fn quoted(text: &str, quote: char) -> (Token<'_>, usize) {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if letter == '\n' {
            break;
        }
        if letter == quote && !escaped {
            let inside = &text[1..at];
            let value = if quote == '\'' { character(inside) } else { None };
            return (value.map_or(Token::Other, Token::Number), at + 1);
        }
        escaped = letter == '\\' && !escaped;
    }
    (Token::Other, 1)
}

fn character(text: &str) -> Option<i128> {
    let mut letters = text.chars();
    let value = match (letters.next()?, letters.next()) {
        ('\\', Some('n')) => 10,
        ('\\', Some('t')) => 9,
        ('\\', Some('0')) => 0,
        ('\\', Some(letter)) => u32::from(letter),
        (letter, None) => u32::from(letter),
        _ => return None,
    };
    letters.next().is_none().then_some(i128::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_signs() {
        let found = tokens("(FOO_BASE + 0x1fUL) /* why */ << 07 \\\n ';' // end");
        let want = [
            Token::Sign("("),
            Token::Name("FOO_BASE"),
            Token::Sign("+"),
            Token::Number(31),
            Token::Sign(")"),
            Token::Sign("<<"),
            Token::Number(7),
            Token::Number(59),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn what_is_no_token_of_c_is_kept_as_such() {
        assert_eq!(
            tokens("1.5 \"a\\\"b\" @ 'ab'"),
            [Token::Other, Token::Other, Token::Sign("@"), Token::Other]
        );
        assert_eq!(tokens("'\\n' '\\\\'"), [Token::Number(10), Token::Number(92)]);
        assert_eq!(tokens("\u{e9}\""), [Token::Other, Token::Other]);
        assert_eq!(tokens("/* never closed"), []);
    }
}
