//! `luosim exec --record`: what programs did, as a scenario that the model replays.
//!
//! Each program's process is a process of the scenario. The first one of a generation is everybody's parent: it forks
//! the others when they are first seen, and hands descriptors on through sockets, as they were used. A file appears
//! when it is first preserved, with its name, size and seals as they were then; its contents are not recorded, nor are
//! calls that ran natively. Each step expects the error that the program got.

use std::collections::{BTreeMap, BTreeSet};

use luosim_abi::Errno;
use luosim_abi::posted::State;
use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_gate::deed::{Answer, Change, Deed, On, Served, Subject};
use luosim_machine::{BootReport, Outcome};
use luosim_scenario::{Call, Op, Scenario, Step, Value};

const KEXEC: &str = "LINUX_REBOOT_CMD_KEXEC";
/// Descriptors enough for every label of a recording.
const NOFILE: u32 = 1 << 20;
/// Flags of an open that the kernel looks at: access mode, O_EXCL, O_CLOEXEC.
const KEPT_FLAGS: u32 = 0o2_000_203;
const SEAL_SEAL: u32 = 1;
const SEAL_EXEC: u32 = 0x20;

/// A process of the running generation.
#[derive(Debug)]
struct Process {
    name: String,
    uid: u32,
    /// Labels of the descriptors it has.
    labels: BTreeSet<String>,
}

/// What is known of a memory file.
#[derive(Debug)]
struct File {
    label: String,
    size: u64,
    seals: u32,
}

/// Makes a scenario of what is served.
#[derive(Debug)]
pub(crate) struct Recorder {
    scenario: Scenario,
    processes: BTreeMap<u32, Process>,
    /// The first process of the generation.
    root: Option<u32>,
    sessions: BTreeMap<u32, String>,
    files: BTreeMap<u64, File>,
    foreign: Option<String>,
    devices: BTreeMap<u32, String>,
    labels: u32,
    /// Releases of the kernels, in turn.
    releases: Vec<&'static str>,
    quirks: (Vec<Quirk>, Vec<Quirk>),
    /// Whether the machine goes down by what was recorded last.
    rebooted: bool,
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn number(value: impl Into<i128>) -> Value {
    Value::Number(value.into())
}

/// A call with the state that it must give, if it gave one.
fn told(call: Call, state: Option<State>) -> Call {
    match state {
        Some(state) => call.with("state", text(state.name())),
        None => call,
    }
}

fn is_fault(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(refusal) if refusal.errno == Errno::EFAULT)
}

impl Recorder {
    pub(crate) fn new(memory: u64, releases: Vec<&'static str>, quirks: (Vec<Quirk>, Vec<Quirk>)) -> Self {
        let about = String::from("recorded by luosim exec");
        let scenario = Scenario {
            name: String::from("recorded"),
            about,
            memory,
            profile: Profile::Mainline,
            phase_ticks: None,
            steps: Vec::new(),
        };
        Self {
            scenario,
            processes: BTreeMap::new(),
            root: None,
            sessions: BTreeMap::new(),
            files: BTreeMap::new(),
            foreign: None,
            devices: BTreeMap::new(),
            labels: 0,
            releases,
            quirks,
            rebooted: false,
        }
    }

    /// The scenario so far, as a document.
    pub(crate) fn document(&self) -> String {
        luosim_scenario::print(&self.scenario)
    }

    fn release(&self, generation: u32) -> &'static str {
        let index = usize::try_from(generation.saturating_sub(1)).unwrap_or(usize::MAX);
        self.releases[index.min(self.releases.len() - 1)]
    }

    /// A boot call with release, command line and quirks.
    fn boot_call(&self, op: Op, generation: u32, cmdline: &str) -> Call {
        let names = |quirks: &[Quirk]| quirks.iter().map(|quirk| quirk.name()).collect::<Vec<_>>().join("|");
        let mut call =
            Call::new(op).with("release", text(self.release(generation))).with("cmdline", text(cmdline));
        for (name, quirks) in [("quirks-on", &self.quirks.0), ("quirks-off", &self.quirks.1)] {
            if !quirks.is_empty() {
                call = call.with(name, text(names(quirks)));
            }
        }
        call
    }

    /// A kernel booted.
    pub(crate) fn booted(&mut self, report: &BootReport, cmdline: &str) {
        if matches!(report.outcome, Outcome::Returned) {
            return;
        }
        if !self.rebooted {
            let op = if report.generation == 1 { Op::Boot } else { Op::ColdReset };
            let call = self.boot_call(op, report.generation, cmdline);
            self.scenario.steps.push(Step::Machine(call));
        }
        let expected = Call::new(Op::ExpectBoot).with("outcome", text(report.outcome.word()));
        self.scenario.steps.push(Step::Machine(expected));
        self.rebooted = false;
        self.processes.clear();
        (self.root, self.foreign) = (None, None);
        self.devices.clear();
        self.sessions.clear();
        self.files.clear();
    }

    fn push(&mut self, pid: u32, call: Call) {
        let process = self.processes[&pid].name.clone();
        self.scenario.steps.push(Step::Process { process, call });
    }

    fn label(&mut self, kind: &str) -> String {
        self.labels += 1;
        format!("{kind}{}", self.labels)
    }

    /// The process, forked from the first one if it is new.
    fn meet(&mut self, call: &Served) -> u32 {
        if self.processes.contains_key(&call.pid) {
            return call.pid;
        }
        let program = if call.program.is_empty() { "program" } else { &call.program };
        let name = format!("{program}-{}", call.pid);
        let Some(root) = self.root else {
            self.root = Some(call.pid);
            self.processes.insert(call.pid, Process { name, uid: 0, labels: BTreeSet::new() });
            self.nofile(call.pid, NOFILE);
            return call.pid;
        };
        let pair = [format!("to-{}", call.pid), format!("from-{}", call.pid)];
        let sockets =
            Call::new(Op::Socketpair).with("as", text(pair[0].clone())).with("peer", text(pair[1].clone()));
        self.push(root, sockets);
        self.push(root, Call::new(Op::Fork).with("child", text(name.clone())));
        let (labels, uid) = (self.processes[&root].labels.clone(), self.processes[&root].uid);
        self.processes.insert(call.pid, Process { name, uid, labels });
        call.pid
    }

    fn has(&self, pid: u32, label: &str) -> bool {
        self.processes[&pid].labels.contains(label)
    }

    fn give(&mut self, pid: u32, label: &str) {
        self.processes.get_mut(&pid).expect("it was met").labels.insert(label.to_owned());
    }

    /// Makes sure that the process has the descriptor: from its holder through the first process.
    fn bring(&mut self, pid: u32, label: &str) {
        if self.has(pid, label) {
            return;
        }
        let Some(root) = self.root else { return };
        let holder = self.processes.iter().find(|(_, process)| process.labels.contains(label));
        let Some(holder) = holder.map(|(pid, _)| *pid) else { return };
        if !self.has(root, label) {
            self.hand_over(holder, root, &format!("from-{holder}"), &format!("to-{holder}"), label);
        }
        if pid != root {
            self.hand_over(root, pid, &format!("to-{pid}"), &format!("from-{pid}"), label);
        }
    }

    fn hand_over(&mut self, from: u32, to: u32, send: &str, receive: &str, label: &str) {
        self.push(from, Call::new(Op::SendFd).with("socket", text(send)).with("fd", text(label)));
        self.push(to, Call::new(Op::RecvFd).with("socket", text(receive)).with("as", text(label)));
        self.give(to, label);
    }

    /// Every copy of a descriptor is closed.
    fn close_everywhere(&mut self, label: &str) {
        let holders: Vec<u32> = self.processes.keys().copied().filter(|pid| self.has(*pid, label)).collect();
        for pid in holders {
            self.push(pid, Call::new(Op::Close).with("fd", text(label)));
            self.processes.get_mut(&pid).expect("listed").labels.remove(label);
        }
    }

    /// A call was served.
    pub(crate) fn served(&mut self, served: &Served) {
        let call = match &served.deed {
            Deed::DeviceClosed => {
                if let Some(label) = served.device.and_then(|device| self.devices.remove(&device)) {
                    self.close_everywhere(&label);
                }
                return;
            }
            Deed::SessionClosed { .. } => {
                if let Some(label) = served.session.and_then(|session| self.sessions.remove(&session)) {
                    self.close_everywhere(&label);
                }
                return;
            }
            _ => self.meet(served),
        };
        if self.processes[&call].uid != served.uid {
            self.push(call, Call::new(Op::Setuid).with("uid", number(served.uid)));
            self.processes.get_mut(&call).expect("it was met").uid = served.uid;
        }
        self.step(call, served);
    }

    fn step(&mut self, pid: u32, served: &Served) {
        match &served.deed {
            Deed::OpenDevice { flags } => self.open_device(pid, *flags, served),
            Deed::CreateSession { name, .. } => self.session(pid, Op::CreateSession, name, served),
            Deed::RetrieveSession { name, .. } => self.session(pid, Op::RetrieveSession, name, served),
            // The file is preserved although the reply could not be written: nothing to expect.
            Deed::PreserveFd { on: On::Session(..), file: Subject::Memory { .. }, .. }
                if is_fault(&served.answer) =>
            {
                let served = Served { answer: Answer::Value(0), ..served.clone() };
                self.preserve(pid, &served);
            }
            // Without sessions it is undone then: nothing happened.
            Deed::PreserveFd { file: Subject::Memory { .. }, .. } if is_fault(&served.answer) => {}
            Deed::PreserveFd { .. } => self.preserve(pid, served),
            Deed::RetrieveFd { on, token, .. } => self.retrieve(pid, on, *token, served),
            Deed::UnpreserveFd { .. }
            | Deed::GetState { .. }
            | Deed::SetEvent { .. }
            | Deed::GetFdState { .. }
            | Deed::SetFdEvent { .. } => self.posted(pid, served),
            Deed::Finish { reserved, .. } => {
                let call = Call::new(Op::Finish);
                let call = if *reserved == 0 { call } else { call.with("reserved", number(*reserved)) };
                self.on_session(pid, call, "session", served);
            }
            Deed::GetName { .. } => self.on_session(pid, Call::new(Op::GetName), "session", served),
            Deed::Ioctl { code, argument, cut, .. } => self.ioctl(pid, *code, argument, *cut, served),
            Deed::Frozen { inode, change, .. } => self.frozen(pid, *inode, *change, &served.answer),
            Deed::LoadImage { old, cmdline } => self.image(pid, *old, cmdline.as_deref(), served),
            Deed::Reboot { command } => self.reboot(pid, command, &served.answer),
            Deed::DeviceClosed | Deed::SessionClosed { .. } => {}
        }
    }

    /// Adds the expected error; `true` if the call succeeded.
    fn add(&mut self, pid: u32, call: Call, answer: &Answer) -> bool {
        let error = match answer {
            Answer::Refused(refusal) => Some(refusal.errno),
            _ => None,
        };
        let full = error == Some(Errno::EMFILE);
        if full {
            self.nofile(pid, 0);
        }
        self.push(pid, Call { error, ..call });
        if full {
            self.nofile(pid, NOFILE);
        }
        error.is_none()
    }

    /// The program's table was its own; here only whether it was full matters.
    fn nofile(&mut self, pid: u32, limit: u32) {
        self.push(pid, Call::new(Op::Nofile).with("limit", number(limit)));
    }

    fn open_device(&mut self, pid: u32, flags: u32, served: &Served) {
        let label = self.label("device");
        let call = Call::new(Op::Open)
            .with("path", text("/dev/liveupdate"))
            .with("flags", number(flags & KEPT_FLAGS))
            .with("as", text(label.clone()));
        if self.add(pid, call, &served.answer)
            && let Some(device) = served.device
        {
            self.give(pid, &label);
            self.devices.insert(device, label);
        }
    }

    /// The device that a call is made on; it may have been opened without our being asked.
    fn device_label(&mut self, pid: u32, served: &Served) -> String {
        let label = served.device.and_then(|device| self.devices.get(&device)).cloned();
        match label {
            Some(label) => {
                self.bring(pid, &label);
                label
            }
            None => String::from("device"),
        }
    }

    /// What a call of either kind is made on.
    fn on(&mut self, pid: u32, on: &On, served: &Served) -> Option<(&'static str, String)> {
        match on {
            On::Device(_) => Some(("device", self.device_label(pid, served))),
            On::Session(..) => Some(("session", self.session_label(pid, served)?)),
        }
    }

    /// Calls that only the posted designs have.
    fn posted(&mut self, pid: u32, served: &Served) {
        let Some(call) = self.posted_call(pid, served) else { return };
        self.add(pid, call, &served.answer);
    }

    fn posted_call(&mut self, pid: u32, served: &Served) -> Option<Call> {
        let call = match &served.deed {
            Deed::UnpreserveFd { on, token, reserved, .. } => {
                let (kind, label) = self.on(pid, on, served)?;
                let op = if kind == "session" { Op::Unpreserve } else { Op::FdUnpreserve };
                let call = Call::new(op).with(kind, text(label)).with("token", number(*token));
                if *reserved == 0 { call } else { call.with("reserved", number(*reserved)) }
            }
            Deed::GetState { on, state, .. } => {
                let (_, label) = self.on(pid, on, served)?;
                told(Call::new(Op::GetState).with("fd", text(label)), *state)
            }
            Deed::SetEvent { on, event, .. } => {
                let (_, label) = self.on(pid, on, served)?;
                Call::new(Op::SetEvent).with("fd", text(label)).with("event", text(event.name()))
            }
            Deed::GetFdState { token, incoming, state, .. } => {
                let device = self.device_label(pid, served);
                let call = Call::new(Op::FdState).with("device", text(device)).with("token", number(*token));
                let call = if *incoming { call.with("incoming", number(1)) } else { call };
                told(call, *state)
            }
            Deed::SetFdEvent { token, event, .. } => {
                let device = self.device_label(pid, served);
                let call = Call::new(Op::FdEvent).with("device", text(device));
                call.with("event", text(event.name())).with("token", number(*token))
            }
            _ => return None,
        };
        Some(call)
    }

    fn session(&mut self, pid: u32, op: Op, name: &[u8], served: &Served) {
        let device = self.device_label(pid, served);
        let label = self.label("session");
        let call = Call::new(op).with("device", text(device)).with("as", text(label.clone()));
        let call = match std::str::from_utf8(name) {
            Ok(name) => call.with("name", text(name)),
            Err(_) => call.with("name", text("")).with("hex", Value::Bytes(name.to_vec())),
        };
        if self.add(pid, call, &served.answer)
            && let Some(session) = served.session
        {
            self.give(pid, &label);
            self.sessions.insert(session, label);
        }
    }

    fn session_label(&mut self, pid: u32, served: &Served) -> Option<String> {
        let label = self.sessions.get(&served.session?)?.clone();
        self.bring(pid, &label);
        Some(label)
    }

    fn on_session(&mut self, pid: u32, call: Call, parameter: &str, served: &Served) {
        let Some(label) = self.session_label(pid, served) else { return };
        self.add(pid, call.with(parameter, text(label)), &served.answer);
    }

    fn preserve(&mut self, pid: u32, served: &Served) {
        let Deed::PreserveFd { on, fd, token, flags, file, .. } = &served.deed else { return };
        let Some((kind, label)) = self.on(pid, on, served) else { return };
        let what = match file {
            Subject::Memory { inode, name, size, seals, position } => {
                text(self.memory_file(pid, *inode, name, (*size, *seals, *position)))
            }
            Subject::Foreign => text(self.foreign_file(pid)),
            Subject::Bad => number(if *fd < 0 { *fd } else { 1 << 20 }),
        };
        let op = if kind == "session" { Op::Preserve } else { Op::FdPreserve };
        let call = Call::new(op).with(kind, text(label)).with("fd", what).with("token", number(*token));
        let call = if *flags == 0 { call } else { call.with("flags", number(*flags)) };
        self.add(pid, call, &served.answer);
    }

    /// The label of a memory file, made as it is now.
    fn memory_file(
        &mut self,
        pid: u32,
        inode: u64,
        name: &str,
        (size, seals, position): (u64, u32, u64),
    ) -> String {
        if let Some(file) = self.files.get(&inode) {
            let (label, was_size, was_seals) = (file.label.clone(), file.size, file.seals);
            self.bring(pid, &label);
            self.adapt(pid, &label, (was_size, was_seals), (size, seals));
            self.files.insert(inode, File { label: label.clone(), size, seals });
            return label;
        }
        let label = self.label("memory");
        let noexec = seals & SEAL_EXEC != 0;
        let sealable = seals & SEAL_SEAL == 0 || seals != SEAL_SEAL;
        let flags = if noexec {
            0x8
        } else if sealable {
            0x2
        } else {
            0
        };
        let mut call = Call::new(Op::Memfd).with("name", text(name)).with("as", text(label.clone()));
        if flags != 0 {
            call = call.with("flags", number(flags));
        }
        self.push(pid, call);
        self.give(pid, &label);
        let first = if noexec {
            SEAL_EXEC
        } else if sealable {
            0
        } else {
            SEAL_SEAL
        };
        self.adapt(pid, &label, (0, first), (size, seals));
        if position != 0 {
            let offset = i128::from(position.min(i64::MAX.unsigned_abs()));
            self.push(
                pid,
                Call::new(Op::Lseek).with("fd", text(label.clone())).with("offset", number(offset)),
            );
        }
        self.files.insert(inode, File { label: label.clone(), size, seals });
        label
    }

    /// Gives a file the size and the seals that it has now.
    fn adapt(&mut self, pid: u32, label: &str, was: (u64, u32), is: (u64, u32)) {
        if was.0 != is.0 {
            let call = Call::new(Op::Ftruncate).with("fd", text(label)).with("size", number(is.0));
            self.push(pid, call);
        }
        let new = is.1 & !was.1;
        if new != 0 {
            self.push(pid, Call::new(Op::AddSeals).with("fd", text(label)).with("seals", number(new)));
        }
    }

    fn foreign_file(&mut self, pid: u32) -> String {
        if let Some(label) = self.foreign.clone() {
            self.bring(pid, &label);
            return label;
        }
        let label = self.label("foreign");
        self.push(pid, Call::new(Op::Eventfd).with("as", text(label.clone())));
        self.give(pid, &label);
        self.foreign = Some(label.clone());
        label
    }

    fn retrieve(&mut self, pid: u32, on: &On, token: u64, served: &Served) {
        let Some((kind, on)) = self.on(pid, on, served) else { return };
        let label = self.label("retrieved");
        let op = if kind == "session" { Op::Retrieve } else { Op::FdRestore };
        let call =
            Call::new(op).with(kind, text(on)).with("token", number(token)).with("as", text(label.clone()));
        if self.add(pid, call, &served.answer) {
            self.give(pid, &label);
            if let Some(inode) = served.inode {
                self.files.entry(inode).or_insert(File { label, size: u64::MAX, seals: u32::MAX });
            }
        }
    }

    fn ioctl(&mut self, pid: u32, code: u32, argument: &[u8], cut: bool, served: &Served) {
        let label = match self.session_label(pid, served) {
            Some(label) => label,
            None => self.device_label(pid, served),
        };
        let mut call = Call::new(Op::Ioctl).with("fd", text(label)).with("cmd", number(code));
        let fault = is_fault(&served.answer);
        if !argument.is_empty() {
            call = call.with("arg", Value::Bytes(argument.to_vec()));
            // Readable to its end and yet a fault: the reply could not be written.
            let flag = if cut { "truncated" } else { "readonly" };
            if cut || fault {
                call = call.with(flag, number(1));
            }
        }
        self.add(pid, call, &served.answer);
    }

    fn frozen(&mut self, pid: u32, inode: Option<u64>, change: Change, answer: &Answer) {
        let Some(label) = inode.and_then(|inode| self.files.get(&inode)).map(|file| file.label.clone())
        else {
            return;
        };
        self.bring(pid, &label);
        let fd = text(label);
        let call = match change {
            Change::Size(size) if size >= 0 => Call::new(Op::Ftruncate).with("size", number(size)),
            Change::Layout { mode, at, len } if at >= 0 && len > 0 => Call::new(Op::Fallocate)
                .with("mode", number(mode))
                .with("at", number(at))
                .with("len", number(len)),
            Change::Seals(seals) => Call::new(Op::AddSeals).with("seals", number(seals)),
            Change::Write { at, len } => {
                let call = Call::new(Op::Write).with("at", number(at)).with("len", number(len));
                let call = call.with("seed", number(0));
                match answer {
                    Answer::Value(written) => call.with("result", number(*written)),
                    _ => call,
                }
            }
            _ => return,
        };
        self.add(pid, call.with("fd", fd), answer);
    }

    fn image(&mut self, pid: u32, old: bool, cmdline: Option<&str>, served: &Served) {
        let Some(cmdline) = cmdline else {
            self.add(pid, Call::new(Op::KexecUnload), &served.answer);
            return;
        };
        let mut call = self.boot_call(Op::KexecLoad, served.generation + 1, cmdline);
        if old {
            call = call.with("old", number(1));
        }
        self.add(pid, call, &served.answer);
    }

    fn reboot(&mut self, pid: u32, command: &str, answer: &Answer) {
        if command != KEXEC {
            return;
        }
        let call = Call::new(Op::RebootKexec);
        let call = if let Answer::Value(_) = answer { call.with("returns", number(1)) } else { call };
        if self.add(pid, call, answer) && *answer == Answer::None {
            self.rebooted = true;
        }
    }
}
