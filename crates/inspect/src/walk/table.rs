//! Virtually contiguous areas: from the descriptor to the pages of the table.

use luosim_abi::kho::vmalloc::{Descriptor, FLAG_HUGE, FLAG_PLAIN};
use luosim_physmem::{Order, PAGE_SIZE, PhysAddr, ReadPhys};

use super::Walk;
use crate::claims::Owner;

impl Walk<'_> {
    /// The pages of the area, one address each, as far as its chunks list them. `from` is where the descriptor is.
    pub(crate) fn table(&mut self, area: &Descriptor, owner: Owner, from: PhysAddr) -> Vec<PhysAddr> {
        let field = owner.field();
        let (total, flags) = (u64::from(area.total_pages.get()), area.flags.get());
        if flags & !(FLAG_PLAIN | FLAG_HUGE) != 0 {
            self.findings.warning(from, &field, format!("the descriptor has unknown flags {flags:#x}"));
        }
        let Some(order) = Order::new(area.order.get().into()).filter(|order| *order <= Order::MAX_BUDDY)
        else {
            let what = format!("the descriptor has order {}", area.order.get());
            self.findings.error(from, &field, what);
            return Vec::new();
        };
        let mut pages = Vec::new();
        let mut listed = 0;
        let mut at = PhysAddr::new(area.first.get());
        while at != PhysAddr::NULL && self.structure(at, PAGE_SIZE, Order::ZERO, owner) {
            let Ok(chunk) = self.mem.read_struct::<[u64; 512]>(at) else { break };
            for word in chunk[1..].iter().map(|word| u64::from_le(*word)).take_while(|word| *word != 0) {
                listed += order.pages();
                self.list(PhysAddr::new(word), order, owner, &mut pages);
            }
            at = PhysAddr::new(u64::from_le(chunk[0]));
        }
        if listed != total {
            let what =
                format!("the chunks list {listed} pages, the descriptor says {total}: readers get EINVAL");
            self.findings.error(from, &field, what);
        }
        pages
    }

    /// A block of the table.
    fn list(&mut self, at: PhysAddr, order: Order, owner: Owner, pages: &mut Vec<PhysAddr>) {
        if self.structure(at, order.bytes(), order, owner) {
            pages.extend((0..order.pages()).filter_map(|page| at.checked_add(page * PAGE_SIZE)));
        }
    }
}
