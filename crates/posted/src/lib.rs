//! The Live Update Orchestrator of one simulated kernel as it was posted for review in the summer and autumn of 2025,
//! three times, and merged in none of these forms.
//!
//! All three have a state machine for the whole machine that a program drives: PREPARE, then the reboot freezes, then
//! FINISH in the next kernel, or CANCEL. What it does to files and subsystems, in which order, and what an error undoes, is
//! data ([`states`]); behaviour follows it ([`Posted`]). The second design has tokens in one space over all opens of the
//! device, the third a state for each file, the fourth named sessions with a state each.
//!
//! Contract: as of the merged orchestrator (crate `luosim-luo`): checks in the order of the design, an errno with a reason
//! beside it, and a call that fails leaves what the posted code would leave. Defects that its review found are quirks. The
//! previous kernel's bytes are hostile: they give a panic of the simulated kernel, as they did then, never one of luosim.
//!
//! Known from the patches and mails alone; where they are silent the choice is said at the place. Not here: file contents
//! and handlers (crate `luosim-files`), descriptors and processes (the caller), locks.

#![forbid(unsafe_code)]

mod args;
mod dispatch;
mod files;
pub mod handler;
mod page;
mod record;
mod run;
mod session;
mod sessions;
pub mod states;
pub mod subsystem;
mod trouble;

pub use handler::{Handler, Subsystem};

use std::rc::Rc;

use luosim_abi::posted::tree::FILES;
use luosim_abi::posted::{Design, Event, State, session as session_abi};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult};
use luosim_luo::{Carried, Event as Seen, Host, Memory, SessionKey, SessionName};

use crate::files::Files;
use crate::page::{Incoming, Page};
use crate::record::Handlers;
use crate::run::run;
use crate::sessions::Sessions;
use crate::states::{Scope, StateMachine, machine};
use crate::subsystem::Members;
use crate::trouble::{Answer, Trouble};

/// An open file description of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenId(pub u32);

/// How a kernel's orchestrator is set up.
#[derive(Clone, Copy, Debug)]
pub struct PostedConfig {
    /// Which.
    pub design: Design,
    /// Its quirks, or others.
    pub quirks: Quirks,
    /// `liveupdate=on` on the command line.
    pub requested: bool,
}

/// The files, as the design groups them: one of the subsystems.
#[derive(Debug)]
pub(crate) enum Content {
    Files(Files),
    Sessions(Sessions),
}

/// The orchestrator of one kernel. Dropped at a kexec: only what it wrote into memory goes on.
pub struct Posted<H: Host> {
    design: Design,
    quirks: Quirks,
    machine: &'static StateMachine,
    state: State,
    handlers: Handlers<H>,
    members: Members<H>,
    content: Content,
    page: Option<Page>,
    incoming: Option<Incoming>,
    opens: u32,
    next_open: u32,
    panicked: Option<String>,
    told: bool,
}

impl<H: Host> std::fmt::Debug for Posted<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Posted")
            .field("design", &self.design)
            .field("state", &self.state)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl<H: Host> Posted<H> {
    /// Boots the orchestrator on a memory whose KHO has taken the handover over. KHO's own outgoing state is made here,
    /// after the previous kernel's page was read.
    ///
    /// # Errors
    /// Why the kernel panics: the page is there, and broken or of another version.
    pub fn boot(mem: &mut Memory<'_>, config: PostedConfig) -> Result<Self, String> {
        let PostedConfig { design, quirks, requested } = config;
        let on = mem.kho.enabled() && requested;
        let incoming = if on { Incoming::read(mem) } else { Ok(None) };
        let incoming =
            incoming.map_err(|refusal| format!("live update data cannot be restored: {}", refusal.reason))?;
        mem.kho.init_outgoing(mem.ram, mem.log);
        let on = on && mem.kho.enabled();
        let state = match (on, &incoming) {
            (false, _) => State::Undefined,
            (true, None) => State::Normal,
            (true, Some(_)) => State::Updated,
        };
        mem.log.info(format!("liveupdate: {} -> {}", State::Undefined.name(), state.name()));
        let of = |scope| machine(design, scope);
        let content = match of(Scope::Session) {
            Some(machine) => Content::Sessions(Sessions::new(machine, quirks)),
            None => Content::Files(Files::new(of(Scope::File).expect("files or sessions have one"), quirks)),
        };
        Ok(Self {
            design,
            quirks,
            machine: of(Scope::Global).expect("every design has one"),
            state,
            handlers: Vec::new(),
            members: Members::default(),
            content,
            page: None,
            incoming,
            opens: 0,
            next_open: 0,
            panicked: None,
            told: false,
        })
    }

    /// Whether `/dev/liveupdate` exists.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.state != State::Undefined
    }

    /// The design.
    #[must_use]
    pub fn design(&self) -> Design {
        self.design
    }

    /// The state of the machine.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the kernel stopped, if it did in the last call: nothing more may be called.
    pub fn take_panic(&mut self) -> Option<String> {
        self.panicked.take()
    }

    /// Whether the previous kernel's files were read since this was asked before.
    pub fn newly_read(&mut self) -> bool {
        let read = match &self.content {
            Content::Files(files) => files.is_read(),
            Content::Sessions(sessions) => sessions.is_read(),
        };
        read && !std::mem::replace(&mut self.told, read)
    }

    /// Adds a handler of a file type.
    ///
    /// # Errors
    /// EBUSY: an update is under way; EEXIST: one with this string.
    pub fn register_handler(&mut self, handler: Rc<dyn Handler<H>>) -> KResult<()> {
        self.check_idle("a handler is registered")?;
        let name = handler.compatible();
        if self.handlers.iter().any(|other| other.compatible() == name) {
            return Err(Errno::EEXIST.because(format!("a handler '{name}' is registered")));
        }
        self.handlers.push(handler);
        Ok(())
    }

    /// Adds a subsystem. Since the third design its `boot` is called if the previous kernel left something.
    ///
    /// # Errors
    /// EBUSY: an update is under way; EEXIST: one with this name.
    pub fn register_subsystem(&mut self, host: &mut H, subsystem: Rc<dyn Subsystem<H>>) -> KResult<()> {
        self.check_idle("a subsystem is registered")?;
        let added = subsystem.clone();
        self.members.add(subsystem)?;
        if self.design == Design::V2 || self.state != State::Updated {
            return Ok(());
        }
        match self.incoming.as_ref().map(|incoming| incoming.value(added.name())) {
            Some(Ok(data)) => added.boot(host, data),
            Some(Err(refusal)) => host.memory().log.warn(format!("liveupdate: {}", refusal.reason)),
            None => {}
        }
        Ok(())
    }

    /// Adds the subsystem of the files, after those that are initialised before it.
    ///
    /// # Errors
    /// Why the kernel panics: since the third design what the previous kernel left is checked here.
    pub fn register_files(&mut self, host: &mut H) -> Result<(), String> {
        self.members.add_files(self.files_name());
        let Some(incoming) = self.incoming.as_ref().filter(|_| self.design != Design::V2) else {
            return Ok(());
        };
        let checked = incoming.value(self.files_name()).map_err(|refusal| Trouble::restore(refusal.reason));
        let checked = checked.and_then(|data| match &mut self.content {
            Content::Files(_) => files::read_tree(&host.memory(), data).map(|_| ()),
            Content::Sessions(sessions) => sessions.boot(&host.memory(), data),
        });
        checked.map_err(|trouble| match trouble {
            Trouble::Panic(text) => text,
            Trouble::Refused(refusal) => refusal.reason.into_owned(),
        })
    }

    fn files_name(&self) -> &'static str {
        match self.content {
            Content::Files(_) => FILES,
            Content::Sessions(_) => session_abi::SUBSYSTEM,
        }
    }

    /// Whether files and handlers may come and go.
    fn is_idle(&self) -> bool {
        matches!(self.state, State::Normal | State::Updated)
    }

    fn check_idle(&self, what: &str) -> KResult<()> {
        if self.is_idle() {
            return Ok(());
        }
        let state = self.state.name().to_uppercase();
        Err(Errno::EBUSY.because(format!("{what} in NORMAL or UPDATED, the machine is {state}")))
    }

    /// Moves the machine.
    fn event(&mut self, host: &mut H, event: Event) -> Answer<()> {
        let cell = self.machine.cell(self.state, event).expect("the machine has every state");
        let why = || String::from("the machine");
        let (state, result) = run(cell, self.quirks, why, |work| self.work(host, work));
        if state != self.state {
            host.memory().log.info(format!("liveupdate: {} -> {}", self.state.name(), state.name()));
        }
        self.state = state;
        result
    }

    /// Opens the device. `root` is whether the caller may administrate the system, `exclusive` whether it passed `O_EXCL`.
    ///
    /// # Errors
    /// EACCES: not root; second design: EINVAL with `O_EXCL`; since the third: EBUSY while it is open.
    pub fn open_device(&mut self, root: bool, exclusive: bool) -> KResult<OpenId> {
        if !root {
            let by = if self.design == Design::V2 { "CAP_SYS_ADMIN" } else { "the mode of the device" };
            return Err(Errno::EACCES.because(format!("{by} does not let the caller in")));
        }
        if self.design == Design::V2 {
            if exclusive {
                return Err(Errno::EINVAL.because("the device is not opened with O_EXCL"));
            }
        } else if self.opens > 0 {
            return Err(Errno::EBUSY.because("the device is already open; it admits one opener at a time"));
        }
        self.opens += 1;
        self.next_open += u32::from(self.design == Design::V2);
        Ok(OpenId(self.next_open))
    }

    /// The last descriptor of an open was closed.
    pub fn release_device(&mut self, host: &mut H, open: OpenId) {
        self.opens = self.opens.saturating_sub(1);
        let (idle, leaks) = (self.is_idle(), self.quirks.has(Quirk::CloseLeaksPrepared));
        let Content::Files(files) = &mut self.content else { return };
        match self.design {
            Design::V2 if !idle && leaks => files.leak(open),
            Design::V2 => files.close(&self.handlers, host, open),
            _ if files.close_drops(self.state) => files.close(&self.handlers, host, open),
            _ => {}
        }
    }

    /// The last descriptor of a session was closed.
    pub fn release_session(&mut self, host: &mut H, key: SessionKey) {
        if let Content::Sessions(sessions) = &mut self.content {
            sessions.close(&self.handlers, host, key);
        }
    }

    /// Name of a session, for links in `/proc` and for reasons.
    #[must_use]
    pub fn session_name(&self, key: SessionKey) -> Option<SessionName> {
        match &self.content {
            Content::Sessions(sessions) => sessions.get(key).map(session::Session::shown),
            Content::Files(_) => None,
        }
    }

    /// What is registered and what came of the previous kernel, as far as it was read: whether it came, a session's name
    /// (or what stands for it in a design without sessions) and its tokens.
    #[must_use]
    pub fn listed(&self) -> Vec<(bool, SessionName, Vec<u64>)> {
        match &self.content {
            Content::Files(files) => files.listed(),
            Content::Sessions(sessions) => sessions.listed(),
        }
    }

    /// The live update step of `reboot(KEXEC)`: the machine is frozen if it is prepared.
    ///
    /// # Errors
    /// The errno of who refused to freeze.
    pub fn reboot(&mut self, host: &mut H) -> KResult<Carried> {
        self.event(host, Event::Freeze).map_err(|trouble| trouble.refusal())?;
        if self.state != State::Frozen {
            return Ok(Carried::default());
        }
        let carried = match &self.content {
            Content::Files(files) => vec![(files::ledger_name(), files.carried())],
            Content::Sessions(sessions) => sessions.carried(),
        };
        let mut count = Carried::default();
        for (session, tokens) in carried {
            for token in &tokens {
                host.emit(Seen::Serialized { session, token: *token });
            }
            let files = u64::try_from(tokens.len()).expect("a count fits in 64 bits");
            count.sessions += u64::from(self.design.has_sessions());
            count.files += files;
            host.emit(Seen::SessionSerialized { session, files });
        }
        Ok(count)
    }
}
