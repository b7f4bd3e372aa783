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

/// The same program in all generations of one design; it makes each kexec itself. What was recorded replays.
fn on_its_design(workshop: &Workshop, design: &str, program: &str, options: &[&str], user: Option<u32>) {
    let name = design.replace('-', "_");
    let recorded =
        workshop.path("tmp").join(format!("{name}-{}.kdl", user.unwrap_or(0))).display().to_string();
    let start = ["-q", "--record", &recorded, "--release", design, "--generations", "3"];
    let arguments = [&start, options].concat();
    let ran = workshop.exec(user, &arguments);
    check(&ran, &name, 1, &format!("as {user:?}: luosim exec {}", arguments.join(" ")));
    let replayed = workshop.luosim(user).args(["run", "--quiet", &recorded]).output().expect("it starts");
    let shown = common::text(&replayed.stdout);
    assert!(replayed.status.success() && shown.contains("ok, "), "{program}: {shown}");
}

#[test]
fn each_posted_design_has_a_client() {
    let Some(workshop) = Workshop::new() else { return };
    for (design, told) in
        [("posted-v2", None), ("posted-v3", Some("preserve-error-lost")), ("posted-v4", None)]
    {
        for linkage in [Linkage::Static, Linkage::Dynamic] {
            let Some(program) = workshop.compile(&design.replace('-', "_"), linkage) else { continue };
            let program = program.display().to_string();
            for user in users() {
                on_its_design(&workshop, design, &program, &["--", &program], user);
                if let Some(quirk) = told {
                    let options = ["--without-quirk", quirk, "--", &program, "-f"];
                    on_its_design(&workshop, design, &program, &options, user);
                }
            }
        }
    }
}

/// The second and third design leave the same trees; the fourth leaves others, and its reader finds that out by a panic.
#[test]
fn posted_designs_follow_one_another() {
    let Some(workshop) = Workshop::new() else { return };
    let compile =
        |name: &str| workshop.compile(name, Linkage::Dynamic).expect("it links").display().to_string();
    let [second, third, fourth] = ["posted_v2", "posted_v3", "posted_v4"].map(compile);
    let (middle, last) = (format!("{third} 2"), format!("{second} 3"));
    let ran = workshop.exec(
        None,
        &[
            "-q",
            "--chain",
            "posted-v2,posted-v3,posted-v2",
            "--then",
            &middle,
            "--then",
            &last,
            "--",
            &second,
        ],
    );
    check(&ran, "posted_v2", 1, "v2, v3, v2");
    for (chain, program, wanted) in [
        (
            "posted-v4,posted-v2",
            &fourth,
            "luosim: the kernel panicked: live update data cannot be restored: the previous kernel left no 8-byte value of subsystem 'file-descriptors'\n",
        ),
        (
            "posted-v2,posted-v4",
            &second,
            "luosim: the kernel panicked: live update data cannot be restored: the previous kernel left no 8-byte value of subsystem 'luo-session-v1'\n",
        ),
    ] {
        let ran = workshop.exec(None, &["-q", "--chain", chain, "--then", &last, "--", program]);
        assert_eq!((ran.status.code(), ran.stderr.as_str()), (Some(124), wanted), "{chain}");
    }
    // A release that does not know the tree shows neither a state nor what was left.
    let look = "test ! -e /sys/kernel/liveupdate && test -c /dev/liveupdate && cat /sys/kernel/kexec_loaded";
    let ran = workshop.exec(None, &["-q", "--chain", "posted-v3,7.3", "--then", look, "--", &third]);
    assert_eq!((ran.status.code(), ran.stdout.as_str()), (Some(0), "0\n"), "{}", ran.stderr);
}

#[test]
fn calls_on_a_posted_design_are_told_in_its_words() {
    let Some(workshop) = Workshop::new() else { return };
    for (design, wanted) in [
        (
            "posted-v2",
            [
                "ioctl(3, GET_STATE -> normal) = 0",
                "FD_PRESERVE, fd=4, token=0x10, flags=0x7) = 0",
                "ioctl(3, PREPARE) = 0",
                "last close of /dev/liveupdate",
            ],
        ),
        (
            "posted-v3",
            [
                "SET_EVENT, prepare) = 0",
                "GET_FD_STATE, token=0x10, incoming -> updated) = 0",
                "SET_FD_EVENT, cancel, token=0x10) = 0",
                "FD_RESTORE, token=0x20) = 4",
            ],
        ),
        (
            "posted-v4",
            [
                "CREATE_SESSION, \"vm\") = 5",
                "\"vm\", SESSION_RESTORE_FD, token=0x10) = 5",
                "\"gone\", SESSION_GET_STATE -> prepared) = 0",
                "last close of session \"gone\"",
            ],
        ),
    ] {
        let program = workshop.compile(&design.replace('-', "_"), Linkage::Dynamic).expect("it links");
        let program = program.display().to_string();
        let ran =
            workshop.exec(None, &["--trace", "--release", design, "--generations", "3", "--", &program]);
        for part in wanted {
            assert!(ran.stderr.contains(part), "{part} in the trace of {design}:\n{}", ran.stderr);
        }
    }
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
