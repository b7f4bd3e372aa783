//! `ioctl(2)`, raw and typed.
//!
//! The raw call takes an address in the process's memory, like the real one. The typed calls put their
//! structure into a page of the process and make the raw call, so that both take the same way. Those for sessions are
//! encoded for the fourth posted design if that is what runs.

use luosim_abi::ioctl::{Command, FdArg, FinishArg, GetNameArg, NAME_LEN, SessionArg};
use luosim_abi::posted::v4::SessionCommand;
use luosim_abi::{Errno, KResult};
use luosim_files::{FileKind, flags};
use luosim_hardware::timeline::Phase;
use luosim_hardware::verify::TimePoint;
use luosim_luo::FileId;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::address_space::Protection;
use crate::caller::ProcessCaller;
use crate::faults::Argument;
use crate::posted::dispatch;
use crate::process::Pid;
use crate::{Kernel, Machine};

/// Answered by the VFS for any file: set or clear `O_NONBLOCK`.
const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
/// Block size of the file system, 4096 on all of the model's.
const FIGETBSZ: u32 = 2;
const FIOCLEX: u32 = 0x5451;
const FIONCLEX: u32 = 0x5450;

impl Kernel {
    /// Commands that the VFS takes before any file sees them.
    fn vfs_ioctl(&mut self, pid: Pid, file: FileId, code: u32, arg: u64) -> KResult<()> {
        let (process, core) = self.parts(pid)?;
        if code == FIGETBSZ {
            return process.memory.write(arg, &4096u32.to_le_bytes());
        }
        let mut word = [0; 4];
        process.memory.read(arg, &mut word)?;
        let on = word != [0; 4];
        if code == FIOASYNC {
            let none = || Errno::ENOTTY.because("the file sends no signals");
            return if on { Err(none()) } else { Ok(()) };
        }
        let open = core.files.table.get_mut(file);
        open.flags = open.flags & !flags::NONBLOCK | if on { flags::NONBLOCK } else { 0 };
        Ok(())
    }
}

impl Machine {
    /// `ioctl(2)`: command number and address of the argument.
    ///
    /// # Errors
    /// EBADF; ENOTTY: the file has no such commands; for the device and sessions as their dispatch says.
    pub fn ioctl(&mut self, pid: Pid, fd: i32, code: u32, arg: u64) -> KResult<()> {
        if let FIOCLEX | FIONCLEX = code {
            self.check_fd(pid, fd)?;
            return self.set_cloexec(pid, fd, code == FIOCLEX);
        }
        self.call(pid, |kernel| {
            let file = kernel.file(pid, fd)?;
            if let FIONBIO | FIOASYNC | FIGETBSZ = code {
                return kernel.vfs_ioctl(pid, file, code, arg);
            }
            let kind = kernel.kind(file);
            if let FileKind::Driver(file) = kind {
                let driver = kernel.driver_for(file, Errno::ENOTTY)?;
                return driver.ioctl(&mut kernel.core, file.object, code, arg);
            }
            let process = kernel.processes.get_mut(&pid).expect("it owns the descriptor");
            let mut caller = ProcessCaller(process);
            let orchestrators = (&mut kernel.luo, &mut kernel.control);
            dispatch(orchestrators, &mut kernel.core, kind, &mut caller, code, arg)
        })
    }

    /// The process's page for arguments, made at first use.
    fn argument(&mut self, pid: Pid) -> KResult<u64> {
        let (process, _) = self.running()?.parts(pid)?;
        if process.argument == 0 {
            process.argument = process.memory.map(4096);
        }
        Ok(process.argument)
    }

    /// Puts `request` into memory, makes the call, and reads the structure back.
    pub(super) fn typed<T: IntoBytes + FromBytes + zerocopy::Immutable>(
        &mut self,
        pid: Pid,
        fd: i32,
        code: u32,
        request: &T,
    ) -> KResult<T> {
        let arg = self.argument(pid)?;
        self.running()?.parts(pid)?.0.memory.write(arg, request.as_bytes())?;
        match std::mem::take(&mut self.faults.argument) {
            Argument::Normal => self.ioctl(pid, fd, code, arg)?,
            Argument::Unmapped => self.ioctl(pid, fd, code, 8)?,
            Argument::ReadOnly => self.ioctl_read_only(pid, fd, code, arg)?,
        }
        let mut reply = T::new_zeroed();
        self.running()?.parts(pid)?.0.memory.read(arg, reply.as_mut_bytes())?;
        Ok(reply)
    }

    /// An ioctl whose argument lies in a page that cannot be written.
    fn ioctl_read_only(&mut self, pid: Pid, fd: i32, code: u32, arg: u64) -> KResult<()> {
        let protect = |machine: &mut Self, protection| -> KResult<()> {
            machine.running()?.parts(pid)?.0.memory.protect(arg, 4096, protection);
            Ok(())
        };
        protect(self, Protection::ReadOnly)?;
        let answer = self.ioctl(pid, fd, code, arg);
        protect(self, Protection::ReadWrite)?;
        answer
    }

    fn session_call(&mut self, pid: Pid, device: i32, command: Command, name: &[u8]) -> KResult<i32> {
        if self.has_posted_sessions() {
            return self.posted_session(pid, device, command == Command::CreateSession, name);
        }
        let mut request = SessionArg::new_zeroed();
        request.size = size_of_u32::<SessionArg>().into();
        request.fd = (-1).into();
        let len = name.len().min(NAME_LEN);
        request.name[..len].copy_from_slice(&name[..len]);
        Ok(self.typed(pid, device, command.code(), &request)?.fd.get())
    }

    /// CREATE_SESSION with the bytes of a name (up to 64; a NUL is added if there is room).
    ///
    /// # Errors
    /// EMFILE; EINVAL; ENOMEM; ENOSPC; EEXIST.
    pub fn create_session(&mut self, pid: Pid, device: i32, name: &[u8]) -> KResult<i32> {
        self.session_call(pid, device, Command::CreateSession, name)
    }

    /// RETRIEVE_SESSION.
    ///
    /// # Errors
    /// EMFILE; ENOENT; EINVAL.
    pub fn retrieve_session(&mut self, pid: Pid, device: i32, name: &[u8]) -> KResult<i32> {
        self.session_call(pid, device, Command::RetrieveSession, name)
    }

    fn fd_call(&mut self, pid: Pid, session: i32, code: u32, fd: i32, token: u64) -> KResult<i32> {
        let request = FdArg { size: size_of_u32::<FdArg>().into(), fd: fd.into(), token: token.into() };
        Ok(self.typed(pid, session, code, &request)?.fd.get())
    }

    /// PRESERVE_FD.
    ///
    /// # Errors
    /// EEXIST; ENOSPC; EBADF; ENOENT; EBUSY; EINVAL: direction; what the handler says.
    pub fn preserve_fd(&mut self, pid: Pid, session: i32, fd: i32, token: u64) -> KResult<()> {
        self.spend(Phase::Preserve);
        self.fd_call(pid, session, Command::PreserveFd.code(), fd, token)?;
        self.watch_preserved();
        Ok(())
    }

    /// RETRIEVE_FD.
    ///
    /// # Errors
    /// EMFILE; ENOENT; EINVAL: direction; what the handler says.
    pub fn retrieve_fd(&mut self, pid: Pid, session: i32, token: u64) -> KResult<i32> {
        self.spend(Phase::Retrieve);
        let posted = self.has_posted_sessions();
        let code = if posted { SessionCommand::RestoreFd.code() } else { Command::RetrieveFd.code() };
        let fd = self.fd_call(pid, session, code, -1, token);
        self.observe(TimePoint::T6);
        self.note_lost_memory(fd.is_err());
        fd
    }

    /// FINISH.
    ///
    /// # Errors
    /// EINVAL: direction, or `reserved` is not 0; EBUSY.
    pub fn finish(&mut self, pid: Pid, session: i32, reserved: u32) -> KResult<()> {
        let request = FinishArg { size: size_of_u32::<FinishArg>().into(), reserved: reserved.into() };
        self.spend(Phase::Finish);
        self.typed(pid, session, Command::Finish.code(), &request)?;
        self.watch_finish();
        self.enter(Phase::Run);
        Ok(())
    }

    /// GET_NAME: the bytes before the NUL.
    ///
    /// # Errors
    /// EINVAL: before 7.2.
    pub fn get_name(&mut self, pid: Pid, session: i32) -> KResult<Vec<u8>> {
        let mut request = GetNameArg::new_zeroed();
        request.size = size_of_u32::<GetNameArg>().into();
        let reply = self.typed(pid, session, Command::GetName.code(), &request)?;
        let end = reply.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        Ok(reply.name[..end].to_vec())
    }

    /// The process's memory, to place arguments of raw calls in.
    ///
    /// # Errors
    /// ESRCH.
    pub fn process_memory(&mut self, pid: Pid) -> KResult<&mut crate::address_space::AddressSpace> {
        Ok(&mut self.running()?.parts(pid)?.0.memory)
    }
}

pub(super) fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("the structures are small")
}
