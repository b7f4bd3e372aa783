//! The inside of a kernel that LUO and the handlers work on: memory, KHO, log, files.

use luosim_abi::KResult;
use luosim_abi::profile::Assumption;
use luosim_devices::{DeviceHost, Devices, Parts};
use luosim_files::{FileKind, Files, HasFiles, flags};
use luosim_hardware::Hardware;
use luosim_kho::Kho;
use luosim_kho::log::KernelLog;
use luosim_luo::{Event, FileId, Host, Memory, SessionKey};
use luosim_physmem::Ram;

use crate::faults::Pending;

/// Memory, KHO, log and files of one kernel.
#[derive(Debug)]
pub struct Core {
    pub(crate) ram: Ram,
    pub(crate) kho: Kho,
    pub(crate) log: KernelLog,
    pub(crate) files: Files,
    /// Files released since the last look, in order.
    pub(crate) released: Vec<FileKind>,
    /// Whether somebody looks at the events.
    pub(crate) watched: bool,
    /// Events since the last look, in order.
    pub(crate) events: Vec<Event>,
    /// Device files.
    pub(crate) devices: Devices,
    /// The machine's hardware, while this kernel runs.
    pub(crate) hardware: Option<Box<Hardware>>,
    /// A call that somebody makes while a reboot serialises.
    pub(crate) intrusion: Option<Pending>,
    /// What was relied on since the last look, in order.
    pub(crate) assumed: Vec<Assumption>,
}

impl Core {
    /// Memory and its allocator.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// KHO.
    #[must_use]
    pub fn kho(&self) -> &Kho {
        &self.kho
    }

    /// Notes that something rests on a rule that nobody has published.
    pub fn assume(&mut self, assumption: Assumption) {
        if !self.assumed.contains(&assumption) {
            self.assumed.push(assumption);
        }
    }

    /// Device files.
    #[must_use]
    pub fn device_files(&self) -> &Devices {
        &self.devices
    }

    /// The machine's hardware, if it has any.
    #[must_use]
    pub fn hardware(&self) -> Option<&Hardware> {
        self.hardware.as_deref()
    }

    /// Open files and inodes.
    #[must_use]
    pub fn open_files(&self) -> &Files {
        &self.files
    }
}

impl DeviceHost for Core {
    fn devices(&self) -> &Devices {
        &self.devices
    }

    fn parts(&mut self) -> Parts<'_> {
        Parts {
            devices: &mut self.devices,
            files: &mut self.files,
            memory: Memory { ram: &mut self.ram, kho: &mut self.kho, log: &mut self.log },
            hardware: self.hardware.as_deref_mut(),
        }
    }
}

impl Host for Core {
    fn memory(&mut self) -> Memory<'_> {
        Memory { ram: &mut self.ram, kho: &mut self.kho, log: &mut self.log }
    }

    fn file_get(&mut self, file: FileId) {
        self.files.table.get_ref(file);
    }

    fn file_put(&mut self, file: FileId) {
        self.files.put(&mut self.ram, file, &mut self.released);
    }

    fn open_session(&mut self, key: SessionKey) -> KResult<FileId> {
        self.files.table.open(FileKind::Session(key), flags::RDWR)
    }

    fn emit(&mut self, event: Event) {
        if self.watched {
            self.events.push(event);
        }
    }

    fn intrude(&mut self) {
        if let Some(pending) = self.intrusion.take() {
            pending.make(self);
        }
    }
}

impl HasFiles for Core {
    fn files(&self) -> &Files {
        &self.files
    }

    fn files_and_memory(&mut self) -> (&mut Files, Memory<'_>) {
        (&mut self.files, Memory { ram: &mut self.ram, kho: &mut self.kho, log: &mut self.log })
    }
}
