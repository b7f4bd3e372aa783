//! Scratch: the areas in which the next kernel may allocate before it knows what is preserved, and the
//! parameter `kho_scratch=`.
//!
//! Nothing preserved lies in scratch. The first kernel of a chain reserves the areas; the others reuse them.
//! Percentages are of the boot-time reservations, which in the model are [`KERNEL_BYTES`], all of it low.

use std::fmt;

use luosim_abi::release::Release;
use luosim_physmem::{PAGE_SIZE, Pfn, PhysAddr, Ram};

/// The resident simulated kernel: the first mebibyte, frame 0 included, so that no handover structure ever
/// lies at address 0.
pub const KERNEL_BYTES: u64 = 1 << 20;
const FOUR_GIB: u64 = 4 << 30;

/// One area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchArea {
    /// First byte.
    pub addr: PhysAddr,
    /// Bytes; may be 0.
    pub size: u64,
}

impl ScratchArea {
    /// Whether `pages` frames from `pfn` on overlap the area.
    #[must_use]
    pub fn overlaps(&self, pfn: Pfn, pages: u64) -> bool {
        let first = self.addr.raw() / PAGE_SIZE;
        let end = first + self.size / PAGE_SIZE;
        self.size > 0 && pfn.raw() < end && first < pfn.raw().saturating_add(pages)
    }

    /// Whether the two areas have a frame in common.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        other.size > 0 && self.overlaps(other.addr.pfn(), other.size / PAGE_SIZE)
    }

    /// Whether the area is made of whole frames of a memory of `len` bytes.
    pub(crate) fn fits(&self, len: u64) -> bool {
        let whole = self.addr.is_page_aligned() && self.size.is_multiple_of(PAGE_SIZE);
        whole && self.addr.checked_add(self.size).is_some_and(|end| end.raw() <= len)
    }
}

/// What `kho_scratch=` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScratchSpec {
    /// Percent of the boot-time reservations.
    Percent(u32),
    /// Bytes: low memory, global, per node.
    Sizes {
        /// Below 4 GiB.
        low: u64,
        /// Anywhere.
        global: u64,
        /// On each node.
        per_node: u64,
    },
}

impl Default for ScratchSpec {
    fn default() -> Self {
        Self::Percent(200)
    }
}

/// A kernel size: digits, `0x` or octal, and one suffix of `KMGTPE`; returns what follows.
pub(crate) fn memparse(text: &str) -> Option<(u64, &str)> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'0'..=b'7', ..] => (8, &text[1..]),
        _ => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let number = u64::from_str_radix(&digits[..end], radix).ok()?;
    let rest = &digits[end..];
    let shift = match rest.bytes().next().map(|byte| byte.to_ascii_uppercase()) {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        Some(b'P') => 50,
        Some(b'E') => 60,
        _ => return Some((number, rest)),
    };
    Some((number.checked_shl(shift).filter(|bytes| bytes >> shift == number)?, &rest[1..]))
}

impl ScratchSpec {
    /// Reads the value of `kho_scratch=`; `None` if it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(number) = text.strip_suffix('%') {
            let digits = number.strip_prefix('+').unwrap_or(number);
            let good =
                text.len() <= 11 && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            return digits.parse().ok().filter(|_| good).map(Self::Percent);
        }
        let (low, rest) = memparse(text)?;
        let (global, rest) = memparse(rest.strip_prefix(',')?)?;
        let (per_node, rest) = memparse(rest.strip_prefix(',')?)?;
        let sum = low.checked_add(global)?.checked_add(per_node)?;
        (rest.is_empty() && sum > 0).then_some(Self::Sizes { low, global, per_node })
    }

    /// The line the kernel logs about it.
    #[must_use]
    pub fn announce(&self) -> String {
        match self {
            Self::Percent(percent) => format!("KHO: scratch scale is {percent}%"),
            Self::Sizes { low, global, per_node } => format!(
                "KHO: scratch areas: lowmem: {}MiB global: {}MiB pernode: {}MiB",
                low >> 20,
                global >> 20,
                per_node >> 20
            ),
        }
    }

    /// Sizes of the areas: low, global, one node, as the release rounds them.
    fn sizes(&self, release: &Release) -> Option<[u64; 3]> {
        let align = release.scratch_align;
        let round = |bytes: u64, to: u64| bytes.checked_next_multiple_of(to);
        match *self {
            Self::Percent(percent) => {
                let bytes = (KERNEL_BYTES / 100).checked_mul(u64::from(percent))?;
                Some([round(bytes, align)?, 0, round(bytes, align)?])
            }
            Self::Sizes { low, global, per_node } => {
                let first = if release.scratch_rounds_all { align } else { PAGE_SIZE };
                Some([round(low, first)?, round(global, first)?, round(per_node, align)?])
            }
        }
    }
}

/// No room for the areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    bytes: u64,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no room for an area of {:#x} bytes", self.bytes)
    }
}

/// Reserves what is free of the resident kernel's memory.
pub(crate) fn reserve_kernel(ram: &mut Ram) {
    let pages = (KERNEL_BYTES / PAGE_SIZE).min(ram.frames.frame_count());
    if ram.frames.reserve(Pfn::new(0), pages).is_ok() {
        return;
    }
    for pfn in 0..pages {
        // A handover may hold frames down here, or have scratch here: those stay what they are.
        let _ = ram.frames.reserve(Pfn::new(pfn), 1);
    }
}

/// Reserves the frames of one area.
pub(crate) fn reserve(ram: &mut Ram, area: ScratchArea) {
    if area.size > 0 {
        let taken = ram.frames.reserve(area.addr.pfn(), area.size / PAGE_SIZE);
        debug_assert!(taken.is_ok(), "scratch {area:?} was checked to be free");
    }
}

/// Places and reserves the areas of a first kernel: from the end of low memory downwards.
pub(crate) fn place(
    ram: &mut Ram,
    spec: &ScratchSpec,
    release: &Release,
) -> Result<Vec<ScratchArea>, NoRoom> {
    let align = release.scratch_align;
    let sizes = spec.sizes(release).ok_or(NoRoom { bytes: u64::MAX })?;
    let mut top = ram.mem.len().min(FOUR_GIB);
    let mut areas = Vec::with_capacity(sizes.len());
    for size in sizes {
        let start = top.checked_sub(size).map(|at| at - at % align).filter(|at| *at >= KERNEL_BYTES);
        let start = start.ok_or(NoRoom { bytes: size })?;
        areas.push(ScratchArea { addr: PhysAddr::new(start), size });
        top = start;
    }
    for area in &areas {
        reserve(ram, *area);
    }
    Ok(areas)
}

#[cfg(test)]
mod tests {
    use luosim_abi::release::ReleaseId;

    use super::*;

    #[test]
    fn the_parameter_has_two_forms() {
        let sizes = |low, global, per_node| Some(ScratchSpec::Sizes { low, global, per_node });
        for (text, spec) in [
            ("16M,64M,32M", sizes(16 << 20, 64 << 20, 32 << 20)),
            ("0,16M,0x1000", sizes(0, 16 << 20, 4096)),
            ("0,0,0", None),
            ("abc", None),
            ("16M,64M", None),
            ("16M,64M,32Mx", None),
            ("16M,,32M", None),
            ("", None),
            ("99999999999E,1,1", None),
            ("200%", Some(ScratchSpec::Percent(200))),
            ("0%", Some(ScratchSpec::Percent(0))),
            ("%", None),
            ("-1%", None),
            ("12345678901%", None),
            ("4294967296%", None),
            ("2 %", None),
        ] {
            assert_eq!(ScratchSpec::parse(text), spec, "{text:?}");
        }
    }

    #[test]
    fn explicit_sizes_are_rounded_as_the_release_rounds() {
        let spec = ScratchSpec::parse("5M,5M,5M").expect("good");
        let release = |id: ReleaseId| id.release();
        assert_eq!(spec.sizes(release(ReleaseId::V7_3)), Some([8 << 20; 3]));
        assert_eq!(spec.sizes(release(ReleaseId::V7_1)), Some([6 << 20; 3]));
        assert_eq!(spec.sizes(release(ReleaseId::V6_19)), Some([5 << 20, 5 << 20, 6 << 20]));
        assert_eq!(ScratchSpec::Percent(0).sizes(release(ReleaseId::V7_2)), Some([0; 3]));
    }
}
