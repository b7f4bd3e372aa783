//! Memory files against real ones: the same calls on the model and on a memfd of the host, with the same answers, the
//! same errors, and the same contents, size, blocks and holes afterwards.
//!
//! Left out: mappings, and seals of execute bits, which need not be known to the host.

use luosim_abi::KResult;
use luosim_files::shmem::{Seals, Whence};
use luosim_files::{InodeId, InodeTable, ShmemKind};
use luosim_physmem::{PhysMem, Ram};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, SeekFrom};

const END: u64 = 40 * 4096;

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, len: usize, byte: u8 },
    Truncate(u64),
    Fallocate { mode: u32, at: i64, len: i64 },
    Seek { data: bool, at: i64 },
    Seal(u32),
}

/// Positions near page boundaries, and anywhere.
fn position() -> impl Strategy<Value = u64> {
    prop_oneof![(0u64..41, 0u64..3).prop_map(|(page, off)| (page * 4096 + off).saturating_sub(1)), 0..END]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => position().prop_map(|at| i64::try_from(at).expect("small")),
        1 => -3i64..1,
        1 => i64::MAX - 5000..=i64::MAX,
    ]
}

/// Whether the range is small, or no range at all.
fn bounded(at: i64, len: i64) -> bool {
    len <= 1 << 20 || at.checked_add(len).is_none()
}

fn step() -> impl Strategy<Value = Step> {
    let modes = prop::sample::select(vec![0u32, 0, 1, 1, 3, 3, 3, 2, 8, 0x10]);
    prop_oneof![
        6 => (position(), 0usize..10_000, any::<u8>()).prop_map(|(at, len, byte)| Step::Write { at, len, byte }),
        3 => position().prop_map(Step::Truncate),
        4 => (modes, signed(), signed())
            .prop_filter("the host would fill its memory", |(mode, at, len)| mode & !1 != 0 || bounded(*at, *len))
            .prop_map(|(mode, at, len)| Step::Fallocate { mode, at, len }),
        3 => (any::<bool>(), signed()).prop_map(|(data, at)| Step::Seek { data, at }),
        1 => prop::sample::select(vec![1u32, 2, 4, 8, 0x10, 6, 0x40]).prop_map(Step::Seal),
    ]
}

/// How much of a write the host checks at once: 2 MiB with huge pages built in, else a page. Differs by release and
/// by build, so it is asked for: does a write over the end of a file that may not grow fill the file first?
fn host_window() -> u64 {
    let file = rustix::fs::memfd_create("w", MemfdFlags::ALLOW_SEALING).expect("the host has memfds");
    rustix::fs::ftruncate(&file, 4096).expect("a page");
    rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).expect("sealing is allowed");
    if rustix::io::pwrite(&file, &[1; 8192], 0).is_ok() { 4096 } else { 2 << 20 }
}

/// A count, or minus an error number.
fn model<T: TryInto<i64>>(result: KResult<T>) -> i64 {
    match result {
        Ok(value) => value.try_into().unwrap_or(-1),
        Err(refusal) => -i64::from(refusal.errno.raw()),
    }
}

fn host<T: TryInto<i64>>(result: rustix::io::Result<T>) -> i64 {
    match result {
        Ok(value) => value.try_into().unwrap_or(-1),
        Err(errno) => -i64::from(errno.raw_os_error()),
    }
}

struct Pair {
    ram: Ram,
    inodes: InodeTable,
    inode: InodeId,
    real: OwnedFd,
    window: u64,
}

impl Pair {
    fn new() -> Self {
        let ram = Ram::new(PhysMem::anonymous(16 << 20).expect("room"));
        let mut inodes = InodeTable::default();
        let inode = inodes.create(ShmemKind::Memfd, "m", 0o777, Seals(0));
        let real = rustix::fs::memfd_create("m", MemfdFlags::ALLOW_SEALING).expect("the host has memfds");
        Self { ram, inodes, inode, real, window: host_window() }
    }

    /// Makes the call on both; gives both answers.
    fn take(&mut self, step: &Step) -> (i64, i64) {
        let file = self.inodes.get_mut(self.inode);
        match *step {
            Step::Write { at, len, byte } => {
                let bytes = vec![byte; len];
                let real = rustix::io::pwrite(&self.real, &bytes, at);
                (model(file.write_at(&mut self.ram, at, &bytes, self.window)), host(real))
            }
            Step::Truncate(size) => {
                let real = rustix::fs::ftruncate(&self.real, size).map(|()| 0);
                (model(file.truncate(&mut self.ram, size).map(|()| 0)), host(real))
            }
            Step::Fallocate { mode, at, len } => {
                let answer = model(file.fallocate(&mut self.ram, mode, at, len).map(|()| 0));
                let flags = FallocateFlags::from_bits_retain(mode);
                let real = rustix::fs::fallocate(&self.real, flags, at.cast_unsigned(), len.cast_unsigned());
                (answer, host(real.map(|()| 0)))
            }
            Step::Seek { data, at } => {
                let (whence, from) = if data {
                    (Whence::Data, SeekFrom::Data(at.cast_unsigned()))
                } else {
                    (Whence::Hole, SeekFrom::Hole(at.cast_unsigned()))
                };
                (model(file.seek(0, at, whence)), host(rustix::fs::seek(&self.real, from)))
            }
            Step::Seal(seals) => {
                let real = rustix::fs::fcntl_add_seals(&self.real, SealFlags::from_bits_retain(seals));
                (model(file.add_seals(Seals(seals)).map(|()| 0)), host(real.map(|()| 0)))
            }
        }
    }

    fn compare(&self) {
        let file = self.inodes.get(self.inode);
        let stat = rustix::fs::fstat(&self.real).expect("open");
        assert_eq!(i64::try_from(file.size()), Ok(stat.st_size));
        assert_eq!(i64::try_from(file.blocks()), Ok(stat.st_blocks));
        let mut ours = vec![0; usize::try_from(END + 20_000).expect("small")];
        let mut theirs = ours.clone();
        let read = file.read_at(&self.ram, 0, &mut ours);
        assert_eq!(Ok(read), rustix::io::pread(&self.real, &mut theirs, 0));
        assert!(ours == theirs, "contents differ");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_memory_file_does_what_the_hosts_does(steps in prop::collection::vec(step(), 1..40)) {
        let mut pair = Pair::new();
        for step in &steps {
            let (model, real) = pair.take(step);
            prop_assert_eq!(model, real, "{:?}: model, host", step);
            pair.compare();
        }
        let free = pair.ram.frames.stats().total;
        pair.inodes.put(&mut pair.ram, pair.inode);
        prop_assert_eq!(pair.ram.frames.stats().free, free, "the file's frames are given back");
    }
}
