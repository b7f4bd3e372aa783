//! The third design: size-first arguments (module `args`), one table of tokens, a machine for each file.

use luosim_abi::posted::Event;
use luosim_abi::posted::v3::{Command, Fd, FdEvent, FdState, FdUnpreserve, Word};
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Caller, Host};

use super::with_fd;
use crate::args::{Argument, Known, find};
use crate::trouble::Answer;
use crate::{OpenId, Posted};

impl<H: Host> Posted<H> {
    pub(super) fn ioctl_v3(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        code: u32,
        arg: u64,
    ) -> Answer<()> {
        let short = self.quirks.has(Quirk::StateLostAtMin);
        let known = |command: &Command| Known {
            command: *command,
            name: command.name(),
            code: command.code(),
            min: if short { command.min_size() } else { command.size() },
        };
        let (command, arg) = find(caller, Command::ALL.iter().map(known), 0, code, arg)?;
        match command {
            Command::FdPreserve => Ok(self.preserve_v3(host, caller, arg)?),
            Command::FdUnpreserve => {
                let request: FdUnpreserve = arg.read(caller)?;
                self.unregister(host, OpenId::default(), request.token.get())?;
                Ok(arg.reply(caller, self.quirks, &request)?)
            }
            Command::FdRestore => self.restore_v3(host, caller, arg),
            Command::GetState => self.get_state(caller, arg),
            Command::SetEvent => self.set_event(host, caller, arg, Errno::EINVAL),
            Command::GetFdState => Ok(self.get_fd_state(caller, arg)?),
            Command::SetFdEvent => self.set_fd_event(host, caller, arg),
        }
    }

    fn preserve_v3(&mut self, host: &mut H, caller: &mut impl Caller, arg: Argument) -> KResult<()> {
        let request: Fd = arg.read(caller)?;
        let (open, token) = (OpenId::default(), request.token.get());
        let done = self.register(host, caller, open, request.fd.get(), token);
        match (done, self.quirks.has(Quirk::PreserveErrorLost)) {
            // The test is inverted: the reply is written where there is nothing to reply.
            (Ok(()), true) => Ok(()),
            (Err(lost), true) => {
                host.memory().log.info(format!("liveupdate: FD_PRESERVE hides its error: {lost}"));
                arg.reply(caller, self.quirks, &request)
            }
            (Ok(()), false) => arg.reply(caller, self.quirks, &request).inspect_err(|_| {
                self.unregister(host, open, token).expect("it was just registered");
            }),
            (Err(refusal), false) => Err(refusal),
        }
    }

    fn restore_v3(&mut self, host: &mut H, caller: &mut impl Caller, arg: Argument) -> Answer<()> {
        let mut request: Fd = arg.read(caller)?;
        let (token, quirks) = (request.token.get(), self.quirks);
        let early = quirks.has(Quirk::InstallBeforeReply);
        with_fd(
            host,
            caller,
            early,
            |host| self.restore(host, token),
            |caller, fd| {
                request.fd = fd.into();
                arg.reply(caller, quirks, &request)
            },
        )
    }

    /// GET_STATE of the machine.
    pub(super) fn get_state(&self, caller: &mut impl Caller, arg: Argument) -> Answer<()> {
        let request: Word = arg.read(caller)?;
        let reply = Word { value: self.state.raw().into(), ..request };
        Ok(arg.reply(caller, self.quirks, &reply)?)
    }

    /// SET_EVENT of the machine; `unknown` answers what no program may pass.
    pub(super) fn set_event(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        arg: Argument,
        unknown: Errno,
    ) -> Answer<()> {
        let request: Word = arg.read(caller)?;
        let event = event(request.value.get(), unknown)?;
        if event == Event::Freeze {
            return Err(unknown.because("the machine is frozen by the reboot, not by a program").into());
        }
        self.event(host, event)?;
        Ok(arg.reply(caller, self.quirks, &request)?)
    }

    fn get_fd_state(&mut self, caller: &mut impl Caller, arg: Argument) -> KResult<()> {
        let mut request: FdState = arg.read(caller)?;
        let state = self.files().state(request.token.get(), request.incoming != 0)?;
        request.state = state.raw().into();
        arg.reply(caller, self.quirks, &request)
    }

    fn set_fd_event(&mut self, host: &mut H, caller: &mut impl Caller, arg: Argument) -> Answer<()> {
        let request: FdEvent = arg.read(caller)?;
        let event = event(request.event.get(), Errno::EINVAL)?;
        if event == Event::Finish {
            self.check_updated("a file is finished", Errno::EBUSY)?;
            self.read_incoming(host)?;
        }
        self.move_file(host, request.token.get(), event)?;
        Ok(arg.reply(caller, self.quirks, &request)?)
    }

    fn move_file(&mut self, host: &mut H, token: u64, event: Event) -> KResult<()> {
        let crate::Content::Files(files) = &mut self.content else {
            unreachable!("only the fourth design has sessions")
        };
        files.move_one(&self.handlers, host, token, event)
    }
}

/// The event of a number.
pub(super) fn event(raw: u32, unknown: Errno) -> KResult<Event> {
    Event::from_raw(raw).ok_or_else(|| unknown.because(format!("there is no event {raw}")))
}
