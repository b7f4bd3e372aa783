//! The PCI functions of a machine: how they hang together, and their configuration space.
//!
//! A function is where it is plugged in; its *address* follows from the bus number that software wrote into the bridge
//! above it. A function learns its bus number from configuration writes that reach it, and uses it as requester id until
//! it hears another: that is what makes renumbering dangerous while DMA runs. [`enumerate()`] is what a kernel does at boot,
//! by configuration accesses alone.

pub mod config;
pub mod enumerate;
mod layout;
mod topology;

pub use config::{ConfigSpace, Effects, Identity};
pub use enumerate::{BusPolicy, Found, enumerate};
pub use layout::{Layout, LayoutError};
pub use topology::FunctionInfo;
pub(crate) use topology::{Function, Topology};
