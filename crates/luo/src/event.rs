//! What an observer outside the kernel is told: the raw material of the ledger and of transcripts.
//!
//! Events are not kernel state and never cross a kexec by themselves: the observer belongs to the machine.

use luosim_abi::Errno;

use crate::SessionName;

/// Why an incoming file was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishCause {
    /// The FINISH command.
    Command,
    /// The last descriptor of the session was closed.
    Close,
}

/// One thing that happened to a session or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// CREATE_SESSION succeeded.
    SessionCreated {
        /// Its name.
        session: SessionName,
    },
    /// A file was preserved in an outgoing session.
    Preserved {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
    },
    /// A preserved file was given back because its session was closed.
    Unpreserved {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
    },
    /// The file's record was written for the next kernel and the reboot will not be refused any more.
    Serialized {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
    },
    /// The session's record was written for the next kernel.
    SessionSerialized {
        /// The session.
        session: SessionName,
        /// Files in it.
        files: u64,
    },
    /// An incoming session was found at the first open.
    SessionFound {
        /// The session.
        session: SessionName,
    },
    /// An incoming file was found at the first open.
    Found {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
    },
    /// RETRIEVE_SESSION succeeded.
    SessionRetrieved {
        /// The session.
        session: SessionName,
    },
    /// RETRIEVE_FD gave the file out for the first time.
    Retrieved {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
    },
    /// The handler could not rebuild the file.
    RetrieveFailed {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
        /// What RETRIEVE_FD answered.
        errno: Errno,
    },
    /// An incoming file left LUO.
    Finished {
        /// The session.
        session: SessionName,
        /// The user's token.
        token: u64,
        /// Whether it had been retrieved; otherwise its contents are gone.
        retrieved: bool,
        /// By which way.
        cause: FinishCause,
    },
    /// A session left its list.
    SessionRemoved {
        /// The session.
        session: SessionName,
        /// Whether it was an incoming one.
        incoming: bool,
    },
}
