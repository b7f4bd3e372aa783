//! Arbitrary handover memory, as a fuzzer makes it: an input is a way to spoil a memory, and every release boots on it.
//!
//! Contract: whatever the bytes, each release boots, refuses or panics in the simulation; luosim itself does none of
//! panic, hang, or read outside memory. The input's form is made so that small changes of it are small changes of the
//! memory: one byte that chooses what to start from, then writes of up to 15 bytes at places near what is already there.

use std::path::Path;

use luosim_abi::release::RELEASES;
use luosim_kho::BootParams;
use luosim_luo::SessionName;
use luosim_machine::{BootOptions, Machine};
use luosim_physmem::{MemError, Pfn, PhysAddr, PhysMem};

use crate::golden::{ImageError, Manifest, load};

/// A memory to start from, and where its root tree is.
struct Base {
    memory: PhysMem,
    params: BootParams,
}

/// Bytes of the memory without anything in it.
const EMPTY: u64 = 16 << 20;
/// Kernels that recordings are of; the first byte of an input chooses.
const RECORDED: [&str; 4] = ["6.19.6", "7.1.13", "7.2.13", "7.3.4"];

/// Machines that every input is tried on, in turn.
#[derive(Debug)]
pub struct Arena {
    machines: Vec<(Machine, BootParams, Vec<Pfn>)>,
}

/// One write of an input: which page with something in it, where in it, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Write<'a> {
    page: usize,
    offset: u64,
    bytes: &'a [u8],
}

/// The writes of an input; what is left of the last one is cut off.
fn writes(mut data: &[u8]) -> Vec<Write<'_>> {
    let mut found = Vec::new();
    while let [page_low, page_high, offset_low, rest @ ..] = data {
        // Four bits of length and twelve of offset share two bytes.
        let [offset_high_len, rest @ ..] = rest else { break };
        let len = usize::from(offset_high_len >> 4).min(rest.len());
        let page = usize::from(u16::from_le_bytes([*page_low, *page_high]));
        let offset = u64::from(u16::from_le_bytes([*offset_low, offset_high_len & 15]));
        let (bytes, after) = rest.split_at(len);
        found.push(Write { page, offset, bytes });
        data = after;
    }
    found
}

/// Pages of a memory that hold something; all of it if nothing does.
fn pages_in_use(memory: &PhysMem) -> Vec<Pfn> {
    let frames = memory.len() / 4096;
    let touched = memory.touched().into_iter().flatten().map(Pfn::new);
    let used = touched.filter(|pfn| !memory.is_filled_with(pfn.addr(), 4096, 0).unwrap_or(true));
    let used: Vec<Pfn> = used.collect();
    if used.is_empty() { (0..frames.min(1 << 16)).map(Pfn::new).collect() } else { used }
}

impl Arena {
    fn new(bases: Vec<Base>) -> Self {
        let ready = |base: Base| {
            let mut memory = base.memory;
            memory.begin_trials();
            let pages = pages_in_use(&memory);
            (Machine::without_ledger(memory), base.params, pages)
        };
        Self { machines: bases.into_iter().map(ready).collect() }
    }

    /// An arena with an empty memory and with each recording `KERNEL/small` below `folder`, in the order of their names.
    ///
    /// # Errors
    /// [`ImageError`]: a recording that does not read, or no room on the host.
    pub fn of_recordings(folder: &Path) -> Result<Self, ImageError> {
        let no_room = |error: MemError| ImageError::Memory {
            path: String::from("an empty memory"),
            bytes: EMPTY,
            why: error.to_string(),
        };
        let memory = PhysMem::anonymous(EMPTY).map_err(no_room)?;
        let mut bases = vec![Base { memory, params: empty_params() }];
        for kernel in RECORDED {
            let folder = folder.join(kernel).join("small");
            let manifest = Manifest::read(&folder)?;
            let params = manifest.params().expect("checked when read");
            bases.push(Base { memory: load(&folder, &manifest)?, params });
        }
        Ok(Self::new(bases))
    }

    /// Spoils one of the memories as `data` says, boots every release on it, and uses all that it then offers. Returns
    /// how many sessions were retrieved in all.
    pub fn boot(&mut self, data: &[u8]) -> usize {
        let [which, data @ ..] = data else { return 0 };
        let index = usize::from(*which) % self.machines.len();
        let (machine, params, pages) = &mut self.machines[index];
        let mut sessions = 0;
        for release in RELEASES {
            let memory = machine.memory_mut();
            for write in writes(data) {
                let page = pages[write.page % pages.len()];
                let len = u64::try_from(write.bytes.len()).expect("at most 15");
                let offset = write.offset.min(4096 - len);
                let at = page.addr().checked_add(offset).expect("inside the page");
                memory.write(at, write.bytes).expect("pages in use lie in memory");
            }
            let cmdline = String::from("kho=on liveupdate=on liveupdate_test=on reserve_mem=64K:4096:fuzz");
            let options = BootOptions { cmdline, ..BootOptions::default() };
            machine.boot_on_handover(*params, release.id, &options);
            sessions += use_everything(machine);
            machine.memory_mut().take_back();
        }
        sessions
    }
}

/// Retrieves every session and file that the kernel lists, reads a little of each, finishes, and preserves anew.
fn use_everything(machine: &mut Machine) -> usize {
    let Ok(pid) = machine.spawn("fuzz") else { return 0 };
    let Ok(device) = machine.open(pid, "/dev/liveupdate", 2, 0) else { return 0 };
    let listed: Vec<(SessionName, Vec<u64>)> =
        machine.kernel().map(|kernel| kernel.luo().incoming().collect()).unwrap_or_default();
    let mut retrieved = 0;
    for (name, tokens) in listed {
        let Ok(session) = machine.retrieve_session(pid, device, name.as_bytes()) else { continue };
        retrieved += 1;
        for token in tokens {
            let Ok(file) = machine.retrieve_fd(pid, session, token) else { continue };
            let mut bytes = [0; 64];
            // What the calls answer is no matter here: that they answer is.
            let _ = machine.read(pid, file, &mut bytes);
            let _ = machine.pread(pid, file, &mut bytes, 4090);
            let _ = machine.write(pid, file, b"x");
            let _ = machine.fstat(pid, file);
        }
        let _ = machine.finish(pid, session, 0);
        let _ = machine.create_session(pid, device, name.as_bytes());
    }
    retrieved
}

/// The two pairs for a memory without anything in it: a root tree at 1 MiB, the scratch array at 2 MiB.
fn empty_params() -> BootParams {
    BootParams {
        fdt: PhysAddr::new(1 << 20),
        fdt_size: 4096,
        scratch: PhysAddr::new(2 << 20),
        scratch_size: 48,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_as_writes() {
        let data = [1, 0, 0x34, 0x22, 0xaa, 0xbb, 5, 1, 0xff, 0xff, 1, 2];
        let first = Write { page: 1, offset: 0x234, bytes: &[0xaa, 0xbb] };
        let cut = Write { page: 0x105, offset: 0xfff, bytes: &[1, 2] };
        assert_eq!(writes(&data), [first, cut]);
        assert_eq!(writes(&data[..3]), []);
    }
}
