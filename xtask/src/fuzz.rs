//! Builds and runs the fuzz targets with the toolchain that builds everything else.
//!
//! `cargo fuzz` does the same and more (minimising, coverage), on nightly, in `crates/sim/fuzz`. Here libFuzzer is linked and the
//! code instrumented for it by options of the stable compiler, without a sanitizer: only `physmem` has `unsafe` code that a
//! target reaches, and debug assertions and overflow checks are on. A C++ compiler is needed, for libFuzzer itself. Inputs
//! that are found go to `target/fuzz/corpus`, what crashes to `target/fuzz`; the corpus in the repository is only read.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Every target.
const TARGETS: [&str; 5] = ["boot", "fdt", "core", "calls", "scenario"];
const SECONDS: &str = "20";

/// Instrumentation as libFuzzer wants it; what `cargo fuzz` passes, but for the sanitizer.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Clto=no",
];
/// Named, so that build scripts are not instrumented.
const HOST: &str = "x86_64-unknown-linux-gnu";

fn succeed(what: &str, command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{what} does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
}

fn build(project: &Path, into: &Path) -> Result<(), String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--target", HOST, "--manifest-path"]).arg(project.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(into).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    succeed("building the targets", &mut cargo)
}

fn run_one(target: &str, seconds: &str, project: &Path, work: &Path) -> Result<(), String> {
    let found = work.join("corpus").join(target);
    std::fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let mut fuzzer = Command::new(work.join(HOST).join("release").join(target));
    fuzzer.args([format!("-max_total_time={seconds}"), String::from("-timeout=10")]);
    fuzzer.args(["-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"]);
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", work.display()));
    fuzzer.arg(&found).arg(project.join("corpus").join(target));
    println!("{target}: {seconds} s");
    succeed(target, &mut fuzzer)
}

/// `fuzz [SECONDS [TARGET…]]`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let seconds = arguments.first().map_or(SECONDS, String::as_str);
    seconds.parse::<u32>().map_err(|_| format!("{seconds} is no number of seconds"))?;
    let chosen: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    if let Some(unknown) = chosen.iter().find(|name| !TARGETS.contains(name)) {
        return Err(format!("there is no target {unknown}; there are {}", TARGETS.join(", ")));
    }
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (project, work) = (root.join("crates/sim/fuzz"), root.join("target/fuzz"));
    build(&project, &work)?;
    let chosen = if chosen.is_empty() { TARGETS.to_vec() } else { chosen };
    chosen.into_iter().try_for_each(|target| run_one(target, seconds, &project, &work))
}
