//! Loaded kernel images: what `kexec_file_load` and the older `kexec_load` leave for `reboot`.

use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_kho::BootParams;

use crate::boot::BootOptions;
use crate::process::Pid;
use crate::{Kernel, Machine};

/// How an image was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// `kexec_file_load`: carries the handover if KHO is on.
    File,
    /// `kexec_load`: carries none.
    Old,
    /// `kexec_load` with `KEXEC_PRESERVE_CONTEXT`: what is jumped to comes back, and the same kernel goes on.
    PreserveContext,
    /// `kexec_file_load` with `KEXEC_FILE_ON_CRASH`: in a slot of its own, used when the kernel panics.
    Crash,
}

impl ImageKind {
    /// Whether an image of this kind takes a handover along, in a kernel with these quirks and KHO on.
    fn carries(self, quirks: Quirks) -> bool {
        match self {
            Self::File => true,
            Self::Crash => quirks.has(Quirk::CrashImageTakesKho),
            Self::Old | Self::PreserveContext => false,
        }
    }
}

/// A loaded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The release in it.
    pub release: ReleaseId,
    /// How the next kernel is booted.
    pub options: BootOptions,
    /// How it was loaded.
    pub kind: ImageKind,
    /// The two address/size pairs; none without KHO and for kinds that carry none.
    pub params: Option<BootParams>,
}

fn check_root(kernel: &Kernel, pid: Pid, what: &str) -> KResult<()> {
    let uid = kernel.processes.get(&pid).map_or(0, |process| process.uid);
    if uid == 0 {
        return Ok(());
    }
    Err(Errno::EPERM.because(format!("{what} needs CAP_SYS_BOOT; the process runs as uid {uid}")))
}

impl Machine {
    /// `kexec_file_load(2)` or `kexec_load(2)`, by kind. Replaces an image loaded before in the same slot.
    ///
    /// # Errors
    /// EPERM; EADDRNOTAVAIL: KHO is on and scratch has no room for the image.
    pub fn load_image(
        &mut self,
        pid: Pid,
        release: ReleaseId,
        options: BootOptions,
        kind: ImageKind,
    ) -> KResult<()> {
        let kernel = self.running()?;
        check_root(kernel, pid, "kexec_file_load")?;
        let params = if kind.carries(kernel.quirks) && kernel.core.kho.enabled() {
            kernel.core.kho.params_for_kexec(&mut kernel.core.ram)?
        } else {
            None
        };
        let image = Image { release, options, kind, params };
        let slot = if kind == ImageKind::Crash { &mut kernel.crash_image } else { &mut kernel.image };
        *slot = Some(image);
        Ok(())
    }

    /// `kexec_file_load` with `KEXEC_FILE_UNLOAD`. Sessions are not touched.
    ///
    /// # Errors
    /// EPERM.
    pub fn unload_image(&mut self, pid: Pid) -> KResult<()> {
        let kernel = self.running()?;
        check_root(kernel, pid, "kexec_file_load")?;
        kernel.image = None;
        Ok(())
    }

    /// Writes to KHO's control file `finalize` (6.16 to 7.0): not 0 finalises. In 6.19 and 7.0 again and again; before
    /// that once, until 0 undoes it.
    ///
    /// # Errors
    /// ENOENT without the file; else as [`luosim_kho::Kho::write_finalize`].
    pub fn kho_finalize(&mut self, value: u64) -> KResult<()> {
        let core = &mut self.running()?.core;
        core.kho.write_finalize(&mut core.ram, &mut core.log, value)
    }

    /// Checks of `reboot(LINUX_REBOOT_CMD_KEXEC)` before anything is done.
    pub(crate) fn check_reboot(&mut self, pid: Pid) -> KResult<()> {
        let kernel = self.running()?;
        check_root(kernel, pid, "reboot")?;
        if kernel.image.is_none() {
            return Err(Errno::EINVAL.because("no kernel image is loaded"));
        }
        Ok(())
    }
}
