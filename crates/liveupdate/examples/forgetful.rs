//! A program with a mistake in it: it does not hold the session that it preserves its state in.
//!
//! Contract: in the first kernel it preserves its state and ends with 0, as if all were well; in the next kernel
//! nothing is there, and it ends with 1. Every call succeeds: only what watches from outside can tell why. It does
//! not trigger the kexec.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use liveupdate::{Error, LiveUpdate, SessionName};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::write;

const TOKEN: u64 = 7;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let name = SessionName::new("state")?;
    let device = LiveUpdate::open()?;
    match device.retrieve_session(&name) {
        Ok(session) => {
            let _state: OwnedFd = session.retrieve(TOKEN)?;
            println!("forgetful: the state is back");
            Ok(())
        }
        Err(Error::NotFound(_)) if generation() > 1 => Err("the state is not there".into()),
        Err(Error::NotFound(_)) => save(&device, &name),
        Err(error) => Err(error.into()),
    }
}

fn generation() -> u32 {
    std::env::var("LUOSIM_GENERATION").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn save(device: &LiveUpdate, name: &SessionName) -> Result<()> {
    let state = memfd_create("state", MemfdFlags::CLOEXEC)?;
    write(&state, b"what I know")?;
    let session = device.create_session(name)?;
    session.preserve(&state, TOKEN)?;
    println!("forgetful: saved");
    // The mistake: `session` goes out of scope here, was its only descriptor, and takes the state with it.
    Ok(())
}
