//! What a generation sees of its kernel in the file system: `/dev/liveupdate`, `/proc/cmdline`,
//! `/sys/kernel/kexec_loaded`, in a mount namespace of its own.
//!
//! The node of the device is a real character device, so that `stat`, `access`, `O_PATH` and links need no help. It
//! is one whose driver answers reads, writes, seeks and maps as the real device does, where the host has such a one
//! and lets us have it; `/dev/null` otherwise. Runs in the generation's first process, before the program.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_move,
};

/// Path of the device.
pub(crate) const DEVICE: &str = "/dev/liveupdate";
/// Where a folder that was extended still is as it was.
const HIDDEN: &str = ".host";
const CMDLINE: &str = "/proc/cmdline";
const KEXEC_LOADED: &str = "/sys/kernel/kexec_loaded";
/// Drivers whose descriptors answer everything but ioctls as the real device does, best first.
pub(crate) const QUIET: [&str; 6] =
    ["loop-control", "btrfs-control", "vsock", "userfaultfd", "kvm", "autofs"];

/// What the mounts should show.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Whether there is a device node.
    pub(crate) device: bool,
    /// The kernel's command line, without a newline.
    pub(crate) cmdline: String,
    /// Folders that get a fresh tmpfs.
    pub(crate) tmpfs: Vec<PathBuf>,
    /// Whether device nodes can be made here, rather than borrowed.
    pub(crate) privileged: bool,
}

/// Handles on what was mounted, for the supervisor.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    /// The device node, opened for reading and writing.
    pub(crate) device: Option<OwnedFd>,
    /// The file that says whether an image is loaded.
    pub(crate) kexec_loaded: Option<OwnedFd>,
}

/// An error with the step that failed.
fn during(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_owned();
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Makes the namespace show `view`.
///
/// # Errors
/// The step that failed, and why.
pub(crate) fn set_up(view: &View) -> io::Result<Handles> {
    // Modes are meant as they are given; the program gets the caller's mask back.
    let mask = rustix::process::umask(Mode::empty());
    let made = mount_all(view);
    rustix::process::umask(mask);
    made
}

fn mount_all(view: &View) -> io::Result<Handles> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| during("keeping mounts to ourselves")(error.into()))?;
    for folder in &view.tmpfs {
        mount("tmpfs", folder, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, Some(c"mode=1777"))
            .map_err(|error| during(&format!("a fresh tmpfs on {}", folder.display()))(error.into()))?;
    }
    populate_dev(view.privileged).map_err(during("a /dev of its own"))?;
    let device = if view.device { Some(device_node(view.privileged)?) } else { None };
    // Without the right to mount a new one the old /proc shows the host's numbers.
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let _ = mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>);
    overlay_file(Path::new(CMDLINE), &format!("{}\n", view.cmdline)).map_err(during(CMDLINE))?;
    let kexec_loaded = kexec_loaded_file().ok();
    Ok(Handles { device, kexec_loaded })
}

/// A tmpfs on `/dev` with the same entries.
fn populate_dev(privileged: bool) -> io::Result<()> {
    let old = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open("/dev")?;
    let entries = entries(Path::new("/dev"))?;
    mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, Some(c"mode=755"))?;
    for (name, meta) in entries {
        let from = Path::new("/proc/self/fd").join(old.as_raw_fd().to_string()).join(&name);
        // What cannot be shown is left out: a program that needs it says so itself.
        let _ = show(&from, &meta, &Path::new("/dev").join(&name), privileged);
    }
    Ok(())
}

/// What is in a folder.
fn entries(folder: &Path) -> io::Result<Vec<(OsString, Metadata)>> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?))).collect())
}

/// Makes `to` show what is at `from`.
fn show(from: &Path, meta: &Metadata, to: &Path, privileged: bool) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if kind.is_dir() {
        fs::create_dir(to)?;
        return Ok(mount_bind_recursive(from, to)?);
    }
    if privileged && (kind.is_char_device() || kind.is_block_device()) {
        let file_type = if kind.is_char_device() {
            rustix::fs::FileType::CharacterDevice
        } else {
            rustix::fs::FileType::BlockDevice
        };
        make_node(to, file_type, meta.mode() & 0o7777, meta.rdev())?;
        let foreign = meta.uid() != 0 || meta.gid() != 0;
        return if foreign {
            std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid()))
        } else {
            Ok(())
        };
    }
    File::create(to)?;
    Ok(mount_bind(from, to)?)
}

fn make_node(to: &Path, kind: rustix::fs::FileType, mode: u32, rdev: u64) -> io::Result<()> {
    Ok(mknodat(CWD, to, kind, Mode::from_raw_mode(mode), rdev)?)
}

/// Number of a misc device's minor, from `/proc/misc`.
pub(crate) fn misc_minor(name: &str) -> Option<u32> {
    let misc = fs::read_to_string("/proc/misc").ok()?;
    misc.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let minor = words.next()?.parse().ok()?;
        (words.next() == Some(name)).then_some(minor)
    })
}

/// Puts a node at [`DEVICE`] and opens it.
fn device_node(privileged: bool) -> io::Result<OwnedFd> {
    let mut last = io::Error::from_raw_os_error(libc::ENODEV);
    for name in QUIET.into_iter().chain(["null"]) {
        let made = if privileged { make_device(name) } else { borrow_device(name) };
        match made.and_then(|()| open_node()) {
            Ok(node) => return Ok(node),
            Err(error) => last = error,
        }
        let _ = rustix::mount::unmount(DEVICE, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_file(DEVICE);
    }
    Err(during("no character device can stand for /dev/liveupdate")(last))
}

fn open_node() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

fn make_device(name: &str) -> io::Result<()> {
    let rdev = match name {
        "null" => rustix::fs::makedev(1, 3),
        name => {
            let minor = misc_minor(name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
            rustix::fs::makedev(10, minor)
        }
    };
    make_node(Path::new(DEVICE), rustix::fs::FileType::CharacterDevice, 0o600, rdev)?;
    Ok(rustix::fs::chown(DEVICE, Some(Uid::ROOT), Some(Gid::ROOT))?)
}

/// Unprivileged: shows a device of the host that we may open.
fn borrow_device(name: &str) -> io::Result<()> {
    let from = Path::new("/dev").join(name);
    if !fs::metadata(&from)?.file_type().is_char_device() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    File::create(DEVICE)?;
    Ok(mount_bind(&from, DEVICE)?)
}

/// Shows a file of ours with this text at `path`; gives the file.
fn overlay_file(path: &Path, text: &str) -> io::Result<File> {
    let hidden = Path::new("/dev/.luosim");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o444).open(hidden)?;
    io::Write::write_all(&mut &file, text.as_bytes())?;
    let bound = mount_bind(hidden, path);
    fs::remove_file(hidden)?;
    bound?;
    Ok(file)
}

fn kexec_loaded_file() -> io::Result<OwnedFd> {
    let path = Path::new(KEXEC_LOADED);
    if !path.exists() {
        extend_folder(path.parent().expect("it lies in a folder"), "kexec_loaded")?;
    }
    Ok(overlay_file(path, "0\n")?.into())
}

/// Shows `folder` with one more, empty file in it. What was there is linked to: a mount for each would cost more than
/// all the rest.
fn extend_folder(folder: &Path, extra: &str) -> io::Result<()> {
    let entries = entries(folder)?;
    let aside = Path::new("/dev").join(HIDDEN);
    fs::create_dir(&aside)?;
    mount_bind_recursive(folder, &aside)?;
    mount("tmpfs", folder, "tmpfs", MountFlags::NOSUID, Some(c"mode=755"))?;
    let hidden = folder.join(HIDDEN);
    fs::create_dir(&hidden)?;
    mount_move(&aside, &hidden)?;
    fs::remove_dir(&aside)?;
    for (name, _) in entries {
        symlink(Path::new(HIDDEN).join(&name), folder.join(&name))?;
    }
    File::create(folder.join(extra)).map(drop)
}
