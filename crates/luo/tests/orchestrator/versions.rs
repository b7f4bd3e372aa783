//! Every version that writes against every version that reads, in kernels that never were: each version of KHO's root, of
//! the orchestrator's data, with and without objects, and of a handler's structure. Released kernels meet in few of
//! these pairs, because the first string that differs ends the matter.
//!
//! The promise: what is read means what was written, or it is refused by a version string. Nothing is ever misread.

use std::rc::Rc;

use luosim_abi::kho::vmalloc::Descriptor;
use luosim_abi::memfd;
use luosim_abi::quirk::Quirks;
use luosim_abi::release::{Finalize, KhoVersion, LuoVersion, MemfdVersion, Release, ReleaseId};
use luosim_abi::{Errno, KResult};
use luosim_luo::{Context, FileHandler, FileId, Identity, Luo, RetrieveStatus};
use luosim_physmem::{FrameUse, PhysAddr, PhysMem};

use crate::world::{World, boot_row, create, preserve, take};

const KHO: [KhoVersion; 3] = [KhoVersion::V1, KhoVersion::V3, KhoVersion::V4];
const LUO: [LuoVersion; 2] = [LuoVersion::V1, LuoVersion::V5];
const MEMFD: [MemfdVersion; 2] = [MemfdVersion::V1, MemfdVersion::V2];

/// Rows of every combination; with `luo-v1` with and without the node of objects, which readers may need.
fn rows() -> Vec<&'static Release> {
    let mut rows = Vec::new();
    for (kho, luo, memfd, flb) in KHO.iter().flat_map(|kho| {
        LUO.iter().flat_map(move |luo| {
            MEMFD.iter().flat_map(move |memfd| [false, true].map(|flb| (*kho, *luo, *memfd, flb)))
        })
    }) {
        // `luo-v5` has its objects always, and needs the size that subtrees of `kho-v1` do not have.
        if luo == LuoVersion::V5 && (!flb || kho == KhoVersion::V1) {
            continue;
        }
        let finalize = if kho == KhoVersion::V1 { Finalize::AtReboot } else { Finalize::Never };
        let (luo, memfd) = (Some(luo), Some(memfd));
        let quirks = Quirks::NONE;
        let row = Release { kho, finalize, luo, memfd, flb, quirks, ..*ReleaseId::V7_3.release() };
        rows.push(&*Box::leak(Box::new(row)));
    }
    rows
}

/// A handler that keeps a number of its file in the structure of its version, where each version has it.
struct Versioned(MemfdVersion);

/// What a file is told to carry: each has other numbers.
fn told(file: u64) -> (u64, u64) {
    (0x1111_0000 + file, 0x2222_0000 + file)
}

impl Versioned {
    fn write(&self, world: &mut World, page: PhysAddr, file: u64) {
        let ((pos, size), folios) = (
            told(file),
            Descriptor { first: file.into(), total_pages: 1.into(), flags: 1.into(), order: 0.into() },
        );
        let memory = &mut world.ram.mem;
        let written = match self.0 {
            MemfdVersion::V1 => memory.write_obj(
                page,
                &memfd::v1::MemfdSer { pos: pos.into(), size: size.into(), nr_folios: file.into(), folios },
            ),
            MemfdVersion::V2 => memory.write_obj(
                page,
                &memfd::v2::MemfdSer {
                    pos: pos.into(),
                    size: size.into(),
                    seals: 0x3f.into(),
                    flags: 0.into(),
                    nr_folios: file.into(),
                    folios,
                },
            ),
        };
        written.expect("a page of ours");
    }

    /// Position, size, folios, first chunk.
    fn read(&self, world: &World, page: PhysAddr) -> (u64, u64, u64, u64) {
        let memory = &world.ram.mem;
        match self.0 {
            MemfdVersion::V1 => {
                let ser: memfd::v1::MemfdSer = memory.read_obj(page).expect("in memory");
                (ser.pos.get(), ser.size.get(), ser.nr_folios.get(), ser.folios.first.get())
            }
            MemfdVersion::V2 => {
                let ser: memfd::v2::MemfdSer = memory.read_obj(page).expect("in memory");
                (ser.pos.get(), ser.size.get(), ser.nr_folios.get(), ser.folios.first.get())
            }
        }
    }
}

impl FileHandler<World> for Versioned {
    fn compatible(&self) -> &'static str {
        self.0.compatible()
    }

    fn can_preserve(&self, _: &World, _: FileId) -> bool {
        true
    }

    fn identity(&self, _: &World, file: FileId) -> Identity {
        Identity(u64::from(file.0))
    }

    fn describe(&self, _: &World, file: FileId) -> String {
        format!("file {}", file.0)
    }

    fn preserve(&self, context: &mut Context<'_, World>, file: FileId) -> KResult<u64> {
        let world = &mut *context.host;
        let page = world.kho.alloc_preserve(&mut world.ram, 4096, FrameUse::HandlerData)?;
        self.write(world, page, u64::from(file.0));
        Ok(page.raw())
    }

    fn unpreserve(&self, _: &mut Context<'_, World>, _: FileId, _: u64) {}

    fn freeze(&self, _: &mut Context<'_, World>, _: FileId, data: u64) -> KResult<u64> {
        Ok(data)
    }

    fn unfreeze(&self, _: &mut Context<'_, World>, _: FileId, _: u64) {}

    /// The file is the one whose number the structure has; a structure that is none of ours is an assertion here.
    fn retrieve(&self, context: &mut Context<'_, World>, data: u64) -> KResult<FileId> {
        let (pos, size, folios, first) = self.read(context.host, PhysAddr::new(data));
        assert_eq!(((pos, size), first), (told(folios), folios), "{:?} misread what it was given", self.0);
        u32::try_from(folios).map(FileId).map_err(|_| Errno::EIO.because("no number of a file"))
    }

    fn finish(&self, _: &mut Context<'_, World>, _: RetrieveStatus, _: u64) {}
}

fn handler(row: &Release) -> Rc<Versioned> {
    Rc::new(Versioned(row.memfd.expect("rows have a handler")))
}

/// What became of a handover.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    /// Everything is there and means what it meant.
    Read,
    /// The root tree's string is another one: the kernel boots as if nothing had come.
    Fresh,
    /// The kernel panics.
    Panic,
    /// The device cannot be opened.
    NoOpen(Errno),
}

/// Two sessions, five files.
const SESSIONS: [(&[u8], std::ops::Range<u8>); 2] = [(b"one", 1..4), (b"two", 4..6)];

fn hand_over(from: &'static Release, to: &'static Release) -> Became {
    let memory = PhysMem::anonymous(64 << 20).expect("room");
    let (mut world, mut luo) = boot_row(from, memory, None).expect("a cold boot");
    luo.register_handler(handler(from)).expect("the first");
    for (name, files) in SESSIONS {
        let session = create(&mut luo, &mut world, name);
        files.for_each(|file| preserve(&mut luo, &mut world, session, file));
    }
    luo.reboot(&mut world).expect("nobody refuses");
    let params = world.kho.params_for_kexec(&mut world.ram).expect("KHO is on");
    let Ok((mut world, mut luo)) = boot_row(to, world.ram.into_mem(), params) else { return Became::Panic };
    luo.register_handler(handler(to)).expect("the first");
    match luo.open_device(&mut world) {
        Err(refusal) => return Became::NoOpen(refusal.errno),
        Ok(()) => luo.release_device(),
    }
    if luo.incoming_sessions() == 0 {
        assert_eq!(luo.number(), 0, "nothing was taken over");
        return Became::Fresh;
    }
    check(&mut world, &mut luo);
    Became::Read
}

fn check(world: &mut World, luo: &mut Luo<World>) {
    assert_eq!((luo.incoming_sessions(), luo.number()), (SESSIONS.len(), 1));
    let found: Vec<_> = luo.incoming().map(|(name, tokens)| (name.as_bytes().to_vec(), tokens)).collect();
    let want: Vec<_> = SESSIONS.map(|(name, files)| (name.to_vec(), files.map(u64::from).collect())).to_vec();
    assert_eq!(found, want);
    for (name, files) in SESSIONS {
        let session = take(luo, world, name);
        for file in files {
            let got = crate::world::retrieve_file(luo, world, session, file);
            assert_eq!(got, Ok(FileId(u32::from(file))), "another file came back");
        }
    }
}

/// What the version strings say must become of it.
fn must(from: &Release, to: &Release) -> Became {
    if from.kho != to.kho {
        Became::Fresh
    } else if from.luo != to.luo || (to.luo == Some(LuoVersion::V1) && to.flb && !from.flb) {
        Became::Panic
    } else if from.memfd != to.memfd {
        Became::NoOpen(Errno::EIO)
    } else {
        Became::Read
    }
}

#[test]
fn every_version_is_read_as_it_was_written_or_refused_by_its_string() {
    let rows = rows();
    let mut read = 0;
    for from in &rows {
        for to in &rows {
            let became = hand_over(from, to);
            let pair = || {
                format!(
                    "{:?} {:?} {:?} {} to {:?} {:?} {:?} {}",
                    from.kho, from.luo, from.memfd, from.flb, to.kho, to.luo, to.memfd, to.flb
                )
            };
            assert_eq!(became, must(from, to), "{}", pair());
            read += usize::from(became == Became::Read);
        }
    }
    // Each of 16 rows reads its own, and `luo-v1` without objects reads what has them: 6 of those.
    assert_eq!((rows.len(), read), (16, 22));
}
