//! What a preserved memfd still allows, and how it is when it is released.

use luosim_files::shmem::Whence;

use super::{AS, PG, Probe, en};

impl Probe {
    fn eff(&mut self, phase: &str, case: &str, answer: &str, fd: i32) {
        let (size, blocks) = (self.size(fd), self.blocks(fd));
        self.say(&format!("pub.eff.{phase}.{case}"), format!("{answer} size={size} blocks={blocks}"));
    }

    fn two_pages(&mut self, fd: i32, refill: bool) {
        if self.size(fd) != 2 * PG {
            let _ = self.truncate(fd, 2 * PG);
            if refill {
                self.fill(fd, 7, 0, 2 * PG);
            }
        }
    }

    fn effects(&mut self, phase: &str, x: i32) {
        let p = self.p;
        for (case, size, refill) in [
            ("ftruncate-same", 2 * PG, false),
            ("ftruncate-grow", 4 * PG, false),
            ("ftruncate-shrink", PG, true),
        ] {
            let r = en(&self.truncate(x, size));
            self.eff(phase, case, &r, x);
            self.two_pages(x, refill);
        }
        for (case, mode, at, len) in
            [("fallocate-extend", 0, 2 * PG, PG), ("fallocate-within", 0, 0, PG), ("punch-hole", 3, 0, PG)]
        {
            let (at, len) = (i64::try_from(at).expect("small"), i64::try_from(len).expect("small"));
            let r = en(&self.m.fallocate(p, x, mode, at, len));
            self.eff(phase, case, &r, x);
            self.two_pages(x, false);
        }
        self.fill(x, 7, 0, 2 * PG);
        for (case, len, at) in [
            ("write-within", 100, 50),
            ("write-to-eof-exact", 4096, PG),
            ("write-at-eof", 10, 2 * PG),
            ("write-beyond-eof", 10, 5 * PG),
        ] {
            let r = en(&self.pwrite(x, &vec![0x5a; len], at));
            self.eff(phase, case, &r, x);
            self.two_pages(x, false);
        }
        let map = self.m.mmap_shared(p, x, 0, 2 * PG, true);
        self.say(&format!("pub.eff.{phase}.new-shared-writable-map"), en(&map));
        let map = map.expect("a memory file");
        self.m.store(p, map, 1, &[0x77]).expect("mapped");
        let byte = self.byte(x, 1);
        self.say(&format!("pub.eff.{phase}.mmap-write"), format!("read-back={byte:#x}"));
        self.m.munmap(p, map).expect("mapped");
        let r = self.m.fchmod(p, x, 0o600);
        self.say(&format!("pub.eff.{phase}.fchmod"), en(&r));
        let r = self.m.lseek(p, x, 100, Whence::Set);
        self.say(&format!("pub.eff.{phase}.lseek"), en(&r));
    }

    fn seal_effects(&mut self, phase: &str, preserve: bool) {
        for (name, seal) in [("seal", 1), ("shrink", 2), ("grow", 4), ("write", 8)] {
            let x = self.mf(AS, PG, 1, PG);
            let s = if preserve { self.create(b"sealeff").expect("new") } else { -1 };
            if preserve {
                self.preserve(s, x, 1).expect("a memfd");
            }
            let answer = format!("{} seals={}", self.add_seals(x, seal), self.seals(x));
            self.say(&format!("pub.eff.{phase}.add-seal-{name}"), answer);
            if preserve {
                self.close(s);
                let answer = format!("{} seals={}", self.add_seals(x, seal), self.seals(x));
                self.say(&format!("pub.eff.{phase}.add-seal-{name}-after-close"), answer);
            }
            self.close(x);
        }
    }

    pub(super) fn t_effects(&mut self) {
        let x = self.mf(AS, 2 * PG, 7, 2 * PG);
        let s = self.create(b"eff").expect("new");
        let r = self.preserve(s, x, 1);
        self.say("pub.eff.preserve", en(&r));
        self.effects("frozen", x);
        self.close(s);
        self.fill(x, 7, 0, 2 * PG);
        self.effects("released", x);
        self.close(x);
        self.seal_effects("frozen", true);
        self.seal_effects("plain", false);
        let x = self.mf(AS, 100, 10, 100);
        let map = self.m.mmap_shared(self.p, x, 0, PG, true).expect("a memory file");
        self.m.store(self.p, map, 200, &[0x99]).expect("in the last page");
        self.truncate(x, 1000).expect("free");
        let byte = self.byte(x, 200);
        self.say("pub.eff.plain.tail-bytes-after-grow", format!("{byte:#x}"));
        self.sealed_and_empty();
    }

    fn sealed_and_empty(&mut self) {
        let x = self.mf(AS, 2 * PG, 1, 2 * PG);
        self.add_seals(x, 2);
        let s = self.create(b"ss").expect("new");
        self.preserve(s, x, 1).expect("a memfd");
        let answer = format!("shrink={} grow={}", self.grow(x, 1), self.grow(x, 3));
        self.say("pub.eff.shrink-sealed-frozen", answer);
        self.close(s);
        let answer = format!("shrink={} grow={}", self.grow(x, 1), self.grow(x, 3));
        self.say("pub.eff.shrink-sealed-released", answer);
        let x = self.mf(0, 0, 0, 0);
        let s = self.create(b"ez").expect("new");
        self.preserve(s, x, 1).expect("a memfd");
        let write = en(&self.pwrite(x, b"x", 0));
        let (grow, same) = (en(&self.truncate(x, 1)), en(&self.truncate(x, 0)));
        self.say("pub.eff.empty-frozen", format!("write={write} grow={grow} same={same}"));
        self.close(s);
        let write = en(&self.pwrite(x, b"x", 0));
        let size = self.size(x);
        self.say("pub.eff.empty-released", format!("write={write} size={size}"));
        let x = self.mf(AS, PG, 1, PG);
        let (s, t) = (self.create(b"b1").expect("new"), self.create(b"b2").expect("new"));
        self.preserve(s, x, 1).expect("a memfd");
        let r = en(&self.preserve(t, x, 1));
        self.close(t);
        let grow = self.grow(x, 2);
        self.say("pub.eff.still-frozen-after-busy-and-close-of-other", format!("{r} grow={grow}"));
        self.close(s);
    }

    pub(super) fn t_more(&mut self) {
        let m = 2 << 20;
        let x = self.mf(0, m, 1, m);
        let s = self.create(b"c1").expect("new");
        self.preserve(s, x, 1).expect("a memfd");
        let n = self.count(x, 2 * m, 0);
        self.say("pub.eff.frozen.write-4mib-over-2mib", format!("n={n}"));
        self.close(s);
        let x = self.mf(0, m + PG, 1, m + PG);
        let s = self.create(b"c2").expect("new");
        self.preserve(s, x, 1).expect("a memfd");
        let n = self.count(x, 2 * PG, m);
        self.say("pub.eff.frozen.write-2p-at-2mib-over-2mib+1p", format!("n={n}"));
        self.close(s);
        let x = self.mf(0, 5 * PG, 1, 5 * PG);
        let s = self.create(b"c3").expect("new");
        self.preserve(s, x, 1).expect("a memfd");
        let n = self.count(x, 6 * PG, 0);
        let data = self.cmp(x, 1, 0, 5 * PG);
        self.say("pub.eff.frozen.write-6p-over-5p", format!("n={n} data={data}"));
        let n = self.count(x, PG + 1, 4 * PG);
        self.say("pub.eff.frozen.write-1p+1-at-last-page", format!("n={n}"));
        self.close(s);
        let x = self.mf(AS, 5 * PG, 1, 5 * PG);
        self.add_seals(x, 4);
        let n = self.count(x, 6 * PG, 0);
        self.say("pub.eff.grow-sealed-write-6p-over-5p", format!("n={n}"));
        for (case, size) in [("size-16tib", 1u64 << 44), ("size-max", 0x7fff_ffff_ffff_ffff)] {
            let x = self.mf(AS, 0, 0, 0);
            let r = en(&self.truncate(x, size));
            let s = self.create(b"hz").expect("new");
            let (q, again) = (en(&self.preserve(s, x, 1)), en(&self.preserve(s, x, 2)));
            let shrink = self.grow(x, 1);
            self.say(
                &format!("pub.pres.{case}"),
                format!("truncate={r} pres={q} again={again} shrink={shrink}"),
            );
            self.close(s);
        }
    }
}
