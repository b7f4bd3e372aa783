//! Physical memory of a simulated machine: the only thing that survives a kexec.
//!
//! [`PhysMem`] is a flat range of bytes in one reserved mapping, sparse up to terabytes. [`Frames`] is the
//! frame allocator of *one kernel*; it is plain Rust data and is dropped at a kexec, so nothing but bytes can
//! cross. [`Ram`] is the two together, as a running kernel sees them. [`ReadPhys`] is memory that is only read,
//! be it a machine's or an image's.
//!
//! No global state: a machine owns its memory. `unsafe` is in [`mem`] alone. Not here: what the bytes mean.

#![deny(unsafe_code)]

mod addr;
mod bitmap;
pub mod frames;
pub mod mem;
mod ram;
mod read;
mod zeros;

pub use addr::{Order, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr};
pub use frames::{FrameState, FrameStats, FrameUse, Frames, FreeError, ReserveError};
pub use mem::{AccessError, Adopted, HostFile, MemError, PhysMem};
pub use ram::{POISON_ALLOC, POISON_FREE, Ram};
pub use read::ReadPhys;
