//! The Live Update Orchestrator (LUO) of one simulated kernel.
//!
//! Sessions group files; a file is *preserved* into an outgoing session under a user's token, *frozen* and
//! serialised at `reboot(KEXEC)`, found again by the next kernel in an incoming session, *retrieved* and
//! *finished*. What is done to a file is its [`FileHandler`]'s business; how a session looks in memory is the
//! business of the release's format (`format::v1`, `format::v5`).
//!
//! Contract: every operation checks in the order of the real release and answers its errno with a reason
//! beside it ([`luosim_abi::Refusal`]); an operation that fails leaves what the real one leaves. Lookups are
//! hashed where the kernel walks lists; results are the same.
//!
//! Not here: descriptors and processes (the caller gives [`Caller`]), file contents (crate `luosim-files`),
//! locks (the model runs one call at a time; what a real kernel would make wait is decided by the machine).
//!
//! Mirrors `kernel/liveupdate/luo_*` of 6.19 (`luo-v1`) and 7.3 (`luo-v5`).

#![forbid(unsafe_code)]

mod blocks;
mod boot;
mod dispatch;
pub mod event;
mod file_set;
pub mod flb;
mod format;
pub mod handler;
mod held;
mod host;
mod name;
mod ops;
mod reboot;
mod session;
pub mod slab;
pub mod test_flbs;

pub use luosim_abi::extensible as argument;

pub use boot::{BootPanic, LuoConfig};
pub use event::{Event, FinishCause};
pub use handler::{Context, FileHandler};
pub use host::{Caller, FileId, Host, Identity, Memory, RetrieveStatus, SessionKey};
pub use name::SessionName;
pub use ops::Direction;
pub use reboot::{Carried, Disturbance, Stop};

use std::rc::Rc;

use luosim_abi::quirk::Quirks;
use luosim_abi::release::Release;
use luosim_abi::{Errno, Refusal};
use luosim_physmem::PhysAddr;

use crate::flb::FlbRegistry;
use crate::format::Outgoing;
use crate::held::HeldFiles;
use crate::session::{Session, SessionList, Sessions};

/// Whether the incoming sessions have been read, once per boot at the first open of the device.
#[derive(Debug)]
enum Deserialized {
    /// Nobody has opened the device yet; what the previous kernel left is still only bytes.
    Pending(format::Incoming),
    /// Done, or there was nothing.
    Done,
    /// Failed: every open gives EIO until the next boot.
    Failed(Refusal),
}

/// The orchestrator of one kernel. Dropped at a kexec: only what it wrote into memory goes on.
pub struct Luo<H: Host> {
    release: &'static Release,
    quirks: Quirks,
    enabled: bool,
    /// Number this kernel was given; 0 if it got nothing. The next kernel is given one more.
    incoming_number: u64,
    sessions: Sessions,
    outgoing: SessionList,
    incoming: SessionList,
    deserialized: Deserialized,
    out: Option<Outgoing>,
    handlers: Vec<Rc<dyn FileHandler<H>>>,
    held: HeldFiles,
    flbs: FlbRegistry<H>,
    device_open: bool,
    serialized: bool,
    /// Files that are being retrieved now, each wanted by the one before it.
    retrieving: Vec<(SessionKey, u64)>,
    /// What disturbs the next reboot.
    disturbance: Disturbance,
    /// Points of the serialisation passed so far.
    points: u32,
}

impl<H: Host> std::fmt::Debug for Luo<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Luo")
            .field("release", &self.release.name)
            .field("enabled", &self.enabled)
            .field("incoming_number", &self.incoming_number)
            .field("outgoing", &self.outgoing.len())
            .field("incoming", &self.incoming.len())
            .finish_non_exhaustive()
    }
}

impl<H: Host> Luo<H> {
    /// Whether `/dev/liveupdate` exists.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The live update number this kernel was handed; 0 after a boot without handover.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.incoming_number
    }

    /// Whether serialisation has succeeded: from then on, releases with a reboot lock let no session call
    /// through.
    #[must_use]
    pub fn serialized(&self) -> bool {
        self.serialized
    }

    /// Outgoing sessions, as many as exist now.
    #[must_use]
    pub fn outgoing_sessions(&self) -> usize {
        self.outgoing.len()
    }

    /// Incoming sessions that were read from the handover and still exist.
    #[must_use]
    pub fn incoming_sessions(&self) -> usize {
        self.incoming.len()
    }

    /// Names of the outgoing sessions with their tokens, in creation and preservation order.
    pub fn outgoing(&self) -> impl Iterator<Item = (SessionName, Vec<u64>)> + '_ {
        self.listed(&self.outgoing)
    }

    /// Names of the incoming sessions with their tokens, in the order of the handover.
    pub fn incoming(&self) -> impl Iterator<Item = (SessionName, Vec<u64>)> + '_ {
        self.listed(&self.incoming)
    }

    fn listed<'a>(&'a self, list: &'a SessionList) -> impl Iterator<Item = (SessionName, Vec<u64>)> + 'a {
        list.keys().filter_map(|key| self.session(key)).map(|session| (session.name, session.files.tokens()))
    }

    /// Opens the device. The first open of a kernel's life reads the incoming sessions.
    ///
    /// # Errors
    /// EBUSY while another open file description exists; EIO for good after the first open failed.
    pub fn open_device(&mut self, host: &mut H) -> luosim_abi::KResult<()> {
        if self.device_open {
            return Err(Errno::EBUSY.because("the device is already open; it admits one opener at a time"));
        }
        self.deserialize(host)?;
        self.device_open = true;
        Ok(())
    }

    /// The last descriptor of the device was closed. Sessions are not touched.
    pub fn release_device(&mut self) {
        self.device_open = false;
    }

    /// The session that holds the file with this identity, where the release keeps account of that.
    #[must_use]
    pub fn holder_of(&self, identity: Identity) -> Option<SessionKey> {
        self.held.find(identity).map(|place| place.session)
    }

    /// First block of the outgoing sessions' records, where the release has blocks and there is one.
    #[must_use]
    pub fn session_chain(&self) -> Option<PhysAddr> {
        match self.out.as_ref()? {
            Outgoing::V5(out) => Some(out.sessions.head()).filter(|head| *head != PhysAddr::NULL),
            Outgoing::V1(_) => None,
        }
    }

    /// The handler's handle of a file in an outgoing session.
    #[must_use]
    pub fn preserved_data(&self, session: &SessionName, token: u64) -> Option<u64> {
        let key = self.outgoing.find(session, &self.sessions)?;
        self.session(key)?.files.find(token).map(|file| file.data)
    }

    fn session(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(key)
    }

    fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(key)
    }

    /// Name of a session, for links in `/proc` and for reasons.
    #[must_use]
    pub fn session_name(&self, key: SessionKey) -> Option<SessionName> {
        self.session(key).map(|session| session.name)
    }
}
