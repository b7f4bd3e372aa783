//! `kexec_file_load`, `kexec_load` and `reboot`: the image in them is the model's next kernel.

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_kho::BootParams;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, BootReport, ImageKind, Outcome};
use luosim_physmem::PhysMem;

use super::{Down, Reply, low, signed};
use crate::deed::{Answer, Deed};
use crate::gate::Gate;
use crate::task::Task;

const FILE_UNLOAD: u64 = 1;
const FILE_ON_CRASH: u64 = 2;
const FILE_FLAGS: u64 = 0x1f;
const COMMAND_LINE_MAX: u64 = 2048;
const LOAD_ON_CRASH: u64 = 1;
const LOAD_PRESERVE_CONTEXT: u64 = 2;
const SEGMENT_MAX: u64 = 16;

const MAGIC1: u32 = 0xfee1_dead;
const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
const RESTART: u32 = 0x0123_4567;
const RESTART2: u32 = 0xA1B2_C3D4;
const HALT: u32 = 0xCDEF_0123;
const POWER_OFF: u32 = 0x4321_FEDC;
const CAD_ON: u32 = 0x89AB_CDEF;
const CAD_OFF: u32 = 0;
const KEXEC: u32 = 0x4558_4543;

/// Called at each kexec with the memory between the kernels and the two address/size pairs.
pub type Look = Box<dyn FnMut(&PhysMem, Option<BootParams>)>;

/// Which kernels follow.
pub(crate) struct Loader {
    /// Releases in their order; the last one repeats.
    pub(crate) releases: Vec<ReleaseId>,
    /// How a kernel is booted, but for its command line.
    pub(crate) options: BootOptions,
    pub(crate) look: Look,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("releases", &self.releases).finish_non_exhaustive()
    }
}

impl Loader {
    /// The release of kernel `generation`, from 1.
    pub(crate) fn release(&self, generation: u32) -> ReleaseId {
        let index = usize::try_from(generation.saturating_sub(1)).unwrap_or(usize::MAX);
        self.releases[index.min(self.releases.len() - 1)]
    }
}

/// Who may not boot, as a reason.
fn check_boot(gate: &mut Gate, task: &Task, what: &str) -> KResult<Pid> {
    let who = task.identity();
    let pid = Pid(who.pid);
    if gate.privileged && !who.may_boot() {
        return Err(Errno::EPERM.because(format!("{what} needs CAP_SYS_BOOT")));
    }
    // The model asks for uid 0, which stands for the capability.
    let met = gate.machine.meet(pid, &who.name, 0);
    met.map(|()| pid)
}

impl Gate {
    fn load(&mut self, pid: Pid, cmdline: Option<String>, kind: ImageKind) -> KResult<()> {
        let release = self.loader.release(self.machine.generation() + 1);
        let current = self.machine.kernel().map(|kernel| kernel.cmdline().to_owned()).unwrap_or_default();
        let options = BootOptions { cmdline: cmdline.unwrap_or(current), ..self.loader.options.clone() };
        let loaded = self.machine.load_image(pid, release, options, kind);
        self.show_image();
        loaded
    }

    fn unload(&mut self, pid: Pid) -> KResult<()> {
        let unloaded = self.machine.unload_image(pid);
        self.show_image();
        unloaded
    }

    pub(super) fn kexec_file_load(&mut self, tid: i32, args: [u64; 6]) -> Reply {
        let Some(task) = self.know(tid).ok() else { return Reply::Gone };
        let mut cmdline = None;
        let result = self.file_load(&task, args, &mut cmdline);
        let user = Pid(task.identity().pid);
        self.reply_load(user, result, false, cmdline)
    }

    fn reply_load(&mut self, user: Pid, result: KResult<()>, old: bool, cmdline: Option<String>) -> Reply {
        let answer = match &result {
            Ok(()) => Answer::Value(0),
            Err(refusal) => Answer::Refused(refusal.clone()),
        };
        self.note(user, || Deed::LoadImage { old, cmdline }, answer);
        result.map_or_else(Reply::Refuse, |()| Reply::Value(0))
    }

    fn file_load(&mut self, task: &Task, args: [u64; 6], cmdline: &mut Option<String>) -> KResult<()> {
        let [kernel, initrd, len, text, flags, _] = args;
        let pid = check_boot(self, task, "kexec_file_load")?;
        if flags & !FILE_FLAGS != 0 {
            return Err(Errno::EINVAL.because(format!("flags {flags:#x} are not all known")));
        }
        if flags & FILE_UNLOAD != 0 {
            return if flags & FILE_ON_CRASH != 0 { Ok(()) } else { self.unload(pid) };
        }
        let bytes = read_kernel(task, signed(kernel))?;
        if bytes == 0 {
            return Err(Errno::ENOEXEC.because("the kernel file is empty"));
        }
        // KEXEC_FILE_NO_INITRAMFS: the second descriptor does not count.
        if flags & 4 == 0 {
            task.descriptor(signed(initrd))?;
        }
        *cmdline = Some(read_cmdline(task, text, len)?);
        let kind = if flags & FILE_ON_CRASH != 0 { ImageKind::Crash } else { ImageKind::File };
        self.load(pid, cmdline.clone(), kind)
    }

    pub(super) fn kexec_load(&mut self, tid: i32, args: [u64; 6]) -> Reply {
        let Some(task) = self.know(tid).ok() else { return Reply::Gone };
        let (segments, flags) = (args[1], args[3]);
        let result = check_boot(self, &task, "kexec_load").and_then(|pid| {
            if segments > SEGMENT_MAX {
                return Err(Errno::EINVAL.because(format!("{segments} segments are more than {SEGMENT_MAX}")));
            }
            let crash = flags & LOAD_ON_CRASH != 0;
            match segments {
                0 if crash => Ok(()),
                0 => self.unload(pid),
                _ if crash => self.load(pid, None, ImageKind::Crash),
                _ if flags & LOAD_PRESERVE_CONTEXT != 0 => self.load(pid, None, ImageKind::PreserveContext),
                _ => self.load(pid, None, ImageKind::Old),
            }
        });
        let loaded = (segments > 0).then(String::new);
        self.reply_load(Pid(task.identity().pid), result, true, loaded)
    }

    pub(super) fn reboot(&mut self, tid: i32, args: [u64; 6]) -> Reply {
        let Some(task) = self.know(tid).ok() else { return Reply::Gone };
        let (magic1, magic2, command) = (low(args[0]), low(args[1]), low(args[2]));
        let user = Pid(task.identity().pid);
        // Told before it is done: afterwards it may be another kernel.
        self.settle_all();
        self.note(user, || Deed::Reboot { command: command_name(command) }, Answer::None);
        let result = check_boot(self, &task, "reboot").and_then(|pid| {
            if magic1 != MAGIC1 || !MAGIC2.contains(&magic2) {
                return Err(
                    Errno::EINVAL.because(format!("{magic1:#x} and {magic2} are not reboot's magic numbers"))
                );
            }
            self.reboot_command(pid, command)
        });
        self.note_answer(match &result {
            Ok(Reply::Value(value)) => Answer::Value(*value),
            Ok(_) => Answer::None,
            Err(refusal) => Answer::Refused(refusal.clone()),
        });
        result.unwrap_or_else(Reply::Refuse)
    }

    fn reboot_command(&mut self, pid: Pid, command: u32) -> KResult<Reply> {
        match command {
            KEXEC => self.kexec(pid).map(|report| match report.outcome {
                // The image preserved the context: the jump came back.
                Outcome::Returned => Reply::Value(0),
                _ => Reply::Down(Down::Kexec(Box::new(report))),
            }),
            RESTART | RESTART2 => Ok(Reply::Down(Down::Restart)),
            HALT | POWER_OFF => Ok(Reply::Down(Down::Off)),
            CAD_ON | CAD_OFF => Ok(Reply::Value(0)),
            _ => Err(Errno::EINVAL.because(format!("reboot does not know the command {command:#x}"))),
        }
    }

    /// The jump, made by process `pid`, when every last close has just been noticed: asking takes long where there are
    /// many sessions.
    fn kexec(&mut self, pid: Pid) -> KResult<BootReport> {
        self.refresh_positions();
        let look = &mut self.loader.look;
        self.machine.kexec_with(pid, |memory, params| look(memory, params))
    }

    /// The jump, made by an operator from outside: with the image that is loaded, or with one like this kernel.
    pub(crate) fn kexec_by_operator(&mut self) -> KResult<BootReport> {
        let pid = Pid(0);
        self.machine.meet(pid, "operator", 0)?;
        let loaded = self.machine.kernel().is_some_and(|kernel| kernel.image().is_some());
        if !loaded {
            self.load(pid, None, ImageKind::File)?;
            let cmdline = self.machine.kernel().map(|kernel| kernel.cmdline().to_owned());
            self.note(pid, || Deed::LoadImage { old: false, cmdline }, Answer::Value(0));
        }
        self.settle_all();
        self.note(pid, || Deed::Reboot { command: command_name(KEXEC) }, Answer::None);
        let booted = self.kexec(pid);
        if let Err(refusal) = &booted {
            self.note_answer(Answer::Refused(refusal.clone()));
        }
        booted
    }
}

fn command_name(command: u32) -> &'static str {
    match command {
        KEXEC => "LINUX_REBOOT_CMD_KEXEC",
        RESTART => "LINUX_REBOOT_CMD_RESTART",
        RESTART2 => "LINUX_REBOOT_CMD_RESTART2",
        HALT => "LINUX_REBOOT_CMD_HALT",
        POWER_OFF => "LINUX_REBOOT_CMD_POWER_OFF",
        CAD_ON => "LINUX_REBOOT_CMD_CAD_ON",
        CAD_OFF => "LINUX_REBOOT_CMD_CAD_OFF",
        _ => "?",
    }
}

/// How many bytes the kernel file has; what is in them does not matter here.
fn read_kernel(task: &Task, fd: i32) -> KResult<u64> {
    let file = task.descriptor(fd)?;
    let stat =
        rustix::fs::fstat(&file).map_err(|error| super::host_refusal(&error.into(), "the kernel file"))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL.because("the kernel file is not a regular file"));
    }
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn read_cmdline(task: &Task, addr: u64, len: u64) -> KResult<String> {
    if len == 0 {
        return Ok(String::new());
    }
    if len > COMMAND_LINE_MAX {
        return Err(Errno::EINVAL.because(format!("a command line of {len} bytes is too long")));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("at most the longest")];
    task.read(addr, &mut bytes)?;
    if bytes.pop() != Some(0) {
        return Err(Errno::EINVAL.because("the command line does not end in NUL within its length"));
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}
