//! What a kernel tells of itself in `/sys/kernel`: whether an image is loaded, and in the posted designs that had it the
//! state of the machine.
//!
//! Files of ours in a folder that programs see there (`mounts`), made anew for each generation and written when
//! something changed, before the call that changed it is answered. A view only: nothing depends on it, so what the host
//! refuses is left out. Nobody is told of a change, where a kernel wakes who polls the state.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use luosim_abi::posted::STATE_PATH;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};

/// The folder that holds them.
pub(crate) const FOLDER: &str = "/sys/kernel";
/// Whether an image is loaded.
pub(crate) const KEXEC_LOADED: &str = "kexec_loaded";
/// The orchestrator's own folder.
pub(crate) const LIVEUPDATE: &str = "liveupdate";

/// The files of one generation.
#[derive(Debug, Default)]
pub(crate) struct Sysfs {
    kexec_loaded: Option<File>,
    state: Option<(File, String)>,
}

/// A file that programs can read, in place of the one that was there.
fn anew(folder: BorrowedFd<'_>, name: &Path) -> Option<File> {
    let _ = unlinkat(folder, name, AtFlags::empty());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Some(File::from(openat(folder, name, flags, Mode::from_raw_mode(0o444)).ok()?))
}

/// Where the state is, below [`FOLDER`].
fn state_place() -> &'static Path {
    Path::new(STATE_PATH).strip_prefix(FOLDER).expect("it lies there")
}

impl Sysfs {
    /// Makes the files in the folder that is seen as [`FOLDER`]; `state`: the kernel shows that too.
    pub(crate) fn new(folder: &OwnedFd, state: bool) -> Self {
        let folder = folder.as_fd();
        let kexec_loaded = anew(folder, Path::new(KEXEC_LOADED));
        let place = state_place();
        if !state {
            let _ = unlinkat(folder, place, AtFlags::empty());
            let _ = unlinkat(folder, LIVEUPDATE, AtFlags::REMOVEDIR);
            return Self { kexec_loaded, state: None };
        }
        let _ = mkdirat(folder, LIVEUPDATE, Mode::from_raw_mode(0o755));
        Self { kexec_loaded, state: anew(folder, place).map(|file| (file, String::new())) }
    }

    pub(crate) fn show_image(&self, loaded: bool) {
        if let Some(file) = &self.kexec_loaded {
            let _ = file.write_all_at(if loaded { b"1\n" } else { b"0\n" }, 0);
        }
    }

    pub(crate) fn show_state(&mut self, text: &str) {
        if let Some((file, shown)) = self.state.as_mut().filter(|(_, shown)| shown != text) {
            let _ = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
            text.clone_into(shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_there_where_the_kernel_shows_it() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = || OwnedFd::from(File::open(place.path()).expect("it is ours"));
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).ok();
        let mut first = Sysfs::new(&folder(), true);
        first.show_state("prepared\n");
        first.show_state("normal\n");
        first.show_image(true);
        assert_eq!(read("liveupdate/state").as_deref(), Some("normal\n"), "nothing is left of a longer text");
        assert_eq!(read("kexec_loaded").as_deref(), Some("1\n"));
        let second = Sysfs::new(&folder(), false);
        second.show_image(false);
        assert_eq!((read("liveupdate/state"), read("kexec_loaded").as_deref()), (None, Some("0\n")));
        assert!(!place.path().join("liveupdate").exists());
    }
}
