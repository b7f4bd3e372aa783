//! Numbers, sizes and flag names as scenarios write them.

/// Flags of `open`, by name.
pub(crate) const OPEN_FLAGS: &[(&str, u64)] = &[
    ("O_RDONLY", 0),
    ("O_WRONLY", 0o1),
    ("O_RDWR", 0o2),
    ("O_CREAT", 0o100),
    ("O_EXCL", 0o200),
    ("O_TRUNC", 0o1000),
    ("O_APPEND", 0o2000),
    ("O_NONBLOCK", 0o4000),
    ("O_DIRECTORY", 0o200_000),
    ("O_CLOEXEC", 0o2_000_000),
    ("O_PATH", 0o10_000_000),
    ("O_TMPFILE", 0o20_200_000),
];

/// Flags of `memfd_create`, by name.
pub(crate) const MEMFD_FLAGS: &[(&str, u64)] = &[
    ("MFD_CLOEXEC", 1),
    ("MFD_ALLOW_SEALING", 2),
    ("MFD_HUGETLB", 4),
    ("MFD_NOEXEC_SEAL", 8),
    ("MFD_EXEC", 0x10),
];

/// Modes of `fallocate`, by name.
pub(crate) const FALLOC_FLAGS: &[(&str, u64)] = &[
    ("FALLOC_FL_KEEP_SIZE", 1),
    ("FALLOC_FL_PUNCH_HOLE", 2),
    ("FALLOC_FL_COLLAPSE_RANGE", 8),
    ("FALLOC_FL_ZERO_RANGE", 0x10),
    ("FALLOC_FL_INSERT_RANGE", 0x20),
];

/// Seals, by name.
pub(crate) const SEALS: &[(&str, u64)] = &[
    ("F_SEAL_SEAL", 1),
    ("F_SEAL_SHRINK", 2),
    ("F_SEAL_GROW", 4),
    ("F_SEAL_WRITE", 8),
    ("F_SEAL_FUTURE_WRITE", 0x10),
    ("F_SEAL_EXEC", 0x20),
];

/// A size: a number, or numbers with `KiB`, `MiB`, `GiB`, `TiB` joined by `+` or `-`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    let mut minus = false;
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let part = term(rest[..end].trim())?;
        total = if minus { total.checked_sub(part)? } else { total.checked_add(part)? };
        if end == rest.len() {
            return Some(total);
        }
        minus = rest.as_bytes()[end] == b'-';
        rest = &rest[end + 1..];
    }
}

fn term(text: &str) -> Option<u64> {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
    let digits = digits.trim();
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse::<u64>().ok()?,
    };
    number.checked_mul(1 << shift)
}

/// Flags: names joined by `|`, or a number. `Err` names the unknown one.
pub(crate) fn flags<'a>(text: &'a str, table: &[(&str, u64)]) -> Result<u64, &'a str> {
    text.split('|').map(str::trim).try_fold(0, |set, name| {
        let known = table.iter().find(|(known, _)| *known == name).map(|(_, bits)| *bits);
        let number = || name.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        known.or_else(number).or_else(|| name.parse().ok()).map(|bits| set | bits).ok_or(name)
    })
}

/// Bytes written as pairs of hexadecimal digits; spaces are allowed.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        for (text, bytes) in [
            ("64KiB", Some(65536)),
            ("1GiB+5", Some((1 << 30) + 5)),
            ("16TiB - 4KiB", Some((16 << 40) - 4096)),
            ("0x10", Some(16)),
            ("4096", Some(4096)),
            ("", None),
            ("1-2", None),
            ("99999999TiB", None),
            ("5XB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn flags_and_hex() {
        assert_eq!(flags("O_RDWR|O_CLOEXEC", OPEN_FLAGS), Ok(0o2_000_002));
        assert_eq!(flags("O_RDWR|O_WHAT", OPEN_FLAGS), Err("O_WHAT"));
        assert_eq!(hex("00 ff"), Some(vec![0, 255]));
        assert_eq!(hex("0"), None);
    }
}
