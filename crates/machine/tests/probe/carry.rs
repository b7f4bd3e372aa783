//! What is carried: everything that the second stage looks for.

use luosim_files::flags;
use luosim_files::shmem::{MFD_CLOEXEC, Whence};

use super::{AS, KEEP_SIZE, O_APPEND, O_NONBLOCK, PG, PUNCH, Probe, Ret, en, fd, h, p, pat};

pub(super) const SEAL_SETS: [u32; 16] =
    [0, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x06, 0x0e, 0x0f, 0x18, 0x03, 0x21, 0x05, 0x1f, 0x3f];

pub(super) fn every_third_hidden(index: usize) -> &'static str {
    if index % 3 == 2 { "hid" } else { "pub" }
}

impl Probe {
    pub(super) fn t_carry(&mut self) {
        let s = self.create(b"c-basic");
        self.keep(s);
        self.first_files(s);
        self.special_files(s);
        self.last_files(s);
        self.sealed_files();
        self.small_sessions();
        self.odd_sessions();
        self.many();
    }

    fn preserve_new(&mut self, s: Ret, token: u64, size: u64, seed: u32) -> Ret {
        let x = self.mf(AS, size, seed, size);
        let r = self.pres(s, x, token);
        self.cl(x);
        r
    }

    fn first_files(&mut self, s: Ret) {
        let x = self.mf(AS | MFD_CLOEXEC, 0, 0, 0);
        self.fill(x, 1, 0, 5000);
        self.seek(x, 123, Whence::Set);
        p!(self, "carry.basic-1", "{} size={}", en(self.pres(s, x, 1)), self.size(x));
        self.cl(x);
        p!(self, "carry.empty", "{}", en(self.preserve_new(s, 2, 0, 0)));
        let x = self.mf(AS, 9 * PG + 100, 0, 0);
        self.fill(x, 3, 3 * PG, PG);
        self.fill(x, 3, 9 * PG, 100);
        p!(self, "carry.holes", "{} blocks={}", en(self.pres(s, x, 3)), self.blocks(x));
        self.cl(x);
        let x = self.mf(AS, 2 * PG, 4, 2 * PG);
        let m = self.map(x, 2 * PG, true).expect("a memory file");
        let r = self.pres(s, x, 4);
        self.store(m, 10, 0xA1);
        self.pw(x, &[0xA2], PG + 20);
        self.seek(x, 4000, Whence::Set);
        p!(self, "carry.late-writes", "{}", en(r));
        self.unmap(m);
        self.cl(x);
        let x = self.mf(0, PG, 5, PG);
        p!(self, "carry.plain-noseal", "{} seals={}", en(self.pres(s, x, 5)), self.seals(x));
        self.cl(x);
        p!(self, "carry.token0", "{}", en(self.preserve_new(s, 0, PG, 6)));
        p!(self, "carry.token-max", "{}", en(self.preserve_new(s, u64::MAX, PG, 7)));
        let x = self.mf(AS, PG, 8, PG);
        self.pres(s, x, 0x10);
        p!(self, "carry.seal-added-after", "{} seals={}", en(self.add_seals(x, 4)), self.seals(x));
        self.cl(x);
    }

    fn special_files(&mut self, s: Ret) {
        let x = self.mf(8, PG, 9, PG);
        let mode = self.stat(x).mode & 0o7777;
        p!(self, "carry.noexec-seal", "{} seals={} mode=0{mode:o}", en(self.pres(s, x, 0x11)), self.seals(x));
        self.cl(x);
        let x = self.mf(AS, 100, 10, 100);
        let m = self.map(x, PG, true).expect("a memory file");
        self.store(m, 200, 0x99);
        let r = self.pres(s, x, 0x12);
        self.store(m, 300, 0x98);
        h!(self, "carry.tail-bytes-beyond-eof", "{}", en(r));
        self.unmap(m);
        self.cl(x);
        let x = self.tmp_file("/tmp/uf", 0o640, flags::APPEND);
        let bytes: Vec<u8> = (0..300).map(|index| pat(11, index)).collect();
        self.m.write(self.p, fd(x), &bytes).expect("room");
        self.m.unlink(self.p, "/tmp/uf").expect("linked");
        p!(
            self,
            "carry.tmpfs-unlinked",
            "{} seals={} getfl=0{}",
            en(self.pres(s, x, 0x13)),
            self.seals(x),
            self.getfl(x)
        );
        self.cl(x);
        let x = self.mf(AS, PG, 12, PG);
        let y = self.reopen(x, flags::RDONLY);
        self.seek(y, 9, Whence::Set);
        p!(self, "carry.rdonly-reopen", "{} getfl=0{}", en(self.pres(s, y, 0x14)), self.getfl(y));
        self.cl(y);
        self.cl(x);
        let x = self.mf(AS, 100, 13, 100);
        self.seek(x, 1 << 20, Whence::Set);
        h!(self, "carry.pos-beyond-eof", "{}", en(self.pres(s, x, 0x15)));
        self.cl(x);
        let x = self.mf(AS, PG, 14, PG);
        self.setfl(x, O_NONBLOCK | O_APPEND);
        h!(self, "carry.file-flags", "{} getfl=0{}", en(self.pres(s, x, 0x16)), self.getfl(x));
        self.cl(x);
        let x = self.mf(AS, PG, 15, PG);
        self.falloc(x, KEEP_SIZE, 0, 4 * PG);
        h!(self, "carry.keepsize-beyond", "{} blocks={}", en(self.pres(s, x, 0x17)), self.blocks(x));
        self.cl(x);
    }

    fn last_files(&mut self, s: Ret) {
        let x = self.mf(AS, 8 << 20, 16, 8 << 20);
        p!(self, "carry.8mib", "{} hash={:016x}", en(self.pres(s, x, 0x18)), self.fnv(x, 8 << 20));
        self.cl(x);
        let x = self.mf(AS, PG, 17, PG);
        self.m.fchmod(self.p, fd(x), 0o600).expect("free");
        self.m.fchown(self.p, fd(x), 1000, 1000).expect("free");
        p!(self, "carry.mode-owner", "{}", en(self.pres(s, x, 0x19)));
        self.cl(x);
        let x = self.mf(AS, PG, 18, PG);
        let r = self.pres(s, x, 0x1a);
        self.map(x, PG, true).expect("stays mapped until the kexec");
        h!(self, "carry.left-mapped", "{}", en(r));
        let x = self.mf(AS, 3 * PG, 19, 3 * PG);
        self.seek(x, PG + 7, Whence::Set);
        let y = self.dup(x);
        self.pres(s, x, 0x1b);
        self.seek(y, 2 * PG + 1, Whence::Set);
        h!(self, "carry.pos-moved-via-dup", "{}", self.pos(x));
        self.cl(x);
        let x = self.mf(AS, 4 * PG, 20, 4 * PG);
        self.falloc(x, PUNCH, PG, PG);
        h!(self, "carry.punched-before", "{}", en(self.pres(s, x, 0x1c)));
        self.cl(x);
        let x = self.mf(AS, 0, 0, 0);
        self.falloc(x, 0, 0, 4 * PG);
        p!(self, "carry.fallocated-never-written", "{} blocks={}", en(self.pres(s, x, 0x1d)), self.blocks(x));
        self.cl(x);
        p!(self, "carry.two-pages-plus-1", "{}", en(self.preserve_new(s, 0x1e, 2 * PG + 1, 21)));
        h!(self, "carry.one-byte", "{}", en(self.preserve_new(s, 0x1f, 1, 22)));
    }

    fn sealed_files(&mut self) {
        let s = self.create(b"c-seals");
        self.keep(s);
        for (index, seals) in SEAL_SETS.into_iter().enumerate() {
            let number = u32::try_from(index).expect("16 sets");
            let x = self.mf(AS, PG + 10, 100 + number, PG + 10);
            let q = if seals == 0 { 0 } else { self.add_seals(x, seals) };
            let r = self.pres(s, x, number.into());
            let answer = format!("add={} pres={} seals={}", en(q), en(r), self.seals(x));
            self.say(&format!("{}.carry.seals-0x{seals:02x}", every_third_hidden(index)), answer);
            self.cl(x);
        }
    }

    /// A kept session with files: token, size, seed.
    fn session(&mut self, name: &[u8], files: &[(u64, u64, u32)]) -> Ret {
        let s = self.create(name);
        self.keep(s);
        for (token, size, seed) in files {
            self.preserve_new(s, *token, *size, *seed);
        }
        s
    }

    fn small_sessions(&mut self) {
        let s = self.session(b"c-empty", &[]);
        p!(self, "carry.session-empty", "{}", en(s));
        let order: Vec<_> = (50..55).map(|number| (u64::from(number), PG, number)).collect();
        self.session(b"c-order", &order);
        self.session(b"c-two", &[(1, PG, 60)]);
        self.session(b"c-unret", &[(1, 3 * PG, 61)]);
        self.session(b"c-finunret", &[(0, 0, 62), (1, PG, 62), (2, 2 * PG, 62)]);
        self.session(b"c-close", &[(1, PG, 63), (2, PG, 64)]);
        self.session(b"c-closeunret", &[(1, PG, 63)]);
        let s = self.session(b"c-twice", &[]);
        let x = self.mf(AS, PG, 65, PG);
        self.seek(x, 11, Whence::Set);
        self.pres(s, x, 7);
        self.cl(x);
        self.session(b"c-efsess", &[(7, PG, 66)]);
        self.session(b"c-effile", &[(7, PG, 67)]);
        self.session(b"c-emfile", &[(7, PG, 68)]);
        self.session(b"c-reuse", &[(7, PG, 69), (8, PG, 70)]);
        self.session(b"c-write", &[(1, 2 * PG, 71)]);
        self.session(b"c-fork", &[(1, PG, 72)]);
        self.session(b"c-matrix", &[(1, PG, 73)]);
        self.session(b"c-redo", &[(1, 2 * PG, 74)]);
    }

    fn odd_sessions(&mut self) {
        let s = self.session(&[b'N'; 63], &[(1, PG, 80)]);
        p!(self, "carry.name63", "{}", en(s));
        let s = self.session(b"ctl\n\x01/\xff", &[(1, PG, 81)]);
        p!(self, "carry.name-odd", "{}", en(s));
        let s = self.createn(b"gar\0bage");
        self.keep(s);
        h!(self, "carry.name-garbage", "{}", en(s));
        let sv = self.socketpair();
        let s = self.create(b"c-inflight");
        self.preserve_new(s, 1, PG, 82);
        let r = self.sendfd(sv.0, s);
        self.cl(s);
        h!(self, "carry.inflight", "{}", en(r));
        let s = self.create(b"c-dropped");
        self.preserve_new(s, 1, PG, 83);
        self.cl(s);
    }

    fn many(&mut self) {
        for (name, count, every, token, group) in
            [(&b"c-120"[..], 120u32, 5, 3, "pub"), (b"c-300", 300, 2, 1, "hid")]
        {
            let s = self.create(name);
            self.keep(s);
            let mut good = 0;
            for i in 0..count {
                let size = if i % every == 0 { 0 } else { PG };
                let x = self.mf(0, size, i, size);
                good += u32::from(self.pres(s, x, u64::from(i) * token) == 0);
                self.cl(x);
            }
            self.say(&format!("{group}.carry.{count}-files"), format!("n={good}"));
        }
        for i in 0..60 {
            let s = self.create(format!("c-s{i:02}").as_bytes());
            self.keep(s);
        }
        p!(self, "carry.60-sessions", "nkeep={}", self.nkeep);
    }
}
