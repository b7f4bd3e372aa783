//! A run written down as steps of a scenario.

use luosim_abi::Errno;
use luosim_machine::faults::Argument;
use luosim_scenario::{Call, Op, Step, Value};

use super::World;
use super::perform::Answer;
use crate::explore::action::{Action, CELL, ENDLESS_NAME, Plan, Proc, Slot, name_bytes};
use crate::explore::reference::{Kind, Want};

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn number(value: impl Into<i128>) -> Value {
    Value::Number(value.into())
}

fn cells(count: u32) -> Value {
    number(u64::from(count) * CELL)
}

fn with_name(call: Call, name: u8) -> Call {
    let bytes = name_bytes(name);
    if name == ENDLESS_NAME {
        return call.with("name", text("")).with("hex", Value::Bytes(bytes));
    }
    call.with("name", text(String::from_utf8_lossy(&bytes).into_owned()))
}

fn with_argument(call: Call, argument: Argument) -> Call {
    match argument {
        Argument::Normal => call,
        Argument::ReadOnly => call.with("argument", text("readonly")),
        Argument::Unmapped => call.with("argument", text("unmapped")),
    }
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::Device => 'd',
        Kind::Session(_) => 's',
        Kind::File(_) | Kind::Test(_) => 'f',
        Kind::Socket(..) => 'k',
    }
}

impl World {
    pub(super) fn write(&mut self, step: Option<Step>) {
        if let (Some(script), Some(step)) = (&mut self.script, step) {
            script.push(step);
        }
    }

    /// Writes a step of the machine: an expectation, or a fault.
    pub(super) fn expect_step(&mut self, op: Op, params: &[(&str, Value)]) {
        if self.script.is_some() {
            let call =
                params.iter().fold(Call::new(op), |call, (name, value)| call.with(name, value.clone()));
            self.write(Some(Step::Machine(call)));
        }
    }

    /// Writes a call as it was answered.
    pub(super) fn write_call(&mut self, p: Proc, call: Option<Call>, answer: Answer) {
        let Some(mut call) = call else { return };
        call.error = answer.err();
        let process = self.process_name(p);
        self.write(Some(Step::Process { process, call }));
    }

    pub(super) fn write_calls(&mut self, p: Proc, calls: Option<Vec<Call>>, answer: Answer) {
        for call in calls.into_iter().flatten() {
            self.write_call(p, Some(call), answer);
        }
    }

    /// The last call, which was answered wrongly, is written with the answer that it must give.
    pub(super) fn expected_instead(&mut self, want: Want) {
        if let Some(Step::Process { call, .. }) = self.script.as_mut().and_then(|script| script.last_mut()) {
            call.error = match want {
                Want::Fails(errno) => Some(errno),
                Want::Value(_) | Want::Skip => None,
            };
        }
    }

    /// Puts `remember` before the last call and `expect-unchanged` after it.
    pub(super) fn unchanged_instead(&mut self) {
        if let Some(script) = &mut self.script {
            let at = script.len().saturating_sub(1);
            script.insert(at, Step::Machine(Call::new(Op::Remember)));
            script.push(Step::Machine(Call::new(Op::ExpectUnchanged)));
        }
    }

    /// The label of an open descriptor.
    pub(super) fn label(&self, p: Proc, slot: Slot) -> String {
        let kind = self.reference.desc(p, slot).map(|desc| self.reference.descs[desc].kind);
        format!("{}{slot}", kind.map_or('x', letter))
    }

    pub(super) fn boot_call(&self, op: Op, plan: Plan) -> Call {
        let call = Call::new(op).with("release", text(plan.release.release().name));
        let call = call.with("cmdline", text(plan.cmdline()));
        let list = |quirks: &[luosim_abi::quirk::Quirk]| {
            quirks.iter().map(|quirk| quirk.name()).collect::<Vec<_>>().join("|")
        };
        let quirks = [("quirks-on", &self.case.quirks_on), ("quirks-off", &self.case.quirks_off)];
        let given = quirks.into_iter().filter(|(_, quirks)| !quirks.is_empty());
        given.fold(call, |call, (name, quirks)| call.with(name, text(list(quirks))))
    }

    /// The calls of an action, as they stand before it is made.
    pub(super) fn calls_of(&self, action: &Action) -> Vec<Call> {
        if let Action::Return { .. } = action {
            let load = self.boot_call(Op::KexecLoad, self.reference.plan).with("preserve-context", number(1));
            return vec![load, Call::new(Op::RebootKexec).with("returns", number(1))];
        }
        self.opening_call(action)
            .or_else(|| self.session_script(action))
            .or_else(|| self.file_script(action))
            .into_iter()
            .collect()
    }

    fn opening_call(&self, action: &Action) -> Option<Call> {
        let p = action.process()?;
        let label = |slot| text(self.label(p, slot));
        let new = |letter: char, slot: Slot| text(format!("{letter}{slot}"));
        Some(match *action {
            Action::Open { new: slot, .. } => {
                Call::new(Op::Open).with("path", text("/dev/liveupdate")).with("as", new('d', slot))
            }
            Action::Memfd { new: slot, kind, huge, .. } => {
                let flags = [0u32, 2, 8][usize::from(kind % 3)];
                let call = Call::new(Op::Memfd).with("name", text("m")).with("flags", number(flags));
                let call = if huge { call.with("huge", number(1)) } else { call };
                call.with("as", new('f', slot))
            }
            Action::TestFile { new: slot, .. } => {
                Call::new(Op::Open).with("path", text("/dev/luosim-test")).with("as", new('f', slot))
            }
            Action::Sockets { new: slot, peer, .. } => {
                Call::new(Op::Socketpair).with("as", new('k', slot)).with("peer", new('k', peer))
            }
            Action::Receive { socket, new: slot, .. } => {
                let kind = self.reference.next_message(p, socket);
                Call::new(Op::RecvFd)
                    .with("socket", label(socket))
                    .with("as", new(kind.map_or('x', letter), slot))
            }
            Action::Dup { fd, new: slot, .. } => {
                let kind = self.reference.desc(p, fd).map(|desc| self.reference.descs[desc].kind);
                Call::new(Op::Dup).with("fd", label(fd)).with("as", new(kind.map_or('x', letter), slot))
            }
            Action::ReadOnly { fd, new: slot, .. } => Call::new(Op::Reopen)
                .with("fd", label(fd))
                .with("flags", number(0))
                .with("as", new('f', slot)),
            Action::Create { device, name, new: slot, arg, .. } => {
                let call =
                    Call::new(Op::CreateSession).with("device", label(device)).with("as", new('s', slot));
                with_argument(with_name(call, name), arg)
            }
            Action::Take { device, name, new: slot, arg, .. } => {
                let call =
                    Call::new(Op::RetrieveSession).with("device", label(device)).with("as", new('s', slot));
                with_argument(with_name(call, name), arg)
            }
            Action::Retrieve { session, token, new: slot, arg, .. } => {
                let call =
                    Call::new(Op::Retrieve).with("session", label(session)).with("token", number(token));
                with_argument(call.with("as", new('f', slot)), arg)
            }
            _ => return None,
        })
    }

    fn session_script(&self, action: &Action) -> Option<Call> {
        let p = action.process()?;
        let label = |slot| text(self.label(p, slot));
        Some(match *action {
            Action::Preserve { session, fd, token, arg, .. } => {
                let call = Call::new(Op::Preserve).with("session", label(session)).with("fd", label(fd));
                with_argument(call.with("token", number(token)), arg)
            }
            Action::Finish { session, reserved, arg, .. } => {
                let call = Call::new(Op::Finish).with("session", label(session));
                let call = if reserved == 0 { call } else { call.with("reserved", number(reserved)) };
                with_argument(call, arg)
            }
            Action::GetName { session, .. } => {
                let name = self
                    .reference
                    .session(p, session)
                    .map(|one| name_bytes(self.reference.sessions[one].name));
                let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
                Call::new(Op::GetName).with("session", label(session)).with("name", text(name))
            }
            Action::Link { session, .. } => {
                let name = self
                    .reference
                    .session(p, session)
                    .map(|one| name_bytes(self.reference.sessions[one].name));
                let name = String::from_utf8_lossy(&name.unwrap_or_default()).into_owned();
                let link = text(format!("anon_inode:[luo_session] {name}"));
                Call::new(Op::ExpectFile).with("fd", label(session)).with("link", link)
            }
            _ => return None,
        })
    }

    fn file_script(&self, action: &Action) -> Option<Call> {
        let p = action.process()?;
        let label = |slot| text(self.label(p, slot));
        Some(match *action {
            Action::Send { socket, fd, .. } => {
                Call::new(Op::SendFd).with("socket", label(socket)).with("fd", label(fd))
            }
            Action::Close { fd, .. } => Call::new(Op::Close).with("fd", label(fd)),
            Action::Fork { child, .. } => Call::new(Op::Fork).with("child", text(self.process_name(child))),
            Action::Exit { .. } => Call::new(Op::Exit),
            Action::Truncate { fd, size, .. } => {
                Call::new(Op::Ftruncate).with("fd", label(fd)).with("size", number(size))
            }
            Action::Write { fd, at, cells: count, seed, .. } => Call::new(Op::Write)
                .with("fd", label(fd))
                .with("at", cells(at))
                .with("len", cells(count))
                .with("seed", number(seed)),
            Action::Allocate { fd, at, cells: count, .. } => {
                Call::new(Op::Fallocate).with("fd", label(fd)).with("at", cells(at)).with("len", cells(count))
            }
            Action::Punch { fd, at, cells: count, .. } => Call::new(Op::Fallocate)
                .with("fd", label(fd))
                .with("mode", number(3))
                .with("at", cells(at))
                .with("len", cells(count)),
            Action::Seek { fd, to, .. } => {
                Call::new(Op::Lseek).with("fd", label(fd)).with("offset", number(to))
            }
            Action::Seal { fd, seals, .. } => {
                Call::new(Op::AddSeals).with("fd", label(fd)).with("seals", number(seals))
            }
            Action::Map { fd, new, .. } => Call::new(Op::Mmap)
                .with("fd", label(fd))
                .with("len", cells(64))
                .with("as", text(format!("m{new}"))),
            Action::Store { map, at, cells: count, seed, .. } => Call::new(Op::Store)
                .with("map", text(format!("m{map}")))
                .with("at", cells(at))
                .with("len", cells(count))
                .with("seed", number(seed)),
            Action::Unmap { map, .. } => Call::new(Op::Munmap).with("map", text(format!("m{map}"))),
            Action::Handler { fd, callback, times, .. } => Call::new(Op::Fault)
                .with("fd", label(fd))
                .with("in", text(callback.name()))
                .with("errno", text(Errno::EIO.name()))
                .with("times", number(times)),
            _ => return None,
        })
    }
}
