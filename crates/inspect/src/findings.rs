//! What is wrong with a handover, each with the physical address and the field it is about.

use luosim_physmem::PhysAddr;
use serde::Serialize;

use crate::report::Addr;

/// Findings kept; of more, only the number is.
pub(crate) const KEPT: usize = 1000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Not as any kernel writes it, though no reader minds.
    Warning,
    /// A kernel refuses it, loses something or hands out something else.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The bytes it is about.
    pub at: Addr,
    /// The field, `session[1].file[0].size`.
    pub field: String,
    /// What is wrong, in words.
    pub what: String,
}

/// The findings so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) kept: Vec<Finding>,
    pub(crate) left_out: u64,
}

impl Findings {
    fn add(&mut self, severity: Severity, at: PhysAddr, field: &str, what: String) {
        if self.kept.len() == KEPT {
            self.left_out += 1;
            return;
        }
        self.kept.push(Finding { severity, at: Addr(at), field: field.to_owned(), what });
    }

    pub(crate) fn error(&mut self, at: PhysAddr, field: &str, what: impl Into<String>) {
        self.add(Severity::Error, at, field, what.into());
    }

    pub(crate) fn warning(&mut self, at: PhysAddr, field: &str, what: impl Into<String>) {
        self.add(Severity::Warning, at, field, what.into());
    }

    pub(crate) fn info(&mut self, at: PhysAddr, field: &str, what: impl Into<String>) {
        self.add(Severity::Info, at, field, what.into());
    }
}
