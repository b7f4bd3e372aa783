//! Programs in C under `luosim exec`: static and dynamic, as root and as nobody, on the first and the newest
//! release, with the kexec after the program's end and with one that the program makes.
//!
//! What each program does, and what it calls right, its head says.

mod common;

use common::gate::{Linkage, Ran, Workshop, skip, users};

const RELEASES: [&str; 4] = ["6.19", "7.1", "7.2", "7.3"];

/// What a program is run with.
struct Plan<'a> {
    name: &'a str,
    linkages: &'a [Linkage],
    /// Whether the program has a stage after the kexec.
    staged: bool,
    /// Arguments in every run.
    arguments: &'a [&'a str],
    /// Arguments without privilege besides.
    unprivileged: &'a [&'a str],
}

impl Default for Plan<'_> {
    fn default() -> Self {
        let linkages = &[Linkage::Static, Linkage::Dynamic];
        Self { name: "", linkages, staged: true, arguments: &[], unprivileged: &[] }
    }
}

/// The program's own verdicts, `wanted` of them, all good.
fn check(ran: &Ran, name: &str, wanted: usize, how: &str) {
    let said: Vec<&str> = ran.stdout.lines().filter(|line| !line.starts_with("  ")).collect();
    let good = format!("PASS {name}");
    assert!(
        ran.status.success() && said.len() == wanted && said.iter().all(|line| *line == good),
        "{how}: {}, wanted {wanted} times {good}\n{}{}",
        ran.status,
        ran.stdout,
        ran.stderr
    );
}

fn run(workshop: &Workshop, plan: &Plan<'_>, program: &str, user: Option<u32>, release: &str) {
    let generations = if plan.staged { "2" } else { "1" };
    let jumps: &[&[&str]] = if plan.staged { &[&[], &["-k"]] } else { &[&[]] };
    for jump in jumps {
        let mut arguments = vec!["-q", "--release", release, "--generations", generations, "--", program];
        arguments.extend(plan.arguments);
        if user.is_some() || !common::gate::is_root() {
            arguments.extend(plan.unprivileged);
        }
        arguments.extend(*jump);
        // A stage that jumps itself says nothing.
        let wanted = if plan.staged && jump.is_empty() { 2 } else { 1 };
        let ran = workshop.exec(user, &arguments);
        check(&ran, plan.name, wanted, &format!("as {user:?}: luosim exec {}", arguments.join(" ")));
    }
}

fn carry_out(plan: &Plan<'_>) {
    let Some(workshop) = Workshop::new() else { return };
    for linkage in plan.linkages {
        let Some(program) = workshop.compile(plan.name, *linkage) else { continue };
        let program = program.display().to_string();
        for user in users() {
            for release in RELEASES {
                run(&workshop, plan, &program, user, release);
            }
        }
    }
    if users().len() == 1 {
        skip("not root: the programs ran as this user only");
    }
}

#[test]
fn agent_passes_sessions_to_a_vmm() {
    carry_out(&Plan { name: "agent", ..Plan::default() });
}

#[test]
fn criu_restores_from_many_processes() {
    carry_out(&Plan { name: "criu", ..Plan::default() });
}

#[test]
fn systemd_keeps_an_fd_store() {
    carry_out(&Plan { name: "systemd", ..Plan::default() });
}

#[test]
fn nolibc_needs_no_library() {
    carry_out(&Plan { name: "nolibc", linkages: &[Linkage::Bare], ..Plan::default() });
}

#[test]
fn filter_has_filters_of_its_own() {
    carry_out(&Plan { name: "filter", ..Plan::default() });
}

#[test]
fn kexec_loads_and_jumps() {
    carry_out(&Plan { name: "kexec", ..Plan::default() });
}

#[test]
fn fdkinds_sees_no_difference() {
    // Without privilege the host's own device stands for ours, and answers reads as it does.
    carry_out(&Plan { name: "fdkinds", staged: false, unprivileged: &["-b"], ..Plan::default() });
}

#[test]
fn hostile_gets_a_kernels_errors() {
    carry_out(&Plan { name: "hostile", staged: false, ..Plan::default() });
}

#[test]
fn threads_are_answered_once_whatever_signals_come() {
    carry_out(&Plan { name: "threads", staged: false, ..Plan::default() });
}

#[test]
fn soak_leaves_nothing_behind() {
    carry_out(&Plan {
        name: "soak",
        staged: false,
        linkages: &[Linkage::Dynamic],
        arguments: &["5000"],
        ..Plan::default()
    });
}

#[test]
fn a_go_program_is_collected_and_preempted() {
    let Some(workshop) = Workshop::new() else { return };
    let Some(program) = workshop.build_go("goagent") else { return };
    let program = program.display().to_string();
    for user in users() {
        for release in RELEASES {
            let ran =
                workshop.exec(user, &["-q", "--release", release, "--generations", "2", "--", &program]);
            check(&ran, "goagent", 2, &format!("as {user:?} on {release}"));
        }
    }
}
