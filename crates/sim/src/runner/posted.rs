//! Calls of the posted designs.

use luosim_abi::posted::{Event, State};
use luosim_machine::process::Pid;
use luosim_posted::Posted;
use luosim_scenario::{Call, Op};

use super::calls::{flag, u32_of};
use super::{Answer, Runner};
use crate::transcript::Record;

fn event(call: &Call) -> Event {
    let name = call.text("event").unwrap_or("");
    Event::ALL.iter().copied().find(|event| event.name() == name).expect("checked with the document")
}

impl Runner<'_> {
    pub(super) fn posted(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let device = self.fd(process, call, "device");
        let session = self.fd(process, call, "session");
        let fd = self.fd(process, call, "fd");
        let token = call.u64("token").unwrap_or(0);
        let machine = self.on();
        match call.op {
            Op::FdPreserve => machine.fd_preserve(pid, device, fd, token, u32_of(call, "flags", 0))?,
            Op::FdUnpreserve => machine.fd_unpreserve(pid, device, token)?,
            Op::SetEvent => machine.set_event(pid, fd, event(call))?,
            Op::FdEvent => machine.fd_event(pid, device, event(call), token)?,
            Op::Unpreserve => machine.session_unpreserve(pid, session, token, u32_of(call, "reserved", 0))?,
            Op::GetState => {
                let found = machine.get_state(pid, fd)?;
                return Ok(self.state_is(call, found));
            }
            _ => {
                let found = machine.fd_state(pid, device, token, flag(call, "incoming", false))?;
                return Ok(self.state_is(call, found));
            }
        }
        Ok(0)
    }

    /// The state of the machine, if a posted design runs on it.
    pub(super) fn posted_state(&self) -> Option<State> {
        self.machine.as_ref().and_then(|machine| machine.kernel()?.posted()).map(Posted::state)
    }

    /// Records that a call moved the machine of a posted design.
    pub(super) fn note_state(&mut self, before: Option<State>) {
        let (Some(before), Some(after)) = (before, self.posted_state()) else { return };
        if before != after {
            let [before, after] = [before, after].map(|state| state.name().to_uppercase());
            self.records.push(Record::Machine { action: format!("live update: {before}, now {after}") });
        }
    }

    /// Compares the state that a call gave; its number is the call's value.
    fn state_is(&mut self, call: &Call, found: u32) -> i64 {
        let name = State::from_raw(found).map_or("no state", State::name);
        if let Some(want) = call.text("state").filter(|want| *want != name) {
            self.fail(call, format!("the state is {name}, expected {want}"));
        }
        i64::from(found)
    }
}
