//! The operations behind the ioctls, each in the order of checks of the real release.

use luosim_abi::ioctl::NAME_LEN;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult};

use crate::event::FinishCause;
use crate::file_set::{File, FileSet, HandlerIndex};
use crate::format::{FileArea, v1};
use crate::handler::{Context, FileHandler};
use crate::held::Place;
use crate::host::{FileId, Host, Identity, RetrieveStatus, SessionKey};
use crate::name::SessionName;
use crate::session::Session;
use crate::{Event, Luo};
use std::rc::Rc;

/// Which list a session is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Made here, for the next kernel.
    Outgoing,
    /// Made by the previous kernel.
    Incoming,
}

impl<H: Host> Luo<H> {
    /// CREATE_SESSION up to the session's file: name, room, uniqueness, file.
    ///
    /// # Errors
    /// EINVAL name; ENOMEM or ENOSPC no room; EEXIST; ENFILE or ENOMEM for the file.
    pub(crate) fn create(&mut self, host: &mut H, field: &[u8; NAME_LEN]) -> KResult<FileId> {
        self.check_name(field)?;
        let name = SessionName::from_field(field);
        let count = self.outgoing.count();
        let out = self.out.as_mut().expect("the device exists only when LUO is on");
        out.reserve_session(&mut host.memory(), count)?;
        if self.outgoing.find(&name, &self.sessions).is_some() {
            if !self.quirks.has(Quirk::EmptyTrailingBlock) {
                self.shrink_sessions(host);
            }
            return Err(Errno::EEXIST.because(format!("an outgoing session is already named {name:?}")));
        }
        let area = self.out.as_ref().expect("checked above").new_file_area();
        let files = FileSet::default();
        let session =
            Session { name, direction: Direction::Outgoing, place: 0, retrieved: false, files, area };
        let key = self.sessions.insert(session);
        self.outgoing.push(key, &mut self.sessions);
        host.emit(Event::SessionCreated { session: name });
        host.open_session(key).inspect_err(|_| self.remove_outgoing(host, key))
    }

    fn check_name(&self, field: &[u8; NAME_LEN]) -> KResult<()> {
        if self.quirks.has(Quirk::NoNameCheck) {
            return Ok(());
        }
        match field.iter().position(|byte| *byte == 0) {
            None => Err(Errno::EINVAL.because("the name has no NUL within its 64 bytes")),
            Some(0) => Err(Errno::EINVAL.because("the name is empty")),
            Some(_) => Ok(()),
        }
    }

    fn shrink_sessions(&mut self, host: &mut H) {
        let count = self.outgoing.count();
        if let Some(out) = self.out.as_mut() {
            out.shrink_sessions(&mut host.memory(), count);
        }
    }

    /// RETRIEVE_SESSION up to the session's file.
    ///
    /// # Errors
    /// ENOENT no such incoming session; EINVAL already retrieved; ENFILE or ENOMEM.
    pub(crate) fn retrieve_session(
        &mut self,
        host: &mut H,
        field: &[u8; NAME_LEN],
    ) -> KResult<(SessionKey, FileId)> {
        let name = SessionName::from_field(field);
        let unterminated = !field.contains(&0);
        let found = if unterminated { None } else { self.incoming.find(&name, &self.sessions) };
        let key = found.ok_or_else(|| self.no_such_session(&name, unterminated))?;
        let session = self.session_mut(key).expect("listed sessions exist");
        if session.retrieved {
            return Err(Errno::EINVAL.because(format!("incoming session {name:?} is already retrieved")));
        }
        session.retrieved = true;
        let file = host.open_session(key).inspect_err(|_| self.unretrieve(key))?;
        host.emit(Event::SessionRetrieved { session: name });
        Ok((key, file))
    }

    fn no_such_session(&self, name: &SessionName, unterminated: bool) -> luosim_abi::Refusal {
        let why = if unterminated {
            String::from("the name has no NUL within its 64 bytes and matches nothing")
        } else if self.outgoing.find(name, &self.sessions).is_some() {
            format!("session {name:?} is an outgoing one of this kernel, not an incoming one")
        } else {
            format!("there is no incoming session {name:?}")
        };
        Errno::ENOENT.because(why)
    }

    pub(crate) fn unretrieve(&mut self, key: SessionKey) {
        if let Some(session) = self.session_mut(key) {
            session.retrieved = false;
        }
    }

    /// PRESERVE_FD. `lookup` is called where the kernel looks at the descriptor.
    ///
    /// # Errors
    /// EEXIST token; ENOSPC, ENOMEM room; EBADF; ENOENT no handler; EBUSY held already; FLB's; handler's.
    pub(crate) fn preserve(
        &mut self,
        host: &mut H,
        key: SessionKey,
        token: u64,
        lookup: impl FnOnce() -> KResult<FileId>,
    ) -> KResult<()> {
        let twice = self.quirks.has(Quirk::TokenTwice);
        let session = self.session_mut(key).expect("a session lives as long as its file");
        let (name, count) = (session.name, session.files.count());
        if session.files.has(token) && !twice {
            let why = format!("token {token:#x} is already used in session {name:?}");
            return Err(Errno::EEXIST.because(why));
        }
        session.area.reserve(&mut host.memory(), count)?;
        let result = self.preserve_file(host, key, token, lookup);
        if result.is_err() {
            let session = self.session_mut(key).expect("a session lives as long as its file");
            session.area.shrink(&mut host.memory(), count);
            return result;
        }
        host.emit(Event::Preserved { session: name, token });
        Ok(())
    }

    fn preserve_file(
        &mut self,
        host: &mut H,
        key: SessionKey,
        token: u64,
        lookup: impl FnOnce() -> KResult<FileId>,
    ) -> KResult<()> {
        let file = lookup()?;
        let session = self.session_mut(key).expect("a session lives as long as its file");
        if session.direction == Direction::Outgoing {
            session.area.allocate(&mut host.memory())?;
        }
        let place = Place::new(key, session.files.len());
        let (index, handler) = self.handler_for(host, file)?;
        let identity = handler.identity(host, file);
        self.claim(host, &handler, index, identity, file, place)?;
        let data = self.preserve_with_flbs(host, key, index, &handler, file);
        let data = data.inspect_err(|_| self.disclaim(index, identity))?;
        host.file_get(file);
        let status = RetrieveStatus::Untried;
        let file = File { handler: index, preserved: Some(file), data, token, status };
        self.session_mut(key).expect("a session lives as long as its file").files.push(file);
        Ok(())
    }

    fn handler_for(&self, host: &H, file: FileId) -> KResult<(HandlerIndex, Rc<dyn FileHandler<H>>)> {
        let found = self.handlers.iter().position(|handler| handler.can_preserve(host, file));
        let index = found.ok_or_else(|| Errno::ENOENT.because("no handler preserves this type of file"))?;
        Ok((HandlerIndex(index), self.handlers[index].clone()))
    }

    fn claim(
        &mut self,
        host: &H,
        handler: &Rc<dyn FileHandler<H>>,
        index: HandlerIndex,
        identity: Identity,
        file: FileId,
        place: Place,
    ) -> KResult<()> {
        if self.quirks.has(Quirk::SameInodeTwice) {
            return Ok(());
        }
        if let Some(holder) = self.held.claim(index, identity, place) {
            let what = handler.describe(host, file);
            let why = match self.session(holder.session).filter(|session| session.files.len() > holder.file())
            {
                Some(session) => {
                    let (session, token) = (session.name, session.files.at(holder.file()).token);
                    format!("{what} is already held by session {session:?} as token {token:#x}")
                }
                // Only the planted quirks forget to let go.
                None => format!("{what} is already held by a session that is gone"),
            };
            return Err(Errno::EBUSY.because(why));
        }
        Ok(())
    }

    fn disclaim(&mut self, handler: HandlerIndex, identity: Identity) {
        self.held.remove(handler, identity);
    }

    fn preserve_with_flbs(
        &mut self,
        host: &mut H,
        key: SessionKey,
        index: HandlerIndex,
        handler: &Rc<dyn FileHandler<H>>,
        file: FileId,
    ) -> KResult<u64> {
        self.flbs.get_outgoing(host, index)?;
        let data = handler.preserve(&mut Context::new(self, host, key), file);
        data.inspect_err(|_| {
            if !self.quirks.has(Quirk::FlbCountOnError) {
                self.flbs.put_outgoing(host, index);
            }
        })
    }

    /// RETRIEVE_FD without the descriptor number: the open file description, with a reference for the caller.
    ///
    /// # Errors
    /// ENOENT unknown token; the kept errno of an earlier failure; the handler's.
    pub(crate) fn retrieve_fd(&mut self, host: &mut H, key: SessionKey, token: u64) -> KResult<FileId> {
        let session = self.session(key).expect("a session lives as long as its file");
        let name = session.name;
        let unknown = || {
            let count = session.files.len();
            Errno::ENOENT.because(format!("session {name:?} has no token {token:#x} among its {count} files"))
        };
        let file = *session.files.find(token).ok_or_else(unknown)?;
        match file.status {
            RetrieveStatus::Retrieved(id) => {
                host.file_get(id);
                return Ok(id);
            }
            RetrieveStatus::Failed(errno) if !self.quirks.has(Quirk::RetrieveErrorForgotten) => {
                let why = format!("retrieving token {token:#x} of session {name:?} failed before");
                return Err(errno.because(why));
            }
            RetrieveStatus::Failed(_) | RetrieveStatus::Untried => {}
        }
        self.check_cycle(host, key, token)?;
        self.retrieve_new(host, key, &file)
    }

    /// Refuses a file whose retrieval is under way: it would wait for itself.
    fn check_cycle(&self, host: &mut H, key: SessionKey, token: u64) -> KResult<()> {
        let Some(start) = self.retrieving.iter().position(|waiting| *waiting == (key, token)) else {
            return Ok(());
        };
        let chain: String =
            self.retrieving[start..].iter().map(|(_, token)| format!("{token:#x} -> ")).collect();
        let why = format!("the files of a session depend on each other in a circle: {chain}{token:#x}");
        host.memory().log.err(format!("luo: {why}; a kernel would hang here"));
        Err(Errno::EDEADLK.because(why))
    }

    fn retrieve_new(&mut self, host: &mut H, key: SessionKey, file: &File) -> KResult<FileId> {
        let handler = self.handlers[file.handler.0].clone();
        self.retrieving.push((key, file.token));
        let result = handler.retrieve(&mut Context::new(self, host, key), file.data);
        self.retrieving.pop();
        let session = self.session_mut(key).expect("a session lives as long as its file");
        let name = session.name;
        let (index, entry) = session.files.find_mut(file.token).expect("found before");
        let token = file.token;
        match result {
            Ok(id) => {
                entry.status = RetrieveStatus::Retrieved(id);
                let identity = handler.identity(host, id);
                self.held.insert(file.handler, identity, Place::new(key, index));
                host.file_get(id);
                host.emit(Event::Retrieved { session: name, token });
                Ok(id)
            }
            Err(refusal) => {
                entry.status = RetrieveStatus::Failed(refusal.errno);
                host.emit(Event::RetrieveFailed { session: name, token, errno: refusal.errno });
                Err(refusal)
            }
        }
    }

    /// FINISH, and what closing an incoming session does: asks every handler, then finishes every file, last
    /// first.
    ///
    /// # Errors
    /// EBUSY if a handler is not ready; nothing was done.
    pub(crate) fn finish(&mut self, host: &mut H, key: SessionKey, cause: FinishCause) -> KResult<()> {
        let session = self.session(key).expect("a session lives as long as its file");
        let name = session.name;
        for index in 0..session.files.len() {
            let file = self.session(key).expect("a session lives as long as its file").files.at(index);
            let handler = self.handlers[file.handler.0].clone();
            let mut cx = Context::new(self, host, key);
            if let Err(why) = handler.can_finish(&mut cx, file.status, file.data) {
                let why = format!("token {:#x} in session {name:?} cannot be finished: {why}", file.token);
                if self.quirks.has(Quirk::FinishPartly) {
                    self.finish_from(host, key, index, cause);
                }
                return Err(Errno::EBUSY.because(why));
            }
        }
        while let Some(file) = self.session_mut(key).and_then(|session| session.files.pop()) {
            self.finish_file(host, key, name, &file, cause);
        }
        self.free_found(host, key);
        Ok(())
    }

    /// Quirk `finish-partly`: finishes the files above `kept`, last first.
    fn finish_from(&mut self, host: &mut H, key: SessionKey, kept: usize, cause: FinishCause) {
        while let Some(session) = self.session_mut(key).filter(|session| session.files.len() > kept + 1) {
            let name = session.name;
            let file = session.files.pop().expect("there are more than are kept");
            self.finish_file(host, key, name, &file, cause);
        }
    }

    fn finish_file(
        &mut self,
        host: &mut H,
        key: SessionKey,
        session: SessionName,
        file: &File,
        cause: FinishCause,
    ) {
        let handler = self.handlers[file.handler.0].clone();
        handler.finish(&mut Context::new(self, host, key), file.status, file.data);
        self.flbs.finish_file(host, file.handler);
        let retrieved = if let RetrieveStatus::Retrieved(id) = file.status {
            let identity = handler.identity(host, id);
            if !self.quirks.has(Quirk::OwnerKeptAfterFinish) {
                self.disclaim(file.handler, identity);
            }
            host.file_put(id);
            true
        } else {
            false
        };
        host.emit(Event::Finished { session, token: file.token, retrieved, cause });
    }

    /// The last descriptor of a session was closed. Outgoing: everything is given back. Incoming: finished.
    pub fn release_session(&mut self, host: &mut H, key: SessionKey) {
        let Some(session) = self.session(key) else { return };
        match session.direction {
            Direction::Outgoing => self.release_outgoing(host, key),
            Direction::Incoming if session.retrieved => self.release_incoming(host, key),
            Direction::Incoming => {}
        }
    }

    fn release_outgoing(&mut self, host: &mut H, key: SessionKey) {
        let name = self.session(key).expect("checked by the caller").name;
        while let Some(file) = self.session_mut(key).and_then(|session| session.files.pop()) {
            self.unpreserve(host, key, &file);
            host.emit(Event::Unpreserved { session: name, token: file.token });
        }
        self.remove_outgoing(host, key);
    }

    fn unpreserve(&mut self, host: &mut H, key: SessionKey, file: &File) {
        let Some(id) = file.preserved else { return };
        let handler = self.handlers[file.handler.0].clone();
        handler.unpreserve(&mut Context::new(self, host, key), id, file.data);
        self.flbs.put_outgoing(host, file.handler);
        let identity = handler.identity(host, id);
        if !self.quirks.has(Quirk::OwnerKeptAfterClose) {
            self.disclaim(file.handler, identity);
        }
        host.file_put(id);
    }

    pub(crate) fn remove_outgoing(&mut self, host: &mut H, key: SessionKey) {
        let Some(mut session) = self.sessions.take(key) else { return };
        session.area.shrink(&mut host.memory(), 0);
        self.outgoing.remove(key, &session);
        self.shrink_sessions(host);
        host.emit(Event::SessionRemoved { session: session.name, incoming: false });
    }

    fn release_incoming(&mut self, host: &mut H, key: SessionKey) {
        let name = self.session(key).expect("checked by the caller").name;
        if self.finish(host, key, FinishCause::Close).is_err() {
            host.memory().log.warn(format!("luo: Unable to finish session [{name}] on release"));
            return;
        }
        let session = self.sessions.take(key).expect("looked at above");
        self.incoming.remove(key, &session);
        host.emit(Event::SessionRemoved { session: name, incoming: true });
    }

    /// The token under which a session preserves `file` (`liveupdate_get_token_outgoing`).
    ///
    /// # Errors
    /// ENOENT: it does not.
    pub(crate) fn token_outgoing(&mut self, key: SessionKey, file: FileId) -> KResult<u64> {
        let session = self.session_mut(key).expect("a callback's session lives as long as the callback");
        let name = session.name;
        let found = session.files.find_preserved(file).map(|file| file.token);
        found.ok_or_else(|| Errno::ENOENT.because(format!("session {name:?} does not preserve that file")))
    }

    /// The handle of the outgoing FLB `name` for a user inside the kernel, with one more count on it.
    ///
    /// # Errors
    /// EOPNOTSUPP with LUO off; ENOENT: no file that it is bound to is preserved, or it has no object.
    pub fn get_outgoing_flb(&mut self, name: &str) -> KResult<u64> {
        self.check_on()?;
        self.flbs.get_outgoing_object(name)
    }

    /// Gives back what [`Self::get_outgoing_flb`] gave.
    ///
    /// # Panics
    /// If the count was not taken: a mistake of the caller.
    pub fn put_outgoing_flb(&mut self, host: &mut H, name: &str) {
        self.flbs.put_outgoing_object(host, name);
    }

    fn check_on(&self) -> KResult<()> {
        if self.enabled {
            return Ok(());
        }
        Err(Errno::EOPNOTSUPP.because("the live update orchestrator is off"))
    }

    /// The incoming FLB `name` for a user inside the kernel; retrieved at the first call.
    ///
    /// # Errors
    /// EOPNOTSUPP with LUO off; EINVAL: not registered; ENODATA: finished, or nothing came; ENOENT: not in the table; or the kept error
    /// of its `retrieve`.
    pub fn get_incoming_flb(&mut self, host: &mut H, name: &str) -> KResult<u64> {
        self.check_on()?;
        self.flbs.get_incoming(host, name)
    }

    /// Gives back what [`Self::get_incoming_flb`] gave.
    ///
    /// # Errors
    /// EINVAL: not registered.
    pub fn put_incoming_flb(&mut self, host: &mut H, name: &str) -> KResult<()> {
        self.flbs.put_incoming(host, name)
    }

    /// Room check of `luo-v1` for a file put in an incoming session (6.19 lets it in; never serialised).
    pub(crate) fn check_incoming_room(&self, key: SessionKey) -> KResult<()> {
        match self.session(key) {
            Some(session) if matches!(session.area, FileArea::Found(_)) => {
                v1::check_room(session.files.count())
            }
            _ => Ok(()),
        }
    }
}
