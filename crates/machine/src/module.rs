//! Modules: file types that a kernel gets from outside this crate.
//!
//! A module is a function that runs in the boot of each kernel of the machine ([`crate::Machine::add_module`]). It registers device nodes ([`Driver`]), handlers of their files ([`luosim_luo::FileHandler`]) and objects bound to them
//! ([`luosim_luo::flb::FlbOps`]). Everything it makes there belongs to that kernel and goes with it: a module that kept state of
//! its own across kernels would break the one rule of the model, that only bytes in physical memory cross.
//!
//! Not here: what the files mean, and commands with structures in a process's memory; a driver's commands take and give numbers.

use std::rc::Rc;

use luosim_abi::{Errno, KResult};
use luosim_files::{DriverFile, DriverId, FileKind, flags};
use luosim_luo::flb::FlbOps;
use luosim_luo::{FileHandler, FileId, Luo};

use crate::core::Core;

/// The first number of a module's driver; those below are the kernel's own.
const FIRST: u16 = 256;

/// What a device node does when a program calls it.
pub trait Driver {
    /// The path of its node.
    fn path(&self) -> &str;
    /// A program opens the node: gives an object with one reference, which the description holds.
    ///
    /// # Errors
    /// What `open(2)` answers.
    fn open(&self, core: &mut Core) -> KResult<u32>;
    /// The last descriptor of a description of `object` was closed.
    fn release(&self, _core: &mut Core, _object: u32) {}
    /// `read(2)` at a position; gives how many bytes.
    ///
    /// # Errors
    /// What `read(2)` answers; EINVAL without an idea of its own.
    fn read(&self, _core: &mut Core, _object: u32, _at: u64, _buf: &mut [u8]) -> KResult<usize> {
        Err(Errno::EINVAL.because("the driver has nothing to read"))
    }
    /// `write(2)` at a position; gives how many bytes.
    ///
    /// # Errors
    /// What `write(2)` answers; EINVAL without an idea of its own.
    fn write(&self, _core: &mut Core, _object: u32, _at: u64, _bytes: &[u8]) -> KResult<usize> {
        Err(Errno::EINVAL.because("the driver takes nothing"))
    }
    /// `ioctl(2)` with a number as argument.
    ///
    /// # Errors
    /// What `ioctl(2)` answers; ENOTTY without an idea of its own.
    fn ioctl(&self, _core: &mut Core, _object: u32, code: u32, _arg: u64) -> KResult<()> {
        Err(Errno::ENOTTY.because(format!("the driver has no command {code:#x}")))
    }
}

/// What a module does in a kernel that boots.
type Init = dyn Fn(&mut Registration<'_>) -> KResult<()>;

/// The drivers of one kernel that came from modules.
#[derive(Default)]
pub(crate) struct Drivers(Vec<Rc<dyn Driver>>);

impl std::fmt::Debug for Drivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|driver| driver.path())).finish()
    }
}

impl Drivers {
    /// The driver with this number.
    pub(crate) fn get(&self, id: DriverId) -> Option<&Rc<dyn Driver>> {
        self.0.get(usize::from(id.0.checked_sub(FIRST)?))
    }

    /// The driver whose node has this path.
    pub(crate) fn by_path(&self, path: &str) -> Option<(DriverId, Rc<dyn Driver>)> {
        let index = self.0.iter().position(|driver| driver.path() == path)?;
        Some((number(index), self.0[index].clone()))
    }
}

fn number(index: usize) -> DriverId {
    DriverId(FIRST + u16::try_from(index).expect("fewer than 65 000 drivers"))
}

/// The modules of a machine, by name.
#[derive(Clone, Default)]
pub(crate) struct Modules(Vec<(String, Rc<Init>)>);

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Modules {
    pub(crate) fn add(&mut self, name: &str, init: Rc<Init>) {
        self.0.push((name.to_owned(), init));
    }

    /// Brings every module up in a kernel that boots. One that fails says so in the log, and the kernel does without.
    pub(crate) fn init(&self, luo: &mut Luo<Core>, core: &mut Core) -> Drivers {
        let mut drivers = Drivers::default();
        for (name, init) in &self.0 {
            let mut kernel = Registration { luo: &mut *luo, core: &mut *core, drivers: &mut drivers };
            if let Err(refusal) = init(&mut kernel) {
                core.log.err(format!("{name}: {refusal}"));
            }
        }
        drivers
    }
}

/// A kernel that is booting, as a module sees it.
#[derive(Debug)]
pub struct Registration<'a> {
    luo: &'a mut Luo<Core>,
    /// The kernel's memory, log and files.
    pub core: &'a mut Core,
    drivers: &'a mut Drivers,
}

impl Registration<'_> {
    /// The number that the next driver will have.
    #[must_use]
    pub fn next_driver(&self) -> DriverId {
        number(self.drivers.0.len())
    }

    /// Makes a device node.
    ///
    /// # Errors
    /// EEXIST: another driver of a module has the path.
    pub fn driver(&mut self, driver: Rc<dyn Driver>) -> KResult<DriverId> {
        let path = driver.path();
        if self.drivers.by_path(path).is_some() {
            return Err(Errno::EEXIST.because(format!("{path} exists")));
        }
        let id = self.next_driver();
        self.drivers.0.push(driver);
        Ok(id)
    }

    /// Registers the handler of a file type.
    ///
    /// # Errors
    /// As [`Luo::register_handler`].
    pub fn handler(&mut self, handler: Rc<dyn FileHandler<Core>>) -> KResult<()> {
        self.luo.register_handler(handler)
    }

    /// Binds an object to a handler.
    ///
    /// # Errors
    /// As [`Luo::register_flb`].
    pub fn flb(&mut self, handler: &str, ops: Rc<dyn FlbOps<Core>>) -> KResult<()> {
        self.luo.register_flb(handler, ops)
    }

    /// An object that the previous kernel left, with one more count on it; most drivers ask while they are brought up.
    ///
    /// # Errors
    /// As [`Luo::get_incoming_flb`].
    pub fn get_incoming_flb(&mut self, name: &str) -> KResult<u64> {
        self.luo.get_incoming_flb(self.core, name)
    }

    /// Gives back the count of [`Self::get_incoming_flb`].
    ///
    /// # Errors
    /// EINVAL: not registered.
    pub fn put_incoming_flb(&mut self, name: &str) -> KResult<()> {
        self.luo.put_incoming_flb(self.core, name)
    }
}

impl Core {
    /// Makes an open file description of a driver's object, open for reading and writing, with one reference.
    ///
    /// # Errors
    /// ENFILE.
    pub fn open_driver_file(&mut self, driver: DriverId, object: u32) -> KResult<FileId> {
        self.files.table.open(FileKind::Driver(DriverFile { driver, object }), flags::RDWR)
    }

    /// The object behind a description, if it is a file of this driver.
    #[must_use]
    pub fn driver_object(&self, driver: DriverId, file: FileId) -> Option<u32> {
        match self.files.table.find(file)?.kind {
            FileKind::Driver(found) if found.driver == driver => Some(found.object),
            _ => None,
        }
    }
}
