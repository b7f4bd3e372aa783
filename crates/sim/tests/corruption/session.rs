//! The recorded program: opens the device, retrieves and finishes everything, and says what it got.

use luosim_abi::{Errno, Refusal};
use luosim_files::shmem::Whence;
use luosim_machine::Machine;
use luosim_machine::process::Pid;
use luosim_sim::golden::{Manifest, SessionEntry, unhex};

fn text(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "No such file or directory",
        Errno::EIO => "Input/output error",
        Errno::EINVAL => "Invalid argument",
        Errno::EEXIST => "File exists",
        Errno::EOPNOTSUPP => "Operation not supported",
        Errno::EBUSY => "Device or resource busy",
        Errno::ENOMEM => "Cannot allocate memory",
        other => other.name(),
    }
}

fn word<T>(result: Result<T, Refusal>) -> &'static str {
    result.map_or_else(|refusal| text(refusal.errno), |_| "ok")
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The program's short form: a repeated letter with its count, else the letters at the start.
fn label(name: &[u8]) -> String {
    if name.len() > 8 && name.iter().all(|byte| *byte == name[0]) {
        return format!("{}{}", char::from(name[0]), name.len());
    }
    name.iter().take_while(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(*byte)).collect()
}

struct Program<'a> {
    machine: &'a mut Machine,
    pid: Pid,
    said: Vec<String>,
}

/// Does what the recorded program did, and gives what it printed.
pub(crate) fn use_everything(machine: &mut Machine, manifest: &Manifest) -> String {
    let pid = machine.spawn("program").expect("a kernel runs");
    let mut program = Program { machine, pid, said: Vec::new() };
    let device = match program.machine.open(pid, "/dev/liveupdate", 2, 0) {
        Ok(device) => device,
        Err(refusal) => {
            let again = word(program.machine.open(pid, "/dev/liveupdate", 2, 0));
            return format!("open {}; again {again}", text(refusal.errno));
        }
    };
    program.said.push(String::from("open ok"));
    for entry in &manifest.sessions {
        let tokens: Vec<u64> = entry.files.iter().map(|file| file.token.parse().expect("a number")).collect();
        program.session(device, &name(entry), &tokens, true);
    }
    // A name of 64 bytes without NUL is cut to 63: only there is such a session found.
    program.session(device, &[b'q'; 63], &[1], false);
    program.said.push(String::from("end"));
    program.said.join(" ; ")
}

fn name(entry: &SessionEntry) -> Vec<u8> {
    unhex(&entry.name_hex).expect("hexadecimal")
}

impl Program<'_> {
    fn session(&mut self, device: i32, name: &[u8], tokens: &[u64], expected: bool) {
        let shown = label(name);
        let session = self.machine.retrieve_session(self.pid, device, name);
        if session.is_ok() || expected {
            self.said.push(format!("{shown}: {}", word(session.clone())));
        }
        let Ok(session) = session else { return };
        for token in tokens {
            self.file(session, &shown, *token);
        }
        let finished = word(self.machine.finish(self.pid, session, 0));
        self.said.push(format!("{shown} finish: {finished}"));
        self.machine.close(self.pid, session).expect("open");
    }

    fn file(&mut self, session: i32, shown: &str, token: u64) {
        let signed = token.cast_signed();
        match self.machine.retrieve_fd(self.pid, session, token) {
            Ok(fd) => {
                let what = self.describe(fd);
                self.said.push(format!("{shown}/{signed}: {what}"));
            }
            Err(refusal) => {
                self.said.push(format!("{shown}/{signed}: {}", text(refusal.errno)));
                let again = word(self.machine.retrieve_fd(self.pid, session, token));
                self.said.push(format!("{shown}/{signed} again: {again}"));
            }
        }
    }

    fn describe(&mut self, fd: i32) -> String {
        let pid = self.pid;
        let stat = self.machine.fstat(pid, fd).expect("open");
        let pos = self.machine.lseek(pid, fd, 0, Whence::Cur).expect("seekable");
        let seals = self.machine.get_seals(pid, fd).expect("a memory file").0;
        let mut bytes = vec![0; usize::try_from(stat.size).expect("small")];
        let read = self.machine.pread(pid, fd, &mut bytes, 0).expect("readable");
        assert_eq!(read, bytes.len());
        let (size, blocks) = (stat.size, stat.blocks);
        let hash = hash(&bytes);
        self.machine.close(pid, fd).expect("open");
        format!("size {size} pos {pos} seals {seals:#x} blocks {blocks} hash {hash:016x}")
    }
}
