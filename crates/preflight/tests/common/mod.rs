//! Kernel files made for tests: nothing in them runs, but every place that is read is where a kernel has it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::io::Write;
use std::path::{Path, PathBuf};

/// The strings of a 7.2 kernel, and texts that contain some without being any.
pub(crate) const STRINGS: &[&str] = &[
    "Linux version 7.2.13-test (builder@host) (gcc 14, ld 2.44) #1 SMP",
    "handover FDT is incompatible with 'kho-v1'",
    "kho-v4",
    "luo-v5",
    "see luo-v4",
    "memfd-v2",
    "memblock-v1",
    "arm,smmu-v3",
];

/// The data segment of a kernel: strings, and a build configuration if there is one.
pub(crate) fn data(strings: &[&str], config: Option<&str>) -> Vec<u8> {
    let mut data = vec![0xff, 0xff, 0xff, 0xff];
    for string in strings {
        data.extend_from_slice(string.as_bytes());
        data.push(0);
    }
    if let Some(config) = config {
        data.extend_from_slice(b"IKCFG_ST");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(config.as_bytes()).expect("memory");
        data.extend(packer.finish().expect("memory"));
        data.extend_from_slice(b"IKCFG_ED");
    }
    data
}

/// A 64-bit little-endian ELF file for `machine` with `data` in its only loadable segment, and behind it bytes that are
/// not loaded.
pub(crate) fn elf(machine: u16, data: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2_u16.to_le_bytes()); // e_type: executable
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend([0_u64, 64, 0].map(u64::to_le_bytes).concat()); // e_entry, e_phoff, e_shoff
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    file.extend([1_u32, 4].map(u32::to_le_bytes).concat()); // PT_LOAD, readable
    let size = u64::try_from(data.len()).expect("small");
    file.extend([HEADERS, 0, 0, size, size, 4096].map(u64::to_le_bytes).concat());
    file.extend_from_slice(data);
    file.extend_from_slice(b"\0kho-v9\0");
    file
}

/// Machine code that calls one address from many places: what the filter of xz is for.
fn calls() -> Vec<u8> {
    let call = |index: i32| [&[0xe8][..], &(0x1000 - 8 * index).to_le_bytes(), &[0x90, 0x90, 0xc3]].concat();
    (0..400).flat_map(call).collect()
}

/// A 7.2 kernel for x86-64.
pub(crate) fn kernel() -> Vec<u8> {
    let config = "CONFIG_KEXEC_HANDOVER=y\nCONFIG_LIVEUPDATE=y\nCONFIG_PAGE_SHIFT=12\n";
    elf(62, &[calls(), data(STRINGS, Some(config))].concat())
}

/// A bzImage around a packed payload, with the unpacked size behind it as the kernel's build does, and more setup
/// sectors than the least.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SECTORS: usize = 5;
    const OFFSET: usize = 0x30;
    let mut file = vec![0; (SECTORS + 1) * 512 + OFFSET];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x1f1, &[u8::try_from(SECTORS).expect("small")]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x20e, &0x400_u16.to_le_bytes());
    put(0x248, &u32::try_from(OFFSET).expect("small").to_le_bytes());
    put(0x24c, &u32::try_from(payload.len() + 4).expect("small").to_le_bytes());
    put(0x600, b"7.2.13-setup (builder@host) #1 SMP\0");
    file.extend_from_slice(payload);
    file.extend(1234_u32.to_le_bytes());
    file.extend_from_slice(b"a signature or the like");
    file
}

/// A flat arm64 image with pages of 4, 16 or 64 KiB.
pub(crate) fn arm64_image(page_kib: u32, data: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 64];
    let flags: u64 = match page_kib {
        4 => 1 << 1,
        16 => 2 << 1,
        _ => 3 << 1,
    };
    file[0x18..0x20].copy_from_slice(&flags.to_le_bytes());
    file[0x38..0x3c].copy_from_slice(b"ARM\x64");
    file.extend_from_slice(data);
    file
}

/// An EFI zboot image around a packed payload.
pub(crate) fn zboot(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 256];
    file[0..2].copy_from_slice(b"MZ");
    file[4..8].copy_from_slice(b"zimg");
    file[8..12].copy_from_slice(&256_u32.to_le_bytes());
    file[12..16].copy_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
    file[24..28].copy_from_slice(b"gzip");
    file.extend_from_slice(payload);
    file
}

/// Packs with gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).expect("memory");
    packer.finish().expect("memory")
}

/// A file that a host's tool packed; see `tests/data/README.md`.
pub(crate) fn packed(extension: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("kernel.{extension}"))).expect("a file")
}

/// The folder of those files.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The packers, by the extension of their file.
pub(crate) const PACKERS: &[&str] = &["gz", "xz", "zst", "lz4", "lzma", "lzo", "bz2"];
