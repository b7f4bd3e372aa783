//! `luosim ctl` against running programs: what it shows, what it does, whom it does not answer.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::gate::{NOBODY, Workshop, is_root};
use common::{RUN, Running, examples, gate_works, luosim_in, not_tested, text, workshop};

/// A run of an example, that has said that it is ready.
struct Run {
    folder: tempfile::TempDir,
    running: Running,
}

/// Starts the cache, for `generations` generations; `None` where the host cannot.
fn cache(generations: &str) -> Option<Run> {
    if !gate_works() {
        return None;
    }
    let (folder, program) = (workshop(), examples().join("cache"));
    let program = program.to_str().expect("a path of ours");
    let running = Running::start(folder.path(), &["exec", "--generations", generations, "--", program]);
    running.wait_until(0, |printed| printed.contains("cache: start 1"));
    Some(Run { folder, running })
}

impl Run {
    fn ctl(&self, arguments: &[&str]) -> Output {
        luosim_in(self.folder.path(), &[&["ctl"], arguments].concat())
    }

    /// What `ctl` prints; it must succeed.
    fn asked(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn json(&self, what: &str) -> serde_json::Value {
        serde_json::from_str(&self.asked(&["--json", what])).expect("one JSON document")
    }

    /// The folder of the run.
    fn own_folder(&self) -> PathBuf {
        self.folder.path().join(RUN).join("luosim").join(self.running.pid().to_string())
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.own_folder().join("control.sock")).expect("it listens")
    }
}

#[test]
fn it_shows_what_runs() {
    let Some(run) = cache("2") else { return };
    let pid = run.running.pid();
    let status = format!(
        "kernel 1, Linux 7.3.4; luosim {pid}\nimage loaded: no\nsessions: 1 outgoing, 0 incoming\n\
         command line: kho=on liveupdate=on\n"
    );
    assert_eq!(run.asked(&["status"]), status);
    assert_eq!(run.asked(&["--run", &pid.to_string(), "sessions"]), "outgoing \"example-cache\" 0x1\n");
    assert!(run.asked(&["log"]).starts_with("Linux version 7.3.4 (luosim)\nCommand line: kho=on"));
    assert_eq!(
        run.json("status"),
        serde_json::json!({ "status": {
            "generation": 1, "release": "7.3.4", "supervisor": pid, "image_loaded": false,
            "outgoing": 1, "incoming": 0, "cmdline": "kho=on liveupdate=on",
        } })
    );
    let sessions = serde_json::json!({ "sessions": [
        { "name": "example-cache", "incoming": false, "tokens": [1] },
    ] });
    assert_eq!(run.json("sessions"), sessions);
    assert!(run.json("log")["log"].as_array().is_some_and(|lines| lines.len() >= 2));
}

#[test]
fn a_kexec_keeps_the_sessions() {
    let Some(mut run) = cache("2") else { return };
    assert_eq!(run.json("kexec"), "done");
    run.running.wait_until(0, |printed| printed.contains("cache: start 2"));
    assert!(run.asked(&["status"]).starts_with("kernel 2, Linux 7.3.4; "));
    // The last kexec is answered too, although it ends the run.
    assert_eq!(run.asked(&["kexec"]), "");
    let (code, printed) = run.running.end();
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("0 retrieved, 1 finished, 1 still preserved, 0 lost"), "{printed}");
    let gone = run.ctl(&["status"]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(text(&gone.stderr).contains("no run of `luosim exec` by this user is there"));
}

/// The second generation finds nothing, after the machine was treated so.
fn loses_everything(how: &str) -> Option<String> {
    let mut run = cache("2")?;
    assert_eq!(run.asked(&[how]), "");
    let again = |printed: &str| printed.matches("cache: start 1").count() == 2;
    run.running.wait_until(0, again);
    assert_eq!(run.asked(&["sessions"]), "outgoing \"example-cache\" 0x1\n");
    run.asked(&[how]);
    let (code, printed) = run.running.end();
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("0 retrieved, 0 finished, 0 still preserved, 2 lost"), "{printed}");
    Some(printed)
}

#[test]
fn a_crash_and_a_cold_reset_lose_them() {
    let Some(crash) = loses_everything("crash") else { return };
    assert!(crash.contains("lost: the kernel panicked before the kexec"), "{crash}");
    let reset = loses_everything("cold-reset").expect("the first went");
    assert!(reset.contains("lost: cold reset"), "{reset}");
}

/// Each posted design is looked at, jumps without anything that was prepared, and crashes.
#[test]
fn a_posted_design_is_looked_at_too() {
    if !gate_works() {
        return;
    }
    for design in ["posted-v2", "posted-v3", "posted-v4"] {
        let folder = workshop();
        let script = "echo start $LUOSIM_GENERATION; exec sleep 60";
        let arguments = ["exec", "--generations", "3", "--release", design, "--", "sh", "-c", script];
        let running = Running::start(folder.path(), &arguments);
        running.wait_until(0, |printed| printed.contains("start 1"));
        let mut run = Run { folder, running };
        let status = run.asked(&["status"]);
        assert!(status.starts_with(&format!("kernel 1, Linux {design}; ")), "{status}");
        assert!(status.contains("sessions: 0 outgoing, 0 incoming"), "{status}");
        assert!(run.asked(&["log"]).ends_with("liveupdate: undefined -> normal\n"));
        assert_eq!(run.asked(&["kexec"]), "");
        run.running.wait_until(0, |printed| printed.contains("start 2"));
        assert!(run.asked(&["status"]).starts_with("kernel 2, "));
        assert_eq!(run.asked(&["crash"]), "");
        run.running.wait_until(0, |printed| printed.contains("start 3"));
        assert_eq!(run.asked(&["kexec"]), "");
        let (code, printed) = run.running.end();
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("cold: there is no handover"), "{printed}");
    }
}

#[test]
fn without_a_run_it_says_so() {
    let folder = workshop();
    let output = luosim_in(folder.path(), &["ctl", "status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no run of `luosim exec` by this user is there; start one first"));
    let Some(run) = cache("1") else { return };
    let wrong = run.ctl(&["--run", "1", "status"]);
    assert_eq!(wrong.status.code(), Some(2));
    let known = format!("there is no run 1; there are {}", run.running.pid());
    assert!(text(&wrong.stderr).contains(&known), "{}", text(&wrong.stderr));
}

#[test]
fn folders_are_private_and_those_of_dead_runs_are_removed() {
    let Some(mut run) = cache("1") else { return };
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    let own = run.own_folder();
    let base = own.parent().expect("a folder");
    assert_eq!((mode(base), mode(&own)), (0o700, 0o700));
    // No process has this number: it is above the largest.
    let stale = base.join("4194305");
    std::fs::create_dir(&stale).expect("writable");
    std::fs::write(stale.join("control.sock"), "").expect("writable");
    run.asked(&["status"]);
    assert!(!stale.exists(), "removed");
    run.asked(&["kexec"]);
    run.running.end();
    assert!(!own.exists(), "a run removes its own");
}

#[test]
fn a_folder_that_others_can_read_is_not_used() {
    let folder = workshop();
    let base = folder.path().join(RUN).join("luosim");
    std::fs::create_dir(&base).expect("writable");
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).expect("ours");
    let output = luosim_in(folder.path(), &["exec", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("is not a private folder of ours: remove it, or set XDG_RUNTIME_DIR"), "{said}");
}

#[test]
fn a_client_that_says_nothing_or_nonsense_holds_nobody_up() {
    let Some(run) = cache("1") else { return };
    let silent: Vec<UnixStream> = (0..20).map(|_| run.connect()).collect();
    let mut half = run.connect();
    half.write_all(b"\"stat").expect("it listens");
    assert!(run.asked(&["status"]).starts_with("kernel 1, "));
    let mut answer = String::new();
    let mut nonsense = run.connect();
    nonsense.write_all(b"\"dance\"\n").expect("it listens");
    nonsense.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("{\"refused\":{\"errno\":\"EINVAL\",\"reason\":\"unknown variant `dance`"),
        "{answer}"
    );
    // Gone before the answer.
    run.connect().write_all(b"\"status\"\n").expect("it listens");
    assert!(run.asked(&["status"]).starts_with("kernel 1, "));
    drop((silent, half));
    assert!(run.asked(&["status"]).starts_with("kernel 1, "));
}

#[test]
fn another_user_is_not_answered() {
    let Some(run) = cache("1") else { return };
    if !is_root() {
        not_tested("only root can become another user");
        return;
    }
    // Where we are built nobody else may get: a copy lies where all do.
    let Some(place) = Workshop::new() else { return };
    let ask = || {
        let mut command = place.luosim(Some(NOBODY));
        command.args(["ctl", "kexec"]).env("XDG_RUNTIME_DIR", run.folder.path().join(RUN)).output()
    };
    let output = ask().expect("the command starts");
    assert_eq!(output.status.code(), Some(2), "the folder is private");
    // Even where the socket is within reach.
    let own = run.own_folder();
    let reachable = [run.folder.path(), own.parent().expect("a folder"), &own, &own.join("control.sock")];
    for path in reachable {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("ours");
    }
    let output = ask().expect("as before");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("does not answer"), "{}", text(&output.stderr));
    assert!(run.asked(&["status"]).starts_with("kernel 1, "), "nothing happened");
}
