//! One change to a handover, made from its name: `FIELD-VALUE` or `FIELD-HOW`.
//!
//! Fields of a session are those of the first session, `file-` fields those of the second file of it,
//! `memfd-` and `vmalloc-` fields those of its first file; `folio-` fields, and a count of folios that is not 0, those
//! of the first file that has three folios or more.

use luosim_abi::kho::{v1 as kho_v1, v4 as kho_v4};
use luosim_abi::luo::{v1 as luo_v1, v5 as luo_v5};
use luosim_abi::release::{LuoVersion, MemfdVersion, Release, ReleaseId};
use luosim_kho::BootParams;
use luosim_kho::fdt::Tree;
use luosim_physmem::{PhysAddr, PhysMem};

const SESSION: u64 = 80;
const FILE: u64 = 64;
const FOLIO: u64 = 16;
const FLAGS_SHIFT: u32 = 52;

/// The handover that is changed.
pub(crate) struct Target<'a> {
    mem: &'a mut PhysMem,
    fdt: u64,
    release: &'static Release,
}

/// A number in a case name.
fn number(text: &str) -> u64 {
    match text {
        "minus1" => u64::MAX,
        "1mib" => 1 << 20,
        _ => text.parse().unwrap_or_else(|_| panic!("{text} is no number")),
    }
}

impl<'a> Target<'a> {
    pub(crate) fn new(mem: &'a mut PhysMem, params: BootParams, release: ReleaseId) -> Self {
        Self { mem, fdt: params.fdt.raw(), release: release.release() }
    }

    /// Whether sessions and files lie in arrays (`luo-v1`) and not in blocks.
    fn arrays(&self) -> bool {
        self.release.luo == Some(LuoVersion::V1)
    }

    fn luo_compatible(&self) -> &'static str {
        self.release.luo.expect("a release with the orchestrator").compatible()
    }

    fn get(&self, at: u64) -> u64 {
        self.mem.read_u64(PhysAddr::new(at)).expect("in memory")
    }

    fn set(&mut self, at: u64, value: u64) {
        self.mem.write_u64(PhysAddr::new(at), value).expect("in memory");
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read(PhysAddr::new(at), &mut bytes).expect("in memory");
        bytes
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.mem.write(PhysAddr::new(at), bytes).expect("in memory");
    }

    /// Replaces the first `old` at or after offset `from` of the page at `page`.
    fn replace(&mut self, page: u64, from: u64, old: &[u8], new: &[u8]) -> u64 {
        let bytes = self.bytes(page, 4096);
        let from = usize::try_from(from).expect("in a page");
        let found = bytes[from..].windows(old.len()).position(|window| window == old).expect("it is there");
        let at = u64::try_from(from + found).expect("in a page");
        self.put(page + at, new);
        at
    }

    fn luo(&self) -> u64 {
        let tree = Tree::read(self.mem, PhysAddr::new(self.fdt), 4096).expect("a tree");
        let radix = self.release.kho.is_radix();
        let property = if radix { kho_v4::PROP_SUBTREE } else { kho_v1::PROP_SUBTREE };
        tree.root().child("LUO").and_then(|node| node.u64(property)).expect("a LUO subtree")
    }

    /// Where the records of sessions start, and the word that counts them.
    fn sessions(&self) -> (u64, u64) {
        if self.arrays() {
            let tree = Tree::read(self.mem, PhysAddr::new(self.luo()), 4096).expect("a tree");
            let node = tree.root().child(luo_v1::NODE_SESSION).expect("a node");
            let area = node.u64(luo_v1::PROP_SESSION_HEADER).expect("a property");
            (area + luo_v1::SESSION_HEADER_SIZE, area)
        } else {
            let block = self.get(self.luo() + luo_v5::SESSIONS_PA_OFFSET);
            (block + 16, block + 8)
        }
    }

    fn session(&self, index: u64) -> u64 {
        self.sessions().0 + index * SESSION
    }

    fn file(&self, session: u64, index: u64) -> u64 {
        let area = self.get(self.session(session) + 64);
        area + if self.arrays() { 0 } else { 16 } + index * FILE
    }

    /// The handler's structures of all files, in order.
    fn memfds(&self) -> Vec<u64> {
        let count = self.get(self.sessions().1);
        let files = |session: u64| 0..self.get(self.session(session) + 72);
        (0..count)
            .flat_map(|session| files(session).map(move |file| (session, file)))
            .map(|(session, file)| self.get(self.file(session, file) + 48))
            .collect()
    }

    /// Offset of the number of folios; the descriptor of their table follows.
    fn counts(&self) -> u64 {
        if self.release.memfd == Some(MemfdVersion::V1) { 16 } else { 24 }
    }

    /// The first file of three folios or more.
    fn with_folios(&self) -> u64 {
        let found = self.memfds().into_iter().find(|memfd| self.get(memfd + self.counts()) >= 3);
        found.expect("a file with folios")
    }

    /// The folio entries of a file, and how many there are.
    fn folios(&self, memfd: u64) -> (u64, u64) {
        let chunk = self.get(memfd + self.counts() + 8);
        (self.get(chunk + 8), self.get(memfd + self.counts()))
    }

    /// Makes the change.
    pub(crate) fn apply(&mut self, case: &str) {
        let (group, rest) = case.split_once('-').unwrap_or((case, ""));
        match group {
            "control" => {}
            "kho" => self.root_tree(rest),
            "luo" | "liveupdate" | "sessions" => self.header(case),
            "session" => self.session_field(rest),
            "files" | "file" => self.file_field(case),
            "memfd" => self.memfd_field(rest),
            "vmalloc" => self.area_field(rest),
            "folio" => self.folio_field(rest),
            _ => panic!("{case} is no change that this test knows"),
        }
    }

    fn root_tree(&mut self, how: &str) {
        match how.split_once('-').expect("field and value") {
            ("compat", version) => {
                let old = format!("{}\0", self.release.kho.compatible());
                self.replace(self.fdt, 0, old.as_bytes(), format!("kho-{version}\0").as_bytes());
            }
            ("fdt", "magic") => self.put(self.fdt, &[0; 4]),
            other => panic!("{other:?} is no change to the root tree"),
        }
    }

    fn header(&mut self, case: &str) {
        let (field, value) = case.rsplit_once('-').expect("field and value");
        let luo = self.luo();
        match field {
            "luo-compat" => {
                let old = format!("{}\0", self.luo_compatible());
                self.replace(luo, 0, old.as_bytes(), format!("luo-{value}\0").as_bytes());
            }
            "luo-blob-size" => {
                let node = self.replace(self.fdt, 0, b"LUO\0", b"LUO\0");
                let (old, new) = (luo_v5::SIZE.to_le_bytes(), number(value).to_le_bytes());
                self.replace(self.fdt, node, &old, &new);
            }
            "luo-subtree" => {
                self.replace(self.fdt, 0, b"LUO\0", b"LUX\0");
            }
            "liveupdate-num" if self.arrays() => {
                let (old, new) = (1u64.to_le_bytes(), number(value).to_le_bytes());
                self.replace(luo, 0x38, &old, &new);
            }
            "liveupdate-num" => self.set(luo + 8, number(value)),
            "sessions-pa" => self.set(luo + luo_v5::SESSIONS_PA_OFFSET, number(value)),
            _ => panic!("{case} is no change to the header"),
        }
    }

    fn session_field(&mut self, how: &str) {
        let (first, count) = self.sessions();
        match how {
            "block-cycle" => self.set(first - 16, first - 16),
            "name-duplicate" => {
                let name = self.bytes(first, 64);
                self.put(first + SESSION, &name);
            }
            "name-no-nul" => self.put(first, &[b'q'; 64]),
            _ => {
                let value = how.strip_prefix("count-").expect("a field of a session");
                self.set(count, number(value));
            }
        }
    }

    fn file_field(&mut self, case: &str) {
        let session = self.session(0);
        let words: Vec<&str> = case.split('-').collect();
        match words[..] {
            ["files", "pa", pa, "count", count] => {
                self.set(session + 64, number(pa));
                self.set(session + 72, number(count));
            }
            ["files", "count", count] => self.set(session + 72, number(count)),
            ["file", "compat", "unknown"] => {
                let at = self.file(0, 1);
                self.put(at, b"memfd-v9\0");
            }
            ["file", "token", "duplicate"] => {
                let token = self.get(self.file(0, 0) + 56);
                let at = self.file(0, 1) + 56;
                self.set(at, token);
            }
            _ => panic!("{case} is no change to a file record"),
        }
    }

    fn memfd_field(&mut self, how: &str) {
        let (field, value) = how.rsplit_once('-').expect("field and value");
        let memfd = self.memfds()[0];
        match (field, value) {
            ("data", _) => {
                let at = self.file(0, 0) + 48;
                self.set(at, number(value));
            }
            ("seals", "unknown") => self.put(memfd + 16, &0x40u32.to_le_bytes()),
            ("pos", _) => self.set(memfd, number(value)),
            ("size", _) => self.set(memfd + 8, number(value)),
            ("nr-folios", _) => {
                let memfd = if value == "0" { memfd } else { self.with_folios() };
                self.set(memfd + self.counts(), number(value));
            }
            _ => panic!("{how} is no change to a memfd"),
        }
    }

    fn area_field(&mut self, how: &str) {
        let (field, value) = how.rsplit_once('-').expect("field and value");
        let area = self.memfds()[0] + self.counts() + 8;
        match field {
            "first" => self.set(area, number(value)),
            "total-pages" => {
                let pages = u32::try_from(number(value)).expect("a page count");
                self.put(area + 8, &pages.to_le_bytes());
            }
            _ => panic!("{how} is no change to an area"),
        }
    }

    fn set_pfn(&mut self, entry: u64, pfn: u64) {
        let flags = self.get(entry) >> FLAGS_SHIFT << FLAGS_SHIFT;
        self.set(entry, flags | pfn);
    }

    fn pfn(&self, entry: u64) -> u64 {
        self.get(entry) & ((1 << FLAGS_SHIFT) - 1)
    }

    fn folio_field(&mut self, how: &str) {
        let (first, count) = self.folios(self.with_folios());
        let second = first + FOLIO;
        match how {
            "pfn-0" => self.set_pfn(first, 0),
            "pfn-unpreserved" => self.set_pfn(first, 0x1234),
            "pfn-second-duplicate-of-first" => self.set_pfn(second, self.pfn(first)),
            "of-other-file" => {
                let other = self.folios(self.memfds()[0]).0;
                self.set_pfn(first, self.pfn(other));
            }
            "flags-0" => self.set(first, self.pfn(first)),
            "index-duplicate" => self.set(second + 8, self.get(first + 8)),
            "index-shift-last" => {
                let last = first + (count - 1) * FOLIO;
                self.set(last + 8, self.get(last + 8) + 1000);
            }
            "swapped-order" => {
                let (one, other) = (self.bytes(first, 16), self.bytes(second, 16));
                self.put(first, &other);
                self.put(second, &one);
            }
            _ => panic!("{how} is no change to a folio"),
        }
    }
}
