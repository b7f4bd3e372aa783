//! `luosim explore`: seeds of the explorer on all cores, until their end or for a time; what they found in groups, as
//! scenarios; runs split over machines and joined again.
//!
//! Threads, time and progress are here; what a seed does is `luosim_sim::explore` and depends on nothing but the seed.
#![expect(clippy::disallowed_types, reason = "a time limit and rates need the clock; no seed sees it")]

mod results;
mod shard;
mod work;
mod zoo;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_sim::explore::options::{Chain, Common, DeviceSeeds, FaultKind, Faults};

use crate::commands::{Format, print, release};
use crate::{Ending, message};
use results::{Group, Results};
use shard::Shard;

const EXAMPLES: &str = "\
Examples:
  luosim explore                                     1000 seeds, whatever release they draw
  luosim explore --for 10m --jobs 8                  as many as eight threads run in ten minutes
  luosim explore --release 7.3 --as-documented       what breaks without its known defects: nothing should
  luosim explore --chain 7.1,7.2,7.3 --seeds 0..500  kernels in this order
  luosim explore --in-turn --seeds 0..100            each fault at each place of short runs
  luosim explore --devices --seeds 0..500            VMMs with devices whose DMA goes on
  luosim explore --seeds 42..43 -v                   one seed, and what it drew
  luosim explore --shard 3/8 --out results           an eighth of the seeds, on one machine of eight
  luosim explore --merge results/*.jsonl             the results of all of them, joined
  luosim explore --quirk planted-canary --seeds 0..9 one defect on, every other off
  luosim explore --zoo                               each known or planted defect must be found

Exit codes: 0 nothing found, 1 findings (`--strict-quirks`: or quirks), 2 bad input, 3 luosim's own fault.";

/// Options of `luosim explore`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExploreArguments {
    /// Seeds to run, the last not included [default: 0..1000]
    #[arg(long, value_name = "A..B", value_parser = seeds, conflicts_with = "time")]
    seeds: Option<(u64, u64)>,
    /// Run seeds for this time: 90s, 10m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Every kernel is of this release
    #[arg(long, value_name = "RELEASE", value_parser = release, conflicts_with = "chain")]
    release: Option<ReleaseId>,
    /// Kernels in this order, the last again and again; `any`, the default, lets each seed draw
    #[arg(long, value_name = "RELEASES", value_parser = chain)]
    chain: Option<ChainArgument>,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Most steps of a seed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..100_000))]
    steps: u32,
    /// Kinds of faults that may be drawn: all, none, or names joined by commas
    #[arg(long, value_name = "LIST", default_value = "all", value_parser = faults)]
    faults: Faults,
    /// Folder for a scenario of each finding and the result file
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run the I-th of N parts, from 0; taken from the variables of Slurm arrays and Kubernetes jobs if not given
    #[arg(long, value_name = "I/N", value_parser = shard::parse)]
    shard: Option<Shard>,
    /// Parts of a Kubernetes indexed job, which does not tell them; JOB_COMPLETION_COUNT says the same
    #[arg(long, value_name = "N")]
    shards: Option<u64>,
    /// Switch every quirk off: what is found then is wrong, with luosim or with the documentation
    #[arg(long)]
    as_documented: bool,
    /// Short runs, each repeated with every fault at every place where it can strike: every allocation fails once, every
    /// argument is bad once, every reboot stops at each of its points
    #[arg(long)]
    in_turn: bool,
    /// Make every seed a workload of devices whose DMA goes on; else one in 16 is, where the release is 7.3 or any
    #[arg(long)]
    devices: bool,
    /// Leave workloads of devices out
    #[arg(long, conflicts_with = "devices")]
    no_devices: bool,
    /// Count quirks of the releases as findings
    #[arg(long)]
    strict_quirks: bool,
    /// Switch known and planted defects on, one at a time; each must be found within a minute
    #[arg(long)]
    zoo: bool,
    /// Switch this defect on and every other off, as `--zoo` does; its findings name the command with it
    #[arg(long, value_name = "NAME", value_parser = quirk, conflicts_with = "zoo")]
    quirk: Option<Quirk>,
    /// How results are written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Say what each seed drew
    #[arg(long, short)]
    verbose: bool,
    /// Join result files instead of running anything
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["seeds", "time", "zoo", "shard"])]
    merge: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct ChainArgument(Chain);

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, end) = text.split_once("..").ok_or("write it as 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let (first, end) = (number(first)?, number(end)?);
    if first < end { Ok((first, end)) } else { Err(format!("there is no seed in {text}")) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [("h", 3600), ("m", 60), ("s", 1)];
    let (digits, unit) = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
        .ok_or("write it as 90s, 10m or 2h")?;
    let count = digits.parse::<u64>().ok().filter(|count| *count > 0 && *count < 1 << 32);
    count
        .map(|count| Duration::from_secs(count * unit))
        .ok_or_else(|| format!("{digits:?} is no number of them"))
}

fn chain(text: &str) -> Result<ChainArgument, String> {
    if text == "any" {
        return Ok(ChainArgument(Chain::Any));
    }
    let releases: Result<Vec<ReleaseId>, String> = text.split(',').map(|name| release(name.trim())).collect();
    Ok(ChainArgument(Chain::Fixed(releases?)))
}

fn faults(text: &str) -> Result<Faults, String> {
    Faults::from_list(text).map_err(|name| {
        let known: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("there is no fault {name:?}; there are {}", known.join(", "))
    })
}

fn quirk(text: &str) -> Result<Quirk, String> {
    let Some(quirk) = Quirk::from_name(text) else {
        let names = Quirk::ALL.iter().map(|quirk| quirk.name());
        return Err(match luosim_scenario::nearest(text, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => String::from("there is no such quirk; `luosim explore --zoo` lists them"),
        });
    };
    if quirk.of_posted_designs() {
        return Err(String::from("it is of a posted design, and seeds draw merged releases"));
    }
    Ok(quirk)
}

impl ExploreArguments {
    fn common(&self) -> Common {
        let chain = match (self.release, &self.chain) {
            (Some(release), _) => Chain::Fixed(vec![release]),
            (None, Some(ChainArgument(chain))) => chain.clone(),
            (None, None) => Chain::Any,
        };
        Common {
            chain,
            steps: self.steps,
            faults: self.faults,
            as_documented: self.as_documented,
            zoo: self.quirk,
            in_turn: self.in_turn,
            devices: match (self.devices, self.no_devices) {
                (true, _) => DeviceSeeds::All,
                (_, true) => DeviceSeeds::None,
                _ => DeviceSeeds::Some,
            },
        }
    }

    fn jobs(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.jobs.unwrap_or(cores).clamp(1, 1024)
    }
}

/// Runs the command.
pub(crate) fn explore(arguments: &ExploreArguments) -> Ending {
    let shown = if arguments.zoo {
        zoo::run(arguments)
    } else if arguments.merge.is_empty() {
        run(arguments)
    } else {
        results::merge(&arguments.merge).and_then(|results| show(arguments, &results, None))
    };
    shown.unwrap_or_else(|problem| {
        message(format_args!("{problem}"));
        Ending::BadInput
    })
}

fn run(arguments: &ExploreArguments) -> Result<Ending, String> {
    let shard = match arguments.shard {
        Some(shard) => shard,
        None => shard::from_environment(arguments.shards, |name| std::env::var(name).ok())?,
    };
    let (first, end) = arguments.seeds.unwrap_or((0, if arguments.time.is_some() { u64::MAX } else { 1000 }));
    let plan = work::Plan { first, end, shard, time: arguments.time, jobs: arguments.jobs() };
    let results = work::run(&arguments.common(), &plan, arguments.verbose)?;
    if let Some(folder) = &arguments.out {
        results::write(folder, &results)?;
    }
    show(arguments, &results, arguments.out.as_deref())
}

fn show(
    arguments: &ExploreArguments,
    results: &Results,
    folder: Option<&std::path::Path>,
) -> Result<Ending, String> {
    match arguments.format {
        Format::Json => print(&results.lines()?),
        Format::Text => print(&results.text(folder)),
    }
    if results.has(Group::is_own_fault) {
        return Ok(Ending::OwnFault);
    }
    let counts = |group: &Group| arguments.strict_quirks || group.quirk.is_none();
    Ok(if results.has(counts) { Ending::Failed } else { Ending::AsExpected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quirk_is_named_or_the_nearest_told() {
        for known in Quirk::ALL {
            let own = quirk(known.name());
            if known.of_posted_designs() {
                assert!(own.is_err_and(|told| told.contains("merged releases")), "{known}");
            } else {
                assert_eq!(own, Ok(*known));
            }
            let misspelt = format!("{}x", known.name());
            let told = quirk(&misspelt).err();
            assert_eq!(told, Some(format!("did you mean `{known}`?")));
        }
        assert!(quirk("weather").is_err_and(|told| told.contains("--zoo")));
    }

    #[test]
    fn arguments_are_read() {
        assert_eq!(seeds("3..5"), Ok((3, 5)));
        assert_eq!(seeds("5..5").err().as_deref(), Some("there is no seed in 5..5"));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("0s").err().as_deref(), Some("\"0\" is no number of them"));
        assert_eq!(duration("ten").err().as_deref(), Some("write it as 90s, 10m or 2h"));
        let Chain::Fixed(releases) = chain("6.19, 7.3").expect("two releases").0 else { panic!("a list") };
        assert_eq!(releases, [ReleaseId::V6_19, ReleaseId::V7_3]);
    }
}
