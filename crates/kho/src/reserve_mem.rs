//! Named reservations, `reserve_mem=SIZE:ALIGN:NAME`: memory that the command line sets aside and KHO carries.
//!
//! A reservation is revived if the previous kernel left one of the same name and size whose place suits the alignment
//! asked for; otherwise it gets new memory and the old stays held until the next kexec. Nothing about it is fatal.
//! Every kernel preserves its own again, as a run of pages, and lists them in the subtree `memblock`. Mirrors
//! `mm/memblock.c`; who uses the memory (ramoops, ftrace) is not here.

use luosim_abi::kho::memblock as abi;
use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, PAGE_SIZE, PhysAddr, Ram, ReserveError};

use crate::fdt::{Node, Tree};
use crate::log::KernelLog;
use crate::scratch::memparse;
use crate::{Kho, Subtree};

/// What one `reserve_mem=` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveMem {
    /// Its name: 1 to 15 bytes.
    pub name: String,
    /// Bytes, not 0.
    pub size: u64,
    /// Alignment in bytes, a power of two; at least a cache line.
    pub align: u64,
}

impl ReserveMem {
    /// Reads the value of the parameter; `None` if it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (size, rest) = memparse(text)?;
        let (align, rest) = memparse(rest.strip_prefix(':')?)?;
        let name = rest.strip_prefix(':')?;
        let align = align.max(abi::MIN_ALIGN);
        let good = size > 0 && align.is_power_of_two() && (1..=abi::MAX_NAME).contains(&name.len());
        // A name that is only a number would be none in the kernel's tables.
        let named = name.bytes().any(|byte| !byte.is_ascii_digit()) && !name.contains(['/', ' ']);
        (good && named).then(|| Self { name: name.to_owned(), size, align })
    }

    fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }
}

/// A reservation that this kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Its name.
    pub name: String,
    /// First byte.
    pub start: PhysAddr,
    /// Bytes.
    pub size: u64,
    /// Whether it is the previous kernel's, with its contents.
    pub revived: bool,
}

impl Kho {
    /// Makes or revives the reservations, after boot has held what is preserved and before anything else is allocated.
    /// They are made with KHO off too, but then nothing carries them.
    pub fn reserve_mem(&mut self, ram: &mut Ram, log: &mut KernelLog, wanted: &[ReserveMem]) {
        let left = self.left_reservations(ram);
        for want in wanted {
            let revived = left.as_ref().and_then(|left| self.revive(ram, want, left));
            let (start, how) = match revived {
                Some(start) => (Some(start), "revived"),
                None => (place(ram, want), "reserved"),
            };
            let ReserveMem { name, size, .. } = want;
            let Some(start) = start else {
                log.err(format!("reserve_mem: no room for {size:#x} bytes for '{name}'"));
                continue;
            };
            log.info(format!("reserve_mem: {name}: {how} {size:#x} bytes at {start}"));
            let reserved = Reserved { name: name.clone(), start, size: *size, revived: how == "revived" };
            self.reserved.push(reserved);
        }
    }

    /// The reservations of this kernel.
    #[must_use]
    pub fn reserved(&self) -> &[Reserved] {
        &self.reserved
    }

    fn left_reservations(&self, ram: &Ram) -> Option<Node> {
        let Subtree { addr, .. } = self.subtree(abi::SUBTREE).ok()?;
        let tree = Tree::read(&ram.mem, addr, PAGE_SIZE).ok()?;
        tree.root().is_compatible(abi::COMPATIBLE).then(|| tree.root().clone())
    }

    fn revive(&mut self, ram: &mut Ram, want: &ReserveMem, left: &Node) -> Option<PhysAddr> {
        let node = left.child(&want.name).filter(|node| node.is_compatible(abi::NODE_COMPATIBLE))?;
        let (start, size) = (node.u64(abi::PROP_START)?, node.u64(abi::PROP_SIZE)?);
        if size != want.size || start % want.align != 0 || start % PAGE_SIZE != 0 {
            return None;
        }
        let start = PhysAddr::new(start);
        self.restore_pages(ram, start.pfn(), want.pages(), FrameUse::Handover).then_some(start)
    }

    /// Preserves the reservations for the next kernel and lists them, once the outgoing state exists.
    ///
    /// # Errors
    /// ENOMEM. What was preserved so far stays so.
    pub fn carry_reservations(&mut self, ram: &mut Ram) -> KResult<()> {
        if self.reserved.is_empty() || !self.enabled() {
            return Ok(());
        }
        let mut root = Node::new(abi::COMPATIBLE);
        for Reserved { name, start, size, .. } in self.reserved.clone() {
            self.preserve_pages(ram, start.pfn(), size.div_ceil(PAGE_SIZE))?;
            let node = Node::new(abi::NODE_COMPATIBLE).with_u64(abi::PROP_START, start.raw());
            root = root.with_child(&name, node.with_u64(abi::PROP_SIZE, size));
        }
        let blob = Tree::new(root).try_to_blob().map_err(|error| Errno::EINVAL.because(error.to_string()))?;
        let page = self.alloc_preserve(ram, PAGE_SIZE, FrameUse::Fdt)?;
        ram.mem.write(page, &blob).expect("eight short nodes fit in the page that was just allocated");
        self.add_subtree(ram, abi::SUBTREE, page, u64::try_from(blob.len()).expect("less than a page"))
    }
}

/// New memory, as high as there is room. A frame in use rules out every place that covers it: memory is gone through
/// once.
fn place(ram: &mut Ram, want: &ReserveMem) -> Option<PhysAddr> {
    let align = want.align.max(PAGE_SIZE);
    let bytes = want.pages().checked_mul(PAGE_SIZE)?;
    let mut end = ram.mem.len();
    loop {
        let start = end.checked_sub(bytes)?;
        let start = PhysAddr::new(start - start % align);
        match ram.frames.reserve(start.pfn(), want.pages()) {
            Ok(()) => return Some(start),
            Err(ReserveError::InUse { pfn, .. }) => end = pfn.addr().raw(),
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_names_size_alignment_and_name() {
        let good = |name: &str, size, align| Some(ReserveMem { name: name.to_owned(), size, align });
        for (text, want) in [
            ("2M:4096:oops", good("oops", 2 << 20, 4096)),
            ("4096:0:a1", good("a1", 4096, 64)),
            ("1:1:x", good("x", 1, 64)),
            ("0:4096:oops", None),
            ("4096:4096:", None),
            ("4096:4096:1234", None),
            ("4096:4096:0123456789abcdef", None),
            ("4096:3000:oops", None),
            ("4096:4096", None),
            ("4096", None),
            ("", None),
        ] {
            assert_eq!(ReserveMem::parse(text), want, "{text}");
        }
    }
}
