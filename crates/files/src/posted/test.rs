//! The test file's handler for the posted designs: it logs every callback and fails when the file is told to.

use luosim_abi::KResult;
use luosim_luo::{FileId, Host};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr};
use luosim_posted::Handler;

use crate::HasFiles;
use crate::test_file::{Callback, TestHandler, id_of, owned};

impl<H: Host + HasFiles> Handler<H> for TestHandler {
    fn compatible(&self) -> &'static str {
        "luosim-test-v1"
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        id_of(host.files(), file).is_some_and(|id| !host.files().tests.get(id).fails(Callback::CanPreserve))
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        format!("test file {}", owned(host.files(), file).0)
    }

    fn prepare(&self, host: &mut H, file: FileId) -> KResult<u64> {
        Self::called(host, owned(host.files(), file), Callback::Prepare)?;
        let (_, memory) = host.files_and_memory();
        let page = memory.kho.alloc_preserve(memory.ram, PAGE_SIZE, FrameUse::HandlerData)?;
        Self::write(host, file, page.raw());
        Ok(page.raw())
    }

    fn freeze(&self, host: &mut H, file: FileId, data: u64) -> KResult<u64> {
        Self::called(host, owned(host.files(), file), Callback::Freeze)?;
        Self::write(host, file, data);
        Ok(data)
    }

    fn cancel(&self, host: &mut H, file: FileId, data: u64) {
        Self::say(host, owned(host.files(), file), "cancel");
        let (_, memory) = host.files_and_memory();
        memory.kho.unpreserve_free(memory.ram, PhysAddr::new(data));
    }

    fn finish(&self, host: &mut H, file: Option<FileId>, data: u64, reclaimed: bool) {
        match file.map(|file| owned(host.files(), file)) {
            Some(id) => Self::say(host, id, "finish"),
            None => host.files_and_memory().1.log.info(format!(
                "luosim_test: finish without a file, {}",
                if reclaimed { "reclaimed" } else { "discarded" }
            )),
        }
        let (_, memory) = host.files_and_memory();
        if !memory.kho.restore_free(memory.ram, PhysAddr::new(data)) {
            memory.log.warn(format!("luosim_test: the structure at {data:#x} is not preserved"));
        }
    }

    fn retrieve(&self, host: &mut H, data: u64) -> KResult<FileId> {
        Self::rebuild(host, data)
    }
}
