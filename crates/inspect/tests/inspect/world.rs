//! What the tests share: the recorded images, reports of them, and memory that can be changed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use luosim_inspect::{Contents, Hints, Inspection, Memory, Options, Severity, Source, inspect};
use luosim_physmem::PhysAddr;
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

/// The small set of one kernel.
pub(crate) fn small(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../sim/tests/data/golden/{kernel}/small"))
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

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("text");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

/// Recorded memory that can be changed.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) size: u64,
    pub(crate) hints: Hints,
    pages: BTreeMap<u64, [u8; 4096]>,
}

impl World {
    /// The small set of `kernel`, unpacked once.
    pub(crate) fn new(kernel: &str) -> Self {
        static UNPACKED: Mutex<BTreeMap<String, World>> = Mutex::new(BTreeMap::new());
        let mut unpacked = UNPACKED.lock().expect("nobody panics while unpacking");
        unpacked.entry(kernel.to_owned()).or_insert_with(|| Self::unpack(kernel)).clone()
    }

    fn unpack(kernel: &str) -> Self {
        let (folder, mut pages) = (small(kernel), BTreeMap::new());
        let (manifest, mut page) = (manifest(&folder), [0; 4096]);
        let size = manifest["mem_bytes"].as_u64().expect("a number");
        let file = std::fs::File::open(folder.join("ram.zst")).expect("the memory");
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(file).expect("zstd");
        for place in 0..size / 4096 {
            decoder.read_exact(&mut page).expect("a page");
            if page != [0; 4096] {
                pages.insert(place, page);
            }
        }
        let kho = &manifest["kho"];
        let scratch =
            (PhysAddr::new(number(&kho["scratch_phys"])), kho["scratch_size"].as_u64().expect("a number"));
        let hints = Hints { root: Some(PhysAddr::new(number(&kho["fdt_phys"]))), scratch: Some(scratch) };
        Self { size, hints, pages }
    }

    /// Memory of zeros.
    pub(crate) fn small(size: u64) -> Self {
        Self { size, hints: Hints::default(), pages: BTreeMap::new() }
    }

    pub(crate) fn read(&self, at: u64) -> u64 {
        let skip = usize::try_from(at % 4096).expect("inside a page");
        let page = self.pages.get(&(at / 4096)).copied().unwrap_or([0; 4096]);
        u64::from_le_bytes(page[skip..skip + 8].try_into().expect("8 bytes"))
    }

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            let page = self.pages.entry(at / 4096).or_insert([0; 4096]);
            page[usize::try_from(at % 4096).expect("inside a page")] = *byte;
        }
    }

    pub(crate) fn word(&mut self, at: u64, word: u64) {
        self.write(at, &word.to_le_bytes());
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size).expect("it fits")];
        for (number, page) in &self.pages {
            let at = usize::try_from(number * 4096).expect("it fits");
            bytes[at..at + 4096].copy_from_slice(page);
        }
        bytes
    }

    pub(crate) fn inspect(&self) -> Inspection {
        self.inspect_at(self.hints)
    }

    pub(crate) fn inspect_at(&self, hints: Hints) -> Inspection {
        let pages = self.pages.iter().map(|(number, page)| (PhysAddr::new(number * 4096), &page[..]));
        let contents = Contents::Memory(Memory::of_pages(self.size, pages));
        let source =
            Source { kind: "raw", contents, hints: Hints::default(), kernel: None, notes: Vec::new() };
        inspect(source, &Options { hints, digest: true })
    }
}
