//! What a call may end in besides success: an errno, or the death of the kernel.

use luosim_abi::{Errno, Refusal};

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The program gets an errno.
    Refused(Refusal),
    /// What the previous kernel left is broken: going on could hand out another user's pages, so the kernel stops.
    Panic(String),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Trouble {
    /// A panic over what the previous kernel left.
    pub(crate) fn restore(why: impl std::fmt::Display) -> Self {
        Self::Panic(format!("live update data cannot be restored: {why}"))
    }

    /// The answer as a program would see it; to a panic nobody is there to hear one.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            Self::Panic(text) => Errno::ESRCH.because(format!("the kernel panicked: {text}")),
        }
    }
}

/// Result of a call.
pub(crate) type Answer<T> = Result<T, Trouble>;
