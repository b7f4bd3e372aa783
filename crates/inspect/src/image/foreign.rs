//! Files that hold memory in a form that is not read here, and what to do about each.

/// First bytes, what it is, what to do.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (&[0x1f, 0x8b], "compressed with gzip", "unpack it with `gunzip`"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "compressed with xz", "unpack it with `xz -d`"),
    (b"BZh", "compressed with bzip2", "unpack it with `bunzip2`"),
    (&[0x04, 0x22, 0x4d, 0x18], "compressed with lz4", "unpack it with `lz4 -d`"),
    (
        b"KDUMP   ",
        "a compressed kdump file",
        "make an ELF core: `makedumpfile -E` instead of `-c`, `-l`, `-p` or `-z`, or `dump-guest-memory` without them",
    ),
    (b"DISKDUMP", "a diskdump file", "make an ELF core with `makedumpfile -E`"),
    (
        b"makedumpfile",
        "a flattened kdump file",
        "rearrange it with `makedumpfile -R`, and make an ELF core (`makedumpfile -E`, or `dump-guest-memory` \
         without `-z`, `-l`, `-s`)",
    ),
    (b"QFI\xfb", "a qcow2 disk image", "give the memory of the machine, not its disk"),
    (b"LibvirtQEMUd", "a file of `virsh save`", "use `virsh dump --memory-only` instead"),
    (b"QEVM", "a QEMU migration stream", "use `dump-guest-memory` instead"),
    (b"PAGEDU", "a Windows crash dump", "use `dump-guest-memory` without `-w`"),
];

/// Why a file that begins so is refused.
pub(crate) fn refusal(head: &[u8]) -> Option<String> {
    let (_, what, advice) = FOREIGN.iter().find(|(magic, _, _)| head.starts_with(magic))?;
    Some(format!("it is {what}; {advice}"))
}
