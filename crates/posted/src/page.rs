//! The orchestrator's page: the tree that KHO's entry `LUO` leads to, with a value for each subsystem.

use luosim_abi::posted::tree::{COMPATIBLE, NODE_SUBSYSTEMS, SUBSYSTEMS_COMPATIBLE, SUBTREE};
use luosim_abi::{Errno, KResult};
use luosim_kho::fdt::{Node, Tree};
use luosim_luo::Memory;
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr};

/// This kernel's page.
#[derive(Debug)]
pub(crate) struct Page {
    addr: PhysAddr,
}

fn blob(values: &[(&'static str, u64)]) -> KResult<Vec<u8>> {
    let add = |node: Node, (name, value): &(&str, u64)| node.with_u64(name, *value);
    let subsystems = values.iter().fold(Node::new(SUBSYSTEMS_COMPATIBLE), add);
    let root = Node::new(COMPATIBLE).with_child(NODE_SUBSYSTEMS, subsystems);
    let blob = Tree::new(root).try_to_blob().map_err(|error| Errno::EINVAL.because(error.to_string()))?;
    if u64::try_from(blob.len()).is_ok_and(|len| len <= PAGE_SIZE) {
        return Ok(blob);
    }
    Err(Errno::ENOMEM.because(format!("{} subsystems do not fit in a page", values.len())))
}

impl Page {
    /// Allocates the page, preserves it, writes it and registers it.
    ///
    /// # Errors
    /// ENOMEM; EBUSY: KHO is finalised.
    pub(crate) fn build(mem: &mut Memory<'_>, values: &[(&'static str, u64)]) -> KResult<Self> {
        let bytes = blob(values)?;
        let addr = mem.kho.alloc_preserve(mem.ram, PAGE_SIZE, FrameUse::Luo)?;
        mem.ram.mem.write(addr, &bytes).expect("the page was just allocated");
        if let Err(refusal) = mem.kho.add_subtree(mem.ram, SUBTREE, addr, PAGE_SIZE) {
            mem.kho.unpreserve_free(mem.ram, addr);
            return Err(refusal);
        }
        Ok(Self { addr })
    }

    /// Writes the values over the old ones.
    pub(crate) fn write(&self, mem: &mut Memory<'_>, values: &[(&'static str, u64)]) {
        let bytes = blob(values).expect("the same names fitted before");
        mem.ram.mem.write(self.addr, &bytes).expect("the page is this kernel's");
    }

    /// Takes the page out of KHO and frees it.
    pub(crate) fn remove(self, mem: &mut Memory<'_>) {
        mem.kho.remove_subtree(mem.ram, self.addr);
        mem.kho.unpreserve_free(mem.ram, self.addr);
    }
}

/// What the previous kernel left.
#[derive(Debug)]
pub(crate) struct Incoming {
    addr: PhysAddr,
    subsystems: Node,
}

impl Incoming {
    /// Reads the page, if there is one.
    ///
    /// # Errors
    /// What makes the boot panic: not readable, another root, no node of subsystems.
    pub(crate) fn read(mem: &Memory<'_>) -> KResult<Option<Self>> {
        let addr = match mem.kho.subtree(SUBTREE) {
            Ok(subtree) => subtree.addr,
            Err(refusal) if refusal.errno == Errno::ENOENT => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        let tree = Tree::read(&mem.ram.mem, addr, PAGE_SIZE);
        let tree = tree.map_err(|error| {
            Errno::EINVAL.because(format!("the orchestrator's tree at {addr} cannot be read: {error}"))
        })?;
        check(tree.root(), COMPATIBLE)?;
        let none = || Errno::ENOENT.because(format!("the tree {COMPATIBLE} has no node '{NODE_SUBSYSTEMS}'"));
        let subsystems = tree.root().child(NODE_SUBSYSTEMS).ok_or_else(none)?;
        check(subsystems, SUBSYSTEMS_COMPATIBLE)?;
        Ok(Some(Self { addr, subsystems: subsystems.clone() }))
    }

    /// A subsystem's value.
    ///
    /// # Errors
    /// ENOENT: missing, or not 8 bytes.
    pub(crate) fn value(&self, name: &str) -> KResult<u64> {
        self.subsystems.u64(name).ok_or_else(|| {
            Errno::ENOENT.because(format!("the previous kernel left no 8-byte value of subsystem '{name}'"))
        })
    }

    /// Frees the page.
    pub(crate) fn remove(self, mem: &mut Memory<'_>) {
        mem.kho.restore_free(mem.ram, self.addr);
    }
}

/// Checks a node's version.
///
/// # Errors
/// EINVAL.
pub(crate) fn check(node: &Node, wanted: &str) -> KResult<()> {
    if node.is_compatible(wanted) {
        return Ok(());
    }
    let found =
        node.compatible().map_or_else(|| String::from("nothing"), |text| text.escape_debug().to_string());
    Err(Errno::EINVAL.because(format!("a node is compatible with {found}, wanted is {wanted}")))
}
