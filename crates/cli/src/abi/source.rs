//! Where an interface comes from: a release, a posted design, or a header file.

use std::path::{Path, PathBuf};

use luosim_uapi::header::Library;
use luosim_uapi::interface::{self, Interface, NAMES};

use super::headers::{self, HeaderError, Includes};

/// An interface that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("`{name}` is neither a release nor a file; luosim knows {}", NAMES.join(", "))]
    Unknown { name: String },
    #[error("Linux {name} has no /dev/liveupdate: there is no interface to look at")]
    None { name: String },
}

/// The interface that `name` means. A release comes first; `./7.3` is a file.
pub(crate) fn interface(name: &str, include: &[PathBuf]) -> Result<Interface, SourceError> {
    if let Some(interface) = interface::release(name) {
        if interface.commands.is_empty() {
            return Err(SourceError::None { name: name.to_owned() });
        }
        return Ok(interface);
    }
    let path = Path::new(name);
    if !path.exists() && !name.contains('/') && path.extension().is_none_or(|extension| extension != "h") {
        return Err(SourceError::Unknown { name: name.to_owned() });
    }
    let source = headers::read(path)?;
    let loaded = Library::new(Includes::new(include)).read(source);
    Ok(interface::of_header(&loaded))
}
