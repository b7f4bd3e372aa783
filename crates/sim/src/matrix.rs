//! The same preserved set from every release to every release: what the new kernel does, and what is lost.
//!
//! The set is two sessions with three memory files between them, with contents, position and a seal, and one named
//! reservation. Each cell is a machine of its own, started cold; the same pair gives the same cell. What a cell says is
//! what a program in the new kernel finds, never what the formats let one expect: `luosim preflight` does the latter.

use luosim_abi::release::{Finalize, RELEASES, Release, ReleaseId};
use luosim_abi::{Errno, KResult};
use luosim_files::shmem::{MFD_ALLOW_SEALING, Seals, Whence};
use luosim_kho::Handover;
use luosim_luo::SessionName;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, BootReport, ImageKind, Machine, Outcome};
use luosim_physmem::{MemError, PhysMem};
use serde::Serialize;

/// Bytes of the machine.
const MEMORY: u64 = 64 << 20;
/// Bytes of each file.
pub const FILE_SIZE: u64 = 8192;
/// Position of each file.
pub const FILE_POS: u64 = 77;
/// Seals of each file.
pub const FILE_SEALS: u32 = 4;
const RESERVATION: &str = "reserve_mem=64K:4096:matrix";
/// The sessions, and the first letter of the contents of their files.
const SESSIONS: [(&str, u8, u64); 2] = [("x0", b'a', 1), ("x1", b'A', 2)];

/// What the new kernel makes of the set, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every file comes back.
    Works,
    /// The old kernel has no orchestrator; what KHO alone carries arrives.
    KhoOnly,
    /// The new kernel starts without any sessions, and its device works.
    Fresh,
    /// The memory is kept, but the new kernel has no device to get it by.
    Ignored,
    /// The new kernel starts without a handover, and has no device.
    NoDevice,
    /// The device cannot be opened.
    DeviceError,
    /// The new kernel panics.
    Panics,
}

impl Verdict {
    /// Every verdict, best first.
    pub const ALL: [Self; 7] = [
        Self::Works,
        Self::KhoOnly,
        Self::Fresh,
        Self::Ignored,
        Self::NoDevice,
        Self::DeviceError,
        Self::Panics,
    ];

    /// One word for a table.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::KhoOnly => "kho only",
            Self::Fresh => "fresh",
            Self::Ignored => "ignored",
            Self::NoDevice => "no device",
            Self::DeviceError => "EIO",
            Self::Panics => "panics",
        }
    }

    /// What the word means.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Works => "every file comes back",
            Self::KhoOnly => "no orchestrator in the old kernel; what KHO alone carries arrives",
            Self::Fresh => {
                "boots without the handover; the device works and knows no session; everything is lost"
            }
            Self::Ignored => "the memory is kept, but this kernel has no /dev/liveupdate; it is lost",
            Self::NoDevice => "boots without the handover and has no /dev/liveupdate; everything is lost",
            Self::DeviceError => "boots, but opening the device fails for good; the memory is kept and lost",
            Self::Panics => "KHO takes the memory over, then the orchestrator's data stops the boot",
        }
    }
}

/// One file, as the new kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFate {
    /// Its session.
    pub session: &'static str,
    /// Its token.
    pub token: u64,
    /// What came back; none if nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
    /// Why nothing came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// A file that came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The first 8 bytes.
    pub text: String,
    /// Size in bytes.
    pub size: u64,
    /// Position.
    pub pos: u64,
    /// Seals.
    pub seals: u32,
}

/// One pair of releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The old kernel.
    pub from: &'static str,
    /// The new kernel.
    pub to: &'static str,
    /// In one word.
    pub verdict: Verdict,
    /// Why nothing was taken over, or why the kernel panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What opening the device in the new kernel gives; absent if it panicked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<&'static str>,
    /// What RETRIEVE_SESSION gives for each session, where the device opens.
    pub sessions: Vec<(&'static str, &'static str)>,
    /// Every file that the old kernel preserved.
    pub files: Vec<FileFate>,
    /// Whether the named reservation is there again.
    pub reservation: bool,
    /// What the new kernel logged.
    pub log: Vec<String>,
}

/// Runs every pair of `from` and `to`, row by row.
///
/// # Errors
/// The host has no room for a machine's memory.
pub fn run(from: &[ReleaseId], to: &[ReleaseId]) -> Result<Vec<Cell>, MemError> {
    from.iter().flat_map(|old| to.iter().map(move |new| cell(*old, *new))).collect()
}

/// Every release, oldest first.
#[must_use]
pub fn all() -> Vec<ReleaseId> {
    RELEASES.iter().map(|release| release.id).collect()
}

fn name(result: &KResult<i32>) -> &'static str {
    result.as_ref().map_or_else(|refusal| refusal.errno.name(), |_| "ok")
}

fn options() -> BootOptions {
    let cmdline = format!("kho=on liveupdate=on liveupdate_test=on {RESERVATION}");
    BootOptions { cmdline, ..BootOptions::default() }
}

/// One pair.
///
/// # Errors
/// The host has no room for the machine's memory.
pub fn cell(from: ReleaseId, to: ReleaseId) -> Result<Cell, MemError> {
    let mut machine = Machine::new(PhysMem::anonymous(MEMORY)?);
    machine.cold_reset(from, &options());
    let pid = machine.spawn("stage1").expect("a kernel runs");
    if from.has_luo() {
        preserve_set(&mut machine, pid).expect("a fresh kernel preserves a small set");
    }
    let report = jump(&mut machine, pid, from.release(), to).expect("a finalised kernel reboots");
    Ok(look(&mut machine, from.release(), &report))
}

fn contents(first: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(FILE_SIZE).expect("small")];
    for (byte, letter) in bytes.iter_mut().zip(first..first + 8) {
        *byte = letter;
    }
    bytes
}

fn preserve_set(machine: &mut Machine, pid: Pid) -> KResult<()> {
    let device = machine.open(pid, "/dev/liveupdate", 2, 0)?;
    for (session, first, files) in SESSIONS {
        let fd = machine.create_session(pid, device, session.as_bytes())?;
        for token in 0..files {
            let file = machine.memfd_create(pid, "m", MFD_ALLOW_SEALING, false)?;
            machine.write(pid, file, &contents(first))?;
            machine.lseek(pid, file, i64::try_from(FILE_POS).expect("small"), Whence::Set)?;
            machine.add_seals(pid, file, Seals(FILE_SEALS))?;
            machine.preserve_fd(pid, fd, file, token)?;
        }
    }
    Ok(())
}

fn jump(machine: &mut Machine, pid: Pid, old: &Release, new: ReleaseId) -> KResult<BootReport> {
    if old.finalize == Finalize::BeforeLoad {
        machine.kho_finalize(1)?;
    }
    machine.load_image(pid, new, options(), ImageKind::File)?;
    machine.reboot_kexec(pid)
}

/// Looks at the new kernel as a program does.
fn look(machine: &mut Machine, old: &Release, report: &BootReport) -> Cell {
    let mut cell = Cell {
        from: old.name,
        to: report.release.name,
        verdict: Verdict::Panics,
        reason: report.outcome.reason().map(str::to_owned),
        open: None,
        sessions: Vec::new(),
        files: Vec::new(),
        reservation: false,
        log: Vec::new(),
    };
    let found = machine.spawn("stage2").ok().map(|pid| (pid, machine.open(pid, "/dev/liveupdate", 2, 0)));
    let mut fds = Vec::new();
    if let Some((pid, opened)) = &found {
        cell.open = Some(name(opened));
        if let Ok(device) = opened {
            fds = retrieve_sessions(machine, *pid, *device, &mut cell);
        }
    }
    if old.luo.is_some() {
        cell.files = files(machine, found.as_ref().map(|(pid, _)| *pid), &fds);
    }
    let handover = machine.kernel().map(|kernel| kernel.core().kho().handover());
    let accepted = matches!(handover, Some(Handover::Accepted { .. }));
    cell.verdict = judge(&cell, accepted, old, &report.outcome);
    match machine.kernel() {
        Some(kernel) => {
            cell.reservation = kernel.core().kho().reserved().iter().any(|reserved| reserved.revived);
            cell.log = kernel.log().lines.iter().map(|line| line.text.clone()).collect();
        }
        None => cell.log = report.log.lines.iter().map(|line| line.text.clone()).collect(),
    }
    cell
}

fn retrieve_sessions(machine: &mut Machine, pid: Pid, device: i32, cell: &mut Cell) -> Vec<i32> {
    let mut fds = Vec::new();
    for (session, ..) in SESSIONS {
        let fd = machine.retrieve_session(pid, device, session.as_bytes());
        cell.sessions.push((session, name(&fd)));
        fds.extend(fd);
    }
    fds
}

fn files(machine: &mut Machine, pid: Option<Pid>, fds: &[i32]) -> Vec<FileFate> {
    let mut fates = Vec::new();
    for (index, (session, _, files)) in SESSIONS.into_iter().enumerate() {
        for token in 0..files {
            let fd = pid.zip(fds.get(index).copied());
            let found = fd.and_then(|(pid, fd)| retrieve(machine, pid, fd, token).ok());
            fates.push(FileFate { session, token, found, lost: None });
        }
        if let (Some(pid), Some(fd)) = (pid, fds.get(index)) {
            machine.finish(pid, *fd, 0).expect("a retrieved session is finished");
        }
    }
    for fate in fates.iter_mut().filter(|fate| fate.found.is_none()) {
        let ledger = machine.ledger().expect("this machine keeps one");
        let entry = ledger.find(&SessionName::from_bytes(fate.session.as_bytes()), fate.token);
        fate.lost = entry.and_then(|entry| entry.fate.cause().map(str::to_owned));
    }
    fates
}

fn retrieve(machine: &mut Machine, pid: Pid, session: i32, token: u64) -> KResult<Found> {
    let fd = machine.retrieve_fd(pid, session, token)?;
    let mut text = [0; 8];
    machine.pread(pid, fd, &mut text, 0)?;
    let pos = machine.lseek(pid, fd, 0, Whence::Cur)?;
    let (size, seals) = (machine.fstat(pid, fd)?.size, machine.get_seals(pid, fd)?.0);
    Ok(Found { text: String::from_utf8_lossy(&text).into_owned(), size, pos, seals })
}

fn judge(cell: &Cell, accepted: bool, old: &Release, outcome: &Outcome) -> Verdict {
    if matches!(outcome, Outcome::Panicked { .. }) {
        return Verdict::Panics;
    }
    let device = cell.open == Some("ok");
    match (accepted, old.luo.is_some(), device) {
        (true, false, _) => Verdict::KhoOnly,
        (true, true, true) if cell.files.iter().all(|file| file.found.is_some()) => Verdict::Works,
        (true, true, false) if cell.open == Some(Errno::EIO.name()) => Verdict::DeviceError,
        (true, true, false) => Verdict::Ignored,
        (_, _, true) => Verdict::Fresh,
        (false, _, false) => Verdict::NoDevice,
    }
}
