//! Which file types a kernel preserves besides memory files, and what luosim assumes about those that are not released.
//!
//! Live update exists for virtual machines; released kernels carry their memory alone. A [`Profile`] is a state of the work on
//! the rest: the last released kernel with what is in a maintainer's tree, on the mailing lists, or only planned. The base is
//! always a release of the table ([`crate::release`]), 7.3 for all that is here. An [`Assumption`] is a rule that nobody has
//! published; whoever relies on one says so, so that a result can be read for what it is worth.
//!
//! Not here: the layouts of those file types (each says what it rests on).

crate::named! {
    /// A state of the work on device file types.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Profile {
        #[default]
        Mainline = "mainline", "memory files alone, as in the released kernels";
        Next = "next", "the maintainers' tree: PCI core keeps an object, no file type uses it yet";
        Posted2026 = "posted-2026", "the series on the lists in 2026: a device is reset at freeze, an iommufd is preserved but not given back";
        Target = "target", "what the series are for: devices go on with their DMA, iommufds are given back";
    }
}

impl Profile {
    /// The profile with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name() == name)
    }

    /// Whether KVM, iommufd and VFIO files have handlers.
    #[must_use]
    pub const fn devices(self) -> bool {
        matches!(self, Self::Posted2026 | Self::Target)
    }

    /// Whether PCI core leaves preserved functions and the bridges above them their bus mastering at a kexec.
    #[must_use]
    pub const fn keeps_bus_mastering(self) -> bool {
        !matches!(self, Self::Mainline)
    }

    /// Whether a device is reset, and loses bus mastering, when it is frozen.
    #[must_use]
    pub const fn resets_at_freeze(self) -> bool {
        matches!(self, Self::Posted2026)
    }

    /// Whether an iommufd can be retrieved and its page tables taken back.
    #[must_use]
    pub const fn restores_iommufd(self) -> bool {
        matches!(self, Self::Target)
    }
}

crate::named! {
    /// A rule of the model that is published nowhere, or only in a summary or a work branch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Assumption {
        UnboundCdev = "unbound-cdev",
            "a device that is open but not bound to an iommufd cannot be preserved: it follows from the check that is used, no test asserts it";
        ImmutableIoas = "immutable-ioas",
            "mapping and unmapping answer EBUSY while the iommufd is preserved: the errno is not known";
        PhaseOneRetrieve = "phase-one-retrieve",
            "retrieving an iommufd answers EOPNOTSUPP: it must fail, with which errno is not known";
        AttachmentFixed = "attachment-fixed",
            "attaching and detaching a preserved device answers EBUSY: known from a summary alone";
        DetachedStays = "detached-stays",
            "attaching a device that is preserved without a page table answers EBUSY: no series says so, luosim does where DMA goes on";
        NoReset = "no-reset",
            "a device is not reset at freeze and its DMA goes on: the stated goal, in no posted series";
        RestoreCommand = "restore-command",
            "page tables are taken back by a command seen in work branches alone";
        DevicePullsIommufd = "device-pulls-iommufd",
            "retrieving a device retrieves its iommufd by token: known from a summary alone";
        EmptyIommufd = "empty-iommufd",
            "an iommufd without marked page tables is preserved, with none: inferred from a work branch";
        VmRecord = "vm-record",
            "the record of a virtual machine is 8 bytes: its size is not known";
        FrozenUntilReopened = "frozen-until-reopened",
            "a device frozen by a reboot that failed works again once session and descriptors are closed and it is opened anew";
        NotCarriedTwice = "not-carried-twice",
            "devices of a session that was not finished are not carried by a second kexec, and lose bus mastering: inferred";
        UnfinishedMemory = "unfinished-memory",
            "memory whose retrieval failed is freed, though a device may still be writing to it: what the memory file handler does";
        GroupOfOne = "group-of-one",
            "every function is an IOMMU group of its own";
        RestoredDomain = "restored-domain",
            "early in the boot the restored page tables become the device's without a change to the hardware: seen in the first series";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_name_and_ordered_by_what_they_can() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_name(profile.name()), Some(*profile));
            assert!(!profile.restores_iommufd() || profile.devices());
            assert!(!profile.devices() || profile.keeps_bus_mastering());
        }
        assert_eq!(Profile::from_name("tomorrow"), None);
        assert!(!Profile::Mainline.devices() && !Profile::Next.devices());
    }
}
