//! What the argument of a command carries and where, in every interface that a kernel of ours may have: the merged one
//! and the posted designs.
//!
//! For who stands between a program and a kernel without being either: it must know which descriptor goes in, where the
//! new one comes out, and what may change by the call. Offsets are those of the structures ([`crate::ioctl`],
//! [`crate::posted`]). Not here: what a command does, and in which order it is checked.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;

use crate::ioctl::{self, Command, FdArg, FinishArg, SessionArg};
use crate::posted::v2::LiveupdateFd;
use crate::posted::v4::SessionGetState;
use crate::posted::{Design, Event, v2, v3, v4};
use crate::release::Release;

/// Bytes of the largest argument of all.
pub const LARGEST: usize = 72;

/// What a command is for, whatever its name and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Make a session.
    CreateSession,
    /// Take over a session of the previous kernel.
    RetrieveSession,
    /// Preserve, or register, the descriptor in the argument.
    Preserve,
    /// Forget a token.
    Unpreserve,
    /// Give the file of a token back.
    Retrieve,
    /// Give up what a session still has.
    Finish,
    /// Read the name of a session.
    GetName,
    /// Read the state of the machine, or of a session.
    GetState,
    /// Move the machine, or a session: by this event, or by the one in the argument.
    SetEvent(Option<Event>),
    /// Read the state of a file.
    GetFdState,
    /// Move a file.
    SetFdEvent,
}

/// The argument of one command. Offsets are bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Name of the command in transcripts.
    pub name: &'static str,
    /// What the command is for.
    pub purpose: Purpose,
    /// Bytes of the structure; 0: none is passed.
    pub size: usize,
    /// The descriptor: an `int`, which goes in or comes out ([`Self::gives_fd`]).
    pub fd: Option<usize>,
    /// The token, 8 bytes.
    pub token: Option<usize>,
    /// A name in a field of so many bytes.
    pub text: Option<(usize, usize)>,
    /// The word beside these, 4 bytes: an event, flags, a reserved field.
    pub word: Option<usize>,
    /// The state that comes out, 4 bytes.
    pub state: Option<usize>,
}

impl Argument {
    const fn new(name: &'static str, purpose: Purpose, size: usize) -> Self {
        Self { name, purpose, size, fd: None, token: None, text: None, word: None, state: None }
    }

    const fn fd(self, at: usize) -> Self {
        Self { fd: Some(at), ..self }
    }

    const fn token(self, at: usize) -> Self {
        Self { token: Some(at), ..self }
    }

    const fn text(self, at: usize, len: usize) -> Self {
        Self { text: Some((at, len)), ..self }
    }

    const fn word(self, at: usize) -> Self {
        Self { word: Some(at), ..self }
    }

    const fn state(self, at: usize) -> Self {
        Self { state: Some(at), ..self }
    }

    /// Whether the reply carries a new descriptor.
    #[must_use]
    pub const fn gives_fd(&self) -> bool {
        matches!(self.purpose, Purpose::CreateSession | Purpose::RetrieveSession | Purpose::Retrieve)
    }

    /// Whether files are told that a jump is near, or over: what they are then is what is carried.
    #[must_use]
    pub const fn moves(&self) -> bool {
        matches!(self.purpose, Purpose::SetEvent(_) | Purpose::SetFdEvent)
    }

    /// Whether files may be let go by it.
    #[must_use]
    pub const fn lets_go(&self) -> bool {
        self.moves() || matches!(self.purpose, Purpose::Finish | Purpose::Unpreserve)
    }
}

impl Release {
    /// Whether arguments begin with their size.
    #[must_use]
    pub const fn is_size_first(&self) -> bool {
        !matches!(self.posted, Some(Design::V2))
    }

    /// The argument of the command with this whole number, given to a session or to the device.
    #[must_use]
    pub fn argument(&self, session: bool, code: u32) -> Option<Argument> {
        match (self.posted, session) {
            (None, _) => Command::from_code(code).filter(|one| is_of_session(*one) == session).map(merged),
            (Some(Design::V2), false) => v2::Command::from_code(code).map(of_v2),
            (Some(Design::V3), false) => find(v3::Command::ALL, code, v3::Command::code).map(of_v3),
            (Some(Design::V4), false) => {
                find(v4::DeviceCommand::ALL, code, v4::DeviceCommand::code).map(of_v4)
            }
            (Some(Design::V4), true) => {
                find(v4::SessionCommand::ALL, code, v4::SessionCommand::code).map(of_v4_session)
            }
            (Some(Design::V2 | Design::V3), true) => None,
        }
    }
}

fn find<C: Copy>(all: &[C], code: u32, of: impl Fn(C) -> u32) -> Option<C> {
    all.iter().copied().find(|one| of(*one) == code)
}

fn is_of_session(command: Command) -> bool {
    command.nr() >= ioctl::SESSION_BASE
}

fn merged(command: Command) -> Argument {
    let new = |purpose| Argument::new(command.name(), purpose, command.size());
    let (name, len) = (offset_of!(SessionArg, name), ioctl::NAME_LEN);
    let (fd, token) = (offset_of!(FdArg, fd), offset_of!(FdArg, token));
    match command {
        Command::CreateSession => new(Purpose::CreateSession).fd(offset_of!(SessionArg, fd)).text(name, len),
        Command::RetrieveSession => {
            new(Purpose::RetrieveSession).fd(offset_of!(SessionArg, fd)).text(name, len)
        }
        Command::PreserveFd => new(Purpose::Preserve).fd(fd).token(token),
        Command::RetrieveFd => new(Purpose::Retrieve).fd(fd).token(token),
        Command::Finish => new(Purpose::Finish).word(offset_of!(FinishArg, reserved)),
        Command::GetName => new(Purpose::GetName),
    }
}

fn of_v2(command: v2::Command) -> Argument {
    let new = |purpose, size| Argument::new(command.name(), purpose, size);
    let moved = |event| new(Purpose::SetEvent(Some(event)), 0);
    let (fd, flags, token) =
        (offset_of!(LiveupdateFd, fd), offset_of!(LiveupdateFd, flags), offset_of!(LiveupdateFd, token));
    let file = |purpose| new(purpose, size_of::<LiveupdateFd>()).fd(fd).word(flags).token(token);
    match command {
        v2::Command::FdPreserve => file(Purpose::Preserve),
        v2::Command::FdUnpreserve => new(Purpose::Unpreserve, size_of::<U64>()).token(0),
        v2::Command::FdRestore => file(Purpose::Retrieve),
        v2::Command::GetState => new(Purpose::GetState, 4).state(0),
        v2::Command::Prepare => moved(Event::Prepare),
        v2::Command::Cancel => moved(Event::Cancel),
        v2::Command::Finish => moved(Event::Finish),
    }
}

fn of_v3(command: v3::Command) -> Argument {
    let new = |purpose| Argument::new(command.name(), purpose, command.size());
    let (fd, token, word) = (offset_of!(v3::Fd, fd), offset_of!(v3::Fd, token), offset_of!(v3::Word, value));
    match command {
        v3::Command::FdPreserve => new(Purpose::Preserve).fd(fd).token(token),
        v3::Command::FdUnpreserve => new(Purpose::Unpreserve).token(offset_of!(v3::FdUnpreserve, token)),
        v3::Command::FdRestore => new(Purpose::Retrieve).fd(fd).token(token),
        v3::Command::GetState => new(Purpose::GetState).state(word),
        v3::Command::SetEvent => new(Purpose::SetEvent(None)).word(word),
        v3::Command::GetFdState => new(Purpose::GetFdState)
            .word(offset_of!(v3::FdState, incoming))
            .token(offset_of!(v3::FdState, token))
            .state(offset_of!(v3::FdState, state)),
        v3::Command::SetFdEvent => new(Purpose::SetFdEvent)
            .word(offset_of!(v3::FdEvent, event))
            .token(offset_of!(v3::FdEvent, token)),
    }
}

fn of_v4(command: v4::DeviceCommand) -> Argument {
    let new = |purpose| Argument::new(command.name(), purpose, command.size());
    let word = offset_of!(v4::Word, value);
    match command {
        v4::DeviceCommand::GetState => new(Purpose::GetState).state(word),
        v4::DeviceCommand::SetEvent => new(Purpose::SetEvent(None)).word(word),
        v4::DeviceCommand::CreateSession => new(Purpose::CreateSession)
            .fd(offset_of!(v4::CreateSession, fd))
            .text(offset_of!(v4::CreateSession, name), v4::NAME_LENGTH),
        v4::DeviceCommand::RetrieveSession => new(Purpose::RetrieveSession)
            .fd(offset_of!(v4::RetrieveSession, fd))
            .text(offset_of!(v4::RetrieveSession, name), v4::RETRIEVE_NAME_LENGTH),
    }
}

fn of_v4_session(command: v4::SessionCommand) -> Argument {
    let new = |purpose| Argument::new(command.name(), purpose, command.size());
    let (fd, token) = (offset_of!(v4::SessionFd, fd), offset_of!(v4::SessionFd, token));
    match command {
        v4::SessionCommand::PreserveFd => new(Purpose::Preserve).fd(fd).token(token),
        v4::SessionCommand::UnpreserveFd => new(Purpose::Unpreserve)
            .word(offset_of!(v4::SessionUnpreserveFd, hole))
            .token(offset_of!(v4::SessionUnpreserveFd, token)),
        v4::SessionCommand::RestoreFd => new(Purpose::Retrieve).fd(fd).token(token),
        v4::SessionCommand::GetState => new(Purpose::GetState)
            .word(offset_of!(SessionGetState, incoming))
            .state(offset_of!(SessionGetState, state)),
        v4::SessionCommand::SetEvent => new(Purpose::SetEvent(None)).word(offset_of!(v4::Word, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{POSTED, RELEASES};

    /// Every argument of a kernel, with the number and the kind of descriptor that it is given to.
    fn all(release: &Release) -> Vec<(bool, u32, Argument)> {
        let numbers = (0..=0xffu32).map(|nr| 0xBA00 | nr);
        let sized = v2::Command::ALL.iter().map(|command| command.code());
        let both = numbers.chain(sized.filter(|code| *code > 0xffff));
        let with = |code| {
            [false, true]
                .into_iter()
                .filter_map(move |session| Some((session, code, release.argument(session, code)?)))
        };
        both.flat_map(with).collect()
    }

    #[test]
    fn every_member_lies_in_its_structure_and_none_on_another() {
        for release in RELEASES.iter().chain(POSTED) {
            for (_, code, one) in all(release) {
                let word = |at: Option<usize>, len| at.map(|at| (at, at + len));
                let size_word = (release.is_size_first() && one.size > 0).then_some((0, 4));
                let text = one.text.map(|(at, len)| (at, at + len));
                let parts = [
                    size_word,
                    word(one.fd, 4),
                    word(one.token, 8),
                    text,
                    word(one.word, 4),
                    word(one.state, 4),
                ];
                let mut parts: Vec<(usize, usize)> = parts.into_iter().flatten().collect();
                parts.sort_unstable();
                let shown = format!("{code:#x} of {}: {one:?}", release.name);
                assert!(one.size <= LARGEST, "{shown}");
                assert!(parts.windows(2).all(|two| two[0].1 <= two[1].0), "{shown}");
                assert!(parts.iter().all(|(_, end)| *end <= one.size), "{shown}");
                assert!(!one.gives_fd() || one.fd.is_some(), "{shown}");
            }
        }
    }

    #[test]
    fn each_interface_has_its_commands() {
        let count = |name: &str| {
            let release = RELEASES.iter().chain(POSTED).find(|release| release.name == name);
            let all = all(release.expect("it is one"));
            (
                all.iter().filter(|(session, ..)| !session).count(),
                all.iter().filter(|(session, ..)| *session).count(),
            )
        };
        assert_eq!(count("7.3"), (2, 4));
        assert_eq!(count("posted-v2"), (7, 0));
        assert_eq!(count("posted-v3"), (7, 0));
        assert_eq!(count("posted-v4"), (4, 5));
    }

    #[test]
    fn the_same_number_is_another_command() {
        let of = |name: &str| POSTED.iter().find(|release| release.name == name).expect("it is one");
        let purpose = |name: &str| of(name).argument(false, 0xBA02).map(|one| (one.purpose, one.size));
        assert_eq!(purpose("posted-v2"), None);
        assert_eq!(purpose("posted-v3"), Some((Purpose::Retrieve, 16)));
        assert_eq!(purpose("posted-v4"), Some((Purpose::CreateSession, 64)));
        let fd = |code| of("posted-v2").argument(false, code).and_then(|one| one.fd);
        assert_eq!((fd(0x4010_BA00), fd(0xC010_BA02), fd(0xBA04)), (Some(0), Some(0), None));
    }
}
