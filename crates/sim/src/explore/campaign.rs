//! Seeds, one after the other: draw, run, and make findings of what breaks. Time, threads and files are the caller's.

use std::panic::{AssertUnwindSafe, catch_unwind};

use luosim_abi::quirk::Quirk;

use super::action::Action;
use super::devices::{self, Place};
use super::draw::{Draw, last_steps};
use super::finding::{self, Finding};
use super::invariant::Invariant;
use super::options::{Common, Faults, Options};
use super::rng::Rng;
use super::turns;
use super::world::{Case, Tally, Violation, World};

/// What a seed led to.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub tally: Tally,
    /// What broke.
    pub findings: Vec<Finding>,
    /// Digest of all calls and answers.
    pub digest: u64,
}

/// A broken run: the case up to the step that showed it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The case.
    pub case: Case,
    /// What broke.
    pub violation: Violation,
}

/// Runs seeds.
#[derive(Debug)]
pub struct Campaign {
    common: Common,
    world: World,
    /// Where device workloads run.
    place: Place,
}

/// How often a seed is run again without a quirk that was found in it.
const MASKED: usize = 24;
/// One seed in so many is run twice.
const TWICE: u64 = 64;

impl Campaign {
    /// A campaign with these options.
    ///
    /// # Errors
    /// The host has no room for a machine.
    pub fn new(common: Common) -> Result<Self, String> {
        Ok(Self { common, world: World::new(64 << 20)?, place: Place::default() })
    }

    /// The options of a seed.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        Options::draw(seed, &self.common, &mut Rng::new(seed))
    }

    /// Runs one seed. A quirk that is found is switched off and the seed run again, so that it hides nothing.
    ///
    /// # Errors
    /// The host has no room for a machine.
    pub fn seed(&mut self, seed: u64) -> Result<Outcome, String> {
        if self.common.has_devices(seed) {
            return self.device_seed(seed);
        }
        let before = self.world.tally();
        let mut off: Vec<Quirk> = Vec::new();
        let mut findings = Vec::new();
        let mut digest = 0;
        for round in 0..=MASKED {
            let broken = self.run(seed, &off, false)?;
            digest = if round == 0 { self.world.digest() } else { digest };
            let Some(broken) = broken else { break };
            let found = finding::investigate(&mut self.world, seed, &broken, &self.common.command_line())?;
            let quirk = found.quirk;
            findings.push(found);
            match quirk.filter(|quirk| !off.contains(quirk) && self.common.zoo != Some(*quirk)) {
                Some(quirk) => off.push(quirk),
                None => break,
            }
        }
        if seed.is_multiple_of(TWICE) {
            findings.extend(self.twice(seed)?);
        }
        let after = self.world.tally();
        let tally =
            Tally { seeds: 1, steps: after.steps - before.steps, kexecs: after.kexecs - before.kexecs };
        Ok(Outcome { tally, findings, digest })
    }

    fn device_seed(&mut self, seed: u64) -> Result<Outcome, String> {
        let options = self.common.command_line();
        let mut result = Err(String::from("it did not come to an end"));
        let (place, quirk) = (&mut self.place, self.common.zoo);
        let panicked = guarded(|| {
            result = devices::seed_in(place, seed, quirk, &options);
            None
        });
        if let Some(violation) = panicked {
            let findings = vec![Finding::bare(seed, violation)];
            return Ok(Outcome { tally: Tally { seeds: 1, ..Tally::default() }, findings, digest: 0 });
        }
        let ran = result?;
        let mut findings: Vec<Finding> = ran.finding.into_iter().collect();
        if seed.is_multiple_of(TWICE) && findings.is_empty() {
            let again = devices::seed(seed, quirk, &options)?;
            if again.digest != ran.digest {
                let detail = format!("two runs of seed {seed} answer differently");
                let class = String::from("two runs");
                let violation = Violation { invariant: Invariant::Same, action: "seed", detail, class };
                findings.push(Finding::bare(seed, violation));
            }
        }
        Ok(Outcome { tally: ran.tally, findings, digest: ran.digest })
    }

    /// What a seed draws, in words.
    #[must_use]
    pub fn describe(&self, seed: u64) -> String {
        if self.common.has_devices(seed) { devices::describe(seed) } else { self.options(seed).describe() }
    }

    /// The first broken promise of a seed, if there is one, before anything is made of it.
    ///
    /// # Errors
    /// The host has no room for a machine.
    pub fn run(&mut self, seed: u64, off: &[Quirk], fresh: bool) -> Result<Option<Broken>, String> {
        let mut rng = Rng::new(seed);
        let mut options = Options::draw(seed, &self.common, &mut rng);
        options.quirks_off.extend(off);
        let case = options.case();
        self.world.begin(case.clone(), fresh)?;
        let mut actions = Vec::new();
        let world = &mut self.world;
        let violation = guarded(|| steps(world, &options, &mut rng, &mut actions));
        if violation.is_none() && options.turns != Faults::NONE {
            let digest = self.world.digest();
            let broken = turns::run(&mut self.world, &Case { actions, ..case }, options.turns)?;
            self.world.mix_digest(digest);
            return Ok(broken);
        }
        if violation.as_ref().is_some_and(|violation| violation.invariant == Invariant::Alive) {
            // What a panic left of the machine is not used again.
            self.world.replace()?;
        }
        Ok(violation.map(|violation| Broken { case: Case { actions, ..case }, violation }))
    }

    /// The same seed again, on fresh memory: calls, answers and memory must be the same.
    fn twice(&mut self, seed: u64) -> Result<Option<Finding>, String> {
        let mut seen = Vec::new();
        for fresh in [true, true] {
            let broken = self.run(seed, &[], fresh)?;
            let memory = super::invariant::digest(self.world.machine(), luosim_physmem::FrameUse::ALL);
            seen.push((self.world.digest(), memory, broken.map(|broken| broken.violation)));
        }
        if seen[0] == seen[1] {
            return Ok(None);
        }
        let detail = format!("two runs of seed {seed} differ: {:?} and {:?}", seen[0], seen[1]);
        let class = String::from("two runs");
        let violation = Violation { invariant: Invariant::Same, action: "seed", detail, class };
        Ok(Some(Finding::bare(seed, violation)))
    }
}

/// Runs `work`; a panic of luosim in it is a broken promise like any other.
pub fn guarded(work: impl FnOnce() -> Option<Violation>) -> Option<Violation> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let detail = text.unwrap_or_else(|| String::from("a panic without words"));
        let class = detail.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect();
        Some(Violation { invariant: Invariant::Alive, action: "any", detail, class })
    })
}

fn steps(
    world: &mut World,
    options: &Options,
    rng: &mut Rng,
    actions: &mut Vec<Action>,
) -> Option<Violation> {
    let mut kexecs = 0;
    for _ in 0..options.steps {
        let action = Draw { options, rng, world: world.reference(), kexecs }.step();
        actions.push(action.clone());
        let before = world.tally().kexecs;
        if let Err(broken) = world.step(&action) {
            return Some(*broken);
        }
        kexecs += usize::from(world.tally().kexecs > before);
    }
    for action in last_steps(world.reference()) {
        actions.push(action.clone());
        if let Err(broken) = world.step(&action) {
            return Some(*broken);
        }
    }
    // What the last steps look at has a line in the ledger as well.
    world.finish().err().map(|broken| *broken)
}
