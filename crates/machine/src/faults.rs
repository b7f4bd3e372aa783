//! Faults that are told to a machine beforehand and strike later: inside a system call, inside a reboot, between
//! two kernels. They depend on nothing but the calls made, so a run with faults repeats exactly.
//!
//! What is not told costs nothing: a flag is looked at where the fault would strike. Faults of a handler are the
//! test file's (`luosim_files::test_file`).

use luosim_abi::{Errno, KResult};
use luosim_luo::{Disturbance, Stop};
use luosim_physmem::PhysAddr;

use crate::Machine;
use crate::process::Pid;

/// Where the argument of an ioctl lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Argument {
    /// In memory that may be read and written.
    #[default]
    Normal,
    /// In a read-only page: the reply cannot be written back.
    ReadOnly,
    /// Nowhere.
    Unmapped,
}

/// A descriptor that another process closes while a reboot serialises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Closer {
    pid: Pid,
    fd: i32,
    point: u32,
}

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Words that change between this kernel and the next.
    pokes: Vec<(PhysAddr, u64)>,
    /// Where the next typed ioctl has its argument.
    pub(crate) argument: Argument,
    pub(crate) alloc: bool,
    stop: Option<(u32, Stop)>,
    closer: Option<Closer>,
}

impl Machine {
    /// In the next system call the `nth` allocation of memory, from 1, fails, and `times` in all.
    ///
    /// # Errors
    /// ESRCH if the machine is down.
    pub fn fail_alloc(&mut self, nth: u32, times: u32) -> KResult<()> {
        self.running()?.core.ram.frames.fail_alloc(nth, times);
        self.faults.alloc = nth > 0;
        Ok(())
    }

    /// Ends what [`Self::fail_alloc`] began: the call is over.
    pub(crate) fn alloc_again(&mut self) {
        if std::mem::take(&mut self.faults.alloc)
            && let Ok(kernel) = self.running()
        {
            kernel.core.ram.frames.fail_alloc(0, 0);
        }
    }

    /// The word at `addr` is `value` when the next kernel starts.
    pub fn poke_at_kexec(&mut self, addr: PhysAddr, value: u64) {
        self.faults.pokes.push((addr, value));
    }

    /// Where the next typed ioctl has its argument.
    pub fn place_argument(&mut self, argument: Argument) {
        self.faults.argument = argument;
    }

    /// The next reboot stops at a point of its serialisation ([`Disturbance`]).
    pub fn stop_reboot(&mut self, point: u32, stop: Stop) {
        self.faults.stop = Some((point, stop));
    }

    /// `pid` closes `fd` while the next reboot is at a point of its serialisation.
    pub fn close_in_reboot(&mut self, pid: Pid, fd: i32, point: u32) {
        self.faults.closer = Some(Closer { pid, fd, point });
    }

    /// Tells the kernel what will disturb its serialisation; gives the stop, and who closes what.
    pub(crate) fn disturb(&mut self) -> KResult<Disturbed> {
        let (stop, closer) = (self.faults.stop.take(), self.faults.closer.take());
        if stop.is_none() && closer.is_none() {
            return Ok(Disturbed::default());
        }
        let kernel = self.running()?;
        let close =
            closer.and_then(|closer| Some((closer.point, kernel.last_of_session(closer.pid, closer.fd)?)));
        kernel.luo.disturb(Disturbance { stop, close });
        let panics = stop.is_some_and(|(_, stop)| stop == Stop::Panic);
        Ok(Disturbed { panics, closer: closer.map(|closer| (closer.pid, closer.fd)) })
    }

    /// After the serialisation: a close that waited is done if this kernel goes on.
    pub(crate) fn calm(&mut self, disturbed: &Disturbed, refused: bool) {
        self.alloc_again();
        if let Ok(kernel) = self.running() {
            kernel.luo.disturb(Disturbance::default());
        }
        if let Some((pid, fd)) = disturbed.closer.filter(|_| refused) {
            // The descriptor may be gone by then, as in a kernel.
            let _ = self.close(pid, fd);
        }
    }

    /// Words that changed between the kernels.
    pub(crate) fn take_pokes(&mut self) -> Vec<(PhysAddr, u64)> {
        std::mem::take(&mut self.faults.pokes)
    }

    /// Faults that were told and did not strike are forgotten.
    pub fn forget_faults(&mut self) {
        self.alloc_again();
        self.faults = Faults::default();
    }
}

/// What was done to a serialisation.
#[derive(Debug, Default)]
pub(crate) struct Disturbed {
    pub(crate) panics: bool,
    closer: Option<(Pid, i32)>,
}

/// What a reboot answers when the kernel died in it: nobody is there to hear it.
pub(crate) fn died() -> luosim_abi::Refusal {
    Errno::ESRCH.because("the kernel panicked inside the reboot")
}
