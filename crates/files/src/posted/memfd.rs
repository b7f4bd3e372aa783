//! The memfd handler of the posted designs: a tree in one block, with size, position and a list of folios.
//!
//! Prepared, a file does not change its size and its pages stay; it may be written. Frozen, its position is taken again.
//! The tree is one contiguous block, so a file of more than about 260 000 folios cannot be prepared. What the posted text
//! does not say (seals, mode, which pages count as used) is as in 6.19 without its quirks.

use luosim_abi::posted::memfd::{
    COMPATIBLE, DIRTY, Folio as Entry, PROP_FOLIOS, PROP_POS, PROP_SIZE, UPTODATE,
};
use luosim_abi::{Errno, KResult};
use luosim_kho::fdt::{Node, Tree};
use luosim_luo::{FileId, Host, Memory};
use luosim_physmem::{FrameUse, PAGE_SIZE, Pfn, PhysAddr};
use luosim_posted::Handler;
use zerocopy::{FromBytes, IntoBytes};

use crate::file::{FileKind, flags};
use crate::page_cache::Folio;
use crate::shmem::{InodeId, MAX_SIZE, Seals, Shmem, ShmemKind};
use crate::{Files, HasFiles};

/// The largest block there is.
const MAX_TREE: u64 = 4 << 20;

/// The handler.
#[derive(Clone, Copy, Debug)]
pub struct PostedMemfd;

fn inode_of(files: &Files, file: FileId) -> InodeId {
    match files.table.get(file).kind {
        FileKind::Shmem(inode) => inode,
        kind => unreachable!("{} is not given to this handler", kind.text()),
    }
}

/// What a tree says.
struct Saved {
    pos: u64,
    size: u64,
    folios: Vec<Entry>,
}

impl Saved {
    fn of(inode: &Shmem, pos: u64) -> Self {
        let pages = inode.size().div_ceil(PAGE_SIZE);
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let entry = |(index, folio): (u64, Folio)| {
            let flags = flag(folio.dirty, DIRTY) | flag(folio.uptodate, UPTODATE);
            Entry::new(folio.head.raw(), flags, index)
        };
        let folios = inode.folios().take_while(|(index, _)| *index < pages).map(entry).collect();
        Self { pos, size: inode.size(), folios }
    }

    fn blob(&self) -> Vec<u8> {
        let root = Node::default().with_u64(PROP_POS, self.pos).with_u64(PROP_SIZE, self.size);
        let root = if self.folios.is_empty() {
            root
        } else {
            root.with_bytes(PROP_FOLIOS, self.folios.as_bytes().to_vec())
        };
        Tree::new(root).to_blob()
    }

    fn read(mem: &Memory<'_>, data: u64) -> KResult<Self> {
        let bad = |why: String| Errno::EINVAL.because(format!("the file's tree at {data:#x}: {why}"));
        let tree = Tree::read(&mem.ram.mem, PhysAddr::new(data), MAX_TREE);
        let tree = tree.map_err(|error| bad(error.to_string()))?;
        let root = tree.root();
        let number = |name: &str| root.u64(name).ok_or_else(|| bad(format!("no 8-byte {name}")));
        let folios = match root.bytes(PROP_FOLIOS) {
            None => Vec::new(),
            Some(bytes) if bytes.len() % size_of::<Entry>() == 0 => {
                let entry = |bytes: &[u8]| Entry::read_from_bytes(bytes).expect("16 bytes");
                bytes.chunks_exact(size_of::<Entry>()).map(entry).collect()
            }
            Some(bytes) => return Err(bad(format!("{} bytes of folios", bytes.len()))),
        };
        Ok(Self { pos: number(PROP_POS)?, size: number(PROP_SIZE)?, folios })
    }
}

/// Preserves the folios and writes the tree.
fn prepare(inode: &mut Shmem, memory: &mut Memory<'_>, pos: u64) -> KResult<u64> {
    let pages = inode.size().div_ceil(PAGE_SIZE);
    if inode.host().is_some() {
        inode.adopt(memory.ram, pages)?;
    } else {
        inode.fill_holes(memory.ram, pages)?;
    }
    inode.make_uptodate(memory.ram);
    let saved = Saved::of(inode, pos);
    let (blob, mut done) = (saved.blob(), 0);
    let result = preserve_folios(inode, memory, &saved, &mut done).and_then(|()| {
        let len = u64::try_from(blob.len()).expect("a length fits in 64 bits");
        memory.kho.alloc_preserve(memory.ram, len, FrameUse::HandlerData)
    });
    match result {
        Ok(addr) => {
            memory.ram.mem.write(addr, &blob).expect("the block was just allocated");
            Ok(addr.raw())
        }
        Err(refusal) => {
            unpreserve_folios(inode, memory, &saved, done);
            Err(refusal)
        }
    }
}

fn preserve_folios(inode: &Shmem, memory: &mut Memory<'_>, saved: &Saved, done: &mut usize) -> KResult<()> {
    for (_, folio) in inode.folios().take(saved.folios.len()) {
        memory.kho.preserve_folio(memory.ram, folio.head, folio.order)?;
        *done += 1;
    }
    Ok(())
}

fn unpreserve_folios(inode: &Shmem, memory: &mut Memory<'_>, saved: &Saved, count: usize) {
    for (_, folio) in inode.folios().take(saved.folios.len().min(count)) {
        memory.kho.unpreserve_folio(memory.ram, folio.head, folio.order);
    }
}

fn insert(inode: &mut Shmem, memory: &mut Memory<'_>, entry: &Entry) -> KResult<()> {
    let (head, index) = (Pfn::new(entry.pfn()), entry.index.get());
    let order = memory.kho.restore_folio(memory.ram, head.addr(), FrameUse::PageCache).ok_or_else(|| {
        Errno::EIO.because(format!("the folio at frame {head} is not preserved, or was restored before"))
    })?;
    let (uptodate, dirty) = (entry.flags() & UPTODATE != 0, entry.flags() & DIRTY != 0);
    if inode.insert_restored(index, Folio { head, order, uptodate, dirty }, order.pages()) {
        return Ok(());
    }
    memory.ram.free(head).expect("it was just restored");
    Err(Errno::EEXIST.because(format!("page {index} of the file is there already")))
}

impl<H: Host + HasFiles> Handler<H> for PostedMemfd {
    fn compatible(&self) -> &'static str {
        COMPATIBLE
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        match host.files().table.get(file).kind {
            FileKind::Shmem(inode) => host.files().inodes.get(inode).nlink == 0,
            _ => false,
        }
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        host.files().inodes.get(inode_of(host.files(), file)).describe()
    }

    fn prepare(&self, host: &mut H, file: FileId) -> KResult<u64> {
        let (files, mut memory) = host.files_and_memory();
        let (pos, inode) = (files.table.get(file).pos, inode_of(files, file));
        let inode = files.inodes.get_mut(inode);
        let was_frozen = inode.frozen();
        inode.set_frozen(true);
        let result = prepare(inode, &mut memory, pos);
        match &result {
            Ok(_) => inode.pin(),
            Err(_) => inode.set_frozen(was_frozen),
        }
        result
    }

    fn freeze(&self, host: &mut H, file: FileId, data: u64) -> KResult<u64> {
        let (files, memory) = host.files_and_memory();
        let (pos, inode) = (files.table.get(file).pos, inode_of(files, file));
        let blob = Saved::of(files.inodes.get(inode), pos).blob();
        memory
            .ram
            .mem
            .write(PhysAddr::new(data), &blob)
            .expect("the file has not changed since it was prepared");
        Ok(data)
    }

    fn cancel(&self, host: &mut H, file: FileId, data: u64) {
        let (files, mut memory) = host.files_and_memory();
        let inode = files.inodes.get_mut(inode_of(files, file));
        let saved = Saved::of(inode, 0);
        unpreserve_folios(inode, &mut memory, &saved, saved.folios.len());
        inode.set_frozen(false);
        inode.unpin();
        memory.kho.unpreserve_free(memory.ram, PhysAddr::new(data));
    }

    fn finish(&self, host: &mut H, _file: Option<FileId>, data: u64, reclaimed: bool) {
        let (_, memory) = host.files_and_memory();
        let saved = Saved::read(&memory, data);
        if !reclaimed && let Ok(saved) = saved {
            for entry in &saved.folios {
                memory.kho.restore_free(memory.ram, Pfn::new(entry.pfn()).addr());
            }
        }
        memory.kho.restore_free(memory.ram, PhysAddr::new(data));
    }

    fn retrieve(&self, host: &mut H, data: u64) -> KResult<FileId> {
        let (files, mut memory) = host.files_and_memory();
        let saved = Saved::read(&memory, data)?;
        if saved.size > MAX_SIZE {
            return Err(Errno::EINVAL.because(format!("a file of {} bytes", saved.size)));
        }
        let inode = files.inodes.create(ShmemKind::Memfd, "", 0o777, Seals(0));
        files.inodes.get_mut(inode).rebuild(saved.size, Seals::SEAL);
        let filled =
            saved.folios.iter().try_for_each(|entry| insert(files.inodes.get_mut(inode), &mut memory, entry));
        let opened =
            filled.and_then(|()| files.table.open(FileKind::Shmem(inode), flags::RDWR | flags::LARGEFILE));
        let file = opened.inspect_err(|_| files.inodes.put(memory.ram, inode))?;
        files.table.get_mut(file).pos = if saved.pos <= MAX_SIZE { saved.pos } else { 0 };
        Ok(file)
    }
}
