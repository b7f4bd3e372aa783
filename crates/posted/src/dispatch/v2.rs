//! The second design: a switch on the whole number, then each command for itself. No size, no check for zeros.
//!
//! Another type byte or an unknown number: ENOTTY. A structure is copied in whole (EFAULT), the work is done, and it is
//! copied out whole: FD_PRESERVE undoes its work if that fails, FD_RESTORE has installed its descriptor by then.

use luosim_abi::Errno;
use luosim_abi::posted::Event;
use luosim_abi::posted::v2::{Command, LiveupdateFd};
use luosim_abi::quirk::Quirk;
use luosim_luo::{Caller, Host};
use zerocopy::{FromZeros, IntoBytes};

use super::with_fd;
use crate::trouble::Answer;
use crate::{OpenId, Posted};

impl<H: Host> Posted<H> {
    pub(super) fn ioctl_v2(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        open: OpenId,
        code: u32,
        arg: u64,
    ) -> Answer<()> {
        let Some(command) = Command::from_code(code) else {
            if code.to_le_bytes()[1] == 0xBA {
                host.memory().log.warn(format!("liveupdate: unknown command {code:#x}"));
            }
            return Err(Errno::ENOTTY.because(format!("{code:#x} is not a command of this device")).into());
        };
        match command {
            Command::FdPreserve => self.preserve_v2(host, caller, open, arg),
            Command::FdUnpreserve => {
                let mut token = [0; 8];
                caller.read(arg, &mut token)?;
                Ok(self.unregister(host, open, u64::from_le_bytes(token))?)
            }
            Command::FdRestore => self.restore_v2(host, caller, arg),
            Command::GetState => Ok(caller.write(arg, &self.state.raw().to_le_bytes())?),
            Command::Prepare => self.event(host, Event::Prepare),
            Command::Cancel => self.event(host, Event::Cancel),
            Command::Finish => self.event(host, Event::Finish),
        }
    }

    fn request_v2(&self, caller: &impl Caller, arg: u64) -> Answer<LiveupdateFd> {
        let mut request = LiveupdateFd::new_zeroed();
        caller.read(arg, request.as_mut_bytes())?;
        let flags = request.flags.get();
        if flags != 0 && !self.quirks.has(Quirk::FlagsIgnored) {
            return Err(Errno::EOPNOTSUPP.because(format!("no flags are known, {flags:#x} are set")).into());
        }
        Ok(request)
    }

    fn preserve_v2(&mut self, host: &mut H, caller: &mut impl Caller, open: OpenId, arg: u64) -> Answer<()> {
        let request = self.request_v2(caller, arg)?;
        let token = request.token.get();
        self.register(host, caller, open, request.fd.get(), token)?;
        if let Err(refusal) = caller.write(arg, request.as_bytes()) {
            self.unregister(host, open, token).expect("it was just registered");
            return Err(refusal.into());
        }
        Ok(())
    }

    fn restore_v2(&mut self, host: &mut H, caller: &mut impl Caller, arg: u64) -> Answer<()> {
        let mut request = self.request_v2(caller, arg)?;
        let (token, early) = (request.token.get(), self.quirks.has(Quirk::InstallBeforeReply));
        with_fd(
            host,
            caller,
            early,
            |host| self.restore(host, token),
            |caller, fd| {
                request.fd = fd.into();
                caller.write(arg, request.as_bytes())
            },
        )
    }
}
