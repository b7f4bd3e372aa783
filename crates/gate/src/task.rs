//! A thread of a served program: its memory, its descriptors, its limits, who it is.
//!
//! An address that a program gives is an allegation: every access is a copy by the host, which checks it. Copies
//! end at page borders, so that what lies before an unmapped page is still had.
#![expect(unsafe_code, reason = "process_vm_readv and process_vm_writev")]

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use luosim_abi::{Errno, KResult};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// `PIDFD_THREAD` (Linux 6.9): a descriptor of a thread that is not a group's leader.
pub(crate) const PIDFD_THREAD: u32 = 0o200;
const CAP_SYS_BOOT: u32 = 22;
const CAP_DAC_OVERRIDE: u32 = 1;

/// One thread.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its number as the supervisor sees it.
    pub(crate) tid: i32,
    pidfd: OwnedFd,
    /// Who it is, as far as asked.
    identity: Identity,
}

/// Who a thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its process's number in the innermost namespace, the one it sees itself.
    pub(crate) pid: u32,
    /// Name of the program.
    pub(crate) name: String,
    /// Effective user id, in the supervisor's namespace.
    pub(crate) uid: u32,
    /// Effective group id, likewise.
    pub(crate) gid: u32,
    capabilities: u64,
}

impl Identity {
    /// Whether it may reboot.
    pub(crate) fn may_boot(&self) -> bool {
        self.capabilities & 1 << CAP_SYS_BOOT != 0
    }

    /// Whether file permissions do not bind it.
    pub(crate) fn overrides_permissions(&self) -> bool {
        self.capabilities & 1 << CAP_DAC_OVERRIDE != 0
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error()).unwrap_or(Errno::EIO)
}

/// What the host said, and what to do if it is our own room that is not enough: no errno of a program's says that.
pub(crate) fn told(error: &io::Error) -> String {
    let full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    let advice = ": luosim itself has no descriptor left, of which each preserved file takes three; raise the hard limit of open files \
                  (ulimit -H -n)";
    format!("{error}{}", if full { advice } else { "" })
}

fn fault(addr: u64, what: &str) -> luosim_abi::Refusal {
    Errno::EFAULT.because(format!("the program's memory at {addr:#x} cannot be {what}"))
}

/// `/proc/TID/status`, the lines we need.
fn identify(tid: i32) -> io::Result<Identity> {
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    let last = |text: String| text.split_whitespace().next_back().and_then(|word| word.parse().ok());
    let effective = |name: &str| field(name).split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Ok(Identity {
        pid: last(field("NStgid:")).or_else(|| last(field("Tgid:"))).unwrap_or(0),
        name: field("Name:"),
        uid: effective("Uid:").unwrap_or(u32::MAX),
        gid: effective("Gid:").unwrap_or(u32::MAX),
        capabilities: u64::from_str_radix(&field("CapEff:"), 16).unwrap_or(0),
    })
}

fn open_pidfd(tid: i32) -> io::Result<OwnedFd> {
    let pid = |raw| Pid::from_raw(raw).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH));
    let thread = PidfdFlags::from_bits_retain(PIDFD_THREAD);
    if let Ok(fd) = pidfd_open(pid(tid)?, thread) {
        return Ok(fd);
    }
    let status = fs::read_to_string(format!("/proc/{tid}/status"))?;
    let group =
        status.lines().find_map(|line| line.strip_prefix("Tgid:")).and_then(|t| t.trim().parse().ok());
    Ok(pidfd_open(pid(group.unwrap_or(tid))?, PidfdFlags::empty())?)
}

impl Task {
    /// The thread with this number.
    ///
    /// # Errors
    /// ESRCH, ENOENT: it is gone.
    pub(crate) fn open(tid: i32) -> io::Result<Self> {
        Ok(Self { tid, pidfd: open_pidfd(tid)?, identity: identify(tid)? })
    }

    /// Who it was when it was last asked.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the thread that this was opened for is gone, and its number perhaps another's by now.
    pub(crate) fn is_gone(&self) -> bool {
        let mut poll = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut poll, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// A copy of its descriptor `fd`: the same open file description.
    ///
    /// # Errors
    /// EBADF; EPERM: it may not be looked at; EIO: we have no room for it.
    pub(crate) fn descriptor(&self, fd: i32) -> KResult<OwnedFd> {
        if fd < 0 {
            return Err(Errno::EBADF.because(format!("{fd} is no descriptor")));
        }
        pidfd_getfd(self.pidfd.as_fd(), fd, PidfdGetfdFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::BADF => Errno::EBADF.because(format!("descriptor {fd} is not open")),
            error @ (rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                Errno::EIO.because(format!("descriptor {fd}: {}", told(&error.into())))
            }
            error => errno(error).because(format!("descriptor {fd} of thread {} is out of reach", self.tid)),
        })
    }

    /// Copies `buf.len()` bytes from its address `addr`.
    ///
    /// # Errors
    /// EFAULT.
    pub(crate) fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        if self.read_some(addr, buf) == buf.len() { Ok(()) } else { Err(fault(addr, "read")) }
    }

    /// Copies as many bytes as can be read from `addr` on.
    pub(crate) fn read_some(&self, addr: u64, buf: &mut [u8]) -> usize {
        let whole = self.read_once(addr, buf);
        if whole > 0 {
            return whole;
        }
        // The host may give nothing of a range that goes on into an unmapped page.
        let first = usize::try_from(4096 - addr % 4096).unwrap_or(buf.len()).min(buf.len());
        if first < buf.len() { self.read_once(addr, &mut buf[..first]) } else { 0 }
    }

    fn read_once(&self, addr: u64, buf: &mut [u8]) -> usize {
        let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let remote = remote(addr, buf.len());
        // SAFETY: `local` is a live buffer of that length; `remote` names the other process's memory, which
        // the kernel checks.
        let copied =
            unsafe { libc::process_vm_readv(self.tid, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(copied).unwrap_or(0)
    }

    /// Copies `bytes` to its address `addr`.
    ///
    /// # Errors
    /// EFAULT.
    pub(crate) fn write(&self, addr: u64, bytes: &[u8]) -> KResult<()> {
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = remote(addr, bytes.len());
        // SAFETY: `local` is a live buffer that is only read; `remote` as above.
        let copied =
            unsafe { libc::process_vm_writev(self.tid, &raw const local, 1, &raw const remote, 1, 0) };
        if usize::try_from(copied) == Ok(bytes.len()) { Ok(()) } else { Err(fault(addr, "written")) }
    }

    /// Copies `bytes` to its address `addr`, which may be read-only, as a debugger does.
    ///
    /// # Errors
    /// EFAULT.
    pub(crate) fn force(&self, addr: u64, bytes: &[u8]) -> KResult<()> {
        let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.tid));
        memory.and_then(|memory| memory.write_all_at(bytes, addr)).map_err(|_| fault(addr, "written"))
    }

    /// A text that ends in NUL, of at most `limit` bytes.
    ///
    /// # Errors
    /// EFAULT; ENAMETOOLONG.
    pub(crate) fn read_text(&self, addr: u64, limit: usize) -> KResult<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < limit {
            let at = addr.wrapping_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
            let mut piece = [0; 256];
            let room = usize::try_from(4096 - at % 4096).unwrap_or(256).min(piece.len());
            let got = self.read_some(at, &mut piece[..room]);
            if got == 0 {
                return Err(fault(at, "read"));
            }
            if let Some(end) = piece[..got].iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&piece[..end]);
                return Ok(text);
            }
            text.extend_from_slice(&piece[..got]);
        }
        Err(Errno::ENAMETOOLONG.because(format!("a text of more than {limit} bytes")))
    }

    /// Whether its table has a free number below its limit.
    pub(crate) fn has_free_descriptor(&self) -> bool {
        let Some(limit) = limit_of(self.tid) else { return true };
        let Some(last) = limit.checked_sub(1).and_then(|last| i32::try_from(last).ok()) else {
            return limit > 0;
        };
        match pidfd_getfd(self.pidfd.as_fd(), last, PidfdGetfdFlags::empty()) {
            Err(_) => true,
            Ok(_) => self.count_descriptors(last) <= u64::from(last.unsigned_abs()),
        }
    }

    /// Descriptors up to and with `last`.
    fn count_descriptors(&self, last: i32) -> u64 {
        let Ok(folder) = fs::read_dir(format!("/proc/{}/fd", self.tid)) else { return 0 };
        let numbers = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        u64::try_from(numbers.filter(|fd| *fd <= last).count()).unwrap_or(u64::MAX)
    }
}

/// Soft limit of descriptors.
fn limit_of(tid: i32) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is given; the old one is written to a live structure.
    let result = unsafe { libc::prlimit(tid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
    (result == 0).then_some(limit.rlim_cur)
}

fn remote(addr: u64, len: usize) -> libc::iovec {
    let addr = usize::try_from(addr).unwrap_or(usize::MAX);
    libc::iovec { iov_base: std::ptr::without_provenance_mut(addr), iov_len: len }
}
