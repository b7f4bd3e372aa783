//! Structures that one kernel leaves for the next never change under the same version string: each is held to the line in
//! `fingerprints.txt` that names its string.
//!
//! A structure that must change gets a module and a string of its own, and a line of its own; its old line stays as long
//! as some release reads or writes it. Structures that have no string (`-`) can never change.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};

use luosim_abi::devices::{self, guest_memfd, iommufd, kvm, vfio};
use luosim_abi::kho::{self, geometry::Geometry, v1, v3, v4, vmalloc};
use luosim_abi::luo::{self, block, flb, record};
use luosim_abi::memfd::{self, folio};
use luosim_abi::posted;
use luosim_abi::release::{LuoVersion, MemfdVersion};

/// A member, as `offset+bytes name`.
fn member<S, F>(name: &str, offset: usize, _: impl Fn(&S) -> &F) -> String {
    format!("{offset}+{} {name}", size_of::<F>())
}

macro_rules! line {
    ($string:expr, $type:ty, $($member:ident)*) => {{
        let members = [$(member(stringify!($member), offset_of!($type, $member), |one: &$type| &one.$member)),*];
        let name = stringify!($type);
        format!("{} | {name} | {} bytes | {}", $string, size_of::<$type>(), members.join(", "))
    }};
}

fn structures() -> Vec<String> {
    let (memfd1, memfd2) = (MemfdVersion::V1.compatible(), MemfdVersion::V2.compatible());
    let luo5 = LuoVersion::V5.compatible();
    let mut lines = vec![
        line!("-", kho::setup_data::Header, next kind len),
        line!("-", kho::setup_data::Payload, fdt_addr fdt_size scratch_addr scratch_size),
        line!("-", kho::scratch::Entry, addr size),
        line!(format!("kexec-metadata {}", kho::metadata::VERSION), kho::metadata::Metadata, version previous_release kexec_count),
        line!(v1::COMPATIBLE, v1::ChunkHeader, next order num_elms),
        line!(v1::COMPATIBLE, v1::ChunkEntry, phys_start bitmap),
        line!(luo5, luo::v5::LuoSer, compatible liveupdate_num sessions_pa flbs_pa),
        line!(luo5, block::BlockHeader, next count),
        line!(luo::flb::COMPATIBLE, flb::FlbHeader, pgcnt count),
        line!(luo::flb::COMPATIBLE, flb::FlbEntry, name data count),
        line!(luo5, flb::FlbHeader, pgcnt count),
        line!(luo5, flb::FlbEntry, name data count),
        line!(memfd1, memfd::v1::MemfdSer, pos size nr_folios folios),
        line!(memfd2, memfd::v2::MemfdSer, pos size seals flags nr_folios folios),
        line!(memfd1, folio::FolioEntry, word index),
        line!(memfd2, folio::FolioEntry, word index),
        line!(format!("posted {}", posted::session::COMPATIBLE), posted::session::SessionEntry, name files pages count),
        line!(format!("posted {}", posted::session::COMPATIBLE), posted::session::FileRecord, compatible data token),
        line!(format!("posted {}", posted::memfd::COMPATIBLE), posted::memfd::Folio, word index),
    ];
    for string in [v1::COMPATIBLE, v3::COMPATIBLE, v4::COMPATIBLE] {
        lines.push(line!(string, vmalloc::Descriptor, first total_pages flags order));
    }
    for string in [luo::v1::SESSION_COMPATIBLE, luo5] {
        lines.push(line!(string, record::SessionRecord, name files count));
        lines.push(line!(string, record::FileRecord, compatible data token));
    }
    lines
}

/// Structures of device files. Nobody has released them: a line changes when what it was seen in does.
fn device_structures() -> Vec<String> {
    let pci = format!("{} {}", devices::pci::COMPATIBLE, devices::pci::VERSION);
    let iommu = format!("{} {}", devices::iommu::COMPATIBLE, devices::iommu::VERSION);
    vec![
        line!(&pci, devices::pci::PciSer, version nr_devices first_block),
        line!(&pci, devices::pci::PciDevSer, domain bdf refcount),
        line!(&iommu, devices::iommu::IommuFlbSer, version hw_array domain_array device_array),
        line!(&iommu, devices::iommu::ArrayHeader, next nr_objects),
        line!(&iommu, devices::iommu::ObjectHeader, ref_count flags),
        line!(&iommu, devices::iommu::IommuDomainSer, header top_table top_level vasz sign_extend restored_domain),
        line!(&iommu, devices::iommu::DevMapSer, attachment_id domain iommu),
        line!(&iommu, devices::iommu::IommuDeviceSer, header devid pci_domain_nr dev_map),
        line!(&iommu, devices::iommu::IommuHwSer, header token kind),
        line!(&iommu, devices::iommu::SimHwSer, hw root_table),
        line!(iommufd::COMPATIBLE, iommufd::HwptSer, domain token reclaimed padding),
        line!(iommufd::COMPATIBLE, iommufd::IommufdSer, nr_hwpts),
        line!("-", iommufd::MarkPreserveArg, size hwpt_id hwpt_token),
        line!("-", iommufd::RestoreArg, size out_pt_id hwpt_token),
        line!(vfio::COMPATIBLE, vfio::VfioPciSer, domain bdf),
        line!(vfio::COMPATIBLE, vfio::VfioPciSerV1, bdf domain reset_works iommufd_token),
        line!(vfio::COMPATIBLE_WITH_IOMMUFD, vfio::VfioPciSerV2, domain bdf reset_works iommufd_token),
        line!(vfio::COMPATIBLE, vfio::VfioPciSerFull, bdf cfg_size permissions config bars reset_works saved_state),
        line!(kvm::VM_COMPATIBLE, kvm::VmSer, kind),
        line!(kvm::VM_COMPATIBLE, kvm::VmSerRfc, kind nr_mem_attrs mem_attrs),
        line!(kvm::VM_COMPATIBLE, kvm::MemAttr, gfn attributes),
        line!(kvm::VM_COMPATIBLE, kvm::VmSerTables, kind tables),
        line!(kvm::VM_COMPATIBLE, kvm::FolioList, nr),
        line!(kvm::VCPU_COMPATIBLE, kvm::VcpuSer, vcpu_id flags vm_token arch_state control_block),
        line!(kvm::VCPU_COMPATIBLE, kvm::CaretakerBlock, state pcpu vcpu_id reserved telemetry),
        line!(kvm::VCPU_COMPATIBLE, kvm::Telemetry, runs exits stalls last_reason last_rip stall_reason stall_rip),
        line!(guest_memfd::COMPATIBLE, guest_memfd::GuestMemfdSer, size flags nr_folios vm_token folios),
        line!(guest_memfd::COMPATIBLE, guest_memfd::GuestFolio, word index),
    ]
}

/// Formats that are no Rust structure: areas, keys, flags.
fn formats() -> Vec<String> {
    let g = Geometry::PAGE_4K;
    let tree = |string: &str| {
        format!(
            "{string} | radix tree | {} levels | {} entries, {} bits, key of {} bits, order 0 at bit {}",
            g.root_level() + 1,
            g.table_entries(),
            g.bitmap_bits(),
            g.key_bits(),
            g.marker()
        )
    };
    let per_chunk =
        |string: &str| format!("{string} | vmalloc chunk | link, {} addresses", vmalloc::PER_CHUNK);
    let mut lines = vec![
        format!(
            "{} | bitmap chunk | {} entries, {} bits each",
            v1::COMPATIBLE,
            g.chunk_entries(),
            g.bitmap_bits()
        ),
        tree(v3::COMPATIBLE),
        tree(v4::COMPATIBLE),
        format!(
            "{} | session area | {} pages, first at {}, {} fit; {} files",
            luo::v1::SESSION_COMPATIBLE,
            luo::v1::SESSION_AREA_PAGES,
            luo::v1::SESSION_HEADER_SIZE,
            luo::v1::MAX_SESSIONS,
            luo::v1::MAX_FILES
        ),
        format!(
            "{} | block | first at {}, {} blocks",
            luo::v5::COMPATIBLE,
            block::HEADER_SIZE,
            block::MAX_BLOCKS
        ),
        format!(
            "{} | objects | first at {}, {} fit",
            luo::flb::COMPATIBLE,
            flb::HEADER_SIZE,
            flb::MAX_ENTRIES
        ),
        format!("{} | seals | {:#x}", MemfdVersion::V2.compatible(), memfd::v2::SEALS),
    ];
    for string in [MemfdVersion::V1.compatible(), MemfdVersion::V2.compatible()] {
        lines.push(format!(
            "{string} | folio word | {} bits of frame, dirty {}, uptodate {}",
            folio::PFN_BITS,
            folio::DIRTY,
            folio::UPTODATE
        ));
    }
    lines.extend([v1::COMPATIBLE, v3::COMPATIBLE, v4::COMPATIBLE].map(per_chunk));
    lines
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fingerprints.txt");

fn key(line: &str) -> &str {
    let end = line.match_indices(" | ").nth(1).map_or(line.len(), |(at, _)| at);
    &line[..end]
}

/// What the file and the code do not agree on.
fn differences(file: &str, code: &[String]) -> String {
    let mut out = String::new();
    let kept: Vec<&str> = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    for line in code.iter().filter(|line| !kept.contains(&line.as_str())) {
        let said = match kept.iter().find(|old| key(old) == key(line)) {
            Some(old) => {
                format!("changed under the same string; give it a new one\n  was {old}\n  is  {line}")
            }
            None => format!("new; add its line to fingerprints.txt\n  {line}"),
        };
        let _ = writeln!(out, "{said}");
    }
    for line in kept.iter().filter(|line| !code.iter().any(|other| key(other) == key(line))) {
        let _ = writeln!(out, "gone; a version module is never edited\n  {line}");
    }
    out
}

fn code() -> Vec<String> {
    let mut lines = [structures(), device_structures(), formats()].concat();
    lines.sort();
    lines
}

#[test]
fn no_layout_changes_under_its_version_string() {
    let file = std::fs::read_to_string(FILE).expect("fingerprints.txt");
    let found = differences(&file, &code());
    assert!(found.is_empty(), "{found}");
}

/// Every structure of the handover is in the list: those that kernels leave, not what programs pass, nor the header of a
/// device tree, which is the world's.
#[test]
fn every_structure_has_a_fingerprint() {
    let mut files = Vec::new();
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&source, &mut files);
    let lines = code().join("\n");
    let mut count = 0;
    for file in files {
        let inside = file.strip_prefix(&source).expect("below src").display().to_string();
        let passed =
            ["ioctl.rs", "fdt.rs", "posted/v2.rs", "posted/v3.rs", "posted/v4.rs"].contains(&inside.as_str());
        let text = std::fs::read_to_string(&file).expect("source");
        for part in text.split("#[repr(C)]\npub struct ").skip(1).filter(|_| !passed) {
            let name = part.split([' ', '<']).next().expect("a name");
            assert!(lines.contains(&format!("::{name} | ")), "{inside}: {name} has no fingerprint");
            count += 1;
        }
    }
    assert!(count >= 15, "{count}");
}

fn sources(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn what_differs_is_said() {
    let code = vec![String::from("a-v1 | A | 8 bytes | 0+8 x"), String::from("b-v1 | B | 4 bytes | 0+4 y")];
    let said = differences("# list\na-v1 | A | 4 bytes | 0+4 x\nc-v1 | C | 1 bytes | 0+1 z\n", &code);
    for part in
        ["changed under the same string", "was a-v1 | A | 4", "new; add", "b-v1 | B", "gone", "c-v1 | C"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(differences(&code.join("\n"), &code), "");
}
