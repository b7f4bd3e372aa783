//! What real releases get wrong, by name.
//!
//! A quirk is a departure of a shipped kernel from what its documentation or a later release does. It is on
//! by default for the releases that have it and can be switched on or off for any machine. Each says which
//! releases have it, what triggers it and what a program sees. Defects of the posted designs
//! ([`crate::posted`]), which their review found or later revisions mended, are among them.
//!
//! The *planted* ones are in no release: they are mistakes of the kind that were made and mended, there to be
//! switched on, so that a test tool can be tested.

use std::fmt;

crate::named! {
    /// One named defect of a real release: who has it, what triggers it, what is seen.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Quirk {
        NoNameCheck = "no-name-check",
            "6.19, 7.0, early 7.1: CREATE_SESSION takes an empty name, and cuts 64 bytes without NUL to 63";
        NoDirectionCheck = "no-direction-check",
            "6.19, 7.0: a session command is run whether the session is incoming or outgoing";
        SameInodeTwice = "same-inode-twice",
            "6.19, 7.0: one memfd may be preserved under several tokens; only the first retrieve gets its pages";
        FinishIgnoresReserved = "finish-ignores-reserved",
            "6.19 to 7.1, early 7.2: FINISH does not look at its reserved field";
        RetrieveErrorForgotten = "retrieve-error-forgotten",
            "6.19, 7.0: a failed RETRIEVE_FD is not remembered; another try works on memory that is already freed";
        DeserializeErrorSwallowed = "deserialize-error-swallowed",
            "6.19, 7.0: a file that cannot be deserialised ends its session's list silently instead of failing the open";
        SealsNotCarried = "seals-not-carried",
            "6.19, 7.0: memfd-v1 has no seals; every file comes back with F_SEAL_SEAL alone";
        FolioFlagsAtPreserve = "folio-flags-at-preserve",
            "6.19, 7.0: pages allocated but unused at PRESERVE_FD come back as zeros, whatever was written later";
        LargeFileTruncatedCount = "large-file-einval",
            "6.19, 7.0: no limit on the pages of a memfd; the page count is cut to 32 bits (16 TiB gives EINVAL)";
        StaleRestoreError = "stale-restore-error",
            "6.19, 7.0: when a folio cannot be restored after another could, RETRIEVE_FD succeeds with pages missing";
        BlocksOnePerFolio = "blocks-one-per-folio",
            "6.19, 7.0: st_blocks of a retrieved file counts one page for each folio, whatever its order";
        ShortLinkText = "short-link-text",
            "6.19, 7.0: readlink of a session descriptor fails with ENAMETOOLONG for names of 39 bytes and more";
        EmptyTrailingBlock = "empty-trailing-block",
            "7.2, 7.3: a CREATE_SESSION refused with EEXIST when all blocks are full leaves an empty block, and \
             the next kernel panics";
        ExecSealImpliesWrite = "exec-seal-implies-write",
            "7.1 to 7.3: a memfd with F_SEAL_EXEC comes back executable and sealed against writing and resizing";
        RetrieveSessionFaultDestroys = "retrieve-session-fault-destroys",
            "all: RETRIEVE_SESSION whose reply cannot be written back finishes and removes the session";
        WriteWindowPage = "write-window-page",
            "6.19 to 7.1: a write over the end of a frozen or grow-sealed file is cut at a page, not at 2 MiB";
        FinalizeErrorKeepsFrozen = "finalize-error-keeps-frozen",
            "6.19, 7.0: when KHO cannot be finalised, reboot says EAGAIN and the frozen files stay frozen";
        PreserveContextRunsLuo = "preserve-context-runs-luo",
            "6.19, 7.0: the live update steps run for images loaded with KEXEC_PRESERVE_CONTEXT as well";
        CrashImageTakesKho = "crash-image-takes-kho",
            "6.19, 7.0: an image for the crash kernel takes the handover along";
        CrashKernelKeepsKho = "crash-kernel-keeps-kho",
            "up to 7.2: KHO is not switched off in a crash kernel";
        FlbErrorForgotten = "flb-error-forgotten",
            "7.0, 7.1: an FLB that could not be retrieved is tried again at the next call";
        LateSealsLost = "late-seals-lost",
            "7.1 to 7.3: seals added after PRESERVE_FD do not cross: the file comes back with the seals that it had then";
        AccessModeGrows = "access-mode-grows",
            "all: a description opened for reading alone is preserved, and comes back open for writing too";
        ReplyFaultAfterEffect = "reply-fault-after-effect",
            "all: PRESERVE_FD and FINISH whose reply cannot be written back say EFAULT and have done their work";

        FlagsIgnored = "flags-ignored",
            "posted-v2: FD_PRESERVE and FD_RESTORE do not look at flags, which no later kernel could use therefore";
        InstallBeforeReply = "install-before-reply",
            "posted-v2, posted-v3: an FD_RESTORE whose reply cannot be written back says EFAULT and leaves its descriptor open";
        RestoreOnce = "restore-once",
            "posted-v2, posted-v3: a file whose FD_RESTORE failed counts as given back: another try gives EINVAL";
        CloseLeaksPrepared = "close-leaks-prepared",
            "posted-v2: files of an open that is closed in PREPARED or FROZEN stay as they are: handed over, and beyond CANCEL";
        FreezeLeavesLater = "freeze-leaves-later",
            "posted-v2 to posted-v4: a refused freeze gives NORMAL, but KHO stays finalised, the tree registered, and \
             subsystems behind the one at fault prepared";
        FinalizeKeepsPrepared = "finalize-keeps-prepared",
            "posted-v2 to posted-v4: PREPARE whose KHO finalisation fails answers its error, and the state is PREPARED";
        AbortBeforeState = "abort-before-state",
            "posted-v2 to posted-v4: CANCEL aborts KHO before it looks at the state: ENOENT in NORMAL, not EINVAL";
        PreserveErrorLost = "preserve-error-lost",
            "posted-v3: FD_PRESERVE has its success test inverted: what fails answers 0";
        ReplyUserSize = "reply-user-size",
            "posted-v3: a reply is as long as the caller's structure: the kernel reads past its own (zeros in luosim)";
        StateLostAtMin = "state-lost-at-min",
            "posted-v3: GET_FD_STATE takes 16 bytes, in which the state that it was asked for has no room";
        CloseDropsAll = "close-drops-all",
            "posted-v3: closing the device unregisters every file, in PREPARED and FROZEN too";
        CreateLeaksFd = "create-leaks-fd",
            "posted-v4: a CREATE_SESSION that fails keeps the descriptor number that it had reserved";
        NameCut = "name-cut",
            "posted-v4: CREATE_SESSION cuts a name of 56 bytes without NUL to 55, and RETRIEVE_SESSION then does not find it";
        EmptyNameSkipped = "empty-name-skipped",
            "posted-v4: CREATE_SESSION takes an empty name, and the next kernel skips it as a closed slot";
        RetrieveNameLonger = "retrieve-name-longer",
            "posted-v4: RETRIEVE_SESSION takes 64 bytes of name where CREATE_SESSION takes 56: other sizes, other programs";
        CreateBlind = "create-blind",
            "posted-v4: CREATE_SESSION does not look at sessions that were not read yet: a name twice panics when they are";

        PlantedCanary = "planted-canary",
            "planted: RETRIEVE_FD gives a file back with its position one byte too far";
        TokenTwice = "token-twice",
            "planted: PRESERVE_FD takes a token that the session has already";
        OwnerKeptAfterClose = "owner-kept-after-close",
            "planted: the files of an outgoing session that was closed count as held: PRESERVE_FD says EBUSY for ever";
        OwnerKeptAfterFinish = "owner-kept-after-finish",
            "planted: a file that was retrieved and finished counts as held: it cannot be preserved again";
        PreserveErrorUnits = "preserve-error-units",
            "planted: a PRESERVE_FD that fails takes the pages of its folio table for bytes, and frees none of them";
        FlbCountOnError = "flb-count-on-error",
            "planted: a PRESERVE_FD that fails keeps its count on each FLB, which is never unpreserved then";
        SerializeRacesClose = "serialize-races-close",
            "planted, as 6.19 was: a session may be closed while a reboot serialises; its record is torn";
        ChainCycleAccepted = "chain-cycle-accepted",
            "planted, as 7.2 was before its release: a chain of blocks that runs into itself is taken to end there";
        UnfreezeReversed = "unfreeze-reversed",
            "planted: when a reboot is refused, the files of a session are thawed last first";
        RecordKeptAfterAbort = "record-kept-after-abort",
            "planted: when a reboot is refused, the records that were written for the next kernel stay";
        PositionAtPreserve = "position-at-preserve",
            "planted: a file comes back with the position it had at PRESERVE_FD, not at the reboot";
        CreateFaultLeavesSession = "create-fault-leaves-session",
            "planted: CREATE_SESSION whose reply cannot be written back leaves the session, with nobody to close it";
        FinishPartly = "finish-partly",
            "planted: a FINISH that a handler refuses has finished the files before that one";
        RetrieveFaultConsumes = "retrieve-fault-consumes",
            "planted: RETRIEVE_FD whose reply cannot be written back counts as failed for ever";
        StructureLeaked = "structure-leaked",
            "planted: the page of a retrieved memfd's structure is never freed";
        FrozenAfterError = "frozen-after-error",
            "planted: a memfd whose PRESERVE_FD failed stays frozen";
        UndoFirstOnly = "undo-first-only",
            "planted: when a reboot is refused, only files of the session at fault are thawed, not those of earlier ones";
        TablePageSkipped = "table-page-skipped",
            "planted, devices: one page of a preserved IOMMU page table is not preserved";
        FolioSkipped = "folio-skipped",
            "planted, devices: one folio of a preserved memory file is not preserved";
        BridgeMasterCleared = "bridge-master-cleared",
            "planted, devices: at shutdown the bridges above preserved devices lose bus mastering";
        LeafPoisoned = "leaf-poisoned",
            "planted, devices: the new kernel writes over a frame that a preserved device reaches";
        DomainIdReused = "domain-id-reused",
            "planted, devices: the domain ids of preserved devices are not reserved in the new kernel";
        IoasMutable = "ioas-mutable",
            "planted, devices: an address space can be mapped into while its page table is preserved";
        ReplaceInTwoSteps = "replace-in-two-steps",
            "planted, devices: a device is detached before it is attached to another page table";
        FinishWhileAttached = "finish-while-attached",
            "planted, devices: an iommufd is finished while devices go through the page tables of the previous kernel";
        RetrievedPageBlank = "retrieved-page-blank",
            "planted, devices: the third page of a retrieved memory file is an empty one, not the one that was preserved";
        RetrievedPageCopied = "retrieved-page-copied",
            "planted, devices: the third page of a retrieved memory file is a copy of the one that was preserved";
        UnmapLeavesEntries = "unmap-leaves-entries",
            "planted, devices: unmapping memory leaves it in the page tables that devices go through";
        DeviceAstray = "device-astray",
            "planted, devices: a device now and then writes past its IOMMU, to the last page of memory";
        DeviceCompletesFirst = "device-completes-first",
            "planted, devices: a device writes a completion before the last bytes of the payload";
        DeviceRunsTwice = "device-runs-twice",
            "planted, devices: a device executes every descriptor twice";
        DeviceSkips = "device-skips",
            "planted, devices: a device passes over every eighth descriptor";
        DeviceLosesInterrupts = "device-loses-interrupts",
            "planted, devices: a device forgets an interrupt that it cannot deliver";
        OtherDeviceRunsOn = "other-device-runs-on",
            "planted, devices: at shutdown devices that are not preserved keep bus mastering and their page tables";
        DeviceResetAtBoot = "device-reset-at-boot",
            "planted, devices: the new kernel resets the preserved devices that it finds";
        AbortSilencesDevice = "abort-silences-device",
            "planted, devices: a refused reboot takes bus mastering from the devices that it had frozen";
        ScratchLent = "scratch-lent",
            "planted, devices: frames of scratch are lent to memory files, and PRESERVE_FD takes them as they are";
    }
}

impl Quirk {
    /// The quirk with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|quirk| quirk.name() == name)
    }

    /// Whether it is planted among the device files, which need hardware to show.
    #[must_use]
    pub fn of_devices(self) -> bool {
        self.describe().starts_with("planted, devices")
    }

    /// Whether it is of a design that was posted before the merge, not of a release.
    #[must_use]
    pub fn of_posted_designs(self) -> bool {
        self.describe().starts_with("posted-")
    }

    /// Whether no release has it.
    #[must_use]
    pub fn planted(self) -> bool {
        self.describe().starts_with("planted")
    }

    const fn bit(self) -> u128 {
        1 << self as u32
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of quirks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks(u128);

impl Quirks {
    /// No quirk: the behaviour that the documentation promises.
    pub const NONE: Self = Self(0);

    /// The set of these quirks.
    #[must_use]
    pub const fn of(quirks: &[Quirk]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < quirks.len() {
            bits |= quirks[i].bit();
            i += 1;
        }
        Self(bits)
    }

    /// Whether `quirk` is in the set.
    #[must_use]
    pub const fn has(self, quirk: Quirk) -> bool {
        self.0 & quirk.bit() != 0
    }

    /// The set with `quirk`.
    #[must_use]
    pub const fn with(self, quirk: Quirk) -> Self {
        Self(self.0 | quirk.bit())
    }

    /// The set without `quirk`.
    #[must_use]
    pub const fn without(self, quirk: Quirk) -> Self {
        Self(self.0 & !quirk.bit())
    }

    /// The members, in the order of declaration.
    pub fn iter(self) -> impl Iterator<Item = Quirk> {
        Quirk::ALL.iter().copied().filter(move |quirk| self.has(*quirk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = Quirks::of(&[Quirk::NoNameCheck, Quirk::EmptyTrailingBlock]);
        assert!(set.has(Quirk::EmptyTrailingBlock));
        assert!(!set.has(Quirk::SealsNotCarried));
        assert_eq!(set.without(Quirk::EmptyTrailingBlock).iter().collect::<Vec<_>>(), [Quirk::NoNameCheck]);
        assert_eq!(set.with(Quirk::NoNameCheck), set);
    }

    #[test]
    fn names_are_unique_and_found() {
        for quirk in Quirk::ALL {
            assert_eq!(Quirk::from_name(quirk.name()), Some(*quirk));
        }
    }
}
