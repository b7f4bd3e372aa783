//! The `memblock` subtree (6.18 and later): named reservations (`reserve_mem=`), a device tree with a node each.

/// Name of the subtree.
pub const SUBTREE: &str = "memblock";
/// The string of the tree's root.
pub const COMPATIBLE: &str = "memblock-v1";
/// The string of each reservation.
pub const RESERVE_COMPATIBLE: &str = "reserve-mem-v1";
/// Property of a reservation, u64: physical address.
pub const PROP_START: &str = "start";
/// Property of a reservation, u64: bytes.
pub const PROP_SIZE: &str = "size";
/// Reservations a kernel makes at most.
pub const MAX_NODES: usize = 8;
