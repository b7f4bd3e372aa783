//! What a seed draws before anything else: how the machine is and what its programs like to do (a *swarm* of options). A run
//! that does little of everything finds little; one that does much of a few things finds what hides behind them.

use luosim_abi::quirk::Quirk;
use luosim_abi::release::{RELEASES, ReleaseId};

use super::action::Plan;
use super::rng::Rng;
use super::world::Case;

luosim_abi::named! {
    /// A kind of fault.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum FaultKind {
        Alloc = "alloc", "an allocation of the next call fails";
        Efault = "efault", "the argument of an ioctl cannot be read, or the reply not written back";
        Kill = "kill", "a process is killed, with what it holds and what is on its way to it";
        Handler = "handler", "a handler refuses: can_preserve, preserve, freeze, retrieve, can_finish";
        Abort = "abort", "a reboot is refused at a point of its serialisation, and tried again";
        Panic = "panic", "the kernel panics, between two calls or at a point of the serialisation; power is lost";
        Wrong = "wrong", "the next kernel is of another release, or misses a handler";
        Spoil = "spoil", "a word of metadata changes between the kernels";
        Writer = "writer", "a mapping is written through to the last moment";
        Race = "race", "while the reboot serialises a session is closed, a file is written to, a position is moved";
        Memory = "memory", "the next kernel is short of memory";
    }
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults(u16);

impl Faults {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every kind.
    pub const ALL: Self = Self((1 << FaultKind::ALL.len()) - 1);

    /// Whether `kind` is in the set.
    #[must_use]
    pub fn has(self, kind: FaultKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// The set with `kind`.
    #[must_use]
    pub fn with(self, kind: FaultKind) -> Self {
        Self(self.0 | (1 << kind as u16))
    }

    /// The set without those of another.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kinds with places that are in the set; all that are in `allowed` if there is none.
    fn places(self, allowed: Self) -> Self {
        let of = |set: Self| {
            let kinds = super::turns::KINDS.iter().filter(|kind| set.has(**kind));
            kinds.fold(Self::NONE, |set, kind| set.with(*kind))
        };
        let mine = of(self);
        if mine == Self::NONE { of(allowed) } else { mine }
    }

    /// Names joined by commas; `all` and `none` stand for themselves.
    ///
    /// # Errors
    /// The name that is not known.
    pub fn from_list(list: &str) -> Result<Self, String> {
        match list {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        list.split(',').map(str::trim).try_fold(Self::NONE, |set, name| {
            let known = FaultKind::ALL.iter().find(|kind| kind.name() == name);
            known.map(|kind| set.with(*kind)).ok_or_else(|| name.to_owned())
        })
    }

    /// As [`Self::list`], with a word for all.
    #[must_use]
    pub fn list_or_all(self) -> String {
        if self == Self::ALL { String::from("all") } else { self.list() }
    }

    /// Names joined by commas.
    #[must_use]
    pub fn list(self) -> String {
        let mine: Vec<&str> =
            FaultKind::ALL.iter().filter(|kind| self.has(**kind)).map(|kind| kind.name()).collect();
        if mine.is_empty() { String::from("none") } else { mine.join(",") }
    }
}

/// Which releases follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Whatever the seed draws.
    Any,
    /// These, the last one again and again.
    Fixed(Vec<ReleaseId>),
}

/// Which seeds are workloads of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSeeds {
    /// None.
    #[default]
    None,
    /// One in [`DEVICE_SEEDS`], drawn from a stream of its own, so that what the others draw does not depend on it.
    Some,
    /// All.
    All,
}

/// One seed in so many is a workload of devices, if some are.
pub const DEVICE_SEEDS: u32 = 16;

/// What all seeds of a run have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// The releases.
    pub chain: Chain,
    /// Most steps of a seed.
    pub steps: u32,
    /// Faults that may be drawn.
    pub faults: Faults,
    /// Switches every quirk off.
    pub as_documented: bool,
    /// A quirk that is on, alone.
    pub zoo: Option<Quirk>,
    /// Every run is short, and each fault strikes at each place in turn ([`super::turns`]).
    pub in_turn: bool,
    /// Which seeds are workloads of devices; those of a chain without 7.3 never are.
    pub devices: DeviceSeeds,
}

impl Common {
    /// Whether a seed is a workload of devices.
    #[must_use]
    pub fn has_devices(&self, seed: u64) -> bool {
        let known = match &self.chain {
            Chain::Any => true,
            Chain::Fixed(releases) => releases.iter().all(|release| *release == ReleaseId::V7_3),
        };
        let drawn = || match self.devices {
            DeviceSeeds::None => false,
            DeviceSeeds::Some => !self.in_turn && Rng::new(seed ^ 0x00de_71ce).chance(1, DEVICE_SEEDS),
            DeviceSeeds::All => true,
        };
        // Only workloads of devices show a defect of devices, and nothing else shows another one.
        known && self.zoo.map_or_else(drawn, Quirk::of_devices)
    }

    /// The options of the command that say the same.
    #[must_use]
    pub fn command_line(&self) -> String {
        let chain = match &self.chain {
            Chain::Any => String::from("any"),
            Chain::Fixed(releases) => {
                releases.iter().map(|id| id.release().name).collect::<Vec<_>>().join(",")
            }
        };
        let documented = if self.as_documented { " --as-documented" } else { "" };
        let in_turn = if self.in_turn { " --in-turn" } else { "" };
        let faults = self.faults.list_or_all();
        let devices = match self.devices {
            DeviceSeeds::None => " --no-devices",
            DeviceSeeds::Some => "",
            DeviceSeeds::All => " --devices",
        };
        let quirk = self.zoo.map(|quirk| format!(" --quirk {quirk}")).unwrap_or_default();
        format!(
            "--chain {chain} --steps {} --faults {faults}{documented}{in_turn}{devices}{quirk}",
            self.steps
        )
    }
}

impl Default for Common {
    fn default() -> Self {
        Self {
            chain: Chain::Any,
            steps: 100,
            faults: Faults::ALL,
            as_documented: false,
            zoo: None,
            in_turn: false,
            devices: DeviceSeeds::None,
        }
    }
}

/// What a process may do, by what the options weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the action of its name")]
pub enum Deed {
    Memfd,
    TestFile,
    Sockets,
    Send,
    Receive,
    Dup,
    ReadOnly,
    Close,
    Fork,
    Exit,
    Truncate,
    Write,
    Allocate,
    Punch,
    Seek,
    Seal,
    Map,
    Store,
    Unmap,
    Handler,
    Create,
    Take,
    Preserve,
    Retrieve,
    Finish,
    GetName,
    Link,
    Look,
    Kexec,
    Return,
    Crash,
    Reset,
    FailAlloc,
    Stop,
    Race,
    Spoil,
}

/// Every deed and how often it is done when nothing is drawn for it.
pub const DEEDS: [(Deed, u16); 36] = [
    (Deed::Memfd, 14),
    (Deed::TestFile, 14),
    (Deed::Sockets, 1),
    (Deed::Send, 3),
    (Deed::Receive, 4),
    (Deed::Dup, 2),
    (Deed::ReadOnly, 1),
    (Deed::Close, 5),
    (Deed::Fork, 3),
    (Deed::Exit, 1),
    (Deed::Truncate, 8),
    (Deed::Write, 14),
    (Deed::Allocate, 4),
    (Deed::Punch, 2),
    (Deed::Seek, 4),
    (Deed::Seal, 3),
    (Deed::Map, 3),
    (Deed::Store, 5),
    (Deed::Unmap, 1),
    (Deed::Handler, 12),
    (Deed::Create, 14),
    (Deed::Take, 16),
    (Deed::Preserve, 24),
    (Deed::Retrieve, 24),
    (Deed::Finish, 6),
    (Deed::GetName, 1),
    (Deed::Link, 1),
    (Deed::Look, 4),
    (Deed::Kexec, 9),
    (Deed::Return, 1),
    (Deed::Crash, 1),
    (Deed::Reset, 1),
    (Deed::FailAlloc, 4),
    (Deed::Stop, 4),
    (Deed::Race, 2),
    (Deed::Spoil, 2),
];

/// What a seed drew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Kernels in their order; the last one again and again.
    pub chain: Vec<Plan>,
    /// Bytes of memory.
    pub memory: u64,
    /// Steps.
    pub steps: u32,
    /// Processes that there may be.
    pub procs: u8,
    /// Names of sessions.
    pub names: u8,
    /// Tokens.
    pub tokens: u8,
    /// Cells of the largest file.
    pub cells: u32,
    /// Faults that are drawn.
    pub faults: Faults,
    /// Faults that strike at each place in turn.
    pub turns: Faults,
    /// Calls of 1000 that get a bad argument.
    pub rate: u32,
    /// How often each deed is done.
    pub weights: [u16; DEEDS.len()],
    /// Quirks switched on.
    pub quirks_on: Vec<Quirk>,
    /// Quirks switched off.
    pub quirks_off: Vec<Quirk>,
}

/// One seed in so many is a short run with faults in turn.
const TURNS: u64 = 32;
/// Most steps of it.
const SHORT: u32 = 24;

const WITH_LUO: [ReleaseId; 5] =
    [ReleaseId::V6_19, ReleaseId::V7_0, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3];

/// Every quirk of any release.
#[must_use]
pub fn shipped_quirks() -> Vec<Quirk> {
    Quirk::ALL.iter().copied().filter(|quirk| !quirk.planted()).collect()
}

impl Options {
    /// What a seed draws.
    #[must_use]
    pub fn draw(seed: u64, common: &Common, rng: &mut Rng) -> Self {
        let mut faults = Faults::NONE;
        for kind in FaultKind::ALL.iter().filter(|kind| common.faults.has(**kind)) {
            if rng.chance(1, 2) {
                faults = faults.with(*kind);
            }
        }
        let turns =
            if common.in_turn || seed % TURNS == 7 { faults.places(common.faults) } else { Faults::NONE };
        faults = faults.without(turns);
        let many = turns == Faults::NONE && rng.chance(1, 40);
        let chain = draw_chain(&common.chain, faults, rng);
        let mut options = Self {
            seed,
            chain,
            memory: u64::from(*rng.pick(&[32u32, 64, 64, 96]).expect("there are some")) << 20,
            steps: match (many, turns == Faults::NONE) {
                (true, _) => 4 * common.steps,
                (_, true) => rng.between(common.steps / 3 + 1, common.steps),
                _ => rng.between(4, SHORT).min(common.steps),
            },
            procs: u8::try_from(rng.between(1, 4)).expect("small"),
            names: if many { 120 } else { u8::try_from(rng.between(1, 5)).expect("small") },
            tokens: u8::try_from(rng.between(1, 8)).expect("small"),
            cells: *rng.pick(&[8, 24, 64, 64, 200]).expect("there are some"),
            faults,
            turns,
            rate: rng.between(10, 200),
            weights: DEEDS.map(|(_, weight)| weight),
            quirks_on: common.zoo.into_iter().collect(),
            quirks_off: Vec::new(),
        };
        if common.as_documented || common.zoo.is_some() {
            options.quirks_off = shipped_quirks();
            options.quirks_off.retain(|quirk| Some(*quirk) != common.zoo);
        }
        options.draw_weights(many, rng);
        options
    }

    fn draw_weights(&mut self, many: bool, rng: &mut Rng) {
        for ((deed, _), weight) in DEEDS.iter().zip(&mut self.weights) {
            *weight *= *rng.pick(&[0, 1, 1, 2, 4]).expect("there are some");
            let off = match deed {
                Deed::TestFile => !self.chain[0].test_files,
                Deed::FailAlloc => !self.faults.has(FaultKind::Alloc),
                Deed::Exit => !self.faults.has(FaultKind::Kill),
                Deed::Handler => !self.faults.has(FaultKind::Handler),
                Deed::Stop => !self.faults.has(FaultKind::Abort) && !self.faults.has(FaultKind::Panic),
                Deed::Crash | Deed::Reset => !self.faults.has(FaultKind::Panic),
                Deed::Race => !self.faults.has(FaultKind::Race),
                Deed::Spoil => !self.faults.has(FaultKind::Spoil),
                Deed::Map | Deed::Store => !self.faults.has(FaultKind::Writer),
                _ => false,
            };
            // Without these nothing crosses, and there is nothing to see.
            let needed = matches!(
                deed,
                Deed::Create | Deed::Preserve | Deed::Kexec | Deed::Take | Deed::Retrieve | Deed::Memfd
            );
            *weight = if off { 0 } else { (*weight).max(if needed { 4 } else { 0 }) };
            if many {
                *weight = match deed {
                    Deed::Create => 800,
                    Deed::Kexec => 4,
                    _ => (*weight).min(4),
                };
            }
        }
    }

    /// The kernel after `kexecs` of them.
    #[must_use]
    pub fn plan(&self, kexecs: usize) -> Plan {
        *self.chain.get(kexecs).or(self.chain.last()).expect("a chain has a kernel")
    }

    /// The case that these options begin: no step yet.
    #[must_use]
    pub fn case(&self) -> Case {
        Case {
            memory: self.memory,
            first: self.plan(0),
            quirks_on: self.quirks_on.clone(),
            quirks_off: self.quirks_off.clone(),
            max_procs: self.procs,
            actions: Vec::new(),
        }
    }

    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let chain: Vec<String> = self
            .chain
            .iter()
            .map(|plan| {
                let extra = [
                    (plan.test_files, "+test-files"),
                    (plan.flbs, "+objects"),
                    (plan.free.is_some(), "+short-of-memory"),
                ];
                let extra: String = extra.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
                format!("{}{extra}", plan.release.release().name)
            })
            .collect();
        let (memory, faults) = (self.memory >> 20, self.faults.list());
        let turns = match self.turns {
            Faults::NONE => String::new(),
            turns => format!(", in turn at each place {}", turns.list()),
        };
        format!(
            "seed {}: kernels {}, {memory} MiB, {} steps, {} processes, {} names, {} tokens, files up to {} KiB, faults {faults}, bad arguments {}/1000{turns}",
            self.seed,
            chain.join(" -> "),
            self.steps,
            self.procs,
            self.names,
            self.tokens,
            self.cells / 2,
            self.rate
        )
    }
}

fn draw_chain(chain: &Chain, faults: Faults, rng: &mut Rng) -> Vec<Plan> {
    let releases: Vec<ReleaseId> = match chain {
        Chain::Fixed(releases) => releases.clone(),
        Chain::Any => {
            let first = *rng.pick(&WITH_LUO).expect("there are some");
            let wrong = faults.has(FaultKind::Wrong);
            let count = rng.between(1, 4);
            let next = |rng: &mut Rng| {
                if wrong && rng.chance(1, 3) { rng.pick(RELEASES).map_or(first, |row| row.id) } else { first }
            };
            std::iter::once(first).chain((0..count).map(|_| next(rng))).collect()
        }
    };
    let (tests, flbs) = (rng.chance(1, 2), rng.chance(1, 4));
    let mut plans: Vec<Plan> = Vec::new();
    for release in releases {
        let gap = faults.has(FaultKind::Wrong) && rng.chance(1, 8);
        let short = faults.has(FaultKind::Memory) && !plans.is_empty() && rng.chance(1, 4);
        let free = short.then(|| u16::try_from(rng.between(0, 24)).expect("small"));
        plans.push(Plan { release, test_files: tests && !gap, flbs, free });
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_stand_in_their_order() {
        for (index, (deed, _)) in DEEDS.iter().enumerate() {
            assert_eq!(*deed as usize, index, "{deed:?}");
        }
    }

    #[test]
    fn the_command_line_names_the_quirk_that_is_on() {
        for quirk in Quirk::ALL {
            let common = Common { zoo: Some(*quirk), ..Common::default() };
            assert!(common.command_line().ends_with(&format!(" --quirk {quirk}")), "{quirk}");
            assert_eq!(common.has_devices(3), quirk.of_devices(), "{quirk}");
        }
        assert!(!Common::default().command_line().contains("--quirk"));
    }

    #[test]
    fn faults_are_read_and_written_as_lists() {
        for kind in FaultKind::ALL {
            assert_eq!(Faults::from_list(kind.name()), Ok(Faults::NONE.with(*kind)));
        }
        assert_eq!(Faults::from_list(&Faults::ALL.list()), Ok(Faults::ALL));
        assert_eq!(Faults::from_list("alloc,weather"), Err(String::from("weather")));
    }
}
