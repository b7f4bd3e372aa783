//! Seeds on threads: each takes the next one that is left.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use luosim_sim::explore::campaign::{Campaign, Outcome};
use luosim_sim::explore::options::Common;

use super::results::Results;
use super::shard::Shard;
use crate::complain;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// First seed.
    pub(crate) first: u64,
    /// The seed behind the last.
    pub(crate) end: u64,
    /// Which of them.
    pub(crate) shard: Shard,
    /// And no longer than this.
    pub(crate) time: Option<Duration>,
    /// Threads.
    pub(crate) jobs: usize,
}

struct Shared<'a> {
    plan: &'a Plan,
    next: AtomicU64,
    stop: AtomicBool,
    started: Instant,
    results: Mutex<Results>,
    problem: Mutex<Option<String>>,
    bar: ProgressBar,
    verbose: bool,
}

fn bar(plan: &Plan) -> ProgressBar {
    let style = "{spinner} {elapsed} {wide_bar} {msg}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let length = match plan.time {
        Some(time) => time.as_secs(),
        None => (plan.end - plan.first).div_ceil(plan.shard.count),
    };
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

impl Shared<'_> {
    /// The next seed of this part, if there is one and time is left.
    fn take(&self) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed)
            || self.plan.time.is_some_and(|time| self.started.elapsed() >= time)
        {
            return None;
        }
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        let offset = place.checked_mul(self.plan.shard.count)?.checked_add(self.plan.shard.index)?;
        debug_assert!(self.plan.shard.runs(offset), "seeds of a part are so many apart");
        self.plan.first.checked_add(offset).filter(|seed| *seed < self.plan.end)
    }

    fn add(&self, seed: u64, outcome: Outcome) {
        let mut results = self.results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.add(seed, outcome);
        if self.plan.time.is_some() {
            self.bar.set_position(self.started.elapsed().as_secs());
        } else {
            self.bar.inc(1);
        }
        let seconds = self.started.elapsed().as_secs().max(1);
        let (tally, found) = (results.tally, results.groups.len());
        let rates = (tally.steps / seconds, tally.kexecs / seconds);
        self.bar.set_message(format!(
            "{} seeds, {} steps/s, {} kexecs/s, {found} found",
            tally.seeds, rates.0, rates.1
        ));
    }

    fn fail(&self, problem: String) {
        self.stop.store(true, Ordering::Relaxed);
        *self.problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(problem);
    }

    fn work(&self, common: &Common) {
        let mut campaign = match Campaign::new(common.clone()) {
            Ok(campaign) => campaign,
            Err(problem) => return self.fail(problem),
        };
        while let Some(seed) = self.take() {
            if self.verbose {
                let options = campaign.describe(seed);
                self.bar.suspend(|| complain(format_args!("{options}")));
            }
            match campaign.seed(seed) {
                Ok(outcome) => self.add(seed, outcome),
                Err(problem) => return self.fail(problem),
            }
        }
    }
}

/// Runs the seeds of a plan.
///
/// # Errors
/// The host has no room for a machine.
pub(crate) fn run(common: &Common, plan: &Plan, verbose: bool) -> Result<Results, String> {
    let shared = Shared {
        plan,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        started: Instant::now(),
        results: Mutex::new(Results::new(common, plan)),
        problem: Mutex::new(None),
        bar: bar(plan),
        verbose,
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs {
            scope.spawn(|| shared.work(common));
        }
    });
    shared.bar.finish_and_clear();
    if let Some(problem) = shared.problem.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(problem);
    }
    let mut results = shared.results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.seconds = shared.started.elapsed().as_secs();
    Ok(results)
}
