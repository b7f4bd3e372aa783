//! The language as a table: every step, its parameters and what it is for.

use crate::names::{FALLOC_FLAGS, MEMFD_FLAGS, OPEN_FLAGS, SEALS};

/// What a parameter's value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Label of an open descriptor of the process, or a number to pass as it is.
    Fd,
    /// A label that the step gives to the descriptor it opens.
    NewFd,
    /// Label of a mapping of the process.
    Map,
    /// A label that the step gives to the mapping it makes.
    NewMap,
    /// A process that exists.
    Process,
    /// A process that the step starts.
    NewProcess,
    /// Any text.
    Text,
    /// Bytes as hexadecimal digits.
    Hex,
    /// A whole number from the first to the last.
    Number(i128, i128),
    /// A number of bytes.
    Size,
    /// `#true` or `#false`.
    Bool,
    /// Names of bits joined by `|`.
    Flags(&'static [(&'static str, u64)]),
    /// A release.
    Release,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Names of quirks joined by `|`.
    Quirks,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it must be.
    pub kind: Kind,
    /// Whether it is written without its name, in order.
    pub positional: bool,
    /// Whether it must be given.
    pub required: bool,
    /// What it means.
    pub about: &'static str,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name in a document.
    pub name: &'static str,
    /// Whether a process does it.
    pub by_process: bool,
    /// What it does.
    pub about: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
}

const fn pos(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, positional: true, required: true, about }
}

const fn must(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, positional: false, required: true, about }
}

const fn opt(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, positional: false, required: false, about }
}

const U64: Kind = Kind::Number(0, 0xffff_ffff_ffff_ffff);
const U32: Kind = Kind::Number(0, 0xffff_ffff);
const I64: Kind = Kind::Number(-0x8000_0000_0000_0000, 0x7fff_ffff_ffff_ffff);
const FD: Param = pos("fd", Kind::Fd, "the descriptor");
const AS: Param = must("as", Kind::NewFd, "label of the new descriptor");
const TOKEN: Param = must("token", U64, "the token, any 64-bit number");
const SEED: Param = opt("seed", U32, "contents by the pattern of this seed");
const TEXT: Param = opt("text", Kind::Text, "contents as text");
const HEX: Param = opt("hex", Kind::Hex, "contents as hexadecimal digits");
const LEN: Param = opt("len", Kind::Size, "bytes");
const NAME: Param = pos("name", Kind::Text, "the session's name");
const NAME_HEX: Param = opt("hex", Kind::Hex, "the name as hexadecimal digits, instead of the text");
const CMDLINE: Param = opt("cmdline", Kind::Text, "kernel command line; default `kho=on liveupdate=on`");
const QUIRKS_ON: Param = opt("quirks-on", Kind::Quirks, "quirks switched on besides the release's");
const QUIRKS_OFF: Param = opt("quirks-off", Kind::Quirks, "quirks of the release switched off");
const PROFILES: Kind = Kind::Word(&["mainline", "next", "posted-2026", "target"]);
const PROFILE: Param = opt("profile", PROFILES, "file types beside the release's; default the machine's");
const RELEASE: Param = pos("release", Kind::Release, "the release");
const IOMMUFD: Param = pos("iommufd", Kind::Fd, "the iommufd");
const IOVA: Param = must("iova", U64, "first address for devices");
const BYTES: Param = must("len", Kind::Size, "bytes");
const NUMBER_AS: Param = must("as", Kind::NewFd, "label of its number");
const BDF: Param = pos("function", Kind::Text, "address of the PCI function, as in `01:00.0`");
const PHASES: Kind = Kind::Word(&[
    "run",
    "preserve",
    "freeze",
    "jump",
    "early-boot",
    "boot",
    "user-space",
    "retrieve",
    "reclaim",
    "finish",
]);
const FATES: Kind = Kind::Word(&["retrieved", "finished", "preserved", "lost"]);
const OUTCOMES: Kind = Kind::Word(&["handover", "cold", "luo-off", "returned", "panic"]);
const CALLBACKS: Kind =
    Kind::Word(&["can_preserve", "preserve", "freeze", "retrieve", "can_finish", "prepare"]);
const STATES: Kind = Kind::Word(&["undefined", "normal", "prepared", "frozen", "updated"]);
const EVENTS: Kind = Kind::Word(&["prepare", "freeze", "finish", "cancel"]);
const DEVICE: Param = pos("device", Kind::Fd, "the device");
const ERRNOS: Kind =
    Kind::Word(&["EIO", "EAGAIN", "EBUSY", "EINVAL", "ENOMEM", "EPERM", "ENODEV", "EOPNOTSUPP"]);
const STOPS: Kind = Kind::Word(&["refuse", "panic"]);
const ARGUMENT: Param = opt(
    "argument",
    Kind::Word(&["readonly", "unmapped"]),
    "where the argument lies; default in ordinary memory",
);
const WHENCE: Kind = Kind::Word(&["set", "cur", "end", "data", "hole"]);

macro_rules! operations {
    ($($variant:ident $name:literal $by:ident $about:literal [$($param:expr),* $(,)?];)*) => {
        /// Every operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op { $(#[doc = $about] $variant,)* }

        /// The table, in the order of [`Op`].
        pub const OPERATIONS: &[(Op, Spec)] = &[
            $((Op::$variant, Spec { name: $name, by_process: operations!(@$by), about: $about, params: &[$($param),*] }),)*
        ];
    };
    (@process) => { true };
    (@machine) => { false };
}

operations! {
    Boot "boot" machine "powers the machine on and boots a release cold" [RELEASE, CMDLINE, QUIRKS_ON, QUIRKS_OFF, PROFILE];
    ColdReset "cold-reset" machine "power off and on: memory is lost" [RELEASE, CMDLINE, QUIRKS_ON, QUIRKS_OFF, PROFILE];
    Crash "crash" machine "the kernel panics; the crash kernel boots if one is loaded, or else the machine is down" [];
    BootImage "boot-image" machine "boots a release on handover memory recorded from a real kernel"
        [pos("directory", Kind::Text, "folder with ram.zst and manifest.json, beside the scenario file"), must("release", Kind::Release, "the release"), CMDLINE, QUIRKS_ON, QUIRKS_OFF];
    RetrieveAll "retrieve-all" machine "opens the device, retrieves every session and file of the image's manifest and compares" [];
    ExpectBoot "expect-boot" machine "how the last boot must have ended"
        [pos("outcome", OUTCOMES, "the outcome"), opt("because", Kind::Text, "text that the reason must contain")];
    ExpectLedger "expect-ledger" machine "what must have become of a preserved file"
        [must("session", Kind::Text, "name of the session it was preserved in"), TOKEN, must("fate", FATES, "its fate"), opt("because", Kind::Text, "text that the cause must contain")];
    ExpectLog "expect-log" machine "text that the kernel log must contain" [pos("text", Kind::Text, "the text")];
    FailAlloc "fail-alloc" machine "in the next system call an allocation of memory fails"
        [pos("nth", U32, "which, from 1"), opt("times", U32, "how many from there on; default 1")];
    StopReboot "stop-reboot" machine "the next reboot stops inside its serialisation"
        [pos("point", U32, "where: points are counted from 0, one before each file is frozen, one before each session's record, one before all is committed"), opt("how", STOPS, "default `refuse`")];
    FailSubsystem "fail-subsystem" machine "a test subsystem of a posted design fails (`luosim-first`, before the files, and `luosim-last`, kernel parameter `luosim_test=on`)"
        [pos("name", Kind::Text, "the subsystem"), must("in", Kind::Word(&["prepare", "freeze"]), "the callback that fails"), opt("errno", ERRNOS, "what it fails with; default `EIO`"), opt("times", U32, "how often; default once")];
    Poke "poke" machine "a word of memory is another one when the next kernel starts"
        [pos("addr", U64, "physical address"), pos("value", U64, "what it is then")];
    Remember "remember" machine "notes what a failed call must leave alone: frames, preserved blocks, sessions, their files" [];
    ExpectUnchanged "expect-unchanged" machine "all of it is as it was at `remember`" [];
    ExpectSound "expect-sound" machine "every frame is accounted for and used once, and nothing in scratch is preserved" [];
    ExpectFrames "expect-frames" machine "frames in use"
        [opt("luo", U64, "records of sessions and files"), opt("data", U64, "structures of handlers"), opt("table", U64, "tables of folios"), opt("cache", U64, "file contents"),
         opt("handover", U64, "blocks of the previous kernel"), opt("preserved", U64, "preserved by the previous kernel and not restored")];
    ExpectCalls "expect-calls" machine "what handlers of test files and test objects logged in this kernel, joined by `; `" [pos("text", Kind::Text, "the whole list")];
    ExpectNumber "expect-number" machine "the live update number that this kernel was handed" [pos("number", U64, "the number")];

    Tick "tick" machine "lets time pass: each device makes so many steps" [pos("ticks", Kind::Number(0, 1 << 32), "how many")];
    SurpriseRemove "surprise-remove" machine "pulls a PCI function out while it runs" [BDF];
    PokeObject "poke-object" machine "the first word of an object that the kernel preserves (`pci`, `iommu-liveupdate`) is another one when the next kernel starts"
        [pos("name", Kind::Text, "the object"), pos("value", U64, "what it is then")];
    ExpectDevice "expect-device" machine "what a device must have done, or be"
        [BDF, opt("faults", U64, "requests that its IOMMU refused since power on"), opt("drops", U64, "steps that it could not make because bus mastering was off"),
         opt("resets", U64, "resets since power on"), opt("master", Kind::Bool, "its requests reach the bus"), opt("translated", Kind::Bool, "its IOMMU has a page table for it"),
         opt("written", U64, "bytes that it must have written at least"), opt("in", PHASES, "bytes written in this phase of the live updates so far; default since power on")];

    Open "open" process "open(2)"
        [pos("path", Kind::Text, "the path"), opt("flags", Kind::Flags(OPEN_FLAGS), "default `O_RDWR`"), opt("mode", U32, "permission bits of a new file"), AS];
    Reopen "reopen" process "opens the file behind a descriptor again, as through /proc/self/fd"
        [FD, opt("flags", Kind::Flags(OPEN_FLAGS), "default `O_RDWR`"), AS];
    Memfd "memfd-create" process "memfd_create(2)"
        [pos("name", Kind::Text, "its name"), opt("flags", Kind::Flags(MEMFD_FLAGS), "default none"), opt("huge", Kind::Bool, "prefer folios of 2 MiB"), AS];
    Pipe "pipe" process "pipe(2)" [AS, must("write", Kind::NewFd, "label of the write end")];
    Eventfd "eventfd" process "eventfd(2)" [AS];
    Epoll "epoll" process "epoll_create1(2)" [AS];
    Socketpair "socketpair" process "socketpair(2) of the Unix domain" [AS, must("peer", Kind::NewFd, "label of the other end")];
    SendFd "send-fd" process "sends a descriptor through a socket (SCM_RIGHTS)" [pos("socket", Kind::Fd, "the socket"), pos("fd", Kind::Fd, "the descriptor")];
    RecvFd "recv-fd" process "receives a descriptor" [pos("socket", Kind::Fd, "the socket"), AS];
    Close "close" process "close(2)" [FD];
    CloseInReboot "close-in-reboot" process "close(2) while the next reboot is at a point of its serialisation; kernels let it wait for the end"
        [FD, must("point", U32, "where, as in `stop-reboot`")];
    WriteInReboot "write-in-reboot" process "pwrite(2) to a memory file while the next reboot is at a point of its serialisation"
        [FD, must("at", Kind::Size, "offset"), LEN, SEED, TEXT, HEX, must("point", U32, "where, as in `stop-reboot`")];
    SeekInReboot "seek-in-reboot" process "lseek(2) of a memory file while the next reboot is at a point of its serialisation"
        [FD, must("offset", Kind::Size, "the position"), must("point", U32, "where, as in `stop-reboot`")];
    Dup "dup" process "dup(2)" [FD, AS];
    Dup2 "dup2" process "dup2(2) onto another open descriptor" [FD, pos("onto", Kind::Fd, "the descriptor that is replaced")];
    SetCloexec "set-cloexec" process "fcntl(F_SETFD)" [FD, pos("on", Kind::Bool, "whether exec closes it")];
    SetFlags "set-flags" process "fcntl(F_SETFL)" [FD, pos("flags", Kind::Flags(OPEN_FLAGS), "the status flags")];
    Nofile "nofile" process "setrlimit(RLIMIT_NOFILE)" [pos("limit", Kind::Number(0, 1 << 30), "the limit")];
    Setuid "setuid" process "setuid(2)" [pos("uid", U32, "the user")];

    Fault "fault" process "tells the handler of a test file (/dev/luosim-test, kernel parameter `luosim_test=on`) to fail"
        [FD, must("in", CALLBACKS, "the callback that fails"), opt("errno", ERRNOS, "what it fails with; default `EIO`"), opt("times", Kind::Number(0, 0xffff), "how often; default always, 0 ends it")];

    Read "read" process "read(2), or pread(2) with `at`"
        [FD, LEN, opt("at", Kind::Size, "offset; without it the position is used and moved"), SEED, TEXT, HEX, opt("result", U64, "bytes that must be read")];
    Write "write" process "write(2), or pwrite(2) with `at`"
        [FD, LEN, opt("at", Kind::Size, "offset; without it the position is used and moved"), SEED, TEXT, HEX, opt("result", U64, "bytes that must be written")];
    Fill "fill" process "writes the pattern of a seed over a range" [FD, must("seed", U32, "the seed"), opt("at", Kind::Size, "first byte; default 0"), must("len", Kind::Size, "bytes")];
    Lseek "lseek" process "lseek(2)" [FD, pos("offset", I64, "the offset"), opt("whence", WHENCE, "default `set`"), opt("result", U64, "the position it must give")];
    Ftruncate "ftruncate" process "ftruncate(2)" [FD, pos("size", Kind::Size, "the size")];
    Fallocate "fallocate" process "fallocate(2)"
        [FD, opt("mode", Kind::Flags(FALLOC_FLAGS), "default 0"), opt("at", Kind::Size, "first byte; default 0"), must("len", Kind::Size, "bytes")];
    AddSeals "add-seals" process "fcntl(F_ADD_SEALS)" [FD, pos("seals", Kind::Flags(SEALS), "the seals")];
    Fchmod "fchmod" process "fchmod(2)" [FD, pos("mode", Kind::Number(0, 0o7777), "permission bits")];
    Fchown "fchown" process "fchown(2)" [FD, pos("uid", U32, "owner"), pos("gid", U32, "group")];
    Unlink "unlink" process "unlink(2) on tmpfs" [pos("path", Kind::Text, "the path")];
    Link "link" process "link(2) on tmpfs" [pos("from", Kind::Text, "the file"), pos("to", Kind::Text, "its new name")];
    Mmap "mmap" process "mmap(2), shared"
        [FD, opt("at", Kind::Size, "offset in the file; default 0"), must("len", Kind::Size, "bytes"), opt("write", Kind::Bool, "writable; default `#true`"), must("as", Kind::NewMap, "label of the mapping")];
    Munmap "munmap" process "munmap(2) of a whole mapping" [pos("map", Kind::Map, "the mapping")];
    Store "store" process "writes through a mapping" [pos("map", Kind::Map, "the mapping"), opt("at", Kind::Size, "offset in the mapping; default 0"), SEED, LEN, TEXT, HEX];
    Load "load" process "reads through a mapping and compares" [pos("map", Kind::Map, "the mapping"), opt("at", Kind::Size, "offset in the mapping; default 0"), SEED, LEN, TEXT, HEX];
    MadviseRemove "madvise-remove" process "madvise(MADV_REMOVE)" [pos("map", Kind::Map, "the mapping"), opt("at", Kind::Size, "offset in the mapping; default 0"), must("len", Kind::Size, "bytes")];
    ExpectFile "expect-file" process "compares what can be told of a file"
        [FD, opt("size", Kind::Size, "size"), opt("pos", Kind::Size, "position"), opt("seals", Kind::Flags(SEALS), "seals"), opt("mode", U32, "file type and permission bits"),
         opt("blocks", U64, "st_blocks"), opt("nlink", U32, "names"), opt("flags", U32, "F_GETFL"), opt("cloexec", Kind::Bool, "close-on-exec"), SEED,
         opt("zero", Kind::Bool, "the range is zero"), opt("at", Kind::Size, "first byte of the range; default 0"), LEN, TEXT, HEX,
         opt("sha256", Kind::Hex, "digest of the whole contents"), opt("link", Kind::Text, "text of the link in /proc/self/fd")];

    Fork "fork" process "fork(2): the child has the labels of its parent" [pos("child", Kind::NewProcess, "name of the child")];
    Exec "exec" process "execve(2): closes what is close-on-exec" [];
    Exit "exit" process "the process ends" [];
    Kill "kill" process "kills a process" [pos("victim", Kind::Process, "the process")];

    CreateSession "create-session" process "CREATE_SESSION" [pos("device", Kind::Fd, "the device"), NAME, NAME_HEX, ARGUMENT, AS];
    RetrieveSession "retrieve-session" process "RETRIEVE_SESSION" [pos("device", Kind::Fd, "the device"), NAME, NAME_HEX, ARGUMENT, AS];
    Preserve "preserve" process "PRESERVE_FD" [pos("session", Kind::Fd, "the session"), pos("fd", Kind::Fd, "the file"), TOKEN, ARGUMENT];
    Retrieve "retrieve" process "RETRIEVE_FD" [pos("session", Kind::Fd, "the session"), TOKEN, ARGUMENT, AS];
    Finish "finish" process "FINISH" [pos("session", Kind::Fd, "the session"), opt("reserved", U32, "value of the reserved field; default 0"), ARGUMENT];
    GetName "get-name" process "GET_NAME" [pos("session", Kind::Fd, "the session"), opt("name", Kind::Text, "the name it must give")];
    FdPreserve "fd-preserve" process "FD_PRESERVE of posted-v2 and posted-v3" [DEVICE, pos("fd", Kind::Fd, "the file"), TOKEN, opt("flags", U32, "of posted-v2; default 0"), ARGUMENT];
    FdUnpreserve "fd-unpreserve" process "FD_UNPRESERVE of posted-v2 and posted-v3" [DEVICE, TOKEN, ARGUMENT];
    FdRestore "fd-restore" process "FD_RESTORE of posted-v2 and posted-v3" [DEVICE, TOKEN, ARGUMENT, AS];
    GetState "get-state" process "GET_STATE of a posted design: of the machine, or of a session"
        [pos("fd", Kind::Fd, "the device, or a session"), opt("state", STATES, "the state it must give"), ARGUMENT];
    SetEvent "set-event" process "PREPARE, CANCEL and FINISH of posted-v2, SET_EVENT of the others: of the machine, or of a session"
        [pos("fd", Kind::Fd, "the device, or a session"), pos("event", EVENTS, "the event"), ARGUMENT];
    FdState "fd-state" process "GET_FD_STATE of posted-v3"
        [DEVICE, TOKEN, opt("incoming", Kind::Bool, "a file of the previous kernel; default `#false`"), opt("state", STATES, "the state it must give"), ARGUMENT];
    FdEvent "fd-event" process "SET_FD_EVENT of posted-v3" [DEVICE, pos("event", EVENTS, "the event"), TOKEN, ARGUMENT];
    Unpreserve "unpreserve" process "SESSION_UNPRESERVE_FD of posted-v4" [pos("session", Kind::Fd, "the session"), TOKEN, opt("reserved", U32, "value of the reserved field; default 0"), ARGUMENT];
    Ioctl "ioctl" process "any ioctl with the bytes of its argument"
        [FD, pos("cmd", U32, "the command number"), opt("arg", Kind::Hex, "bytes of the argument; without it the pointer is NULL"),
         opt("readonly", Kind::Bool, "the argument lies in read-only memory"), opt("truncated", Kind::Bool, "memory ends right after the bytes"), opt("reply", Kind::Hex, "bytes that must stand there afterwards")];

    CreateVm "kvm-create-vm" process "KVM_CREATE_VM on /dev/kvm" [pos("kvm", Kind::Fd, "/dev/kvm"), opt("type", U64, "0, the default, or 1 with private memory"), AS];
    KillVm "kvm-kill-vm" process "a virtual machine dies of an error inside KVM" [pos("vm", Kind::Fd, "the virtual machine")];
    GuestMemfd "kvm-guest-memfd" process "KVM_CREATE_GUEST_MEMFD on a virtual machine"
        [pos("vm", Kind::Fd, "the virtual machine"), must("size", Kind::Size, "bytes"), opt("flags", U64, "1 can be mapped, 2 shared from the start; default both"), AS];
    GuestStore "guest-store" process "writes guest memory through a mapping" [FD, opt("at", Kind::Size, "offset; default 0"), SEED, LEN, TEXT, HEX];
    GuestLoad "guest-load" process "reads guest memory through a mapping and compares" [FD, opt("at", Kind::Size, "offset; default 0"), SEED, LEN, TEXT, HEX];
    GuestFallocate "guest-fallocate" process "fallocate(2) of guest memory" [FD, opt("at", Kind::Size, "first byte; default 0"), BYTES, opt("punch", Kind::Bool, "takes pages out")];
    GuestPoison "guest-poison" process "a page of guest memory has a hardware error" [FD, pos("page", U64, "which")];
    IoasAlloc "ioas-alloc" process "IOMMU_IOAS_ALLOC: an address space" [IOMMUFD, NUMBER_AS];
    IoasMap "ioas-map" process "IOMMU_IOAS_MAP_FILE, or without a file IOMMU_IOAS_MAP"
        [IOMMUFD, pos("ioas", Kind::Fd, "the address space"), opt("file", Kind::Fd, "the memory file"), opt("at", Kind::Size, "offset in the file; default 0"), IOVA, BYTES];
    IoasUnmap "ioas-unmap" process "IOMMU_IOAS_UNMAP of a whole mapping" [IOMMUFD, pos("ioas", Kind::Fd, "the address space"), IOVA, BYTES];
    HwptAlloc "hwpt-alloc" process "IOMMU_HWPT_ALLOC: a page table of an address space" [IOMMUFD, pos("ioas", Kind::Fd, "the address space"), NUMBER_AS];
    HwptDestroy "hwpt-destroy" process "IOMMU_DESTROY of a page table" [IOMMUFD, pos("hwpt", Kind::Fd, "the page table")];
    HwptMark "hwpt-mark" process "IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE" [IOMMUFD, pos("hwpt", Kind::Fd, "the page table"), TOKEN];
    HwptRestore "hwpt-restore" process "IOMMU_HWPT_LIVEUPDATE_RESTORE: takes a page table of the previous kernel back" [IOMMUFD, TOKEN, NUMBER_AS];
    VfioBindDriver "vfio-bind-driver" process "binds a PCI function to the driver vfio-pci; the result is the number of its node" [BDF, opt("result", U64, "the number it must get")];
    VfioGroupDevice "vfio-group-device" process "VFIO_GROUP_GET_DEVICE_FD" [pos("group", Kind::Fd, "the group"), AS];
    VfioBind "vfio-bind" process "VFIO_DEVICE_BIND_IOMMUFD" [DEVICE, pos("iommufd", Kind::Fd, "the iommufd")];
    VfioAttach "vfio-attach" process "VFIO_DEVICE_ATTACH_IOMMUFD_PT" [DEVICE, pos("object", Kind::Fd, "page table or address space")];
    VfioDetach "vfio-detach" process "VFIO_DEVICE_DETACH_IOMMUFD_PT" [DEVICE];
    VfioIrqs "vfio-irqs" process "VFIO_DEVICE_SET_IRQS: message interrupts" [DEVICE, pos("on", Kind::Bool, "on or off")];
    VfioPower "vfio-power" process "power state" [DEVICE, pos("state", Kind::Number(0, 3), "0 for D0, 3 for D3")];
    VfioMaster "vfio-master" process "bus mastering" [DEVICE, pos("on", Kind::Bool, "on or off")];
    VfioRead "vfio-read" process "reads a register of a device" [DEVICE, pos("offset", Kind::Number(0, 4095), "the register"), opt("width", Kind::Number(4, 8), "4 bytes, the default, or 8"), opt("result", U64, "what it must hold")];
    VfioWrite "vfio-write" process "writes a register of a device" [DEVICE, pos("offset", Kind::Number(0, 4095), "the register"), pos("value", U64, "the value"), opt("width", Kind::Number(4, 8), "4 bytes, the default, or 8")];
    DmaStart "dma-start" process "the driver of the guest starts a device: rings in the first two pages of guest memory, then stamps written to the pages behind them, again and again"
        [DEVICE, pos("ram", Kind::Fd, "memory file that is the guest's memory"), IOVA, opt("pages", Kind::Number(1, 100), "pages that are written; default 8"), opt("once", Kind::Bool, "written once, not again and again"), opt("interrupts", Kind::Bool, "the device raises an interrupt at each completion")];
    DmaCheck "dma-check" process "the driver of the guest looks through its memory: every stamp whose completion it sees must be there, in order"
        [pos("ram", Kind::Fd, "the guest's memory"), BDF, opt("completions", U64, "new completions there must be at least; default 1")];

    KexecLoad "kexec-load" process "kexec_file_load(2)" [RELEASE, CMDLINE, QUIRKS_ON, QUIRKS_OFF, PROFILE, opt("old", Kind::Bool, "by kexec_load(2), which passes no handover on"),
         opt("preserve-context", Kind::Bool, "by kexec_load(2) with KEXEC_PRESERVE_CONTEXT: the reboot comes back"), opt("crash", Kind::Bool, "as the crash kernel, which a `crash` boots")];
    KexecUnload "kexec-unload" process "unloads the image" [];
    KhoFinalize "kho-finalize" process "writes to KHO's finalize file (6.16 to 7.0)" [opt("value", U64, "default 1")];
    RebootKexec "reboot-kexec" process "reboot(LINUX_REBOOT_CMD_KEXEC)" [opt("returns", Kind::Bool, "the image preserves the context: the call comes back and this kernel goes on")];
}

impl Op {
    /// The operation's row.
    #[must_use]
    pub fn spec(self) -> &'static Spec {
        let row = &OPERATIONS[self as usize];
        debug_assert!(row.0 == self, "the table is in the order of the enum");
        &row.1
    }

    /// The operation with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        OPERATIONS.iter().find(|(_, spec)| spec.name == name).map(|(op, _)| *op)
    }

    /// Whether the process or its kernel is gone afterwards, with all labels.
    #[must_use]
    pub fn ends_kernel(self) -> bool {
        matches!(self, Self::Boot | Self::ColdReset | Self::Crash | Self::BootImage | Self::RebootKexec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_names_are_unique() {
        for (op, spec) in OPERATIONS {
            assert_eq!(op.spec().name, spec.name);
            assert_eq!(Op::from_name(spec.name), Some(*op));
            let names: Vec<&str> = spec.params.iter().map(|param| param.name).collect();
            let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{}", spec.name);
        }
    }
}
