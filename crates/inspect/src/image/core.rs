//! ELF core files: QEMU's `dump-guest-memory`, and kdump's `vmcore`. Their load segments carry physical
//! addresses, with paging or without.

use std::fs::File;
use std::io::{Read, Seek};

use object::elf::{ET_CORE, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache};

use super::file::Segment;

/// Most segments that are believed.
const MAX_SEGMENTS: usize = 1 << 16;

/// The segments of a core file, and what is odd about them.
pub(crate) fn segments(file: &File, file_len: u64) -> Result<(Vec<Segment>, Vec<String>), String> {
    // A copy of the descriptor: the cache moves its position, which nobody else uses.
    let mut copy = file.try_clone().map_err(|error| error.to_string())?;
    copy.rewind().map_err(|error| error.to_string())?;
    let cache = ReadCache::new(copy);
    let bad = |error: object::read::Error| format!("its ELF headers are broken: {error}");
    let header = FileHeader64::<Endianness>::parse(&cache).map_err(|_| kind(file))?;
    let endian = header.endian().map_err(bad)?;
    if endian != Endianness::Little {
        return Err(String::from("it is of a big-endian machine, which has no KHO"));
    }
    if header.e_type(endian) != ET_CORE {
        return Err(String::from("it is an ELF file but no core: give the memory, not the kernel"));
    }
    let headers = header.program_headers(endian, &cache).map_err(bad)?;
    let mut notes = Vec::new();
    let loads = headers.iter().filter(|header| header.p_type(endian) == PT_LOAD).take(MAX_SEGMENTS);
    let segments = loads.filter_map(|header| {
        let (start, len) = (header.p_paddr(endian), header.p_memsz(endian));
        let (offset, filed) = (header.p_offset(endian), header.p_filesz(endian).min(len));
        let segment = Segment { start, len, offset, filed };
        usable(segment, file_len, &mut notes)
    });
    let segments: Vec<Segment> = segments.collect();
    if segments.is_empty() {
        return Err(String::from("no load segment of it has a physical address and bytes"));
    }
    Ok((segments, notes))
}

/// Why the header does not read as that of a 64-bit file.
fn kind(mut file: &File) -> String {
    let mut ident = [0; 5];
    let read = file.rewind().and_then(|()| file.read_exact(&mut ident));
    if read.is_ok() && ident[4] == 1 {
        return String::from("it is a 32-bit ELF file, and no 32-bit machine has KHO");
    }
    String::from("its ELF header is broken")
}

/// The segment as far as the file holds it.
fn usable(mut segment: Segment, file_len: u64, notes: &mut Vec<String>) -> Option<Segment> {
    let start = segment.start;
    if segment.len == 0 || start.checked_add(segment.len).is_none() {
        // `/proc/kcore` marks segments that are no memory with the highest address.
        return None;
    }
    if !start.is_multiple_of(4096) {
        notes.push(format!("the segment at {start:#x} does not begin at a page and is left out"));
        return None;
    }
    let there = file_len.saturating_sub(segment.offset);
    if segment.filed > there {
        let missing = segment.filed - there;
        notes.push(format!(
            "the file is cut off: {missing:#x} bytes of the segment at {start:#x} are missing"
        ));
        segment.filed = there;
        segment.len = there;
    }
    (segment.len > 0).then_some(segment)
}
