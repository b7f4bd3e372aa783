//! Hardware of a simulated machine that outlives its kernels: PCI functions, IOMMU units, a DMA engine.
//!
//! A kexec replaces a kernel and leaves everything here as it is: [`Hardware`] belongs to the machine, beside its
//! [`PhysMem`](luosim_physmem::PhysMem). Its devices read descriptors from memory and write payloads to it, each request
//! through tables that lie in memory as bytes, so DMA goes on while no kernel runs, and goes wrong when a kernel did not
//! preserve what it depends on.
//!
//! # How to use it
//!
//! ```
//! use luosim_hardware::iommu::{ContextEntry, Levels, PageTable, Permissions, RamRef, RootTable, reg as iommu_reg};
//! use luosim_hardware::pci::config::command;
//! use luosim_hardware::simdma::layout::{Descriptor, Op, ctrl, reg};
//! use luosim_hardware::{Bdf, Hardware, pci::Layout};
//! use luosim_physmem::{FrameUse, Order, PhysMem, Ram};
//!
//! let mut hw = Hardware::new(Layout::reference()).expect("a plan that can be built");
//! let mut ram = Ram::new(PhysMem::anonymous(16 << 20).expect("the host has room"));
//! let bdf = Bdf::new(1, 0, 0);
//!
//! // A kernel: tables in memory, frames from its allocator.
//! let buffer = ram.alloc_zeroed(Order::new(2).unwrap(), FrameUse::Other).expect("room").addr();
//! let mut mem = RamRef(&mut ram);
//! let table = PageTable::new(&mut mem, Levels::Four).expect("room");
//! table.map(&mut mem, 0x1_0000_0000, buffer, 4 * 4096, Permissions::READ_WRITE).expect("free addresses");
//! let root = RootTable::new(&mut mem).expect("room");
//! root.set_context(&mut mem, bdf, ContextEntry::new(table.top, table.levels, 7)).expect("room");
//! hw.unit(0).write(iommu_reg::ROOT_PA, 8, root.0.raw());
//! hw.unit(0).write(iommu_reg::CTRL, 4, 1);
//!
//! // A driver: ring in the first page, completions in the second, the payload in the third.
//! hw.change_command(bdf, command::MEMORY | command::MASTER, 0);
//! let fill = Descriptor::new(Op::Fill, 0, 0x1_0000_2000, 4096, 42);
//! ram.mem.write_obj(buffer, &fill).expect("inside");
//! for (offset, width, value) in [
//!     (reg::RING_IOVA, 8, 0x1_0000_0000),
//!     (reg::CQ_IOVA, 8, 0x1_0000_1000),
//!     (reg::RING_LEN, 4, 64),
//!     (reg::HEAD, 4, 1),
//!     (reg::CTRL, 4, u64::from(ctrl::RUN)),
//! ] {
//!     hw.mmio_write(bdf, offset, width, value);
//! }
//!
//! // The kernel is gone; the device goes on.
//! hw.tick(&mut ram.mem, 64);
//! assert_eq!(hw.mmio_read(bdf, reg::SEQ, 8), 1);
//! assert_eq!(hw.mmio_read(bdf, reg::FAULT_CNT, 4), 0);
//! ```
//!
//! | a machine calls | when |
//! |---|---|
//! | [`Hardware::tick`] with its memory | at every point where time passes, with a kernel or without |
//! | [`Hardware::kernel_starts`] | when a kernel boots |
//! | [`Hardware::enter`] | when a phase of a live update begins; [`Hardware::timeline`] is the account |
//! | [`pci::enumerate()`] | in each boot, with [`pci::BusPolicy::Keep`] if a device is incoming |
//! | [`Hardware::cold_reset`] | at power on |
//!
//! What a kernel does with a function (Command, power state, reset, MSI-X) are configuration accesses; what it does
//! with its IOMMU are tables ([`iommu::table`]) and registers ([`iommu::reg`]). [`driver`] is the driver of a guest, for
//! workloads; [`verify`] has the invariants of DMA through a kexec.
//!
//! # Rules
//!
//! Deterministic: state depends on the calls alone, and a clone is a snapshot. Registers, descriptors and tables may hold
//! anything: what hardware would refuse is recorded as a fault, nothing panics, and nothing is written but what is
//! mapped for the requester. Not here: kernels, files, handovers.

#![forbid(unsafe_code)]

mod bdf;
pub mod digest;
mod dma;
pub mod driver;
mod hardware;
pub mod iommu;
pub mod pci;
pub mod simdma;
pub mod timeline;
pub mod verify;

pub use bdf::{Bdf, BdfError, SEGMENT};
pub use hardware::{Hardware, InterruptKind};
