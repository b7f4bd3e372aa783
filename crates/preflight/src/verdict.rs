//! What would survive, layer by layer: a pure function of the formats of two kernels.
//!
//! The layers are gone through in the order in which a booting kernel does. What a refusal costs differs from layer
//! to layer: at the KHO root the new kernel shrugs and boots cold; above it the handover was already taken over, and a
//! LUO that cannot be understood panics, because going on could give one user's data to another; a handler that is
//! missing is noticed only when the device is opened. These consequences were seen on real kernels, or follow from
//! their code where it is hard to provoke them.

use serde::Serialize;

use crate::{Formats, Kernel, SessionFate, Source};

/// A layer of a handover, in the order of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Architecture and page size.
    Machine,
    /// Addresses of the root tree and of scratch, handed to the new kernel by its loader.
    BootParameters,
    /// Root tree.
    KhoRoot,
    /// Subtree of `reserve_mem=`.
    ReserveMem,
    /// Subtree of the orchestrator.
    LuoEntry,
    /// Its version.
    LuoRoot,
    /// Its sessions.
    Sessions,
    /// Its file-lifecycle-bound objects.
    Flb,
    /// One handler of files.
    Handler,
    /// One file-lifecycle-bound object.
    FlbObject,
}

impl Layer {
    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::BootParameters => "boot parameters",
            Self::KhoRoot => "KHO root",
            Self::ReserveMem => "reserve_mem",
            Self::LuoEntry => "LUO entry",
            Self::LuoRoot => "LUO root",
            Self::Sessions => "sessions",
            Self::Flb => "FLBs",
            Self::Handler => "files",
            Self::FlbObject => "FLB",
        }
    }
}

/// What the new kernel makes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It understands what the old one wrote.
    Accepted,
    /// It does not, and what that costs is said.
    Refused,
    /// It does not look at it, which does no harm.
    Ignored,
    /// The old kernel writes nothing there.
    Absent,
    /// A layer below was refused.
    NotReached,
}

impl State {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "REFUSED",
            Self::Ignored => "ignored",
            Self::Absent => "absent",
            Self::NotReached => "not reached",
        }
    }
}

/// What was found at one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub layer: Layer,
    /// What the old kernel writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What the new kernel reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
    /// Whether it is understood.
    pub state: State,
    /// What follows, in words; not empty where something is refused.
    pub text: String,
}

/// How the new kernel comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// With the handover.
    Handover,
    /// Without it.
    Cold,
    /// With the handover, but without an orchestrator that could give sessions back.
    LuoOff,
    /// Not at all.
    Panic,
    /// The old kernel does not load it.
    NotLoaded,
    /// Nobody knows: nothing checks what differs.
    Undefined,
}

/// How much of what the old kernel can hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Some of it.
    Part,
    /// All of it.
    All,
}

/// What would survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How much.
    pub survives: Survival,
    /// How the new kernel comes up.
    pub boot: Boot,
    /// Why, layer by layer.
    pub layers: Vec<Finding>,
    /// Of a handover: what becomes of each session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<SessionFate>>,
    /// What is assumed, and what else to know.
    pub notes: Vec<String>,
}

const COLD: &str =
    "the new kernel boots without a handover; what was preserved is free memory to it, and lost";
const PANIC: &str = "the new kernel panics early in its boot";
const MISREAD: &str = "no version says it and nothing checks it: the new kernel misreads the whole handover";

impl Verdict {
    /// What would survive a kexec from a kernel with the formats `old` to one with `new`. KHO and LUO are taken to be on
    /// in both, and the image to be loaded by `kexec_file_load`.
    #[must_use]
    pub fn of(old: &Formats, new: &Formats) -> Self {
        let mut walk = Walk { old, new, stopped: None, layers: Vec::new() };
        walk.machine();
        walk.boot_parameters();
        walk.kho_root();
        walk.reserve_mem();
        walk.luo_entry();
        walk.luo_root();
        walk.sessions();
        walk.flb();
        walk.handlers();
        walk.flb_objects();
        walk.verdict()
    }

    /// The same for two kernels, with what else is to be known of them.
    #[must_use]
    pub fn between(old: &Kernel, new: &Kernel) -> Self {
        let mut verdict = Self::of(&old.formats, &new.formats);
        verdict.note_kernels(old, new);
        verdict
    }

    /// Adds what is to be known of the kernels beside their formats.
    pub(crate) fn note_kernels(&mut self, old: &Kernel, new: &Kernel) {
        if matches!(self.boot, Boot::NotLoaded | Boot::Undefined | Boot::Cold) {
            return;
        }
        self.notes.push(switches(old, new));
        if matches!(new.source, Source::File { .. }) && self.boot == Boot::Handover {
            self.notes.push(String::from("handlers in modules of NEW are not seen"));
        }
    }

    /// The first thing that is refused.
    #[must_use]
    pub fn first_refusal(&self) -> Option<&Finding> {
        self.layers.iter().find(|finding| finding.state == State::Refused)
    }
}

/// Which switches are assumed to be on.
fn switches(old: &Kernel, new: &Kernel) -> String {
    let of = |kernel: &Kernel| {
        let default = kernel.config.and_then(|config| config.kho_default_on) == Some(true);
        let kho = (!default).then_some("kho=on");
        let luo = kernel.formats.luo.is_some().then_some("liveupdate=on");
        kho.into_iter().chain(luo).collect::<Vec<_>>().join(" ")
    };
    let lines = match (of(old), of(new)) {
        (old, new) if old == new && old.is_empty() => String::new(),
        (old, new) if old == new => format!("both booted with {old}; "),
        (old, new) => {
            let booted =
                |name: &str, line: String| (!line.is_empty()).then(|| format!("{name} booted with {line}; "));
            booted("OLD", old).into_iter().chain(booted("NEW", new)).collect()
        }
    };
    format!("assumed: {lines}the image loaded by kexec_file_load")
}

/// Goes through the layers until one stops it.
struct Walk<'a> {
    old: &'a Formats,
    new: &'a Formats,
    /// How the boot goes on after a refusal that ends everything above.
    stopped: Option<Boot>,
    layers: Vec<Finding>,
}

impl Walk<'_> {
    fn find(&mut self, layer: Layer, strings: (Option<&str>, Option<&str>), state: State, text: &str) {
        let (old, new) = (strings.0.map(str::to_owned), strings.1.map(str::to_owned));
        let (state, text) = if self.stopped.is_some() { (State::NotReached, "") } else { (state, text) };
        self.layers.push(Finding { layer, old, new, state, text: text.to_owned() });
    }

    /// A refusal that nothing above survives.
    fn stop(&mut self, layer: Layer, strings: (Option<&str>, Option<&str>), boot: Boot, text: &str) {
        self.find(layer, strings, State::Refused, text);
        self.stopped.get_or_insert(boot);
    }

    fn machine(&mut self) {
        let names = |formats: &Formats| match (formats.arch, formats.page_size) {
            (Some(arch), Some(size)) => Some(format!("{}, {} KiB pages", arch.name(), size >> 10)),
            (Some(arch), None) => Some(arch.name()),
            (None, _) => None,
        };
        let (old, new) = (names(self.old), names(self.new));
        let strings = (old.as_deref(), new.as_deref());
        if differ(self.old.arch, self.new.arch) {
            let text = "the old kernel does not load an image for another machine";
            self.stop(Layer::Machine, strings, Boot::NotLoaded, text);
        } else if self.carries() && differ(self.old.page_size, self.new.page_size) {
            self.stop(Layer::Machine, strings, Boot::Undefined, &format!("the page sizes differ; {MISREAD}"));
        } else {
            self.find(Layer::Machine, strings, State::Accepted, "");
        }
    }

    /// Whether anything crosses at all.
    fn carries(&self) -> bool {
        self.old.kho.is_some() && self.new.kho.is_some()
    }

    fn boot_parameters(&mut self) {
        let layer = Layer::BootParameters;
        match (&self.old.kho, &self.new.kho) {
            (None, _) => {
                self.stop(layer, (None, None), Boot::Cold, "OLD has no KHO: it hands nothing over");
            }
            (_, None) => {
                let text = format!("NEW has no KHO and does not look at them: {COLD}");
                self.stop(layer, (None, None), Boot::Cold, &text);
            }
            _ => self.find(layer, (None, None), State::Accepted, ""),
        }
    }

    fn kho_root(&mut self) {
        let strings = (self.old.kho.as_deref(), self.new.kho.as_deref());
        if strings.0 == strings.1 {
            self.find(Layer::KhoRoot, strings, State::Accepted, "");
        } else {
            self.stop(Layer::KhoRoot, strings, Boot::Cold, COLD);
        }
    }

    fn reserve_mem(&mut self) {
        let strings = (self.old.memblock.as_deref(), self.new.memblock.as_deref());
        let (state, text) = match strings {
            (None, _) => (State::Absent, ""),
            (old, new) if old == new => {
                (State::Accepted, "regions that NEW's command line asks for by the same name and size")
            }
            _ => (
                State::Refused,
                "regions are allocated afresh; the old ones stay reserved until the next kexec",
            ),
        };
        self.find(Layer::ReserveMem, strings, state, text);
    }

    fn luo_entry(&mut self) {
        let entry = |luo: &Option<String>| luo.as_ref().map(|_| "LUO");
        let strings = (entry(&self.old.luo), entry(&self.new.luo));
        match strings {
            (Some(_), Some(_)) => self.find(Layer::LuoEntry, strings, State::Accepted, ""),
            (Some(_), None) => {
                let text = "NEW has no LUO: no /dev/liveupdate, sessions are out of reach, and their memory stays \
                            reserved until the next kexec or a reset";
                self.stop(Layer::LuoEntry, strings, Boot::LuoOff, text);
            }
            (None, Some(_)) => {
                self.find(
                    Layer::LuoEntry,
                    strings,
                    State::Absent,
                    "OLD has no LUO; that of NEW starts afresh",
                );
            }
            (None, None) => self.find(Layer::LuoEntry, strings, State::Absent, "neither has LUO"),
        }
    }

    fn luo_root(&mut self) {
        let strings = (self.old.luo.as_deref(), self.new.luo.as_deref());
        match strings {
            (None, _) => {}
            (old, new) if old == new => self.find(Layer::LuoRoot, strings, State::Accepted, ""),
            _ => self.stop(Layer::LuoRoot, strings, Boot::Panic, PANIC),
        }
    }

    fn sessions(&mut self) {
        let strings = (self.old.session.as_deref(), self.new.session.as_deref());
        match strings {
            _ if self.old.luo.is_none() => {}
            (None, None) => {
                self.find(Layer::Sessions, strings, State::Accepted, "their version is that of the root");
            }
            (old, new) if old == new => self.find(Layer::Sessions, strings, State::Accepted, ""),
            _ => self.stop(Layer::Sessions, strings, Boot::Panic, PANIC),
        }
    }

    fn flb(&mut self) {
        let strings = (self.old.flb.as_deref(), self.new.flb.as_deref());
        let layer = Layer::Flb;
        match strings {
            _ if self.old.luo.is_none() => {}
            (None, None) if self.old.luo.as_deref() == Some("luo-v1") => {
                self.find(layer, strings, State::Absent, "neither has them");
            }
            (None, None) => self.find(layer, strings, State::Accepted, "their version is that of the root"),
            (Some(_), None) => {
                self.find(
                    layer,
                    strings,
                    State::Ignored,
                    "NEW does not know them: objects are lost, a page leaks",
                );
            }
            (None, Some(_)) => {
                let text = format!("NEW insists on a node that OLD does not write: {PANIC}");
                self.stop(layer, strings, Boot::Panic, &text);
            }
            (old, new) if old == new => self.find(layer, strings, State::Accepted, ""),
            _ => self.stop(layer, strings, Boot::Panic, PANIC),
        }
    }

    fn handlers(&mut self) {
        for handler in &self.old.handlers {
            let same = self.new.handlers.contains(handler);
            let other = self.new.handlers.iter().find(|other| same_family(other, handler));
            let strings = (
                Some(handler.as_str()),
                if same { Some(handler.as_str()) } else { other.map(String::as_str) },
            );
            let (state, text) = if same {
                (State::Accepted, "")
            } else if forgives(self.new) {
                (
                    State::Refused,
                    "NEW has no such handler: in each session these files and those behind them are lost",
                )
            } else {
                (
                    State::Refused,
                    "NEW has no such handler: one such file, and no session comes back (open fails with EIO)",
                )
            };
            self.find(Layer::Handler, strings, state, text);
        }
    }

    fn flb_objects(&mut self) {
        for object in &self.old.flbs {
            let known = self.new.flbs.contains(object);
            let strings = (Some(object.as_str()), known.then_some(object.as_str()));
            let (state, text) = if known {
                (State::Accepted, "")
            } else {
                (State::Refused, "nobody in NEW asks for it: it is lost")
            };
            self.find(Layer::FlbObject, strings, state, text);
        }
    }

    fn verdict(self) -> Verdict {
        let unstopped = if self.new.luo.is_some() { Boot::Handover } else { Boot::LuoOff };
        let boot = self.stopped.unwrap_or(unstopped);
        let survives = match boot {
            Boot::Handover | Boot::LuoOff => self.survival(),
            Boot::Cold | Boot::Panic | Boot::NotLoaded | Boot::Undefined => Survival::Nothing,
        };
        let notes = self.notes(boot);
        Verdict { survives, boot, layers: self.layers, sessions: None, notes }
    }

    /// Counts what the old kernel can hand over: regions, sessions, files by handler, objects.
    fn survival(&self) -> Survival {
        let things = [Layer::ReserveMem, Layer::Sessions, Layer::Handler, Layer::FlbObject];
        let carried: Vec<bool> = self
            .layers
            .iter()
            .filter(|finding| things.contains(&finding.layer) && finding.state != State::Absent)
            .map(|finding| finding.state == State::Accepted)
            .collect();
        share(&carried)
    }

    fn notes(&self, boot: Boot) -> Vec<String> {
        let mut notes = Vec::new();
        let by_hand = self.old.kho.as_deref() == Some("kho-v1") && self.old.luo.is_none();
        if by_hand && matches!(boot, Boot::Handover | Boot::LuoOff) {
            notes.push(String::from(
                "OLD has no LUO that finalises KHO: write 1 to /sys/kernel/debug/kho/out/finalize, before the image is loaded",
            ));
        }
        if boot == Boot::Handover && self.old.handlers.iter().any(|handler| handler == "memfd-v1") {
            notes.push(String::from("memfd-v1 does not carry the seals of a file"));
        }
        let unknown = |formats: &Formats| formats.arch.is_some() && formats.page_size.is_none();
        if self.carries() && (unknown(self.old) || unknown(self.new)) {
            notes.push(String::from("the page size of one kernel is not known; both must have the same"));
        }
        notes
    }
}

/// All, some or none; nothing to lose is all.
pub(crate) fn share(carried: &[bool]) -> Survival {
    let count = carried.iter().filter(|carried| **carried).count();
    match count {
        _ if count == carried.len() => Survival::All,
        0 => Survival::Nothing,
        _ => Survival::Part,
    }
}

/// Whether both are known, and different.
fn differ<T: PartialEq>(old: Option<T>, new: Option<T>) -> bool {
    old.zip(new).is_some_and(|(old, new)| old != new)
}

fn same_family(one: &str, other: &str) -> bool {
    let name = |string| crate::formats::split(string).map(|(name, _)| name);
    name(one).is_some() && name(one) == name(other)
}

/// Whether a kernel passes over files whose handler it does not have: those before `kho-v3` do.
pub(crate) fn forgives(new: &Formats) -> bool {
    new.kho.as_deref() == Some("kho-v1")
}
