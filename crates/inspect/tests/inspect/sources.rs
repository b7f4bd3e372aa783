//! Each kind of source: told apart by its content, read to the same report, or refused with advice.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use luosim_inspect::{Hints, Inspection, Options, Source, inspect};
use luosim_physmem::PhysAddr;
use object::elf::{EM_X86_64, ET_CORE, ET_EXEC, FileFlags, FileType, OsAbi, PT_LOAD, PT_NOTE, ProgramFlags};
use object::write::elf::{FileHeader, ProgramHeader, Writer};

use crate::world::{World, complaints, inspected, open, recorded, small};

/// The report without what it says of the source.
fn contents(inspection: &Inspection) -> serde_json::Value {
    let mut report = serde_json::to_value(&inspection.report).expect("a report");
    for field in ["source", "candidates", "scratch", "findings"] {
        report.as_object_mut().expect("an object").remove(field);
    }
    report
}

fn inspect_file(path: &Path, hints: Hints) -> Inspection {
    inspect(open(path), &Options { hints, digest: true })
}

/// A segment of a core: physical address, and the range of memory that it holds.
type Range = (u64, std::ops::Range<usize>);

/// A core file with these segments of `memory`.
fn core(memory: &[u8], ranges: &[Range], kind: FileType) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(object::Endianness::Little, true, &mut out);
    writer.reserve_file_header();
    writer.reserve_program_headers(u32::try_from(ranges.len() + 1).expect("few"));
    let places: Vec<u64> = ranges.iter().map(|(_, range)| writer.reserve(range.len() as u64, 4096)).collect();
    let header = FileHeader {
        os_abi: OsAbi(0),
        abi_version: 0,
        e_type: kind,
        e_machine: EM_X86_64,
        e_entry: 0,
        e_flags: FileFlags(0),
    };
    writer.write_file_header(&header).expect("a header");
    writer.write_align_program_headers();
    let note = ProgramHeader {
        p_type: PT_NOTE,
        p_flags: ProgramFlags(0),
        p_offset: 0,
        p_vaddr: 0,
        p_paddr: 0,
        p_filesz: 0,
        p_memsz: 0,
        p_align: 0,
    };
    writer.write_program_header(&note);
    for ((paddr, range), place) in ranges.iter().zip(&places) {
        let (len, place) = (range.len() as u64, *place);
        writer.write_program_header(&ProgramHeader {
            p_type: PT_LOAD,
            p_offset: place,
            p_vaddr: paddr | 0xffff_8880_0000_0000,
            p_paddr: *paddr,
            p_filesz: len,
            p_memsz: len,
            ..note
        });
    }
    for ((_, range), place) in ranges.iter().zip(&places) {
        writer.pad_until(*place);
        writer.write(&memory[range.clone()]);
    }
    out
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("writable");
    file
}

#[test]
fn raw_memory_and_a_packed_file_say_the_same_without_being_told_where() {
    for kernel in ["6.19.6", "7.3.4"] {
        let want = inspected(&small(kernel));
        let raw = written(&World::new(kernel).bytes());
        for (path, kind) in [(raw.path(), "raw"), (&small(kernel).join("ram.zst"), "zstd")] {
            let found = inspect_file(path, Hints::default());
            assert_eq!(found.report.source.kind, kind);
            assert_eq!(contents(&found), contents(&want));
            let scratch = found.report.scratch.as_ref().expect("the boot parameters are in memory");
            assert_eq!(scratch.from, "setup-data");
            assert_eq!(scratch.areas, want.report.scratch.as_ref().expect("in the manifest").areas);
            assert_eq!(complaints(&found), Vec::<String>::new());
        }
    }
}

#[test]
fn an_elf_core_is_read_by_physical_addresses() {
    const MIB: usize = 1 << 20;
    let (world, want) = (World::new("7.3.4"), inspected(&small("7.3.4")));
    let memory = world.bytes();
    // As a machine with a hole: memory below 640 KiB and from 1 MiB on, in an odd order, one range twice.
    let ranges = [(MIB as u64, MIB..128 * MIB), (0, 0..640 << 10), (4 * MIB as u64, 4 * MIB..6 * MIB)];
    let file = written(&core(&memory, &ranges, ET_CORE));
    let found = inspect_file(file.path(), Hints::default());
    assert_eq!((found.report.source.kind, found.report.source.bytes), ("elf-core", world.size));
    assert_eq!(contents(&found), contents(&want));
    assert_eq!(complaints(&found), Vec::<String>::new());
}

#[test]
fn a_core_that_is_cut_off_says_so_and_is_read_as_far_as_it_goes() {
    let world = World::new("7.3.4");
    let mut bytes = core(&world.bytes(), &[(0, 0..128 << 20)], ET_CORE);
    bytes.truncate(64 << 20);
    let found = inspect_file(written(&bytes).path(), Hints::default());
    let said = complaints(&found);
    assert!(said.iter().any(|line| line.contains("the file is cut off")), "{said:?}");
    assert_eq!(found.report.luo.as_ref().expect("it lies before the cut").sessions.len(), 3);
}

#[test]
fn a_file_that_shrinks_while_it_is_read_gives_findings() {
    let file = written(&World::new("7.3.4").bytes());
    let source = open(file.path());
    file.as_file().set_len(0x600_0000).expect("shrinks");
    let hints = World::new("7.3.4").hints;
    let found = inspect(source, &Options { hints, digest: true });
    let said = complaints(&found);
    assert!(said.iter().any(|line| line.contains("the file cannot be read at byte")), "{said:?}");
}

#[test]
fn a_sparse_file_of_64_gib_is_read_by_its_data_alone() {
    let mut file = written(b"");
    let bytes = World::new("7.3.4").bytes();
    for (at, page) in (0..).map(|page: u64| page * 4096).zip(bytes.chunks(4096)) {
        if page.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(at)).expect("seekable");
            file.write_all(page).expect("writable");
        }
    }
    file.as_file().set_len(64 << 30).expect("sparse");
    let found = inspect_file(file.path(), Hints::default());
    assert_eq!(found.report.source.bytes, 64 << 30);
    assert_eq!(complaints(&found), Vec::<String>::new());
    assert_eq!(found.report.luo.as_ref().expect("it is there").sessions.len(), 3);
}

#[test]
fn memory_above_4_gib_of_a_qemu_file_is_where_the_machine_has_it() {
    let world = World::new("7.3.4");
    let mut bytes = vec![0; 2 << 20];
    bytes.extend(world.bytes());
    let file = written(&bytes);
    let source = Source::open(file.path(), Some(2 << 20)).expect("raw memory");
    let root = world.hints.root.expect("the manifest says it").raw();
    let hints = Hints { root: Some(PhysAddr::new((4 << 30) + root)), scratch: None };
    let found = inspect(source, &Options { hints, digest: false });
    assert_eq!(found.report.root.as_ref().expect("it lies above").compatible, "kho-v4");
    assert_eq!(found.report.source.bytes, (4 << 30) + world.size);
}

#[test]
fn single_blobs_are_told_apart() {
    let world = World::new("7.3.4");
    let report = world.inspect().report;
    let root = report.root.as_ref().expect("a root");
    let bytes = world.bytes();
    let page = |at: u64, len: usize| {
        let at = usize::try_from(at).expect("small");
        bytes[at..at + len].to_vec()
    };
    let at = |name: &str| root.subtrees.iter().find(|subtree| subtree.name == name).expect(name);
    let blob = |name: &str| {
        let subtree = at(name);
        page(
            subtree.at.expect("an address").0.raw(),
            usize::try_from(subtree.bytes.expect("a size")).expect("small"),
        )
    };
    let cases = [
        ("kho-root", page(root.at.0.raw(), 4096), "preserved-memory-map"),
        ("luo-v5", blob("LUO"), "sessions_pa"),
        ("kexec-metadata", blob("kexec-metadata"), "kexec_count"),
        ("kho-test", blob("kho_test"), "data/folios_info"),
    ];
    for (kind, bytes, path) in cases {
        let found = inspect_file(written(&bytes).path(), Hints::default());
        assert_eq!(complaints(&found), Vec::<String>::new());
        let blob = found.report.blob.as_ref().expect("a blob");
        assert_eq!(blob.kind, kind);
        assert!(blob.values.iter().any(|value| value.path == path), "{blob:?}");
    }
    let cut = page(root.at.0.raw(), 200);
    let found = inspect_file(written(&cut).path(), Hints::default());
    assert!(
        found.report.blob.is_none() && complaints(&found)[0].contains("cut off"),
        "{:?}",
        complaints(&found)
    );
}

#[test]
fn what_is_no_memory_is_refused_with_advice() {
    let executable = core(&[0; 4096], &[(0, 0..4096)], ET_EXEC);
    let cases: &[(&[u8], &str)] = &[
        (b"", "no handover memory"),
        (b"hello", "no handover memory"),
        (&[0x1f, 0x8b, 8, 0], "gunzip"),
        (b"KDUMP   \x06\0\0\0", "makedumpfile -E"),
        (b"makedumpfile\0\0\0\0", "makedumpfile -R"),
        (b"QFI\xfb\0\0\0\x03", "not its disk"),
        (&executable, "not the kernel"),
        (b"\x7fELF\x01\x01\x01", "32-bit"),
        (b"\x7fELF\x02\x01\x01", "broken"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58], "ends too early"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 0x04, 0xff], "window"),
    ];
    for (bytes, advice) in cases {
        let error = Source::open(written(bytes).path(), None).expect_err("it is none").to_string();
        assert!(error.contains(advice), "{error}");
    }
    let error = Source::open(Path::new("/no/such/file"), None).expect_err("it is not there").to_string();
    assert!(error.contains("No such file"), "{error}");
    let empty = tempfile::tempdir().expect("a folder");
    let error = Source::open(empty.path(), None).expect_err("no manifest").to_string();
    assert!(error.contains("a folder needs a manifest"), "{error}");
    std::fs::write(empty.path().join("manifest.json"), r#"{"mem_bytes": 8192, "kho": null}"#)
        .expect("writable");
    std::fs::write(empty.path().join("ram.bin"), [0; 4096]).expect("writable");
    let error = Source::open(empty.path(), None).expect_err("too short").to_string();
    assert!(error.contains("4096 bytes of memory, and the manifest says 8192"), "{error}");
}

#[test]
fn memory_without_a_root_says_what_to_do() {
    let found = inspect_file(written(&vec![0; 1 << 20]).path(), Hints::default());
    assert!(found.report.root.is_none() && complaints(&found)[0].contains("--root ADDR"));
}

#[test]
fn of_several_roots_the_one_with_a_map_of_its_own_is_taken() {
    let mut world = World::new("7.3.4");
    let root = world.hints.root.expect("the manifest says it");
    let page: Vec<u64> = (0..512).map(|word| world.read(root.raw() + 8 * word)).collect();
    for (word, value) in (0..).zip(page) {
        // A stale copy, at a higher address, in no map.
        world.word(0x770_0000 + 8 * word, value);
    }
    let found = world.inspect_at(Hints::default()).report;
    let candidates: Vec<u64> = found.candidates.iter().map(|candidate| candidate.at.0.raw()).collect();
    assert_eq!(candidates, [root.raw(), 0x770_0000]);
    assert!(found.candidates[1].why.contains("does not name its own page"), "{:?}", found.candidates);
}

#[test]
fn packed_images_are_unpacked_whatever_their_blocks() {
    for folder in recorded() {
        let bytes = std::fs::read(folder.join("ram.zst")).expect("readable");
        // Twice in one file, with a frame to skip between: memory of twice the size.
        let skip = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let file = written(&[&bytes[..], &skip, &bytes].concat());
        let found = inspect_file(file.path(), Hints::default());
        let want = inspected(&folder);
        assert_eq!(found.report.source.bytes, 2 * want.report.source.bytes);
        assert_eq!(found.report.candidates.len(), 2);
    }
}
