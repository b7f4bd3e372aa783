//! `luosim exec` as a user calls it: exit codes, the worked examples' ledgers, clients in other languages.

mod common;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{Running, examples, gate_works, luosim_in, not_tested, text, workshop};

fn exec(arguments: &[&str]) -> (i32, String) {
    let folder = workshop();
    let output = luosim_in(folder.path(), &[&["exec"], arguments].concat());
    (output.status.code().expect("it ends"), text(&output.stderr))
}

#[test]
fn exit_codes_are_the_documented_ones() {
    assert_eq!(exec(&["--no-such-option", "--", "true"]).0, 125);
    assert_eq!(exec(&[]).0, 125);
    assert_eq!(exec(&["--help"]).0, 0);
    if !gate_works() {
        return;
    }
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(exec(&["--", "sh", "-c", script]).0, code, "{script}");
    }
    let (code, said) = exec(&["--", "/no/such/program"]);
    assert_eq!(
        (code, said.as_str()),
        (127, "luosim: /no/such/program: No such file or directory (os error 2)\n")
    );
    assert_eq!(exec(&["--", "/proc/version"]).0, 126);
    // A generation that fails is the last.
    assert_eq!(exec(&["--then", "exit 3", "--then", "exit 4", "--", "true"]).0, 3);
    assert_eq!(exec(&["--generations", "2", "--then", "exit $LUOSIM_GENERATION", "--", "true"]).0, 2);
}

#[test]
fn a_signal_ends_the_run_and_its_programs() {
    if !gate_works() {
        return;
    }
    let folder = workshop();
    let mut running = Running::start(folder.path(), &["exec", "--", "sh", "-c", "echo ready; sleep 1000"]);
    running.wait_until(0, |printed| printed.contains("ready"));
    let kill = Command::new("kill").arg(running.pid().to_string()).status().expect("kill");
    assert!(kill.success());
    assert_eq!(running.end().0, 143);
}

/// Everything that luosim itself and the program print, for one worked example and a number of kexecs from outside.
fn story(example: &str, options: &[&str], kexecs: usize) -> String {
    let (folder, program) = (workshop(), examples().join(example));
    let program = program.to_str().expect("a path of ours");
    let arguments = [&["exec"], options, &["--", program]].concat();
    let mut running = Running::start(folder.path(), &arguments);
    let lines =
        |printed: &str| printed.lines().filter(|line| line.starts_with(&format!("{example}: "))).count();
    for done in 1..=kexecs {
        running.wait_until(0, |printed| lines(printed) == done);
        let output = luosim_in(folder.path(), &["ctl", "kexec"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let (code, printed) = running.end();
    format!("exit code {code}\n{printed}")
}

#[test]
fn worked_examples_end_with_their_ledgers() {
    if !gate_works() {
        return;
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (name, example, options, kexecs) in [
        ("exec-agent", "agent", ["--generations", "2"], 1),
        ("exec-agent-6.19-7.3", "agent", ["--chain", "6.19,7.3"], 1),
        ("exec-agent-6.19", "agent", ["--chain", "6.19,6.19"], 1),
        ("exec-cache", "cache", ["--generations", "3"], 3),
        ("exec-forgetful", "forgetful", ["--generations", "2"], 0),
    ] {
        let shown = story(example, &options, kexecs);
        settings.bind(|| insta::assert_snapshot!(name, shown));
    }
}

#[test]
fn a_client_in_python_keeps_a_word() {
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !gate_works() || !python.is_ok_and(|status| status.success()) {
        not_tested("no python3");
        return;
    }
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/word.py");
    let (code, said) = exec(&["--then", &format!("exec python3 '{client}'"), "--", "python3", client]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 finished, 0 still preserved, 0 lost"), "{said}");
}

/// Without privilege the node is a device of the host, often `/dev/null`, which programs have open anyway.
#[test]
fn the_device_that_stands_for_it_is_still_itself() {
    let cache = examples().join("cache");
    let script = format!("test -t 0; exec {} --once", cache.display());
    let run = |privileged: bool, script: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luosim"));
        command.args(["exec", "--explain", "--", "sh", "-c", script]).current_dir("/");
        command.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
        if !privileged {
            command.uid(65_534).gid(65_534);
        }
        command.output()
    };
    // Only root can become another; who is not root has no privilege anyway.
    let can = |privileged| run(privileged, "true").is_ok_and(|output| output.status.success());
    let Some(privileged) = [false, true].into_iter().find(|privileged| can(*privileged)) else {
        assert!(!gate_works(), "it works elsewhere");
        return;
    };
    let output = run(privileged, &script).expect("as before");
    assert!(output.status.success(), "{}", text(&output.stderr));
}
