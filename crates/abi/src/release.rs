//! Kernel releases: which version of each format and interface they speak, their limits and quirks.
//!
//! A release is a row of [`RELEASES`]. The behaviour of a row is that of the newest point release that was read
//! or whose answers were recorded (`point`, `evidence`); what an older point release does otherwise is a quirk
//! that can be switched on.
//!
//! [`POSTED`] has the designs of the orchestrator that were posted and never merged. They can be booted like a release;
//! they are in no table of what was released, and nothing is known of them but the patches and mails.

use crate::ioctl::Command;
use crate::posted::Design;
use crate::quirk::{Quirk, Quirks};

/// A release luosim can boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReleaseId {
    /// Linux 6.16: the first with KHO.
    V6_16,
    /// Linux 6.17.
    V6_17,
    /// Linux 6.18: the last without the orchestrator.
    V6_18,
    /// Linux 6.19: the first with the orchestrator.
    V6_19,
    /// Linux 7.0: file-lifecycle-bound objects.
    V7_0,
    /// Linux 7.1: radix tree, seals.
    V7_1,
    /// Linux 7.2: blocks instead of arrays.
    V7_2,
    /// Linux 7.3.
    V7_3,
    /// The design posted in July 2025.
    PostedV2,
    /// The design posted in August 2025.
    PostedV3,
    /// The design posted in September 2025.
    PostedV4,
}

/// What a row rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A real kernel's answers to a probe, and its handover memory.
    Recorded,
    /// A real kernel booted on handovers of others; the rest from its source.
    Observed,
    /// Public history of the source alone: taken to be as its neighbours where nothing else is known.
    History,
    /// Patches and mails about them alone: it was never released.
    Posted,
}

impl Evidence {
    /// One word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Observed => "observed",
            Self::History => "history",
            Self::Posted => "posted",
        }
    }
}

/// Version of the KHO root tree and its page tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KhoVersion {
    /// `kho-v1`: bitmap chunks, finalised before the jump.
    V1,
    /// `kho-v3`: radix tree, always current; subtrees with a size.
    V3,
    /// `kho-v4`: the bytes of `kho-v3` under another name.
    V4,
}

impl KhoVersion {
    /// The string in the root tree.
    #[must_use]
    pub const fn compatible(self) -> &'static str {
        match self {
            Self::V1 => crate::kho::v1::COMPATIBLE,
            Self::V3 => crate::kho::v3::COMPATIBLE,
            Self::V4 => crate::kho::v4::COMPATIBLE,
        }
    }

    /// Whether preserved pages are a radix tree, which is always current; otherwise bitmaps that are listed when
    /// KHO is finalised.
    #[must_use]
    pub const fn is_radix(self) -> bool {
        !matches!(self, Self::V1)
    }
}

/// When the list of preserved pages is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalize {
    /// By hand, before the image is loaded (6.16 to 6.18): an image loaded earlier takes nothing along, and nothing
    /// can be preserved until it is undone.
    BeforeLoad,
    /// In the reboot path, by the orchestrator, or by hand as often as one likes (6.19, 7.0).
    AtReboot,
    /// Never: it is always current.
    Never,
}

/// Version of the orchestrator's own handover data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LuoVersion {
    /// `luo-v1`: device tree, fixed arrays.
    V1,
    /// `luo-v5`: one structure, chains of blocks.
    V5,
}

impl LuoVersion {
    /// The string in the handover data.
    #[must_use]
    pub const fn compatible(self) -> &'static str {
        match self {
            Self::V1 => "luo-v1",
            Self::V5 => "luo-v5",
        }
    }
}

/// Version of the memfd handler's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemfdVersion {
    /// `memfd-v1`: no seals.
    V1,
    /// `memfd-v2`: with seals.
    V2,
}

impl MemfdVersion {
    /// The string in a file record.
    #[must_use]
    pub const fn compatible(self) -> &'static str {
        match self {
            Self::V1 => "memfd-v1",
            Self::V2 => "memfd-v2",
        }
    }
}

/// One release.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Which.
    pub id: ReleaseId,
    /// Name in scenarios and on the command line, `7.3`.
    pub name: &'static str,
    /// The point release that this row is like, as `uname -r` gives it: `7.3.4`.
    pub point: &'static str,
    /// What the row rests on.
    pub evidence: Evidence,
    /// Root tree and tracker.
    pub kho: KhoVersion,
    /// When preserved pages are listed.
    pub finalize: Finalize,
    /// Whether KHO is on without `kho=on`. The simulated kernels are built with it on where that is an option.
    pub kho_default: bool,
    /// The posted design, instead of the merged orchestrator.
    pub posted: Option<Design>,
    /// Data of the merged orchestrator; none before 6.19, and none in a posted design.
    pub luo: Option<LuoVersion>,
    /// memfd handler data of the merged orchestrator.
    pub memfd: Option<MemfdVersion>,
    /// Whether file-lifecycle-bound objects exist; with `luo-v1` their node is mandatory then.
    pub flb: bool,
    /// Whether a `kexec-metadata` subtree is written.
    pub metadata: bool,
    /// Commands a session descriptor knows, ascending, without gaps from 0x40.
    pub session_commands: &'static [Command],
    /// The defects of this release.
    pub quirks: Quirks,
    /// Scratch areas are rounded up to this many bytes.
    pub scratch_align: u64,
    /// Whether low and global areas of given sizes are rounded too, not only those of nodes.
    pub scratch_rounds_all: bool,
}

impl Release {
    /// Whether kernels of this release may have another [`crate::profile::Profile`] than the released one: the base of the work
    /// on other file types.
    #[must_use]
    pub fn takes_profiles(&self) -> bool {
        self.id == ReleaseId::V7_3
    }
}

/// Commands of the device, in every release.
pub const DEVICE_COMMANDS: &[Command] = &[Command::CreateSession, Command::RetrieveSession];

const FIRST_SESSION_COMMANDS: &[Command] = &[Command::PreserveFd, Command::RetrieveFd, Command::Finish];
const SESSION_COMMANDS: &[Command] =
    &[Command::PreserveFd, Command::RetrieveFd, Command::Finish, Command::GetName];

/// 6.19; 7.0 is not known to have mended any of them.
const FIRST_QUIRKS: &[Quirk] = &[
    Quirk::NoNameCheck,
    Quirk::NoDirectionCheck,
    Quirk::SameInodeTwice,
    Quirk::FinishIgnoresReserved,
    Quirk::RetrieveErrorForgotten,
    Quirk::DeserializeErrorSwallowed,
    Quirk::SealsNotCarried,
    Quirk::FolioFlagsAtPreserve,
    Quirk::LargeFileTruncatedCount,
    Quirk::StaleRestoreError,
    Quirk::BlocksOnePerFolio,
    Quirk::ShortLinkText,
    Quirk::RetrieveSessionFaultDestroys,
    Quirk::WriteWindowPage,
    Quirk::FinalizeErrorKeepsFrozen,
    Quirk::PreserveContextRunsLuo,
    Quirk::CrashImageTakesKho,
    Quirk::CrashKernelKeepsKho,
    Quirk::AccessModeGrows,
    Quirk::ReplyFaultAfterEffect,
];

/// 6.18, and what rows before and after it have in common with it.
const KHO_ONLY: Release = Release {
    id: ReleaseId::V6_18,
    name: "6.18",
    point: "6.18.15",
    evidence: Evidence::Observed,
    kho: KhoVersion::V1,
    finalize: Finalize::BeforeLoad,
    kho_default: false,
    posted: None,
    luo: None,
    memfd: None,
    flb: false,
    metadata: false,
    session_commands: &[],
    quirks: Quirks::of(&[Quirk::CrashKernelKeepsKho]),
    scratch_align: 2 << 20,
    scratch_rounds_all: false,
};

const V6_19: Release = Release {
    id: ReleaseId::V6_19,
    name: "6.19",
    point: "6.19.6",
    evidence: Evidence::Recorded,
    finalize: Finalize::AtReboot,
    kho_default: true,
    luo: Some(LuoVersion::V1),
    memfd: Some(MemfdVersion::V1),
    session_commands: FIRST_SESSION_COMMANDS,
    quirks: Quirks::of(FIRST_QUIRKS),
    ..KHO_ONLY
};

const V7_3: Release = Release {
    id: ReleaseId::V7_3,
    name: "7.3",
    point: "7.3.4",
    evidence: Evidence::Recorded,
    kho: KhoVersion::V4,
    finalize: Finalize::Never,
    kho_default: true,
    posted: None,
    luo: Some(LuoVersion::V5),
    memfd: Some(MemfdVersion::V2),
    flb: true,
    metadata: true,
    session_commands: SESSION_COMMANDS,
    quirks: Quirks::of(&[
        Quirk::EmptyTrailingBlock,
        Quirk::ExecSealImpliesWrite,
        Quirk::RetrieveSessionFaultDestroys,
        Quirk::LateSealsLost,
        Quirk::AccessModeGrows,
        Quirk::ReplyFaultAfterEffect,
    ]),
    scratch_align: 4 << 20,
    scratch_rounds_all: true,
};

/// Every release, oldest first.
pub const RELEASES: &[Release] = &[
    Release { id: ReleaseId::V6_16, name: "6.16", point: "6.16.0", evidence: Evidence::History, ..KHO_ONLY },
    Release { id: ReleaseId::V6_17, name: "6.17", point: "6.17.0", evidence: Evidence::History, ..KHO_ONLY },
    KHO_ONLY,
    V6_19,
    Release {
        id: ReleaseId::V7_0,
        name: "7.0",
        point: "7.0.0",
        evidence: Evidence::History,
        flb: true,
        quirks: Quirks::of(FIRST_QUIRKS).with(Quirk::FlbErrorForgotten),
        ..V6_19
    },
    Release {
        id: ReleaseId::V7_1,
        name: "7.1",
        point: "7.1.13",
        kho: KhoVersion::V3,
        luo: Some(LuoVersion::V1),
        session_commands: FIRST_SESSION_COMMANDS,
        quirks: Quirks::of(&[
            Quirk::FinishIgnoresReserved,
            Quirk::ExecSealImpliesWrite,
            Quirk::RetrieveSessionFaultDestroys,
            Quirk::WriteWindowPage,
            Quirk::CrashKernelKeepsKho,
            Quirk::FlbErrorForgotten,
            Quirk::LateSealsLost,
            Quirk::AccessModeGrows,
            Quirk::ReplyFaultAfterEffect,
        ]),
        scratch_align: 2 << 20,
        ..V7_3
    },
    Release {
        id: ReleaseId::V7_2,
        name: "7.2",
        point: "7.2.13",
        quirks: V7_3.quirks.with(Quirk::CrashKernelKeepsKho),
        ..V7_3
    },
    V7_3,
];

/// What the three designs have in common with each other: global machine and subsystems did not change.
const POSTED_QUIRKS: Quirks =
    Quirks::of(&[Quirk::FreezeLeavesLater, Quirk::FinalizeKeepsPrepared, Quirk::AbortBeforeState]);

/// The second design. KHO is finalised by PREPARE, so an image is loaded after it, as on the kernels of that time.
const POSTED_V2: Release = Release {
    id: ReleaseId::PostedV2,
    name: "posted-v2",
    point: "posted-v2",
    evidence: Evidence::Posted,
    posted: Some(Design::V2),
    quirks: POSTED_QUIRKS
        .with(Quirk::FlagsIgnored)
        .with(Quirk::InstallBeforeReply)
        .with(Quirk::RestoreOnce)
        .with(Quirk::CloseLeaksPrepared),
    ..KHO_ONLY
};

/// The posted designs, oldest first: none of them was released.
pub const POSTED: &[Release] = &[
    POSTED_V2,
    Release {
        id: ReleaseId::PostedV3,
        name: "posted-v3",
        point: "posted-v3",
        posted: Some(Design::V3),
        quirks: POSTED_QUIRKS
            .with(Quirk::InstallBeforeReply)
            .with(Quirk::RestoreOnce)
            .with(Quirk::PreserveErrorLost)
            .with(Quirk::ReplyUserSize)
            .with(Quirk::StateLostAtMin)
            .with(Quirk::CloseDropsAll),
        ..POSTED_V2
    },
    Release {
        id: ReleaseId::PostedV4,
        name: "posted-v4",
        point: "posted-v4",
        posted: Some(Design::V4),
        quirks: POSTED_QUIRKS
            .with(Quirk::CreateLeaksFd)
            .with(Quirk::NameCut)
            .with(Quirk::EmptyNameSkipped)
            .with(Quirk::RetrieveNameLonger)
            .with(Quirk::CreateBlind),
        ..POSTED_V2
    },
];

impl ReleaseId {
    /// The row of this release.
    #[must_use]
    pub fn release(self) -> &'static Release {
        let index = self as usize;
        RELEASES.get(index).unwrap_or_else(|| &POSTED[index - RELEASES.len()])
    }

    /// The release with this name: `7.3`, or its point release `7.3.4`. Only what was released.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        RELEASES
            .iter()
            .find(|release| release.name == name || release.point == name)
            .map(|release| release.id)
    }

    /// What can be booted under this name: a release, or a posted design, `posted-v2`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let posted = || POSTED.iter().find(|row| row.name == name).map(|row| row.id);
        Self::from_name(name).or_else(posted)
    }

    /// Every name that [`Self::named`] knows, but for point releases.
    pub fn names() -> impl Iterator<Item = &'static str> {
        RELEASES.iter().chain(POSTED).map(|row| row.name)
    }

    /// Whether this release has the merged orchestrator.
    #[must_use]
    pub fn has_luo(self) -> bool {
        self.release().luo.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_id_and_names() {
        for row in RELEASES {
            assert_eq!(row.id.release().name, row.name, "rows stand in the order of their ids");
            assert_eq!(ReleaseId::from_name(row.name), Some(row.id));
            assert_eq!(ReleaseId::from_name(row.point), Some(row.id));
        }
        for row in POSTED {
            assert_eq!(row.id.release().name, row.name);
            assert_eq!((ReleaseId::named(row.name), ReleaseId::from_name(row.name)), (Some(row.id), None));
        }
        assert_eq!(ReleaseId::names().count(), RELEASES.len() + POSTED.len());
    }

    #[test]
    fn a_posted_design_is_no_release() {
        for row in POSTED {
            assert!(row.posted.is_some() && row.luo.is_none() && row.memfd.is_none(), "{}", row.name);
            assert_eq!((row.kho, row.finalize), (KhoVersion::V1, Finalize::BeforeLoad));
        }
        assert!(RELEASES.iter().all(|row| row.posted.is_none() && row.evidence != Evidence::Posted));
    }

    #[test]
    fn planted_quirks_are_in_no_release() {
        for quirk in Quirk::ALL {
            let somewhere = RELEASES.iter().chain(POSTED).any(|row| row.quirks.has(*quirk));
            assert_eq!(somewhere, !quirk.planted(), "{quirk}");
        }
    }

    #[test]
    fn session_commands_have_no_gaps() {
        for row in RELEASES {
            for (i, command) in row.session_commands.iter().enumerate() {
                assert_eq!(usize::from(command.nr()), 0x40 + i);
            }
        }
    }

    #[test]
    fn rows_make_sense() {
        for row in RELEASES {
            assert_eq!(
                row.luo.is_some(),
                row.memfd.is_some(),
                "{}: the handler needs the orchestrator",
                row.name
            );
            assert_eq!(row.kho.is_radix(), row.finalize == Finalize::Never, "{}", row.name);
            assert_eq!(row.kho.is_radix(), row.metadata, "{}", row.name);
            assert!(row.point.starts_with(&format!("{}.", row.name)));
            assert_eq!(row.session_commands.is_empty(), row.luo.is_none());
        }
    }
}
