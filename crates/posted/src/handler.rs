//! What a file type and a subsystem give the orchestrator to call.

use luosim_abi::KResult;
use luosim_luo::{FileId, Host};

/// What makes one type of file survive a kexec in the posted designs (`struct liveupdate_file_ops`).
///
/// `data` is the handler's 64-bit value, carried to the next kernel. The merged interface has other callbacks
/// ([`luosim_luo::FileHandler`]): there a file is made to survive when it is registered, here when all is prepared.
pub trait Handler<H: Host> {
    /// The string that the next kernel finds the handler by, at most 47 bytes.
    fn compatible(&self) -> &'static str;
    /// Whether this handler takes the file; the first that does, in order of registration, gets it.
    fn can_preserve(&self, host: &H, file: FileId) -> bool;
    /// The file in words, for reasons.
    fn describe(&self, host: &H, file: FileId) -> String;
    /// Makes the file's state survive; it may still be used. Returns `data`.
    ///
    /// # Errors
    /// The handler's errno; nothing is left preserved.
    fn prepare(&self, host: &mut H, file: FileId) -> KResult<u64>;
    /// Last call before the jump; may replace `data`.
    ///
    /// # Errors
    /// The handler's errno; the file stays prepared.
    fn freeze(&self, host: &mut H, file: FileId, data: u64) -> KResult<u64>;
    /// Undoes [`Self::prepare`] and [`Self::freeze`].
    fn cancel(&self, host: &mut H, file: FileId, data: u64);
    /// The new kernel is done with the handover of this file. `file` is there if a program got it; what was not `reclaimed`
    /// is discarded. With quirk `restore-once` a failed restore counts as reclaimed, without a file.
    fn finish(&self, host: &mut H, file: Option<FileId>, data: u64, reclaimed: bool);
    /// Rebuilds the file in the new kernel: an open file description with one reference, which is the orchestrator's.
    ///
    /// # Errors
    /// The handler's errno, after it has cleaned up.
    fn retrieve(&self, host: &mut H, data: u64) -> KResult<FileId>;
}

/// A part of the kernel that takes part in an update without files (`struct liveupdate_subsystem`).
pub trait Subsystem<H: Host> {
    /// Its name: the property that carries its value.
    fn name(&self) -> &'static str;
    /// Gets ready; returns the value that is carried.
    ///
    /// # Errors
    /// The subsystem's errno.
    fn prepare(&self, host: &mut H) -> KResult<u64>;
    /// Last call before the jump; may replace the value.
    ///
    /// # Errors
    /// The subsystem's errno.
    fn freeze(&self, host: &mut H, data: u64) -> KResult<u64>;
    /// No jump after all.
    fn cancel(&self, host: &mut H, data: u64);
    /// After the jump, when all is well.
    fn finish(&self, host: &mut H, data: u64);
    /// Right after the jump, when it registers. Not called by the second design.
    fn boot(&self, host: &mut H, data: u64);
}
