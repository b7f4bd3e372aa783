//! Sessions and their files, in arrays (`luo-v1`) or chains of blocks (`luo-v5`).

use luosim_abi::luo::block::{BlockHeader, HEADER_SIZE, MAX_BLOCKS, capacity};
use luosim_abi::luo::record::{FileRecord, SessionRecord};
use luosim_abi::luo::v1;
use luosim_physmem::{Order, PAGE_SIZE, PhysAddr, ReadPhys};
use rustc_hash::FxHashMap;
use zerocopy::{FromBytes, IntoBytes};

use super::{Walk, order_of, text};
use crate::claims::Owner;
use crate::report::{Addr, File, Name, Session};

const SESSION_SIZE: u64 = 80;
const FILE_SIZE: u64 = 64;

/// Records with their addresses.
type Records<T> = Vec<(PhysAddr, T)>;

impl Walk<'_> {
    /// The array of sessions of `luo-v1`.
    pub(crate) fn session_area(&mut self, at: PhysAddr) {
        const FIELD: &str = "luo.sessions.count";
        if !self.structure(
            at,
            v1::SESSION_AREA_PAGES * PAGE_SIZE,
            order_of(v1::SESSION_AREA_PAGES),
            Owner::Sessions,
        ) {
            return;
        }
        let count = self.mem.read_word(at).unwrap_or(0);
        if count > v1::MAX_SESSIONS {
            self.findings.error(at, FIELD, format!("{count} sessions: the area holds {}", v1::MAX_SESSIONS));
        }
        let records = self.records(at, v1::SESSION_HEADER_SIZE, SESSION_SIZE, count.min(v1::MAX_SESSIONS));
        self.sessions(records, false);
    }

    /// The session blocks of `luo-v5`.
    pub(crate) fn session_blocks(&mut self, head: PhysAddr) {
        let records = self.chain(head, SESSION_SIZE, Owner::Sessions, "the kernel panics");
        self.sessions(records, true);
    }

    /// `count` records of `size` bytes, `skip` bytes behind `at`.
    fn records<T: FromBytes + IntoBytes>(
        &self,
        at: PhysAddr,
        skip: u64,
        size: u64,
        count: u64,
    ) -> Records<T> {
        (0..count)
            .map_while(|index| at.checked_add(skip + index * size))
            .map_while(|at| Some((at, self.mem.read_struct::<T>(at).ok()?)))
            .collect()
    }

    /// The records of a chain of blocks. A block that was read before, here or elsewhere, ends it.
    fn chain<T: FromBytes + IntoBytes>(
        &mut self,
        head: PhysAddr,
        size: u64,
        owner: Owner,
        then: &str,
    ) -> Records<T> {
        let field = owner.field();
        let most = capacity(size);
        let (mut records, mut at, mut blocks) = (Vec::new(), head, 0);
        while at != PhysAddr::NULL {
            if blocks == MAX_BLOCKS {
                self.findings.error(at, &field, format!("more than {MAX_BLOCKS} blocks: {then}"));
                break;
            }
            if !self.structure(at, PAGE_SIZE, Order::ZERO, owner) {
                break;
            }
            let Ok(header) = self.mem.read_struct::<BlockHeader>(at) else { break };
            let count = header.count.get();
            if count == 0 || count > most {
                let what = format!("block {blocks} has {count} records, not 1 to {most}: {then}");
                self.findings.error(at, &format!("{field}.count"), what);
            }
            records.extend(self.records(at, HEADER_SIZE, size, count.min(most)));
            at = PhysAddr::new(header.next.get());
            blocks += 1;
        }
        records
    }

    fn sessions(&mut self, records: Records<SessionRecord>, blocks: bool) {
        let mut names: FxHashMap<Vec<u8>, usize> = FxHashMap::default();
        for (index, (at, record)) in records.into_iter().enumerate() {
            let field = format!("session[{index}]");
            let (mut name, ended) = text(&record.name);
            if !ended {
                self.findings.warning(
                    at,
                    &format!("{field}.name"),
                    "the name does not end with a NUL; readers cut it to 63 bytes",
                );
                name.truncate(63);
            }
            if name.is_empty() {
                self.findings.info(
                    at,
                    &format!("{field}.name"),
                    "the name is empty; only 6.19 makes such a session",
                );
            }
            if let Some(other) = names.insert(name.clone(), index) {
                let what = format!("session[{other}] has the same name: opening the device fails with EIO");
                self.findings.error(at, &format!("{field}.name"), what);
            }
            self.session(index, at, name, &record, blocks);
        }
    }

    fn session(&mut self, index: usize, at: PhysAddr, name: Vec<u8>, record: &SessionRecord, blocks: bool) {
        let (head, count) = (PhysAddr::new(record.files.get()), record.count.get());
        let name = Name(name);
        let found = Session {
            index,
            name_hex: name.hex(),
            name,
            at: Addr(at),
            files_at: Some(Addr(head)).filter(|at| at.0 != PhysAddr::NULL),
            count,
            files: Vec::new(),
        };
        self.report.luo.as_mut().expect("it was begun").sessions.push(found);
        let records = if blocks {
            self.file_blocks(index, at, head, count)
        } else {
            self.file_array(index, at, head, count)
        };
        let mut tokens: FxHashMap<u64, usize> = FxHashMap::default();
        for (number, (at, record)) in records.into_iter().enumerate() {
            if let Some(other) = tokens.insert(record.token.get(), number) {
                let field = format!("session[{index}].file[{number}].token");
                let what = format!("file[{other}] of the session has the same token; readers find the first");
                self.findings.error(at, &field, what);
            }
            let file = self.file(index, number, at, &record);
            self.report.luo.as_mut().expect("it was begun").sessions[index].files.push(file);
        }
    }

    fn file_array(&mut self, index: usize, at: PhysAddr, head: PhysAddr, count: u64) -> Records<FileRecord> {
        let field = format!("session[{index}].count");
        if count > v1::MAX_FILES {
            self.findings.error(at, &field, format!("{count} files: the array holds {}", v1::MAX_FILES));
        }
        if head == PhysAddr::NULL {
            self.no_files(at, &field, count);
            return Vec::new();
        }
        if count == 0 {
            self.findings.warning(at, &field, "there is a file array for no files");
        }
        let bytes = v1::FILE_AREA_PAGES * PAGE_SIZE;
        if !self.structure(head, bytes, order_of(v1::FILE_AREA_PAGES), Owner::Files(index)) {
            return Vec::new();
        }
        self.records(head, 0, FILE_SIZE, count.min(v1::MAX_FILES))
    }

    fn file_blocks(&mut self, index: usize, at: PhysAddr, head: PhysAddr, count: u64) -> Records<FileRecord> {
        let field = format!("session[{index}].count");
        if head == PhysAddr::NULL {
            self.no_files(at, &field, count);
            return Vec::new();
        }
        let records = self.chain(head, FILE_SIZE, Owner::Files(index), "opening the device fails with EIO");
        let found = u64::try_from(records.len()).expect("a count");
        if found != count {
            let what = format!(
                "the session says {count} files, its blocks have {found}: opening the device fails with EIO"
            );
            self.findings.error(at, &field, what);
        }
        records
    }

    fn no_files(&mut self, at: PhysAddr, field: &str, count: u64) {
        if count > 0 {
            self.findings.error(at, field, format!("the session says {count} files and leads to none"));
        }
    }

    fn file(&mut self, session: usize, number: usize, at: PhysAddr, record: &FileRecord) -> File {
        let field = format!("session[{session}].file[{number}]");
        let (handler, ended) = text(&record.compatible);
        let data = PhysAddr::new(record.data.get());
        if !ended {
            self.findings.error(
                at,
                &format!("{field}.compatible"),
                "the string does not end with a NUL: no handler matches",
            );
        }
        let memfd = match (handler.as_slice(), ended) {
            (b"memfd-v1", true) => self.memfd(session, number, at, data, 1),
            (b"memfd-v2", true) => self.memfd(session, number, at, data, 2),
            _ => {
                self.foreign(session, number, at, data, &Name(handler.clone()));
                None
            }
        };
        File {
            index: number,
            token: record.token.get(),
            handler: Name(handler),
            at: Addr(at),
            data: Addr(data),
            memfd,
        }
    }

    /// A file of a handler nobody here knows. Where its value is a preserved block, that is probably its state.
    fn foreign(&mut self, session: usize, number: usize, at: PhysAddr, data: PhysAddr, handler: &Name) {
        let field = format!("session[{session}].file[{number}].compatible");
        let what =
            format!("no handler of a stock kernel is named \"{handler}\": opening the device fails with EIO");
        self.findings.warning(at, &field, what);
        let block = Some(data).filter(|at| at.is_page_aligned()).and_then(|at| self.preserved.head(at.pfn()));
        if let Some(block) = block {
            self.claims.add(block.head, block.order.pages(), Owner::FileState(session, number));
        }
    }
}
