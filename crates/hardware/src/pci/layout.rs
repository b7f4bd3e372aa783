//! Which functions a machine has, and where.

use super::config::Identity;
use crate::Bdf;

/// A function to be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) bdf: Bdf,
    pub(super) identity: Identity,
    /// Bus behind a bridge.
    pub(super) secondary: u8,
    /// IOMMU unit that translates for it.
    pub(super) unit: usize,
}

/// A plan of functions, by the addresses that firmware gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub(super) slots: Vec<Slot>,
}

/// A plan that cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Two functions with one address.
    #[error("two functions have the address {0}")]
    Twice(Bdf),
    /// No bridge leads to the bus.
    #[error("{0} lies on a bus that no bridge before it leads to")]
    NoBridge(Bdf),
    /// Two bridges lead to a bus, or one leads to bus 0.
    #[error("the bridge {0} leads to bus {1}, which is taken")]
    BusTaken(Bdf, u8),
    /// There is no such unit.
    #[error("{0} is behind IOMMU unit {1}; there are units 0 and 1 at most")]
    Unit(Bdf, usize),
}

impl Layout {
    /// No function at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The machine that the book's examples are about:
    ///
    /// ```text
    ///  bus 0 ─┬─ 00:01.0 bridge ── bus 1 ─┬─ 01:00.0 simdma
    ///         │                           ├─ 01:00.1 virtual function
    ///         │                           └─ 01:01.0 simdma
    ///         ├─ 00:02.0 simdma
    ///         └─ 00:03.0 simdma that isolates by a quirk
    /// ```
    #[must_use]
    pub fn reference() -> Self {
        Self::empty()
            .bridge(Bdf::new(0, 1, 0), 1)
            .endpoint(Bdf::new(1, 0, 0))
            .virtual_function(Bdf::new(1, 0, 1))
            .endpoint(Bdf::new(1, 1, 0))
            .endpoint(Bdf::new(0, 2, 0))
            .acs_quirk(Bdf::new(0, 3, 0))
    }

    fn with(mut self, bdf: Bdf, identity: Identity, secondary: u8) -> Self {
        self.slots.push(Slot { bdf, identity, secondary, unit: 0 });
        self
    }

    /// Adds a bridge to the bus `secondary`. Functions behind it come after it.
    #[must_use]
    pub fn bridge(self, bdf: Bdf, secondary: u8) -> Self {
        self.with(bdf, Identity::Bridge, secondary)
    }

    /// Adds a `simdma`.
    #[must_use]
    pub fn endpoint(self, bdf: Bdf) -> Self {
        self.with(bdf, Identity::Endpoint, 0)
    }

    /// Adds a virtual function.
    #[must_use]
    pub fn virtual_function(self, bdf: Bdf) -> Self {
        self.with(bdf, Identity::Virtual, 0)
    }

    /// Adds a `simdma` that isolates, but has no capability that says so.
    #[must_use]
    pub fn acs_quirk(self, bdf: Bdf) -> Self {
        self.with(bdf, Identity::AcsQuirk, 0)
    }

    /// Puts a function that was added behind IOMMU unit `unit`, 0 or 1. They are all behind unit 0 otherwise.
    #[must_use]
    pub fn behind_unit(mut self, bdf: Bdf, unit: usize) -> Self {
        for slot in self.slots.iter_mut().filter(|slot| slot.bdf == bdf) {
            slot.unit = unit;
        }
        self
    }

    /// IOMMU units that are needed: at least one.
    #[must_use]
    pub fn units(&self) -> usize {
        self.slots.iter().map(|slot| slot.unit + 1).max().unwrap_or(1)
    }

    /// Whether the plan can be built.
    ///
    /// # Errors
    /// [`LayoutError`]: the first thing that is wrong.
    pub fn check(&self) -> Result<(), LayoutError> {
        for (at, slot) in self.slots.iter().enumerate() {
            let before = &self.slots[..at];
            if before.iter().any(|other| other.bdf == slot.bdf) {
                return Err(LayoutError::Twice(slot.bdf));
            }
            let leads = |bus: u8| {
                before.iter().any(|other| other.identity == Identity::Bridge && other.secondary == bus)
            };
            if slot.bdf.bus() != 0 && !leads(slot.bdf.bus()) {
                return Err(LayoutError::NoBridge(slot.bdf));
            }
            if slot.identity == Identity::Bridge && (slot.secondary == 0 || leads(slot.secondary)) {
                return Err(LayoutError::BusTaken(slot.bdf, slot.secondary));
            }
            if slot.unit > 1 {
                return Err(LayoutError::Unit(slot.bdf, slot.unit));
            }
        }
        Ok(())
    }

    /// The highest bus behind a bridge, itself counted.
    pub(super) fn subordinate(&self, secondary: u8) -> u8 {
        let below = self.slots.iter().filter(|slot| {
            slot.identity == Identity::Bridge && slot.bdf.bus() == secondary && slot.secondary != secondary
        });
        below.map(|slot| self.subordinate(slot.secondary)).max().unwrap_or(0).max(secondary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_plans_are_named() {
        let at = Bdf::new;
        assert_eq!(Layout::reference().check(), Ok(()));
        let twice = Layout::empty().endpoint(at(0, 1, 0)).endpoint(at(0, 1, 0));
        assert_eq!(twice.check(), Err(LayoutError::Twice(at(0, 1, 0))));
        assert_eq!(Layout::empty().endpoint(at(2, 0, 0)).check(), Err(LayoutError::NoBridge(at(2, 0, 0))));
        let circle = Layout::empty().bridge(at(1, 0, 0), 1);
        assert_eq!(circle.check(), Err(LayoutError::NoBridge(at(1, 0, 0))));
        let taken = Layout::empty().bridge(at(0, 1, 0), 1).bridge(at(1, 0, 0), 1);
        assert_eq!(taken.check(), Err(LayoutError::BusTaken(at(1, 0, 0), 1)));
        let unit = Layout::empty().endpoint(at(0, 1, 0)).behind_unit(at(0, 1, 0), 2);
        assert_eq!(unit.check(), Err(LayoutError::Unit(at(0, 1, 0), 2)));
        let deep = Layout::empty().bridge(at(0, 1, 0), 1).bridge(at(1, 0, 0), 4).bridge(at(4, 0, 0), 9);
        assert_eq!(deep.subordinate(1), 9);
    }
}
