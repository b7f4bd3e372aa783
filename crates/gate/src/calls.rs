//! System calls by number: x86-64, and i386 for 32-bit programs on it.

/// Numbers of the calls that the gate may serve; 0 where the architecture has none that can be served alike.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) ioctl: u32,
    pub(crate) open: u32,
    pub(crate) openat: u32,
    pub(crate) openat2: u32,
    pub(crate) fcntl: u32,
    pub(crate) ftruncate: u32,
    pub(crate) truncate: u32,
    pub(crate) fallocate: u32,
    pub(crate) reboot: u32,
    pub(crate) syslog: u32,
    pub(crate) kexec_load: u32,
    pub(crate) kexec_file_load: u32,
    pub(crate) readlink: u32,
    pub(crate) readlinkat: u32,
    pub(crate) write: u32,
    pub(crate) pwrite64: u32,
    pub(crate) writev: u32,
    pub(crate) pwritev: u32,
    pub(crate) pwritev2: u32,
    pub(crate) sendfile: u32,
    pub(crate) copy_file_range: u32,
    pub(crate) splice: u32,
}

/// The native calls.
pub(crate) const X86_64: Numbers = Numbers {
    ioctl: 16,
    open: 2,
    openat: 257,
    openat2: 437,
    fcntl: 72,
    ftruncate: 77,
    truncate: 76,
    fallocate: 285,
    reboot: 169,
    syslog: 103,
    kexec_load: 246,
    kexec_file_load: 320,
    readlink: 89,
    readlinkat: 267,
    write: 1,
    pwrite64: 18,
    writev: 20,
    pwritev: 296,
    pwritev2: 328,
    sendfile: 40,
    copy_file_range: 326,
    splice: 275,
};

/// Calls of 32-bit programs. Those with 64-bit arguments in two registers are not served.
pub(crate) const I386: Numbers = Numbers {
    ioctl: 54,
    open: 5,
    openat: 295,
    openat2: 437,
    fcntl: 221,
    ftruncate: 93,
    truncate: 92,
    fallocate: 0,
    reboot: 88,
    syslog: 103,
    kexec_load: 283,
    kexec_file_load: 0,
    readlink: 85,
    readlinkat: 305,
    write: 4,
    pwrite64: 0,
    writev: 146,
    pwritev: 0,
    pwritev2: 0,
    sendfile: 0,
    copy_file_range: 0,
    splice: 0,
};

impl Numbers {
    /// The calls that write to the descriptor in their first argument. `copy_file_range` and `splice` name the
    /// target in their third: those are decided when they are served.
    pub(crate) const fn writes(&self) -> [u32; 8] {
        [
            self.write,
            self.pwrite64,
            self.writev,
            self.pwritev,
            self.pwritev2,
            self.sendfile,
            self.copy_file_range,
            self.splice,
        ]
    }
}

/// A call that the gate serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Ioctl,
    Open,
    OpenAt,
    OpenAt2,
    Fcntl,
    Ftruncate,
    Truncate,
    Fallocate,
    Reboot,
    Syslog,
    KexecLoad,
    KexecFileLoad,
    Readlink,
    ReadlinkAt,
    Write,
    Pwrite,
    Writev,
    Pwritev,
    Pwritev2,
    Sendfile,
    CopyFileRange,
    Splice,
}

impl Call {
    /// The call with this number; `compat` for 32-bit programs.
    pub(crate) fn from_number(nr: u32, compat: bool) -> Option<Self> {
        let n = if compat { &I386 } else { &X86_64 };
        let table = [
            (n.ioctl, Self::Ioctl),
            (n.open, Self::Open),
            (n.openat, Self::OpenAt),
            (n.openat2, Self::OpenAt2),
            (n.fcntl, Self::Fcntl),
            (n.ftruncate, Self::Ftruncate),
            (n.truncate, Self::Truncate),
            (n.fallocate, Self::Fallocate),
            (n.reboot, Self::Reboot),
            (n.syslog, Self::Syslog),
            (n.kexec_load, Self::KexecLoad),
            (n.kexec_file_load, Self::KexecFileLoad),
            (n.readlink, Self::Readlink),
            (n.readlinkat, Self::ReadlinkAt),
            (n.write, Self::Write),
            (n.pwrite64, Self::Pwrite),
            (n.writev, Self::Writev),
            (n.pwritev, Self::Pwritev),
            (n.pwritev2, Self::Pwritev2),
            (n.sendfile, Self::Sendfile),
            (n.copy_file_range, Self::CopyFileRange),
            (n.splice, Self::Splice),
        ];
        table.into_iter().find(|(number, _)| *number == nr && nr != 0).map(|(_, call)| call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_numbers_are_the_hosts() {
        let pairs = [
            (X86_64.ioctl, libc::SYS_ioctl),
            (X86_64.openat, libc::SYS_openat),
            (X86_64.openat2, libc::SYS_openat2),
            (X86_64.kexec_file_load, libc::SYS_kexec_file_load),
            (X86_64.readlinkat, libc::SYS_readlinkat),
            (X86_64.pwritev2, libc::SYS_pwritev2),
            (X86_64.copy_file_range, libc::SYS_copy_file_range),
            (X86_64.splice, libc::SYS_splice),
            (X86_64.reboot, libc::SYS_reboot),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(i64::from(ours), theirs);
        }
    }

    #[test]
    fn a_number_means_what_its_architecture_says() {
        assert_eq!(Call::from_number(16, false), Some(Call::Ioctl));
        assert_eq!(Call::from_number(54, true), Some(Call::Ioctl));
        assert_eq!(Call::from_number(54, false), None);
        assert_eq!(Call::from_number(0, true), None, "no call has the number that stands for none");
    }
}
