//! The loss ledger: what became of every preserved file, across all kernels of a run.
//!
//! The ledger watches from outside: it is fed the orchestrator's events and the outcome of each boot, and
//! nothing of it is visible to a kernel. A loss names the one event that caused it.

use std::fmt;

use luosim_abi::Errno;
use luosim_luo::{Event, FinishCause, SessionName};
use rustc_hash::FxHashMap;

/// Where a preserved file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Given back by RETRIEVE_FD; its session is not finished.
    Retrieved,
    /// Given back by RETRIEVE_FD, and its session finished.
    Finished,
    /// In a session that waits: for the kexec, or to be retrieved.
    StillPreserved,
    /// Gone, by this event.
    Lost(String),
}

impl Fate {
    /// One word: `retrieved`, `finished`, `preserved`, `lost`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Retrieved => "retrieved",
            Self::Finished => "finished",
            Self::StillPreserved => "preserved",
            Self::Lost(_) => "lost",
        }
    }

    /// The event behind a loss.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Lost(cause) => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillPreserved => f.write_str("still preserved"),
            Self::Lost(cause) => write!(f, "lost: {cause}"),
            other => f.write_str(other.word()),
        }
    }
}

/// One preserved file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Kernel in which it was preserved, counted from 1; 0 if it came with an image.
    pub generation: u32,
    /// Session it was preserved in.
    pub session: SessionName,
    /// Its token there.
    pub token: u64,
    /// What became of it.
    pub fate: Fate,
}

/// How far an entry is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Outgoing,
    InFlight,
    Incoming,
    Given,
    Over,
}

/// Every file that was preserved in a run.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    stages: Vec<Stage>,
    outgoing: FxHashMap<(SessionName, u64), usize>,
    incoming: FxHashMap<(SessionName, u64), usize>,
    /// Entries of files given back before a kexec, beyond the first [`KEPT`]: the next ones take their places.
    spare: Vec<usize>,
    given_back: usize,
    folded: usize,
}

/// Files given back before a kexec that keep an entry of their own; a program that preserves and closes all day must
/// not fill the memory with what it took back.
const KEPT: usize = 10_000;

impl Ledger {
    /// All entries, in the order in which they were preserved.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The newest entry of this session and token.
    #[must_use]
    pub fn find(&self, session: &SessionName, token: u64) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.session == *session && entry.token == token)
    }

    /// Files given back before a kexec that are only counted.
    #[must_use]
    pub fn folded(&self) -> usize {
        self.folded
    }

    fn add(&mut self, generation: u32, session: SessionName, token: u64, stage: Stage) -> usize {
        if let Some(index) = self.spare.pop() {
            self.entries[index] = Entry { generation, session, token, fate: Fate::StillPreserved };
            self.stages[index] = stage;
            self.folded += 1;
            return index;
        }
        self.entries.push(Entry { generation, session, token, fate: Fate::StillPreserved });
        self.stages.push(stage);
        self.entries.len() - 1
    }

    fn lose(&mut self, index: usize, cause: impl Into<String>) {
        self.stages[index] = Stage::Over;
        self.entries[index].fate = Fate::Lost(cause.into());
    }

    /// Takes in one event of kernel `generation`; `actor` is who made the system call, `pid 7 (agent)`.
    pub fn observe(&mut self, generation: u32, actor: &str, event: &Event) {
        match *event {
            Event::Preserved { session, token } => {
                let index = self.add(generation, session, token, Stage::Outgoing);
                self.outgoing.insert((session, token), index);
            }
            Event::Unpreserved { session, token } => {
                if let Some(index) = self.outgoing.remove(&(session, token)) {
                    self.lose(index, format!("session closed by {actor} before kexec"));
                    self.given_back += 1;
                    if self.given_back > KEPT {
                        self.spare.push(index);
                    }
                }
            }
            Event::Serialized { session, token } => {
                if let Some(index) = self.outgoing.get(&(session, token)) {
                    self.stages[*index] = Stage::InFlight;
                }
            }
            Event::Found { session, token } => self.found(session, token),
            Event::Retrieved { session, token } => self.retrieved(session, token),
            Event::RetrieveFailed { session, token, errno } => self.failed(session, token, errno, actor),
            Event::Finished { session, token, retrieved, cause } => {
                self.finished(session, token, retrieved, cause, actor);
            }
            Event::SessionCreated { .. }
            | Event::SessionSerialized { .. }
            | Event::SessionFound { .. }
            | Event::SessionRetrieved { .. }
            | Event::SessionRemoved { .. } => {}
        }
    }

    fn found(&mut self, session: SessionName, token: u64) {
        match self.incoming.get(&(session, token)) {
            Some(index) => self.stages[*index] = Stage::Incoming,
            None => {
                let index = self.add(0, session, token, Stage::Incoming);
                self.incoming.insert((session, token), index);
            }
        }
    }

    fn retrieved(&mut self, session: SessionName, token: u64) {
        if let Some(index) = self.incoming.get(&(session, token)) {
            self.stages[*index] = Stage::Given;
            self.entries[*index].fate = Fate::Retrieved;
        }
    }

    fn failed(&mut self, session: SessionName, token: u64, errno: Errno, actor: &str) {
        if let Some(index) = self.incoming.get(&(session, token)).copied()
            && self.stages[index] == Stage::Incoming
        {
            self.lose(index, format!("RETRIEVE_FD by {actor} failed with {errno}"));
        }
    }

    fn finished(
        &mut self,
        session: SessionName,
        token: u64,
        retrieved: bool,
        cause: FinishCause,
        actor: &str,
    ) {
        let Some(index) = self.incoming.remove(&(session, token)) else { return };
        if retrieved {
            self.stages[index] = Stage::Over;
            self.entries[index].fate = Fate::Finished;
        } else if self.stages[index] != Stage::Over {
            let how = match cause {
                FinishCause::Command => "finished unretrieved",
                FinishCause::Close => "session closed, and so finished, unretrieved",
            };
            self.lose(index, format!("{how} by {actor}"));
        }
    }

    /// The old kernel is gone: what it had not serialised is lost by `cause`, what it had is on its way.
    pub fn kernel_left(&mut self, cause: &str) {
        let mut gone: Vec<usize> = self.outgoing.drain().map(|(_, index)| index).collect();
        gone.sort_unstable();
        let mut unclaimed: Vec<usize> = self.incoming.drain().map(|(_, index)| index).collect();
        unclaimed.sort_unstable();
        for index in unclaimed {
            if matches!(self.stages[index], Stage::Incoming | Stage::InFlight) {
                self.lose(index, "never retrieved before the next reboot");
            } else {
                self.stages[index] = Stage::Over;
            }
        }
        for index in gone {
            if self.stages[index] == Stage::InFlight {
                let entry = &self.entries[index];
                self.incoming.insert((entry.session, entry.token), index);
            } else {
                self.lose(index, cause);
            }
        }
    }

    /// The new kernel cannot give back what was on its way.
    pub fn handover_failed(&mut self, cause: &str) {
        let mut gone: Vec<usize> = self.incoming.drain().map(|(_, index)| index).collect();
        gone.sort_unstable();
        for index in gone {
            self.lose(index, cause);
        }
    }

    /// The first open listed the incoming sessions: what was on its way and is not listed is lost.
    pub fn listed(&mut self, cause: &str) {
        let mut gone: Vec<usize> =
            self.incoming.values().copied().filter(|index| self.stages[*index] == Stage::InFlight).collect();
        gone.sort_unstable();
        for index in gone {
            let entry = &self.entries[index];
            self.incoming.remove(&(entry.session, entry.token));
            self.lose(index, cause);
        }
    }

    /// How many entries ended as: retrieved, finished, still preserved, lost.
    #[must_use]
    pub fn totals(&self) -> [usize; 4] {
        let mut totals = [0; 4];
        for entry in &self.entries {
            let slot = match entry.fate {
                Fate::Retrieved => 0,
                Fate::Finished => 1,
                Fate::StillPreserved => 2,
                Fate::Lost(_) => 3,
            };
            totals[slot] += 1;
        }
        totals[3] += self.folded;
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SessionName {
        SessionName::from_bytes(text.as_bytes())
    }

    fn preserved(ledger: &mut Ledger, token: u64) {
        ledger.observe(1, "pid 1", &Event::Preserved { session: name("s"), token });
    }

    fn fate(ledger: &Ledger, token: u64) -> String {
        ledger.find(&name("s"), token).expect("an entry").fate.to_string()
    }

    #[test]
    fn a_file_on_its_way_ends_in_exactly_one_fate() {
        let mut ledger = Ledger::default();
        for token in 1..=4 {
            preserved(&mut ledger, token);
        }
        for token in 1..=3 {
            ledger.observe(1, "pid 1", &Event::Serialized { session: name("s"), token });
        }
        ledger.kernel_left("cold reset");
        for token in 1..=2 {
            ledger.observe(2, "pid 1", &Event::Found { session: name("s"), token });
        }
        ledger.listed("not in the handover");
        ledger.observe(2, "pid 1", &Event::Retrieved { session: name("s"), token: 1 });
        for (token, retrieved) in [(1, true), (2, false)] {
            let cause = FinishCause::Command;
            ledger.observe(2, "pid 9 (x)", &Event::Finished { session: name("s"), token, retrieved, cause });
        }
        assert_eq!(fate(&ledger, 1), "finished");
        assert_eq!(fate(&ledger, 2), "lost: finished unretrieved by pid 9 (x)");
        assert_eq!(fate(&ledger, 3), "lost: not in the handover");
        assert_eq!(fate(&ledger, 4), "lost: cold reset");
        assert_eq!(ledger.totals(), [0, 1, 0, 3]);
    }

    #[test]
    fn what_is_given_back_all_day_is_counted_and_not_kept() {
        let mut ledger = Ledger::default();
        for round in 0..3 * KEPT {
            preserved(&mut ledger, u64::try_from(round).expect("small"));
            let token = u64::try_from(round).expect("small");
            ledger.observe(1, "pid 7", &Event::Unpreserved { session: name("s"), token });
        }
        preserved(&mut ledger, 1 << 40);
        assert!(ledger.entries().len() <= KEPT + 1);
        assert_eq!(ledger.entries().len() + ledger.folded(), 3 * KEPT + 1);
        assert_eq!(ledger.totals(), [0, 0, 1, 3 * KEPT]);
        assert_eq!(fate(&ledger, 1 << 40), "still preserved");
    }

    #[test]
    fn closing_the_session_names_who_did_it() {
        let mut ledger = Ledger::default();
        preserved(&mut ledger, 1);
        ledger.observe(1, "pid 7 (vmm)", &Event::Unpreserved { session: name("s"), token: 1 });
        assert_eq!(fate(&ledger, 1), "lost: session closed by pid 7 (vmm) before kexec");
        preserved(&mut ledger, 1);
        assert_eq!(fate(&ledger, 1), "still preserved", "the newest entry of a token counts");
    }
}
