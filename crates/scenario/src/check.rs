//! What can be told without running: labels, processes and sessions that do not exist.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, suggest};
use crate::step::{Call, Scenario, Step, Value};
use crate::table::{Kind, Op};

#[derive(Clone, Default)]
struct Labels {
    fds: BTreeSet<String>,
    maps: BTreeSet<String>,
}

#[derive(Default)]
struct World {
    processes: BTreeMap<String, Labels>,
    ended: BTreeSet<String>,
    sessions: BTreeSet<String>,
    /// Sessions may come from an image, whose names are not in the document.
    image: bool,
    booted: bool,
}

/// Adds a diagnostic for every reference to something that does not exist.
pub(crate) fn check(scenario: &Scenario, problems: &mut Vec<Diagnostic>) {
    let mut world = World::default();
    for step in &scenario.steps {
        match step {
            Step::Machine(call) => world.machine(call, problems),
            Step::Process { process, call } => world.process(process, call, problems),
        }
    }
}

impl World {
    fn machine(&mut self, call: &Call, problems: &mut Vec<Diagnostic>) {
        if call.op == Op::Boot && self.booted {
            let problem = Diagnostic::new(call.span.0.clone(), "the machine is on already");
            problems.push(problem.with_help("use `cold-reset`, or `kexec-load` and `reboot-kexec`"));
        }
        self.image |= call.op == Op::BootImage;
        self.booted = true;
        if call.op.ends_kernel() {
            self.new_kernel();
        }
    }

    fn new_kernel(&mut self) {
        self.processes.clear();
        self.ended.clear();
    }

    fn process(&mut self, process: &str, call: &Call, problems: &mut Vec<Diagnostic>) {
        if self.ended.contains(process) {
            let message = format!("process `{process}` has ended");
            problems.push(
                Diagnostic::new(call.span.0.clone(), message).with_help("give a new process another name"),
            );
            return;
        }
        self.booted = true;
        self.processes.entry(process.to_owned()).or_default();
        for (index, value) in &call.values {
            if let Value::Text(text) = value {
                self.reference(process, call, call.op.spec().params[*index].kind, text, problems);
            }
        }
        self.session(call, problems);
        if call.error.is_none() {
            self.effects(process, call);
        }
    }

    fn reference(&self, process: &str, call: &Call, kind: Kind, text: &str, problems: &mut Vec<Diagnostic>) {
        let labels = &self.processes[process];
        let (what, known): (&str, Vec<&str>) = match kind {
            Kind::Fd if !labels.fds.contains(text) => {
                ("descriptor", labels.fds.iter().map(String::as_str).collect())
            }
            Kind::Map if !labels.maps.contains(text) => {
                ("mapping", labels.maps.iter().map(String::as_str).collect())
            }
            Kind::Process if !self.processes.contains_key(text) => {
                ("process", self.processes.keys().map(String::as_str).collect())
            }
            _ => return,
        };
        let message = format!("unknown {what} `{text}` in process `{process}`");
        problems.push(Diagnostic::new(call.span.0.clone(), message).with_help(suggest(text, &known)));
    }

    /// A retrieved session must have been made somewhere, unless the step expects it not to be there.
    fn session(&mut self, call: &Call, problems: &mut Vec<Diagnostic>) {
        let Some(name) = call.text("name") else { return };
        match call.op {
            Op::CreateSession => {
                self.sessions.insert(name.to_owned());
            }
            Op::RetrieveSession if call.error.is_none() && !self.image && !self.sessions.contains(name) => {
                let known: Vec<&str> = self.sessions.iter().map(String::as_str).collect();
                let message = format!("unknown session `{name}`");
                problems.push(Diagnostic::new(call.span.0.clone(), message).with_help(suggest(name, &known)));
            }
            _ => {}
        }
    }

    fn effects(&mut self, process: &str, call: &Call) {
        let params = call.op.spec().params;
        let labels = self.processes.get_mut(process).expect("entered by the caller");
        for (index, value) in &call.values {
            match (params[*index].kind, value) {
                (Kind::NewFd, Value::Text(label)) => {
                    labels.fds.insert(label.clone());
                }
                (Kind::NewMap, Value::Text(label)) => {
                    labels.maps.insert(label.clone());
                }
                _ => {}
            }
        }
        match call.op {
            Op::Close => {
                labels.fds.remove(call.text("fd").unwrap_or(""));
            }
            Op::Munmap => {
                labels.maps.remove(call.text("map").unwrap_or(""));
            }
            Op::Fork => {
                let child = labels.clone();
                self.processes.insert(call.text("child").unwrap_or("").to_owned(), child);
            }
            Op::Exit => self.end(process),
            Op::Kill => self.end(call.text("victim").unwrap_or("")),
            Op::RebootKexec if call.number("returns").unwrap_or(0) == 0 => self.new_kernel(),
            _ => {}
        }
    }

    fn end(&mut self, process: &str) {
        self.processes.remove(process);
        self.ended.insert(process.to_owned());
    }
}
