//! Complete small cycles in the explorer, every promise looked at: boot, preserve, kexec, retrieve, compare, finish. The same
//! with a device whose DMA goes on all the time, and every invariant of DMA looked at.

#![expect(clippy::disallowed_types, reason = "benchmarks measure time")]

use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_machine::faults::Argument;
use luosim_sim::explore::action::{Action, Plan};
use luosim_sim::explore::campaign::{Broken, Campaign};
use luosim_sim::explore::devices::{self, Place};
use luosim_sim::explore::finding;
use luosim_sim::explore::options::{Common, Faults};
use luosim_sim::explore::world::{Case, World};

/// A cycle of one session with one file of one page.
fn small(release: ReleaseId) -> Case {
    let (plan, arg) = (Plan::new(release), Argument::Normal);
    let actions = vec![
        Action::Open { p: 0, new: 0 },
        Action::Create { p: 0, device: 0, name: 0, new: 1, arg },
        Action::Memfd { p: 0, new: 2, kind: 0, huge: false },
        Action::Write { p: 0, fd: 2, at: 0, cells: 8, seed: 1 },
        Action::Preserve { p: 0, session: 1, fd: 2, token: 1, arg },
        Action::Kexec { p: 0, plan },
        Action::Open { p: 0, new: 0 },
        Action::Take { p: 0, device: 0, name: 0, new: 1, arg },
        Action::Retrieve { p: 0, session: 1, token: 1, new: 2, arg },
        Action::Finish { p: 0, session: 1, reserved: 0, arg },
    ];
    let quirks_off = luosim_sim::explore::options::shipped_quirks();
    Case { memory: 32 << 20, first: plan, quirks_on: Vec::new(), quirks_off, max_procs: 1, actions }
}

fn cycles(c: &mut Criterion) {
    let mut group = c.benchmark_group("explore-cycles");
    group.throughput(Throughput::Elements(1));
    for (name, release) in [("6.19", ReleaseId::V6_19), ("7.3", ReleaseId::V7_3)] {
        let case = small(release);
        let mut world = World::new(case.memory).expect("the host has room");
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(world.run(&case, false), Ok(Ok(())), "a promise is broken"));
        });
    }
}

fn seeds(c: &mut Criterion) {
    let mut group = c.benchmark_group("explore-seeds");
    group.throughput(Throughput::Elements(1));
    let common = Common { as_documented: true, ..Common::default() };
    let mut campaign = Campaign::new(common).expect("the host has room");
    let mut seed = 0;
    group.bench_function("as-documented", |b| {
        b.iter(|| {
            seed += 1;
            campaign.seed(seed).expect("the host has room").tally
        });
    });
}

/// A cycle here is a kexec with all that belongs to it: what VMMs set up and preserve before it, the jump, what they retrieve and finish after it.
/// `one-vmm` is the least that has all of it, as [`small`] is: one device, one kexec, from power on. A seed has one to three kexecs of one or two
/// VMMs, often with a stranger's device beside them and reboots that are refused; those count as nothing, and drawing the seed is measured too.
fn device_cycles(c: &mut Criterion) {
    let mut group = c.benchmark_group("explore-device-cycles");
    group.throughput(Throughput::Elements(1));
    let scenario = devices::cycle();
    let mut place = Place::default();
    group.bench_function("one-vmm", |b| {
        b.iter(|| {
            let (tally, wrong) = devices::look(&mut place, &scenario).expect("the host has room");
            assert_eq!((tally.kexecs, wrong), (1, None), "an invariant is broken");
        });
    });
    let mut seed = 0;
    group.bench_function("seeds", |b| {
        b.iter_custom(|kexecs| {
            // Of whole seeds as many as have so many kexecs: each is a cycle.
            let start = Instant::now();
            let mut done = 0;
            while done < kexecs {
                let ran = devices::seed_in(&mut place, seed, None, "").expect("the host has room");
                assert!(ran.finding.is_none(), "an invariant is broken");
                (done, seed) = (done + ran.tally.kexecs, seed + 1);
            }
            start.elapsed().mul_f64(kexecs as f64 / done as f64)
        });
    });
}

/// A run of at least 200 steps that ends with a broken promise.
fn long(quirk: Quirk) -> (Campaign, u64, Broken) {
    let common = Common { steps: 600, zoo: Some(quirk), faults: Faults::NONE, ..Common::default() };
    let mut campaign = Campaign::new(common).expect("the host has room");
    for seed in 0..20_000 {
        let broken = campaign.run(seed, &[], false).expect("the host has room");
        if let Some(broken) = broken.filter(|broken| broken.case.actions.len() >= 200) {
            return (campaign, seed, broken);
        }
    }
    panic!("no seed shows {quirk} after 200 steps");
}

fn shrinking(c: &mut Criterion) {
    let mut group = c.benchmark_group("explore-shrink-200");
    group.sample_size(10);
    for quirk in [Quirk::ExecSealImpliesWrite, Quirk::AccessModeGrows] {
        let (_, seed, broken) = long(quirk);
        let mut world = World::new(broken.case.memory).expect("the host has room");
        group.bench_function(quirk.name(), |b| {
            b.iter(|| {
                let found = finding::investigate(&mut world, seed, &broken, "").expect("the host has room");
                assert!(found.steps_found >= 200 && found.steps < 12, "{}", found.scenario);
            });
        });
    }
}

criterion_group!(benches, cycles, seeds, device_cycles, shrinking);
criterion_main!(benches);
