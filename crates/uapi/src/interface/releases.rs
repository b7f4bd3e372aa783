//! The interface of each release. Numbers, sizes and offsets are those of the structures in `luosim-abi`; what is written
//! here by hand are the names of C and what each member is for.

use luosim_abi::ioctl::{self, FdArg, FinishArg, GetNameArg, SESSION_BASE, SessionArg};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::release::{DEVICE_COMMANDS, LuoVersion, Release, ReleaseId};

use super::{Argument, Command, Dispatch, Fd, Field, Interface, Role, posted};

/// Every name that [`release`] knows and that has commands, but for point releases; oldest first.
pub const NAMES: [&str; 10] =
    ["posted-rfc2", "posted-v2", "posted-v3", "posted-v4", "posted-v5", "6.19", "7.0", "7.1", "7.2", "7.3"];

/// The interface of a release or of a posted design; nothing if there is none of this name. Releases before 6.19 have
/// no commands.
#[must_use]
pub fn release(name: &str) -> Option<Interface> {
    posted::design(name).or_else(|| ReleaseId::from_name(name).map(|id| merged(id.release())))
}

/// A member: its place is the structure's own.
pub(super) fn field<S, F>(name: &str, of: &str, role: Role, offset: usize, _: impl Fn(&S) -> &F) -> Field {
    let (name, of) = (name.to_owned(), of.to_owned());
    Field { name, of, offset: bytes(offset), size: bytes(size_of::<F>()), role }
}

pub(super) fn bytes(count: usize) -> u64 {
    u64::try_from(count).expect("a size fits in 64 bits")
}

/// `argument!("name in C", Structure { member: "type in C" Role, … })`; a name in C may stand before the colon.
macro_rules! argument {
    ($name:expr, $type:ty { $($member:ident $(as $shown:literal)?: $of:literal $role:ident),* $(,)? }) => {{
        let fields = vec![$($crate::interface::releases::field(
            $crate::interface::releases::shown(stringify!($member), &[$($shown)?]),
            $of,
            $crate::interface::Role::$role,
            std::mem::offset_of!($type, $member),
            |structure: &$type| &structure.$member,
        )),*];
        let size = $crate::interface::releases::bytes(size_of::<$type>());
        let name = format!("struct {}", $name);
        $crate::interface::Argument { name, size, min_size: Some(size), fields }
    }};
}

pub(super) use argument;

/// The name of a member in C where it is not the one in Rust.
pub(super) fn shown(member: &'static str, instead: &[&'static str]) -> &'static str {
    instead.first().copied().unwrap_or(member)
}

/// A list of refusals.
pub(super) fn texts(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// What every command of a table is refused with before its own checks.
pub(super) fn before(own: &[&str], session_check: bool) -> Vec<String> {
    let mut lines = texts(&[
        "EFAULT: the size word cannot be read",
        "ENOTTY: another type, direction or size in the number",
    ]);
    if session_check {
        lines.push(String::from("EINVAL: a session of the other direction"));
    }
    lines.extend(texts(&[
        "EINVAL: the size is below the minimum",
        "E2BIG: a byte beyond the known size is not zero",
        "EFAULT: the argument cannot be read",
    ]));
    lines.extend(texts(own));
    lines
}

/// The name of the command's macro in the header.
fn macro_name(command: ioctl::Command) -> &'static str {
    match command {
        ioctl::Command::CreateSession => "LIVEUPDATE_IOCTL_CREATE_SESSION",
        ioctl::Command::RetrieveSession => "LIVEUPDATE_IOCTL_RETRIEVE_SESSION",
        ioctl::Command::PreserveFd => "LIVEUPDATE_SESSION_PRESERVE_FD",
        ioctl::Command::RetrieveFd => "LIVEUPDATE_SESSION_RETRIEVE_FD",
        ioctl::Command::Finish => "LIVEUPDATE_SESSION_FINISH",
        ioctl::Command::GetName => "LIVEUPDATE_SESSION_GET_NAME",
    }
}

fn passed(command: ioctl::Command, quirks: Quirks) -> Argument {
    let mut argument = match command {
        ioctl::Command::CreateSession => argument!("liveupdate_ioctl_create_session", SessionArg {
            size: "__u32" Size, fd: "__s32" Out, name: "__u8[64]" In,
        }),
        ioctl::Command::RetrieveSession => argument!("liveupdate_ioctl_retrieve_session", SessionArg {
            size: "__u32" Size, fd: "__s32" Out, name: "__u8[64]" In,
        }),
        ioctl::Command::PreserveFd => argument!("liveupdate_session_preserve_fd", FdArg {
            size: "__u32" Size, fd: "__s32" In, token: "__aligned_u64" In,
        }),
        ioctl::Command::RetrieveFd => argument!("liveupdate_session_retrieve_fd", FdArg {
            size: "__u32" Size, fd: "__s32" Out, token: "__aligned_u64" In,
        }),
        ioctl::Command::Finish => argument!("liveupdate_session_finish", FinishArg {
            size: "__u32" Size, reserved: "__u32" Reserved,
        }),
        ioctl::Command::GetName => argument!("liveupdate_session_get_name", GetNameArg {
            size: "__u32" Size, reserved: "__u32" Reserved, name: "__u8[64]" Out,
        }),
    };
    // The least is what the dispatcher compares with, whatever the structure.
    argument.min_size = Some(bytes(command.size()));
    if command == ioctl::Command::Finish && quirks.has(Quirk::FinishIgnoresReserved) {
        argument.fields.last_mut().expect("two members").role = Role::Unchecked;
    }
    argument
}

/// What the operation itself is refused with, in order.
fn refusals(command: ioctl::Command, release: &Release) -> Vec<String> {
    let quirks = release.quirks;
    let blocks = release.luo == Some(LuoVersion::V5);
    let mut own: Vec<&str> = Vec::new();
    match command {
        ioctl::Command::CreateSession => {
            own.push("EMFILE: no free descriptor");
            if !quirks.has(Quirk::NoNameCheck) {
                own.push("EINVAL: the name is empty or has no NUL");
            }
            own.push(if blocks { "ENOSPC: 510000 sessions" } else { "ENOMEM: 819 sessions" });
            own.push("EEXIST: an outgoing session has the name");
        }
        ioctl::Command::RetrieveSession => own.extend([
            "EMFILE: no free descriptor",
            "ENOENT: no incoming session has the name",
            "EINVAL: it was retrieved already",
        ]),
        ioctl::Command::PreserveFd => {
            own.push("EEXIST: a file of the session has the token");
            own.push(if blocks { "ENOSPC: 630000 files" } else { "ENOSPC: 128 files" });
            own.extend(["EBADF: no such descriptor", "ENOENT: no handler takes the file"]);
            if !quirks.has(Quirk::SameInodeTwice) {
                own.push("EBUSY: the file is preserved already");
            }
            own.push("the handler's errno");
        }
        ioctl::Command::RetrieveFd => {
            own.extend(["EMFILE: no free descriptor", "ENOENT: no file has the token"]);
            if !quirks.has(Quirk::RetrieveErrorForgotten) {
                own.push("the errno of an earlier try that failed");
            }
            own.push("the handler's errno");
        }
        ioctl::Command::Finish => {
            if !quirks.has(Quirk::FinishIgnoresReserved) {
                own.push("EINVAL: reserved is not 0");
            }
            own.push("EBUSY: a handler is not ready");
        }
        ioctl::Command::GetName => own.push("EINVAL: reserved is not 0"),
    }
    own.push("EFAULT: the reply cannot be written");
    let session = command.nr() >= SESSION_BASE && command.direction() != ioctl::Direction::Both;
    before(&own, session && !quirks.has(Quirk::NoDirectionCheck))
}

fn merged(release: &Release) -> Interface {
    let command = |fd: Fd| {
        move |command: &ioctl::Command| Command {
            name: macro_name(*command).to_owned(),
            number: command.code(),
            fd,
            argument: Some(passed(*command, release.quirks)),
            refusals: refusals(*command, release),
        }
    };
    let device = if release.luo.is_some() { DEVICE_COMMANDS } else { &[] };
    let device = device.iter().map(command(Fd::Device));
    let session = release.session_commands.iter().map(command(Fd::Session));
    let about = match release.luo {
        Some(_) => format!("Linux {}, as {}", release.name, release.point),
        None => format!("Linux {}: no /dev/liveupdate", release.name),
    };
    Interface {
        name: release.name.to_owned(),
        about,
        dispatch: Dispatch::Table,
        commands: device.chain(session).collect(),
        values: Vec::new(),
        unknown: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use luosim_abi::release::RELEASES;

    use super::*;

    /// Bytes of a type in C.
    fn bytes_of(of: &str) -> Option<u64> {
        let (element, count) = match of.split_once('[') {
            Some((element, count)) => (element, count.trim_end_matches(']').parse().ok()?),
            None => (of, 1),
        };
        Some(crate::header::Plain::named(element.trim_start_matches("enum "))?.size * count)
    }

    #[test]
    fn every_table_is_whole() {
        for name in NAMES.iter().chain(&["6.16", "6.18", "7.3.4"]) {
            let interface = release(name).expect("known");
            for command in &interface.commands {
                let shown = format!("{name} {}", command.name);
                assert!(!command.refusals.is_empty(), "{shown}");
                let Some(argument) = &command.argument else { continue };
                let mut end = 0;
                for field in &argument.fields {
                    assert!(field.offset >= end, "{shown}.{}: members overlap", field.name);
                    assert_eq!(bytes_of(&field.of), Some(field.size), "{shown}.{}: {}", field.name, field.of);
                    end = field.end();
                }
                assert!(end <= argument.size && argument.least() <= argument.size, "{shown}");
            }
        }
    }

    #[test]
    fn releases_without_the_orchestrator_have_no_commands() {
        for row in RELEASES {
            let interface = release(row.name).expect("a release");
            assert_eq!(interface.commands.is_empty(), row.luo.is_none(), "{}", row.name);
            assert_eq!(NAMES.contains(&row.name), row.luo.is_some(), "{}", row.name);
        }
        assert_eq!(release("5.4"), None);
    }

    #[test]
    fn refusals_follow_the_quirks() {
        let has = |name: &str, command: &str, text: &str| {
            let interface = release(name).expect("a release");
            let command = interface.command(command).expect("a command").clone();
            command.refusals.iter().any(|line| line.contains(text))
        };
        for (name, checked) in [("6.19", false), ("7.0", false), ("7.1", true), ("7.3", true)] {
            assert_eq!(has(name, "LIVEUPDATE_SESSION_PRESERVE_FD", "EBUSY"), checked, "{name}");
            assert_eq!(has(name, "LIVEUPDATE_SESSION_FINISH", "other direction"), checked, "{name}");
            assert_eq!(has(name, "LIVEUPDATE_IOCTL_CREATE_SESSION", "name is empty"), checked, "{name}");
        }
    }
}
