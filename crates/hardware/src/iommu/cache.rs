//! What a unit remembers: contexts by requester, and translated pages by domain id.
//!
//! It forgets only when it is told to (register INVAL) or at power on: an entry that no longer agrees with memory is
//! used, as in a real unit. Pages have one place each, by their number, so which are remembered depends on the requests
//! alone. Refusals are not remembered.

use std::collections::BTreeMap;

use luosim_physmem::PAGE_SIZE;

use super::layout::{Context, Permissions};
use super::walk::Translation;
use crate::Bdf;

/// What INVAL tells a unit to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Everything.
    Global,
    /// The contexts and pages of a domain id.
    Domain(u16),
    /// One page of a domain id.
    Page {
        /// The domain id.
        domain: u16,
        /// An address in the page.
        iova: u64,
    },
}

impl Invalidation {
    /// The value to write to INVAL: kind in bits 1:0 (1 global, 2 domain, 3 page), page in 47:12, domain id in 63:48.
    #[must_use]
    pub fn encode(self) -> u64 {
        match self {
            Self::Global => 1,
            Self::Domain(domain) => 2 | (u64::from(domain) << 48),
            Self::Page { domain, iova } => 3 | (iova & 0xffff_ffff_f000) | (u64::from(domain) << 48),
        }
    }

    /// From a written value; `None` for kind 0.
    #[must_use]
    pub fn decode(value: u64) -> Option<Self> {
        let domain = u16::try_from(value >> 48).expect("sixteen bits");
        match value & 3 {
            1 => Some(Self::Global),
            2 => Some(Self::Domain(domain)),
            3 => Some(Self::Page { domain, iova: value & 0xffff_ffff_f000 }),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    domain: u32,
    page: u64,
    to: Translation,
}

/// The memory of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    contexts: BTreeMap<Bdf, Context>,
    lines: Vec<Option<Line>>,
}

impl Cache {
    /// With room for `1 << bits` pages.
    pub(super) fn new(bits: u8) -> Self {
        Self { contexts: BTreeMap::new(), lines: vec![None; 1 << bits.min(16)] }
    }

    fn place(&self, domain: u32, page: u64) -> usize {
        let mixed = page ^ (page >> 16) ^ (u64::from(domain) << 3);
        usize::try_from(mixed & 0xffff).expect("sixteen bits") & (self.lines.len() - 1)
    }

    pub(super) fn context(&self, rid: Bdf) -> Option<Context> {
        self.contexts.get(&rid).copied()
    }

    pub(super) fn keep_context(&mut self, rid: Bdf, context: Context) {
        self.contexts.insert(rid, context);
    }

    /// The first byte of the page, if it is remembered and lets the access pass.
    pub(super) fn page(&self, domain: u32, iova: u64, wants: Permissions) -> Option<Translation> {
        let page = iova / PAGE_SIZE;
        let line = self.lines[self.place(domain, page)]?;
        let hit = line.domain == domain && line.page == page && line.to.permissions.allow(wants);
        hit.then_some(line.to)
    }

    pub(super) fn keep_page(&mut self, domain: u32, iova: u64, to: Translation) {
        let page = iova / PAGE_SIZE;
        let place = self.place(domain, page);
        self.lines[place] = Some(Line { domain, page, to });
    }

    pub(super) fn forget(&mut self, what: Invalidation) {
        match what {
            Invalidation::Global => {
                self.contexts.clear();
                self.lines.fill(None);
            }
            Invalidation::Domain(domain) => {
                let domain = u32::from(domain);
                self.contexts.retain(|_, context| context.domain_id != domain);
                self.forget_lines(|line| line.domain == domain);
            }
            Invalidation::Page { domain, iova } => {
                let domain = u32::from(domain);
                self.forget_lines(|line| line.domain == domain && line.page == iova / PAGE_SIZE);
            }
        }
    }

    fn forget_lines(&mut self, gone: impl Fn(&Line) -> bool) {
        for line in &mut self.lines {
            if line.as_ref().is_some_and(&gone) {
                *line = None;
            }
        }
    }

    /// Pages that are remembered.
    pub(super) fn len(&self) -> usize {
        self.lines.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalidations_are_words() {
        for what in [
            Invalidation::Global,
            Invalidation::Domain(0xffff),
            Invalidation::Page { domain: 7, iova: 0xffff_ffff_f000 },
        ] {
            assert_eq!(Invalidation::decode(what.encode()), Some(what));
        }
        assert_eq!(Invalidation::decode(u64::MAX << 2), None);
    }
}
