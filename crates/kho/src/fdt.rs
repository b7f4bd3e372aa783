//! Small flattened device trees, as KHO and LUO use them: a root and its children, strings and numbers.
//!
//! Numeric properties are raw native-endian (little-endian) bytes, only 4-aligned: never cells. Reading is by
//! `dtoolkit` after our own header check, writing by `vm-fdt`, or by `dtoolkit` where names are numbers: trees are equal to the kernel's in meaning, not
//! in the order of their strings.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};
use luosim_abi::fdt::{FdtHeader, HEADER_SIZE, HeaderError};
use luosim_physmem::{PhysAddr, ReadPhys};
use vm_fdt::FdtWriter;
use zerocopy::FromBytes;

/// Why a tree cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The address does not lie in memory.
    #[error("it does not lie in memory")]
    Outside,
    /// The header is bad.
    #[error("{0}")]
    Header(HeaderError),
    /// The header is good but the structure is not.
    #[error("its structure is broken: {0}")]
    Structure(String),
}

impl TreeError {
    /// The library's number in kernel messages.
    #[must_use]
    pub fn code(&self) -> i32 {
        match self {
            Self::Outside => -8,
            Self::Header(error) => error.code(),
            Self::Structure(_) => -11,
        }
    }
}

/// A tree that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name in the tree is not allowed: {0}")]
pub struct NameError(String);

/// A node with its properties and children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    properties: Vec<(String, Vec<u8>)>,
    children: Vec<(String, Node)>,
}

impl Node {
    /// A node with a `compatible` string.
    #[must_use]
    pub fn new(compatible: &str) -> Self {
        Self::default().with_bytes("compatible", [compatible.as_bytes(), &[0]].concat())
    }

    /// The node with a property of any bytes more.
    #[must_use]
    pub fn with_bytes(mut self, name: &str, value: Vec<u8>) -> Self {
        self.properties.push((name.to_owned(), value));
        self
    }

    /// The node with an 8-byte native-endian property more.
    #[must_use]
    pub fn with_u64(self, name: &str, value: u64) -> Self {
        self.with_bytes(name, value.to_le_bytes().to_vec())
    }

    /// The node with a child more.
    #[must_use]
    pub fn with_child(mut self, name: &str, child: Self) -> Self {
        self.children.push((name.to_owned(), child));
        self
    }

    /// The bytes of a property.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_slice())
    }

    /// An 8-byte native-endian property; `None` if it is missing or of another size.
    #[must_use]
    pub fn u64(&self, name: &str) -> Option<u64> {
        let bytes: [u8; 8] = self.bytes(name)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// The first string of `compatible`, for messages.
    #[must_use]
    pub fn compatible(&self) -> Option<String> {
        let bytes = self.bytes("compatible")?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// Whether one string of the `compatible` list is exactly `wanted`.
    #[must_use]
    pub fn is_compatible(&self, wanted: &str) -> bool {
        self.bytes("compatible").is_some_and(|list| {
            list.ends_with(&[0]) && list.split(|byte| *byte == 0).any(|text| text == wanted.as_bytes())
        })
    }

    /// The child of this name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(found, _)| found == name).map(|(_, child)| child)
    }

    /// All properties, in the order of the tree.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// All children with their names.
    pub fn children(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.children.iter().map(|(name, child)| (name.as_str(), child))
    }

    /// Copies what the library found, `depth` levels down: deeper nodes mean nothing here.
    fn copy(node: &FdtNode<'_>, depth: u32) -> Self {
        let properties = node
            .properties()
            .map(|property| (property.name().to_owned(), property.value().to_vec()))
            .collect();
        let children = if depth == 0 {
            Vec::new()
        } else {
            node.children().map(|child| (child.name().to_owned(), Self::copy(&child, depth - 1))).collect()
        };
        Self { properties, children }
    }

    fn model(&self, name: &str) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new_unchecked(name);
        for (property, value) in &self.properties {
            node.add_property(DeviceTreeProperty::new_unchecked(property, value.as_slice()));
        }
        for (child, tree) in &self.children {
            node.add_child(tree.model(child));
        }
        node
    }

    fn write(&self, writer: &mut FdtWriter, name: &str) -> Result<(), vm_fdt::Error> {
        let node = writer.begin_node(name)?;
        for (property, value) in &self.properties {
            writer.property(property, value)?;
        }
        for (child, tree) in &self.children {
            tree.write(writer, child)?;
        }
        writer.end_node(node)
    }
}

/// A whole tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Name of the root, which most trees leave empty.
    name: String,
    root: Node,
}

impl Tree {
    /// The tree under `root`.
    #[must_use]
    pub fn new(root: Node) -> Self {
        Self::named("", root)
    }

    /// The tree under `root`, which has a name.
    #[must_use]
    pub fn named(name: &str, root: Node) -> Self {
        Self { name: name.to_owned(), root }
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Reads the tree at `addr`, of at most `room` bytes.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn read(mem: &impl ReadPhys, addr: PhysAddr, room: u64) -> Result<Self, TreeError> {
        Self::parse(&bytes_at(mem, addr, room)?)
    }

    /// [`Self::read`] of a tree whose root may have a name, which the library refuses and kernels do not mind.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn read_named(mem: &impl ReadPhys, addr: PhysAddr, room: u64) -> Result<Self, TreeError> {
        let mut blob = bytes_at(mem, addr, room)?;
        let name = take_root_name(&mut blob);
        Ok(Self { name, ..Self::parse(&blob)? })
    }

    /// Reads a tree from its bytes.
    ///
    /// # Errors
    /// [`TreeError::Structure`].
    pub fn parse(blob: &[u8]) -> Result<Self, TreeError> {
        let fdt = Fdt::new(blob).map_err(|error| TreeError::Structure(error.to_string()))?;
        Ok(Self::new(Node::copy(&fdt.root(), 2)))
    }

    /// The bytes of the tree.
    ///
    /// # Panics
    /// If [`Self::try_to_blob`] fails: for trees whose names are constants.
    #[must_use]
    pub fn to_blob(&self) -> Vec<u8> {
        self.try_to_blob().expect("the names of this tree are names")
    }

    /// The bytes of the tree, whose names need not be such as the format allows: kernels name nodes after numbers. No name
    /// may have a NUL, and of children with one name the last is written.
    #[must_use]
    pub fn to_blob_unchecked(&self) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        tree.root = self.root.model(&self.name);
        tree.to_dtb()
    }

    /// The bytes of the tree.
    ///
    /// # Errors
    /// A name that the format does not allow.
    pub fn try_to_blob(&self) -> Result<Vec<u8>, NameError> {
        let mut writer = FdtWriter::new().expect("no reservations to check");
        self.root.write(&mut writer, &self.name).map_err(|error| NameError(error.to_string()))?;
        Ok(writer.finish().expect("every node was ended"))
    }
}

/// The bytes of the tree at `addr`, of at most `room` bytes, whose header is good.
fn bytes_at(mem: &impl ReadPhys, addr: PhysAddr, room: u64) -> Result<Vec<u8>, TreeError> {
    let mut header = [0; HEADER_SIZE];
    mem.read_bytes(addr, &mut header).map_err(|_| TreeError::Outside)?;
    let header = FdtHeader::read_from_bytes(&header).expect("the size is the header's");
    header.check(room).map_err(TreeError::Header)?;
    let total = usize::try_from(header.totalsize.get()).expect("no more than there is room for");
    let mut blob = vec![0; total];
    mem.read_bytes(addr, &mut blob).map_err(|_| TreeError::Outside)?;
    Ok(blob)
}

const BEGIN_NODE: [u8; 4] = 1u32.to_be_bytes();
const NOP: [u8; 4] = 4u32.to_be_bytes();

/// Takes the name of the root out of the bytes of a tree: it is empty then, and what it took is skipped by readers. No
/// name, and no change, where there is no root.
fn take_root_name(blob: &mut [u8]) -> String {
    let start = FdtHeader::read_from_prefix(blob)
        .ok()
        .and_then(|(header, _)| usize::try_from(header.off_dt_struct.get()).ok());
    let Some(block) = start.and_then(|start| blob.get_mut(start..)) else { return String::new() };
    if !block.starts_with(&BEGIN_NODE) {
        return String::new();
    }
    let rest = &mut block[BEGIN_NODE.len()..];
    let Some(len) = rest.iter().position(|byte| *byte == 0) else { return String::new() };
    let name = String::from_utf8_lossy(&rest[..len]).into_owned();
    for (index, word) in rest.chunks_exact_mut(4).take((len + 4) / 4).enumerate() {
        word.copy_from_slice(if index == 0 { &[0; 4] } else { &NOP });
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let child = Node::default().with_u64("blob-size", 73).with_u64("preserved-data", 0x1_16be_4000);
        Tree::new(Node::new("kho-v4").with_u64("preserved-memory-map", 0x4c_3000).with_child("LUO", child))
    }

    #[test]
    fn a_tree_reads_back_as_it_was_written() {
        let tree = sample();
        assert_eq!(Tree::parse(&tree.to_blob()).expect("well formed"), tree);
        let luo = tree.root().child("LUO").expect("a child");
        assert_eq!(luo.u64("preserved-data"), Some(0x1_16be_4000));
        assert_eq!(luo.u64("nothing"), None);
    }

    #[test]
    fn roots_may_have_names_and_nodes_numbers() {
        let child = Node::new("memfd-v1").with_u64("data", 0x1000);
        let root = Node::new("file-descriptors-v1").with_child("0x10", child.clone()).with_child("0", child);
        let tree = Tree::named("file-descriptors", root);
        assert!(tree.try_to_blob().is_err(), "the other writer refuses it");
        let mut blob = tree.to_blob_unchecked();
        assert!(Tree::parse(&blob).is_err(), "the library wants a root without a name");
        let name = take_root_name(&mut blob);
        let read = Tree { name, ..Tree::parse(&blob).expect("well formed") };
        assert_eq!(read, tree);
        assert_eq!(read.root().child("0x10").and_then(|node| node.u64("data")), Some(0x1000));
    }

    #[test]
    fn compatible_is_one_whole_string_of_the_list() {
        let node = Node::default().with_bytes("compatible", b"a\0luo-v1\0".to_vec());
        assert!(node.is_compatible("luo-v1") && !node.is_compatible("luo") && !node.is_compatible("luo-v1x"));
        let open = Node::default().with_bytes("compatible", b"luo-v1".to_vec());
        assert!(!open.is_compatible("luo-v1"), "not terminated");
    }

    #[test]
    fn numbers_of_another_size_are_not_numbers() {
        let node = Node::default().with_bytes("preserved-memory-map", vec![0; 4]);
        assert_eq!(node.u64("preserved-memory-map"), None);
    }
}
