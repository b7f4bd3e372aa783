//! What a program did, decoded: the lines of `--trace` and the steps of `--record`.

use std::fmt;

use luosim_abi::Refusal;

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
    /// PRESERVE_FD.
    PreserveFd {
        /// Descriptor of the session.
        session: i32,
        /// Name of the session.
        name: Vec<u8>,
        /// The descriptor to preserve.
        fd: i32,
        /// The token.
        token: u64,
        /// What the descriptor was found to be.
        file: Subject,
    },
    /// RETRIEVE_FD.
    RetrieveFd {
        /// Descriptor of the session.
        session: i32,
        /// Name of the session.
        name: Vec<u8>,
        /// The token.
        token: u64,
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
            Self::PreserveFd { session, name, fd, token, .. } => {
                write!(f, "ioctl({session} \"{}\", PRESERVE_FD, fd={fd}, token={token:#x})", text(name))
            }
            Self::RetrieveFd { session, name, token } => {
                write!(f, "ioctl({session} \"{}\", RETRIEVE_FD, token={token:#x})", text(name))
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
    /// Number of the session's descriptor that it is about, or that it gave; never used again in a run.
    pub session: Option<u32>,
    /// Number of the model's file that it gave.
    pub inode: Option<u64>,
}
