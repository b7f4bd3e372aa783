//! Where handover memory comes from. Files are told apart by what is in them, never by their names.
//!
//! Contract: any file gives memory, a blob, or an error that says what to do. Memory in a file stays there and
//! is read by position; of a packed image the pages that are not zero are kept. Not here: what the bytes mean.

mod core;
mod file;
mod foreign;
mod manifest;
mod packed;
mod pages;

use std::fs::File;
use std::io::{BufReader, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use luosim_abi::fdt;
use luosim_physmem::{AccessError, PAGE_SIZE, PhysAddr, ReadPhys};

use self::file::{FileMemory, Segment};
use self::manifest::Manifest;
use self::pages::Pages;

pub(crate) use self::pages::is_zero;

/// Hears of a range of memory: its first address, which is a page's, and its bytes.
pub(crate) type Visit<'a> = dyn FnMut(PhysAddr, &[u8]) -> ControlFlow<()> + 'a;

/// Largest file that is taken for a single blob.
const MAX_BLOB: u64 = 1 << 20;
const FOUR_GIB: u64 = 4 << 30;

/// A source that cannot be read as one.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct OpenError {
    /// The file.
    pub path: String,
    /// What is wrong, and what to do.
    pub why: String,
}

/// Memory of a machine that is not running.
#[derive(Debug)]
pub struct Memory(Kind);

#[derive(Debug)]
enum Kind {
    File(FileMemory),
    Pages(Pages),
}

impl Memory {
    /// Memory with these bytes from address 0 on.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Kind::Pages(Pages::of(bytes)))
    }

    /// Memory of `size` bytes with these pages, ascending, and zeros elsewhere.
    #[must_use]
    pub fn of_pages<'p>(size: u64, pages: impl IntoIterator<Item = (PhysAddr, &'p [u8])>) -> Self {
        let mut kept = Pages::default();
        for (at, bytes) in pages {
            kept.append(at.raw(), bytes);
        }
        kept.set_size(size);
        Self(Kind::Pages(kept))
    }

    /// Shows every range that may hold something else than zeros, ascending.
    pub(crate) fn visit(&self, visit: &mut Visit<'_>) {
        let _ = match &self.0 {
            Kind::File(memory) => memory.visit(visit),
            Kind::Pages(pages) => pages.visit(visit),
        };
    }

    /// What the host said when bytes that should be there could not be read.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.0 {
            Kind::File(memory) => memory.failure(),
            Kind::Pages(_) => None,
        }
    }
}

impl ReadPhys for Memory {
    fn size(&self) -> u64 {
        match &self.0 {
            Kind::File(memory) => memory.size(),
            Kind::Pages(pages) => pages.size(),
        }
    }

    fn read_bytes(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError> {
        match &self.0 {
            Kind::File(memory) => memory.read(addr, buf),
            Kind::Pages(pages) => pages.read(addr, buf),
        }
    }
}

/// The root tree and the scratch array, as far as somebody says where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The root tree.
    pub root: Option<PhysAddr>,
    /// The scratch array and its size.
    pub scratch: Option<(PhysAddr, u64)>,
}

/// What a source holds.
#[derive(Debug)]
pub enum Contents {
    /// Memory.
    Memory(Memory),
    /// A single blob, copied from debugfs.
    Blob(Vec<u8>),
}

/// An opened source.
#[derive(Debug)]
pub struct Source {
    /// `raw`, `zstd`, `image`, `elf-core` or `blob`.
    pub kind: &'static str,
    /// What it holds.
    pub contents: Contents,
    /// What its manifest says.
    pub hints: Hints,
    /// Release that wrote it, as the manifest says.
    pub kernel: Option<String>,
    /// What is odd about the file.
    pub notes: Vec<String>,
}

impl Source {
    fn new(kind: &'static str, contents: Contents) -> Self {
        Self { kind, contents, hints: Hints::default(), kernel: None, notes: Vec::new() }
    }

    /// Opens the source at `path`. `low` is the memory below 4 GiB of a raw file: the rest of the file is at 4 GiB
    /// and above, as QEMU lays out the memory of a machine.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, low: Option<u64>) -> Result<Self, OpenError> {
        let fail = |why: String| OpenError { path: path.display().to_string(), why };
        let data = path.metadata().map_err(|error| fail(error.to_string()))?;
        if data.is_dir() {
            return folder(path);
        }
        if !data.is_file() {
            return Err(fail(String::from("it is no file: copy the memory into one")));
        }
        let file = File::open(path).map_err(|error| fail(error.to_string()))?;
        told_apart(file, data.len(), low).map_err(fail)
    }
}

fn told_apart(file: File, len: u64, low: Option<u64>) -> Result<Source, String> {
    let mut head = [0; 64];
    let there = usize::try_from(len.min(64)).expect("at most 64");
    file.read_exact_at(&mut head[..there], 0).map_err(|error| error.to_string())?;
    let head = &head[..there];
    if let Some(why) = foreign::refusal(head) {
        return Err(why);
    }
    if head.starts_with(&packed::MAGIC) {
        let memory = Memory(Kind::Pages(unpack(file)?));
        return Ok(Source::new("zstd", Contents::Memory(memory)));
    }
    if head.starts_with(b"\x7fELF") {
        let (segments, notes) = core::segments(&file, len)?;
        let memory = Memory(Kind::File(FileMemory::new(file, segments)));
        return Ok(Source { notes, ..Source::new("elf-core", Contents::Memory(memory)) });
    }
    if is_blob(head, len) {
        let mut bytes = vec![0; usize::try_from(len).expect("a small file")];
        file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
        return Ok(Source::new("blob", Contents::Blob(bytes)));
    }
    raw(file, len, low).map(|memory| Source::new("raw", Contents::Memory(memory)))
}

/// A small file that begins as a tree, `struct luo_ser` or the metadata does. Memory begins with something else:
/// and where it begins with a tree (arm64), it is large.
fn is_blob(head: &[u8], len: u64) -> bool {
    let tree = head.starts_with(&fdt::MAGIC.to_be_bytes()) && len <= MAX_BLOB;
    let ser = head.starts_with(b"luo-v") && (32..=PAGE_SIZE).contains(&len);
    let metadata = head.starts_with(&[1, 0, 0, 0]) && len == luosim_abi::kho::metadata::SIZE;
    tree || ser || metadata
}

fn raw(file: File, len: u64, low: Option<u64>) -> Result<Memory, String> {
    if len < PAGE_SIZE {
        return Err(String::from(
            "it is no handover memory: neither a tree, `struct luo_ser` or metadata, nor as large as a page",
        ));
    }
    let low = low.unwrap_or(len).min(len);
    let segments = vec![
        Segment { start: 0, len: low, offset: 0, filed: low },
        Segment { start: FOUR_GIB.max(low), len: len - low, offset: low, filed: len - low },
    ];
    Ok(Memory(Kind::File(FileMemory::new(file, segments))))
}

fn unpack(mut file: File) -> Result<Pages, String> {
    file.rewind().map_err(|error| error.to_string())?;
    packed::unpack(file)
}

/// A folder with `manifest.json` and the memory.
fn folder(path: &Path) -> Result<Source, OpenError> {
    let fail = |path: &PathBuf, why: String| OpenError { path: path.display().to_string(), why };
    let name = path.join("manifest.json");
    let text =
        File::open(&name).map_err(|error| fail(&name, format!("a folder needs a manifest: {error}")))?;
    let manifest: Manifest = serde_json::from_reader(BufReader::new(text))
        .map_err(|error| fail(&name, format!("it is no manifest: {error}")))?;
    let (packed, plain) = (path.join("ram.zst"), path.join("ram.bin"));
    let memory = if packed.exists() { packed } else { plain };
    let contents = memory_of(&memory, manifest.mem_bytes).map_err(|why| fail(&memory, why))?;
    let hints = manifest.kho.map_or_else(Hints::default, |kho| Hints {
        root: Some(kho.fdt_phys),
        scratch: Some((kho.scratch_phys, kho.scratch_size)),
    });
    let mut source =
        Source { hints, kernel: manifest.kernel, ..Source::new("image", Contents::Memory(contents)) };
    if source.hints.root.is_none() {
        source.notes.push(String::from("the manifest says that no handover was passed on"));
    }
    Ok(source)
}

/// The memory of an image, which must be `bytes` long.
fn memory_of(path: &Path, bytes: u64) -> Result<Memory, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    let mut head = [0; 4];
    let packed = file.read_exact_at(&mut head, 0).is_ok() && head == packed::MAGIC;
    let memory = if packed { Memory(Kind::Pages(unpack(file)?)) } else { raw(file, len, None)? };
    if memory.size() == bytes {
        return Ok(memory);
    }
    Err(format!("it holds {} bytes of memory, and the manifest says {bytes}", memory.size()))
}
