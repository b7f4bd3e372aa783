//! What would survive a kexec from one kernel to another, said before it is tried.
//!
//! A handover carries a version string a layer, and the new kernel compares each with the only one it was built with:
//! there is no negotiation and no range. So two kernel *files* say what will happen. [`Kernel::read`] takes a file apart
//! and finds the strings; [`Kernel::of_release`] takes them from luosim's table of releases; [`Verdict::of`] is a pure
//! function of two [`Formats`] that goes through the layers in the order in which a kernel does, and says for each
//! what is refused and what that costs. [`Verdict::of_handover`] says it for the sessions and files of one handover.
//!
//! Not in here: reading handover memory (who has an image fills a [`Handover`]), what a handler thinks of its own data
//! (a file that is *carried* may still fail to be retrieved), command lines (`kho=on` and `liveupdate=on` are assumed,
//! and said to be), printing.
//!
//! Kernel files are hostile input. Nothing here panics, loops or allocates without bound on them: see [`limits`].
//!
//! Sources: the kernel's Documentation/arch/x86/boot.rst (setup header, `payload_offset`), Documentation/arch/arm64/booting.rst,
//! drivers/firmware/efi/libstub (zboot header), scripts/Makefile.lib (what payloads are packed with); and what real
//! kernels did when one was started from the other, for the consequences.

#![forbid(unsafe_code)]

mod config;
mod container;
mod formats;
mod handover;
mod read;
mod scan;
mod unpack;
mod verdict;

pub use config::Config;
pub use container::{Arch, Container};
pub use formats::{Formats, Known, known};
pub use handover::{Fate, File, FileFate, Handover, LuoStrings, Session, SessionFate};
pub use read::{Kernel, ReadError, Source};
pub use unpack::Packing;
pub use verdict::{Boot, Finding, Layer, State, Survival, Verdict};

/// Bounds on what is read and allocated for one kernel file.
pub mod limits {
    /// Bytes of a file that is not an ELF file: those are read whole. The largest distribution kernels have 100 MiB.
    pub const FILE: u64 = 256 << 20;
    /// Bytes of an unpacked payload, and of all loadable segments of an ELF file together.
    pub const UNPACKED: u64 = 512 << 20;
    /// Bytes of an unpacked build configuration. Real ones have 300 KiB.
    pub const CONFIG: u64 = 8 << 20;
    /// KiB that an unpacker may use beside its output: the kernel packs with dictionaries of up to 128 MiB.
    pub const DICTIONARY_KIB: u32 = 192 << 10;
    /// Containers in containers: a `bzImage.gz` has two.
    pub const DEPTH: u32 = 4;
}
