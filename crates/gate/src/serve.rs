//! Serving notified calls, one module for each kind.

mod frozen;
pub(crate) mod image;
mod ioctl;
mod links;
mod log;
mod open;

use std::io;

use luosim_abi::{Errno, Refusal};

use crate::calls::Call;
use crate::gate::Gate;
use crate::notify::{Listener, Notification};

const AUDIT_ARCH_I386: u32 = 0x4000_0003;

/// How a call is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It runs natively.
    GoOn,
    Value(i64),
    Refuse(Refusal),
    /// The caller is gone; nobody waits for an answer.
    Gone,
    /// The machine goes down: nobody will be there to hear an answer.
    Down(Down),
}

/// Why the machine goes down.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// The next kernel has booted, or tried to.
    Kexec(Box<luosim_machine::BootReport>),
    /// Restarted without handover.
    Restart,
    /// Halted or switched off.
    Off,
    /// The kernel stopped inside the call, for this reason, and no crash kernel was loaded.
    Panicked(String),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl Gate {
    /// Serves one notification. `Some`: the machine went down by it.
    ///
    /// # Errors
    /// The listener does not work any more.
    pub(crate) fn serve(&mut self, listener: &Listener, n: &Notification) -> io::Result<Option<Down>> {
        let reply = self.reply(listener, n);
        let reply = self.look_at_kernel(reply);
        self.show_state();
        match reply {
            Reply::GoOn => listener.go_on(n.id)?,
            Reply::Value(value) => listener.answer(n.id, value)?,
            Reply::Refuse(refusal) => listener.answer(n.id, -i64::from(refusal.errno.raw()))?,
            Reply::Gone => return Ok(None),
            Reply::Down(down) => return Ok(Some(down)),
        };
        Ok(None)
    }

    /// A posted design reads what its predecessor left when it is first asked for, and stops the kernel over it.
    fn look_at_kernel(&mut self, reply: Reply) -> Reply {
        if let Some(report) = self.machine.take_crashed() {
            return Reply::Down(Down::Kexec(Box::new(report)));
        }
        match reply {
            Reply::Down(down) => Reply::Down(down),
            reply if self.machine.kernel().is_some() => reply,
            Reply::Refuse(refusal) => {
                let reason = refusal.reason.into_owned();
                let reason =
                    reason.strip_prefix("the kernel panicked: ").map(str::to_owned).unwrap_or(reason);
                Reply::Down(Down::Panicked(reason))
            }
            _ => Reply::Down(Down::Panicked(String::from("the kernel panicked"))),
        }
    }

    fn reply(&mut self, listener: &Listener, n: &Notification) -> Reply {
        let compat = n.data.arch == AUDIT_ARCH_I386;
        let nr = u32::try_from(n.data.nr).unwrap_or(u32::MAX);
        let Some(call) = Call::from_number(nr, compat) else { return Reply::GoOn };
        let tid = i32::try_from(n.pid).unwrap_or(0);
        let args = n.data.args;
        match call {
            Call::Ioctl => self.ioctl(listener, n, compat),
            Call::Open => self.open(listener, n, (libc::AT_FDCWD, args[0]), low(args[1])),
            Call::OpenAt => self.open(listener, n, (signed(args[0]), args[1]), low(args[2])),
            Call::OpenAt2 => self.open_how(listener, n),
            Call::Readlink => self.readlink(tid, (libc::AT_FDCWD, args[0]), args[1], args[2]),
            Call::ReadlinkAt => self.readlink(tid, (signed(args[0]), args[1]), args[2], args[3]),
            Call::Reboot => self.reboot(tid, args),
            Call::Syslog => self.syslog(tid, args),
            Call::KexecLoad => self.kexec_load(tid, args),
            Call::KexecFileLoad => self.kexec_file_load(tid, args),
            call => self.change(listener, n, call),
        }
    }
}

/// Low half of an argument.
fn low(arg: u64) -> u32 {
    u32::try_from(arg & 0xffff_ffff).expect("masked")
}

/// A descriptor or another signed number in the low half of an argument.
fn signed(arg: u64) -> i32 {
    low(arg).cast_signed()
}

fn host_refusal(error: &io::Error, what: &str) -> Refusal {
    let errno = error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::EIO);
    errno.because(format!("{what}: {error}"))
}
