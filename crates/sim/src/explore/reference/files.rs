//! Descriptors, processes, and memory files.

use luosim_abi::Errno;

use super::{Desc, Inode, Kind, Pair, Process, Reference, Test, Want};
use crate::explore::action::{Action, CELL, Proc, Slot};

const SEAL: u32 = 1;
const SHRINK: u32 = 2;
const GROW: u32 = 4;
const WRITE: u32 = 8;
const NO_WRITE: u32 = 0x18;
const EXEC: u32 = 0x20;
const IMPLIED: u32 = 0x1e;
/// Cells that a mapping covers.
const MAPPED: u32 = 64;
/// Cells of a test file.
const TEST_CELLS: u32 = 2;

fn bytes(cells: u32) -> u64 {
    u64::from(cells) * CELL
}

fn fails_if(fails: bool, errno: Errno) -> Option<Want> {
    fails.then_some(Want::Fails(errno))
}

impl Reference {
    /// What a call on files and descriptors must answer; `None` for other actions.
    pub(super) fn expect_file(&self, action: &Action) -> Option<Want> {
        let given = |there: bool| Some(if there { Want::Value(0) } else { Want::Skip });
        match *action {
            Action::Memfd { .. } => given(true),
            Action::Sockets { new, peer, .. } => given(new != peer),
            Action::TestFile { .. } => given(self.plan.test_files),
            Action::Send { p, socket, fd } => Some(self.expect_send(p, socket, fd)),
            Action::Receive { p, socket, .. } => Some(self.expect_receive(p, socket)),
            Action::Dup { p, fd, .. } | Action::Close { p, fd } => given(self.desc(p, fd).is_some()),
            Action::ReadOnly { p, fd, .. } => given(self.file(p, fd).is_some()),
            Action::Look { p, fd } => given(matches!(self.kind(p, fd), Some(Kind::File(_) | Kind::Test(_)))),
            Action::Handler { p, fd, .. } => given(matches!(self.kind(p, fd), Some(Kind::Test(_)))),
            Action::Fork { p, child } => {
                let room = child < self.max_procs && child > 0 && child != p && !self.exists(child);
                given(room && self.procs.get(usize::from(p)).is_some_and(Option::is_some))
            }
            Action::Exit { p } => given(self.procs.get(usize::from(p)).is_some_and(Option::is_some)),
            Action::Map { p, fd, new } => Some(self.expect_map(p, fd, new)),
            Action::Store { p, map, at, cells, .. } => {
                let inode = self.mapped(p, map).map(|(inode, _)| &self.inodes[inode]);
                let inside = |inode: &Inode| bytes(at + cells) <= inode.size && at + cells <= MAPPED;
                given(cells > 0 && inode.is_some_and(inside))
            }
            Action::Unmap { p, map } => given(self.mapped(p, map).is_some()),
            Action::Write { .. }
            | Action::Truncate { .. }
            | Action::Allocate { .. }
            | Action::Punch { .. }
            | Action::Seek { .. }
            | Action::Seal { .. } => Some(self.expect_change(action)),
            _ => None,
        }
    }

    /// The file behind a mapping.
    #[must_use]
    pub fn mapped(&self, p: Proc, map: Slot) -> Option<(usize, bool)> {
        *self.procs.get(usize::from(p))?.as_ref()?.maps.get(usize::from(map))?
    }

    fn expect_send(&self, p: Proc, socket: Slot, fd: Slot) -> Want {
        let (Some(Kind::Socket(pair, side)), Some(sent)) = (self.kind(p, socket), self.desc(p, fd)) else {
            return Want::Skip;
        };
        // A socket in flight to itself would never be closed, in luosim; a kernel collects it.
        if matches!(self.descs[sent].kind, Kind::Socket(..)) {
            return Want::Skip;
        }
        if self.pairs[pair].closed[1 - side] { Want::Fails(Errno::EPIPE) } else { Want::Value(0) }
    }

    fn expect_receive(&self, p: Proc, socket: Slot) -> Want {
        let Some(Kind::Socket(pair, side)) = self.kind(p, socket) else { return Want::Skip };
        if self.pairs[pair].queues[side].is_empty() { Want::Fails(Errno::EAGAIN) } else { Want::Value(0) }
    }

    fn expect_map(&self, p: Proc, fd: Slot, new: Slot) -> Want {
        if self.mapped(p, new).is_some() {
            return Want::Skip;
        }
        let Some((inode, writable)) = self.file(p, fd) else { return Want::Skip };
        let inode = &self.inodes[inode];
        fails_if(!writable, Errno::EACCES)
            .or_else(|| fails_if(inode.seals & NO_WRITE != 0, Errno::EPERM))
            .unwrap_or(Want::Value(0))
    }

    fn expect_change(&self, action: &Action) -> Want {
        if let Action::Write { p, fd, at, cells, .. } = *action
            && let Some(Kind::Test(_)) = self.kind(p, fd)
        {
            let fits = cells > 0 && at + cells <= TEST_CELLS;
            return if fits { Want::Value(i64::from(cells) * 512) } else { Want::Skip };
        }
        let (p, fd) = match *action {
            Action::Write { p, fd, .. }
            | Action::Truncate { p, fd, .. }
            | Action::Allocate { p, fd, .. }
            | Action::Punch { p, fd, .. }
            | Action::Seek { p, fd, .. }
            | Action::Seal { p, fd, .. } => (p, fd),
            _ => return Want::Skip,
        };
        let Some((index, writable)) = self.file(p, fd) else { return Want::Skip };
        let inode = &self.inodes[index];
        match *action {
            Action::Write { at, cells, .. } => expect_write(inode, writable, at, cells),
            Action::Truncate { size, .. } => expect_truncate(inode, writable, size),
            Action::Allocate { at, cells, .. } => {
                let grows = bytes(at + cells) > inode.size;
                fails_if(!writable, Errno::EBADF)
                    .or_else(|| (cells == 0).then_some(Want::Skip))
                    .or_else(|| fails_if(inode.frozen || grows && inode.seals & GROW != 0, Errno::EPERM))
                    .unwrap_or(Want::Value(0))
            }
            Action::Punch { cells, .. } => fails_if(!writable, Errno::EBADF)
                .or_else(|| (cells == 0).then_some(Want::Skip))
                .or_else(|| fails_if(inode.frozen || inode.seals & NO_WRITE != 0, Errno::EPERM))
                .unwrap_or(Want::Value(0)),
            Action::Seek { to, .. } => Want::Value(i64::from(to)),
            Action::Seal { seals, .. } => expect_seal(inode, writable, seals),
            _ => Want::Skip,
        }
    }

    /// Follows a call on files and descriptors; `false` for other actions.
    pub(super) fn file_happened(&mut self, action: &Action, answer: Result<i64, Errno>) -> bool {
        let done = answer.is_ok();
        match *action {
            Action::Memfd { p, new, kind, huge } => {
                let (seals, exec) = [(SEAL, true), (0, true), (EXEC, false)][usize::from(kind % 3)];
                if done {
                    self.inodes.push(Inode { seals, exec, huge, ..Inode::default() });
                    self.open(p, new, Kind::File(self.inodes.len() - 1));
                }
            }
            Action::TestFile { p, new } if done => {
                self.tests.push(Test::default());
                self.open(p, new, Kind::Test(self.tests.len() - 1));
            }
            Action::Sockets { p, new, peer } if done => {
                self.pairs.push(Pair::default());
                let pair = self.pairs.len() - 1;
                self.open(p, new, Kind::Socket(pair, 0));
                self.open(p, peer, Kind::Socket(pair, 1));
            }
            Action::Send { p, socket, fd } if done => self.sent(p, socket, fd),
            Action::Receive { p, socket, new } if done => self.received(p, socket, new),
            Action::Dup { p, fd, new } if done => {
                let desc = self.desc(p, fd).expect("expected to be there");
                self.descs[desc].refs += 1;
                self.install(p, new, desc);
            }
            Action::ReadOnly { p, fd, new } if done => {
                let (inode, _) = self.file(p, fd).expect("expected to be there");
                let desc = self.open(p, new, Kind::File(inode));
                self.descs[desc].writable = false;
            }
            Action::Close { p, fd } if done => {
                let desc = self.uninstall(p, fd).expect("expected to be there");
                self.put(desc);
            }
            Action::Fork { p, child } if done => self.forked(p, child),
            Action::Exit { p } if done => self.exited(p),
            Action::Handler { p, fd, callback, times } => {
                if let Some(Kind::Test(test)) = self.kind(p, fd) {
                    self.tests[test].faults[callback as usize] = times;
                }
            }
            Action::Map { p, fd, new } if done => self.map(p, fd, new),
            Action::Unmap { p, map } if done => {
                let gone = self.process(p).maps[usize::from(map)].take();
                self.unmapped(gone);
            }
            _ => return self.change_happened(action, answer),
        }
        true
    }

    fn change_happened(&mut self, action: &Action, answer: Result<i64, Errno>) -> bool {
        match *action {
            Action::Store { p, map, at, cells, seed } => {
                if let Some((inode, _)) = self.mapped(p, map).filter(|_| answer.is_ok()) {
                    self.inodes[inode].cells.extend((at..at + cells).map(|cell| (cell, seed)));
                }
            }
            Action::Write { p, fd, at, seed, .. } => {
                let written = answer.ok().and_then(|count| u32::try_from(count / 512).ok()).unwrap_or(0);
                self.written(p, fd, at, written, seed);
            }
            Action::Truncate { .. }
            | Action::Allocate { .. }
            | Action::Punch { .. }
            | Action::Seek { .. }
            | Action::Seal { .. } => {
                if answer.is_ok() {
                    self.changed(action);
                }
            }
            Action::Look { .. } => {}
            // A failed call of this group changes nothing.
            _ => return self.expect_file(action).is_some() && answer.is_err(),
        }
        true
    }

    fn written(&mut self, p: Proc, fd: Slot, at: u32, cells: u32, seed: u32) {
        let (size, map) = match self.kind(p, fd) {
            Some(Kind::File(inode)) => {
                let inode = &mut self.inodes[inode];
                (&mut inode.size, &mut inode.cells)
            }
            Some(Kind::Test(test)) => {
                let test = &mut self.tests[test];
                (&mut test.size, &mut test.cells)
            }
            _ => return,
        };
        if cells > 0 {
            *size = (*size).max(bytes(at + cells));
            map.extend((at..at + cells).map(|cell| (cell, seed)));
        }
    }

    fn changed(&mut self, action: &Action) {
        let (Action::Truncate { p, fd, .. }
        | Action::Allocate { p, fd, .. }
        | Action::Punch { p, fd, .. }
        | Action::Seek { p, fd, .. }
        | Action::Seal { p, fd, .. }) = *action
        else {
            return;
        };
        let (index, _) = self.file(p, fd).expect("expected to be there");
        let desc = self.desc(p, fd).expect("expected to be there");
        let inode = &mut self.inodes[index];
        match *action {
            Action::Truncate { size, .. } => {
                let first = u32::try_from(size / CELL).unwrap_or(u32::MAX);
                inode.cells.split_off(&first);
                inode.size = size;
            }
            Action::Allocate { at, cells, .. } => {
                inode.size = inode.size.max(bytes(at + cells));
            }
            Action::Punch { at, cells, .. } => {
                inode.cells.retain(|cell, _| *cell < at || *cell >= at + cells);
            }
            Action::Seek { to, .. } => self.descs[desc].pos = u64::from(to),
            Action::Seal { seals, .. } => {
                let implied = if seals & EXEC != 0 && inode.exec { IMPLIED } else { 0 };
                inode.seals |= seals | implied;
            }
            _ => {}
        }
    }

    fn map(&mut self, p: Proc, fd: Slot, new: Slot) {
        let (inode, _) = self.file(p, fd).expect("expected to be there");
        let counted = self.inodes[inode].seals & WRITE == 0;
        self.inodes[inode].mappings += u32::from(counted);
        let maps = &mut self.process(p).maps;
        if maps.len() <= usize::from(new) {
            maps.resize(usize::from(new) + 1, None);
        }
        maps[usize::from(new)] = Some((inode, counted));
    }

    fn unmapped(&mut self, mapping: Option<(usize, bool)>) {
        if let Some((inode, true)) = mapping {
            self.inodes[inode].mappings -= 1;
        }
    }

    fn sent(&mut self, p: Proc, socket: Slot, fd: Slot) {
        let (Some(Kind::Socket(pair, side)), Some(desc)) = (self.kind(p, socket), self.desc(p, fd)) else {
            return;
        };
        self.descs[desc].refs += 1;
        self.pairs[pair].queues[1 - side].push_back(desc);
    }

    fn received(&mut self, p: Proc, socket: Slot, new: Slot) {
        let Some(Kind::Socket(pair, side)) = self.kind(p, socket) else { return };
        if let Some(desc) = self.pairs[pair].queues[side].pop_front() {
            self.install(p, new, desc);
        }
    }

    fn forked(&mut self, p: Proc, child: Proc) {
        let copy = self.process(p).clone();
        for desc in copy.fds.iter().flatten() {
            self.descs[*desc].refs += 1;
        }
        for (inode, _) in copy.maps.iter().flatten().filter(|(_, counted)| *counted) {
            self.inodes[*inode].mappings += 1;
        }
        *self.process(child) = copy;
    }

    fn exited(&mut self, p: Proc) {
        let Process { fds, numbers, maps } = self.procs[usize::from(p)].take().unwrap_or_default();
        for mapping in maps {
            self.unmapped(mapping);
        }
        for slot in numbers.into_iter().flatten() {
            self.put(fds[usize::from(slot)].expect("a number has a description"));
        }
    }

    /// One reference less; at the last the description is released.
    pub(super) fn put(&mut self, desc: usize) {
        let Desc { kind, refs, .. } = &mut self.descs[desc];
        *refs -= 1;
        if *refs > 0 {
            return;
        }
        match *kind {
            Kind::Device => self.device_open = false,
            Kind::Session(session) => self.session_closed(session),
            Kind::Socket(pair, side) => {
                self.pairs[pair].closed[side] = true;
                // The newest first, as they are stacked; no documentation says in which order.
                for lost in std::mem::take(&mut self.pairs[pair].queues[side]).into_iter().rev() {
                    self.put(lost);
                }
            }
            Kind::File(_) | Kind::Test(_) => {}
        }
    }
}

fn expect_write(inode: &Inode, writable: bool, at: u32, cells: u32) -> Want {
    let beyond = bytes(at + cells) > inode.size && (inode.frozen || inode.seals & GROW != 0);
    fails_if(!writable, Errno::EBADF)
        .or_else(|| (cells == 0).then_some(Want::Skip))
        .or_else(|| fails_if(inode.seals & NO_WRITE != 0 || beyond, Errno::EPERM))
        .unwrap_or(Want::Value(i64::from(cells) * 512))
}

fn expect_truncate(inode: &Inode, writable: bool, size: u64) -> Want {
    let sealed =
        size < inode.size && inode.seals & SHRINK != 0 || size > inode.size && inode.seals & GROW != 0;
    fails_if(!writable, Errno::EINVAL)
        .or_else(|| fails_if(sealed || size != inode.size && inode.frozen, Errno::EPERM))
        .unwrap_or(Want::Value(0))
}

fn expect_seal(inode: &Inode, writable: bool, seals: u32) -> Want {
    let new_write = seals & WRITE != 0 && inode.seals & WRITE == 0;
    // A file that LUO holds has a page for each of its size, and none besides.
    let busy = inode.mappings > 0 || inode.frozen && inode.size > 0;
    fails_if(!writable || inode.seals & SEAL != 0, Errno::EPERM)
        .or_else(|| fails_if(new_write && busy, Errno::EBUSY))
        .unwrap_or(Want::Value(0))
}
