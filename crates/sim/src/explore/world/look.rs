//! Comparing a file with what it must be.

use luosim_abi::memfd::{v1, v2};
use luosim_abi::release::MemfdVersion;
use luosim_files::shmem::Whence;
use luosim_machine::Machine;
use luosim_physmem::{FrameState, FrameUse, PAGE_SIZE, Pfn, PhysAddr};
use luosim_scenario::{Call, Op, Step, Value};

use super::{Checked, World, violation};
use crate::explore::action::{CELL, Proc, Slot};
use crate::explore::invariant::Invariant;
use crate::explore::reference::{Cells, Inode, Kind};
use crate::pattern;

/// Bytes of a file that are compared whatever was written; beyond, only cells that were written.
const COMPARED: u64 = 64 << 10;
const PAGE: usize = 4096;

/// One thing that is not as it must be: what breaks, the parameter of `expect-file`, what was wanted and found.
type Difference = (Invariant, &'static str, u64, u64);

/// Where the second entry of a preserved memfd's folio table is, and an entry for a frame that nobody preserved.
pub(super) fn second_folio(machine: &Machine, data: u64) -> Option<(PhysAddr, u64)> {
    let kernel = machine.kernel()?;
    let (mem, at) = (&kernel.core().ram().mem, PhysAddr::new(data));
    let (count, first) = match kernel.release().memfd? {
        MemfdVersion::V1 => {
            let ser = mem.read_obj::<v1::MemfdSer>(at).ok()?;
            (ser.nr_folios.get(), ser.folios.first.get())
        }
        MemfdVersion::V2 => {
            let ser = mem.read_obj::<v2::MemfdSer>(at).ok()?;
            (ser.nr_folios.get(), ser.folios.first.get())
        }
    };
    let table = mem.read_u64(PhysAddr::new(first + 8)).ok().filter(|_| count > 1)?;
    let entry = PhysAddr::new(table + 16);
    let flags = mem.read_u64(entry).ok()? & 0xfff;
    let frames = kernel.core().ram().frames.frame_count();
    // The last frame: free in any machine that is not full.
    Some((entry, ((frames - 1) << 12) | flags))
}

impl World {
    /// Compares all that can be told of a file; `fresh` if it was retrieved just now.
    pub(super) fn look(&mut self, p: Proc, slot: Slot, action: &'static str, fresh: bool) -> Checked<()> {
        let Some(desc) = self.reference.desc(p, slot) else { return Ok(()) };
        let (cells, size) = match self.reference.descs[desc].kind {
            Kind::File(inode) => {
                if let Some(difference) = self.compare_file(p, slot, inode, fresh) {
                    return Err(self.different(p, slot, action, difference));
                }
                (self.reference.inodes[inode].cells.clone(), self.reference.inodes[inode].size)
            }
            Kind::Test(test) => {
                let test = &self.reference.tests[test];
                (test.cells.clone(), test.size)
            }
            _ => return Ok(()),
        };
        self.compare_cells(p, slot, action, &cells, size)
    }

    fn compare_file(&mut self, p: Proc, slot: Slot, inode: usize, fresh: bool) -> Option<Difference> {
        let (pid, fd) = (self.pid(p), self.fd(p, slot));
        let stat = self.machine.fstat(pid, fd).ok()?;
        let pos = self.machine.lseek(pid, fd, 0, Whence::Cur).ok()?;
        let seals = u64::from(self.machine.get_seals(pid, fd).ok()?.0);
        let access = u64::from(self.machine.get_status(pid, fd).ok()? & 3);
        let desc = self.reference.descs[self.reference.desc(p, slot)?];
        let Inode { size, seals: want, exec, .. } = self.reference.inodes[inode];
        let want = u64::from(want);
        let mode = if exec { 0o100_777 } else { 0o100_666 };
        let sealed = if want & !seals != 0 { Invariant::Privileges } else { Invariant::Seals };
        let access_want = if desc.writable { 2 } else { 0 };
        let blocks = size.div_ceil(PAGE_SIZE) * (PAGE_SIZE / 512);
        let differences = [
            (Invariant::Size, "size", size, stat.size),
            (Invariant::Position, "pos", desc.pos, pos),
            (sealed, "seals", want, seals),
            (Invariant::Privileges, "mode", mode, u64::from(stat.mode)),
            (Invariant::Size, "blocks", if fresh { blocks } else { stat.blocks }, stat.blocks),
            (Invariant::Privileges, "flags", access_want, access),
        ];
        differences.into_iter().find(|(.., want, found)| want != found)
    }

    fn different(
        &mut self,
        p: Proc,
        slot: Slot,
        action: &'static str,
        difference: Difference,
    ) -> Box<super::Violation> {
        let (invariant, what, want, found) = difference;
        let call = Call::new(Op::ExpectFile).with("fd", Value::Text(self.label(p, slot)));
        let call = call.with(what, Value::Number(i128::from(want)));
        let process = self.process_name(p);
        self.write(Some(Step::Process { process, call }));
        let detail = format!("{what} of {} must be {want:#x}, and is {found:#x}", self.label(p, slot));
        violation(invariant, action, what, detail)
    }

    fn compare_cells(
        &mut self,
        p: Proc,
        slot: Slot,
        action: &'static str,
        cells: &Cells,
        size: u64,
    ) -> Checked<()> {
        let (pid, fd) = (self.pid(p), self.fd(p, slot));
        let mut page = [0u8; PAGE];
        let end = size.min(COMPARED).div_ceil(PAGE_SIZE);
        let far = cells.keys().map(|cell| u64::from(*cell) * CELL / PAGE_SIZE).filter(|index| *index >= end);
        let mut far: Vec<u64> = far.collect();
        far.dedup();
        for index in (0..end).chain(far) {
            let at = index * PAGE_SIZE;
            let Ok(got) = self.machine.pread(pid, fd, &mut page, at) else { continue };
            let Some((cell, seed)) = first_difference(&page[..got], at, size, cells) else { continue };
            let at = Value::Number(i128::from(u64::from(cell) * CELL));
            let len = (size - u64::from(cell) * CELL).min(CELL);
            let call = Call::new(Op::ExpectFile).with("fd", Value::Text(self.label(p, slot))).with("at", at);
            let call = call.with("len", Value::Number(i128::from(len)));
            let call = match seed {
                Some(seed) => call.with("seed", Value::Number(seed.into())),
                None => call.with("zero", Value::Number(1)),
            };
            let process = self.process_name(p);
            self.write(Some(Step::Process { process, call }));
            let what = seed.map_or_else(|| String::from("zeros"), |seed| format!("seed {seed}"));
            let detail = format!("cell {cell} of {} must hold {what}, and does not", self.label(p, slot));
            let class = if seed.is_some() { "written cell" } else { "hole" };
            return Err(violation(Invariant::Contents, action, class, detail));
        }
        Ok(())
    }
}

/// What holds structures that the next kernel reads.
const STRUCTURES: [FrameUse; 6] = [
    FrameUse::Fdt,
    FrameUse::Tracker,
    FrameUse::Metadata,
    FrameUse::Luo,
    FrameUse::HandlerData,
    FrameUse::FolioTable,
];

/// Word `at` of the pages with structures, counted round and round, and where it is.
pub(super) fn word_of_metadata(machine: &Machine, at: u32) -> Option<(PhysAddr, u64)> {
    let ram = machine.kernel()?.core().ram();
    let heads = (0..ram.frames.frame_count()).map(Pfn::new).filter_map(|pfn| match ram.frames.state(pfn) {
        FrameState::AllocatedHead(order) => Some((pfn, order)),
        _ => None,
    });
    let structures = heads.filter(|(pfn, _)| STRUCTURES.contains(&ram.frames.use_of(*pfn)));
    let pages: Vec<Pfn> =
        structures.flat_map(|(pfn, order)| (pfn.raw()..pfn.raw() + order.pages()).map(Pfn::new)).collect();
    let at = usize::try_from(at).ok()?;
    let page = *pages.get(at % pages.len().max(1))?;
    let offset = u64::try_from(at / pages.len() % 512).ok()? * 8;
    let addr = page.addr().checked_add(offset)?;
    let mut word = [0; 8];
    ram.mem.read(addr, &mut word).ok()?;
    Some((addr, u64::from_le_bytes(word)))
}

/// The first cell of what was read at `at` that is not as it must be, with the seed it must have.
fn first_difference(read: &[u8], at: u64, size: u64, cells: &Cells) -> Option<(u32, Option<u32>)> {
    let wanted = usize::try_from((size - at).min(PAGE_SIZE)).expect("at most a page");
    let first = u32::try_from(at / CELL).expect("files have fewer than 2^32 cells where they were written");
    let mut want = [0u8; 512];
    let chunk = usize::try_from(CELL).expect("small");
    for (cell, start) in (first..).zip((0..wanted).step_by(chunk)) {
        let end = (start + chunk).min(wanted);
        let seed = cells.get(&cell).copied();
        let same = read.len() >= end
            && match seed {
                Some(seed) => {
                    pattern::fill(seed, u64::from(cell) * CELL, &mut want[..end - start]);
                    read[start..end] == want[..end - start]
                }
                None => read[start..end].iter().all(|byte| *byte == 0),
            };
        if !same {
            return Some((cell, seed));
        }
    }
    None
}
