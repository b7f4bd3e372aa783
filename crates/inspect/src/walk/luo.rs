//! The orchestrator's root: a tree (`luo-v1`) or a structure (`luo-v5`).

use luosim_abi::luo::{flb, v1, v5};
use luosim_kho::fdt::{Node, Tree};
use luosim_physmem::{Order, PAGE_SIZE, PhysAddr, ReadPhys};

use super::{Walk, text};
use crate::claims::Owner;
use crate::report::{Addr, Flb, Luo, Name};

/// What stops a kernel from booting.
const PANIC: &str = "the kernel panics";

impl Walk<'_> {
    /// The subtree `LUO` at `at`; `size` is its blob size, where the root says it. Which of the two it is the first
    /// bytes say.
    pub(crate) fn luo(&mut self, at: PhysAddr, size: Option<u64>) {
        let head = self.mem.read_struct::<[u8; 8]>(at).unwrap_or_default();
        if head[..4] == luosim_abi::fdt::MAGIC.to_be_bytes() {
            self.luo_tree(at);
        } else {
            self.luo_ser(at, size);
        }
    }

    fn luo_tree(&mut self, at: PhysAddr) {
        let tree = match Tree::read(self.mem, at, PAGE_SIZE) {
            Ok(tree) => tree,
            Err(error) => {
                return self.findings.error(at, "luo", format!("the tree cannot be read ({error}): {PANIC}"));
            }
        };
        let root = tree.root();
        let compatible = root.compatible().unwrap_or_default().escape_debug().to_string();
        let number = root.u64(v1::PROP_NUMBER);
        if !root.is_compatible(v1::COMPATIBLE) {
            self.findings.error(at, "luo.compatible", format!("'{compatible}' is not known: {PANIC}"));
        }
        if number.is_none() {
            self.findings.error(at, "luo.liveupdate-number", format!("there is no 8-byte number: {PANIC}"));
        }
        let child = |name: &str| root.child(name);
        let sessions = self.area(
            at,
            child(v1::NODE_SESSION),
            "luo-session",
            v1::SESSION_COMPATIBLE,
            v1::PROP_SESSION_HEADER,
        );
        let flbs = match child("luo-flb") {
            // 6.19 has none; 7.0 and 7.1 panic without it.
            None => None,
            node => self.area(at, node, "luo-flb", flb::COMPATIBLE, "luo-flb-header"),
        };
        self.begin_luo(at, compatible, number.unwrap_or(0), sessions, flbs);
        if let Some(area) = sessions {
            self.session_area(area);
        }
        if let Some(page) = flbs {
            self.flbs(page);
        }
    }

    /// The address in a node of the tree.
    fn area(
        &mut self,
        at: PhysAddr,
        node: Option<&Node>,
        name: &str,
        compatible: &str,
        property: &str,
    ) -> Option<PhysAddr> {
        let field = format!("luo.{name}");
        let Some(node) = node else {
            self.findings.error(at, &field, format!("there is no node '{name}': {PANIC}"));
            return None;
        };
        if !node.is_compatible(compatible) {
            self.findings.error(at, &field, format!("it is not compatible with '{compatible}': {PANIC}"));
        }
        let found = node.u64(property).map(PhysAddr::new);
        if found.is_none() {
            self.findings.error(at, &field, format!("there is no 8-byte {property}: {PANIC}"));
        }
        found
    }

    fn begin_luo(
        &mut self,
        at: PhysAddr,
        compatible: String,
        number: u64,
        sessions: Option<PhysAddr>,
        flbs: Option<PhysAddr>,
    ) {
        self.report.luo = Some(Luo {
            at: Addr(at),
            compatible,
            number,
            sessions_at: sessions.map(Addr),
            sessions: Vec::new(),
            flbs_at: flbs.map(Addr),
            flbs: Vec::new(),
        });
    }

    fn luo_ser(&mut self, at: PhysAddr, size: Option<u64>) {
        if let Some(size) = size.filter(|size| *size < v5::SIZE) {
            self.findings.error(at, "luo", format!("{size} bytes are too few for the structure: {PANIC}"));
        }
        let Ok(ser) = self.mem.read_struct::<v5::LuoSer>(at) else {
            return self.findings.error(at, "luo", format!("it does not lie in memory: {PANIC}"));
        };
        let (compatible, _) = text(&ser.compatible);
        let compatible = Name(compatible).to_string();
        let known = ser.is_compatible();
        if !known {
            self.findings.error(at, "luo.compatible", format!("'{compatible}' is not known: {PANIC}"));
        }
        let some = |raw: u64| Some(PhysAddr::new(raw)).filter(|at| *at != PhysAddr::NULL);
        let (sessions, flbs) = (some(ser.sessions_pa.get()), some(ser.flbs_pa.get()));
        if !known {
            return self.begin_luo(at, compatible, 0, None, None);
        }
        self.begin_luo(at, compatible, ser.liveupdate_num.get(), sessions, flbs);
        match sessions {
            Some(head) => self.session_blocks(head),
            None => self.findings.info(
                at,
                "luo.sessions_pa",
                "there are no sessions, or the kernel did not get to its reboot",
            ),
        }
        if let Some(page) = flbs {
            self.flbs(page);
        }
    }

    fn flbs(&mut self, at: PhysAddr) {
        const FIELD: &str = "luo.flbs";
        if !self.structure(at, PAGE_SIZE, Order::ZERO, Owner::Flbs) {
            return;
        }
        let Ok(header) = self.mem.read_struct::<flb::FlbHeader>(at) else { return };
        if header.pgcnt.get() != 1 {
            self.findings.warning(
                at,
                FIELD,
                format!("the table says {} pages instead of 1", header.pgcnt.get()),
            );
        }
        let (count, most) = (header.count.get(), u64::try_from(flb::MAX_ENTRIES).expect("63"));
        if count > most {
            self.findings.error(at, FIELD, format!("{count} objects: the page holds {most}"));
        }
        for index in 0..count.min(most) {
            let entry = at.checked_add(flb::HEADER_SIZE + index * flb::ENTRY_SIZE);
            let Some(entry) = entry.and_then(|at| self.mem.read_struct::<flb::FlbEntry>(at).ok()) else {
                break;
            };
            self.flb(at, index, &entry);
        }
    }

    fn flb(&mut self, page: PhysAddr, index: u64, entry: &flb::FlbEntry) {
        let field = format!("luo.flb[{index}]");
        let (name, ended) = text(&entry.name);
        if !ended {
            self.findings.error(page, &field, "its string does not end with a NUL: it matches nothing");
        }
        let found = Flb { name: Name(name), data: Addr::new(entry.data.get()), count: entry.count.get() };
        let luo = self.report.luo.as_mut().expect("it was begun");
        if luo.flbs.iter().any(|other| other.name == found.name) {
            self.findings.error(page, &field, format!("two objects are named \"{}\"", found.name));
        }
        luo.flbs.push(found);
    }
}
