//! What a program did, decoded: the lines of `--trace` and the steps of `--record`.

use std::fmt;

use luosim_abi::Refusal;
use luosim_abi::posted::{Event, State};

/// Most bytes of an argument that are kept.
pub const LONGEST: usize = 8192;

/// What a descriptor is that was to be preserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A memory file, as it is now.
    Memory {
        /// Number of the model's file.
        inode: u64,
        /// Name.
        name: String,
        /// Bytes.
        size: u64,
        /// Seals.
        seals: u32,
        /// Position of the description.
        position: u64,
    },
    /// Something that no handler takes.
    Foreign,
    /// Not open, or not usable.
    Bad,
}

/// What a command is given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// This descriptor of the device.
    Device(i32),
    /// This descriptor of the session with this name.
    Session(i32, Vec<u8>),
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(fd) => write!(f, "{fd}"),
            Self::Session(fd, name) => write!(f, "{fd} \"{}\"", name.escape_ascii()),
        }
    }
}

/// A change of a memory file's size, layout or seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `ftruncate`, `truncate`.
    Size(i64),
    /// `fallocate`.
    Layout {
        /// Mode bits.
        mode: u32,
        /// First byte.
        at: i64,
        /// Bytes.
        len: i64,
    },
    /// `F_ADD_SEALS`.
    Seals(u32),
    /// A write that passes the end.
    Write {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
    },
}

/// One served call, or something that followed from what programs did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `open` of the device.
    OpenDevice {
        /// `O_*` flags.
        flags: u32,
    },
    /// CREATE_SESSION.
    CreateSession {
        /// Descriptor of the device.
        device: i32,
        /// The name, up to its NUL.
        name: Vec<u8>,
    },
    /// RETRIEVE_SESSION.
    RetrieveSession {
        /// Descriptor of the device.
        device: i32,
        /// The name, up to its NUL.
        name: Vec<u8>,
    },
    /// PRESERVE_FD; FD_PRESERVE of a posted design.
    PreserveFd {
        /// A session; the device in designs without.
        on: On,
        /// Name of the command.
        command: &'static str,
        /// The descriptor to preserve.
        fd: i32,
        /// The token.
        token: u64,
        /// Flags, where the command has any.
        flags: u32,
        /// What the descriptor was found to be.
        file: Subject,
    },
    /// RETRIEVE_FD; FD_RESTORE of a posted design.
    RetrieveFd {
        /// A session; the device in designs without.
        on: On,
        /// Name of the command.
        command: &'static str,
        /// The token.
        token: u64,
    },
    /// FD_UNPRESERVE of a posted design.
    UnpreserveFd {
        /// A session, or the device.
        on: On,
        /// Name of the command.
        command: &'static str,
        /// The token.
        token: u64,
        /// The reserved field, where the command has one.
        reserved: u32,
    },
    /// GET_STATE of a posted design.
    GetState {
        /// A session, or the device.
        on: On,
        /// Name of the command.
        command: &'static str,
        /// What it was told.
        state: Option<State>,
    },
    /// SET_EVENT of a posted design, or the command that is one event.
    SetEvent {
        /// A session, or the device.
        on: On,
        /// Name of the command.
        command: &'static str,
        /// The event.
        event: Event,
    },
    /// GET_FD_STATE of a posted design.
    GetFdState {
        /// Descriptor of the device.
        device: i32,
        /// The token.
        token: u64,
        /// Whether it is one of the previous kernel's.
        incoming: bool,
        /// What it was told.
        state: Option<State>,
    },
    /// SET_FD_EVENT of a posted design.
    SetFdEvent {
        /// Descriptor of the device.
        device: i32,
        /// The token.
        token: u64,
        /// The event.
        event: Event,
    },
    /// FINISH.
    Finish {
        /// Descriptor of the session.
        session: i32,
        /// Name of the session.
        name: Vec<u8>,
        /// The reserved field.
        reserved: u32,
    },
    /// GET_NAME.
    GetName {
        /// Descriptor of the session.
        session: i32,
        /// Name of the session.
        name: Vec<u8>,
    },
    /// Another command on one of our descriptors, or one of ours with an unreadable argument.
    Ioctl {
        /// The descriptor.
        fd: i32,
        /// What it is.
        what: &'static str,
        /// The command.
        code: u32,
        /// The argument's address.
        arg: u64,
        /// As much of the argument as could be read, up to the size it says and [`LONGEST`].
        argument: Vec<u8>,
        /// Whether the argument says that it is longer.
        cut: bool,
    },
    /// A change of a memory file that a session holds.
    Frozen {
        /// The call, `ftruncate(5, 8192)`.
        call: String,
        /// Number of the model's file, if a session holds it.
        inode: Option<u64>,
        /// What was asked.
        change: Change,
    },
    /// The last copy of a session's descriptor was closed.
    SessionClosed {
        /// Name of the session.
        name: Vec<u8>,
    },
    /// The last copy of the device's descriptor was closed.
    DeviceClosed,
    /// An image was loaded or unloaded.
    LoadImage {
        /// `kexec_load`, which passes nothing on.
        old: bool,
        /// The command line that was loaded; `None`: the image was unloaded.
        cmdline: Option<String>,
    },
    /// `reboot`.
    Reboot {
        /// The command, in words.
        command: &'static str,
    },
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |name: &[u8]| name.escape_ascii().to_string();
        match self {
            Self::OpenDevice { flags } => write!(f, "open(\"/dev/liveupdate\", {})", flags_text(*flags)),
            Self::CreateSession { device, name } => {
                write!(f, "ioctl({device}, CREATE_SESSION, \"{}\")", text(name))
            }
            Self::RetrieveSession { device, name } => {
                write!(f, "ioctl({device}, RETRIEVE_SESSION, \"{}\")", text(name))
            }
            Self::PreserveFd { on, command, fd, token, flags, .. } => {
                write!(f, "ioctl({on}, {command}, fd={fd}, token={token:#x}{})", unless_0("flags", *flags))
            }
            Self::RetrieveFd { on, command, token } => write!(f, "ioctl({on}, {command}, token={token:#x})"),
            Self::UnpreserveFd { on, command, token, reserved } => {
                write!(f, "ioctl({on}, {command}, token={token:#x}{})", unless_0("reserved", *reserved))
            }
            Self::GetState { on, command, state } => {
                write!(f, "ioctl({on}, {command}{})", told(*state))
            }
            // The command of the second design is the event.
            Self::SetEvent { on, command, event } if !command.ends_with("EVENT") => {
                debug_assert_eq!(command.to_lowercase(), event.name());
                write!(f, "ioctl({on}, {command})")
            }
            Self::SetEvent { on, command, event } => write!(f, "ioctl({on}, {command}, {})", event.name()),
            Self::GetFdState { device, token, incoming, state } => {
                let whose = if *incoming { ", incoming" } else { "" };
                write!(f, "ioctl({device}, GET_FD_STATE, token={token:#x}{whose}{})", told(*state))
            }
            Self::SetFdEvent { device, token, event } => {
                write!(f, "ioctl({device}, SET_FD_EVENT, {}, token={token:#x})", event.name())
            }
            Self::Finish { session, name, reserved: 0 } => {
                write!(f, "ioctl({session} \"{}\", FINISH)", text(name))
            }
            Self::Finish { session, name, reserved } => {
                write!(f, "ioctl({session} \"{}\", FINISH, reserved={reserved:#x})", text(name))
            }
            Self::GetName { session, name } => write!(f, "ioctl({session} \"{}\", GET_NAME)", text(name)),
            Self::Ioctl { fd, what, code, arg, .. } => write!(f, "ioctl({fd} <{what}>, {code:#x}, {arg:#x})"),
            Self::Frozen { call, .. } => f.write_str(call),
            Self::SessionClosed { name } => write!(f, "last close of session \"{}\"", text(name)),
            Self::DeviceClosed => f.write_str("last close of /dev/liveupdate"),
            Self::LoadImage { old: false, cmdline: Some(cmdline) } => {
                write!(f, "kexec_file_load(\"{}\")", cmdline.escape_default())
            }
            Self::LoadImage { old: true, cmdline: Some(_) } => f.write_str("kexec_load()"),
            Self::LoadImage { cmdline: None, .. } => f.write_str("kexec unload"),
            Self::Reboot { command } => write!(f, "reboot({command})"),
        }
    }
}

impl Deed {
    /// Adds the state that came back.
    pub(crate) fn tell(&mut self, told: Option<State>) {
        if let Self::GetState { state, .. } | Self::GetFdState { state, .. } = self {
            *state = told;
        }
    }
}

/// A member that is not as usual.
fn unless_0(name: &str, value: u32) -> String {
    if value == 0 { String::new() } else { format!(", {name}={value:#x}") }
}

/// A state that came back.
fn told(state: Option<State>) -> String {
    state.map(|state| format!(" -> {}", state.name())).unwrap_or_default()
}

fn flags_text(flags: u32) -> String {
    let mode = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
    let mut text = String::from(mode[usize::try_from(flags & 3).expect("below 4")]);
    for (bit, name) in [(0o4000, "O_NONBLOCK"), (0o2000, "O_APPEND"), (0o2_000_000, "O_CLOEXEC")] {
        if flags & bit != 0 {
            text.push('|');
            text.push_str(name);
        }
    }
    text
}

/// How a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With a value: a descriptor, a count, 0.
    Value(i64),
    /// With an error, for a reason.
    Refused(Refusal),
    /// Not at all: it followed from something else, or the caller is gone.
    None,
}

/// A served call and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Number of the kernel, from 1.
    pub generation: u32,
    /// Process number, as the program sees it.
    pub pid: u32,
    /// User of the process; 0 also where users mean nothing.
    pub uid: u32,
    /// Name of the program.
    pub program: String,
    /// What it did.
    pub deed: Deed,
    /// What it was answered.
    pub answer: Answer,
    /// Number of the description of the device that it is about, or that it gave; never used again in a run, and no
    /// session's.
    pub device: Option<u32>,
    /// Number of the session's descriptor that it is about, or that it gave; never used again in a run.
    pub session: Option<u32>,
    /// Number of the model's file that it gave.
    pub inode: Option<u64>,
}
