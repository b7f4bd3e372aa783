//! Runs that are alike, and ends that are complete.

mod common;

use std::fs;
use std::path::Path;

use common::gate::{Linkage, Workshop, eventually, finish, is_root, users};

/// How many living processes have this word in their arguments.
fn living(word: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("every Linux has it").filter_map(Result::ok);
    let has = |path: &Path| {
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    entries.filter(|entry| has(&entry.path())).count()
}

/// A word that only processes of this test have: a number of seconds, of no use to anybody else.
fn word(test: u32, user: Option<u32>) -> String {
    format!("{}{:07}{}", 1 + test, std::process::id(), u32::from(user.is_some()))
}

#[test]
fn the_same_program_leaves_the_same_trace() {
    let Some(workshop) = Workshop::new() else { return };
    for (name, linkage) in
        [("agent", Linkage::Dynamic), ("systemd", Linkage::Dynamic), ("nolibc", Linkage::Bare)]
    {
        let program = workshop.compile(name, linkage).expect("it compiles");
        let program = program.display().to_string();
        let trace = || {
            let ran = workshop.exec(None, &["--trace", "--generations", "2", "--", &program]);
            assert!(ran.status.success(), "{name}: {}\n{}{}", ran.status, ran.stdout, ran.stderr);
            ran.stderr
        };
        let first = trace();
        for part in ["CREATE_SESSION", "RETRIEVE_FD", "== kernel 2"] {
            assert!(first.contains(part), "{name}: no {part} in\n{first}");
        }
        for _ in 1..20 {
            assert_eq!(trace(), first, "{name}");
        }
    }
}

#[test]
fn when_the_supervisor_is_killed_all_die() {
    let Some(workshop) = Workshop::new() else { return };
    for user in users() {
        let word = word(1, user);
        let script = format!("setsid sleep {word} & (setsid sleep {word} &) ; exec sleep {word}");
        let mut run = workshop.luosim(user);
        let mut run = run.args(["exec", "-q", "--", "/bin/sh", "-c", &script]).spawn().expect("it starts");
        eventually("three processes", || living(&word) == 3);
        run.kill().expect("it is ours");
        run.wait().expect("it is ours");
        eventually("nobody is left", || living(&word) == 0);
    }
}

#[test]
fn a_program_that_kills_everybody_does_not_kill_the_supervisor() {
    let Some(workshop) = Workshop::new() else { return };
    for user in users() {
        let word = word(2, user);
        let script = format!("setsid sleep {word} & kill -KILL -1; wait; echo alone in $LUOSIM_GENERATION");
        let ran = workshop.exec(user, &["-q", "--generations", "2", "--", "/bin/sh", "-c", &script]);
        assert_eq!(ran.stdout, "alone in 1\nalone in 2\n", "{} {}", ran.status, ran.stderr);
        assert!(ran.status.success());
        assert_eq!(living(&word), 0);
    }
}

#[test]
fn nothing_survives_a_kexec() {
    let Some(workshop) = Workshop::new() else { return };
    for user in users() {
        let word = word(3, user);
        let file = |name: &str| workshop.path("tmp").join(format!("{name}-{word}"));
        let (begun, go) = (file("begun"), file("go"));
        let first = format!("(setsid sleep {word} &) ; setsid sleep {word} & sleep 0.1; kill -0 $!");
        let second = format!(
            "touch {}; while ! [ -e {} ]; do sleep 0.01; done; echo done",
            begun.display(),
            go.display()
        );
        let mut run = workshop.luosim(user);
        run.args(["exec", "-q", "--then", &second, "--", "/bin/sh", "-c", &first]);
        let run = run.spawn().expect("it starts");
        eventually("the first generation runs", || living(&word) == 2);
        eventually("the second generation runs", || begun.exists());
        assert_eq!(living(&word), 0, "of the first generation as {user:?}");
        fs::write(&go, "").expect("room");
        let ran = finish(run, "two generations");
        assert!(
            ran.status.success() && ran.stdout == "done\n",
            "{}\n{}{}",
            ran.status,
            ran.stdout,
            ran.stderr
        );
    }
}

#[test]
fn a_second_terminal_sees_no_session_after_the_last_close() {
    let Some(workshop) = Workshop::new() else { return };
    let soak = workshop.compile("soak", Linkage::Dynamic).expect("it compiles");
    let done = workshop.path("tmp").join("soaked");
    let script = format!("{} 20000 && touch {} && sleep 300", soak.display(), done.display());
    let mut run = workshop.luosim(None);
    let mut run = run.args(["exec", "-q", "--", "/bin/sh", "-c", &script]).spawn().expect("it starts");
    eventually("20000 cycles", || done.exists() || run.try_wait().expect("it is ours").is_some());
    let sessions = workshop.ctl(None, "sessions");
    let status = workshop.ctl(None, "status");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", run.id())).map(Iterator::count).unwrap_or_default();
    run.kill().expect("it is ours");
    let ran = finish(run, "soak");
    assert!(ran.stdout.contains("PASS soak"), "{}{}", ran.stdout, ran.stderr);
    assert!(
        sessions.status.success() && sessions.stdout.is_empty(),
        "{}{}",
        sessions.stdout,
        sessions.stderr
    );
    assert!(status.stdout.contains("sessions: 0 outgoing, 0 incoming"), "{}", status.stdout);
    // Threads that are known are kept open, up to a number; sessions and files are not.
    assert!(descriptors < 600, "{descriptors} descriptors");
}

/// The supervisor has descriptors for what is preserved, and room for them, whatever limit it is started with. The program has that limit.
#[test]
fn a_low_limit_of_open_files_is_the_program_s_alone() {
    let Some(workshop) = Workshop::new() else { return };
    let program = workshop.compile("limit", Linkage::Dynamic).expect("it compiles").display().to_string();
    let script = "ulimit -S -n 200; exec \"$0\" exec -q --release \"$1\" --generations 2 -- \"$2\" \"$3\"";
    for (user, release) in users().into_iter().zip(["6.19", "7.3"].into_iter().cycle()) {
        for jump in ["-j", "-k"] {
            let mut shell = workshop.command(Path::new("/bin/sh"), user);
            shell.args(["-c", script]).arg(workshop.path("luosim")).args([release, &program, jump]);
            let ran = finish(shell.spawn().expect("it starts"), "limit");
            let said = ran.stdout.matches("PASS limit").count();
            assert!(
                ran.status.success() && said == 1 + usize::from(jump == "-j"),
                "{}{}",
                ran.stdout,
                ran.stderr
            );
        }
    }
}

#[test]
fn a_restart_boots_with_the_first_command_line() {
    let Some(workshop) = Workshop::new() else { return };
    let program = workshop.compile("restart", Linkage::Dynamic).expect("it compiles").display().to_string();
    for user in users() {
        for how in [["--generations", "3", "--", &program], ["--generations", "3", "--init", &program]] {
            let ran = workshop.exec(user, &how);
            assert!(
                ran.status.success() && ran.stdout.contains("PASS restart"),
                "{}{}",
                ran.stdout,
                ran.stderr
            );
        }
        // The second generation restarts the machine, and is the last one.
        let ran = workshop.exec(user, &["--generations", "2", "--init", &program]);
        assert!(ran.status.success() && !ran.stdout.contains("PASS"), "{}{}", ran.stdout, ran.stderr);
    }
}

/// Where even the hard limit is too low the program gets EIO, and the reason says what to do; the run goes on to its end.
#[test]
fn a_hard_limit_that_is_too_low_is_named() {
    let Some(workshop) = Workshop::new() else { return };
    let program = workshop.compile("limit", Linkage::Dynamic).expect("it compiles");
    // Root's supervisor raises the hard limit too.
    let user = if is_root() { Some(65534) } else { None };
    let script = "ulimit -n 200; exec \"$0\" exec --explain -- \"$1\"";
    let mut shell = workshop.command(Path::new("/bin/sh"), user);
    shell.args(["-c", script]).arg(workshop.path("luosim")).arg(program);
    let ran = finish(shell.spawn().expect("it starts"), "limit");
    assert_eq!(ran.status.code(), Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("FAIL limit: ") && ran.stdout.contains("(errno 5)"), "{}", ran.stdout);
    assert!(ran.stderr.contains("EIO") && ran.stderr.contains("ulimit -H -n"), "{}", ran.stderr);
}
