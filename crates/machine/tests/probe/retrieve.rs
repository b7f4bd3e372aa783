//! What the next kernel gives back.

use luosim_files::flags;
use luosim_files::shmem::Whence;

use super::carry::{SEAL_SETS, every_third_hidden};
use super::{AS, F_SEAL_GROW, F_SEAL_WRITE, O_APPEND, PG, PUNCH, Probe, Ret, en, fd, h, p, pat, ret, yes};

/// Seed, first byte and length of what is compared with the pattern.
type Part = (u32, u64, u64);

impl Probe {
    fn desc(&mut self, case: &str, x: Ret, (seed, from, len): Part) {
        if x < 0 {
            return self.say(case, en(x));
        }
        let st = self.stat(x);
        let link = self.link(x);
        let answer = format!(
            "ok size={} pos={} data={} seals={} fl=0{} fd={} mode=0{:o} nlink={} uid={} blocks={} link={link}",
            st.size,
            self.pos(x),
            self.cmp(x, seed, from, len),
            self.seals(x),
            self.getfl(x),
            self.getfd(x),
            st.mode,
            st.nlink,
            st.uid,
            st.blocks
        );
        self.say(case, answer);
    }

    pub(super) fn main2(&mut self) {
        self.dev = self.opendev(flags::RDONLY);
        p!(self, "dev2.open-rdonly", "{}", en(self.dev));
        let x = self.opendev(2);
        p!(self, "dev2.second-open", "{}", en(x));
        self.cl(x);
        self.cl(self.dev);
        self.dev = self.opendev(2);
        p!(self, "dev2.reopen", "{}", en(self.dev));
        p!(self, "sess2.retrieve-unknown", "{}", en(self.retr(b"nothing")));
        p!(self, "sess2.retrieve-dropped", "{}", en(self.retr(b"c-dropped")));
        h!(self, "sess2.retrieve-prefix", "{}", en(self.retr(b"c-basi")));
        h!(self, "sess2.retrieve-case", "{}", en(self.retr(b"C-BASIC")));
        h!(self, "sess2.retrieve-empty", "{}", en(self.retr(b"")));
        h!(self, "sess2.retrieve-64-no-nul-of-63", "{}", en(self.retrn(&[b'N'; 64])));
        let s = self.retr(b"c-basic");
        p!(self, "sess2.retrieve", "{}", en(s));
        p!(self, "sess2.retrieve-twice", "{}", en(self.retr(b"c-basic")));
        self.fdprops("sess2", s);
        let (r, name) = self.name(s);
        p!(self, "sess2.get-name", "{} {name}", en(r));
        let t = self.create(b"c-basic");
        p!(self, "sess2.create-same-name-while-incoming", "{}", en(t));
        p!(self, "sess2.create-same-name-twice", "{}", en(self.create(b"c-basic")));
        self.cl(t);
        let t = self.create(b"c-two");
        p!(self, "sess2.create-name-of-unretrieved", "{}", en(t));
        self.cl(t);
        p!(self, "ret.unknown-token", "{}", en(self.fretr(s, 9999)));
        self.basic_one(s);
        self.basic_files(s);
        self.basic_special(s);
        self.basic_rest(s);
        self.basic_end(s);
        self.sealed_back();
        self.orders();
        self.closes();
        self.read_only_back();
        self.no_descriptors_back();
        self.reuse();
        self.write_paths();
        self.children_back();
        let s = self.retr(b"c-matrix");
        self.incoming_matrices(s);
        self.names_back();
        self.many_back();
    }

    fn basic_one(&mut self, s: Ret) {
        let x = self.fretr(s, 1);
        self.desc("pub.ret.basic-1", x, (1, 0, 5000));
        let mut b = [0; 4];
        let r = ret(&self.m.read(self.p, fd(x), &mut b));
        let good = b[0] == pat(1, 123) && b[3] == pat(1, 126);
        p!(self, "ret.basic-1-read-at-pos", "n={r} match={}", yes(good));
        let z = self.mf(0, 0, 0, 0);
        let (one, other) = (self.stat(x).dev, self.stat(z).dev);
        self.cl(z);
        p!(self, "ret.same-device-as-new-memfd", "{}", yes(one == other));
        p!(
            self,
            "ret.basic-1-grow-write-shrink",
            "grow={} write={} shrink={} size={}",
            en(self.trunc(x, 3 * PG)),
            en(self.pw(x, b"zz", 2 * PG)),
            en(self.trunc(x, 10)),
            self.size(x)
        );
        self.cl(x);
        let x = self.fretr(s, 1);
        p!(self, "ret.basic-1-again-after-close", "{} size={} pos={}", en(x), self.size(x), self.pos(x));
        self.cl(x);
    }

    fn basic_files(&mut self, s: Ret) {
        let x = self.fretr(s, 2);
        self.desc("pub.ret.empty", x, (0, 0, 0));
        p!(self, "ret.empty-write", "{} size={}", en(self.pw(x, b"abc", 0)), self.size(x));
        self.cl(x);
        let x = self.fretr(s, 3);
        self.desc("pub.ret.holes", x, (3, 3 * PG, PG));
        p!(
            self,
            "ret.holes-zero",
            "{} {} last={}",
            self.cmp(x, 0xffff, 0, 3 * PG),
            self.cmp(x, 0xffff, 4 * PG, 5 * PG),
            self.cmp(x, 3, 9 * PG, 100)
        );
        h!(
            self,
            "ret.holes-seek",
            "data={} hole={}",
            self.seek(x, 0, Whence::Data),
            self.seek(x, 0, Whence::Hole)
        );
        self.cl(x);
        let x = self.fretr(s, 4);
        p!(
            self,
            "ret.late-writes",
            "{} mmap={:#x} write={:#x} pos={}",
            en(x),
            self.byte(x, 10),
            self.byte(x, PG + 20),
            self.pos(x)
        );
        self.cl(x);
        let x = self.fretr(s, 5);
        self.desc("pub.ret.plain-noseal", x, (5, 0, PG));
        p!(self, "ret.plain-noseal-add-seal", "{}", en(self.add_seals(x, F_SEAL_GROW)));
        self.cl(x);
    }

    /// Retrieves, describes and closes.
    fn desc_token(&mut self, case: &str, s: Ret, token: u64, part: Part) {
        let x = self.fretr(s, token);
        self.desc(case, x, part);
        self.cl(x);
    }

    fn basic_special(&mut self, s: Ret) {
        self.desc_token("pub.ret.token0", s, 0, (6, 0, PG));
        self.desc_token("pub.ret.token-max", s, u64::MAX, (7, 0, PG));
        self.desc_token("pub.ret.seal-added-after-preserve", s, 0x10, (8, 0, PG));
        let x = self.fretr(s, 0x11);
        self.desc("pub.ret.noexec-seal", x, (9, 0, PG));
        p!(
            self,
            "ret.noexec-seal-write",
            "write={} chmod+x={} chmod0666={}",
            en(self.pw(x, b"x", 0)),
            en(ret(&self.m.fchmod(self.p, fd(x), 0o777))),
            en(ret(&self.m.fchmod(self.p, fd(x), 0o666)))
        );
        self.cl(x);
        let x = self.fretr(s, 0x12);
        self.desc("hid.ret.tail-beyond-eof", x, (10, 0, 100));
        if let Ok(m) = self.map(x, PG, false) {
            let (a1, a2) = (self.loadb(m, 200), self.loadb(m, 300));
            self.trunc(x, 1000);
            h!(
                self,
                "ret.tail-beyond-eof-bytes",
                "mmap200={a1:#x} mmap300={a2:#x} after-grow200={:#x} 300={:#x}",
                self.byte(x, 200),
                self.byte(x, 300)
            );
        }
        self.cl(x);
    }

    fn basic_rest(&mut self, s: Ret) {
        self.desc_token("pub.ret.tmpfs-unlinked", s, 0x13, (11, 0, 300));
        let x = self.fretr(s, 0x14);
        self.desc("pub.ret.rdonly-reopen", x, (12, 0, PG));
        p!(self, "ret.rdonly-reopen-write", "{}", en(self.pw(x, b"x", 0)));
        self.cl(x);
        self.desc_token("hid.ret.pos-beyond-eof", s, 0x15, (13, 0, 100));
        self.desc_token("hid.ret.file-flags", s, 0x16, (14, 0, PG));
        self.desc_token("hid.ret.keepsize-beyond", s, 0x17, (15, 0, PG));
        let x = self.fretr(s, 0x18);
        self.desc("pub.ret.8mib", x, (16, 0, 8 << 20));
        p!(self, "ret.8mib-hash", "{:016x}", self.fnv(x, 8 << 20));
        self.cl(x);
        self.desc_token("pub.ret.mode-owner", s, 0x19, (17, 0, PG));
        self.desc_token("hid.ret.left-mapped", s, 0x1a, (18, 0, PG));
        self.desc_token("hid.ret.pos-moved-via-dup", s, 0x1b, (19, 0, 3 * PG));
        let x = self.fretr(s, 0x1c);
        self.desc("hid.ret.punched", x, (20, 0, PG));
        h!(self, "ret.punched-parts", "{} {}", self.cmp(x, 0xffff, PG, PG), self.cmp(x, 20, 2 * PG, 2 * PG));
        self.cl(x);
        self.desc_token("pub.ret.fallocated", s, 0x1d, (0xffff, 0, 4 * PG));
        self.desc_token("pub.ret.two-pages-plus-1", s, 0x1e, (21, 0, 2 * PG + 1));
        self.desc_token("hid.ret.one-byte", s, 0x1f, (22, 0, 1));
    }

    fn basic_end(&mut self, s: Ret) {
        p!(self, "sess2.finish", "{}", en(self.fin(s)));
        p!(self, "sess2.finish-twice", "{}", en(self.fin(s)));
        p!(self, "ret.after-finish", "{}", en(self.fretr(s, 1)));
        p!(self, "sess2.retrieve-again-after-finish", "{}", en(self.retr(b"c-basic")));
        let (r, name) = self.name(s);
        h!(self, "sess2.get-name-after-finish", "{} {name}", en(r));
        self.cl(s);
        p!(self, "sess2.retrieve-again-after-close", "{}", en(self.retr(b"c-basic")));
        let t = self.create(b"c-basic");
        p!(self, "sess2.create-same-name-after-close", "{}", en(t));
        self.cl(t);
    }

    fn sealed_back(&mut self) {
        let s = self.retr(b"c-seals");
        for (index, set) in SEAL_SETS.into_iter().enumerate() {
            let number = u32::try_from(index).expect("16 sets");
            let x = self.fretr(s, number.into());
            let case = format!("{}.ret.seals-0x{set:02x}", every_third_hidden(index));
            if x < 0 {
                self.say(&case, en(x));
                continue;
            }
            let answer = format!(
                "seals={} mode=0{:o} size={} data={} write={} grow={} shrink={} add-seal={} wmap={}",
                self.seals(x),
                self.stat(x).mode & 0o7777,
                self.size(x),
                self.cmp(x, 100 + number, 0, PG + 10),
                en(self.pw(x, b"x", 0)),
                en(self.trunc(x, PG + 11)),
                en(self.trunc(x, 5)),
                en(self.add_seals(x, 2)),
                self.try_map(x, PG, true)
            );
            self.say(&case, answer);
            self.cl(x);
        }
        p!(self, "sess2.seals-finish", "{}", en(self.fin(s)));
        self.cl(s);
    }

    fn orders(&mut self) {
        let s = self.retr(b"c-empty");
        p!(
            self,
            "sess2.empty-retrieve",
            "{} token={} finish={}",
            en(s),
            en(self.fretr(s, 0)),
            en(self.fin(s))
        );
        self.cl(s);
        let s = self.retr(b"c-order");
        for i in (0..5u32).rev() {
            let x = self.fretr(s, u64::from(50 + i));
            let answer = format!("{} {}", en(x), self.cmp(x, 50 + i, 0, PG));
            self.say(&format!("{}.ret.reverse-{i}", if i % 3 == 2 { "hid" } else { "pub" }), answer);
            self.cl(x);
        }
        p!(self, "sess2.order-finish", "{}", en(self.fin(s)));
        self.cl(s);
        let s = self.retr(b"c-twice");
        let (x, y) = (self.fretr(s, 7), self.fretr(s, 7));
        let same = self.stat(x).ino == self.stat(y).ino;
        p!(self, "ret.twice", "{} {} same-inode={} different-fd={}", en(x), en(y), yes(same), yes(x != y));
        self.seek(x, 500, Whence::Set);
        p!(self, "ret.twice-shared-offset", "{}", self.pos(y));
        self.pw(x, &[0xC7], 3);
        p!(self, "ret.twice-shared-data", "{:#x}", self.byte(y, 3));
        self.setfl(x, O_APPEND);
        h!(self, "ret.twice-shared-flags", "0{}", self.getfl(y));
        p!(self, "ret.twice-cloexec", "{} {}", self.getfd(x), self.getfd(y));
        self.cl(x);
        self.cl(y);
        self.fin(s);
        self.cl(s);
    }

    fn closes(&mut self) {
        let s = self.retr(b"c-finunret");
        let finish = self.fin(s);
        p!(self, "sess2.finish-all-unretrieved", "{} then-retrieve={}", en(finish), en(self.fretr(s, 1)));
        self.cl(s);
        let s = self.retr(b"c-close");
        let x = self.fretr(s, 1);
        self.cl(s);
        self.desc("pub.ret.file-after-session-close", x, (63, 0, PG));
        p!(
            self,
            "ret.file-after-session-close-write",
            "{} grow={}",
            en(self.pw(x, b"q", 0)),
            en(self.trunc(x, 2 * PG))
        );
        p!(self, "sess2.retrieve-closed-session", "{}", en(self.retr(b"c-close")));
        self.cl(x);
        let s = self.retr(b"c-closeunret");
        self.cl(s);
        p!(self, "sess2.retrieve-closed-unretrieved", "{}", en(self.retr(b"c-closeunret")));
        let s = self.retr(b"c-two");
        self.cl(self.dev);
        let x = self.fretr(s, 1);
        p!(self, "ret.with-device-closed", "{} {}", en(x), self.cmp(x, 60, 0, PG));
        self.dev = self.opendev(2);
        p!(self, "dev2.reopen-with-incoming", "{}", en(self.dev));
        p!(self, "sess2.retrieve-twice-after-reopen", "{}", en(self.retr(b"c-two")));
        self.cl(x);
        self.fin(s);
        self.cl(s);
    }

    /// The kernel cannot write its answer back.
    fn read_only_back(&mut self) {
        let at = self.map_memory(PG);
        let s = self.retr(b"c-effile");
        self.file_struct(at, -1, 7);
        self.protect(at, false);
        p!(self, "ret.readonly-arg", "{}", en(self.raw(s, 0xBA41, at)));
        let x = self.fretr(s, 7);
        p!(self, "ret.readonly-arg-then-again", "{} {}", en(x), self.cmp(x, 67, 0, PG));
        self.cl(x);
        self.protect(at, true);
        self.put(at, &[8, 0, 0, 0, 0, 0, 0, 0]);
        self.protect(at, false);
        h!(self, "sess2.finish-readonly-arg", "{}", en(self.raw(s, 0xBA42, at)));
        h!(self, "sess2.finish-readonly-arg-did-finish", "retrieve={}", en(self.fretr(s, 7)));
        self.cl(s);
        self.protect(at, true);
        let mut bytes = [0; 72];
        (bytes[0], bytes[4]) = (72, 0xff);
        bytes[8..16].copy_from_slice(b"c-efsess");
        self.put(at, &bytes);
        self.protect(at, false);
        p!(self, "sess2.retrieve-readonly-arg", "{}", en(self.raw(self.dev, 0xBA01, at)));
        let s = self.retr(b"c-efsess");
        p!(self, "sess2.retrieve-readonly-arg-then-again", "{}", en(s));
        self.cl(s);
    }

    fn no_descriptors_back(&mut self) {
        let s = self.retr(b"c-emfile");
        let (r, r2, r3) =
            self.without_fds(|probe| (probe.fretr(s, 7), probe.fretr(s, 12345), probe.retr(b"c-redo")));
        p!(self, "ret.emfile", "{}", en(r));
        h!(self, "ret.emfile-vs-unknown-token", "{}", en(r2));
        h!(self, "sess2.retrieve-emfile", "{}", en(r3));
        let x = self.fretr(s, 7);
        p!(self, "ret.after-emfile", "{} {}", en(x), self.cmp(x, 68, 0, PG));
        self.cl(x);
        self.fin(s);
        self.cl(s);
    }

    fn reuse(&mut self) {
        let s = self.retr(b"c-reuse");
        let (x, y) = (self.fretr(s, 7), self.fretr(s, 8));
        let t = self.create(b"out-reuse");
        h!(self, "ret.represerve-before-finish", "{}", en(self.pres(t, x, 1)));
        self.cl(t);
        p!(self, "sess2.reuse-finish", "{}", en(self.fin(s)));
        self.cl(s);
        let t = self.create(b"out-reuse");
        p!(self, "ret.represerve-after-finish", "{}", en(self.pres(t, x, 1)));
        h!(self, "ret.represerve-after-finish-frozen", "grow={}", en(self.trunc(x, 2 * PG)));
        self.cl(t);
        p!(
            self,
            "ret.represerve-released",
            "grow={} data={}",
            en(self.trunc(x, 2 * PG)),
            self.cmp(x, 69, 0, PG)
        );
        self.cl(x);
        self.cl(y);
    }

    fn write_paths(&mut self) {
        let s = self.retr(b"c-write");
        let x = self.fretr(s, 1);
        p!(self, "ret.write-within", "{}", en(self.pw(x, b"hello", 10)));
        p!(self, "ret.write-extend", "{} size={}", en(self.pw(x, b"hello", 3 * PG)), self.size(x));
        p!(self, "ret.fallocate", "{} blocks={}", en(self.falloc(x, 0, 0, 6 * PG)), self.blocks(x));
        p!(
            self,
            "ret.punch",
            "{} blocks={} data={}",
            en(self.falloc(x, PUNCH, PG, PG)),
            self.blocks(x),
            self.cmp(x, 0xffff, PG, PG)
        );
        h!(self, "ret.shrink0", "{} blocks={}", en(self.trunc(x, 0)), self.blocks(x));
        self.fill(x, 9, 0, PG);
        h!(self, "ret.refill", "data={}", self.cmp(x, 9, 0, PG));
        let map = self.map(x, PG, true);
        p!(self, "ret.map-shared-writable", "{}", en(map.map_or_else(|errno| errno, |_| 0)));
        if let Ok(map) = map {
            self.store(map, 0, 1);
            self.unmap(map);
        }
        h!(self, "ret.add-seal-write-before-finish", "{}", en(self.add_seals(x, F_SEAL_WRITE)));
        let z = self.reopen(x, flags::RDONLY);
        h!(self, "ret.reopen-procfd", "{}", if z < 0 { en(z) } else { String::from("reopen-ok") });
        self.cl(z);
        p!(self, "sess2.write-finish", "{}", en(self.fin(s)));
        self.cl(s);
        self.cl(x);
    }

    fn children_back(&mut self) {
        let s = self.retr(b"c-fork");
        let status = self.child(|child| {
            let z = child.fretr(s, 1);
            match z {
                ..0 => -z,
                _ if child.cmp(z, 72, 0, PG) == "match" => 0,
                _ => 200,
            }
        });
        p!(self, "ret.in-child", "exit={status}");
        let x = self.fretr(s, 1);
        p!(self, "ret.after-child-retrieved-and-exited", "{} {}", en(x), self.cmp(x, 72, 0, PG));
        let r = self.child(|child| child.fin(s));
        p!(self, "sess2.child-finishes", "{}", en(r));
        p!(self, "ret.after-child-finish", "{}", en(self.fretr(s, 1)));
        self.cl(x);
        self.cl(s);
    }

    fn names_back(&mut self) {
        let s = self.retr(b"c-s00");
        p!(self, "pres2.on-incoming-bad-fd", "{}", en(self.pres(s, -1, 1)));
        self.cl(s);
        let s = self.retr(b"c-redo");
        let x = self.fretr(s, 1);
        self.fin(s);
        let t = self.create(b"c-redo");
        p!(self, "sess2.outgoing-same-name-while-incoming-open", "{} pres={}", en(t), en(self.pres(t, x, 1)));
        p!(self, "sess2.retrieve-does-not-see-outgoing", "{}", en(self.retr(b"c-redo")));
        for number in [t, s, x] {
            self.cl(number);
        }
        let s = self.retr(&[b'N'; 63]);
        let x = self.fretr(s, 1);
        p!(self, "sess2.name63", "{} {}", en(s), self.cmp(x, 80, 0, PG));
        self.cl(x);
        h!(self, "sess2.name63-link", "{}", self.link(s));
        self.cl(s);
        let s = self.retr(b"ctl\n\x01/\xff");
        let x = self.fretr(s, 1);
        p!(self, "sess2.name-odd", "{} {}", en(s), self.cmp(x, 81, 0, PG));
        h!(self, "sess2.name-odd-link", "{}", self.link(s));
        self.cl(x);
        self.cl(s);
        let s = self.retr(b"gar");
        h!(self, "sess2.name-garbage", "{}", en(s));
        self.cl(s);
        let s = self.retrn(b"gar\0other");
        h!(self, "sess2.name-garbage-again-after-close", "{}", en(s));
        self.cl(s);
        let s = self.retr(b"c-inflight");
        let x = self.fretr(s, 1);
        h!(self, "sess2.inflight-session-carried", "{} {}", en(s), self.cmp(x, 82, 0, PG));
        self.cl(x);
        self.cl(s);
    }

    /// Whether the `i`-th of many files is as it was: every `every`-th empty, the others a page of pattern.
    fn as_it_was(&mut self, x: Ret, i: u32, every: u32) -> bool {
        let size = if i.is_multiple_of(every) { 0 } else { PG };
        x >= 0 && self.size(x) == size && (size == 0 || self.cmp(x, i, 0, PG) == "match")
    }

    fn many_back(&mut self) {
        for (name, count, every, token, group) in
            [(&b"c-120"[..], 120u32, 5, 3, "pub"), (b"c-300", 300, 2, 1, "hid")]
        {
            let s = self.retr(name);
            let mut ok = 0;
            for i in (0..count).rev() {
                let x = if s < 0 { s } else { self.fretr(s, u64::from(i) * token) };
                ok += u32::from(self.as_it_was(x, i, every));
                self.cl(x);
            }
            let finish = self.fin(s);
            self.say(&format!("{group}.ret.{count}-files"), format!("ok={ok} finish={}", en(finish)));
            self.cl(s);
        }
        let mut ok = 0;
        for i in (1..60).rev() {
            let s = self.retr(format!("c-s{i:02}").as_bytes());
            ok += u32::from(s >= 0);
            if i % 2 == 1 {
                self.fin(s);
            }
            self.cl(s);
        }
        p!(self, "sess2.60-sessions-reverse", "ok={ok}");
        let x = self.mf(AS, PG, 1, PG);
        let t = self.create(b"new-in-stage2");
        p!(self, "sess2.new-outgoing-works", "{} pres={}", en(t), en(self.pres(t, x, 1)));
        self.cl(t);
        self.cl(x);
        self.cl(self.dev);
        self.dev = self.opendev(2);
        let s = self.retr(b"c-unret");
        h!(self, "sess2.late-retrieve-after-everything", "{}", en(s));
        let x = self.fretr(s, 1);
        h!(self, "ret.late-data", "{}", self.cmp(x, 61, 0, 3 * PG));
    }
}
