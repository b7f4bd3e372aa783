//! Faults that are told to a machine beforehand and strike later: inside a system call, inside a reboot, between
//! two kernels. They depend on nothing but the calls made, so a run with faults repeats exactly.
//!
//! What is not told costs nothing: a flag is looked at where the fault would strike. Faults of a handler are the
//! test file's (`luosim_files::test_file`).

use luosim_abi::{Errno, KResult};
use luosim_files::FileKind;
use luosim_luo::{Disturbance, FileId, Stop};
use luosim_physmem::PhysAddr;

use crate::core::Core;
use crate::process::Pid;
use crate::{Kernel, Machine};

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

/// A call that another process makes while a reboot serialises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intrusion {
    /// Closes a session: waits for the end of the serialisation.
    Close,
    /// Writes to a file, which waits for nobody.
    Write(u64, Vec<u8>),
    /// Moves a file's position, which waits for nobody.
    Seek(u64),
}

/// Who makes it, on which descriptor, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Intruder {
    pid: Pid,
    fd: i32,
    point: u32,
    call: Intrusion,
}

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Words that change between this kernel and the next.
    pokes: Vec<(PhysAddr, u64)>,
    /// Where the next typed ioctl has its argument.
    pub(crate) argument: Argument,
    pub(crate) alloc: bool,
    /// Whether the last allocation failure that was told has happened.
    struck: bool,
    stop: Option<(u32, Stop)>,
    intruder: Option<Intruder>,
}

impl Faults {
    /// Nothing told any more. What became of the last allocation failure can still be asked.
    pub(crate) fn after_boot(before: &Self) -> Self {
        Self { struck: before.struck, ..Self::default() }
    }
}

impl Machine {
    /// In the next system call the `nth` allocation of memory, from 1, fails, and `times` in all.
    ///
    /// # Errors
    /// ESRCH if the machine is down.
    pub fn fail_alloc(&mut self, nth: u32, times: u32) -> KResult<()> {
        self.running()?.core.ram.frames.fail_alloc(nth, times);
        self.faults.alloc = nth > 0;
        self.faults.struck = false;
        Ok(())
    }

    /// Ends what [`Self::fail_alloc`] began: the call is over.
    pub(crate) fn alloc_again(&mut self) {
        if std::mem::take(&mut self.faults.alloc)
            && let Ok(kernel) = self.running()
        {
            let struck = !kernel.core.ram.frames.will_fail();
            kernel.core.ram.frames.fail_alloc(0, 0);
            self.faults.struck = struck;
        }
    }

    /// Whether the allocation failure that was told last has happened: the call made as many allocations.
    #[must_use]
    pub fn alloc_failed(&self) -> bool {
        self.faults.struck
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

    /// `pid` makes a call on `fd` while the next reboot is at a point of its serialisation.
    pub fn intrude_in_reboot(&mut self, pid: Pid, fd: i32, point: u32, call: Intrusion) {
        self.faults.intruder = Some(Intruder { pid, fd, point, call });
    }

    /// Tells the kernel what will disturb its serialisation; gives the stop, and who waits with a close.
    pub(crate) fn disturb(&mut self) -> KResult<Disturbed> {
        let (stop, intruder) = (self.faults.stop.take(), self.faults.intruder.take());
        if stop.is_none() && intruder.is_none() {
            return Ok(Disturbed::default());
        }
        let kernel = self.running()?;
        let mut told = Disturbance { stop, ..Disturbance::default() };
        let mut closer = None;
        if let Some(Intruder { pid, fd, point, call }) = intruder {
            if call == Intrusion::Close {
                told.close = kernel.last_of_session(pid, fd).map(|key| (point, key));
                closer = Some((pid, fd));
            } else {
                told.intrusion = Some(point);
                kernel.core.intrusion = kernel.intrusion(pid, fd, call);
            }
        }
        kernel.luo.disturb(told);
        Ok(Disturbed { panics: stop.is_some_and(|(_, stop)| stop == Stop::Panic), closer })
    }

    /// After the serialisation: a close that waited is done if this kernel goes on.
    pub(crate) fn calm(&mut self, disturbed: &Disturbed, refused: bool) {
        self.alloc_again();
        if let Ok(kernel) = self.running() {
            kernel.luo.disturb(Disturbance::default());
            // The serialisation was refused before that point, and the call is made now.
            if let Some(intrusion) = kernel.core.intrusion.take().filter(|_| refused) {
                intrusion.make(&mut kernel.core);
            }
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

/// A call of the kernel, looked up and checked, that is made at a point of the serialisation.
#[derive(Debug)]
pub(crate) struct Pending {
    file: FileId,
    call: Intrusion,
    window: u64,
}

impl Pending {
    /// Makes the call. What it answers nobody hears; a file that is gone is gone.
    pub(crate) fn make(self, core: &mut Core) {
        match (self.call, core.files.table.get(self.file).kind) {
            (Intrusion::Seek(to), _) => {
                core.files.table.get_mut(self.file).pos = to.min(i64::MAX.unsigned_abs());
            }
            (Intrusion::Write(at, bytes), FileKind::Shmem(inode)) => {
                let inode = core.files.inodes.get_mut(inode);
                let _ = inode.write_at(&mut core.ram, at, &bytes, self.window);
            }
            (Intrusion::Write(..) | Intrusion::Close, _) => {}
        }
    }
}

impl Kernel {
    /// What the process's call would do, if its descriptor is a memory file that allows it.
    fn intrusion(&self, pid: Pid, fd: i32, call: Intrusion) -> Option<Pending> {
        let file = self.file(pid, fd).ok()?;
        let open = self.core.files.table.get(file);
        let allowed = match call {
            Intrusion::Write(..) => open.writable(),
            Intrusion::Seek(_) => true,
            Intrusion::Close => false,
        };
        let window = self.write_window();
        (allowed && matches!(open.kind, FileKind::Shmem(_))).then_some(Pending { file, call, window })
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
