//! Device workloads that no test author wrote: a seed is a scenario.
//!
//! One or two VMMs with guest memory, an iommufd and a device each, whose DMA runs all the time; one to three kexecs in a row. On the way
//! the seed puts what goes wrong in real life: a device before its iommufd, memory in another session, mappings after they are fixed, a
//! reboot that a device refuses or that is told to stop, a FINISH that comes too early, a stranger's device on the bus. What each call must
//! answer follows from the few things the generator knows; what DMA must be like is checked by the machine ([`luosim_machine::Machine::take_violations`]).
//!
//! Not here: shrinking. A seed's scenario is short, and is written as it was drawn.

use luosim_abi::Errno;
use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_scenario::{Call, Op, Scenario, Step, Value};

use super::finding::Finding;
use super::invariant::Invariant;
use super::rng::Rng;
use crate::transcript::Record;
use crate::{Options, run as run_scenario};

/// Where guest memory lies for devices.
const IOVA: i128 = 0x1_0000_0000;
/// Bytes of guest memory.
const RAM: i128 = 256 << 10;
/// Functions that can be preserved.
const FUNCTIONS: [&str; 3] = ["01:00.0", "01:01.0", "00:02.0"];

/// A seed whose scenario does not go as it must.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The first thing that was wrong.
    pub message: String,
    /// What was drawn.
    pub scenario: Scenario,
}

impl Found {
    /// As a finding of the explorer, explained by the planted mistake that was looked for.
    #[must_use]
    pub fn into_finding(self, quirk: Quirk) -> Finding {
        let steps = self.scenario.steps.len();
        Finding {
            seed: self.seed,
            invariant: Invariant::Dma,
            action: String::from("device workload"),
            cause: format!("quirk {quirk}"),
            quirk: Some(quirk),
            quirk_name: Some(quirk.name().to_owned()),
            steps_found: steps,
            steps,
            scenario: luosim_scenario::print(&self.scenario),
            detail: self.message,
        }
    }
}

/// Draws the scenario of a seed and runs it; what is wrong with it, if something is. `quirk` is on in every kernel.
///
/// # Errors
/// The host has no room for a machine.
pub fn seed(seed: u64, quirk: Option<Quirk>) -> Result<Option<Found>, String> {
    let scenario = draw(seed, quirk);
    let report = run_scenario(&scenario, &Options::default())?;
    let wrong = report.records.into_iter().find_map(|record| match record {
        Record::Failed { message, .. } => Some(message),
        Record::Boot { outcome, reason, .. } if outcome == "panic" => reason,
        _ => None,
    });
    Ok(wrong.map(|message| Found { seed, message, scenario }))
}

/// The scenario of a seed.
#[must_use]
pub fn draw(seed: u64, quirk: Option<Quirk>) -> Scenario {
    let mut draw = Draw { rng: Rng::new(seed), quirk, steps: Vec::new() };
    let vmms = usize::from(draw.rng.chance(1, 2)) + 1;
    draw.machine(Op::Boot, &[("release", text("7.3"))], true);
    let names: Vec<String> = (0..vmms).map(|at| format!("vmm-{at}")).collect();
    for (at, name) in names.iter().enumerate() {
        draw.start(name, FUNCTIONS[at], at);
    }
    let rounds = draw.rng.between(1, 3);
    for _ in 0..rounds {
        draw.round(&names);
    }
    draw.ends(&names);
    draw.machine(Op::ExpectSound, &[], false);
    Scenario {
        name: format!("devices-{seed}"),
        about: String::from("a device workload of the explorer"),
        memory: 64 << 20,
        profile: Profile::Target,
        steps: draw.steps,
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn number(value: i128) -> Value {
    Value::Number(value)
}

struct Draw {
    rng: Rng,
    quirk: Option<Quirk>,
    steps: Vec<Step>,
}

type Values<'a> = &'a [(&'static str, Value)];

fn call(op: Op, values: Values<'_>) -> Call {
    values.iter().fold(Call::new(op), |call, (name, value)| call.with(name, value.clone()))
}

impl Draw {
    /// A call with the quirk, where kernels are chosen.
    fn with_quirk(&self, call: Call) -> Call {
        match self.quirk {
            Some(quirk) => call.with("quirks-on", text(quirk.name())),
            None => call,
        }
    }

    fn machine(&mut self, op: Op, values: Values<'_>, kernel: bool) {
        let call = call(op, values);
        let call = if kernel { self.with_quirk(call) } else { call };
        self.steps.push(Step::Machine(call));
    }

    fn step(&mut self, process: &str, op: Op, values: Values<'_>, error: Option<Errno>) {
        let mut call = call(op, values);
        if op == Op::KexecLoad {
            call = self.with_quirk(call);
        }
        call.error = error;
        self.steps.push(Step::Process { process: process.to_owned(), call });
    }

    fn does(&mut self, process: &str, op: Op, values: Values<'_>) {
        self.step(process, op, values, None);
    }

    fn refused(&mut self, process: &str, errno: Errno, op: Op, values: Values<'_>) {
        self.step(process, op, values, Some(errno));
    }

    fn time(&mut self) {
        let ticks = i128::from(self.rng.between(1, 600));
        self.machine(Op::Tick, &[("ticks", number(ticks))], false);
    }

    fn open(&mut self, process: &str, path: &str, label: &str) {
        self.does(process, Op::Open, &[("path", text(path)), ("as", text(label))]);
    }

    fn space(&mut self, process: &str) {
        self.does(process, Op::IoasAlloc, &[("iommufd", text("iommu")), ("as", text("space"))]);
        let map = [
            ("iommufd", text("iommu")),
            ("ioas", text("space")),
            ("file", text("ram")),
            ("iova", number(IOVA)),
            ("len", number(RAM)),
        ];
        self.does(process, Op::IoasMap, &map);
    }

    fn table(&mut self, process: &str) {
        let alloc = [("iommufd", text("iommu")), ("ioas", text("space")), ("as", text("table"))];
        self.does(process, Op::HwptAlloc, &alloc);
        let mark = [("iommufd", text("iommu")), ("hwpt", text("table")), ("token", number(0x77))];
        self.does(process, Op::HwptMark, &mark);
    }

    /// A VMM with everything, its device writing guest memory.
    fn start(&mut self, process: &str, function: &str, node: usize) {
        self.does(process, Op::Memfd, &[("name", text("ram")), ("flags", number(2)), ("as", text("ram"))]);
        self.does(process, Op::Ftruncate, &[("fd", text("ram")), ("size", number(RAM))]);
        self.does(process, Op::AddSeals, &[("fd", text("ram")), ("seals", number(7))]);
        self.open(process, "/dev/iommu", "iommu");
        self.space(process);
        self.table(process);
        self.does(process, Op::VfioBindDriver, &[("function", text(function))]);
        self.open(process, &format!("/dev/vfio/devices/vfio{node}"), "dev");
        self.does(process, Op::VfioBind, &[("device", text("dev")), ("iommufd", text("iommu"))]);
        self.does(process, Op::VfioAttach, &[("device", text("dev")), ("object", text("table"))]);
        self.does(process, Op::VfioMaster, &[("device", text("dev")), ("on", number(1))]);
        let pages = i128::from(self.rng.between(1, 20));
        let dma =
            [("device", text("dev")), ("ram", text("ram")), ("iova", number(IOVA)), ("pages", number(pages))];
        self.does(process, Op::DmaStart, &dma);
        self.time();
    }

    fn preserve(&mut self, process: &str, session: &str, fd: &str, token: i128, errno: Option<Errno>) {
        let values = [("session", text(session)), ("fd", text(fd)), ("token", number(token))];
        self.step(process, Op::Preserve, &values, errno);
    }

    fn session(&mut self, process: &str, op: Op, name: &str, label: &str) {
        self.open(process, "/dev/liveupdate", "luo");
        self.does(process, op, &[("device", text("luo")), ("name", text(name)), ("as", text(label))]);
        self.does(process, Op::Close, &[("fd", text("luo"))]);
    }

    /// One live update of all VMMs.
    fn round(&mut self, names: &[String]) {
        for name in names {
            self.hand_over(name);
        }
        let first = &names[0];
        self.does(first, Op::KexecLoad, &[("release", text("7.3"))]);
        self.aborts(names);
        self.does(first, Op::RebootKexec, &[]);
        for function in &FUNCTIONS[..names.len()] {
            self.does("host", Op::VfioBindDriver, &[("function", text(function))]);
        }
        let stranger = self.rng.chance(1, 2);
        if stranger {
            self.stranger(names.len());
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        if self.rng.chance(1, 2) {
            order.reverse();
        }
        for at in order {
            self.take_back(&names[at], FUNCTIONS[at]);
        }
    }

    /// Wrong orders first, then the right one.
    fn hand_over(&mut self, process: &str) {
        self.session(process, Op::CreateSession, process, "session");
        if self.rng.chance(1, 3) {
            self.preserve(process, "session", "dev", 3, Some(Errno::ENOENT));
        }
        if self.rng.chance(1, 4) {
            self.session(process, Op::CreateSession, &format!("{process}-other"), "other");
            self.preserve(process, "other", "ram", 1, None);
            self.preserve(process, "session", "iommu", 2, Some(Errno::ENOENT));
            self.does(process, Op::Close, &[("fd", text("other"))]);
        }
        for (fd, token) in [("ram", 1), ("iommu", 2), ("dev", 3)] {
            self.preserve(process, "session", fd, token, None);
            if self.rng.chance(1, 2) {
                self.time();
            }
        }
        if self.rng.chance(1, 2) {
            let map = [
                ("iommufd", text("iommu")),
                ("ioas", text("space")),
                ("file", text("ram")),
                ("iova", number(0x1000)),
                ("len", number(4096)),
            ];
            self.refused(process, Errno::EBUSY, Op::IoasMap, &map);
        }
        if self.rng.chance(1, 4) {
            self.refused(process, Errno::EBUSY, Op::VfioDetach, &[("device", text("dev"))]);
        }
        if self.rng.chance(1, 4) {
            self.does(process, Op::Close, &[("fd", text("session"))]);
            self.time();
            self.session(process, Op::CreateSession, process, "session");
            for (fd, token) in [("ram", 1), ("iommu", 2), ("dev", 3)] {
                self.preserve(process, "session", fd, token, None);
            }
        }
    }

    /// Reboots that are refused before the one that is not. None of them may freeze a device, for there is no way back.
    fn aborts(&mut self, names: &[String]) {
        let first = &names[0];
        if self.rng.chance(1, 3) {
            let irqs = |on| [("device", text("dev")), ("on", number(on))];
            self.does(first, Op::VfioIrqs, &irqs(1));
            self.refused(first, Errno::EINVAL, Op::RebootKexec, &[]);
            self.time();
            self.does(first, Op::VfioIrqs, &irqs(0));
        }
        if self.rng.chance(1, 3) {
            let point = i128::from(self.rng.below(3));
            self.machine(Op::StopReboot, &[("point", number(point))], false);
            self.refused(first, Errno::EBUSY, Op::RebootKexec, &[]);
            self.time();
        }
    }

    /// Memory is unmapped and given back while the device works on: it must be refused from then on.
    fn ends(&mut self, names: &[String]) {
        for name in names {
            if self.rng.chance(1, 2) {
                let unmap =
                    [("iommufd", text("iommu")), ("ioas", text("space")), ("iova", number(IOVA)), ("len", number(RAM))];
                self.does(name, Op::IoasUnmap, &unmap);
                self.does(name, Op::Close, &[("fd", text("ram"))]);
                self.time();
            }
        }
    }

    /// A device that nobody preserved is started by somebody else in the new kernel.
    fn stranger(&mut self, node: usize) {
        let function = FUNCTIONS[node];
        self.start("stranger", function, node);
    }

    fn take_back(&mut self, process: &str, function: &str) {
        self.session(process, Op::RetrieveSession, process, "session");
        let early = |draw: &mut Self| {
            if draw.rng.chance(1, 3) {
                draw.refused(process, Errno::EBUSY, Op::Finish, &[("session", text("session"))]);
            }
        };
        early(self);
        // The device pulls its iommufd in, so any order will do.
        let mut order = [("ram", 1), ("iommu", 2), ("dev", 3)];
        let swap = usize::try_from(self.rng.below(3)).expect("small");
        order.swap(0, swap);
        for (fd, token) in order {
            let values = [("session", text("session")), ("token", number(token)), ("as", text(fd))];
            self.does(process, Op::Retrieve, &values);
        }
        early(self);
        self.does(process, Op::VfioBind, &[("device", text("dev")), ("iommufd", text("iommu"))]);
        self.space(process);
        early(self);
        let restore = [("iommufd", text("iommu")), ("token", number(0x77)), ("as", text("old"))];
        self.does(process, Op::HwptRestore, &restore);
        if self.rng.chance(1, 2) {
            self.refused(process, Errno::EBUSY, Op::Finish, &[("session", text("session"))]);
        }
        self.time();
        self.table(process);
        self.does(process, Op::VfioAttach, &[("device", text("dev")), ("object", text("table"))]);
        self.does(process, Op::Finish, &[("session", text("session"))]);
        self.does(process, Op::Close, &[("fd", text("session"))]);
        self.machine(Op::Tick, &[("ticks", number(300))], false);
        let check = [("ram", text("ram")), ("function", text(function)), ("completions", number(1))];
        self.does(process, Op::DmaCheck, &check);
        let faultless = [
            ("function", text(function)),
            ("faults", number(0)),
            ("drops", number(0)),
            ("resets", number(0)),
        ];
        self.machine(Op::ExpectDevice, &faultless, false);
    }
}
