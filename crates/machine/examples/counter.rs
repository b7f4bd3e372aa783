//! A file type of one's own over a kexec: `/dev/counter`, whose files count, and an object that counts for all of them.
//! `cargo run -p luosim-machine --example counter`

use luosim_abi::{KResult, release::ReleaseId};
use luosim_files::DriverId;
use luosim_luo::{Context, FileHandler, FileId, Host, RetrieveStatus, flb::FlbOps};
use luosim_machine::module::{Driver, Registration};
use luosim_machine::{BootOptions, Core, ImageKind, Machine};
use luosim_physmem::PhysMem;
use std::{cell::RefCell, rc::Rc};
// ANCHOR: driver
/// The counters of one kernel. They die with it.
struct Counter {
    id: DriverId,
    files: RefCell<Vec<u64>>,
    total: RefCell<u64>,
}

impl Driver for Counter {
    fn path(&self) -> &str {
        "/dev/counter"
    }

    fn open(&self, _: &mut Core) -> KResult<u32> {
        self.files.borrow_mut().push(0);
        Ok(u32::try_from(self.files.borrow().len() - 1).expect("few files"))
    }

    /// Every read counts one up; it gives the count of the file and the count of all files.
    fn read(&self, _: &mut Core, file: u32, _: u64, buf: &mut [u8]) -> KResult<usize> {
        let (count, total) = (&mut self.files.borrow_mut()[file as usize], &mut *self.total.borrow_mut());
        (*count, *total) = (*count + 1, *total + 1);
        let text = format!("{count} of {total}");
        let len = text.len().min(buf.len());
        buf[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}
// ANCHOR_END: driver
// ANCHOR: handler
impl FileHandler<Core> for Counter {
    fn compatible(&self) -> &'static str {
        "counter-v1"
    }

    fn can_preserve(&self, host: &Core, file: FileId) -> bool {
        host.driver_object(self.id, file).is_some()
    }

    fn preserve(&self, cx: &mut Context<'_, Core>, _: FileId) -> KResult<u64> {
        cx.memory().preserve_obj(&0_u64)
    }

    fn unpreserve(&self, cx: &mut Context<'_, Core>, _: FileId, page: u64) {
        cx.memory().unpreserve_obj(page);
    }

    fn freeze(&self, cx: &mut Context<'_, Core>, file: FileId, page: u64) -> KResult<u64> {
        let object = cx.host.driver_object(self.id, file).expect("it was asked before");
        cx.memory().update_obj(page, &self.files.borrow()[object as usize]);
        let all = cx.get_outgoing_flb("counter-total-v1")?;
        cx.memory().update_obj(all, &*self.total.borrow());
        cx.put_outgoing_flb("counter-total-v1");
        Ok(page)
    }

    fn retrieve(&self, cx: &mut Context<'_, Core>, page: u64) -> KResult<FileId> {
        let count = cx.memory().read_obj(page)?;
        let object = self.open(cx.host)?;
        self.files.borrow_mut()[object as usize] = count;
        cx.host.open_driver_file(self.id, object)
    }

    fn finish(&self, cx: &mut Context<'_, Core>, _: RetrieveStatus, page: u64) {
        cx.memory().discard_obj(page);
    }
}

/// The count of all files: made with the first file that is preserved, gone with the last.
impl FlbOps<Core> for Counter {
    fn compatible(&self) -> &'static str {
        "counter-total-v1"
    }

    fn preserve(&self, host: &mut Core) -> KResult<u64> {
        host.memory().preserve_obj(&0_u64)
    }

    fn unpreserve(&self, host: &mut Core, page: u64) {
        host.memory().unpreserve_obj(page);
    }

    fn retrieve(&self, host: &mut Core, page: u64) -> KResult<()> {
        *self.total.borrow_mut() = host.memory().read_obj(page)?;
        Ok(())
    }

    fn finish(&self, host: &mut Core, page: u64) {
        host.memory().discard_obj(page);
    }
}
// ANCHOR_END: handler
// ANCHOR: run
fn init(kernel: &mut Registration<'_>) -> KResult<()> {
    let (files, total) = (RefCell::default(), RefCell::default());
    let counter = Rc::new(Counter { id: kernel.next_driver(), files, total });
    kernel.driver(counter.clone())?;
    kernel.handler(counter.clone())?;
    kernel.flb("counter-v1", counter)?;
    kernel
        .get_incoming_flb("counter-total-v1")
        .map_or(Ok(()), |_| kernel.put_incoming_flb("counter-total-v1"))
}

/// Counts in one kernel, jumps, and counts on in the next; gives what was read.
pub(crate) fn run() -> KResult<Vec<String>> {
    let mut machine = Machine::new(PhysMem::anonymous(64 << 20).expect("the host has room"));
    machine.add_module("counter", init);
    machine.cold_reset(ReleaseId::V7_3, &BootOptions::default());
    let mut said = Vec::new();
    let mut count = |machine: &mut Machine, pid, fd| -> KResult<()> {
        let mut text = [0; 32];
        let len = machine.read(pid, fd, &mut text)?;
        said.push(String::from_utf8_lossy(&text[..len]).into_owned());
        Ok(())
    };
    let agent = machine.spawn("agent")?;
    let (one, two) = (machine.open(agent, "/dev/counter", 2, 0)?, machine.open(agent, "/dev/counter", 2, 0)?);
    count(&mut machine, agent, two)?;
    let device = machine.open(agent, "/dev/liveupdate", 2, 0)?;
    let session = machine.create_session(agent, device, b"counters")?;
    machine.preserve_fd(agent, session, one, 1)?;
    count(&mut machine, agent, one)?;
    machine.load_image(agent, ReleaseId::V7_3, BootOptions::default(), ImageKind::File)?;
    machine.reboot_kexec(agent)?;
    let agent = machine.spawn("agent")?;
    let device = machine.open(agent, "/dev/liveupdate", 2, 0)?;
    let session = machine.retrieve_session(agent, device, b"counters")?;
    let one = machine.retrieve_fd(agent, session, 1)?;
    machine.finish(agent, session, 0)?;
    count(&mut machine, agent, one)?;
    Ok(said)
}
// ANCHOR_END: run
#[expect(clippy::print_stdout, reason = "it is a program")]
pub(crate) fn main() -> KResult<()> {
    println!("{}", run()?.join("\n"));
    Ok(())
}
