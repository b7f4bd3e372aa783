//! The rules for headers of ioctls that are to grow, and what breaks them.
//!
//! A rule is a row of [`Rule`]: its name, what it asks for, why, and how to mend it. A finding has a place in the header. A
//! comment `/* luosim-abi: allow(RULE) why */` on the line or before the declaration takes a finding back, and
//! `allow-file(RULE)` all of a header; it must say why, and it is a finding itself when nothing needs it.
//!
//! Rules of structures that commands pass hold for those that a command is known to pass; the rules of members hold for
//! every structure of the header. What is not understood is a note, and is not judged.

mod allow;
mod commands;
mod rules;
mod structures;

use serde::Serialize;

pub use rules::{Level, Rule};

use crate::header::{Ioctl, Loaded, Record, Scope, Span, ioctls, structure};
use crate::registry::Registry;

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// Where in the header, in bytes.
    pub span: Span,
    /// What is wrong there, one clause with names and numbers.
    pub message: String,
    /// Why it is allowed, if a comment allows it.
    pub allowed: Option<String>,
}

/// Findings of one header.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Findings {
    /// In order of their places. Those that are allowed are here too.
    pub list: Vec<Finding>,
}

/// How many findings there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Broken rules.
    pub warnings: usize,
    /// What was not understood.
    pub notes: usize,
    /// Broken rules that a comment allows.
    pub allowed: usize,
}

impl Findings {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> Count {
        let mut count = Count::default();
        for finding in &self.list {
            match (&finding.allowed, finding.rule.level()) {
                (Some(_), _) => count.allowed += 1,
                (None, Level::Warning) => count.warnings += 1,
                (None, Level::Note) => count.notes += 1,
            }
        }
        count
    }

    /// Those that no comment allows.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter().filter(|finding| finding.allowed.is_none())
    }
}

/// A header with its commands, as the rules look at it.
struct Subject<'a> {
    scope: Scope<'a>,
    ioctls: Vec<Ioctl>,
    registry: Option<&'a Registry>,
    found: Vec<Finding>,
}

impl<'a> Subject<'a> {
    fn say(&mut self, rule: Rule, span: &Span, message: String) {
        self.found.push(Finding { rule, span: span.clone(), message, allowed: None });
    }

    /// Each command with the structure of this header that it passes.
    fn passed(&self) -> Vec<(Ioctl, Option<&'a Record>)> {
        let header = self.scope.header;
        let here = |ioctl: &Ioctl| {
            structure(&self.scope, ioctl)
                .filter(|(home, _)| std::ptr::eq(*home, header))
                .map(|(_, record)| record)
        };
        self.ioctls.iter().map(|ioctl| (ioctl.clone(), here(ioctl))).collect()
    }
}

/// Looks for everything that breaks a rule.
#[must_use]
pub fn lint(loaded: &Loaded, registry: Option<&Registry>) -> Findings {
    let scope = loaded.scope();
    let ioctls = ioctls(&scope);
    let mut subject = Subject { scope, ioctls, registry, found: Vec::new() };
    for problem in &loaded.header.problems {
        subject.say(Rule::NotUnderstood, &problem.span, problem.what.clone());
    }
    structures::look(&mut subject);
    commands::look(&mut subject);
    let mut list = subject.found;
    allow::apply(&loaded.header, &mut list);
    list.sort_by(|a, b| (a.span.start, a.rule, &a.message).cmp(&(b.span.start, b.rule, &b.message)));
    list.dedup();
    Findings { list }
}
