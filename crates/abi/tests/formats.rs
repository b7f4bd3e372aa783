//! `docs/formats/` held to the code: every byte map has the offsets, sizes and types of its structure, every structure
//! has a byte map, and worked examples are recomputed.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};

use luosim_abi::devices::{guest_memfd, iommu, iommufd, kvm, pci, vfio};
use luosim_abi::ioctl::{self, Command};
use luosim_abi::kho::geometry::Geometry;
use luosim_abi::kho::{self, v1, v3, v4, vmalloc};
use luosim_abi::luo::{self, block, flb, record};
use luosim_abi::memfd::{self, folio::FolioEntry};
use luosim_abi::posted::{self, Event, State, session, tree};
use luosim_abi::release::{LuoVersion, MemfdVersion, RELEASES};
use luosim_abi::{fdt, luo::v1 as luo_v1};
use zerocopy::{big_endian, little_endian};

/// How a page names the type of a field.
trait Documented {
    fn kind() -> String;
}

macro_rules! documented {
    ($($type:ty = $kind:literal),* $(,)?) => {
        $(impl Documented for $type {
            fn kind() -> String {
                String::from($kind)
            }
        })*
    };
}

documented! {
    u8 = "u8",
    little_endian::U16 = "u16",
    little_endian::U32 = "u32",
    little_endian::U64 = "u64",
    little_endian::I32 = "i32",
    big_endian::U32 = "be32",
    vmalloc::Descriptor = "bytes[16]",
    iommu::ObjectHeader = "bytes[8]",
    iommu::DevMapSer = "bytes[24]",
    iommu::IommuHwSer = "bytes[24]",
}

impl<const N: usize> Documented for [u8; N] {
    fn kind() -> String {
        format!("char[{N}]")
    }
}

impl<const N: usize> Documented for [little_endian::U32; N] {
    fn kind() -> String {
        format!("u32 × {N}")
    }
}

/// A row of a byte map.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    offset: usize,
    size: usize,
    name: String,
    kind: String,
}

struct Layout {
    name: &'static str,
    size: usize,
    fields: Vec<Field>,
}

fn field_of<S, F: Documented>(name: &str, offset: usize, _: impl Fn(&S) -> &F) -> Field {
    Field { offset, size: size_of::<F>(), name: name.to_owned(), kind: F::kind() }
}

macro_rules! layout {
    ($name:literal, $type:ty, $($field:ident)*) => {
        Layout {
            name: $name,
            size: size_of::<$type>(),
            fields: vec![$(field_of(
                stringify!($field),
                offset_of!($type, $field),
                |structure: &$type| &structure.$field,
            )),*],
        }
    };
}

/// A page or area that is no Rust structure: parts of `unit` bytes, `count` of them each.
fn page(name: &'static str, parts: &[(&str, &str, u64, u64)]) -> Layout {
    let mut fields = Vec::new();
    let mut offset = 0;
    for (part, unit, bytes, count) in parts {
        let size = usize::try_from(bytes * count).expect("small");
        let kind = if *count == 1 { (*unit).to_owned() } else { format!("{unit} × {count}") };
        fields.push(Field { offset, size, name: (*part).to_owned(), kind });
        offset += size;
    }
    Layout { name, size: offset, fields }
}

fn bytes_of<T>() -> u64 {
    u64::try_from(size_of::<T>()).expect("small")
}

fn kho_layouts() -> Vec<Layout> {
    let chunk = [
        ("header", "bytes[16]", bytes_of::<v1::ChunkHeader>(), 1),
        ("entries", "bytes[16]", bytes_of::<v1::ChunkEntry>(), v1::ENTRIES_PER_CHUNK as u64),
    ];
    vec![
        layout!("fdt::FdtHeader", fdt::FdtHeader, magic totalsize off_dt_struct off_dt_strings off_mem_rsvmap version
            last_comp_version boot_cpuid_phys size_dt_strings size_dt_struct),
        layout!("kho::setup_data::Header", kho::setup_data::Header, next kind len),
        layout!("kho::setup_data::Payload", kho::setup_data::Payload, fdt_addr fdt_size scratch_addr scratch_size),
        layout!("kho::scratch::Entry", kho::scratch::Entry, addr size),
        layout!("kho::metadata::Metadata", kho::metadata::Metadata, version previous_release kexec_count),
        layout!("kho::v1::ChunkHeader", v1::ChunkHeader, next order num_elms),
        layout!("kho::v1::ChunkEntry", v1::ChunkEntry, phys_start bitmap),
        page("kho::v1::chunk", &chunk),
        page("kho::v4::table", &[("child", "u64", 8, v4::TABLE_ENTRIES)]),
        page("kho::v4::leaf", &[("bits", "bytes[4096]", v4::LEAF_BITS / 8, 1)]),
        layout!("kho::vmalloc::Descriptor", vmalloc::Descriptor, first total_pages flags order),
        page("kho::vmalloc::chunk", &[("next", "u64", 8, 1), ("phys", "u64", 8, vmalloc::PER_CHUNK as u64)]),
    ]
}

fn luo_layouts() -> Vec<Layout> {
    let session = bytes_of::<record::SessionRecord>();
    let file = bytes_of::<record::FileRecord>();
    let area = luo_v1::SESSION_AREA_PAGES * 4096;
    let rest = area - luo_v1::SESSION_HEADER_SIZE - luo_v1::MAX_SESSIONS * session;
    let flbs = flb::MAX_ENTRIES as u64;
    vec![
        layout!("luo::record::SessionRecord", record::SessionRecord, name files count),
        layout!("luo::record::FileRecord", record::FileRecord, compatible data token),
        page(
            "luo::v1::sessions",
            &[
                ("count", "u64", luo_v1::SESSION_HEADER_SIZE, 1),
                ("sessions", "bytes[80]", session, luo_v1::MAX_SESSIONS),
                ("unused", "bytes[8]", rest, 1),
            ],
        ),
        page("luo::v1::files", &[("files", "bytes[64]", file, luo_v1::MAX_FILES)]),
        layout!("luo::v5::LuoSer", luo::v5::LuoSer, compatible liveupdate_num sessions_pa flbs_pa),
        layout!("luo::block::BlockHeader", block::BlockHeader, next count),
        page(
            "luo::block::sessions",
            &[
                ("header", "bytes[16]", block::HEADER_SIZE, 1),
                ("sessions", "bytes[80]", session, block::capacity(session)),
            ],
        ),
        page(
            "luo::block::files",
            &[
                ("header", "bytes[16]", block::HEADER_SIZE, 1),
                ("files", "bytes[64]", file, block::capacity(file)),
                ("unused", "bytes[48]", 4096 - block::HEADER_SIZE - block::capacity(file) * file, 1),
            ],
        ),
        page(
            "luo::flb::page",
            &[
                ("header", "bytes[16]", flb::HEADER_SIZE, 1),
                ("entries", "bytes[64]", flb::ENTRY_SIZE, flbs),
                ("unused", "bytes[48]", 4096 - flb::HEADER_SIZE - flbs * flb::ENTRY_SIZE, 1),
            ],
        ),
        layout!("luo::flb::FlbHeader", flb::FlbHeader, pgcnt count),
        layout!("luo::flb::FlbEntry", flb::FlbEntry, name data count),
    ]
}

fn other_layouts() -> Vec<Layout> {
    vec![
        layout!("memfd::v1::MemfdSer", memfd::v1::MemfdSer, pos size nr_folios folios),
        layout!("memfd::v2::MemfdSer", memfd::v2::MemfdSer, pos size seals flags nr_folios folios),
        layout!("memfd::folio::FolioEntry", FolioEntry, word index),
        layout!("ioctl::SessionArg", ioctl::SessionArg, size fd name),
        layout!("ioctl::FdArg", ioctl::FdArg, size fd token),
        layout!("ioctl::FinishArg", ioctl::FinishArg, size reserved),
        layout!("ioctl::GetNameArg", ioctl::GetNameArg, size reserved name),
    ]
}

fn posted_layouts() -> Vec<Layout> {
    vec![
        layout!("posted::v2::LiveupdateFd", posted::v2::LiveupdateFd, fd flags token),
        layout!("posted::v3::Fd", posted::v3::Fd, size fd token),
        layout!("posted::v3::FdUnpreserve", posted::v3::FdUnpreserve, size hole token),
        layout!("posted::v3::Word", posted::v3::Word, size value),
        layout!("posted::v3::FdState", posted::v3::FdState, size incoming hole token state tail),
        layout!("posted::v3::FdEvent", posted::v3::FdEvent, size event token),
        layout!("posted::v4::CreateSession", posted::v4::CreateSession, size fd name),
        layout!("posted::v4::RetrieveSession", posted::v4::RetrieveSession, size fd name),
        layout!("posted::v4::SessionGetState", posted::v4::SessionGetState, size incoming reserved state),
        layout!("posted::session::SessionEntry", posted::session::SessionEntry, name files pages count),
        layout!("posted::memfd::Folio", posted::memfd::Folio, word index),
    ]
}

fn pci_layouts() -> Vec<Layout> {
    vec![
        layout!("devices::pci::PciSer", pci::PciSer, version nr_devices first_block),
        layout!("devices::pci::PciDevSer", pci::PciDevSer, domain bdf refcount),
    ]
}

fn iommu_layouts() -> Vec<Layout> {
    vec![
        layout!("devices::iommu::IommuFlbSer", iommu::IommuFlbSer, version hw_array domain_array device_array),
        layout!("devices::iommu::ArrayHeader", iommu::ArrayHeader, next nr_objects),
        layout!("devices::iommu::ObjectHeader", iommu::ObjectHeader, ref_count flags),
        layout!("devices::iommu::IommuDomainSer", iommu::IommuDomainSer, header top_table top_level vasz sign_extend restored_domain),
        layout!("devices::iommu::DevMapSer", iommu::DevMapSer, attachment_id domain iommu),
        layout!("devices::iommu::IommuDeviceSer", iommu::IommuDeviceSer, header devid pci_domain_nr dev_map),
        layout!("devices::iommu::IommuHwSer", iommu::IommuHwSer, header token kind),
        layout!("devices::iommu::SimHwSer", iommu::SimHwSer, hw root_table),
    ]
}

fn iommufd_layouts() -> Vec<Layout> {
    vec![
        layout!("devices::iommufd::HwptSer", iommufd::HwptSer, domain token reclaimed padding),
        layout!("devices::iommufd::IommufdSer", iommufd::IommufdSer, nr_hwpts),
        layout!("devices::iommufd::MarkPreserveArg", iommufd::MarkPreserveArg, size hwpt_id hwpt_token),
        layout!("devices::iommufd::RestoreArg", iommufd::RestoreArg, size out_pt_id hwpt_token),
    ]
}

fn vfio_layouts() -> Vec<Layout> {
    vec![
        layout!("devices::vfio::VfioPciSer", vfio::VfioPciSer, domain bdf),
        layout!("devices::vfio::VfioPciSerV1", vfio::VfioPciSerV1, bdf domain reset_works iommufd_token),
        layout!("devices::vfio::VfioPciSerV2", vfio::VfioPciSerV2, domain bdf reset_works iommufd_token),
        layout!("devices::vfio::VfioPciSerFull", vfio::VfioPciSerFull, bdf cfg_size permissions config bars reset_works saved_state),
    ]
}

fn kvm_layouts() -> Vec<Layout> {
    vec![
        layout!("devices::kvm::VmSer", kvm::VmSer, kind),
        layout!("devices::kvm::VmSerRfc", kvm::VmSerRfc, kind nr_mem_attrs mem_attrs),
        layout!("devices::kvm::MemAttr", kvm::MemAttr, gfn attributes),
        layout!("devices::kvm::VmSerTables", kvm::VmSerTables, kind tables),
        layout!("devices::kvm::FolioList", kvm::FolioList, nr),
        layout!("devices::kvm::VcpuSer", kvm::VcpuSer, vcpu_id flags vm_token arch_state control_block),
        layout!("devices::kvm::CaretakerBlock", kvm::CaretakerBlock, state pcpu vcpu_id reserved telemetry),
        layout!("devices::kvm::Telemetry", kvm::Telemetry, runs exits stalls last_reason last_rip stall_reason stall_rip),
    ]
}

fn guest_memfd_layouts() -> Vec<Layout> {
    vec![
        layout!("devices::guest_memfd::GuestMemfdSer", guest_memfd::GuestMemfdSer, size flags nr_folios vm_token folios),
        layout!("devices::guest_memfd::GuestFolio", guest_memfd::GuestFolio, word index),
    ]
}

fn device_layouts() -> Vec<Layout> {
    let of = [
        pci_layouts(),
        iommu_layouts(),
        iommufd_layouts(),
        vfio_layouts(),
        kvm_layouts(),
        guest_memfd_layouts(),
    ];
    of.into_iter().flatten().collect()
}

fn layouts() -> Vec<Layout> {
    [kho_layouts(), luo_layouts(), other_layouts(), device_layouts(), posted_layouts()]
        .into_iter()
        .flatten()
        .collect()
}

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn page_text(name: &str) -> String {
    std::fs::read_to_string(folder("../../docs/formats").join(name)).expect("a page of docs/formats")
}

/// Every page with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder("../../docs/formats")).expect("docs/formats");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).expect("text"))).collect()
}

fn cells(row: &str) -> Vec<String> {
    row.trim().trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
}

/// The rows of the table that begins with the line `head`.
fn rows<'a>(text: &'a str, head: &str) -> impl Iterator<Item = Vec<String>> + use<'a> {
    let at = text.find(head).unwrap_or_else(|| panic!("no table {head}"));
    text[at..].lines().skip(2).take_while(|line| line.starts_with('|')).map(cells)
}

const HEAD: &str = "| offset | size | field | type | meaning |";

/// The byte maps of one page: marker, then table.
fn maps(path: &Path, text: &str) -> Vec<(String, Vec<Field>)> {
    let mut found = Vec::new();
    for part in text.split("<!-- bytes: ").skip(1) {
        let (name, rest) = part.split_once(" -->").expect("a marker ends");
        let table = rest.trim_start();
        assert!(table.starts_with(HEAD), "{}: no byte map behind the marker {name}", path.display());
        let fields = rows(table, HEAD).map(|row| Field {
            offset: row[0].parse().expect("an offset"),
            size: row[1].parse().expect("a size"),
            name: row[2].clone(),
            kind: row[3].clone(),
        });
        found.push((name.to_owned(), fields.collect()));
    }
    assert_eq!(text.matches(HEAD).count(), found.len(), "{}: a byte map without marker", path.display());
    found
}

#[test]
fn byte_maps_are_those_of_the_structures() {
    let mut documented = BTreeMap::new();
    for (path, text) in pages() {
        for (name, fields) in maps(&path, &text) {
            assert!(documented.insert(name.clone(), fields).is_none(), "two byte maps of {name}");
        }
    }
    for layout in layouts() {
        let fields = documented.remove(layout.name);
        let fields = fields.unwrap_or_else(|| panic!("{} has no byte map in docs/formats", layout.name));
        assert_eq!(fields, layout.fields, "the byte map of {}", layout.name);
        let end = fields.iter().fold(0, |end, field| {
            assert_eq!(field.offset, end, "a gap before {} of {}", field.name, layout.name);
            end + field.size
        });
        assert_eq!(end, layout.size, "the byte map of {} does not reach its end", layout.name);
    }
    assert!(documented.is_empty(), "byte maps of nothing: {:?}", documented.keys());
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
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
fn every_structure_of_the_crate_has_a_byte_map() {
    let mut files = Vec::new();
    sources(&folder("src"), &mut files);
    let known: Vec<&str> = layouts().iter().map(|layout| layout.name).collect();
    let mut count = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).expect("source");
        let module = file.strip_prefix(folder("src")).expect("below src").with_extension("");
        let module = module.display().to_string().replace(std::path::MAIN_SEPARATOR, "::");
        for part in text.split("#[repr(C)]\npub struct ").skip(1) {
            let name = part.split(' ').next().expect("a name");
            let name = format!("{module}::{name}");
            assert!(known.contains(&name.as_str()), "{name} has no byte map");
            count += 1;
        }
    }
    let pages = known
        .iter()
        .filter(|name| name.rsplit("::").next().is_some_and(|last| last.starts_with(char::is_lowercase)));
    assert_eq!(count, known.len() - pages.count());
}

fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{text} is not a number"))
}

fn numbers(row: &[String]) -> Vec<u64> {
    row.iter().map(|cell| number(cell)).collect()
}

fn order(number: u64) -> u32 {
    u32::try_from(number).expect("an order")
}

#[test]
fn worked_examples_of_bitmaps_are_right() {
    let text = page_text("kho-v1.md");
    let mut count = 0;
    for row in rows(&text, "| address | order | bitmap index | phys_start | bit |") {
        let row = numbers(&row);
        let order = order(row[1]);
        let (index, bit) = v1::locate(row[0] >> 12, order);
        assert_eq!(row[2..], [index, v1::phys_start(index, order), bit], "{row:x?}");
        assert_eq!(row[3] + (row[4] << (12 + order)), row[0], "{row:x?}");
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn worked_examples_of_keys_are_right() {
    let text = page_text("kho-v4.md");
    let mut count = 0;
    for row in rows(&text, "| address | order | key | L5 | L4 | L3 | L2 | L1 | bit |") {
        let row = numbers(&row);
        let key = row[2];
        assert_eq!(v4::key(row[0], order(row[1])), Some(key), "{row:x?}");
        assert_eq!(v4::block(key), Some((row[0], order(row[1]))), "{row:x?}");
        let path: Vec<u64> = (1..=v4::ROOT_LEVEL).rev().map(|level| v4::index(key, level)).collect();
        assert_eq!(row[3..8], path, "{row:x?}");
        assert_eq!(row[8], v4::leaf_bit(key), "{row:x?}");
        count += 1;
    }
    assert_eq!(count, 9);
}

#[test]
fn worked_examples_of_folio_entries_are_right() {
    let text = page_text("memfd.md");
    let mut count = 0;
    for row in rows(&text, "| frame | flags | index | word |") {
        let row = numbers(&row);
        let entry = FolioEntry::new(row[0], u16::try_from(row[1]).expect("flags"), row[2]);
        assert_eq!((entry.word.get(), entry.index.get()), (row[3], row[2]), "{row:x?}");
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn command_numbers_are_right() {
    let text = page_text("ioctl.md");
    let found: Vec<u64> =
        rows(&text, "| command | number | structure |").map(|row| number(&row[1])).collect();
    let codes: Vec<u64> = Command::ALL.iter().map(|command| u64::from(command.code())).collect();
    assert_eq!(found, codes);
}

#[test]
fn command_numbers_of_the_posted_designs_are_right() {
    let text = page_text("posted-ioctl.md");
    let table = |head: &str| -> Vec<(String, u64)> {
        rows(&text, head).map(|row| (row[0].clone(), number(&row[1]))).collect()
    };
    let second: Vec<(String, u64)> =
        posted::v2::Command::ALL.iter().map(|one| (one.name().to_owned(), one.code().into())).collect();
    assert_eq!(table("| command | number | argument |"), second);
    let third: Vec<Vec<String>> = rows(&text, "| command | number | structure | least size |").collect();
    for (row, one) in third.iter().zip(posted::v3::Command::ALL) {
        assert_eq!((row[0].as_str(), number(&row[1])), (one.name(), one.code().into()));
        assert_eq!(number(&row[3]), u64::try_from(one.min_size()).expect("small"));
    }
    assert_eq!(third.len(), posted::v3::Command::ALL.len());
    let device = posted::v4::DeviceCommand::ALL.iter().map(|one| (one.name().to_owned(), one.code().into()));
    let session =
        posted::v4::SessionCommand::ALL.iter().map(|one| (one.name().to_owned(), one.code().into()));
    assert_eq!(table("| command | number | structure |\n"), device.chain(session).collect::<Vec<_>>());
    let states: Vec<Vec<String>> = rows(&text, "| number | state | event |").collect();
    for (row, state) in states.iter().zip(State::ALL) {
        assert_eq!((number(&row[0]), row[1].as_str()), (state.raw().into(), state.name()));
    }
    for (row, event) in states.iter().zip(Event::ALL) {
        assert_eq!(row[2], event.name());
    }
}

#[test]
fn names_in_trees_of_the_posted_designs_are_the_crates() {
    let text = page_text("posted.md");
    let names = [
        tree::SUBTREE,
        tree::COMPATIBLE,
        tree::SUBSYSTEMS_COMPATIBLE,
        tree::FILES,
        tree::FILES_COMPATIBLE,
        tree::PROP_DATA,
        session::SUBSYSTEM,
        session::NODE,
        session::PROP_COUNT,
        session::PROP_DATA,
        session::PROP_PAGES,
        posted::memfd::COMPATIBLE,
        posted::memfd::PROP_POS,
        posted::memfd::PROP_SIZE,
        posted::memfd::PROP_FOLIOS,
    ];
    for name in names {
        assert!(text.contains(&format!("`{name}`")), "{name} in posted.md");
    }
    assert!(text.contains(&format!("`/{}`", tree::NODE_SUBSYSTEMS)));
}

#[test]
fn the_table_of_releases_is_the_crates() {
    let text = page_text("index.md");
    let yes = |on: bool| if on { "yes" } else { "no" };
    let rows: Vec<Vec<String>> = rows(&text, "| release | root tree").collect();
    let want: Vec<Vec<String>> = RELEASES
        .iter()
        .map(|row| {
            let luo = row.luo.map_or("none", LuoVersion::compatible);
            let memfd = row.memfd.map_or("none", MemfdVersion::compatible);
            let formats = [row.kho.compatible(), luo, memfd];
            let words = [row.name].into_iter().chain(formats).chain([yes(row.flb), yes(row.metadata)]);
            words.map(str::to_owned).collect()
        })
        .collect();
    assert_eq!(rows, want);
}

#[test]
fn numbers_of_each_page_size_are_the_crates() {
    let text = page_text("kho-v4.md");
    let found: Vec<Vec<u64>> =
        rows(&text, "| page size |").map(|row| row.iter().map(|cell| number(cell)).collect()).collect();
    let of = |g: Geometry| {
        let (key, levels) = (u64::from(g.key_bits()), u64::from(g.root_level()) + 1);
        let (table, leaf) = (g.table_entries(), g.bitmap_bits());
        vec![g.page_bytes(), key, levels, table, leaf, g.chunk_entries(), g.vmalloc_per_chunk()]
    };
    assert_eq!(found, Geometry::ALL.map(of));
}

#[test]
fn names_in_trees_are_the_crates() {
    let root = page_text("kho-root.md");
    for name in [
        kho::PROP_MEMORY_MAP,
        v1::COMPATIBLE,
        v1::PROP_SUBTREE,
        v3::COMPATIBLE,
        v4::COMPATIBLE,
        v4::PROP_SUBTREE,
        v4::PROP_SIZE,
    ] {
        assert!(root.contains(&format!("`{name}`")), "{name} in kho-root.md");
    }
    let tree = page_text("luo-v1.md");
    for name in
        [luo_v1::COMPATIBLE, luo_v1::PROP_NUMBER, luo_v1::SESSION_COMPATIBLE, luo_v1::PROP_SESSION_HEADER]
            .into_iter()
            .chain([flb::COMPATIBLE, luo_v1::PROP_FLB_HEADER])
    {
        assert!(tree.contains(&format!("`{name}`")), "{name} in luo-v1.md");
    }
    assert!(tree.contains(&format!("`/{}`", luo_v1::NODE_SESSION)));
    let memblock = page_text("memblock.md");
    for name in [
        kho::memblock::COMPATIBLE,
        kho::memblock::NODE_COMPATIBLE,
        kho::memblock::PROP_START,
        kho::memblock::PROP_SIZE,
    ] {
        assert!(memblock.contains(&format!("`{name}`")), "{name} in memblock.md");
    }
}
