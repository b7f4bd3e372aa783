//! An agent that owns the device and hands a session to a child by SCM_RIGHTS.
//!
//! Contract: in the first kernel the agent creates a session and sends it to a child, the "VMM" (this program with
//! the argument `vmm` and a socket as its standard input), which preserves its guest memory; the agent then waits
//! for the kexec. In the next kernel (the session can be retrieved) it checks that all came back and ends with 0.
//! With `LUOSIM_GENERATION` above 1 a missing session is an error. It does not trigger the kexec.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use liveupdate::{Error, IncomingSession, LiveUpdate, OutgoingSession, SessionName};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

const RAM: u64 = 4 << 20;
const RAM_TOKEN: u64 = 0x1000;
const TEXT: &[u8] = b"guest memory of VM 7";

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
    if std::env::args().nth(1).as_deref() == Some("vmm") {
        return vmm();
    }
    let name = SessionName::new("vm-7")?;
    let device = LiveUpdate::open()?;
    match device.retrieve_session(&name) {
        Ok(session) => check(&session),
        Err(Error::NotFound(_)) if generation() <= 1 => hand_out(&device, &name),
        Err(error) => Err(error.into()),
    }
}

fn generation() -> u32 {
    std::env::var("LUOSIM_GENERATION").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// First kernel: create, pass on, hold, wait.
fn hand_out(device: &LiveUpdate, name: &SessionName) -> Result<()> {
    let session = device.create_session(name)?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = start_vmm(theirs)?;
    send_session(&ours, &session)?;
    let mut ready = [0; 1];
    if (&ours).read_exact(&mut ready).is_err() {
        return Err(format!("the VMM ended early: {}", child.wait()?).into());
    }
    println!("agent: session {} is ready; waiting for the kexec", session.name()?);
    loop {
        // `session` stays open here: the agent keeps it even if the VMM dies.
        std::thread::sleep(Duration::from_secs(60));
    }
}

fn start_vmm(socket: UnixStream) -> Result<Child> {
    let program = std::env::current_exe()?;
    Ok(Command::new(program).arg("vmm").stdin(OwnedFd::from(socket)).spawn()?)
}

fn send_session(socket: &UnixStream, session: &OutgoingSession) -> Result<()> {
    let descriptors = [session.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err("no room for one descriptor".into());
    }
    sendmsg(socket, &[IoSlice::new(b"s")], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive_session(socket: &UnixStream) -> Result<OutgoingSession> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(OutgoingSession::from_fd(fd.ok_or("the agent sent no session")?)?)
}

/// The child: preserves its memory in the session it is given, keeps running.
fn vmm() -> Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let session = receive_session(&socket)?;
    let memory = memfd_create("guest-ram", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, RAM)?;
    session.preserve(&memory, RAM_TOKEN)?;
    // Writes in place after the preserve are carried over too.
    File::from(memory).write_all_at(TEXT, RAM / 2)?;
    (&socket).write_all(b"r")?;
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Next kernel: all is back.
fn check(session: &IncomingSession) -> Result<()> {
    let memory = File::from(session.retrieve(RAM_TOKEN)?);
    let mut text = vec![0; TEXT.len()];
    memory.read_exact_at(&mut text, RAM / 2)?;
    if memory.metadata()?.len() != RAM || text != TEXT {
        return Err("the guest memory came back changed".into());
    }
    session.finish()?;
    println!("agent: session {} came back whole", session.name()?);
    Ok(())
}
