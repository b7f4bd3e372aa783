//! The bytes: `/dev/liveupdate` user structures and ioctl numbers, and every structure one Linux kernel
//! leaves in memory for the next (Kexec HandOver and the Live Update Orchestrator).
//!
//! Pure data, no I/O. A *version* module (`kho::v1`, `luo::v5`, `memfd::v2`, …) is never edited once
//! released; a *release* (`6.19`, `7.3`) is a row of [`release::RELEASES`] that names the versions, limits
//! and quirks it uses; so is a *posted design* ([`posted`]) of [`release::POSTED`]. Sizes and offsets of every structure are asserted at compile time.
//!
//! Not here: walking or building these structures in memory (crates `luosim-kho`, `luosim-luo`,
//! `luosim-files`).

#![forbid(unsafe_code)]

pub mod argument;
pub mod devices;
pub mod errno;
pub mod extensible;
pub mod fdt;
pub mod ioctl;
pub mod kho;
pub mod luo;
pub mod memfd;
mod named;
pub mod posted;
pub mod profile;
pub mod quirk;
pub mod release;

pub use errno::{Errno, KResult, Refusal};
