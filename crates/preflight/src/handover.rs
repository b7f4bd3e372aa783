//! What becomes of the sessions and files of one handover.
//!
//! [`Handover`] is what an inspector of handover memory says of it: versions and names, no addresses. What a handler
//! would say of its own data is not in it, so a file that is carried may still fail to be retrieved.

use serde::Serialize;

use crate::verdict::{Boot, Survival, Verdict, forgives, share};
use crate::{Formats, Kernel};

/// A handover, as far as versions go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Version of the root tree.
    pub kho: String,
    /// Versions of the orchestrator; `None` without its entry.
    pub luo: Option<LuoStrings>,
    /// Its sessions, in the order of the memory.
    pub sessions: Vec<Session>,
    /// Names of its file-lifecycle-bound objects.
    pub flbs: Vec<String>,
    /// Names of the subtrees of the root.
    pub subtrees: Vec<String>,
}

/// The versions of an orchestrator's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LuoStrings {
    /// Of its root.
    pub root: String,
    /// Of the session node, in a tree.
    pub session: Option<String>,
    /// Of the FLB node, in a tree.
    pub flb: Option<String>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Its name, fit to be printed: who fills this in escapes odd bytes.
    pub name: String,
    /// Its files, in the order of the memory.
    pub files: Vec<File>,
}

/// A preserved file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// The string of its handler.
    pub handler: String,
    /// The user's token.
    pub token: u64,
}

/// What becomes of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It can be retrieved, as far as versions go.
    Carried,
    /// It cannot.
    Lost,
}

/// What becomes of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionFate {
    /// Its name.
    pub name: String,
    /// Whether the session can be retrieved.
    pub fate: Fate,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its files.
    pub files: Vec<FileFate>,
}

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileFate {
    /// Its token.
    pub token: u64,
    /// Its handler.
    pub handler: String,
    /// Whether it can be retrieved.
    pub fate: Fate,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Handover {
    /// The formats of the kernel that wrote this. What memory does not say, the machine, is that of `old`.
    fn formats(&self, old: &Formats) -> Formats {
        let mut handlers: Vec<String> = self
            .sessions
            .iter()
            .flat_map(|session| &session.files)
            .map(|file| file.handler.clone())
            .collect();
        handlers.sort();
        handlers.dedup();
        let memblock = self.subtrees.iter().any(|name| name == "memblock");
        Formats {
            arch: old.arch,
            page_size: old.page_size,
            kho: Some(self.kho.clone()),
            luo: self.luo.as_ref().map(|luo| luo.root.clone()),
            session: self.luo.as_ref().and_then(|luo| luo.session.clone()),
            flb: self.luo.as_ref().and_then(|luo| luo.flb.clone()),
            handlers,
            flbs: self.flbs.clone(),
            memblock: memblock.then(|| old.memblock.clone().unwrap_or_else(|| String::from("memblock-v1"))),
        }
    }

    fn files(&self) -> impl Iterator<Item = (&Session, &File)> {
        self.sessions.iter().flat_map(|session| session.files.iter().map(move |file| (session, file)))
    }
}

impl Verdict {
    /// What would survive of this handover, made by `old`, if `new` were the next kernel.
    #[must_use]
    pub fn of_handover(handover: &Handover, old: &Kernel, new: &Kernel) -> Self {
        let wrote = handover.formats(&old.formats);
        let mut verdict = Self::of(&wrote, &new.formats);
        verdict.note_kernels(old, new);
        if let Some(note) = not_of(&wrote, &old.formats) {
            verdict.notes.push(note);
        }
        let sessions = session_fates(handover, &new.formats, &verdict);
        if verdict.boot == Boot::Handover {
            verdict.survives = survival(&verdict, handover, &sessions);
        }
        verdict.sessions = Some(sessions);
        verdict
    }
}

/// Whether `old` can have written this.
fn not_of(wrote: &Formats, old: &Formats) -> Option<String> {
    let pairs = [(&wrote.kho, &old.kho), (&wrote.luo, &old.luo)];
    let differs = pairs.iter().find(|(wrote, old)| wrote.is_some() && wrote != old)?;
    let name = |string: &Option<String>| string.clone().unwrap_or_else(|| String::from("none"));
    let (is, would) = (name(differs.0), name(differs.1));
    Some(format!("this handover was not written by OLD: it has {is} where OLD has {would}"))
}

/// Sessions and files are counted one by one here; regions and objects as their layers say.
fn survival(verdict: &Verdict, handover: &Handover, sessions: &[SessionFate]) -> Survival {
    use crate::{Layer, State};
    let carried = |fate: Fate| fate == Fate::Carried;
    let files = sessions.iter().flat_map(|session| &session.files).map(|file| carried(file.fate));
    let objects = verdict
        .layers
        .iter()
        .filter(|finding| matches!(finding.layer, Layer::ReserveMem | Layer::FlbObject))
        .filter(|finding| finding.state != State::Absent)
        .map(|finding| finding.state == State::Accepted);
    // An FLB node that is ignored loses its objects, whatever NEW registers.
    let ignored =
        verdict.layers.iter().any(|finding| finding.layer == Layer::Flb && finding.state == State::Ignored);
    let lost = (ignored && !handover.flbs.is_empty()).then_some(false);
    let all: Vec<bool> = sessions
        .iter()
        .map(|session| carried(session.fate))
        .chain(files)
        .chain(objects)
        .chain(lost)
        .collect();
    share(&all)
}

fn session_fates(handover: &Handover, new: &Formats, verdict: &Verdict) -> Vec<SessionFate> {
    let missing = |file: &File| !new.handlers.contains(&file.handler);
    let culprit = handover.files().find(|(_, file)| missing(file));
    let nothing = if verdict.boot != Boot::Handover {
        // A handover with sessions has an orchestrator's data, so something is refused where the boot goes wrong.
        Some(verdict.first_refusal().map(|refusal| refusal.text.clone()).unwrap_or_default())
    } else if forgives(new) {
        None
    } else {
        culprit.map(|(session, file)| {
            let (name, token, handler) = (&session.name, file.token, &file.handler);
            format!("open fails with EIO: session \"{name}\", token {token:#x} has handler {handler}, which NEW has not")
        })
    };
    handover.sessions.iter().map(|session| session_fate(session, nothing.as_deref(), &missing)).collect()
}

/// One session; all of it is lost if there is a reason why `nothing` comes back.
fn session_fate(session: &Session, nothing: Option<&str>, missing: &impl Fn(&File) -> bool) -> SessionFate {
    let good = session.files.iter().take_while(|file| !missing(file)).count();
    let files = session.files.iter().enumerate().map(|(index, file)| {
        let why = match nothing {
            Some(_) => Some(String::from("its session is lost")),
            None if index < good => None,
            None if missing(file) => Some(format!("NEW has no handler {}: ENOENT", file.handler)),
            None => Some(String::from("it stands behind a file whose handler NEW has not: ENOENT")),
        };
        let fate = if why.is_none() { Fate::Carried } else { Fate::Lost };
        FileFate { token: file.token, handler: file.handler.clone(), fate, why }
    });
    SessionFate {
        name: session.name.clone(),
        fate: if nothing.is_none() { Fate::Carried } else { Fate::Lost },
        why: nothing.map(str::to_owned),
        files: files.collect(),
    }
}
