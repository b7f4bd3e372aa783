//! Names of sessions, and sessions shared between processes.

use luosim_files::flags;

use super::{PG, Probe, Ret, en, h, p};

impl Probe {
    fn nm_case(&mut self, case: &str, name: &[u8]) {
        let s = self.createn(name);
        let (r, shown) = if s >= 0 { self.name(s) } else { (-9, String::new()) };
        let link = if s >= 0 { self.link(s) } else { String::from("-") };
        self.say(case, format!("{} get-name={}:{shown} link={link}", en(s), en(r)));
        self.cl(s);
    }

    pub(super) fn t_sess(&mut self) {
        let s = self.create(b"props");
        self.fdprops("sess", s);
        self.cl(s);
        let s = self.create(b"cloexec");
        p!(self, "sess.new-fd-cloexec", "{}", self.getfd(s));
        self.cl(s);
        let mut odd = [b'e'; 64];
        (odd[0], odd[1]) = (b'q', 0);
        for (case, name) in [
            ("pub.name.len1", &b"a"[..]),
            ("pub.name.len63", &[b'b'; 63]),
            ("pub.name.len64-no-nul", &[b'c'; 64]),
            ("pub.name.empty", b""),
            ("hid.name.len38", &[b'd'; 38]),
            ("pub.name.len39", &[b'd'; 39]),
            ("hid.name.len40", &[b'd'; 40]),
            ("hid.name.len62", &[b'd'; 62]),
            ("pub.name.control-chars", b"a\n\t\x01z"),
            ("pub.name.slash", b"a/b/../c"),
            ("hid.name.only-slash", b"/"),
            ("hid.name.dotdot", b".."),
            ("pub.name.non-utf8", b"\xff\xfe\x80q"),
            ("hid.name.space-only", b" "),
            ("hid.name.percent", b"%s%n%d"),
            ("hid.name.brackets", b"[x] (deleted)"),
            ("pub.name.leading-nul", b"\0abc"),
            ("pub.name.garbage-after-nul", b"abc\0XYZ"),
            ("hid.name.garbage-to-end-no-final-nul", &odd),
        ] {
            self.nm_case(case, name);
        }
        self.duplicates();
        self.wrong_direction();
        self.children();
        self.messages();
        self.device_closed();
    }

    fn duplicates(&mut self) {
        let (s, t) = (self.createn(b"gar\0one"), self.createn(b"gar\0two"));
        p!(self, "name.dup-garbage-differs", "{} {}", en(s), en(t));
        self.cl(s);
        self.cl(t);
        let (s, t) = (self.create(b"dup"), self.create(b"dup"));
        p!(self, "name.duplicate", "{} {}", en(s), en(t));
        let t = self.create(b"Dup");
        p!(self, "name.case-sensitive", "{}", en(t));
        self.cl(t);
        self.cl(s);
        let s = self.create(b"dup");
        p!(self, "name.dup-after-close", "{}", en(s));
        let t = self.dup(s);
        self.cl(s);
        let r = self.create(b"dup");
        p!(self, "name.dup-while-dupfd-open", "{}", en(r));
        self.cl(r);
        self.cl(t);
        let s = self.create(b"dup");
        p!(self, "name.dup-after-last-dup-closed", "{}", en(s));
        self.cl(s);
        let (s, t) = (self.create(&[b'f'; 62]), self.create(&[b'f'; 63]));
        h!(self, "name.prefix62-of-63", "{} {}", en(s), en(t));
        self.cl(s);
        self.cl(t);
    }

    fn wrong_direction(&mut self) {
        p!(self, "sess.retrieve-unknown-stage1", "{}", en(self.retr(b"nothing")));
        let s = self.create(b"self");
        p!(self, "sess.retrieve-own-stage1", "{}", en(self.retr(b"self")));
        h!(self, "sess.retrieve-empty-name", "{}", en(self.retr(b"")));
        h!(self, "sess.retrieve-64-no-nul", "{}", en(self.retrn(&[b'g'; 64])));
        p!(self, "sess.finish-outgoing-empty", "{}", en(self.fin(s)));
        p!(self, "sess.finish-outgoing-empty-again", "{}", en(self.fin(s)));
        p!(self, "sess.retrieve-fd-outgoing-unknown", "{}", en(self.fretr(s, 123)));
        let x = self.mf(0, PG, 1, PG);
        p!(self, "sess.still-usable-after-wrong-ops", "{}", en(self.pres(s, x, 1)));
        self.cl(x);
        self.cl(s);
        let s = self.create(b"self");
        p!(self, "sess.create-after-finish-attempt-and-close", "{}", en(s));
        self.cl(s);
    }

    fn child_creates(&mut self, name: &[u8]) -> Ret {
        self.child(|child| {
            let s = child.create(name);
            child.cl(s);
            s.min(0)
        })
    }

    fn children(&mut self) {
        let s = self.create(b"forked");
        let r = self.child(|child| child.name(s).0);
        p!(self, "sess.child-get-name", "{}", en(r));
        let x = self.mf(0, PG, 1, PG);
        let r = self.child(|child| child.pres(s, x, 9));
        p!(self, "sess.child-preserve", "{}", en(r));
        p!(self, "sess.parent-sees-child-token", "{}", en(self.pres(s, x, 9)));
        self.cl(x);
        h!(self, "sess.child-create-same-name", "{}", en(self.child_creates(b"forked")));
        let r = self.child_creates(b"childs");
        let t = self.create(b"childs");
        h!(self, "sess.child-create-other-name-dies-with-child", "{} then {}", en(r), en(t));
        self.cl(t);
        let (child, _) = self.lasting_child(|_| 0);
        self.cl(s);
        let t = self.create(b"forked");
        p!(self, "sess.name-held-by-child", "{}", en(t));
        self.cl(t);
        self.m.exit(child).expect("alive");
        let t = self.create(b"forked");
        p!(self, "sess.name-free-after-child-exit", "{}", en(t));
        self.cl(t);
    }

    pub(super) fn socketpair(&mut self) -> (i32, i32) {
        self.m.socketpair(self.p).expect("room")
    }

    pub(super) fn sendfd(&mut self, socket: i32, file: Ret) -> Ret {
        super::ret(&self.m.send_fds(self.p, socket, &[super::fd(file)]))
    }

    fn recvfd(&mut self, socket: i32) -> Ret {
        super::ret(&self.m.receive_fds(self.p, socket).map(|fds| fds[0]))
    }

    fn messages(&mut self) {
        let sv = self.socketpair();
        let s = self.create(b"scm");
        let r = self.sendfd(sv.0, s);
        self.cl(s);
        let t = self.create(b"scm");
        p!(self, "sess.scm-inflight-holds-name", "{} send={}", en(t), en(r));
        self.cl(t);
        let s = self.recvfd(sv.1);
        p!(self, "sess.scm-received", "{} get-name={} cloexec={}", en(s), en(self.name(s).0), self.getfd(s));
        self.sendfd(sv.0, s);
        self.cl(s);
        self.cl(sv.0.into());
        self.cl(sv.1.into());
        let t = self.create(b"scm");
        h!(self, "sess.scm-inflight-dropped-frees-name", "{}", en(t));
        self.cl(t);
        let sv = self.socketpair();
        let s = self.create(b"scm2");
        let (child, _) = self.lasting_child(|_| 0);
        self.sendfd(sv.0, s);
        let parent = std::mem::replace(&mut self.p, child);
        let q = self.recvfd(sv.1);
        let x = self.mf(0, PG, 1, PG);
        let e = self.pres(q, x, 4);
        self.p = parent;
        self.m.exit(child).expect("alive");
        p!(self, "sess.scm-other-process-preserves", "{}", en(e));
        let x = self.mf(0, PG, 1, PG);
        p!(self, "sess.scm-token-visible-to-owner", "{}", en(self.pres(s, x, 4)));
        for number in [x, s, sv.0.into(), sv.1.into()] {
            self.cl(number);
        }
    }

    fn device_closed(&mut self) {
        let s = self.create(b"closedev");
        self.cl(self.dev);
        let (r, name) = self.name(s);
        p!(self, "sess.survives-device-close", "get-name={} {name}", en(r));
        self.cl(s);
        self.dev = self.opendev(2);
        let t = self.create(b"closedev");
        p!(self, "sess.closed-with-device-closed-frees-name", "{}", en(t));
        self.cl(t);
        let (s, t) = (self.create(b"order-a"), self.create(b"order-b"));
        self.cl(s);
        let r = self.create(b"order-a");
        h!(self, "sess.close-first-recreate", "{}", en(r));
        self.cl(r);
        self.cl(t);
    }

    /// Killed holders, exec, other users.
    pub(super) fn ends_of_processes(&mut self) {
        let (child, _) = self.lasting_child(|child| {
            let q = child.create(b"killed");
            let f = child.mf(0, PG, 1, PG);
            child.pres(q, f, 1)
        });
        let r = self.create(b"killed");
        self.m.exit(child).expect("alive");
        let s = self.create(b"killed");
        p!(self, "sess.killed-holder", "before={} after={}", en(r), en(s));
        self.cl(s);
        let (child, _) = self.lasting_child(|child| child.create(b"execed"));
        // The program that is started does nothing and exits with 0.
        let status = u8::from(self.m.exec(child, "nop").is_err());
        self.m.exit(child).expect("alive");
        let s = self.create(b"execed");
        p!(self, "sess.cloexec-drops-on-exec", "exit={status} create={}", en(s));
        self.cl(s);
        let (child, _) = self.lasting_child(|child| {
            let q = child.create(b"execed2");
            super::ret(&child.m.set_cloexec(child.p, super::fd(q), false))
        });
        self.m.exec(child, "waitpipe").expect("alive");
        let s = self.create(b"execed2");
        h!(self, "sess.no-cloexec-survives-exec", "create={}", en(s));
        self.cl(s);
        self.m.exit(child).expect("alive");
        let s = self.create(b"execed2");
        h!(self, "sess.no-cloexec-after-exec-exit", "create={}", en(s));
        self.cl(s);
        self.other_users();
    }

    fn as_nobody(&mut self, act: impl FnOnce(&mut Self) -> Ret) -> Ret {
        self.child(|child| {
            child.m.set_uid(child.p, 1000).expect("root");
            act(child)
        })
    }

    fn other_users(&mut self) {
        let s = self.create(b"unsh");
        let r = self.as_nobody(|child| {
            let f = child.mf(0, PG, 1, PG);
            child.pres(s, f, 2)
        });
        p!(self, "sess.preserve-from-nonroot-child", "{}", en(r));
        let r = self.as_nobody(|child| child.create(b"nr").min(0));
        p!(self, "sess.create-from-nonroot-child-inherited-device", "{}", en(r));
        self.cl(s);
    }

    /// How many sessions, and files in one, there is room for.
    pub(super) fn limits(&mut self, sessions: u32, files: u64) {
        let limit = self.m.nofile(self.p).expect("alive");
        self.m.set_nofile(self.p, 8192).expect("alive");
        let group = if sessions == 3000 { "hid" } else { "pub" };
        let (mut open, mut e) = (Vec::new(), 0);
        for index in 0..sessions {
            e = self.create(format!("lim-{index}").as_bytes());
            if e < 0 {
                break;
            }
            open.push(e);
        }
        self.say(
            &format!("{group}.limit.sessions-{sessions}"),
            format!("created={} last={}", open.len(), en(e)),
        );
        for number in open {
            self.cl(number);
        }
        let after = self.create(b"lim-after");
        self.say(&format!("{group}.limit.sessions-{sessions}-create-after-close"), en(after));
        self.cl(after);
        let s = self.create(b"limf");
        let (mut count, mut e) = (0, 0);
        for token in 0..files {
            let x = self.mf(0, 0, 0, 0);
            e = self.pres(s, x, token);
            self.cl(x);
            if e < 0 {
                break;
            }
            count += 1;
        }
        let group = if files == 2000 { "hid" } else { "pub" };
        self.say(&format!("{group}.limit.files-{files}"), format!("preserved={count} last={}", en(e)));
        self.cl(s);
        self.m.set_nofile(self.p, limit).expect("alive");
    }

    /// A file made in `/tmp`.
    pub(super) fn tmp_file(&mut self, path: &str, mode: u32, more: u32) -> Ret {
        self.open(path, flags::RDWR | flags::CREAT | more, mode)
    }
}
