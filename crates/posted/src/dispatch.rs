//! ioctl dispatch, a module for each design.

mod v2;
mod v3;
mod v4;

use luosim_abi::posted::{Design, State};
use luosim_abi::{Errno, KResult};
use luosim_luo::{Caller, FileId, Host, SessionKey};

use crate::files::Files;
use crate::trouble::{Answer, Trouble};
use crate::{Content, OpenId, Posted};

impl<H: Host> Posted<H> {
    /// An ioctl on the device.
    ///
    /// # Errors
    /// As the module of the design says.
    pub fn device_ioctl(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        open: OpenId,
        code: u32,
        arg: u64,
    ) -> KResult<()> {
        let answer = match self.design {
            Design::V2 => self.ioctl_v2(host, caller, open, code, arg),
            Design::V3 => self.ioctl_v3(host, caller, code, arg),
            Design::V4 => self.ioctl_v4(host, caller, code, arg),
        };
        self.answer(answer)
    }

    /// An ioctl on a session descriptor, which the fourth design has.
    ///
    /// # Errors
    /// As its module says.
    pub fn session_ioctl(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        code: u32,
        arg: u64,
    ) -> KResult<()> {
        let answer = self.ioctl_session(host, caller, key, code, arg);
        self.answer(answer)
    }

    fn answer(&mut self, answer: Answer<()>) -> KResult<()> {
        answer.map_err(|trouble| {
            if let Trouble::Panic(text) = &trouble {
                self.panicked = Some(text.clone());
            }
            trouble.refusal()
        })
    }

    /// The files of the second and third design.
    fn files(&mut self) -> &mut Files {
        match &mut self.content {
            Content::Files(files) => files,
            Content::Sessions(_) => unreachable!("only the fourth design has sessions"),
        }
    }

    /// FD_PRESERVE: the descriptor is looked up before the state is.
    fn register(
        &mut self,
        host: &mut H,
        caller: &impl Caller,
        open: OpenId,
        fd: i32,
        token: u64,
    ) -> KResult<()> {
        let file = caller.lookup_fd(fd)?;
        self.check_idle("a file is registered")?;
        let Content::Files(files) = &mut self.content else {
            unreachable!("only the fourth design has sessions")
        };
        files.register(&self.handlers, host, open, file, token)
    }

    /// FD_UNPRESERVE.
    fn unregister(&mut self, host: &mut H, open: OpenId, token: u64) -> KResult<()> {
        self.check_idle("a file is forgotten")?;
        let Content::Files(files) = &mut self.content else {
            unreachable!("only the fourth design has sessions")
        };
        files.unregister(&self.handlers, host, open, token)
    }

    fn check_updated(&self, what: &str, errno: Errno) -> KResult<()> {
        if self.state == State::Updated {
            return Ok(());
        }
        let state = self.state.name().to_uppercase();
        Err(errno.because(format!("{what} in UPDATED, the machine is {state}")))
    }

    /// Reads what the previous kernel left of files, if that was not done.
    fn read_incoming(&mut self, host: &mut H) -> Answer<()> {
        let (name, incoming) = (self.files_name(), self.incoming.as_ref());
        match &mut self.content {
            Content::Files(files) if !files.is_read() => {
                let value = incoming.expect("UPDATED comes of it").value(name);
                let data = value.map_err(|refusal| Trouble::restore(refusal.reason))?;
                files.read(&self.handlers, host, data)
            }
            Content::Files(_) => Ok(()),
            Content::Sessions(sessions) => sessions.read(&self.handlers, host),
        }
    }

    /// FD_RESTORE: the caller gets a reference.
    fn restore(&mut self, host: &mut H, token: u64) -> Answer<FileId> {
        self.check_updated("a file is given back", Errno::EBUSY)?;
        self.read_incoming(host)?;
        let Content::Files(files) = &mut self.content else {
            unreachable!("only the fourth design has sessions")
        };
        Ok(files.restore(&self.handlers, host, token)?)
    }
}

/// Does the work of a command that makes a descriptor: a number is reserved, the work gives the file, the reply is written,
/// the number is filled. With `early` it is filled before the reply, and stays so if that fails.
fn with_fd<H: Host, C: Caller>(
    host: &mut H,
    caller: &mut C,
    early: bool,
    work: impl FnOnce(&mut H) -> Answer<FileId>,
    reply: impl FnOnce(&mut C, i32) -> KResult<()>,
) -> Answer<()> {
    let fd = caller.reserve_fd()?;
    let file = work(host).inspect_err(|_| caller.cancel_fd(fd))?;
    if early {
        caller.install_fd(fd, file);
        return Ok(reply(caller, fd)?);
    }
    if let Err(refusal) = reply(caller, fd) {
        caller.cancel_fd(fd);
        host.file_put(file);
        return Err(refusal.into());
    }
    caller.install_fd(fd, file);
    Ok(())
}
