//! The gate: a working `/dev/liveupdate`, and a kexec in milliseconds, for unmodified programs.
//!
//! A program is started under a small filter: only the system calls that matter are notified (`seccomp_unotify(2)`),
//! the rest run natively. Each notified call is served by the same model kernel that scenarios run on, in one order.
//! A simulated kexec boots the next kernel on the same physical memory, kills the program's whole tree, and starts the
//! next generation. Preserved memfds are the program's own pages, mapped into that memory, and are never copied on the
//! way.
//!
//! Works without root, without a kernel module, without a virtual machine; static and dynamic programs alike. It is a
//! development tool and not a sandbox: what is not served is allowed.
//!
//! Needs Linux 5.19 on x86-64, Landlock, and namespaces of processes and mounts; [`doctor`] says what is missing.

mod bpf;
mod calls;
mod children;
pub mod control;
pub mod deed;
pub mod doctor;
mod gate;
mod guest;
mod launcher;
mod memory;
mod mounts;
mod notify;
mod paths;
mod ready;
mod serve;
mod supervisor;
mod sysfs;
mod tag;
mod task;
mod tree;

pub use bpf::Served as Groups;
pub use memory::{AUTO_FILL, Holes};
pub use serve::image::Look;
pub use supervisor::{End, Error, Finished, Options, Watch, run};
pub use tree::LaunchError;
