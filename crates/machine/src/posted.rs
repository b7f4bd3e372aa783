//! A kernel whose orchestrator is one of the posted designs (crate `luosim-posted`), and the machine around it.
//!
//! Such a kernel can stop inside a system call: what its predecessor left of files is read when it is first needed, and
//! whatever is wrong with it panics. A crash kernel boots then, if one is loaded.

use std::rc::Rc;

use luosim_abi::posted::{Design, STATE_PATH};
use luosim_abi::quirk::Quirks;
use luosim_abi::{Errno, KResult};
use luosim_files::FileKind;
use luosim_files::posted::PostedMemfd;
use luosim_files::test_file::TestHandler;
use luosim_luo::{Caller, Luo, SessionName};
use luosim_posted::subsystem::{Fault, TestSubsystem};
use luosim_posted::{Posted, PostedConfig};

use crate::cmdline::Parameters;
use crate::core::Core;
use crate::{BootReport, Kernel, Machine};

/// Names of the two test subsystems, and the numbers that they carry: the first is registered before the files, the second
/// after them.
const SUBSYSTEMS: [(&str, u64); 2] = [("luosim-first", 0xf1), ("luosim-last", 0x1a)];

/// The orchestrator, and the test subsystems of luosim's own.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) luo: Posted<Core>,
    subsystems: Vec<Rc<TestSubsystem>>,
}

impl Control {
    /// Boots the orchestrator; with `luosim_test=on` test files and two test subsystems are registered too.
    ///
    /// # Errors
    /// Why the kernel panics.
    pub(crate) fn boot(
        core: &mut Core,
        design: Design,
        quirks: Quirks,
        parameters: &Parameters,
    ) -> Result<Self, String> {
        let config = PostedConfig { design, quirks, requested: parameters.liveupdate };
        let luo = Posted::boot(&mut luosim_luo::Host::memory(core), config)?;
        let mut control = Self { luo, subsystems: Vec::new() };
        if !control.luo.enabled() {
            return Ok(control);
        }
        control.register_handlers(parameters.test_files);
        let tests = if parameters.test_files { &SUBSYSTEMS[..] } else { &[] };
        let mut tests = tests.iter().map(|(name, data)| Rc::new(TestSubsystem::new(name, *data)));
        control.register_test(core, tests.next());
        control.luo.register_files(core)?;
        control.register_test(core, tests.next());
        Ok(control)
    }

    fn register_handlers(&mut self, test_files: bool) {
        let memfd = self.luo.register_handler(Rc::new(PostedMemfd));
        memfd.expect("nothing is under way in a kernel that boots");
        if test_files {
            self.luo.register_handler(Rc::new(TestHandler)).expect("it has a name of its own");
        }
    }

    fn register_test(&mut self, core: &mut Core, test: Option<Rc<TestSubsystem>>) {
        if let Some(test) = test {
            let registered = self.luo.register_subsystem(core, test.clone());
            registered.expect("it has a name of its own, and nothing is under way in a kernel that boots");
            self.subsystems.push(test);
        }
    }
}

impl Kernel {
    /// The orchestrator, if it is a posted design.
    #[must_use]
    pub fn posted(&self) -> Option<&Posted<Core>> {
        self.control.as_ref().map(|control| &control.luo)
    }

    /// Whether `/dev/liveupdate` exists.
    #[must_use]
    pub fn has_device(&self) -> bool {
        self.posted().map_or_else(|| self.luo.enabled(), Posted::enabled)
    }

    /// The name of the session that a description is of.
    #[must_use]
    pub fn session_name(&self, file: luosim_luo::FileId) -> Option<SessionName> {
        let Some(FileKind::Session(key)) = self.description(file) else { return None };
        self.posted().map_or_else(|| self.luo.session_name(key), |luo| luo.session_name(key))
    }

    /// What `/sys/kernel/liveupdate/state` reads as, where there is such a file.
    #[must_use]
    pub fn sysfs_state(&self) -> Option<String> {
        self.is_state_file(STATE_PATH).then(|| self.state_text())
    }

    /// The sessions that the orchestrator has, of either kind: whether the previous kernel left it, its name, its tokens. In a
    /// design without sessions each table of files is one.
    #[must_use]
    pub fn sessions(&self) -> Vec<(bool, SessionName, Vec<u64>)> {
        let Some(posted) = self.posted() else {
            let outgoing = self.luo.outgoing().map(|(name, tokens)| (false, name, tokens));
            return outgoing.chain(self.luo.incoming().map(|(name, tokens)| (true, name, tokens))).collect();
        };
        posted.listed()
    }

    /// The text of `/sys/kernel/liveupdate/state`.
    pub(crate) fn state_text(&self) -> String {
        self.posted().map_or_else(String::new, |luo| format!("{}\n", luo.state().name()))
    }

    pub(crate) fn is_state_file(&self, path: &str) -> bool {
        path == STATE_PATH && self.posted().is_some_and(|luo| luo.design().has_sysfs())
    }

    /// Opens the device: the file that stands for it.
    ///
    /// # Errors
    /// As the orchestrator says.
    pub(crate) fn open_device(&mut self, root: bool, exclusive: bool) -> KResult<FileKind> {
        match &mut self.control {
            Some(control) => control.luo.open_device(root, exclusive).map(FileKind::Control),
            None if !root => Err(Errno::EACCES.because("the device is for root alone")),
            None => self.luo.open_device(&mut self.core).map(|()| FileKind::Device),
        }
    }
}

/// An ioctl on a file, by whoever calls.
///
/// # Errors
/// ENOTTY: no such file has commands; what the orchestrator's dispatch says.
pub(crate) fn dispatch(
    (luo, control): (&mut Luo<Core>, &mut Option<Control>),
    core: &mut Core,
    kind: FileKind,
    caller: &mut impl Caller,
    code: u32,
    arg: u64,
) -> KResult<()> {
    match (kind, control) {
        (FileKind::Device, _) => luo.device_ioctl(core, caller, code, arg),
        (FileKind::Session(key), None) => luo.session_ioctl(core, caller, key, code, arg),
        (FileKind::Control(open), Some(control)) => control.luo.device_ioctl(core, caller, open, code, arg),
        (FileKind::Session(key), Some(control)) => control.luo.session_ioctl(core, caller, key, code, arg),
        (kind, _) => Err(Errno::ENOTTY.because(format!("{} has no command {code:#x}", kind.text()))),
    }
}

impl Machine {
    /// Makes a test subsystem of a posted design fail.
    ///
    /// # Errors
    /// ESRCH if the machine is down; ENOENT: no such subsystem.
    pub fn fail_subsystem(&mut self, name: &str, fault: Fault) -> KResult<()> {
        let kernel = self.running()?;
        let mut all = kernel.control.iter().flat_map(|control| &control.subsystems);
        let found = all.find(|test| luosim_posted::Subsystem::<Core>::name(&***test) == name);
        let none = || {
            let names = SUBSYSTEMS.map(|(name, _)| name).join(" and ");
            Errno::ENOENT
                .because(format!("no subsystem {name}: posted designs with luosim_test=on have {names}"))
        };
        found.ok_or_else(none)?.set_fault(fault);
        Ok(())
    }

    /// Looks at what a posted design did in the call that just ended: it may have read what came, or stopped the kernel.
    pub(crate) fn look_after(&mut self) {
        let Ok(kernel) = self.running() else { return };
        let Some(control) = &mut kernel.control else { return };
        let (read, panic) = (control.luo.newly_read(), control.luo.take_panic());
        if let Some(ledger) = self.ledger.as_mut().filter(|_| read) {
            ledger.listed("not found among what the previous kernel left");
        }
        if panic.is_some() {
            self.crashed = self.crash();
        }
    }

    /// The crash kernel that booted because the last call stopped its kernel.
    pub fn take_crashed(&mut self) -> Option<BootReport> {
        self.crashed.take()
    }
}
