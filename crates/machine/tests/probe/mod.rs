//! The probe: the calls of the recorded program, in its order and with its values, on the model.
//!
//! A call answers as in C: a descriptor or a count, or a negative error number. Cases under `pub.` have a
//! recorded answer; those under `hid.` are made as well, since later calls depend on them.

mod carry;
mod chain;
mod device;
mod effects;
mod matrix;
mod preserve;
mod race;
mod retrieve;
mod sessions;

use std::collections::BTreeMap;

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_files::shmem::{MFD_ALLOW_SEALING, Seals, Whence};
use luosim_machine::process::Pid;
use luosim_machine::sys::{MapId, Stat};
use luosim_machine::{BootOptions, ImageKind, Machine};
use luosim_physmem::PhysMem;

pub(crate) const PG: u64 = 4096;
pub(crate) const AS: u32 = MFD_ALLOW_SEALING;
pub(crate) const F_SEAL_SHRINK: u32 = 2;
pub(crate) const F_SEAL_GROW: u32 = 4;
pub(crate) const F_SEAL_WRITE: u32 = 8;
pub(crate) const KEEP_SIZE: u32 = 1;
pub(crate) const PUNCH: u32 = 2 | KEEP_SIZE;
pub(crate) const O_NONBLOCK: u32 = 0o4000;
pub(crate) const O_APPEND: u32 = 0o2000;

/// The answers of one mode, by case.
pub(crate) type Answers = BTreeMap<String, String>;

/// A descriptor, a count or 0, or minus an error number.
pub(crate) type Ret = i64;

/// Says `pub.CASE` with a formatted answer; the arguments are evaluated left to right.
macro_rules! p {
    ($probe:ident, $case:expr, $($answer:tt)*) => {{
        let answer = format!($($answer)*);
        $probe.say(&format!("pub.{}", $case), answer);
    }};
}
/// Says `hid.CASE`.
macro_rules! h {
    ($probe:ident, $case:expr, $($answer:tt)*) => {{
        let answer = format!($($answer)*);
        $probe.say(&format!("hid.{}", $case), answer);
    }};
}
pub(crate) use {h, p};

/// What a successful call counts as.
pub(crate) trait Count {
    fn count(&self) -> i64;
}

macro_rules! counts {
    ($($kind:ty),*) => {$(
        impl Count for $kind {
            fn count(&self) -> i64 { i64::try_from(*self).expect("small") }
        }
    )*};
}
counts!(i32, u32, u64, usize);

impl Count for () {
    fn count(&self) -> i64 {
        0
    }
}

/// A result as C sees it.
pub(crate) fn ret<T: Count>(result: &KResult<T>) -> Ret {
    match result {
        Ok(value) => value.count(),
        Err(refusal) => -i64::from(refusal.errno.raw()),
    }
}

/// `ok` or `-ENAME`.
pub(crate) fn en(result: Ret) -> String {
    let name = |errno: &&Errno| -i64::from(errno.raw()) == result;
    match Errno::ALL.iter().find(name) {
        Some(errno) if result < 0 => format!("-{}", errno.name()),
        _ if result < 0 => format!("-E{}", -result),
        _ => String::from("ok"),
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

pub(crate) fn yes(good: bool) -> &'static str {
    if good { "yes" } else { "no" }
}

pub(crate) fn pat(seed: u32, index: u64) -> u8 {
    let sum = u64::from(seed) * 131 + index * 7 + (index >> 8) * 13 + (index >> 12) * 17;
    sum.to_le_bytes()[0]
}

fn fd(number: Ret) -> i32 {
    i32::try_from(number).expect("a descriptor number")
}

pub(crate) struct Probe {
    pub(crate) m: Machine,
    /// The process that calls.
    pub(crate) p: Pid,
    pub(crate) dev: Ret,
    pub(crate) release: ReleaseId,
    /// Sessions that the holder keeps.
    pub(crate) nkeep: usize,
    pub(crate) uniq: u64,
    pub(crate) matrix_fd: Ret,
    out: Answers,
}

impl Probe {
    fn boot(release: ReleaseId) -> Self {
        let mut m = Machine::new(PhysMem::anonymous(512 << 20).expect("half a gibibyte"));
        m.cold_reset(release, &BootOptions::default());
        let p = m.spawn("probe").expect("the machine is up");
        Self { m, p, dev: -1, release, nkeep: 0, uniq: 0, matrix_fd: -1, out: Answers::new() }
    }

    pub(crate) fn say(&mut self, case: &str, answer: String) {
        let old = self.out.insert(case.to_owned(), answer);
        assert!(old.is_none(), "case {case} is answered twice");
    }

    pub(crate) fn load(&mut self) {
        self.m.load_image(self.p, self.release, BootOptions::default(), ImageKind::File).expect("root loads");
    }

    pub(crate) fn kexec(&mut self) {
        self.m.reboot_kexec(self.p).expect("nothing refuses");
        self.p = self.m.spawn("probe").expect("the machine is up");
        self.dev = -1;
        self.nkeep = 0;
    }

    /// Runs `act` in a forked child that ends afterwards.
    pub(crate) fn child(&mut self, act: impl FnOnce(&mut Self) -> Ret) -> Ret {
        let parent = self.p;
        let child = self.m.fork(parent, "child").expect("alive");
        self.p = child;
        let result = act(self);
        self.p = parent;
        self.m.exit(child).expect("alive");
        result
    }

    /// The child stays: its pid, and what `act` answered in it.
    pub(crate) fn lasting_child(&mut self, act: impl FnOnce(&mut Self) -> Ret) -> (Pid, Ret) {
        let parent = self.p;
        let child = self.m.fork(parent, "child").expect("alive");
        self.p = child;
        let result = act(self);
        self.p = parent;
        (child, result)
    }

    // The raw interface.
    pub(crate) fn opendev(&mut self, flags: u32) -> Ret {
        self.open("/dev/liveupdate", flags, 0)
    }

    pub(crate) fn open(&mut self, path: &str, flags: u32, mode: u32) -> Ret {
        ret(&self.m.open(self.p, path, flags, mode))
    }

    pub(crate) fn createn(&mut self, name: &[u8]) -> Ret {
        ret(&self.m.create_session(self.p, fd(self.dev), &name[..name.len().min(64)]))
    }

    /// A name given as a C string: at most 63 bytes count.
    pub(crate) fn create(&mut self, name: &[u8]) -> Ret {
        self.createn(&name[..name.len().min(63)])
    }

    pub(crate) fn keep(&mut self, session: Ret) -> Ret {
        self.nkeep += usize::from(session >= 0 && self.nkeep < 128);
        session
    }

    pub(crate) fn retrn(&mut self, name: &[u8]) -> Ret {
        ret(&self.m.retrieve_session(self.p, fd(self.dev), &name[..name.len().min(64)]))
    }

    pub(crate) fn retr(&mut self, name: &[u8]) -> Ret {
        self.retrn(&name[..name.len().min(63)])
    }

    pub(crate) fn pres(&mut self, session: Ret, file: Ret, token: u64) -> Ret {
        ret(&self.m.preserve_fd(self.p, fd(session), fd(file), token))
    }

    pub(crate) fn fretr(&mut self, session: Ret, token: u64) -> Ret {
        ret(&self.m.retrieve_fd(self.p, fd(session), token))
    }

    pub(crate) fn fin(&mut self, session: Ret) -> Ret {
        ret(&self.m.finish(self.p, fd(session), 0))
    }

    /// The answer and the name, empty on an error.
    pub(crate) fn name(&mut self, session: Ret) -> (Ret, String) {
        match self.m.get_name(self.p, fd(session)) {
            Ok(name) => (0, escape(&name)),
            Err(refusal) => (-i64::from(refusal.errno.raw()), String::new()),
        }
    }

    pub(crate) fn cl(&mut self, number: Ret) -> Ret {
        if number >= 0 { ret(&self.m.close(self.p, fd(number))) } else { 0 }
    }

    pub(crate) fn dup(&mut self, number: Ret) -> Ret {
        ret(&self.m.dup(self.p, fd(number)))
    }

    pub(crate) fn reopen(&mut self, number: Ret, flags: u32) -> Ret {
        ret(&self.m.reopen(self.p, fd(number), flags))
    }

    /// The lowest free descriptor.
    pub(crate) fn next_fd(&mut self) -> Ret {
        let lowest = ret(&self.m.memfd_create(self.p, "lowest", 0, false));
        self.cl(lowest);
        lowest
    }

    /// Runs `act` with no descriptor left.
    pub(crate) fn without_fds<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let lowest = self.next_fd();
        let limit = self.m.nofile(self.p).expect("alive");
        self.m.set_nofile(self.p, usize::try_from(lowest).expect("a number")).expect("alive");
        let result = act(self);
        self.m.set_nofile(self.p, limit).expect("alive");
        result
    }

    // Contents.
    /// A memfd of `size` bytes with the first `bytes` filled.
    pub(crate) fn mf(&mut self, flags: u32, size: u64, seed: u32, bytes: u64) -> Ret {
        let file = ret(&self.m.memfd_create(self.p, "m", flags, false));
        if file >= 0 && size > 0 {
            let result = self.trunc(file, size);
            if result < 0 {
                return result;
            }
        }
        self.fill(file, seed, 0, bytes);
        file
    }

    pub(crate) fn fill(&mut self, file: Ret, seed: u32, from: u64, len: u64) {
        let (mut from, end) = (from, from + len);
        while from < end {
            let step = (end - from).min(65536);
            let bytes: Vec<u8> = (from..from + step).map(|index| pat(seed, index)).collect();
            if self.pw(file, &bytes, from) != i64::try_from(step).expect("small") {
                return;
            }
            from += step;
        }
    }

    /// `match`, `zero`, `differ@N` or `short(N of M)`.
    pub(crate) fn cmp(&mut self, file: Ret, seed: u32, from: u64, len: u64) -> String {
        let (mut at, end, mut zero, mut differs) = (from, from + len, true, None);
        while at < end {
            let mut buf = vec![0; usize::try_from((end - at).min(65536)).expect("small")];
            let got = ret(&self.m.pread(self.p, fd(file), &mut buf, at));
            let Some(got) = u64::try_from(got).ok().filter(|got| *got > 0) else {
                return format!("short({} of {len})", at - from);
            };
            for (index, byte) in (at..at + got).zip(&buf) {
                zero &= *byte == 0;
                differs = differs.or((pat(seed, index) != *byte).then_some(index - from));
            }
            at += got;
        }
        match differs {
            None => String::from("match"),
            Some(_) if zero => String::from("zero"),
            Some(at) => format!("differ@{at}"),
        }
    }

    /// FNV-1a of the contents.
    pub(crate) fn fnv(&mut self, file: Ret, len: u64) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for at in (0..len).step_by(65536) {
            let mut buf = vec![0; usize::try_from((len - at).min(65536)).expect("small")];
            let got = self.m.pread(self.p, fd(file), &mut buf, at).expect("readable");
            for byte in &buf[..got] {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        hash
    }

    pub(crate) fn pw(&mut self, file: Ret, bytes: &[u8], at: u64) -> Ret {
        ret(&self.m.pwrite(self.p, fd(file), bytes, at))
    }

    pub(crate) fn byte(&mut self, file: Ret, at: u64) -> u8 {
        let mut byte = [0];
        let _ = self.m.pread(self.p, fd(file), &mut byte, at);
        byte[0]
    }

    pub(crate) fn trunc(&mut self, file: Ret, size: u64) -> Ret {
        ret(&self.m.ftruncate(self.p, fd(file), i64::try_from(size).expect("positive")))
    }

    pub(crate) fn falloc(&mut self, file: Ret, mode: u32, at: u64, len: u64) -> Ret {
        let (at, len) = (i64::try_from(at).expect("small"), i64::try_from(len).expect("small"));
        ret(&self.m.fallocate(self.p, fd(file), mode, at, len))
    }

    pub(crate) fn seek(&mut self, file: Ret, to: u64, whence: Whence) -> Ret {
        ret(&self.m.lseek(self.p, fd(file), i64::try_from(to).expect("positive"), whence))
    }

    pub(crate) fn pos(&mut self, file: Ret) -> Ret {
        self.seek(file, 0, Whence::Cur)
    }

    pub(crate) fn seals(&mut self, file: Ret) -> String {
        match self.m.get_seals(self.p, fd(file)) {
            Ok(seals) => format!("{:#x}", seals.0),
            Err(refusal) => en(-i64::from(refusal.errno.raw())),
        }
    }

    pub(crate) fn add_seals(&mut self, file: Ret, seals: u32) -> Ret {
        ret(&self.m.add_seals(self.p, fd(file), Seals(seals)))
    }

    pub(crate) fn stat(&mut self, file: Ret) -> Stat {
        self.m.fstat(self.p, fd(file)).expect("open")
    }

    pub(crate) fn size(&mut self, file: Ret) -> u64 {
        self.stat(file).size
    }

    pub(crate) fn blocks(&mut self, file: Ret) -> u64 {
        self.stat(file).blocks
    }

    /// The answer of F_GETFL in octal, without a leading zero.
    pub(crate) fn getfl(&mut self, file: Ret) -> String {
        self.m
            .get_status(self.p, fd(file))
            .map_or_else(|_| String::from("-1"), |status| format!("{status:o}"))
    }

    pub(crate) fn getfd(&mut self, file: Ret) -> Ret {
        self.m.get_cloexec(self.p, fd(file)).map_or_else(|refusal| -i64::from(refusal.errno.raw()), i64::from)
    }

    pub(crate) fn setfl(&mut self, file: Ret, status: u32) -> Ret {
        ret(&self.m.set_status(self.p, fd(file), status))
    }

    pub(crate) fn link(&mut self, file: Ret) -> String {
        match self.m.readlink_fd(self.p, fd(file)) {
            Ok(link) => escape(&link),
            Err(refusal) => en(-i64::from(refusal.errno.raw())),
        }
    }

    pub(crate) fn map(&mut self, file: Ret, len: u64, write: bool) -> Result<MapId, Ret> {
        let map = self.m.mmap_shared(self.p, fd(file), 0, len, write);
        map.map_err(|refusal| -i64::from(refusal.errno.raw()))
    }

    /// Maps, says whether that went well, and unmaps.
    pub(crate) fn try_map(&mut self, file: Ret, len: u64, write: bool) -> String {
        match self.map(file, len, write) {
            Ok(map) => en(ret(&self.m.munmap(self.p, map))),
            Err(errno) => en(errno),
        }
    }

    pub(crate) fn store(&mut self, map: MapId, at: u64, byte: u8) {
        self.m.store(self.p, map, at, &[byte]).expect("mapped");
    }

    pub(crate) fn loadb(&mut self, map: MapId, at: u64) -> u8 {
        let mut byte = [0];
        self.m.load(self.p, map, at, &mut byte).expect("mapped");
        byte[0]
    }

    pub(crate) fn unmap(&mut self, map: MapId) {
        self.m.munmap(self.p, map).expect("mapped");
    }

    // The modes.
    /// Both stages of the main mode.
    pub(crate) fn main(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        probe.load();
        probe.t_dev();
        probe.t_disp();
        probe.t_sess();
        probe.t_pres();
        probe.t_eff();
        probe.t_more();
        probe.limits(1000, 500);
        probe.limits(3000, 2000);
        probe.t_carry();
        probe.kexec();
        probe.main2();
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

    /// Several processes that do the same.
    pub(crate) fn conc(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        probe.load();
        probe.conc1();
        probe.kexec();
        probe.conc2();
        probe.out
    }

    /// Nothing preserved, three kernels.
    pub(crate) fn none(release: ReleaseId) -> Answers {
        let mut probe = Self::boot(release);
        for stage in 1..=3 {
            probe.kgrep(&format!("none.kmsg{stage}"));
            probe.dev = probe.opendev(2);
            p!(probe, format!("none.retrieve{stage}"), "{}", en(probe.retr(b"x")));
            probe.load();
            probe.kexec();
        }
        probe.out
    }

    /// The kernel's messages about the handover.
    pub(crate) fn kgrep(&mut self, case: &str) {
        let wanted = ["liveupdate number", "exec from", "(count"];
        let lines: Vec<String> = self
            .m
            .kernel()
            .expect("up")
            .log()
            .lines
            .iter()
            .map(|line| line.text.clone())
            .filter(|line| wanted.iter().any(|word| line.contains(word)))
            .collect();
        let text = if lines.is_empty() { String::from("none") } else { lines.join(" | ") };
        p!(self, case, "{text}");
    }
}
