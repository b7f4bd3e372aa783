//! The subsystems in order of registration, and what the machine's transitions do with them.

use std::cell::RefCell;
use std::rc::Rc;

use luosim_abi::{Errno, KResult};
use luosim_luo::Host;

use crate::handler::Subsystem;
use crate::page::Page;
use crate::record::Handlers;
use crate::states::Work;
use crate::trouble::{Answer, Trouble};
use crate::{Content, Posted};

/// One subsystem.
enum Member<H: Host> {
    /// The files, or the sessions.
    Content(&'static str),
    Other(Rc<dyn Subsystem<H>>),
}

impl<H: Host> Member<H> {
    fn name(&self) -> &'static str {
        match self {
            Self::Content(name) => name,
            Self::Other(subsystem) => subsystem.name(),
        }
    }
}

/// All subsystems with their values.
pub(crate) struct Members<H: Host> {
    list: Vec<(Member<H>, u64)>,
}

impl<H: Host> Default for Members<H> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<H: Host> Members<H> {
    pub(crate) fn add(&mut self, subsystem: Rc<dyn Subsystem<H>>) -> KResult<()> {
        let name = subsystem.name();
        if self.list.iter().any(|(other, _)| other.name() == name) {
            return Err(Errno::EEXIST.because(format!("a subsystem '{name}' is registered")));
        }
        self.list.push((Member::Other(subsystem), 0));
        Ok(())
    }

    pub(crate) fn add_files(&mut self, name: &'static str) {
        self.list.push((Member::Content(name), 0));
    }

    fn values(&self) -> Vec<(&'static str, u64)> {
        self.list.iter().map(|(member, data)| (member.name(), *data)).collect()
    }
}

impl Content {
    fn prepare<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> KResult<u64> {
        match self {
            Self::Files(files) => files.prepare(handlers, host),
            Self::Sessions(sessions) => sessions.prepare(handlers, host),
        }
    }

    fn freeze<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, data: u64) -> KResult<u64> {
        match self {
            Self::Files(files) => files.freeze(handlers, host, data),
            Self::Sessions(sessions) => sessions.freeze(handlers, host, data),
        }
    }

    fn cancel<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) {
        match self {
            Self::Files(files) => files.cancel(handlers, host),
            Self::Sessions(sessions) => sessions.cancel(handlers, host),
        }
    }

    fn finish<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, data: u64) -> Answer<()> {
        match self {
            Self::Files(files) => files.finish(handlers, host, data),
            Self::Sessions(sessions) => sessions.finish(handlers, host),
        }
    }
}

impl<H: Host> Posted<H> {
    /// A piece of the machine's work.
    pub(crate) fn work(&mut self, host: &mut H, work: Work) -> Answer<()> {
        match work {
            Work::BuildTree => self.build_page(host)?,
            Work::RemoveTree => self.remove_page(host),
            Work::PrepareSubsystems => self.each_with_value(host, Self::prepare_one)?,
            Work::FreezeSubsystems => self.each_with_value(host, Self::freeze_one)?,
            Work::CancelSubsystems => self.cancel_first(host, self.members.list.len()),
            Work::FinishSubsystems => return self.finish_all(host),
            Work::FinalizeKho | Work::AbortKho => {
                let mem = host.memory();
                mem.kho.write_finalize(mem.ram, mem.log, u64::from(work == Work::FinalizeKho))?;
            }
            work => unreachable!("{} is no work on the machine", work.name()),
        }
        Ok(())
    }

    /// A page that an earlier, refused freeze left is replaced; what the posted code did with it is not known.
    fn build_page(&mut self, host: &mut H) -> KResult<()> {
        self.remove_page(host);
        self.page = Some(Page::build(&mut host.memory(), &self.members.values())?);
        Ok(())
    }

    fn remove_page(&mut self, host: &mut H) {
        if let Some(page) = self.page.take() {
            page.remove(&mut host.memory());
        }
    }

    fn write_values(&self, host: &mut H) {
        if let Some(page) = &self.page {
            page.write(&mut host.memory(), &self.members.values());
        }
    }

    /// Calls each subsystem in order and keeps its value; at the first error those before it are cancelled.
    fn each_with_value(
        &mut self,
        host: &mut H,
        call: impl Fn(&mut Self, &mut H, usize) -> KResult<u64>,
    ) -> KResult<()> {
        for index in 0..self.members.list.len() {
            match call(self, host, index) {
                Ok(data) => self.members.list[index].1 = data,
                Err(refusal) => {
                    self.cancel_first(host, index);
                    return Err(refusal);
                }
            }
        }
        self.write_values(host);
        Ok(())
    }

    fn prepare_one(&mut self, host: &mut H, index: usize) -> KResult<u64> {
        match &self.members.list[index].0 {
            Member::Content(_) => self.content.prepare(&self.handlers, host),
            Member::Other(subsystem) => subsystem.clone().prepare(host),
        }
    }

    fn freeze_one(&mut self, host: &mut H, index: usize) -> KResult<u64> {
        let (member, data) = &self.members.list[index];
        match member {
            Member::Content(_) => self.content.freeze(&self.handlers, host, *data),
            Member::Other(subsystem) => subsystem.clone().freeze(host, *data),
        }
    }

    /// Cancels the first `count` subsystems, and writes zeros for them.
    fn cancel_first(&mut self, host: &mut H, count: usize) {
        for (member, data) in &mut self.members.list[..count] {
            match member {
                Member::Content(_) => self.content.cancel(&self.handlers, host),
                Member::Other(subsystem) => subsystem.cancel(host, *data),
            }
            *data = 0;
        }
        self.write_values(host);
    }

    fn finish_all(&mut self, host: &mut H) -> Answer<()> {
        let incoming = self.incoming.as_ref().expect("UPDATED comes of it");
        let values: KResult<Vec<u64>> =
            self.members.list.iter().map(|(member, _)| incoming.value(member.name())).collect();
        let values = values.map_err(|refusal| Trouble::restore(refusal.reason))?;
        for ((member, _), data) in self.members.list.iter().zip(values) {
            match member {
                Member::Content(_) => self.content.finish(&self.handlers, host, data)?,
                Member::Other(subsystem) => subsystem.finish(host, data),
            }
        }
        if let Some(incoming) = self.incoming.take() {
            incoming.remove(&mut host.memory());
        }
        Ok(())
    }
}

/// Where a test subsystem can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// PREPARE fails.
    Prepare,
    /// The reboot fails.
    Freeze,
}

/// What a test subsystem was told: how often a callback fails still, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub callback: Callback,
    /// With what.
    pub errno: Errno,
    /// Calls that still fail.
    pub times: u32,
}

/// A subsystem of luosim's own: it carries a number, logs every call, and fails when it is told to.
#[derive(Debug)]
pub struct TestSubsystem {
    name: &'static str,
    data: u64,
    faults: RefCell<Vec<Fault>>,
}

impl TestSubsystem {
    /// A subsystem of this name that carries this number.
    #[must_use]
    pub fn new(name: &'static str, data: u64) -> Self {
        Self { name, data, faults: RefCell::new(Vec::new()) }
    }

    /// Makes a callback fail; replaces what it was told of that callback before.
    pub fn set_fault(&self, fault: Fault) {
        let mut faults = self.faults.borrow_mut();
        faults.retain(|other| other.callback != fault.callback);
        faults.push(fault);
    }

    fn called<H: Host>(&self, host: &mut H, callback: Callback, word: &str) -> KResult<()> {
        let mut faults = self.faults.borrow_mut();
        let told = faults.iter_mut().find(|fault| fault.callback == callback && fault.times > 0);
        let Some(fault) = told else {
            self.say(host, word);
            return Ok(());
        };
        fault.times -= 1;
        self.say(host, &format!("{word}: fails"));
        Err(fault.errno.because(format!("subsystem {} was told to fail in {word}", self.name)))
    }

    fn say<H: Host>(&self, host: &mut H, what: &str) {
        host.memory().log.info(format!("luosim_test: subsystem {}: {what}", self.name));
    }
}

impl<H: Host> Subsystem<H> for TestSubsystem {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&self, host: &mut H) -> KResult<u64> {
        self.called(host, Callback::Prepare, "prepare")?;
        Ok(self.data)
    }

    fn freeze(&self, host: &mut H, data: u64) -> KResult<u64> {
        self.called(host, Callback::Freeze, "freeze")?;
        Ok(data)
    }

    fn cancel(&self, host: &mut H, _data: u64) {
        self.say(host, "cancel");
    }

    fn finish(&self, host: &mut H, data: u64) {
        self.say(host, &format!("finish {data:#x}"));
    }

    fn boot(&self, host: &mut H, data: u64) {
        self.say(host, &format!("boot {data:#x}"));
    }
}
