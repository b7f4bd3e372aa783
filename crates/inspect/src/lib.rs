//! Reads handover memory of any kernel and says what is in it and what is wrong with it.
//!
//! [`Source::open`] tells images apart by their content; [`inspect`] reads what the root tree leads to into a
//! [`Report`], which is data; [`diff`](diff::diff) compares two handovers by meaning. What the bytes say decides,
//! not a release.
//!
//! Contract: any file gives a report or an error that says what to do. Bytes are hostile: no bytes cause a panic,
//! an endless loop, or memory beyond what the structures themselves hold. Nothing is changed, and nothing is
//! rendered. Mirrors the readers in `kernel/liveupdate/` and `mm/memfd_luo.c`.
//!
//! Not here: booting on an image (crate `luosim-machine`), text and pictures (crate `luosim`).

#![forbid(unsafe_code)]

mod blob;
mod claims;
mod contents;
pub mod diff;
mod findings;
mod image;
mod preserved;
pub mod report;
mod scan;
mod walk;

use std::collections::BTreeMap;

use luosim_physmem::{MemError, PAGE_SIZE, Pfn, PhysAddr, PhysMem, ReadPhys};

pub use crate::claims::{Owned, Owner};
pub use crate::findings::{Finding, Severity};
pub use crate::image::{Contents, Hints, Memory, OpenError, Source};
pub use crate::report::Report;

use crate::contents::Extent;
use crate::findings::Findings;
use crate::report::{SourceInfo, VERSION};
use crate::walk::{Walk, Walked, Wish};

/// What is asked for. Addresses given here are believed more than a manifest, a manifest more than a search.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Where the root tree and the scratch array are.
    pub hints: Hints,
    /// Make digests of the contents of all files.
    pub digest: bool,
}

/// What was found, with what is needed to look further.
#[derive(Debug)]
pub struct Inspection {
    /// What was found.
    pub report: Report,
    /// Who owns which page, ascending; scratch is in the report.
    pub owned: Vec<Owned>,
    memory: Option<Memory>,
    /// Where the contents of each memory file lie, by session and file.
    contents: BTreeMap<(usize, usize), Vec<Extent>>,
}

impl Inspection {
    /// Bytes of the memory that was inspected; 0 for a blob.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.memory.as_ref().map_or(0, ReadPhys::size)
    }

    /// A memory of the same size with every page that has an owner and the scratch array: all that a kernel needs to
    /// boot on this handover.
    ///
    /// # Errors
    /// [`MemError`]: no room on the host, or no memory was inspected.
    pub fn copy_owned(&self) -> Result<PhysMem, MemError> {
        let mut copy = PhysMem::anonymous(self.memory_size().next_multiple_of(PAGE_SIZE))?;
        let Some(memory) = &self.memory else { return Ok(copy) };
        let array = self.report.scratch.iter().map(|scratch| (scratch.at.0.pfn(), 1));
        let owned = self.owned.iter().map(|run| (run.pfn, run.pages));
        let mut page = [0; 4096];
        for (first, pages) in array.chain(owned) {
            for pfn in first.raw()..first.raw().saturating_add(pages) {
                let at = Pfn::new(pfn).addr();
                // What the source lacks reads as zeros.
                if memory.read_bytes(at, &mut page).is_ok() && page.iter().any(|byte| *byte != 0) {
                    copy.write(at, &page).expect("it lies in the source, which is as large");
                }
            }
        }
        Ok(copy)
    }

    /// Writes the contents of a memory file into `to`, an empty file; pages of zeros become holes. `false` if the
    /// file is none or was not decoded.
    ///
    /// # Errors
    /// What the host says, or that the contents do not lie in memory.
    pub fn extract(&self, session: usize, file: usize, to: &std::fs::File) -> std::io::Result<bool> {
        let (Some(memory), Some(extents)) = (&self.memory, self.contents.get(&(session, file))) else {
            return Ok(false);
        };
        let size = self.size_of(session, file).unwrap_or(0);
        contents::write(memory, extents, size, to).map(|()| true)
    }

    /// The contents of a memory file, if they can be read.
    fn contents_of(&self, session: usize, file: usize) -> Option<contents::Contents<'_>> {
        let extents = self.contents.get(&(session, file))?;
        let size = self.size_of(session, file)?;
        Some(contents::Contents { mem: self.memory.as_ref()?, extents, size })
    }

    fn size_of(&self, session: usize, file: usize) -> Option<u64> {
        let session = self.report.luo.as_ref()?.sessions.get(session)?;
        Some(session.files.get(file)?.memfd.as_ref()?.size)
    }
}

/// Reads what is in `source`.
#[must_use]
pub fn inspect(source: Source, options: &Options) -> Inspection {
    let Source { kind, contents, hints, kernel, notes } = source;
    let mut findings = Findings::default();
    for note in notes {
        findings.warning(PhysAddr::NULL, "source", note);
    }
    match contents {
        Contents::Blob(bytes) => {
            let bytes_long = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
            let mut report = blob::read(&bytes, findings);
            report.source = SourceInfo { kind, bytes: bytes_long, kernel };
            report.version = VERSION;
            Inspection { report, owned: Vec::new(), memory: None, contents: BTreeMap::new() }
        }
        Contents::Memory(memory) => {
            let (walked, candidates) = in_memory(&memory, hints, options, findings);
            let Walked { mut report, owned, contents, .. } = walked;
            report.version = VERSION;
            report.source = SourceInfo { kind, bytes: memory.size(), kernel };
            report.candidates = candidates;
            Inspection { report, owned, memory: Some(memory), contents }
        }
    }
}

/// Finds the root tree and the scratch array, and walks.
fn in_memory(
    memory: &Memory,
    manifest: Hints,
    options: &Options,
    mut findings: Findings,
) -> (Walked, Vec<report::Candidate>) {
    let given = options.hints;
    let root = given.root.or(manifest.root);
    let mut scratch = given.scratch.map(|(at, size)| (at, size, "given"));
    if scratch.is_none() && root == manifest.root {
        scratch = manifest.scratch.map(|(at, size)| (at, size, "manifest"));
    }
    let mut found = scan::Found::default();
    if root.is_none() || scratch.is_none() {
        found = scan::scan(memory);
    }
    let candidates = if root.is_some() { Vec::new() } else { found.candidates };
    let Some(root) = root.or(candidates.first().map(|candidate| candidate.at.0)) else {
        let what =
            "there is no tree with a root 'kho-v…' in this memory; if you know where it is, give --root ADDR";
        findings.error(PhysAddr::NULL, "root", what);
        let walk = Walk::new(memory, Wish::default(), findings);
        return (walk.finish(), candidates);
    };
    let passed = found.passed.iter().find(|passed| passed.root == root);
    let scratch = scratch.or(passed.map(|passed| (passed.scratch, passed.scratch_size, "setup-data")));
    let walk = Walk::new(memory, Wish { digest: options.digest }, findings);
    (walk.run(root, scratch), candidates)
}
