//! What a kernel file is, told by its content, and where in it the kernel lies.
//!
//! | file | how it is told | what is in it |
//! |---|---|---|
//! | `vmlinux` | ELF magic | loadable segments |
//! | `bzImage` | `HdrS` at 0x202, boot protocol 2.08 or later | a packed ELF file at `payload_offset` |
//! | arm64 `Image` | `ARM\x64` at 0x38 | itself; the page size in its flags |
//! | EFI zboot | `MZ`, then `zimg` | a packed `Image` |
//! | packed whole (`Image.gz`) | the packer's magic | any of these |
//!
//! A unified kernel image or any other EFI program is refused with a word on how to take the kernel out of it.

use object::elf::{EM_386, EM_AARCH64, EM_RISCV, EM_X86_64, FileHeader32, FileHeader64, Machine, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};
use serde::{Serialize, Serializer};

use crate::limits;
use crate::read::ReadError;

/// The machine that a kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Arm64,
    /// 32-bit x86, which has no KHO.
    X86,
    /// RISC-V, which has no KHO.
    RiscV,
    /// Another one, by its number in ELF files; none has KHO.
    Other(u16),
}

impl Arch {
    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::X86_64 => String::from("x86-64"),
            Self::Arm64 => String::from("arm64"),
            Self::X86 => String::from("x86-32"),
            Self::RiscV => String::from("riscv"),
            Self::Other(machine) => format!("machine {machine}"),
        }
    }

    const fn of_elf(machine: Machine) -> Self {
        match machine {
            EM_X86_64 => Self::X86_64,
            EM_AARCH64 => Self::Arm64,
            EM_386 => Self::X86,
            EM_RISCV => Self::RiscV,
            other => Self::Other(other.0),
        }
    }

    /// Bytes of a page where there is only one size.
    pub(crate) const fn only_page_size(self) -> Option<u32> {
        match self {
            Self::X86_64 | Self::X86 => Some(4096),
            Self::Arm64 | Self::RiscV | Self::Other(_) => None,
        }
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// What a kernel file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    /// An ELF file, as the kernel's linker makes it.
    Vmlinux,
    /// x86's compressed image with its setup code.
    BzImage,
    /// arm64's or RISC-V's flat image.
    Image,
    /// An EFI program that unpacks an `Image`.
    Zboot,
}

impl Container {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "bzImage",
            Self::Image => "Image",
            Self::Zboot => "EFI zboot",
        }
    }

    /// What the file is that begins with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x7fELF") {
            Some(Self::Vmlinux)
        } else if at(bytes, 0x202) == Some(*b"HdrS") && at(bytes, 0x1fe) == Some([0x55, 0xaa]) {
            Some(Self::BzImage)
        } else if bytes.starts_with(b"MZ") && at(bytes, 4) == Some(*b"zimg") {
            Some(Self::Zboot)
        } else {
            flat_arch(bytes).map(|_| Self::Image)
        }
    }
}

/// `N` bytes at an offset.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn part(bytes: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// The machine of a flat image.
pub(crate) fn flat_arch(bytes: &[u8]) -> Option<Arch> {
    match at(bytes, 0x38)? {
        [b'A', b'R', b'M', 0x64] => Some(Arch::Arm64),
        [b'R', b'S', b'C', 0x05] => Some(Arch::RiscV),
        _ => None,
    }
}

/// The page size in the header of an arm64 image: bits 1 and 2 of its flags.
pub(crate) fn flat_page_size(bytes: &[u8]) -> Option<u32> {
    match (u64::from_le_bytes(at(bytes, 0x18)?) >> 1) & 3 {
        1 => Some(4 << 10),
        2 => Some(16 << 10),
        3 => Some(64 << 10),
        _ => None,
    }
}

/// The packed kernel of a bzImage.
pub(crate) fn bzimage_payload(bytes: &[u8]) -> Result<&[u8], ReadError> {
    let short = || ReadError::Malformed { what: "bzImage", why: String::from("it is cut off") };
    let protocol = u16::from_le_bytes(at(bytes, 0x206).ok_or_else(short)?);
    if protocol < 0x208 {
        return Err(ReadError::OldProtocol { major: protocol >> 8, minor: protocol & 0xff });
    }
    let sectors = match bytes.get(0x1f1).copied().ok_or_else(short)? {
        0 => 4, // So it was before the field.
        sectors => u64::from(sectors),
    };
    let field = |offset| at(bytes, offset).map(u32::from_le_bytes).map(u64::from).ok_or_else(short);
    let code = (sectors + 1) * 512;
    part(bytes, code + field(0x248)?, field(0x24c)?).ok_or_else(|| ReadError::Malformed {
        what: "bzImage",
        why: String::from("its payload reaches beyond the end of the file"),
    })
}

/// The release that the setup code of a bzImage says.
pub(crate) fn bzimage_release(bytes: &[u8]) -> Option<String> {
    let offset = u16::from_le_bytes(at(bytes, 0x20e)?);
    crate::scan::release(bytes.get(usize::from(offset) + 0x200..)?)
}

/// The packed kernel of an EFI zboot image.
pub(crate) fn zboot_payload(bytes: &[u8]) -> Result<&[u8], ReadError> {
    let field = |offset| at(bytes, offset).map(u32::from_le_bytes).map(u64::from);
    let range = field(8).zip(field(12));
    range.and_then(|(offset, length)| part(bytes, offset, length)).ok_or_else(|| ReadError::Malformed {
        what: "EFI zboot image",
        why: String::from("its payload reaches beyond the end of the file"),
    })
}

fn elf_error(why: &str) -> ReadError {
    ReadError::Malformed { what: "ELF file", why: why.to_owned() }
}

/// Hands each loadable segment of an ELF file of `length` bytes to `look`; returns the machine.
pub(crate) fn elf_segments<'data, R: ReadRef<'data>>(
    data: R,
    length: u64,
    look: impl FnMut(&[u8]),
) -> Result<Arch, ReadError> {
    let class = data.read_bytes_at(4, 1).map_err(|()| elf_error("it is cut off"))?;
    match class {
        [1] => segments::<FileHeader32<Endianness>, R>(data, length, look),
        [2] => segments::<FileHeader64<Endianness>, R>(data, length, look),
        _ => Err(elf_error("it is of no known class")),
    }
}

fn segments<'data, H, R>(data: R, length: u64, mut look: impl FnMut(&[u8])) -> Result<Arch, ReadError>
where
    H: FileHeader,
    R: ReadRef<'data>,
{
    let why = |error: object::read::Error| elf_error(&error.to_string());
    let header = H::parse(data).map_err(why)?;
    let endian = header.endian().map_err(why)?;
    let headers = header.program_headers(endian, data).map_err(why)?;
    let loadable = headers.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let ranges: Vec<(u64, u64)> = loadable
        .map(|segment| (segment.p_offset(endian).into(), segment.p_filesz(endian).into()))
        .filter(|(_, size)| *size > 0)
        .collect();
    if ranges.is_empty() {
        return Err(elf_error("it has no loadable segments, so it is no kernel"));
    }
    let mut total = 0_u64;
    for (offset, size) in ranges {
        // Before it is read: a reader may allocate what is asked for.
        total = total.saturating_add(size);
        if total > limits::UNPACKED {
            return Err(ReadError::TooLarge { what: "all loadable segments", limit: limits::UNPACKED });
        }
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(elf_error("a segment reaches beyond the end of the file"));
        }
        look(data.read_bytes_at(offset, size).map_err(|()| elf_error("a segment cannot be read"))?);
    }
    Ok(Arch::of_elf(header.e_machine(endian)))
}
