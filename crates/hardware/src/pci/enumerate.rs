//! What a kernel does at boot: finds the functions, and gives buses their numbers.
//!
//! By configuration accesses alone, so that it behaves on this hardware as a kernel's would.

use super::config::reg;
use crate::{Bdf, Hardware};

/// What becomes of the numbers that bridges have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusPolicy {
    /// They stay: some device's identity came from the previous kernel. A bridge without sensible numbers gets none, and
    /// nothing below it is looked at.
    Keep,
    /// They are given anew, depth first, the first bridge getting this one. 1 gives the numbers that firmware gave in
    /// most machines; another one is what must not happen to a device whose DMA runs.
    Assign {
        /// Number of the first bus behind a bridge.
        first: u8,
    },
}

/// A function that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub bdf: Bdf,
    /// The bridge above it.
    pub parent: Option<Bdf>,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Whether it is a bridge.
    pub bridge: bool,
}

/// Looks for functions on bus 0 and below.
pub fn enumerate(hardware: &mut Hardware, policy: BusPolicy) -> Vec<Found> {
    let next = match policy {
        BusPolicy::Keep => 1,
        BusPolicy::Assign { first } => first.max(1),
    };
    let mut scan = Scan { hardware, policy, next: Some(next), found: Vec::new() };
    scan.bus(0, None, u8::MAX);
    scan.found
}

struct Scan<'h> {
    hardware: &'h mut Hardware,
    policy: BusPolicy,
    /// The next number to give; `None` when all are given.
    next: Option<u8>,
    found: Vec<Found>,
}

impl Scan<'_> {
    fn read(&self, bdf: Bdf, offset: u16, width: u8) -> u32 {
        self.hardware.config_read(bdf, offset, width)
    }

    fn id(&self, bdf: Bdf, offset: u16) -> u16 {
        u16::try_from(self.read(bdf, offset, 2) & 0xffff).expect("sixteen bits")
    }

    /// Scans a bus; the last bus that is in use behind it or is it. Numbers above `limit` are not followed.
    fn bus(&mut self, bus: u8, parent: Option<Bdf>, limit: u8) -> u8 {
        let mut bridges = Vec::new();
        for devfn in 0..=u8::MAX {
            let bdf = Bdf::on(bus, devfn);
            let vendor = self.id(bdf, reg::VENDOR);
            if vendor == u16::MAX {
                continue;
            }
            let bridge = self.read(bdf, reg::HEADER_TYPE, 1) & 0x7f == 1;
            self.found.push(Found { bdf, parent, vendor, device: self.id(bdf, reg::DEVICE), bridge });
            // Every function hears its bus number.
            self.hardware.config_write(bdf, reg::INTERRUPT_LINE, 1, 0);
            if bridge {
                bridges.push(bdf);
            }
        }
        let behind = |scan: &mut Self, bridge| match scan.policy {
            BusPolicy::Keep => scan.keep(bridge, bus, limit),
            BusPolicy::Assign { .. } => scan.assign(bridge, bus),
        };
        if let BusPolicy::Assign { .. } = self.policy {
            bridges.iter().for_each(|bridge| self.set_buses(*bridge, 0, 0, 0));
        }
        bridges.into_iter().map(|bridge| behind(self, bridge)).max().unwrap_or(bus).max(bus)
    }

    fn set_buses(&mut self, bridge: Bdf, primary: u8, secondary: u8, subordinate: u8) {
        for (offset, bus) in (reg::PRIMARY..).zip([primary, secondary, subordinate]) {
            self.hardware.config_write(bridge, offset, 1, u32::from(bus));
        }
    }

    /// Follows the numbers that a bridge has, if they lie above its own bus: that ends every circle.
    fn keep(&mut self, bridge: Bdf, bus: u8, limit: u8) -> u8 {
        let number = |offset| u8::try_from(self.read(bridge, offset, 1) & 0xff).expect("eight bits");
        let (primary, secondary) = (number(reg::PRIMARY), number(reg::SECONDARY));
        let subordinate = number(reg::SUBORDINATE);
        if primary != bus || secondary <= bus || subordinate < secondary || subordinate > limit {
            self.set_buses(bridge, 0, 0, 0);
            return bus;
        }
        self.bus(secondary, Some(bridge), subordinate);
        subordinate
    }

    fn assign(&mut self, bridge: Bdf, bus: u8) -> u8 {
        let Some(secondary) = self.next else { return bus };
        self.next = secondary.checked_add(1);
        // Open to the end while the buses behind it are looked for.
        self.set_buses(bridge, bus, secondary, u8::MAX);
        let last = self.bus(secondary, Some(bridge), u8::MAX);
        self.set_buses(bridge, bus, secondary, last);
        last
    }
}
