//! A machine with one guest, small enough to reason about: buffers in scattered frames with guards between them, a page
//! table for the guest's device, and a kexec that wipes what is not preserved.

use std::collections::BTreeSet;

use luosim_hardware::driver::{Driver, GuestMemory};
use luosim_hardware::iommu::{
    ContextEntry, Invalidation, Levels, PageTable, Permissions, RamRef, RootTable, reg,
};
use luosim_hardware::pci::{Layout, config::command};
use luosim_hardware::verify::{Canaries, FrameOwner};
use luosim_hardware::{Bdf, Hardware};
use luosim_physmem::{FrameState, FrameUse, Order, PAGE_SIZE, Pfn, PhysMem, Ram};

/// The guest's device, behind the bridge.
pub(crate) const GUEST: Bdf = Bdf::new(1, 0, 0);
/// Another device behind the bridge, not preserved.
pub(crate) const OTHER: Bdf = Bdf::new(1, 1, 0);
/// The bridge.
pub(crate) const BRIDGE: Bdf = Bdf::new(0, 1, 0);
/// Where guest memory begins for devices.
pub(crate) const BASE: u64 = 0x1_0000_0000;
/// Domain ids of the two devices.
pub(crate) const DOMAINS: [u32; 2] = [7, 8];

/// Memory of a guest: the frames of its file, in order.
pub(crate) struct Guest<'m> {
    pub(crate) mem: &'m mut PhysMem,
    pub(crate) frames: &'m [Pfn],
}

fn pieces(frames: &[Pfn], iova: u64, len: usize) -> Option<Vec<(u64, usize)>> {
    let (mut at, mut left, mut found) = (iova.checked_sub(BASE)?, len, Vec::new());
    while left > 0 {
        let frame = frames.get(usize::try_from(at / PAGE_SIZE).ok()?)?;
        let piece = left.min(usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap());
        found.push((frame.addr().raw() + at % PAGE_SIZE, piece));
        at += u64::try_from(piece).unwrap();
        left -= piece;
    }
    Some(found)
}

/// Reads guest memory by the addresses of its devices.
pub(crate) fn read_guest(mem: &PhysMem, frames: &[Pfn], iova: u64, buf: &mut [u8]) -> bool {
    let Some(pieces) = pieces(frames, iova, buf.len()) else { return false };
    let mut done = 0;
    for (addr, len) in pieces {
        mem.read(luosim_physmem::PhysAddr::new(addr), &mut buf[done..done + len]).unwrap();
        done += len;
    }
    true
}

impl GuestMemory for Guest<'_> {
    fn read(&self, iova: u64, buf: &mut [u8]) -> bool {
        read_guest(self.mem, self.frames, iova, buf)
    }

    fn write(&mut self, iova: u64, bytes: &[u8]) -> bool {
        let Some(pieces) = pieces(self.frames, iova, bytes.len()) else { return false };
        let mut done = 0;
        for (addr, len) in pieces {
            self.mem.write(luosim_physmem::PhysAddr::new(addr), &bytes[done..done + len]).unwrap();
            done += len;
        }
        true
    }
}

pub(crate) struct World {
    pub(crate) hw: Hardware,
    pub(crate) ram: Ram,
    pub(crate) root: RootTable,
    pub(crate) table: PageTable,
    pub(crate) frames: Vec<Pfn>,
    pub(crate) other_table: PageTable,
    pub(crate) other_frames: Vec<Pfn>,
    pub(crate) guards: Canaries,
    pub(crate) epoch: u32,
}

/// Pages of the guest's memory.
pub(crate) const PAGES: usize = 12;

fn scattered(ram: &mut Ram, pages: usize) -> (Vec<Pfn>, Vec<Pfn>) {
    let mut take = |_| ram.alloc_zeroed(Order::ZERO, FrameUse::PageCache).unwrap();
    let all: Vec<Pfn> = (0..2 * pages + 1).map(&mut take).collect();
    let odd = |odd: usize| all.iter().copied().skip(odd).step_by(2).collect();
    (odd(1), odd(0))
}

pub(crate) fn mapped(ram: &mut Ram, frames: &[Pfn], levels: Levels) -> PageTable {
    let mut mem = RamRef(ram);
    let table = PageTable::new(&mut mem, levels).unwrap();
    for (iova, frame) in (BASE..).step_by(4096).zip(frames) {
        table.map(&mut mem, iova, frame.addr(), PAGE_SIZE, Permissions::READ_WRITE).unwrap();
    }
    table
}

impl World {
    /// A machine whose kernel attached both devices, each to memory of its own, and turned translation on.
    pub(crate) fn new(cache: Option<u8>) -> Self {
        let mut hw = Hardware::new(Layout::reference()).unwrap();
        let mut ram = Ram::new(PhysMem::anonymous(8 << 20).unwrap());
        // Frame 0 stays out of the way: address 0 means nothing in many places.
        ram.frames.reserve(Pfn::new(0), 1).unwrap();
        let (frames, mut guards) = scattered(&mut ram, PAGES);
        let (other_frames, more) = scattered(&mut ram, PAGES);
        guards.extend(more);
        let guards = Canaries::plant(&mut ram.mem, 0xc5, guards).unwrap();
        let table = mapped(&mut ram, &frames, Levels::Four);
        let other_table = mapped(&mut ram, &other_frames, Levels::Three);
        let root = RootTable::new(&mut RamRef(&mut ram)).unwrap();
        for (rid, table, domain) in [(GUEST, table, DOMAINS[0]), (OTHER, other_table, DOMAINS[1])] {
            let entry = ContextEntry::new(table.top, table.levels, domain);
            root.set_context(&mut RamRef(&mut ram), rid, entry).unwrap();
            hw.change_command(rid, command::MEMORY | command::MASTER | command::INTX_DISABLE, 0);
        }
        hw.unit(0).set_cache(cache);
        hw.unit(0).write(reg::ROOT_PA, 8, root.0.raw());
        hw.unit(0).write(reg::CTRL, 4, 1);
        Self { hw, ram, root, table, frames, other_table, other_frames, guards, epoch: 0 }
    }

    pub(crate) fn tick(&mut self, n: u64) {
        self.hw.tick(&mut self.ram.mem, n);
    }

    pub(crate) fn guest(&mut self) -> (&mut Hardware, Guest<'_>) {
        (&mut self.hw, Guest { mem: &mut self.ram.mem, frames: &self.frames })
    }

    /// A driver of the guest's device that was started.
    pub(crate) fn driver(&mut self, irq: bool) -> Driver {
        let mut driver = Driver::new(GUEST, BASE);
        let (hw, mut guest) = self.guest();
        driver.start(hw, &mut guest, irq).unwrap();
        driver
    }

    /// The other device fills the last pages of its memory for ever.
    pub(crate) fn start_other(&mut self) -> Driver {
        let mut driver = Driver::new(OTHER, BASE);
        let mut guest = Guest { mem: &mut self.ram.mem, frames: &self.other_frames };
        driver.start(&mut self.hw, &mut guest, false).unwrap();
        driver.post_fill(&mut guest, BASE + 0x3000, 4096, 99).unwrap();
        driver.post_loop(&mut guest).unwrap();
        driver.ring(&mut self.hw);
        driver
    }

    pub(crate) fn drain(&mut self, driver: &mut Driver) {
        let (_, guest) = self.guest();
        driver.drain(&guest).unwrap();
    }

    pub(crate) fn invalidate(&mut self, what: Invalidation) {
        self.hw.unit(0).write(reg::INVAL, 8, what.encode());
    }

    /// Table pages of the guest's device, the way to it from the root table included.
    pub(crate) fn tables(&self) -> Vec<Pfn> {
        let tables = self.table.contents(&self.ram.mem).unwrap().tables;
        tables.into_iter().chain(self.root.pages(&self.ram.mem)).collect()
    }

    /// The old kernel is gone: only `preserved` frames are held, the next kernel writes every other.
    pub(crate) fn jump(&mut self, preserved: &BTreeSet<Pfn>) {
        let memory = std::mem::replace(&mut self.ram, Ram::new(PhysMem::anonymous(64 << 10).unwrap()));
        self.ram = Ram::new(memory.into_mem());
        self.ram.frames.reserve(Pfn::new(0), 1).unwrap();
        preserved.iter().for_each(|pfn| self.ram.frames.hold_preserved(*pfn, Order::ZERO).unwrap());
        for pfn in (1..self.ram.frames.frame_count()).map(Pfn::new) {
            if self.ram.frames.state(pfn) == FrameState::Free {
                self.ram.mem.fill(pfn.addr(), PAGE_SIZE, 0x5a).unwrap();
            }
        }
        self.epoch += 1;
        self.hw.kernel_starts(self.epoch);
    }

    /// Who has a frame, as the checker wants to know it.
    pub(crate) fn owner(&self, pfn: Pfn) -> FrameOwner {
        match self.ram.frames.state(pfn) {
            FrameState::Free => FrameOwner::Free,
            FrameState::PreservedHead(_) => FrameOwner::Preserved,
            FrameState::AllocatedHead(_) => match self.ram.frames.use_of(pfn) {
                FrameUse::PageCache | FrameUse::IommuTable => FrameOwner::File,
                other => FrameOwner::Other(other.text()),
            },
            _ => FrameOwner::Other("no block of its own"),
        }
    }
}
