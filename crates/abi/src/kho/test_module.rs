//! The `kho_test` subtree: what KHO's test module hands over, a device tree.

/// Name of the subtree.
pub const SUBTREE: &str = "kho_test";
/// The string of the tree's root.
pub const COMPATIBLE: &str = "kho-test-v1";
/// Root property, u32.
pub const PROP_MAGIC: &str = "magic";
/// Its value.
pub const MAGIC: u32 = 0x4b48_4f21;
/// Node of the data.
pub const NODE_DATA: &str = "data";
/// Its property, u32: folios.
pub const PROP_NR_FOLIOS: &str = "nr_folios";
/// Its property: a raw [`super::vmalloc::Descriptor`] of an array of u64, each a physical address with the
/// folio's order in its low bits.
pub const PROP_FOLIOS: &str = "folios_info";
/// Its property, u32: sum over the folios' contents.
pub const PROP_SUM: &str = "csum";
