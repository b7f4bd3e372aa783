//! `luosim explore --zoo`: known and planted defects, each alone, must be found. An explorer that finds nothing is blind,
//! or everything is well; this tells which. Defects of the posted designs are not looked for: seeds draw merged releases.

use std::time::{Duration, Instant};

use luosim_abi::quirk::Quirk;
use luosim_sim::explore::campaign::Campaign;
use luosim_sim::explore::finding::Finding;
use luosim_sim::explore::options::{Common, DeviceSeeds};

use super::ExploreArguments;
use crate::Ending;
use crate::commands::Format;
use crate::commands::print;

/// How long is looked for each.
const MINUTE: Duration = Duration::from_mins(1);

/// Defects that no call shows alone: an image for the crash kernel takes a handover along that the crash kernel does not
/// look at, and the kernel itself is the only one to ask for a bound object again.
pub(crate) const INVISIBLE: [Quirk; 2] = [Quirk::CrashImageTakesKho, Quirk::FlbErrorForgotten];

struct Row {
    quirk: Quirk,
    seeds: u64,
    time: Duration,
    found: Option<Finding>,
}

fn look_for(quirk: Quirk, common: &Common) -> Result<Row, String> {
    let mut campaign = Campaign::new(Common { zoo: Some(quirk), ..common.clone() })?;
    let started = Instant::now();
    let mut seed = 0;
    loop {
        let outcome = campaign.seed(seed)?;
        seed += 1;
        let found = outcome.findings.into_iter().find(|finding| finding.quirk == Some(quirk));
        if found.is_some() || started.elapsed() > MINUTE {
            return Ok(Row { quirk, seeds: seed, time: started.elapsed(), found });
        }
    }
}

/// Whether seeds of these options can show the defect, and the caller asked for its kind.
fn asked(quirk: Quirk, common: &Common) -> bool {
    let kind = match common.devices {
        DeviceSeeds::All => quirk.of_devices(),
        DeviceSeeds::None => !quirk.of_devices(),
        DeviceSeeds::Some => true,
    };
    let drawn = Common { zoo: Some(quirk), ..common.clone() }.has_devices(0) == quirk.of_devices();
    kind && drawn && !quirk.of_posted_designs() && !INVISIBLE.contains(&quirk)
}

/// Runs the zoo, and tells of each defect once it is found or the minute is over.
///
/// # Errors
/// The host has no room for a machine.
pub(crate) fn run(arguments: &ExploreArguments) -> Result<Ending, String> {
    let common = arguments.common();
    let zoo: Vec<Quirk> = Quirk::ALL.iter().copied().filter(|quirk| asked(*quirk, &common)).collect();
    let width = zoo.iter().map(|quirk| quirk.name().len()).max().unwrap_or(0);
    let text = arguments.format == Format::Text;
    if text {
        print(&format!("{:width$}  {:>6}  {:>8}  {:>12}  promise\n", "defect", "seeds", "time", "steps"));
    }
    let mut count = 0;
    for quirk in &zoo {
        let row = look_for(*quirk, &common)?;
        count += usize::from(row.found.is_some());
        print(&if text { line(&row, width) } else { json(&row)? });
    }
    if text {
        print(&format!("{count} of {} found\n", zoo.len()));
    }
    Ok(if count < zoo.len() { Ending::Failed } else { Ending::AsExpected })
}

fn line(Row { quirk, seeds, time, found }: &Row, width: usize) -> String {
    let (steps, promise) = match found {
        Some(finding) => (format!("{} -> {}", finding.steps_found, finding.steps), finding.invariant.name()),
        None => (String::from("-"), "NOT FOUND"),
    };
    let time = format!("{} ms", time.as_millis());
    format!("{:width$}  {seeds:>6}  {time:>8}  {steps:>12}  {promise}\n", quirk.name())
}

fn json(Row { quirk, seeds, time, found }: &Row) -> Result<String, String> {
    let (name, planted) = (quirk.name(), quirk.planted());
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let line = serde_json::json!({
        "kind": "defect", "version": 1, "name": name, "planted": planted, "seeds": seeds, "ms": millis, "finding": found,
    });
    serde_json::to_string(&line).map(|text| text + "\n").map_err(|error| error.to_string())
}
