//! `luosim explore --zoo`: known and planted defects, each alone, must be found. An explorer that finds nothing is blind,
//! or everything is well; this tells which.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use luosim_abi::quirk::Quirk;
use luosim_sim::explore::campaign::Campaign;
use luosim_sim::explore::devices;
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

/// Looks for a defect of device files by device workloads, which are drawn and judged apart from the others.
fn look_for_device(quirk: Quirk) -> Result<Row, String> {
    let started = Instant::now();
    let mut seed = 0;
    loop {
        let found = devices::seed(seed, Some(quirk), "--devices")?.finding;
        seed += 1;
        if found.is_some() || started.elapsed() > MINUTE {
            return Ok(Row { quirk, seeds: seed, time: started.elapsed(), found });
        }
    }
}

/// Runs the zoo.
///
/// # Errors
/// The host has no room for a machine.
pub(crate) fn run(arguments: &ExploreArguments) -> Result<Ending, String> {
    let common = arguments.common();
    let mut rows = Vec::new();
    let asked = |quirk: &&Quirk| match common.devices {
        DeviceSeeds::All => quirk.of_devices(),
        DeviceSeeds::None => !quirk.of_devices(),
        DeviceSeeds::Some => true,
    };
    for quirk in Quirk::ALL.iter().filter(|quirk| !INVISIBLE.contains(quirk)).filter(asked) {
        let row = if quirk.of_devices() { look_for_device(*quirk)? } else { look_for(*quirk, &common)? };
        rows.push(row);
    }
    match arguments.format {
        Format::Text => print(&table(&rows)),
        Format::Json => print(&json(&rows)?),
    }
    let missed = rows.iter().any(|row| row.found.is_none());
    Ok(if missed { Ending::Failed } else { Ending::AsExpected })
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.quirk.name().len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>6}  {:>8}  {:>12}  promise\n", "defect", "seeds", "time", "steps");
    for Row { quirk, seeds, time, found } in rows {
        let (steps, promise) = match found {
            Some(finding) => {
                (format!("{} -> {}", finding.steps_found, finding.steps), finding.invariant.name())
            }
            None => (String::from("-"), "NOT FOUND"),
        };
        let time = format!("{} ms", time.as_millis());
        let _ = writeln!(text, "{:width$}  {seeds:>6}  {time:>8}  {steps:>12}  {promise}", quirk.name());
    }
    let found = rows.iter().filter(|row| row.found.is_some()).count();
    let _ = writeln!(text, "{found} of {} found", rows.len());
    text
}

fn json(rows: &[Row]) -> Result<String, String> {
    let mut text = String::new();
    for Row { quirk, seeds, time, found } in rows {
        let (name, planted) = (quirk.name(), quirk.planted());
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let line = serde_json::json!({
            "kind": "defect", "version": 1, "name": name, "planted": planted, "seeds": seeds, "ms": millis, "finding": found,
        });
        text.push_str(&serde_json::to_string(&line).map_err(|error| error.to_string())?);
        text.push('\n');
    }
    Ok(text)
}
