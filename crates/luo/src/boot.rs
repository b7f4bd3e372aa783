//! What LUO does while a kernel boots, and at the first open of the device.
//!
//! Boot (early initcall): the handover's header is read if KHO is on, whatever `liveupdate=` says. Broken
//! data panics on purpose: going on could hand out another user's pages. Late initcall: the outgoing header
//! is made. First open: sessions and files are listed; no handler is called, no file made.

use std::rc::Rc;

use luosim_abi::luo::record::FileRecord;
use luosim_abi::luo::v1 as luo_v1;
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::release::{LuoVersion, Release};
use luosim_abi::{Errno, KResult, Refusal};
use luosim_physmem::PhysAddr;
use rustc_hash::FxHashSet;

use crate::blocks::FoundChain;
use crate::file_set::{File, FileSet, HandlerIndex};
use crate::flb::{FlbOps, FlbRegistry};
use crate::format::{FileArea, FoundSession, Header, Incoming, Outgoing, v1, v5};
use crate::handler::FileHandler;
use crate::held::HeldFiles;
use crate::host::{Host, Memory, RetrieveStatus, SessionKey};
use crate::ops::Direction;
use crate::session::{Session, SessionList, Sessions};
use crate::{Deserialized, Disturbance, Event, Luo};

/// How a kernel's orchestrator is set up.
#[derive(Clone, Copy, Debug)]
pub struct LuoConfig {
    /// The release.
    pub release: &'static Release,
    /// Its quirks, or others.
    pub quirks: Quirks,
    /// `liveupdate=on` on the command line.
    pub requested: bool,
}

/// The kernel cannot boot on what the previous one left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPanic {
    /// The error, in the panic text as a negative number.
    pub refusal: Refusal,
}

impl std::fmt::Display for BootPanic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "The incoming tree failed to initialize properly [-{}], disabling live update",
            self.refusal.errno.raw()
        )
    }
}

impl<H: Host> Luo<H> {
    /// Boots the orchestrator on a memory whose KHO has taken the handover over, in the kernel's order:
    /// incoming header, KHO's own outgoing state, LUO's.
    ///
    /// # Errors
    /// [`BootPanic`] if KHO accepted the handover but LUO's part of it is broken or of another version.
    pub fn boot(mem: &mut Memory<'_>, config: LuoConfig) -> Result<Self, BootPanic> {
        let mut luo = Self::empty(config);
        let Some(version) = config.release.luo else {
            mem.kho.init_outgoing(mem.ram, mem.log);
            return Ok(luo);
        };
        if !mem.kho.enabled() {
            if config.requested {
                mem.log.info("luo: Disabling liveupdate because KHO is disabled");
            }
            mem.kho.init_outgoing(mem.ram, mem.log);
            return Ok(luo);
        }
        if let Some(header) = read_header(mem, version, config).map_err(|refusal| BootPanic { refusal })? {
            luo.incoming_number = header.number;
            luo.flbs = FlbRegistry::new(header.flbs, config.quirks);
            luo.deserialized = Deserialized::Pending(header.incoming);
        }
        mem.kho.init_outgoing(mem.ram, mem.log);
        if config.requested && mem.kho.enabled() {
            luo.init_outgoing(mem, version);
        }
        Ok(luo)
    }

    fn empty(config: LuoConfig) -> Self {
        Self {
            release: config.release,
            quirks: config.quirks,
            enabled: false,
            incoming_number: 0,
            sessions: Sessions::default(),
            outgoing: SessionList::default(),
            incoming: SessionList::default(),
            deserialized: Deserialized::Done,
            out: None,
            handlers: Vec::new(),
            held: HeldFiles::default(),
            flbs: FlbRegistry::new(PhysAddr::NULL, config.quirks),
            device_open: false,
            serialized: false,
            retrieving: Vec::new(),
            disturbance: Disturbance::default(),
            points: 0,
        }
    }

    fn init_outgoing(&mut self, mem: &mut Memory<'_>, version: LuoVersion) {
        let number = self.incoming_number.wrapping_add(1);
        let out = match version {
            LuoVersion::V1 => v1::Outgoing::new(mem, number, self.release.flb).map(Outgoing::V1),
            LuoVersion::V5 => v5::Outgoing::new(mem, number).map(Outgoing::V5),
        };
        match out {
            Ok(out) => {
                self.out = Some(out);
                self.enabled = true;
            }
            Err(refusal) => mem.log.err(format!("luo: failed to set up outgoing state: {refusal}")),
        }
    }

    /// Registers the handler of a file type.
    ///
    /// # Errors
    /// EOPNOTSUPP with LUO off; EEXIST if the string is taken.
    pub fn register_handler(&mut self, handler: Rc<dyn FileHandler<H>>) -> KResult<()> {
        if !self.enabled {
            return Err(Errno::EOPNOTSUPP.because("the live update orchestrator is off"));
        }
        let name = handler.compatible();
        if self.handlers.iter().any(|other| other.compatible() == name) {
            return Err(Errno::EEXIST.because(format!("a handler '{name}' is registered already")));
        }
        self.handlers.push(handler);
        Ok(())
    }

    /// Binds an FLB to the handler with string `handler`.
    ///
    /// # Errors
    /// EOPNOTSUPP with LUO off or in a release without FLBs; EINVAL for an unknown handler; EEXIST; ENOSPC.
    pub fn register_flb(&mut self, handler: &str, ops: Rc<dyn FlbOps<H>>) -> KResult<()> {
        if !self.enabled || !self.release.flb {
            return Err(Errno::EOPNOTSUPP.because("file-lifecycle-bound objects are not available"));
        }
        let index = self.handler_named(handler.as_bytes());
        let index = index.ok_or_else(|| Errno::EINVAL.because(format!("no handler '{handler}'")))?;
        self.flbs.register(index, ops)
    }

    /// Makes an FLB known that no handler has: a core of the kernel that wants to know what came, whichever handlers there are. A
    /// handler may be bound to it later.
    ///
    /// # Errors
    /// As [`Self::register_flb`], the handler aside.
    pub fn add_flb(&mut self, ops: Rc<dyn FlbOps<H>>) -> KResult<()> {
        if !self.enabled || !self.release.flb {
            return Err(Errno::EOPNOTSUPP.because("file-lifecycle-bound objects are not available"));
        }
        self.flbs.add(ops).map(|_| ())
    }

    /// Whether an FLB is known here.
    #[must_use]
    pub fn has_flb(&self, name: &str) -> bool {
        self.flbs.knows(name)
    }

    /// FLBs that are registered.
    #[must_use]
    pub fn flb_count(&self) -> usize {
        self.flbs.count()
    }

    fn handler_named(&self, name: &[u8]) -> Option<HandlerIndex> {
        self.handlers.iter().position(|handler| handler.compatible().as_bytes() == name).map(HandlerIndex)
    }

    /// Lists the incoming sessions, once per boot.
    ///
    /// # Errors
    /// EIO, remembered.
    pub(crate) fn deserialize(&mut self, host: &mut H) -> KResult<()> {
        let pending = match std::mem::replace(&mut self.deserialized, Deserialized::Done) {
            Deserialized::Done => return Ok(()),
            Deserialized::Pending(pending) => pending,
            Deserialized::Failed(refusal) => {
                self.deserialized = Deserialized::Failed(refusal.clone());
                return Err(refusal);
            }
        };
        let result = match pending {
            Incoming::Nothing => Ok(()),
            Incoming::V1 { area } => {
                let found = v1::read_sessions(&host.memory().ram.mem, area);
                let result = self.add_sessions(host, &found, &mut FxHashSet::default());
                if result.is_ok() {
                    v5::free_pages(&mut host.memory(), &[area]);
                }
                result
            }
            Incoming::V5 { chain } => {
                let result = self.add_blocks(host, &chain);
                let pages: Vec<PhysAddr> = chain.blocks.iter().map(|(page, _)| *page).collect();
                v5::free_pages(&mut host.memory(), &pages);
                result
            }
        };
        result.map_err(|cause| {
            let refusal = Errno::EIO.because(format!("the incoming sessions cannot be read: {cause}"));
            self.deserialized = Deserialized::Failed(refusal.clone());
            refusal
        })
    }

    fn add_blocks(&mut self, host: &mut H, chain: &FoundChain) -> KResult<()> {
        let mut seen = FxHashSet::default();
        self.incoming.reserve(chain.records());
        for block in &chain.blocks {
            let found = v5::read_sessions(&host.memory().ram.mem, *block);
            self.add_sessions(host, &found, &mut seen)?;
        }
        Ok(())
    }

    /// `seen`: the blocks of the files of all sessions so far.
    fn add_sessions(
        &mut self,
        host: &mut H,
        found: &[FoundSession],
        seen: &mut FxHashSet<PhysAddr>,
    ) -> KResult<()> {
        found.iter().try_for_each(|session| self.add_session(host, session, seen))
    }

    fn add_session(
        &mut self,
        host: &mut H,
        found: &FoundSession,
        seen: &mut FxHashSet<PhysAddr>,
    ) -> KResult<()> {
        if self.incoming.find(&found.name, &self.sessions).is_some() {
            host.memory().log.warn(format!("luo: Failed to insert session [{}] -17", found.name));
            return Err(Errno::EEXIST.because(format!("two sessions are named {:?}", found.name)));
        }
        let session = Session {
            name: found.name,
            direction: Direction::Incoming,
            place: 0,
            retrieved: false,
            files: FileSet::default(),
            area: FileArea::None,
        };
        let key = self.sessions.insert(session);
        self.incoming.push(key, &mut self.sessions);
        host.emit(Event::SessionFound { session: found.name });
        if found.files == PhysAddr::NULL {
            if found.count != 0 {
                let what = format!("session [{}] has {} files but no area", found.name, found.count);
                let text = format!("WARNING: luo_file_deserialize: {what}");
                host.memory().log.warn(text);
            }
            return Ok(());
        }
        self.add_files(host, key, found, seen).inspect_err(|refusal| {
            let errno = refusal.errno.raw();
            let text = format!("luo: Failed to deserialize files for session [{}] -{errno}", found.name);
            host.memory().log.warn(text);
        })
    }

    fn add_files(
        &mut self,
        host: &mut H,
        key: SessionKey,
        found: &FoundSession,
        seen: &mut FxHashSet<PhysAddr>,
    ) -> KResult<()> {
        let blocks = if self.has_blocks() {
            v5::find_files(&mut host.memory(), found, seen, self.quirks)?.blocks
        } else {
            vec![(found.files, found.count.min(luo_v1::MAX_FILES))]
        };
        let session = self.session_mut(key).expect("the session was just added");
        session.area = FileArea::Found(blocks.iter().map(|(page, _)| *page).collect());
        session.files.reserve(blocks.iter().map(|(_, count)| *count).sum());
        for block in blocks {
            match self.add_records(host, key, found, block) {
                Err(_) if self.quirks.has(Quirk::DeserializeErrorSwallowed) => break,
                Err(refusal) => return Err(self.forget_area(host, key, refusal)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// The records of one block, or of the one array of `luo-v1`.
    fn add_records(
        &mut self,
        host: &mut H,
        key: SessionKey,
        found: &FoundSession,
        block: (PhysAddr, u64),
    ) -> KResult<()> {
        let mem = &host.memory().ram.mem;
        let records = if self.has_blocks() { v5::read_files(mem, block) } else { v1::read_files(mem, found) };
        records.iter().try_for_each(|record| self.add_file(host, key, found, record))
    }

    fn has_blocks(&self) -> bool {
        self.release.luo == Some(LuoVersion::V5)
    }

    /// A first open that fails gives the file blocks of the session at fault back (`luo-v5`).
    fn forget_area(&mut self, host: &mut H, key: SessionKey, refusal: Refusal) -> Refusal {
        if self.has_blocks() {
            self.free_found(host, key);
        }
        refusal
    }

    pub(crate) fn free_found(&mut self, host: &mut H, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        if let FileArea::Found(pages) = std::mem::replace(&mut session.area, FileArea::None) {
            v5::free_pages(&mut host.memory(), &pages);
        }
    }

    fn add_file(
        &mut self,
        host: &mut H,
        key: SessionKey,
        found: &FoundSession,
        record: &FileRecord,
    ) -> KResult<()> {
        let name = record.compatible_bytes();
        let Some(handler) = self.handler_named(name) else {
            let name = String::from_utf8_lossy(name).into_owned();
            host.memory().log.warn(format!("luo: No registered handler for compatible '{name}'"));
            return Err(Errno::ENOENT.because(format!("no handler for '{name}' in session {:?}", found.name)));
        };
        let token = record.token.get();
        let data = record.data.get();
        let file = File { handler, preserved: None, data, token, status: RetrieveStatus::Untried };
        self.session_mut(key).expect("the session was just added").files.push(file);
        host.emit(Event::Found { session: found.name, token });
        Ok(())
    }
}

fn read_header(
    mem: &mut Memory<'_>,
    version: LuoVersion,
    config: LuoConfig,
) -> Result<Option<Header>, Refusal> {
    let subtree = match mem.kho.subtree("LUO") {
        Ok(subtree) => subtree,
        Err(refusal) if refusal.errno == Errno::ENOENT => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let header = match version {
        LuoVersion::V1 => {
            let header = v1::read_header(&mem.ram.mem, subtree.addr, config.release.flb)?;
            mem.log.info(format!("luo: Retrieved live update data, liveupdate number: {}", header.number));
            header
        }
        LuoVersion::V5 => v5::read_header(mem, subtree.addr, subtree.size.unwrap_or(0), config.quirks)?,
    };
    Ok(Some(header))
}
