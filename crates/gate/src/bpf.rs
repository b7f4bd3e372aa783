//! The filter that decides which system calls of a program are brought before the gate.
//!
//! Classic BPF on `struct seccomp_data`: it sees numbers and argument registers, never memory, so a path cannot be
//! looked at. What is hot in ordinary programs must not be notified: an open is, if it asks for writing without
//! creating, or carries no flag at all (a C program's `open(path, O_RDONLY)`); `readlink` is not, where glibc's
//! `realpath` makes it (its buffer has 1023 bytes); writes to standard output are not; ioctls of types that are
//! made in tight loops are not, nor is `isatty` of standard descriptors. Everything else runs natively and costs at
//! most a short walk through this filter.
//!
//! Not a sandbox: whatever is not served is allowed.

use crate::calls::{I386, X86_64};

const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const JSET_K: u16 = 0x45;
const RET_K: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;

const NR: u32 = 0;
const ARCH: u32 = 4;
/// Low half of argument `n`.
const fn arg(n: u32) -> u32 {
    16 + 8 * n
}

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

const O_ACCMODE: u32 = 0o3;
const O_CREAT: u32 = 0o100;
const O_NOCTTY: u32 = 0o400;
const O_DIRECTORY: u32 = 0o200_000;
const O_CLOEXEC: u32 = 0o2_000_000;
const O_PATH: u32 = 0o10_000_000;

/// Types of ioctl that programs make in tight loops on files that are not ours.
const HOT_IOCTL_TYPES: [u32; 8] = [
    0xAE, // KVM
    0xAF, // vhost
    0x3B, // VFIO, iommufd
    0x64, // DRM
    0x41, // ALSA
    0x55, // USB, ALSA
    0x89, // sockets
    0x94, // btrfs
];
const TCGETS: u32 = 0x5401;
const F_ADD_SEALS: u32 = 1033;
/// glibc's `realpath` reads links into a buffer of this size.
const REALPATH_BUFFER: u32 = 1023;

/// One instruction as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Which optional groups of calls are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Every open, also for reading with other flags: exact, and slow for programs that open many files.
    pub all_opens: bool,
    /// Writes to descriptors above 2, so that a write cannot grow a preserved memfd.
    pub writes: bool,
    /// Texts of links in `/proc/PID/fd`.
    pub links: bool,
}

impl Default for Served {
    fn default() -> Self {
        Self { all_opens: false, writes: true, links: true }
    }
}

/// What to do with a call, once its number is known.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Notify,
    /// Notify opens by their flags, which are in argument `n`.
    OpenFlags(u32),
    /// Notify by the type of ioctl, and `TCGETS` by the descriptor.
    IoctlType,
    /// Notify `F_ADD_SEALS`.
    Seals,
    /// Notify if the descriptor in argument 0 is above 2.
    AboveStderr,
    /// Notify unless the buffer size in argument `n` is that of `realpath`.
    NotRealpath(u32),
}

fn stmt(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

impl Rule {
    /// Instructions that end in a return, run when the number matched.
    fn body(self, served: Served) -> Vec<Instruction> {
        let (allow, notify) = (stmt(RET_K, ALLOW), stmt(RET_K, NOTIFY));
        match self {
            Self::Notify => vec![notify],
            Self::OpenFlags(n) => open_flags(n, served),
            Self::IoctlType => {
                // `isatty` of standard input, output and error.
                let mut body = vec![stmt(LD_W_ABS, arg(1)), jump(JEQ_K, TCGETS, 0, 4)];
                body.extend([stmt(LD_W_ABS, arg(0)), jump(JGT_K, 2, 0, 1), notify, allow]);
                body.push(stmt(ALU_AND_K, 0xff00));
                for (at, hot) in (0u8..).zip(HOT_IOCTL_TYPES) {
                    let left = u8::try_from(HOT_IOCTL_TYPES.len()).expect("a short list") - at;
                    body.push(jump(JEQ_K, hot << 8, left, 0));
                }
                body.extend([notify, allow]);
                body
            }
            Self::Seals => vec![stmt(LD_W_ABS, arg(1)), jump(JEQ_K, F_ADD_SEALS, 0, 1), notify, allow],
            Self::AboveStderr => vec![stmt(LD_W_ABS, arg(0)), jump(JGT_K, 2, 0, 1), notify, allow],
            Self::NotRealpath(n) => {
                vec![stmt(LD_W_ABS, arg(n)), jump(JEQ_K, REALPATH_BUFFER, 1, 0), notify, allow]
            }
        }
    }
}

fn open_flags(n: u32, served: Served) -> Vec<Instruction> {
    let (allow, notify) = (stmt(RET_K, ALLOW), stmt(RET_K, NOTIFY));
    let quiet = O_PATH | O_DIRECTORY;
    if served.all_opens {
        return vec![stmt(LD_W_ABS, arg(n)), jump(JSET_K, quiet, 1, 0), notify, allow];
    }
    vec![
        stmt(LD_W_ABS, arg(n)),
        // Creating, or not opening at all: not ours.
        jump(JSET_K, O_CREAT | quiet, 3, 0),
        // For writing.
        jump(JSET_K, O_ACCMODE, 1, 0),
        // For reading, with the flags that loaders, compilers and libraries use.
        jump(JSET_K, O_NOCTTY | O_CLOEXEC, 1, 0),
        notify,
        allow,
    ]
}

fn rules(served: Served) -> Vec<(u32, u32, Rule)> {
    let mut rules = vec![
        (X86_64.ioctl, I386.ioctl, Rule::IoctlType),
        (X86_64.openat, I386.openat, Rule::OpenFlags(2)),
        (X86_64.open, I386.open, Rule::OpenFlags(1)),
        (X86_64.openat2, I386.openat2, Rule::Notify),
        (X86_64.fcntl, I386.fcntl, Rule::Seals),
        (X86_64.ftruncate, I386.ftruncate, Rule::Notify),
        (X86_64.truncate, I386.truncate, Rule::Notify),
        (X86_64.fallocate, I386.fallocate, Rule::Notify),
        (X86_64.reboot, I386.reboot, Rule::Notify),
        (X86_64.syslog, I386.syslog, Rule::Notify),
        (X86_64.kexec_load, I386.kexec_load, Rule::Notify),
        (X86_64.kexec_file_load, I386.kexec_file_load, Rule::Notify),
    ];
    if served.writes {
        for (x86_64, i386) in X86_64.writes().into_iter().zip(I386.writes()) {
            rules.push((x86_64, i386, Rule::AboveStderr));
        }
    }
    if served.links {
        rules.push((X86_64.readlinkat, I386.readlinkat, Rule::NotRealpath(3)));
        rules.push((X86_64.readlink, I386.readlink, Rule::NotRealpath(2)));
    }
    rules
}

/// One architecture's part: the number is searched by halves, so that no call walks along all rules. A number that
/// no rule has gets its answer without a look at arguments, which the host finds out beforehand: such calls do not
/// run the filter at all.
fn section(rules: &mut [(u32, Rule)], served: Served) -> Vec<Instruction> {
    rules.sort_by_key(|(nr, _)| *nr);
    let mut program = vec![stmt(LD_W_ABS, NR)];
    program.extend(search(rules, served));
    program
}

fn search(rules: &[(u32, Rule)], served: Served) -> Vec<Instruction> {
    if let [(nr, rule)] = rules {
        let body = rule.body(served);
        let over = u8::try_from(body.len()).expect("bodies are short");
        let mut program = vec![jump(JEQ_K, *nr, 0, over)];
        program.extend(body);
        program.push(stmt(RET_K, ALLOW));
        return program;
    }
    let (low, high) = rules.split_at(rules.len() / 2);
    let below = search(low, served);
    let over = u8::try_from(below.len()).expect("half of the rules are short");
    let mut program = vec![jump(JGE_K, high[0].0, over, 0)];
    program.extend(below);
    program.extend(search(high, served));
    program
}

/// The filter.
pub(crate) fn program(served: Served) -> Vec<Instruction> {
    let rules = rules(served);
    let mut native: Vec<(u32, Rule)> = rules.iter().map(|(nr, _, rule)| (*nr, *rule)).collect();
    let mut compat: Vec<(u32, Rule)> =
        rules.iter().filter(|(_, nr, _)| *nr != 0).map(|(_, nr, rule)| (*nr, *rule)).collect();
    let (native, compat) = (section(&mut native, served), section(&mut compat, served));
    let over = u32::try_from(native.len()).expect("the filter is short");
    let mut program = vec![stmt(LD_W_ABS, ARCH), jump(JEQ_K, AUDIT_ARCH_X86_64, 1, 0), stmt(JMP_JA, over)];
    program.extend(native);
    program.extend([jump(JEQ_K, AUDIT_ARCH_I386, 1, 0), stmt(RET_K, ALLOW)]);
    program.extend(compat);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const F_SETFL: u32 = 4;

    /// Runs the filter as the kernel does.
    fn verdict(program: &[Instruction], arch: u32, nr: u32, args: [u32; 6]) -> &'static str {
        let load = |k: u32| match k {
            NR => nr,
            ARCH => arch,
            k => args[usize::try_from((k - 16) / 8).expect("small")],
        };
        let (mut at, mut acc) = (0usize, 0u32);
        loop {
            let i = program[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LD_W_ABS => acc = load(i.k),
                ALU_AND_K => acc &= i.k,
                JMP_JA => at += usize::try_from(i.k).expect("small"),
                JEQ_K => branch(acc == i.k),
                JGT_K => branch(acc > i.k),
                JGE_K => branch(acc >= i.k),
                JSET_K => branch(acc & i.k != 0),
                RET_K => return if i.k == NOTIFY { "notify" } else { "allow" },
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    fn native(served: Served, nr: u32, args: [u32; 6]) -> &'static str {
        verdict(&program(served), AUDIT_ARCH_X86_64, nr, args)
    }

    #[test]
    fn opens_are_told_apart_by_their_flags() {
        for (flags, plain, all) in [
            (0o2, "notify", "notify"),
            (0o2 | O_CLOEXEC, "notify", "notify"),
            (0o1, "notify", "notify"),
            (0, "notify", "notify"),
            (O_CLOEXEC, "allow", "notify"),
            (O_NOCTTY, "allow", "notify"),
            (0o2 | O_CREAT, "allow", "notify"),
            (O_PATH, "allow", "allow"),
            (O_DIRECTORY | O_CLOEXEC, "allow", "allow"),
        ] {
            let args = [0, 0, flags, 0, 0, 0];
            assert_eq!(native(Served::default(), X86_64.openat, args), plain, "{flags:o}");
            let every = Served { all_opens: true, ..Served::default() };
            assert_eq!(native(every, X86_64.openat, args), all, "{flags:o}");
        }
    }

    #[test]
    fn only_what_may_be_ours_is_notified() {
        let served = Served::default();
        for (nr, args, want) in [
            (X86_64.ioctl, [3, 0xBA40, 0, 0, 0, 0], "notify"),
            (X86_64.ioctl, [3, TCGETS, 0, 0, 0, 0], "notify"),
            (X86_64.ioctl, [2, TCGETS, 0, 0, 0, 0], "allow"),
            (X86_64.ioctl, [2, TCGETS + 1, 0, 0, 0, 0], "notify"),
            (X86_64.ioctl, [2, 0xBA40, 0, 0, 0, 0], "notify"),
            (X86_64.ioctl, [3, 0xAE80, 0, 0, 0, 0], "allow"),
            (X86_64.ioctl, [3, 0xc018_9435, 0, 0, 0, 0], "allow"),
            (X86_64.fcntl, [3, F_ADD_SEALS, 8, 0, 0, 0], "notify"),
            (X86_64.fcntl, [3, F_SETFL, 8, 0, 0, 0], "allow"),
            (X86_64.write, [1, 0, 5, 0, 0, 0], "allow"),
            (X86_64.write, [3, 0, 5, 0, 0, 0], "notify"),
            (X86_64.readlink, [0, 0, REALPATH_BUFFER, 0, 0, 0], "allow"),
            (X86_64.readlink, [0, 0, 256, 0, 0, 0], "notify"),
            (X86_64.readlinkat, [0, 0, 0, 255, 0, 0], "notify"),
            (X86_64.reboot, [0; 6], "notify"),
            (0, [3, 0, 0, 0, 0, 0], "allow"),
            (u32::MAX, [3, 0, 0, 0, 0, 0], "allow"),
            (3, [3, 0, 0, 0, 0, 0], "allow"),
        ] {
            assert_eq!(native(served, nr, args), want, "call {nr} {args:x?}");
        }
        let quiet = Served { writes: false, links: false, ..served };
        assert_eq!(native(quiet, X86_64.write, [3, 0, 5, 0, 0, 0]), "allow");
        assert_eq!(native(quiet, X86_64.readlink, [0, 0, 256, 0, 0, 0]), "allow");
    }

    #[test]
    fn thirty_two_bit_programs_have_numbers_of_their_own() {
        let filter = program(Served::default());
        assert_eq!(verdict(&filter, AUDIT_ARCH_I386, I386.ioctl, [3, 0xBA00, 0, 0, 0, 0]), "notify");
        assert_eq!(verdict(&filter, AUDIT_ARCH_I386, X86_64.ioctl, [3, 0xBA00, 0, 0, 0, 0]), "allow");
        assert_eq!(verdict(&filter, 0x4000_0028, I386.ioctl, [3, 0xBA00, 0, 0, 0, 0]), "allow");
    }
}
