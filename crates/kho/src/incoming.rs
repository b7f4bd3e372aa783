//! The restore side: subtrees of the previous kernel, and each preserved block handed out once.

use luosim_abi::kho::metadata::{self, Metadata};
use luosim_abi::kho::{v1, v3};
use luosim_abi::{Errno, KResult};
use luosim_physmem::{FrameUse, Order, Pfn, PhysAddr, Ram};

use crate::log::KernelLog;
use crate::run::split;
use crate::{Kho, Subtree};

impl Kho {
    /// Finds a subtree of the previous kernel. Finding does not consume it.
    ///
    /// # Errors
    /// ENOENT: no handover, or no such subtree; EINVAL: its properties are missing or not 8 bytes.
    pub fn subtree(&self, name: &str) -> KResult<Subtree> {
        let none = || Errno::ENOENT.because(format!("the previous kernel left no subtree '{name}'"));
        let node = self.incoming.as_ref().and_then(|tree| tree.root().child(name)).ok_or_else(none)?;
        let bad = |property: &str| {
            Errno::EINVAL
                .because(format!("broken KHO subnode '{name}': missing or invalid {property} property"))
        };
        let size = if self.version().is_radix() {
            Some(node.u64(v3::PROP_SIZE).ok_or_else(|| bad(v3::PROP_SIZE))?)
        } else {
            None
        };
        let property = if self.version().is_radix() { v3::PROP_SUBTREE } else { v1::PROP_SUBTREE };
        let addr = node.u64(property).ok_or_else(|| bad(property))?;
        Ok(Subtree { addr: PhysAddr::new(addr), size })
    }

    /// Hands out the preserved block whose first byte is `addr`: it becomes an allocated block. `None` if
    /// there is no such block, or it was handed out before; `kho-v1` also above order 10.
    pub fn restore_folio(&mut self, ram: &mut Ram, addr: PhysAddr, purpose: FrameUse) -> Option<Order> {
        if !addr.is_page_aligned() {
            return None;
        }
        let order = ram.frames.preserved_order(addr.pfn())?;
        if !self.version().is_radix() && order > Order::MAX_BUDDY {
            return None;
        }
        ram.frames.restore(addr.pfn(), purpose)
    }

    /// Hands out a run that was preserved as pages: they become single allocated pages. `false` at the first
    /// block that is not there; those before it stay handed out.
    ///
    /// Only the head of each block is looked for, as in the kernel: with another run than was preserved, a
    /// block found is handed out whole, whatever its order, and the rest of the run goes on behind the block
    /// that was expected.
    pub fn restore_pages(&mut self, ram: &mut Ram, pfn: Pfn, pages: u64, purpose: FrameUse) -> bool {
        split(pfn, pages).all(|(block, _)| {
            let found = self.restore_folio(ram, block.addr(), purpose).is_some();
            if found {
                ram.frames.split_allocated(block);
            }
            found
        })
    }

    /// Hands a block out and frees it. `false` (and nothing done) if it is not there.
    pub fn restore_free(&mut self, ram: &mut Ram, addr: PhysAddr) -> bool {
        let found = self.restore_folio(ram, addr, FrameUse::Handover).is_some();
        if found {
            ram.free(addr.pfn()).expect("it was just restored");
        }
        found
    }

    /// Reads who the previous kernel was. Anything wrong is a warning; the count is 0 then.
    pub(crate) fn read_metadata(&mut self, ram: &Ram, log: &mut KernelLog) {
        let Ok(Subtree { addr, size }) = self.subtree(metadata::SUBTREE) else { return };
        let size = size.unwrap_or(0);
        let found = ram.mem.read_obj::<Metadata>(addr).ok().filter(|_| size >= metadata::SIZE);
        match found {
            Some(found) if found.version.get() == metadata::VERSION => {
                self.kexec_count = found.kexec_count.get();
                log.info(format!("KHO: exec from: {} (count {})", found.release(), self.kexec_count));
            }
            Some(found) => {
                log.warn(format!("KHO: metadata version {} not supported", found.version.get()));
            }
            None => log.warn(format!("KHO: metadata of {size} bytes is too small or lies outside memory")),
        }
    }
}
