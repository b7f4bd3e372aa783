//! Dispatch: command numbers, sizes, pointers, encodings, write-back.

use luosim_abi::ioctl::Command;
use luosim_machine::address_space::Protection;

use super::{AS, PG, Probe, Ret, en, escape, fd, h, p, ret, yes};

/// What the size field says, as a sum with the structure's size or by itself.
enum Size {
    Is(u32),
    Plus(i64),
}

/// Case, hidden, size, last byte set.
const SIZES: [(&str, bool, Size, bool); 12] = [
    ("size-0", false, Size::Is(0), false),
    ("size-1", true, Size::Is(1), false),
    ("size-4", false, Size::Is(4), false),
    ("size-min-8", true, Size::Plus(-8), false),
    ("size-min-1", false, Size::Plus(-1), false),
    ("size-exact", false, Size::Plus(0), false),
    ("size-plus-1-zero", true, Size::Plus(1), false),
    ("size-plus-8-zero", false, Size::Plus(8), false),
    ("size-plus-8-nonzero-last", false, Size::Plus(8), true),
    ("size-plus-1-nonzero", true, Size::Plus(1), true),
    ("size-plus-page-zero", false, Size::Plus(4096), false),
    ("size-plus-page-nonzero-last", true, Size::Plus(4096), true),
];

fn group(hidden: bool) -> &'static str {
    if hidden { "hid" } else { "pub" }
}

/// One command's structure whose call would succeed, in memory at `base` before an unmapped page.
struct Subject<'a> {
    topic: &'a str,
    fd: Ret,
    command: Command,
    valid: &'a [u8],
    base: u64,
}

impl Probe {
    pub(super) fn raw(&mut self, file: Ret, code: u32, addr: u64) -> Ret {
        ret(&self.m.ioctl(self.p, fd(file), code, addr))
    }

    pub(super) fn map_memory(&mut self, len: u64) -> u64 {
        self.m.process_memory(self.p).expect("alive").map(len)
    }

    pub(super) fn put(&mut self, addr: u64, bytes: &[u8]) {
        self.m.process_memory(self.p).expect("alive").write(addr, bytes).expect("mapped");
    }

    pub(super) fn peek(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.m.process_memory(self.p).expect("alive").read(addr, &mut bytes).expect("mapped");
        bytes
    }

    fn word(&mut self, addr: u64) -> u32 {
        u32::from_le_bytes(self.peek(addr, 4).try_into().expect("four bytes"))
    }

    pub(super) fn protect(&mut self, addr: u64, writable: bool) {
        let protection = if writable { Protection::ReadWrite } else { Protection::ReadOnly };
        self.m.process_memory(self.p).expect("alive").protect(addr, PG, protection);
    }

    /// The structure, with a fresh name, or a fresh file and token.
    fn vary(&mut self, subject: &Subject<'_>) -> Vec<u8> {
        let mut bytes = subject.valid.to_vec();
        match subject.command {
            Command::CreateSession => {
                let name = format!("u{}", self.uniq);
                self.uniq += 1;
                bytes[8..72].fill(0);
                bytes[8..8 + name.len()].copy_from_slice(name.as_bytes());
            }
            Command::PreserveFd => {
                self.cl(self.matrix_fd);
                self.matrix_fd = self.mf(0, PG, 1, PG);
                bytes[4..8].copy_from_slice(&fd(self.matrix_fd).to_le_bytes());
                bytes[8..16].copy_from_slice(&(1000 + self.uniq).to_le_bytes());
                self.uniq += 1;
            }
            _ => {}
        }
        bytes
    }

    /// Zeros the memory, puts the structure at `at` with `size`, and makes the call with `code`.
    fn attempt(&mut self, subject: &Subject<'_>, at: u64, size: u32, set: Option<u64>, code: u32) -> Ret {
        self.put(subject.base, &vec![0; 32 * 4096]);
        let bytes = self.vary(subject);
        self.put(at, &bytes);
        self.put(at, &size.to_le_bytes());
        if let Some(offset) = set {
            self.put(at + offset, &[1]);
        }
        self.raw(subject.fd, code, at)
    }

    fn undo(&mut self, subject: &Subject<'_>, at: u64, result: Ret) {
        let opened = matches!(subject.command, Command::CreateSession | Command::RetrieveSession);
        if result == 0 && opened {
            let number = self.word(at + 4);
            self.cl(i64::from(number));
        }
    }

    fn matrix(&mut self, topic: &str, file: Ret, command: Command, valid: &[u8]) {
        let base = self.map_memory(64 * PG);
        self.m.process_memory(self.p).expect("alive").unmap(base + 32 * PG, 32 * PG);
        let subject = Subject { topic, fd: file, command, valid, base };
        let ssz = u32::try_from(valid.len()).expect("small");
        for (case, hidden, size, tail) in SIZES {
            let size = match size {
                Size::Is(size) => size,
                Size::Plus(more) => u32::try_from(i64::from(ssz) + more).expect("positive"),
            };
            let set = tail.then(|| u64::from(size) - 1);
            let r = self.attempt(&subject, base, size, set, command.code());
            let after = self.word(base);
            let kept = if after == size { -1 } else { i64::from(after) };
            self.say(&format!("{}.{topic}.{case}", group(hidden)), format!("{} size-after={kept}", en(r)));
            self.undo(&subject, base, r);
        }
        self.huge_sizes(&subject, u64::from(ssz));
        self.pointers(&subject, ssz);
        self.encodings(&subject, ssz);
        self.m.process_memory(self.p).expect("alive").unmap(base, 32 * PG);
    }

    fn huge_sizes(&mut self, subject: &Subject<'_>, ssz: u64) {
        for (case, hidden, size, set) in [
            ("size-huge-zero-then-unmapped", false, u32::MAX, None),
            ("size-huge-nonzero", true, u32::MAX, Some(ssz + 3)),
            ("size-0x80000000-zero-then-unmapped", true, 0x8000_0000, None),
        ] {
            let r = self.attempt(subject, subject.base, size, set, subject.command.code());
            self.say(&format!("{}.{}.{case}", group(hidden), subject.topic), en(r));
            self.undo(subject, subject.base, r);
        }
    }

    fn pointers(&mut self, subject: &Subject<'_>, ssz: u32) {
        let (code, topic) = (subject.command.code(), subject.topic);
        let edge = subject.base + 32 * PG - 4;
        self.put(edge, &ssz.to_le_bytes());
        p!(self, format!("{topic}.only-size-mapped"), "{}", en(self.raw(subject.fd, code, edge)));
        self.put(edge, &0u32.to_le_bytes());
        h!(self, format!("{topic}.only-size-mapped-size0"), "{}", en(self.raw(subject.fd, code, edge)));
        p!(self, format!("{topic}.null"), "{}", en(self.raw(subject.fd, code, 0)));
        h!(self, format!("{topic}.unmapped"), "{}", en(self.raw(subject.fd, code, subject.base + 40 * PG)));
        h!(self, format!("{topic}.kernel-address"), "{}", en(self.raw(subject.fd, code, !0xfff)));
        let at = subject.base + 3;
        let r = self.attempt(subject, at, ssz, None, code);
        h!(self, format!("{topic}.unaligned"), "{}", en(r));
        self.undo(subject, at, r);
    }

    fn encodings(&mut self, subject: &Subject<'_>, ssz: u32) {
        let (code, topic) = (subject.command.code(), subject.topic);
        for (case, hidden, direction) in [("IOW", false, 1u32), ("IOR", true, 2), ("IOWR", false, 3)] {
            let encoded = (direction << 30) | (ssz << 16) | code;
            let r = self.attempt(subject, subject.base, ssz, None, encoded);
            self.say(&format!("{}.{topic}.enc-{case}", group(hidden)), en(r));
            self.undo(subject, subject.base, r);
        }
        let null = self.raw(subject.fd, (3 << 30) | (ssz << 16) | code, 0);
        h!(self, format!("{topic}.enc-IOWR-null"), "{}", en(null));
        let r = self.attempt(subject, subject.base, ssz, None, (code & 0xff) | 0xBB00);
        p!(self, format!("{topic}.wrong-type-0xBB"), "{}", en(r));
        self.undo(subject, subject.base, r);
    }

    pub(super) fn t_disp(&mut self) {
        let s = self.create(b"disp");
        let big = self.map_memory(PG);
        self.put(big, &72u32.to_le_bytes());
        for nr in 2..8u32 {
            let case = format!("{}.disp.dev-nr-0x{nr:02x}", group(nr & 1 == 1));
            let answer = en(self.raw(self.dev, 0xBA00 | nr, big));
            self.say(&case, answer);
        }
        for (index, nr) in [0x3fu32, 0x40, 0x41, 0x42, 0x43, 0x44, 0x7f, 0x80, 0xff].into_iter().enumerate() {
            let case = format!("{}.disp.dev-nr-0x{nr:02x}", group(index % 3 == 2));
            let answer = en(self.raw(self.dev, 0xBA00 | nr, big));
            self.say(&case, answer);
        }
        let numbers = [0x00u32, 0x01, 0x02, 0x3f, 0x44, 0x45, 0x46, 0x47, 0x7f, 0x80, 0xc0, 0xff];
        for (index, nr) in numbers.into_iter().enumerate() {
            let case = format!("{}.disp.sess-nr-0x{nr:02x}", group(index % 3 == 2));
            let answer = en(self.raw(s, 0xBA00 | nr, big));
            self.say(&case, answer);
        }
        p!(self, "disp.dev-nr-0x02-null", "{}", en(self.raw(self.dev, 0xBA02, 0)));
        p!(self, "disp.sess-nr-0x44-null", "{}", en(self.raw(s, 0xBA44, 0)));
        h!(self, "disp.dev-tcgets", "{}", en(self.raw(self.dev, 0x5401, big)));
        h!(self, "disp.sess-tcgets", "{}", en(self.raw(s, 0x5401, big)));
        self.put(big, &[0; 256]);
        p!(self, "disp.dev-cmd-0", "{}", en(self.raw(self.dev, 0, big)));
        p!(self, "disp.sess-cmd-0x40", "{}", en(self.raw(s, 0x40, big)));
        self.matrices(s);
        self.fields(big);
        self.read_only(big);
        self.wrong_files(big);
        self.no_descriptors();
    }

    fn matrices(&mut self, s: Ret) {
        let dev = self.dev;
        let mut create = [0; 72];
        create[4..8].fill(0xff);
        self.matrix("mx-create", dev, Command::CreateSession, &create);
        create[8..23].copy_from_slice(b"no-such-session");
        self.matrix("mx-retrieve-session", dev, Command::RetrieveSession, &create);
        let mut file = [0; 16];
        file[4..8].fill(0xff);
        self.matrix("mx-preserve", s, Command::PreserveFd, &file);
        file[8..16].copy_from_slice(&77777u64.to_le_bytes());
        self.matrix("mx-retrieve-fd-outgoing", s, Command::RetrieveFd, &file);
        self.matrix("mx-get-name", s, Command::GetName, &[0; 72]);
        self.cl(s);
        let s = self.create(b"disp-fin");
        self.matrix("mx-finish-outgoing", s, Command::Finish, &[0; 8]);
        self.cl(s);
    }

    /// A structure of 72 bytes for sessions: size, descriptor, name.
    fn session_struct(&mut self, at: u64, number: i32, name: &[u8]) {
        let mut bytes = [0; 72];
        bytes[..4].copy_from_slice(&72u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..8 + name.len()].copy_from_slice(name);
        self.put(at, &bytes);
    }

    fn fd_field(&mut self, at: u64) -> i32 {
        i32::from_le_bytes(self.peek(at + 4, 4).try_into().expect("four bytes"))
    }

    fn fields(&mut self, at: u64) {
        self.session_struct(at, i32::MAX, b"fd-garbage");
        let r = self.raw(self.dev, 0xBA00, at);
        let (number, name) = (self.fd_field(at), self.peek(at + 8, 11));
        p!(
            self,
            "disp.create-fd-garbage",
            "{} fd-replaced={} name-kept={} size={}",
            en(r),
            yes(number != i32::MAX),
            yes(name == b"fd-garbage\0"),
            self.word(at)
        );
        if r == 0 {
            self.cl(i64::from(number));
        }
        self.session_struct(at, -5, b"");
        let r = self.raw(self.dev, 0xBA00, at);
        let number = self.fd_field(at);
        h!(self, "disp.create-fail-fd-untouched", "{} fd={number}", en(r));
        if r == 0 {
            self.cl(i64::from(number));
        }
        self.session_struct(at, -5, b"nope");
        p!(
            self,
            "disp.retrieve-fail-fd-untouched",
            "{} fd={}",
            en(self.raw(self.dev, 0xBA01, at)),
            self.fd_field(at)
        );
        let s = self.create(b"gn");
        self.session_struct(at, 1, b"");
        p!(self, "disp.get-name-reserved-nonzero", "{}", en(self.raw(s, 0xBA43, at)));
        self.session_struct(at, 0, &[0xAA; 64]);
        let r = self.raw(s, 0xBA43, at);
        let name = self.peek(at + 8, 64);
        let dirty = name[3..].iter().filter(|byte| **byte != 0).count();
        let shown = if r < 0 { "" } else { &escape(name.split(|byte| *byte == 0).next().unwrap_or(&[])) };
        let tail = if r < 0 { String::from("-1") } else { dirty.to_string() };
        p!(self, "disp.get-name-input-garbage", "{} name={shown} tail-nonzero={tail}", en(r));
        h!(self, "disp.finish-outgoing-reserved-nonzero", "{}", en(ret(&self.m.finish(self.p, fd(s), 1))));
        self.cl(s);
    }

    fn read_only(&mut self, at: u64) {
        self.session_struct(at, -1, b"ro-create");
        self.protect(at, false);
        let before = self.next_fd();
        let r = self.raw(self.dev, 0xBA00, at);
        let after = self.next_fd();
        p!(self, "disp.create-readonly-arg", "{} fd-leaked={}", en(r), yes(before != after));
        let s = self.create(b"ro-create");
        p!(self, "disp.create-readonly-arg-then-create-same", "{}", en(s));
        self.cl(s);
        self.protect(at, true);
        let x = self.mf(AS, PG, 1, PG);
        let s = self.create(b"ro-pres");
        self.file_struct(at, fd(x), 5);
        self.protect(at, false);
        p!(self, "disp.preserve-readonly-arg", "{}", en(self.raw(s, 0xBA40, at)));
        p!(self, "disp.preserve-readonly-arg-then-same-token", "{}", en(self.pres(s, x, 5)));
        h!(self, "disp.preserve-readonly-arg-frozen", "grow={}", en(self.trunc(x, 2 * PG)));
        self.cl(s);
        h!(self, "disp.preserve-readonly-arg-after-close", "grow={}", en(self.trunc(x, 2 * PG)));
        self.cl(x);
        let s = self.create(b"ro-name");
        self.protect(at, true);
        self.session_struct(at, 0, b"");
        self.protect(at, false);
        h!(self, "disp.get-name-readonly-arg", "{}", en(self.raw(s, 0xBA43, at)));
        self.cl(s);
        self.protect(at, true);
    }

    /// A structure of 16 bytes for files: size, descriptor, token.
    pub(super) fn file_struct(&mut self, at: u64, number: i32, token: u64) {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&16u32.to_le_bytes());
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&token.to_le_bytes());
        self.put(at, &bytes);
    }

    fn wrong_files(&mut self, at: u64) {
        let x = self.open("/dev/null", 2, 0);
        self.session_struct(at, 0, b"n");
        p!(self, "disp.create-on-dev-null", "{}", en(self.raw(x, 0xBA00, at)));
        self.cl(x);
        p!(self, "disp.create-on-closed-fd", "{}", en(self.raw(x, 0xBA00, at)));
        let x = self.mf(0, 0, 0, 0);
        self.file_struct(at, fd(x), 1);
        h!(self, "disp.preserve-on-memfd", "{}", en(self.raw(x, 0xBA40, at)));
        self.cl(x);
        let s = self.create(b"orphan");
        self.cl(self.dev);
        let x = self.mf(0, PG, 1, PG);
        p!(self, "disp.preserve-with-device-closed", "{}", en(self.pres(s, x, 1)));
        h!(self, "disp.get-name-with-device-closed", "{}", en(self.name(s).0));
        self.dev = self.opendev(2);
        p!(self, "disp.device-reopen-with-live-session", "{}", en(self.dev));
        p!(self, "disp.duplicate-of-live-after-device-reopen", "{}", en(self.create(b"orphan")));
        self.cl(s);
        self.cl(x);
    }

    fn no_descriptors(&mut self) {
        let r = self.without_fds(|probe| probe.create(b"emfile"));
        p!(self, "disp.create-emfile", "{}", en(r));
        self.cl(r);
        let s = self.create(b"emfile");
        p!(self, "disp.create-after-emfile", "{}", en(s));
        self.cl(s);
        let r = self.without_fds(|probe| probe.create(b""));
        h!(self, "disp.create-emfile-vs-empty-name", "{}", en(r));
        let r = self.without_fds(|probe| probe.retr(b"nope"));
        h!(self, "disp.retrieve-emfile-vs-unknown", "{}", en(r));
    }

    pub(super) fn incoming_matrices(&mut self, s: Ret) {
        let mut file = [0; 16];
        file[4..8].fill(0xff);
        file[8..16].copy_from_slice(&424_242u64.to_le_bytes());
        self.matrix("mx-retrieve-fd-incoming", s, Command::RetrieveFd, &file);
        let r = ret(&self.m.finish(self.p, fd(s), 5));
        let x = self.fretr(s, 1);
        p!(self, "sess2.finish-reserved-nonzero", "{} retrieve-after={}", en(r), en(x));
        self.cl(x);
        let at = self.map_memory(PG);
        self.file_struct(at, 12345, 1);
        let r = self.raw(s, 0xBA41, at);
        let (number, token) = (self.fd_field(at), self.peek(at + 8, 8));
        let token = u64::from_le_bytes(token.try_into().expect("eight bytes"));
        h!(self, "ret.fd-garbage-input", "{} replaced={} token={token}", en(r), yes(number != 12345));
        if r == 0 {
            self.cl(i64::from(number));
        }
        self.file_struct(at, -7, 999);
        h!(self, "ret.fail-fd-untouched", "{} fd={}", en(self.raw(s, 0xBA41, at)), self.fd_field(at));
        self.matrix("mx-finish-incoming", s, Command::Finish, &[0; 8]);
        self.cl(s);
    }
}
