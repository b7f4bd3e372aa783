//! Kernel files of every kind, taken apart.

mod common;

use std::io::Write;

use common::{PACKERS, arm64_image, bzimage, data, elf, gzip, kernel, packed, zboot};
use luosim_preflight::{Arch, Container, Kernel, Packing, ReadError, Source};

/// The kernel of `common::kernel`, whatever it came in.
fn check(found: &Kernel) {
    assert_eq!(found.release.as_deref(), Some("7.2.13-test"));
    let formats = &found.formats;
    assert_eq!(formats.arch, Some(Arch::X86_64));
    assert_eq!(formats.page_size, Some(4096));
    assert_eq!(formats.kho.as_deref(), Some("kho-v4"));
    assert_eq!(formats.luo.as_deref(), Some("luo-v5"));
    assert_eq!(formats.handlers, ["memfd-v2"]);
    assert_eq!(formats.memblock.as_deref(), Some("memblock-v1"));
    assert_eq!((&formats.session, &formats.flb), (&None, &None));
    assert_eq!(found.config.expect("a configuration").liveupdate, Some(true));
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
#[ignore = "writes tests/data/kernel.elf, from which the packed ones are made"]
fn write_the_kernel_to_pack() {
    std::fs::write(common::folder().join("kernel.elf"), kernel()).unwrap();
}

#[test]
fn the_packed_files_hold_this_kernel() {
    assert_eq!(std::fs::read(common::folder().join("kernel.elf")).unwrap(), kernel());
}

#[test]
fn a_vmlinux_is_read_from_memory_and_from_a_file() {
    check(&Kernel::from_bytes(&kernel()).unwrap());
    let found = Kernel::read(&common::folder().join("kernel.elf")).unwrap();
    check(&found);
    assert_eq!(found.source, Source::File { container: Container::Vmlinux, packings: Vec::new() });
}

#[test]
fn a_bzimage_is_read_whatever_it_is_packed_with() {
    let packings = [
        Packing::Gzip,
        Packing::Xz,
        Packing::Zstd,
        Packing::Lz4,
        Packing::Lzma,
        Packing::Lzo,
        Packing::Bzip2,
    ];
    for (extension, packing) in PACKERS.iter().zip(packings) {
        let found = Kernel::from_bytes(&bzimage(&packed(extension)))
            .unwrap_or_else(|error| panic!("{extension}: {error}"));
        check(&found);
        assert_eq!(found.source, Source::File { container: Container::BzImage, packings: vec![packing] });
    }
}

#[test]
fn a_file_packed_whole_is_read() {
    for extension in PACKERS {
        check(&Kernel::read(&common::folder().join(format!("kernel.{extension}"))).unwrap());
    }
    let found = Kernel::from_bytes(&gzip(&bzimage(&packed("xz")))).unwrap();
    check(&found);
    let packings = vec![Packing::Gzip, Packing::Xz];
    assert_eq!(found.source, Source::File { container: Container::BzImage, packings });
}

#[test]
fn a_bzimage_without_a_banner_has_the_release_of_its_setup_code() {
    let found = Kernel::from_bytes(&bzimage(&gzip(&elf(62, &data(&["kho-v4"], None))))).unwrap();
    assert_eq!(found.release.as_deref(), Some("7.2.13-setup"));
}

#[test]
fn arm64_images_say_their_page_size() {
    for kib in [4, 16, 64] {
        let image = arm64_image(kib, &data(common::STRINGS, None));
        for file in [image.clone(), gzip(&image), zboot(&gzip(&image))] {
            let found = Kernel::from_bytes(&file).unwrap();
            assert_eq!(found.formats.arch, Some(Arch::Arm64));
            assert_eq!(found.formats.page_size, Some(kib << 10));
            assert_eq!(found.formats.luo.as_deref(), Some("luo-v5"));
        }
    }
}

#[test]
fn a_kernel_without_kho_is_one() {
    let strings = [
        "Linux version 7.1.0-12-amd64 (a@b) #1",
        "Passed KHO data, but CONFIG_KEXEC_HANDOVER not set. Ignoring.",
    ];
    let found = Kernel::from_bytes(&elf(62, &data(&strings, None))).unwrap();
    assert!(!found.has_kho() && found.built_without);
    assert_eq!(found.release.as_deref(), Some("7.1.0-12-amd64"));
    let old = Kernel::from_bytes(&elf(62, &data(&strings[..1], None))).unwrap();
    assert!(!old.has_kho() && !old.built_without);
    let lacks = |strings: &[&str], config: Option<&str>| {
        Kernel::from_bytes(&elf(62, &data(strings, config))).unwrap().lacks()
    };
    let built = Some("built without KEXEC_HANDOVER: nothing can survive");
    assert_eq!(lacks(&strings, None), built);
    assert_eq!(lacks(&strings[..1], Some("# CONFIG_KEXEC_HANDOVER is not set\n")), built);
    assert_eq!(lacks(&strings[..1], None), Some("has no KHO: nothing can survive"));
    let older = Some("older than KHO, which came with Linux 6.16: nothing can survive");
    assert_eq!(lacks(&["Linux version 6.12.117+deb12-amd64 (a@b) #1"], None), older);
    assert_eq!(lacks(&["Linux version 5.4 (a@b) #1"], None), older);
    assert_eq!(lacks(common::STRINGS, None), None);
}

#[test]
fn odd_kernels_are_warned_of() {
    let warnings = |strings: &[&str], config: Option<&str>| {
        let banner = "Linux version 7.1.0-rc1 (a@b) #1";
        let strings = [&[banner], strings].concat();
        Kernel::from_bytes(&elf(62, &data(&strings, config))).unwrap().warnings
    };
    assert_eq!(warnings(&["kho-v2"], None), ["kho-v2 never shipped: this is a development snapshot"]);
    assert_eq!(
        warnings(&["kho-v4", "luo-v3"], None),
        ["luo-v3 never shipped: this is a development snapshot"]
    );
    assert_eq!(warnings(&["kho-v7"], None), ["kho-v7 is not of a release that luosim knows"]);
    assert_eq!(
        warnings(&[], Some("CONFIG_KEXEC_HANDOVER=y\n")),
        [
            "CONFIG_KEXEC_HANDOVER is on, but there is no KHO version; it may be of a form that luosim does not know"
        ]
    );
    let nameless = Kernel::from_bytes(&elf(62, b"\0kho-v4\0")).unwrap().warnings;
    assert_eq!(nameless, ["no banner says which release this is"]);
}

fn error(bytes: &[u8]) -> ReadError {
    Kernel::from_bytes(bytes).expect_err("no kernel")
}

#[test]
fn what_is_no_kernel_is_refused_with_a_reason() {
    assert!(matches!(error(b""), ReadError::Unknown));
    assert!(matches!(error(b"#!/bin/sh\n"), ReadError::Unknown));
    assert!(matches!(error(&[b"MZ".to_vec(), vec![0; 600]].concat()), ReadError::EfiProgram));
    assert!(matches!(error(&[0x04, 0x22, 0x4d, 0x18]), ReadError::Lz4Frame));
    assert!(matches!(error(&elf(62, b"nothing")), ReadError::NoBanner(_)));
    assert!(matches!(Kernel::read(&common::folder()), Err(ReadError::NotAFile)));
    assert!(matches!(Kernel::read(&common::folder().join("nothing")), Err(ReadError::Io(_))));
}

#[test]
fn damaged_containers_are_refused() {
    let mut old = bzimage(&packed("gz"));
    old[0x206..0x208].copy_from_slice(&0x207_u16.to_le_bytes());
    assert_eq!(
        error(&old).to_string(),
        "this bzImage speaks boot protocol 2.07; its kernel can be found from 2.08 on"
    );
    let whole = bzimage(&packed("gz"));
    assert!(matches!(error(&whole[..whole.len() / 2]), ReadError::Malformed { what: "bzImage", .. }));
    assert!(matches!(error(&zboot(&[])[..200]), ReadError::Malformed { .. } | ReadError::Unknown));
    let kernel = kernel();
    assert!(matches!(error(&kernel[..200]), ReadError::Malformed { what: "ELF file", .. }));
    assert!(matches!(error(b"\x7fELF"), ReadError::Malformed { .. }));
    let mut nested = kernel;
    for _ in 0..5 {
        nested = gzip(&nested);
    }
    assert!(matches!(error(&nested), ReadError::TooDeep));
}

#[test]
fn damaged_payloads_are_refused() {
    for extension in PACKERS {
        let whole = packed(extension);
        let file = &whole[..whole.len() / 2];
        assert!(matches!(error(file), ReadError::Broken { .. }), "{extension}: {}", error(file));
    }
}

#[test]
fn segments_that_are_there_many_times_are_not_read_for_ever() {
    // 65 000 headers, each of which loads the whole file.
    let mut file = elf(62, &vec![0; 1 << 20]);
    let header = file[64..120].to_vec();
    let table = header.repeat(65_000);
    let at = u64::try_from(file.len()).unwrap();
    file.extend(table);
    file[32..40].copy_from_slice(&at.to_le_bytes());
    file[56..58].copy_from_slice(&65_000_u16.to_le_bytes());
    assert!(matches!(error(&file), ReadError::TooLarge { .. }));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    // A kernel that unpacks to more than 512 MiB is none.
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..513 {
        packer.write_all(&zeros).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(error(&bomb), ReadError::TooLarge { .. }));
}

#[test]
fn bombs_of_other_packers_stop_too() {
    // A zstd frame of blocks that each say: this byte, 128 KiB of it. An lzop file of stored blocks would be as large
    // as what it holds, so only its claims are looked at.
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x88];
    zstd.extend([0x02, 0x00, 0x10, 0xaa].repeat(5000));
    assert!(matches!(error(&zstd), ReadError::TooLarge { .. }));
    let mut lzo = packed("lzo");
    let header = lzo.windows(4).position(|bytes| bytes == 3593_u32.to_be_bytes()).unwrap();
    lzo[header..header + 4].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
    assert!(matches!(error(&lzo), ReadError::Broken { packing: "lzo", .. }));
    // A dictionary of 4 GiB.
    let mut lzma = packed("lzma");
    lzma[3..5].copy_from_slice(&[0xff, 0xff]);
    let refused = error(&lzma).to_string();
    assert!(refused.contains("memory"), "{refused}");
}
