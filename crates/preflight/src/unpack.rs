//! Unpacking what a kernel file is packed with, told by its first bytes.
//!
//! Each unpacker stops at the end of its stream: the kernel's build appends the unpacked size to most payloads, and
//! a signature may follow. Output beyond [`limits::UNPACKED`] is an error.
//!
//! The framings are the kernel's: `lz4 -l` (chunks of 8 MiB, each with its packed size), `lzop` (blocks with their
//! sizes), the others as their tools write them. What is not checked: checksums of lzop blocks and of gzip's header.

use std::io::{self, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use serde::Serialize;
use twox_hash::XxHash64;

use crate::limits;
use crate::read::ReadError;

/// What a payload is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// `gzip`.
    Gzip,
    /// `xz`, with the filter for machine code.
    Xz,
    /// `zstd`.
    Zstd,
    /// `lz4` in its legacy framing.
    Lz4,
    /// `lzma`, the format before `xz`.
    Lzma,
    /// `lzop`.
    Lzo,
    /// `bzip2`.
    Bzip2,
}

const MAGICS: &[(&[u8], Packing)] = &[
    (&[0x1f, 0x8b], Packing::Gzip),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Packing::Xz),
    (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
    (&[0x02, 0x21, 0x4c, 0x18], Packing::Lz4),
    (&[0x5d, 0, 0], Packing::Lzma),
    (LZOP_MAGIC, Packing::Lzo),
    (b"BZh", Packing::Bzip2),
];

const LZOP_MAGIC: &[u8] = &[0x89, b'L', b'Z', b'O', 0, b'\r', b'\n', 0x1a, b'\n'];

impl Packing {
    /// What these bytes are packed with, by how they begin.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, packing)| *packing)
    }

    /// Its name, as of the tool that makes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Bzip2 => "bzip2",
        }
    }

    /// Unpacks one stream from the beginning of `bytes`.
    pub(crate) fn unpack(self, bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
        let broken = |why: String| ReadError::Broken { packing: self.name(), why };
        let unpacked = match self {
            Self::Gzip => capped(flate2::bufread::GzDecoder::new(bytes)),
            Self::Bzip2 => capped(bzip2::bufread::BzDecoder::new(bytes)),
            Self::Xz => capped(lzma_rust2::XzReader::new_mem_limit(bytes, false, limits::DICTIONARY_KIB)),
            Self::Lzma => {
                lzma_rust2::LzmaReader::new_mem_limit(bytes, limits::DICTIONARY_KIB, None).and_then(capped)
            }
            Self::Zstd => zstd(bytes),
            Self::Lz4 => lz4_legacy(bytes),
            Self::Lzo => lzop(bytes),
        };
        unpacked.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => {
                ReadError::TooLarge { what: "the unpacked payload", limit: limits::UNPACKED }
            }
            _ => broken(error.to_string()),
        })
    }
}

/// Refuses more output than is allowed.
fn check(length: usize) -> io::Result<()> {
    let too_large = u64::try_from(length).is_ok_and(|length| length > limits::UNPACKED);
    if too_large { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Reads to the end, but not more than is allowed.
fn capped(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limits::UNPACKED + 1).read_to_end(&mut bytes)?;
    check(bytes.len())?;
    Ok(bytes)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The first `N` bytes, which are taken off.
fn take<const N: usize>(bytes: &mut &[u8]) -> io::Result<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(|| invalid("it ends too early"))?;
    *bytes = rest;
    Ok(*first)
}

fn slice<'a>(bytes: &mut &'a [u8], length: usize) -> io::Result<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(length).ok_or_else(|| invalid("it ends too early"))?;
    *bytes = rest;
    Ok(first)
}

/// The kernel packs with `zstd --ultra -22`, which asks for a window of 128 MiB; the decoder refuses more than 100.
/// The window says only how much a decoder has to keep, and here everything is kept until the end: the frame gets a
/// header with a small window.
fn zstd(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    const WINDOW: u8 = 13 << 3;
    const STEP: usize = 8 << 20;
    let broken = |error: &dyn std::fmt::Display| invalid(&error.to_string());
    let descriptor = zstd_header(&mut bytes)?;
    let header = [0x28, 0xb5, 0x2f, 0xfd, descriptor, WINDOW];
    let mut source = (&header[..]).chain(bytes);
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut source).map_err(|error| broken(&error))?;
    loop {
        let done = decoder
            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBytes(STEP))
            .map_err(|error| broken(&error))?;
        check(decoder.can_collect())?;
        if done {
            break;
        }
    }
    let unpacked = decoder.collect().unwrap_or_default();
    // A frame carries the lower half of its digest.
    let is = XxHash64::oneshot(0, &unpacked) & u64::from(u32::MAX);
    if decoder.get_checksum_from_data().is_some_and(|said| u64::from(said) != is) {
        return Err(invalid("its checksum is wrong"));
    }
    Ok(unpacked)
}

/// Passes over a frame header; returns a descriptor that says only whether a checksum follows the blocks.
fn zstd_header(bytes: &mut &[u8]) -> io::Result<u8> {
    const CHECKSUM: u8 = 0x04;
    const SINGLE_SEGMENT: u8 = 0x20;
    take::<4>(bytes)?;
    let [descriptor] = take(bytes)?;
    let single = descriptor & SINGLE_SEGMENT != 0;
    if !single {
        take::<1>(bytes)?;
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    if slice(bytes, dictionary)?.iter().any(|byte| *byte != 0) {
        return Err(invalid("it needs a dictionary"));
    }
    let size = [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
    slice(bytes, size)?;
    Ok(descriptor & CHECKSUM)
}

/// Legacy lz4: a magic number, then chunks. The kernel's build appends the unpacked size, which has no chunk behind it.
fn lz4_legacy(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    const MAGIC: u32 = 0x184c_2102;
    const CHUNK: usize = 8 << 20;
    take::<4>(&mut bytes)?;
    let mut unpacked = Vec::new();
    let mut chunk = Vec::new();
    while let Ok(size) = take(&mut bytes).map(u32::from_le_bytes) {
        if size == MAGIC {
            continue;
        }
        if bytes.is_empty() && !unpacked.is_empty() {
            break;
        }
        let packed = slice(&mut bytes, usize::try_from(size).map_err(|_| invalid("a chunk is too large"))?)?;
        chunk.resize(CHUNK, 0);
        let length = lz4_flex::block::decompress_into(packed, &mut chunk)
            .map_err(|error| invalid(&error.to_string()))?;
        unpacked.extend_from_slice(chunk.get(..length).unwrap_or_default());
        check(unpacked.len())?;
    }
    Ok(unpacked)
}

/// lzop: a header of a size that depends on its flags, then blocks until one of size 0.
fn lzop(mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    // The tool never makes blocks larger than this; one that claims to be would have its room allocated first.
    const BLOCK: u32 = 64 << 20;
    let flags = lzop_header(&mut bytes)?;
    let checksums =
        |either: [u32; 2]| usize::from(flags & either[0] != 0) + usize::from(flags & either[1] != 0);
    let (of_unpacked, of_packed) = (checksums([1, 0x100]), checksums([2, 0x200]));
    let mut unpacked = Vec::new();
    loop {
        let size = u32::from_be_bytes(take(&mut bytes)?);
        check(unpacked.len())?;
        if size == 0 {
            return Ok(unpacked);
        }
        let packed_size = u32::from_be_bytes(take(&mut bytes)?);
        if size > BLOCK || packed_size > size {
            return Err(invalid("a block is too large"));
        }
        let stored = packed_size == size;
        slice(&mut bytes, 4 * (of_unpacked + if stored { 0 } else { of_packed }))?;
        let packed = slice(&mut bytes, usize::try_from(packed_size).map_err(io::Error::other)?)?;
        if stored {
            unpacked.extend_from_slice(packed);
        } else {
            unpacked.extend(lzo_block(packed, usize::try_from(size).map_err(io::Error::other)?)?);
        }
    }
}

fn lzo_block(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    let mut block = vec![0; size];
    match lzokay::decompress::decompress(packed, &mut block) {
        Ok(length) if length == size => Ok(block),
        Ok(_) => Err(invalid("a block is shorter than it says")),
        Err(error) => Err(invalid(&error.to_string())),
    }
}

/// Passes over a header; returns its flags.
fn lzop_header(bytes: &mut &[u8]) -> io::Result<u32> {
    const FILTER: u32 = 0x800;
    const EXTRA: u32 = 0x40;
    slice(bytes, LZOP_MAGIC.len())?;
    let version = u16::from_be_bytes(take(bytes)?);
    // Version of the library; of the program that can read it, from 0.940 on; method; level, likewise.
    slice(bytes, if version >= 0x940 { 2 + 2 + 1 + 1 } else { 2 + 1 })?;
    let flags = u32::from_be_bytes(take(bytes)?);
    if flags & FILTER != 0 {
        return Err(invalid("it is filtered"));
    }
    // Mode, time, and the upper half of the time from 0.940 on.
    slice(bytes, if version >= 0x940 { 12 } else { 8 })?;
    let [name] = take(bytes)?;
    slice(bytes, usize::from(name) + 4)?;
    if flags & EXTRA != 0 {
        let size = u32::from_be_bytes(take(bytes)?);
        slice(bytes, usize::try_from(size).map_err(io::Error::other)?)?;
        slice(bytes, 4)?;
    }
    Ok(flags)
}
