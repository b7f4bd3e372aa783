//! Seals (`fcntl` `F_ADD_SEALS`, `F_GET_SEALS`) and the flags of `memfd_create`.

use std::fmt;

use luosim_abi::{Errno, KResult};

use super::Shmem;

/// Close on exec.
pub const MFD_CLOEXEC: u32 = 1;
/// Seals may be added.
pub const MFD_ALLOW_SEALING: u32 = 2;
/// On hugetlbfs: no memory file.
pub const MFD_HUGETLB: u32 = 4;
/// Not executable, and sealed so; seals may be added.
pub const MFD_NOEXEC_SEAL: u32 = 8;
/// Executable.
pub const MFD_EXEC: u32 = 0x10;

/// A set of seals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seals(pub u32);

impl Seals {
    /// No more seals.
    pub const SEAL: Self = Self(0x01);
    /// The file may not shrink.
    pub const SHRINK: Self = Self(0x02);
    /// The file may not grow.
    pub const GROW: Self = Self(0x04);
    /// The contents may not change.
    pub const WRITE: Self = Self(0x08);
    /// No new way to change the contents.
    pub const FUTURE_WRITE: Self = Self(0x10);
    /// The execute bits may not change.
    pub const EXEC: Self = Self(0x20);
    /// All of them.
    pub const ALL: Self = Self(0x3f);
    /// What sealing the execute bits of an executable file adds.
    pub const IMPLIED_BY_EXEC: Self = Self(0x1e);

    /// Whether any of `other` is set.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Shmem {
    /// Permission bits and seals of a new memfd.
    ///
    /// # Errors
    /// EINVAL for unknown flags, or both ways of executability.
    pub fn memfd_setup(flags: u32) -> KResult<(u32, Seals)> {
        let known = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC;
        if flags & !known != 0 || flags & MFD_NOEXEC_SEAL != 0 && flags & MFD_EXEC != 0 {
            return Err(Errno::EINVAL.because(format!("memfd flags {flags:#x} are unknown or contradict")));
        }
        Ok(if flags & MFD_NOEXEC_SEAL != 0 {
            (0o666, Seals::EXEC)
        } else if flags & MFD_ALLOW_SEALING != 0 {
            (0o777, Seals(0))
        } else {
            (0o777, Seals::SEAL)
        })
    }

    /// Adds seals.
    ///
    /// # Errors
    /// EINVAL: unknown seals; EPERM: sealed against it; EBUSY: F_SEAL_WRITE while a program may write through
    /// a mapping, or while pages are pinned by LUO.
    pub fn add_seals(&mut self, seals: Seals) -> KResult<()> {
        if seals.0 & !Seals::ALL.0 != 0 {
            return Err(Errno::EINVAL.because(format!("seals {seals} are not all known")));
        }
        if self.seals.any(Seals::SEAL) {
            return Err(Errno::EPERM.because(format!("{} has F_SEAL_SEAL", self.describe())));
        }
        if seals.any(Seals::WRITE) && !self.seals.any(Seals::WRITE) {
            self.check_nobody_writes()?;
        }
        let mut seals = seals;
        if seals.any(Seals::EXEC) && self.mode & 0o111 != 0 {
            seals = seals.with(Seals::IMPLIED_BY_EXEC);
        }
        self.seals = self.seals.with(seals);
        Ok(())
    }

    fn check_nobody_writes(&self) -> KResult<()> {
        if self.writable_mappings > 0 {
            let count = self.writable_mappings;
            let why = format!("{} has {count} writable shared mappings", self.describe());
            return Err(Errno::EBUSY.because(why));
        }
        if self.pins > 0 && self.cache.pages() > 0 {
            let why = format!("pages of {} are pinned: a live update session preserves it", self.describe());
            return Err(Errno::EBUSY.because(why));
        }
        Ok(())
    }

    /// Changes the permission bits.
    ///
    /// # Errors
    /// EPERM if F_SEAL_EXEC is set and an execute bit would change.
    pub fn chmod(&mut self, mode: u32) -> KResult<()> {
        if self.seals.any(Seals::EXEC) && (self.mode ^ mode) & 0o111 != 0 {
            return Err(Errno::EPERM.because(format!("{} has F_SEAL_EXEC", self.describe())));
        }
        self.mode = mode & 0o7777;
        Ok(())
    }
}
