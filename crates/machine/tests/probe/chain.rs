//! Three kernels in a row, and calls in the wrong direction.

use luosim_files::shmem::Whence;

use super::{AS, PG, Probe, en};

impl Probe {
    pub(super) fn chain1(&mut self) {
        self.device();
        let s = self.keep(b"A");
        let x = self.mf(AS, 2 * PG, 1, 2 * PG);
        self.preserve(s, x, 1).expect("a memfd");
        let y = self.mf(AS, PG, 2, PG);
        self.preserve(s, y, 2).expect("a memfd");
        let t = self.keep(b"B");
        let y = self.mf(AS, PG, 3, PG);
        self.seek(y, 5, Whence::Set);
        self.preserve(t, y, 1).expect("a memfd");
        let u = self.keep(b"U");
        let z = self.mf(AS, 3 * PG, 4, 3 * PG);
        self.preserve(u, z, 1).expect("a memfd");
        let r = self.m.reboot_kexec(self.p);
        self.say("pub.chain.reboot-kexec-no-image", en(&r));
        let r = self.name(s);
        self.say("pub.chain.after-fail-get-name", en(&r));
        let (grow, write) = (self.grow(x, 3), en(&self.pwrite(x, &[0xE1], 7)));
        self.say("pub.chain.after-fail-still-frozen", format!("grow={grow} write={write}"));
        let z = self.mf(AS, PG, 5, PG);
        let r = self.preserve(s, z, 3);
        self.say("pub.chain.after-fail-preserve", en(&r));
        let r = self.create(b"C");
        self.say("pub.chain.after-fail-create", en(&r));
        let r = self.create(b"A");
        self.say("pub.chain.after-fail-duplicate", en(&r));
    }

    pub(super) fn chain2(&mut self) {
        self.device();
        let s = self.take(b"A");
        self.say("pub.chain.s2-retrieve-A", en(&s));
        let s = s.expect("carried");
        let x = self.retrieve(s, 1).expect("carried");
        let (size, byte) = (self.size(x), self.byte(x, 7));
        self.say("pub.chain.s2-A1", format!("ok size={size} byte7={byte:#x}"));
        let y = self.retrieve(s, 3).expect("carried");
        let data = self.cmp(y, 5, 0, PG);
        self.say("pub.chain.s2-A3-preserved-after-failed-reboot", format!("ok {data}"));
        let t = self.take(b"B").expect("carried");
        let y = self.retrieve(t, 1).expect("carried");
        let pos = self.seek(y, 0, Whence::Cur);
        self.say("pub.chain.s2-B", format!("ok pos={pos}"));
        self.pwrite(y, &[0xB2], 9).expect("free");
        let r = self.finish(t);
        self.say("pub.chain.s2-B-finish", en(&r));
        self.close(t);
        let t = self.keep(b"B");
        let r = self.preserve(t, y, 2);
        self.say("pub.chain.s2-represerve-B", format!("ok {}", en(&r)));
        let t = self.keep(b"A");
        let y = self.mf(AS, PG, 9, PG);
        let r = self.preserve(t, y, 77);
        self.say("pub.chain.s2-new-A-while-old-A-unfinished", format!("ok {}", en(&r)));
        let c = self.take(b"C");
        self.say("pub.chain.s2-C", en(&c));
        let c = c.expect("carried");
        self.finish(c).expect("incoming");
        self.close(c);
    }

    pub(super) fn chain3(&mut self) {
        self.device();
        let r = self.take(b"U");
        self.say("pub.chain.s3-U-never-retrieved", en(&r));
        let s = self.take(b"A");
        let fd = *s.as_ref().expect("carried");
        let (one, two) = (en(&self.retrieve(fd, 1)), en(&self.retrieve(fd, 2)));
        let x = self.retrieve(fd, 77).expect("carried");
        let data = self.cmp(x, 9, 0, PG);
        self.say("pub.chain.s3-A", format!("{} tok1={one} tok2={two} tok77={data}", en(&s)));
        let r = self.finish(fd);
        self.say("pub.chain.s3-A-finish", en(&r));
        let s = self.take(b"B").expect("carried");
        let y = self.retrieve(s, 2).expect("carried");
        let (byte, pos) = (self.byte(y, 9), self.seek(y, 0, Whence::Cur));
        let (tail, seals) = (self.cmp(y, 3, 10, PG - 10), self.seals(y));
        self.say(
            "pub.chain.s3-B-two-hops",
            format!("ok byte9={byte:#x} pos={pos} tail={tail} seals={seals}"),
        );
        let r = self.take(b"C");
        self.say("pub.chain.s3-C-finished-in-s2", en(&r));
    }

    pub(super) fn danger1(&mut self) {
        self.device();
        for (name, seed) in [(&b"keep"[..], 1), (b"d5", 2)] {
            let s = self.keep(name);
            let x = self.mf(AS, PG, seed, PG);
            self.preserve(s, x, 1).expect("a memfd");
            self.close(x);
        }
        self.keep(b"d6");
        let s = self.create(b"d1").expect("new");
        let x = self.mf(AS, PG, 1, PG);
        self.preserve(s, x, 1).expect("a memfd");
        let r = self.finish(s);
        self.say("pub.danger.finish-outgoing-with-file", en(&r));
        let (grow, data) = (self.grow(x, 2), self.cmp(x, 1, 0, PG));
        let used = en(&self.preserve(s, self.dev, 1));
        self.say(
            "pub.danger.finish-outgoing-file-state",
            format!("grow={grow} data={data} token-used={used}"),
        );
        self.close(s);
        let t = self.create(b"d1");
        let again = en(&t);
        self.done(t);
        let grow = self.grow(x, 2);
        self.say("pub.danger.finish-outgoing-closed", format!("recreate={again} grow={grow}"));
        self.close(x);
        let (s, t) = (self.create(b"d3").expect("new"), self.create(b"d3b").expect("new"));
        let x = self.mf(AS, PG, 1, PG);
        let (one, two) = (en(&self.preserve(s, x, 1)), en(&self.preserve(t, x, 1)));
        self.say("pub.danger.same-file-two-sessions", format!("{one} {two}"));
        self.close(t);
        let grow = self.grow(x, 2);
        self.say("pub.danger.same-file-after-second-closed", format!("grow={grow}"));
        self.close(s);
        let (data, grow) = (self.cmp(x, 1, 0, PG), self.grow(x, 3));
        self.say("pub.danger.same-file-both-closed", format!("data={data} grow={grow}"));
        self.close(x);
        let s = self.create(b"d2").expect("new");
        let x = self.mf(AS, PG, 1, PG);
        self.preserve(s, x, 1).expect("a memfd");
        let y = self.retrieve(s, 1);
        self.say("pub.danger.retrieve-fd-outgoing-with-file", en(&y));
        self.close(s);
    }

    pub(super) fn danger2(&mut self) {
        self.device();
        let s = self.take(b"d6").expect("carried");
        let x = self.mf(AS, PG, 3, PG);
        let r = self.preserve(s, x, 5);
        self.say("pub.danger.preserve-on-incoming-empty", en(&r));
        let r = self.retrieve(s, 5);
        self.say("pub.danger.preserve-on-incoming-empty-retrieve", en(&r));
        let r = self.finish(s);
        self.say("pub.danger.preserve-on-incoming-empty-finish", en(&r));
        self.close(s);
        self.close(x);
        let s = self.take(b"d5").expect("carried");
        let x = self.mf(AS, PG, 3, PG);
        let (one, two) = (en(&self.preserve(s, x, 5)), en(&self.preserve(s, x, 1)));
        self.say("pub.danger.preserve-on-incoming-with-file", format!("{one} dup-token={two}"));
        let _ = self.finish(s);
        self.close(s);
        let s = self.take(b"keep").expect("carried");
        let x = self.retrieve(s, 1).expect("carried");
        let data = self.cmp(x, 1, 0, PG);
        self.say("pub.danger.other-session-intact", format!("ok {data}"));
        let r = self.finish(s);
        self.say("pub.danger.other-session-finish", en(&r));
    }
}
