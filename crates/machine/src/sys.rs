//! System calls of model processes, grouped as the manual pages are.
//!
//! After each call everything that was released at a last close is dealt with, in order, before the next
//! call of anyone: sessions end, the device becomes free.

mod device;
mod fds;
mod luo;
mod memory;
mod open;
mod posted;
mod process;
mod rw;

pub use device::GuestRam;
pub use memory::MapId;
pub use rw::Stat;

use std::rc::Rc;

use luosim_abi::{Errno, KResult};
use luosim_files::{DriverFile, FileKind};
use luosim_luo::FileId;

use crate::core::Core;
use crate::module::Driver;
use crate::process::{Descriptor, Pid, Process};
use crate::{Kernel, Machine};

impl Kernel {
    /// The process and the kernel's insides, borrowed apart.
    fn parts(&mut self, pid: Pid) -> KResult<(&mut Process, &mut Core)> {
        let process = self.processes.get_mut(&pid);
        let process = process.ok_or_else(|| Errno::ESRCH.because(format!("there is no process {pid}")))?;
        Ok((process, &mut self.core))
    }

    /// The open file behind a descriptor.
    pub(crate) fn file(&self, pid: Pid, fd: i32) -> KResult<FileId> {
        let process = self.processes.get(&pid);
        let process = process.ok_or_else(|| Errno::ESRCH.because(format!("there is no process {pid}")))?;
        let descriptor = process.fds.get(fd)?;
        if descriptor.path {
            return Err(Errno::EBADF.because(format!("descriptor {fd} was opened with O_PATH")));
        }
        Ok(descriptor.file)
    }

    /// The session behind a descriptor that is the only one.
    pub(crate) fn last_of_session(&self, pid: Pid, fd: i32) -> Option<luosim_luo::SessionKey> {
        let open = self.core.files.table.get(self.file(pid, fd).ok()?);
        match open.kind {
            FileKind::Session(key) if open.references() == 1 => Some(key),
            _ => None,
        }
    }

    pub(crate) fn kind(&self, file: FileId) -> FileKind {
        self.core.files.table.get(file).kind
    }

    /// The driver of a file.
    fn driver(&self, file: DriverFile) -> Rc<dyn Driver> {
        self.drivers.get(file.driver).expect("files are made by drivers that exist").clone()
    }

    fn release_driver(&mut self, file: DriverFile) {
        if file.driver.0 < luosim_devices::driver::END {
            luosim_devices::release(&mut self.core, file);
        } else {
            self.driver(file).release(&mut self.core, file.object);
        }
    }

    fn end(&mut self, kind: FileKind) {
        let core = &mut self.core;
        match (kind, &mut self.control) {
            (FileKind::Session(key), None) => self.luo.release_session(core, key),
            (FileKind::Session(key), Some(control)) => control.luo.release_session(core, key),
            (FileKind::Control(open), Some(control)) => control.luo.release_device(core, open),
            _ => {}
        }
    }

    /// Deals with what was released since the last call.
    fn settle(&mut self) {
        while !self.core.released.is_empty() {
            for kind in std::mem::take(&mut self.core.released) {
                match kind {
                    FileKind::Device => self.luo.release_device(),
                    FileKind::Driver(file) => self.release_driver(file),
                    FileKind::Session(_) | FileKind::Control(_) => self.end(kind),
                    _ => {}
                }
            }
        }
    }
}

impl Machine {
    /// Runs a system call and what follows from it.
    pub(crate) fn call<T>(&mut self, pid: Pid, body: impl FnOnce(&mut Kernel) -> KResult<T>) -> KResult<T> {
        let result = body(self.running()?);
        self.settle(pid);
        self.look_after();
        if self.faults.alloc {
            self.alloc_again();
        }
        self.check_panic(result)
    }

    /// Ends what was released and tells the ledger what happened.
    pub(crate) fn settle(&mut self, pid: Pid) {
        let generation = self.generation;
        let Ok(kernel) = self.running() else { return };
        kernel.settle();
        let events = std::mem::take(&mut kernel.core.events);
        if events.is_empty() {
            return;
        }
        let name = kernel.processes.get(&pid).map_or("?", |process| process.name.as_str());
        let actor = format!("pid {pid} ({name})");
        if let Some(ledger) = &mut self.ledger {
            for event in &events {
                ledger.observe(generation, &actor, event);
            }
        }
    }

    /// Installs a new description at the lowest free number.
    fn install(kernel: &mut Kernel, pid: Pid, file: FileId, cloexec: bool, path: bool) -> KResult<i32> {
        let (process, core) = kernel.parts(pid)?;
        match process.fds.reserve() {
            Ok(fd) => {
                process.fds.install(fd, Descriptor { file, cloexec, path });
                Ok(fd)
            }
            Err(refusal) => {
                core.files.put(&mut core.ram, file, &mut core.released);
                Err(refusal)
            }
        }
    }
}
