//! What can be preserved, under which token, and what a session's end gives back.

use luosim_files::shmem::Whence;
use luosim_files::{FileKind, flags};

use super::{AS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE, KEEP_SIZE, PG, Probe, Ret, en, h, p, ret};

impl Probe {
    fn pk(&mut self, case: &str, session: Ret, file: Ret, token: u64) {
        let answer = en(self.pres(session, file, token));
        self.say(case, answer);
    }

    /// [`Self::pk`], and the file is closed.
    fn pkc(&mut self, case: &str, session: Ret, file: Ret, token: u64) {
        self.pk(case, session, file, token);
        self.cl(file);
    }

    pub(super) fn t_pres(&mut self) {
        let s = self.create(b"pres");
        self.other_kinds(s);
        self.tmpfs_files(s);
        self.same_file(s);
        self.tokens(s);
        self.kinds_of_memfd(s);
        self.cl(s);
        self.abort_and_redo();
        self.bad_ones();
        self.shapes();
        self.more_shapes();
        self.dup_session();
    }

    fn other_kinds(&mut self, s: Ret) {
        self.pk("pub.pres.fd-minus1", s, -1, 1);
        self.pk("hid.pres.fd-intmin", s, i64::from(i32::MIN), 1);
        self.pk("hid.pres.fd-at-fdcwd", s, -100, 1);
        let x = self.next_fd();
        self.pk("pub.pres.fd-closed", s, x, 1);
        self.pk("hid.pres.fd-large", s, 1_000_000, 1);
        self.pk("pub.pres.device-fd", s, self.dev, 1);
        self.pk("pub.pres.session-self", s, s, 1);
        let t = self.create(b"pres2");
        self.pkc("hid.pres.other-session", s, t, 1);
        let x = self.open("/dev/null", 2, 0);
        self.pkc("pub.pres.dev-null", s, x, 1);
        let x = self.open("/dev/zero", 2, 0);
        self.pkc("hid.pres.dev-zero", s, x, 1);
        let (read, write) = self.m.pipe(self.p).expect("room");
        self.pkc("pub.pres.pipe", s, read.into(), 1);
        self.cl(write.into());
        let x = ret(&self.m.open_kind(self.p, FileKind::EventFd));
        self.pkc("pub.pres.eventfd", s, x, 1);
        let x = ret(&self.m.open_kind(self.p, FileKind::Epoll));
        self.pkc("hid.pres.epoll", s, x, 1);
        let sv = self.socketpair();
        self.pkc("hid.pres.socket", s, sv.0.into(), 1);
        self.cl(sv.1.into());
        let x = self.open("/proc/self/status", 0, 0);
        self.pkc("pub.pres.proc-file", s, x, 1);
        let x = self.open("/tmp", flags::DIRECTORY, 0);
        self.pkc("pub.pres.tmpfs-dir", s, x, 1);
    }

    fn tmpfs_files(&mut self, s: Ret) {
        let x = self.tmp_file("/tmp/lf", 0o600, 0);
        self.fill(x, 3, 0, 100);
        self.pk("pub.pres.tmpfs-linked", s, x, 1);
        self.m.unlink(self.p, "/tmp/lf").expect("linked");
        self.pk("pub.pres.tmpfs-unlinked", s, x, 1);
        h!(self, "pres.tmpfs-unlinked-seals", "{}", self.seals(x));
        self.cl(x);
        let x = self.open("/tmp", flags::RDWR | flags::TMPFILE, 0o600);
        self.fill(x, 3, 0, 100);
        self.pkc("pub.pres.tmpfs-otmpfile", s, x, 2);
        let x = self.tmp_file("/tmp/l2", 0o600, 0);
        self.m.link(self.p, "/tmp/l2", "/tmp/l3").expect("linked");
        self.m.unlink(self.p, "/tmp/l2").expect("linked");
        self.pk("hid.pres.tmpfs-second-link-remains", s, x, 3);
        self.m.unlink(self.p, "/tmp/l3").expect("linked");
        self.cl(x);
    }

    fn same_file(&mut self, s: Ret) {
        let x = self.mf(0, 0, 0, 0);
        self.pk("pub.pres.memfd-empty", s, x, 10);
        let y = self.dup(x);
        self.pkc("pub.pres.dup-of-preserved", s, y, 11);
        let y = self.reopen(x, flags::RDWR);
        self.pkc("pub.pres.reopen-of-preserved", s, y, 12);
        let y = self.reopen(x, flags::RDONLY);
        self.pkc("hid.pres.reopen-rdonly-of-preserved", s, y, 13);
        self.pk("pub.pres.same-fd-other-token", s, x, 14);
        self.pk("pub.pres.same-fd-same-token", s, x, 10);
        let y = self.reopen(x, flags::PATH);
        self.pkc("pub.pres.opath", s, y, 15);
        self.cl(x);
    }

    fn tokens(&mut self, s: Ret) {
        let x = self.mf(0, PG, 2, PG);
        self.pk("pub.pres.token-reuse-other-file", s, x, 10);
        self.pk("pub.pres.token-used-and-bad-fd", s, -1, 10);
        self.pk("hid.pres.token-used-and-unsupported-fd", s, self.dev, 10);
        self.pkc("pub.pres.then-free-token", s, x, 16);
        for (case, token) in [
            ("pub.pres.token-zero", 0),
            ("pub.pres.token-max", u64::MAX),
            ("hid.pres.token-2pow32", 1 << 32),
            ("hid.pres.token-2pow63", 1 << 63),
        ] {
            let x = self.mf(0, PG, 2, PG);
            self.pkc(case, s, x, token);
        }
        let t = self.create(b"pres-b");
        let (x, y) = (self.mf(0, PG, 2, PG), self.mf(0, PG, 3, PG));
        p!(self, "pres.same-token-two-sessions", "{} {}", en(self.pres(s, x, 40)), en(self.pres(t, y, 40)));
        self.cl(x);
        self.cl(y);
        self.cl(t);
    }

    fn kinds_of_memfd(&mut self, s: Ret) {
        let x = self.mf(luosim_files::shmem::MFD_HUGETLB, 0, 0, 0);
        self.pkc("pub.pres.hugetlb-empty", s, x, 50);
        let x = self.mf(AS, PG, 1, PG);
        self.pkc("pub.pres.allow-sealing", s, x, 51);
        let x = self.mf(8, PG, 1, PG);
        h!(self, "pres.noexec-seal-seals", "{}", self.seals(x));
        self.pkc("pub.pres.noexec-seal", s, x, 52);
        let x = self.mf(0x10, PG, 1, PG);
        self.pkc("hid.pres.mfd-exec", s, x, 53);
        let x = self.mf(AS, 0, 0, 0);
        self.fill(x, 1, 0, PG);
        let y = self.reopen(x, flags::RDONLY);
        self.cl(x);
        self.pkc("pub.pres.memfd-rdonly-reopen", s, y, 54);
        let x = self.mf(AS, 0, 0, 0);
        let y = self.reopen(x, flags::WRONLY);
        self.cl(x);
        self.pkc("hid.pres.memfd-wronly-reopen-empty", s, y, 55);
        let x = self.mf(0, 4 * PG, 1, 4 * PG);
        let y = self.reopen(x, flags::WRONLY);
        self.pkc("hid.pres.memfd-wronly-reopen", s, y, 56);
        self.cl(x);
    }

    fn abort_and_redo(&mut self) {
        let x = self.mf(AS, 2 * PG, 5, 2 * PG);
        let mut r = 0;
        for _ in 0..3 {
            let s = self.create(b"again");
            r = self.pres(s, x, 1);
            self.cl(s);
        }
        p!(self, "pres.three-rounds", "{} data={}", en(r), self.cmp(x, 5, 0, 2 * PG));
        let (s, t) = (self.create(b"a1"), self.create(b"a2"));
        p!(self, "pres.two-sessions-same-file", "{} {}", en(self.pres(s, x, 1)), en(self.pres(t, x, 1)));
        self.cl(s);
        p!(self, "pres.second-session-after-first-closed", "{}", en(self.pres(t, x, 2)));
        self.cl(t);
        let s = self.create(b"gone");
        let y = self.mf(0, PG, 6, PG);
        self.pres(s, y, 1);
        self.cl(y);
        p!(self, "pres.fd-closed-token-still-used", "{}", en(self.pres(s, x, 1)));
        h!(self, "pres.other-token-after", "{}", en(self.pres(s, x, 2)));
        self.cl(s);
        p!(
            self,
            "pres.file-released-with-session",
            "size={} grow={}",
            self.size(x),
            en(self.trunc(x, 3 * PG))
        );
        self.cl(x);
    }

    fn bad_ones(&mut self) {
        let s = self.create(b"hundred");
        let (mut n, mut e) = (0, 0);
        for i in 0..100u32 {
            let size = u64::from(i % 3) * PG;
            let x = self.mf(0, size, i, size);
            e = self.pres(s, x, i.into());
            self.cl(x);
            if e < 0 {
                break;
            }
            n += 1;
        }
        p!(self, "pres.100-files", "n={n} last={}", en(e));
        self.cl(s);
        let s = self.create(b"keepers");
        let x = self.mf(AS, PG, 1, PG);
        self.pres(s, x, 1);
        for i in 0..20 {
            self.pres(s, self.dev, 100 + i);
        }
        p!(
            self,
            "pres.bad-preserves-keep-good",
            "dup-token={} grow={}",
            en(self.pres(s, self.dev, 1)),
            en(self.trunc(x, 2 * PG))
        );
        self.cl(s);
        self.cl(x);
        let s = self.create(b"onlybad");
        self.pres(s, self.dev, 1);
        let e = self.pres(s, -1, 1);
        let x = self.mf(0, PG, 1, PG);
        h!(self, "pres.good-after-bad-same-token", "{} then {}", en(e), en(self.pres(s, x, 1)));
        self.cl(s);
        self.cl(x);
    }

    fn shapes(&mut self) {
        let x = self.mf(0, 16 * PG, 0, 0);
        let b0 = self.blocks(x);
        let s = self.create(b"sparse");
        let h0 = self.seek(x, 0, Whence::Data);
        let r = self.pres(s, x, 1);
        p!(self, "pres.sparse-blocks", "{} before={b0} after={}", en(r), self.blocks(x));
        h!(
            self,
            "pres.sparse-seek-data",
            "before={} after={} hole={}",
            en(h0),
            self.seek(x, 0, Whence::Data),
            self.seek(x, 0, Whence::Hole)
        );
        self.cl(s);
        p!(
            self,
            "pres.sparse-blocks-after-close",
            "{} data={}",
            self.blocks(x),
            self.cmp(x, 0xffff, 0, 16 * PG)
        );
        self.cl(x);
        let x = self.mf(0, 5000, 1, 5000);
        let s = self.create(b"odd");
        p!(
            self,
            "pres.odd-size",
            "{} blocks={} size={}",
            en(self.pres(s, x, 1)),
            self.blocks(x),
            self.size(x)
        );
        self.cl(s);
        self.cl(x);
        let x = self.mf(0, PG, 1, PG);
        self.falloc(x, KEEP_SIZE, 0, 4 * PG);
        let s = self.create(b"ks");
        h!(self, "pres.fallocated-beyond-eof", "{} blocks={}", en(self.pres(s, x, 1)), self.blocks(x));
        self.cl(s);
        self.cl(x);
    }

    fn more_shapes(&mut self) {
        let x = self.mf(AS, 8 * PG, 0, 0);
        self.fill(x, 1, 0, 100);
        self.add_seals(x, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
        let s = self.create(b"sw");
        p!(self, "pres.sparse-write-sealed", "{} blocks={}", en(self.pres(s, x, 1)), self.blocks(x));
        self.cl(s);
        self.cl(x);
        let x = self.mf(0, PG, 1, PG);
        self.seek(x, 777, Whence::Set);
        let s = self.create(b"pos");
        self.pres(s, x, 1);
        p!(self, "pres.position-unchanged", "{}", self.pos(x));
        self.cl(s);
        self.cl(x);
        let x = self.mf(0, 2 * PG, 1, 2 * PG);
        let m = self.map(x, 2 * PG, true).expect("a memory file");
        let s = self.create(b"mw");
        let r = self.pres(s, x, 1);
        self.store(m, 5, 0xEE);
        p!(self, "pres.mapped-writable-then-write", "{} read-back={:#x}", en(r), self.byte(x, 5));
        self.unmap(m);
        self.cl(s);
        self.cl(x);
    }

    fn dup_session(&mut self) {
        let x = self.mf(0, PG, 1, PG);
        let s = self.create(b"dupsess");
        let t = self.dup(s);
        p!(self, "pres.via-dup-session-fd", "{}", en(self.pres(t, x, 1)));
        self.cl(s);
        p!(self, "pres.dup-session-keeps", "{}", en(self.pres(t, x, 2)));
        self.cl(t);
        let t = self.create(b"z");
        p!(self, "pres.after-last-session-dup-closed", "{}", en(self.pres(t, x, 1)));
        self.cl(t);
        self.cl(x);
    }
}
