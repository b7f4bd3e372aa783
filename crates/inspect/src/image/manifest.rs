//! The manifest of an image folder: recorded from a real kernel, or dumped by luosim.

use luosim_physmem::PhysAddr;
use serde::Deserialize;

/// What the manifest says, as far as an inspection needs it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) kernel: Option<String>,
    pub(crate) mem_bytes: u64,
    pub(crate) kho: Option<Kho>,
}

/// The boot parameters.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kho {
    #[serde(deserialize_with = "address")]
    pub(crate) fdt_phys: PhysAddr,
    #[serde(deserialize_with = "address")]
    pub(crate) scratch_phys: PhysAddr,
    pub(crate) scratch_size: u64,
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<PhysAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let what = format!("'{text}' is no address: write 0x and hexadecimal digits");
    digits.map(PhysAddr::new).ok_or_else(|| serde::de::Error::custom(what))
}
