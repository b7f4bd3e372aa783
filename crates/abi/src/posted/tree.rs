//! The trees that the second and third design leave: the orchestrator's page, and the tree of files that it leads to.
//! The first of them is the fourth design's too.

/// Name of KHO's entry for the orchestrator's page.
pub const SUBTREE: &str = "LUO";
/// The string of the page's root: the same that 6.19 writes, over other contents.
pub const COMPATIBLE: &str = "luo-v1";
/// Its one child: an 8-byte native-order property for each subsystem, named like it.
pub const NODE_SUBSYSTEMS: &str = "subsystems";
/// The string of that child.
pub const SUBSYSTEMS_COMPATIBLE: &str = "subsystems-v1";
/// The subsystem of files, and the name of its tree's root: its property is the physical address of the tree.
pub const FILES: &str = "file-descriptors";
/// The string of the tree of files.
pub const FILES_COMPATIBLE: &str = "file-descriptors-v1";
/// Of a file: the handler's value, 8 bytes.
pub const PROP_DATA: &str = "data";
/// Bytes of the tree of files before the first.
pub const FILES_BASE: u64 = 1024;
/// Bytes that each file adds.
pub const FILES_EACH: u64 = 128;

/// Name of a file's node, as the kernel prints a token: hexadecimal with `0x`, but plain `0` for zero.
#[must_use]
pub fn node_name(token: u64) -> String {
    if token == 0 { String::from("0") } else { format!("{token:#x}") }
}

/// The token that a node's name stands for; hexadecimal, decimal or octal as C reads numbers.
#[must_use]
pub fn token_of(name: &str) -> Option<u64> {
    if let Some(digits) = name.strip_prefix("0x").or_else(|| name.strip_prefix("0X")) {
        return digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u64::from_str_radix(digits, 16).ok())?;
    }
    let radix = if name.starts_with('0') { 8 } else { 10 };
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| u64::from_str_radix(name, radix).ok())?
}

/// Bytes of the block that a tree of so many files is given: whole pages, a power of two of them.
#[must_use]
pub fn files_room(count: u64) -> u64 {
    let bytes = FILES_BASE.saturating_add(FILES_EACH.saturating_mul(count));
    bytes.div_ceil(4096).next_power_of_two() * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tokens_are_one_to_one() {
        for (token, name) in [(0, "0"), (1, "0x1"), (0x10, "0x10"), (u64::MAX, "0xffffffffffffffff")] {
            assert_eq!(node_name(token), name);
            assert_eq!(token_of(name), Some(token));
        }
        for bad in ["", "x", "0x", "0x1g", "+1", "-1", "0x10000000000000000", "08", "1 "] {
            assert_eq!(token_of(bad), None, "{bad}");
        }
        assert_eq!(token_of("12"), Some(12));
    }

    #[test]
    fn room_grows_by_powers_of_two() {
        let rooms: Vec<u64> = [0, 24, 25, 56, 57, 88, 89].map(files_room).to_vec();
        assert_eq!(rooms, [4096, 4096, 8192, 8192, 16384, 16384, 16384]);
    }
}
