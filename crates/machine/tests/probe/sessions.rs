//! The device, names, sharing between processes, what can be preserved, limits.

use luosim_files::{FileKind, flags};

use super::{AS, PG, Probe, en, escape};

impl Probe {
    pub(super) fn t_device(&mut self) {
        let a = self.open_device(flags::RDONLY).expect("free");
        let status = self.m.get_status(self.p, a).expect("open");
        self.say("pub.dev.open-rdonly", format!("ok getfl=0{status:o}"));
        self.dev = a;
        let b = self.create(b"via-rdonly");
        self.say("pub.dev.create-via-rdonly-device", en(&b));
        self.done(b);
        self.close(a);
        let a = self.open_device(2);
        self.say("pub.dev.open-rdwr", en(&a));
        let a = a.expect("free");
        for (case, mode) in [("second-open", 2), ("second-open-rdonly", 0)] {
            let b = self.open_device(mode);
            self.say(&format!("pub.dev.{case}"), en(&b));
        }
        let b = self.m.dup(self.p, a).expect("room");
        self.close(a);
        let c = self.open_device(2);
        self.say("pub.dev.open-while-dup-open", en(&c));
        self.close(b);
        let c = self.open_device(2);
        self.say("pub.dev.open-after-last-close", en(&c));
        self.dev = c.expect("free");
        self.fd_properties("dev", self.dev);
        let child = self.m.fork(self.p, "child").expect("alive");
        self.close(self.dev);
        let b = self.open_device(2);
        self.say("pub.dev.open-while-child-inherited", en(&b));
        self.m.exit(child).expect("alive");
        let b = self.open_device(2);
        self.say("pub.dev.open-after-child-exit", en(&b));
        self.dev = b.expect("free");
    }

    pub(super) fn fd_properties(&mut self, topic: &str, fd: i32) {
        let mut buf = [0; 8];
        let read = self.m.read(self.p, fd, &mut buf);
        self.say(&format!("pub.{topic}.read"), en(&read));
        let read = self.m.read(self.p, fd, &mut []);
        self.say(&format!("pub.{topic}.read0"), en(&read));
        let write = self.m.write(self.p, fd, b"x");
        self.say(&format!("pub.{topic}.write"), en(&write));
        let map = self.m.mmap_shared(self.p, fd, 0, PG, false);
        self.say(&format!("pub.{topic}.mmap"), en(&map));
        let seek = self.m.lseek(self.p, fd, 0, luosim_files::shmem::Whence::Set);
        self.say(&format!("pub.{topic}.lseek"), en(&seek));
        let magic = self.m.fstatfs(self.p, fd).expect("open");
        self.say(&format!("pub.{topic}.fstatfs"), format!("ok magic={magic:#x}"));
        let link = self.link(fd);
        self.say(&format!("pub.{topic}.readlink"), link);
        let status = self.m.get_status(self.p, fd).expect("open");
        self.say(&format!("pub.{topic}.getfl"), format!("0{status:o}"));
        let cloexec = self.m.get_cloexec(self.p, fd).expect("open");
        self.say(&format!("pub.{topic}.getfd"), u32::from(cloexec).to_string());
        let reopened = self.m.reopen(self.p, fd, 2);
        self.say(&format!("pub.{topic}.reopen-procfd"), en(&reopened));
    }

    fn name_case(&mut self, case: &str, name: &[u8]) {
        let s = self.create(name);
        let (got, link) = match &s {
            Ok(fd) => (self.name(*fd), self.link(*fd)),
            Err(_) => (Err(luosim_abi::Errno::EBADF.because("no session")), String::from("-")),
        };
        let shown = got.as_ref().map(|name| escape(name)).unwrap_or_default();
        self.say(
            &format!("pub.name.{case}"),
            format!("{} get-name={}:{shown} link={link}", en(&s), en(&got)),
        );
        self.done(s);
    }

    pub(super) fn t_sessions(&mut self) {
        let s = self.create(b"props").expect("new");
        self.fd_properties("sess", s);
        self.close(s);
        for (case, name) in [
            ("len1", &b"a"[..]),
            ("len63", &[b'b'; 63]),
            ("len64-no-nul", &[b'c'; 64]),
            ("empty", b""),
            ("len39", &[b'd'; 39]),
            ("control-chars", b"a\n\t\x01z"),
            ("slash", b"a/b/../c"),
            ("non-utf8", b"\xff\xfe\x80q"),
            ("leading-nul", b"\0abc"),
            ("garbage-after-nul", b"abc\0XYZ"),
        ] {
            self.name_case(case, name);
        }
        self.duplicates();
        self.shared();
    }

    fn duplicates(&mut self) {
        let s = self.create(b"dup");
        let t = self.create(b"dup");
        self.say("pub.name.duplicate", format!("{} {}", en(&s), en(&t)));
        let t = self.create(b"Dup");
        self.say("pub.name.case-sensitive", en(&t));
        self.done(t);
        self.done(s);
        let s = self.create(b"dup");
        self.say("pub.name.dup-after-close", en(&s));
        let s = s.expect("free");
        let t = self.m.dup(self.p, s).expect("room");
        self.close(s);
        let r = self.create(b"dup");
        self.say("pub.name.dup-while-dupfd-open", en(&r));
        self.close(t);
        let s = self.create(b"dup");
        self.say("pub.name.dup-after-last-dup-closed", en(&s));
        self.done(s);
        let found = self.take(b"nothing");
        self.say("pub.sess.retrieve-unknown-stage1", en(&found));
        let s = self.create(b"self").expect("new");
        let found = self.take(b"self");
        self.say("pub.sess.retrieve-own-stage1", en(&found));
        for case in ["finish-outgoing-empty", "finish-outgoing-empty-again"] {
            let result = self.finish(s);
            self.say(&format!("pub.sess.{case}"), en(&result));
        }
        let result = self.retrieve(s, 123);
        self.say("pub.sess.retrieve-fd-outgoing-unknown", en(&result));
        let x = self.mf(0, PG, 1, PG);
        let result = self.preserve(s, x, 1);
        self.say("pub.sess.still-usable-after-wrong-ops", en(&result));
        self.close(x);
        self.close(s);
    }

    fn shared(&mut self) {
        let s = self.create(b"scm").expect("new");
        let (a, b) = self.m.socketpair(self.p).expect("room");
        let sent = self.m.send_fds(self.p, a, &[s]);
        self.close(s);
        let t = self.create(b"scm");
        self.say("pub.sess.scm-inflight-holds-name", format!("{} send={}", en(&t), en(&sent)));
        let s = self.m.receive_fds(self.p, b).map(|fds| fds[0]);
        let fd = *s.as_ref().expect("it was sent");
        let name = self.name(fd);
        let cloexec = self.m.get_cloexec(self.p, fd).expect("open");
        self.say(
            "pub.sess.scm-received",
            format!("ok get-name={} cloexec={}", en(&name), u32::from(cloexec)),
        );
        self.close(fd);
        self.close(a);
        self.close(b);
        let s = self.create(b"forked").expect("new");
        let child = self.m.fork(self.p, "child").expect("alive");
        self.close(s);
        let t = self.create(b"forked");
        self.say("pub.sess.name-held-by-child", en(&t));
        self.m.exit(child).expect("alive");
        let t = self.create(b"forked");
        self.say("pub.sess.name-free-after-child-exit", en(&t));
        self.done(t);
        let s = self.create(b"closedev").expect("new");
        self.close(self.dev);
        let name = self.name(s);
        let shown = name.as_ref().map(|name| escape(name)).unwrap_or_default();
        self.say("pub.sess.survives-device-close", format!("get-name={} {shown}", en(&name)));
        self.close(s);
        self.device();
    }

    fn pk(&mut self, case: &str, session: i32, fd: i32, token: u64) {
        let result = self.preserve(session, fd, token);
        self.say(&format!("pub.pres.{case}"), en(&result));
    }

    pub(super) fn t_preserve(&mut self) {
        let s = self.create(b"pres").expect("new");
        self.pk("fd-minus1", s, -1, 1);
        self.pk("fd-closed", s, 900, 1);
        self.pk("device-fd", s, self.dev, 1);
        self.pk("session-self", s, s, 1);
        let x = self.m.open(self.p, "/dev/null", 2, 0).expect("there");
        self.pk("dev-null", s, x, 1);
        let (r, _) = self.m.pipe(self.p).expect("room");
        self.pk("pipe", s, r, 1);
        let x = self.m.open_kind(self.p, FileKind::EventFd).expect("room");
        self.pk("eventfd", s, x, 1);
        let x = self.m.open(self.p, "/proc/self/status", 0, 0).expect("there");
        self.pk("proc-file", s, x, 1);
        let x = self.m.open(self.p, "/tmp", flags::DIRECTORY, 0).expect("there");
        self.pk("tmpfs-dir", s, x, 1);
        let x = self.m.open(self.p, "/tmp/lf", 2 | flags::CREAT, 0o600).expect("new");
        self.fill(x, 3, 0, 100);
        self.pk("tmpfs-linked", s, x, 1);
        self.m.unlink(self.p, "/tmp/lf").expect("linked");
        self.pk("tmpfs-unlinked", s, x, 1);
        let x = self.m.open(self.p, "/tmp", 2 | flags::TMPFILE, 0o600).expect("new");
        self.pk("tmpfs-otmpfile", s, x, 2);
        self.same_file(s);
        self.tokens(s);
        self.close(s);
        self.rounds();
        self.shapes();
    }

    fn same_file(&mut self, s: i32) {
        let x = self.mf(0, 0, 0, 0);
        self.pk("memfd-empty", s, x, 10);
        let y = self.m.dup(self.p, x).expect("room");
        self.pk("dup-of-preserved", s, y, 11);
        let y = self.m.reopen(self.p, x, 2).expect("a memfd");
        self.pk("reopen-of-preserved", s, y, 12);
        self.pk("same-fd-other-token", s, x, 14);
        self.pk("same-fd-same-token", s, x, 10);
        let y = self.m.reopen(self.p, x, flags::PATH).expect("a memfd");
        self.pk("opath", s, y, 15);
    }

    fn tokens(&mut self, s: i32) {
        let x = self.mf(0, PG, 2, PG);
        self.pk("token-reuse-other-file", s, x, 10);
        self.pk("token-used-and-bad-fd", s, -1, 10);
        self.pk("then-free-token", s, x, 16);
        for (case, token) in [("token-zero", 0), ("token-max", u64::MAX)] {
            let x = self.mf(0, PG, 2, PG);
            self.pk(case, s, x, token);
        }
        let t = self.create(b"pres-b").expect("new");
        let (x, y) = (self.mf(0, PG, 2, PG), self.mf(0, PG, 3, PG));
        let (one, two) = (self.preserve(s, x, 40), self.preserve(t, y, 40));
        self.say("pub.pres.same-token-two-sessions", format!("{} {}", en(&one), en(&two)));
        self.close(t);
        let x = self.m.memfd_create(self.p, "h", 4, false).expect("room");
        self.pk("hugetlb-empty", s, x, 50);
        let x = self.mf(AS, PG, 1, PG);
        self.pk("allow-sealing", s, x, 51);
        let x = self.mf(8, PG, 1, PG);
        self.pk("noexec-seal", s, x, 52);
        let x = self.mf(AS, PG, 1, PG);
        let y = self.m.reopen(self.p, x, 0).expect("a memfd");
        self.pk("memfd-rdonly-reopen", s, y, 54);
    }

    fn rounds(&mut self) {
        let x = self.mf(AS, 2 * PG, 5, 2 * PG);
        let mut last = String::new();
        for _ in 0..3 {
            let s = self.create(b"again").expect("new");
            last = en(&self.preserve(s, x, 1));
            self.close(s);
        }
        let data = self.cmp(x, 5, 0, 2 * PG);
        self.say("pub.pres.three-rounds", format!("{last} data={data}"));
        let (s, t) = (self.create(b"a1").expect("new"), self.create(b"a2").expect("new"));
        let (one, two) = (self.preserve(s, x, 1), self.preserve(t, x, 1));
        self.say("pub.pres.two-sessions-same-file", format!("{} {}", en(&one), en(&two)));
        self.close(s);
        let result = self.preserve(t, x, 2);
        self.say("pub.pres.second-session-after-first-closed", en(&result));
        self.close(t);
        let s = self.create(b"hundred").expect("new");
        let mut count = 0;
        for token in 0..100u32 {
            let size = u64::from(token % 3) * PG;
            let x = self.mf(0, size, token, size);
            count += u32::from(self.preserve(s, x, u64::from(token)).is_ok());
            self.close(x);
        }
        self.say("pub.pres.100-files", format!("n={count} last=ok"));
        self.close(s);
    }

    fn shapes(&mut self) {
        let x = self.mf(0, 16 * PG, 0, 0);
        let before = self.blocks(x);
        let s = self.create(b"sparse").expect("new");
        let r = self.preserve(s, x, 1);
        let after = self.blocks(x);
        self.say("pub.pres.sparse-blocks", format!("{} before={before} after={after}", en(&r)));
        self.close(s);
        let (blocks, data) = (self.blocks(x), self.cmp(x, 0xffff, 0, 16 * PG));
        self.say("pub.pres.sparse-blocks-after-close", format!("{blocks} data={data}"));
        let x = self.mf(0, 5000, 1, 5000);
        let s = self.create(b"odd").expect("new");
        let r = self.preserve(s, x, 1);
        let (blocks, size) = (self.blocks(x), self.size(x));
        self.say("pub.pres.odd-size", format!("{} blocks={blocks} size={size}", en(&r)));
        self.close(s);
        let x = self.mf(AS, 8 * PG, 0, 0);
        self.fill(x, 1, 0, 100);
        self.add_seals(x, 0xe);
        let s = self.create(b"sw").expect("new");
        let r = self.preserve(s, x, 1);
        let blocks = self.blocks(x);
        self.say("pub.pres.sparse-write-sealed", format!("{} blocks={blocks}", en(&r)));
        self.close(s);
    }

    pub(super) fn limits(&mut self) {
        self.m.set_nofile(self.p, 8192).expect("alive");
        let (mut open, mut last) = (Vec::new(), String::from("ok"));
        for index in 0..1000 {
            match self.create(format!("lim-{index}").as_bytes()) {
                Ok(fd) => open.push(fd),
                Err(refusal) => {
                    last = format!("-{}", refusal.errno);
                    break;
                }
            }
        }
        self.say("pub.limit.sessions-1000", format!("created={} last={last}", open.len()));
        open.into_iter().for_each(|fd| self.close(fd));
        let s = self.create(b"limf").expect("new");
        let (mut count, mut last) = (0, String::from("ok"));
        for token in 0..500 {
            let x = self.mf(0, 0, 0, 0);
            let result = self.preserve(s, x, token);
            self.close(x);
            if result.is_err() {
                last = en(&result);
                break;
            }
            count += 1;
        }
        self.say("pub.limit.files-500", format!("preserved={count} last={last}"));
        self.close(s);
    }
}
