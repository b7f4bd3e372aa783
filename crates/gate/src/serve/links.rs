//! Texts of links in `/proc/PID/fd`: sessions have names, restored files have none.

use std::path::PathBuf;

use luosim_abi::Errno;
use luosim_abi::quirk::Quirk;
use rustix::fs::fstat;

use super::Reply;
use super::ioctl::caller;
use crate::gate::{Gate, Whose};
use crate::memory::host_inode;
use crate::paths;

const PATH_MAX: usize = 4096;
/// Longest name that fits the buffer of releases with [`Quirk::ShortLinkText`].
const SHORT_NAME: usize = 38;

impl Gate {
    pub(super) fn readlink(&mut self, tid: i32, (dirfd, path): (i32, u64), buf: u64, size: u64) -> Reply {
        if self.sessions.is_empty() && self.files.restored.is_empty() {
            return Reply::GoOn;
        }
        let Some(task) = caller(self, tid) else { return Reply::Gone };
        let Ok(text) = task.read_text(path, PATH_MAX) else { return Reply::GoOn };
        let path = PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&text).into_owned()));
        let room = usize::try_from(super::signed(size)).unwrap_or(0);
        // Only a last component that is a number can be a descriptor's.
        let number =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        if !number || room == 0 {
            return Reply::GoOn;
        }
        let link = paths::absolute(&task, dirfd, &path).and_then(|path| paths::fd_link(&path));
        let owner = link.and_then(|link| Some((self.owner_of(&task, link)?, link.fd)));
        let Some((owner, fd)) = owner else { return Reply::GoOn };
        let text = match self.link_text(&owner, fd) {
            Some(Ok(text)) => text,
            Some(Err(refusal)) => return refusal.into(),
            None => return Reply::GoOn,
        };
        let shown = &text[..text.len().min(room)];
        match task.write(buf, shown) {
            Ok(()) => Reply::Value(i64::try_from(shown.len()).expect("a short text")),
            Err(refusal) => refusal.into(),
        }
    }

    fn link_text(&mut self, owner: &crate::task::Task, fd: i32) -> Option<luosim_abi::KResult<Vec<u8>>> {
        let (whose, copy) = self.whose(owner, fd);
        if let Whose::Session(tag, _) = whose {
            let name = &self.sessions.get(&tag)?.name;
            let short = self.machine.kernel()?.quirks().has(Quirk::ShortLinkText);
            if short && name.len() > SHORT_NAME {
                let why = format!("the kernel's buffer holds names of 38 bytes; this one has {}", name.len());
                return Some(Err(Errno::ENAMETOOLONG.because(why)));
            }
            return Some(Ok([b"anon_inode:[luo_session] ", name.as_slice()].concat()));
        }
        let host = host_inode(&fstat(copy?).ok()?);
        self.files.restored.contains(&host).then(|| Ok(b"/ (deleted)".to_vec()))
    }
}
