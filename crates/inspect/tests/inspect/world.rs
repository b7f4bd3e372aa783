//! What the tests share: the recorded images, and reports of them.

use std::path::{Path, PathBuf};

use luosim_inspect::{Inspection, Options, Severity, Source, inspect};
use serde_json::Value;

/// The folders of the recorded images in this repository.
pub(crate) fn recorded() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/tests/data/golden");
    let mut found = Vec::new();
    for kernel in std::fs::read_dir(root).expect("the recorded images").flatten() {
        if kernel.path().is_dir() {
            let sets = std::fs::read_dir(kernel.path()).expect("a folder").flatten();
            found.extend(sets.map(|set| set.path()).filter(|path| path.join("manifest.json").exists()));
        }
    }
    found.sort();
    assert!(found.len() >= 2, "{found:?}");
    found
}

pub(crate) fn manifest(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
    serde_json::from_str(&text).expect("a manifest")
}

pub(crate) fn open(path: &Path) -> Source {
    Source::open(path, None).expect("a source")
}

/// An inspection with digests.
pub(crate) fn inspected(path: &Path) -> Inspection {
    inspect(open(path), &Options { digest: true, ..Options::default() })
}

/// The findings that `--strict` counts, as text.
pub(crate) fn complaints(inspection: &Inspection) -> Vec<String> {
    let findings = inspection.report.findings.iter().filter(|finding| finding.severity > Severity::Info);
    findings.map(|finding| format!("{} {}: {}", finding.at, finding.field, finding.what)).collect()
}
