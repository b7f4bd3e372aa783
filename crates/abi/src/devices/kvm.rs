//! The data of the handlers of virtual machines, string `kvm_vm_luo_v1`, and of virtual processors,
//! `kvm_vcpu_luo_v1`.
//!
//! A virtual machine crosses as its type alone: memory slots, interrupt controllers and routes are made again by the
//! VMM. Virtual processors, second-level tables that stay in use and the block by which a processor runs on through
//! the kexec are work in progress (**branch**).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::kho::vmalloc::Descriptor;

/// The handler's string of a virtual machine (**posted**).
pub const VM_COMPATIBLE: &str = "kvm_vm_luo_v1";
/// The handler's string of a virtual processor (**branch**).
pub const VCPU_COMPATIBLE: &str = "kvm_vcpu_luo_v1";
/// [`CaretakerBlock::pcpu`]: on no processor.
pub const NO_PCPU: u32 = u32::MAX;
/// Flag of [`VcpuSer`]: runs on in the care of a preserved processor.
pub const VCPU_CARETAKER: u32 = 1;

/// A virtual machine, later series (**posted**; that the size is 8 is **own**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmSer {
    /// Type given when the machine was made.
    pub kind: U64,
}

/// A virtual machine, first RFC (**posted**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmSerRfc {
    /// Type given when the machine was made.
    pub kind: U64,
    /// Entries of the table.
    pub nr_mem_attrs: U64,
    /// The table of [`MemAttr`]s.
    pub mem_attrs: Descriptor,
}

/// Attributes of a guest frame, first RFC (**posted**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemAttr {
    /// Guest frame.
    pub gfn: U64,
    /// Its attributes.
    pub attributes: U64,
}

/// A virtual machine whose second-level tables stay in use (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VmSerTables {
    /// Type given when the machine was made.
    pub kind: U64,
    /// Physical address of a [`FolioList`].
    pub tables: U64,
}

/// First bytes of a list of folios (**branch**); addresses follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FolioList {
    /// Physical addresses that follow, 8 bytes each.
    pub nr: U64,
}

/// A virtual processor (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuSer {
    /// Its number in the machine.
    pub vcpu_id: U32,
    /// [`VCPU_CARETAKER`].
    pub flags: U32,
    /// Token of its machine in the session.
    pub vm_token: U64,
    /// Physical address of the registers.
    pub arch_state: U64,
    /// Physical address of the [`CaretakerBlock`]; 0 if the processor is paused.
    pub control_block: U64,
}

crate::named! {
    /// States of a processor in care.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CaretakerState {
        Paused = "paused", "not running; may be started, or stopped at once";
        Running = "running", "runs for a quantum";
        Stopping = "stopping", "was asked to stop; its registers are not written yet";
        Stopped = "stopped", "its registers are in memory";
    }
}

/// Control block of a processor in care (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CaretakerBlock {
    /// A [`CaretakerState`], in the order of the table, from 0.
    pub state: U32,
    /// Physical processor, or [`NO_PCPU`].
    pub pcpu: U32,
    /// Virtual processor.
    pub vcpu_id: U32,
    /// 0.
    pub reserved: U32,
    /// Physical address of the [`Telemetry`].
    pub telemetry: U64,
}

/// What a processor in care did (**branch**).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Telemetry {
    /// Quanta.
    pub runs: U64,
    /// Exits.
    pub exits: U64,
    /// Exits that wait for the VMM.
    pub stalls: U64,
    /// Reason of the last exit.
    pub last_reason: U64,
    /// Instruction pointer at the last exit.
    pub last_rip: U64,
    /// Reason of the last stall.
    pub stall_reason: U64,
    /// Instruction pointer at the last stall.
    pub stall_rip: U64,
}

assert_layout!(VmSer, 8, kind @ 0);
assert_layout!(VmSerRfc, 32, kind @ 0, nr_mem_attrs @ 8, mem_attrs @ 16);
assert_layout!(MemAttr, 16, gfn @ 0, attributes @ 8);
assert_layout!(VmSerTables, 16, kind @ 0, tables @ 8);
assert_layout!(FolioList, 8, nr @ 0);
assert_layout!(VcpuSer, 32, vcpu_id @ 0, flags @ 4, vm_token @ 8, arch_state @ 16, control_block @ 24);
assert_layout!(CaretakerBlock, 24, state @ 0, pcpu @ 4, vcpu_id @ 8, reserved @ 12, telemetry @ 16);
assert_layout!(
    Telemetry, 56,
    runs @ 0, exits @ 8, stalls @ 16, last_reason @ 24, last_rip @ 32, stall_reason @ 40, stall_rip @ 48,
);
