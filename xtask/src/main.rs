//! Developer chores: `cargo run -p xtask -- book` checks the book, `-- language` rewrites the chapters that are made
//! from tables (the scenario language, the quirks), `-- fuzz [SECONDS [TARGET…]]` runs the fuzz targets for a while.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "chores talk to a terminal")]

mod book;
mod fuzz;
mod language;
mod links;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let result = match arguments.first().map(String::as_str) {
        Some("book") => book::check(&docs).map(|chapters| println!("{chapters} chapters")),
        Some("language") => book::write(&docs),
        Some("fuzz") => fuzz::run(&arguments[1..]),
        _ => Err(String::from("usage: cargo run -p xtask -- book|language|fuzz [SECONDS [TARGET…]]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
