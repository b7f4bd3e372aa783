//! `luosim releases`: the table of releases, with versions, commands, limits and quirks.

use std::fmt::Write as _;

use clap::Args;
use luosim_abi::ioctl::Command;
use luosim_abi::luo::record::{FileRecord, SessionRecord};
use luosim_abi::luo::{block, flb, v1};
use luosim_abi::posted::{Design, v2, v3, v4};
use luosim_abi::quirk::Quirk;
use luosim_abi::release::{
    DEVICE_COMMANDS, Finalize, LuoVersion, MemfdVersion, POSTED, RELEASES, Release, ReleaseId,
};
use serde::Serialize;

use crate::Ending;
use crate::commands::{Format, bootable, print};
use crate::render::{BOLD, DIM, paint};

const EXAMPLES: &str = "\
Examples:
  luosim releases                                the table
  luosim releases 6.19 7.1                       two releases, with their quirks
  luosim releases --format json                  everything, for programs

Exit codes: 0 shown, 2 no such release, 3 luosim's own fault.";

/// Options of `luosim releases`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReleasesArguments {
    /// Releases, and posted designs, to show in full; without any, the table of all
    #[arg(value_name = "RELEASE", value_parser = bootable)]
    releases: Vec<ReleaseId>,
    /// How results are written
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Limits of a release; none without an orchestrator.
#[derive(Debug, Serialize)]
struct Limits {
    sessions: u64,
    sessions_errno: &'static str,
    files_per_session: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flbs: Option<usize>,
}

#[derive(Debug, Serialize)]
struct QuirkLine {
    name: &'static str,
    about: &'static str,
}

#[derive(Debug, Serialize)]
struct Row {
    release: &'static str,
    point: &'static str,
    evidence: &'static str,
    kho: &'static str,
    finalize: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    luo: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memfd: Option<&'static str>,
    flb: bool,
    metadata: bool,
    commands: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    quirks: Vec<QuirkLine>,
}

#[derive(Debug, Serialize)]
struct Table {
    version: u32,
    releases: Vec<Row>,
    /// Designs that were posted and never released.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    posted: Vec<Row>,
}

fn posted_commands(design: Design) -> Vec<&'static str> {
    match design {
        Design::V2 => v2::Command::ALL.iter().map(|command| command.name()).collect(),
        Design::V3 => v3::Command::ALL.iter().map(|command| command.name()).collect(),
        Design::V4 => {
            let device = v4::DeviceCommand::ALL.iter().map(|command| command.name());
            device.chain(v4::SessionCommand::ALL.iter().map(|command| command.name())).collect()
        }
    }
}

fn commands(row: &Release) -> Vec<&'static str> {
    if let Some(design) = row.posted {
        return posted_commands(design);
    }
    let device = if row.luo.is_some() { DEVICE_COMMANDS } else { &[] };
    device.iter().chain(row.session_commands).map(|command: &Command| command.name()).collect()
}

fn limits(row: &Release) -> Option<Limits> {
    let flbs = row.flb.then_some(flb::MAX_ENTRIES);
    Some(match row.luo? {
        LuoVersion::V1 => Limits {
            sessions: v1::MAX_SESSIONS,
            sessions_errno: "ENOMEM",
            files_per_session: v1::MAX_FILES,
            flbs,
        },
        LuoVersion::V5 => Limits {
            sessions: block::MAX_BLOCKS * block::capacity(size_of::<SessionRecord>() as u64),
            sessions_errno: "ENOSPC",
            files_per_session: block::MAX_BLOCKS * block::capacity(size_of::<FileRecord>() as u64),
            flbs,
        },
    })
}

fn finalize(row: &Release) -> &'static str {
    match row.finalize {
        Finalize::BeforeLoad => "finalised by hand, before the image is loaded",
        Finalize::AtReboot => "finalised by the reboot, or by hand",
        Finalize::Never => "always current",
    }
}

fn row(release: &Release) -> Row {
    let quirk = |quirk: Quirk| QuirkLine { name: quirk.name(), about: quirk.describe() };
    Row {
        release: release.name,
        point: release.point,
        evidence: release.evidence.word(),
        kho: release.kho.compatible(),
        finalize: finalize(release),
        luo: release.luo.map(LuoVersion::compatible),
        memfd: release.memfd.map(MemfdVersion::compatible),
        flb: release.flb,
        metadata: release.metadata,
        commands: commands(release),
        limits: limits(release),
        quirks: release.quirks.iter().map(quirk).collect(),
    }
}

fn table(rows: &[Row]) -> String {
    let head = ["release", "as in", "known by", "KHO", "LUO", "memfd", "FLB", "sessions", "files", "quirks"];
    let line = |row: &Row| {
        let limit =
            |of: fn(&Limits) -> u64| row.limits.as_ref().map_or(String::from("-"), |l| of(l).to_string());
        let word = |version: Option<&'static str>| version.unwrap_or("-").to_owned();
        [
            row.release.to_owned(),
            row.point.to_owned(),
            row.evidence.to_owned(),
            row.kho.to_owned(),
            word(row.luo),
            word(row.memfd),
            String::from(if row.flb { "yes" } else { "no" }),
            limit(|limits| limits.sessions),
            limit(|limits| limits.files_per_session),
            row.quirks.len().to_string(),
        ]
    };
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(line));
    let mut out = crate::render::columns(&lines);
    out.push_str("\nfiles: per session. known by: recorded answers of that kernel, observed boots, or history of the source.\n");
    out
}

/// The releases of `rows` for which `has` holds, as text.
fn having(rows: &[Row], has: impl Fn(&Row) -> bool) -> String {
    rows.iter().filter(|row| has(row)).map(|row| row.release).collect::<Vec<_>>().join(" ")
}

fn ioctls(rows: &[Row]) -> String {
    let head = ["ioctl", "number", "releases"].map(str::to_owned);
    let line = |command: &Command| {
        let releases = having(rows, |row| row.commands.contains(&command.name()));
        [command.name().to_owned(), format!("{:#06x}", command.code()), releases]
    };
    let lines: Vec<[String; 3]> = [head].into_iter().chain(Command::ALL.iter().map(line)).collect();
    format!("\n{}", crate::render::columns(&lines))
}

fn quirks(rows: &[Row]) -> String {
    let mut out = format!("\n{}\n", paint(BOLD, "quirks: on by default in these releases"));
    let anywhere = |quirk: &&Quirk| {
        quirk.planted() || rows.iter().any(|row| row.quirks.iter().any(|line| line.name == quirk.name()))
    };
    for quirk in Quirk::ALL.iter().filter(anywhere) {
        let releases = having(rows, |row| row.quirks.iter().any(|line| line.name == quirk.name()));
        let _ = writeln!(out, "{quirk} ({releases})\n    {}", paint(DIM, quirk.describe()));
    }
    out
}

fn full(row: &Row) -> String {
    let posted = ReleaseId::named(row.release).and_then(|id| id.release().posted);
    let title = match posted {
        Some(design) => format!("{}: posted in {}, never released", row.release, design.posted()),
        None => format!("Linux {}", row.release),
    };
    let mut out = format!("{}\n", paint(BOLD, &title));
    let mut say = |what: &str, text: &str| {
        let _ = writeln!(out, "  {what:<18} {text}");
    };
    if posted.is_some() {
        say("KHO", &format!("{}, finalised by PREPARE, before the image is loaded", row.kho));
        say("commands", &row.commands.join(" "));
        return out + &quirk_lines(row);
    }
    say("as in", &format!("{} ({})", row.point, row.evidence));
    say("KHO", &format!("{}, {}", row.kho, row.finalize));
    say("LUO", row.luo.unwrap_or("none: no /dev/liveupdate"));
    say("memfd handler", row.memfd.unwrap_or("none"));
    say("FLBs", if row.flb { "yes" } else { "no" });
    say("kexec-metadata", if row.metadata { "yes" } else { "no" });
    if let Some(limits) = &row.limits {
        say("commands", &row.commands.join(" "));
        say("sessions", &format!("{}, then {}", limits.sessions, limits.sessions_errno));
        say("files per session", &format!("{}, then ENOSPC", limits.files_per_session));
    }
    out + &quirk_lines(row)
}

fn quirk_lines(row: &Row) -> String {
    let line = |quirk: &QuirkLine| format!("  {}\n      {}\n", quirk.name, paint(DIM, quirk.about));
    row.quirks.iter().map(line).collect()
}

/// The posted designs, as a group of their own: they were never released.
fn posted_group() -> String {
    let mut lines = vec![["posted design", "posted in", "commands", "quirks"].map(str::to_owned)];
    for row in POSTED {
        let design = row.posted.expect("every row of this table is one");
        let count = |count: usize| count.to_string();
        let (commands, quirks) = (count(posted_commands(design).len()), count(row.quirks.iter().count()));
        lines.push([row.name.to_owned(), design.posted().to_owned(), commands, quirks]);
    }
    let note = "designs of the orchestrator that were posted and never released: luosim releases posted-v2, luosim abi states posted-v2";
    format!("\n{}\n{note}\n", crate::render::columns(&lines))
}

pub(crate) fn releases(arguments: &ReleasesArguments) -> Ending {
    let all = arguments.releases.is_empty();
    let chosen: Vec<&Release> = if all {
        RELEASES.iter().collect()
    } else {
        arguments.releases.iter().map(|id| id.release()).collect()
    };
    let rows: Vec<Row> = chosen.into_iter().map(row).collect();
    let posted = if all { POSTED.iter().map(row).collect() } else { Vec::new() };
    let text = match arguments.format {
        Format::Json => crate::render::json(&Table { version: 1, releases: rows, posted }),
        Format::Text if all => table(&rows) + &posted_group() + &ioctls(&rows) + &quirks(&rows),
        Format::Text => rows.iter().map(full).collect::<Vec<_>>().join("\n"),
    };
    print(&text);
    Ending::AsExpected
}
