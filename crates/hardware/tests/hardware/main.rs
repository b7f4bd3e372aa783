//! The hardware as machines use it.

#[cfg(test)]
mod book;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod iommu;
#[cfg(test)]
mod pci;
#[cfg(test)]
mod simdma;
#[cfg(test)]
mod timeline;
#[cfg(test)]
mod world;
