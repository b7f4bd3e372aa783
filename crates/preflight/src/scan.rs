//! Looking for a kernel's strings in its loaded bytes.
//!
//! A version string counts only if it stands alone: a NUL behind it, and before it nothing that could belong to a
//! longer text. So `FDT is incompatible with 'kho-v4'`, a path or an option that ends alike are not taken for it. What
//! is before it need not be a NUL: strings of a compiler's string section follow each other, but the first follows
//! whatever the linker put there, and the name of a handler is a field behind pointers.

use std::collections::BTreeSet;

use memchr::memmem;

use crate::Config;
use crate::formats;

/// The longest name of a handler in a file record, without its NUL.
const LONGEST: usize = 47;

/// Said while booting by a kernel that knows KHO and is built without it, if it was handed anything.
const BUILT_WITHOUT: &[u8] = b"CONFIG_KEXEC_HANDOVER not set";

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Version strings of the families that matter.
    pub(crate) strings: BTreeSet<String>,
    /// The release in the kernel's banner.
    pub(crate) release: Option<String>,
    /// The build configuration, if it is embedded.
    pub(crate) config: Option<Config>,
    /// Whether it would say that it is built without KHO.
    pub(crate) built_without: bool,
}

impl Found {
    /// Looks through one run of bytes; strings do not go from one to the next.
    pub(crate) fn look(&mut self, bytes: &[u8]) {
        for marker in [b"-v", b"_v"] {
            self.strings.extend(
                memmem::find_iter(bytes, marker)
                    .filter_map(|at| alone(bytes, at))
                    .filter(|text| formats::wanted(text))
                    .map(str::to_owned),
            );
        }
        if self.release.is_none() {
            self.release = banner(bytes);
        }
        if self.config.is_none() {
            self.config = Config::find(bytes);
        }
        self.built_without |= memmem::find(bytes, BUILT_WITHOUT).is_some();
    }
}

fn printable(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) || byte == b'\t' || byte == b'\n'
}

/// The string around `at`, if it stands alone and is short enough to be one.
fn alone(bytes: &[u8], at: usize) -> Option<&str> {
    let window = bytes.get(at..bytes.len().min(at + LONGEST + 1))?;
    let end = at + memchr::memchr(0, window)?;
    let floor = end.saturating_sub(LONGEST + 1);
    let before = bytes.get(floor..at)?;
    let start = before.iter().rposition(|byte| !printable(*byte)).map_or(floor, |index| floor + index + 1);
    if start == floor && floor > 0 {
        return None;
    }
    std::str::from_utf8(bytes.get(start..end)?).ok()
}

/// The release in `Linux version RELEASE (who built it) …`.
fn banner(bytes: &[u8]) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    memmem::find_iter(bytes, START).find_map(|at| {
        let rest = bytes.get(at + START.len()..)?;
        release(rest)
    })
}

/// A release at the beginning of `bytes`, followed by ` (`; at most the 64 bytes that `uname` has for it.
pub(crate) fn release(bytes: &[u8]) -> Option<String> {
    let rest = bytes.get(..bytes.len().min(66))?;
    let end = rest.windows(2).position(|pair| pair == b" (")?;
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    let good = text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(bytes: &[u8]) -> Vec<String> {
        let mut found = Found::default();
        found.look(bytes);
        found.strings.into_iter().collect()
    }

    #[test]
    fn whole_strings_are_found_wherever_they_stand() {
        assert_eq!(strings(b"\0kho-v4\0luo-v5\0"), ["kho-v4", "luo-v5"]);
        assert_eq!(strings(b"kho-v1\0"), ["kho-v1"]);
        assert_eq!(strings(b"\x10\x20\x30\x81\xff\xff\xff\xffmemfd-v2\0\0\0"), ["memfd-v2"]);
        assert_eq!(strings(b"\0kvm_vm_luo_v1\0"), ["kvm_vm_luo_v1"]);
    }

    #[test]
    fn parts_of_something_else_are_not() {
        for text in [
            &b"\0incompatible with 'kho-v4'\0"[..],
            b"\0incompatible with kho-v4\0",
            b"\0kho-v4: bad\0",
            b"\0kho-v4\n\0",
            b"\0xkho-v4\0",
            b"\0/kho-v4\0",
            b"\0kho-v4x\0",
            b"\0kho-v4",
            b"\0luo-v5,kho-v4\0",
            b"\0luo-v\0",
        ] {
            assert!(strings(text).is_empty(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_tail_of_a_long_text_is_not_a_string() {
        let text = [vec![b'a'; 60], b"-v1\0".to_vec()].concat();
        assert!(strings(&text).is_empty());
        let text = [b"\0".to_vec(), vec![b' '; 60], b"kho-v4\0".to_vec()].concat();
        assert!(strings(&text).is_empty());
    }

    #[test]
    fn the_banner_gives_the_release() {
        let found = |bytes: &[u8]| banner(bytes);
        assert_eq!(
            found(b"\0Linux version 7.1.0-12-amd64 (a@b) (gcc) #1 SMP\n\0").as_deref(),
            Some("7.1.0-12-amd64")
        );
        assert_eq!(found(b"Linux version %s\0Linux version 6.19.6 (x)").as_deref(), Some("6.19.6"));
        assert_eq!(found(b"Linux version 2.4 or newer is needed\0"), None);
        assert_eq!(found(b"Linux version 7.1"), None);
    }
}
