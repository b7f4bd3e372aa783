//! Running C programs under `luosim exec`.
//!
//! The tests are in this package because only here cargo says where the command is; the programs belong to the
//! gate. A host that cannot run them skips a test with a note; where `CI` is set that is a failure.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "real programs take real time; their pipes are read at once; a skipped test says so"
)]

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Who has no privilege at all.
pub(crate) const NOBODY: u32 = 65534;
/// Longer than any program takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that everybody can read, with a copy of the command in it.
#[derive(Debug)]
pub(crate) struct Workshop {
    folder: tempfile::TempDir,
}

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linkage {
    Static,
    Dynamic,
    /// No library at all.
    Bare,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Says why a test does nothing; fails where everything is expected to be there.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "skipped in CI: {why}");
    println!("SKIPPED: {why}");
}

pub(crate) fn is_root() -> bool {
    // The owner of our own entry in /proc is our effective user.
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// The users to try: ourselves, and nobody if we may become that.
pub(crate) fn users() -> Vec<Option<u32>> {
    if is_root() { vec![None, Some(NOBODY)] } else { vec![None] }
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the folder is ours");
}

impl Workshop {
    /// A workshop in the usual place for temporary files; `None`: the host cannot run the gate or compile.
    pub(crate) fn new() -> Option<Self> {
        Self::in_folder(&std::env::temp_dir())
    }

    pub(crate) fn in_folder(parent: &Path) -> Option<Self> {
        let folder = tempfile::tempdir_in(parent).expect("a folder");
        open_to_all(folder.path(), 0o755);
        let workshop = Self { folder };
        fs::create_dir(workshop.path("tmp")).expect("a folder");
        open_to_all(&workshop.path("tmp"), 0o1777);
        fs::copy(env!("CARGO_BIN_EXE_luosim"), workshop.path("luosim")).expect("room for a copy");
        if Command::new("cc").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip("there is no C compiler `cc`");
            return None;
        }
        for user in users() {
            let ran = workshop.exec(user, &["-q", "--", "/bin/sh", "-c", "test -e /dev/liveupdate"]);
            if !ran.status.success() {
                skip(&format!("the gate does not run as {user:?}: {} {}", ran.status, ran.stderr));
                return None;
            }
        }
        Some(workshop)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compiles a program of the gate's; `None`: the host cannot link it so.
    pub(crate) fn compile(&self, name: &str, linkage: Linkage) -> Option<PathBuf> {
        self.compile_from("programs", name, linkage)
    }

    /// Compiles a program of another folder of the gate's tests.
    pub(crate) fn compile_from(&self, folder: &str, name: &str, linkage: Linkage) -> Option<PathBuf> {
        let programs = super::root().join("crates/gate/tests").join(folder);
        let target = self.path(&format!("{name}-{linkage:?}").to_lowercase());
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&target).arg(programs.join(format!("{name}.c")));
        match linkage {
            Linkage::Static => cc.args(["-static", "-pthread"]),
            Linkage::Dynamic => cc.arg("-pthread"),
            Linkage::Bare => cc.args(["-static", "-nostdlib", "-ffreestanding"]),
        };
        let output = cc.output().expect("the compiler starts");
        if output.status.success() {
            return Some(target);
        }
        let why = super::text(&output.stderr);
        assert!(linkage == Linkage::Static, "{name}.c does not compile: {why}");
        skip(&format!("{name}.c cannot be linked statically: {why}"));
        None
    }

    /// Builds a Go program of the gate's, without C; `None`: there is no Go, which no host must have.
    pub(crate) fn build_go(&self, name: &str) -> Option<PathBuf> {
        let source = super::root().join("crates/gate/tests/programs").join(format!("{name}.go"));
        let target = self.path(name);
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&target).arg(source);
        go.env("GO111MODULE", "off").env("CGO_ENABLED", "0").env("GOCACHE", self.path("go-cache"));
        let Ok(output) = go.output() else {
            println!("SKIPPED: there is no Go");
            return None;
        };
        assert!(output.status.success(), "{name}.go: {}", super::text(&output.stderr));
        Some(target)
    }

    /// The command, as this user, with folders for temporary files of its own.
    pub(crate) fn luosim(&self, user: Option<u32>) -> Command {
        self.command(&self.path("luosim"), user)
    }

    /// Another program, as [`Self::luosim`] is run.
    pub(crate) fn command(&self, program: &Path, user: Option<u32>) -> Command {
        let mut command = Command::new(program);
        for name in ["XDG_RUNTIME_DIR", "LUOSIM_LOG", "LUOSIM_GENERATION", "RUST_BACKTRACE", "CLICOLOR_FORCE"]
        {
            command.env_remove(name);
        }
        command.env("TMPDIR", self.path("tmp")).env("NO_COLOR", "1").current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `luosim exec` to its end.
    pub(crate) fn exec(&self, user: Option<u32>, arguments: &[&str]) -> Ran {
        let child = self.luosim(user).arg("exec").args(arguments).spawn().expect("the command starts");
        finish(child, &format!("luosim exec {}", arguments.join(" ")))
    }

    /// Answer of `luosim ctl` about this workshop's newest run.
    pub(crate) fn ctl(&self, user: Option<u32>, ask: &str) -> Ran {
        finish(self.luosim(user).args(["ctl", ask]).spawn().expect("the command starts"), ask)
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        super::text(&bytes)
    })
}

/// Waits for the end of a command, but not for ever.
pub(crate) fn finish(mut child: Child, what: &str) -> Ran {
    let stdout = drain(child.stdout.take().expect("a pipe"));
    let stderr = drain(child.stderr.take().expect("a pipe"));
    let status = wait(&mut child);
    let ended = status.unwrap_or_else(|| {
        let _ = child.kill();
        child.wait().expect("it is ours")
    });
    let (stdout, stderr) = (stdout.join().expect("no panic"), stderr.join().expect("no panic"));
    assert!(status.is_some(), "{what}: not done after {PATIENCE:?}\n{stdout}{stderr}");
    Ran { status: ended, stdout, stderr }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
