//! Opening the device, by whatever path.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use luosim_abi::{Errno, KResult};
use luosim_machine::process::Pid;
use rustix::fs::{OFlags, fstat};

use super::{Reply, host_refusal};
use crate::deed::{Answer, Deed};
use crate::gate::{Gate, Whose};
use crate::memory;
use crate::mounts::DEVICE;
use crate::notify::{Listener, Notification};
use crate::paths;
use crate::tag::Tag;
use crate::task::Task;

const PATH_MAX: usize = 4096;
const CMDLINE: &str = "/proc/cmdline";

/// What the path of an open names, as far as it concerns us.
enum Target {
    Native,
    Device,
    /// A file of a memory file that a session holds, opened to be cut.
    FrozenTruncate,
    /// The command line, in a `/proc` that was mounted by the program itself.
    Cmdline,
}

impl Gate {
    /// `openat2`: the flags are in memory.
    pub(super) fn open_how(&mut self, listener: &Listener, n: &Notification) -> Reply {
        let args = n.data.args;
        let Ok(task) = self.task(i32::try_from(n.pid).unwrap_or(0)) else { return Reply::Gone };
        let mut how = [0; 8];
        if args[3] < 24 || task.read(args[2], &mut how).is_err() {
            return Reply::GoOn;
        }
        let flags = super::low(u64::from_le_bytes(how));
        self.open(listener, n, (super::signed(args[0]), args[1]), flags)
    }

    pub(super) fn open(
        &mut self,
        listener: &Listener,
        n: &Notification,
        (dirfd, path): (i32, u64),
        flags: u32,
    ) -> Reply {
        let flags = OFlags::from_bits_retain(flags);
        let Ok(task) = self.task(i32::try_from(n.pid).unwrap_or(0)) else { return Reply::Gone };
        let Ok(text) = task.read_text(path, PATH_MAX) else { return Reply::GoOn };
        if text.is_empty() || flags.intersects(OFlags::PATH | OFlags::DIRECTORY) || !listener.is_valid(n.id) {
            return Reply::GoOn;
        }
        let path = PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&text).into_owned()));
        match self.target(&task, dirfd, &path, flags) {
            Target::Native => Reply::GoOn,
            Target::Device => self.open_device(listener, n, flags),
            Target::FrozenTruncate => {
                Errno::EPERM.because("the file is frozen: a live update session preserves it").into()
            }
            Target::Cmdline => self.open_cmdline(listener, n, flags),
        }
    }

    fn target(&mut self, task: &Task, dirfd: i32, path: &Path, flags: OFlags) -> Target {
        let Some(absolute) = paths::absolute(task, dirfd, path) else { return Target::Native };
        if let Some(link) = paths::fd_link(&absolute) {
            return self.link_target(task, link, flags);
        }
        if self.node.is_none() {
            return Target::Native;
        }
        let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        match paths::resolve(task, &absolute, flags) {
            Some(place) if self.is_device_node(&place) => Target::Device,
            // A root of the program's own, with a /dev of its own.
            None if !is_folder && paths::normal(&absolute) == Path::new(DEVICE) => Target::Device,
            Some(_) if paths::normal(&absolute) == Path::new(CMDLINE) && self.is_foreign_proc(task) => {
                Target::Cmdline
            }
            _ => Target::Native,
        }
    }

    fn is_device_node(&self, place: &OwnedFd) -> bool {
        let node = self.node.as_ref();
        node.is_some_and(|node| fstat(place).is_ok_and(|stat| node.is(place.as_fd(), &stat)))
    }

    /// Whether the program's `/proc/cmdline` is not the file that we put there.
    fn is_foreign_proc(&self, task: &Task) -> bool {
        let shown = std::fs::read(format!("/proc/{}/root{CMDLINE}", task.tid)).unwrap_or_default();
        let ours = self.machine.kernel().map(luosim_machine::Kernel::cmdline).unwrap_or_default();
        shown.trim_ascii_end() != ours.as_bytes()
    }

    fn link_target(&mut self, task: &Task, link: paths::FdLink, flags: OFlags) -> Target {
        let Some(owner) = self.owner_of(task, link) else { return Target::Native };
        let (whose, copy) = self.whose(&owner, link.fd);
        if let Whose::Device(..) | Whose::Refused(_) = whose {
            return Target::Device;
        }
        // A descriptor of the place alone (`O_PATH`): opening it opens the device.
        if copy.as_ref().is_some_and(|place| self.is_device_node(place)) {
            return Target::Device;
        }
        let cut = flags.contains(OFlags::TRUNC) && copy.is_some_and(|file| self.would_cut(&file));
        if cut { Target::FrozenTruncate } else { Target::Native }
    }

    /// Whether the file is frozen and not empty.
    fn would_cut(&mut self, file: &OwnedFd) -> bool {
        fstat(file).is_ok_and(|stat| stat.st_size > 0 && self.frozen(memory::host_inode(&stat)).is_some())
    }

    /// The thread whose descriptor a link names.
    pub(super) fn owner_of(&mut self, task: &Task, link: paths::FdLink) -> Option<std::rc::Rc<Task>> {
        match link.pid {
            Some(pid) if pid != task.identity().pid => {
                let tid = paths::host_pid(task, pid)?;
                self.task(tid).ok()
            }
            _ => self.task(task.tid).ok(),
        }
    }

    fn open_device(&mut self, listener: &Listener, n: &Notification, flags: OFlags) -> Reply {
        let Ok(task) = self.know(i32::try_from(n.pid).unwrap_or(0)) else { return Reply::Gone };
        let user = Pid(task.identity().pid);
        let opened = self.device_for(&task, flags);
        let tag = opened.as_ref().ok().map(|(tag, _)| *tag);
        let (reply, answer) = match opened {
            Ok((_, device)) => match listener.add_fd(n.id, device.as_fd(), flags.contains(OFlags::CLOEXEC)) {
                Ok(Some(fd)) => (Reply::Value(fd.into()), Answer::Value(fd.into())),
                Ok(None) => (Reply::Gone, Answer::None),
                Err(error) => {
                    let refusal = host_refusal(&error, "the program's descriptor table");
                    (Reply::Refuse(refusal.clone()), Answer::Refused(refusal))
                }
            },
            Err(refusal) => (Reply::Refuse(refusal.clone()), Answer::Refused(refusal)),
        };
        self.note(user, || Deed::OpenDevice { flags: flags.bits() }, answer);
        self.note_about(tag, None, None);
        reply
    }

    fn device_for(&mut self, task: &Task, flags: OFlags) -> KResult<(Tag, OwnedFd)> {
        let who = task.identity();
        if self.privileged && who.uid != 0 && !who.overrides_permissions() {
            let why =
                format!("the device belongs to root, with mode 0600; the process runs as uid {}", who.uid);
            return Err(Errno::EACCES.because(why));
        }
        if !task.has_free_descriptor() {
            return Err(Errno::EMFILE.because("the program's descriptor table is full"));
        }
        self.settle_devices();
        let node = self.node.as_ref().ok_or_else(|| Errno::ENOENT.because("live update is off"))?;
        // Part of the open, and of no description.
        let exclusive = flags & OFlags::EXCL;
        let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK;
        let device = memory::reopen(node.file.as_fd(), flags & kept)
            .map_err(|error| host_refusal(&error, "the device node"))?;
        let (tag, _) = self.admit_device(task, device.as_fd(), exclusive)?;
        Ok((tag, device))
    }

    /// A file with the command line.
    fn open_cmdline(&mut self, listener: &Listener, n: &Notification, flags: OFlags) -> Reply {
        let text = self.machine.kernel().map(|kernel| format!("{}\n", kernel.cmdline())).unwrap_or_default();
        let Ok(file) = rustix::fs::memfd_create("cmdline", rustix::fs::MemfdFlags::CLOEXEC) else {
            return Reply::GoOn;
        };
        if std::os::unix::fs::FileExt::write_all_at(
            &std::fs::File::from(file.try_clone().expect("room")),
            text.as_bytes(),
            0,
        )
        .is_err()
        {
            return Reply::GoOn;
        }
        match listener.add_fd(n.id, file.as_fd(), flags.contains(OFlags::CLOEXEC)) {
            Ok(Some(fd)) => Reply::Value(fd.into()),
            Ok(None) => Reply::Gone,
            Err(error) => host_refusal(&error, "the program's descriptor table").into(),
        }
    }
}
