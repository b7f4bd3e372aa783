//! The scenario language: KDL documents of system calls by named processes, with kexecs between them.
//!
//! [`parse`] reads and checks a document and gives every problem it finds, each with the place it points at;
//! [`print()`] writes a scenario back, and reading that gives the same scenario. The language is a table:
//! [`table::OPERATIONS`] lists every step with its parameters, and reading, checking, printing and the
//! reference in the book all follow it.
//!
//! No execution here: crate `luosim-sim` runs scenarios in the model.

#![forbid(unsafe_code)]

mod check;
mod diagnostic;
mod names;
mod nesting;
mod parse;
mod print;
pub mod step;
pub mod table;

pub use diagnostic::{Diagnostic, nearest};
pub use parse::parse;
pub use print::print;
pub use step::{Call, Scenario, Span, Step, Value};
pub use table::Op;
