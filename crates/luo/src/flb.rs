//! File-lifecycle-bound objects (FLBs): global objects that exist for the next kernel as long as files of a
//! handler are preserved (7.0 and later).
//!
//! Outgoing: the first preserved file calls `preserve`, the last unpreserved one `unpreserve`. Incoming: the
//! first `get_incoming` calls `retrieve`; when all files of the previous kernel are finished, `finish`.
//! Known defect kept: an object that nobody ever asked for is not finished.

use std::rc::Rc;

use luosim_abi::luo::flb::{self as abi, FlbEntry, FlbHeader};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult};
use luosim_physmem::{PhysAddr, PhysMem};

use crate::file_set::HandlerIndex;
use crate::host::{Host, Memory};

/// What an FLB does (`struct liveupdate_flb_ops`).
///
/// The counts are over the files of all sessions whose handler it is bound to, and of those who got it.
pub trait FlbOps<H: Host> {
    /// The string in its record, at most 47 bytes.
    fn compatible(&self) -> &'static str;
    /// Whether `preserve` gives a handle and no object: then nobody inside the kernel can get it while it is outgoing.
    fn data_only(&self) -> bool {
        false
    }
    /// First file: makes the object survive; returns its 64-bit handle.
    ///
    /// # Errors
    /// Whatever PRESERVE_FD shall answer.
    fn preserve(&self, host: &mut H) -> KResult<u64>;
    /// Last file: undoes `preserve`.
    fn unpreserve(&self, host: &mut H, data: u64);
    /// The new kernel wants the object.
    ///
    /// # Errors
    /// Kept and given to every later caller.
    fn retrieve(&self, host: &mut H, data: u64) -> KResult<()>;
    /// The last file of the previous kernel was finished.
    fn finish(&self, host: &mut H, data: u64);
}

#[derive(Debug, Default)]
struct Incoming {
    count: u64,
    data: Option<u64>,
    error: Option<Errno>,
    finished: bool,
    /// The kernel's reference counter warns once, and stays saturated.
    underflowed: bool,
}

struct Flb<H: Host> {
    ops: Rc<dyn FlbOps<H>>,
    outgoing: u64,
    data: u64,
    incoming: Incoming,
}

/// All FLBs of a kernel, in order of first registration.
pub(crate) struct FlbRegistry<H: Host> {
    flbs: Vec<Flb<H>>,
    /// Places in `flbs` by handler, in order of registration: files come and go by the hundred thousand.
    by_handler: Vec<Vec<usize>>,
    /// The page of the previous kernel; 0 if it left none.
    table: PhysAddr,
    quirks: Quirks,
}

impl<H: Host> FlbRegistry<H> {
    pub(crate) fn new(table: PhysAddr, quirks: Quirks) -> Self {
        Self { flbs: Vec::new(), by_handler: Vec::new(), table, quirks }
    }

    /// Binds `ops` to a handler.
    ///
    /// # Errors
    /// EEXIST if it is bound already, or another has its string; ENOSPC at 63.
    pub(crate) fn register(&mut self, handler: HandlerIndex, ops: Rc<dyn FlbOps<H>>) -> KResult<()> {
        if let Some(index) = self.flbs.iter().position(|flb| Rc::ptr_eq(&flb.ops, &ops)) {
            if self.of(handler).contains(&index) {
                let name = ops.compatible();
                return Err(Errno::EEXIST.because(format!("FLB '{name}' is registered already")));
            }
            self.bind(handler, index);
            return Ok(());
        }
        let index = self.add(ops)?;
        self.bind(handler, index);
        Ok(())
    }

    /// Makes an object known without a handler: its users may ask whether the previous kernel left it.
    ///
    /// # Errors
    /// EEXIST if another has its string; ENOSPC at 63.
    pub(crate) fn add(&mut self, ops: Rc<dyn FlbOps<H>>) -> KResult<usize> {
        let name = ops.compatible();
        if self.flbs.len() >= abi::MAX_ENTRIES {
            return Err(Errno::ENOSPC.because(format!("{} FLBs are registered already", abi::MAX_ENTRIES)));
        }
        if self.flbs.iter().any(|flb| flb.ops.compatible() == name) {
            return Err(Errno::EEXIST.because(format!("FLB '{name}' is registered already")));
        }
        self.flbs.push(Flb { ops, outgoing: 0, data: 0, incoming: Incoming::default() });
        Ok(self.flbs.len() - 1)
    }

    fn bind(&mut self, handler: HandlerIndex, index: usize) {
        if self.by_handler.len() <= handler.0 {
            self.by_handler.resize_with(handler.0 + 1, Vec::new);
        }
        let mine = &mut self.by_handler[handler.0];
        mine.push(index);
        mine.sort_unstable();
    }

    pub(crate) fn count(&self) -> usize {
        self.flbs.len()
    }

    fn of(&self, handler: HandlerIndex) -> &[usize] {
        self.by_handler.get(handler.0).map_or(&[], Vec::as_slice)
    }

    /// One more file of `handler`: every FLB of it, in order of registration.
    ///
    /// # Errors
    /// That of an FLB's `preserve`; those before it are put again, last first.
    pub(crate) fn get_outgoing(&mut self, host: &mut H, handler: HandlerIndex) -> KResult<()> {
        for done in 0..self.of(handler).len() {
            if let Err(refusal) = self.get_one(host, self.of(handler)[done]) {
                for undo in (0..done).rev() {
                    self.put_one(host, self.of(handler)[undo]);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn get_one(&mut self, host: &mut H, index: usize) -> KResult<()> {
        let flb = &mut self.flbs[index];
        if flb.outgoing == 0 {
            flb.data = flb.ops.clone().preserve(host)?;
        }
        flb.outgoing += 1;
        Ok(())
    }

    fn put_one(&mut self, host: &mut H, index: usize) {
        let flb = &mut self.flbs[index];
        flb.outgoing = flb.outgoing.checked_sub(1).expect("an FLB is put as often as it was got");
        if flb.outgoing == 0 {
            flb.ops.clone().unpreserve(host, std::mem::take(&mut flb.data));
        }
    }

    /// One file of `handler` less: every FLB of it, in reverse order of registration.
    pub(crate) fn put_outgoing(&mut self, host: &mut H, handler: HandlerIndex) {
        for at in (0..self.of(handler).len()).rev() {
            self.put_one(host, self.of(handler)[at]);
        }
    }

    /// The handle of an outgoing object, with one more count.
    ///
    /// # Errors
    /// ENOENT: nobody preserves it, or it has no object.
    pub(crate) fn get_outgoing_object(&mut self, name: &str) -> KResult<u64> {
        let found = self.flbs.iter_mut().find(|flb| flb.ops.compatible() == name);
        let flb = found.filter(|flb| flb.outgoing > 0 && !flb.ops.data_only());
        let flb =
            flb.ok_or_else(|| Errno::ENOENT.because(format!("no preserved file keeps FLB '{name}'")))?;
        flb.outgoing += 1;
        Ok(flb.data)
    }

    /// Gives a count of [`Self::get_outgoing_object`] back.
    pub(crate) fn put_outgoing_object(&mut self, host: &mut H, name: &str) {
        let index = self.by_name(name).expect("it was got before");
        self.put_one(host, index);
    }

    /// Writes the table: each FLB with files, in order of registration.
    pub(crate) fn serialize(&self, mem: &mut Memory<'_>, table: PhysAddr) {
        let mut count = 0u64;
        for flb in self.flbs.iter().filter(|flb| flb.outgoing > 0) {
            let entry = FlbEntry::new(flb.ops.compatible(), flb.data, flb.outgoing);
            let at = table.checked_add(abi::HEADER_SIZE + count * abi::ENTRY_SIZE).expect("in its page");
            mem.ram.mem.write_obj(at, &entry).expect("the table is this kernel's page");
            count += 1;
        }
        let header = FlbHeader { pgcnt: 1.into(), count: count.into() };
        mem.ram.mem.write_obj(table, &header).expect("the table is this kernel's page");
    }

    /// Empties the table again: the reboot came to nothing.
    pub(crate) fn take_back(&self, mem: &mut Memory<'_>, table: PhysAddr) {
        let count = self.flbs.iter().filter(|flb| flb.outgoing > 0).count();
        let bytes = u64::try_from(count).expect("at most 63 entries") * abi::ENTRY_SIZE;
        let entries = table.checked_add(abi::HEADER_SIZE).expect("in its page");
        mem.ram.mem.fill(entries, bytes, 0).expect("the table is this kernel's page");
        let header = FlbHeader { pgcnt: 1.into(), count: 0.into() };
        mem.ram.mem.write_obj(table, &header).expect("the table is this kernel's page");
    }

    fn find_incoming(&self, mem: &PhysMem, name: &str) -> KResult<(u64, u64)> {
        if self.table == PhysAddr::NULL {
            return Err(Errno::ENODATA.because("the previous kernel left no FLB table"));
        }
        let header =
            mem.read_obj::<FlbHeader>(self.table).map_err(|e| Errno::ENOENT.because(e.to_string()))?;
        let entries = header.count.get().min(u64::try_from(abi::MAX_ENTRIES).expect("small"));
        (0..entries)
            .map_while(|index| self.table.checked_add(abi::HEADER_SIZE + index * abi::ENTRY_SIZE))
            .map_while(|at| mem.read_obj::<FlbEntry>(at).ok())
            .find(|entry| entry.is_named(name))
            .map(|entry| (entry.data.get(), entry.count.get()))
            .ok_or_else(|| Errno::ENOENT.because(format!("the previous kernel left no FLB '{name}'")))
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.flbs.iter().any(|flb| flb.ops.compatible() == name)
    }

    fn by_name(&self, name: &str) -> KResult<usize> {
        let found = self.flbs.iter().position(|flb| flb.ops.compatible() == name);
        found.ok_or_else(|| Errno::EINVAL.because(format!("FLB '{name}' is not registered")))
    }

    /// The incoming object `name`, retrieved at the first call; gives one more count.
    ///
    /// # Errors
    /// ENODATA: finished, or nothing came; ENOENT: not in the table; or the kept error of `retrieve`.
    pub(crate) fn get_incoming(&mut self, host: &mut H, name: &str) -> KResult<u64> {
        let index = self.by_name(name)?;
        let state = &self.flbs[index].incoming;
        if state.finished {
            return Err(Errno::ENODATA.because(format!("FLB '{name}' is finished")));
        }
        if let Some(errno) = state.error.filter(|_| !self.quirks.has(Quirk::FlbErrorForgotten)) {
            return Err(errno.because(format!("FLB '{name}' could not be retrieved before")));
        }
        if state.data.is_none() {
            self.retrieve(host, index, name)?;
        }
        let state = &mut self.flbs[index].incoming;
        state.count += 1;
        Ok(state.data.expect("retrieved above"))
    }

    fn retrieve(&mut self, host: &mut H, index: usize, name: &str) -> KResult<()> {
        let (data, count) = self.find_incoming(&host.memory().ram.mem, name)?;
        let ops = self.flbs[index].ops.clone();
        let result = ops.retrieve(host, data);
        let state = &mut self.flbs[index].incoming;
        state.count = count;
        match result {
            Ok(()) => state.data = Some(data),
            Err(refusal) => {
                state.error = Some(refusal.errno);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Gives a count of [`Self::get_incoming`] back.
    pub(crate) fn put_incoming(&mut self, host: &mut H, name: &str) -> KResult<()> {
        let index = self.by_name(name)?;
        self.put_incoming_one(host, index);
        Ok(())
    }

    /// One incoming file of `handler` was finished.
    pub(crate) fn finish_file(&mut self, host: &mut H, handler: HandlerIndex) {
        for at in (0..self.of(handler).len()).rev() {
            self.put_incoming_one(host, self.of(handler)[at]);
        }
    }

    fn put_incoming_one(&mut self, host: &mut H, index: usize) {
        let flb = &mut self.flbs[index];
        let Some(left) = flb.incoming.count.checked_sub(1) else {
            if !std::mem::replace(&mut flb.incoming.underflowed, true) {
                let name = flb.ops.compatible();
                let text =
                    format!("luo: the count of FLB '{name}' underflows: never retrieved, so not finished");
                host.memory().log.warn(text);
            }
            return;
        };
        flb.incoming.count = left;
        if left > 0 {
            return;
        }
        match flb.incoming.data.take() {
            Some(data) => {
                flb.incoming.finished = true;
                flb.ops.clone().finish(host, data);
            }
            None => {
                let text =
                    format!("luo: FLB '{}' could not be retrieved; not finished", flb.ops.compatible());
                host.memory().log.warn(text);
            }
        }
    }
}
