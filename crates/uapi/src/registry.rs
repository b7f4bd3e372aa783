//! The list of registered type bytes, in the form of the kernel's `ioctl-number.rst`: a table with the byte, a range of
//! command numbers, the header that has them, and a comment.
//!
//! ```text
//! ====  =====  ======================  ========
//! Code  Seq#    Include File           Comments
//!       (hex)
//! ====  =====  ======================  ========
//! 0xBA  00-0F  uapi/linux/liveupdate.h Pasha Tatashin
//! 'k'   all    linux/spi/spidev.h      conflict!
//! ====  =====  ======================  ========
//! ```
//!
//! Lines that are no row are passed over: the list is prose around a table.

/// Numbers of one type byte that a header has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The type byte.
    pub kind: u32,
    /// First command number.
    pub first: u32,
    /// Last command number.
    pub last: u32,
    /// The header.
    pub header: String,
    /// The line of the list.
    pub line: usize,
}

impl Owner {
    /// Whether a header of this path is meant: the end of its path is that of the entry.
    #[must_use]
    pub fn is(&self, path: &str) -> bool {
        let parts = |path: &str| -> Vec<String> {
            let kept = path.split('/').filter(|part| !matches!(*part, "" | "include" | "uapi"));
            kept.map(str::to_owned).collect()
        };
        let (ours, theirs) = (parts(&self.header), parts(path));
        !ours.is_empty() && (theirs.ends_with(&ours) || theirs.len() == 1 && ours.ends_with(&theirs))
    }
}

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Its rows, in order.
    pub owners: Vec<Owner>,
}

impl Registry {
    /// Reads a list. Nothing is an error: a text without rows is an empty list.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { owners: text.lines().zip(1..).filter_map(|(line, number)| row(line, number)).collect() }
    }

    /// The rows that have this number.
    pub fn owners(&self, kind: u32, nr: u32) -> impl Iterator<Item = &Owner> {
        self.owners.iter().filter(move |owner| owner.kind == kind && (owner.first..=owner.last).contains(&nr))
    }
}

fn row(line: &str, number: usize) -> Option<Owner> {
    // A character may be a space.
    let (kind, rest) = match line.strip_prefix('\'') {
        Some(rest) => {
            let (letter, rest) = rest.split_once('\'')?;
            let mut letters = letter.chars();
            let kind = letters.next().map(u32::from)?;
            (letters.next().is_none().then_some(kind)?, rest)
        }
        None => {
            let (word, rest) = line.split_once(char::is_whitespace)?;
            (u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()?, rest)
        }
    };
    let mut words = rest.split_whitespace();
    let (first, last) = range(words.next()?)?;
    let header = words.next()?.trim_end_matches([',', '!']);
    let is_path = header.contains('/') || header.ends_with(".h");
    (kind < 256 && is_path).then(|| Owner { kind, first, last, header: header.to_owned(), line: number })
}

fn range(text: &str) -> Option<(u32, u32)> {
    if text == "all" {
        return Some((0, 255));
    }
    let number = |text: &str| u32::from_str_radix(text, 16).ok().filter(|number| *number < 256);
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(text).map(|only| (only, only)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_form_are_read() {
        let text = "Some prose 0x12 here.\n====  =====  =======\nCode  Seq#    Include File\n      (hex)\n====\n\
            0x00  01-02  linux/fs.h     conflict!\n' '   all    linux/space.h\n'k'   00-0F  linux/spi/spidev.h   conflict!\n\
            0xBA  00-0F  uapi/linux/liveupdate.h   Pasha\n'W'   03     include/linux/watch.h\n0xZZ  00  x.h\n0x10  20-8F\n\
            '?'   00-1F  arch/um/include/asm/x.h,\n";
        let registry = Registry::parse(text);
        let rows: Vec<_> =
            registry.owners.iter().map(|one| (one.kind, one.first, one.last, one.line)).collect();
        assert_eq!(
            rows,
            [
                (0, 1, 2, 6),
                (32, 0, 255, 7),
                (107, 0, 15, 8),
                (0xba, 0, 15, 9),
                (87, 3, 3, 10),
                (63, 0, 31, 13),
            ]
        );
        assert_eq!(registry.owners(0xba, 15).count(), 1);
        assert_eq!(registry.owners(0xba, 16).count(), 0);
    }

    #[test]
    fn headers_are_known_by_the_ends_of_their_paths() {
        let owner = |header: &str| Owner { kind: 0, first: 0, last: 0, header: header.to_owned(), line: 1 };
        assert!(owner("uapi/linux/liveupdate.h").is("/usr/include/linux/liveupdate.h"));
        assert!(owner("linux/liveupdate.h").is("liveupdate.h"));
        assert!(!owner("linux/other/liveupdate.h").is("/usr/include/linux/liveupdate.h"));
        assert!(!owner("linux/fs.h").is("/usr/include/linux/vfs.h"));
    }

    #[test]
    fn any_text_is_a_list() {
        for text in ["", "'", "''", "0x", "'ab' 0 x.h", "0xBA zz x.h", "'\u{20ac}' 00 x.h", "\u{20ac}"] {
            assert_eq!(Registry::parse(text).owners.len(), 0, "{text}");
        }
    }
}
