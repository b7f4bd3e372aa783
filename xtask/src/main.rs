//! Developer chores: `cargo run -p xtask -- book` checks the book, `-- language` rewrites the chapters that are made
//! from tables (the scenario language, the quirks).

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "chores talk to a terminal")]

mod book;
mod language;
mod links;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let result = match std::env::args().nth(1).as_deref() {
        Some("book") => book::check(&docs).map(|chapters| println!("{chapters} chapters")),
        Some("language") => book::write(&docs),
        _ => Err(String::from("usage: cargo run -p xtask -- book|language")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
