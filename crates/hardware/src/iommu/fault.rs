//! Why a unit refuses a request.

luosim_abi::named! {
    /// The reason, as in bits 23:16 of the register FAULT_RID: its place in the table, from 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum FaultReason {
        RootAbsent = "root-absent", "no context table for the bus";
        ContextAbsent = "context-absent", "no context entry for the function: it is blocked";
        Malformed = "malformed", "a root or context entry has reserved bits, an unknown depth or no domain id";
        AddressWidth = "address-width", "the address has more bits than the page table translates";
        NotPresent = "not-present", "nothing is mapped there";
        ReadDenied = "read-denied", "a level of the page table does not let reads pass";
        WriteDenied = "write-denied", "a level of the page table does not let writes pass";
        ReservedBits = "reserved-bits", "a page table entry has reserved bits set";
        TableAddress = "table-address", "a table lies outside memory";
        Target = "target", "the address that came out is neither memory nor a device's";
    }
}

impl FaultReason {
    /// The number in the register.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who.
    pub rid: crate::Bdf,
    /// Where.
    pub iova: u64,
    /// Whether it was a write.
    pub write: bool,
    /// Why.
    pub reason: FaultReason,
}
