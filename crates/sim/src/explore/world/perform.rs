//! Each action as calls of the machine.

use luosim_abi::{Errno, KResult};
use luosim_files::shmem::{Seals, Whence};
use luosim_files::test_file::{Fault, TEST_PATH};
use luosim_luo::Stop;
use luosim_machine::faults::Intrusion;
use luosim_machine::ledger::Entry;
use luosim_machine::process::Pid;
use luosim_machine::{BootReport, ImageKind};
use luosim_scenario::{Call, Op, Step, Value};

use super::{Checked, World};
use crate::explore::action::{Action, CELL, ENDLESS_NAME, Plan, Proc, name_bytes};
use crate::explore::draw::last_steps;
use crate::explore::reference::{Fate, Want};
use crate::pattern;

/// What a call gave: a value, or the errno.
pub(super) type Answer = Result<i64, Errno>;

fn answer<T>(result: KResult<T>, value: impl FnOnce(T) -> i64) -> Answer {
    result.map(value).map_err(|refusal| refusal.errno)
}

fn bytes(at: u32, cells: u32, seed: u32) -> Vec<u8> {
    let len = usize::try_from(u64::from(cells) * CELL).expect("a few pages");
    pattern::bytes(seed, u64::from(at) * CELL, len)
}

fn number(value: u64) -> Value {
    Value::Number(i128::from(value))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl World {
    /// Makes the calls of an action, on a machine where a kernel runs, and writes them down.
    pub(super) fn perform(
        &mut self,
        action: &Action,
        planned: Option<Vec<Call>>,
    ) -> (Answer, Option<BootReport>) {
        let p = action.process().unwrap_or(0);
        if let Action::Reset { plan } = *action {
            self.pending_alloc = None;
            self.reset(plan);
            return (Ok(0), None);
        }
        let pid = self.pid(p);
        if let Action::Kexec { plan, .. } = *action {
            return self.jump(p, pid, plan);
        }
        if !matches!(action, Action::Look { .. }) {
            self.arm();
        }
        let result = match action {
            Action::Return { .. } => self.jump_and_return(pid),
            Action::Crash { image, .. } => self.crash(p, pid, *image),
            _ => self.call(pid, action),
        };
        self.write_calls(p, planned, result);
        if let Action::Exit { .. } = action {
            self.lives[usize::from(p)] += 1;
        }
        (result, None)
    }

    /// Tells the machine of a failing allocation, just before the call it shall strike.
    fn arm(&mut self) {
        let Some((nth, times)) = self.pending_alloc.take() else { return };
        self.machine.fail_alloc(nth, times).expect("a kernel runs");
        self.expect_step(Op::FailAlloc, &[("nth", number(nth.into())), ("times", number(times.into()))]);
    }

    fn call(&mut self, pid: Pid, action: &Action) -> Answer {
        self.machine.place_argument(action.argument());
        let result = self.opening(pid, action).or_else(|| self.session_call(pid, action));
        result.unwrap_or_else(|| self.file_call(pid, action))
    }

    /// Calls that give a descriptor: its number must be the lowest free one.
    fn opening(&mut self, pid: Pid, action: &Action) -> Option<Answer> {
        let (next, _) = self.reference.next_numbers(action.process()?);
        let fd = |slot| self.reference.number(action.process().unwrap_or(0), slot);
        let opened = match *action {
            Action::Open { .. } => self.machine.open(pid, luosim_abi::ioctl::DEVICE_PATH, 2, 0),
            Action::Memfd { kind, huge, .. } => {
                self.machine.memfd_create(pid, "m", [0, 2, 8][usize::from(kind % 3)], huge)
            }
            Action::TestFile { .. } => self.machine.open(pid, TEST_PATH, 2, 0),
            Action::Dup { fd: from, .. } => {
                let from = fd(from);
                self.machine.dup(pid, from)
            }
            Action::ReadOnly { fd: from, .. } => {
                let from = fd(from);
                self.machine.reopen(pid, from, 0)
            }
            Action::Receive { socket, .. } => {
                let socket = fd(socket);
                self.machine.receive_fds(pid, socket).map(|fds| fds.first().copied().unwrap_or(-1))
            }
            Action::Create { device, name, .. } => {
                let device = fd(device);
                self.machine.create_session(pid, device, &name_bytes(name))
            }
            Action::Take { device, name, .. } => {
                let device = fd(device);
                self.machine.retrieve_session(pid, device, &name_bytes(name))
            }
            Action::Retrieve { session, token, .. } => {
                let session = fd(session);
                self.machine.retrieve_fd(pid, session, token)
            }
            _ => return None,
        };
        Some(answer(opened, |fd| i64::from(fd) - next))
    }

    fn session_call(&mut self, pid: Pid, action: &Action) -> Option<Answer> {
        let p = action.process()?;
        let fd = |world: &Self, slot| world.fd(p, slot);
        let result = match *action {
            Action::Preserve { session, fd: file, token, .. } => {
                let (session, file) = (fd(self, session), fd(self, file));
                self.machine.preserve_fd(pid, session, file, token)
            }
            Action::Finish { session, reserved, .. } => {
                let session = fd(self, session);
                self.machine.finish(pid, session, reserved)
            }
            Action::GetName { session, .. } => {
                let want = self
                    .reference
                    .session(p, session)
                    .map(|one| name_bytes(self.reference.sessions[one].name));
                let number = fd(self, session);
                let found = self.machine.get_name(pid, number);
                return Some(answer(found, |found| i64::from(Some(found) != want)));
            }
            Action::Link { session, .. } => {
                let number = fd(self, session);
                self.machine.readlink_fd(pid, number).map(|_| ())
            }
            _ => return None,
        };
        Some(answer(result, |()| 0))
    }

    fn file_call(&mut self, pid: Pid, action: &Action) -> Answer {
        let p = action.process().unwrap_or(0);
        match *action {
            Action::Close { fd, .. } => {
                let fd = self.fd(p, fd);
                answer(self.machine.close(pid, fd), |()| 0)
            }
            Action::Sockets { .. } => {
                let next = self.reference.next_numbers(p);
                answer(self.machine.socketpair(pid), |(one, two)| {
                    i64::from((i64::from(one), i64::from(two)) != next)
                })
            }
            Action::Send { socket, fd, .. } => {
                let (socket, fd) = (self.fd(p, socket), self.fd(p, fd));
                answer(self.machine.send_fds(pid, socket, &[fd]), |()| 0)
            }
            Action::Fork { child, .. } => self.fork(p, pid, child),
            Action::Exit { .. } => {
                self.pids[usize::from(p)] = None;
                self.lives.resize(self.lives.len().max(usize::from(p) + 1), 0);
                if let Some(maps) = self.maps.get_mut(usize::from(p)) {
                    maps.clear();
                }
                answer(self.machine.exit(pid), |()| 0)
            }
            Action::Handler { fd, callback, times, .. } => {
                let fd = self.fd(p, fd);
                let fault = Fault { errno: Errno::EIO, times };
                answer(self.machine.set_fault(pid, fd, callback, fault), |()| 0)
            }
            Action::Map { .. } | Action::Store { .. } | Action::Unmap { .. } => self.mapping(p, pid, action),
            Action::Look { .. } => Ok(0),
            _ => self.change(p, pid, action),
        }
    }

    fn fork(&mut self, p: Proc, pid: Pid, child: Proc) -> Answer {
        let new = self.machine.fork(pid, &self.process_name(child));
        if let Ok(new) = &new {
            let (from, to) = (usize::from(p), usize::from(child));
            if self.pids.len() <= to {
                self.pids.resize(to + 1, None);
            }
            self.pids[to] = Some(*new);
            let copy = self.maps.get(from).cloned().unwrap_or_default();
            self.maps.resize(self.maps.len().max(to + 1), Vec::new());
            self.maps[to] = copy;
        }
        answer(new, |_| 0)
    }

    fn mapping(&mut self, p: Proc, pid: Pid, action: &Action) -> Answer {
        let known = |world: &Self, slot: u8| {
            let maps = world.maps.get(usize::from(p)).and_then(|maps| maps.get(usize::from(slot)));
            maps.copied().flatten().expect("the reference has it")
        };
        match *action {
            Action::Map { fd, new, .. } => {
                let fd = self.fd(p, fd);
                let map = self.machine.mmap_shared(pid, fd, 0, 64 * CELL, true);
                if let Ok(map) = &map {
                    self.maps.resize(self.maps.len().max(usize::from(p) + 1), Vec::new());
                    let maps = &mut self.maps[usize::from(p)];
                    maps.resize(maps.len().max(usize::from(new) + 1), None);
                    maps[usize::from(new)] = Some(*map);
                }
                answer(map, |_| 0)
            }
            Action::Store { map, at, cells, seed, .. } => {
                let map = known(self, map);
                let contents = bytes(at, cells, seed);
                answer(self.machine.store(pid, map, u64::from(at) * CELL, &contents), |()| 0)
            }
            Action::Unmap { map, .. } => {
                let id = known(self, map);
                self.maps[usize::from(p)][usize::from(map)] = None;
                answer(self.machine.munmap(pid, id), |()| 0)
            }
            _ => unreachable!("only mappings come here"),
        }
    }

    fn change(&mut self, p: Proc, pid: Pid, action: &Action) -> Answer {
        let range = |at: u32, cells: u32| (signed(u64::from(at) * CELL), signed(u64::from(cells) * CELL));
        match *action {
            Action::Write { fd, at, cells, seed, .. } => {
                let fd = self.fd(p, fd);
                let contents = bytes(at, cells, seed);
                let written = self.machine.pwrite(pid, fd, &contents, u64::from(at) * CELL);
                answer(written, |count| i64::try_from(count).expect("a length"))
            }
            Action::Truncate { fd, size, .. } => {
                let fd = self.fd(p, fd);
                answer(self.machine.ftruncate(pid, fd, signed(size)), |()| 0)
            }
            Action::Allocate { fd, at, cells, .. } => {
                let (fd, (at, len)) = (self.fd(p, fd), range(at, cells));
                answer(self.machine.fallocate(pid, fd, 0, at, len), |()| 0)
            }
            Action::Punch { fd, at, cells, .. } => {
                let (fd, (at, len)) = (self.fd(p, fd), range(at, cells));
                answer(self.machine.fallocate(pid, fd, 3, at, len), |()| 0)
            }
            Action::Seek { fd, to, .. } => {
                let fd = self.fd(p, fd);
                answer(self.machine.lseek(pid, fd, i64::from(to), Whence::Set), signed)
            }
            Action::Seal { fd, seals, .. } => {
                let fd = self.fd(p, fd);
                answer(self.machine.add_seals(pid, fd, Seals(seals)), |()| 0)
            }
            _ => unreachable!("every other action has its place"),
        }
    }

    /// Loads an image and jumps; what was told for the reboot is told to the machine in between.
    fn jump(&mut self, p: Proc, pid: Pid, plan: Plan) -> (Answer, Option<BootReport>) {
        let loaded =
            self.machine.load_image(pid, plan.release, self.case.boot_options(plan), ImageKind::File);
        let call = self.script.is_some().then(|| self.boot_call(Op::KexecLoad, plan));
        self.write_call(p, call, answer(loaded.clone(), |()| 0));
        if let Err(refusal) = loaded {
            return (Err(refusal.errno), None);
        }
        self.tell(pid);
        self.arm();
        let result = self.machine.reboot_kexec(pid);
        let told = match &result {
            Ok(_) => Ok(0),
            Err(refusal) => Err(refusal.errno),
        };
        self.write_call(p, self.script.is_some().then(|| Call::new(Op::RebootKexec)), told);
        if result.is_ok() || self.machine.kernel().is_none() {
            self.forget();
        }
        if told == Err(Errno::ESRCH) {
            self.reset(plan);
        }
        (told, result.ok())
    }

    fn tell(&mut self, pid: Pid) {
        if let Some((point, panics)) = self.reference.stop {
            self.machine.stop_reboot(point, if panics { Stop::Panic } else { Stop::Refuse });
            let how = Value::Text(String::from(if panics { "panic" } else { "refuse" }));
            self.expect_step(Op::StopReboot, &[("point", number(point.into())), ("how", how)]);
        }
        if let Some(intruder) = self.reference.intruder.clone() {
            self.tell_intrusion(&intruder);
        }
        let refused =
            self.reference.expect(&Action::Kexec { p: 0, plan: self.reference.plan }) != Want::Value(0);
        if let Some(spoil) = self.reference.spoil
            && !refused
            && let Some((addr, value)) = self.spoil_address(spoil)
        {
            self.machine.poke_at_kexec(addr, value);
            self.expect_step(Op::Poke, &[("addr", number(addr.raw())), ("value", number(value))]);
        }
        // The kernel that is told is asked by the process that reboots.
        debug_assert!(self.machine.kernel().is_some_and(|kernel| kernel.processes().contains_key(&pid)));
    }

    /// Tells the machine, and writes down, who makes a call in the reboot.
    fn tell_intrusion(&mut self, intruder: &Action) {
        let (p, slot, point, op, call) = match *intruder {
            Action::CloseInReboot { p, fd, point } => (p, fd, point, Op::CloseInReboot, Intrusion::Close),
            Action::WriteInReboot { p, fd, at, cells, seed, point } => {
                let call = Intrusion::Write(u64::from(at) * CELL, bytes(at, cells, seed));
                (p, fd, point, Op::WriteInReboot, call)
            }
            Action::SeekInReboot { p, fd, to, point } => {
                (p, fd, point, Op::SeekInReboot, Intrusion::Seek(u64::from(to)))
            }
            _ => return,
        };
        if self.reference.desc(p, slot).is_none() {
            return;
        }
        let (pid, fd) = (self.pid(p), self.fd(p, slot));
        self.machine.intrude_in_reboot(pid, fd, point, call);
        let written = self.script.is_some().then(|| {
            let call = Call::new(op).with("fd", Value::Text(self.label(p, slot)));
            let call = match *intruder {
                Action::WriteInReboot { at, cells, seed, .. } => call
                    .with("at", number(u64::from(at) * CELL))
                    .with("len", number(u64::from(cells) * CELL))
                    .with("seed", number(seed.into())),
                Action::SeekInReboot { to, .. } => call.with("offset", number(to.into())),
                _ => call,
            };
            call.with("point", number(point.into()))
        });
        self.write_call(p, written, Ok(0));
    }

    /// A word of metadata was spoiled, no matter which, and the jump made: what is there is used, whatever it answers, and
    /// then power is cut. Lines of the ledger are taken as they are: a name or a token that is another one makes new ones.
    pub(super) fn bear(&mut self, plan: Plan) -> Checked<()> {
        self.tally.kexecs += 1;
        if self.machine.kernel().is_some() {
            for action in last_steps(&self.reference) {
                if self.reference.expect(&action) == Want::Skip {
                    continue;
                }
                let planned = self.script.is_some().then(|| self.calls_of(&action));
                let (answer, _) = self.perform(&action, planned);
                if answer.is_ok() {
                    self.reference.happened(&action, answer);
                }
            }
            self.check_sound("spoil")?;
        }
        self.reset(plan);
        self.reference.died(plan);
        let entries = self.machine.ledger().map_or(&[][..], |ledger| ledger.entries());
        let fate = |entry: &Entry| Fate { name: ENDLESS_NAME, token: entry.token, word: entry.fate.word() };
        self.reference.fates = entries.iter().map(fate).collect();
        Ok(())
    }

    fn jump_and_return(&mut self, pid: Pid) -> Answer {
        let plan = self.reference.plan;
        let options = self.case.boot_options(plan);
        let loaded = self.machine.load_image(pid, plan.release, options, ImageKind::PreserveContext);
        let result = loaded.and_then(|()| self.machine.reboot_kexec(pid));
        answer(result, |_| 0)
    }

    fn crash(&mut self, p: Proc, pid: Pid, image: bool) -> Answer {
        let plan = self.reference.plan;
        if image {
            let options = self.case.boot_options(plan);
            let loaded = self.machine.load_image(pid, plan.release, options, ImageKind::Crash);
            let call = self
                .script
                .is_some()
                .then(|| self.boot_call(Op::KexecLoad, plan).with("crash", Value::Number(1)));
            self.write_call(p, call, answer(loaded, |()| 0));
        }
        let report = self.machine.crash();
        self.write(self.script.is_some().then(|| Step::Machine(Call::new(Op::Crash))));
        let mut good = 0;
        if let Some(report) = report {
            self.expect_step(Op::ExpectBoot, &[("outcome", Value::Text(String::from("luo-off")))]);
            good = i64::from(report.outcome.word() != "luo-off");
        }
        if good == 0 {
            self.reset(plan);
        }
        Ok(good)
    }
}
