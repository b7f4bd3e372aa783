//! Descriptors that the event loop waits for, and where it sleeps.
//!
//! The runtime sleeps in `epoll_wait`. A listener that wakes it through an epoll instance lets the scheduler choose a processor, and on a
//! machine with one to spare that is another one, asleep: for a program that makes a notified call now and then the two ways cost some
//! 50 us, and its caches. Whoever sleeps at the listener itself is woken on the processor of the caller, which waits anyway. So [`Seat`]
//! sleeps at the listener and at the runtime's instance before the runtime does.
#![expect(unsafe_code, reason = "the runtime cannot know that a descriptor stays what it is")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;

/// Waits for a descriptor to become readable, through a copy of it.
pub(crate) fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = fd.try_clone_to_owned()?;
    // SAFETY: the `OwnedFd` is moved in and is nobody else's: it gives the same descriptor each time it is asked,
    // and closes it only when it is dropped, with the registration.
    Ok(unsafe { AsyncFd::register(copy) }?)
}

/// Longest sleep before the runtime's own, which timers wake too: they may be late by as much.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Where the event loop sleeps first. The runtime wants what it calls before it sleeps to be good for any thread, though only one does.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// The runtime's epoll instance.
    runtime: OnceLock<OwnedFd>,
    /// The listener of the generation.
    listener: Mutex<Option<OwnedFd>>,
}

impl Seat {
    /// Sleeps until the listener or the runtime has something to do, but not long; not at all while one of the two is not known.
    /// Whether it slept and was woken.
    pub(crate) fn nap(&self) -> bool {
        let Ok(listener) = self.listener.lock() else { return false };
        let (Some(runtime), Some(listener)) = (self.runtime.get(), &*listener) else { return false };
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(runtime, PollFlags::IN)];
        poll(&mut fds, Some(&NAP)).is_ok_and(|ready| ready > 0)
    }

    /// The runtime is built: finds its epoll instance among our descriptors. Without one it sleeps as runtimes do.
    pub(crate) fn know_runtime(&self) {
        if let Some(instance) = epoll_instance() {
            // There is one runtime: the first instance stays.
            let _ = self.runtime.set(instance);
        }
    }

    /// The listener of another generation, or none.
    pub(crate) fn know_listener(&self, listener: Option<OwnedFd>) {
        if let Ok(mut known) = self.listener.lock() {
            *known = listener;
        }
    }
}

/// A copy of our epoll instance, the first one if there are several.
fn epoll_instance() -> Option<OwnedFd> {
    let number = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let is = std::fs::read_link(entry.path()).ok()?.as_os_str() == "anon_inode:[eventpoll]";
        entry.file_name().to_str().filter(|_| is)?.parse::<i32>().ok()
    };
    let found = std::fs::read_dir("/proc/self/fd").ok()?.filter_map(number).min()?;
    // SAFETY: the descriptor was open just now, and nobody but this thread closes any.
    let instance = unsafe { BorrowedFd::borrow_raw(found) };
    instance.try_clone_to_owned().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nap_ends_when_one_of_the_two_has_something() {
        use std::io::Write as _;
        for first in [true, false] {
            let seat = Seat::default();
            assert!(!seat.nap(), "nobody sleeps without a listener");
            let ((runtime, mut wakes), (listener, mut calls)) =
                (io::pipe().expect("room"), io::pipe().expect("room"));
            seat.runtime.set(runtime.into()).expect("the first");
            seat.know_listener(Some(listener.into()));
            assert!(!seat.nap(), "nothing happens");
            let end = if first { &mut wakes } else { &mut calls };
            end.write_all(b"x").expect("open");
            assert!(seat.nap(), "the runtime's: {first}");
            seat.know_listener(None);
            assert!(!seat.nap(), "nobody sleeps without a listener");
        }
    }

    /// A runtime that hides its instance costs speed, which no test of what programs see would notice.
    #[test]
    fn the_instance_of_a_runtime_is_found_and_is_ready_when_the_runtime_is_woken() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("room");
        let mut seat = Seat::default();
        seat.know_runtime();
        let instance = seat.runtime.take().expect("found");
        let ready = || poll(&mut [PollFd::new(&instance, PollFlags::IN)], Some(&Timespec::default()));
        assert_eq!(ready(), Ok(0));
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("room");
        far.set_nonblocking(true).expect("ours");
        let far = {
            let _inside = runtime.enter();
            tokio::net::UnixStream::from_std(far).expect("room")
        };
        runtime.block_on(async { far.writable().await.expect("open") });
        std::io::Write::write_all(&mut near, b"x").expect("open");
        assert_eq!(ready(), Ok(1));
        runtime.block_on(async { far.readable().await.expect("open") });
    }
}
