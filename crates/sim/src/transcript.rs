//! What happened in a run, as data: records in order, and the ledger at the end.
//!
//! The JSON form is stable: fields are added, never changed, and [`VERSION`] counts incompatible changes.

use serde::Serialize;

/// Version of the JSON form.
pub const VERSION: u32 = 1;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A kernel booted, or tried to.
    Boot {
        /// Number of the kernel in the run, from 1.
        generation: u32,
        /// The release, `7.3`.
        release: String,
        /// `handover`, `cold`, `luo-off`, `panic`.
        outcome: String,
        /// Why, for all but a handover.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Blocks and pages taken over.
        blocks: u64,
        /// Pages in them.
        pages: u64,
        /// The boot log.
        log: Vec<String>,
    },
    /// A kexec: what crossed.
    Kexec {
        /// The old release.
        from: String,
        /// The new release.
        to: String,
        /// Sessions serialised.
        sessions: u64,
        /// Files in them.
        files: u64,
        /// Preserved blocks.
        blocks: u64,
        /// Pages in them.
        pages: u64,
        /// Bytes in them.
        bytes: u64,
        /// Whether the image passes the handover on.
        passed: bool,
    },
    /// A system call.
    Call {
        /// Name of the process.
        process: String,
        /// Its number.
        pid: u32,
        /// The call with its arguments.
        call: String,
        /// The value returned; none on an error.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<i64>,
        /// The errno.
        #[serde(skip_serializing_if = "Option::is_none")]
        errno: Option<String>,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What the record before this one rests on and nobody has published: it is worth no more.
    Assumed {
        /// Its name.
        name: String,
        /// The rule.
        what: String,
    },
    /// Something done to the machine from outside.
    Machine {
        /// What.
        action: String,
    },
    /// An expectation that holds.
    Expected {
        /// What was compared.
        what: String,
    },
    /// An expectation that does not.
    Failed {
        /// Byte of the document where the step stands.
        at: usize,
        /// What was expected and what was found.
        message: String,
    },
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerLine {
    /// Kernel in which the file was preserved; 0: it came with an image.
    pub generation: u32,
    /// The session, with odd bytes escaped.
    pub session: String,
    /// The token.
    pub token: u64,
    /// `retrieved`, `finished`, `preserved`, `lost`.
    pub fate: String,
    /// The event behind a loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A machine's ledger, line by line.
#[must_use]
pub fn ledger_lines(ledger: &luosim_machine::ledger::Ledger) -> Vec<LedgerLine> {
    let line = |entry: &luosim_machine::ledger::Entry| LedgerLine {
        generation: entry.generation,
        session: entry.session.to_string(),
        token: entry.token,
        fate: entry.fate.word().to_owned(),
        cause: entry.fate.cause().map(str::to_owned),
    };
    ledger.entries().iter().map(line).collect()
}

/// What devices did in one phase of a live update, in virtual time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineLine {
    /// `run`, `preserve`, `freeze`, `jump`, `early-boot`, `boot`, `user-space`, `retrieve`, `reclaim`, `finish`.
    pub phase: String,
    /// Kernel that runs in it, or was the last to run, from 1; 0 before the first.
    pub kernel: u32,
    /// Whether a guest stands still in it.
    pub blackout: bool,
    /// Virtual nanoseconds: a number to compare, no measurement.
    pub nanoseconds: u64,
    /// Operations that devices completed.
    pub operations: u64,
    /// Bytes that they wrote.
    pub written: u64,
    /// Bytes that they read.
    pub read: u64,
    /// Requests that an IOMMU refused.
    pub refused: u64,
}

/// A machine's timeline, phase by phase; phases in which no time passed are left out, and so is a machine without devices.
#[must_use]
pub fn timeline_lines(machine: &luosim_machine::Machine) -> Vec<TimelineLine> {
    let Some(hardware) = machine.hardware() else { return Vec::new() };
    let timeline = hardware.timeline();
    let spans = timeline.standstills().filter(|(span, _)| span.to > span.from);
    let line = |(span, blackout): (&luosim_hardware::timeline::Span, bool)| {
        let totals = span.totals();
        TimelineLine {
            phase: span.phase.name().to_owned(),
            kernel: span.epoch + 1,
            blackout,
            nanoseconds: span.nanoseconds(),
            operations: totals.ops,
            written: totals.bytes_written,
            read: totals.bytes_read,
            refused: span.refused,
        }
    };
    spans.map(line).collect()
}

/// What is known of an invariant of DMA after a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InvariantLine {
    /// `D1` to `D16`.
    pub name: String,
    /// `holds`, `broken`, `not-looked-at`.
    pub standing: String,
    /// The invariant in words.
    pub about: String,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// What it shows.
    pub about: String,
    /// What happened.
    pub records: Vec<Record>,
    /// What devices did in each phase; empty without devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineLine>,
    /// The invariants of DMA; empty without devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invariants: Vec<InvariantLine>,
    /// What became of every preserved file.
    pub ledger: Vec<LedgerLine>,
    /// Expectations that did not hold.
    pub failures: usize,
}

impl Report {
    /// Whether every expectation held.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures == 0
    }
}
