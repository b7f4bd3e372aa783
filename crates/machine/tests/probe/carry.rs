//! What is carried, before and after the kexec.

use luosim_files::flags;
use luosim_files::shmem::Whence;

use super::{AS, PG, Probe, en};

const SEAL_SETS: [u32; 11] = [0x00, 0x01, 0x04, 0x08, 0x20, 0x06, 0x0f, 0x18, 0x21, 0x05, 0x3f];

impl Probe {
    fn file(&mut self, session: i32, token: u64, flags: u32, size: u64, seed: u32) -> String {
        let x = self.mf(flags, size, seed, size);
        let r = en(&self.preserve(session, x, token));
        self.close(x);
        r
    }

    pub(super) fn t_carry(&mut self) {
        let s = self.keep(b"c-basic");
        self.basic_files(s);
        let s = self.keep(b"c-seals");
        for (token, seals) in (0u64..).zip(SEAL_SETS) {
            let x = self.mf(AS, PG + 10, 100 + seals, PG + 10);
            let q = if seals == 0 { String::from("ok") } else { self.add_seals(x, seals) };
            let r = en(&self.preserve(s, x, token));
            let now = self.seals(x);
            self.say(&format!("pub.carry.seals-0x{seals:02x}"), format!("add={q} pres={r} seals={now}"));
            self.close(x);
        }
        self.keep(b"c-empty");
        self.say("pub.carry.session-empty", "ok");
        for (name, seed) in [
            (&b"c-two"[..], 60),
            (b"c-close", 63),
            (b"c-closeunret", 63),
            (b"c-efsess", 66),
            (b"c-matrix", 73),
        ] {
            let s = self.keep(name);
            self.file(s, 1, AS, PG, seed);
        }
        let s = self.keep(b"c-twice");
        self.file(s, 7, AS, PG, 65);
        let s = self.keep(b"c-finunret");
        self.file(s, 1, AS, PG, 62);
        let s = self.keep(b"c-reuse");
        self.file(s, 7, AS, PG, 69);
        let s = self.keep(b"c-write");
        self.file(s, 1, AS, 2 * PG, 71);
        let s = self.keep(&[b'N'; 63]);
        self.file(s, 1, AS, PG, 80);
        let s = self.create(b"c-dropped").expect("new");
        self.file(s, 1, AS, PG, 83);
        self.close(s);
        let s = self.keep(b"c-120");
        let good = (0..120u32).filter(|i| {
            let size = if i % 5 == 0 { 0 } else { PG };
            self.file(s, u64::from(*i) * 3, 0, size, *i) == "ok"
        });
        let count = good.count();
        self.say("pub.carry.120-files", format!("n={count}"));
    }

    fn basic_files(&mut self, s: i32) {
        let p = self.p;
        let x = self.mf(AS, 0, 0, 0);
        self.fill(x, 1, 0, 5000);
        self.seek(x, 123, Whence::Set);
        let r = en(&self.preserve(s, x, 1));
        let size = self.size(x);
        self.say("pub.carry.basic-1", format!("{r} size={size}"));
        let r = self.file(s, 2, AS, 0, 0);
        self.say("pub.carry.empty", r);
        let x = self.mf(AS, 9 * PG + 100, 0, 0);
        self.fill(x, 3, 3 * PG, PG);
        self.fill(x, 3, 9 * PG, 100);
        let r = en(&self.preserve(s, x, 3));
        let blocks = self.blocks(x);
        self.say("pub.carry.holes", format!("{r} blocks={blocks}"));
        let x = self.mf(AS, 2 * PG, 4, 2 * PG);
        let map = self.m.mmap_shared(p, x, 0, 2 * PG, true).expect("a memory file");
        let r = en(&self.preserve(s, x, 4));
        self.m.store(p, map, 10, &[0xA1]).expect("mapped");
        self.pwrite(x, &[0xA2], PG + 20).expect("inside");
        self.seek(x, 4000, Whence::Set);
        self.say("pub.carry.late-writes", r);
        let x = self.mf(0, PG, 5, PG);
        let r = en(&self.preserve(s, x, 5));
        let seals = self.seals(x);
        self.say("pub.carry.plain-noseal", format!("{r} seals={seals}"));
        self.file(s, 0, AS, PG, 6);
        self.file(s, u64::MAX, AS, PG, 7);
        let x = self.mf(AS, PG, 8, PG);
        self.preserve(s, x, 0x10).expect("a memfd");
        let r = self.add_seals(x, 4);
        let seals = self.seals(x);
        self.say("pub.carry.seal-added-after", format!("{r} seals={seals}"));
        let x = self.mf(8, PG, 9, PG);
        let r = en(&self.preserve(s, x, 0x11));
        let (seals, mode) = (self.seals(x), self.m.fstat(p, x).expect("open").mode & 0o7777);
        self.say("pub.carry.noexec-seal", format!("{r} seals={seals} mode=0{mode:o}"));
        self.other_files(s);
    }

    fn other_files(&mut self, s: i32) {
        let p = self.p;
        let x = self.m.open(p, "/tmp/uf", 2 | flags::CREAT | flags::APPEND, 0o640).expect("new");
        self.fill(x, 11, 0, 300);
        self.seek(x, 300, Whence::Set);
        self.m.unlink(p, "/tmp/uf").expect("linked");
        let r = en(&self.preserve(s, x, 0x13));
        let (seals, status) = (self.seals(x), self.m.get_status(p, x).expect("open"));
        self.say("pub.carry.tmpfs-unlinked", format!("{r} seals={seals} getfl=0{status:o}"));
        let x = self.mf(AS, PG, 12, PG);
        let y = self.m.reopen(p, x, 0).expect("a memfd");
        self.seek(y, 9, Whence::Set);
        let r = en(&self.preserve(s, y, 0x14));
        let status = self.m.get_status(p, y).expect("open");
        self.say("pub.carry.rdonly-reopen", format!("{r} getfl=0{status:o}"));
        let x = self.mf(AS, PG, 17, PG);
        self.m.fchmod(p, x, 0o600).expect("free");
        self.m.fchown(p, x, 1000, 1000).expect("free");
        let r = en(&self.preserve(s, x, 0x19));
        self.say("pub.carry.mode-owner", r);
        let x = self.mf(AS, 0, 0, 0);
        self.m.fallocate(p, x, 0, 0, 4 * 4096).expect("room");
        let r = en(&self.preserve(s, x, 0x1d));
        let blocks = self.blocks(x);
        self.say("pub.carry.fallocated-never-written", format!("{r} blocks={blocks}"));
        let r = self.file(s, 0x1e, AS, 2 * PG + 1, 21);
        self.say("pub.carry.two-pages-plus-1", r);
    }

    fn describe(&mut self, case: &str, session: i32, token: u64, (seed, from, len): (u32, u64, u64)) -> i32 {
        let p = self.p;
        let Ok(x) = self.retrieve(session, token) else { return -1 };
        let stat = self.m.fstat(p, x).expect("open");
        let pos = self.seek(x, 0, Whence::Cur);
        let (data, seals, link) = (self.cmp(x, seed, from, len), self.seals(x), self.link(x));
        let status = self.m.get_status(p, x).expect("open");
        let cloexec = u32::from(self.m.get_cloexec(p, x).expect("open"));
        self.say(
            &format!("pub.ret.{case}"),
            format!(
                "ok size={} pos={pos} data={data} seals={seals} fl=0{status:o} fd={cloexec} mode=0{:o} nlink={} uid={} blocks={} link={link}",
                stat.size, stat.mode, stat.nlink, stat.uid, stat.blocks
            ),
        );
        x
    }

    pub(super) fn t_retrieve(&mut self) {
        let d = self.open_device(flags::RDONLY);
        self.say("pub.dev2.open-rdonly", en(&d));
        let again = self.open_device(2);
        self.say("pub.dev2.second-open", en(&again));
        self.done(d);
        self.device();
        for (case, name) in [("retrieve-unknown", &b"nothing"[..]), ("retrieve-dropped", b"c-dropped")] {
            let r = self.take(name);
            self.say(&format!("pub.sess2.{case}"), en(&r));
        }
        let s = self.take(b"c-basic").expect("carried");
        self.say("pub.sess2.retrieve", "ok");
        let r = self.take(b"c-basic");
        self.say("pub.sess2.retrieve-twice", en(&r));
        self.fd_properties("sess2", s);
        let t = self.create(b"c-basic");
        self.say("pub.sess2.create-same-name-while-incoming", en(&t));
        let u = self.create(b"c-basic");
        self.say("pub.sess2.create-same-name-twice", en(&u));
        self.done(t);
        let r = self.retrieve(s, 9999);
        self.say("pub.ret.unknown-token", en(&r));
        self.basic_back(s);
        self.basic_end(s);
        self.sessions_back();
    }

    fn basic_back(&mut self, s: i32) {
        let x = self.describe("basic-1", s, 1, (1, 0, 5000));
        let mut four = [0; 4];
        let n = self.m.read(self.p, x, &mut four).expect("readable");
        let good = self.cmp(x, 1, 123, 4) == "match";
        self.say("pub.ret.basic-1-read-at-pos", format!("n={n} match={}", if good { "yes" } else { "no" }));
        let (grow, write, shrink) =
            (self.grow(x, 3), en(&self.pwrite(x, b"zz", 2 * PG)), en(&self.truncate(x, 10)));
        let size = self.size(x);
        self.say(
            "pub.ret.basic-1-grow-write-shrink",
            format!("grow={grow} write={write} shrink={shrink} size={size}"),
        );
        self.close(x);
        let x = self.retrieve(s, 1).expect("again");
        let (size, pos) = (self.size(x), self.seek(x, 0, Whence::Cur));
        self.say("pub.ret.basic-1-again-after-close", format!("ok size={size} pos={pos}"));
        let x = self.describe("empty", s, 2, (0, 0, 0));
        let r = en(&self.pwrite(x, b"abc", 0));
        let size = self.size(x);
        self.say("pub.ret.empty-write", format!("{r} size={size}"));
        let x = self.describe("holes", s, 3, (3, 3 * PG, PG));
        let answer = format!(
            "{} {} last={}",
            self.cmp(x, 0xffff, 0, 3 * PG),
            self.cmp(x, 0xffff, 4 * PG, 5 * PG),
            self.cmp(x, 3, 9 * PG, 100)
        );
        self.say("pub.ret.holes-zero", answer);
        let x = self.retrieve(s, 4).expect("carried");
        let (a, b, pos) = (self.byte(x, 10), self.byte(x, PG + 20), self.seek(x, 0, Whence::Cur));
        self.say("pub.ret.late-writes", format!("ok mmap={a:#x} write={b:#x} pos={pos}"));
        let x = self.describe("plain-noseal", s, 5, (5, 0, PG));
        let r = self.add_seals(x, 4);
        self.say("pub.ret.plain-noseal-add-seal", r);
        self.describe("token0", s, 0, (6, 0, PG));
        self.describe("token-max", s, u64::MAX, (7, 0, PG));
        self.describe("seal-added-after-preserve", s, 0x10, (8, 0, PG));
        let x = self.describe("noexec-seal", s, 0x11, (9, 0, PG));
        let write = en(&self.pwrite(x, b"x", 0));
        let (one, two) = (en(&self.m.fchmod(self.p, x, 0o777)), en(&self.m.fchmod(self.p, x, 0o666)));
        self.say("pub.ret.noexec-seal-write", format!("write={write} chmod+x={one} chmod0666={two}"));
        self.describe("tmpfs-unlinked", s, 0x13, (11, 0, 300));
        let x = self.describe("rdonly-reopen", s, 0x14, (12, 0, PG));
        let r = en(&self.pwrite(x, b"x", 0));
        self.say("pub.ret.rdonly-reopen-write", r);
        self.describe("mode-owner", s, 0x19, (17, 0, PG));
        self.describe("fallocated", s, 0x1d, (0xffff, 0, 4 * PG));
        self.describe("two-pages-plus-1", s, 0x1e, (21, 0, 2 * PG + 1));
    }

    fn basic_end(&mut self, s: i32) {
        for case in ["finish", "finish-twice"] {
            let r = self.finish(s);
            self.say(&format!("pub.sess2.{case}"), en(&r));
        }
        let r = self.retrieve(s, 1);
        self.say("pub.ret.after-finish", en(&r));
        let r = self.take(b"c-basic");
        self.say("pub.sess2.retrieve-again-after-finish", en(&r));
        self.close(s);
        let r = self.take(b"c-basic");
        self.say("pub.sess2.retrieve-again-after-close", en(&r));
        let t = self.create(b"c-basic");
        self.say("pub.sess2.create-same-name-after-close", en(&t));
        self.done(t);
        self.seals_back();
    }

    fn seals_back(&mut self) {
        let s = self.take(b"c-seals").expect("carried");
        for (token, set) in (0u64..).zip(SEAL_SETS) {
            let x = self.retrieve(s, token).expect("carried");
            let (seals, mode, size) =
                (self.seals(x), self.m.fstat(self.p, x).expect("open").mode & 0o7777, self.size(x));
            let data = self.cmp(x, 100 + set, 0, PG + 10);
            let write = en(&self.pwrite(x, b"x", 0));
            let (grow, shrink) = (self.grow(x, 3), self.grow(x, 1));
            let add = self.add_seals(x, 2);
            let map = en(&self.m.mmap_shared(self.p, x, 0, PG, true));
            self.say(
                &format!("pub.ret.seals-0x{set:02x}"),
                format!("seals={seals} mode=0{mode:o} size={size} data={data} write={write} grow={grow} shrink={shrink} add-seal={add} wmap={map}"),
            );
        }
        let r = self.finish(s);
        self.say("pub.sess2.seals-finish", en(&r));
    }

    fn sessions_back(&mut self) {
        let s = self.take(b"c-empty");
        let fd = *s.as_ref().expect("carried");
        let (token, finish) = (en(&self.retrieve(fd, 1)), en(&self.finish(fd)));
        self.say("pub.sess2.empty-retrieve", format!("{} token={token} finish={finish}", en(&s)));
        let s = self.take(b"c-twice").expect("carried");
        let (x, y) = (self.retrieve(s, 7).expect("carried"), self.retrieve(s, 7).expect("again"));
        let same = self.m.same_inode(self.p, x, y).expect("open");
        let yes = |good: bool| if good { "yes" } else { "no" };
        self.say("pub.ret.twice", format!("ok ok same-inode={} different-fd={}", yes(same), yes(x != y)));
        self.seek(x, 500, Whence::Set);
        let offset = self.seek(y, 0, Whence::Cur);
        self.say("pub.ret.twice-shared-offset", offset.to_string());
        let s = self.take(b"c-finunret").expect("carried");
        let (finish, then) = (en(&self.finish(s)), en(&self.retrieve(s, 1)));
        self.say("pub.sess2.finish-all-unretrieved", format!("{finish} then-retrieve={then}"));
        let s = self.take(b"c-close").expect("carried");
        let x = self.describe("file-after-session-close", s, 1, (63, 0, PG));
        self.close(s);
        let (write, grow) = (en(&self.pwrite(x, b"q", 0)), self.grow(x, 2));
        self.say("pub.ret.file-after-session-close-write", format!("{write} grow={grow}"));
        let r = self.take(b"c-close");
        self.say("pub.sess2.retrieve-closed-session", en(&r));
        let s = self.take(b"c-closeunret").expect("carried");
        self.close(s);
        let r = self.take(b"c-closeunret");
        self.say("pub.sess2.retrieve-closed-unretrieved", en(&r));
        self.reuse_and_write();
    }

    fn reuse_and_write(&mut self) {
        let s = self.take(b"c-reuse").expect("carried");
        let x = self.retrieve(s, 7).expect("carried");
        let r = self.finish(s);
        self.say("pub.sess2.reuse-finish", en(&r));
        let t = self.create(b"out-reuse").expect("new");
        let r = self.preserve(t, x, 1);
        self.say("pub.ret.represerve-after-finish", en(&r));
        self.close(t);
        let (grow, data) = (self.grow(x, 2), self.cmp(x, 69, 0, PG));
        self.say("pub.ret.represerve-released", format!("grow={grow} data={data}"));
        let s = self.take(b"c-write").expect("carried");
        let x = self.retrieve(s, 1).expect("carried");
        let r = en(&self.pwrite(x, b"hello", 10));
        self.say("pub.ret.write-within", r);
        let r = en(&self.pwrite(x, b"hello", 3 * PG));
        let size = self.size(x);
        self.say("pub.ret.write-extend", format!("{r} size={size}"));
        let r = en(&self.m.fallocate(self.p, x, 0, 0, 6 * 4096));
        let blocks = self.blocks(x);
        self.say("pub.ret.fallocate", format!("{r} blocks={blocks}"));
        let r = en(&self.m.fallocate(self.p, x, 3, 4096, 4096));
        let (blocks, data) = (self.blocks(x), self.cmp(x, 0xffff, PG, PG));
        self.say("pub.ret.punch", format!("{r} blocks={blocks} data={data}"));
        let s = self.take(b"c-matrix").expect("carried");
        self.incoming_matrices(s);
        let s = self.take(&[b'N'; 63]);
        let fd = *s.as_ref().expect("carried");
        let x = self.retrieve(fd, 1).expect("carried");
        let data = self.cmp(x, 80, 0, PG);
        self.say("pub.sess2.name63", format!("{} {data}", en(&s)));
        self.many_back();
    }

    fn many_back(&mut self) {
        let s = self.take(b"c-120").expect("carried");
        let mut good = 0;
        for i in (0..120u32).rev() {
            let x = self.retrieve(s, u64::from(i) * 3).expect("carried");
            let empty = i % 5 == 0;
            let right = if empty { self.size(x) == 0 } else { self.cmp(x, i, 0, PG) == "match" };
            good += u32::from(right);
            self.close(x);
        }
        let finish = en(&self.finish(s));
        self.say("pub.ret.120-files", format!("ok={good} finish={finish}"));
    }
}
