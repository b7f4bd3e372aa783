//! The executor: a machine and its reference side by side. Each step makes one call on both, compares the answers, and
//! looks at what must hold after every step; the rest is looked at at each kexec.
//!
//! Contract: the same case gives the same calls, the same digest and the same violation, whatever ran on the machine
//! before. With a script every step is also written down as steps of a scenario, the broken promise as its last.

mod look;
mod perform;
mod script;

use std::collections::BTreeMap;

use luosim_abi::Errno;
use luosim_abi::quirk::Quirk;
use luosim_luo::SessionName;
use luosim_machine::process::Pid;
use luosim_machine::sys::MapId;
use luosim_machine::{BootOptions, BootReport, ImageKind, Machine};
use luosim_physmem::PhysMem;
use luosim_scenario::{Op, Step, Value};

use super::action::{Action, Plan, Proc, Slot, Spoil, name_bytes};
use super::invariant::{self, Invariant, Print, mix};
use super::reference::{Crossing, Reference, Want};

/// What is run: all that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Bytes of memory.
    pub memory: u64,
    /// The kernel that boots first.
    pub first: Plan,
    /// Quirks switched on in every kernel.
    pub quirks_on: Vec<Quirk>,
    /// Quirks switched off in every kernel.
    pub quirks_off: Vec<Quirk>,
    /// Processes that there may be.
    pub max_procs: u8,
    /// The steps.
    pub actions: Vec<Action>,
}

impl Case {
    /// How a kernel is booted.
    #[must_use]
    pub fn boot_options(&self, plan: Plan) -> BootOptions {
        BootOptions {
            cmdline: plan.cmdline(),
            quirks_on: self.quirks_on.clone(),
            quirks_off: self.quirks_off.clone(),
            ..BootOptions::default()
        }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Name of the step that showed it.
    pub action: &'static str,
    /// What was expected and what was found.
    pub detail: String,
    /// The detail without numbers that differ from run to run: findings that share it have one cause.
    pub class: String,
}

/// The result of a step: a broken promise is boxed, for it is rare and large.
pub type Checked<T> = Result<T, Box<Violation>>;

/// What was done, for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Seeds run.
    pub seeds: u64,
    /// Steps made; those that were left out do not count.
    pub steps: u64,
    /// Jumps that led to another kernel.
    pub kexecs: u64,
}

impl Tally {
    /// Both.
    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.kexecs += other.kexecs;
    }
}

/// Steps between two recounts of all frames.
const SWEEP: u64 = 64;

type IdleKey = (Option<Plan>, Plan, Vec<Quirk>, Vec<Quirk>);

/// A machine that runs cases one after the other.
#[derive(Debug)]
pub struct World {
    machine: Machine,
    /// Machines with other amounts of memory.
    spares: Vec<Machine>,
    case: Case,
    reference: Reference,
    pids: Vec<Option<Pid>>,
    /// How often a place had another process in this kernel before: a scenario wants another name for each.
    lives: Vec<u32>,
    maps: Vec<Vec<Option<MapId>>>,
    log_seen: usize,
    pending_alloc: Option<(u32, u32)>,
    script: Option<Vec<Step>>,
    tally: Tally,
    digest: u64,
    /// Whether an allocation failed in this case because it was told to.
    struck: bool,
    /// What an idle kernel keeps.
    idle: BTreeMap<IdleKey, [u64; 6]>,
}

fn violation(invariant: Invariant, action: &'static str, class: &str, detail: String) -> Box<Violation> {
    Box::new(Violation { invariant, action, detail, class: class.to_owned() })
}

fn machine(memory: u64) -> Result<Machine, String> {
    Ok(Machine::new(PhysMem::anonymous(memory).map_err(|error| error.to_string())?))
}

impl World {
    /// A machine with this much memory, powered off.
    ///
    /// # Errors
    /// The host has no room.
    pub fn new(memory: u64) -> Result<Self, String> {
        let machine = machine(memory)?;
        let first = Plan::new(luosim_abi::release::ReleaseId::V7_3);
        let (quirks_on, quirks_off) = (Vec::new(), Vec::new());
        let case = Case { memory, first, quirks_on, quirks_off, max_procs: 1, actions: Vec::new() };
        Ok(Self {
            machine,
            spares: Vec::new(),
            case,
            reference: Reference::new(first, 1),
            pids: Vec::new(),
            lives: Vec::new(),
            maps: Vec::new(),
            log_seen: 0,
            pending_alloc: None,
            script: None,
            tally: Tally::default(),
            digest: 0,
            struck: false,
            idle: BTreeMap::new(),
        })
    }

    /// Boots the first kernel of a case, on fresh memory or on what the last case left.
    ///
    /// # Errors
    /// The host has no room.
    pub fn begin(&mut self, case: Case, fresh: bool) -> Result<(), String> {
        if fresh {
            self.machine = machine(case.memory)?;
        } else if self.machine.memory().len() != case.memory {
            // Machines of other sizes are kept: memory that the host has mapped already is what makes runs fast.
            let spare = self.spares.iter().position(|spare| spare.memory().len() == case.memory);
            let next = spare.map_or_else(|| machine(case.memory), |at| Ok(self.spares.swap_remove(at)))?;
            self.spares.push(std::mem::replace(&mut self.machine, next));
        }
        self.machine.renew();
        self.machine.cold_boot_in_place(case.first.release, &case.boot_options(case.first));
        self.reference = Reference::new(case.first, case.max_procs);
        self.case = case;
        self.forget();
        self.digest = 0;
        self.struck = false;
        self.pending_alloc = None;
        if self.script.is_some() {
            let call = self.boot_call(Op::Boot, self.case.first);
            self.script = Some(vec![Step::Machine(call)]);
        }
        Ok(())
    }

    /// A machine in place of one that luosim panicked in; what was done is remembered.
    ///
    /// # Errors
    /// The host has no room.
    pub fn replace(&mut self) -> Result<(), String> {
        *self = Self { tally: self.tally, script: self.script.take(), ..Self::new(self.case.memory)? };
        Ok(())
    }

    /// Writes every step down from the next case on.
    pub fn write_script(&mut self) {
        self.script = Some(Vec::new());
    }

    /// The steps written down; nobody writes any more.
    pub fn take_script(&mut self) -> Vec<Step> {
        self.script.take().unwrap_or_default()
    }

    /// Runs a whole case.
    ///
    /// # Errors
    /// The first broken promise, with the number of its step.
    pub fn run(&mut self, case: &Case, fresh: bool) -> Result<Result<(), (usize, Box<Violation>)>, String> {
        self.begin(Case { actions: Vec::new(), ..case.clone() }, fresh)?;
        for (at, action) in case.actions.iter().enumerate() {
            if let Err(broken) = self.step(action) {
                return Ok(Err((at, broken)));
            }
        }
        Ok(self.check_fates("end").map_err(|broken| (case.actions.len(), broken)))
    }

    /// The run is over: every preserved file has its fate.
    ///
    /// # Errors
    /// A broken promise.
    pub fn finish(&mut self) -> Checked<()> {
        self.check_fates("end")
    }

    /// The state that the calls must have led to.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Steps and jumps so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Digest of all calls and answers of the case.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Joins the digest of another case to that of this one.
    pub(crate) fn mix_digest(&mut self, other: u64) {
        self.digest = mix(other, self.digest);
    }

    /// Whether an allocation failed in this case because it was told to.
    #[must_use]
    pub fn alloc_failed(&self) -> bool {
        self.struck
    }

    fn forget(&mut self) {
        self.pids.clear();
        self.lives.clear();
        self.maps.clear();
        self.log_seen = 0;
    }

    fn pid(&mut self, p: Proc) -> Pid {
        let index = usize::from(p);
        if self.pids.len() <= index {
            self.pids.resize(index + 1, None);
        }
        let name = self.process_name(p);
        *self.pids[index]
            .get_or_insert_with(|| self.machine.spawn(&name).expect("a step is made by a kernel that runs"))
    }

    /// Name of the process at a place.
    fn process_name(&self, p: Proc) -> String {
        match self.lives.get(usize::from(p)) {
            None | Some(0) => format!("p{p}"),
            Some(life) => format!("p{p}-{}", life + 1),
        }
    }

    fn fd(&self, p: Proc, slot: Slot) -> i32 {
        self.reference.number(p, slot)
    }

    /// Makes a step. `false` if it means nothing here and was left out.
    ///
    /// # Errors
    /// A broken promise: the run ends.
    pub fn step(&mut self, action: &Action) -> Checked<bool> {
        if let Action::Kexec { .. } = action
            && (self.reference.starved || !self.reference.spoils())
        {
            self.reference.spoil = None;
        }
        if let (true, Some(Action::WriteInReboot { .. })) = (self.reference.starved, &self.reference.intruder)
        {
            self.reference.intruder = None;
        }
        let want = self.reference.expect(action);
        if want == Want::Skip {
            return Ok(false);
        }
        self.tally.steps += 1;
        if self.is_told(action) {
            self.reference.happened(action, Ok(0));
            return Ok(true);
        }
        let planned = self.script.is_some().then(|| self.calls_of(action));
        let thorough =
            matches!(action, Action::Kexec { .. }) && (want != Want::Value(0) || self.reference.starved);
        let before = if thorough { Print::of(&self.machine) } else { Print::counts(&self.machine) };
        let (answer, report) = self.perform(action, planned);
        self.digest = mix(
            self.digest,
            answer.map_or_else(
                |errno| u64::MAX - u64::from(errno.raw().unsigned_abs()),
                |value| value.unsigned_abs(),
            ),
        );
        self.struck |= self.machine.alloc_failed();
        self.compare(action, want, answer)?;
        if let (Action::Kexec { plan, .. }, Ok(_), Some(Spoil::Word { .. })) =
            (action, answer, self.reference.spoil)
        {
            self.reference.happened(action, answer);
            self.bear(*plan)?;
            return Ok(true);
        }
        if answer.is_err() {
            self.check_trace(action, answer, before, thorough)?;
        }
        let crossing = match action {
            Action::Kexec { plan, .. } => Some(self.reference.crossing(*plan)),
            _ => None,
        };
        let first = self.reference.is_untried(action);
        // Looking is no call: what shall strike the next call waits.
        let starved = !matches!(action, Action::Look { .. }) && std::mem::take(&mut self.reference.starved);
        self.reference.happened(action, answer);
        if let (Some(report), Some(crossing)) = (report, crossing) {
            self.arrived(&report, crossing)?;
        }
        self.after(action, answer, starved, first)?;
        Ok(true)
    }

    /// Whether the action only tells what shall happen later.
    fn is_told(&mut self, action: &Action) -> bool {
        match *action {
            Action::FailAlloc { nth, times } => self.pending_alloc = Some((nth, times)),
            _ => return action.is_told(),
        }
        true
    }

    fn compare(&mut self, action: &Action, want: Want, answer: Result<i64, Errno>) -> Checked<()> {
        let right = match (want, answer) {
            (Want::Value(value), Ok(found)) => value == found,
            (Want::Fails(errno), Err(found)) => errno == found,
            _ => false,
        };
        if right || self.forgiven(action, answer) {
            return Ok(());
        }
        self.expected_instead(want);
        let invariant = self.broken_promise(action, want, answer);
        let show = |answer: Result<i64, Errno>| match answer {
            Ok(value) => format!("success ({value})"),
            Err(errno) => errno.name().to_owned(),
        };
        let wanted = match want {
            Want::Fails(errno) => errno.name().to_owned(),
            Want::Value(value) => format!("success ({value})"),
            Want::Skip => String::from("nothing"),
        };
        let detail = format!("{action:?} must answer {wanted}, and answered {}", show(answer));
        let short = |text: &str| text.split(' ').next().unwrap_or("").to_owned();
        let class = format!("{} instead of {}", short(&show(answer)), short(&wanted));
        Err(violation(invariant, action.name(), &class, detail))
    }

    /// What a lack of memory excuses.
    fn forgiven(&self, action: &Action, answer: Result<i64, Errno>) -> bool {
        if !self.reference.starved && self.reference.plan.free.is_none() {
            return false;
        }
        match (action, answer) {
            (Action::Kexec { .. }, Err(errno)) => errno == Errno::EAGAIN || errno == Errno::ENOMEM,
            (Action::Write { cells, .. }, Ok(written)) => {
                written < i64::from(*cells) * 512 && written % 512 == 0
            }
            (_, Err(errno)) => errno == Errno::ENOMEM || errno == Errno::ENOSPC,
            _ => false,
        }
    }

    /// Which promise a wrong answer breaks.
    fn broken_promise(&self, action: &Action, want: Want, answer: Result<i64, Errno>) -> Invariant {
        let reference = &self.reference;
        match (action, want, answer) {
            (Action::Preserve { .. }, Want::Fails(Errno::EEXIST), _) => Invariant::Tokens,
            (Action::Create { .. }, Want::Fails(Errno::EEXIST), _) => Invariant::Names,
            (Action::Preserve { .. }, Want::Fails(Errno::EBUSY), Ok(_)) => Invariant::Owner,
            (Action::Preserve { .. }, Want::Fails(Errno::EACCES), Ok(_)) => Invariant::Privileges,
            (Action::Preserve { p, fd, .. }, Want::Value(_), Err(_)) => {
                let came = reference.file(*p, *fd).is_some_and(|(inode, _)| reference.inodes[inode].came);
                if came { Invariant::Again } else { Invariant::Owner }
            }
            (Action::Take { name, .. }, Want::Value(_), Err(_)) => {
                let found =
                    reference.incoming(*name).is_some_and(|session| reference.sessions[session].faulted);
                if found { Invariant::Loss } else { Invariant::Names }
            }
            (Action::Retrieve { p, session, .. }, Want::Value(_), Err(_)) => {
                let found =
                    reference.session(*p, *session).is_some_and(|one| reference.sessions[one].faulted);
                if found { Invariant::Loss } else { Invariant::Tokens }
            }
            (Action::Open { .. }, Want::Fails(Errno::EIO), _)
            | (Action::Retrieve { .. }, Want::Fails(Errno::EIO), _) => Invariant::Crossing,
            (Action::Write { .. } | Action::Truncate { .. }, Want::Value(_), Err(_)) => Invariant::Trace,
            _ => Invariant::Answer,
        }
    }

    fn check_trace(
        &mut self,
        action: &Action,
        answer: Result<i64, Errno>,
        before: Print,
        thorough: bool,
    ) -> Checked<()> {
        let excused = match action {
            // What it could not rebuild it has given back.
            Action::Retrieve { .. } | Action::Open { .. } => true,
            // The kernel is gone, or a close that waited was done.
            Action::Kexec { .. } => answer == Err(Errno::ESRCH) || self.reference.intruder.is_some(),
            _ => false,
        };
        if excused {
            return Ok(());
        }
        let after = if thorough { Print::of(&self.machine) } else { Print::counts(&self.machine) };
        let differs = before.difference(&after);
        if differs.is_empty() {
            return Ok(());
        }
        self.unchanged_instead();
        let class = differs.split(':').next().unwrap_or("").to_owned();
        let errno = answer.err().map_or("?", Errno::name);
        let detail = format!("{action:?} failed with {errno} and left something: {differs}");
        Err(violation(Invariant::Trace, action.name(), &class, detail))
    }

    /// The next kernel booted, or tried to.
    fn arrived(&mut self, report: &BootReport, crossing: Crossing) -> Checked<()> {
        self.tally.kexecs += 1;
        self.digest = mix(self.digest, u64::from(report.generation));
        let word = report.outcome.word();
        self.expect_step(Op::ExpectBoot, &[("outcome", Value::Text(crossing.word().to_owned()))]);
        if word != crossing.word() {
            let reason = report.outcome.reason().unwrap_or("");
            let detail = format!("the boot must end as {}, and ended as {word}: {reason}", crossing.word());
            return Err(violation(
                Invariant::Crossing,
                "kexec",
                &format!("{word} instead of {}", crossing.word()),
                detail,
            ));
        }
        if crossing == Crossing::Panics {
            self.reset(self.reference.plan);
        }
        self.check_sound("kexec")?;
        self.check_fates("kexec")
    }

    /// What holds after every step.
    fn after(
        &mut self,
        action: &Action,
        answer: Result<i64, Errno>,
        starved: bool,
        first: bool,
    ) -> Checked<()> {
        if let Err(detail) = invariant::accounts(&self.machine) {
            self.expect_step(Op::ExpectSound, &[]);
            return Err(violation(Invariant::Accounts, action.name(), "counts", detail));
        }
        self.check_calls(action, starved)?;
        match *action {
            Action::Look { p, fd } => self.look(p, fd, action.name(), false)?,
            Action::Retrieve { p, new, .. } if answer.is_ok() => self.look(p, new, action.name(), first)?,
            _ => {}
        }
        if self.tally.steps.is_multiple_of(SWEEP) {
            self.check_sound(action.name())?;
        }
        if matches!(action, Action::Exit { .. }) && self.reference.is_quiet() {
            self.check_idle()?;
        }
        Ok(())
    }

    fn check_sound(&mut self, action: &'static str) -> Checked<()> {
        let Err(detail) = invariant::sound(&self.machine) else { return Ok(()) };
        self.expect_step(Op::ExpectSound, &[]);
        let which = if detail.contains("scratch") { Invariant::Scratch } else { Invariant::Accounts };
        Err(violation(which, action, "sweep", detail))
    }

    /// The log of handlers and test objects against what it must say.
    fn check_calls(&mut self, action: &Action, starved: bool) -> Checked<()> {
        let plan = self.reference.plan;
        if !plan.test_files && !plan.flbs {
            return Ok(());
        }
        let Some(kernel) = self.machine.kernel() else { return Ok(()) };
        let lines = &kernel.log().lines;
        let new = lines[self.log_seen.min(lines.len())..]
            .iter()
            .filter_map(|line| invariant::interesting(&line.text));
        let found: Vec<String> = new.map(str::to_owned).collect();
        self.log_seen = lines.len();
        let wanted = std::mem::take(&mut self.reference.calls);
        // Who was asked before memory ran out is nobody's promise.
        if starved || plan.free.is_some() || found == wanted {
            return Ok(());
        }
        let all = invariant::calls(&self.machine);
        let text = [&all[..all.len() - found.len()], &wanted[..]].concat().join("; ");
        self.expect_step(Op::ExpectCalls, &[("text", Value::Text(text))]);
        let detail = format!("handlers must be called so: {wanted:?}, and were: {found:?}");
        let words = |lines: &[String]| -> String {
            lines.iter().filter_map(|line| line.split(": ").nth(1)).collect::<Vec<_>>().join(",")
        };
        let class = if words(&found) == words(&wanted) { "order" } else { "number" };
        Err(violation(Invariant::Nesting, action.name(), class, detail))
    }

    /// The ledger against what must have become of every file.
    fn check_fates(&mut self, action: &'static str) -> Checked<()> {
        let entries = self.machine.ledger().map_or(&[][..], |ledger| ledger.entries());
        let wrong =
            entries.iter().zip(&self.reference.fates).find(|(entry, fate)| entry.fate.word() != fate.word);
        let odd = entries.len() != self.reference.fates.len();
        if wrong.is_none() && !odd {
            return Ok(());
        }
        let (detail, class, fate) = match wrong {
            Some((entry, fate)) => (
                format!(
                    "token {:#x} of {} must be {}, and is {}",
                    fate.token, entry.session, fate.word, entry.fate
                ),
                format!("{} instead of {}", entry.fate.word(), fate.word),
                Some(*fate),
            ),
            None => (
                format!(
                    "{} files were preserved, and the ledger has {}",
                    self.reference.fates.len(),
                    entries.len()
                ),
                String::from("number of lines"),
                None,
            ),
        };
        if let Some(fate) = fate {
            let name = SessionName::from_bytes(&name_bytes(fate.name)).to_string();
            let token = Value::Number(i128::from(fate.token));
            let fate = Value::Text(fate.word.to_owned());
            self.expect_step(
                Op::ExpectLedger,
                &[("session", Value::Text(name)), ("token", token), ("fate", fate)],
            );
        }
        Err(violation(Invariant::Fate, action, &class, detail))
    }

    /// With nothing open and no session left only the kernel itself is there.
    fn check_idle(&mut self) -> Checked<()> {
        let want = self.idle_frames();
        let found = invariant::left(&self.machine);
        if want == found {
            return Ok(());
        }
        let params: Vec<(&str, Value)> = invariant::LEFT
            .iter()
            .zip(want)
            .map(|(name, count)| (*name, Value::Number(i128::from(count))))
            .collect();
        self.expect_step(Op::ExpectFrames, &params);
        let which =
            invariant::LEFT.iter().zip(want.iter().zip(&found)).filter(|(_, (want, found))| want != found);
        let class: Vec<&str> = which.map(|(name, _)| *name).collect();
        let detail = format!("frames left ({}): {found:?} instead of {want:?}", invariant::LEFT.join(", "));
        Err(violation(Invariant::Frames, "exit", &class.join(","), detail))
    }

    /// What a kernel keeps that nobody used but for opening the device once.
    fn idle_frames(&mut self) -> [u64; 6] {
        let (before, plan) = (self.reference.before, self.reference.plan);
        let key = (before, plan, self.case.quirks_on.clone(), self.case.quirks_off.clone());
        if let Some(known) = self.idle.get(&key) {
            return *known;
        }
        let memory = PhysMem::anonymous(64 << 20).expect("the host had room for the world");
        let mut machine = Machine::without_ledger(memory);
        let options = |plan: Plan| self.case.boot_options(Plan { free: None, ..plan });
        if let Some(before) = before {
            machine.cold_reset(before.release, &options(before));
            let pid = machine.spawn("idle").expect("up");
            machine.load_image(pid, plan.release, options(plan), ImageKind::File).expect("root loads");
            machine.reboot_kexec(pid).expect("nothing refuses");
        } else {
            machine.cold_reset(plan.release, &options(plan));
        }
        let pid = machine.spawn("idle").expect("up");
        machine.open(pid, luosim_abi::ioctl::DEVICE_PATH, 2, 0).expect("nothing came");
        machine.exit(pid).expect("alive");
        let left = invariant::left(&machine);
        self.idle.insert(key, left);
        left
    }

    /// Power off and on into `plan`.
    fn reset(&mut self, plan: Plan) {
        self.machine.cold_reset(plan.release, &self.case.boot_options(plan));
        let call = self.script.is_some().then(|| self.boot_call(Op::ColdReset, plan));
        self.write(call.map(Step::Machine));
        self.forget();
    }

    fn spoil_address(&self, spoil: Spoil) -> Option<(luosim_physmem::PhysAddr, u64)> {
        let kernel = self.machine.kernel()?;
        match spoil {
            Spoil::Chain => kernel.luo().session_chain().map(|head| (head, head.raw())),
            Spoil::Folio { name, token } => {
                let data = kernel.luo().preserved_data(&SessionName::from_bytes(&name_bytes(name)), token)?;
                look::second_folio(&self.machine, data)
            }
            Spoil::Word { at, flip } => {
                let (addr, word) = look::word_of_metadata(&self.machine, at)?;
                Some((addr, word ^ flip))
            }
        }
    }
}
