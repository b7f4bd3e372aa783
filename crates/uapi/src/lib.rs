//! Ioctl interfaces as data: what a release offers, what a C header declares, what changes between two of them, and the
//! rules that a header must keep if programs and kernels are to grow apart without breaking each other.

#![forbid(unsafe_code)]

pub mod collide;
pub mod diff;
pub mod evolution;
pub mod header;
pub mod interface;
pub mod lint;
pub mod registry;
