//! Safe client bindings for Linux's Live Update Orchestrator, `/dev/liveupdate`.
//!
//! A program that wants to keep memory over a kexec creates a [session](OutgoingSession), *preserves* file
//! descriptors in it under tokens of its choice, and holds the session open until the kernel jumps. The
//! program in the next kernel [retrieves](LiveUpdate::retrieve_session) the session by name and the files by
//! token, and finishes it. Which way a session goes is in its type: only an [`OutgoingSession`] can preserve,
//! only an [`IncomingSession`] can retrieve and finish. (Kernels check this too, from 7.1 on; 6.19 accepts the
//! wrong call and does damage.)
//!
//! ```no_run
//! use std::os::fd::AsFd;
//!
//! use liveupdate::{Error, LiveUpdate, SessionName};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let memory = std::fs::File::open("memfd")?;
//! let name = SessionName::new("cache")?;
//! let device = LiveUpdate::open()?;
//! match device.retrieve_session(&name) {
//!     Ok(incoming) => {
//!         let memory = incoming.retrieve(1)?;
//!         incoming.finish()?;
//!         // Only now may the same memory be preserved again, in a new session.
//!         let outgoing = device.create_session(&name)?;
//!         outgoing.preserve(memory.as_fd(), 1)?;
//!         // Hold `outgoing` until the kexec: dropping it gives everything up.
//!     }
//!     Err(Error::NotFound(_)) => {
//!         let outgoing = device.create_session(&name)?;
//!         outgoing.preserve(memory.as_fd(), 1)?;
//!     }
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok(()) }
//! ```
//!
//! # What surprises people
//!
//! * **Hold the session.** The kernel carries over what is in *open* sessions at the moment of the kexec. The
//!   last close, of all copies in all processes, releases everything without a word; the device may be closed.
//! * **Close means finish.** Closing the last copy of an incoming session discards what was not retrieved.
//! * **An incoming session is not carried on.** For the next kexec: retrieve, finish, preserve again in a new
//!   outgoing session (it may have the same name).
//! * **EFAULT on RETRIEVE_SESSION destroys the session**: the kernel has taken the session out before it fails
//!   to write the answer, and drops it. These bindings always pass memory of their own that is writable.
//! * **Seals added after preserve are lost**: the kernel records them at the time of the preserve (6.19 carries
//!   none at all). Seal first, preserve then.
//! * **Retrieved files are always `O_RDWR`**, whatever the preserved descriptor was; `O_APPEND` is gone too.
//!   Do not preserve a read-only descriptor to hand out less than the whole file.
//! * **The position is preserved**: seek to where you want to read before reading a retrieved file. Retrieving a
//!   token twice gives two descriptors of one open file, with one shared position.
//! * **Memfds made with `MFD_NOEXEC_SEAL` come back write-sealed** and executable on 7.1 to 7.3 (also every memfd
//!   where `vm.memfd_noexec=1`): neither write nor a writable shared mapping works. Use `MFD_EXEC` for now.
//! * **While preserved, a memfd cannot change its size** (EPERM), and its holes are filled: a sparse file costs
//!   all its pages.
//! * **A handover between kernel series can be refused silently**: the next kernel knows nothing, and
//!   [`Error::NotFound`] is all that a client sees.
//!
//! # Contract of this crate
//!
//! Each call is one `ioctl(2)` of the numbers in `linux/liveupdate.h` (type 0xBA), made on memory that this crate
//! owns; the crate needs no other program or library and behaves the same on a kernel and under an emulated
//! device. It does not hold sessions for you, trigger the kexec, or retry anything.

mod device;
mod error;
mod name;
mod session;
mod sys;

pub use device::{DEVICE_PATH, LiveUpdate};
pub use error::{Call, Error, Failure};
pub use name::{InvalidName, SessionName};
pub use session::{IncomingSession, OutgoingSession};
