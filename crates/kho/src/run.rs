//! How a run of pages becomes blocks: at each step the largest block that is aligned and fits.

use luosim_physmem::{Order, Pfn};

/// The blocks of `pages` pages from `pfn` on. Frame 0 counts as aligned to everything; orders are not capped
/// at the allocator's largest.
pub fn split(pfn: Pfn, pages: u64) -> impl Iterator<Item = (Pfn, Order)> {
    let mut at = pfn.raw();
    let mut left = pages;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let fits = 63 - left.leading_zeros();
        let aligned = if at == 0 { fits } else { at.trailing_zeros() };
        let order = Order::new(fits.min(aligned))?;
        let block = (Pfn::new(at), order);
        at = at.checked_add(order.pages())?;
        left -= order.pages();
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(pfn: u64, pages: u64) -> Vec<(u64, u32)> {
        split(Pfn::new(pfn), pages).map(|(pfn, order)| (pfn.raw(), order.raw())).collect()
    }

    #[test]
    fn worked_examples() {
        assert_eq!(blocks(0x101, 7), [(0x101, 0), (0x102, 1), (0x104, 2)]);
        assert_eq!(blocks(0x1fe, 0x206), [(0x1fe, 1), (0x200, 9), (0x400, 2)]);
        assert_eq!(blocks(0x40000, 0x40000), [(0x40000, 18)]);
        assert_eq!(blocks(0, 5), [(0, 2), (4, 0)]);
        assert_eq!(blocks(7, 0), []);
    }
}
