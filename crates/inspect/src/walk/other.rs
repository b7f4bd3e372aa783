//! Subtrees besides the orchestrator's: reservations, the test module, and what nobody here knows.

use std::collections::BTreeMap;

use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::kho::{memblock, test_module};
use luosim_kho::fdt::{Node, Tree};
use luosim_kho::run::split;
use luosim_physmem::{Order, PAGE_SIZE, PhysAddr, ReadPhys};
use zerocopy::FromBytes;

use super::Walk;
use crate::claims::{Owner, pages_of};
use crate::report::{Addr, KhoTest, ReserveMem, Unknown, by_order, hex};

/// Bytes shown of a blob nobody knows.
const HEAD: u64 = 64;

impl Walk<'_> {
    /// The tree at `at` if it has this string.
    fn known_tree(&mut self, at: PhysAddr, room: u64, field: &str, compatible: &str) -> Option<Tree> {
        let tree = match Tree::read(self.mem, at, room) {
            Ok(tree) => tree,
            Err(error) => {
                self.findings.error(at, field, format!("the tree cannot be read: {error}"));
                return None;
            }
        };
        if tree.root().is_compatible(compatible) {
            return Some(tree);
        }
        let found = tree.root().compatible().unwrap_or_default();
        self.findings.error(at, field, format!("'{}' is not '{compatible}'", found.escape_debug()));
        None
    }

    pub(crate) fn memblock(&mut self, at: PhysAddr, room: u64) {
        let Some(tree) = self.known_tree(at, room, memblock::SUBTREE, memblock::COMPATIBLE) else { return };
        let count = tree.root().children().count();
        if count > memblock::MAX_RESERVATIONS {
            self.findings.warning(
                at,
                memblock::SUBTREE,
                format!("{count} reservations: a kernel makes at most 8"),
            );
        }
        for (index, (name, node)) in tree.root().children().enumerate() {
            self.reservation(at, index, name, node);
        }
    }

    fn reservation(&mut self, tree: PhysAddr, index: usize, name: &str, node: &Node) {
        let field = format!("reserve_mem[{index}]");
        if !node.is_compatible(memblock::NODE_COMPATIBLE) {
            self.findings.error(tree, &field, "it is not compatible with 'reserve-mem-v1'");
        }
        let (Some(start), Some(bytes)) = (node.u64(memblock::PROP_START), node.u64(memblock::PROP_SIZE))
        else {
            return self.findings.error(tree, &field, "it has no 8-byte start and size");
        };
        let at = PhysAddr::new(start);
        let name = name.escape_debug().to_string();
        self.report.reserve_mem.push(ReserveMem { name, at: Addr(at), bytes });
        let end = start.checked_add(bytes).filter(|end| *end <= self.mem.size());
        if bytes == 0 || end.is_none() {
            return self.findings.error(
                at,
                &field,
                format!("{bytes:#x} bytes at {at} are no range of memory"),
            );
        }
        let pages = pages_of(at, bytes);
        // The split of a run differs where memory nodes meet: that something holds each block is enough.
        let missing = split(at.pfn(), pages).find(|(pfn, _)| self.preserved.find(*pfn).is_none());
        if let Some((pfn, _)) = missing {
            self.findings.error(pfn.addr(), &field, format!("frame {pfn} of it is not preserved"));
        }
        self.claims.add(at.pfn(), pages, Owner::ReserveMem(index));
    }

    pub(crate) fn kho_test(&mut self, at: PhysAddr, room: u64) {
        let Some(tree) = self.known_tree(at, room, test_module::SUBTREE, test_module::COMPATIBLE) else {
            return;
        };
        let word = |node: &Node, name: &str| {
            let bytes = node.bytes(name).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            bytes.map(u32::from_le_bytes)
        };
        if word(tree.root(), test_module::PROP_MAGIC) != Some(test_module::MAGIC) {
            self.findings.error(at, "kho_test.magic", "the magic is missing or another");
        }
        let Some(data) = tree.root().child(test_module::NODE_DATA) else {
            return self.findings.error(at, "kho_test.data", "there is no node 'data'");
        };
        let folios = word(data, test_module::PROP_NR_FOLIOS).unwrap_or(0);
        let area =
            data.bytes(test_module::PROP_FOLIOS).and_then(|bytes| Descriptor::read_from_bytes(bytes).ok());
        let orders = match area {
            Some(area) => self.test_folios(at, &area, folios.into()),
            None => {
                self.findings.error(at, "kho_test.folios_info", "there is no 16-byte descriptor");
                BTreeMap::new()
            }
        };
        let csum = word(data, test_module::PROP_SUM);
        self.report.kho_test =
            Some(KhoTest { at: Addr(at), folios: folios.into(), orders: by_order(&orders), csum });
    }

    /// The array of the test module: an address each, with the order in its low bits.
    fn test_folios(&mut self, tree: PhysAddr, area: &Descriptor, count: u64) -> BTreeMap<u32, u64> {
        let mut orders = BTreeMap::new();
        let pages = self.table(area, Owner::KhoTest, tree);
        if count.div_ceil(512) > u64::try_from(pages.len()).expect("a page count") {
            self.findings.error(
                tree,
                "kho_test.nr_folios",
                format!("the array has no room for {count} folios"),
            );
        }
        let mut left = count;
        for page in pages {
            let Ok(words) = self.mem.read_struct::<[u64; 512]>(page) else { continue };
            for word in words.iter().take(usize::try_from(left).unwrap_or(512)) {
                let word = u64::from_le(*word);
                let at = PhysAddr::new(word & !(PAGE_SIZE - 1));
                let Some(order) = u32::try_from(word & (PAGE_SIZE - 1)).ok().and_then(Order::new) else {
                    self.findings.error(page, "kho_test.folios", format!("{word:#x} has an order above 51"));
                    continue;
                };
                *orders.entry(order.raw()).or_default() += 1;
                self.expect(at, order, "kho_test.folios");
                self.claims.add(at.pfn(), order.pages(), Owner::KhoTest);
            }
            left = left.saturating_sub(512);
        }
        orders
    }

    pub(crate) fn unknown(&mut self, name: &str, at: PhysAddr, room: u64) {
        let mut head = vec![0; usize::try_from(room.min(HEAD)).expect("few bytes")];
        let _ = self.mem.read_bytes(at, &mut head);
        let compatible = Tree::read(self.mem, at, room).ok().and_then(|tree| tree.root().compatible());
        let compatible = compatible.map(|text| text.escape_debug().to_string());
        let name = name.escape_debug().to_string();
        self.report.unknown.push(Unknown { name, at: Addr(at), compatible, head: hex(&head) });
    }
}
