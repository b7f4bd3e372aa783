//! The device and sessions: the checks of each command in the order of the documentation, and what it does.

use luosim_abi::Errno;
use luosim_files::test_file::Callback;
use luosim_machine::faults::Argument;

use super::{Carried, Fate, Held, Kind, Reference, Session, Status, Want, take_one};
use crate::explore::action::{Action, EMPTY_NAME, ENDLESS_NAME, Proc, Slot};

/// The answer of a command whose checks have passed so far: EFAULT if the reply has nowhere to go.
fn reply(arg: Argument) -> Want {
    if arg == Argument::ReadOnly { Want::Fails(Errno::EFAULT) } else { Want::Value(0) }
}

impl Reference {
    /// What a command must answer; `None` for other actions.
    pub(super) fn expect_call(&self, action: &Action) -> Option<Want> {
        if action.argument() == Argument::Unmapped {
            return Some(if self.has_target(action) { Want::Fails(Errno::EFAULT) } else { Want::Skip });
        }
        Some(match *action {
            Action::Open { .. } => self.expect_open(),
            Action::Create { p, device, name, arg, .. } => self.expect_create(p, device, name, arg),
            Action::Take { p, device, name, arg, .. } => self.expect_take(p, device, name, arg),
            Action::Preserve { p, session, fd, token, arg } => {
                self.expect_preserve(p, session, fd, token, arg)
            }
            Action::Retrieve { p, session, token, arg, .. } => self.expect_retrieve(p, session, token, arg),
            Action::Finish { p, session, reserved, arg } => self.expect_finish(p, session, reserved, arg),
            Action::GetName { p, session } => match self.session(p, session) {
                None => Want::Skip,
                Some(_) if self.release().session_commands.len() < 4 => Want::Fails(Errno::EINVAL),
                Some(_) => Want::Value(0),
            },
            Action::Link { p, session } => self.session(p, session).map_or(Want::Skip, |_| Want::Value(0)),
            _ => return None,
        })
    }

    fn has_target(&self, action: &Action) -> bool {
        match *action {
            Action::Create { p, device, .. } | Action::Take { p, device, .. } => {
                self.kind(p, device) == Some(Kind::Device)
            }
            Action::Preserve { p, session, fd, .. } => {
                self.session(p, session).is_some() && self.desc(p, fd).is_some()
            }
            Action::Retrieve { p, session, .. } | Action::Finish { p, session, .. } => {
                self.session(p, session).is_some()
            }
            _ => false,
        }
    }

    fn expect_open(&self) -> Want {
        if !self.luo {
            Want::Fails(Errno::ENOENT)
        } else if self.device_open {
            Want::Fails(Errno::EBUSY)
        } else if self.broken {
            Want::Fails(Errno::EIO)
        } else {
            Want::Value(0)
        }
    }

    fn expect_create(&self, p: Proc, device: Slot, name: u8, arg: Argument) -> Want {
        if self.kind(p, device) != Some(Kind::Device) {
            return Want::Skip;
        }
        if name == EMPTY_NAME || name == ENDLESS_NAME {
            return Want::Fails(Errno::EINVAL);
        }
        if self.outgoing(name).is_some() { Want::Fails(Errno::EEXIST) } else { reply(arg) }
    }

    fn expect_take(&self, p: Proc, device: Slot, name: u8, arg: Argument) -> Want {
        if self.kind(p, device) != Some(Kind::Device) {
            return Want::Skip;
        }
        match self.incoming(name).filter(|_| name != ENDLESS_NAME) {
            None => Want::Fails(Errno::ENOENT),
            Some(session) if self.sessions[session].taken => Want::Fails(Errno::EINVAL),
            Some(_) => reply(arg),
        }
    }

    fn expect_preserve(&self, p: Proc, slot: Slot, fd: Slot, token: u64, arg: Argument) -> Want {
        let (Some(session), Some(desc)) = (self.session(p, slot), self.desc(p, fd)) else {
            return Want::Skip;
        };
        let session = &self.sessions[session];
        if !session.outgoing {
            return Want::Fails(Errno::EINVAL);
        }
        // The reply is the request: it can be tried before anything is done.
        if arg == Argument::ReadOnly {
            return Want::Fails(Errno::EFAULT);
        }
        if session.files.iter().any(|file| file.token == token) {
            return Want::Fails(Errno::EEXIST);
        }
        if session.files.len() >= self.room() {
            return Want::Fails(Errno::ENOSPC);
        }
        self.expect_handler(desc).map_or(Want::Value(0), Want::Fails)
    }

    /// Why a description cannot be preserved.
    fn expect_handler(&self, desc: usize) -> Option<Errno> {
        let open = self.descs[desc];
        match open.kind {
            Kind::File(inode) => {
                let inode = &self.inodes[inode];
                let too_big = inode.size.div_ceil(4096) > 0xffff_ffff;
                // Below that limit the kernel's own array of page pointers is too large.
                let no_array = inode.size.div_ceil(4096) * 8 > 0x7fff_ffff;
                let checks = [
                    (inode.owned, Errno::EBUSY),
                    (!open.writable, Errno::EACCES),
                    (too_big, Errno::EFBIG),
                    (no_array, Errno::ENOMEM),
                ];
                checks.into_iter().find(|(fails, _)| *fails).map(|(_, errno)| errno)
            }
            Kind::Test(test) if self.fault(test, Callback::CanPreserve) => Some(Errno::ENOENT),
            Kind::Test(test) if self.tests[test].owned => Some(Errno::EBUSY),
            Kind::Test(test) if self.fault(test, Callback::Preserve) => Some(Errno::EIO),
            Kind::Test(_) => None,
            Kind::Device | Kind::Session(_) | Kind::Socket(..) => Some(Errno::ENOENT),
        }
    }

    fn expect_retrieve(&self, p: Proc, slot: Slot, token: u64, arg: Argument) -> Want {
        let Some(session) = self.session(p, slot).map(|session| &self.sessions[session]) else {
            return Want::Skip;
        };
        if session.outgoing {
            return Want::Fails(Errno::EINVAL);
        }
        let Some(file) = session.files.iter().find(|file| file.token == token) else {
            return Want::Fails(Errno::ENOENT);
        };
        match (file.status, &file.carried) {
            (Status::Failed(errno), _) => Want::Fails(errno),
            (Status::Untried, Some(Carried::Test(test, _)))
                if test.faults[Callback::Retrieve as usize] > 0 =>
            {
                Want::Fails(Errno::EIO)
            }
            (Status::Untried, _) if file.spoiled => Want::Fails(Errno::EIO),
            _ => reply(arg),
        }
    }

    fn expect_finish(&self, p: Proc, slot: Slot, reserved: u32, arg: Argument) -> Want {
        let Some(index) = self.session(p, slot) else { return Want::Skip };
        if self.sessions[index].outgoing || reserved != 0 {
            return Want::Fails(Errno::EINVAL);
        }
        if arg == Argument::ReadOnly {
            return Want::Fails(Errno::EFAULT);
        }
        if self.refuses_finish(index).is_some() { Want::Fails(Errno::EBUSY) } else { Want::Value(0) }
    }

    /// The first file of a session that does not want to be finished.
    fn refuses_finish(&self, session: usize) -> Option<usize> {
        let refuses = |file: &Held| match &file.carried {
            Some(Carried::Test(test, _)) => test.faults[Callback::CanFinish as usize] > 0,
            _ => false,
        };
        self.sessions[session].files.iter().position(refuses)
    }

    /// Follows a command; `false` for other actions.
    pub(super) fn call_happened(&mut self, action: &Action, answer: Result<i64, Errno>) -> bool {
        match *action {
            Action::Open { p, new } => self.opened(p, new, answer),
            Action::Create { p, name, new, .. } => {
                if answer.is_ok() {
                    let fresh = Session {
                        name,
                        outgoing: true,
                        taken: false,
                        alive: true,
                        faulted: false,
                        files: Vec::new(),
                    };
                    self.sessions.push(fresh);
                    self.open(p, new, Kind::Session(self.sessions.len() - 1));
                }
            }
            Action::Take { p, name, new, arg, .. } => self.taken(p, name, new, arg, answer),
            Action::Preserve { p, session, fd, token, .. } => self.preserved(p, session, fd, token, answer),
            Action::Retrieve { p, session, token, new, arg } => {
                self.retrieved(p, session, token, new, arg, answer);
            }
            Action::Finish { p, session, .. } => {
                if let Some(index) = self.session(p, session) {
                    match answer {
                        Ok(_) => self.finished(index),
                        Err(Errno::EBUSY) => self.refused_finish(index),
                        Err(_) => {}
                    }
                }
            }
            Action::GetName { .. } | Action::Link { .. } => {}
            _ => return false,
        }
        true
    }

    fn opened(&mut self, p: Proc, new: Slot, answer: Result<i64, Errno>) {
        if answer.is_ok() {
            self.listed = true;
            self.device_open = true;
            self.open(p, new, Kind::Device);
        } else if answer == Err(Errno::EIO) {
            self.listed = true;
            self.lose_all_incoming();
        }
    }

    fn taken(&mut self, p: Proc, name: u8, new: Slot, arg: Argument, answer: Result<i64, Errno>) {
        let Some(session) = self.incoming(name) else { return };
        self.sessions[session].faulted |= arg == Argument::ReadOnly;
        if answer.is_ok() {
            self.sessions[session].taken = true;
            self.open(p, new, Kind::Session(session));
        }
    }

    fn preserved(&mut self, p: Proc, slot: Slot, fd: Slot, token: u64, answer: Result<i64, Errno>) {
        let (Some(session), Some(desc)) = (self.session(p, slot), self.desc(p, fd)) else { return };
        match answer {
            Ok(_) => self.now_held(session, desc, token),
            Err(errno) => self.not_preserved(session, desc, token, errno),
        }
    }

    fn now_held(&mut self, session: usize, desc: usize, token: u64) {
        self.get_objects();
        match self.descs[desc].kind {
            Kind::File(inode) => {
                let inode = &mut self.inodes[inode];
                (inode.owned, inode.frozen) = (true, true);
            }
            Kind::Test(test) => {
                self.tests[test].owned = true;
                self.say(|| format!("file {test}: preserve"));
            }
            _ => {}
        }
        self.descs[desc].refs += 1;
        self.fates.push(Fate { name: self.sessions[session].name, token, word: "preserved" });
        let fate = self.fates.len() - 1;
        let held =
            Held { token, desc: Some(desc), carried: None, status: Status::Untried, spoiled: false, fate };
        self.sessions[session].files.push(held);
    }

    /// A handler, or memory, said no: bound objects were there for a moment if this would have been the first file.
    fn not_preserved(&mut self, session: usize, desc: usize, token: u64, errno: Errno) {
        let reached =
            self.sessions[session].outgoing && self.sessions[session].files.iter().all(|f| f.token != token);
        let handler = match self.descs[desc].kind {
            Kind::File(inode) => {
                !self.inodes[inode].owned && [Errno::EACCES, Errno::EFBIG, Errno::ENOMEM].contains(&errno)
            }
            Kind::Test(test) => !self.tests[test].owned && [Errno::EIO, Errno::ENOMEM].contains(&errno),
            _ => false,
        };
        if !reached || !handler {
            return;
        }
        // Without memory for the session's records the handler was not asked: the log tells which.
        self.get_objects();
        if let Kind::Test(test) = self.descs[desc].kind {
            let fails = errno == Errno::EIO;
            self.say(|| format!("file {test}: preserve{}", if fails { ": fails" } else { "" }));
            if fails {
                self.take_fault(test, Callback::Preserve);
            }
        }
        self.put_objects();
    }

    fn retrieved(
        &mut self,
        p: Proc,
        slot: Slot,
        token: u64,
        new: Slot,
        arg: Argument,
        answer: Result<i64, Errno>,
    ) {
        let Some(session) = self.session(p, slot) else { return };
        if self.sessions[session].outgoing {
            return;
        }
        let Some(at) = self.sessions[session].files.iter().position(|file| file.token == token) else {
            return;
        };
        self.sessions[session].faulted |= arg == Argument::ReadOnly;
        match answer {
            Ok(_) => {
                let desc = self.give(session, at);
                self.descs[desc].refs += 1;
                self.install(p, new, desc);
            }
            Err(Errno::EFAULT) if arg == Argument::ReadOnly => {
                self.give(session, at);
            }
            Err(errno) if arg != Argument::Unmapped => self.not_given(session, at, errno),
            Err(_) => {}
        }
    }

    /// The description of an incoming file, made at the first call; the session has a reference on it.
    fn give(&mut self, session: usize, at: usize) -> usize {
        let file = &self.sessions[session].files[at];
        if let Status::Given(desc) = file.status {
            return desc;
        }
        let (kind, pos) = match file.carried.clone().expect("an incoming file came with something") {
            Carried::Memory(inode, pos) => {
                self.inodes.push(Inode { owned: true, came: true, ..inode });
                (Kind::File(self.inodes.len() - 1), pos)
            }
            Carried::Test(test, pos) => {
                self.tests.push(Test { faults: [0; 5], owned: true, came: true, ..test });
                let number = self.tests.len() - 1;
                self.say(|| format!("file {number}: retrieve"));
                (Kind::Test(number), pos)
            }
        };
        self.descs.push(Desc { kind, refs: 1, pos, writable: true });
        let desc = self.descs.len() - 1;
        let file = &mut self.sessions[session].files[at];
        file.status = Status::Given(desc);
        self.fates[file.fate].word = "retrieved";
        desc
    }

    fn not_given(&mut self, session: usize, at: usize, errno: Errno) {
        let file = &mut self.sessions[session].files[at];
        if file.status != Status::Untried {
            return;
        }
        file.status = Status::Failed(errno);
        self.fates[file.fate].word = "lost";
        if let Some(Carried::Test(test, _)) = &mut file.carried
            && test.faults[Callback::Retrieve as usize] > 0
        {
            take_one(&mut test.faults[Callback::Retrieve as usize]);
            self.say(|| String::from("retrieve: fails"));
        }
    }

    fn refused_finish(&mut self, session: usize) {
        let Some(at) = self.refuses_finish(session) else { return };
        if let Some(Carried::Test(test, _)) = &mut self.sessions[session].files[at].carried {
            take_one(&mut test.faults[Callback::CanFinish as usize]);
            self.say(|| String::from("can_finish: fails"));
        }
    }

    /// Every file of an incoming session leaves it, last first.
    fn finished(&mut self, session: usize) {
        while let Some(file) = self.sessions[session].files.pop() {
            if let Some(Carried::Test(..)) = file.carried {
                self.say(|| String::from("finish"));
            }
            self.finish_objects();
            let fate = &mut self.fates[file.fate].word;
            match file.status {
                Status::Given(desc) => {
                    *fate = "finished";
                    self.disown(desc);
                    self.put(desc);
                }
                Status::Untried | Status::Failed(_) => *fate = "lost",
            }
        }
    }

    fn disown(&mut self, desc: usize) {
        match self.descs[desc].kind {
            Kind::File(inode) => self.inodes[inode].owned = false,
            Kind::Test(test) => self.tests[test].owned = false,
            _ => {}
        }
    }

    /// The last descriptor of a session was closed.
    pub(super) fn session_closed(&mut self, session: usize) {
        if self.sessions[session].outgoing {
            self.unpreserved(session);
            self.sessions[session].alive = false;
        } else if self.refuses_finish(session).is_some() {
            // It stays, with nobody to ask for it again.
            self.refused_finish(session);
        } else {
            self.finished(session);
            self.sessions[session].alive = false;
        }
    }

    /// Everything in an outgoing session is given back, last first.
    fn unpreserved(&mut self, session: usize) {
        while let Some(file) = self.sessions[session].files.pop() {
            let desc = file.desc.expect("an outgoing file has a description");
            match self.descs[desc].kind {
                Kind::File(inode) => self.inodes[inode].frozen = false,
                Kind::Test(test) => self.say(|| format!("file {test}: unpreserve")),
                _ => {}
            }
            self.put_objects();
            self.disown(desc);
            self.fates[file.fate].word = "lost";
            self.put(desc);
        }
    }

    /// What came cannot be read, or was not taken over.
    pub(super) fn lose_all_incoming(&mut self) {
        for session in self.sessions.iter_mut().filter(|session| !session.outgoing) {
            session.alive = false;
            for file in session.files.drain(..) {
                if file.status == Status::Untried {
                    self.fates[file.fate].word = "lost";
                }
            }
        }
    }
}

use super::{Desc, Inode, Test};
