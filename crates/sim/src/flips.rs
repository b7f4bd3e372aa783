//! What a single wrong bit in handover memory does: every bit of every page of metadata is flipped, one at a time, and a
//! kernel boots on it, opens the device, retrieves and finishes everything.
//!
//! The page is wrong when the new kernel starts, as after a stray write of the old one or of a device during the jump.
//! Each flip is told by what a program sees ([`Class`]). Two files are the same without reading them if they have the
//! same folios and nobody wrote to those. Not here: which pages are metadata (crate `luosim-inspect` knows), flips in
//! contents (they change contents, and nothing else).

use std::panic::{AssertUnwindSafe, catch_unwind};

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_files::Folio;
use luosim_kho::BootParams;
use luosim_luo::SessionName;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, Machine, Outcome};
use luosim_physmem::{Pfn, PhysAddr, PhysMem};
use rustc_hash::FxHashSet;
use serde::Serialize;

/// Bits in a page.
pub const BITS_PER_PAGE: u64 = 4096 * 8;

/// What a flip does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Everything is as without it.
    Harmless,
    /// Something that worked fails with an error; what still works is right.
    Refused,
    /// The kernel panics, as a real one would.
    Panics,
    /// No call says so, but something that was given back is different: bytes, size, position, seals, or a number.
    Silent,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Harmless, Self::Refused, Self::Panics, Self::Silent];

    /// One word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Refused => "refused",
            Self::Panics => "panics",
            Self::Silent => "silent",
        }
    }
}

/// Pages of one structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Its name, for the table.
    pub name: String,
    /// Its pages.
    pub pages: Vec<Pfn>,
}

/// What the flips in one structure did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The structure.
    pub structure: String,
    /// Its pages.
    pub pages: u64,
    /// Flips by class, in the order of [`Class::ALL`].
    pub counts: [u64; 4],
    /// Bits of the first flips that nothing showed, as (address of the byte, bit).
    pub silent: Vec<(PhysAddrText, u8)>,
}

impl Row {
    /// Flips made.
    #[must_use]
    pub fn flips(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds what another worker found in the same structure.
    pub fn add(&mut self, other: Self) {
        self.pages += other.pages;
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.silent.extend(other.silent);
        self.silent.sort_by_key(|(addr, bit)| (addr.0, *bit));
        self.silent.truncate(LISTED);
    }
}

/// Silent flips that are listed for each structure.
const LISTED: usize = 1024;

/// An address in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysAddrText(pub PhysAddr);

impl Serialize for PhysAddrText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A survey that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// Without any flip the handover is not taken over, or a file does not come back.
    #[error("without any flip, {what}: there is nothing to compare with")]
    Baseline {
        /// What goes wrong.
        what: String,
    },
    /// luosim itself failed on a flip.
    #[error("luosim failed on bit {bit} of the byte at {addr}: this is a bug in luosim")]
    Fault {
        /// The byte.
        addr: PhysAddr,
        /// The bit in it.
        bit: u8,
    },
}

/// A file that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileSeen {
    size: u64,
    pos: u64,
    seals: u32,
    folios: Vec<(u64, Folio)>,
}

/// What a program sees of one session: an errno, or what each token gives.
type SessionSeen = Result<Vec<Result<FileSeen, Errno>>, Errno>;

/// Everything that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    panicked: bool,
    number: u64,
    kexecs: u32,
    open: Result<(), Errno>,
    sessions: Vec<SessionSeen>,
}

/// What is asked for: names and tokens of the handover without a flip.
type Wanted = Vec<(SessionName, Vec<u64>)>;

/// A memory with a kernel to boot on it, again and again.
struct Bench {
    machine: Machine,
    params: BootParams,
    release: ReleaseId,
    options: BootOptions,
    wanted: Wanted,
}

/// Flips every bit of `structures`, boots `release` on each, and counts. `progress` is told the flips of each page done.
///
/// # Errors
/// [`SurveyError`].
pub fn survey(
    memory: PhysMem,
    params: BootParams,
    release: ReleaseId,
    structures: &[Structure],
    mut progress: impl FnMut(u64),
) -> Result<Vec<Row>, SurveyError> {
    let (mut bench, baseline) = Bench::new(memory, params, release)?;
    let mut rows = Vec::new();
    for structure in structures {
        let mut row = Row {
            structure: structure.name.clone(),
            pages: u64::try_from(structure.pages.len()).expect("a count"),
            counts: [0; 4],
            silent: Vec::new(),
        };
        for page in &structure.pages {
            bench.flip_page(*page, &baseline, &mut row)?;
            progress(BITS_PER_PAGE);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// What the trials are compared with.
struct Baseline {
    seen: Seen,
    /// The bytes of every file, as they are listed.
    contents: Vec<Vec<Vec<u8>>>,
    /// Frames of all contents.
    frames: FxHashSet<Pfn>,
}

impl Bench {
    fn new(memory: PhysMem, params: BootParams, release: ReleaseId) -> Result<(Self, Baseline), SurveyError> {
        let cmdline = String::from("kho=on liveupdate=on liveupdate_test=on");
        let options = BootOptions { cmdline, ..BootOptions::default() };
        let machine = Machine::without_ledger(memory);
        let mut bench = Self { machine, params, release, options, wanted: Vec::new() };
        bench.machine.memory_mut().begin_trials();
        bench.learn()?;
        let (seen, contents) = bench.look();
        let frames = check_baseline(&seen)?;
        bench.machine.memory_mut().take_back();
        Ok((bench, Baseline { seen, contents, frames }))
    }

    /// Learns what there is to ask for.
    fn learn(&mut self) -> Result<(), SurveyError> {
        let report = self.machine.boot_on_handover(self.params, self.release, &self.options);
        let baseline = |what: String| SurveyError::Baseline { what };
        if let Some(reason) = report.outcome.reason() {
            return Err(baseline(format!("the handover is not taken over ({reason})")));
        }
        let pid = self.machine.spawn("survey").expect("a kernel runs");
        let opened = self.machine.open(pid, "/dev/liveupdate", 2, 0);
        opened.map_err(|refusal| baseline(format!("the device does not open ({})", refusal.reason)))?;
        self.wanted = self.machine.kernel().expect("it runs").luo().incoming().collect();
        self.machine.memory_mut().take_back();
        Ok(())
    }

    /// Boots and uses everything; also gives the contents.
    fn look(&mut self) -> (Seen, Vec<Vec<Vec<u8>>>) {
        let mut contents = Vec::new();
        let seen = self.trial(|machine, pid, files| {
            let read = |file: &(i32, FileSeen)| read(machine, pid, file.0, file.1.size).unwrap_or_default();
            contents.push(files.iter().map(read).collect());
        });
        (seen, contents)
    }

    /// Boots on the memory as it is, retrieves and finishes everything, and shows the files of each session to `files`.
    fn trial(&mut self, mut files: impl FnMut(&mut Machine, Pid, &[(i32, FileSeen)])) -> Seen {
        let report = self.machine.boot_on_handover(self.params, self.release, &self.options);
        let panicked = matches!(report.outcome, Outcome::Panicked { .. });
        let mut seen = Seen { panicked, number: 0, kexecs: 0, open: Ok(()), sessions: Vec::new() };
        let Some(kernel) = self.machine.kernel() else { return seen };
        seen.number = kernel.luo().number();
        seen.kexecs = kernel.core().kho().kexec_count();
        let pid = self.machine.spawn("survey").expect("a kernel runs");
        let device = match self.machine.open(pid, "/dev/liveupdate", 2, 0) {
            Ok(device) => device,
            Err(refusal) => {
                seen.open = Err(refusal.errno);
                return seen;
            }
        };
        for (name, tokens) in &self.wanted {
            let session = session(&mut self.machine, pid, device, (name, tokens), &mut files);
            seen.sessions.push(session.map_err(|refusal| refusal.errno));
        }
        seen
    }

    fn flip_page(&mut self, page: Pfn, baseline: &Baseline, row: &mut Row) -> Result<(), SurveyError> {
        for bit in 0..BITS_PER_PAGE {
            let addr = page.addr().checked_add(bit / 8).expect("inside the page");
            let bit = u8::try_from(bit % 8).expect("a bit of a byte");
            // What unwinds has lost the machine; it is not used again.
            let class = catch_unwind(AssertUnwindSafe(|| self.flip(addr, bit, baseline)));
            let class = class.map_err(|_| SurveyError::Fault { addr, bit })?;
            row.counts[class as usize] += 1;
            if class == Class::Silent && row.silent.len() < LISTED {
                row.silent.push((PhysAddrText(addr), bit));
            }
        }
        Ok(())
    }

    fn flip(&mut self, addr: PhysAddr, bit: u8, baseline: &Baseline) -> Class {
        let memory = self.machine.memory_mut();
        let mut byte = [0];
        memory.read(addr, &mut byte).expect("metadata lies in memory");
        memory.write(addr, &[byte[0] ^ (1 << bit)]).expect("metadata lies in memory");
        let mut differ = false;
        let mut index = 0;
        let seen = self.trial(|machine, pid, files| {
            let (before, contents) = (&baseline.seen.sessions[index], &baseline.contents[index]);
            differ |= session_differs(machine, pid, files, before.as_deref().unwrap_or(&[]), contents);
            index += 1;
        });
        let memory = self.machine.memory_mut();
        let written = memory.written().iter().any(|pfn| baseline.frames.contains(pfn));
        memory.take_back();
        classify(&seen, &baseline.seen, differ || written)
    }
}

/// Retrieves a session, all its tokens, and finishes it.
fn session(
    machine: &mut Machine,
    pid: Pid,
    device: i32,
    (name, tokens): (&SessionName, &[u64]),
    files: &mut impl FnMut(&mut Machine, Pid, &[(i32, FileSeen)]),
) -> KResult<Vec<Result<FileSeen, Errno>>> {
    let fd = machine.retrieve_session(pid, device, name.as_bytes())?;
    let mut found: Vec<(i32, FileSeen)> = Vec::with_capacity(tokens.len());
    let mut results = Vec::with_capacity(tokens.len());
    for token in tokens {
        let file = machine.retrieve_fd(pid, fd, *token).map(|file| (file, see(machine, pid, file)));
        results.push(file.as_ref().map(|(_, seen)| seen.clone()).map_err(|refusal| refusal.errno));
        found.push(file.unwrap_or((-1, FileSeen { size: 0, pos: 0, seals: 0, folios: Vec::new() })));
    }
    files(machine, pid, &found);
    machine.finish(pid, fd, 0)?;
    Ok(results)
}

fn see(machine: &mut Machine, pid: Pid, fd: i32) -> FileSeen {
    let pos =
        machine.lseek(pid, fd, 0, luosim_files::shmem::Whence::Cur).expect("a memory file has a position");
    let file = machine.memory_file(pid, fd).expect("only memory files are carried");
    FileSeen { size: file.size(), pos, seals: file.seals().0, folios: file.folios().collect() }
}

fn read(machine: &mut Machine, pid: Pid, fd: i32, size: u64) -> KResult<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).expect("a real file's size")];
    machine.pread(pid, fd, &mut bytes, 0)?;
    Ok(bytes)
}

/// Whether a file that came back is not the one that was there. Those that did not come back are not asked.
fn session_differs(
    machine: &mut Machine,
    pid: Pid,
    files: &[(i32, FileSeen)],
    before: &[Result<FileSeen, Errno>],
    contents: &[Vec<u8>],
) -> bool {
    let pairs = files.iter().zip(before).zip(contents);
    pairs.filter(|(((fd, _), _), _)| *fd >= 0).any(|(((fd, seen), before), bytes)| {
        let Ok(before) = before else { return true };
        let same = (seen.size, seen.pos, seen.seals) == (before.size, before.pos, before.seals);
        !same
            || (seen.folios != before.folios
                && read(machine, pid, *fd, seen.size).ok().as_ref() != Some(bytes))
    })
}

fn classify(seen: &Seen, before: &Seen, differ: bool) -> Class {
    if seen.panicked {
        return Class::Panics;
    }
    let failed =
        |session: &SessionSeen| session.as_ref().map_or(true, |files| files.iter().any(Result::is_err));
    let refused = seen.open.is_err() || seen.sessions.iter().any(failed);
    let numbers = (seen.number, seen.kexecs) != (before.number, before.kexecs);
    if differ || (numbers && !refused) {
        return Class::Silent;
    }
    if refused { Class::Refused } else { Class::Harmless }
}

fn check_baseline(seen: &Seen) -> Result<FxHashSet<Pfn>, SurveyError> {
    let baseline = |what: &str| SurveyError::Baseline { what: what.to_owned() };
    let mut frames = FxHashSet::default();
    for session in &seen.sessions {
        for file in session.as_ref().map_err(|_| baseline("a session does not come back"))? {
            let file = file.as_ref().map_err(|_| baseline("a file does not come back"))?;
            for (_, folio) in &file.folios {
                frames.extend((folio.head.raw()..folio.head.raw() + folio.order.pages()).map(Pfn::new));
            }
        }
    }
    Ok(frames)
}
