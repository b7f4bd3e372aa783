//! Device workloads that no test author wrote: a seed is a scenario.
//!
//! One or two VMMs with guest memory, an iommufd and a device each, whose DMA runs all the time; one to four kexecs in a row. On the way
//! the seed puts what goes wrong in real life: a device before its iommufd, memory in another session, mappings after they are fixed, a
//! reboot that a device refuses or that is told to stop, a FINISH that comes too early, a stranger's device on the bus, devices that a refused reboot
//! left frozen. What each call must answer follows from the few things the generator knows; what DMA must be like is checked by the machine ([`luosim_machine::Machine::take_violations`]).
//!
//! A finding is shrunk by leaving steps out and making numbers smaller. What a step must answer once others are gone is asked of kernels
//! without the quirk that is looked for: they are the reference of this half of the explorer.

use luosim_abi::Errno;
use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_scenario::{Call, Op, Scenario, Step, Value};

use super::finding::Finding;
use super::invariant::Invariant;
use super::rng::Rng;
use super::world::Tally;
use crate::Options;
pub use crate::runner::Place;
use crate::runner::{Failed, Traced, trace, trace_in};

/// Where guest memory lies for devices.
const IOVA: i128 = 0x1_0000_0000;
/// Bytes of guest memory.
const RAM: i128 = 96 << 10;
/// Ticks in which a device that works completes something: a page of guest memory, and what is between two.
const WORK: i128 = 100;
/// Ticks in which a device comes round to everything it does.
const LONG: i128 = 4096;
/// Functions that can be preserved.
const FUNCTIONS: [&str; 3] = ["01:00.0", "01:01.0", "00:02.0"];

/// What a seed led to.
#[derive(Debug)]
pub struct Ran {
    /// Steps and kexecs.
    pub tally: Tally,
    /// What was wrong, if something was, as short as it could be made.
    pub finding: Option<Finding>,
    /// Digest of all answers.
    pub digest: u64,
}

/// Runs a scenario with every invariant looked at, and says what is wrong first, if something is.
///
/// # Errors
/// The host has no room for a machine.
pub fn look(place: &mut Place, scenario: &Scenario) -> Result<(Tally, Option<String>), String> {
    let traced = trace_in(place, scenario, &Options::default(), false)?;
    Ok((tally(&traced), traced.failed.map(|failed| failed.message)))
}

fn tally(traced: &Traced) -> Tally {
    let steps = u64::try_from(traced.answers.len()).expect("a count");
    Tally { seeds: 1, steps, kexecs: traced.kexecs }
}

/// Draws the scenario of a seed, runs it, and makes a finding of what is wrong with it. `quirk` is on in every kernel; `options`
/// are those of the command that does the same.
///
/// # Errors
/// The host has no room for a machine.
pub fn seed(seed: u64, quirk: Option<Quirk>, options: &str) -> Result<Ran, String> {
    seed_in(&mut Place::default(), seed, quirk, options)
}

/// [`seed`], in memory that other seeds were run in.
///
/// # Errors
/// The host has no room for a machine.
pub fn seed_in(place: &mut Place, seed: u64, quirk: Option<Quirk>, options: &str) -> Result<Ran, String> {
    let scenario = draw(seed, quirk);
    let traced = trace_in(place, &scenario, &Options::default(), quirk.is_some())?;
    let digest = traced.answers.iter().fold(seed, |hash, answer| super::invariant::mix(hash, word(*answer)));
    let finding = match &traced.failed {
        Some(failed) => Some(investigate((seed, quirk, options), &scenario, failed)?),
        None => None,
    };
    Ok(Ran { tally: tally(&traced), finding, digest })
}

fn word(answer: Option<Result<i64, Errno>>) -> u64 {
    match answer {
        None => 0,
        Some(Ok(value)) => value.cast_unsigned().wrapping_add(1),
        Some(Err(errno)) => {
            errno.name().bytes().fold(7, |hash, byte| super::invariant::mix(hash, u64::from(byte)))
        }
    }
}

/// What findings with one cause share.
fn class(failed: &Failed) -> String {
    match failed.invariant {
        Some(invariant) => invariant.name().to_owned(),
        None => failed.message.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect(),
    }
}

/// Shrinks what is wrong with a scenario and writes it.
fn investigate(
    (seed, quirk, options): (u64, Option<Quirk>, &str),
    scenario: &Scenario,
    failed: &Failed,
) -> Result<Finding, String> {
    let steps_found = failed.step + 1;
    let mut first = scenario.clone();
    first.steps.truncate(steps_found);
    if failed.is_grave() {
        first = settled(&first)?.0;
    }
    let (best, failed) = shrink(first, quirk, failed.clone())?;
    let invariant = failed.invariant.map_or(Invariant::Answer, Invariant::of_dma);
    let class = class(&failed);
    let (cause, explained) = match quirk {
        Some(quirk) => (format!("quirk {quirk}"), format!("// Explained by quirk `{quirk}`.\n")),
        None => (format!("{}: device workload: {class}", invariant.name()), String::new()),
    };
    let (version, end) = (env!("CARGO_PKG_VERSION"), seed + 1);
    let text = format!(
        "// Found by luosim {version}, seed {seed}: luosim explore --seeds {seed}..{end} {options}\n\
         // Repeat: luosim run --explain FILE\n\
         // Broken: {} (device workload)\n// {}\n{explained}// {}\n{}",
        invariant.name(),
        invariant.describe(),
        failed.message.replace('\n', " "),
        luosim_scenario::print(&best),
    );
    Ok(Finding {
        seed,
        invariant,
        action: String::from("device workload"),
        cause,
        quirk,
        quirk_name: quirk.map(|quirk| quirk.name().to_owned()),
        steps_found,
        steps: best.steps.len(),
        scenario: text,
        detail: failed.message,
    })
}

/// Most scenarios that are tried.
const TRIES: u32 = 1500;

/// Leaves steps out, then makes numbers smaller, as long as the last step fails in the same way.
fn shrink(scenario: Scenario, quirk: Option<Quirk>, failed: Failed) -> Result<(Scenario, Failed), String> {
    let mut search = Search { wanted: class(&failed), best: scenario, failed, quirk, left: TRIES };
    let mut size = search.best.steps.len() / 2;
    // The boot that plants a quirk stays: without it a whole update is needed to plant it.
    let first = usize::from(quirk.is_some());
    while size > 0 {
        let before = search.best.steps.len();
        search.one_long_time()?;
        let mut end = search.best.steps.len();
        while end > first {
            let start = end.saturating_sub(size).max(first);
            let mut steps = search.best.steps.clone();
            steps.drain(start..end.min(steps.len()));
            search.attempt(steps)?;
            end = start.min(search.best.steps.len());
        }
        size = if search.best.steps.len() < before && size == 1 { 1 } else { size / 2 };
    }
    for at in 0..search.best.steps.len() {
        search.smaller(at)?;
    }
    Ok((search.best, search.failed))
}

/// Whether it can be written down and read again: a label whose step is gone, or fails now, means nothing.
fn reads_back(scenario: &Scenario) -> bool {
    luosim_scenario::parse(&luosim_scenario::print(scenario)).is_ok()
}

struct Search {
    wanted: String,
    best: Scenario,
    failed: Failed,
    quirk: Option<Quirk>,
    left: u32,
}

impl Search {
    /// Keeps steps that fail as wanted. What each must answer is what a kernel without the quirk answers to them, unless the
    /// failure is graver than an answer; without a quirk answers themselves are in doubt, and steps keep what they expect.
    fn attempt(&mut self, steps: Vec<Step>) -> Result<bool, String> {
        if self.left == 0 || steps == self.best.steps || steps.is_empty() {
            return Ok(false);
        }
        let mut scenario = Scenario { steps, ..self.best.clone() };
        if !reads_back(&scenario) {
            return Ok(false);
        }
        self.left -= 1;
        if self.quirk.is_some() {
            let Some(right) = answered_right(&scenario)? else { return Ok(false) };
            scenario = right;
        }
        let grave = self.failed.is_grave();
        let traced = if grave {
            let (own, traced) = settled(&scenario)?;
            scenario = own;
            traced
        } else {
            trace(&scenario, &Options::default(), false)?
        };
        let Some(failed) = traced.failed.filter(|failed| class(failed) == self.wanted) else {
            return Ok(false);
        };
        // Without its steps an answer changes for good reasons.
        if !grave && self.quirk.is_none() && scenario.steps.get(failed.step) != self.best.steps.last() {
            return Ok(false);
        }
        scenario.steps.truncate(failed.step + 1);
        if !reads_back(&scenario) {
            return Ok(false);
        }
        (self.best, self.failed) = (scenario, failed);
        Ok(true)
    }

    /// Time in one place, before the last step, for what a device does only after a while: the time that other steps take need not
    /// be kept for it then.
    fn one_long_time(&mut self) -> Result<(), String> {
        let mut steps = self.best.steps.clone();
        let last = steps.len().saturating_sub(1);
        steps.insert(last, Step::Machine(call(Op::Tick, &[("ticks", number(LONG))])));
        self.attempt(steps).map(drop)
    }

    /// Smaller numbers in a step: time, and pages that a device writes.
    fn smaller(&mut self, at: usize) -> Result<(), String> {
        for name in ["ticks", "pages"] {
            while let Some(value) = self.best.steps.get(at).and_then(|step| step.call().number(name)) {
                let mut found = false;
                for small in [1, 4, 16, value / 2].into_iter().filter(|small| *small < value) {
                    found = found || self.attempt(self.with_number(at, name, small))?;
                }
                if !found {
                    break;
                }
            }
        }
        Ok(())
    }

    fn with_number(&self, at: usize, name: &'static str, value: i128) -> Vec<Step> {
        let mut steps = self.best.steps.clone();
        let (Step::Machine(call) | Step::Process { call, .. }) = &mut steps[at];
        drop_value(call, name);
        *call = call.clone().with(name, number(value));
        steps
    }
}

fn drop_value(call: &mut Call, name: &str) {
    let params = call.op.spec().params;
    call.values.retain(|(index, _)| params[*index].name != name);
}

/// The scenario, each step expecting what it is answered, and how it went.
fn settled(scenario: &Scenario) -> Result<(Scenario, Traced), String> {
    let mut traced = trace(scenario, &Options::default(), true)?;
    let mut settled = scenario.clone();
    expect(&mut settled, &traced);
    // Answers are as expected now.
    traced.failed = traced.failed.filter(Failed::is_grave);
    Ok((settled, traced))
}

fn expect(scenario: &mut Scenario, traced: &Traced) {
    for (step, answer) in scenario.steps.iter_mut().zip(&traced.answers) {
        let (Step::Machine(call) | Step::Process { call, .. }) = step;
        if let Some(answer) = answer {
            call.error = answer.err();
        }
    }
}

/// The scenario, each step expecting what kernels without any quirk answer. `None` where something is wrong with those: then the
/// steps show something else.
fn answered_right(scenario: &Scenario) -> Result<Option<Scenario>, String> {
    let mut plain = scenario.clone();
    for step in &mut plain.steps {
        let (Step::Machine(call) | Step::Process { call, .. }) = step;
        drop_value(call, "quirks-on");
    }
    let traced = trace(&plain, &Options::default(), true)?;
    expect(&mut plain, &traced);
    if trace(&plain, &Options::default(), false)?.failed.is_some() {
        return Ok(None);
    }
    let mut right = scenario.clone();
    expect(&mut right, &traced);
    Ok(Some(right))
}

/// What a seed draws, in words.
#[must_use]
pub fn describe(seed: u64) -> String {
    let scenario = draw(seed, None);
    let count = |op: Op| {
        let of = |step: &&Step| {
            let (Step::Machine(call) | Step::Process { call, .. }) = step;
            call.op == op && call.error.is_none()
        };
        scenario.steps.iter().filter(of).count()
    };
    format!(
        "seed {seed}: devices, profile {}, {} MiB, {} steps, {} devices started, {} kexecs",
        scenario.profile.name(),
        scenario.memory >> 20,
        scenario.steps.len(),
        count(Op::DmaStart),
        count(Op::RebootKexec),
    )
}

/// The scenario of a seed.
#[must_use]
pub fn draw(seed: u64, quirk: Option<Quirk>) -> Scenario {
    let mut draw = Draw::new(seed, quirk);
    draw.phase_ticks = Some(draw.rng.between(1, 128));
    let vmms = usize::from(draw.once_in(2)) + 1;
    draw.machine(Op::Boot, &[("release", text("7.3"))], true);
    let names: Vec<String> = (0..vmms).map(|at| format!("vmm-{at}")).collect();
    for (at, name) in names.iter().enumerate() {
        draw.start(name, FUNCTIONS[at], at);
    }
    let rounds = draw.rng.between(1, 3);
    for _ in 0..rounds {
        draw.round(&names);
    }
    if draw.once_in(3) {
        draw.wedge(&names);
        if draw.once_in(2) {
            draw.begin_anew(&names);
            draw.round(&names);
        }
    } else {
        draw.ends(&names);
    }
    draw.machine(Op::ExpectSound, &[], false);
    draw.scenario(format!("devices-{seed}"))
}

/// A whole cycle with nothing beside it: one VMM, its device writing guest memory before, during and after one live update.
#[must_use]
pub fn cycle() -> Scenario {
    let mut draw = Draw { plain: true, ..Draw::new(0, None) };
    draw.machine(Op::Boot, &[("release", text("7.3"))], true);
    draw.start("vmm-0", FUNCTIONS[0], 0);
    draw.round(&[String::from("vmm-0")]);
    draw.machine(Op::ExpectSound, &[], false);
    draw.scenario(String::from("devices-cycle"))
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
    /// Nothing that could be left out is done.
    plain: bool,
    /// How long each phase of a kexec lasts; `None`: as long as the hardware has it.
    phase_ticks: Option<u32>,
    /// How often each device was reset: its VMM closed it.
    resets: i128,
    steps: Vec<Step>,
}

type Values<'a> = &'a [(&'static str, Value)];

fn call(op: Op, values: Values<'_>) -> Call {
    values.iter().fold(Call::new(op), |call, (name, value)| call.with(name, value.clone()))
}

impl Draw {
    fn new(seed: u64, quirk: Option<Quirk>) -> Self {
        Self { rng: Rng::new(seed), quirk, plain: false, phase_ticks: None, resets: 0, steps: Vec::new() }
    }

    fn scenario(self, name: String) -> Scenario {
        Scenario {
            name,
            about: String::from("a device workload of the explorer"),
            memory: 64 << 20,
            profile: Profile::Target,
            phase_ticks: self.phase_ticks,
            steps: self.steps,
        }
    }

    /// Whether something happens that happens once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.rng.chance(1, times) && !self.plain
    }

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

    /// Some time, mostly a short one: what goes wrong hangs on where a device is, and a long while costs as much as all the rest.
    fn time(&mut self) {
        let most = 16 << self.rng.below(5);
        let ticks = i128::from(self.rng.between(1, most));
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
        self.drive(process, node);
    }

    /// The device is opened, goes through the VMM's page table, and writes guest memory.
    fn drive(&mut self, process: &str, node: usize) {
        self.open(process, &format!("/dev/vfio/devices/vfio{node}"), "dev");
        self.does(process, Op::VfioBind, &[("device", text("dev")), ("iommufd", text("iommu"))]);
        self.does(process, Op::VfioAttach, &[("device", text("dev")), ("object", text("table"))]);
        self.does(process, Op::VfioMaster, &[("device", text("dev")), ("on", number(1))]);
        let pages = i128::from(self.rng.between(1, 12));
        let mut dma = vec![
            ("device", text("dev")),
            ("ram", text("ram")),
            ("iova", number(IOVA)),
            ("pages", number(pages)),
        ];
        if pages % 2 == 1 {
            dma.push(("interrupts", number(1)));
        }
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
        let stranger = self.once_in(2);
        if stranger {
            self.stranger(names.len());
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        if self.once_in(2) {
            order.reverse();
        }
        for at in order {
            self.take_back(&names[at], FUNCTIONS[at]);
        }
    }

    /// Wrong orders first, then the right one.
    fn hand_over(&mut self, process: &str) {
        self.session(process, Op::CreateSession, process, "session");
        if self.once_in(3) {
            self.preserve(process, "session", "dev", 3, Some(Errno::ENOENT));
        }
        if self.once_in(4) {
            self.session(process, Op::CreateSession, &format!("{process}-other"), "other");
            self.preserve(process, "other", "ram", 1, None);
            self.preserve(process, "session", "iommu", 2, Some(Errno::ENOENT));
            self.does(process, Op::Close, &[("fd", text("other"))]);
        }
        for (fd, token) in [("ram", 1), ("iommu", 2), ("dev", 3)] {
            self.preserve(process, "session", fd, token, None);
            if self.once_in(2) {
                self.time();
            }
        }
        if self.once_in(2) {
            let map = [
                ("iommufd", text("iommu")),
                ("ioas", text("space")),
                ("file", text("ram")),
                ("iova", number(0x1000)),
                ("len", number(4096)),
            ];
            self.refused(process, Errno::EBUSY, Op::IoasMap, &map);
        }
        if self.once_in(4) {
            self.refused(process, Errno::EBUSY, Op::VfioDetach, &[("device", text("dev"))]);
        }
        if self.once_in(4) {
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
        if self.once_in(3) {
            let irqs = |on| [("device", text("dev")), ("on", number(on))];
            self.does(first, Op::VfioIrqs, &irqs(1));
            self.refused(first, Errno::EINVAL, Op::RebootKexec, &[]);
            self.time();
            self.does(first, Op::VfioIrqs, &irqs(0));
        }
        if self.once_in(3) {
            let point = i128::from(self.rng.below(3));
            self.machine(Op::StopReboot, &[("point", number(point))], false);
            self.refused(first, Errno::EBUSY, Op::RebootKexec, &[]);
            self.time();
        }
    }

    /// A last reboot that is refused when devices are frozen already: the second VMM's device refuses, or something that
    /// comes after a device. They stay frozen, and their DMA goes on.
    fn wedge(&mut self, names: &[String]) {
        names.iter().for_each(|name| self.hand_over(name));
        let first = &names[0];
        self.does(first, Op::KexecLoad, &[("release", text("7.3"))]);
        match names.get(1) {
            Some(second) if self.once_in(2) => {
                self.does(second, Op::VfioIrqs, &[("device", text("dev")), ("on", number(1))]);
                self.refused(first, Errno::EINVAL, Op::RebootKexec, &[]);
            }
            _ => {
                let points = if names.len() == 1 { 2 } else { 6 };
                let point = 3 + i128::from(self.rng.below(points));
                self.machine(Op::StopReboot, &[("point", number(point))], false);
                self.refused(first, Errno::EBUSY, Op::RebootKexec, &[]);
            }
        }
        self.refused(first, Errno::EIO, Op::VfioDetach, &[("device", text("dev"))]);
        self.time();
        for (name, function) in names.iter().zip(FUNCTIONS) {
            self.works(name, function);
        }
    }

    /// The only way out for devices that a refused reboot left frozen: their sessions and they are closed, and opened again.
    fn begin_anew(&mut self, names: &[String]) {
        for name in names {
            self.does(name, Op::Close, &[("fd", text("session"))]);
            self.does(name, Op::Close, &[("fd", text("dev"))]);
        }
        self.resets += 1;
        self.time();
        for (node, name) in names.iter().enumerate() {
            self.drive(name, node);
            self.works(name, FUNCTIONS[node]);
        }
    }

    /// Memory is unmapped and given back while the device works on: it must be refused from then on.
    fn ends(&mut self, names: &[String]) {
        for name in names {
            if self.once_in(2) {
                let unmap = [
                    ("iommufd", text("iommu")),
                    ("ioas", text("space")),
                    ("iova", number(IOVA)),
                    ("len", number(RAM)),
                ];
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
            if draw.once_in(3) {
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
        if self.once_in(2) {
            self.refused(process, Errno::EBUSY, Op::Finish, &[("session", text("session"))]);
        }
        self.time();
        self.table(process);
        self.does(process, Op::VfioAttach, &[("device", text("dev")), ("object", text("table"))]);
        self.does(process, Op::Finish, &[("session", text("session"))]);
        self.does(process, Op::Close, &[("fd", text("session"))]);
        self.works(process, function);
    }

    /// The device did something in the last while, and lost nothing.
    fn works(&mut self, process: &str, function: &str) {
        self.machine(Op::Tick, &[("ticks", number(WORK))], false);
        let check = [("ram", text("ram")), ("function", text(function)), ("completions", number(1))];
        self.does(process, Op::DmaCheck, &check);
        let faultless = [
            ("function", text(function)),
            ("faults", number(0)),
            ("drops", number(0)),
            ("resets", number(self.resets)),
        ];
        self.machine(Op::ExpectDevice, &faultless, false);
    }
}
