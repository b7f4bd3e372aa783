//! `kho-v3`, `kho-v4`: the radix tree, always current in memory.
//!
//! Tables are made when a key needs them and never freed: empty ones are normal. The leaf used last is
//! remembered, so that a run of blocks costs a bit each.

use luosim_abi::kho::v4;
use luosim_abi::{Errno, KResult};
use luosim_physmem::{Order, Pfn, PhysAddr, Ram};

use super::{Tally, change_bit, new_page};

/// The tree of one kernel.
#[derive(Debug)]
pub struct Radix {
    root: PhysAddr,
    /// Key prefix (all above the leaf bit) and page of the leaf used last.
    last: Option<(u64, PhysAddr)>,
    tally: Tally,
}

impl Radix {
    /// An empty tree.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(ram: &mut Ram) -> KResult<Self> {
        Ok(Self { root: new_page(ram)?, last: None, tally: Tally::default() })
    }

    /// Page of the root table.
    #[must_use]
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// What is in the tree.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn slot(table: PhysAddr, index: u64) -> PhysAddr {
        table.checked_add(index * 8).expect("inside the page")
    }

    fn child(ram: &Ram, table: PhysAddr, index: u64) -> PhysAddr {
        let raw = ram.mem.read_u64(Self::slot(table, index)).expect("tables lie in memory");
        PhysAddr::new(raw)
    }

    fn find_leaf(&mut self, ram: &mut Ram, key: u64, make: bool) -> KResult<Option<PhysAddr>> {
        let prefix = key / v4::LEAF_BITS;
        if let Some((last, leaf)) = self.last
            && last == prefix
        {
            return Ok(Some(leaf));
        }
        let mut at = self.root;
        for level in (1..=v4::ROOT_LEVEL).rev() {
            let index = v4::index(key, level);
            let mut next = Self::child(ram, at, index);
            if next == PhysAddr::NULL {
                if !make {
                    return Ok(None);
                }
                next = new_page(ram)?;
                ram.mem.write_u64(Self::slot(at, index), next.raw()).expect("tables lie in memory");
            }
            at = next;
        }
        self.last = Some((prefix, at));
        Ok(Some(at))
    }

    fn key(pfn: Pfn, order: Order) -> KResult<u64> {
        let key = v4::key(pfn.addr().raw(), order.raw());
        key.ok_or_else(|| Errno::ERANGE.because(format!("no key for a block of order {order} at {pfn}")))
    }

    /// Adds a block.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn add(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) -> KResult<()> {
        let key = Self::key(pfn, order)?;
        let leaf = self.find_leaf(ram, key, true)?.expect("made where missing");
        if change_bit(ram, leaf, v4::leaf_bit(key), true) {
            self.tally.add(order);
        }
        Ok(())
    }

    /// Removes a block if it is there.
    pub fn remove(&mut self, ram: &mut Ram, pfn: Pfn, order: Order) {
        let Ok(key) = Self::key(pfn, order) else { return };
        if let Ok(Some(leaf)) = self.find_leaf(ram, key, false)
            && change_bit(ram, leaf, v4::leaf_bit(key), false)
        {
            self.tally.sub(order);
        }
    }
}
