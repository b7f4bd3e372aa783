//! Runs scenarios in the model and says what happened.
//!
//! [`run`] takes a parsed scenario and gives a [`Report`]: the transcript (data, not log lines), the
//! expectations that failed, the ledger. The same scenario gives the same report and the same memory. Not
//! here: the language (crate `luosim-scenario`), rendering (the command).

#![forbid(unsafe_code)]

pub mod dump;
pub mod explore;
pub mod flips;
pub mod golden;
pub mod hostile;
pub mod matrix;
pub mod pattern;
mod runner;
pub mod transcript;

pub use runner::{Options, run};
pub use transcript::{Record, Report};
