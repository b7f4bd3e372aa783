//! Header files of the host: found, read, and found again where others include them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use luosim_uapi::header::{Find, Found, Source};

/// A file that cannot be read, or a folder without headers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: there is no header (*.h) in this folder")]
    Empty { path: String },
}

/// Looks for included headers: beside the one that includes, in the folders above it, in the folders that were named.
#[derive(Debug, Default)]
pub(crate) struct Includes {
    /// Folders of `--include`.
    pub(crate) folders: Vec<PathBuf>,
    read: BTreeSet<String>,
}

impl Includes {
    pub(crate) fn new(folders: &[PathBuf]) -> Self {
        Self { folders: folders.to_vec(), read: BTreeSet::new() }
    }
}

impl Find for Includes {
    fn find(&mut self, from: &str, path: &str) -> Option<Found> {
        // Paths outside of the folders, and devices, are nobody's headers.
        if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return None;
        }
        let above = Path::new(from).ancestors().skip(1).map(Path::to_path_buf);
        for folder in above.chain(self.folders.iter().cloned()) {
            let file = folder.join(path);
            let name = file.display().to_string();
            if self.read.contains(&name) {
                return Some(Found::Known(name));
            }
            if file.is_file() {
                let source = read(&file).ok()?;
                self.read.insert(name);
                return Some(Found::New(source));
            }
        }
        None
    }
}

/// Reads a header. Bytes that are no text are replaced, so that the rest can be looked at.
pub(crate) fn read(path: &Path) -> Result<Source, HeaderError> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => Ok(Source { name, text: String::from_utf8_lossy(&bytes).into_owned() }),
        Err(source) => Err(HeaderError::Read { path: name, source }),
    }
}

/// The headers that `paths` name: files as they are, folders with every `*.h` below them, sorted.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, HeaderError> {
    let mut found = Vec::new();
    for path in paths {
        let name = || path.display().to_string();
        let failed = |source| HeaderError::Read { path: name(), source };
        if std::fs::metadata(path).map_err(failed)?.is_dir() {
            let before = found.len();
            walk(path, &mut found).map_err(failed)?;
            if found.len() == before {
                return Err(HeaderError::Empty { path: name() });
            }
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        // Links to folders are not followed: they may lead in circles.
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), found)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "h") {
            found.push(entry.path());
        }
    }
    Ok(())
}
