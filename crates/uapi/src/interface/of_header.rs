//! The interface that a C header declares. A header says nothing of descriptors, least sizes and errnos; what its comments
//! say of a member is taken as its role.

use super::{Argument, Command, Dispatch, Fd, Field, Interface, Role, Value};
use crate::header::{Header, Loaded, Record, Scope, Tag, Target, Transfer, Type, flatten, ioctls, structure};

/// The interface of a header, for 64-bit programs.
#[must_use]
pub fn of_header(loaded: &Loaded) -> Interface {
    let scope = loaded.scope();
    let header = &loaded.header;
    let mut unknown: Vec<String> =
        header.problems.iter().map(|problem| said(header, problem.span.start, &problem.what)).collect();
    let mut commands = Vec::new();
    for ioctl in ioctls(&scope) {
        let argument = match argument(&scope, &ioctl) {
            Ok(argument) => argument,
            Err(why) => {
                unknown.push(said(header, ioctl.span.start, &format!("what {} passes: {why}", ioctl.name)));
                None
            }
        };
        match ioctl.number() {
            Ok(number) => commands.push(Command {
                name: ioctl.name,
                number,
                fd: Fd::Any,
                argument,
                refusals: Vec::new(),
            }),
            Err(why) => {
                unknown.push(said(header, ioctl.span.start, &format!("the number of {}: {why}", ioctl.name)));
            }
        }
    }
    commands.sort_by_key(|command| (command.number & 0xffff, command.number));
    Interface {
        name: header.name.clone(),
        about: format!("the header {}", header.name),
        dispatch: Dispatch::Unknown,
        commands,
        values: values(header),
        unknown,
    }
}

fn said(header: &Header, at: usize, what: &str) -> String {
    let (line, column) = header.position(at);
    format!("{}:{line}:{column}: {what}", header.name)
}

fn argument(scope: &Scope<'_>, ioctl: &crate::header::Ioctl) -> Result<Option<Argument>, String> {
    if let Some((header, record)) = structure(scope, ioctl) {
        return of_record(scope, header, record).map(Some);
    }
    let Some((of, text)) = &ioctl.argument else { return Ok(None) };
    let size = ioctl.size.clone()?;
    if let Type::Tagged(Tag::Struct | Tag::Union, name) = of {
        return Err(format!("struct {name} is not defined"));
    }
    let role = match ioctl.transfer {
        Transfer::Write => Role::In,
        Transfer::Read => Role::Out,
        _ => Role::InOut,
    };
    let field = Field { name: String::from("value"), of: text.clone(), offset: 0, size, role };
    Ok(Some(Argument { name: text.clone(), size, min_size: None, fields: vec![field] }))
}

/// A structure as the argument of a command.
pub(crate) fn of_record(scope: &Scope<'_>, header: &Header, record: &Record) -> Result<Argument, String> {
    let size = crate::header::layout(scope, header, record, Target::X86_64)?.room.size;
    let mut fields: Vec<Field> = flatten(scope, header, record, Target::X86_64)?
        .into_iter()
        .map(|placed| {
            let member = record.members.iter().find(|member| member.name_span == placed.span);
            let said = record.doc.as_ref().and_then(|doc| doc.member(&placed.name)).unwrap_or("");
            let of = member.map_or_else(String::new, |member| type_text(scope, header, &member.of));
            Field {
                role: role(&placed.name, placed.offset, said),
                name: placed.name,
                of,
                offset: placed.offset,
                size: placed.size,
            }
        })
        .collect();
    fields.sort_by_key(|field| (field.offset, field.size));
    let name = format!("{} {}", record.tag.word(), record.name.as_deref().unwrap_or("(no name)"));
    Ok(Argument { name, size, min_size: None, fields })
}

/// A type as C writes it, lengths of arrays as numbers.
pub(crate) fn type_text(scope: &Scope<'_>, header: &Header, of: &Type) -> String {
    match of {
        Type::Plain(_, text) | Type::Named(text) | Type::Unknown(text) => text.clone(),
        Type::Tagged(tag, name) => format!("{} {name}", tag.word()),
        Type::Inline(record) => record.tag.word().to_owned(),
        Type::InlineEnum => String::from("enum"),
        Type::Pointer => String::from("pointer"),
        Type::Flexible(of) => format!("{}[]", type_text(scope, header, of)),
        Type::Array(of, length) => {
            let text = header.at(length);
            let length = scope.value(text).map_or_else(|_| text.to_owned(), |value| value.to_string());
            format!("{}[{length}]", type_text(scope, header, of))
        }
    }
}

/// What a member is for, by its name and by what its documentation says of it first.
fn role(name: &str, offset: u64, said: &str) -> Role {
    let said = said.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or(name);
    if offset == 0 && matches!(last, "size" | "argsz") {
        return Role::Size;
    }
    if is_room(last) {
        return Role::Reserved;
    }
    let starts = |words: &[&str]| words.iter().any(|word| said.starts_with(word));
    if starts(&["input/output", "in/out", "inout", "in, out"]) {
        Role::InOut
    } else if starts(&["input", "in;", "in:", "[in]"]) {
        Role::In
    } else if starts(&["output", "out;", "out:", "[out]", "returned", "return"]) || last.starts_with("out_") {
        Role::Out
    } else {
        Role::Unknown
    }
}

/// Whether a member's name says that it is room: `reserved`, `__reserved2`, `pad`, `padding`.
pub(crate) fn is_room(name: &str) -> bool {
    let name = name
        .trim_start_matches('_')
        .trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '_');
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "reserved" | "resv" | "rsvd" | "pad" | "padding" | "spare" | "unused")
        || name.ends_with("_reserved")
        || name.ends_with("_pad")
        || name.ends_with("_padding")
}

fn values(header: &Header) -> Vec<Value> {
    let of = |one: &crate::header::Enumeration| one.name.clone().unwrap_or_default();
    let each = header.enums.iter().flat_map(|one| one.enumerators.iter().map(move |each| (of(one), each)));
    each.filter_map(|(of, each)| {
        let value = header.enumerator(&each.name)?.clone().ok()?;
        Some(Value { of, name: each.name.clone(), value })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::read_alone;

    #[test]
    fn roles_are_what_the_comments_say() {
        for (name, offset, said, want) in [
            ("size", 0, "", Role::Size),
            ("size", 8, "", Role::Unknown),
            ("argsz", 0, "", Role::Size),
            ("__reserved", 4, "Must be 0", Role::Reserved),
            ("fd", 4, "Output; the new one", Role::Out),
            ("name", 8, "Input; a name", Role::In),
            ("num", 8, "Input/Output total", Role::InOut),
            ("out_id", 8, "", Role::Out),
        ] {
            assert_eq!(role(name, offset, said), want, "{name}");
        }
        assert!(is_room("pad2") && is_room("__reserved") && !is_room("padlock"));
    }

    #[test]
    fn an_interface_of_a_header() {
        let text = "#define T 0xBA\nenum x_state { X_A = 1, X_B };\n\
            /** struct x_do - ioctl(X_DO)\n * @size: Input; size\n * @fd: Output; fd\n */\n\
            struct x_do { __u32 size; __s32 fd; __u8 name[2 * 4]; };\n#define X_DO _IO(T, 1)\n\
            #define X_BARE _IOW(T, 2, __u64)\n#define X_LOST _IOW(T, 3, struct lost)\n";
        let interface = of_header(&read_alone("x.h", text));
        assert_eq!(interface.commands.len(), 2);
        let argument = interface.commands[0].argument.as_ref().expect("x_do");
        assert_eq!(
            (argument.name.as_str(), argument.size, argument.fields[2].of.as_str()),
            ("struct x_do", 16, "__u8[8]")
        );
        assert_eq!(interface.commands[1].argument.as_ref().map(|one| one.size), Some(8));
        assert!(interface.unknown.iter().any(|line| line.contains("X_LOST")), "{:?}", interface.unknown);
        assert_eq!(interface.values.len(), 2);
    }
}
