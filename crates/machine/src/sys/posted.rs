//! Typed calls of the posted designs.
//!
//! A call is encoded as a program built for the running kernel would: for the second design, the fourth, and for the
//! third on every other kernel. A program of one design on another kernel is a raw `ioctl`.

use luosim_abi::KResult;
use luosim_abi::posted::v4::{self, SessionCommand, SessionGetState, SessionUnpreserveFd};
use luosim_abi::posted::{Design, Event, v2, v3};
use luosim_files::FileKind;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::luo::size_of_u32;
use crate::Machine;
use crate::process::Pid;

impl Machine {
    fn design(&self) -> Option<Design> {
        self.kernel().and_then(|kernel| kernel.release().posted)
    }

    /// Whether the running kernel is of the fourth design.
    pub(super) fn has_posted_sessions(&self) -> bool {
        self.design() == Some(Design::V4)
    }

    fn is_session(&self, pid: Pid, fd: i32) -> bool {
        let kind = self.kernel().and_then(|kernel| Some(kernel.kind(kernel.file(pid, fd).ok()?)));
        matches!(kind, Some(FileKind::Session(_)))
    }

    /// FD_PRESERVE; `flags` are the second design's.
    ///
    /// # Errors
    /// EBADF; EBUSY; ENOENT; EEXIST; EFAULT.
    pub fn fd_preserve(&mut self, pid: Pid, device: i32, fd: i32, token: u64, flags: u32) -> KResult<()> {
        self.fd_command(pid, device, (v2::Command::FdPreserve, v3::Command::FdPreserve), fd, token, flags)
            .map(|_| ())
    }

    /// FD_RESTORE.
    ///
    /// # Errors
    /// EMFILE; EBUSY; ENOENT; EINVAL: given back before; what the handler says; EFAULT.
    pub fn fd_restore(&mut self, pid: Pid, device: i32, token: u64) -> KResult<i32> {
        self.fd_command(pid, device, (v2::Command::FdRestore, v3::Command::FdRestore), -1, token, 0)
    }

    fn fd_command(
        &mut self,
        pid: Pid,
        device: i32,
        (second, third): (v2::Command, v3::Command),
        fd: i32,
        token: u64,
        flags: u32,
    ) -> KResult<i32> {
        if self.design() == Some(Design::V2) {
            let request = v2::LiveupdateFd { fd: fd.into(), flags: flags.into(), token: token.into() };
            return Ok(self.typed(pid, device, second.code(), &request)?.fd.get());
        }
        let request = v3::Fd { size: size_of_u32::<v3::Fd>().into(), fd: fd.into(), token: token.into() };
        Ok(self.typed(pid, device, third.code(), &request)?.fd.get())
    }

    /// FD_UNPRESERVE.
    ///
    /// # Errors
    /// EBUSY; ENOENT.
    pub fn fd_unpreserve(&mut self, pid: Pid, device: i32, token: u64) -> KResult<()> {
        if self.design() == Some(Design::V2) {
            let request = U64::new(token);
            return self.typed(pid, device, v2::Command::FdUnpreserve.code(), &request).map(|_| ());
        }
        let size = size_of_u32::<v3::FdUnpreserve>();
        let request = v3::FdUnpreserve { size: size.into(), hole: 0.into(), token: token.into() };
        self.typed(pid, device, v3::Command::FdUnpreserve.code(), &request).map(|_| ())
    }

    /// GET_STATE of the machine, or of a session: the number.
    ///
    /// # Errors
    /// ENOTTY, EINVAL on kernels without it; EFAULT.
    pub fn get_state(&mut self, pid: Pid, fd: i32) -> KResult<u32> {
        let (design, code) = (self.design(), v3::Command::GetState.code());
        if design == Some(Design::V4) && self.is_session(pid, fd) {
            let mut request = SessionGetState::new_zeroed();
            request.size = size_of_u32::<SessionGetState>().into();
            return Ok(self.typed(pid, fd, SessionCommand::GetState.code(), &request)?.state.get());
        }
        if design == Some(Design::V2) {
            let request = U32::new(0);
            return Ok(self.typed(pid, fd, v2::Command::GetState.code(), &request)?.get());
        }
        let code = if design == Some(Design::V4) { v4::DeviceCommand::GetState.code() } else { code };
        let request = v3::Word { size: size_of_u32::<v3::Word>().into(), value: 0.into() };
        Ok(self.typed(pid, fd, code, &request)?.value.get())
    }

    /// PREPARE, CANCEL and FINISH of the second design, SET_EVENT of the others, of the machine or of a session. An event
    /// that the second design has no command for is the number in its hole.
    ///
    /// # Errors
    /// As the state machine says; what subsystems and handlers say.
    pub fn set_event(&mut self, pid: Pid, fd: i32, event: Event) -> KResult<()> {
        let code = match self.design() {
            Some(Design::V2) => {
                let code = match event {
                    Event::Prepare => v2::Command::Prepare.code(),
                    Event::Freeze => v2::HOLE,
                    Event::Finish => v2::Command::Finish.code(),
                    Event::Cancel => v2::Command::Cancel.code(),
                };
                return self.ioctl(pid, fd, code, 0);
            }
            Some(Design::V4) if self.is_session(pid, fd) => SessionCommand::SetEvent.code(),
            Some(Design::V4) => v4::DeviceCommand::SetEvent.code(),
            _ => v3::Command::SetEvent.code(),
        };
        let request = v3::Word { size: size_of_u32::<v3::Word>().into(), value: event.raw().into() };
        self.typed(pid, fd, code, &request).map(|_| ())
    }

    /// GET_FD_STATE: the number.
    ///
    /// # Errors
    /// ENOENT.
    pub fn fd_state(&mut self, pid: Pid, device: i32, token: u64, incoming: bool) -> KResult<u32> {
        let mut request = v3::FdState::new_zeroed();
        request.size = size_of_u32::<v3::FdState>().into();
        request.incoming = u8::from(incoming);
        request.token = token.into();
        Ok(self.typed(pid, device, v3::Command::GetFdState.code(), &request)?.state.get())
    }

    /// SET_FD_EVENT.
    ///
    /// # Errors
    /// ENOENT; EBUSY: FINISH while the machine is not UPDATED; what the handler says.
    pub fn fd_event(&mut self, pid: Pid, device: i32, event: Event, token: u64) -> KResult<()> {
        let size = size_of_u32::<v3::FdEvent>();
        let request = v3::FdEvent { size: size.into(), event: event.raw().into(), token: token.into() };
        self.typed(pid, device, v3::Command::SetFdEvent.code(), &request).map(|_| ())
    }

    /// SESSION_UNPRESERVE_FD.
    ///
    /// # Errors
    /// EOPNOTSUPP: `reserved` is not 0; EBUSY; ENOENT.
    pub fn session_unpreserve(&mut self, pid: Pid, session: i32, token: u64, reserved: u32) -> KResult<()> {
        let size = size_of_u32::<SessionUnpreserveFd>();
        let request = SessionUnpreserveFd { size: size.into(), hole: reserved.into(), token: token.into() };
        self.typed(pid, session, SessionCommand::UnpreserveFd.code(), &request).map(|_| ())
    }

    /// CREATE_SESSION or RETRIEVE_SESSION of the fourth design.
    pub(super) fn posted_session(
        &mut self,
        pid: Pid,
        device: i32,
        create: bool,
        name: &[u8],
    ) -> KResult<i32> {
        if create {
            let mut request = v4::CreateSession::new_zeroed();
            request.size = size_of_u32::<v4::CreateSession>().into();
            put_name(&mut request.name, name);
            return Ok(self.typed(pid, device, v4::DeviceCommand::CreateSession.code(), &request)?.fd.get());
        }
        let mut request = v4::RetrieveSession::new_zeroed();
        request.size = size_of_u32::<v4::RetrieveSession>().into();
        put_name(&mut request.name, name);
        Ok(self.typed(pid, device, v4::DeviceCommand::RetrieveSession.code(), &request)?.fd.get())
    }
}

fn put_name(field: &mut [u8], name: &[u8]) {
    let len = name.len().min(field.len());
    field.as_mut_bytes()[..len].copy_from_slice(&name[..len]);
}
