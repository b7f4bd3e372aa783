//! A handler that writes down its calls and refuses to freeze one file.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use luosim_abi::{Errno, KResult};
use luosim_luo::{Context, FileHandler, FileId, Identity, RetrieveStatus};

use crate::world::World;

/// A handler that writes down its calls and refuses to freeze one file.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Rc<RefCell<Vec<String>>>,
    /// File whose freeze is refused; 0: none.
    pub(crate) refuse: Rc<Cell<u32>>,
}

impl FileHandler<World> for Recorder {
    fn compatible(&self) -> &'static str {
        "test-v1"
    }

    fn can_preserve(&self, _: &World, _: FileId) -> bool {
        true
    }

    fn identity(&self, _: &World, file: FileId) -> Identity {
        Identity(u64::from(file.0))
    }

    fn describe(&self, _: &World, file: FileId) -> String {
        format!("file {}", file.0)
    }

    fn preserve(&self, _: &mut Context<'_, World>, file: FileId) -> KResult<u64> {
        Ok(u64::from(file.0))
    }

    fn unpreserve(&self, _: &mut Context<'_, World>, file: FileId, _: u64) {
        self.calls.borrow_mut().push(format!("unpreserve {}", file.0));
    }

    fn freeze(&self, _: &mut Context<'_, World>, file: FileId, data: u64) -> KResult<u64> {
        if self.refuse.get() == file.0 {
            return Err(Errno::EAGAIN.because("the test refuses"));
        }
        self.calls.borrow_mut().push(format!("freeze {}", file.0));
        Ok(data)
    }

    fn unfreeze(&self, _: &mut Context<'_, World>, file: FileId, _: u64) {
        self.calls.borrow_mut().push(format!("unfreeze {}", file.0));
    }

    fn retrieve(&self, _: &mut Context<'_, World>, _: u64) -> KResult<FileId> {
        Err(Errno::EIO.because("not in this test"))
    }

    fn finish(&self, _: &mut Context<'_, World>, _: RetrieveStatus, _: u64) {}
}
