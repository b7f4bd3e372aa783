//! The designs of the orchestrator that were posted for review and never merged, in the year before 6.19.
//!
//! Their control interface has a state machine for the whole machine (and later one for each file, then one for each
//! session) where the merged one has none. A *design* is a revision of the posted series; like a release it is one row,
//! of [`crate::release::POSTED`]. `v2`, `v3` and `v4` hold what a program passes, [`tree`] and [`session`] what one
//! kernel leaves for the next, [`memfd`] what the memfd handler of all three leaves.
//!
//! Known from the posted patches and the mails about them; no kernel with these interfaces was ever released, and none
//! was recorded. Not here: behaviour (crate `luosim-posted`).

pub mod memfd;
pub mod session;
pub mod tree;
pub mod v2;
pub mod v3;
pub mod v4;

/// A posted design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Design {
    /// July 2025: scattered `_IOW` numbers, tokens of all opens in one, one state machine.
    V2,
    /// August 2025: size-first structures, one opener, a state for each file.
    V3,
    /// September 2025: named sessions, each with a state.
    V4,
}

impl Design {
    /// When it was posted, `July 2025`.
    #[must_use]
    pub const fn posted(self) -> &'static str {
        match self {
            Self::V2 => "July 2025",
            Self::V3 => "August 2025",
            Self::V4 => "September 2025",
        }
    }

    /// Whether `/sys/kernel/liveupdate/state` exists.
    #[must_use]
    pub const fn has_sysfs(self) -> bool {
        !matches!(self, Self::V4)
    }

    /// Whether files are grouped in named sessions with descriptors of their own.
    #[must_use]
    pub const fn has_sessions(self) -> bool {
        matches!(self, Self::V4)
    }
}

crate::named! {
    /// A state, of the machine, of a file or of a session: the values that programs are given, in this order from 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum State {
        Undefined = "undefined", "before the orchestrator is up, and for ever if KHO is off";
        Normal = "normal", "nothing is under way";
        Prepared = "prepared", "what is to survive was told so; it may still be used";
        Frozen = "frozen", "the last state before the jump";
        Updated = "updated", "after the jump, until the new kernel is told that all is well";
    }
}

crate::named! {
    /// What moves a state machine: the values that programs pass since the third design, in this order from 0.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Event {
        Prepare = "prepare", "get ready for a jump";
        Freeze = "freeze", "the jump is now";
        Finish = "finish", "the jump is over and nothing is to be undone";
        Cancel = "cancel", "no jump after all";
    }
}

impl State {
    /// The number that programs see.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// The state with this number.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.raw() == raw)
    }
}

impl Event {
    /// The number that programs pass.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// The event with this number.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|event| event.raw() == raw)
    }
}

/// Path of the file that tells the state in the second and third design.
pub const STATE_PATH: &str = "/sys/kernel/liveupdate/state";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_headers() {
        let states: Vec<(u32, &str)> = State::ALL.iter().map(|state| (state.raw(), state.name())).collect();
        assert_eq!(states, [(0, "undefined"), (1, "normal"), (2, "prepared"), (3, "frozen"), (4, "updated")]);
        let events: Vec<(u32, &str)> = Event::ALL.iter().map(|event| (event.raw(), event.name())).collect();
        assert_eq!(events, [(0, "prepare"), (1, "freeze"), (2, "finish"), (3, "cancel")]);
        assert_eq!((State::from_raw(4), State::from_raw(5)), (Some(State::Updated), None));
        assert_eq!((Event::from_raw(3), Event::from_raw(4)), (Some(Event::Cancel), None));
    }
}
