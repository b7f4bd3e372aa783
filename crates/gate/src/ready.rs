//! Descriptors that the event loop waits for.
#![expect(unsafe_code, reason = "the runtime cannot know that a descriptor stays what it is")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Waits for a descriptor to become readable, through a copy of it.
pub(crate) fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = fd.try_clone_to_owned()?;
    // SAFETY: the `OwnedFd` is moved in and is nobody else's: it gives the same descriptor each time it is asked,
    // and closes it only when it is dropped, with the registration.
    Ok(unsafe { AsyncFd::register(copy) }?)
}
