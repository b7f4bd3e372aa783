//! ioctl dispatch for the device and for session descriptors, with the checks in the kernel's order.
//!
//! 1. number outside the descriptor's table: EINVAL;
//! 2. `size` word unreadable: EFAULT;
//! 3. the whole number differs: ENOTTY;
//! 4. wrong direction (not 6.19): EINVAL;
//! 5. size below the minimum: EINVAL;
//! 6. non-zero byte beyond the known part: E2BIG; unreadable one: EFAULT;
//! 7. known part unreadable: EFAULT;
//! 8. the operation;
//! 9. reply not writable: EFAULT, *after* the operation.

use luosim_abi::extensible::{self, copy_out};
use luosim_abi::ioctl::{self, Command, FdArg, FinishArg, GetNameArg, NAME_LEN, SESSION_BASE, SessionArg};
use luosim_abi::quirk::Quirk;
use luosim_abi::release::DEVICE_COMMANDS;
use luosim_abi::{Errno, KResult};
use zerocopy::{FromZeros, IntoBytes};

use crate::event::FinishCause;
use crate::host::{Caller, Host, RetrieveStatus, SessionKey};
use crate::ops::Direction;
use crate::{Luo, session::Session};

impl<H: Host> Luo<H> {
    /// An ioctl on the device.
    ///
    /// # Errors
    /// As in the module's table, then the operation's.
    pub fn device_ioctl(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        code: u32,
        arg: u64,
    ) -> KResult<()> {
        let command = find(DEVICE_COMMANDS, 0, code, "the device")?;
        let size = check_code(caller, command, code, arg)?;
        let mut request = SessionArg::new_zeroed();
        copy_in(caller, command, size, arg, request.as_mut_bytes())?;
        match command {
            Command::CreateSession => self.ioctl_create(host, caller, request, size, arg),
            _ => self.ioctl_retrieve(host, caller, request, size, arg),
        }
    }

    fn ioctl_create(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        mut request: SessionArg,
        size: u32,
        arg: u64,
    ) -> KResult<()> {
        let fd = caller.reserve_fd()?;
        let file = self.create(host, &request.name).inspect_err(|_| caller.cancel_fd(fd))?;
        request.fd = fd.into();
        if let Err(refusal) = copy_out(caller, size, arg, request.as_bytes()) {
            caller.cancel_fd(fd);
            if !self.quirks.has(Quirk::CreateFaultLeavesSession) {
                host.file_put(file);
            }
            return Err(refusal);
        }
        caller.install_fd(fd, file);
        Ok(())
    }

    fn ioctl_retrieve(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        mut request: SessionArg,
        size: u32,
        arg: u64,
    ) -> KResult<()> {
        let fd = caller.reserve_fd()?;
        let found = self.retrieve_session(host, &request.name);
        let (key, file) = found.inspect_err(|_| caller.cancel_fd(fd))?;
        request.fd = fd.into();
        if let Err(refusal) = copy_out(caller, size, arg, request.as_bytes()) {
            caller.cancel_fd(fd);
            if !self.quirks.has(Quirk::RetrieveSessionFaultDestroys) {
                self.unretrieve(key);
            }
            host.file_put(file);
            return Err(refusal);
        }
        caller.install_fd(fd, file);
        Ok(())
    }

    /// An ioctl on a session descriptor.
    ///
    /// # Errors
    /// As in the module's table, then the operation's.
    pub fn session_ioctl(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        code: u32,
        arg: u64,
    ) -> KResult<()> {
        let command = find(self.release.session_commands, SESSION_BASE, code, "a session")?;
        let size = check_size_word(caller, command, code, arg)?;
        let session = self.session(key).expect("a session lives as long as its file");
        if !self.quirks.has(Quirk::NoDirectionCheck) {
            check_direction(session, command)?;
        }
        check_min(command, size)?;
        match command {
            Command::PreserveFd => self.ioctl_preserve(host, caller, key, size, arg),
            Command::RetrieveFd => self.ioctl_retrieve_fd(host, caller, key, size, arg),
            Command::Finish => self.ioctl_finish(host, caller, key, size, arg),
            _ => self.ioctl_get_name(caller, key, size, arg),
        }
    }

    fn ioctl_preserve(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        size: u32,
        arg: u64,
    ) -> KResult<()> {
        let mut request = FdArg::new_zeroed();
        copy_in(caller, Command::PreserveFd, size, arg, request.as_mut_bytes())?;
        self.check_incoming_room(key)?;
        self.try_reply(caller, size, arg, request.as_bytes())?;
        self.preserve(host, key, request.token.get(), || caller.lookup_fd(request.fd.get()))?;
        copy_out(caller, size, arg, request.as_bytes())
    }

    fn ioctl_retrieve_fd(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        size: u32,
        arg: u64,
    ) -> KResult<()> {
        let mut request = FdArg::new_zeroed();
        copy_in(caller, Command::RetrieveFd, size, arg, request.as_mut_bytes())?;
        let fd = caller.reserve_fd()?;
        let file = self.retrieve_fd(host, key, request.token.get());
        let file = file.inspect_err(|_| caller.cancel_fd(fd))?;
        request.fd = fd.into();
        if let Err(refusal) = copy_out(caller, size, arg, request.as_bytes()) {
            caller.cancel_fd(fd);
            host.file_put(file);
            if self.quirks.has(Quirk::RetrieveFaultConsumes) {
                self.forget_retrieved(key, request.token.get(), refusal.errno);
            }
            return Err(refusal);
        }
        caller.install_fd(fd, file);
        Ok(())
    }

    /// Quirk `retrieve-fault-consumes`.
    fn forget_retrieved(&mut self, key: SessionKey, token: u64, errno: Errno) {
        let session = self.session_mut(key).expect("a session lives as long as its file");
        if let Some((_, file)) = session.files.find_mut(token) {
            file.status = RetrieveStatus::Failed(errno);
        }
    }

    /// Writes the reply before the work is done, where that is the same bytes: what fails then has done nothing.
    fn try_reply(&self, caller: &mut impl Caller, size: u32, arg: u64, reply: &[u8]) -> KResult<()> {
        if self.quirks.has(Quirk::ReplyFaultAfterEffect) {
            return Ok(());
        }
        copy_out(caller, size, arg, reply)
    }

    fn ioctl_finish(
        &mut self,
        host: &mut H,
        caller: &mut impl Caller,
        key: SessionKey,
        size: u32,
        arg: u64,
    ) -> KResult<()> {
        let mut request = FinishArg::new_zeroed();
        copy_in(caller, Command::Finish, size, arg, request.as_mut_bytes())?;
        let reserved = request.reserved.get();
        if reserved != 0 && !self.quirks.has(Quirk::FinishIgnoresReserved) {
            return Err(Errno::EINVAL.because(format!("the reserved field is {reserved:#x}, not 0")));
        }
        self.try_reply(caller, size, arg, request.as_bytes())?;
        self.finish(host, key, FinishCause::Command)?;
        copy_out(caller, size, arg, request.as_bytes())
    }

    fn ioctl_get_name(
        &mut self,
        caller: &mut impl Caller,
        key: SessionKey,
        size: u32,
        arg: u64,
    ) -> KResult<()> {
        let mut request = GetNameArg::new_zeroed();
        copy_in(caller, Command::GetName, size, arg, request.as_mut_bytes())?;
        let reserved = request.reserved.get();
        if reserved != 0 {
            return Err(Errno::EINVAL.because(format!("the reserved field is {reserved:#x}, not 0")));
        }
        let name = self.session(key).expect("a session lives as long as its file").name;
        // The kernel copies machine words up to the one with the NUL: the rest stays as the caller gave it.
        let copied = ((name.len() + 8) & !7).min(NAME_LEN);
        request.name[..copied].copy_from_slice(&name.field()[..copied]);
        copy_out(caller, size, arg, request.as_bytes())
    }
}

fn find(table: &[Command], base: u8, code: u32, whose: &str) -> KResult<Command> {
    let nr = code.to_le_bytes()[0];
    let index = usize::from(nr.wrapping_sub(base));
    table
        .get(index)
        .copied()
        .ok_or_else(|| Errno::EINVAL.because(format!("command number {nr:#04x} is not one of {whose}")))
}

fn check_size_word(caller: &impl Caller, command: Command, code: u32, arg: u64) -> KResult<u32> {
    let size = extensible::size_word(caller, arg)?;
    if code != command.code() {
        let (name, want) = (command.name(), command.code());
        let why = format!("{code:#x} is not {name} ({want:#x}): wrong type, direction or size bits");
        return Err(Errno::ENOTTY.because(why));
    }
    Ok(size)
}

fn check_code(caller: &impl Caller, command: Command, code: u32, arg: u64) -> KResult<u32> {
    let size = check_size_word(caller, command, code, arg)?;
    check_min(command, size)?;
    Ok(size)
}

fn check_min(command: Command, size: u32) -> KResult<()> {
    extensible::check_min(command.name(), command.size(), size)
}

fn check_direction(session: &Session, command: Command) -> KResult<()> {
    let (want, is) = match (command.direction(), session.direction) {
        (ioctl::Direction::Outgoing, Direction::Incoming) => ("outgoing", "incoming"),
        (ioctl::Direction::Incoming, Direction::Outgoing) => ("incoming", "outgoing"),
        _ => return Ok(()),
    };
    let why = format!("{} wants an {want} session, {:?} is an {is} one", command.name(), session.name);
    Err(Errno::EINVAL.because(why))
}

fn copy_in(caller: &impl Caller, command: Command, size: u32, arg: u64, known: &mut [u8]) -> KResult<()> {
    extensible::copy_in(caller, command.name(), size, arg, known)
}
