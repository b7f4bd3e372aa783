//! Three kernels in a row, a reboot that fails, and calls in the wrong direction.

use luosim_files::shmem::Whence;

use super::{AS, PG, Probe, Ret, en, h, p, ret};

impl Probe {
    /// A kept session with one file; both stay open.
    fn kept(&mut self, name: &[u8], size: u64, seed: u32) -> (Ret, Ret) {
        let s = self.create(name);
        self.keep(s);
        let x = self.mf(AS, size, seed, size);
        self.pres(s, x, 1);
        (s, x)
    }

    pub(super) fn chain1(&mut self) {
        self.dev = self.opendev(2);
        self.kgrep("chain.kmsg1");
        let (s, x) = self.kept(b"A", 2 * PG, 1);
        let y = self.mf(AS, PG, 2, PG);
        self.pres(s, y, 2);
        self.cl(y);
        let t = self.create(b"B");
        self.keep(t);
        let y = self.mf(AS, PG, 3, PG);
        self.seek(y, 5, Whence::Set);
        self.pres(t, y, 1);
        let (_, z) = self.kept(b"U", 3 * PG, 4);
        self.cl(z);
        p!(self, "chain.reboot-kexec-no-image", "{}", en(self.reboot()));
        p!(self, "chain.after-fail-get-name", "{}", en(self.name(s).0));
        p!(
            self,
            "chain.after-fail-still-frozen",
            "grow={} write={}",
            en(self.trunc(x, 3 * PG)),
            en(self.pw(x, &[0xE1], 7))
        );
        let z = self.mf(AS, PG, 5, PG);
        p!(self, "chain.after-fail-preserve", "{}", en(self.pres(s, z, 3)));
        self.cl(z);
        let w = self.create(b"C");
        p!(self, "chain.after-fail-create", "{}", en(self.keep(w)));
        p!(self, "chain.after-fail-duplicate", "{}", en(self.create(b"A")));
        h!(self, "chain.reboot-kexec-no-image-again", "{}", en(self.reboot()));
        let r = self.child(|child| {
            child.m.set_uid(child.p, 1000).expect("root");
            child.reboot()
        });
        h!(self, "chain.reboot-kexec-unprivileged", "{}", en(r));
        let w = self.create(b"tmp");
        let z = self.mf(AS, PG, 5, PG);
        self.pres(w, z, 1);
        self.cl(w);
        h!(self, "chain.after-fail-close-releases", "grow={}", en(self.trunc(z, 3 * PG)));
        self.cl(z);
        self.cl(x);
    }

    fn reboot(&mut self) -> Ret {
        ret(&self.m.reboot_kexec(self.p).map(|_| ()))
    }

    pub(super) fn chain2(&mut self) {
        self.dev = self.opendev(2);
        self.kgrep("chain.kmsg2");
        let s = self.retr(b"A");
        p!(self, "chain.s2-retrieve-A", "{}", en(s));
        let x = self.fretr(s, 1);
        p!(self, "chain.s2-A1", "{} size={} byte7={:#x}", en(x), self.size(x), self.byte(x, 7));
        let y = self.fretr(s, 3);
        p!(self, "chain.s2-A3-preserved-after-failed-reboot", "{} {}", en(y), self.cmp(y, 5, 0, PG));
        self.cl(y);
        let t = self.retr(b"B");
        let y = self.fretr(t, 1);
        p!(self, "chain.s2-B", "{} pos={}", en(y), self.pos(y));
        self.pw(y, &[0xB2], 9);
        p!(self, "chain.s2-B-finish", "{}", en(self.fin(t)));
        self.cl(t);
        let t = self.create(b"B");
        p!(self, "chain.s2-represerve-B", "{} {}", en(t), en(self.pres(t, y, 2)));
        self.cl(y);
        let t = self.create(b"A");
        let y = self.mf(AS, PG, 9, PG);
        p!(self, "chain.s2-new-A-while-old-A-unfinished", "{} {}", en(t), en(self.pres(t, y, 77)));
        self.cl(y);
        h!(self, "chain.s2-represerve-unfinished", "{}", en(self.pres(t, x, 78)));
        let w = self.retr(b"C");
        if w >= 0 {
            self.fin(w);
        }
        self.cl(w);
        p!(self, "chain.s2-C", "{}", en(w));
        self.cl(x);
    }

    pub(super) fn chain3(&mut self) {
        self.dev = self.opendev(2);
        self.kgrep("chain.kmsg3");
        p!(self, "chain.s3-U-never-retrieved", "{}", en(self.retr(b"U")));
        let s = self.retr(b"A");
        let (one, two, x) = (self.fretr(s, 1), self.fretr(s, 2), self.fretr(s, 77));
        let data = if x < 0 { en(x) } else { self.cmp(x, 9, 0, PG) };
        p!(self, "chain.s3-A", "{} tok1={} tok2={} tok77={data}", en(s), en(one), en(two));
        h!(self, "chain.s3-A-tok78", "{}", en(self.fretr(s, 78)));
        p!(self, "chain.s3-A-finish", "{}", en(self.fin(s)));
        self.cl(s);
        h!(self, "chain.s3-A-again", "{}", en(self.retr(b"A")));
        let s = self.retr(b"B");
        let y = self.fretr(s, 2);
        p!(
            self,
            "chain.s3-B-two-hops",
            "{} byte9={:#x} pos={} tail={} seals={}",
            en(y),
            self.byte(y, 9),
            self.pos(y),
            self.cmp(y, 3, 10, PG - 10),
            self.seals(y)
        );
        p!(self, "chain.s3-C-finished-in-s2", "{}", en(self.retr(b"C")));
        self.fin(s);
        self.cl(s);
    }

    pub(super) fn danger1(&mut self) {
        self.dev = self.opendev(2);
        for (name, seed) in [(&b"keep"[..], 1), (b"d5", 2)] {
            let (_, x) = self.kept(name, PG, seed);
            self.cl(x);
        }
        self.create(b"d6");
        let (s, x) = self.kept(b"d1", PG, 1);
        p!(self, "danger.finish-outgoing-with-file", "{}", en(self.fin(s)));
        p!(
            self,
            "danger.finish-outgoing-file-state",
            "grow={} data={} token-used={}",
            en(self.trunc(x, 2 * PG)),
            self.cmp(x, 1, 0, PG),
            en(self.pres(s, self.dev, 1))
        );
        self.cl(s);
        let t = self.create(b"d1");
        self.cl(t);
        p!(self, "danger.finish-outgoing-closed", "recreate={} grow={}", en(t), en(self.trunc(x, 2 * PG)));
        self.cl(x);
        let (s, t) = (self.create(b"d3"), self.create(b"d3b"));
        let x = self.mf(AS, PG, 1, PG);
        p!(self, "danger.same-file-two-sessions", "{} {}", en(self.pres(s, x, 1)), en(self.pres(t, x, 1)));
        self.cl(t);
        p!(self, "danger.same-file-after-second-closed", "grow={}", en(self.trunc(x, 2 * PG)));
        self.cl(s);
        let data = self.cmp(x, 1, 0, PG);
        p!(self, "danger.same-file-both-closed", "data={data} grow={}", en(self.trunc(x, 3 * PG)));
        self.cl(x);
        self.wrong_retrieve();
    }

    fn wrong_retrieve(&mut self) {
        let (s, x) = self.kept(b"d2", PG, 1);
        let y = self.fretr(s, 1);
        p!(self, "danger.retrieve-fd-outgoing-with-file", "{}", en(y));
        self.cl(y);
        let y = self.fretr(s, 1);
        h!(self, "danger.retrieve-fd-outgoing-again", "{}", en(y));
        self.cl(y);
        self.cl(s);
        h!(self, "danger.close-after-wrong-retrieve", "grow={}", en(self.trunc(x, 2 * PG)));
        self.cl(x);
        let x = self.mf(AS, PG, 1, PG);
        let s = self.create(b"z");
        h!(self, "danger.preserve-still-works", "{}", en(self.pres(s, x, 1)));
        self.cl(s);
        self.cl(x);
    }

    pub(super) fn danger2(&mut self) {
        self.dev = self.opendev(2);
        let s = self.retr(b"d6");
        let x = self.mf(AS, PG, 3, PG);
        p!(self, "danger.preserve-on-incoming-empty", "{}", en(self.pres(s, x, 5)));
        let y = self.fretr(s, 5);
        self.cl(y);
        p!(self, "danger.preserve-on-incoming-empty-retrieve", "{}", en(y));
        p!(self, "danger.preserve-on-incoming-empty-finish", "{}", en(self.fin(s)));
        self.cl(s);
        self.cl(x);
        let s = self.retr(b"d5");
        let x = self.mf(AS, PG, 3, PG);
        p!(
            self,
            "danger.preserve-on-incoming-with-file",
            "{} dup-token={}",
            en(self.pres(s, x, 5)),
            en(self.pres(s, x, 1))
        );
        let y = self.fretr(s, 1);
        h!(self, "danger.preserve-on-incoming-own-file", "{} {}", en(y), en(self.pres(s, y, 6)));
        self.cl(y);
        h!(self, "danger.preserve-on-incoming-finish", "{}", en(self.fin(s)));
        self.cl(s);
        self.cl(x);
        let s = self.retr(b"keep");
        let x = self.fretr(s, 1);
        let data = if x < 0 { String::new() } else { self.cmp(x, 1, 0, PG) };
        p!(self, "danger.other-session-intact", "{} {data}", en(x));
        self.cl(x);
        p!(self, "danger.other-session-finish", "{}", en(self.fin(s)));
        self.cl(s);
    }
}
