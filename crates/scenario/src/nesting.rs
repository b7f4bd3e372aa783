//! How a document is nested, before anything follows it: the library's parser uses the stack, most of all where it
//! recovers from errors.
//!
//! Told on the safe side: what opens counts wherever it stands, also in strings and comments; what closes must close
//! what was opened, and counts only where it surely closes.

/// Where the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Document,
    LineComment,
    /// In comments that nest, this many.
    Comment(usize),
    /// In a string with this many `#` around it; three quotes or one.
    Text {
        hashes: usize,
        quotes: usize,
    },
}

fn run(bytes: &[u8], byte: u8) -> usize {
    bytes.iter().take_while(|found| **found == byte).count()
}

/// Quotes and hashes that begin a string at `at`, if one begins there.
fn opens_text(bytes: &[u8], at: usize) -> Option<Place> {
    if bytes[at] != b'"' {
        return None;
    }
    let hashes = bytes[..at].iter().rev().take_while(|byte| **byte == b'#').count();
    let quotes = if bytes[at..].starts_with(b"\"\"\"") { 3 } else { 1 };
    Some(Place::Text { hashes, quotes })
}

/// Length of what ends the string at the start of `bytes`, if it ends there.
fn closes_text(bytes: &[u8], hashes: usize, quotes: usize) -> Option<usize> {
    let ends = run(bytes, b'"') >= quotes && run(&bytes[quotes..], b'#') >= hashes;
    ends.then_some(quotes + hashes)
}

/// Why a document is not worth following, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// More than the limit may be open here.
    TooDeep(usize),
    /// This closes nothing.
    Stray(usize),
}

/// What is wrong with the nesting of a document, if at most `limit` blocks, types and comments may be open.
pub(crate) fn check(bytes: &[u8], limit: usize) -> Result<(), Fault> {
    let (mut place, mut at) = (Place::Document, 0);
    let mut open: Vec<u8> = Vec::new();
    // What only looks as if it opened, in strings and comments: never closed.
    let mut hidden = 0;
    while at < bytes.len() {
        let (next, step) = advance(bytes, at, place);
        match bytes[at] {
            closer @ (b'}' | b')') if place == Place::Document => {
                let opener = if closer == b'}' { b'{' } else { b'(' };
                (open.pop() == Some(opener)).then_some(()).ok_or(Fault::Stray(at))?;
            }
            opener @ (b'{' | b'(') if place == Place::Document => open.push(opener),
            _ => {
                hidden += bytes[at..at + step.min(bytes.len() - at)]
                    .iter()
                    .filter(|b| matches!(b, b'{' | b'('))
                    .count();
            }
        }
        if open.len() + of(next) > limit || hidden > MAX_HIDDEN {
            return Err(Fault::TooDeep(at));
        }
        (place, at) = (next, at + step);
    }
    Ok(())
}

/// Brackets in strings and comments: more than a document of people and recorders has.
const MAX_HIDDEN: usize = 4096;

/// Comments that are open.
fn of(place: Place) -> usize {
    if let Place::Comment(open) = place { open } else { 0 }
}

/// Where the reader is after what stands at `at`, and how long that is.
fn advance(bytes: &[u8], at: usize, place: Place) -> (Place, usize) {
    let rest = &bytes[at..];
    match place {
        Place::Document if rest.starts_with(b"//") => (Place::LineComment, 2),
        Place::Document if rest.starts_with(b"/*") => (Place::Comment(1), 2),
        Place::Document => match opens_text(bytes, at) {
            Some(text @ Place::Text { quotes, .. }) => (text, quotes),
            _ => (Place::Document, 1),
        },
        Place::LineComment if rest[0] == b'\n' => (Place::Document, 1),
        Place::LineComment => (place, 1),
        Place::Comment(open) if rest.starts_with(b"/*") => (Place::Comment(open + 1), 2),
        Place::Comment(1) if rest.starts_with(b"*/") => (Place::Document, 2),
        Place::Comment(open) if rest.starts_with(b"*/") => (Place::Comment(open - 1), 2),
        Place::Comment(_) => (place, 1),
        Place::Text { hashes: 0, .. } if rest[0] == b'\\' => (place, 2),
        Place::Text { hashes, quotes } => match closes_text(rest, hashes, quotes) {
            Some(len) => (Place::Document, len),
            None => (place, 1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_closes_counts() {
        for (piece, good) in [
            ("a { b }\n", true),
            ("a #\"}\"# \"{\"\n", true),
            ("a \"}\" {", false),
            ("a #\"\"}\"# {", false),
            ("a {//}\n", false),
            ("/*", false),
            ("/* */", true),
            ("/*/", false),
            ("(a)b ", true),
            ("a \"\"\"\n}\n\"\"\" {", false),
            ("a \"\\\"}\" {", false),
            ("}", false),
            ("{)", false),
            ("\"\\{\" {", false),
        ] {
            let document = piece.repeat(200);
            assert_eq!(check(document.as_bytes(), 64).is_ok(), good, "{piece:?}");
        }
        assert_eq!(check(b"a {}}", 64), Err(Fault::Stray(4)));
        assert_eq!(check(b"a {{{", 2), Err(Fault::TooDeep(4)));
    }
}
