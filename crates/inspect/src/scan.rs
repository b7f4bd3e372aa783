//! Finding the root tree when nobody says where it is.
//!
//! Everything in memory that is not a hole is looked at once: at the first bytes of each page for a tree whose
//! root `compatible` begins with `kho-v`, and everywhere for the node of `setup_data` by which a kernel gives
//! its successor the two boot parameters. That node is 48 bytes, of which 16 are known, so what matches is one;
//! it is how the scratch array is found. Scratch areas are not guessed from anything else.
//!
//! Several trees are nothing odd: memory of a running kernel holds the one it was given and the one it makes.

use std::ops::ControlFlow;

use luosim_abi::fdt::MAGIC;
use luosim_abi::kho::{PROP_MEMORY_MAP, setup_data};
use luosim_kho::fdt::Tree;
use luosim_physmem::{PAGE_SIZE, PhysAddr, ReadPhys};
use memchr::memmem::Finder;

use crate::findings::Findings;
use crate::image::Memory;
use crate::preserved::Preserved;
use crate::report::{Addr, Candidate};
use crate::walk::root::{format_of, metadata_of};

/// Trees and nodes that are remembered.
const MOST: usize = 64;

/// The parameters that a node of `setup_data` passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The node.
    pub(crate) node: PhysAddr,
    pub(crate) root: PhysAddr,
    pub(crate) scratch: PhysAddr,
    pub(crate) scratch_size: u64,
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Best first.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) passed: Vec<Passed>,
}

/// Looks at all memory.
pub(crate) fn scan(mem: &Memory) -> Found {
    let kind = [setup_data::TYPE.to_le_bytes(), 32_u32.to_le_bytes()].concat();
    let finder = Finder::new(&kind);
    let (mut trees, mut nodes) = (Vec::new(), Vec::new());
    mem.visit(&mut |at, bytes| {
        for (page, head) in (0..).map(|page| page * PAGE_SIZE).zip(bytes.chunks(4096)) {
            if head.starts_with(&MAGIC.to_be_bytes()) && trees.len() < 16 * MOST {
                trees.extend(at.checked_add(page));
            }
        }
        for hit in finder.find_iter(bytes) {
            let kind_at = u64::try_from(hit).ok().and_then(|hit| at.checked_add(hit));
            if nodes.len() < 16 * MOST {
                nodes.extend(kind_at);
            }
        }
        ControlFlow::Continue(())
    });
    let passed: Vec<Passed> = nodes.into_iter().filter_map(|kind| node(mem, kind)).take(MOST).collect();
    let mut candidates: Vec<Judged> =
        trees.into_iter().filter_map(|at| judge(mem, at, &passed)).take(MOST).collect();
    candidates.sort_by_key(|judged| std::cmp::Reverse(judged.rank));
    Found { candidates: candidates.into_iter().map(|judged| judged.candidate).collect(), passed }
}

/// The node whose field `type` is at `kind`, if it passes on what it must.
fn node(mem: &Memory, kind: PhysAddr) -> Option<Passed> {
    let payload = mem.read_struct::<setup_data::Payload>(kind.checked_add(8)?).ok()?;
    let (root, scratch) = (PhysAddr::new(payload.fdt_addr.get()), PhysAddr::new(payload.scratch_addr.get()));
    let node = kind.raw().checked_sub(8)?;
    let good = payload.fdt_size.get() == PAGE_SIZE
        && root.is_page_aligned()
        && root != PhysAddr::NULL
        && payload.scratch_size.get().is_multiple_of(16)
        && scratch.raw() < mem.size();
    let scratch_size = payload.scratch_size.get();
    good.then_some(Passed { node: PhysAddr::new(node), root, scratch, scratch_size })
}

struct Judged {
    /// Whether the version is known; whether the tree's page is in its own map; the number of kexecs; whether a
    /// boot parameter leads to it; the address.
    rank: (bool, bool, u64, bool, PhysAddr),
    candidate: Candidate,
}

/// Whether the tree at `at` is a root, and how likely the one that is meant.
fn judge(mem: &Memory, at: PhysAddr, passed: &[Passed]) -> Option<Judged> {
    let tree = Tree::read(mem, at, PAGE_SIZE).ok()?;
    let compatible = tree.root().compatible().filter(|text| text.starts_with("kho-v"))?;
    let format = format_of(tree.root());
    let map = tree.root().u64(PROP_MEMORY_MAP).filter(|map| *map != 0);
    let mut findings = Findings::default();
    let mapped = format.zip(map).is_some_and(|(format, map)| {
        let preserved = Preserved::read(mem, format, PhysAddr::new(map), &mut findings);
        preserved.head(at.pfn()).is_some()
    });
    let kexecs = metadata_of(mem, tree.root()).map_or(0, |metadata| u64::from(metadata.kexec_count.get()));
    let node = passed.iter().find(|passed| passed.root == at);
    let mut why = Vec::new();
    why.push(String::from(match (format.is_some(), map.is_some(), mapped) {
        (false, ..) => "its version is not known here",
        (true, false, _) => "it has no memory map",
        (true, true, false) => "its memory map does not name its own page",
        (true, true, true) => "its memory map names its own page",
    }));
    if kexecs > 0 {
        why.push(format!("kexec count {kexecs}"));
    }
    if let Some(Passed { node, .. }) = node {
        why.push(format!("the boot parameters at {node} lead to it"));
    }
    let rank = (format.is_some(), mapped, kexecs, node.is_some(), at);
    Some(Judged { rank, candidate: Candidate { at: Addr(at), compatible, why: why.join("; ") } })
}
