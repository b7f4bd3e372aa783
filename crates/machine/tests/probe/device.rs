//! The device node, and the properties of its descriptors and of sessions'.

use luosim_files::flags;

use super::{O_NONBLOCK, PG, Probe, en, fd, h, p, ret};

impl Probe {
    pub(super) fn t_dev(&mut self) {
        let st = self.m.stat(self.p, "/dev/liveupdate").expect("the node is there");
        p!(
            self,
            "dev.stat",
            "type=0{:o} perm=0{:o} uid={} gid={} major={}",
            st.mode & 0o170_000,
            st.mode & 0o7777,
            st.uid,
            st.gid,
            st.rdev.0
        );
        for (case, mode, hidden) in [("rdonly", flags::RDONLY, false), ("wronly", flags::WRONLY, true)] {
            let group = if hidden { "hid" } else { "pub" };
            let a = self.opendev(mode);
            let answer = format!("{} getfl=0{}", en(a), self.getfl(a));
            self.say(&format!("{group}.dev.open-{case}"), answer);
            self.dev = a;
            let b = self.create(format!("via-{case}").as_bytes());
            self.say(&format!("{group}.dev.create-via-{case}-device"), en(b));
            self.cl(b);
            self.cl(a);
        }
        let a = self.opendev(flags::RDWR | O_NONBLOCK | flags::CLOEXEC);
        h!(self, "dev.open-nonblock-cloexec", "{} getfl=0{} getfd={}", en(a), self.getfl(a), self.getfd(a));
        self.cl(a);
        let a = self.opendev(flags::RDWR);
        p!(self, "dev.open-rdwr", "{}", en(a));
        self.dev = a;
        self.second_opens();
        self.last_close(a);
        self.fdprops("dev", self.dev);
        self.cl(self.dev);
        let child = self.child(|child| {
            child.m.set_uid(child.p, 1000).expect("root");
            child.opendev(2)
        });
        h!(self, "dev.open-nonroot", "{}", en(child));
        self.inherited();
        for _ in 0..50 {
            let b = self.opendev(2);
            self.cl(b);
        }
        let b = self.create(b"after-50-busy");
        h!(self, "dev.usable-after-50-busy-opens", "{}", en(b));
        self.cl(b);
    }

    fn second_opens(&mut self) {
        let b = self.opendev(flags::RDWR);
        p!(self, "dev.second-open", "{}", en(b));
        let b = self.opendev(flags::RDONLY);
        p!(self, "dev.second-open-rdonly", "{}", en(b));
        let b = self.child(|child| child.opendev(2));
        p!(self, "dev.second-open-child", "{}", en(b));
        for (case, more) in [
            ("second-open-opath", flags::PATH),
            ("open-creat-excl", flags::RDWR | flags::CREAT | flags::EXCL),
            ("open-directory", flags::RDWR | flags::DIRECTORY),
            ("open-trunc-busy", flags::RDWR | flags::TRUNC),
        ] {
            let b = self.opendev(more);
            h!(self, format!("dev.{case}"), "{}", en(b));
            self.cl(b);
        }
    }

    fn last_close(&mut self, a: i64) {
        let b = self.dup(a);
        self.cl(a);
        let c = self.opendev(2);
        p!(self, "dev.open-while-dup-open", "{}", en(c));
        self.cl(c);
        self.cl(b);
        let c = self.opendev(2);
        p!(self, "dev.open-after-last-close", "{}", en(c));
        self.dev = c;
    }

    fn inherited(&mut self) {
        self.dev = self.opendev(2);
        let (child, _) = self.lasting_child(|_| 0);
        self.cl(self.dev);
        let b = self.opendev(2);
        p!(self, "dev.open-while-child-inherited", "{}", en(b));
        self.cl(b);
        self.m.exit(child).expect("alive");
        let b = self.opendev(2);
        p!(self, "dev.open-after-child-exit", "{}", en(b));
        self.dev = b;
    }

    /// What a descriptor of the device or of a session does.
    pub(super) fn fdprops(&mut self, t: &str, file: i64) {
        let number = fd(file);
        let mut buf = [0; 8];
        p!(self, format!("{t}.read"), "{}", en(ret(&self.m.read(self.p, number, &mut buf))));
        p!(self, format!("{t}.write"), "{}", en(ret(&self.m.write(self.p, number, b"x"))));
        h!(self, format!("{t}.pread"), "{}", en(ret(&self.m.pread(self.p, number, &mut buf, 0))));
        p!(self, format!("{t}.read0"), "{}", en(ret(&self.m.read(self.p, number, &mut []))));
        p!(self, format!("{t}.mmap"), "{}", self.try_map(file, PG, false));
        p!(self, format!("{t}.lseek"), "{}", en(self.seek(file, 0, luosim_files::shmem::Whence::Set)));
        h!(self, format!("{t}.lseek-end"), "{}", en(self.seek(file, 0, luosim_files::shmem::Whence::End)));
        let events = self.m.poll(self.p, number);
        let (ready, revents) = (u8::from(events.is_ok()), events.as_ref().copied().unwrap_or_default());
        p!(self, format!("{t}.poll"), "{} n={ready} revents={revents:#x}", en(ret(&events)));
        h!(self, format!("{t}.ftruncate"), "{}", en(self.trunc(file, 0)));
        h!(self, format!("{t}.fallocate"), "{}", en(self.falloc(file, 0, 0, 10)));
        let st = self.m.fstat(self.p, number);
        let stat = st.as_ref().copied().unwrap_or_default();
        p!(
            self,
            format!("{t}.fstat"),
            "{} type=0{:o} perm=0{:o} nlink={} size={} uid={}",
            en(ret(&st.map(|_| ()))),
            stat.mode & 0o170_000,
            stat.mode & 0o7777,
            stat.nlink,
            stat.size,
            stat.uid
        );
        let magic = self.m.fstatfs(self.p, number);
        p!(
            self,
            format!("{t}.fstatfs"),
            "{} magic={:#x}",
            en(ret(&magic)),
            magic.as_ref().copied().unwrap_or(0)
        );
        p!(self, format!("{t}.readlink"), "{}", self.link(file));
        p!(self, format!("{t}.getfl"), "0{}", self.getfl(file));
        p!(self, format!("{t}.getfd"), "{}", self.getfd(file));
        h!(
            self,
            format!("{t}.setfl-nonblock"),
            "{} now=0{}",
            en(self.setfl(file, O_NONBLOCK)),
            self.getfl(file)
        );
        self.setfl(file, 0);
        h!(self, format!("{t}.get-seals"), "{}", self.seals(file));
        let zero = self.m.process_memory(self.p).expect("alive").map(PG);
        h!(self, format!("{t}.ioctl-fionbio"), "{}", en(ret(&self.m.ioctl(self.p, number, 0x5421, zero))));
        h!(self, format!("{t}.ioctl-fioclex"), "{}", en(ret(&self.m.ioctl(self.p, number, 0x5451, 0))));
        h!(self, format!("{t}.ioctl-fionread"), "{}", en(ret(&self.m.ioctl(self.p, number, 0x541B, zero))));
        let q = self.reopen(file, flags::RDWR);
        p!(self, format!("{t}.reopen-procfd"), "{}", en(q));
        self.cl(q);
    }
}
