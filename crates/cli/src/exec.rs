//! `luosim exec`: unmodified programs on a simulated machine.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_gate::deed::{Answer, Served};
use luosim_gate::{End, Finished, Groups, Holes, Look, Options, Watch};
use luosim_machine::{BootOptions, BootReport};
use luosim_sim::transcript::ledger_lines;

use crate::commands::bootable;
use crate::message;
use crate::record::Recorder;
use crate::render::{self, BOLD, DIM, WARN, paint};

/// Exit codes of our own, away from those of programs.
pub(crate) const OWN_FAULT: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const PANICKED: u8 = 124;
/// Files lost by one cause that have a line each at the end of a run.
const ALIKE: usize = 20;
const REFUSED: u8 = 123;

const EXAMPLES: &str = "\
Examples:
  luosim exec -- ./agent --store                one generation
  luosim exec --generations 2 -- ./agent        ends well, kexec, the same again
  luosim exec --then './agent --check' -- ./agent --store
  luosim exec --chain 6.19,7.3 --trace -- ./agent
  luosim exec --release posted-v3 -- ./agent    on a design that was posted and never merged
  luosim exec --init ./init.sh                  like PID 1: again after each reboot(KEXEC)

A program makes the kexec itself with reboot(LINUX_REBOOT_CMD_KEXEC), or `luosim ctl kexec` does \
from another terminal, or it follows when a program ends with exit code 0 and another generation is \
to come.

Exit codes: that of the last generation's program (128+N if signal N ended it, or luosim; 0 if it \
made a kexec and no generation was left), or 123 the kexec after a program's end was refused, 124 the \
next kernel panicked, 125 luosim's own fault or wrong options, 126 the program cannot be executed, 127 it was not found.

This is a development tool and not a sandbox: whatever luosim does not serve runs on your machine.";

/// What becomes of holes in files when they are preserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HolesChoice {
    /// Filled up to 64 MiB of holes, as a kernel does; larger ones are left as they are
    Auto,
    /// Always filled, as a kernel does, whatever it costs
    Fill,
    /// Never filled
    Keep,
}

/// Options of `luosim exec`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExecArguments {
    /// Program and arguments of the first generation, and of all if no other is given
    #[arg(last = true, value_name = "PROGRAM", required_unless_present = "init")]
    program: Vec<OsString>,
    /// Release of every kernel, or posted design
    #[arg(long, value_name = "RELEASE", value_parser = bootable, default_value = "7.3", conflicts_with = "chain")]
    release: ReleaseId,
    /// Release, or posted design, of each kernel, in turn
    #[arg(long, value_name = "RELEASES", value_parser = bootable, value_delimiter = ',')]
    chain: Vec<ReleaseId>,
    /// How many generations run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Generations")]
    generations: Option<u32>,
    /// Shell command of the next generation; may be given several times
    #[arg(long, value_name = "CMD", help_heading = "Generations")]
    then: Vec<OsString>,
    /// Run this program in every generation, until one ends without a kexec, or as many as there are generations
    #[arg(long, value_name = "SCRIPT", conflicts_with_all = ["program", "then"], help_heading = "Generations")]
    init: Option<OsString>,
    /// Go on after the program has ended, while processes of it are left
    #[arg(long, help_heading = "Generations")]
    linger: bool,
    /// The first kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "kho=on liveupdate=on", help_heading = "Machine")]
    cmdline: String,
    /// Physical memory: bytes, or with K, M, G, T
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = size, help_heading = "Machine")]
    memory: u64,
    /// Switch a release's quirk off
    #[arg(long, value_name = "QUIRK", value_parser = quirk, value_delimiter = ',', help_heading = "Machine")]
    without_quirk: Vec<Quirk>,
    /// Switch a quirk on
    #[arg(long, value_name = "QUIRK", value_parser = quirk, value_delimiter = ',', help_heading = "Machine")]
    quirk: Vec<Quirk>,
    /// What becomes of holes in preserved files
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    holes: HolesChoice,
    /// A fresh tmpfs at this folder in each generation
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    tmpfs: Vec<PathBuf>,
    /// Serve every open, also for reading: exact, and slow for programs that open many files
    #[arg(long, help_heading = "Calls")]
    all_opens: bool,
    /// Do not look at writes: faster for programs that write much; a write may then grow a preserved memfd
    #[arg(long, help_heading = "Calls")]
    no_writes: bool,
    /// Do not look at readlink: links in /proc/PID/fd then show what stands for a session
    #[arg(long, help_heading = "Calls")]
    no_links: bool,
    /// Print each served call, its result and the reason
    #[arg(long, help_heading = "Output")]
    trace: bool,
    /// Print calls that failed, with their reasons
    #[arg(long, help_heading = "Output")]
    explain: bool,
    /// Print nothing of our own but errors
    #[arg(short, long, help_heading = "Output", conflicts_with_all = ["trace", "explain"])]
    quiet: bool,
    /// Write what the program did as a scenario that `luosim run` replays
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    record: Option<PathBuf>,
    /// Write the memory and parameters of each kexec into this folder
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    dump_handover: Option<PathBuf>,
}

fn quirk(name: &str) -> Result<Quirk, String> {
    Quirk::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Quirk::ALL.iter().map(|quirk| quirk.name()).collect();
        format!("luosim knows the quirks {}", known.join(", "))
    })
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size; say 512M or 64G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is more than 64 bits hold"))
}

/// Prints to standard error what the user wants to see: standard output is the program's.
struct Printer {
    trace: bool,
    explain: bool,
    quiet: bool,
    recorder: Option<Recorder>,
}

fn eprint(text: &str) {
    anstream::eprint!("{text}");
}

impl Watch for Printer {
    fn wants_calls(&self) -> bool {
        self.trace || self.explain || self.recorder.is_some()
    }

    fn served(&mut self, call: &Served) {
        if let Some(recorder) = &mut self.recorder {
            recorder.served(call);
        }
        let failed = matches!(call.answer, Answer::Refused(_));
        if self.trace || self.explain && failed {
            eprint(&line(call));
        }
    }

    fn booted(&mut self, report: &BootReport, cmdline: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.booted(report, cmdline);
        }
        let first = report.generation == 1 && report.outcome.word() == "cold";
        if self.quiet || first && !self.trace {
            return;
        }
        eprint(&boot(report, self.trace));
    }
}

/// One served call, as `--trace` shows it.
fn line(call: &Served) -> String {
    let (program, pid, deed) = (&call.program, call.pid, &call.deed);
    let mut text = format!("  {program}[{pid}] {deed}");
    match &call.answer {
        Answer::Value(value) => {
            let _ = writeln!(text, " = {value}");
        }
        Answer::Refused(refusal) => {
            let errno = paint(WARN, &format!("-{}", refusal.errno));
            let _ = writeln!(text, " = {errno}\n      {} {}", paint(DIM, "because"), refusal.reason);
        }
        Answer::None => text.push('\n'),
    }
    text
}

fn boot(report: &BootReport, log: bool) -> String {
    let mut text = String::new();
    if let Some(crossing) = &report.crossing {
        let carried = crossing.carried;
        let _ = writeln!(
            text,
            "{}",
            paint(BOLD, &format!("== kexec: carried {} sessions, {} files", carried.sessions, carried.files))
        );
    }
    let how = match report.outcome.reason() {
        None => String::from("took the handover over"),
        Some(reason) => format!("{}: {reason}", report.outcome.word()),
    };
    let head = format!("== kernel {}, Linux {}: {how}", report.generation, report.release.point);
    let _ = writeln!(text, "{}", paint(BOLD, &head));
    if log {
        for line in &report.log.lines {
            let _ = writeln!(text, "  {}", paint(DIM, &format!("[{}] {}", report.generation, line.text)));
        }
    }
    text
}

fn shell(command: &OsString) -> Vec<OsString> {
    vec![OsString::from("/bin/sh"), OsString::from("-c"), command.clone()]
}

fn options(arguments: &ExecArguments) -> Options {
    let mut commands: Vec<Vec<OsString>> = match &arguments.init {
        Some(init) => vec![vec![init.clone()]],
        None => vec![arguments.program.clone()],
    };
    commands.extend(arguments.then.iter().map(shell));
    let releases = if arguments.chain.is_empty() { vec![arguments.release] } else { arguments.chain.clone() };
    let at_least = commands.len().max(releases.len());
    let generations = match (&arguments.init, arguments.generations) {
        (_, Some(number)) => Some(number),
        (Some(_), None) => None,
        (None, None) => Some(u32::try_from(at_least).unwrap_or(u32::MAX)),
    };
    Options {
        commands,
        generations,
        kexec_at_exit: arguments.init.is_none(),
        linger: arguments.linger,
        releases,
        boot: BootOptions {
            cmdline: arguments.cmdline.clone(),
            quirks_on: arguments.quirk.clone(),
            quirks_off: arguments.without_quirk.clone(),
            ..BootOptions::default()
        },
        memory: arguments.memory,
        served: Groups {
            all_opens: arguments.all_opens,
            writes: !arguments.no_writes,
            links: !arguments.no_links,
        },
        holes: match arguments.holes {
            HolesChoice::Auto => Holes::Auto,
            HolesChoice::Fill => Holes::Fill,
            HolesChoice::Keep => Holes::Keep,
        },
        tmpfs: arguments.tmpfs.clone(),
    }
}

fn recorder(arguments: &ExecArguments) -> Recorder {
    let options = options(arguments);
    let releases = options.releases.iter().map(|release| release.release().name).collect();
    Recorder::new(options.memory, releases, (options.boot.quirks_on, options.boot.quirks_off))
}

/// Writes each kexec's memory into a folder of its own.
fn dumper(arguments: &ExecArguments) -> Look {
    let Some(folder) = arguments.dump_handover.clone() else { return Box::new(|_, _| {}) };
    let releases = options(arguments).releases;
    let mut kexec = 0;
    Box::new(move |memory, params| {
        let from = releases[kexec.min(releases.len() - 1)].release().point;
        kexec += 1;
        let target = folder.join(format!("kexec-{kexec}"));
        if let Err(error) = luosim_sim::dump::write(&target, from, memory, params) {
            message(format_args!("the handover cannot be written: {error}"));
        }
    })
}

pub(crate) fn exec(arguments: &ExecArguments) -> ExitCode {
    let mut printer = Printer {
        trace: arguments.trace,
        explain: arguments.explain,
        quiet: arguments.quiet,
        recorder: arguments.record.is_some().then(|| recorder(arguments)),
    };
    let run = luosim_gate::run(options(arguments), &mut printer, dumper(arguments));
    if let (Some(path), Some(recorder)) = (&arguments.record, &printer.recorder)
        && let Err(error) = std::fs::write(path, recorder.document())
    {
        message(format_args!("{}: {error}", path.display()));
        return ExitCode::from(OWN_FAULT);
    }
    match run {
        Ok(finished) => {
            if !arguments.quiet {
                eprint(&closing(&finished));
            }
            ExitCode::from(code(&finished.end))
        }
        Err(error) => {
            message(format_args!("{error}"));
            ExitCode::from(OWN_FAULT)
        }
    }
}

/// The ledger, if anything was preserved.
fn closing(finished: &Finished) -> String {
    let Some(ledger) = finished.machine.ledger() else { return String::new() };
    let lines = ledger_lines(ledger);
    if lines.is_empty() { String::new() } else { render::ledger(&lines, ALIKE, ledger.folded()) }
}

fn code(end: &End) -> u8 {
    match end {
        End::Exited(status) => status_code(*status),
        End::Kexec | End::Off => 0,
        End::Panicked(reason) => {
            message(format_args!("the kernel panicked: {reason}"));
            PANICKED
        }
        End::Refused(reason) => {
            message(format_args!("the kexec after the program's end was refused: {reason}"));
            REFUSED
        }
        End::NotExecuted(program, errno) => {
            let error = std::io::Error::from_raw_os_error(*errno);
            message(format_args!("{program}: {error}"));
            if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
        }
        End::Signalled(signal) => 128u8.saturating_add(u8::try_from(*signal).unwrap_or(127)),
    }
}

/// A wait status as a shell's exit code.
fn status_code(status: i32) -> u8 {
    let signal = status & 0x7f;
    let code = if signal == 0 { status >> 8 & 0xff } else { 128 + signal };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_become_a_shells_codes() {
        for (status, code) in [(0, 0), (1 << 8, 1), (77 << 8, 77), (9, 137), (15, 143), (0x80 | 11, 139)] {
            assert_eq!(status_code(status), code, "{status:#x}");
        }
    }

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(size("64G"), Ok(64 << 30));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("64X").is_err() && size("").is_err() && size("99999999999T").is_err());
    }
}
