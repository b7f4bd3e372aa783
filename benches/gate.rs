//! Programs under `luosim exec`: what calls, kexecs and whole jobs cost, beside the same jobs run bare.
//!
//! ```text
//! cargo build --release -p luosim
//! cargo bench -p luosim-benches --bench gate
//! ```
//!
//! Needs a host that can run the gate (`luosim doctor`) and a C compiler. The program is
//! `crates/gate/tests/programs/bench.c`, linked statically; it takes its times itself, so that the start of processes
//! is in no figure but `start` and `compile-job`. Those two run the same command bare and gated in turn. Criterion
//! gets a median of each run; at the end a table gives the smallest and the middle figure of all runs beside the
//! limit that the project has set itself, and the ratios. On a machine that does other things too the smallest one
//! says more.
//!
//! `kexec` is the time from `reboot(LINUX_REBOOT_CMD_KEXEC)` to `main` of the next generation's program, less what
//! `vfork` and `execve` of that program take (`spawn`).
#![expect(
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "benchmarks measure the time of real processes, and tell it"
)]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};

/// Generations of a chain of kexecs.
const CHAIN: usize = 30;

/// The programs that are run.
struct Workshop {
    folder: tempfile::TempDir,
    luosim: PathBuf,
}

/// All figures of one kind.
struct Figures {
    name: &'static str,
    /// Microseconds, or calls a second.
    values: RefCell<Vec<f64>>,
}

impl Figures {
    fn new(name: &'static str) -> Self {
        Self { name, values: RefCell::new(Vec::new()) }
    }

    fn keep(&self, value: f64) -> f64 {
        self.values.borrow_mut().push(value);
        value
    }

    /// Smallest and middle one; no numbers if none was measured.
    fn summary(&self) -> (f64, f64) {
        middle(self.values.borrow().clone())
    }

    fn show(&self, unit: &str, limit: &str) {
        let (least, middle) = self.summary();
        println!("{:<24} {least:>10.1} {middle:>10.1} {unit:<10} {limit}", self.name);
    }
}

fn middle(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(values.len() / 2))
}

fn micros(value: f64) -> Duration {
    Duration::from_secs_f64(value / 1e6)
}

impl Workshop {
    fn new() -> Self {
        let own = std::env::current_exe().expect("the host says so");
        let luosim = own.ancestors().nth(2).expect("target/release/deps/gate").join("luosim");
        assert!(luosim.exists(), "{}: cargo build --release -p luosim", luosim.display());
        let folder = tempfile::tempdir().expect("a folder");
        let workshop = Self { folder, luosim };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/gate/tests/programs/bench.c");
        let program = workshop.program();
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-pthread", "-o"]).arg(&program).arg(source);
        assert!(cc.status().expect("a C compiler").success(), "bench.c is linked statically");
        workshop
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("bench")
    }

    /// Runs the program gated and gives what it printed.
    fn gated(&self, generations: usize, arguments: &[&str]) -> String {
        let mut luosim = Command::new(&self.luosim);
        luosim.args(["exec", "-q", "--generations", &generations.to_string(), "--"]).arg(self.program());
        output(luosim.args(arguments).env("LUOSIM_BENCH_LAST", generations.to_string()))
    }

    /// First number of the program's first line.
    fn figure(&self, arguments: &[&str]) -> f64 {
        number(&self.gated(1, arguments))
    }

    /// Times from `reboot` to `main`, the middle one.
    fn kexec(&self, kexecs: usize, sessions: &str) -> f64 {
        let printed = self.gated(kexecs + 1, &["jump", sessions]);
        let times: Vec<(&str, f64)> =
            printed.lines().filter_map(|line| Some((line.split(' ').next()?, number(line)))).collect();
        let mut jumps: Vec<f64> = times
            .windows(2)
            .filter(|pair| pair[0].0 == "reboot" && pair[1].0 == "main")
            .map(|pair| pair[1].1 - pair[0].1)
            .collect();
        assert_eq!(jumps.len(), kexecs, "{printed}");
        jumps.sort_by(f64::total_cmp);
        jumps[jumps.len() / 2]
    }

    /// The same command bare and gated, each timed once.
    fn both(&self, command: &[&str]) -> (f64, f64) {
        let mut bare = Command::new(command[0]);
        bare.args(&command[1..]);
        let mut gated = Command::new(&self.luosim);
        gated.args(["exec", "-q", "--"]).args(command);
        (timed(bare.current_dir(self.folder.path())), timed(gated.current_dir(self.folder.path())))
    }
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("figures")
}

fn timed(command: &mut Command) -> f64 {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).status().expect("it starts");
    assert!(status.success(), "{command:?}: {status}");
    begun.elapsed().as_secs_f64() * 1e6
}

fn number(printed: &str) -> f64 {
    let word = printed.split_whitespace().nth(1);
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no figure in {printed:?}"))
}

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench(group: &mut Group<'_>, figures: &Figures, mut measure: impl FnMut() -> f64) {
    group.bench_function(figures.name, |b| {
        b.iter_custom(|rounds| {
            let rounds = u32::try_from(rounds).expect("few");
            micros(figures.keep(measure())) * rounds
        });
    });
}

/// A job bare and gated in turn; the gated one is criterion's.
fn bench_both(
    group: &mut Group<'_>,
    workshop: &Workshop,
    (bare, gated): (&Figures, &Figures),
    command: &[&str],
) {
    bench(group, gated, || {
        let (alone, under) = workshop.both(command);
        bare.keep(alone);
        under
    });
}

fn gate(c: &mut Criterion) {
    let workshop = Workshop::new();
    let mut group = c.benchmark_group("gate");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
    let [pair, name, native, notified] =
        ["create-close", "get-name", "open-other", "open-notified"].map(Figures::new);
    bench(&mut group, &pair, || workshop.figure(&["pair"]));
    bench(&mut group, &name, || workshop.figure(&["name"]));
    let threads = Figures::new("4-threads-calls");
    bench(&mut group, &Figures::new("4-threads"), || 1e6 / threads.keep(workshop.figure(&["threads"])));
    let bare_open = Figures::new("open-other-bare");
    bench(&mut group, &native, || {
        bare_open.keep(number(&output(Command::new(workshop.program()).arg("open"))));
        let printed = workshop.gated(1, &["open"]);
        notified.keep(number(printed.lines().nth(1).expect("two figures")));
        number(&printed)
    });
    let preserve = Figures::new("preserve-1GiB");
    group.sample_size(10);
    bench(&mut group, &preserve, || workshop.figure(&["preserve"]) * 1e3);

    let [spawn, jump, many] = ["spawn", "kexec-and-spawn", "kexec-2000-sessions"].map(Figures::new);
    bench(&mut group, &jump, || {
        spawn.keep(number(&output(Command::new(workshop.program()).arg("spawn"))));
        workshop.kexec(CHAIN, "0")
    });
    bench(&mut group, &many, || workshop.kexec(1, "2000"));

    group.sample_size(60);
    let [no_bare, no_gated] = ["nothing-bare", "nothing"].map(Figures::new);
    bench_both(&mut group, &workshop, (&no_bare, &no_gated), &["/bin/true"]);
    group.sample_size(15);
    let [cc_bare, cc_gated] = ["compile-job-bare", "compile-job"].map(Figures::new);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/gate/tests/oracle/luo_probe.c");
    let job = ["cc", "-w", "-O1", "-c", source, "-o", "probe.o"];
    bench_both(&mut group, &workshop, (&cc_bare, &cc_gated), &job);
    group.finish();

    println!("\n{:<24} {:>10} {:>10}", "figure", "smallest", "middle");
    pair.show("us", "at most 40");
    name.show("us", "at most 15");
    threads.show("calls/s", "at least 25000 (middle)");
    bare_open.show("us", "");
    native.show("us", "");
    notified.show("us", "");
    preserve.show("us", "at most 10000");
    spawn.show("us", "");
    jump.show("us", "");
    difference("kexec", (&jump, &spawn), "at most 3000");
    many.show("us", "at most 60000");
    difference("start", (&no_gated, &no_bare), "at most 5000");
    cc_bare.show("us", "");
    cc_gated.show("us", "");
    let (least, middle) = ratio(&cc_gated, &cc_bare);
    println!("{:<24} {least:>10.3} {middle:>10.3} {:<10} at most 1.03", "compile-job ratio", "");
}

fn difference(name: &str, (whole, part): (&Figures, &Figures), limit: &str) {
    let (whole, part) = (whole.summary(), part.summary());
    println!("{name:<24} {:>10.1} {:>10.1} {:<10} {limit}", whole.0 - part.0, whole.1 - part.1, "us");
}

/// Of the smallest ones, and the middle of the ratios of neighbours.
fn ratio(gated: &Figures, bare: &Figures) -> (f64, f64) {
    let (gated_ones, bare_ones) = (gated.values.borrow(), bare.values.borrow());
    let ratios = gated_ones.iter().zip(bare_ones.iter()).map(|(gated, bare)| gated / bare).collect();
    (gated.summary().0 / bare.summary().0, middle(ratios).1)
}

criterion_group!(benches, gate);
criterion_main!(benches);
