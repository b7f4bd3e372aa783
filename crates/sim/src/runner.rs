//! The runner: one step after the other, on one machine.

mod calls;
mod contents;
mod devices;
mod expect;
mod guests;
mod posted;
mod power;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use luosim_abi::profile::Profile;
use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult, Refusal};
use luosim_hardware::Hardware;
use luosim_hardware::pci::Layout;
use luosim_hardware::verify::{Invariant, Violation};
use luosim_kho::BootParams;
use luosim_machine::process::Pid;
use luosim_machine::sys::MapId;
use luosim_machine::{BootOptions, BootReport, Machine};
use luosim_physmem::PhysMem;
use luosim_scenario::{Call, Op, Scenario, Step, Value};

use crate::explore::invariant::Print;
use crate::golden::Manifest;
use crate::transcript::{LedgerLine, Record, Report, VERSION, ledger_lines, timeline_lines};

/// How to run.
#[derive(Debug, Default)]
pub struct Options {
    /// Runs every kernel of the scenario with this release instead of its own.
    pub release: Option<ReleaseId>,
    /// Gives every kernel of the scenario these file types instead of its own.
    pub profile: Option<Profile>,
    /// Folder that image paths start from.
    pub base: PathBuf,
    /// Folder for the memory and manifest at each kexec.
    pub dump_handover: Option<PathBuf>,
}

/// A run that could not be made: the scenario is fine, its surroundings are not.
pub(crate) type RunError = String;

#[derive(Clone, Debug, Default)]
struct Labels {
    fds: BTreeMap<String, i32>,
    maps: BTreeMap<String, MapId>,
}

/// Memory that runs have one after the other: for a short run the host's page faults cost more than the run. A kernel that boots cold
/// takes nothing from what lies there, so what a run answers does not depend on the runs before it.
#[derive(Debug, Default)]
pub struct Place {
    memory: Option<PhysMem>,
}

struct Runner<'a> {
    options: &'a Options,
    place: Place,
    /// Whether the memory has bytes of another run, and was not booted on yet.
    used: bool,
    /// Only answers are wanted: nothing is put in words but what fails.
    quiet: bool,
    machine: Option<Machine>,
    memory: u64,
    profile: Profile,
    phase_ticks: Option<u32>,
    pids: BTreeMap<String, Pid>,
    labels: BTreeMap<String, Labels>,
    records: Vec<Record>,
    failures: usize,
    last_boot: Option<BootReport>,
    manifest: Option<Manifest>,
    dumps: usize,
    remembered: Print,
    guests: devices::Guests,
    /// Invariants that only the driver of a guest can show, and whether they held.
    driven: devices::Driven,
    /// Invariants of DMA that did not hold.
    broken: Vec<Invariant>,
}

/// What a call gave.
type Answer = KResult<i64>;

/// What each step of a scenario led to, up to the first that did not go as it must.
#[derive(Debug, Default)]
pub(crate) struct Traced {
    /// What each step's call answered, where it is a call.
    pub(crate) answers: Vec<Option<Result<i64, Errno>>>,
    /// The step that failed first.
    pub(crate) failed: Option<Failed>,
    /// Kexecs that were made.
    pub(crate) kexecs: u64,
}

/// A step that did not go as it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) step: usize,
    pub(crate) message: String,
    /// The invariant of DMA that does not hold, if it is one.
    pub(crate) invariant: Option<Invariant>,
    /// Whether the kernel panicked.
    pub(crate) panicked: bool,
}

impl Failed {
    /// Whether it is worse than an answer.
    pub(crate) fn is_grave(&self) -> bool {
        self.invariant.is_some() || self.panicked
    }
}

/// Runs a scenario up to the first step that does not go as it must, and keeps answers instead of a report. With `patient`
/// a wrong answer is only noted, for the case that nothing graver follows.
///
/// # Errors
/// The host has no room for a machine.
pub(crate) fn trace(scenario: &Scenario, options: &Options, patient: bool) -> Result<Traced, String> {
    trace_in(&mut Place::default(), scenario, options, patient)
}

/// [`trace`] in memory that was used before.
///
/// # Errors
/// The host has no room for a machine.
pub(crate) fn trace_in(
    place: &mut Place,
    scenario: &Scenario,
    options: &Options,
    patient: bool,
) -> Result<Traced, String> {
    let mut runner = Runner::new(scenario, options);
    (runner.place, runner.quiet) = (std::mem::take(place), true);
    let mut traced = Traced::default();
    for (number, step) in scenario.steps.iter().enumerate() {
        runner.records.clear();
        runner.step(step)?;
        let failed = traced.take(number, &mut runner);
        let grave = failed.as_ref().is_some_and(Failed::is_grave);
        if grave || traced.failed.is_none() {
            traced.failed = failed;
        }
        if grave || !patient && traced.failed.is_some() {
            break;
        }
    }
    place.memory = runner.machine.map(Machine::into_memory).or(runner.place.memory);
    Ok(traced)
}

impl Traced {
    /// Takes what a step recorded; what was wrong with it, if something was.
    fn take(&mut self, step: usize, runner: &mut Runner<'_>) -> Option<Failed> {
        let (mut answer, mut messages, mut panicked) = (None, Vec::new(), false);
        for record in runner.records.drain(..) {
            match record {
                Record::Call { result, errno, .. } => {
                    let errno = errno.and_then(|name| Errno::from_name(&name));
                    answer = errno.map(Err).or(result.map(Ok));
                }
                Record::Failed { message, .. } => messages.push(message),
                Record::Boot { outcome, reason, .. } if outcome == "panic" => {
                    panicked = true;
                    messages.extend(reason);
                }
                Record::Kexec { .. } => self.kexecs += 1,
                _ => {}
            }
        }
        self.answers.push(answer);
        let invariant = runner.broken.first().copied();
        // An answer may be wrong in the same step: what is told is what weighs more.
        let told =
            messages.iter().position(|message| invariant.is_some() && message.starts_with("invariant "));
        let message = (!messages.is_empty()).then(|| messages.swap_remove(told.unwrap_or(0)))?;
        Some(Failed { step, message, invariant, panicked })
    }
}

/// Runs a scenario in the model.
///
/// # Errors
/// A recorded image that cannot be read, or a dump that cannot be written.
pub fn run(scenario: &Scenario, options: &Options) -> Result<Report, String> {
    let mut runner = Runner::new(scenario, options);
    for step in &scenario.steps {
        runner.step(step)?;
    }
    let ledger = runner.ledger();
    Ok(Report {
        version: VERSION,
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        invariants: runner.invariants(),
        timeline: runner.machine.as_ref().map(timeline_lines).unwrap_or_default(),
        records: runner.records,
        ledger,
        failures: runner.failures,
    })
}

impl<'a> Runner<'a> {
    fn new(scenario: &Scenario, options: &'a Options) -> Self {
        Runner {
            options,
            place: Place::default(),
            used: false,
            quiet: false,
            machine: None,
            memory: scenario.memory,
            profile: options.profile.unwrap_or(scenario.profile),
            phase_ticks: scenario.phase_ticks,
            pids: BTreeMap::new(),
            labels: BTreeMap::new(),
            records: Vec::new(),
            failures: 0,
            last_boot: None,
            manifest: None,
            dumps: 0,
            remembered: Print::default(),
            guests: devices::Guests::default(),
            driven: devices::Driven::default(),
            broken: Vec::new(),
        }
    }
}

impl Runner<'_> {
    fn step(&mut self, step: &Step) -> Result<(), RunError> {
        match step {
            Step::Machine(call) => {
                self.machine_step(call)?;
                self.watch_guests(None, call, None);
                Ok(())
            }
            Step::Process { process, call } => self.process_step(process, call),
        }
    }

    /// The machine; powered on with the default release if the scenario did not say.
    fn machine(&mut self) -> Result<&mut Machine, RunError> {
        if self.machine.is_none() {
            self.machine = Some(new_machine(self.memory()?, self.profile, self.phase_ticks));
            let release = self.options.release.unwrap_or(ReleaseId::V7_3);
            let options = BootOptions { profile: self.profile, ..BootOptions::default() };
            self.boot_cold(release, &options);
        }
        Ok(self.machine.as_mut().expect("made above"))
    }

    /// Memory for a machine.
    fn memory(&mut self) -> Result<PhysMem, RunError> {
        let used = self.place.memory.take().filter(|memory| memory.len() == self.memory);
        self.used = used.is_some();
        used.map_or_else(|| PhysMem::anonymous(self.memory).map_err(|error| error.to_string()), Ok)
    }

    fn on(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("the machine was made before the first step of a process")
    }

    fn process_step(&mut self, process: &str, call: &Call) -> Result<(), RunError> {
        self.machine()?;
        let Some(pid) = self.pid(process, call) else { return Ok(()) };
        if call.op == Op::ExpectFile {
            self.expect_file(process, pid, call);
            return Ok(());
        }
        if call.op == Op::RebootKexec {
            return self.reboot(process, pid, call);
        }
        let (shown, state) = (self.show(process, call), self.posted_state());
        let answer = self.perform(process, pid, call);
        self.record_call(process, pid, shown, &answer);
        self.note_state(state);
        self.judge(call, &answer);
        self.check_invariants(call);
        self.watch_guests(Some((process, pid)), call, Some(&answer));
        self.after_panic();
        Ok(())
    }

    /// A posted design may stop its kernel inside a call: a crash kernel boots, or the machine is down.
    fn after_panic(&mut self) {
        let report = self.on().take_crashed();
        if report.is_some() || self.on().kernel().is_none() {
            self.forget();
        }
        if let Some(report) = report {
            self.records
                .push(Record::Machine { action: String::from("the kernel panics; the crash kernel boots") });
            self.booted(report);
        }
    }

    /// The process, started at its first step; `None` while the machine is down.
    fn pid(&mut self, process: &str, call: &Call) -> Option<Pid> {
        if let Some(pid) = self.pids.get(process) {
            return Some(*pid);
        }
        match self.on().spawn(process) {
            Ok(pid) => {
                self.pids.insert(process.to_owned(), pid);
                self.labels.entry(process.to_owned()).or_default();
                Some(pid)
            }
            Err(refusal) => {
                self.fail(call, format!("process `{process}` cannot run: {}", refusal.reason));
                None
            }
        }
    }

    fn record_call(&mut self, process: &str, pid: Pid, call: String, answer: &Answer) {
        let refusal = answer.as_ref().err();
        self.records.push(Record::Call {
            process: process.to_owned(),
            pid: pid.0,
            call,
            result: answer.as_ref().ok().copied(),
            errno: refusal.map(|refusal| refusal.errno.name().to_owned()),
            reason: refusal.map(|refusal| refusal.reason.to_string()),
        });
        self.record_assumed();
    }

    /// What the last call or boot rested on and nobody has published.
    fn record_assumed(&mut self) {
        for assumption in self.on().take_assumed() {
            let (name, what) = (assumption.name().to_owned(), assumption.describe().to_owned());
            self.records.push(Record::Assumed { name, what });
        }
    }

    /// What of the invariants of DMA did not hold: no scenario is right then.
    fn check_invariants(&mut self, call: &Call) {
        for violation in self.on().take_violations() {
            self.broke(call, &violation);
        }
    }

    fn broke(&mut self, call: &Call, violation: &Violation) {
        let (name, at) = (violation.invariant.name(), violation.at.describe());
        self.broken.push(violation.invariant);
        self.fail(call, format!("invariant {name} does not hold, {at}: {}", violation.what));
    }

    /// Compares the outcome of a call with what the step expects.
    fn judge(&mut self, call: &Call, answer: &Answer) {
        match (call.error, answer) {
            (None, Ok(value)) => {
                let want = call.u64("result").and_then(|want| i64::try_from(want).ok());
                if let Some(want) = want.filter(|want| want != value) {
                    self.fail(call, format!("`{}` gave {value}, expected {want}", call.op.spec().name));
                }
            }
            (Some(want), Ok(value)) => {
                self.fail(call, format!("`{}` succeeded with {value}, expected {want}", call.op.spec().name));
            }
            (None, Err(refusal)) => {
                self.fail(call, format!("`{}` failed with {refusal}; expected success", call.op.spec().name));
            }
            (Some(want), Err(refusal)) if want != refusal.errno => {
                self.fail(call, format!("`{}` failed with {refusal}; expected {want}", call.op.spec().name));
            }
            (Some(_), Err(_)) => {}
        }
    }

    fn fail(&mut self, call: &Call, message: String) {
        self.failures += 1;
        self.records.push(Record::Failed { at: call.span.0.start, message });
    }

    fn expect(&mut self, call: &Call, what: String, good: bool, found: &str) {
        if good {
            self.records.push(Record::Expected { what });
        } else {
            self.fail(call, format!("expected {what}; found {found}"));
        }
    }

    /// A descriptor parameter as a number: a label of the process, or a number as it stands.
    fn fd(&self, process: &str, call: &Call, name: &str) -> i32 {
        match call.get(name) {
            Some(Value::Number(number)) => i32::try_from(*number).unwrap_or(-1),
            Some(Value::Text(label)) => {
                self.labels.get(process).and_then(|labels| labels.fds.get(label)).copied().unwrap_or(-1)
            }
            _ => -1,
        }
    }

    fn map(&self, process: &str, call: &Call) -> MapId {
        let label = call.text("map").unwrap_or("");
        let found = self.labels.get(process).and_then(|labels| labels.maps.get(label)).copied();
        found.unwrap_or(MapId(u32::MAX))
    }

    fn label(&mut self, process: &str, call: &Call, name: &str, fd: i32) {
        if let Some(label) = call.text(name) {
            self.labels.entry(process.to_owned()).or_default().fds.insert(label.to_owned(), fd);
        }
    }

    /// The call as the transcript shows it: labels with their numbers.
    fn show(&self, process: &str, call: &Call) -> String {
        if self.quiet {
            return String::new();
        }
        let spec = call.op.spec();
        let mut text = format!("{}(", spec.name);
        for (position, (index, value)) in call.values.iter().enumerate() {
            if position > 0 {
                text.push_str(", ");
            }
            let param = &spec.params[*index];
            if !param.positional {
                text.push_str(param.name);
                text.push('=');
            }
            text.push_str(&self.show_value(process, param.kind, value));
        }
        text.push(')');
        text
    }

    fn show_value(&self, process: &str, kind: luosim_scenario::table::Kind, value: &Value) -> String {
        use luosim_scenario::table::Kind;
        match (kind, value) {
            (Kind::Fd, Value::Text(label)) => {
                let fd = self.labels.get(process).and_then(|labels| labels.fds.get(label));
                fd.map_or_else(|| label.clone(), |fd| format!("{label}:{fd}"))
            }
            (
                Kind::NewFd | Kind::NewMap | Kind::Map | Kind::Process | Kind::NewProcess,
                Value::Text(text),
            ) => text.clone(),
            (Kind::Flags(table), Value::Number(bits)) => show_flags(table, *bits),
            (Kind::Bool, Value::Number(bit)) => (*bit != 0).to_string(),
            (Kind::Number(0, 0xffff_ffff_ffff_ffff), Value::Number(number)) => format!("{number:#x}"),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Text(text)) => format!("{text:?}"),
            (_, Value::Bytes(bytes)) if bytes.len() > 24 => format!("{} bytes", bytes.len()),
            (_, Value::Bytes(bytes)) => crate::golden::hex(bytes),
        }
    }

    fn ledger(&self) -> Vec<LedgerLine> {
        self.machine.as_ref().and_then(Machine::ledger).map(ledger_lines).unwrap_or_default()
    }
}

/// A machine, with devices if its kernels may know some.
fn new_machine(memory: PhysMem, profile: Profile, phase_ticks: Option<u32>) -> Machine {
    let mut machine = Machine::new(memory);
    if profile != Profile::Mainline {
        let mut hardware = Hardware::new(Layout::reference()).expect("the reference layout can be built");
        if let Some(ticks) = phase_ticks {
            hardware.set_phase_ticks(ticks);
        }
        machine.plug_in(hardware);
    }
    machine
}

fn show_flags(table: &[(&'static str, u64)], bits: i128) -> String {
    let mut left = u64::try_from(bits).unwrap_or(0);
    let mut names = Vec::new();
    for (name, bit) in table.iter().filter(|(_, bit)| *bit != 0) {
        if left & bit == *bit {
            names.push((*name).to_owned());
            left &= !bit;
        }
    }
    if left != 0 || names.is_empty() {
        names.push(format!("{left:#x}"));
    }
    names.join("|")
}

/// A path of the scenario, from the folder of its file.
fn beside(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}

/// What the runner says when a parameter that the table requires is not there: a bug in a caller that made
/// the scenario by hand.
fn missing(call: &Call, name: &str) -> Refusal {
    luosim_abi::Errno::EINVAL.because(format!("`{}` was made without `{name}`", call.op.spec().name))
}

/// Shows memory and parameters between two kernels.
type Look<'a> = Box<dyn FnOnce(&PhysMem, Option<BootParams>) + 'a>;
