//! The files of one simulated kernel, and the handlers that carry them over a kexec.
//!
//! [`FileTable`] counts references on open file descriptions; [`shmem`] is the memory file behind memfds and
//! tmpfs files, its contents in folios of physical memory; [`memfd`] is the handler that preserves them; [`test_file`] is a
//! file type of our own whose handler can be made to fail; [`posted`] has both for the posted designs.
//! Everything here is dropped at a kexec: a retrieved file is built anew from bytes.
//!
//! Not here: descriptors and paths (crate `luosim-machine`), which session holds what (crate `luosim-luo`).

#![forbid(unsafe_code)]

mod file;
pub mod memfd;
mod page_cache;
pub mod posted;
pub mod shmem;
mod socket;
pub mod test_file;

pub use file::{DriverFile, DriverId, FileKind, FileTable, OpenFile, flags};
pub use page_cache::{Folio, PageCache};
pub use shmem::{InodeId, InodeTable, Shmem, ShmemKind};
pub use socket::SocketEnd;

use luosim_luo::{FileId, Memory};
use luosim_physmem::Ram;

use crate::socket::Sockets;
use crate::test_file::TestTable;

/// All files of one kernel.
#[derive(Debug, Default)]
pub struct Files {
    /// Open file descriptions.
    pub table: FileTable,
    /// Inodes of memory files.
    pub inodes: InodeTable,
    /// Test files.
    pub tests: TestTable,
    sockets: Sockets,
}

/// A kernel that has files.
pub trait HasFiles {
    /// The files.
    fn files(&self) -> &Files;
    /// The files, and memory beside them.
    fn files_and_memory(&mut self) -> (&mut Files, Memory<'_>);
}

impl Files {
    /// Gives a reference back. What is released at a last reference is pushed to `released`: the caller ends
    /// sessions and frees the device. Inodes and sockets are dealt with here.
    pub fn put(&mut self, ram: &mut Ram, file: FileId, released: &mut Vec<FileKind>) {
        let (mut next, mut work) = (Some(file), Vec::new());
        while let Some(file) = next {
            self.put_one(ram, file, released, &mut work);
            next = work.pop();
        }
    }

    /// Gives one reference back; files that fall with it are added to `work`.
    fn put_one(&mut self, ram: &mut Ram, file: FileId, released: &mut Vec<FileKind>, work: &mut Vec<FileId>) {
        let Some(open) = self.table.put(file) else { return };
        match open.kind {
            FileKind::Shmem(inode) => self.inodes.put(ram, inode),
            FileKind::Test(id) => self.tests.put(id),
            FileKind::Socket(end) => work.extend(self.sockets.close(end)),
            _ => {}
        }
        // With O_PATH nothing was opened, so nothing ends.
        if !open.is_path() {
            released.push(open.kind);
        }
    }

    /// A connected pair of sockets.
    pub fn socket_pair(&mut self) -> (SocketEnd, SocketEnd) {
        self.sockets.pair()
    }

    /// Sends open file descriptions through a socket; the message owns a reference on each.
    pub fn send(&mut self, end: SocketEnd, files: &[FileId]) -> bool {
        for file in files {
            self.table.get_ref(*file);
        }
        let sent = self.sockets.send(end, files);
        if !sent {
            for file in files {
                self.table.put(*file);
            }
        }
        sent
    }

    /// Takes the oldest message; its references pass to the caller.
    pub fn receive(&mut self, end: SocketEnd) -> Option<Vec<FileId>> {
        self.sockets.receive(end)
    }
}
