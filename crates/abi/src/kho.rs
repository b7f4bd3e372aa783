//! Kexec HandOver (KHO): the root tree's names, the two page trackers, and the small structures around them.

pub mod geometry;
pub mod memblock;
pub mod metadata;
pub mod scratch;
pub mod setup_data;
pub mod test_module;
pub mod v1;
pub mod v3;
pub mod v4;
pub mod vmalloc;

/// Property of the root: physical address of the tracker, 8 bytes, native-endian.
pub const PROP_MEMORY_MAP: &str = "preserved-memory-map";
/// Largest order that any tracker can name: `1 << (12 + 51)` is the last shift that fits in 64 bits.
pub const MAX_ORDER: u32 = 51;
