//! A single blob, as copied from debugfs: a tree, `struct luo_ser` or the metadata, without the memory around it.
//!
//! Addresses in it lead nowhere here. Of each value the text says what it means.

use luosim_abi::fdt::{FdtHeader, HEADER_SIZE};
use luosim_abi::kho::metadata::{self, Metadata};
use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::kho::{memblock, test_module};
use luosim_abi::luo::{v1, v5};
use luosim_kho::fdt::{Node, Tree};
use luosim_physmem::PhysAddr;
use zerocopy::FromBytes;

use crate::findings::Findings;
use crate::report::{Blob, BlobValue, Name, Report, hex};
use crate::walk::root::version_of;

/// Reads the blob.
pub(crate) fn read(bytes: &[u8], mut findings: Findings) -> Report {
    let blob = if bytes.starts_with(&luosim_abi::fdt::MAGIC.to_be_bytes()) {
        tree(bytes, &mut findings)
    } else if bytes.starts_with(b"luo-v") {
        luo_ser(bytes, &mut findings)
    } else {
        metadata(bytes, &mut findings)
    };
    let (kept, left_out) = (findings.kept, findings.left_out);
    Report { blob, findings: kept, findings_left_out: left_out, ..Report::default() }
}

fn value(path: &str, value: impl std::fmt::Display) -> BlobValue {
    BlobValue { path: path.to_owned(), value: format!("{value}") }
}

fn luo_ser(bytes: &[u8], findings: &mut Findings) -> Option<Blob> {
    let (ser, rest) = v5::LuoSer::read_from_prefix(bytes).ok()?;
    if !ser.is_compatible() {
        findings.error(PhysAddr::NULL, "compatible", "the version is not known");
    }
    if rest.iter().any(|byte| *byte != 0) {
        findings.warning(PhysAddr::new(v5::SIZE), "", "there is something behind the structure");
    }
    let name = Name(luosim_abi::luo::record::field_text(&ser.compatible).to_vec());
    let values = vec![
        value("compatible", name),
        value("liveupdate_num", ser.liveupdate_num.get()),
        value("sessions_pa", format!("{:#x}", ser.sessions_pa.get())),
        value("flbs_pa", format!("{:#x}", ser.flbs_pa.get())),
    ];
    Some(Blob { kind: "luo-v5", values })
}

fn metadata(bytes: &[u8], findings: &mut Findings) -> Option<Blob> {
    let found = Metadata::read_from_bytes(bytes).ok()?;
    if !found.previous_release.contains(&0) {
        findings.warning(PhysAddr::new(4), "previous_release", "the release does not end with a NUL");
    }
    let values = vec![
        value("version", found.version.get()),
        value("previous_release", found.release().escape_debug()),
        value("kexec_count", found.kexec_count.get()),
    ];
    Some(Blob { kind: metadata::SUBTREE, values })
}

fn tree(bytes: &[u8], findings: &mut Findings) -> Option<Blob> {
    let room = u64::try_from(bytes.len()).expect("a length fits in 64 bits");
    let header = bytes.get(..HEADER_SIZE).and_then(|head| FdtHeader::read_from_bytes(head).ok());
    let checked = match header {
        None => Err(String::from("it is shorter than the header of a tree")),
        Some(header) => header.check(room).map_err(|error| {
            // The files of an outgoing tree keep the length they had when they were made.
            let more = if u64::from(header.totalsize.get()) > room {
                format!(
                    "; the tree has {} bytes, the file {room}: debugfs shows an outgoing tree cut off",
                    header.totalsize
                )
            } else {
                String::new()
            };
            format!("{error}{more}")
        }),
    };
    // A copied page goes on behind its tree.
    let total = header.and_then(|header| usize::try_from(header.totalsize.get()).ok());
    let bytes = total.and_then(|total| bytes.get(..total)).unwrap_or(bytes);
    let parsed = checked.and_then(|()| Tree::parse(bytes).map_err(|error| error.to_string()));
    match parsed {
        Ok(tree) => {
            let kind = kind(tree.root());
            if kind == "tree" {
                findings.warning(PhysAddr::NULL, "compatible", "nobody here knows this tree");
            }
            let mut values = Vec::new();
            list(tree.root(), "", &mut values);
            Some(Blob { kind, values })
        }
        Err(why) => {
            findings.error(PhysAddr::NULL, "", format!("the tree cannot be read: {why}"));
            None
        }
    }
}

fn kind(root: &Node) -> &'static str {
    if version_of(root).is_some() || root.compatible().is_some_and(|text| text.starts_with("kho-v")) {
        return "kho-root";
    }
    let known = [
        (v1::COMPATIBLE, v1::COMPATIBLE),
        (memblock::COMPATIBLE, "memblock"),
        (test_module::COMPATIBLE, "kho-test"),
    ];
    known.iter().find(|(compatible, _)| root.is_compatible(compatible)).map_or("tree", |(_, kind)| kind)
}

/// The properties of a node and of those below it.
fn list(node: &Node, path: &str, values: &mut Vec<BlobValue>) {
    for (name, bytes) in node.properties() {
        values.push(value(&format!("{path}{}", name.escape_debug()), shown(name, bytes)));
    }
    for (name, child) in node.children() {
        list(child, &format!("{path}{}/", name.escape_debug()), values);
    }
}

/// Numbers are raw and little-endian; lengths in decimal, addresses in hexadecimal.
fn shown(name: &str, bytes: &[u8]) -> String {
    let decimal = ["liveupdate-number", "blob-size", "size", "nr_folios"].contains(&name);
    match bytes {
        _ if name == test_module::PROP_FOLIOS && bytes.len() == 16 => {
            match Descriptor::read_from_bytes(bytes) {
                Ok(area) => format!(
                    "first {:#x}, {} pages, flags {:#x}, order {}",
                    area.first, area.total_pages, area.flags, area.order
                ),
                Err(_) => hex(bytes),
            }
        }
        _ if name == "compatible" => {
            let list = bytes.split(|byte| *byte == 0).filter(|text| !text.is_empty());
            list.map(|text| Name(text.to_vec()).to_string()).collect::<Vec<_>>().join(", ")
        }
        [a, b, c, d] if decimal => u32::from_le_bytes([*a, *b, *c, *d]).to_string(),
        [a, b, c, d] => format!("{:#x}", u32::from_le_bytes([*a, *b, *c, *d])),
        _ => match <[u8; 8]>::try_from(bytes) {
            Ok(word) if decimal => u64::from_le_bytes(word).to_string(),
            Ok(word) => format!("{:#x}", u64::from_le_bytes(word)),
            Err(_) => hex(bytes),
        },
    }
}
