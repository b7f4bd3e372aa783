//! The subcommands.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use luosim_abi::profile::Profile;
use luosim_abi::release::{RELEASES, ReleaseId};
use luosim_sim::{Options, Report};

use crate::files;
use crate::render::{self, Detail};
use crate::{Ending, message};

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: JSON, a document on a line of its own; the form is versioned.
    Json,
}

const RUN_EXAMPLES: &str = "\
Examples:
  luosim run sim-scenarios/basics/vm-live-update.kdl
  luosim run --quiet sim-scenarios               one line for each scenario below a folder
  luosim run --release 6.19 --explain FILE       another release; only calls that failed, and why
  luosim run --verbose FILE                      with everything the kernels log
  luosim run --format json FILE                  for programs
  luosim run --dump-handover DIR FILE            keep the memory of each kexec

Exit codes: 0 as expected, 1 an expectation failed, 2 bad input, 3 luosim's own fault.";

/// Options of `luosim run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArguments {
    /// Scenario files, or folders with scenarios below them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run every kernel with this release, or posted design, instead of the scenario's
    #[arg(long, value_name = "RELEASE", value_parser = bootable)]
    release: Option<ReleaseId>,
    /// Give every kernel the file types of this profile instead of the scenario's: mainline, next, posted-2026, target
    #[arg(long, value_name = "PROFILE", value_parser = profile)]
    profile: Option<Profile>,
    /// Show only calls that failed, with their reasons
    #[arg(long, help_heading = "Output")]
    explain: bool,
    /// How results are written
    #[arg(long, value_enum, default_value = "text", help_heading = "Output")]
    format: Format,
    /// Write the transcript into this file as well
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    transcript: Option<PathBuf>,
    /// Show the kernel log
    #[arg(short, long, help_heading = "Output")]
    verbose: bool,
    /// One line a scenario
    #[arg(short, long, help_heading = "Output", conflicts_with_all = ["explain", "verbose"])]
    quiet: bool,
    /// Write the memory and parameters of each kexec into this folder
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    dump_handover: Option<PathBuf>,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  luosim check mine.kdl
  luosim check sim-scenarios                     every scenario below a folder

Exit codes: 0 all are good, 2 one is not, 3 luosim's own fault.";

/// Options of `luosim check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArguments {
    /// Scenario files, or folders with scenarios below them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  luosim list                                    the scenarios in sim-scenarios
  luosim list sim-scenarios/sessions             those of a theme

Exit codes: 0 all were listed, 2 one could not be read, 3 luosim's own fault.";

/// Options of `luosim list`.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct ListArguments {
    /// Scenario files, or folders with scenarios below them
    #[arg(default_value = "sim-scenarios", value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::from_name(text).ok_or_else(|| {
        let known: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name()).collect();
        format!("luosim knows the profiles {}", known.join(", "))
    })
}

/// Anything that can be booted: a release, or a posted design.
pub(crate) fn bootable(text: &str) -> Result<ReleaseId, String> {
    ReleaseId::named(text).ok_or_else(|| {
        let known: Vec<&str> = ReleaseId::names().collect();
        format!("luosim can boot {}", known.join(", "))
    })
}

/// A release: no posted design.
pub(crate) fn release(text: &str) -> Result<ReleaseId, String> {
    ReleaseId::from_name(text).ok_or_else(|| {
        let known: Vec<&str> = RELEASES.iter().map(|release| release.name).collect();
        let known = format!("luosim knows the releases {}", known.join(", "));
        match ReleaseId::named(text) {
            Some(_) => format!(
                "{text} was posted and never released: it runs in scenarios and under `luosim exec`; {known}"
            ),
            None => known,
        }
    })
}

fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Ending> {
    files::find(paths).map_err(|error| {
        message(format_args!("{error}"));
        Ending::BadInput
    })
}

/// Writes to standard output. A reader that went away ends the command, which is no error; that nothing can
/// be written is one.
pub(crate) fn print(text: &str) {
    let mut out = anstream::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(Ending::AsExpected as i32);
        }
        message(format_args!("standard output cannot be written: {error}"));
        std::process::exit(Ending::BadInput as i32);
    }
}

pub(crate) fn check(arguments: &CheckArguments) -> Ending {
    let files = match find(&arguments.files) {
        Ok(files) => files,
        Err(ending) => return ending,
    };
    let bad = files.iter().filter(|path| files::read(path).is_none()).count();
    print(&format!("{} of {} scenarios are good\n", files.len() - bad, files.len()));
    if bad == 0 { Ending::AsExpected } else { Ending::BadInput }
}

pub(crate) fn list(arguments: &ListArguments) -> Ending {
    let files = match find(&arguments.files) {
        Ok(files) => files,
        Err(ending) => return ending,
    };
    let mut ending = Ending::AsExpected;
    let width = files.iter().map(|path| path.display().to_string().chars().count()).max().unwrap_or(0);
    for path in &files {
        match files::read(path) {
            Some(scenario) => print(&format!("{:width$}  {}\n", path.display().to_string(), scenario.about)),
            None => ending = Ending::BadInput,
        }
    }
    ending
}

/// What is written where during a run.
struct Output<'a> {
    arguments: &'a RunArguments,
    detail: Detail,
    transcript: Option<std::fs::File>,
}

impl Output<'_> {
    fn report(&mut self, path: &Path, report: &Report) -> std::io::Result<()> {
        let text = match self.arguments.format {
            Format::Json => render::json(report),
            Format::Text => render::report(report, self.detail),
        };
        if !(self.arguments.quiet && self.arguments.format == Format::Text) {
            print(&text);
        }
        if let Some(file) = &mut self.transcript {
            let plain = anstream::adapter::strip_str(&text).to_string();
            file.write_all(plain.as_bytes())?;
        }
        if self.arguments.format == Format::Text {
            print(&render::summary(path, report));
            if !report.passed() {
                print(&render::failures(path, &std::fs::read_to_string(path)?, report));
            }
        }
        Ok(())
    }
}

pub(crate) fn run(arguments: &RunArguments) -> Ending {
    let files = match find(&arguments.files) {
        Ok(files) => files,
        Err(ending) => return ending,
    };
    let transcript = match arguments.transcript.as_ref().map(std::fs::File::create).transpose() {
        Ok(transcript) => transcript,
        Err(error) => {
            message(format_args!("the transcript cannot be written: {error}"));
            return Ending::BadInput;
        }
    };
    let detail = Detail { explain: arguments.explain, log: arguments.verbose };
    let mut output = Output { arguments, detail, transcript };
    let bar = progress(files.len(), arguments.quiet);
    let endings: Vec<Ending> = files
        .iter()
        .map(|path| {
            bar.inc(1);
            bar.suspend(|| run_one(path, &mut output))
        })
        .collect();
    bar.finish_and_clear();
    if endings.len() > 1 && arguments.format == Format::Text {
        let good = endings.iter().filter(|ending| **ending == Ending::AsExpected).count();
        print(&format!("{good} passed, {} failed\n", endings.len() - good));
    }
    endings.into_iter().max().unwrap_or(Ending::AsExpected)
}

/// A bar for long work, on a terminal only.
fn progress(files: usize, quiet: bool) -> ProgressBar {
    if files < 10 || !quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} scenarios");
    let bar = ProgressBar::new(u64::try_from(files).unwrap_or(u64::MAX));
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn run_one(path: &Path, output: &mut Output<'_>) -> Ending {
    let Some(scenario) = files::read(path) else { return Ending::BadInput };
    let arguments = output.arguments;
    let dump_handover = arguments.dump_handover.as_ref().map(|folder| folder.join(&scenario.name));
    let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let options = Options { release: arguments.release, profile: arguments.profile, base, dump_handover };
    let report = match luosim_sim::run(&scenario, &options) {
        Ok(report) => report,
        Err(error) => {
            message(format_args!("{}: {error}", path.display()));
            return Ending::BadInput;
        }
    };
    if let Err(error) = output.report(path, &report) {
        message(format_args!("the transcript cannot be written: {error}"));
        return Ending::BadInput;
    }
    if report.passed() { Ending::AsExpected } else { Ending::Failed }
}
