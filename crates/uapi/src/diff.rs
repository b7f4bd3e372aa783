//! What changes between two interfaces, and whom it breaks, by the rules of ioctls that may grow:
//!
//! members are appended at the end only, and 0 means there what was before; nothing is moved, resized, renumbered or taken
//! away; bytes that had no name get no meaning, because programs left anything in them; a reserved member that had to be
//! zero may get one; the least size is never raised; a new command has a new number.
//!
//! The same rules say what an old program meets on the new kernel and a new program on the old one. Commands are the same
//! if their names are. Not here: whether a command that kept its name and its bytes still does the same.

use serde::Serialize;

use crate::interface::{Argument, Command, Field, Interface, Role};

/// What a change means for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Worth knowing; the bytes are the same.
    Note,
    /// Old programs do not see it.
    Compatible,
    /// Some program that worked does not, or works on other bytes than it means.
    Break,
}

luosim_abi::named! {
    /// A kind of change.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Kind {
        CommandAdded = "command-added", "a command is new";
        CommandRemoved = "command-removed", "a command is gone";
        CommandRenumbered = "command-renumbered", "a command has another number";
        NumberReused = "number-reused", "a number means another command";
        ArgumentAdded = "argument-added", "a command that passed nothing passes a structure";
        ArgumentRemoved = "argument-removed", "a command passes nothing any more";
        FieldAppended = "field-appended", "a member is new, behind all others";
        FieldRemoved = "field-removed", "a member is gone";
        FieldMoved = "field-moved", "a member lies elsewhere";
        FieldResized = "field-resized", "a member has another size";
        FieldRenamed = "field-renamed", "a member has another name";
        FieldRetyped = "field-retyped", "a member has another type of the same size";
        FieldRole = "field-role", "a member is given by another side";
        FieldRetired = "field-retired", "a member became room for later";
        FieldChecked = "field-checked", "a member that nobody looked at must be zero now";
        PaddingUsed = "padding-used", "bytes that had no name got a meaning";
        ReservedUsed = "reserved-used", "bytes that had to be zero got a meaning";
        UncheckedUsed = "unchecked-used", "bytes that nobody looked at got a meaning";
        Overlapped = "overlapped", "a new member lies where another was";
        Grown = "grown", "a structure that cannot tell its size has another size";
        Shrunk = "shrunk", "a structure is smaller";
        SizeFirst = "size-first", "a structure begins or ceases to tell its size";
        MinRaised = "min-raised", "the least size is larger";
        MinLowered = "min-lowered", "the least size is smaller";
        ValueAdded = "value-added", "a value is new";
        ValueRemoved = "value-removed", "a value is gone";
        ValueChanged = "value-changed", "a name stands for another value";
        Refusals = "refusals", "a command is refused for other reasons, or in another order";
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which kind.
    pub kind: Kind,
    /// The command, or the value.
    pub of: String,
    /// What changed, with names and numbers.
    pub what: String,
    /// What it means.
    pub verdict: Verdict,
}

/// What a program meets on a kernel of the other interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It works as it did.
    Works,
    /// It works as long as it leaves what the kernel does not know at zero; otherwise E2BIG.
    WorksIfZero,
    /// It works, and gets less back than it knows of.
    LosesReply,
    /// It is refused.
    Refused,
    /// Bytes are taken for what they are not.
    Misread,
    /// Another command runs.
    RunsOther,
}

impl Outcome {
    /// A few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::WorksIfZero => "works if new members are zero",
            Self::LosesReply => "works, loses new replies",
            Self::Refused => "refused",
            Self::Misread => "misread",
            Self::RunsOther => "runs another command",
        }
    }
}

/// A command of a program on the other kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Meeting {
    /// The program's command.
    pub command: String,
    /// Its number.
    pub number: u32,
    /// What it meets.
    pub outcome: Outcome,
    /// Why.
    pub why: String,
}

/// All that changes from one interface to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The old interface.
    pub old: String,
    /// The new one.
    pub new: String,
    /// Changes, by command.
    pub changes: Vec<Change>,
    /// Old programs on the new kernel.
    pub old_on_new: Vec<Meeting>,
    /// New programs on the old kernel.
    pub new_on_old: Vec<Meeting>,
}

impl Diff {
    /// The worst change; nothing if there is none.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.changes.iter().map(|change| change.verdict).max()
    }

    /// Whether any change breaks a program.
    #[must_use]
    pub fn breaks(&self) -> bool {
        self.verdict() == Some(Verdict::Break)
    }
}

/// Compares two interfaces.
#[must_use]
pub fn diff(old: &Interface, new: &Interface) -> Diff {
    let mut changes = Changes { list: Vec::new() };
    for command in &old.commands {
        match new.command(&command.name) {
            Some(now) => changes.command(command, now),
            None => changes.gone(command, new),
        }
    }
    for command in &new.commands {
        if old.command(&command.name).is_none() {
            changes.added(command, old);
        }
    }
    changes.values(old, new);
    Diff {
        old: old.name.clone(),
        new: new.name.clone(),
        changes: changes.list,
        old_on_new: old.commands.iter().map(|command| meet(command, new, Side::OldProgram)).collect(),
        new_on_old: new.commands.iter().map(|command| meet(command, old, Side::NewProgram)).collect(),
    }
}

/// Changes of one argument to another, as [`diff`] finds them in a command `of`.
#[must_use]
pub fn argument_changes(of: &str, old: &Argument, new: &Argument) -> Vec<Change> {
    let mut changes = Changes { list: Vec::new() };
    changes.argument(of, old, new);
    changes.list
}

struct Changes {
    list: Vec<Change>,
}

fn place(field: &Field) -> String {
    format!("{} at {}, {} bytes", field.name, field.offset, field.size)
}

impl Changes {
    fn say(&mut self, kind: Kind, verdict: Verdict, of: &str, what: String) {
        self.list.push(Change { kind, of: of.to_owned(), what, verdict });
    }

    fn gone(&mut self, command: &Command, new: &Interface) {
        let what = format!("{:#010x}", command.number);
        self.say(Kind::CommandRemoved, Verdict::Break, &command.name, what);
        if let Some(now) = new.runs(command.fd, command.number).next() {
            let what = format!("{:#010x} is {} now", command.number, now.name);
            self.say(Kind::NumberReused, Verdict::Break, &command.name, what);
        }
    }

    fn added(&mut self, command: &Command, old: &Interface) {
        let reused = old.runs(command.fd, command.number).any(|before| before.name != command.name);
        let verdict = if reused { Verdict::Break } else { Verdict::Compatible };
        self.say(Kind::CommandAdded, verdict, &command.name, format!("{:#010x}", command.number));
    }

    fn command(&mut self, old: &Command, new: &Command) {
        let name = &old.name;
        if old.number != new.number {
            let how = if old.nr() == new.nr() && old.kind() == new.kind() {
                format!(
                    ": {} of {} bytes became {} of {}",
                    old.transfer().word(),
                    old.number_size(),
                    new.transfer().word(),
                    new.number_size()
                )
            } else {
                String::new()
            };
            let what = format!("{:#010x} became {:#010x}{how}", old.number, new.number);
            self.say(Kind::CommandRenumbered, Verdict::Break, name, what);
        }
        match (&old.argument, &new.argument) {
            (Some(before), Some(now)) => self.argument(name, before, now),
            (None, Some(now)) => {
                self.say(
                    Kind::ArgumentAdded,
                    Verdict::Break,
                    name,
                    format!("{}, {} bytes", now.name, now.size),
                );
            }
            (Some(before), None) => {
                self.say(
                    Kind::ArgumentRemoved,
                    Verdict::Break,
                    name,
                    format!("{}, {} bytes", before.name, before.size),
                );
            }
            (None, None) => {}
        }
        self.refusals(old, new);
    }

    fn refusals(&mut self, old: &Command, new: &Command) {
        if old.refusals == new.refusals || old.refusals.is_empty() || new.refusals.is_empty() {
            return;
        }
        let only = |a: &Command, b: &Command, sign: &str| {
            let lines = a.refusals.iter().filter(|line| !b.refusals.contains(line));
            lines.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
        };
        let mut lines = only(old, new, "no longer:");
        lines.extend(only(new, old, "now:"));
        let what = if lines.is_empty() { String::from("in another order") } else { lines.join("; ") };
        self.say(Kind::Refusals, Verdict::Note, &old.name, what);
    }

    fn argument(&mut self, name: &str, old: &Argument, new: &Argument) {
        if old.is_extensible() != new.is_extensible() {
            let now = if new.is_extensible() { "tells" } else { "does not tell" };
            let what = format!("{} {now} its size in its first member", new.name);
            self.say(Kind::SizeFirst, Verdict::Break, name, what);
        }
        for field in &old.fields {
            self.field(name, field, new);
        }
        for field in &new.fields {
            if !old.fields.iter().any(|before| is_same(before, field)) {
                self.new_field(name, field, old, new);
            }
        }
        self.sizes(name, old, new);
    }

    /// What became of a member.
    fn field(&mut self, name: &str, old: &Field, new: &Argument) {
        let by_name = new.fields.iter().find(|now| now.name == old.name);
        let by_place = || new.fields.iter().find(|now| (now.offset, now.size) == (old.offset, old.size));
        match by_name.or_else(by_place) {
            Some(now) => self.kept(name, old, now),
            // Room may be given away in parts: the members in it say so.
            None if old.role.is_room() => {}
            None => self.say(Kind::FieldRemoved, Verdict::Break, name, place(old)),
        }
    }

    fn kept(&mut self, name: &str, old: &Field, now: &Field) {
        if old.name != now.name {
            return self.renamed(name, old, now);
        }
        // Room that was cut is no change of what is left: its new neighbour is.
        let inside = now.offset >= old.offset && now.end() <= old.end();
        if old.role.is_room() && inside {
            return self.role(name, old, now);
        }
        if old.offset != now.offset {
            let what = format!("{} became {}", place(old), place(now));
            self.say(Kind::FieldMoved, Verdict::Break, name, what);
        } else if old.size != now.size {
            let what = format!("{} became {} bytes", place(old), now.size);
            self.say(Kind::FieldResized, Verdict::Break, name, what);
        } else if old.of != now.of && !old.of.is_empty() && !now.of.is_empty() {
            let what = format!("{}: {} became {}", old.name, old.of, now.of);
            self.say(Kind::FieldRetyped, Verdict::Note, name, what);
        }
        self.role(name, old, now);
    }

    fn role(&mut self, name: &str, old: &Field, now: &Field) {
        if old.role == now.role || old.role == Role::Unknown || now.role == Role::Unknown {
            return;
        }
        let what = format!("{}: {} became {}", old.name, old.role.word(), now.role.word());
        let (kind, verdict) = match (old.role, now.role) {
            (Role::Unchecked, Role::Reserved) => (Kind::FieldChecked, Verdict::Note),
            (Role::Reserved, Role::Unchecked) => (Kind::FieldRole, Verdict::Note),
            (Role::In, Role::InOut) => (Kind::FieldRole, Verdict::Compatible),
            (Role::Reserved, _) => (Kind::ReservedUsed, Verdict::Compatible),
            (Role::Unchecked, _) => (Kind::UncheckedUsed, Verdict::Break),
            (_, Role::Reserved | Role::Unchecked) => (Kind::FieldRetired, Verdict::Break),
            _ => (Kind::FieldRole, Verdict::Break),
        };
        self.say(kind, verdict, name, what);
    }

    /// Another name for the same bytes.
    fn renamed(&mut self, name: &str, old: &Field, now: &Field) {
        let what = format!("{} became {}", place(old), now.name);
        let (kind, verdict) = match (old.role.is_room(), now.role.is_room()) {
            (true, true) | (false, false) => (Kind::FieldRenamed, Verdict::Note),
            (true, false) if old.role == Role::Unchecked => (Kind::UncheckedUsed, Verdict::Break),
            (true, false) => (Kind::ReservedUsed, Verdict::Compatible),
            (false, true) => (Kind::FieldRetired, Verdict::Break),
        };
        self.say(kind, verdict, name, what);
        if kind == Kind::FieldRenamed {
            self.role(name, old, now);
        }
    }

    /// A member that was not there.
    fn new_field(&mut self, name: &str, field: &Field, old: &Argument, new: &Argument) {
        let over: Vec<&Field> = old.over(field.offset, field.end()).collect();
        let covered: u64 =
            over.iter().map(|before| before.end().min(field.end()) - before.offset.max(field.offset)).sum();
        let (kind, verdict) = if field.offset >= old.size {
            let grows = old.is_extensible() && new.is_extensible();
            (Kind::FieldAppended, if grows { Verdict::Compatible } else { Verdict::Break })
        } else if field.role.is_room() && over.is_empty() {
            return self.say(
                Kind::FieldRenamed,
                Verdict::Note,
                name,
                format!("bytes without a name became {}", place(field)),
            );
        } else if covered < field.size {
            (Kind::PaddingUsed, Verdict::Break)
        } else if over.iter().all(|before| before.role == Role::Reserved) {
            (Kind::ReservedUsed, Verdict::Compatible)
        } else if over.iter().all(|before| before.role.is_room()) {
            (Kind::UncheckedUsed, Verdict::Break)
        } else {
            (Kind::Overlapped, Verdict::Break)
        };
        self.say(kind, verdict, name, place(field));
    }

    fn sizes(&mut self, name: &str, old: &Argument, new: &Argument) {
        let sizes = format!("{} bytes became {}", old.size, new.size);
        if old.size != new.size && !(old.is_extensible() && new.is_extensible()) {
            self.say(Kind::Grown, Verdict::Break, name, sizes);
        } else if new.size < old.size {
            // What is cut off must have been nothing, or room that had to be zero.
            let lost = old.over(new.size, old.size).any(|field| field.role != Role::Reserved);
            let verdict = if lost { Verdict::Break } else { Verdict::Compatible };
            self.say(Kind::Shrunk, verdict, name, sizes);
        }
        if let (Some(before), Some(now)) = (old.min_size, new.min_size)
            && before != now
        {
            let (kind, verdict) = if now > before {
                (Kind::MinRaised, Verdict::Break)
            } else {
                (Kind::MinLowered, Verdict::Compatible)
            };
            self.say(kind, verdict, name, format!("at least {before} bytes became at least {now}"));
        }
    }

    fn values(&mut self, old: &Interface, new: &Interface) {
        if old.values.is_empty() || new.values.is_empty() {
            return;
        }
        for value in &old.values {
            match new.values.iter().find(|now| now.name == value.name) {
                None => self.say(Kind::ValueRemoved, Verdict::Break, &value.name, value.value.to_string()),
                Some(now) if now.value != value.value => {
                    let what = format!("{} became {}", value.value, now.value);
                    self.say(Kind::ValueChanged, Verdict::Break, &value.name, what);
                }
                Some(_) => {}
            }
        }
        for value in &new.values {
            if !old.values.iter().any(|before| before.name == value.name) {
                self.say(Kind::ValueAdded, Verdict::Compatible, &value.name, value.value.to_string());
            }
        }
    }
}

/// Whether a member of the new structure is one of the old: by name, or by place under another name.
fn is_same(old: &Field, new: &Field) -> bool {
    old.name == new.name || (old.offset, old.size) == (new.offset, new.size)
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    OldProgram,
    NewProgram,
}

/// What a program's command meets on a kernel.
fn meet(command: &Command, kernel: &Interface, side: Side) -> Meeting {
    let made = |outcome, why: String| Meeting {
        command: command.name.clone(),
        number: command.number,
        outcome,
        why,
    };
    let mut runs = kernel.runs(command.fd, command.number);
    let Some(first) = runs.next() else {
        let errno = kernel.refuses(command.fd, command.number);
        return made(Outcome::Refused, format!("{errno}: {} has no command of this number", kernel.name));
    };
    let same = std::iter::once(first).chain(runs).find(|other| other.name == command.name);
    let Some(same) = same else {
        return made(Outcome::RunsOther, other_command(command, first));
    };
    let (outcome, why) = match (&command.argument, &same.argument) {
        (Some(program), Some(kernel)) => pass(program, kernel, side),
        (None, None) => (Outcome::Works, String::from("it passes nothing")),
        (Some(_), None) => (Outcome::Misread, String::from("what it passes is not looked at")),
        (None, Some(_)) => (Outcome::Misread, String::from("a structure is read where none is passed")),
    };
    made(outcome, why)
}

fn other_command(program: &Command, kernel: &Command) -> String {
    let told =
        program.argument.as_ref().filter(|argument| argument.is_extensible()).map(|argument| argument.size);
    let wants = kernel.argument.as_ref().map_or(0, Argument::least);
    match told {
        Some(size) if size < wants => {
            format!("{} runs, and refuses its {size} bytes with EINVAL: it wants {wants}", kernel.name)
        }
        Some(size) => format!("{} runs on its {size} bytes", kernel.name),
        None => format!("{} runs", kernel.name),
    }
}

/// A program's structure on a kernel that has another one for the same command.
fn pass(program: &Argument, kernel: &Argument, side: Side) -> (Outcome, String) {
    let (old, new) = if side == Side::OldProgram { (program, kernel) } else { (kernel, program) };
    let changes = argument_changes("", old, new);
    if program.is_extensible() && program.size < kernel.least() {
        let why = format!("EINVAL: it passes {} bytes, and {} are the least", program.size, kernel.least());
        return (Outcome::Refused, why);
    }
    let harmless = |kind: Kind| matches!(kind, Kind::MinRaised | Kind::MinLowered);
    let broken = changes.iter().find(|change| change.verdict == Verdict::Break && !harmless(change.kind));
    if let Some(broken) = broken {
        return (Outcome::Misread, format!("{}: {}", broken.kind.describe(), broken.what));
    }
    if program.size > kernel.size {
        return longer(program, kernel);
    }
    (Outcome::Works, String::from("every byte means what it meant"))
}

/// A program whose structure is longer than the kernel's.
fn longer(program: &Argument, kernel: &Argument) -> (Outcome, String) {
    let names =
        |fields: Vec<&Field>| fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
    let beyond: Vec<&Field> = program.over(kernel.size, program.size).collect();
    let given: Vec<&Field> = beyond.iter().copied().filter(|field| field.role != Role::Out).collect();
    if given.is_empty() && !beyond.is_empty() {
        return (Outcome::LosesReply, format!("the kernel does not write {}", names(beyond)));
    }
    (Outcome::WorksIfZero, format!("E2BIG unless these are zero: {}", names(given)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::release;

    fn between(old: &str, new: &str) -> Diff {
        diff(&release(old).expect("known"), &release(new).expect("known"))
    }

    fn outcome(meetings: &[Meeting], command: &str) -> Outcome {
        meetings.iter().find(|meeting| meeting.command.ends_with(command)).expect("a command").outcome
    }

    #[test]
    fn released_interfaces_only_grew() {
        for pair in ["6.19", "7.0", "7.1", "7.2", "7.3"].windows(2) {
            let diff = between(pair[0], pair[1]);
            assert!(!diff.breaks(), "{pair:?}: {:?}", diff.changes);
            assert!(diff.old_on_new.iter().all(|meeting| meeting.outcome == Outcome::Works), "{pair:?}");
        }
        let grown = between("7.1", "7.2");
        let added: Vec<_> = grown.changes.iter().filter(|change| change.kind == Kind::CommandAdded).collect();
        assert_eq!(added.len(), 1);
        assert_eq!(outcome(&grown.new_on_old, "GET_NAME"), Outcome::Refused);
        assert_eq!(between("7.2", "7.3").changes, []);
    }

    #[test]
    fn a_program_of_v3_on_v4_runs_other_commands() {
        let diff = between("posted-v3", "posted-v4");
        assert!(diff.breaks());
        assert_eq!(outcome(&diff.old_on_new, "FD_PRESERVE"), Outcome::RunsOther);
        assert_eq!(outcome(&diff.old_on_new, "SET_FD_EVENT"), Outcome::Refused);
    }

    #[test]
    fn numbers_with_sizes_never_meet_later_ones() {
        let diff = between("posted-v2", "posted-v3");
        let sized = diff.old_on_new.iter().filter(|meeting| meeting.number >> 16 != 0);
        assert!(
            sized.clone().count() > 0 && sized.clone().all(|meeting| meeting.outcome == Outcome::Refused)
        );
    }

    fn argument(min: u64, fields: &[(&str, u64, u64, Role)], size: u64) -> Argument {
        let field = |(name, offset, size, role): &(&str, u64, u64, Role)| Field {
            name: (*name).to_owned(),
            of: String::new(),
            offset: *offset,
            size: *size,
            role: *role,
        };
        let fields = fields.iter().map(field).collect();
        Argument { name: String::from("struct s"), size, min_size: Some(min), fields }
    }

    const SIZE: (&str, u64, u64, Role) = ("size", 0, 4, Role::Size);

    #[test]
    fn each_change_has_its_verdict() {
        use Role::{In, Out, Reserved, Unchecked};
        let old = argument(8, &[SIZE, ("a", 4, 2, In), ("r", 8, 8, Reserved), ("u", 16, 4, Unchecked)], 24);
        let change = |fields: &[(&str, u64, u64, Role)], min, size| {
            let found = argument_changes("X", &old, &argument(min, fields, size));
            found.into_iter().map(|change| (change.kind, change.verdict)).collect::<Vec<_>>()
        };
        let (r, u, a) = (("r", 8, 8, Reserved), ("u", 16, 4, Unchecked), ("a", 4, 2, In));
        let (fine, bad) = (Verdict::Compatible, Verdict::Break);
        assert_eq!(change(&[SIZE, a, r, u], 8, 24), []);
        assert_eq!(change(&[SIZE, a, r, u, ("b", 24, 8, In)], 8, 32), [(Kind::FieldAppended, fine)]);
        assert_eq!(change(&[SIZE, a, ("b", 6, 2, In), r, u], 8, 24), [(Kind::PaddingUsed, bad)]);
        assert_eq!(change(&[SIZE, a, r, u, ("b", 20, 4, In)], 8, 24), [(Kind::PaddingUsed, bad)]);
        assert_eq!(change(&[SIZE, a, ("b", 8, 8, In), u], 8, 24), [(Kind::ReservedUsed, fine)]);
        assert_eq!(
            change(&[SIZE, a, ("b", 8, 4, In), ("r", 12, 4, Reserved), u], 8, 24),
            [(Kind::ReservedUsed, fine)]
        );
        assert_eq!(change(&[SIZE, a, r, ("b", 16, 4, In)], 8, 24), [(Kind::UncheckedUsed, bad)]);
        assert_eq!(change(&[SIZE, ("a", 6, 2, In), r, u], 8, 24), [(Kind::FieldMoved, bad)]);
        assert_eq!(change(&[SIZE, ("a", 4, 4, In), r, u], 8, 24), [(Kind::FieldResized, bad)]);
        assert_eq!(change(&[SIZE, ("a", 4, 2, Out), r, u], 8, 24), [(Kind::FieldRole, bad)]);
        assert_eq!(change(&[SIZE, r, u], 8, 24), [(Kind::FieldRemoved, bad)]);
        assert_eq!(change(&[SIZE, a, r, u], 16, 24), [(Kind::MinRaised, bad)]);
        assert_eq!(change(&[SIZE, a, r, u], 4, 24), [(Kind::MinLowered, fine)]);
        assert_eq!(
            change(&[SIZE, a, r, ("u", 16, 4, Reserved)], 8, 24),
            [(Kind::FieldChecked, Verdict::Note)]
        );
        assert_eq!(change(&[SIZE, ("z", 4, 2, In), r, u], 8, 24), [(Kind::FieldRenamed, Verdict::Note)]);
        assert_eq!(change(&[SIZE, ("z", 4, 2, Reserved), r, u], 8, 24), [(Kind::FieldRetired, bad)]);
        assert_eq!(change(&[a, r, u], 8, 24)[0], (Kind::SizeFirst, bad));
        assert_eq!(change(&[SIZE, a, r], 8, 16), [(Kind::Shrunk, bad)]);
    }

    #[test]
    fn new_programs_on_old_kernels() {
        use Role::{In, Out};
        let old = argument(8, &[SIZE, ("a", 4, 4, In)], 8);
        let gives = argument(8, &[SIZE, ("a", 4, 4, In), ("b", 8, 8, In)], 16);
        let gets = argument(8, &[SIZE, ("a", 4, 4, In), ("b", 8, 8, Out)], 16);
        assert_eq!(pass(&gives, &old, Side::NewProgram).0, Outcome::WorksIfZero);
        assert_eq!(pass(&gets, &old, Side::NewProgram).0, Outcome::LosesReply);
        assert_eq!(pass(&old, &gives, Side::OldProgram).0, Outcome::Works);
        let raised = argument(16, &[SIZE, ("a", 4, 4, In), ("b", 8, 8, In)], 16);
        assert_eq!(pass(&old, &raised, Side::OldProgram).0, Outcome::Refused);
        assert_eq!(pass(&raised, &old, Side::NewProgram).0, Outcome::WorksIfZero);
    }
}
