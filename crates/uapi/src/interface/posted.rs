//! The designs that were posted for review. Three can be booted; their numbers and offsets are those of the structures in
//! `luosim-abi`. Two more are known from their headers and mails alone, RFC v2 (`posted-rfc2`) and v5 (`posted-v5`): they
//! are for showing and comparing only.

use luosim_abi::posted::{self, v2, v3, v4};

use super::releases::{argument, before, bytes, texts};
use super::{Argument, Command, Dispatch, Fd, Field, Interface, Role, Value};

/// The design with this name.
pub(super) fn design(name: &str) -> Option<Interface> {
    Some(match name {
        "posted-rfc2" => rfc2(),
        "posted-v2" => second(),
        "posted-v3" => third(),
        "posted-v4" => fourth(),
        "posted-v5" => fifth(),
        _ => return None,
    })
}

fn states() -> Vec<Value> {
    let named = |of: &str, name: &str, value: u32| Value {
        of: format!("liveupdate_{of}"),
        name: format!("LIVEUPDATE_{}", name.to_uppercase()),
        value: value.into(),
    };
    posted::State::ALL
        .iter()
        .map(|state| named("state", &format!("state_{}", state.name()), state.raw()))
        .collect()
}

fn events() -> Vec<Value> {
    let made = |event: &posted::Event| Value {
        of: String::from("liveupdate_event"),
        name: format!("LIVEUPDATE_{}", event.name().to_uppercase()),
        value: event.raw().into(),
    };
    posted::Event::ALL.iter().map(made).collect()
}

fn plain(of: &str, role: Role) -> Argument {
    let size = if of == "__u64" { 8 } else { 4 };
    let name = String::from("value");
    let fields = vec![Field { name, of: of.to_owned(), offset: 0, size, role }];
    Argument { name: of.to_owned(), size, min_size: Some(size), fields }
}

fn device(name: &str, number: u32, argument: Option<Argument>, refusals: Vec<String>) -> Command {
    Command { name: format!("LIVEUPDATE_IOCTL_{name}"), number, fd: Fd::Device, argument, refusals }
}

fn session(name: &str, number: u32, argument: Argument, refusals: Vec<String>) -> Command {
    Command {
        name: format!("LIVEUPDATE_{name}"),
        number,
        fd: Fd::Session,
        argument: Some(argument),
        refusals,
    }
}

/// `struct liveupdate_fd`, of RFC v2 and v2.
fn liveupdate_fd(fd: Role, token: Role) -> Argument {
    let mut made = argument!("liveupdate_fd", v2::LiveupdateFd {
        fd: "int" InOut, flags: "__u32" Unchecked, token: "__aligned_u64" InOut,
    });
    (made.fields[0].role, made.fields[2].role) = (fd, token);
    made
}

/// RFC v2 has the numbers of v2, and FREEZE where v2 has a hole; the kernel chooses the token.
fn rfc2() -> Interface {
    let second = second();
    let mut commands = second.commands;
    let preserve = &mut commands[0];
    // `_IOWR` there, `_IOW` in v2: the read bit is the difference.
    preserve.number |= 2 << 30;
    preserve.argument = Some(liveupdate_fd(Role::In, Role::Out));
    preserve.refusals = texts(&[
        "EFAULT: the argument cannot be read",
        "EBADF: no such descriptor",
        "EBUSY: the state is not normal or updated",
        "ENOENT: no handler takes the file",
        "ENOMEM",
        "EFAULT: the token cannot be written; the file stays registered",
    ]);
    let freeze = device(
        "EVENT_FREEZE",
        v2::HOLE,
        None,
        texts(&["EAGAIN: killed while it waited", "EINVAL: the state is not prepared"]),
    );
    for command in &mut commands[4..] {
        command.name = command.name.replace("IOCTL_", "IOCTL_EVENT_");
    }
    commands.insert(5, freeze);
    let values = ["NORMAL", "PREPARED", "FROZEN", "UPDATED"].iter().zip(0..).map(|(name, value)| Value {
        of: String::from("liveupdate_state"),
        name: format!("LIVEUPDATE_STATE_{name}"),
        value,
    });
    Interface {
        name: String::from("posted-rfc2"),
        about: String::from("RFC v2, May 2025: never merged; for showing and comparing only"),
        dispatch: Dispatch::WholeNumber,
        commands,
        values: values.collect(),
        unknown: texts(&[
            "the number of EVENT_FINISH was read in the next revision",
            "the alignment of token in 32-bit programs is not that of v2: it was a plain __u64",
        ]),
    }
}

fn second() -> Interface {
    let event = |name: &str, command: v2::Command, refusal: &str| {
        device(name, command.code(), None, texts(&["EAGAIN: killed while it waited", refusal]))
    };
    let state = "EBUSY: the state is not normal or updated";
    let preserve = texts(&[
        "EFAULT: the argument cannot be read",
        "EBADF: no such descriptor",
        state,
        "ENOENT: no handler takes the file",
        "ENOMEM",
        "EEXIST: a file of any open session has the token",
        "EFAULT: the reply cannot be written; the file is unregistered",
    ]);
    let forget =
        texts(&["EFAULT: the token cannot be read", state, "ENOENT: no file of this open has the token"]);
    let restore = texts(&[
        "EFAULT: the argument cannot be read",
        "EMFILE: no free descriptor",
        "EBUSY: the state is not updated",
        "ENOENT: no file has the token",
        "EINVAL: it was asked for already",
        "the handler's errno",
        "EFAULT: the reply cannot be written; the descriptor stays open",
    ]);
    let commands = vec![
        device(
            "FD_PRESERVE",
            v2::Command::FdPreserve.code(),
            Some(liveupdate_fd(Role::In, Role::In)),
            preserve,
        ),
        device("FD_UNPRESERVE", v2::Command::FdUnpreserve.code(), Some(plain("__u64", Role::In)), forget),
        device(
            "FD_RESTORE",
            v2::Command::FdRestore.code(),
            Some(liveupdate_fd(Role::Out, Role::In)),
            restore,
        ),
        device(
            "GET_STATE",
            v2::Command::GetState.code(),
            Some(plain("__u32", Role::Out)),
            texts(&["EFAULT: the reply cannot be written"]),
        ),
        event("PREPARE", v2::Command::Prepare, "EINVAL: the state is not normal"),
        event("CANCEL", v2::Command::Cancel, "EINVAL: the state is not prepared or frozen"),
        event("FINISH", v2::Command::Finish, "EINVAL: the state is not updated"),
    ];
    Interface {
        name: String::from("posted-v2"),
        about: String::from("posted in July 2025 as v2, the same as v1 in June: never merged"),
        dispatch: Dispatch::WholeNumber,
        commands,
        values: states(),
        unknown: Vec::new(),
    }
}

/// The argument of a command of v3 whose least size is not that of its structure says so.
fn third_argument(command: v3::Command) -> Argument {
    let mut made = match command {
        v3::Command::FdPreserve => argument!("liveupdate_ioctl_fd_preserve", v3::Fd {
            size: "__u32" Size, fd: "__s32" In, token: "__aligned_u64" In,
        }),
        v3::Command::FdUnpreserve => argument!("liveupdate_ioctl_fd_unpreserve", v3::FdUnpreserve {
            size: "__u32" Size, token: "__aligned_u64" In,
        }),
        v3::Command::FdRestore => argument!("liveupdate_ioctl_fd_restore", v3::Fd {
            size: "__u32" Size, fd: "__s32" Out, token: "__aligned_u64" In,
        }),
        v3::Command::GetState => argument!("liveupdate_ioctl_get_state", v3::Word {
            size: "__u32" Size, value as "state": "__u32" Out,
        }),
        v3::Command::SetEvent => argument!("liveupdate_ioctl_set_event", v3::Word {
            size: "__u32" Size, value as "event": "__u32" In,
        }),
        v3::Command::GetFdState => argument!("liveupdate_ioctl_get_fd_state", v3::FdState {
            size: "__u32" Size, incoming: "__u8" In, token: "__aligned_u64" In, state: "__u32" Out,
        }),
        v3::Command::SetFdEvent => argument!("liveupdate_ioctl_set_fd_event", v3::FdEvent {
            size: "__u32" Size, event: "__u32" In, token: "__aligned_u64" In,
        }),
    };
    made.min_size = Some(bytes(command.min_size()));
    made
}

fn third_refusals(command: v3::Command) -> Vec<String> {
    let own: &[&str] = match command {
        v3::Command::FdPreserve => &["none of the operation: its errors are lost, and 0 is returned"],
        v3::Command::FdUnpreserve => {
            &["EBUSY: the state is not normal or updated", "ENOENT: no file has the token"]
        }
        v3::Command::FdRestore => &[
            "EMFILE: no free descriptor",
            "EBUSY: the state is not updated",
            "ENOENT: no file has the token",
            "EINVAL: it was asked for already",
            "the handler's errno",
        ],
        v3::Command::GetState => &[],
        v3::Command::SetEvent => {
            &["EINVAL: FREEZE, or no event", "EAGAIN: killed while it waited", "EINVAL: another state"]
        }
        v3::Command::GetFdState => &["ENOENT: no file has the token"],
        v3::Command::SetFdEvent => &[
            "EINVAL: no event",
            "ENOENT: no file has the token",
            "EBUSY: FINISH while the state is not updated",
        ],
    };
    let mut lines = before(own, false);
    lines.push(String::from("EFAULT: the reply, of the size that the program gave, cannot be written"));
    lines
}

fn third() -> Interface {
    let command = |command: &v3::Command| {
        device(command.name(), command.code(), Some(third_argument(*command)), third_refusals(*command))
    };
    Interface {
        name: String::from("posted-v3"),
        about: String::from(
            "posted in August 2025 as v3, the first with a size as the first member: never merged",
        ),
        dispatch: Dispatch::Table,
        commands: v3::Command::ALL.iter().map(command).collect(),
        values: [states(), events()].concat(),
        unknown: Vec::new(),
    }
}

fn fourth_device(command: v4::DeviceCommand) -> (Argument, Vec<String>) {
    match command {
        v4::DeviceCommand::GetState => (third_argument(v3::Command::GetState), before(&[], false)),
        v4::DeviceCommand::SetEvent => (
            third_argument(v3::Command::SetEvent),
            before(
                &[
                    "EOPNOTSUPP: FREEZE, or no event",
                    "EAGAIN: killed while it waited",
                    "EINVAL: another state",
                ],
                false,
            ),
        ),
        v4::DeviceCommand::CreateSession => (
            argument!("liveupdate_ioctl_create_session", v4::CreateSession {
                size: "__u32" Size, fd: "__s32" Out, name: "__u8[56]" In,
            }),
            before(
                &[
                    "EMFILE: no free descriptor",
                    "EAGAIN: the state is not normal or updated",
                    "ENOMEM",
                    "EEXIST: a session has the name",
                ],
                false,
            ),
        ),
        v4::DeviceCommand::RetrieveSession => (
            argument!("liveupdate_ioctl_retrieve_session", v4::RetrieveSession {
                size: "__u32" Size, fd: "__s32" Out, name: "__u8[64]" In,
            }),
            before(
                &[
                    "EMFILE: no free descriptor",
                    "EAGAIN: the state is not updated",
                    "ENOENT: no session has the name",
                    "EADDRINUSE: it was retrieved already",
                ],
                false,
            ),
        ),
    }
}

fn fourth_session(command: v4::SessionCommand) -> (Argument, Vec<String>) {
    let busy = "EBUSY: the machine's state or the session's does not allow it";
    match command {
        v4::SessionCommand::PreserveFd => (
            argument!("liveupdate_session_preserve_fd", v4::SessionFd {
                size: "__u32" Size, fd: "__s32" In, token: "__aligned_u64" In,
            }),
            before(
                &[
                    busy,
                    "EBADF: no such descriptor",
                    "ENOENT: no handler takes the file",
                    "ENOMEM",
                    "EEXIST: a file of the session has the token",
                ],
                false,
            ),
        ),
        v4::SessionCommand::UnpreserveFd => (
            argument!("liveupdate_session_unpreserve_fd", v4::SessionUnpreserveFd {
                size: "__u32" Size, hole as "reserved": "__u32" Reserved, token: "__aligned_u64" In,
            }),
            before(&["EOPNOTSUPP: reserved is not 0", busy, "ENOENT: no file has the token"], false),
        ),
        v4::SessionCommand::RestoreFd => (
            argument!("liveupdate_session_restore_fd", v4::SessionFd {
                size: "__u32" Size, fd: "__s32" Out, token: "__aligned_u64" In,
            }),
            before(
                &[
                    "EMFILE: no free descriptor",
                    busy,
                    "ENOENT: no file has the token",
                    "EADDRINUSE: it was restored already",
                    "the handler's errno",
                ],
                false,
            ),
        ),
        v4::SessionCommand::GetState => (
            argument!("liveupdate_session_get_state", v4::SessionGetState {
                size: "__u32" Size, incoming: "__u8" Unchecked, reserved: "__u8[3]" Reserved, state: "__u32" Out,
            }),
            before(&["EOPNOTSUPP: reserved is not 0"], false),
        ),
        v4::SessionCommand::SetEvent => (
            argument!("liveupdate_session_set_event", v4::Word { size: "__u32" Size, value as "event": "__u32" In }),
            before(&["EINVAL: no event", "EBUSY: another state"], false),
        ),
    }
}

fn fourth() -> Interface {
    let first = v4::DeviceCommand::ALL.iter().map(|command| {
        let (argument, refusals) = fourth_device(*command);
        device(command.name(), command.code(), Some(argument), refusals)
    });
    let second = v4::SessionCommand::ALL.iter().map(|command| {
        let (argument, refusals) = fourth_session(*command);
        session(command.name(), command.code(), argument, refusals)
    });
    let mut commands: Vec<Command> = first.chain(second).collect();
    commands
        .iter_mut()
        .for_each(|command| command.refusals.push(String::from("EFAULT: the reply cannot be written")));
    Interface {
        name: String::from("posted-v4"),
        about: String::from("posted in September 2025 as v4, with named sessions: never merged"),
        dispatch: Dispatch::Table,
        commands,
        values: [states(), events()].concat(),
        unknown: texts(&[
            "the names of its structures: they are those of the merged header where it has them",
        ]),
    }
}

/// The numbers of 6.19, without UNPRESERVE; FINISH had a member of two bytes where 6.19 has one of four.
fn fifth() -> Interface {
    let mut made = super::release("6.19").expect("a release");
    made.name = String::from("posted-v5");
    made.about = String::from("posted in November 2025 as v5: never merged; for showing and comparing only");
    made.unknown = texts(&[
        "the order of its checks: taken to be that of 6.19",
        "the length of session names: taken to be that of 6.19",
    ]);
    let finish = made.commands.last_mut().expect("6.19 has commands");
    let argument = finish.argument.as_mut().expect("FINISH has a structure");
    let reserved = argument.fields.last_mut().expect("two members");
    (reserved.of, reserved.size) = (String::from("__u8[2]"), 2);
    argument.min_size = Some(reserved.end());
    made
}

#[cfg(test)]
mod tests {
    use crate::interface::{Fd, release};

    fn numbers(name: &str) -> Vec<(u32, u64, u64)> {
        let of = |size: fn(&crate::interface::Argument) -> u64| {
            move |argument: &Option<crate::interface::Argument>| argument.as_ref().map_or(0, size)
        };
        let (size, least) = (of(|argument| argument.size), of(crate::interface::Argument::least));
        let interface = release(name).expect("a design");
        interface.commands.iter().map(|one| (one.number, size(&one.argument), least(&one.argument))).collect()
    }

    #[test]
    fn numbers_and_sizes_are_those_of_the_headers() {
        assert_eq!(
            numbers("posted-rfc2"),
            [
                (0xC010_BA00, 16, 16),
                (0x4008_BA01, 8, 8),
                (0xC010_BA02, 16, 16),
                (0x8004_BA03, 4, 4),
                (0xBA04, 0, 0),
                (0xBA05, 0, 0),
                (0xBA06, 0, 0),
                (0xBA07, 0, 0),
            ]
        );
        assert_eq!(numbers("posted-v2")[..2], [(0x4010_BA00, 16, 16), (0x4008_BA01, 8, 8)]);
        assert_eq!(numbers("posted-v3")[5], (0xBA05, 24, 16));
        assert_eq!(numbers("posted-v4")[3], (0xBA03, 72, 72));
        assert_eq!(numbers("posted-v5")[4], (0xBA42, 8, 6));
        assert_eq!(numbers("6.19")[4], (0xBA42, 8, 8));
    }

    #[test]
    fn numbers_that_nobody_has_are_refused_as_the_design_does() {
        let refuses = |name: &str, fd, number| release(name).expect("known").refuses(fd, number);
        assert_eq!(refuses("posted-v2", Fd::Device, 0xBA05), "ENOTTY");
        assert_eq!(refuses("posted-v3", Fd::Device, 0xBA07), "EINVAL");
        assert_eq!(refuses("7.3", Fd::Device, 0xBA40), "EINVAL");
        assert_eq!(refuses("7.3", Fd::Session, 0xC010_BA40), "ENOTTY");
    }
}
