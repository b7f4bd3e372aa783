//! `ioctl` on the device and on sessions.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use luosim_abi::argument::{Argument, Purpose};
use luosim_abi::posted::Event;
use luosim_abi::quirk::Quirk;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_files::FileKind;
use luosim_luo::FileId;
use luosim_machine::process::Pid;
use rustix::fs::{OFlags, fcntl_getfl, fstat};

use super::{Reply, host_refusal, low, signed};
use crate::deed::{Answer, Deed, LONGEST, On, Subject};
use crate::gate::{Gate, PRUNE_AT, Session, Whose};
use crate::guest::Guest;
use crate::memory::{self, Known, host_inode};
use crate::notify::{Listener, Notification};
use crate::tag::Tag;
use crate::task::Task;

/// Commands that the VFS answers for every file before a driver is asked; ours are like any other file to it.
const GENERIC: [u32; 16] = [
    0x5451,      // FIOCLEX
    0x5450,      // FIONCLEX
    0x5421,      // FIONBIO
    0x5452,      // FIOASYNC
    0x5460,      // FIOQSIZE
    0x2,         // FIGETBSZ
    0xC004_5877, // FIFREEZE
    0xC004_5878, // FITHAW
    0xC020_660B, // FS_IOC_FIEMAP
    0x4004_9409, // FICLONE
    0x4020_940D, // FICLONERANGE
    0xC018_9436, // FIDEDUPERANGE
    0x8008_6601, // FS_IOC_GETFLAGS
    0x4008_6602, // FS_IOC_SETFLAGS
    0x801C_581F, // FS_IOC_FSGETXATTR
    0x401C_5820, // FS_IOC_FSSETXATTR
];

/// One ioctl on one of our descriptors.
struct Request<'a> {
    task: &'a Task,
    user: Pid,
    fd: i32,
    code: u32,
    arg: u64,
    /// What the command passes, if the kernel knows it.
    layout: Option<Argument>,
    /// The description of the device it is made on; `None`: a session's.
    device: Option<Tag>,
    /// The session it is made on; `None`: the device.
    session: Option<Tag>,
    file: FileId,
}

/// What a call gave: a session, or a file by its number.
type Given = (Option<Tag>, Option<u64>);

impl Gate {
    pub(super) fn ioctl(&mut self, listener: &Listener, n: &Notification, compat: bool) -> Reply {
        let (fd, code, arg) = (signed(n.data.args[0]), low(n.data.args[1]), n.data.args[2]);
        // Like a kernel, hold what the call is about until it is over, whoever closes it meanwhile.
        let Ok((task, held)) = self.task_with(i32::try_from(n.pid).unwrap_or(0), fd) else {
            return Reply::Gone;
        };
        let whose = held.as_ref().map_or(Whose::Native, |held| self.recognise(&task, fd, held.as_fd()));
        let (device, session, file) = match whose {
            Whose::Native => return Reply::GoOn,
            Whose::Refused(refusal) => return refusal.into(),
            _ if GENERIC.contains(&code) => return Reply::GoOn,
            Whose::Device(tag, file) => (Some(tag), None, file),
            Whose::Session(tag, file) => (None, Some(tag), file),
        };
        let user = Pid(task.identity().pid);
        if compat {
            let refusal = Errno::ENOTTY.because("the driver has no entry for 32-bit programs");
            let what = if session.is_some() { "session" } else { "device" };
            let deed = || Deed::Ioctl { fd, what, code, arg, argument: Vec::new(), cut: false };
            self.note(user, deed, Answer::Refused(refusal.clone()));
            self.note_about(device, session, None);
            return refusal.into();
        }
        let release = self.machine.kernel().map(luosim_machine::Kernel::release);
        let layout = release.and_then(|release| release.argument(session.is_some(), code));
        let request = Request { task: &task, user, fd, code, arg, layout, device, session, file };
        self.serve_ioctl(listener, n, &request)
    }

    fn serve_ioctl(&mut self, listener: &Listener, n: &Notification, request: &Request<'_>) -> Reply {
        let size_first = self.machine.kernel().is_none_or(|kernel| kernel.release().is_size_first());
        let mut guest = Guest::new(request.task, request.arg, request.layout, size_first);
        if !listener.is_valid(n.id) {
            return Reply::Gone;
        }
        self.sweep(request.session);
        if let Some(session) = request.session.and_then(|tag| self.sessions.get_mut(&tag)) {
            session.user = request.user;
        }
        let mut deed = self.describe(request, &guest);
        let result = self.run_ioctl(request, &mut guest, &mut deed);
        let mut given = (request.session, None);
        let reply = match guest.installed {
            Some(file) => self.give_fd(listener, n, request, &guest, (file, result.err()), &mut given),
            None => result.map(|()| 0).map_err(Some),
        };
        deed.tell(guest.told);
        if let (Err(Some(refusal)), true) = (&reply, self.is_watched()) {
            keep_argument(&mut deed, request, &guest, refusal.errno);
        }
        let (reply, answer) = match reply {
            // The program gets 0; who watches wants to know the descriptor.
            Ok(fd) => (Reply::Value(0), Answer::Value(fd.into())),
            Err(Some(refusal)) => (Reply::Refuse(refusal.clone()), Answer::Refused(refusal)),
            Err(None) => (Reply::Gone, Answer::None),
        };
        self.note(request.user, || deed, answer);
        self.note_about(request.device, given.0, given.1);
        reply
    }

    fn run_ioctl(&mut self, request: &Request<'_>, guest: &mut Guest<'_>, deed: &mut Deed) -> KResult<()> {
        let Some(layout) = request.layout else { return self.run_model(request, guest) };
        self.before(layout, guest);
        if layout.purpose == Purpose::Preserve {
            return self.preserve(request, guest, deed);
        }
        let mut result = self.run_model(request, guest);
        // Asking after all sessions takes long where there are many: only when one may be in the way that is closed.
        let posted = self.is_posted();
        let in_the_way = |refusal: &Refusal| match refusal.errno {
            Errno::ENOMEM | Errno::ENOSPC => true,
            // Names are compared as far as the design reads them.
            Errno::EEXIST | Errno::EADDRINUSE => posted,
            _ => false,
        };
        if result.as_ref().is_err_and(in_the_way) && self.settle_all() {
            result = self.run_model(request, guest);
        }
        if layout.moves() {
            self.fill_taken();
        }
        if layout.lets_go() {
            self.drop_released();
        }
        result
    }

    /// What the command depends on, and the kernel cannot see: who has the session's name; before files are made ready for a
    /// jump which of them are still registered, and what they are like now.
    fn before(&mut self, layout: Argument, guest: &Guest<'_>) {
        if let Some(name) = guest.name() {
            let name = name.to_vec();
            self.settle_name(&name);
        }
        if layout.moves() {
            self.settle_all();
            self.refresh_files();
        }
    }

    fn is_posted(&self) -> bool {
        self.machine.kernel().is_some_and(|kernel| kernel.posted().is_some())
    }

    fn run_model(&mut self, request: &Request<'_>, guest: &mut Guest<'_>) -> KResult<()> {
        self.machine.ioctl_outside(request.user, request.file, guest, request.code, request.arg)
    }

    fn preserve(&mut self, request: &Request<'_>, guest: &mut Guest<'_>, deed: &mut Deed) -> KResult<()> {
        let Some(fd) = guest.fd() else {
            return self.run_model(request, guest);
        };
        let (found, copy) = match self.look_up(request, fd) {
            Ok((file, copy)) => (Ok(file), Some(copy)),
            Err(refusal) => (Err(refusal), None),
        };
        let looked_up = found.as_ref().ok().copied();
        if let (Deed::PreserveFd { file, .. }, Some(found)) = (deed, looked_up) {
            *file = self.subject(found);
        }
        guest.preserved = Some((fd, found));
        let mut result = self.run_model(request, guest);
        // What holds the file, or its token, may have been closed without our having noticed.
        let token = if self.is_posted() { Errno::EEXIST } else { Errno::EBUSY };
        let held = |refusal: &Refusal| refusal.errno == Errno::EBUSY || refusal.errno == token;
        if result.as_ref().is_err_and(held) && self.settle_all() {
            result = self.run_model(request, guest);
        }
        if let (Some(file), Some(copy)) = (looked_up, copy) {
            self.keep_preserved(request.user, file, copy);
        }
        result
    }

    /// A description in words.
    fn subject(&self, file: FileId) -> Subject {
        let kernel = self.machine.kernel().expect("it has the description");
        let files = kernel.core().open_files();
        match kernel.description(file) {
            Some(FileKind::Shmem(inode)) => {
                let shmem = files.inodes.get(inode);
                Subject::Memory {
                    inode: shmem.ino,
                    name: shmem.name.to_string(),
                    size: shmem.size(),
                    seals: shmem.seals().0,
                    position: files.table.get(file).pos,
                }
            }
            _ => Subject::Foreign,
        }
    }

    /// After PRESERVE_FD: keeps the description if LUO does, and gives back our reference.
    fn keep_preserved(&mut self, user: Pid, file: FileId, copy: OwnedFd) {
        self.machine.close_outside(user, file);
        let kernel = self.machine.kernel();
        let Some(FileKind::Shmem(inode)) = kernel.and_then(|kernel| kernel.description(file)) else { return };
        let shmem = kernel.expect("it has the description").core().open_files().inodes.get(inode);
        // A posted design takes the pages when all is prepared.
        if let Some(backing) = shmem.host().filter(|_| shmem.frozen()) {
            let size = shmem.size();
            if let Err(error) = memory::fill_holes(&backing.file, size, self.holes) {
                tracing::warn!("holes of a preserved file could not be filled: {error}");
            }
        }
        self.files.held.insert(file, copy);
    }

    /// The kernel's description of the program's descriptor, made for this call.
    fn look_up(&mut self, request: &Request<'_>, fd: i32) -> KResult<(FileId, OwnedFd)> {
        let copy = request.task.descriptor(fd)?;
        if fcntl_getfl(&copy).is_ok_and(|flags| flags.contains(OFlags::PATH)) {
            return Err(Errno::EBADF.because(format!("descriptor {fd} was opened with O_PATH")));
        }
        let stat = fstat(&copy).map_err(|error| host_refusal(&error.into(), "fstat"))?;
        if !memory::is_preservable(copy.as_fd(), &stat) {
            return Ok((self.machine.open_foreign_outside(request.user)?, copy));
        }
        let quirks = self.machine.kernel().map(luosim_machine::Kernel::quirks).unwrap_or_default();
        let note_unused = quirks.has(Quirk::FolioFlagsAtPreserve);
        let host = memory::describe(copy.as_fd(), &stat, note_unused)?;
        let known = self.known(host_inode(&stat)).map(|known| known.inode);
        let (file, inode) = self.machine.open_memory_outside(request.user, known, host)?;
        let kernel = self.machine.kernel().expect("it answered");
        let ino = kernel.core().open_files().inodes.get(inode).ino;
        self.know_file(host_inode(&stat), Known { inode, ino });
        Ok((file, copy))
    }

    /// Remembers which of the kernel's files a host inode is. Now and then those that are gone are forgotten: most
    /// are never asked for again.
    fn know_file(&mut self, host: memory::HostInode, known: Known) {
        let files = &mut self.files;
        if files.known.len() >= files.prune_at
            && let Some(kernel) = self.machine.kernel()
        {
            files.known.retain(|_, known| kernel.memory_file(known.inode, known.ino).is_some());
            files.prune_at = PRUNE_AT.max(2 * files.known.len());
        }
        files.known.insert(host, known);
    }

    /// The kernel's file behind a host inode, if there is one now.
    pub(super) fn known(&mut self, host: memory::HostInode) -> Option<Known> {
        let known = *self.files.known.get(&host)?;
        let alive = self.machine.kernel()?.memory_file(known.inode, known.ino).is_some();
        if !alive {
            self.files.known.remove(&host);
        }
        alive.then_some(known)
    }

    /// Installs the descriptor of `file` that a call gives; where a design installed it before the call failed, without
    /// telling. `Err(None)`: the caller is gone.
    fn give_fd(
        &mut self,
        listener: &Listener,
        n: &Notification,
        request: &Request<'_>,
        guest: &Guest<'_>,
        (file, failed): (FileId, Option<Refusal>),
        given: &mut Given,
    ) -> Result<i32, Option<Refusal>> {
        let kind = self.machine.kernel().and_then(|kernel| kernel.description(file));
        let session = matches!(kind, Some(FileKind::Session(_)));
        let made = if session {
            self.new_session(request, guest, file)
        } else {
            self.file_to_give(request.task, file)
        };
        let (tag, description) = made.inspect_err(|_| self.machine.close_outside(request.user, file))?;
        let added = listener.add_fd(n.id, description.as_fd(), true);
        drop(description);
        if session {
            given.0 = tag;
        } else {
            given.1 = self.inode_of(file);
            // The program's copy is the host's affair; LUO has its own reference.
            self.machine.close_outside(request.user, file);
        }
        match added {
            Ok(Some(_)) if failed.is_some() => Err(failed),
            Ok(Some(fd)) => {
                if let Err(refusal) = guest.tell_fd(fd) {
                    tag.map(|tag| self.close_session(tag));
                    return Err(Some(refusal));
                }
                if let Some(tag) = tag {
                    self.remember(request.task.tid, fd, tag);
                }
                Ok(fd)
            }
            Ok(None) => {
                self.settle_all();
                Err(None)
            }
            Err(error) => {
                self.settle_all();
                Err(Some(host_refusal(&error, "the program's descriptor table")))
            }
        }
    }

    fn inode_of(&self, file: FileId) -> Option<u64> {
        let kernel = self.machine.kernel()?;
        match kernel.description(file)? {
            FileKind::Shmem(inode) => kernel.core().open_files().inodes.find(inode).map(|shmem| shmem.ino),
            _ => None,
        }
    }

    fn new_session(
        &mut self,
        request: &Request<'_>,
        guest: &Guest<'_>,
        file: FileId,
    ) -> Result<(Option<Tag>, OwnedFd), Option<Refusal>> {
        let made = self.tags.new_session();
        let (tag, description) =
            made.map_err(|error| Some(host_refusal(&error, "no descriptor for the session")))?;
        // As the kernel has it: a design may cut it.
        let name = self.machine.kernel().and_then(|kernel| kernel.session_name(file));
        let name =
            name.map_or_else(|| guest.name().unwrap_or_default().to_vec(), |name| name.as_bytes().to_vec());
        self.add_session(tag, Session { file, name, user: request.user });
        Ok((Some(tag), description))
    }

    /// The real file of a retrieved one.
    fn file_to_give(&mut self, task: &Task, file: FileId) -> Result<(Option<Tag>, OwnedFd), Option<Refusal>> {
        let failed = |error: std::io::Error| Some(host_refusal(&error, "the host cannot give the file back"));
        if let Some(given) = self.files.given.get(&file) {
            return Ok((None, given.try_clone().map_err(failed)?));
        }
        let who = task.identity();
        let owner = self.privileged.then_some((who.uid, who.gid));
        let kernel = self.machine.kernel().expect("it answered");
        let open = kernel.core().open_files().table.get(file);
        let FileKind::Shmem(inode) = open.kind else {
            return Err(Some(Errno::EIO.because("only memory files can be given to programs")));
        };
        let shmem = kernel.core().open_files().inodes.get(inode);
        let ino = shmem.ino;
        let (description, copy) =
            memory::export(shmem, kernel.core().ram(), open.pos, owner).map_err(failed)?;
        if let Some(backing) = copy {
            self.machine.rehost_outside(inode, backing);
        }
        let host = host_inode(&fstat(&description).map_err(|error| failed(error.into()))?);
        self.know_file(host, Known { inode, ino });
        self.files.restored.insert(host);
        let given = description.try_clone().map_err(failed)?;
        self.files.given.insert(file, given);
        Ok((None, description))
    }

    /// The call in words, before it is run.
    fn describe(&self, request: &Request<'_>, guest: &Guest<'_>) -> Deed {
        let session = request.session.and_then(|tag| self.sessions.get(&tag));
        let (fd, name) = (request.fd, session.map(|session| session.name.clone()));
        in_words(request, guest, name).unwrap_or_else(|| Deed::Ioctl {
            fd,
            what: if session.is_some() { "session" } else { "device" },
            code: request.code,
            arg: request.arg,
            argument: Vec::new(),
            cut: false,
        })
    }
}

/// A call whose argument has what its command needs, on a session with this name or on the device.
fn in_words(request: &Request<'_>, guest: &Guest<'_>, session: Option<Vec<u8>>) -> Option<Deed> {
    let (layout, fd) = (request.layout?, request.fd);
    let (command, word) = (layout.name, guest.word().unwrap_or(0));
    let given = || guest.name().map(<[u8]>::to_vec);
    let own = session.clone().unwrap_or_default();
    let on = session.map_or(On::Device(fd), |name| On::Session(fd, name));
    let deed = match layout.purpose {
        Purpose::CreateSession => Deed::CreateSession { device: fd, name: given()? },
        Purpose::RetrieveSession => Deed::RetrieveSession { device: fd, name: given()? },
        Purpose::Preserve => {
            let (what, token) = (guest.fd()?, guest.token()?);
            Deed::PreserveFd { on, command, fd: what, token, flags: word, file: Subject::Bad }
        }
        Purpose::Retrieve => Deed::RetrieveFd { on, command, token: guest.token()? },
        Purpose::Unpreserve => Deed::UnpreserveFd { on, command, token: guest.token()?, reserved: word },
        Purpose::Finish => Deed::Finish { session: fd, name: own, reserved: guest.word()? },
        Purpose::GetName => Deed::GetName { session: fd, name: own },
        // Its first byte is read by nobody; a reserved one that is not 0 is shown by the bytes.
        Purpose::GetState => (word >> 8 == 0).then_some(Deed::GetState { on, command, state: None })?,
        Purpose::SetEvent(Some(event)) => Deed::SetEvent { on, command, event },
        Purpose::SetEvent(None) => Deed::SetEvent { on, command, event: Event::from_raw(guest.word()?)? },
        Purpose::GetFdState => {
            let incoming = guest.word()? & 0xff != 0;
            Deed::GetFdState { device: fd, token: guest.token()?, incoming, state: None }
        }
        Purpose::SetFdEvent => {
            let event = Event::from_raw(guest.word()?)?;
            Deed::SetFdEvent { device: fd, token: guest.token()?, event }
        }
    };
    Some(deed)
}

/// A refused call with an argument of another size, or one that cannot be read or written, is told by its bytes.
fn keep_argument(deed: &mut Deed, request: &Request<'_>, guest: &Guest<'_>, errno: Errno) {
    let (said, usual) = (guest.said(), request.layout.map(|layout| layout.size));
    let plain = errno != Errno::EFAULT && !matches!(deed, Deed::GetName { .. } | Deed::Ioctl { .. });
    if said.is_some() && said == usual && plain {
        return;
    }
    let (argument, cut) = guest.whole(LONGEST);
    let what = if request.session.is_some() { "session" } else { "device" };
    let (fd, code, arg) = (request.fd, request.code, request.arg);
    let preserved = matches!(deed, Deed::PreserveFd { file: Subject::Memory { .. }, .. });
    // A preserved file whose reply could not be written is preserved all the same.
    if !(preserved && errno == Errno::EFAULT) {
        *deed = Deed::Ioctl { fd, what, code, arg, argument, cut };
    }
}

/// Shared with the other modules: a task by its number, or the caller is gone.
pub(super) fn caller(gate: &mut Gate, tid: i32) -> Option<Rc<Task>> {
    gate.task(tid).ok()
}
