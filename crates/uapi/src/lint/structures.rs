//! Rules of structures and their members.

use super::{Rule, Subject};
use crate::header::{Header, Layout, Member, Record, Scope, Tag, Target, Type, Width, layout};
use crate::interface::is_room;

pub(super) fn look(subject: &mut Subject<'_>) {
    let header = subject.scope.header;
    let passed: Vec<&Record> = subject.passed().into_iter().filter_map(|(_, record)| record).collect();
    for record in &header.records {
        members(subject, record, record);
        let is_passed = passed.iter().any(|other| std::ptr::eq(*other, record));
        layouts(subject, header, record);
        if is_passed && record.tag == Tag::Struct {
            passes(subject, record);
        }
        documentation(subject, record, is_passed);
    }
}

fn name_of(record: &Record) -> String {
    format!("{} {}", record.tag.word(), record.name.as_deref().unwrap_or("without a name"))
}

/// Types of members, of structures without a name in them too.
fn members(subject: &mut Subject<'_>, outer: &Record, record: &Record) {
    for member in &record.members {
        if let Type::Inline(inner) = &member.of {
            members(subject, outer, inner);
            continue;
        }
        let Some(name) = &member.name else { continue };
        let message = |what: &str| format!("{name} of {} is {what}", name_of(outer));
        if member.bits.is_some() {
            subject.say(Rule::BitfieldMember, &member.name_span, message("a bitfield"));
            continue;
        }
        if let Some((rule, what)) = of_type(&subject.scope, member, 0) {
            subject.say(rule, &member.name_span, message(&what));
        }
    }
}

fn is_descriptor(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "fd" || name.ends_with("_fd") || name == "fds" || name.ends_with("_fds")
}

/// The rule that a member's type breaks.
fn of_type(scope: &Scope<'_>, member: &Member, depth: u32) -> Option<(Rule, String)> {
    let descriptor = member.name.as_deref().is_some_and(is_descriptor);
    of_element(scope, member.of.element(), member.of.is_array(), descriptor, depth)
}

fn of_element(
    scope: &Scope<'_>,
    of: &Type,
    array: bool,
    descriptor: bool,
    depth: u32,
) -> Option<(Rule, String)> {
    match of {
        Type::Plain(plain, text) => {
            let rule = match plain.width {
                _ if descriptor && (plain.size, plain.signed, plain.width) != (4, true, Width::Fixed) => {
                    // An address of a list of descriptors is none.
                    if plain.size == 8 { return None } else { Rule::FdType }
                }
                Width::Fixed => return None,
                Width::Char if array => return None,
                Width::Char | Width::Plain => Rule::PlainInteger,
                Width::Long => Rule::LongInteger,
                Width::Bool => Rule::BoolMember,
                Width::Float => Rule::FloatMember,
            };
            Some((rule, text.clone()))
        }
        Type::Pointer => Some((Rule::PointerMember, String::from("a pointer"))),
        Type::Tagged(Tag::Enum, name) => Some((Rule::EnumMember, format!("enum {name}"))),
        Type::InlineEnum => Some((Rule::EnumMember, String::from("an enum"))),
        Type::Named(name) if depth < 8 => {
            let known = crate::header::Plain::named(name).map(|plain| Type::Plain(plain, name.clone()));
            let of = match (known, scope.find_typedef(name)) {
                (Some(of), _) => of,
                (None, Some((_, of))) => of.clone(),
                (None, None) => return None,
            };
            let (rule, what) =
                of_element(scope, of.element(), array || of.is_array(), descriptor, depth + 1)?;
            Some((rule, if what == *name { what } else { format!("{name}, which is {what}") }))
        }
        _ => None,
    }
}

/// Padding, and differences between 32-bit and 64-bit programs.
fn layouts(subject: &mut Subject<'_>, header: &Header, record: &Record) {
    let wide = match layout(&subject.scope, header, record, Target::X86_64) {
        Ok(wide) => wide,
        Err(why) if record.broken.is_none() => {
            let message = format!("the layout of {} is not known: {why}", name_of(record));
            return subject.say(Rule::NotUnderstood, &record.name_span, message);
        }
        Err(_) => return,
    };
    for hole in &wide.holes {
        let bytes = hole.size;
        match hole.before.and_then(|index| wide.members.get(index)) {
            Some(member) => {
                let message = format!(
                    "{bytes} bytes without a name before {} of {}, at {}",
                    member.name,
                    name_of(record),
                    hole.offset
                );
                subject.say(Rule::ImplicitPadding, &member.span, message);
            }
            None => {
                let message = format!(
                    "{bytes} bytes without a name at the end of {}, at {}",
                    name_of(record),
                    hole.offset
                );
                subject.say(Rule::TailPadding, &record.name_span, message);
            }
        }
    }
    if let Ok(narrow) = layout(&subject.scope, header, record, Target::I386) {
        two_machines(subject, record, &wide, &narrow);
    }
}

/// The first member, or the size, that differs in 32-bit programs.
fn two_machines(subject: &mut Subject<'_>, record: &Record, wide: &Layout, narrow: &Layout) {
    // Members that are as wide as an address have rules of their own.
    let same_sizes = wide.members.iter().zip(&narrow.members).all(|(a, b)| a.size == b.size);
    if !same_sizes {
        return;
    }
    let moved = wide.members.iter().zip(&narrow.members).find(|(a, b)| a.offset != b.offset);
    if let Some((here, there)) = moved {
        let (name, a, b) = (&here.name, here.offset, there.offset);
        let message = format!("{name} of {} lies at {a}, and at {b} in 32-bit programs", name_of(record));
        subject.say(Rule::AlignedU64, &here.span, message);
    } else if wide.room.size != narrow.room.size {
        let (a, b) = (wide.room.size, narrow.room.size);
        let message = format!("{} has {a} bytes, and {b} in 32-bit programs", name_of(record));
        subject.say(Rule::AlignedU64, &record.name_span, message);
    }
}

/// Rules of structures that a command passes.
fn passes(subject: &mut Subject<'_>, record: &Record) {
    let is_u32 = |of: &Type| match of {
        Type::Plain(plain, _) => plain.size == 4 && !plain.signed && plain.width == Width::Fixed,
        Type::Named(name) => {
            crate::header::Plain::named(name).is_some_and(|plain| plain.size == 4 && !plain.signed)
        }
        _ => false,
    };
    let first = record.members.first();
    let tells = first
        .is_some_and(|member| matches!(member.name.as_deref(), Some("size" | "argsz")) && is_u32(&member.of));
    if !tells {
        let what = first.and_then(|member| member.name.as_deref()).unwrap_or("nothing");
        let message = format!("{} begins with {what}, not with __u32 size", name_of(record));
        subject.say(Rule::SizeFirst, &record.name_span, message);
    }
    let room = |member: &Member| {
        member
            .name
            .as_deref()
            .is_some_and(|name| is_room(name) || name.to_ascii_lowercase().ends_with("flags"))
    };
    if !record.members.iter().any(room) {
        let message = format!("{} has neither flags nor a reserved member", name_of(record));
        subject.say(Rule::NoFlags, &record.name_span, message);
    }
}

fn documentation(subject: &mut Subject<'_>, record: &Record, is_passed: bool) {
    let Some(doc) = &record.doc else {
        if is_passed {
            let message = format!("{} has no kernel-doc", name_of(record));
            subject.say(Rule::DocMissing, &record.name_span, message);
        }
        return reserved(subject, record, &|_| None);
    };
    for member in &record.members {
        let Some(name) = &member.name else { continue };
        let inside = doc.members.iter().any(|(other, _)| other.starts_with(&format!("{name}.")));
        if doc.member(name).is_none() && !inside {
            let message = format!("{name} of {} is not documented", name_of(record));
            subject.say(Rule::DocMember, &member.name_span, message);
        }
    }
    let mut names = Vec::new();
    all_names(record, &mut names);
    for (name, _) in &doc.members {
        let last = name.rsplit('.').next().unwrap_or(name);
        if !names.contains(&last) {
            let message = format!("{name} is documented, and {} has no such member", name_of(record));
            subject.say(Rule::DocMember, &doc.span, message);
        }
    }
    reserved(subject, record, &|name| doc.member(name));
}

fn all_names<'a>(record: &'a Record, names: &mut Vec<&'a str>) {
    for member in &record.members {
        names.extend(member.name.as_deref());
        if let Type::Inline(inner) = &member.of {
            all_names(inner, names);
        }
    }
}

/// Reserved members are said to be zero, in the documentation or in a comment beside them.
fn reserved<'d>(subject: &mut Subject<'_>, record: &Record, said: &dyn Fn(&str) -> Option<&'d str>) {
    let header = subject.scope.header;
    for member in &record.members {
        let Some(name) = member.name.as_deref().filter(|name| is_room(name)) else { continue };
        let line_end =
            header.text[member.span.end..].find('\n').map_or(header.text.len(), |at| member.span.end + at);
        let beside = &header.text[member.span.end..line_end];
        let zero = |text: &str| {
            let text = text.to_ascii_lowercase();
            text.contains("zero")
                || text.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "0")
        };
        if !said(name).is_some_and(zero) && !zero(beside) {
            let message = format!("{name} of {} is not documented to be zero", name_of(record));
            subject.say(Rule::ReservedZero, &member.name_span, message);
        }
    }
}
