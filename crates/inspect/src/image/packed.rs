//! Unpacking zstd images, which are mostly zeros.
//!
//! `ruzstd` does the work; we walk the blocks of a frame for it, in a hurry:
//!
//! - A block that repeats one zero is left out when the last window of the output is zeros already: the decoder
//!   would be in the same state after it.
//! - The decoder is told a window that is a block smaller than a power of two, because its buffer has a power of
//!   two and faults of fresh pages are half of the time. Should a block reach back further, the decoder says so
//!   (it has no older bytes that it could take instead), and all is unpacked again with the true window.
//!
//! Checksums of frames are not compared.

use std::io::{BufReader, ErrorKind, Read, Seek, Write};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::pages::Pages;

/// First bytes of a frame.
pub(crate) const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Largest window that is unpacked: what `zstd --long` makes.
const MAX_WINDOW: u64 = 128 << 20;
/// Largest window for which room is made beforehand: what the decoder takes when it is used again.
const MAX_RESERVED: u64 = 96 << 20;
/// Most that a block unpacks to.
const BLOCK: u64 = 128 << 10;
/// Most that is kept in memory.
const MAX_KEPT: usize = 4 << 30;
/// Largest memory an image may have.
pub(crate) const MAX_MEMORY: u64 = 16 << 40;

/// Unpacks all frames of `from`.
pub(crate) fn unpack(mut from: impl Read + Seek) -> Result<Pages, String> {
    if let Ok(pages) = frames(&mut from, true) {
        return Ok(pages);
    }
    from.rewind().map_err(|error| error.to_string())?;
    frames(from, false)
}

/// Unpacks all frames, with narrow windows if so wished.
fn frames(from: impl Read, narrow: bool) -> Result<Pages, String> {
    let mut from = BufReader::with_capacity(1 << 18, from);
    let mut unpacker = Unpacker { pages: Pages::default(), at: 0 };
    let mut magic = [0; 4];
    while fill(&mut from, &mut magic)? {
        match u32::from_le_bytes(magic) {
            0x184d_2a50..=0x184d_2a5f => skip(&mut from)?,
            _ if magic == MAGIC => unpacker.frame(&mut from, narrow)?,
            _ => return Err(String::from("behind a zstd frame there is something else")),
        }
    }
    unpacker.pages.set_size(unpacker.at);
    Ok(unpacker.pages)
}

/// Fills `buf`; `false` at the end of the file.
fn fill(from: &mut impl Read, buf: &mut [u8]) -> Result<bool, String> {
    let mut first = [0];
    match from.read(&mut first) {
        Ok(0) => return Ok(false),
        Ok(_) => buf[0] = first[0],
        Err(error) => return Err(error.to_string()),
    }
    exact(from, &mut buf[1..]).map(|()| true)
}

fn exact(from: &mut impl Read, buf: &mut [u8]) -> Result<(), String> {
    from.read_exact(buf).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => String::from("the zstd data ends too early"),
        _ => error.to_string(),
    })
}

/// Passes over a skippable frame.
fn skip(from: &mut impl Read) -> Result<(), String> {
    let mut len = [0; 4];
    exact(from, &mut len)?;
    let len = u64::from(u32::from_le_bytes(len));
    match std::io::copy(&mut from.take(len), &mut std::io::sink()) {
        Ok(passed) if passed == len => Ok(()),
        Ok(_) => Err(String::from("the zstd data ends too early")),
        Err(error) => Err(error.to_string()),
    }
}

/// What the header of a frame says.
struct Header {
    window: u64,
    checksum: bool,
}

/// Reads what follows the magic.
fn header(from: &mut impl Read) -> Result<Header, String> {
    let mut descriptor = [0];
    exact(from, &mut descriptor)?;
    let descriptor = descriptor[0];
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = match descriptor >> 6 {
        0 => usize::from(single),
        code => 1 << code,
    };
    let mut rest = vec![0; usize::from(!single) + dictionary + size];
    exact(from, &mut rest)?;
    let window = if single {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&rest[dictionary..]);
        u64::from_le_bytes(bytes).saturating_add(if size == 2 { 256 } else { 0 })
    } else {
        let base = 1u64 << (10 + (rest[0] >> 3));
        base + base / 8 * u64::from(rest[0] & 7)
    };
    if window > MAX_WINDOW {
        let mib = window >> 20;
        return Err(format!(
            "its window of {mib} MiB is too large; unpack it with `zstd -d --long=31` first"
        ));
    }
    Ok(Header { window, checksum: descriptor & 4 != 0 })
}

/// A header that says this window, to the byte: as the size of a frame of one segment.
fn told(window: u64, checksum: bool) -> Vec<u8> {
    let window = u32::try_from(window).expect("windows are bounded");
    [&MAGIC[..], &[0xa0 | u8::from(checksum) << 2], &window.to_le_bytes()].concat()
}

/// A decoder whose buffer has room for the window from the start: it would double it again and again.
fn decoder(window: u64, checksum: bool) -> Result<FrameDecoder, String> {
    let mut decoder = FrameDecoder::new();
    let mut tell = |window| decoder.init(told(window, checksum).as_slice());
    let room = window + BLOCK + 1;
    let ready = if room > MAX_RESERVED {
        tell(window)
    } else {
        tell(1024).and_then(|()| tell(room)).and_then(|()| tell(window))
    };
    ready.map(|()| decoder).map_err(|error| error.to_string())
}

struct Unpacker {
    pages: Pages,
    /// Bytes that were unpacked and taken out of the decoder, or left out.
    at: u64,
}

/// Takes what the decoder gives straight out of its window: a copy less.
impl Write for Unpacker {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.pages.append(self.at, bytes);
        self.at += u64::try_from(bytes.len()).expect("a length fits in 64 bits");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Unpacker {
    fn frame(&mut self, from: &mut impl Read, narrow: bool) -> Result<(), String> {
        let Header { mut window, checksum } = header(from)?;
        if narrow && window.is_power_of_two() && window >= 8 * BLOCK {
            window -= BLOCK + 1;
        }
        let mut decoder = decoder(window, checksum)?;
        let mut zeros = 0;
        while !decoder.is_finished() {
            let mut head = [0; 4];
            exact(from, &mut head[..3])?;
            let word = u32::from_le_bytes(head);
            let (last, repeats, len) = (word & 1 != 0, (word >> 1) & 3 == 1, u64::from(word >> 3));
            if !repeats {
                zeros = 0;
                self.block(&mut decoder, &head[..3], from)?;
                continue;
            }
            exact(from, &mut head[3..])?;
            if head[3] == 0 && !last && zeros >= window {
                // What the decoder still holds is zeros too: it does not matter which of them come first.
                self.at += len;
            } else {
                self.block(&mut decoder, &head, from)?;
            }
            zeros = if head[3] == 0 { zeros + len } else { 0 };
        }
        Ok(())
    }

    /// Unpacks a block whose first bytes were read already, and takes what can be taken.
    fn block(&mut self, decoder: &mut FrameDecoder, head: &[u8], from: &mut impl Read) -> Result<(), String> {
        let mut source = head.chain(from);
        decoder
            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|error| error.to_string())?;
        decoder.collect_to_writer(&mut *self).map_err(|error| error.to_string())?;
        if self.pages.kept() > MAX_KEPT || self.at > MAX_MEMORY {
            return Err(String::from("it holds more than 4 GiB of data; unpack it with `zstd -d` first"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use luosim_physmem::PhysAddr;

    use super::*;

    fn block(kind: u32, size: u32, last: bool, bytes: &[u8]) -> Vec<u8> {
        let head = size << 3 | kind << 1 | u32::from(last);
        [&head.to_le_bytes()[..3], bytes].concat()
    }

    /// A window of 1 MiB: a block of bytes, zeros, and a match that reaches back as far as it may.
    fn far(zeros: usize) -> Vec<u8> {
        let first: Vec<u8> = (0..128 << 10).map(|at: u32| at.to_le_bytes()[0] | 1).collect();
        // No literals; one sequence, each code repeated: no literal, offset code 20 (2^20 - 3), match of 3.
        let reach = [0, 1, 0x54, 0, 20, 0, 0, 0, 0x10];
        let mut frame = [&MAGIC[..], &[0, 10 << 3]].concat();
        frame.extend(block(0, 128 << 10, false, &first));
        (0..zeros).for_each(|_| frame.extend(block(1, 128 << 10, false, &[0])));
        frame.extend(block(2, 9, true, &reach));
        frame
    }

    #[test]
    fn a_match_that_reaches_far_back_needs_the_true_window() {
        let frame = far(7);
        frames(frame.as_slice(), true).expect_err("it reaches behind the narrow window");
        let pages = unpack(Cursor::new(frame)).expect("a good frame");
        let mut end = [0; 3];
        pages.read(PhysAddr::new(1 << 20), &mut end).expect("the match");
        assert_eq!((pages.size(), end), ((1 << 20) + 3, [3, 5, 5]));
    }

    #[test]
    fn zeros_beyond_the_window_are_left_out_and_counted() {
        let pages = unpack(Cursor::new(far(100))).expect("a good frame");
        assert_eq!((pages.size(), pages.kept()), (101 * (128 << 10) + 3, 128 << 10));
    }
}
