//! `luosim inspect`: options, and what is written where. Trees, maps and differences are rendered below.

mod differences;
mod flips;
mod picture;
mod svg;
mod tree;

use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::Args;
use luosim_abi::release::ReleaseId;
use luosim_inspect::report::Report;
use luosim_inspect::{Hints, Inspection, Options, Severity, Source};
use luosim_physmem::PhysAddr;

use crate::commands::{Format, print, release};
use crate::{Ending, message, render};

const EXAMPLES: &str = "\
Examples:
  luosim inspect dump/vm/kexec-1                 a folder of luosim run --dump-handover
  luosim inspect --strict vmcore                 exit code 1 if anything is wrong
  luosim inspect --scratch 0x73f0000,48 ram.bin  raw memory, scratch array given
  luosim inspect --map owners.svg IMAGE          who owns each page, as a picture
  luosim inspect --session vm-1 --file 0x10 --extract ram.img IMAGE
  luosim inspect --diff before after             what differs, by meaning
  luosim inspect --flip-survey IMAGE             what each single wrong bit would do

A SOURCE is raw memory, a zstd image, a folder with manifest.json, an ELF core (QEMU's dump-guest-memory, a kdump \
vmcore), or a single blob copied from debugfs; which one, its content says.

Exit codes: 0 inspected (with --diff: the same), 1 something is wrong and --strict was given (with --diff: \
different), 2 bad input, 3 luosim's own fault.";

/// Options of `luosim inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArguments {
    /// The memory
    #[arg(required_unless_present = "diff", value_name = "SOURCE")]
    source: Option<PathBuf>,
    /// Compare two handovers by meaning
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["source", "map", "file", "session", "strict"])]
    diff: Option<Vec<PathBuf>>,
    /// Compare addresses too
    #[arg(long, requires = "diff")]
    addresses: bool,
    /// The root tree is at this address
    #[arg(long, value_name = "ADDR", value_parser = address, help_heading = "Where things are")]
    root: Option<PhysAddr>,
    /// The scratch array is at this address and has so many bytes
    #[arg(long, value_name = "ADDR,SIZE", value_parser = range, help_heading = "Where things are")]
    scratch: Option<(PhysAddr, u64)>,
    /// Of raw memory, so many bytes are below 4 GiB; the rest of the file begins at 4 GiB
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = "Where things are")]
    low_memory: Option<u64>,
    /// Only the session with this name
    #[arg(long, value_name = "NAME", help_heading = "What is shown")]
    session: Option<String>,
    /// Only the file with this token
    #[arg(long, value_name = "TOKEN", value_parser = number, help_heading = "What is shown")]
    file: Option<u64>,
    /// Write the contents of that file into FILE; zeros become holes
    #[arg(long, value_name = "FILE", requires = "file", help_heading = "What is shown")]
    extract: Option<PathBuf>,
    /// Write who owns each page as a picture into this file; - shows it as text instead of the tree
    #[arg(long, value_name = "SVG", help_heading = "What is shown")]
    map: Option<PathBuf>,
    /// Make a digest of the contents of each file
    #[arg(long, help_heading = "What is shown")]
    digest: bool,
    /// Flip every bit of every structure, boot on it, and say what a program would see
    #[arg(long, help_heading = "Wrong bits", conflicts_with_all = ["diff", "map", "extract", "session", "file"])]
    flip_survey: bool,
    /// The kernel that boots [default: the one that wrote the memory]
    #[arg(long, value_name = "RELEASE", value_parser = release, requires = "flip_survey", help_heading = "Wrong bits")]
    release: Option<ReleaseId>,
    /// Only this structure, as the table names it; may be given several times
    #[arg(long, value_name = "NAME", requires = "flip_survey", help_heading = "Wrong bits")]
    structure: Vec<String>,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N", requires = "flip_survey", help_heading = "Wrong bits")]
    jobs: Option<NonZero<usize>>,
    /// How results are written
    #[arg(long, value_enum, default_value = "text", help_heading = "What is shown")]
    format: Format,
    /// Exit code 1 if anything is wrong
    #[arg(long)]
    strict: bool,
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| String::from("write a number, decimal or with 0x"))
}

fn address(text: &str) -> Result<PhysAddr, String> {
    number(text).map(PhysAddr::new)
}

fn range(text: &str) -> Result<(PhysAddr, u64), String> {
    let (at, size) = text.split_once(',').ok_or("write ADDR,SIZE")?;
    Ok((address(at)?, number(size)?))
}

/// A size with `K`, `M` or `G`.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let bytes = number(digits)?.checked_mul(1 << shift).ok_or("that is too much")?;
    if bytes.is_multiple_of(4096) { Ok(bytes) } else { Err(String::from("it must be a multiple of 4096")) }
}

/// What could not be done, in words: bad input.
type Failure = String;

impl InspectArguments {
    fn open(&self, path: &Path) -> Result<Inspection, Failure> {
        let source = Source::open(path, self.low_memory).map_err(|error| error.to_string())?;
        let hints = Hints { root: self.root, scratch: self.scratch };
        let inspection = luosim_inspect::inspect(source, &Options { hints, digest: self.digest });
        let report = &inspection.report;
        if report.root.is_some() || report.blob.is_some() {
            return Ok(inspection);
        }
        let why: Vec<&str> = report.findings.iter().map(|finding| finding.what.as_str()).collect();
        Err(format!("{}: {}", path.display(), why.join("; ")))
    }

    /// The report with only the sessions and files that were asked for.
    fn filtered(&self, report: &Report) -> Result<Report, Failure> {
        let mut report = report.clone();
        let Some(luo) = report.luo.as_mut().filter(|_| self.session.is_some() || self.file.is_some()) else {
            return if self.session.is_some() || self.file.is_some() {
                Err(String::from("the handover has no sessions"))
            } else {
                Ok(report)
            };
        };
        if let Some(name) = &self.session {
            luo.sessions
                .retain(|session| session.name.0 == name.as_bytes() || session.name.to_string() == *name);
            if luo.sessions.is_empty() {
                return Err(format!("there is no session \"{name}\""));
            }
        }
        if let Some(token) = self.file {
            for session in &mut luo.sessions {
                session.files.retain(|file| file.token == token);
            }
            luo.sessions.retain(|session| !session.files.is_empty());
            if luo.sessions.is_empty() {
                return Err(format!("no session has a file with token {token:#x}"));
            }
        }
        Ok(report)
    }
}

pub(crate) fn inspect(arguments: &InspectArguments) -> Ending {
    let done = match &arguments.diff {
        Some(both) => compare(arguments, both),
        None => show(arguments),
    };
    done.unwrap_or_else(|failure| {
        message(format_args!("{failure}"));
        Ending::BadInput
    })
}

fn compare(arguments: &InspectArguments, both: &[PathBuf]) -> Result<Ending, Failure> {
    let [a, b] = both else { return Err(String::from("--diff takes two sources")) };
    let (a, b) = (arguments.open(a)?, arguments.open(b)?);
    if a.report.blob.is_some() || b.report.blob.is_some() {
        return Err(String::from("a single blob is no handover: --diff compares memory"));
    }
    let diff = luosim_inspect::diff::diff(&a, &b, arguments.addresses);
    match arguments.format {
        Format::Text => print(&differences::text(&diff)),
        Format::Json => print(&render::json(&diff)),
    }
    Ok(if diff.same { Ending::AsExpected } else { Ending::Failed })
}

fn show(arguments: &InspectArguments) -> Result<Ending, Failure> {
    let path = arguments.source.as_ref().ok_or("give a source")?;
    let inspection = arguments.open(path)?;
    if arguments.flip_survey {
        let wish = flips::Wish {
            release: arguments.release,
            structures: &arguments.structure,
            jobs: arguments.jobs,
            as_json: arguments.format == Format::Json,
        };
        print(&flips::flip_survey(&inspection, &wish)?);
        return Ok(Ending::AsExpected);
    }
    let report = arguments.filtered(&inspection.report)?;
    let as_text = arguments.map.as_deref() == Some(Path::new("-"));
    if let Some(to) = arguments.map.as_ref().filter(|_| !as_text) {
        let picture = svg::draw(&picture::Picture::new(&inspection), &inspection.report);
        std::fs::write(to, picture).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    if let Some(to) = &arguments.extract {
        extract(&inspection, &report, to)?;
    }
    match arguments.format {
        Format::Json => print(&render::json(&report)),
        Format::Text if as_text => print(&picture::Picture::new(&inspection).text(&inspection.report)),
        Format::Text if arguments.extract.is_some() => {}
        Format::Text => print(&tree::tree(&report)),
    }
    let wrong = report.findings.iter().any(|finding| finding.severity > Severity::Info);
    let wrong = wrong || report.findings_left_out > 0;
    Ok(if arguments.strict && wrong { Ending::Failed } else { Ending::AsExpected })
}

/// Writes the contents of the one file that is left in the report.
fn extract(inspection: &Inspection, report: &Report, to: &Path) -> Result<(), Failure> {
    let sessions = report.luo.as_ref().map(|luo| luo.sessions.as_slice()).unwrap_or_default();
    let [session] = sessions else {
        let names: Vec<String> = sessions.iter().map(|session| format!("\"{}\"", session.name)).collect();
        return Err(format!(
            "sessions {} have a file with that token: say which with --session",
            names.join(", ")
        ));
    };
    let file = session.files.first().ok_or("the session has no such file")?;
    let fail = |error: std::io::Error| format!("{}: {error}", to.display());
    let target = File::create(to).map_err(fail)?;
    let written = inspection.extract(session.index, file.index, &target).map_err(fail)?;
    let size = file.memfd.as_ref().map(|memfd| memfd.size).filter(|_| written);
    let Some(size) = size else {
        return Err(format!("the state of a file of \"{}\" is not known here", file.handler));
    };
    let (name, token) = (&session.name, file.token);
    message(format_args!("session \"{name}\", token {token:#x}: {size} bytes written to {}", to.display()));
    Ok(())
}

/// `4 MiB`, `5000 bytes`.
fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| format!("{bytes} bytes"), |(shift, name)| format!("{} {name}", bytes >> shift))
}

/// `1 file`, `2 files`.
fn counted<N: std::fmt::Display + Copy + PartialEq + From<u8>>(count: N, what: &str) -> String {
    if count == N::from(1) { format!("1 {what}") } else { format!("{count} {what}s") }
}
