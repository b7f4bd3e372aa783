//! The hardware as machines use it.

mod hostile;
mod invariants;
mod iommu;
mod pci;
mod simdma;
mod world;
