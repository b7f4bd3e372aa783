//! The scenario as data: what a parser, a property test or an explorer makes, and a runner runs.

use std::ops::Range;

use luosim_abi::Errno;
use luosim_abi::profile::Profile;

use crate::table::Op;

/// A place in the document a step came from; of no matter for equality.
#[derive(Clone, Debug, Default)]
pub struct Span(pub Range<usize>);

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Span {}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A label, a name, a text.
    Text(String),
    /// A number: sizes in bytes, flags as bits, booleans as 0 and 1, tokens.
    Number(i128),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// One system call, or one thing done to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub op: Op,
    /// Parameters given, in the order of the operation's table, by index into it.
    pub values: Vec<(usize, Value)>,
    /// The errno that is expected; none: the call must succeed.
    pub error: Option<Errno>,
    /// Where it stands.
    pub span: Span,
}

impl Call {
    /// A call without parameters, to be filled with [`Self::with`].
    #[must_use]
    pub fn new(op: Op) -> Self {
        Self { op, values: Vec::new(), error: None, span: Span::default() }
    }

    /// The call with a parameter more.
    ///
    /// # Panics
    /// If the operation has no such parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        let index = self.op.spec().params.iter().position(|param| param.name == name);
        let index = index.unwrap_or_else(|| panic!("`{}` has no parameter `{name}`", self.op.spec().name));
        self.values.push((index, value));
        self.values.sort_by_key(|(index, _)| *index);
        self
    }

    /// A parameter, if it was given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let params = self.op.spec().params;
        self.values.iter().find(|(index, _)| params[*index].name == name).map(|(_, value)| value)
    }

    /// A text parameter.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number parameter.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i128> {
        match self.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A number parameter that fits in 64 bits without sign.
    #[must_use]
    pub fn u64(&self, name: &str) -> Option<u64> {
        self.number(name).and_then(|number| u64::try_from(number).ok())
    }

    /// A bytes parameter.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.get(name)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Done to the machine from outside.
    Machine(Call),
    /// A system call by a process.
    Process {
        /// The process, started at its first step.
        process: String,
        /// The call.
        call: Call,
    },
}

impl Step {
    /// The call in it.
    #[must_use]
    pub fn call(&self) -> &Call {
        match self {
            Self::Machine(call) | Self::Process { call, .. } => call,
        }
    }
}

/// A scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// One line: what it shows.
    pub about: String,
    /// Bytes of memory of the machine.
    pub memory: u64,
    /// Which file types its kernels have beside their release's.
    pub profile: Profile,
    /// Ticks that each phase of a kexec takes its devices; `None` for as many as the hardware has by itself.
    pub phase_ticks: Option<u32>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// Most ticks that a phase of a kexec may take: a tenth of a virtual second.
pub const MOST_PHASE_TICKS: u32 = 1_000_000;

/// Memory of a machine that does not say.
pub const DEFAULT_MEMORY: u64 = 64 << 20;
