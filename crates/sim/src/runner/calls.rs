//! System calls of a scenario, each as one call of the machine.

use luosim_abi::{Errno, KResult};
use luosim_files::FileKind;
use luosim_files::shmem::{Seals, Whence};
use luosim_files::test_file::{Callback, Fault};
use luosim_machine::faults::{Argument, Intrusion};
use luosim_machine::process::Pid;
use luosim_machine::{ImageKind, address_space::Protection};
use luosim_scenario::{Call, Op};

use super::contents::{CHUNK, Contents};
use super::{Answer, Runner, missing};

const O_RDWR: u32 = 2;

pub(super) fn u32_of(call: &Call, name: &str, default: u32) -> u32 {
    call.u64(name).and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
}

fn i64_of(call: &Call, name: &str) -> i64 {
    call.number(name).and_then(|value| i64::try_from(value).ok()).unwrap_or(0)
}

pub(super) fn flag(call: &Call, name: &str, default: bool) -> bool {
    call.number(name).map_or(default, |value| value != 0)
}

fn done(count: usize) -> i64 {
    i64::try_from(count).expect("a length fits in 63 bits")
}

/// A session name as the call gives it: bytes, or text.
fn name_of(call: &Call) -> Vec<u8> {
    call.bytes("hex").map_or_else(|| call.text("name").unwrap_or("").as_bytes().to_vec(), <[u8]>::to_vec)
}

fn callback(call: &Call) -> Callback {
    let name = call.text("in").unwrap_or("");
    Callback::from_name(name).expect("checked with the document")
}

/// The fault of a call; without a count it stays for ever.
fn fault(call: &Call) -> Fault {
    let name = call.text("errno").unwrap_or("EIO");
    let errno = Errno::ALL.iter().find(|errno| errno.name() == name).expect("checked with the document");
    let times = call.u64("times").and_then(|times| u16::try_from(times).ok()).unwrap_or(u16::MAX);
    Fault { errno: *errno, times }
}

impl Runner<'_> {
    pub(super) fn perform(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        self.place_argument(call);
        match call.op {
            Op::Open
            | Op::Reopen
            | Op::Memfd
            | Op::Pipe
            | Op::Eventfd
            | Op::Epoll
            | Op::Socketpair
            | Op::RecvFd
            | Op::Dup
            | Op::CreateSession
            | Op::RetrieveSession
            | Op::Retrieve
            | Op::FdRestore => self.opening(process, pid, call),
            Op::Read | Op::Write | Op::Fill | Op::Lseek | Op::Ftruncate | Op::Fallocate => {
                self.moving(process, pid, call)
            }
            Op::Mmap | Op::Munmap | Op::Store | Op::Load | Op::MadviseRemove => {
                self.mapping(process, pid, call)
            }
            Op::Fork | Op::Exec | Op::Exit | Op::Kill => self.life(process, pid, call),
            Op::Preserve | Op::Finish | Op::GetName | Op::Ioctl => self.orchestrator(process, pid, call),
            Op::FdPreserve
            | Op::FdUnpreserve
            | Op::GetState
            | Op::SetEvent
            | Op::FdState
            | Op::FdEvent
            | Op::Unpreserve => self.posted(process, pid, call),
            Op::KexecLoad | Op::KexecUnload | Op::KhoFinalize => self.image(pid, call),
            Op::CreateVm
            | Op::KillVm
            | Op::GuestMemfd
            | Op::GuestStore
            | Op::GuestLoad
            | Op::GuestFallocate
            | Op::GuestPoison => self.kvm(process, pid, call),
            Op::IoasAlloc
            | Op::IoasMap
            | Op::IoasUnmap
            | Op::HwptAlloc
            | Op::HwptDestroy
            | Op::HwptMark
            | Op::HwptRestore => self.iommufd(process, pid, call),
            Op::VfioBindDriver
            | Op::VfioGroupDevice
            | Op::VfioBind
            | Op::VfioAttach
            | Op::VfioDetach
            | Op::VfioIrqs
            | Op::VfioPower
            | Op::VfioMaster
            | Op::VfioRead
            | Op::VfioWrite => self.vfio(process, pid, call),
            Op::DmaStart | Op::DmaCheck => self.dma(process, pid, call),
            _ => self.attributes(process, pid, call),
        }
    }

    fn place_argument(&mut self, call: &Call) {
        let place = match call.text("argument") {
            Some("readonly") => Argument::ReadOnly,
            Some("unmapped") => Argument::Unmapped,
            _ => return,
        };
        self.on().place_argument(place);
    }

    fn opening(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let fd = self.fd(process, call, "fd");
        let session = self.fd(process, call, "session");
        let device = self.fd(process, call, "device");
        let socket = self.fd(process, call, "socket");
        let open_flags = u32_of(call, "flags", O_RDWR);
        let machine = self.on();
        let new = match call.op {
            Op::Open => {
                machine.open(pid, call.text("path").unwrap_or(""), open_flags, u32_of(call, "mode", 0o600))
            }
            Op::Reopen => machine.reopen(pid, fd, open_flags),
            Op::Memfd => {
                let (name, huge) = (call.text("name").unwrap_or(""), flag(call, "huge", false));
                machine.memfd_create(pid, name, u32_of(call, "flags", 0), huge)
            }
            Op::Eventfd => machine.open_kind(pid, FileKind::EventFd),
            Op::Epoll => machine.open_kind(pid, FileKind::Epoll),
            Op::Dup => machine.dup(pid, fd),
            Op::CreateSession => machine.create_session(pid, device, &name_of(call)),
            Op::RetrieveSession => machine.retrieve_session(pid, device, &name_of(call)),
            Op::FdRestore => machine.fd_restore(pid, device, call.u64("token").unwrap_or(0)),
            Op::Retrieve => machine.retrieve_fd(pid, session, call.u64("token").unwrap_or(0)),
            Op::RecvFd => machine.receive_fds(pid, socket).map(|fds| fds.first().copied().unwrap_or(-1)),
            Op::Pipe => return self.pair(process, pid, call, "write"),
            _ => return self.pair(process, pid, call, "peer"),
        }?;
        self.label(process, call, "as", new);
        Ok(i64::from(new))
    }

    fn pair(&mut self, process: &str, pid: Pid, call: &Call, other: &str) -> Answer {
        let machine = self.on();
        let (one, two) = if call.op == Op::Pipe { machine.pipe(pid)? } else { machine.socketpair(pid)? };
        self.label(process, call, "as", one);
        self.label(process, call, other, two);
        Ok(0)
    }

    fn moving(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let fd = self.fd(process, call, "fd");
        match call.op {
            Op::Read => self.read(pid, fd, call),
            Op::Write => self.write(pid, fd, call),
            Op::Fill => self.fill(pid, fd, call),
            Op::Lseek => {
                let whence = match call.text("whence").unwrap_or("set") {
                    "cur" => Whence::Cur,
                    "end" => Whence::End,
                    "data" => Whence::Data,
                    "hole" => Whence::Hole,
                    _ => Whence::Set,
                };
                let at = self.on().lseek(pid, fd, i64_of(call, "offset"), whence)?;
                Ok(i64::try_from(at).expect("positions fit in 63 bits"))
            }
            Op::Ftruncate => self.on().ftruncate(pid, fd, i64_of(call, "size")).map(|()| 0),
            _ => {
                let (at, len) = (i64_of(call, "at"), i64_of(call, "len"));
                self.on().fallocate(pid, fd, u32_of(call, "mode", 0), at, len).map(|()| 0)
            }
        }
    }

    fn read(&mut self, pid: Pid, fd: i32, call: &Call) -> Answer {
        let expected = Contents::of(call, None);
        let len =
            call.u64("len").or(expected.as_ref().map(Contents::len)).ok_or_else(|| missing(call, "len"))?;
        let mut buf = vec![0; usize::try_from(len.min(1 << 30)).expect("at most a gibibyte")];
        let at = call.u64("at");
        let got = match at {
            Some(at) => self.on().pread(pid, fd, &mut buf, at)?,
            None => self.on().read(pid, fd, &mut buf)?,
        };
        buf.truncate(got);
        if let Some(expected) = expected {
            let start = match at {
                Some(at) => at,
                None => {
                    let here = self.on().lseek(pid, fd, 0, Whence::Cur)?;
                    here - u64::try_from(got).expect("a length")
                }
            };
            let want_len = usize::try_from(expected.len()).unwrap_or(usize::MAX).min(buf.len());
            let mut want = vec![0; want_len];
            expected.fill(0, start, &mut want);
            if want != buf {
                self.fail(call, format!("`read` did not give {}", expected.text()));
            }
        }
        Ok(done(got))
    }

    fn write(&mut self, pid: Pid, fd: i32, call: &Call) -> Answer {
        let contents = Contents::of(call, None).ok_or_else(|| missing(call, "text"))?;
        let at = call.u64("at");
        let start = match at {
            Some(at) => at,
            None => self.on().lseek(pid, fd, 0, Whence::Cur).unwrap_or(0),
        };
        let bytes = contents.bytes(start);
        let written = match at {
            Some(at) => self.on().pwrite(pid, fd, &bytes, at)?,
            None => self.on().write(pid, fd, &bytes)?,
        };
        Ok(done(written))
    }

    fn fill(&mut self, pid: Pid, fd: i32, call: &Call) -> Answer {
        let contents = Contents::of(call, None).ok_or_else(|| missing(call, "seed"))?;
        let start = call.u64("at").unwrap_or(0);
        let mut at = 0;
        let mut buf = vec![0; CHUNK];
        while at < contents.len() {
            let step = usize::try_from((contents.len() - at).min(64 << 10)).expect("at most a chunk");
            contents.fill(at, start + at, &mut buf[..step]);
            let written = self.on().pwrite(pid, fd, &buf[..step], start + at)?;
            at += u64::try_from(written).expect("a length");
            if written < step {
                break;
            }
        }
        Ok(i64::try_from(at).expect("sizes fit in 63 bits"))
    }

    fn mapping(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let at = call.u64("at").unwrap_or(0);
        let len = call.u64("len").unwrap_or(0);
        if call.op == Op::Mmap {
            let fd = self.fd(process, call, "fd");
            let map = self.on().mmap_shared(pid, fd, at, len, flag(call, "write", true))?;
            if let Some(label) = call.text("as") {
                self.labels.entry(process.to_owned()).or_default().maps.insert(label.to_owned(), map);
            }
            return Ok(0);
        }
        let map = self.map(process, call);
        match call.op {
            Op::Munmap => self.on().munmap(pid, map)?,
            Op::MadviseRemove => self.on().madvise_remove(pid, map, at, len)?,
            _ => {
                let contents = Contents::of(call, None).ok_or_else(|| missing(call, "text"))?;
                let mut bytes =
                    vec![0; usize::try_from(contents.len().min(1 << 30)).expect("at most a gibibyte")];
                contents.fill(0, at, &mut bytes);
                if call.op == Op::Store {
                    self.on().store(pid, map, at, &bytes)?;
                } else {
                    let mut found = vec![0; bytes.len()];
                    self.on().load(pid, map, at, &mut found)?;
                    if found != bytes {
                        self.fail(call, format!("the mapping does not show {}", contents.text()));
                    }
                }
            }
        }
        Ok(0)
    }

    fn life(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        match call.op {
            Op::Fork => {
                let child = call.text("child").unwrap_or("");
                let new = self.on().fork(pid, child)?;
                let labels = self.labels.get(process).cloned().unwrap_or_default();
                self.labels.insert(child.to_owned(), labels);
                self.pids.insert(child.to_owned(), new);
                return Ok(i64::from(new.0));
            }
            Op::Exec => {
                self.on().exec(pid, process)?;
                if let Some(labels) = self.labels.get_mut(process) {
                    labels.maps.clear();
                }
            }
            Op::Exit => self.end(process, pid)?,
            _ => {
                let victim = call.text("victim").unwrap_or("").to_owned();
                let none = || Errno::ESRCH.because(format!("process `{victim}` is not running"));
                let pid = *self.pids.get(&victim).ok_or_else(none)?;
                self.end(&victim, pid)?;
            }
        }
        Ok(0)
    }

    fn end(&mut self, process: &str, pid: Pid) -> KResult<()> {
        self.on().exit(pid)?;
        self.pids.remove(process);
        self.labels.remove(process);
        Ok(())
    }

    fn orchestrator(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let session = self.fd(process, call, "session");
        let fd = self.fd(process, call, "fd");
        match call.op {
            Op::Preserve => self.on().preserve_fd(pid, session, fd, call.u64("token").unwrap_or(0))?,
            Op::Finish => self.on().finish(pid, session, u32_of(call, "reserved", 0))?,
            Op::GetName => {
                let name = self.on().get_name(pid, session)?;
                if let Some(want) = call.text("name").filter(|want| want.as_bytes() != name) {
                    let found = String::from_utf8_lossy(&name).into_owned();
                    self.fail(call, format!("the session is named {found:?}, expected {want:?}"));
                }
            }
            _ => self.raw_ioctl(pid, fd, call)?,
        }
        Ok(0)
    }

    /// An ioctl whose argument lies in memory of its own: at the end of a page if `truncated`.
    fn raw_ioctl(&mut self, pid: Pid, fd: i32, call: &Call) -> KResult<()> {
        let code = u32_of(call, "cmd", 0);
        let Some(bytes) = call.bytes("arg") else { return self.on().ioctl(pid, fd, code, 0) };
        let bytes = bytes.to_vec();
        let len = u64::try_from(bytes.len()).expect("a document is small");
        let memory = self.on().process_memory(pid)?;
        let base = memory.map(len.max(4096));
        let room = len.max(1).next_multiple_of(4096).max(4096);
        let addr = if flag(call, "truncated", false) { base + room - len } else { base };
        memory.write(addr, &bytes)?;
        if flag(call, "readonly", false) {
            memory.protect(base, room, Protection::ReadOnly);
        }
        let answer = self.on().ioctl(pid, fd, code, addr);
        let mut after = vec![0; bytes.len()];
        let memory = self.on().process_memory(pid)?;
        memory.read(addr, &mut after)?;
        memory.unmap(base, room);
        if let Some(want) = call.bytes("reply").filter(|want| !after.starts_with(want)) {
            let (found, want) = (crate::golden::hex(&after), crate::golden::hex(want));
            self.fail(call, format!("the argument holds {found} afterwards, expected {want}"));
        }
        answer
    }

    fn image(&mut self, pid: Pid, call: &Call) -> Answer {
        match call.op {
            Op::KexecLoad => {
                let (release, options) = self.boot_options(call);
                self.on().load_image(pid, release, options, image_kind(call))?;
            }
            Op::KexecUnload => self.on().unload_image(pid)?,
            _ => self.on().kho_finalize(call.u64("value").unwrap_or(1))?,
        }
        Ok(0)
    }

    fn attributes(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let fd = self.fd(process, call, "fd");
        let onto = self.fd(process, call, "onto");
        let socket = self.fd(process, call, "socket");
        let machine = self.on();
        match call.op {
            Op::CloseInReboot | Op::WriteInReboot | Op::SeekInReboot => {
                let intrusion = intrusion(call).ok_or_else(|| missing(call, "text"))?;
                machine.intrude_in_reboot(pid, fd, u32_of(call, "point", 0), intrusion);
                return Ok(0);
            }
            Op::Fault => machine.set_fault(pid, fd, callback(call), fault(call))?,
            Op::Close => machine.close(pid, fd)?,
            Op::Dup2 => return machine.dup2(pid, fd, onto).map(i64::from),
            Op::SendFd => machine.send_fds(pid, socket, &[fd])?,
            Op::SetCloexec => machine.set_cloexec(pid, fd, flag(call, "on", true))?,
            Op::SetFlags => machine.set_status(pid, fd, u32_of(call, "flags", 0))?,
            Op::Nofile => {
                machine.set_nofile(pid, usize::try_from(call.u64("limit").unwrap_or(0)).unwrap_or(0))?;
            }
            Op::Setuid => machine.set_uid(pid, u32_of(call, "uid", 0))?,
            Op::AddSeals => machine.add_seals(pid, fd, Seals(u32_of(call, "seals", 0)))?,
            Op::Fchmod => machine.fchmod(pid, fd, u32_of(call, "mode", 0))?,
            Op::Fchown => machine.fchown(pid, fd, u32_of(call, "uid", 0), u32_of(call, "gid", 0))?,
            Op::Unlink => machine.unlink(pid, call.text("path").unwrap_or(""))?,
            Op::Link => machine.link(pid, call.text("from").unwrap_or(""), call.text("to").unwrap_or(""))?,
            op => unreachable!("`{}` is not a system call", op.spec().name),
        }
        if call.op == Op::Close
            && let Some(label) = call.text("fd")
            && let Some(labels) = self.labels.get_mut(process)
        {
            labels.fds.remove(label);
        }
        Ok(0)
    }
}

/// What somebody does while a reboot serialises; none without contents to write.
fn intrusion(call: &Call) -> Option<Intrusion> {
    Some(match call.op {
        Op::WriteInReboot => {
            let (contents, at) = (Contents::of(call, None)?, call.u64("at").unwrap_or(0));
            Intrusion::Write(at, contents.bytes(at))
        }
        Op::SeekInReboot => Intrusion::Seek(call.u64("offset").unwrap_or(0)),
        _ => Intrusion::Close,
    })
}

fn image_kind(call: &Call) -> ImageKind {
    let kinds = [
        ("crash", ImageKind::Crash),
        ("preserve-context", ImageKind::PreserveContext),
        ("old", ImageKind::Old),
    ];
    let named = kinds.iter().find(|(name, _)| flag(call, name, false));
    named.map_or(ImageKind::File, |(_, kind)| *kind)
}
