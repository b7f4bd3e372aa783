//! The probe: the calls of the recorded program, in its order, on the model.

mod carry;
mod chain;
mod effects;
mod matrix;
mod sessions;

use std::collections::BTreeMap;

use luosim_abi::KResult;
use luosim_abi::release::ReleaseId;
use luosim_files::shmem::{MFD_ALLOW_SEALING, Seals, Whence};
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, ImageKind, Machine};
use luosim_physmem::PhysMem;

pub(crate) const PG: u64 = 4096;
pub(crate) const AS: u32 = MFD_ALLOW_SEALING;

/// The answers of one mode, by case.
pub(crate) type Answers = BTreeMap<String, String>;

pub(crate) struct Probe {
    pub(crate) m: Machine,
    pub(crate) p: Pid,
    pub(crate) dev: i32,
    pub(crate) release: ReleaseId,
    pub(crate) kept: usize,
    pub(crate) unique: u64,
    out: Answers,
}

/// `ok` or `-ENAME`, as the recorded program prints a result.
pub(crate) fn en<T>(result: &KResult<T>) -> String {
    result.as_ref().map_or_else(|refusal| format!("-{}", refusal.errno), |_| String::from("ok"))
}

fn pattern(seed: u32, index: u64) -> u8 {
    let sum = u64::from(seed) * 131 + index * 7 + (index >> 8) * 13 + (index >> 12) * 17;
    sum.to_le_bytes()[0]
}

impl Probe {
    fn boot(release: ReleaseId) -> Self {
        let mut m = Machine::new(PhysMem::anonymous(512 << 20).expect("half a gibibyte"));
        m.cold_reset(release, &BootOptions::default());
        let p = m.spawn("probe").expect("the machine is up");
        Self { m, p, dev: -1, release, kept: 0, unique: 0, out: Answers::new() }
    }

    pub(crate) fn say(&mut self, case: &str, answer: impl Into<String>) {
        self.out.insert(case.to_owned(), answer.into());
    }

    pub(crate) fn load(&mut self) {
        self.m.load_image(self.p, self.release, BootOptions::default(), ImageKind::File).expect("root loads");
    }

    pub(crate) fn kexec(&mut self) {
        self.m.reboot_kexec(self.p).expect("nothing refuses");
        self.p = self.m.spawn("probe").expect("the machine is up");
        self.dev = -1;
    }

    // The raw interface, as in the recorded program: descriptors, or the refusal.
    pub(crate) fn open_device(&mut self, flags: u32) -> KResult<i32> {
        self.m.open(self.p, "/dev/liveupdate", flags, 0)
    }

    pub(crate) fn device(&mut self) {
        self.dev = self.open_device(2).expect("free");
    }

    pub(crate) fn create(&mut self, name: &[u8]) -> KResult<i32> {
        self.m.create_session(self.p, self.dev, name)
    }

    pub(crate) fn keep(&mut self, name: &[u8]) -> i32 {
        self.kept += 1;
        self.create(name).expect("a new name")
    }

    pub(crate) fn take(&mut self, name: &[u8]) -> KResult<i32> {
        self.m.retrieve_session(self.p, self.dev, name)
    }

    pub(crate) fn preserve(&mut self, session: i32, fd: i32, token: u64) -> KResult<()> {
        self.m.preserve_fd(self.p, session, fd, token)
    }

    pub(crate) fn retrieve(&mut self, session: i32, token: u64) -> KResult<i32> {
        self.m.retrieve_fd(self.p, session, token)
    }

    pub(crate) fn finish(&mut self, session: i32) -> KResult<()> {
        self.m.finish(self.p, session, 0)
    }

    pub(crate) fn close(&mut self, fd: i32) {
        if fd >= 0 {
            self.m.close(self.p, fd).expect("open");
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the descriptor in it is gone afterwards")]
    pub(crate) fn done(&mut self, result: KResult<i32>) {
        if let Ok(fd) = result {
            self.close(fd);
        }
    }

    /// A memfd of `size` bytes with the first `bytes` filled.
    pub(crate) fn mf(&mut self, flags: u32, size: u64, seed: u32, bytes: u64) -> i32 {
        let fd = self.m.memfd_create(self.p, "m", flags, false).expect("room");
        if size > 0 {
            self.truncate(fd, size).expect("fresh");
        }
        self.fill(fd, seed, 0, bytes);
        fd
    }

    pub(crate) fn fill(&mut self, fd: i32, seed: u32, from: u64, len: u64) {
        let bytes: Vec<u8> = (from..from + len).map(|index| pattern(seed, index)).collect();
        let _ = self.m.pwrite(self.p, fd, &bytes, from);
    }

    pub(crate) fn truncate(&mut self, fd: i32, size: u64) -> KResult<()> {
        self.m.ftruncate(self.p, fd, i64::try_from(size).expect("sizes are positive"))
    }

    pub(crate) fn pwrite(&mut self, fd: i32, bytes: &[u8], at: u64) -> KResult<usize> {
        self.m.pwrite(self.p, fd, bytes, at)
    }

    /// The count of a write, -1 on an error, as the program prints it.
    pub(crate) fn count(&mut self, fd: i32, len: u64, at: u64) -> String {
        let bytes = vec![7; usize::try_from(len).expect("small")];
        self.pwrite(fd, &bytes, at)
            .map_or_else(|refusal| (-refusal.errno.raw()).to_string(), |done| done.to_string())
    }

    pub(crate) fn byte(&mut self, fd: i32, at: u64) -> u8 {
        let mut byte = [0];
        self.m.pread(self.p, fd, &mut byte, at).expect("readable");
        byte[0]
    }

    pub(crate) fn seek(&mut self, fd: i32, to: i64, whence: Whence) -> u64 {
        self.m.lseek(self.p, fd, to, whence).expect("a memory file")
    }

    /// `match`, `zero`, `differ@N` or `short(…)`.
    pub(crate) fn cmp(&mut self, fd: i32, seed: u32, from: u64, len: u64) -> String {
        let mut buf = vec![0; usize::try_from(len).expect("small")];
        let got = self.m.pread(self.p, fd, &mut buf, from).expect("readable");
        if u64::try_from(got).expect("small") < len {
            return format!("short({got} of {len})");
        }
        match (from..).zip(&buf).position(|(index, byte)| pattern(seed, index) != *byte) {
            None => String::from("match"),
            Some(_) if buf.iter().all(|byte| *byte == 0) => String::from("zero"),
            Some(at) => format!("differ@{at}"),
        }
    }

    pub(crate) fn seals(&mut self, fd: i32) -> String {
        self.m
            .get_seals(self.p, fd)
            .map_or_else(|refusal| format!("-{}", refusal.errno), |seals| format!("{:#x}", seals.0))
    }

    pub(crate) fn add_seals(&mut self, fd: i32, seals: u32) -> String {
        en(&self.m.add_seals(self.p, fd, Seals(seals)))
    }

    pub(crate) fn size(&mut self, fd: i32) -> u64 {
        self.m.fstat(self.p, fd).expect("open").size
    }

    pub(crate) fn blocks(&mut self, fd: i32) -> u64 {
        self.m.fstat(self.p, fd).expect("open").blocks
    }

    pub(crate) fn grow(&mut self, fd: i32, pages: u64) -> String {
        en(&self.truncate(fd, pages * PG))
    }

    pub(crate) fn name(&mut self, session: i32) -> KResult<Vec<u8>> {
        self.m.get_name(self.p, session)
    }

    pub(crate) fn link(&mut self, fd: i32) -> String {
        self.m
            .readlink_fd(self.p, fd)
            .map_or_else(|refusal| format!("-{}", refusal.errno), |link| escape(&link))
    }

    /// Both stages of the main mode.
    pub(crate) fn main(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        probe.load();
        probe.t_device();
        probe.t_dispatch();
        probe.t_sessions();
        probe.t_preserve();
        probe.t_effects();
        probe.t_more();
        probe.limits();
        probe.t_carry();
        probe.kexec();
        probe.t_retrieve();
        probe.out
    }

    /// Three kernels, and a reboot that fails first.
    pub(crate) fn chain(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        probe.chain1();
        probe.load();
        probe.kexec();
        probe.chain2();
        probe.load();
        probe.kexec();
        probe.chain3();
        probe.out
    }

    /// Calls in the wrong direction.
    pub(crate) fn danger(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        probe.load();
        probe.danger1();
        probe.kexec();
        probe.danger2();
        probe.out
    }

    /// Nothing preserved, three kernels.
    pub(crate) fn none(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        for stage in 1..=3 {
            probe.device();
            let found = probe.take(b"x");
            probe.say(&format!("pub.none.retrieve{stage}"), en(&found));
            probe.load();
            probe.kexec();
        }
        probe.out
    }
}

/// Bytes as the recorded program prints them.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        32..=126 if *byte != b'\\' => char::from(*byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    bytes.iter().map(one).collect()
}
