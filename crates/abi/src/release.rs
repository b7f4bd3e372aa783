//! Kernel releases: which version of each format and interface they speak, their limits and quirks.
//!
//! A release is a row of [`RELEASES`]. The behaviour of a row is that of the newest point release whose
//! answers were recorded (`point`).

use crate::ioctl::Command;
use crate::quirk::{Quirk, Quirks};

/// A release luosim can boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReleaseId {
    /// Linux 6.19: the first with the orchestrator.
    V6_19,
    /// Linux 7.3.
    V7_3,
}

/// Version of the KHO root tree and its page tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KhoVersion {
    /// `kho-v1`: bitmap chunks, finalised before the jump.
    V1,
    /// `kho-v4`: radix tree, always current.
    V4,
}

impl KhoVersion {
    /// The string in the root tree.
    #[must_use]
    pub const fn compatible(self) -> &'static str {
        match self {
            Self::V1 => crate::kho::v1::COMPATIBLE,
            Self::V4 => crate::kho::v4::COMPATIBLE,
        }
    }
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
    /// The point release whose answers were recorded, as `uname -r` gives it: `7.3.4`.
    pub point: &'static str,
    /// Root tree and tracker.
    pub kho: KhoVersion,
    /// Orchestrator data.
    pub luo: LuoVersion,
    /// memfd handler data.
    pub memfd: MemfdVersion,
    /// Whether file-lifecycle-bound objects exist.
    pub flb: bool,
    /// Whether a `kexec-metadata` subtree is written.
    pub metadata: bool,
    /// Commands a session descriptor knows, ascending, without gaps from 0x40.
    pub session_commands: &'static [Command],
    /// The defects of this release.
    pub quirks: Quirks,
    /// Scratch areas are rounded up to this many bytes; with explicit sizes 6.19 rounds only the last kind.
    pub scratch_align: u64,
}

/// Commands of the device, in every release.
pub const DEVICE_COMMANDS: &[Command] = &[Command::CreateSession, Command::RetrieveSession];

/// Every release, oldest first.
pub const RELEASES: &[Release] = &[
    Release {
        id: ReleaseId::V6_19,
        name: "6.19",
        point: "6.19.6",
        kho: KhoVersion::V1,
        luo: LuoVersion::V1,
        memfd: MemfdVersion::V1,
        flb: false,
        metadata: false,
        session_commands: &[Command::PreserveFd, Command::RetrieveFd, Command::Finish],
        quirks: Quirks::of(&[
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
        ]),
        scratch_align: 2 << 20,
    },
    Release {
        id: ReleaseId::V7_3,
        name: "7.3",
        point: "7.3.4",
        kho: KhoVersion::V4,
        luo: LuoVersion::V5,
        memfd: MemfdVersion::V2,
        flb: true,
        metadata: true,
        session_commands: &[Command::PreserveFd, Command::RetrieveFd, Command::Finish, Command::GetName],
        quirks: Quirks::of(&[
            Quirk::EmptyTrailingBlock,
            Quirk::ExecSealImpliesWrite,
            Quirk::RetrieveSessionFaultDestroys,
        ]),
        scratch_align: 4 << 20,
    },
];

impl ReleaseId {
    /// The row of this release.
    #[must_use]
    pub fn release(self) -> &'static Release {
        match self {
            Self::V6_19 => &RELEASES[0],
            Self::V7_3 => &RELEASES[1],
        }
    }

    /// The release with this name: `7.3`, or its recorded point release `7.3.4`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        RELEASES
            .iter()
            .find(|release| release.name == name || release.point == name)
            .map(|release| release.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_id_and_names() {
        for row in RELEASES {
            assert_eq!(row.id.release().name, row.name);
            assert_eq!(ReleaseId::from_name(row.name), Some(row.id));
            assert_eq!(ReleaseId::from_name(row.point), Some(row.id));
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
}
