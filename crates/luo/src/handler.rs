//! What a type of file does to survive a kexec: the trait that a new one implements, and what its callbacks may ask.
//!
//! [`FileHandler`] mirrors `struct liveupdate_file_ops`, [`Context`] its arguments. A callback is given the kernel and the
//! session it works for; through the context it finds *other* files of that session and file-lifecycle-bound objects, which
//! is how a file that needs another one (a device its IOMMU context, a guest's memory its VM) says so. The session of the
//! arguments and the two look-ups are those of the maintainers' next tree (`liveupdate_get_token_outgoing`,
//! `liveupdate_get_file_incoming`); released kernels up to 7.3 have neither, and no handler that would use them.
//!
//! Not here: which order files must come in. A handler that depends on another checks it and answers the errno.

use luosim_abi::KResult;

use crate::Luo;
use crate::host::{FileId, Host, Identity, Memory, RetrieveStatus, SessionKey};

/// The kernel that a callback works in, and for which session.
///
/// Everything here is of this kernel and this call: a handler keeps nothing of it.
#[derive(Debug)]
pub struct Context<'a, H: Host> {
    /// The kernel around the orchestrator.
    pub host: &'a mut H,
    luo: &'a mut Luo<H>,
    session: SessionKey,
}

impl<'a, H: Host> Context<'a, H> {
    pub(crate) fn new(luo: &'a mut Luo<H>, host: &'a mut H, session: SessionKey) -> Self {
        Self { host, luo, session }
    }

    /// Memory, KHO and log of the kernel.
    pub fn memory(&mut self) -> Memory<'_> {
        self.host.memory()
    }

    /// The session whose file this is.
    #[must_use]
    pub fn session(&self) -> SessionKey {
        self.session
    }

    /// The token under which this session preserves `file`. Other sessions are not looked at, and a file is not yet in its
    /// session while its own `preserve` runs.
    ///
    /// # Errors
    /// ENOENT: this session does not preserve it.
    pub fn token_outgoing(&mut self, file: FileId) -> KResult<u64> {
        self.luo.token_outgoing(self.session, file)
    }

    /// The file that came in this session under `token`, retrieved now if nobody did before. It has one more reference,
    /// which the caller gives back with [`Host::file_put`].
    ///
    /// # Errors
    /// ENOENT: no such token in this session; what its handler says, which stays so; EDEADLK: that file is being retrieved
    /// already and waits for this one. A real kernel would not answer in that case: the task waits for itself for ever.
    pub fn file_incoming(&mut self, token: u64) -> KResult<FileId> {
        self.luo.retrieve_fd(self.host, self.session, token)
    }

    /// The handle of an object that files of this kernel preserve, with one more count on it.
    ///
    /// # Errors
    /// As [`Luo::get_outgoing_flb`].
    pub fn get_outgoing_flb(&mut self, name: &str) -> KResult<u64> {
        self.luo.get_outgoing_flb(name)
    }

    /// Gives back the count of [`Self::get_outgoing_flb`].
    pub fn put_outgoing_flb(&mut self, name: &str) {
        self.luo.put_outgoing_flb(self.host, name);
    }

    /// The handle of an object of the previous kernel, with one more count on it.
    ///
    /// # Errors
    /// As [`Luo::get_incoming_flb`].
    pub fn get_incoming_flb(&mut self, name: &str) -> KResult<u64> {
        self.luo.get_incoming_flb(self.host, name)
    }

    /// Gives back the count of [`Self::get_incoming_flb`].
    ///
    /// # Errors
    /// EINVAL: not registered.
    pub fn put_incoming_flb(&mut self, name: &str) -> KResult<()> {
        self.luo.put_incoming_flb(self.host, name)
    }
}

/// What makes one type of file survive a kexec (`struct liveupdate_file_ops`).
///
/// `data` is the handler's 64-bit handle, carried to the next kernel: for a memfd the physical address of its structure.
/// Callbacks get the whole kernel; what they want the next one to know they write into memory that they have KHO preserve.
/// An object of this trait lives as long as its kernel: nothing in it crosses.
///
/// The order of the calls for one file: `can_preserve`, `identity`, the `preserve` of the handler's objects
/// ([`crate::flb::FlbOps`]), `preserve`; then either `unpreserve` (the session was closed) or `freeze`. In the next kernel
/// `retrieve`, at most once; then `can_finish` of all files of the session, and `finish` of all of them, last first.
pub trait FileHandler<H: Host> {
    /// The string in the file record, at most 47 bytes.
    fn compatible(&self) -> &'static str;
    /// Whether this handler takes the file; the first handler that does, in order of registration, gets it.
    fn can_preserve(&self, host: &H, file: FileId) -> bool;
    /// What makes a second descriptor the same file. Without an idea of its own a handler gives the description itself.
    fn identity(&self, _host: &H, file: FileId) -> Identity {
        Identity(u64::from(file.0))
    }
    /// The file in words, for reasons: `memfd "guest-ram" (inode 7)`.
    fn describe(&self, _host: &H, file: FileId) -> String {
        format!("open file {} of type {}", file.0, self.compatible())
    }
    /// Makes the file's state survive from now on; returns `data`.
    ///
    /// # Errors
    /// The handler's errno; nothing is left preserved.
    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64>;
    /// Undoes [`Self::preserve`].
    fn unpreserve(&self, cx: &mut Context<'_, H>, file: FileId, data: u64);
    /// Last call before the jump; may replace `data`.
    ///
    /// # Errors
    /// The handler's errno; it becomes the errno of `reboot`.
    fn freeze(&self, _cx: &mut Context<'_, H>, _file: FileId, data: u64) -> KResult<u64> {
        Ok(data)
    }
    /// Undoes [`Self::freeze`] when the reboot fails.
    fn unfreeze(&self, _cx: &mut Context<'_, H>, _file: FileId, _data: u64) {}
    /// Rebuilds the file in the new kernel: an open file description with one reference, which is LUO's.
    ///
    /// # Errors
    /// The handler's errno, after it has cleaned up.
    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId>;
    /// Whether the file may be finished now.
    ///
    /// # Errors
    /// Why not, in words. FINISH answers EBUSY and changes nothing.
    fn can_finish(
        &self,
        _cx: &mut Context<'_, H>,
        _status: RetrieveStatus,
        _data: u64,
    ) -> Result<(), String> {
        Ok(())
    }
    /// The new kernel is done with the handover of this file; discards it if it was never retrieved.
    fn finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, data: u64);
}
