//! Drivers of guests, and what they would notice if they looked all the time.
//!
//! A driver is software of a guest: it lies in guest memory and goes where that goes. After every step in which time passed, a second
//! driver beside it, which no device and no program can see, reads guest memory through the file that the VMM has and compares it with
//! what the device says it did: D5 when the file is retrieved, D6 from then on, D10 and D13 always. It stops where it can no longer know: a
//! program stored to guest memory or to registers, or the device was started anew.

use luosim_abi::KResult;
use luosim_hardware::driver::{BadStamp, Driver, DriverError, GuestMemory as _};
use luosim_hardware::simdma::layout::{Completion, reg};
use luosim_hardware::verify::{Checker, Invariant, Mode, TimePoint, Violation};
use luosim_hardware::{Bdf, Hardware};
use luosim_machine::process::Pid;
use luosim_machine::{GuestRam, Machine};
use luosim_scenario::{Call, Op};

use super::{Answer, Runner};

/// Whose file guest memory is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    process: String,
    pid: Pid,
    fd: i32,
}

/// New completions, the first stamp that is not there, and what does not hold.
pub(super) type Found = (Vec<Completion>, Vec<BadStamp>, Vec<Violation>);

/// A driver of a guest, and the one beside it.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    /// The guest's own.
    pub(super) driver: Driver,
    /// Address of guest memory for the device.
    pub(super) base: u64,
    beside: Driver,
    /// What is checked of it, and what of guest memory was found good.
    checker: Checker,
    home: Option<Home>,
    /// Session and token under which guest memory was preserved last.
    kept: Option<(Vec<u8>, u64)>,
    /// Whether it was retrieved in this kernel.
    came: bool,
    /// Whether it was retrieved in this step.
    arrives: bool,
    /// Resets of the device when its driver started.
    resets: u64,
    /// Time of the last look.
    looked: u64,
}

impl Guest {
    pub(super) fn new(
        driver: Driver,
        base: u64,
        (process, pid, fd): (&str, Pid, i32),
        hw: &Hardware,
    ) -> Self {
        let resets = register(hw, driver.bdf, reg::RESET_CNT);
        // A device that already did something counts on from there: its numbers are not those of this driver.
        let fresh = register(hw, driver.bdf, reg::SEQ) == 0;
        let home = fresh.then(|| Home { process: process.to_owned(), pid, fd });
        let (beside, checker) = (driver.clone(), Checker::new(Mode::Continues));
        Self {
            driver,
            base,
            beside,
            checker,
            home,
            kept: None,
            came: false,
            arrives: false,
            resets,
            looked: hw.now(),
        }
    }

    /// What the guest's own driver finds when it is told to look: new completions, stamps that are not there, and what does not hold.
    pub(super) fn check(&mut self, mem: &GuestRam<'_>) -> Result<Found, DriverError> {
        let mut driver = self.driver.clone();
        let new = driver.drain(mem)?.to_vec();
        let bad = self.checker.completions(TimePoint::T6, &driver, |iova, buf| mem.read(iova, buf));
        self.driver = driver;
        Ok((new, bad, self.checker.take_violations()))
    }

    /// What does not hold in memory now.
    fn look(&mut self, machine: &mut Machine, at: TimePoint) -> KResult<Vec<Violation>> {
        let bdf = self.beside.bdf;
        let hw = machine.hardware();
        let same = hw.is_some_and(|hw| register(hw, bdf, reg::RESET_CNT) == self.resets);
        let seq = hw.filter(|_| same).map(|hw| register(hw, bdf, reg::SEQ));
        self.looked = hw.map_or(0, Hardware::now);
        let Some(home) = &self.home else { return Ok(Vec::new()) };
        let (pid, fd, came) = (home.pid, home.fd, self.came);
        let (beside, checker) = (&mut self.beside, &mut self.checker);
        machine.guest_memory(pid, (fd, self.base), |mem: &mut GuestRam<'_>| {
            if beside.drain(mem).is_ok() {
                let seq = seq.unwrap_or_else(|| beside.seen());
                let read = |iova, buf: &mut [u8]| mem.read(iova, buf);
                if came {
                    checker.payloads(at, beside, read, seq);
                    checker.order(at, beside);
                } else if checker.not_early(at, beside, seq) {
                    checker.completions(at, beside, read);
                }
            }
            beside.forget_completions();
            checker.take_violations()
        })
    }
}

fn register(hw: &Hardware, bdf: Bdf, offset: u16) -> u64 {
    hw.device(bdf).map_or(0, |device| device.peek(offset, hw.now()))
}

/// Whether a call may change guest memory, or what the device is to do, behind the back of its driver.
fn disturbs(op: Op) -> bool {
    use Op as O;
    matches!(
        op,
        O::Write
            | O::Fill
            | O::Store
            | O::Ftruncate
            | O::Fallocate
            | O::MadviseRemove
            | O::VfioWrite
            | O::VfioPower
    )
}

impl Runner<'_> {
    /// After a step: what it means for guests, and a look at their memory if time passed.
    pub(super) fn watch_guests(
        &mut self,
        process: Option<(&str, Pid)>,
        call: &Call,
        answer: Option<&Answer>,
    ) {
        if self.guests.is_empty() {
            return;
        }
        if let (Some((process, pid)), Some(Ok(_))) = (process, answer) {
            self.follow_guests(process, pid, call);
        }
        let ends = [Op::Close, Op::Exit, Op::Kill, Op::Exec, Op::IoasUnmap, Op::Finish, Op::Tick];
        if ends.contains(&call.op) {
            self.on().watch_ended();
            self.check_invariants(call);
        }
        let now = self.on().hardware().map_or(0, Hardware::now);
        let mut guests = std::mem::take(&mut self.guests);
        for guest in guests.values_mut().filter(|guest| guest.arrives || guest.looked < now) {
            let at = if std::mem::take(&mut guest.arrives) { TimePoint::T6 } else { TimePoint::T8 };
            match guest.look(self.on(), at) {
                Ok(wrong) => self.note_guest(call, guest, at, wrong),
                // The file is closed: nobody can look.
                Err(_) => guest.home = None,
            }
        }
        self.guests = guests;
    }

    fn note_guest(&mut self, call: &Call, guest: &Guest, at: TimePoint, wrong: Vec<Violation>) {
        let payload = if at == TimePoint::T6 { Invariant::D5 } else { Invariant::D6 };
        let looked = [Invariant::D10, Invariant::D13].into_iter().chain(guest.came.then_some(payload));
        for invariant in looked.filter(|_| guest.home.is_some()) {
            self.driven.entry(invariant).or_insert(true);
        }
        for violation in wrong {
            self.driven.insert(violation.invariant, false);
            self.broke(call, &violation);
        }
    }

    /// Where guest memory goes by this call.
    fn follow_guests(&mut self, process: &str, pid: Pid, call: &Call) {
        let fd = self.fd(process, call, "fd");
        let home = |fd| Some(Home { process: process.to_owned(), pid, fd });
        match call.op {
            Op::Preserve | Op::Retrieve => {
                let session = self.fd(process, call, "session");
                let token = call.u64("token").unwrap_or(0);
                let name = self.on().get_name(pid, session).unwrap_or_default();
                let new = call.text("as").and_then(|label| self.labels.get(process)?.fds.get(label).copied());
                for guest in self.guests.values_mut() {
                    if call.op == Op::Preserve && guest.home == home(fd) {
                        guest.kept = Some((name.clone(), token));
                    } else if call.op == Op::Retrieve && guest.kept.as_ref() == Some(&(name.clone(), token)) {
                        (guest.home, guest.came, guest.arrives) = (new.and_then(home), true, true);
                    }
                }
            }
            op if disturbs(op) => {
                let device = self.fd(process, call, "device");
                let function = self.on().vfio_function(pid, device).ok();
                let mine = |bdf: &Bdf, guest: &Guest| {
                    let home = guest.home.as_ref().is_some_and(|home| home.process == process);
                    home || function.is_some_and(|function| function == *bdf)
                };
                for (_, guest) in self.guests.iter_mut().filter(|(bdf, guest)| mine(bdf, guest)) {
                    (guest.home, guest.kept) = (None, None);
                }
            }
            _ => {}
        }
    }

    /// Another kernel runs: the VMMs of the old one are gone, with their files.
    pub(super) fn orphan_guests(&mut self) {
        for guest in self.guests.values_mut() {
            (guest.home, guest.came) = (None, false);
        }
    }
}
