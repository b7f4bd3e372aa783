//! What a run found: groups by cause, as text, and as a result file that other runs of other machines are joined with.
//!
//! A result file is lines of JSON: a `start`, a `finding` for each group, an `end` with the counts. Lines, because they
//! are read by people and tools, by later versions, and after a crash: a file without its end is refused. It is small:
//! a group has one scenario. Nothing is read of a file above [`MOST_BYTES`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use luosim_sim::explore::campaign::Outcome;
use luosim_sim::explore::finding::Finding;
use luosim_sim::explore::invariant::Invariant;
use luosim_sim::explore::options::Common;
use luosim_sim::explore::world::Tally;
use serde::{Deserialize, Serialize};

use super::shard::Shard;
use super::work::Plan;

/// Version of the lines.
const VERSION: u32 = 1;
/// Largest result file that is read: 64 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// Findings with one cause; the one with the fewest steps stands for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// What they share.
    pub(crate) cause: String,
    /// The quirk that explains them.
    pub(crate) quirk: Option<String>,
    /// How many seeds found it.
    pub(crate) count: u64,
    /// The shortest.
    pub(crate) shortest: Finding,
}

impl Group {
    pub(crate) fn is_own_fault(&self) -> bool {
        matches!(self.shortest.invariant, Invariant::Alive | Invariant::Same)
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        let rank = |finding: &Finding| (finding.steps, finding.seed);
        if rank(&other.shortest) < rank(&self.shortest) {
            self.shortest = other.shortest;
        }
    }

    /// A name for its file.
    fn file_name(&self) -> String {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let words: String = self.cause.chars().map(plain).collect();
        let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
        format!("{}.kdl", words.join("-").chars().take(80).collect::<String>())
    }
}

/// What a run, or a part of one, found.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    /// What the seeds have in common, as options of the command.
    options: String,
    /// Parts that are in it.
    shards: Vec<Shard>,
    /// Seeds, as far as they are known beforehand.
    seeds: (u64, u64),
    /// What was done.
    pub(crate) tally: Tally,
    /// Seconds that it took; of joined results those of the longest.
    pub(crate) seconds: u64,
    /// What was found, by cause.
    pub(crate) groups: BTreeMap<String, Group>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line {
    Start { version: u32, luosim: String, options: String, shards: Vec<Shard>, seeds: (u64, u64) },
    Finding(Box<Group>),
    End { tally: Tally, seconds: u64, groups: usize },
}

impl Results {
    pub(crate) fn new(common: &Common, plan: &Plan) -> Self {
        Self {
            options: common.command_line(),
            shards: vec![plan.shard],
            seeds: (plan.first, plan.end),
            tally: Tally::default(),
            seconds: 0,
            groups: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, _seed: u64, outcome: Outcome) {
        self.tally.add(outcome.tally);
        for finding in outcome.findings {
            let (cause, quirk) = (finding.cause.clone(), finding.quirk_name.clone());
            self.join(Group { cause, quirk, count: 1, shortest: finding });
        }
    }

    fn join(&mut self, group: Group) {
        match self.groups.get_mut(&group.cause) {
            Some(known) => known.join(group),
            None => drop(self.groups.insert(group.cause.clone(), group)),
        }
    }

    pub(crate) fn has(&self, wanted: impl Fn(&Group) -> bool) -> bool {
        self.groups.values().any(wanted)
    }

    /// The lines of a result file.
    pub(crate) fn lines(&self) -> Result<String, String> {
        let luosim = env!("CARGO_PKG_VERSION").to_owned();
        let (options, shards) = (self.options.clone(), self.shards.clone());
        let start = Line::Start { version: VERSION, luosim, options, shards, seeds: self.seeds };
        let findings = self.groups.values().map(|group| Line::Finding(Box::new(group.clone())));
        let end = Line::End { tally: self.tally, seconds: self.seconds, groups: self.groups.len() };
        let mut text = String::new();
        for line in std::iter::once(start).chain(findings).chain([end]) {
            text.push_str(&serde_json::to_string(&line).map_err(|error| error.to_string())?);
            text.push('\n');
        }
        Ok(text)
    }

    /// For people.
    pub(crate) fn text(&self, folder: Option<&Path>) -> String {
        let mut text = String::new();
        for (title, quirks) in [("quirks of the releases, as they are known", true), ("findings", false)] {
            let groups: Vec<&Group> =
                self.groups.values().filter(|group| group.quirk.is_some() == quirks).collect();
            if !groups.is_empty() {
                let _ = writeln!(text, "{title}:");
            }
            for group in groups {
                describe(&mut text, (group, &self.options), folder);
            }
        }
        let Tally { seeds, steps, kexecs } = self.tally;
        let quirks = self.groups.values().filter(|group| group.quirk.is_some()).count();
        let found = self.groups.len() - quirks;
        let _ = writeln!(
            text,
            "{seeds} seeds, {steps} steps, {kexecs} kexecs: {found} findings, {quirks} quirks"
        );
        text
    }

    /// The result as it was read from the text of a file.
    fn parse(text: &str) -> Result<Self, String> {
        let mut lines =
            text.lines().map(|line| serde_json::from_str::<Line>(line).map_err(|error| error.to_string()));
        let Some(Line::Start { version, options, shards, seeds, .. }) = lines.next().transpose()? else {
            return Err(String::from("no result file of luosim explore: it does not begin with a start"));
        };
        if version != VERSION {
            return Err(format!(
                "version {version} of result files is not known; this luosim reads {VERSION}"
            ));
        }
        let (tally, groups) = (Tally::default(), BTreeMap::new());
        let mut results = Self { options, shards, seeds, tally, seconds: 0, groups };
        for line in lines {
            match line? {
                Line::Finding(group) => results.join(*group),
                Line::End { tally, seconds, groups } if groups == results.groups.len() => {
                    (results.tally, results.seconds) = (tally, seconds);
                    return Ok(results);
                }
                Line::End { .. } | Line::Start { .. } => {
                    return Err(String::from("lines are missing or too many"));
                }
            }
        }
        Err(String::from("its end is missing: that part did not finish"))
    }
}

fn describe(text: &mut String, (group, options): (&Group, &str), folder: Option<&Path>) {
    let Finding { seed, steps_found, steps, detail, .. } = &group.shortest;
    let _ = writeln!(
        text,
        "  {} ({} seeds, first {seed}; {steps_found} steps, shrunk to {steps})",
        group.cause, group.count
    );
    let _ = writeln!(text, "    {detail}");
    match folder {
        Some(folder) if !group.shortest.scenario.is_empty() => {
            let _ = writeln!(text, "    luosim run --explain {}", folder.join(group.file_name()).display());
        }
        _ => {
            let _ = writeln!(text, "    luosim explore --seeds {seed}..{} {options} --out DIR", seed + 1);
        }
    }
}

/// Writes the result file and a scenario for each group.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(folder: &Path, results: &Results) -> Result<(), String> {
    let told = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(folder).map_err(|error| told(folder, error))?;
    let shard = results.shards.first().copied().unwrap_or(Shard::WHOLE);
    let path = folder.join(format!("explore-{}-of-{}.jsonl", shard.index, shard.count));
    std::fs::write(&path, results.lines()?).map_err(|error| told(&path, error))?;
    for group in results.groups.values().filter(|group| !group.shortest.scenario.is_empty()) {
        let path = folder.join(group.file_name());
        std::fs::write(&path, &group.shortest.scenario).map_err(|error| told(&path, error))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Results, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(told)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(told)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > MOST_BYTES) {
        return Err(format!("{}: larger than {MOST_BYTES} bytes", path.display()));
    }
    Results::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// Joins result files of the parts of one run.
///
/// # Errors
/// A file that cannot be read, is not whole, or belongs to a run with other options.
pub(crate) fn merge(paths: &[PathBuf]) -> Result<Results, String> {
    let mut all: Option<Results> = None;
    for path in paths {
        let part = read(path)?;
        let Some(all) = &mut all else {
            all = Some(part);
            continue;
        };
        if part.options != all.options || part.seeds != all.seeds {
            let (one, other) = (&part.options, &all.options);
            return Err(format!("{}: another run ({one:?}), not part of {other:?}", path.display()));
        }
        if let Some(twice) = part.shards.iter().find(|shard| all.shards.contains(shard)) {
            return Err(format!(
                "{}: part {} of {} is there twice",
                path.display(),
                twice.index,
                twice.count
            ));
        }
        all.shards.extend(&part.shards);
        all.tally.add(part.tally);
        all.seconds = all.seconds.max(part.seconds);
        for group in part.groups.into_values() {
            all.join(group);
        }
    }
    let all = all.ok_or("no result file was given")?;
    let count = all.shards.first().map_or(1, |shard| shard.count);
    let missing = (0..count).filter(|index| !all.shards.iter().any(|shard| shard.index == *index)).count();
    if missing > 0 {
        crate::message(format_args!("{missing} of {count} parts are missing; this is what the others found"));
    }
    Ok(all)
}
