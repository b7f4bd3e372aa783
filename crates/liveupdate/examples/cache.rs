//! A service that keeps its cache in a memfd over a kexec.
//!
//! Contract: at start it takes its cache back if the previous kernel left one, checks the header, adds one to the
//! count of restarts and preserves the memory again; then it serves (here: sleeps) with the session open.
//! `cache --once` ends at once, which gives the cache up. It does not trigger the kexec.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;

use liveupdate::{Error, LiveUpdate, OutgoingSession, SessionName};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

const MAGIC: &[u8; 8] = b"cache-01";
const TOKEN: u64 = 1;
const SIZE: u64 = 1 << 20;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // Printed by hand: the message of an error says what to do next, its debug form does not.
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let name = SessionName::new("example-cache")?;
    let device = LiveUpdate::open()?;
    let cache = match restored(&device, &name)? {
        Some(cache) => cache,
        None => fresh()?,
    };
    let starts = count_start(&cache)?;
    let session = device.create_session(&name)?;
    session.preserve(&cache, TOKEN)?;
    // Others may want the device; sessions do not need it.
    drop(device);
    println!("cache: start {starts}, {} bytes in session {}", SIZE, session.name()?);
    serve(&session);
    Ok(())
}

/// The cache of the previous kernel, ready to be preserved again: that needs the finish.
fn restored(device: &LiveUpdate, name: &SessionName) -> Result<Option<File>> {
    let session = match device.retrieve_session(name) {
        Ok(session) => session,
        Err(Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let cache = File::from(session.retrieve(TOKEN)?);
    session.finish()?;
    let mut magic = [0; 8];
    cache.read_exact_at(&mut magic, 0)?;
    // A cache of another format is not an error: start with an empty one.
    Ok((&magic == MAGIC).then_some(cache))
}

fn fresh() -> Result<File> {
    let memory: OwnedFd = memfd_create("cache", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, SIZE)?;
    let cache = File::from(memory);
    cache.write_all_at(MAGIC, 0)?;
    Ok(cache)
}

/// Positions are explicit: a restored file stands where the old one stood.
fn count_start(cache: &File) -> Result<u64> {
    let mut count = [0; 8];
    cache.read_exact_at(&mut count, 8)?;
    let starts = u64::from_le_bytes(count) + 1;
    cache.write_all_at(&starts.to_le_bytes(), 8)?;
    Ok(starts)
}

/// Serves until the kernel jumps; the borrowed session shows what must stay open.
fn serve(_held: &OutgoingSession) {
    if std::env::args().any(|argument| argument == "--once") {
        return;
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
