//! Which pages of a sparse memory were ever touched: the others are zeros, and need not be read to know it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::{Backing, PhysMem};
use crate::addr::PAGE_SIZE;

/// Present in memory, or swapped out: bits 63 and 62 of an entry of `/proc/self/pagemap`.
const TOUCHED: u64 = 3 << 62;
/// Entries read at a time.
const ENTRIES: usize = 1 << 17;

impl PhysMem {
    /// Runs of frames that may hold something else than zeros, ascending. All of them where the host does not say.
    #[must_use]
    pub fn touched(&self) -> Vec<Range<u64>> {
        let total = self.len / PAGE_SIZE;
        let whole = || std::iter::once(0..total).collect();
        match self.backing {
            Backing::Private => self.scan(total).unwrap_or_else(|_| whole()),
            Backing::File => whole(),
        }
    }

    fn scan(&self, total: u64) -> io::Result<Vec<Range<u64>>> {
        let first = u64::try_from(self.map.as_ptr().addr()).expect("an address") / PAGE_SIZE;
        let mut pagemap = File::open("/proc/self/pagemap")?;
        pagemap.seek(SeekFrom::Start(first * 8))?;
        let mut buffer = vec![0u8; ENTRIES * 8];
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut pfn = 0;
        while pfn < total {
            let count = usize::try_from(total - pfn).unwrap_or(ENTRIES).min(ENTRIES);
            pagemap.read_exact(&mut buffer[..count * 8])?;
            for entry in buffer[..count * 8].chunks_exact(8) {
                let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
                if entry & TOUCHED != 0 {
                    extend(&mut runs, pfn..pfn + 1);
                }
                pfn += 1;
            }
        }
        // Pages of a host file need not be mapped to be there.
        for (first, pages) in self.adopted_runs() {
            runs.push(first..first + pages);
        }
        runs.sort_by_key(|run| run.start);
        Ok(merged(runs))
    }
}

fn extend(runs: &mut Vec<Range<u64>>, run: Range<u64>) {
    match runs.last_mut() {
        Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
        _ => runs.push(run),
    }
}

fn merged(runs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut out = Vec::with_capacity(runs.len());
    for run in runs {
        extend(&mut out, run);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;

    #[test]
    fn what_was_written_is_touched_and_little_else() {
        let mut mem = PhysMem::anonymous(1 << 30).expect("sparse");
        for page in [0, 5, 6, 1000, (1 << 18) - 1] {
            mem.write(PhysAddr::new(page * PAGE_SIZE), &[1]).expect("inside");
        }
        let runs = mem.touched();
        for page in [0, 5, 6, 1000, (1 << 18) - 1] {
            assert!(runs.iter().any(|run| run.contains(&page)), "{page}: {runs:?}");
        }
        let pages: u64 = runs.iter().map(|run| run.end - run.start).sum();
        assert!(pages < 1 << 16, "{pages} of {} pages", 1 << 18);
    }
}
