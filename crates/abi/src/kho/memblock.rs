//! The subtree `memblock`: named reservations (`reserve_mem=`) that outlive a kexec. A device tree in one page; one
//! node per reservation, named as its user named it. Unchanged since 6.16.

/// Name of the subtree.
pub const SUBTREE: &str = "memblock";
/// String of the tree's root.
pub const COMPATIBLE: &str = "memblock-v1";
/// String of a reservation's node.
pub const NODE_COMPATIBLE: &str = "reserve-mem-v1";
/// Property of a node, u64: physical address of the first byte.
pub const PROP_START: &str = "start";
/// Property of a node, u64: bytes.
pub const PROP_SIZE: &str = "size";
/// Longest name in bytes.
pub const MAX_NAME: usize = 15;
/// Reservations that a command line may name.
pub const MAX_RESERVATIONS: usize = 8;
/// Least alignment: a cache line.
pub const MIN_ALIGN: u64 = 64;
