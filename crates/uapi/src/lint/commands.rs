//! Rules of commands and their numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, Subject};
use crate::header::{Ioctl, Record, Tag, Transfer, Type};

pub(super) fn look(subject: &mut Subject<'_>) {
    let passed = subject.passed();
    for (ioctl, record) in &passed {
        number(subject, ioctl);
        argument(subject, ioctl, *record);
        documentation(subject, ioctl, *record);
    }
    shared(subject, &passed);
    events(subject, &passed);
    twice(subject);
    gaps(subject);
    registered(subject);
}

fn number(subject: &mut Subject<'_>, ioctl: &Ioctl) {
    let is_enumerator = subject.scope.is_enumerator(&ioctl.nr_text);
    if !is_enumerator {
        let plain = ioctl.nr.as_ref().ok().filter(|nr| nr.to_string() == ioctl.nr_text);
        let written = plain.map_or_else(|| ioctl.nr_text.clone(), |nr| format!("{nr:#04x}"));
        let message = format!("the number of {} is {written}, which is no member of an enum", ioctl.name);
        subject.say(Rule::NumberLiteral, &ioctl.span, message);
    }
    for (what, value) in [("type", &ioctl.kind), ("number", &ioctl.nr)] {
        if let Err(why) = value {
            let message = format!("the {what} of {} is not known: {why}", ioctl.name);
            subject.say(Rule::NotUnderstood, &ioctl.span, message);
        }
    }
}

fn argument(subject: &mut Subject<'_>, ioctl: &Ioctl, record: Option<&Record>) {
    let name = &ioctl.name;
    let Some((of, text)) = &ioctl.argument else {
        let known = crate::header::structure(&subject.scope, ioctl).is_some();
        if record.is_none() && !known {
            subject.say(Rule::NoArgument, &ioctl.span, format!("{name} passes no structure that is known"));
        }
        return;
    };
    let size = ioctl.size.as_ref().map_or_else(|_| String::from("unknown"), ToString::to_string);
    if let Err(why) = &ioctl.size {
        let message = format!("the size in the number of {name} is not known: {why}");
        subject.say(Rule::NotUnderstood, &ioctl.span, message);
    }
    if matches!(of, Type::Tagged(Tag::Struct | Tag::Union, _)) || is_structure(subject, of) {
        let message = format!(
            "{} puts the size of {text}, {size} bytes, in the number of {name}",
            ioctl.transfer.word()
        );
        subject.say(Rule::SizeInNumber, &ioctl.span, message);
    } else {
        subject.say(Rule::BareArgument, &ioctl.span, format!("{name} passes a bare {text}"));
    }
}

fn is_structure(subject: &Subject<'_>, of: &Type) -> bool {
    match of {
        Type::Named(name) => subject
            .scope
            .find_typedef(name)
            .is_some_and(|(_, of)| matches!(of, Type::Tagged(Tag::Struct | Tag::Union, _) | Type::Inline(_))),
        _ => false,
    }
}

fn documentation(subject: &mut Subject<'_>, ioctl: &Ioctl, record: Option<&Record>) {
    let header = subject.scope.header;
    let Some(comment) = &ioctl.comment else { return };
    let is_doc = header.at(comment).starts_with("/**") && !header.at(comment).starts_with("/**/");
    let at_structure = record.and_then(|record| record.doc.as_ref()).is_some_and(|doc| doc.span == *comment);
    if is_doc && !at_structure {
        subject.say(Rule::DocOnMacro, &ioctl.span, format!("{} has kernel-doc of its own", ioctl.name));
    }
}

fn shared(subject: &mut Subject<'_>, passed: &[(Ioctl, Option<&Record>)]) {
    let mut users: BTreeMap<usize, (&Record, Vec<&str>)> = BTreeMap::new();
    for (ioctl, record) in passed {
        if let Some(record) = record {
            users.entry(record.span.start).or_insert_with(|| (record, Vec::new())).1.push(&ioctl.name);
        }
    }
    for (record, names) in users.into_values().filter(|(_, names)| names.len() > 1) {
        let name = record.name.as_deref().unwrap_or("");
        let message = format!("struct {name} is passed by {}", names.join(" and "));
        subject.say(Rule::SharedStructure, &record.name_span, message);
    }
}

/// Several commands of one type that pass nothing.
fn events(subject: &mut Subject<'_>, passed: &[(Ioctl, Option<&Record>)]) {
    let mut silent: BTreeMap<u32, Vec<&Ioctl>> = BTreeMap::new();
    for (ioctl, record) in passed {
        let nothing = ioctl.transfer == Transfer::None && record.is_none();
        if let (Ok(kind), true) =
            (&ioctl.kind, nothing && crate::header::structure(&subject.scope, ioctl).is_none())
        {
            silent.entry(*kind).or_default().push(ioctl);
        }
    }
    for ioctls in silent.into_values().filter(|ioctls| ioctls.len() > 1) {
        let names: Vec<&str> = ioctls.iter().map(|ioctl| ioctl.name.as_str()).collect();
        let message = format!("{} commands pass nothing: {}", names.len(), names.join(", "));
        subject.say(Rule::EventCommands, &ioctls[0].span, message);
    }
}

/// Commands with a number, by type and number.
fn numbered(subject: &Subject<'_>) -> BTreeMap<(u32, u32), Vec<Ioctl>> {
    let mut by_number: BTreeMap<(u32, u32), Vec<Ioctl>> = BTreeMap::new();
    for ioctl in &subject.ioctls {
        if let (Ok(kind), Ok(nr)) = (&ioctl.kind, &ioctl.nr) {
            by_number.entry((*kind, *nr)).or_default().push(ioctl.clone());
        }
    }
    by_number
}

fn twice(subject: &mut Subject<'_>) {
    for ((kind, nr), ioctls) in numbered(subject) {
        let [first, others @ ..] = ioctls.as_slice() else { continue };
        for other in others {
            let message = format!("{} and {} are both {nr:#04x} of type {kind:#04x}", first.name, other.name);
            subject.say(Rule::NumberTwice, &other.span, message);
        }
    }
}

/// Holes between the numbers of one type. A number that is a member of an enum and the first of it begins a group of its
/// own: the commands of another kind of descriptor.
fn gaps(subject: &mut Subject<'_>) {
    let bases: BTreeSet<i128> = subject
        .scope
        .header
        .enums
        .iter()
        .filter_map(|one| subject.scope.header.enumerator(&one.enumerators.first()?.name)?.clone().ok())
        .collect();
    let all = numbered(subject);
    let numbers: Vec<((u32, u32), &Ioctl)> =
        all.iter().map(|(number, ioctls)| (*number, &ioctls[0])).collect();
    for pair in numbers.windows(2) {
        let (((kind, before), first), ((other, after), second)) = (pair[0], pair[1]);
        let begins = subject.scope.is_enumerator(&second.nr_text) && bases.contains(&i128::from(after));
        if kind != other || after == before + 1 || begins {
            continue;
        }
        let missing = if after == before + 2 {
            format!("{:#04x} is missing", before + 1)
        } else {
            format!("{:#04x} to {:#04x} are missing", before + 1, after - 1)
        };
        let message = format!("{missing} between {} and {}", first.name, second.name);
        subject.say(Rule::NumberGap, &second.span, message);
    }
}

/// The type byte in the list of registered ones.
fn registered(subject: &mut Subject<'_>) {
    let Some(registry) = subject.registry else { return };
    let name = subject.scope.header.name.clone();
    let mut seen = BTreeSet::new();
    for ((kind, nr), ioctls) in numbered(subject) {
        for owner in registry.owners(kind, nr).filter(|owner| !owner.is(&name)) {
            if seen.insert((kind, owner.header.clone()))
                && !registry.owners(kind, nr).any(|other| other.is(&name))
            {
                let message = format!(
                    "{} is {nr:#04x} of type {kind:#04x}, which {} has (line {})",
                    ioctls[0].name, owner.header, owner.line
                );
                subject.say(Rule::TypeTaken, &ioctls[0].span, message);
            }
        }
    }
}
