//! A registered file, and what the machine of files does to it.

use std::rc::Rc;

use luosim_abi::posted::{Event, State};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult, Refusal};
use luosim_luo::{FileId, Host};

use crate::handler::Handler;
use crate::run::run;
use crate::states::{Rule, StateMachine, Work};

/// The handlers, in order of registration.
pub(crate) type Handlers<H> = Vec<Rc<dyn Handler<H>>>;

/// One file: of this kernel, or of the previous one.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) handler: usize,
    /// The description that the orchestrator holds a reference on; none for a file that nobody took.
    pub(crate) file: Option<FileId>,
    pub(crate) data: u64,
    pub(crate) state: State,
    pub(crate) reclaimed: bool,
    /// Whether an observer was told that it is to survive.
    pub(crate) listed: bool,
}

impl Record {
    /// A file that a program registers.
    pub(crate) fn outgoing(handler: usize, file: FileId) -> Self {
        Self { handler, file: Some(file), data: 0, state: State::Normal, reclaimed: false, listed: true }
    }

    /// A file of the previous kernel.
    pub(crate) fn found(handler: usize, data: u64) -> Self {
        Self { handler, file: None, data, state: State::Updated, reclaimed: false, listed: false }
    }

    /// Moves the file; `machine` is that of files.
    pub(crate) fn moved<H: Host>(
        &mut self,
        machine: &StateMachine,
        handlers: &Handlers<H>,
        host: &mut H,
        token: u64,
        event: Event,
    ) -> KResult<()> {
        let cell = machine.cell(self.state, event).expect("a file is in a state of its machine");
        if cell.rule == Rule::Warn {
            let (state, event) = (self.state.name(), event.name());
            host.memory().log.warn(format!("liveupdate: token {token:#x} is {state}, {event} does nothing"));
        }
        let why = || format!("token {token:#x}");
        let (state, result) = run::<Refusal>(cell, Quirks::NONE, why, |work| self.work(handlers, host, work));
        self.state = state;
        result
    }

    /// A piece of the work on one file.
    pub(crate) fn work<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, work: Work) -> KResult<()> {
        let handler = handlers[self.handler].clone();
        match (work, self.file) {
            (Work::PrepareFile, Some(file)) => self.data = handler.prepare(host, file)?,
            (Work::FreezeFile, Some(file)) => self.data = handler.freeze(host, file, self.data)?,
            (Work::CancelFile, Some(file)) => {
                handler.cancel(host, file, self.data);
                self.data = 0;
            }
            (Work::FinishFile, file) => handler.finish(host, file, self.data, self.reclaimed),
            (work, _) => unreachable!("{} is no work on a registered file", work.name()),
        }
        Ok(())
    }

    /// Gives the file to a program, which gets a reference of its own. With `once` a failure counts as given.
    ///
    /// # Errors
    /// `taken` if it was given before; the handler's.
    pub(crate) fn restore<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        quirks: Quirks,
        taken: Refusal,
    ) -> KResult<FileId> {
        if self.reclaimed {
            return Err(taken);
        }
        self.reclaimed = quirks.has(Quirk::RestoreOnce);
        let file = handlers[self.handler].clone().retrieve(host, self.data)?;
        self.reclaimed = true;
        self.file = Some(file);
        host.file_get(file);
        Ok(file)
    }
}

/// The handler that takes a file.
///
/// # Errors
/// ENOENT: none does.
pub(crate) fn handler_for<H: Host>(handlers: &Handlers<H>, host: &H, file: FileId) -> KResult<usize> {
    let found = handlers.iter().position(|handler| handler.can_preserve(host, file));
    found.ok_or_else(|| Errno::ENOENT.because("no handler takes this kind of file"))
}

/// The handler of this string.
pub(crate) fn handler_named<H: Host>(handlers: &Handlers<H>, name: &[u8]) -> Option<usize> {
    handlers.iter().position(|handler| handler.compatible().as_bytes() == name)
}
