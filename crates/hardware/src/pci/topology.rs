//! The functions, and the ways that lead to and from them.

use luosim_physmem::PAGE_SIZE;

use super::config::{ConfigSpace, Identity, command, reg};
use super::layout::Layout;
use crate::Bdf;
use crate::simdma::{InterruptMode, SimDma};

/// Where firmware puts the first BAR: behind the largest memory there is.
const MMIO_BASE: u64 = 1 << 45;

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// The bridge above, if it is not on bus 0.
    pub(crate) parent: Option<usize>,
    pub(crate) devfn: u8,
    /// The bus number that it last heard.
    pub(crate) bus: u8,
    pub(crate) config: ConfigSpace,
    pub(crate) device: Option<Box<SimDma>>,
    pub(crate) present: bool,
    pub(crate) unit: usize,
    /// INTx is asserted and not disabled: it was counted.
    pub(crate) line: bool,
}

impl Function {
    pub(crate) fn rid(&self) -> Bdf {
        Bdf::on(self.bus, self.devfn)
    }
}

/// What there is to know of a function without asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its address now; `None` if no bridge leads to it any more, or it is gone.
    pub bdf: Option<Bdf>,
    /// What it puts on its requests.
    pub rid: Bdf,
    /// What it is.
    pub identity: Identity,
    /// Whether it is plugged in.
    pub present: bool,
    /// IOMMU unit that translates for it.
    pub unit: usize,
}

/// All functions; they are named by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology(pub(crate) Vec<Function>);

impl Topology {
    /// The functions of a plan that was checked, as firmware leaves them: bus numbers and BARs are written, bridges pass
    /// everything, endpoints are off.
    pub(crate) fn new(layout: &Layout) -> Self {
        let mut functions: Vec<Function> = Vec::new();
        for (at, slot) in layout.slots.iter().enumerate() {
            let leads = |other: &super::layout::Slot| {
                other.identity == Identity::Bridge && other.secondary == slot.bdf.bus()
            };
            let parent = (slot.bdf.bus() != 0).then(|| layout.slots[..at].iter().position(leads)).flatten();
            let mut config = ConfigSpace::new(slot.identity);
            let bridge = slot.identity == Identity::Bridge;
            if bridge {
                let buses = [slot.bdf.bus(), slot.secondary, layout.subordinate(slot.secondary)];
                for (offset, bus) in (reg::PRIMARY..).zip(buses) {
                    config.write(offset, 1, u32::from(bus));
                }
                config.write(reg::COMMAND, 2, u32::from(command::MEMORY | command::MASTER));
            } else {
                let bar = MMIO_BASE + PAGE_SIZE * u64::try_from(at).expect("few functions");
                config.write(reg::BAR0, 4, u32::try_from(bar & 0xffff_ffff).expect("the lower half"));
                config.write(reg::BAR0 + 4, 4, u32::try_from(bar >> 32).expect("the upper half"));
            }
            functions.push(Function {
                parent,
                devfn: slot.bdf.devfn(),
                bus: slot.bdf.bus(),
                config,
                device: (!bridge).then(Box::default),
                present: true,
                unit: slot.unit,
                line: false,
            });
        }
        Self(functions)
    }

    fn children(&self, parent: Option<usize>) -> impl Iterator<Item = (usize, &Function)> {
        self.0.iter().enumerate().filter(move |(_, function)| function.parent == parent && function.present)
    }

    /// The function that a configuration access for an address reaches.
    pub(crate) fn route(&self, bdf: Bdf) -> Option<usize> {
        let (mut above, mut bus) = (None, 0);
        // Every turn goes one bridge down, and no bridge is below itself.
        while bus != bdf.bus() {
            let leads = |(_, function): &(usize, &Function)| {
                let (_, secondary, subordinate) = function.config.buses();
                function.config.identity() == Identity::Bridge
                    && function.config.power_state() == 0
                    && secondary != 0
                    && (secondary..=subordinate).contains(&bdf.bus())
            };
            let (index, bridge) = self.children(above).find(leads)?;
            (above, bus) = (Some(index), bridge.config.buses().1);
        }
        self.children(above).find(|(_, function)| function.devfn == bdf.devfn()).map(|(index, _)| index)
    }

    /// The address of a function, if an access can reach it.
    pub(crate) fn address(&self, index: usize) -> Option<Bdf> {
        let function = &self.0[index];
        let bus = function.parent.map_or(0, |parent| self.0[parent].config.buses().1);
        let bdf = Bdf::on(bus, function.devfn);
        (self.route(bdf) == Some(index)).then_some(bdf)
    }

    /// The function and the bridges above it, upwards.
    pub(crate) fn path(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(index), |at| self.0[*at].parent)
    }

    /// Whether everything on the way is there, in D0, and has these bits in its Command register.
    fn all_may(&self, index: usize, bits: u16) -> bool {
        self.path(index).all(|at| self.0[at].present && self.0[at].config.may(bits))
    }

    /// Whether requests of the function reach memory.
    pub(crate) fn master(&self, index: usize) -> bool {
        self.all_may(index, command::MASTER)
    }

    /// Whether the function's registers can be accessed.
    pub(crate) fn memory(&self, index: usize) -> bool {
        self.all_may(index, command::MEMORY)
    }

    /// Whether the device does anything at all.
    pub(crate) fn powered(&self, index: usize) -> bool {
        self.0[index].present && self.0[index].config.may(0)
    }

    pub(crate) fn interrupt_mode(&self, index: usize) -> InterruptMode {
        use super::config::bits::{MSIX_ENABLE, MSIX_FUNCTION_MASK};
        let control = self.0[index].config.u16(reg::MSIX_CONTROL);
        InterruptMode {
            msix: control & MSIX_ENABLE != 0,
            masked: control & MSIX_FUNCTION_MASK != 0,
            master: self.master(index),
        }
    }

    pub(crate) fn info(&self, index: usize) -> FunctionInfo {
        let function = &self.0[index];
        FunctionInfo {
            bdf: self.address(index),
            rid: function.rid(),
            identity: function.config.identity(),
            present: function.present,
            unit: function.unit,
        }
    }
}
