//! Cases of the recorded kinds that the recorded programs did not make: orders of checks, other sizes and modes,
//! descriptors that are places only, tables that are full.

use luosim_abi::Errno;
use luosim_abi::KResult;
use luosim_abi::release::ReleaseId;
use luosim_files::FileKind;
use luosim_files::shmem::{MFD_ALLOW_SEALING, Seals, Whence};
use luosim_machine::address_space::Protection;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, ImageKind, Machine};
use luosim_physmem::PhysMem;

const PG: i64 = 4096;
const RELEASES: [ReleaseId; 5] =
    [ReleaseId::V6_19, ReleaseId::V7_0, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3];
const O_PATH: u32 = 0o10_000_000;

struct World {
    m: Machine,
    p: Pid,
    device: i32,
    release: ReleaseId,
}

/// 0, or minus the error number.
fn code<T>(result: &KResult<T>) -> i32 {
    result.as_ref().map_or_else(|refusal| -refusal.errno.raw(), |_| 0)
}

fn no(errno: Errno) -> i32 {
    -errno.raw()
}

impl World {
    fn new(release: ReleaseId) -> Self {
        let mut m = Machine::new(PhysMem::anonymous(256 << 20).expect("room"));
        m.cold_reset(release, &BootOptions::default());
        let p = m.spawn("edge").expect("up");
        let device = m.open(p, "/dev/liveupdate", 2, 0).expect("free");
        Self { m, p, device, release }
    }

    fn session(&mut self, name: &[u8]) -> i32 {
        self.m.create_session(self.p, self.device, name).expect("new")
    }

    fn memfd(&mut self, size: i64) -> i32 {
        let fd = self.m.memfd_create(self.p, "m", MFD_ALLOW_SEALING, false).expect("room");
        self.m.ftruncate(self.p, fd, size).expect("empty");
        fd
    }

    fn kexec(&mut self) {
        self.m.load_image(self.p, self.release, BootOptions::default(), ImageKind::File).expect("root");
        self.m.reboot_kexec(self.p).expect("loaded");
        self.p = self.m.spawn("edge").expect("up");
        self.device = self.m.open(self.p, "/dev/liveupdate", 2, 0).expect("free");
    }
}

/// Every mode of fallocate, on a file that is frozen and on one that is not, sealed or not, wholly inside the size
/// or beyond: the mode is judged before the range, the range before the file.
#[test]
fn fallocate_judges_mode_range_and_file_in_this_order() {
    let (inval, nosup, big, perm) =
        (no(Errno::EINVAL), no(Errno::EOPNOTSUPP), no(Errno::EFBIG), no(Errno::EPERM));
    for release in RELEASES {
        for frozen in [false, true] {
            for seals in [Seals(0), Seals(2), Seals(4), Seals(8), Seals(0x10)] {
                let mut w = World::new(release);
                let session = w.session(b"s");
                let fd = w.memfd(4 * PG);
                w.m.add_seals(w.p, fd, seals).expect("unsealed");
                if frozen {
                    w.m.preserve_fd(w.p, session, fd, 1).expect("a memfd");
                }
                let writes = seals.0 & 0x18 != 0;
                let punch = if frozen || writes { perm } else { 0 };
                let inside = if frozen { perm } else { 0 };
                let beyond = if frozen || seals.0 & 4 != 0 { perm } else { 0 };
                for (mode, at, len, want) in [
                    (0, -1, PG, inval),
                    (0x100, 0, 0, inval),
                    (0x100, i64::MAX, PG, nosup),
                    (0x4, i64::MAX, PG, nosup),
                    (0x2, i64::MAX, PG, nosup),
                    (0x2 | 0x10 | 1, i64::MAX, PG, nosup),
                    (0x8 | 1, i64::MAX, PG, nosup),
                    (0x10, i64::MAX, PG, big),
                    (0x8, i64::MAX, PG, big),
                    (0, i64::MAX, PG, big),
                    (0x10, 0, PG, nosup),
                    (0x8, 0, PG, nosup),
                    (0x20, 0, PG, nosup),
                    (0x40, 0, PG, nosup),
                    (0x80, 0, PG, nosup),
                    (3, 0, PG, punch),
                    (3, 100, 50, punch),
                    (3, 64 * PG, PG, punch),
                    (0, 0, 1, inside),
                    (1, PG, 2 * PG, inside),
                    (1, 8 * PG, PG, beyond),
                    (0, 4 * PG, 1, beyond),
                ] {
                    let got = code(&w.m.fallocate(w.p, fd, mode, at, len));
                    assert_eq!(got, want, "{release:?} frozen {frozen} seals {seals} {mode:#x} {at} {len}");
                }
            }
        }
    }
}

/// A write over the end of a frozen file is cut where its window ends, whatever the sizes.
#[test]
fn a_write_over_the_end_is_cut_at_a_window() {
    for (release, window) in [(ReleaseId::V6_19, 4096u64), (ReleaseId::V7_3, 2 << 20)] {
        for size in [1, 4095, 4096, 4097, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (4 << 20) + 100] {
            let mut w = World::new(release);
            let session = w.session(b"s");
            let fd = w.memfd(i64::try_from(size).expect("small"));
            w.m.preserve_fd(w.p, session, fd, 1).expect("a memfd");
            for (at, len) in [(0, size + 1), (0, size), (size - 1, 1), (size - 1, 2), (0, size + (4 << 20))] {
                let bytes = vec![1; usize::try_from(len).expect("small")];
                // By windows: the last one that ends inside the size.
                let mut done = 0;
                while done < len {
                    let step = (window - (at + done) % window).min(len - done);
                    if at + done + step > size {
                        break;
                    }
                    done += step;
                }
                let got = w.m.pwrite(w.p, fd, &bytes, at);
                match got {
                    Ok(count) => assert_eq!(count as u64, done, "{release:?} size {size} at {at} len {len}"),
                    Err(refusal) => {
                        assert_eq!((refusal.errno, done), (Errno::EPERM, 0), "{release:?} {size} {at} {len}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_full_table_is_seen_before_anything_else_is_looked_at() {
    for release in RELEASES {
        let mut w = World::new(release);
        let session = w.session(b"s");
        let memfd = w.memfd(PG);
        w.m.close(w.p, w.device).expect("open");
        let used = usize::try_from(memfd).expect("small") + 1;
        // One number is free (the device's): only what needs two fails.
        w.m.set_nofile(w.p, used).expect("alive");
        assert_eq!(code(&w.m.pipe(w.p)), no(Errno::EMFILE));
        assert_eq!(code(&w.m.socketpair(w.p)), no(Errno::EMFILE));
        w.device = w.m.open(w.p, "/dev/liveupdate", 2, 0).expect("the number is free, and so is the device");
        for path in ["/dev/liveupdate", "/nowhere", "/dev/null"] {
            assert_eq!(code(&w.m.open(w.p, path, 2, 0)), no(Errno::EMFILE), "{path}");
        }
        assert_eq!(code(&w.m.open(w.p, "/tmp/new", 0o102, 0o600)), no(Errno::EMFILE));
        assert_eq!(code(&w.m.create_session(w.p, w.device, b"s")), no(Errno::EMFILE), "before EEXIST");
        assert_eq!(code(&w.m.retrieve_session(w.p, w.device, b"none")), no(Errno::EMFILE), "before ENOENT");
        assert_eq!(code(&w.m.preserve_fd(w.p, session, memfd, 1)), 0, "needs no number");
        w.m.set_nofile(w.p, 1024).expect("alive");
        assert_eq!(code(&w.m.open(w.p, "/tmp/new", 2, 0)), no(Errno::ENOENT), "nothing was created");
    }
}

#[test]
fn a_place_is_not_a_file() {
    for release in RELEASES {
        let mut w = World::new(release);
        let session = w.session(b"s");
        let memfd = w.memfd(PG);
        let place = w.m.reopen(w.p, memfd, O_PATH).expect("a place");
        let again = w.m.dup(w.p, place).expect("room");
        let (one, other) = w.m.socketpair(w.p).expect("room");
        w.m.send_fds(w.p, one, &[place]).expect("places may be sent");
        let sent = w.m.receive_fds(w.p, other).expect("sent")[0];
        for fd in [place, again, sent] {
            assert_eq!(code(&w.m.preserve_fd(w.p, session, fd, 1)), no(Errno::EBADF));
            assert_eq!(code(&w.m.ftruncate(w.p, fd, 0)), no(Errno::EBADF));
            assert_eq!(code(&w.m.lseek(w.p, fd, 0, Whence::Set)), no(Errno::EBADF));
            assert_eq!(code(&w.m.get_seals(w.p, fd)), no(Errno::EBADF));
            assert_eq!(code(&w.m.ioctl(w.p, fd, 0x5451, 0)), no(Errno::EBADF), "FIOCLEX");
            assert_eq!(code(&w.m.fstat(w.p, fd)), 0);
        }
    }
}

#[test]
fn descriptors_that_find_no_number_are_closed() {
    let mut w = World::new(ReleaseId::V7_3);
    let session = w.session(b"held");
    let memfd = w.memfd(PG);
    let (one, other) = w.m.socketpair(w.p).expect("room");
    w.m.send_fds(w.p, one, &[memfd, session]).expect("open");
    w.m.close(w.p, session).expect("open");
    w.m.close(w.p, memfd).expect("open");
    assert_eq!(code(&w.m.create_session(w.p, w.device, b"held")), no(Errno::EEXIST), "in flight");
    w.m.set_nofile(w.p, usize::try_from(memfd).expect("small")).expect("alive");
    assert_eq!(w.m.receive_fds(w.p, other).expect("one fits").len(), 1);
    w.m.set_nofile(w.p, 1024).expect("alive");
    assert_eq!(code(&w.m.create_session(w.p, w.device, b"held")), 0, "the second was closed");
}

/// Position and kind are looked at before the access mode; a session has no positions at all.
#[test]
fn reads_and_writes_at_a_position() {
    let mut w = World::new(ReleaseId::V7_3);
    let session = w.session(b"s");
    let memfd = w.memfd(PG);
    let readonly = w.m.reopen(w.p, memfd, 0).expect("room");
    let event = w.m.open_kind(w.p, FileKind::EventFd).expect("room");
    let (inval, spipe, badf) = (no(Errno::EINVAL), no(Errno::ESPIPE), no(Errno::EBADF));
    for (fd, at, want) in [
        (readonly, u64::MAX, inval),
        (-1, u64::MAX, inval),
        (-1, 0, badf),
        (readonly, 0, badf),
        (session, 0, spipe),
        (event, 0, spipe),
        (w.device, 0, inval),
    ] {
        assert_eq!(code(&w.m.pwrite(w.p, fd, b"x", at)), want, "{fd} {at}");
    }
    assert_eq!(code(&w.m.fallocate(w.p, readonly, 0, 0, 0)), inval, "before the access mode");
    assert_eq!(code(&w.m.fallocate(w.p, readonly, 0, 0, 1)), badf);
    let null = w.m.open(w.p, "/dev/null", 0, 0).expect("room");
    assert_eq!(
        code(&w.m.add_seals(w.p, null, Seals(1))),
        no(Errno::EPERM),
        "the access mode before the kind"
    );
}

/// Replies into read-only memory and arguments that end at a hole, for each command of a session.
#[test]
fn arguments_at_the_edge_of_memory() {
    for release in RELEASES {
        let mut w = World::new(release);
        let session = w.session(b"s");
        let memfd = w.memfd(PG);
        let base = w.m.process_memory(w.p).expect("alive").map(4096);
        let put = |w: &mut World, at: u64, fd: i32, token: u64| {
            let bytes = [&16u32.to_le_bytes()[..], &fd.to_le_bytes()[..], &token.to_le_bytes()[..]].concat();
            let memory = w.m.process_memory(w.p).expect("alive");
            memory.protect(base, 4096, Protection::ReadWrite);
            memory.write(at, &bytes)
        };
        // The last 16 bytes before the hole are enough; one byte further they are not all there.
        put(&mut w, base + 4080, memfd, 1).expect("mapped");
        assert_eq!(code(&w.m.ioctl(w.p, session, 0xBA40, base + 4080)), 0);
        put(&mut w, base + 4081, memfd, 2).expect_err("into the hole");
        assert_eq!(code(&w.m.ioctl(w.p, session, 0xBA40, base + 4081)), no(Errno::EFAULT));
        assert_eq!(code(&w.m.ioctl(w.p, session, 0xBA40, base + 4094)), no(Errno::EFAULT), "the size word");
        // A reply that cannot be written: the file stays preserved.
        let other = w.memfd(PG);
        put(&mut w, base, other, 3).expect("mapped");
        w.m.process_memory(w.p).expect("alive").protect(base, 4096, Protection::ReadOnly);
        assert_eq!(code(&w.m.ioctl(w.p, session, 0xBA40, base)), no(Errno::EFAULT));
        assert_eq!(code(&w.m.preserve_fd(w.p, session, other, 3)), no(Errno::EEXIST));
    }
}

/// Three kernels: what is not carried on is gone; names of the two lists do not meet.
#[test]
fn only_what_is_preserved_again_goes_on() {
    for release in RELEASES {
        let mut w = World::new(release);
        for name in [&b"left"[..], b"taken", b"again"] {
            let session = w.session(name);
            let memfd = w.memfd(2 * PG);
            w.m.pwrite(w.p, memfd, name, 10).expect("room");
            w.m.preserve_fd(w.p, session, memfd, 5).expect("a memfd");
        }
        w.kexec();
        let taken = w.m.retrieve_session(w.p, w.device, b"taken").expect("carried");
        w.m.retrieve_fd(w.p, taken, 5).expect("carried");
        let again = w.m.retrieve_session(w.p, w.device, b"again").expect("carried");
        let file = w.m.retrieve_fd(w.p, again, 5).expect("carried");
        w.m.finish(w.p, again, 0).expect("incoming");
        // The name of an incoming session, retrieved or not, is free for an outgoing one.
        let new = w.session(b"again");
        w.session(b"left");
        assert_eq!(code(&w.m.create_session(w.p, w.device, b"left")), no(Errno::EEXIST));
        w.m.preserve_fd(w.p, new, file, 5).expect("finished before");
        w.kexec();
        assert_eq!(code(&w.m.retrieve_session(w.p, w.device, b"taken")), no(Errno::ENOENT));
        let left = w.m.retrieve_session(w.p, w.device, b"left").expect("the new, empty one");
        assert_eq!(code(&w.m.retrieve_fd(w.p, left, 5)), no(Errno::ENOENT));
        let again = w.m.retrieve_session(w.p, w.device, b"again").expect("carried");
        let file = w.m.retrieve_fd(w.p, again, 5).expect("carried");
        let mut name = [0; 5];
        w.m.pread(w.p, file, &mut name, 10).expect("readable");
        assert_eq!(&name, b"again");
    }
}

/// One session less than a block, a block, one more, and the refused duplicate at each: which boots and which panics.
#[test]
fn the_refused_duplicate_panics_the_next_kernel_at_full_blocks_alone() {
    for count in [50, 51, 52, 101, 102, 103, 153] {
        let mut w = World::new(ReleaseId::V7_3);
        for index in 0..count {
            w.session(format!("s{index}").as_bytes());
        }
        assert_eq!(code(&w.m.create_session(w.p, w.device, b"s0")), no(Errno::EEXIST));
        w.m.load_image(w.p, w.release, BootOptions::default(), ImageKind::File).expect("root");
        let outcome = w.m.reboot_kexec(w.p).expect("loaded").outcome;
        assert_eq!(outcome.word(), if count % 51 == 0 { "panic" } else { "handover" }, "{count}");
    }
}

#[test]
fn outside_processes_that_are_gone_do_not_pile_up() {
    let mut w = World::new(ReleaseId::V7_3);
    for pid in 100..20_000 {
        w.m.meet(Pid(pid), "child", 1000).expect("a kernel runs");
    }
    let known = w.m.kernel().expect("it runs").processes();
    assert!(known.len() <= 4096 && known.contains_key(&Pid(19_999)), "{} are known", known.len());
}
