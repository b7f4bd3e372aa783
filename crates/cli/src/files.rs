//! Finding and reading scenario files.

use std::path::{Path, PathBuf};

use luosim_scenario::{Scenario, parse};

use crate::message;

/// A file that is no good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The path.
        path: String,
        /// What the host said.
        source: std::io::Error,
    },
    /// A folder without scenarios.
    #[error("{path}: there is no scenario (*.kdl) in this folder")]
    Empty {
        /// The path.
        path: String,
    },
}

/// The scenario files that `paths` name: files as they are, folders with everything below them, sorted.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    let mut found = Vec::new();
    for path in paths {
        let read = |source| InputError::Read { path: path.display().to_string(), source };
        if std::fs::metadata(path).map_err(read)?.is_dir() {
            let before = found.len();
            walk(path, &mut found).map_err(read)?;
            if found.len() == before {
                return Err(InputError::Empty { path: path.display().to_string() });
            }
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut paths: Vec<PathBuf> = entries?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "kdl") {
            found.push(path);
        }
    }
    Ok(())
}

/// Reads one scenario; problems are printed with the place they point at.
pub(crate) fn read(path: &Path) -> Option<Scenario> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            message(format_args!("{}: {error}", path.display()));
            return None;
        }
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            message(format_args!("{}: byte {at} is not UTF-8; scenarios are UTF-8 text", path.display()));
            return None;
        }
    };
    match parse(&text) {
        Ok(scenario) => Some(scenario),
        Err(problems) => {
            crate::render::diagnostics(path, &text, &problems);
            None
        }
    }
}
