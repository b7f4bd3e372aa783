//! The live update steps of `reboot(KEXEC)`: freeze every file, write every record, commit.
//!
//! Sessions in order of creation, files in order of preservation. A refused freeze undoes: files frozen so
//! far in that session are thawed in *forward* order and its records wiped, then earlier sessions last to
//! first. After success nothing can fail any more, and nothing is undone.

use luosim_abi::luo::record::{FileRecord, SessionRecord};
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};
use luosim_physmem::PhysAddr;

use crate::file_set::File;
use crate::format::Outgoing;
use crate::handler::Context;
use crate::host::{Host, SessionKey};
use crate::{Event, Luo};

/// What a serialisation carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Outgoing sessions, the empty ones too.
    pub sessions: u64,
    /// Files in them.
    pub files: u64,
}

/// What stops a serialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The reboot is refused, as by a handler.
    Refuse,
    /// The kernel dies.
    Panic,
}

/// What a test does to the next serialisation. Its points are counted from 0: one before each file is frozen, one
/// before each session's record, one before all is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Something stops it at a point.
    pub stop: Option<(u32, Stop)>,
    /// The last descriptor of a session is closed by somebody else at a point. Later kernels let that wait; see
    /// quirk `serialize-races-close`.
    pub close: Option<(u32, SessionKey)>,
    /// The host makes a call of somebody at a point ([`Host::intrude`]): one that waits for no serialisation.
    pub intrusion: Option<u32>,
}

impl<H: Host> Luo<H> {
    /// Disturbs the next reboot.
    pub fn disturb(&mut self, disturbance: Disturbance) {
        self.disturbance = disturbance;
    }

    /// What will disturb the next reboot.
    #[must_use]
    pub fn disturbance(&self) -> Disturbance {
        self.disturbance
    }

    /// A point of the serialisation.
    fn point(&mut self, host: &mut H) -> KResult<()> {
        if self.disturbance == Disturbance::default() {
            return Ok(());
        }
        let here = self.points;
        self.points += 1;
        if let Some((_, key)) = self.disturbance.close.filter(|(point, _)| *point == here)
            && self.quirks.has(Quirk::SerializeRacesClose)
        {
            self.release_session(host, key);
        }
        if self.disturbance.intrusion == Some(here) {
            host.intrude();
        }
        match self.disturbance.stop.filter(|(point, _)| *point == here) {
            Some((_, Stop::Refuse)) => Err(Errno::EBUSY.because("the reboot was told to be refused here")),
            Some((_, Stop::Panic)) => Err(Errno::ESRCH.because("the kernel was told to panic here")),
            None => Ok(()),
        }
    }

    /// Serialises all outgoing sessions. With LUO off: success, nothing carried.
    ///
    /// # Errors
    /// The errno of the handler that refused to freeze; 6.19 also EAGAIN if KHO cannot be finalised. The
    /// system goes on as before (but see quirk `finalize-error-keeps-frozen`).
    pub fn reboot(&mut self, host: &mut H) -> KResult<Carried> {
        if !self.enabled {
            return Ok(Carried::default());
        }
        let keys: Vec<SessionKey> = self.outgoing.keys().collect();
        self.out().begin(&mut host.memory());
        self.points = 0;
        for (index, key) in keys.iter().enumerate() {
            if let Err(refusal) = self.freeze_session(host, *key, index) {
                self.undo(host, &keys[..index]);
                return Err(refusal);
            }
        }
        self.commit(host, &keys)?;
        Ok(self.report(host, &keys))
    }

    fn out(&self) -> &Outgoing {
        self.out.as_ref().expect("LUO is on, so its outgoing state exists")
    }

    fn commit(&mut self, host: &mut H, keys: &[SessionKey]) -> KResult<()> {
        if let Err(refusal) = self.point(host) {
            self.undo(host, keys);
            return Err(refusal);
        }
        for key in keys {
            let Some(session) = self.session(*key) else { continue };
            session.area.write_counts(&mut host.memory(), session.files.count());
        }
        self.out().commit(&mut host.memory(), self.outgoing.count());
        if let Some(table) = self.out().flbs() {
            self.flbs.serialize(&mut host.memory(), table);
        }
        let mem = host.memory();
        if let Err(refusal) = mem.kho.finalize(mem.ram, mem.log) {
            if !self.quirks.has(Quirk::FinalizeErrorKeepsFrozen) {
                self.undo(host, keys);
                self.out().take_back(&mut host.memory());
                if let Some(table) = self.out().flbs() {
                    self.flbs.take_back(&mut host.memory(), table);
                }
            }
            return Err(Errno::EAGAIN.because(format!("KHO could not be finalised: {refusal}")));
        }
        self.serialized = true;
        Ok(())
    }

    fn report(&self, host: &mut H, keys: &[SessionKey]) -> Carried {
        let mut carried = Carried::default();
        for key in keys {
            let Some(session) = self.session(*key) else { continue };
            for index in 0..session.files.len() {
                let token = session.files.at(index).token;
                host.emit(Event::Serialized { session: session.name, token });
            }
            host.emit(Event::SessionSerialized { session: session.name, files: session.files.count() });
            carried.sessions += 1;
            carried.files += session.files.count();
        }
        carried
    }

    fn freeze_session(&mut self, host: &mut H, key: SessionKey, index: usize) -> KResult<()> {
        let count = self.file_count(key);
        for at in 0..count {
            if let Err(refusal) = self.freeze_file(host, key, at) {
                self.unfreeze_files(host, key, at);
                return Err(refusal);
            }
        }
        if let Err(refusal) = self.point(host) {
            self.unfreeze_files(host, key, count);
            return Err(refusal);
        }
        let Some(session) = self.session(key) else { return Ok(()) };
        let files = if count == 0 { PhysAddr::NULL } else { session.area.head() };
        let record = SessionRecord {
            name: *session.name.field(),
            files: files.raw().into(),
            count: session.files.count().into(),
        };
        let slot = self.session_slot(index);
        host.memory().ram.mem.write_obj(slot, &record).expect("the slot is in a page of this kernel");
        Ok(())
    }

    /// Files in a session; none in one that was closed meanwhile.
    fn file_count(&self, key: SessionKey) -> usize {
        self.session(key).map_or(0, |session| session.files.len())
    }

    fn session_slot(&self, index: usize) -> PhysAddr {
        self.out().session_slot(u64::try_from(index).expect("an index fits in 64 bits"))
    }

    fn freeze_file(&mut self, host: &mut H, key: SessionKey, at: usize) -> KResult<()> {
        self.point(host)?;
        let Some(session) = self.session(key) else { return Ok(()) };
        let file = session.files.at(at);
        let Some(id) = file.preserved else { return Ok(()) };
        let handler = self.handlers[file.handler.0].clone();
        let data = handler.freeze(&mut Context::new(self, host, key), id, file.data)?;
        let session = self.session_mut(key).expect("listed sessions exist");
        session.files.set_data(at, data);
        let slot = session.area.slot(u64::try_from(at).expect("an index fits in 64 bits"));
        let record = FileRecord::new(handler.compatible(), data, file.token);
        host.memory().ram.mem.write_obj(slot, &record).expect("the slot is in a page of this kernel");
        Ok(())
    }

    /// Thaws the first `count` files of a session, in forward order, and wipes their records.
    fn unfreeze_files(&mut self, host: &mut H, key: SessionKey, count: usize) {
        let reversed = self.quirks.has(Quirk::UnfreezeReversed);
        for step in 0..count.min(self.file_count(key)) {
            let at = if reversed { count - 1 - step } else { step };
            let session = self.session(key).expect("listed sessions exist");
            let File { handler, preserved, data, .. } = session.files.at(at);
            let slot = session.area.slot(u64::try_from(at).expect("an index fits in 64 bits"));
            if !self.quirks.has(Quirk::RecordKeptAfterAbort) {
                host.memory().ram.mem.fill(slot, 64, 0).expect("the slot is in a page of this kernel");
            }
            if let Some(id) = preserved {
                let handler = self.handlers[handler.0].clone();
                handler.unfreeze(&mut Context::new(self, host, key), id, data);
            }
        }
    }

    fn undo(&mut self, host: &mut H, keys: &[SessionKey]) {
        if self.quirks.has(Quirk::UndoFirstOnly) {
            return;
        }
        for (index, key) in keys.iter().enumerate().rev() {
            let count = self.file_count(*key);
            self.unfreeze_files(host, *key, count);
            let slot = self.session_slot(index);
            host.memory().ram.mem.fill(slot, 80, 0).expect("the slot is in a page of this kernel");
        }
    }
}
