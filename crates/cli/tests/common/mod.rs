//! What the tests of the command share.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

pub(crate) mod gate;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A page of the repository.
pub(crate) fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs the command in `folder`, as in a pipe of a plain terminal.
pub(crate) fn luosim_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luosim"));
    command.args(arguments).current_dir(folder);
    for name in ["COLUMNS", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "LUOSIM_LOG", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8").output().expect("the command starts")
}

/// Runs the command at the root of the workspace.
pub(crate) fn luosim(arguments: &[&str]) -> Output {
    luosim_in(&root(), arguments)
}

/// Output as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder in which `sim-scenarios` is the one of the workspace.
pub(crate) fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let scenarios = root().join("sim-scenarios").canonicalize().expect("the scenarios");
    std::os::unix::fs::symlink(scenarios, folder.path().join("sim-scenarios")).expect("a link");
    folder
}
