//! Whole live updates, and the parts whose cost must stay linear.
#![expect(clippy::disallowed_types, reason = "benchmarks measure time")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use luosim_abi::release::ReleaseId;
use luosim_benches::{booted, device, kexec, rebooted, small_cycle};
use luosim_machine::{BootOptions, Machine};
use luosim_physmem::{PhysMem, Ram};

const RELEASES: [(&str, ReleaseId); 2] = [("6.19", ReleaseId::V6_19), ("7.3", ReleaseId::V7_3)];

fn cycle(c: &mut Criterion) {
    let mut group = c.benchmark_group("small-cycle");
    for (name, release) in RELEASES {
        let (mut machine, _) = booted(64 << 20, release);
        group.bench_function(name, |b| {
            b.iter(|| {
                machine.cold_boot_in_place(release, &BootOptions::default());
                let pid = machine.spawn("bench").expect("a kernel runs");
                small_cycle(&mut machine, pid, release)
            });
        });
    }
}

/// A memfd of 1 GiB in folios of 4 KiB: preserve, jump and boot, retrieve, each timed alone.
fn gibibyte(c: &mut Criterion) {
    let mut group = c.benchmark_group("memfd-1GiB");
    group.sample_size(10).throughput(Throughput::Elements(262_144));
    for (name, release) in RELEASES {
        for (part, which) in [("preserve", 0), ("kexec", 1), ("retrieve", 2)] {
            group.bench_function(BenchmarkId::new(part, name), |b| {
                b.iter_custom(|rounds| (0..rounds).map(|_| one_gibibyte(release)[which]).sum());
            });
        }
    }
}

fn one_gibibyte(release: ReleaseId) -> [Duration; 3] {
    let (mut machine, pid) = booted(2 << 30, release);
    let dev = device(&mut machine, pid);
    let session = machine.create_session(pid, dev, b"vm").expect("a new name");
    let file = machine.memfd_create(pid, "ram", 0, false).expect("room");
    machine.fallocate(pid, file, 0, 0, 1 << 30).expect("room");
    let block = vec![1; 1 << 20];
    for at in 0..1024 {
        machine.pwrite(pid, file, &block, at << 20).expect("room");
    }
    let start = Instant::now();
    machine.preserve_fd(pid, session, file, 1).expect("a memfd");
    let preserve = start.elapsed();
    let start = Instant::now();
    let pid = kexec(&mut machine, pid, release);
    let jump = start.elapsed();
    let dev = device(&mut machine, pid);
    let session = machine.retrieve_session(pid, dev, b"vm").expect("carried");
    let start = Instant::now();
    machine.retrieve_fd(pid, session, 1).expect("carried");
    [preserve, jump, start.elapsed()]
}

fn sessions(c: &mut Criterion) {
    let mut group = c.benchmark_group("sessions-7.3");
    group.sample_size(10);
    for count in [10_000u64, 100_000] {
        group.throughput(Throughput::Elements(count));
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, count| {
            let mut machine = booted(1 << 30, ReleaseId::V7_3).0;
            // Once for the host's sake: its page faults are not what is measured.
            many_sessions(&mut machine, *count);
            b.iter_custom(|rounds| (0..rounds).map(|_| many_sessions(&mut machine, *count)).sum());
        });
    }
}

fn many_sessions(machine: &mut Machine, count: u64) -> Duration {
    let pid = rebooted(machine, ReleaseId::V7_3);
    let start = Instant::now();
    machine.set_nofile(pid, 1 << 21).expect("alive");
    let dev = device(machine, pid);
    for index in 0..count {
        machine.create_session(pid, dev, format!("session-{index}").as_bytes()).expect("a new name");
    }
    let pid = kexec(machine, pid, ReleaseId::V7_3);
    let dev = device(machine, pid);
    for index in 0..count {
        let session =
            machine.retrieve_session(pid, dev, format!("session-{index}").as_bytes()).expect("carried");
        machine.close(pid, session).expect("open");
    }
    start.elapsed()
}

fn files(c: &mut Criterion) {
    let mut group = c.benchmark_group("files-7.3");
    group.sample_size(10);
    for count in [50_000u64, 500_000] {
        group.throughput(Throughput::Elements(count));
        group.bench_with_input(BenchmarkId::from_parameter(count), &count, |b, count| {
            let mut machine = booted(8 << 30, ReleaseId::V7_3).0;
            // Once for the host's sake: its page faults are not what is measured.
            many_files(&mut machine, *count);
            b.iter_custom(|rounds| (0..rounds).map(|_| many_files(&mut machine, *count)).sum());
        });
    }
}

fn many_files(machine: &mut Machine, count: u64) -> Duration {
    let pid = rebooted(machine, ReleaseId::V7_3);
    let start = Instant::now();
    let dev = device(machine, pid);
    let session = machine.create_session(pid, dev, b"many").expect("a new name");
    for token in 0..count {
        let file = machine.memfd_create(pid, "m", 0, false).expect("room");
        machine.preserve_fd(pid, session, file, token).expect("a memfd");
        machine.close(pid, file).expect("open");
    }
    let pid = kexec(machine, pid, ReleaseId::V7_3);
    let dev = device(machine, pid);
    let session = machine.retrieve_session(pid, dev, b"many").expect("carried");
    for token in 0..count {
        let file = machine.retrieve_fd(pid, session, token).expect("carried");
        machine.close(pid, file).expect("open");
    }
    start.elapsed()
}

/// Boot on a handover of a million preserved pages.
fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("boot-1M-folios");
    group.sample_size(10);
    for (name, release) in RELEASES {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| million(release)).sum());
        });
    }
}

fn million(release: ReleaseId) -> Duration {
    let (mut machine, pid) = booted(6 << 30, release);
    let dev = device(&mut machine, pid);
    let session = machine.create_session(pid, dev, b"vm").expect("a new name");
    for token in 0..4 {
        let file = machine.memfd_create(pid, "ram", 0, false).expect("room");
        machine.ftruncate(pid, file, 1 << 30).expect("empty");
        machine.preserve_fd(pid, session, file, token).expect("a memfd");
    }
    let start = Instant::now();
    kexec(&mut machine, pid, release);
    start.elapsed()
}

/// Memory and its allocator, nothing touched.
fn memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory");
    for (name, len) in [("16MiB", 16u64 << 20), ("64GiB", 64 << 30), ("1TiB", 1 << 40)] {
        group.bench_function(name, |b| {
            b.iter(|| Ram::new(PhysMem::anonymous(len).expect("the host has room")));
        });
    }
}

criterion_group!(benches, cycle, gibibyte, sessions, files, parse, memory);
criterion_main!(benches);
