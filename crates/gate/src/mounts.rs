//! What a generation sees of its kernel in the file system: `/dev/liveupdate`, `/proc/cmdline`,
//! `/sys/kernel`, in a mount namespace of its own.
//!
//! The node of the device is a real character device, so that `stat`, `access`, `O_PATH` and links need no help. It
//! is one whose driver answers reads, writes, seeks and maps as the real device does, where the host has such a one
//! and lets us have it; `/dev/null` otherwise.
//!
//! What all generations see alike is prepared once; the rest by each generation's first process, so that what a
//! program changes in `/dev` is gone with it. All of it is made before it is known what the generation's kernel is:
//! the command line is written later, by the supervisor, and the device taken away where there is none.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, mkdirat, mknodat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind,
    mount_bind_recursive, mount_change, move_mount, open_tree,
};

use crate::sysfs;

/// Path of the device.
pub(crate) const DEVICE: &str = "/dev/liveupdate";
/// Where a folder that was extended still is as it was.
const HIDDEN: &str = ".host";
const CMDLINE: &str = "/proc/cmdline";
/// Drivers whose descriptors answer everything but ioctls as the real device does, best first.
pub(crate) const QUIET: [&str; 6] =
    ["loop-control", "btrfs-control", "vsock", "userfaultfd", "kvm", "autofs"];

/// What is the same in all generations.
#[derive(Debug)]
pub(crate) struct Common {
    /// The folder in which a kernel tells of itself.
    pub(crate) sysfs: Option<OwnedFd>,
    /// Entries of `/dev` that are mounts of their own.
    pub(crate) below_dev: Vec<OsString>,
}

/// Handles on what a generation sees.
#[derive(Debug)]
pub(crate) struct View {
    /// The file with the command line, still empty.
    pub(crate) cmdline: OwnedFd,
    /// The device node, opened for reading and writing.
    pub(crate) device: OwnedFd,
}

/// An error with the step that failed.
fn during(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_owned();
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Makes what all generations see alike, in a mount namespace of ours.
///
/// # Errors
/// The host does not let us keep mounts to ourselves.
pub(crate) fn prepare() -> io::Result<Common> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // What cannot be shown is left out.
    let sysfs = extend_folder(Path::new(sysfs::FOLDER), &[sysfs::KEXEC_LOADED, sysfs::LIVEUPDATE]).ok();
    Ok(Common { sysfs, below_dev: mounts_in_dev().unwrap_or_default() })
}

/// Makes the namespace of a generation what it should be. `privileged`: device nodes can be made here, rather than
/// borrowed.
///
/// # Errors
/// The step that failed, and why.
pub(crate) fn set_up(common: &Common, privileged: bool, tmpfs: &[PathBuf]) -> io::Result<View> {
    // Modes are meant as they are given; the program gets the caller's mask back.
    let mask = rustix::process::umask(Mode::empty());
    let made = mount_all(common, privileged, tmpfs);
    rustix::process::umask(mask);
    made
}

fn mount_all(common: &Common, privileged: bool, tmpfs: &[PathBuf]) -> io::Result<View> {
    for folder in tmpfs {
        mount("tmpfs", folder, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, Some(c"mode=1777"))
            .map_err(|error| during(&format!("a fresh tmpfs on {}", folder.display()))(error.into()))?;
    }
    let old = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open("/dev");
    let old = old.map_err(during("/dev"))?;
    mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, Some(c"mode=755"))
        .map_err(|error| during("a /dev of its own")(error.into()))?;
    // Without the right to mount a new one the old /proc shows the host's numbers.
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let _ = mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>);
    let cmdline = cover_file(Path::new(CMDLINE)).map_err(during(CMDLINE))?;
    let hidden = if privileged { layer_dev(&old, &common.below_dev).ok() } else { None };
    if hidden.is_none() {
        populate_dev(&old, privileged).map_err(during("a /dev of its own"))?;
    }
    let place = if privileged { Place::Made(hidden.as_ref()) } else { Place::Borrowed };
    Ok(View { cmdline, device: device_node(place)? })
}

/// Leaves no device where [`DEVICE`] was.
///
/// # Errors
/// What the host says.
pub(crate) fn take_device_away() -> io::Result<()> {
    // Borrowed devices are mounts.
    let _ = rustix::mount::unmount(DEVICE, rustix::mount::UnmountFlags::DETACH);
    fs::remove_file(DEVICE)
}

/// Entries of `/dev` that are mounts, or have mounts in them.
fn mounts_in_dev() -> io::Result<Vec<OsString>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)?.strip_prefix("/dev/"));
    let mut names: Vec<OsString> =
        points.filter_map(|point| point.split('/').next().map(OsString::from)).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The host's `/dev` with a layer of our own above it, on the tmpfs that is there now: a copy of each entry takes ten
/// times as long. Not without privilege, where devices in such a layer cannot be opened. Gives the tmpfs, which is
/// hidden now.
fn layer_dev(old: &File, below: &[OsString]) -> io::Result<File> {
    let hidden = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open("/dev")?;
    let host = format!("/proc/self/fd/{}", old.as_raw_fd());
    for folder in ["/dev/upper", "/dev/work"] {
        fs::DirBuilder::new().mode(0o755).create(folder)?;
    }
    let data = format!(
        "index=off,xino=off,redirect_dir=off,metacopy=off,lowerdir={host},upperdir=/dev/upper,workdir=/dev/work"
    );
    let data = std::ffi::CString::new(data)?;
    let made = mount("overlay", "/dev", "overlay", MountFlags::NOSUID, Some(data.as_c_str()));
    if let Err(error) = made {
        fs::remove_dir("/dev/upper")?;
        fs::remove_dir_all("/dev/work")?;
        return Err(error.into());
    }
    for name in below {
        // As when it is copied.
        let _ = mount_bind_recursive(Path::new(&host).join(name), Path::new("/dev").join(name));
    }
    Ok(hidden)
}

/// Copies the host's entries of `/dev` to the tmpfs that is there now.
fn populate_dev(old: &File, privileged: bool) -> io::Result<()> {
    let host = Path::new("/proc/self/fd").join(old.as_raw_fd().to_string());
    for entry in fs::read_dir(&host)?.filter_map(Result::ok) {
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        // What cannot be shown is left out: a program that needs it says so itself.
        let _ = show(&host.join(&name), &meta, &Path::new("/dev").join(&name), privileged);
    }
    Ok(())
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

/// Where the node comes from.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// It is made here: in this tmpfs, if it is not the one at `/dev`.
    Made(Option<&'a File>),
    Borrowed,
}

/// Puts a node at [`DEVICE`] and opens it.
fn device_node(place: Place<'_>) -> io::Result<OwnedFd> {
    let mut last = io::Error::from_raw_os_error(libc::ENODEV);
    for name in QUIET.into_iter().chain(["null"]) {
        let made = match place {
            Place::Made(hidden) => make_device(name, hidden),
            Place::Borrowed => borrow_device(name),
        };
        match made.and_then(|()| open_node()) {
            Ok(node) => return Ok(node),
            Err(error) => last = error,
        }
        let _ = take_device_away();
    }
    Err(during("no character device can stand for /dev/liveupdate")(last))
}

fn open_node() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// The file system of the node is a tmpfs, as a real one's is: where `/dev` has a layer it is made in the hidden
/// tmpfs, and shown.
fn make_device(name: &str, hidden: Option<&File>) -> io::Result<()> {
    let rdev = match name {
        "null" => rustix::fs::makedev(1, 3),
        name => {
            let minor = misc_minor(name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
            rustix::fs::makedev(10, minor)
        }
    };
    let node = match hidden {
        Some(folder) => PathBuf::from(format!("/proc/self/fd/{}/liveupdate", folder.as_raw_fd())),
        None => PathBuf::from(DEVICE),
    };
    // One that could not be opened.
    let _ = fs::remove_file(&node);
    make_node(&node, rustix::fs::FileType::CharacterDevice, 0o600, rdev)?;
    rustix::fs::chown(&node, Some(Uid::ROOT), Some(Gid::ROOT))?;
    if hidden.is_some() {
        File::create(DEVICE)?;
        mount_bind(&node, DEVICE)?;
    }
    Ok(())
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

/// Shows a new, empty file of ours at `path`; gives the file.
fn cover_file(path: &Path) -> io::Result<OwnedFd> {
    let hidden = Path::new("/dev/.luosim");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o444).open(hidden)?;
    let bound = mount_bind(hidden, path);
    fs::remove_file(hidden)?;
    bound?;
    Ok(file.into())
}

/// Shows `folder` with room for more files in it; gives what is shown. What was there is linked to, but for the names that are
/// to be made `anew`: a mount for each would cost more than all the rest.
fn extend_folder(folder: &Path, anew: &[&str]) -> io::Result<OwnedFd> {
    let before = open_tree(
        CWD,
        folder,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )?;
    let system = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(system.as_fd(), "mode", "755")?;
    fsconfig_create(system.as_fd())?;
    let above = fsmount(system.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    mkdirat(&above, HIDDEN, Mode::from_raw_mode(0o755))?;
    let links = |entry: &fs::DirEntry| anew.iter().all(|name| entry.file_name() != *name);
    for entry in fs::read_dir(folder)?.filter_map(Result::ok).filter(links) {
        symlinkat(Path::new(HIDDEN).join(entry.file_name()), &above, entry.file_name())?;
    }
    let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(above.as_fd(), "", CWD, folder, whole)?;
    move_mount(before.as_fd(), "", CWD, folder.join(HIDDEN), whole)?;
    Ok(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_dev_are_found() {
        let names = mounts_in_dev().expect("every Linux has it");
        assert!(names.iter().all(|name| Path::new("/dev").join(name).exists()), "{names:?}");
    }
}
