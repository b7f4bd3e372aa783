//! What may be done to a file while it is preserved, afterwards, and to one that never was.

use luosim_files::shmem::Whence;
use luosim_machine::sys::MapId;

use super::{
    AS, F_SEAL_GROW, F_SEAL_SHRINK, F_SEAL_WRITE, KEEP_SIZE, O_APPEND, PG, PUNCH, Probe, Ret, en, fd, h, p,
    ret,
};

const ZERO_RANGE: u32 = 0x10;
const COLLAPSE_RANGE: u32 = 0x8;

impl Probe {
    /// Says the answer with size and blocks.
    fn eff(&mut self, case: &str, r: Ret, x: Ret) {
        let answer = format!("{} size={} blocks={}", en(r), self.size(x), self.blocks(x));
        self.say(case, answer);
    }

    /// Back to two pages, if the last call changed that.
    fn two_pages(&mut self, x: Ret, refill: bool) {
        if self.size(x) != 2 * PG {
            self.trunc(x, 2 * PG);
            if refill {
                self.fill(x, 7, 0, 2 * PG);
            }
        }
    }

    fn resizes(&mut self, ph: &str, x: Ret) {
        let case = |group: &str, name: &str| format!("{group}.eff.{ph}.{name}");
        for (group, name, size, refill) in [
            ("pub", "ftruncate-same", 2 * PG, false),
            ("pub", "ftruncate-grow", 4 * PG, false),
            ("pub", "ftruncate-shrink", PG, true),
            ("hid", "ftruncate-zero", 0, true),
            ("hid", "ftruncate-grow-1", 2 * PG + 1, false),
        ] {
            let r = self.trunc(x, size);
            self.eff(&case(group, name), r, x);
            self.two_pages(x, refill);
        }
        let r = self.falloc(x, 0, 2 * PG, PG);
        self.eff(&case("pub", "fallocate-extend"), r, x);
        self.two_pages(x, false);
        let r = self.falloc(x, 0, 0, PG);
        self.eff(&case("pub", "fallocate-within"), r, x);
        let r = self.falloc(x, KEEP_SIZE, 4 * PG, PG);
        self.eff(&case("hid", "fallocate-keepsize-beyond"), r, x);
        if self.blocks(x) != 16 {
            self.trunc(x, 5 * PG);
            self.trunc(x, 2 * PG);
        }
        let r = self.falloc(x, PUNCH, 0, PG);
        self.eff(&case("pub", "punch-hole"), r, x);
        self.fill(x, 7, 0, 2 * PG);
        for (name, mode, at, len) in [
            ("punch-hole-sub-page", PUNCH, 10, 20),
            ("zero-range", ZERO_RANGE, 0, PG),
            ("collapse-range", COLLAPSE_RANGE, 0, PG),
        ] {
            let r = self.falloc(x, mode, at, len);
            self.eff(&case("hid", name), r, x);
        }
        self.two_pages(x, false);
    }

    fn writes(&mut self, ph: &str, x: Ret) {
        let b = [0x5a; 4096];
        for (name, len, at) in [
            ("write-within", 100, 50),
            ("write-to-eof-exact", 4096, PG),
            ("write-at-eof", 10, 2 * PG),
            ("write-beyond-eof", 10, 5 * PG),
        ] {
            let r = self.pw(x, &b[..len], at);
            self.eff(&format!("pub.eff.{ph}.{name}"), r, x);
            self.two_pages(x, false);
        }
        let r = self.pw(x, &b[..100], 2 * PG - 50);
        h!(self, format!("eff.{ph}.write-straddling-eof"), "{} n={r} size={}", en(r), self.size(x));
        self.two_pages(x, false);
        let r = self.pw(x, &[1; 3 * 4096], 0);
        h!(self, format!("eff.{ph}.write-3-pages-over-2"), "{} n={r} size={}", en(r), self.size(x));
        self.two_pages(x, false);
        self.seek(x, 0, Whence::End);
        self.setfl(x, O_APPEND);
        let r = ret(&self.m.write(self.p, fd(x), &b[..1]));
        self.eff(&format!("hid.eff.{ph}.write-append"), r, x);
        self.setfl(x, 0);
        self.two_pages(x, false);
        self.seek(x, 0, Whence::Set);
    }

    fn effects(&mut self, ph: &str, x: Ret, m: MapId) {
        self.resizes(ph, x);
        self.writes(ph, x);
        self.store(m, 1, 0x77);
        p!(self, format!("eff.{ph}.mmap-write"), "read-back={:#x}", self.byte(x, 1));
        let remove = self.m.madvise_remove(self.p, m, 0, PG);
        h!(self, format!("eff.{ph}.madvise-remove"), "{}", en(ret(&remove)));
        p!(self, format!("eff.{ph}.new-shared-writable-map"), "{}", self.try_map(x, 2 * PG, true));
        p!(self, format!("eff.{ph}.fchmod"), "{}", en(ret(&self.m.fchmod(self.p, fd(x), 0o600))));
        h!(self, format!("eff.{ph}.fchown"), "{}", en(ret(&self.m.fchown(self.p, fd(x), 1, 1))));
        p!(self, format!("eff.{ph}.lseek"), "{}", en(self.seek(x, 100, Whence::Set)));
    }

    fn seal_eff(&mut self, ph: &str, preserve: bool) {
        for (name, seal, group) in [
            ("seal", 1, "pub"),
            ("shrink", 2, "pub"),
            ("grow", 4, "pub"),
            ("write", 8, "pub"),
            ("future-write", 0x10, "hid"),
            ("exec", 0x20, "hid"),
        ] {
            let (x, mut s) = (self.mf(AS, PG, 1, PG), -1);
            if preserve {
                s = self.create(b"sealeff");
                self.pres(s, x, 1);
            }
            let answer = format!("{} seals={}", en(self.add_seals(x, seal)), self.seals(x));
            self.say(&format!("{group}.eff.{ph}.add-seal-{name}"), answer);
            if preserve {
                self.cl(s);
                let answer = format!("{} seals={}", en(self.add_seals(x, seal)), self.seals(x));
                self.say(&format!("{group}.eff.{ph}.add-seal-{name}-after-close"), answer);
            }
            self.cl(x);
        }
    }

    pub(super) fn t_eff(&mut self) {
        let x = self.mf(AS, 2 * PG, 7, 2 * PG);
        let m = self.map(x, 2 * PG, true).expect("a memory file");
        let s = self.create(b"eff");
        p!(self, "eff.preserve", "{}", en(self.pres(s, x, 1)));
        self.effects("frozen", x, m);
        let y = self.dup(x);
        p!(self, "eff.frozen.close-fd", "{}", en(self.cl(y)));
        self.cl(s);
        self.fill(x, 7, 0, 2 * PG);
        self.effects("released", x, m);
        self.unmap(m);
        self.cl(x);
        self.seal_eff("frozen", true);
        self.seal_eff("plain", false);
        self.tails();
        self.sealed();
        self.small();
    }

    /// Bytes beyond the end that a mapping wrote.
    fn tails(&mut self) {
        let tail = |probe: &mut Self| {
            let x = probe.mf(AS, 100, 10, 100);
            let m = probe.map(x, PG, true).expect("a memory file");
            probe.store(m, 200, 0x99);
            (x, m)
        };
        let (x, m) = tail(self);
        self.trunc(x, 1000);
        p!(self, "eff.plain.tail-bytes-after-grow", "{:#x}", self.byte(x, 200));
        self.unmap(m);
        self.cl(x);
        let (x, m) = tail(self);
        self.trunc(x, PG + 1);
        h!(self, "eff.plain.tail-bytes-after-grow-next-page", "{:#x}", self.byte(x, 200));
        self.unmap(m);
        self.cl(x);
        let (x, m) = tail(self);
        self.pw(x, b"z", 500);
        h!(self, "eff.plain.tail-bytes-after-write-beyond", "{:#x}", self.byte(x, 200));
        self.unmap(m);
        self.cl(x);
    }

    fn sealed(&mut self) {
        let x = self.mf(AS, 2 * PG, 1, 2 * PG);
        self.add_seals(x, F_SEAL_SHRINK);
        let s = self.create(b"ss");
        self.pres(s, x, 1);
        for (case, close) in [("frozen", false), ("released", true)] {
            if close {
                self.cl(s);
            }
            p!(
                self,
                format!("eff.shrink-sealed-{case}"),
                "shrink={} grow={}",
                en(self.trunc(x, PG)),
                en(self.trunc(x, 3 * PG))
            );
        }
        self.cl(x);
        let x = self.mf(AS, PG, 1, PG);
        self.add_seals(x, F_SEAL_WRITE);
        let s = self.create(b"sw");
        self.pres(s, x, 1);
        h!(
            self,
            "eff.write-sealed-frozen",
            "write={} beyond={}",
            en(self.pw(x, b"x", 0)),
            en(self.pw(x, b"x", PG))
        );
        self.cl(s);
        self.cl(x);
    }

    fn small(&mut self) {
        let x = self.mf(0, 0, 0, 0);
        let s = self.create(b"ez");
        self.pres(s, x, 1);
        p!(
            self,
            "eff.empty-frozen",
            "write={} grow={} same={}",
            en(self.pw(x, b"x", 0)),
            en(self.trunc(x, 1)),
            en(self.trunc(x, 0))
        );
        self.cl(s);
        p!(self, "eff.empty-released", "write={} size={}", en(self.pw(x, b"x", 0)), self.size(x));
        self.cl(x);
        let x = self.mf(AS, PG, 1, PG);
        let (s, t) = (self.create(b"b1"), self.create(b"b2"));
        self.pres(s, x, 1);
        let r = self.pres(t, x, 1);
        self.cl(t);
        let grow = self.trunc(x, 2 * PG);
        p!(self, "eff.still-frozen-after-busy-and-close-of-other", "{} grow={}", en(r), en(grow));
        self.cl(s);
        h!(self, "eff.released-after-owner-close", "grow={}", en(self.trunc(x, 2 * PG)));
        self.cl(x);
        let x = self.tmp_file("/tmp/ef", 0o600, 0);
        self.fill(x, 3, 0, PG);
        self.m.unlink(self.p, "/tmp/ef").expect("linked");
        let s = self.create(b"tf");
        p!(
            self,
            "eff.tmpfs-unlinked-frozen",
            "{} write={} grow={} shrink={}",
            en(self.pres(s, x, 1)),
            en(self.pw(x, b"x", 0)),
            en(self.trunc(x, 2 * PG)),
            en(self.trunc(x, 0))
        );
        self.cl(s);
        self.cl(x);
    }

    pub(super) fn t_more(&mut self) {
        self.windows();
        for (case, size) in [
            ("pub.pres.size-16tib", 1u64 << 44),
            ("hid.pres.size-16tib-plus-page", (1 << 44) + PG),
            ("pub.pres.size-max", 0x7fff_ffff_ffff_ffff),
            ("hid.pres.size-16tib-minus-page", (1 << 44) - PG),
            ("hid.pres.size-16tib-minus-page-plus-1", (1 << 44) - PG + 1),
        ] {
            let x = self.mf(AS, 0, 0, 0);
            let r = self.trunc(x, size);
            let s = self.create(b"hz");
            let q = if r < 0 { r } else { self.pres(s, x, 1) };
            let q2 = self.pres(s, x, 2);
            let shrink = self.trunc(x, PG);
            self.say(
                case,
                format!("truncate={} pres={} again={} shrink={}", en(r), en(q), en(q2), en(shrink)),
            );
            self.cl(s);
            self.cl(x);
        }
        self.ends_of_processes();
    }

    fn preserved(&mut self, name: &[u8], size: u64) -> (Ret, Ret) {
        let x = self.mf(0, size, 1, size);
        let s = self.create(name);
        self.pres(s, x, 1);
        (s, x)
    }

    /// Writes of which only the first part fits.
    fn windows(&mut self) {
        let mib2 = 2 << 20;
        let big = vec![7; 4 * mib2];
        let (m, page) = (2u64 << 20, 4096);
        let (s, x) = self.preserved(b"c1", m);
        p!(self, "eff.frozen.write-4mib-over-2mib", "n={}", self.pw(x, &big[..2 * mib2], 0));
        h!(self, "eff.frozen.write-2mib-at-1mib-over-2mib", "n={}", self.pw(x, &big[..mib2], m / 2));
        self.cl(s);
        self.cl(x);
        let (s, x) = self.preserved(b"c2", m + PG);
        h!(self, "eff.frozen.write-2mib+2p-over-2mib+1p", "n={}", self.pw(x, &big[..mib2 + 2 * page], 0));
        p!(self, "eff.frozen.write-2p-at-2mib-over-2mib+1p", "n={}", self.pw(x, &big[..2 * page], m));
        self.cl(s);
        self.cl(x);
        let (s, x) = self.preserved(b"c3", 5 * PG);
        p!(
            self,
            "eff.frozen.write-6p-over-5p",
            "n={} data={}",
            self.pw(x, &big[..6 * page], 0),
            self.cmp(x, 1, 0, 5 * PG)
        );
        p!(self, "eff.frozen.write-1p+1-at-last-page", "n={}", self.pw(x, &big[..=page], 4 * PG));
        self.cl(s);
        self.cl(x);
        let x = self.mf(AS, 5 * PG, 1, 5 * PG);
        self.add_seals(x, F_SEAL_GROW);
        p!(self, "eff.grow-sealed-write-6p-over-5p", "n={}", self.pw(x, &big[..6 * page], 0));
        self.cl(x);
    }
}
