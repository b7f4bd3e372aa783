//! The fourth design: size-first arguments (module `args`) on two kinds of descriptors. A reserved field that is not zero
//! is refused for the first time.

use luosim_abi::posted::v4::{
    CreateSession, DeviceCommand, NAME_LENGTH, RetrieveSession, SESSION_BASE, SessionCommand, SessionFd,
    SessionGetState, SessionUnpreserveFd, Word,
};
use luosim_abi::posted::{Design, State};
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Caller, FileId, Host, SessionKey};

use super::v3::event;
use super::with_fd;
use crate::args::{Argument, Known, find};
use crate::session::name_field;
use crate::sessions::Sessions;
use crate::trouble::Answer;
use crate::{Content, Posted};

impl<H: Host> Posted<H> {
    pub(super) fn ioctl_v4(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        code: u32,
        arg: u64,
    ) -> Answer<()> {
        let longer = self.quirks.has(Quirk::RetrieveNameLonger);
        let known = |command: &DeviceCommand| Known {
            command: *command,
            name: command.name(),
            code: command.code(),
            min: match command {
                DeviceCommand::RetrieveSession if !longer => size_of::<CreateSession>(),
                command => command.size(),
            },
        };
        let (command, arg) = find(caller, DeviceCommand::ALL.iter().map(known), 0, code, arg)?;
        match command {
            DeviceCommand::GetState => self.get_state(caller, arg),
            DeviceCommand::SetEvent => self.set_event(host, caller, arg, Errno::EOPNOTSUPP),
            DeviceCommand::CreateSession => self.create_v4(host, caller, arg),
            DeviceCommand::RetrieveSession => self.retrieve_v4(host, caller, arg),
        }
    }

    fn sessions(&mut self) -> &mut Sessions {
        match &mut self.content {
            Content::Sessions(sessions) => sessions,
            Content::Files(_) => unreachable!("only the fourth design has session descriptors"),
        }
    }

    fn create_v4(&mut self, host: &mut H, caller: &mut impl Caller, arg: Argument) -> Answer<()> {
        let mut request: CreateSession = arg.read(caller)?;
        let fd = caller.reserve_fd()?;
        let made = self.create(host, &request.name).and_then(|file| {
            request.fd = fd.into();
            let reply = arg.reply(caller, self.quirks, &request);
            reply.inspect_err(|_| host.file_put(file))?;
            Ok(file)
        });
        match made {
            Ok(file) => caller.install_fd(fd, file),
            Err(trouble) => {
                if !self.quirks.has(Quirk::CreateLeaksFd) {
                    caller.cancel_fd(fd);
                }
                return Err(trouble);
            }
        }
        Ok(())
    }

    fn create(&mut self, host: &mut H, name: &[u8; NAME_LENGTH]) -> Answer<FileId> {
        if !self.is_idle() {
            let state = self.state.name().to_uppercase();
            let why = format!("a session is made in NORMAL or UPDATED, the machine is {state}");
            return Err(Errno::EAGAIN.because(why).into());
        }
        if !name.contains(&0) && !self.quirks.has(Quirk::NameCut) {
            return Err(Errno::EINVAL.because("the name has no NUL in its 56 bytes").into());
        }
        if self.state == State::Updated && !self.quirks.has(Quirk::CreateBlind) {
            self.read_incoming(host)?;
        }
        Ok(self.sessions().create(host, name_field(name))?)
    }

    fn retrieve_v4(&mut self, host: &mut H, caller: &mut impl Caller, arg: Argument) -> Answer<()> {
        let mut request: RetrieveSession = arg.read(caller)?;
        let quirks = self.quirks;
        let mut name = [0; NAME_LENGTH];
        name.copy_from_slice(&request.name[..NAME_LENGTH]);
        // Up to a NUL, as strings are compared.
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name[end..].fill(0);
        }
        let work = |host: &mut H| {
            self.check_updated("a session is given back", Errno::EAGAIN)?;
            self.read_incoming(host)?;
            Ok(self.sessions().retrieve(host, &name)?)
        };
        with_fd(host, caller, false, work, |caller, fd| {
            request.fd = fd.into();
            arg.reply(caller, quirks, &request)
        })
    }

    pub(super) fn ioctl_session(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        code: u32,
        arg: u64,
    ) -> Answer<()> {
        debug_assert_eq!(self.design, Design::V4, "no other design makes such descriptors");
        let known = |command: &SessionCommand| Known {
            command: *command,
            name: command.name(),
            code: command.code(),
            min: command.size(),
        };
        let (command, arg) = find(caller, SessionCommand::ALL.iter().map(known), SESSION_BASE, code, arg)?;
        match command {
            SessionCommand::PreserveFd => Ok(self.preserve_v4(host, caller, key, arg)?),
            SessionCommand::UnpreserveFd => Ok(self.unpreserve_v4(host, caller, key, arg)?),
            SessionCommand::RestoreFd => self.restore_v4(host, caller, key, arg),
            SessionCommand::GetState => Ok(self.session_state(caller, key, arg)?),
            SessionCommand::SetEvent => Ok(self.session_event(host, caller, key, arg)?),
        }
    }

    /// Files of a session come and go while neither machine nor session is on its way.
    fn check_session(&mut self, key: SessionKey, wanted: State, what: &str) -> KResult<()> {
        let (machine, session) = (self.state, self.sessions().get_mut(key));
        let good = match wanted {
            State::Updated => machine == State::Updated,
            _ => matches!(machine, State::Normal | State::Updated),
        };
        if good && session.state == wanted {
            return Ok(());
        }
        let [machine, state, wanted] =
            [machine, session.state, wanted].map(|state| state.name().to_uppercase());
        let name = session.shown();
        let why = format!("{what} while session {name:?} is {wanted}: it is {state}, the machine {machine}");
        Err(Errno::EBUSY.because(why))
    }

    fn preserve_v4(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        arg: Argument,
    ) -> KResult<()> {
        let request: SessionFd = arg.read(caller)?;
        self.check_session(key, State::Normal, "a file is registered")?;
        let file = caller.lookup_fd(request.fd.get())?;
        let Content::Sessions(sessions) = &mut self.content else {
            unreachable!("it has a session descriptor")
        };
        sessions.get_mut(key).register(&self.handlers, host, file, request.token.get())?;
        arg.reply(caller, self.quirks, &request)
    }

    fn unpreserve_v4(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        arg: Argument,
    ) -> KResult<()> {
        let request: SessionUnpreserveFd = arg.read(caller)?;
        check_reserved(&request.hole.get().to_le_bytes())?;
        self.check_session(key, State::Normal, "a file is forgotten")?;
        self.sessions().get_mut(key).unregister(host, request.token.get())?;
        arg.reply(caller, self.quirks, &request)
    }

    fn restore_v4(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        arg: Argument,
    ) -> Answer<()> {
        let mut request: SessionFd = arg.read(caller)?;
        let (token, quirks) = (request.token.get(), self.quirks);
        let work = |host: &mut H| {
            self.check_session(key, State::Updated, "a file is given back")?;
            let Content::Sessions(sessions) = &mut self.content else {
                unreachable!("it has a session descriptor")
            };
            Ok(sessions.get_mut(key).restore(&self.handlers, host, quirks, token)?)
        };
        with_fd(host, caller, false, work, |caller, fd| {
            request.fd = fd.into();
            arg.reply(caller, quirks, &request)
        })
    }

    fn session_state(&mut self, caller: &mut impl Caller, key: SessionKey, arg: Argument) -> KResult<()> {
        let mut request: SessionGetState = arg.read(caller)?;
        check_reserved(&request.reserved)?;
        request.state = self.sessions().get_mut(key).state.raw().into();
        arg.reply(caller, self.quirks, &request)
    }

    fn session_event(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        arg: Argument,
    ) -> KResult<()> {
        let request: Word = arg.read(caller)?;
        let event = event(request.value.get(), Errno::EINVAL)?;
        let Content::Sessions(sessions) = &mut self.content else {
            unreachable!("it has a session descriptor")
        };
        sessions.move_one(&self.handlers, host, key, event)?;
        arg.reply(caller, self.quirks, &request)
    }
}

fn check_reserved(bytes: &[u8]) -> KResult<()> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(Errno::EOPNOTSUPP.because("a reserved field is not 0"))
}
