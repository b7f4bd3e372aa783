//! Several processes that do the same: here one after the other, each alive until the last has its answer.

use super::{PG, Probe, Ret, en, h, p};

impl Probe {
    /// Eight children; how many succeeded, and the last error.
    fn race(&mut self, mut act: impl FnMut(&mut Self, u32) -> Ret) -> (u32, Ret) {
        let (mut good, mut last, mut children) = (0, 0, Vec::new());
        for index in 0..8 {
            // Every child is forked from the parent, which has none of the others' descriptors.
            let (child, answer) = self.lasting_child(|child| act(child, index));
            children.push(child);
            if answer >= 0 {
                good += 1;
            } else {
                last = answer;
            }
        }
        for child in children {
            self.m.exit(child).expect("alive");
        }
        (good, last)
    }

    pub(super) fn conc1(&mut self) {
        let (n, e) = self.race(|child, _| child.opendev(2));
        p!(self, "conc.open-8", "ok={n} err={}", en(e));
        self.dev = self.opendev(2);
        let (n, e) = self.race(|child, _| child.create(b"same"));
        p!(self, "conc.create-same-name-8", "ok={n} err={}", en(e));
        let s = self.create(b"rc");
        let (n, e) = self.race(|child, index| {
            let f = child.mf(0, PG, index, PG);
            child.pres(s, f, 5)
        });
        p!(self, "conc.preserve-same-token-8", "ok={n} err={}", en(e));
        let x = self.mf(0, PG, 1, PG);
        let (n, e) = self.race(|child, index| child.pres(s, x, u64::from(200 + index)));
        h!(self, "conc.preserve-same-file-8", "ok={n} err={}", en(e));
        let (n, e) = self.race(|child, index| {
            let f = child.mf(0, 3 * PG, index, 3 * PG);
            child.pres(s, f, u64::from(100 + index))
        });
        p!(self, "conc.preserve-different-8", "ok={n} err={}", en(e));
        let s = self.create(b"r1");
        let x = self.mf(0, PG, 1, PG);
        self.pres(s, x, 1);
        self.cl(x);
        let s = self.create(b"r2");
        for index in 0..8 {
            let x = self.mf(0, PG, index, PG);
            self.pres(s, x, index.into());
            self.cl(x);
        }
    }

    /// Retrieves and compares; EIO if the contents differ.
    fn retrieve_matching(&mut self, s: Ret, token: u64, seed: u32) -> Ret {
        let x = self.fretr(s, token);
        if x >= 0 && self.cmp(x, seed, 0, PG) != "match" { -5 } else { x }
    }

    pub(super) fn conc2(&mut self) {
        self.dev = self.opendev(2);
        let (n, e) = self.race(|child, _| child.retr(b"r1"));
        p!(self, "conc.retrieve-session-8", "ok={n} err={}", en(e));
        p!(self, "conc.retrieve-session-after-racers-died", "{}", en(self.retr(b"r1")));
        let s = self.retr(b"r2");
        let (n, e) = self.race(|child, _| child.retrieve_matching(s, 1, 1));
        p!(self, "conc.retrieve-same-token-8", "ok={n} err={}", en(e));
        let (n, e) = self.race(|child, index| child.retrieve_matching(s, index.into(), index));
        p!(self, "conc.retrieve-different-8", "ok={n} err={}", en(e));
        let (n, e) = self.race(|child, _| child.fin(s));
        h!(self, "conc.finish-8", "ok={n} err={}", en(e));
        self.cl(s);
        let s = self.retr(b"rc");
        let mut ok = 0;
        for index in 0..8 {
            let x = self.fretr(s, u64::from(100 + index));
            ok += u32::from(x >= 0 && self.cmp(x, index, 0, 3 * PG) == "match");
            self.cl(x);
        }
        p!(self, "conc.different-8-contents", "ok={ok}");
        self.cl(s);
    }
}
