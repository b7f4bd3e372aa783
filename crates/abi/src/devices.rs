//! Handover layouts of the device file types: PCI, IOMMU, iommufd, VFIO, KVM and `guest_memfd`.
//!
//! No released kernel has them. Each module says for each structure what it rests on, in these words:
//!
//! | word | meaning |
//! |---|---|
//! | **next** | in the tree of the live update maintainers that feeds linux-next; not in 7.3 |
//! | **posted** | in a series sent to the mailing lists, not merged |
//! | **branch** | seen in a work branch of the authors or in a back-port only: the shape is plausible, details may move |
//! | **own** | luosim's, where nothing is published or the width of a field is not known |
//!
//! ([`Certainty`] is the same list for programs.) All fields are packed: the little-endian types have alignment 1, so
//! that the structures have no padding at any offset. A structure's size does not change with the page size.
//!
//! Not here: what the simulated hardware itself reads (root table, context and page table entries, descriptors): those
//! are formats of a device, not of a handover, and belong to `luosim-hardware`.

/// Asserts at compile time how large a structure is and where each of its fields lies.
macro_rules! assert_layout {
    ($type:ty, $size:literal, $($field:ident @ $offset:literal),* $(,)?) => {
        const _: () = {
            assert!(std::mem::size_of::<$type>() == $size);
            assert!(std::mem::align_of::<$type>() == 1);
            $(assert!(std::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}

pub mod guest_memfd;
pub mod iommu;
pub mod iommufd;
pub mod kvm;
pub mod pci;
pub mod vfio;

crate::named! {
    /// What a layout or a rule of a device file type rests on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Certainty {
        Mainline = "mainline", "in released kernels";
        Next = "next", "in the tree of the live update maintainers that feeds linux-next, not in 7.3";
        Posted = "posted", "in a series sent to the mailing lists, not merged";
        Branch = "branch", "seen in a work branch or a back-port only; details may move";
        Own = "own", "luosim's own: nothing is published, or a width is not known";
    }
}
