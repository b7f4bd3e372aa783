//! What was found, as data: the form of `luosim inspect --format json`.
//!
//! Versioned ([`VERSION`]); documented field by field in the book, chapter "Inspection as JSON", which a test
//! compares with real output. Physical addresses are text in hexadecimal, names are given twice: readable with
//! odd bytes escaped, and exact in hexadecimal. Not here: how it is shown.

use std::collections::BTreeMap;
use std::fmt;

use luosim_physmem::PhysAddr;
use serde::{Serialize, Serializer};

use crate::findings::Finding;

/// Version of the form.
pub const VERSION: u32 = 1;

/// A physical address that is written in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addr(pub PhysAddr);

impl Addr {
    /// The address `raw`.
    #[must_use]
    pub fn new(raw: u64) -> Self {
        Self(PhysAddr::new(raw))
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes that are usually text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Vec<u8>);

impl Name {
    /// The bytes in hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => write!(f, "\\{character}")?,
                    _ if character.is_control() => write!(f, "\\u{{{:x}}}", u32::from(character))?,
                    _ => write!(f, "{character}")?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Hexadecimal text of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that was found in one source.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Where it was read.
    pub source: SourceInfo,
    /// Root trees that a search found, best first; empty if the address was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// The root tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// A single blob, when the source is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<Blob>,
    /// What is preserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,
    /// The scratch areas; absent if nobody knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// Who the previous kernel was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The orchestrator's data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub luo: Option<Luo>,
    /// Named reservations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reserve_mem: Vec<ReserveMem>,
    /// The test module's data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kho_test: Option<KhoTest>,
    /// Subtrees that nobody here knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// What is wrong or worth knowing, in the order it was found.
    pub findings: Vec<Finding>,
    /// Findings that were left out because there are too many.
    pub findings_left_out: u64,
}

/// Where the memory was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceInfo {
    /// `raw`, `zstd`, `image`, `elf-core` or `blob`.
    pub kind: &'static str,
    /// Bytes of memory, or of the blob.
    pub bytes: u64,
    /// Release that wrote the memory, as the manifest says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

/// A root tree that a search found.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its address.
    pub at: Addr,
    /// Its version string.
    pub compatible: String,
    /// Why it stands where it stands in the list.
    pub why: String,
}

/// The root tree.
#[derive(Clone, Debug, Serialize)]
pub struct Root {
    /// Its address.
    pub at: Addr,
    /// Its version, `kho-v4`.
    pub compatible: String,
    /// Bytes of the tree.
    pub bytes: u64,
    /// First page of the memory map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_at: Option<Addr>,
    /// The subtrees in the order of the tree.
    pub subtrees: Vec<Subtree>,
}

/// A subtree.
#[derive(Clone, Debug, Serialize)]
pub struct Subtree {
    /// Its name.
    pub name: String,
    /// Its blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Addr>,
    /// Bytes of the blob; `kho-v1` and `kho-v2` do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What is preserved.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Map {
    /// Blocks.
    pub blocks: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Blocks by order.
    pub orders: Vec<OrderCount>,
    /// Pages of the tracker itself.
    pub tracker_pages: u64,
    /// Blocks that no structure leads to.
    pub unowned_blocks: u64,
    /// Bytes in them.
    pub unowned_bytes: u64,
}

/// Blocks of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OrderCount {
    /// The order.
    pub order: u32,
    /// Blocks.
    pub blocks: u64,
}

/// The scratch areas.
#[derive(Clone, Debug, Serialize)]
pub struct Scratch {
    /// The array; absent if areas were named by hand.
    pub at: Addr,
    /// Who says so: `given`, `manifest` or `setup-data`.
    pub from: &'static str,
    /// The areas: low, global, one per node.
    pub areas: Vec<Area>,
}

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Area {
    /// First byte.
    pub at: Addr,
    /// Bytes.
    pub bytes: u64,
}

/// Who the previous kernel was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Its address.
    pub at: Addr,
    /// Version of the structure.
    pub version: u32,
    /// `uname -r` of the writer.
    pub release: String,
    /// Kexecs since the last cold boot.
    pub kexec_count: u32,
}

/// The orchestrator's data.
#[derive(Clone, Debug, Serialize)]
pub struct Luo {
    /// The tree or structure.
    pub at: Addr,
    /// `luo-v1` or `luo-v5`.
    pub compatible: String,
    /// The live update number of the kernel that receives this.
    pub number: u64,
    /// Session area or first session block; absent without sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_at: Option<Addr>,
    /// The sessions, in order.
    pub sessions: Vec<Session>,
    /// Page of the file-lifecycle-bound objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flbs_at: Option<Addr>,
    /// The objects.
    pub flbs: Vec<Flb>,
}

/// A session.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    /// Its place among all sessions, from 0; findings name it by this.
    pub index: usize,
    /// Its name.
    pub name: Name,
    /// Its name, exactly.
    pub name_hex: String,
    /// Its record.
    pub at: Addr,
    /// File array or first file block; absent without files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_at: Option<Addr>,
    /// Files, as the record says.
    pub count: u64,
    /// The files that were found, in order.
    pub files: Vec<File>,
}

/// A preserved file.
#[derive(Clone, Debug, Serialize)]
pub struct File {
    /// Its place in the session, from 0.
    pub index: usize,
    /// Its token.
    pub token: u64,
    /// String of the handler.
    pub handler: Name,
    /// Its record.
    pub at: Addr,
    /// The handler's value.
    pub data: Addr,
    /// The decoded state of a memfd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memfd: Option<Memfd>,
}

/// A preserved memory file.
#[derive(Clone, Debug, Serialize)]
pub struct Memfd {
    /// Bytes.
    pub size: u64,
    /// Position.
    pub pos: u64,
    /// Seals; `memfd-v1` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seals: Option<u32>,
    /// Flags; `memfd-v1` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<u32>,
    /// Entries of the folio table, as the structure says.
    pub folios: u64,
    /// Folios by order, as the memory map says.
    pub orders: Vec<OrderCount>,
    /// Pages of the file that no folio covers.
    pub holes: u64,
    /// Folios whose contents are not valid: they read as zeros.
    pub not_uptodate: u64,
    /// First chunk of the folio table; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_at: Option<Addr>,
    /// Pages of the folio table.
    pub table_pages: u64,
    /// Digest of the contents, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A file-lifecycle-bound object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flb {
    /// Its string.
    pub name: Name,
    /// Its owner's value.
    pub data: Addr,
    /// Files that depend on it.
    pub count: u64,
}

/// A named reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReserveMem {
    /// Its name.
    pub name: String,
    /// First byte.
    pub at: Addr,
    /// Bytes.
    pub bytes: u64,
}

/// The test module's data.
#[derive(Clone, Debug, Serialize)]
pub struct KhoTest {
    /// Its tree.
    pub at: Addr,
    /// Folios, as the tree says.
    pub folios: u64,
    /// Folios by order, as the array says.
    pub orders: Vec<OrderCount>,
    /// Sum over their contents, as the tree says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csum: Option<u32>,
}

/// A subtree nobody here knows.
#[derive(Clone, Debug, Serialize)]
pub struct Unknown {
    /// Its name.
    pub name: String,
    /// Its blob.
    pub at: Addr,
    /// `compatible` of its root, if it is a tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compatible: Option<String>,
    /// Its first bytes, hexadecimal.
    pub head: String,
}

/// A single blob.
#[derive(Clone, Debug, Serialize)]
pub struct Blob {
    /// `kho-root`, `luo-v1`, `luo-v5`, `memblock`, `kho-test`, `kexec-metadata` or `tree`.
    pub kind: &'static str,
    /// Its values, in order: path and value as text.
    pub values: Vec<BlobValue>,
}

/// A value in a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlobValue {
    /// `luo-session/luo-session-header`.
    pub path: String,
    /// The value as text.
    pub value: String,
}

/// Counts by order as a list, ascending.
pub(crate) fn by_order(counts: &BTreeMap<u32, u64>) -> Vec<OrderCount> {
    counts.iter().map(|(order, blocks)| OrderCount { order: *order, blocks: *blocks }).collect()
}

/// Names of seals, `SHRINK|GROW`; the bits that have none as a number.
#[must_use]
pub fn seal_names(seals: u32) -> String {
    const NAMES: [&str; 6] = ["SEAL", "SHRINK", "GROW", "WRITE", "FUTURE_WRITE", "EXEC"];
    let known =
        (0..).zip(NAMES).filter(|(bit, _)| seals & (1u32 << bit) != 0).map(|(_, name)| name.to_owned());
    let rest = seals & !luosim_abi::memfd::v2::SEALS;
    let all: Vec<String> = known.chain((rest != 0).then(|| format!("{rest:#x}"))).collect();
    if all.is_empty() { String::from("none") } else { all.join("|") }
}
