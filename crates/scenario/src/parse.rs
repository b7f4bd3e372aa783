//! Reading a document: KDL first, then every node against the table.

use std::ops::Range;

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};
use luosim_abi::Errno;
use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;

use crate::check;
use crate::diagnostic::{Diagnostic, suggest};
use crate::names;
use crate::nesting::{self, Fault};
use crate::step::{Call, DEFAULT_MEMORY, MOST_PHASE_TICKS, Scenario, Span, Step, Value};
use crate::table::{Kind, OPERATIONS, Op, Param, Spec};

/// Largest document.
pub(crate) const MAX_BYTES: usize = 2 << 20;
/// Deepest nesting: the language needs one level.
const MAX_DEPTH: usize = 16;

/// Reads and checks a scenario.
///
/// # Errors
/// Every problem found, in the order of the document.
pub fn parse(text: &str) -> Result<Scenario, Vec<Diagnostic>> {
    check_size(text).map_err(|problem| vec![problem])?;
    let document = follow(text)?;
    let mut reader = Reader::default();
    reader.document(&document);
    if reader.problems.is_empty() {
        check::check(&reader.scenario, &mut reader.problems);
    }
    if reader.problems.is_empty() {
        return Ok(reader.scenario);
    }
    reader.problems.sort_by_key(|problem| problem.span.start);
    Err(reader.problems)
}

/// Stack that the library needs for a byte of a document that is one error after the other.
const STACK_PER_BYTE: usize = 2 << 10;

/// Reads a document as KDL, with a stack that it cannot use up: the library recovers from each error one call deeper.
fn follow(text: &str) -> Result<KdlDocument, Vec<Diagnostic>> {
    let stack = (16 << 20) + text.len() * STACK_PER_BYTE;
    let parsed = std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(stack);
        let reader = reader.spawn_scoped(scope, || KdlDocument::parse_v2(text));
        reader.map(|thread| thread.join().expect("the library answers every text"))
    });
    match parsed {
        Ok(document) => document.map_err(|error| syntax(text, &error)),
        Err(error) => Err(vec![Diagnostic::new(0..0, format!("the host has no room to read this: {error}"))]),
    }
}

/// A parser that follows the nesting must not be given more of it than the stack holds.
fn check_size(text: &str) -> Result<(), Diagnostic> {
    if text.len() > MAX_BYTES {
        return Err(Diagnostic::new(
            0..0,
            format!("a scenario has at most {MAX_BYTES} bytes, this one {}", text.len()),
        ));
    }
    nesting::check(text.as_bytes(), MAX_DEPTH).map_err(|fault| match fault {
        Fault::TooDeep(at) => {
            Diagnostic::new(at..at + 1, "nested too deeply").with_help("the language has one level of blocks")
        }
        Fault::Stray(at) => Diagnostic::new(at..at + 1, "this closes nothing that is open"),
    })
}

fn syntax(text: &str, error: &kdl::KdlError) -> Vec<Diagnostic> {
    error
        .diagnostics
        .iter()
        .map(|found| {
            let start = found.span.offset().min(text.len());
            let end = (start + found.span.len()).min(text.len());
            let message = found.message.clone().unwrap_or_else(|| String::from("this is not KDL"));
            Diagnostic { span: start..end, message, help: found.help.clone() }
        })
        .collect()
}

fn span_of(node: &KdlNode) -> Range<usize> {
    let span = node.name().span();
    span.offset()..span.offset() + span.len()
}

fn entry_span(entry: &KdlEntry) -> Range<usize> {
    let span = entry.span();
    span.offset()..span.offset() + span.len()
}

#[derive(Default)]
struct Reader {
    scenario: Scenario,
    problems: Vec<Diagnostic>,
}

impl Reader {
    fn document(&mut self, document: &KdlDocument) {
        self.scenario.memory = DEFAULT_MEMORY;
        let mut headed = false;
        for node in document.nodes() {
            match node.name().value() {
                "scenario" => {
                    headed = true;
                    self.header(node);
                }
                "machine" => self.machine(node),
                "process" => self.process(node),
                _ => {
                    if let Some(call) = self.call(node, false) {
                        self.scenario.steps.push(Step::Machine(call));
                    }
                }
            }
        }
        if !headed {
            let problem = Diagnostic::new(0..0, "the document has no `scenario` node");
            self.problems.push(problem.with_help("begin with: scenario \"name\" about=\"what it shows\""));
        }
    }

    fn header(&mut self, node: &KdlNode) {
        for entry in node.entries() {
            match (entry.name().map(kdl::KdlIdentifier::value), entry.value()) {
                (None, KdlValue::String(name)) if self.scenario.name.is_empty() => {
                    self.scenario.name.clone_from(name);
                }
                (Some("about"), KdlValue::String(about)) => self.scenario.about.clone_from(about),
                _ => self
                    .problems
                    .push(Diagnostic::new(entry_span(entry), "`scenario` takes a name and `about`")),
            }
        }
        if self.scenario.name.is_empty() {
            self.problems.push(Diagnostic::new(span_of(node), "the scenario has no name"));
        }
    }

    fn machine(&mut self, node: &KdlNode) {
        for entry in node.entries() {
            match entry.name().map(kdl::KdlIdentifier::value) {
                Some("memory") => self.memory(entry),
                Some("profile") => self.profile(entry),
                Some("phase-ticks") => self.phase_ticks(entry),
                _ => self.not_of_a_machine(entry),
            }
        }
    }

    fn not_of_a_machine(&mut self, entry: &KdlEntry) {
        let what = "`machine` takes `memory`, from 16MiB to 1TiB in pages, `profile` and `phase-ticks`";
        let problem = Diagnostic::new(entry_span(entry), what);
        self.problems.push(problem.with_help("for example: machine memory=\"256MiB\" profile=\"target\""));
    }

    fn memory(&mut self, entry: &KdlEntry) {
        let memory = match entry.value() {
            KdlValue::String(text) => names::size(text),
            KdlValue::Integer(bytes) => u64::try_from(*bytes).ok(),
            _ => None,
        };
        match memory.filter(|bytes| bytes % 4096 == 0 && (16 << 20..=1 << 40).contains(bytes)) {
            Some(memory) => self.scenario.memory = memory,
            None => self.not_of_a_machine(entry),
        }
    }

    fn profile(&mut self, entry: &KdlEntry) {
        let name = entry.value().as_string().unwrap_or("");
        match Profile::from_name(name) {
            Some(profile) => self.scenario.profile = profile,
            None => {
                let known: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name()).collect();
                let problem =
                    Diagnostic::new(entry_span(entry), format!("`profile` cannot be {}", entry.value()));
                self.problems.push(problem.with_help(format!("one of: {}", known.join(", "))));
            }
        }
    }

    fn phase_ticks(&mut self, entry: &KdlEntry) {
        let ticks = entry.value().as_integer().and_then(|ticks| u32::try_from(ticks).ok());
        match ticks.filter(|ticks| *ticks <= MOST_PHASE_TICKS) {
            Some(ticks) => self.scenario.phase_ticks = Some(ticks),
            None => {
                let problem =
                    Diagnostic::new(entry_span(entry), format!("`phase-ticks` cannot be {}", entry.value()));
                self.problems.push(problem.with_help(format!("ticks, from 0 to {MOST_PHASE_TICKS}")));
            }
        }
    }

    fn process(&mut self, node: &KdlNode) {
        let name = match node.entries() {
            [entry] if entry.name().is_none() => entry.value().as_string().map(str::to_owned),
            _ => None,
        };
        let Some(process) = name.filter(|name| !name.is_empty()) else {
            let problem =
                Diagnostic::new(span_of(node), "`process` takes the name of a process and a block of steps");
            self.problems.push(problem);
            return;
        };
        for child in node.children().map(KdlDocument::nodes).unwrap_or_default() {
            if let Some(call) = self.call(child, true) {
                self.scenario.steps.push(Step::Process { process: process.clone(), call });
            }
        }
    }

    fn call(&mut self, node: &KdlNode, by_process: bool) -> Option<Call> {
        let name = node.name().value();
        let known: Vec<&str> = OPERATIONS
            .iter()
            .filter(|(_, spec)| spec.by_process == by_process)
            .map(|(_, spec)| spec.name)
            .chain(if by_process { &[][..] } else { &["scenario", "machine", "process"][..] }.iter().copied())
            .collect();
        let op = Op::from_name(name).filter(|op| op.spec().by_process == by_process);
        let Some(op) = op else {
            self.unknown_step(node, by_process, &known);
            return None;
        };
        if node.children().is_some() {
            self.problems.push(Diagnostic::new(span_of(node), format!("`{name}` takes no block")));
        }
        let mut call = Call::new(op);
        call.span = Span(span_of(node));
        let entries = positions(node);
        let given: Vec<usize> = entries
            .into_iter()
            .filter_map(|(position, entry)| self.entry(&mut call, op.spec(), position, entry))
            .collect();
        self.missing(&call, &given, span_of(node));
        call.values.sort_by_key(|(index, _)| *index);
        Some(call)
    }

    fn unknown_step(&mut self, node: &KdlNode, by_process: bool, known: &[&str]) {
        let name = node.name().value();
        let elsewhere = Op::from_name(name).is_some();
        let help = match (elsewhere, by_process) {
            (true, true) => String::from("it is done to the machine: write it outside of `process`"),
            (true, false) => format!("a process does it: write process NAME {{ {name} … }}"),
            (false, _) => suggest(name, known),
        };
        self.problems.push(Diagnostic::new(span_of(node), format!("unknown step `{name}`")).with_help(help));
    }

    /// Reads one value; gives the place of its parameter, be the value good or bad.
    fn entry(
        &mut self,
        call: &mut Call,
        spec: &'static Spec,
        position: usize,
        entry: &KdlEntry,
    ) -> Option<usize> {
        let span = entry_span(entry);
        let name = entry.name().map(kdl::KdlIdentifier::value);
        if name == Some("error") {
            self.error(call, entry);
            return None;
        }
        let found = match name {
            Some(name) => spec.params.iter().position(|param| param.name == name),
            None => spec
                .params
                .iter()
                .enumerate()
                .filter(|(_, param)| param.positional)
                .map(|(at, _)| at)
                .nth(position),
        };
        let Some(index) = found else {
            let known: Vec<&str> = spec.params.iter().map(|param| param.name).chain(["error"]).collect();
            let what = name.map_or_else(
                || String::from("one value too many for"),
                |name| format!("unknown `{name}` of"),
            );
            let help = name.map_or_else(|| usage(spec), |name| suggest(name, &known));
            self.problems.push(Diagnostic::new(span, format!("{what} `{}`", spec.name)).with_help(help));
            return None;
        };
        if call.values.iter().any(|(other, _)| *other == index) {
            let param = spec.params[index].name;
            self.problems.push(Diagnostic::new(span, format!("`{param}` is given twice")));
            return Some(index);
        }
        match value(&spec.params[index], entry.value()) {
            Ok(value) => call.values.push((index, value)),
            Err((message, help)) => {
                let message = format!("`{}` of `{}` {message}", spec.params[index].name, spec.name);
                let problem = Diagnostic::new(span, message);
                self.problems.push(Diagnostic { help, ..problem });
            }
        }
        Some(index)
    }

    fn error(&mut self, call: &mut Call, entry: &KdlEntry) {
        let name = entry.value().as_string().unwrap_or("");
        call.error = Errno::from_name(name);
        if call.error.is_none() || call.op.spec().name.starts_with("expect-") {
            let known: Vec<&str> = Errno::ALL.iter().map(|errno| errno.name()).collect();
            let help = if call.error.is_none() {
                suggest(name, &known)
            } else {
                String::from("an expectation cannot fail")
            };
            let problem = Diagnostic::new(entry_span(entry), format!("`error` cannot be `{name}`"));
            self.problems.push(problem.with_help(help));
        }
    }

    fn missing(&mut self, call: &Call, given: &[usize], span: Range<usize>) {
        let spec = call.op.spec();
        for (index, param) in spec.params.iter().enumerate() {
            let given = given.contains(&index);
            let replaced = param.name == "name" && call.get("hex").is_some();
            let needless = param.name == "as" && call.error.is_some();
            if param.required && !given && !replaced && !needless {
                let problem = Diagnostic::new(
                    span.clone(),
                    format!("`{}` needs `{}`: {}", spec.name, param.name, param.about),
                );
                self.problems.push(problem.with_help(usage(spec)));
            }
        }
    }
}

/// Entries with their position among the unnamed ones.
fn positions(node: &KdlNode) -> impl Iterator<Item = (usize, &KdlEntry)> {
    let mut next = 0;
    node.entries().iter().map(move |entry| {
        let position = next;
        next += usize::from(entry.name().is_none());
        (position, entry)
    })
}

/// How a step is written: `preserve SESSION FD token=…`.
pub(crate) fn usage(spec: &Spec) -> String {
    let params = spec.params.iter().map(|param| match (param.positional, param.required) {
        (true, _) => param.name.to_uppercase(),
        (false, true) => format!("{}=…", param.name),
        (false, false) => format!("[{}=…]", param.name),
    });
    let params: Vec<String> = params.collect();
    format!("usage: {} {}", spec.name, params.join(" "))
}

type BadValue = (String, Option<String>);

fn value(param: &Param, value: &KdlValue) -> Result<Value, BadValue> {
    let plain = |message: &str| (message.to_owned(), None);
    match param.kind {
        Kind::Fd => match value {
            KdlValue::String(label) => Ok(Value::Text(label.clone())),
            KdlValue::Integer(fd) if i32::try_from(*fd).is_ok() => Ok(Value::Number(*fd)),
            _ => Err(plain("is a label or a descriptor number")),
        },
        Kind::NewFd | Kind::Map | Kind::NewMap | Kind::Process | Kind::NewProcess | Kind::Text => {
            let text = value.as_string().ok_or_else(|| plain("is a text"))?;
            Ok(Value::Text(text.to_owned()))
        }
        Kind::Hex => {
            let bytes = value.as_string().and_then(names::hex);
            bytes.map(Value::Bytes).ok_or_else(|| plain("is pairs of hexadecimal digits"))
        }
        Kind::Number(from, to) => {
            let number = value.as_integer().filter(|number| (from..=to).contains(number));
            number.map(Value::Number).ok_or_else(|| plain(&format!("is a whole number from {from} to {to}")))
        }
        Kind::Size => size(value).ok_or_else(|| plain("is a size, such as 4096 or \"64KiB\"")),
        Kind::Bool => {
            let bool = value.as_bool().ok_or_else(|| plain("is #true or #false"))?;
            Ok(Value::Number(i128::from(bool)))
        }
        Kind::Flags(table) => flags(value, table),
        Kind::Release => release(value),
        Kind::Word(words) => word(value, words),
        Kind::Quirks => quirks(value),
    }
}

fn size(value: &KdlValue) -> Option<Value> {
    let bytes = match value {
        KdlValue::Integer(bytes) => u64::try_from(*bytes).ok(),
        KdlValue::String(text) => names::size(text),
        _ => None,
    };
    bytes.filter(|bytes| *bytes <= 0x7fff_ffff_ffff_ffff).map(|bytes| Value::Number(i128::from(bytes)))
}

fn flags(value: &KdlValue, table: &[(&'static str, u64)]) -> Result<Value, BadValue> {
    match value {
        KdlValue::Integer(bits) if u32::try_from(*bits).is_ok() => Ok(Value::Number(*bits)),
        KdlValue::String(text) => match names::flags(text, table) {
            Ok(bits) => Ok(Value::Number(i128::from(bits))),
            Err(unknown) => {
                let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
                Err((format!("has the unknown flag `{unknown}`"), Some(suggest(unknown, &known))))
            }
        },
        _ => Err((String::from("is names joined by |, or a number"), None)),
    }
}

fn release(value: &KdlValue) -> Result<Value, BadValue> {
    let text = value.as_string().unwrap_or("");
    if ReleaseId::named(text).is_some() {
        return Ok(Value::Text(text.to_owned()));
    }
    let known: Vec<&str> = ReleaseId::names().collect();
    let help = format!("one of: {} (as a text: release=\"7.3\")", known.join(", "));
    Err((format!("is no release luosim knows: {value}"), Some(help)))
}

fn word(value: &KdlValue, words: &'static [&'static str]) -> Result<Value, BadValue> {
    let text = value.as_string().unwrap_or("");
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    Err((format!("cannot be `{text}`"), Some(suggest(text, words))))
}

fn quirks(value: &KdlValue) -> Result<Value, BadValue> {
    let text = value.as_string().unwrap_or("");
    for name in text.split('|').map(str::trim) {
        if Quirk::from_name(name).is_none() {
            let known: Vec<&str> = Quirk::ALL.iter().map(|quirk| quirk.name()).collect();
            return Err((format!("has the unknown quirk `{name}`"), Some(suggest(name, &known))));
        }
    }
    Ok(Value::Text(text.to_owned()))
}
