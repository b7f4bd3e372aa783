//! The invariants of DMA through a kexec, as checks.
//!
//! A [`Checker`] is fed with what is there at the time points of a live update ([`TimePoint`]) and gives [`Violation`]s, which
//! name the invariant and the numbers that broke it. It looks, and changes nothing: [`DeviceView::observe`] reads hardware and
//! memory, the rest is passed in by whoever knows it (who owns a frame, what a file holds, what a driver saw).
//!
//! ```text
//!  T0 ─ preserve ─ T1 ─ freeze ─ T2 ─ T3 jump ─ T4 early boot ─ T5 user space ─ T6 retrieved ─ T7 reclaimed ─ T8 finished
//! ```
//!
//! What a device owes depends on whether it goes on ([`Mode::Continues`]) or is reset in freeze ([`Mode::ResetInFreeze`]), as
//! the posted handler does: then D4 says that nothing is written after freeze, and D9 that there is one reset.

mod checker;
mod view;

pub use checker::{Checker, FrameOwner, Mode};
pub use view::{Canaries, DeviceView, Mapping, NoMapping, Observer, Tokens};

luosim_abi::named! {
    /// A point of a live update at which invariants are checked.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum TimePoint {
        T0 = "T0", "before anything is preserved";
        T1 = "T1", "everything is preserved";
        T2 = "T2", "the reboot has frozen the files";
        T3 = "T3", "the old kernel is gone";
        T4 = "T4", "early in the boot of the new kernel";
        T5 = "T5", "user space is up";
        T6 = "T6", "the files are retrieved";
        T7 = "T7", "the device's domain is replaced by one of the new kernel";
        T8 = "T8", "the session is finished";
    }
}

luosim_abi::named! {
    /// An invariant of DMA through a kexec.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Invariant {
        D1 = "D1", "Frames are left alone. A frame that a preserved device can reach is not free, not allocated for anything else, and not written by a kernel, from T1 to T7.";
        D2 = "D2", "Mappings stay. Every address of the device leads to the same frame with the same permissions from T1 to T7, and every page of a preserved file lies in the same frame from T1 to T8.";
        D3 = "D3", "Tables stay. The pages of the device's page table are the same and hold the same bytes from T1 until a kernel replaces the domain at T7.";
        D4 = "D4", "DMA goes on. From T2 to T7, the replacement of the domain included, no request of the device is refused by its IOMMU or stopped by bus mastering, and a device that has work makes progress. A device that is reset in freeze writes nothing instead.";
        D5 = "D5", "What was written is there. Everything that a device wrote and completed before its memory is retrieved reads back through the retrieved file.";
        D6 = "D6", "What is written later is there. Everything that a device writes after its memory is retrieved and before the session is finished reads back too.";
        D7 = "D7", "Nothing is written elsewhere. No write of a device lands in a frame that was not mapped for it, and frames next to what is mapped hold their canaries.";
        D8 = "D8", "Others are locked out. A device that is not preserved writes nothing after the old kernel is shut down.";
        D9 = "D9", "The device is not reset. Its resets, uptime, sequence and ring position go on from T1 to T6. A device that is reset in freeze is reset once, between T1 and T2.";
        D10 = "D10", "Payload comes before completion. Whenever a completion is seen, what it completes is in memory, whole.";
        D11 = "D11", "Interrupts wait. None is delivered from T2 to T6, each that was raised was delivered, or is pending, or is covered by a pending one; after the interrupt that the VMM injects nothing is left to drain.";
        D12 = "D12", "The new kernel keeps off. Where it boots and allocates at first there is no preserved frame.";
        D13 = "D13", "Exactly once. No descriptor is executed twice or passed over, the kexec included.";
        D14 = "D14", "It ends. After the session is finished a device goes through page tables of the new kernel alone, reaches no frame that is free, and is refused where memory was unmapped.";
        D15 = "D15", "An abort is harmless. After a failed or cancelled update D2, D3 and D4 hold as if nothing had been tried, unless the device itself was reset in freeze.";
        D16 = "D16", "Identity stays. Address, requester id, domain id and tokens of a device are the same from T1 to T6.";
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} at {}: {what}", invariant.name(), at.name())]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When it was noticed.
    pub at: TimePoint,
    /// What was found, with names and numbers.
    pub what: String,
}
