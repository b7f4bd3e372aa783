//! The memory of a model process as system call arguments see it: pages with protections, sparse.
//!
//! Only what a kernel can tell: whether a byte may be read or written. Shared mappings of files are kept by
//! the process ([`crate::process`]), not here.

use std::collections::BTreeMap;

use luosim_abi::{Errno, KResult};

const PAGE: u64 = 4096;
/// First address that is not the process's: the end of the lower half on x86-64.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Where new mappings are placed, upwards.
const MAP_BASE: u64 = 0x7f00_0000_0000;

/// Protection of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// `PROT_READ | PROT_WRITE`.
    ReadWrite,
    /// `PROT_READ`.
    ReadOnly,
}

#[derive(Clone, Debug)]
struct Page {
    protection: Protection,
    bytes: Box<[u8; 4096]>,
}

/// One process's memory.
#[derive(Clone, Debug)]
pub struct AddressSpace {
    pages: BTreeMap<u64, Page>,
    next: u64,
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), next: MAP_BASE }
    }
}

fn fault(addr: u64) -> luosim_abi::Refusal {
    let what = if addr >= TASK_SIZE { "is not a user address" } else { "is not mapped" };
    Errno::EFAULT.because(format!("address {addr:#x} {what}"))
}

impl AddressSpace {
    /// Maps `len` bytes of zeros, rounded up to pages, with an unmapped page after them; returns the address.
    pub fn map(&mut self, len: u64) -> u64 {
        let base = self.next;
        let pages = len.div_ceil(PAGE).max(1);
        for index in 0..pages {
            let page = Page { protection: Protection::ReadWrite, bytes: Box::new([0; 4096]) };
            self.pages.insert(base + index * PAGE, page);
        }
        self.next = base + (pages + 1) * PAGE;
        base
    }

    /// Changes the protection of the pages that `len` bytes at `addr` touch; pages not mapped are skipped.
    pub fn protect(&mut self, addr: u64, len: u64, protection: Protection) {
        let first = addr & !(PAGE - 1);
        for (_, page) in self.pages.range_mut(first..addr.saturating_add(len)) {
            page.protection = protection;
        }
    }

    /// Unmaps the pages that `len` bytes at `addr` touch.
    pub fn unmap(&mut self, addr: u64, len: u64) {
        let first = addr & !(PAGE - 1);
        let gone: Vec<u64> = self.pages.range(first..addr.saturating_add(len)).map(|(at, _)| *at).collect();
        for at in gone {
            self.pages.remove(&at);
        }
    }

    /// Copies from the process.
    ///
    /// # Errors
    /// EFAULT if any byte is not mapped.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        each_piece(addr, buf.len(), |at, offset, range| {
            let page = self.pages.get(&at).ok_or_else(|| fault(at + offset as u64))?;
            let len = range.len();
            buf[range].copy_from_slice(&page.bytes[offset..offset + len]);
            Ok(())
        })
    }

    /// Copies to the process. Bytes before the first that faults are written.
    ///
    /// # Errors
    /// EFAULT if any byte is not mapped or is read-only.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        each_piece(addr, bytes.len(), |at, offset, range| {
            let page = self.pages.get_mut(&at).ok_or_else(|| fault(at + offset as u64))?;
            if page.protection == Protection::ReadOnly {
                return Err(Errno::EFAULT.because(format!("address {addr:#x} is read-only")));
            }
            page.bytes[offset..offset + range.len()].copy_from_slice(&bytes[range]);
            Ok(())
        })
    }
}

/// Calls `piece(page address, offset in page, range of the buffer)` for each page that the bytes touch.
fn each_piece(
    addr: u64,
    len: usize,
    mut piece: impl FnMut(u64, usize, std::ops::Range<usize>) -> KResult<()>,
) -> KResult<()> {
    let mut done = 0;
    while done < len {
        let at = addr.checked_add(done as u64).filter(|at| *at < TASK_SIZE).ok_or_else(|| fault(u64::MAX))?;
        let offset = usize::try_from(at % PAGE).expect("less than a page");
        let step = (4096 - offset).min(len - done);
        piece(at - at % PAGE, offset, done..done + step)?;
        done += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_across_page_borders() {
        let mut space = AddressSpace::default();
        let base = space.map(2 * PAGE);
        space.write(base + 4090, b"across the border").expect("mapped");
        let mut back = [0; 17];
        space.read(base + 4090, &mut back).expect("mapped");
        assert_eq!(&back, b"across the border");
    }

    #[test]
    fn unmapped_read_only_and_kernel_addresses_fault() {
        let mut space = AddressSpace::default();
        let base = space.map(PAGE);
        let mut byte = [0; 2];
        for addr in [0, base + PAGE - 1, base + PAGE, TASK_SIZE - 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(
                space.read(addr, &mut byte).expect_err("not mapped").errno,
                Errno::EFAULT,
                "{addr:#x}"
            );
        }
        space.protect(base, PAGE, Protection::ReadOnly);
        assert_eq!(space.write(base, &[1]).expect_err("read-only").errno, Errno::EFAULT);
        space.read(base, &mut byte).unwrap();
        space.unmap(base, 1);
        assert!(space.read(base, &mut byte).is_err());
    }
}
