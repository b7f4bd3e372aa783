//! The sessions of the fourth design: one list for those made here and those of the previous kernel, each with a state
//! machine, a table of files and, once prepared, an array that is handed over.

use std::collections::BTreeMap;

use luosim_abi::posted::session::FileRecord;
use luosim_abi::posted::v4::NAME_LENGTH;
use luosim_abi::posted::{Event, State};
use luosim_abi::quirk::Quirks;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_luo::{Event as Seen, FileId, FinishCause, Host, SessionName};
use luosim_physmem::{FrameUse, PhysAddr};

use crate::record::{Handlers, Record, handler_for};
use crate::run::run;
use crate::states::{StateMachine, Work};

/// Bytes of a file's entry.
pub(crate) const FILE_SIZE: u64 = 64;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: [u8; NAME_LENGTH],
    pub(crate) state: State,
    machine: &'static StateMachine,
    /// Ascending by token, as the arrays are.
    pub(crate) files: BTreeMap<u64, Record>,
    /// The array that is handed over, or that the previous kernel handed over.
    pub(crate) array: Option<PhysAddr>,
    /// Whether a descriptor of it exists.
    pub(crate) open: bool,
}

/// A name in its field, cut to leave a NUL.
pub(crate) fn name_field(bytes: &[u8]) -> [u8; NAME_LENGTH] {
    let mut field = [0; NAME_LENGTH];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()).min(NAME_LENGTH - 1);
    field[..end].copy_from_slice(&bytes[..end]);
    field
}

impl Session {
    pub(crate) fn new(machine: &'static StateMachine, name: [u8; NAME_LENGTH], state: State) -> Self {
        Self { name, state, machine, files: BTreeMap::new(), array: None, open: false }
    }

    pub(crate) fn shown(&self) -> SessionName {
        SessionName::from_bytes(&self.name)
    }

    /// Registers a file. The caller has looked at the states.
    ///
    /// # Errors
    /// ENOENT: no handler; EEXIST.
    pub(crate) fn register<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        file: FileId,
        token: u64,
    ) -> KResult<()> {
        let handler = handler_for(handlers, host, file)?;
        if self.files.contains_key(&token) {
            let name = self.shown();
            return Err(Errno::EEXIST.because(format!("token {token:#x} is used in session {name:?}")));
        }
        let record = Record::outgoing(handler, file);
        self.files.insert(token, record);
        host.file_get(file);
        host.emit(Seen::Preserved { session: self.shown(), token });
        Ok(())
    }

    /// Forgets a token.
    ///
    /// # Errors
    /// ENOENT.
    pub(crate) fn unregister<H: Host>(&mut self, host: &mut H, token: u64) -> KResult<()> {
        let record = self.files.remove(&token).ok_or_else(|| self.unknown(token))?;
        self.let_go(host, token, &record);
        Ok(())
    }

    fn unknown(&self, token: u64) -> Refusal {
        Errno::ENOENT.because(format!("session {:?} has no file under token {token:#x}", self.shown()))
    }

    /// Gives a file back; a failure may be tried again.
    ///
    /// # Errors
    /// ENOENT; EADDRINUSE; the handler's.
    pub(crate) fn restore<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        quirks: Quirks,
        token: u64,
    ) -> KResult<FileId> {
        let (unknown, session) = (self.unknown(token), self.shown());
        let record = self.files.get_mut(&token).ok_or(unknown)?;
        let taken = Errno::EADDRINUSE.because(format!("the file of token {token:#x} was given back before"));
        let was = record.reclaimed;
        let result = record.restore(handlers, host, quirks, taken);
        match &result {
            Ok(_) => host.emit(Seen::Retrieved { session, token }),
            Err(refusal) if !was => {
                host.emit(Seen::RetrieveFailed { session, token, errno: refusal.errno });
            }
            Err(_) => {}
        }
        result
    }

    /// Moves the session.
    ///
    /// # Errors
    /// As the table says; the handler's.
    pub(crate) fn moved<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        event: Event,
        cause: FinishCause,
    ) -> KResult<()> {
        let cell = self.machine.cell(self.state, event).expect("a session is in a state of its machine");
        let name = self.shown();
        let why = || format!("session {name:?}");
        let (state, result) = run::<Refusal>(cell, Quirks::NONE, why, |work| match work {
            Work::PrepareFiles => self.prepare(handlers, host),
            Work::FreezeFiles => self.freeze(handlers, host),
            Work::CancelFiles => {
                self.cancel(handlers, host);
                Ok(())
            }
            Work::FinishFiles => {
                self.finish(handlers, host, cause);
                Ok(())
            }
            work => unreachable!("{} is no work on a session", work.name()),
        });
        if state != self.state {
            let (from, to) = (self.state.name(), state.name());
            host.memory().log.info(format!("liveupdate: session {name:?}: {from} -> {to}"));
        }
        self.state = state;
        result
    }

    fn prepare<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> KResult<()> {
        if !self.files.is_empty() {
            let bytes = FILE_SIZE * self.count();
            let mem = host.memory();
            self.array = Some(mem.kho.alloc_preserve(mem.ram, bytes, FrameUse::Luo)?);
        }
        let session = self.shown();
        for (token, record) in &mut self.files {
            record.work(handlers, host, Work::PrepareFile)?;
            record.state = State::Prepared;
            // A file that was given back here takes part from now on.
            if !std::mem::replace(&mut record.listed, true) {
                host.emit(Seen::Preserved { session, token: *token });
            }
        }
        self.write(handlers, host);
        Ok(())
    }

    fn freeze<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> KResult<()> {
        for record in self.files.values_mut() {
            record.work(handlers, host, Work::FreezeFile)?;
            record.state = State::Frozen;
        }
        self.write(handlers, host);
        Ok(())
    }

    fn write<H: Host>(&self, handlers: &Handlers<H>, host: &mut H) {
        let Some(array) = self.array else { return };
        for (index, (token, record)) in (0u64..).zip(&self.files) {
            let entry = FileRecord::new(handlers[record.handler].compatible(), record.data, *token);
            let slot = array.checked_add(FILE_SIZE * index).expect("inside the array");
            host.memory().ram.mem.write_obj(slot, &entry).expect("the array is this kernel's");
        }
    }

    fn cancel<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) {
        let prepared = |record: &&mut Record| matches!(record.state, State::Prepared | State::Frozen);
        for record in self.files.values_mut().filter(prepared) {
            record.work(handlers, host, Work::CancelFile).expect("cancel cannot fail");
            record.state = State::Normal;
        }
        if let Some(array) = self.array.take() {
            let mem = host.memory();
            mem.kho.unpreserve_free(mem.ram, array);
        }
    }

    fn finish<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, cause: FinishCause) {
        let session = self.shown();
        let mut kept = BTreeMap::new();
        for (token, mut record) in std::mem::take(&mut self.files) {
            record.work(handlers, host, Work::FinishFile).expect("finish cannot fail");
            let retrieved = record.file.is_some();
            host.emit(Seen::Finished { session, token, retrieved, cause });
            if let Some(file) = record.file {
                kept.insert(token, Record { listed: false, ..Record::outgoing(record.handler, file) });
            }
        }
        self.files = kept;
        if let Some(array) = self.array.take() {
            let mem = host.memory();
            mem.kho.restore_free(mem.ram, array);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.files.len()).expect("a count fits in 64 bits")
    }

    /// The end: the references on the files are given back.
    pub(crate) fn drop_files<H: Host>(&mut self, host: &mut H) {
        for (token, record) in std::mem::take(&mut self.files) {
            self.let_go(host, token, &record);
        }
    }

    fn let_go<H: Host>(&self, host: &mut H, token: u64, record: &Record) {
        if let Some(file) = record.file {
            host.file_put(file);
        }
        if record.listed {
            host.emit(Seen::Unpreserved { session: self.shown(), token });
        }
    }
}
