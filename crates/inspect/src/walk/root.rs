//! The root tree and its subtrees.

use luosim_abi::kho::{PROP_MEMORY_MAP, memblock, metadata, test_module, v1, v3, v4};
use luosim_kho::fdt::{Node, Tree};
use luosim_kho::walk::MapFormat;
use luosim_physmem::{Order, PAGE_SIZE, PhysAddr, ReadPhys};

use super::Walk;
use crate::claims::Owner;
use crate::image::Memory;
use crate::preserved::Preserved;
use crate::report::{Addr, Map, Metadata, Root, Subtree};

/// Root versions that are read, and how each tracks and names its subtrees. `kho-v2` existed between releases only.
const VERSIONS: &[(&str, Version)] = &[
    (v1::COMPATIBLE, Version { map: MapFormat::Bitmaps, blob: v1::PROP_SUBTREE, sized: false }),
    ("kho-v2", Version { map: MapFormat::Radix, blob: v4::PROP_SUBTREE, sized: false }),
    (v3::COMPATIBLE, Version { map: MapFormat::Radix, blob: v4::PROP_SUBTREE, sized: true }),
    (v4::COMPATIBLE, Version { map: MapFormat::Radix, blob: v4::PROP_SUBTREE, sized: true }),
];

/// How a version of the root tree is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) map: MapFormat,
    /// Property with the address of a blob.
    pub(crate) blob: &'static str,
    /// Whether `blob-size` stands beside it.
    pub(crate) sized: bool,
}

/// How this root is read; `None` for a version nobody here knows.
pub(crate) fn version_of(root: &Node) -> Option<Version> {
    VERSIONS.iter().find(|(name, _)| root.is_compatible(name)).map(|(_, version)| *version)
}

/// How this root's memory map is read.
pub(crate) fn format_of(root: &Node) -> Option<MapFormat> {
    version_of(root).map(|version| version.map)
}

/// The metadata that a root tree leads to.
pub(crate) fn metadata_of(mem: &Memory, root: &Node) -> Option<metadata::Metadata> {
    let at = root.child(metadata::SUBTREE)?.u64(v4::PROP_SUBTREE)?;
    let found = mem.read_struct::<metadata::Metadata>(PhysAddr::new(at)).ok()?;
    (found.version.get() == metadata::VERSION).then_some(found)
}

impl Walk<'_> {
    /// The root tree at `at`, and all it leads to.
    pub(crate) fn root(&mut self, at: PhysAddr) {
        let tree = match Tree::read(self.mem, at, PAGE_SIZE) {
            Ok(tree) => tree,
            Err(error) => {
                return self.findings.error(
                    at,
                    "root",
                    format!("the root tree at {at} cannot be read: {error}"),
                );
            }
        };
        let root = tree.root();
        let compatible = root.compatible().unwrap_or_default();
        let bytes =
            self.mem.read_struct::<[u8; 4]>(at.checked_add(4).unwrap_or(at)).map_or(0, u32::from_be_bytes);
        let map = root.u64(PROP_MEMORY_MAP);
        self.report.root = Some(Root {
            at: Addr(at),
            compatible: compatible.escape_debug().to_string(),
            bytes: bytes.into(),
            map_at: map.map(Addr::new),
            subtrees: Vec::new(),
        });
        let Some(version) = version_of(root) else {
            let what = format!("the version '{}' of the root tree is not known", compatible.escape_debug());
            return self.findings.error(at, "root.compatible", what);
        };
        self.map(at, version, map);
        let _ = self.structure(at, PAGE_SIZE, Order::ZERO, Owner::Root);
        self.subtrees(at, root, version);
    }

    fn map(&mut self, root: PhysAddr, version: Version, map: Option<u64>) {
        const FIELD: &str = "root.preserved-memory-map";
        match map {
            None => self.findings.error(root, FIELD, "there is no 8-byte preserved-memory-map: every kernel refuses this"),
            Some(0) => self.findings.error(
                root,
                FIELD,
                "the memory map is 0: nothing is preserved, and 6.19 and later refuse this (the kernel was not finalised)",
            ),
            Some(map) => {
                self.preserved = Preserved::read(self.mem, version.map, PhysAddr::new(map), &mut self.findings);
                self.mapped = true;
            }
        }
        self.report.map = Some(Map { ..self.summarise() });
    }

    fn subtrees(&mut self, at: PhysAddr, root: &Node, version: Version) {
        let mut names: Vec<&str> = Vec::new();
        for (index, (name, node)) in root.children().enumerate() {
            if names.contains(&name) {
                self.findings.error(
                    at,
                    &format!("root.{name}"),
                    "two subtrees have this name; readers take the first",
                );
            }
            names.push(name);
            self.subtree(at, index, name, node, version);
        }
    }

    fn subtree(&mut self, at: PhysAddr, index: usize, name: &str, node: &Node, version: Version) {
        let field = format!("root.{}", name.escape_debug());
        let blob = node.u64(version.blob).map(PhysAddr::new);
        let bytes = node.u64(v4::PROP_SIZE);
        if blob.is_none() {
            self.findings.error(
                at,
                &field,
                format!("the subtree has no 8-byte {}: readers get EINVAL", version.blob),
            );
        }
        if version.sized && bytes.is_none() {
            self.findings.error(at, &field, "the subtree has no 8-byte blob-size: readers get EINVAL");
        }
        let entry = Subtree { name: name.escape_debug().to_string(), at: blob.map(Addr), bytes };
        self.report.root.as_mut().expect("it was set").subtrees.push(entry);
        let Some(blob) = blob else { return };
        let room = bytes.filter(|_| version.sized);
        if room.is_some_and(|bytes| bytes > 4 << 20) {
            let what = format!(
                "a blob of {} bytes: no preserved allocation is larger than 4 MiB",
                room.unwrap_or(0)
            );
            self.findings.error(blob, &field, what);
        }
        let room = room.unwrap_or(PAGE_SIZE).min(4 << 20);
        // The blob is a part of its block, which may be larger.
        let block = self.preserved.head(blob.pfn());
        let least = super::order_of(room.div_ceil(PAGE_SIZE));
        let order = block.map_or(least, |block| block.order.max(least));
        if !self.structure(blob, room, order, Owner::Subtree(index)) {
            return;
        }
        match name {
            "LUO" => self.luo(blob, bytes.filter(|_| version.sized)),
            metadata::SUBTREE => self.metadata(blob, room),
            memblock::SUBTREE => self.memblock(blob, room),
            test_module::SUBTREE => self.kho_test(blob, room),
            _ => self.unknown(name, blob, room),
        }
    }

    fn metadata(&mut self, at: PhysAddr, bytes: u64) {
        const FIELD: &str = "kexec-metadata";
        if bytes < metadata::SIZE {
            return self.findings.warning(at, FIELD, format!("{bytes} bytes are too few: readers ignore it"));
        }
        let Ok(found) = self.mem.read_struct::<metadata::Metadata>(at) else {
            return self.findings.error(at, FIELD, "it does not lie in memory");
        };
        let version = found.version.get();
        if version != metadata::VERSION {
            self.findings.warning(at, FIELD, format!("version {version} is not known: readers ignore it"));
        }
        if !found.previous_release.contains(&0) {
            self.findings.warning(at, FIELD, "the release does not end with a NUL");
        }
        self.report.metadata = Some(Metadata {
            at: Addr(at),
            version,
            release: found.release().escape_debug().to_string(),
            kexec_count: found.kexec_count.get(),
        });
    }
}
