//! What the tests of the command share.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

pub(crate) mod gate;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Map, Value};

/// How often, and in which steps, a test looks whether a run has done what is expected of it: a minute at least.
const LOOKS: u32 = 12_000;
const STEP: Duration = Duration::from_millis(5);

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A page of the repository.
pub(crate) fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documented fields of a JSON object: their types, and whether they are always there.
pub(crate) type Fields = BTreeMap<String, (String, bool)>;

/// The cells of a row of a table.
pub(crate) fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
}

/// The tables of `docs/json.md` behind comments `MARKER: NAME`, by name.
pub(crate) fn json_tables(marker: &str) -> BTreeMap<String, Fields> {
    let page = page("docs/json.md");
    let start = format!("<!-- {marker}: ");
    let tables = page.split(start.as_str()).skip(1).map(|part| {
        let (name, rest) = part.split_once(" -->").expect("a marker ends");
        let mut rows = rest.trim_start().lines();
        assert_eq!(rows.next(), Some("| field | type | always | meaning |"), "{name}");
        let rows = rows.skip(1).take_while(|row| row.starts_with('|')).map(cells);
        let fields = rows.map(|row| (row[0].to_owned(), (row[1].to_owned(), row[2] == "yes")));
        (name.to_owned(), fields.collect())
    });
    tables.collect()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Compares objects that were seen, by name, with the documented ones: no field, type or `always` differs.
pub(crate) fn check_json(
    documented: &BTreeMap<String, Fields>,
    seen: &BTreeMap<String, Vec<Map<String, Value>>>,
) {
    assert_eq!(seen.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (name, objects) in seen {
        let fields = &documented[name];
        for object in objects {
            for (field, value) in object {
                let (kind, _) =
                    fields.get(field).unwrap_or_else(|| panic!("`{field}` of {name} is not documented"));
                assert_eq!(kind_of(value), kind, "`{field}` of {name}");
            }
        }
        for (field, (_, always)) in fields {
            let count = objects.iter().filter(|object| object.contains_key(field)).count();
            assert!(count > 0, "`{field}` of {name} is documented and never written");
            assert_eq!(count == objects.len(), *always, "`{field}` of {name}: is it always there?");
        }
    }
}

/// Runs the command in `folder`, as in a pipe of a plain terminal.
pub(crate) fn luosim_in(folder: &Path, arguments: &[&str]) -> Output {
    command_in(folder).args(arguments).output().expect("the command starts")
}

/// Runs the command at the root of the workspace.
pub(crate) fn luosim(arguments: &[&str]) -> Output {
    luosim_in(&root(), arguments)
}

/// Output as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder in which `sim-scenarios` is the one of the workspace, with control sockets of its own.
pub(crate) fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join(RUN)).expect("writable");
    let scenarios = root().join("sim-scenarios").canonicalize().expect("the scenarios");
    std::os::unix::fs::symlink(scenarios, folder.path().join("sim-scenarios")).expect("a link");
    folder
}

/// Where a workshop's runs of `luosim exec` have their control sockets.
pub(crate) const RUN: &str = "run";

/// The command in `folder`, as a plain terminal would start it.
fn command_in(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luosim"));
    command.current_dir(folder);
    for name in ["COLUMNS", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "LUOSIM_LOG", "RUST_LOG"] {
        command.env_remove(name);
    }
    if folder.join(RUN).is_dir() {
        command.env("XDG_RUNTIME_DIR", folder.join(RUN));
    }
    command.env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8");
    command
}

/// Says what this host cannot test.
#[expect(clippy::print_stderr, reason = "a test that is left out should be seen")]
pub(crate) fn not_tested(why: &str) {
    eprintln!("NOT TESTED: {why}");
}

/// Whether this host can run programs on the gate. Where it cannot, tests that need it print a note and pass, but
/// not in CI.
pub(crate) fn gate_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let folder = workshop();
        let output = luosim_in(folder.path(), &["exec", "--quiet", "--", "true"]);
        let works = output.status.success();
        if !works {
            not_tested(&format!("this host cannot run `luosim exec`: {}", text(&output.stderr)));
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI must be able to run the gate");
        }
        works
    })
}

/// The folder with the built examples of the crate `liveupdate`: `target/debug/examples` or the like.
pub(crate) fn examples() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_luosim")).parent().expect("it lies in a folder");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let mut cargo = Command::new(cargo);
        cargo.args(["build", "--quiet", "-p", "liveupdate", "--examples", "--target-dir"]);
        cargo.arg(profile.parent().expect("a target folder")).current_dir(root());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo starts").success(), "the examples do not build");
        profile.join("examples")
    });
    built.clone()
}

/// A run of `luosim exec` in the background; killed when dropped. What it and its programs print goes to one file.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    printed: PathBuf,
}

impl Running {
    /// Starts the command in `folder`.
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let printed = folder.join("printed");
        let file = File::create(&printed).expect("writable");
        let errors = file.try_clone().expect("a copy");
        let mut command = command_in(folder);
        command.args(arguments).stdin(Stdio::null()).stdout(file).stderr(errors);
        Self { child: command.spawn().expect("the command starts"), printed }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What was printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.printed).expect("readable")
    }

    /// Waits until what was printed from byte `from` on is `good`; returns it.
    pub(crate) fn wait_until(&self, from: usize, good: impl Fn(&str) -> bool) -> String {
        for _ in 0..LOOKS {
            let printed = self.printed().split_off(from);
            if good(&printed) {
                return printed;
            }
            std::thread::sleep(STEP);
        }
        panic!("it does not come; printed:\n{}", self.printed());
    }

    /// Waits for its end; returns the exit code and everything printed.
    pub(crate) fn end(&mut self) -> (i32, String) {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return (status.code().expect("it was not killed"), self.printed());
            }
            std::thread::sleep(STEP);
        }
        panic!("it does not end; printed:\n{}", self.printed());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one document that a command prints on one line, which ends with this exit code.
pub(crate) fn json_document(arguments: &[&str], code: i32) -> Value {
    let output = luosim(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 1, "one document on one line");
    serde_json::from_str(&printed).expect("JSON")
}

/// A field of a document that is a list.
pub(crate) fn list<'a>(document: &'a Value, field: &str) -> &'a Vec<Value> {
    document[field].as_array().unwrap_or_else(|| panic!("{field} is a list"))
}
