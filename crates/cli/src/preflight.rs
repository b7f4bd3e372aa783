//! `luosim preflight`: what would survive a kexec from one kernel to another.
//!
//! Exit codes: 0 everything, 1 part of it, 4 nothing; 2 bad input and 3 luosim's own fault as everywhere. So a
//! script that goes on only after 0 is safe.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use luosim_abi::luo::{flb, v1 as luo_v1};
use luosim_abi::release::{RELEASES, ReleaseId};
use luosim_preflight::{
    Boot, Fate, File, Finding, Handover, Kernel, Layer, LuoStrings, ReadError, Session, SessionFate, Source,
    State, Survival, Verdict,
};
use serde::Serialize;

use crate::commands::{Format, print};
use crate::message;
use crate::render::{self, BAD, BOLD, DIM, GOOD, WARN, paint};

/// Version of the JSON form.
const VERSION: u32 = 1;

const EXAMPLES: &str = "\
Examples:
  luosim preflight /boot/vmlinuz-7.2.13 arch/x86/boot/bzImage
  luosim preflight 7.1 ./vmlinux                 from a release that luosim knows
  luosim preflight 6.19 7.0                      no file at all
  luosim preflight --handover vmcore 7.2 7.3     of each session and file of a real handover
  luosim preflight --format json OLD NEW         for programs

Exit codes: 0 everything survives, 1 part of it, 4 nothing; 2 bad input, 3 luosim's own fault.";

/// Options of `luosim preflight`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PreflightArguments {
    /// The kernel that hands over: a file (vmlinux, bzImage, arm64 Image or EFI zboot image, packed or not), or a
    /// release
    #[arg(value_name = "OLD")]
    old: OsString,
    /// The kernel that takes over: likewise. Files are only read, never run
    #[arg(value_name = "NEW")]
    new: OsString,
    /// Say it of each session and file of this handover of OLD, from any source that `luosim inspect` reads
    #[arg(long, value_name = "IMAGE")]
    handover: Option<PathBuf>,
    /// How the verdict is written
    #[arg(long, value_enum, default_value = "text", help_heading = "Output")]
    format: Format,
}

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    All = 0,
    Part = 1,
    BadInput = 2,
    Nothing = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Survival> for Exit {
    fn from(survives: Survival) -> Self {
        match survives {
            Survival::All => Self::All,
            Survival::Part => Self::Part,
            Survival::Nothing => Self::Nothing,
        }
    }
}

/// A kernel under the name that the user gave it.
#[derive(Debug, Serialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    kernel: Kernel,
}

/// The JSON form.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: u32,
    old: &'a Named,
    new: &'a Named,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

pub(crate) fn preflight(arguments: &PreflightArguments) -> Exit {
    let (Some(old), Some(new)) = (kernel(&arguments.old), kernel(&arguments.new)) else {
        return Exit::BadInput;
    };
    let verdict = match arguments.handover.as_deref().map(handover).transpose() {
        Ok(None) => Verdict::between(&old.kernel, &new.kernel),
        Ok(Some(handover)) => Verdict::of_handover(&handover, &old.kernel, &new.kernel),
        Err(problem) => {
            message(format_args!("{problem}"));
            return Exit::BadInput;
        }
    };
    match arguments.format {
        Format::Text => print(&text(&old, &new, &verdict)),
        Format::Json => {
            let report = Report { version: VERSION, old: &old, new: &new, verdict: &verdict };
            print(&render::json(&report));
        }
    }
    verdict.survives.into()
}

/// What lies in handover memory, as far as versions and names go.
fn handover(path: &Path) -> Result<Handover, String> {
    let source = luosim_inspect::Source::open(path, None).map_err(|error| error.to_string())?;
    let report = luosim_inspect::inspect(source, &luosim_inspect::Options::default()).report;
    let Some(root) = report.root else {
        let why: Vec<String> = report.findings.into_iter().map(|finding| finding.what).collect();
        return Err(format!("{} is no handover: {}", path.display(), why.join("; ")));
    };
    let luo = report.luo.as_ref().map(|luo| {
        // The inspector reads a session node of this version only, and an FLB node if there is one.
        let tree = luo.compatible == luo_v1::COMPATIBLE;
        LuoStrings {
            root: luo.compatible.clone(),
            session: tree.then(|| String::from(luo_v1::SESSION_COMPATIBLE)),
            flb: (tree && luo.flbs_at.is_some()).then(|| String::from(flb::COMPATIBLE)),
        }
    });
    let (sessions, flbs) = report.luo.map(|luo| (luo.sessions, luo.flbs)).unwrap_or_default();
    let file =
        |file: luosim_inspect::report::File| File { handler: file.handler.to_string(), token: file.token };
    let session = |session: luosim_inspect::report::Session| Session {
        name: session.name.to_string(),
        files: session.files.into_iter().map(file).collect(),
    };
    Ok(Handover {
        kho: root.compatible,
        luo,
        sessions: sessions.into_iter().map(session).collect(),
        flbs: flbs.iter().map(|flb| flb.name.to_string()).collect(),
        subtrees: root.subtrees.into_iter().map(|subtree| subtree.name).collect(),
    })
}

/// The kernel with this name: a release, else a file. A file that is called as a release is `./7.3`.
fn kernel(name: &OsStr) -> Option<Named> {
    let shown = name.display().to_string();
    if let Some(id) = ReleaseId::from_name(&shown) {
        return Some(Named { name: shown, kernel: Kernel::of_release(id.release()) });
    }
    match Kernel::read(Path::new(name)) {
        Ok(kernel) => Some(Named { name: shown, kernel }),
        Err(error) => {
            message(format_args!("{shown}: {error}{}", or_release(&error)));
            None
        }
    }
}

/// What else a name could have been that no file has.
fn or_release(error: &ReadError) -> String {
    let missing = matches!(error, ReadError::Io(error) if error.kind() == std::io::ErrorKind::NotFound);
    let known: Vec<&str> = RELEASES.iter().map(|release| release.name).collect();
    if missing { format!("; luosim knows the releases {}", known.join(", ")) } else { String::new() }
}

fn text(old: &Named, new: &Named, verdict: &Verdict) -> String {
    let mut out = described("OLD", old) + &described("NEW", new);
    let _ = writeln!(out, "{}", paint(BOLD, "== layers"));
    for finding in &verdict.layers {
        out.push_str(&layer(finding));
    }
    if let Some(fates) = &verdict.sessions {
        out.push_str(&sessions(fates, verdict));
    }
    for note in &verdict.notes {
        let _ = writeln!(out, "  {} {note}", paint(DIM, "note:"));
    }
    out + &conclusion(old, new, verdict)
}

/// What a kernel is, and what it carries.
fn described(role: &str, named: &Named) -> String {
    let kernel = &named.kernel;
    let release = kernel.release.as_deref().unwrap_or("of unknown release");
    let from = match &kernel.source {
        Source::Release => String::from("as luosim knows it"),
        Source::File { container, packings } => {
            let packed: Vec<&str> = packings.iter().map(|packing| packing.name()).collect();
            let packed = if packed.is_empty() { String::new() } else { format!(", {}", packed.join(" in ")) };
            format!("{} ({}{packed})", named.name, container.name())
        }
    };
    let carries = kernel
        .lacks()
        .map_or_else(|| kernel.formats.strings().collect::<Vec<_>>().join(", "), |lacks| paint(WARN, lacks));
    let mut text = format!("{} Linux {release}: {from}\n    {carries}\n", paint(BOLD, role));
    for warning in &kernel.warnings {
        let _ = writeln!(text, "    {} {warning}", paint(WARN, "warning:"));
    }
    text
}

/// A layer: its state in a column of its own, and below a refusal what it costs.
fn layer(finding: &Finding) -> String {
    let style = match finding.state {
        State::Accepted => GOOD,
        State::Refused => BAD,
        State::Ignored => WARN,
        State::Absent | State::NotReached => DIM,
    };
    let state = paint(style, &format!("{:11}", finding.state.name()));
    let strings = match (&finding.old, &finding.new) {
        (Some(old), Some(new)) if old == new => old.clone(),
        (None, None) => String::new(),
        (old, new) => {
            let name = |string: &Option<String>| string.clone().unwrap_or_else(|| String::from("none"));
            format!("{} -> {}", name(old), name(new))
        }
    };
    let line = format!("  {state}  {:15}  {strings}", finding.layer.name());
    let mut text = format!("{}\n", line.trim_end());
    if !finding.text.is_empty() {
        let _ = writeln!(text, "               {}", finding.text);
    }
    text
}

/// The sessions of a handover. Why all are lost is said once: by its layer, or here.
fn sessions(fates: &[SessionFate], verdict: &Verdict) -> String {
    let mut text = format!("{}\n", paint(BOLD, "== sessions"));
    let common = fates.iter().find_map(|session| session.why.as_ref());
    if let Some(why) = common.filter(|_| verdict.boot == Boot::Handover) {
        let _ = writeln!(text, "  none comes back: {why}");
    }
    for session in fates {
        let (name, count) = (&session.name, session.files.len());
        let lost: Vec<_> = session.files.iter().filter(|file| file.fate == Fate::Lost).collect();
        let files = if count == 1 { String::from("1 file") } else { format!("{count} files") };
        if session.fate == Fate::Lost {
            let _ = writeln!(text, "  session \"{name}\": {} with {files}", paint(BAD, "lost"));
            continue;
        }
        let but = if lost.is_empty() { String::new() } else { format!(", {} of them lost", lost.len()) };
        let _ = writeln!(text, "  session \"{name}\": {}, {files}{but}", paint(GOOD, "carried"));
        for file in lost {
            let why = file.why.as_deref().unwrap_or_default();
            let _ = writeln!(
                text,
                "    token {:#x} ({}): {}: {why}",
                file.token,
                file.handler,
                paint(BAD, "lost")
            );
        }
    }
    text
}

/// The last line: how much survives, and if not all of it, why.
fn conclusion(old: &Named, new: &Named, verdict: &Verdict) -> String {
    let without = [old, new].into_iter().find_map(|named| {
        let why = named.kernel.lacks()?;
        let release = named.kernel.release.as_ref().unwrap_or(&named.name);
        Some(format!("{release}: {why}"))
    });
    match (verdict.survives, without) {
        (Survival::All, _) => format!("{}\n", paint(GOOD, "everything survives")),
        (Survival::Part, _) => format!("{}{}\n", paint(WARN, "part survives"), missing(verdict)),
        (Survival::Nothing, Some(without)) => format!("{}\n", paint(BAD, &without)),
        (Survival::Nothing, None) => {
            let panics = if verdict.boot == Boot::Panic { ", and the new kernel panics" } else { "" };
            format!("{}{}{panics}\n", paint(BAD, "nothing survives"), missing(verdict))
        }
    }
}

/// What of it does not survive.
fn missing(verdict: &Verdict) -> String {
    let refused = verdict.layers.iter().filter(|finding| finding.state == State::Refused);
    let places: Vec<String> = refused.map(place).collect();
    if places.is_empty() { String::new() } else { format!(": refused at {}", places.join(", ")) }
}

fn place(finding: &Finding) -> String {
    match (finding.layer, &finding.old) {
        (Layer::Handler | Layer::FlbObject, Some(string)) => format!("{} {string}", finding.layer.name()),
        (Layer::Flb, _) => String::from("the FLB node"),
        _ => format!("the {}", finding.layer.name()),
    }
}

#[cfg(test)]
mod tests {
    use luosim_preflight::{File, Handover, LuoStrings, Session};

    use super::*;

    fn named(name: &str) -> Named {
        kernel(OsStr::new(name)).expect("a release")
    }

    fn session(name: &str, handlers: &[&str]) -> Session {
        let tokens = (0x10..).zip(handlers);
        let files = tokens.map(|(token, handler)| File { handler: (*handler).to_owned(), token }).collect();
        Session { name: name.to_owned(), files }
    }

    /// What is shown of a handover of `old` whose second session has a device between two memory files.
    fn shown(old: &str, new: &str, memfd: &str) -> String {
        let (old, new) = (named(old), named(new));
        let formats = &old.kernel.formats;
        let handover = Handover {
            kho: formats.kho.clone().expect("KHO"),
            luo: formats.luo.clone().map(|root| LuoStrings {
                root,
                session: formats.session.clone(),
                flb: formats.flb.clone(),
            }),
            sessions: vec![
                session("cache", &[memfd]),
                session(r"vm\u{a}1", &[memfd, "vfio-pci-v1", memfd]),
                session("empty", &[]),
            ],
            ..Handover::default()
        };
        let verdict = Verdict::of_handover(&handover, &old.kernel, &new.kernel);
        let text = text(&old, &new, &verdict);
        let json = render::json(&Report { version: VERSION, old: &old, new: &new, verdict: &verdict });
        let sessions = json.split_once("\"sessions\":").expect("sessions").1;
        format!("{}\n{sessions}", anstream::adapter::strip_str(&text))
    }

    #[test]
    fn sessions_of_a_handover() {
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.bind(|| {
            insta::assert_snapshot!("sessions-eio", shown("7.2", "7.3", "memfd-v2"));
            insta::assert_snapshot!("sessions-forgiving", shown("6.19", "6.19", "memfd-v1"));
            insta::assert_snapshot!("sessions-cold", shown("7.1", "7.3", "memfd-v2"));
        });
    }
}
