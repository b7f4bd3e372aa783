//! The kernel that programs talk to: the model, and what ties host descriptors to it.
//!
//! Each notified call is served to its end before the next is taken, so that everything happens in one order. Last
//! closes are found by asking: of the session or file that a call is about, before it is served; of all, before
//! anything that depends on how many there are, and before a kexec.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use luosim_abi::{Errno, KResult};
use luosim_files::FileKind;
use luosim_luo::FileId;
use luosim_machine::Machine;
use luosim_machine::process::Pid;
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{AtFlags, OFlags, SeekFrom, Stat, StatxFlags, fcntl_getfl, fstat, seek, statx};

use crate::deed::{Answer, Deed, Served};
use crate::memory::{self, Holes, HostInode, Known, host_inode};
use crate::paths;
use crate::sysfs::Sysfs;
use crate::tag::{Tag, Tags};
use crate::task::Task;

/// Tasks kept open at most; the oldest knowledge is dropped with all the rest.
const MAX_TASKS: usize = 512;
/// Memory files that may be known without a look at which of them are gone.
pub(crate) const PRUNE_AT: usize = 1024;
/// Sessions asked after at each call, so that memory is given back even if nobody asks for them.
const SWEEP: usize = 2;

/// A session that has descriptors.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) file: FileId,
    pub(crate) name: Vec<u8>,
    /// Who used it last: held responsible for closing it.
    pub(crate) user: Pid,
}

/// An open description of the device. Releases admit one at a time; a posted design admits any number.
#[derive(Debug)]
struct Device {
    file: FileId,
    user: Pid,
}

/// The node at `/dev/liveupdate`.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) file: File,
    inode: HostInode,
    /// The mount of a node that is borrowed from the host: other descriptors of the same inode are not the device.
    mount: Option<u64>,
}

impl Node {
    /// Takes over the node; `borrowed`: it is a mount of a device that programs may have by its own name too.
    fn new(file: File, borrowed: bool) -> io::Result<Self> {
        let mount = if borrowed { mount_of(file.as_fd()) } else { None };
        Ok(Self { inode: host_inode(&fstat(&file)?), mount, file })
    }

    /// Whether `fd` is of the node.
    pub(crate) fn is(&self, fd: BorrowedFd<'_>, stat: &Stat) -> bool {
        // In a mount namespace of the program's own the mount has another number.
        self.inode == host_inode(stat)
            && (self.mount.is_none() || self.mount == mount_of(fd) || paths::is_named_as_device(fd))
    }
}

fn mount_of(fd: BorrowedFd<'_>) -> Option<u64> {
    let known = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    Some(known.stx_mnt_id)
}

/// What a program's descriptor is to us.
#[derive(Debug)]
pub(crate) enum Whose {
    /// Not ours: the call runs natively.
    Native,
    Device(Tag, FileId),
    Session(Tag, FileId),
    /// A description of the device that cannot be, and why.
    Refused(luosim_abi::Refusal),
}

/// Memory files that the kernel knows.
#[derive(Debug)]
pub(crate) struct MemoryFiles {
    pub(crate) known: FxHashMap<HostInode, Known>,
    /// So many are known when those that are gone are looked for.
    pub(crate) prune_at: usize,
    /// Held by LUO for the next kernel: the program's description, for its position.
    pub(crate) held: BTreeMap<FileId, OwnedFd>,
    /// Given back by LUO: the description to give again.
    pub(crate) given: BTreeMap<FileId, OwnedFd>,
    /// Every inode that was given back: their links have no name.
    pub(crate) restored: FxHashSet<HostInode>,
}

/// The kernel and its ties to the host.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) machine: Machine,
    pub(crate) tags: Tags,
    pub(crate) sessions: BTreeMap<Tag, Session>,
    pub(crate) files: MemoryFiles,
    pub(crate) node: Option<Node>,
    pub(crate) holes: Holes,
    /// Whether programs have the user ids of the host, so that permissions mean something.
    pub(crate) privileged: bool,
    pub(crate) loader: crate::serve::image::Loader,
    pub(crate) sysfs: Sysfs,
    devices: BTreeMap<Tag, Device>,
    /// Whether anybody has opened the device in this generation: before that no file is of interest.
    pub(crate) used: bool,
    names: FxHashMap<Vec<u8>, Vec<Tag>>,
    seen: FxHashMap<(i32, i32), Tag>,
    tasks: FxHashMap<i32, Rc<Task>>,
    /// Where the sweep goes on.
    next_sweep: Tag,
    /// Calls served since the last look, if anybody looks.
    deeds: Option<Vec<Served>>,
}

impl Gate {
    pub(crate) fn new(
        machine: Machine,
        holes: Holes,
        privileged: bool,
        watched: bool,
        loader: crate::serve::image::Loader,
    ) -> io::Result<Self> {
        Ok(Self {
            machine,
            tags: Tags::new()?,
            sessions: BTreeMap::new(),
            files: MemoryFiles {
                known: FxHashMap::default(),
                prune_at: PRUNE_AT,
                held: BTreeMap::new(),
                given: BTreeMap::new(),
                restored: FxHashSet::default(),
            },
            node: None,
            holes,
            privileged,
            loader,
            sysfs: Sysfs::default(),
            devices: BTreeMap::new(),
            used: false,
            names: FxHashMap::default(),
            seen: FxHashMap::default(),
            tasks: FxHashMap::default(),
            next_sweep: Tag(0),
            deeds: watched.then(Vec::new),
        })
    }

    /// A generation starts: its device node, if its kernel has one, and the folder with what its kernel tells of itself.
    pub(crate) fn begin(&mut self, device: Option<OwnedFd>, folder: Option<OwnedFd>) -> io::Result<()> {
        self.node = match device {
            Some(fd) => Some(Node::new(File::from(fd), !self.privileged)?),
            None => None,
        };
        let state = self.machine.kernel().and_then(luosim_machine::Kernel::sysfs_state);
        self.sysfs = folder.map(|folder| Sysfs::new(&folder, state.is_some())).unwrap_or_default();
        self.show_image();
        self.show_state();
        Ok(())
    }

    /// Every process of the generation is gone, and the kernel it talked to.
    pub(crate) fn forget_generation(&mut self) {
        self.sessions.clear();
        self.names.clear();
        self.seen.clear();
        self.tasks.clear();
        self.devices.clear();
        self.used = false;
        self.node = None;
        self.files.known.clear();
        self.files.held.clear();
        self.files.given.clear();
    }

    /// Shows in `/sys/kernel/kexec_loaded` whether an image is loaded.
    pub(crate) fn show_image(&mut self) {
        let loaded = self.machine.kernel().is_some_and(|kernel| kernel.image().is_some());
        self.sysfs.show_image(loaded);
    }

    /// Shows the state of the machine, where its kernel has a file for it.
    pub(crate) fn show_state(&mut self) {
        if let Some(text) = self.machine.kernel().and_then(luosim_machine::Kernel::sysfs_state) {
            self.sysfs.show_state(&text);
        }
    }

    /// The thread with this number, met by the machine.
    pub(crate) fn task(&mut self, tid: i32) -> io::Result<Rc<Task>> {
        if let Some(task) = self.tasks.get(&tid).filter(|task| !task.is_gone()) {
            return Ok(task.clone());
        }
        self.know(tid)
    }

    /// The thread, asked anew who it is.
    pub(crate) fn know(&mut self, tid: i32) -> io::Result<Rc<Task>> {
        if self.tasks.len() >= MAX_TASKS {
            self.tasks.clear();
            self.seen.clear();
        }
        let task = Rc::new(Task::open(tid)?);
        let who = task.identity();
        // A machine that is down answers every call so itself.
        let _ = self.machine.meet(Pid(who.pid), &who.name, if self.privileged { who.uid } else { 0 });
        self.tasks.insert(tid, task.clone());
        Ok(task)
    }

    /// The thread with this number, and a copy of its descriptor: asking for that tells whether it is gone.
    pub(crate) fn task_with(&mut self, tid: i32, fd: i32) -> io::Result<(Rc<Task>, Option<OwnedFd>)> {
        if let Some(task) = self.tasks.get(&tid) {
            match task.descriptor(fd) {
                Err(refusal) if refusal.errno == Errno::ESRCH => {}
                copy => return Ok((task.clone(), copy.ok())),
            }
        }
        let task = self.know(tid)?;
        let copy = task.descriptor(fd).ok();
        Ok((task, copy))
    }

    /// What the descriptor is to us, and a copy of it.
    pub(crate) fn whose(&mut self, task: &Task, fd: i32) -> (Whose, Option<OwnedFd>) {
        let copy = task.descriptor(fd).ok();
        let whose = copy.as_ref().map_or(Whose::Native, |copy| self.recognise(task, fd, copy.as_fd()));
        (whose, copy)
    }

    /// What the descriptor, of which `copy` is one, is to us.
    pub(crate) fn recognise(&mut self, task: &Task, fd: i32, copy: BorrowedFd<'_>) -> Whose {
        let Ok(stat) = fstat(copy) else { return Whose::Native };
        if self.tags.may_be_session(&stat) {
            return self.recognise_session(task.tid, fd, copy);
        }
        let is_place = || fcntl_getfl(copy).is_ok_and(|flags| flags.contains(OFlags::PATH));
        if !self.is_node(copy, &stat) || is_place() {
            return Whose::Native;
        }
        self.recognise_device(task, copy)
    }

    fn is_node(&self, fd: BorrowedFd<'_>, stat: &Stat) -> bool {
        self.node.as_ref().is_some_and(|node| node.is(fd, stat))
    }

    fn recognise_session(&mut self, tid: i32, fd: i32, copy: BorrowedFd<'_>) -> Whose {
        let cached = self.seen.get(&(tid, fd)).copied().filter(|tag| self.tags.is(copy, *tag));
        let Some(tag) = cached.or_else(|| self.tags.read(copy)) else { return Whose::Native };
        let Some(session) = self.sessions.get(&tag) else { return Whose::Native };
        self.seen.insert((tid, fd), tag);
        Whose::Session(tag, session.file)
    }

    /// A description of the device: one that is known, or one that was opened without our being asked.
    fn recognise_device(&mut self, task: &Task, copy: BorrowedFd<'_>) -> Whose {
        self.settle_devices();
        // All that are known are alive: its own description alone does not see its lock.
        let known = self.devices.iter().find(|(tag, _)| !self.tags.is_locked_elsewhere(copy, **tag));
        if let Some((tag, device)) = known {
            return Whose::Device(*tag, device.file);
        }
        match self.admit_device(task, copy, OFlags::empty()) {
            Ok((tag, file)) => Whose::Device(tag, file),
            Err(refusal) => Whose::Refused(refusal),
        }
    }

    /// Opens the device for the description behind `fd`, with what flags of the `open` it does not have.
    pub(crate) fn admit_device(
        &mut self,
        task: &Task,
        fd: BorrowedFd<'_>,
        open: OFlags,
    ) -> KResult<(Tag, FileId)> {
        let user = Pid(task.identity().pid);
        let flags = fcntl_getfl(fd).map_or(0, |flags| flags.bits()) | open.bits();
        let file = self.machine.open_device_outside(user, flags)?;
        match self.tags.mark_device(fd) {
            Ok(tag) => {
                self.used = true;
                self.devices.insert(tag, Device { file, user });
                Ok((tag, file))
            }
            Err(error) => {
                self.machine.close_outside(user, file);
                Err(Errno::EIO.because(format!("the host cannot mark the descriptor: {error}")))
            }
        }
    }

    /// Notices the last close of each description of the device.
    pub(crate) fn settle_devices(&mut self) {
        let Some(node) = &self.node else { return };
        let closed = |tag: &&Tag| !self.tags.is_device_alive(&node.file, **tag);
        let closed: Vec<Tag> = self.devices.keys().filter(closed).copied().collect();
        for tag in closed {
            let Device { file, user } = self.devices.remove(&tag).expect("it was just listed");
            self.machine.close_outside(user, file);
            self.drop_released();
            self.note(user, || Deed::DeviceClosed, Answer::None);
            self.note_about(Some(tag), None, None);
        }
    }

    /// Adds a session that was just given a descriptor.
    pub(crate) fn add_session(&mut self, tag: Tag, session: Session) {
        self.names.entry(session.name.clone()).or_default().push(tag);
        self.sessions.insert(tag, session);
    }

    /// Remembers which session a descriptor number is, as long as it is.
    pub(crate) fn remember(&mut self, tid: i32, fd: i32, tag: Tag) {
        self.seen.insert((tid, fd), tag);
    }

    /// Notices the last close of a session; `true` if it was one.
    fn settle_session(&mut self, tag: Tag) -> bool {
        !self.tags.is_alive(tag) && self.close_session(tag)
    }

    /// Closes a session; a descriptor that is left of it is nobody's. `false`: it was closed before.
    pub(crate) fn close_session(&mut self, tag: Tag) -> bool {
        let Some(session) = self.sessions.remove(&tag) else { return false };
        if let Some(tags) = self.names.get_mut(&session.name) {
            tags.retain(|other| *other != tag);
            if tags.is_empty() {
                self.names.remove(&session.name);
            }
        }
        self.machine.close_outside(session.user, session.file);
        self.drop_released();
        self.note(session.user, || Deed::SessionClosed { name: session.name.clone() }, Answer::None);
        self.note_about(None, Some(tag), None);
        true
    }

    /// Notices last closes of the sessions with this name.
    pub(crate) fn settle_name(&mut self, name: &[u8]) {
        for tag in self.names.get(name).cloned().unwrap_or_default() {
            self.settle_session(tag);
        }
    }

    /// Notices every last close; `true` if there was one.
    pub(crate) fn settle_all(&mut self) -> bool {
        self.settle_devices();
        let tags: Vec<Tag> = self.sessions.keys().copied().collect();
        // All of them, also after one was found.
        tags.into_iter().filter(|tag| self.settle_session(*tag)).count() > 0
    }

    /// Asks after a few sessions, in turn; `known` was just asked.
    pub(crate) fn sweep(&mut self, known: Option<Tag>) {
        for _ in 0..SWEEP {
            let next = self.sessions.range(self.next_sweep..).next().map(|(tag, _)| *tag);
            let Some(tag) = next else {
                self.next_sweep = Tag(0);
                return;
            };
            self.next_sweep = Tag(tag.0 + 1);
            if known != Some(tag) {
                self.settle_session(tag);
            }
        }
    }

    /// Lets go of host descriptors whose description in the kernel is gone.
    pub(crate) fn drop_released(&mut self) {
        let Some(kernel) = self.machine.kernel() else { return };
        let exists = |file: &FileId| matches!(kernel.description(*file), Some(FileKind::Shmem(_)));
        self.files.held.retain(|file, _| exists(file));
        self.files.given.retain(|file, _| exists(file));
    }

    /// Tells LUO where the preserved files' positions are.
    pub(crate) fn refresh_positions(&mut self) {
        for (file, description) in &self.files.held {
            if let Ok(position) = seek(description, SeekFrom::Current(0)) {
                self.machine.set_position_outside(*file, position);
            }
        }
    }

    /// Tells the kernel what its files are like now: one that is registered and not prepared may have been changed since.
    pub(crate) fn refresh_files(&mut self) {
        for (file, copy) in &self.files.held {
            let Ok(stat) = fstat(copy) else { continue };
            if let Ok(host) = memory::describe(copy.as_fd(), &stat, false) {
                self.machine.refresh_outside(*file, host);
            }
        }
    }

    /// Fills the holes of the files whose pages the kernel has taken, as it does.
    pub(crate) fn fill_taken(&mut self) {
        let Some(kernel) = self.machine.kernel() else { return };
        let files = kernel.core().open_files();
        let taken = self.files.held.keys().filter_map(|file| match kernel.description(*file) {
            Some(FileKind::Shmem(inode)) => files.inodes.find(inode).filter(|shmem| shmem.frozen()),
            _ => None,
        });
        for shmem in taken {
            if let Some(backing) = shmem.host()
                && let Err(error) = memory::fill_holes(&backing.file, shmem.size(), self.holes)
            {
                tracing::warn!("holes of a preserved file could not be filled: {error}");
            }
        }
    }

    /// Keeps what was done for who watches.
    pub(crate) fn note(&mut self, pid: Pid, deed: impl FnOnce() -> Deed, answer: Answer) {
        let Some(deeds) = &mut self.deeds else { return };
        let process = self.machine.kernel().and_then(|kernel| kernel.processes().get(&pid));
        let program = process.map(|process| process.name.clone()).unwrap_or_default();
        let uid = process.map_or(0, |process| process.uid);
        let generation = self.machine.generation();
        let (device, session, inode) = (None, None, None);
        deeds.push(Served {
            generation,
            pid: pid.0,
            uid,
            program,
            deed: deed(),
            answer,
            device,
            session,
            inode,
        });
    }

    /// Whether anybody watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.deeds.is_some()
    }

    /// Adds to the newest deed what it is about.
    pub(crate) fn note_about(&mut self, device: Option<Tag>, session: Option<Tag>, inode: Option<u64>) {
        if let Some(deed) = self.deeds.as_mut().and_then(|deeds| deeds.last_mut()) {
            deed.device = device.map(|tag| tag.0);
            deed.session = session.map(|tag| tag.0);
            deed.inode = inode;
        }
    }

    /// Gives the newest deed its answer, which came after what followed from it.
    pub(crate) fn note_answer(&mut self, answer: Answer) {
        if let Some(deed) = self.deeds.as_mut().and_then(|deeds| deeds.last_mut()) {
            deed.answer = answer;
        }
    }

    /// What was served since the last look.
    pub(crate) fn take_deeds(&mut self) -> Vec<Served> {
        self.deeds.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
