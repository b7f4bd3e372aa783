//! Device files over a kexec: orders and refusals, freezing, what a new kernel takes over, and DMA that goes on.

mod assumed;
mod dma;
mod hostile;
mod kvm;
mod mutations;
mod refused;
mod vmm;
mod watched;
mod wedged;
