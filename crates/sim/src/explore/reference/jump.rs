//! Kexec, crash and reset: what crosses, and what becomes of it.

use luosim_abi::Errno;
use luosim_abi::release::Release;
use luosim_files::test_file::Callback;

use super::{Carried, Held, Inode, Kind, Reference, Session, Status, Test, Want};
use crate::explore::action::{Action, CELL, Plan, Spoil};

/// What the next kernel makes of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// It takes it over.
    Works,
    /// It boots as if there was none.
    Cold,
    /// It has no orchestrator.
    Off,
    /// It refuses to boot, on purpose.
    Panics,
}

impl Crossing {
    /// The word of the boot's outcome.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "handover",
            Self::Cold => "cold",
            Self::Off => "luo-off",
            Self::Panics => "panic",
        }
    }

    /// From one release to another, by the versions of their layers.
    #[must_use]
    pub fn between(from: &Release, to: &Release) -> Self {
        if to.luo.is_none() {
            Self::Off
        } else if from.kho != to.kho || from.luo.is_none() {
            Self::Cold
        } else if from.luo != to.luo || to.flb && !from.flb {
            // The orchestrator does not know the other's structure, or misses the node of bound objects in it.
            Self::Panics
        } else {
            Self::Works
        }
    }
}

impl Reference {
    /// What a jump must answer. Everything else that is no call is a success.
    pub(super) fn expect_jump(&self, action: &Action) -> Want {
        match *action {
            Action::Kexec { .. } => match self.refuses_reboot() {
                Some((_, errno)) => Want::Fails(errno),
                None => Want::Value(0),
            },
            Action::CloseInReboot { p, fd, .. } => self.session(p, fd).map_or(Want::Skip, |_| Want::Value(0)),
            // What a write in a reboot that lacks memory comes to is nobody's promise.
            Action::WriteInReboot { .. } if self.plan.free.is_some() => Want::Skip,
            Action::WriteInReboot { p, fd, .. } | Action::SeekInReboot { p, fd, .. } => {
                self.file(p, fd).map_or(Want::Skip, |_| Want::Value(0))
            }
            Action::Spoil(spoil) => {
                if self.can_spoil(spoil) {
                    Want::Value(0)
                } else {
                    Want::Skip
                }
            }
            _ => Want::Value(0),
        }
    }

    /// Whether what shall be spoiled at the next kexec is there.
    #[must_use]
    pub fn spoils(&self) -> bool {
        self.spoil.is_none_or(|spoil| self.can_spoil(spoil))
    }

    /// Spoiling means something only if the next kernel reads what is spoiled.
    fn can_spoil(&self, spoil: Spoil) -> bool {
        match spoil {
            Spoil::Chain => {
                let blocks = self.release().luo == Some(luosim_abi::release::LuoVersion::V5);
                blocks && self.sessions.iter().any(|session| session.alive && session.outgoing)
            }
            Spoil::Folio { name, token } => self.spoilable(name, token).is_some(),
            Spoil::Word { .. } => self.sessions.iter().any(|session| session.alive && session.outgoing),
        }
    }

    fn spoilable(&self, name: u8, token: u64) -> Option<()> {
        let session = &self.sessions[self.outgoing(name)?];
        let file = session.files.iter().find(|file| file.token == token)?;
        match self.descs[file.desc?].kind {
            Kind::File(inode) => {
                let Inode { size, huge, .. } = self.inodes[inode];
                // A folio of 2 MiB may be the only one.
                (size > 4096 && !(huge && size >= 2 << 20)).then_some(())
            }
            _ => None,
        }
    }

    fn outgoing_sessions(&self) -> Vec<usize> {
        (0..self.sessions.len())
            .filter(|index| self.sessions[*index].alive && self.sessions[*index].outgoing)
            .collect()
    }

    /// Points of a serialisation now.
    #[must_use]
    pub fn points(&self) -> u32 {
        let sessions = self.outgoing_sessions();
        let points: usize = sessions.iter().map(|session| 1 + self.sessions[*session].files.len()).sum();
        u32::try_from(points + 1).unwrap_or(1)
    }

    /// The point before a description's file is frozen, if a session holds it.
    fn freeze_point(&self, desc: usize) -> Option<usize> {
        let mut point = 0;
        for session in self.outgoing_sessions() {
            let files = &self.sessions[session].files;
            if let Some(at) = files.iter().position(|file| file.desc == Some(desc)) {
                return Some(point + at);
            }
            point += files.len() + 1;
        }
        None
    }

    /// Where the serialisation is refused, counted in files over all sessions, and with what.
    fn refuses_reboot(&self) -> Option<(usize, Errno)> {
        if !self.luo {
            return None;
        }
        let mut point = 0;
        let mut files = 0;
        for session in self.outgoing_sessions() {
            for file in &self.sessions[session].files {
                if let Some(stop) = self.stops(point) {
                    return Some((files, stop));
                }
                point += 1;
                if let Kind::Test(test) = self.descs[file.desc.expect("outgoing")].kind
                    && self.fault(test, Callback::Freeze)
                {
                    return Some((files, Errno::EIO));
                }
                files += 1;
            }
            if let Some(stop) = self.stops(point) {
                return Some((files, stop));
            }
            point += 1;
        }
        self.stops(point).map(|errno| (files, errno))
    }

    fn stops(&self, point: u32) -> Option<Errno> {
        let (_, panics) = self.stop.filter(|(at, _)| *at == point)?;
        Some(if panics { Errno::ESRCH } else { Errno::EBUSY })
    }

    /// Follows a jump, and what is told beforehand.
    pub(super) fn jump_happened(&mut self, action: &Action, answer: Result<i64, Errno>) {
        match *action {
            Action::Kexec { plan, .. } => match answer {
                Ok(_) => {
                    self.intruded();
                    self.jumped(plan);
                }
                Err(Errno::ESRCH) => self.died(plan),
                Err(errno) => self.refused(errno),
            },
            Action::Crash { .. } => self.died(self.plan),
            Action::Reset { plan } => self.died(plan),
            Action::FailAlloc { .. } => self.starved = true,
            Action::Stop { point, panic } => self.stop = Some((point, panic)),
            Action::CloseInReboot { .. } | Action::WriteInReboot { .. } | Action::SeekInReboot { .. } => {
                self.intruder = Some(action.clone());
            }
            Action::Spoil(spoil) => self.spoil = Some(spoil),
            _ => {}
        }
    }

    /// The reboot was refused: what was frozen is thawed, files of the session at fault first, in order, then those of
    /// earlier sessions, last session first.
    fn refused(&mut self, errno: Errno) {
        let stopped = self.refuses_reboot();
        (self.stop, self.spoil) = (None, None);
        if let Some((count, why)) = stopped.filter(|(_, why)| *why == errno) {
            self.say_thaw(count, why == Errno::EIO);
        }
        match self.intruder.take() {
            Some(Action::CloseInReboot { p, fd, .. }) => {
                if let Some(desc) = self.uninstall_if_open(p, fd) {
                    self.put(desc);
                }
            }
            Some(Action::WriteInReboot { p, fd, at, cells, seed, .. }) => {
                self.do_file(&Action::Write { p, fd, at, cells, seed });
            }
            Some(Action::SeekInReboot { p, fd, to, .. }) => self.do_file(&Action::Seek { p, fd, to }),
            _ => {}
        }
    }

    /// What was done in a serialisation that nothing stopped: a position that moves after its file was frozen stays behind.
    fn intruded(&mut self) {
        match self.intruder.take() {
            // A point behind the last is never reached.
            Some(Action::WriteInReboot { point, .. }) if point >= self.points() => {}
            Some(Action::WriteInReboot { p, fd, at, cells, seed, .. }) => {
                self.do_file(&Action::Write { p, fd, at, cells, seed });
            }
            Some(Action::SeekInReboot { p, fd, to, point }) => {
                let frozen = self.desc(p, fd).and_then(|desc| self.freeze_point(desc));
                let late = frozen.is_some_and(|frozen| usize::try_from(point).is_ok_and(|at| at > frozen));
                if !late {
                    self.do_file(&Action::Seek { p, fd, to });
                }
            }
            _ => {}
        }
    }

    /// A call on a memory file is made and answered as it must, if its process and the file are there.
    fn do_file(&mut self, action: &Action) {
        if let Action::Write { p, fd, .. } | Action::Seek { p, fd, .. } = *action
            && self.file(p, fd).is_none()
        {
            return;
        }
        let answer = match self.expect(action) {
            Want::Value(value) => Ok(value),
            Want::Fails(errno) => Err(errno),
            Want::Skip => return,
        };
        self.file_happened(action, answer);
    }

    fn uninstall_if_open(&mut self, p: u8, fd: u8) -> Option<usize> {
        self.desc(p, fd)?;
        self.uninstall(p, fd)
    }

    fn say_thaw(&mut self, count: usize, by_handler: bool) {
        let test_of = |reference: &Self, file: &Held| match reference.descs[file.desc.expect("outgoing")].kind
        {
            Kind::Test(test) => Some(test),
            _ => None,
        };
        let mut left = count;
        let mut frozen: Vec<Vec<usize>> = Vec::new();
        let mut culprit = None;
        for session in self.outgoing_sessions() {
            let files = &self.sessions[session].files;
            let here = files.len().min(left);
            frozen.push(files[..here].iter().filter_map(|file| test_of(self, file)).collect());
            left -= here;
            if here < files.len() {
                culprit = test_of(self, &files[here]).filter(|_| by_handler);
                break;
            }
        }
        for test in frozen.iter().flatten() {
            let test = *test;
            self.say(|| format!("file {test}: freeze"));
        }
        if let Some(test) = culprit {
            self.take_fault(test, Callback::Freeze);
            self.say(|| format!("file {test}: freeze: fails"));
        }
        for test in frozen.into_iter().rev().flatten() {
            self.say(|| format!("file {test}: unfreeze"));
        }
    }

    /// What crosses: each outgoing session with its files as they are now.
    fn carried(&mut self) -> Vec<Session> {
        let mut carried = Vec::new();
        for index in self.outgoing_sessions() {
            let session = self.sessions[index].clone();
            let files = session.files.iter().map(|file| self.carry(file)).collect();
            carried.push(Session {
                outgoing: false,
                taken: false,
                alive: true,
                faulted: false,
                files,
                ..session
            });
        }
        if let Some(Spoil::Folio { name, token }) = self.spoil {
            let files =
                carried.iter_mut().filter(|session| session.name == name).flat_map(|one| &mut one.files);
            for file in files.filter(|file| file.token == token) {
                file.spoiled = true;
            }
        }
        carried
    }

    fn carry(&self, file: &Held) -> Held {
        let open = self.descs[file.desc.expect("an outgoing file has a description")];
        let carried = match open.kind {
            Kind::File(inode) => {
                let inode = &self.inodes[inode];
                let exec = inode.seals & 0x20 == 0;
                let last = u32::try_from(inode.size.div_ceil(CELL)).unwrap_or(u32::MAX);
                let cells = inode.cells.range(..last).map(|(cell, seed)| (*cell, *seed)).collect();
                Carried::Memory(
                    Inode { exec, cells, size: inode.size, seals: inode.seals, ..Inode::default() },
                    open.pos,
                )
            }
            Kind::Test(test) => {
                let test = &self.tests[test];
                let cells = test.cells.clone();
                Carried::Test(
                    Test { size: test.size, cells, faults: test.faults, ..Test::default() },
                    open.pos,
                )
            }
            kind => unreachable!("{kind:?} cannot be preserved"),
        };
        Held { desc: None, carried: Some(carried), ..file.clone() }
    }

    /// A new kernel runs, and this is its state. Lines of the ledger stay.
    fn start(&mut self, plan: Plan) {
        let fates = std::mem::take(&mut self.fates);
        *self = Self { fates, ..Self::new(plan, self.max_procs) };
    }

    /// What nobody retrieved is lost; what was retrieved stays so.
    fn leave_incoming(&mut self) {
        self.lose_all_incoming();
    }

    fn lose(&mut self, sessions: &[Session]) {
        for file in sessions.iter().flat_map(|session| &session.files) {
            self.fates[file.fate].word = "lost";
        }
    }

    pub(in crate::explore) fn died(&mut self, plan: Plan) {
        self.leave_incoming();
        let gone: Vec<Session> =
            self.outgoing_sessions().iter().map(|index| self.sessions[*index].clone()).collect();
        self.lose(&gone);
        self.start(plan);
    }

    fn jumped(&mut self, plan: Plan) {
        let (from, before) = (self.release(), self.plan);
        let crossing = self.crossing(plan);
        self.leave_incoming();
        let carried = if self.luo { self.carried() } else { Vec::new() };
        let files = self.flb_out;
        let spoiled = matches!(self.spoil, Some(Spoil::Folio { .. }));
        self.start(plan);
        if crossing != Crossing::Works {
            return self.lose(&carried);
        }
        let tests = |file: &Held| matches!(file.carried, Some(Carried::Test(..)));
        self.broken = !plan.test_files && carried.iter().any(|session| session.files.iter().any(tests));
        self.sessions = carried;
        self.before = Some(before);
        self.leaky = spoiled;
        self.flb_in = (self.has_flbs() && before.flbs && from.flb).then_some(files);
    }

    /// How the jump to `plan` must end.
    #[must_use]
    pub fn crossing(&self, plan: Plan) -> Crossing {
        let crossing = Crossing::between(self.release(), plan.release.release());
        if crossing == Crossing::Works && self.spoil == Some(Spoil::Chain) {
            Crossing::Panics
        } else {
            crossing
        }
    }

    /// Whether every incoming file that nobody asked for is one that can still be asked for.
    #[must_use]
    pub fn unclaimed(&self) -> Vec<(u8, Vec<u64>)> {
        let waits = |session: &&Session| session.alive && !session.outgoing && !session.taken;
        let tokens = |session: &Session| {
            let mine = session.files.iter().filter(|file| file.status == Status::Untried);
            (session.name, mine.map(|file| file.token).collect())
        };
        if self.broken { Vec::new() } else { self.sessions.iter().filter(waits).map(tokens).collect() }
    }
}

#[cfg(test)]
mod tests {
    use luosim_abi::release::ReleaseId;

    use super::*;

    #[test]
    fn the_matrix_is_that_of_the_book() {
        let cross = |from: ReleaseId, to: ReleaseId| Crossing::between(from.release(), to.release());
        assert_eq!(cross(ReleaseId::V6_19, ReleaseId::V6_19), Crossing::Works);
        assert_eq!(cross(ReleaseId::V7_0, ReleaseId::V6_19), Crossing::Works);
        assert_eq!(cross(ReleaseId::V6_19, ReleaseId::V7_0), Crossing::Panics);
        assert_eq!(cross(ReleaseId::V7_2, ReleaseId::V7_3), Crossing::Works);
        assert_eq!(cross(ReleaseId::V7_1, ReleaseId::V7_2), Crossing::Cold);
        assert_eq!(cross(ReleaseId::V7_3, ReleaseId::V6_18), Crossing::Off);
    }
}
