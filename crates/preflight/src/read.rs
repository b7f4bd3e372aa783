//! Reading a kernel file down to its strings.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use luosim_abi::release::Release;
use object::ReadCache;
use serde::Serialize;

use crate::container::{self, Arch, Container};
use crate::scan::Found;
use crate::{Config, Formats, Known, Packing, known, limits};

/// A file that is no kernel, or none that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The host does not give it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A folder, a pipe or a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// More than is read.
    #[error("{what} has more than {limit} bytes, which no kernel has")]
    TooLarge {
        /// What has.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Nothing that is known.
    #[error(
        "this is no kernel: neither an ELF file, a bzImage, an arm64 Image, an EFI zboot image, nor one of these packed"
    )]
    Unknown,
    /// A program or a library.
    #[error("this {0} has neither a Linux banner nor a KHO version: it is no kernel")]
    NoBanner(&'static str),
    /// An EFI program, with the kernel somewhere inside.
    #[error(
        "this is an EFI program but no kernel; from a unified kernel image the kernel comes out with \
         `objcopy -O binary --only-section=.linux IMAGE KERNEL`"
    )]
    EfiProgram,
    /// lz4, but not as the kernel packs.
    #[error("this is packed with lz4 in its frame format; kernels are packed with `lz4 -l`")]
    Lz4Frame,
    /// A bzImage from before `payload_offset`.
    #[error("this bzImage speaks boot protocol {major}.{minor:02}; its kernel can be found from 2.08 on")]
    OldProtocol {
        /// Before the point.
        major: u16,
        /// Behind it.
        minor: u16,
    },
    /// A container that contradicts itself.
    #[error("the {what} is damaged: {why}")]
    Malformed {
        /// What it is.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A payload that does not unpack.
    #[error("the payload does not unpack ({packing}): {why}")]
    Broken {
        /// What it is packed with.
        packing: &'static str,
        /// What the unpacker said.
        why: String,
    },
    /// Containers in containers in containers.
    #[error("more than {} containers lie in each other", limits::DEPTH)]
    TooDeep,
}

/// Where what is known of a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Source {
    /// luosim's table of releases.
    Release,
    /// A file.
    File {
        /// What it is.
        container: Container,
        /// What it is packed with, from the outside to the inside.
        packings: Vec<Packing>,
    },
}

/// A kernel, as far as a live update goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Where this comes from.
    #[serde(flatten)]
    pub source: Source,
    /// Its release, as `uname -r` gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// What it writes and reads.
    #[serde(flatten)]
    pub formats: Formats,
    /// Its build configuration, if the file has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    /// Whether it is of a release that has KHO, and was built without.
    pub built_without: bool,
    /// What is odd about the file.
    pub warnings: Vec<String>,
}

impl Kernel {
    /// A release that luosim knows.
    #[must_use]
    pub fn of_release(release: &Release) -> Self {
        Self {
            source: Source::Release,
            release: Some(release.point.to_owned()),
            formats: Formats::of_release(release),
            config: None,
            built_without: false,
            warnings: Vec::new(),
        }
    }

    /// Reads a kernel file.
    ///
    /// # Errors
    /// If it cannot be read, or is no kernel that can be taken apart.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ReadError::NotAFile);
        }
        let mut start = [0; 4];
        let elf = file.read_exact(&mut start).is_ok() && start == *b"\x7fELF";
        file.seek(SeekFrom::Start(0))?;
        if elf {
            // With debug information a vmlinux has a gibibyte, of which only the segments matter.
            let cache = ReadCache::new(file);
            return Opened::elf(&cache, metadata.len(), Vec::new());
        }
        let mut bytes = Vec::new();
        file.take(limits::FILE + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > limits::FILE) {
            return Err(ReadError::TooLarge { what: "the file", limit: limits::FILE });
        }
        Self::from_bytes(&bytes)
    }

    /// Reads a kernel file that is in memory.
    ///
    /// # Errors
    /// If it is no kernel that can be taken apart.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        Opened::default().open(bytes, limits::DEPTH)
    }

    /// Whether it can hand anything over, or take anything over.
    #[must_use]
    pub fn has_kho(&self) -> bool {
        self.formats.kho.is_some()
    }

    /// Why it can hand nothing over and take nothing over; `None` if it can.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        let off = self.config.is_some_and(|config| config.kexec_handover == Some(false));
        match () {
            () if self.has_kho() => None,
            () if self.built_without || off => Some("built without KEXEC_HANDOVER: nothing can survive"),
            () if self.release.as_deref().is_some_and(older_than_kho) => {
                Some("older than KHO, which came with Linux 6.16: nothing can survive")
            }
            () => Some("has no KHO: nothing can survive"),
        }
    }
}

/// Containers that were opened on the way to the kernel.
#[derive(Debug, Default)]
struct Opened {
    /// The outermost that says how the kernel is booted.
    container: Option<Container>,
    packings: Vec<Packing>,
    /// The release that a container says.
    release: Option<String>,
}

impl Opened {
    fn elf<'data, R: object::ReadRef<'data>>(
        data: R,
        length: u64,
        packings: Vec<Packing>,
    ) -> Result<Kernel, ReadError> {
        Self { packings, ..Self::default() }.finish_elf(data, length)
    }

    fn open(mut self, bytes: &[u8], depth: u32) -> Result<Kernel, ReadError> {
        let depth = depth.checked_sub(1).ok_or(ReadError::TooDeep)?;
        match Container::of(bytes) {
            Some(Container::Vmlinux) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.finish_elf(bytes, length)
            }
            Some(Container::BzImage) => {
                self.container.get_or_insert(Container::BzImage);
                self.release = container::bzimage_release(bytes);
                self.inside(container::bzimage_payload(bytes)?, depth)
            }
            Some(Container::Zboot) => {
                self.container.get_or_insert(Container::Zboot);
                self.inside(container::zboot_payload(bytes)?, depth)
            }
            Some(Container::Image) => self.finish_flat(bytes),
            None if Packing::of(bytes).is_some() => self.inside(bytes, depth),
            None if bytes.starts_with(b"MZ") => Err(ReadError::EfiProgram),
            None if bytes.starts_with(&[0x04, 0x22, 0x4d, 0x18]) => Err(ReadError::Lz4Frame),
            None => Err(ReadError::Unknown),
        }
    }

    /// Goes on with what a payload holds, packed or not.
    fn inside(mut self, payload: &[u8], depth: u32) -> Result<Kernel, ReadError> {
        match Packing::of(payload) {
            Some(packing) => {
                self.packings.push(packing);
                let unpacked = packing.unpack(payload)?;
                self.open(&unpacked, depth)
            }
            None => self.open(payload, depth),
        }
    }

    fn finish_elf<'data, R: object::ReadRef<'data>>(self, data: R, length: u64) -> Result<Kernel, ReadError> {
        let mut found = Found::default();
        let arch = container::elf_segments(data, length, |bytes| found.look(bytes))?;
        self.kernel(Container::Vmlinux, Some(arch), arch.only_page_size(), found)
    }

    fn finish_flat(self, bytes: &[u8]) -> Result<Kernel, ReadError> {
        let mut found = Found::default();
        found.look(bytes);
        let arch = container::flat_arch(bytes);
        let page_size = container::flat_page_size(bytes).filter(|_| arch == Some(Arch::Arm64));
        self.kernel(Container::Image, arch, page_size, found)
    }

    fn kernel(
        self,
        inner: Container,
        arch: Option<Arch>,
        page_size: Option<u32>,
        found: Found,
    ) -> Result<Kernel, ReadError> {
        let (mut formats, mut warnings) = Formats::sort(&found.strings);
        formats.arch = arch;
        formats.page_size = page_size.or(found.config.and_then(|config| config.page_size));
        let release = found.release.or(self.release);
        let container = self.container.unwrap_or(inner);
        if release.is_none() {
            formats.kho.as_ref().ok_or(ReadError::NoBanner(container.name()))?;
            warnings.push(String::from("no banner says which release this is"));
        }
        warnings.extend(history(&formats));
        warnings.extend(contradiction(found.config, &formats));
        let source = Source::File { container, packings: self.packings };
        let built_without = formats.kho.is_none() && found.built_without;
        Ok(Kernel { source, release, formats, config: found.config, built_without, warnings })
    }
}

/// Whether a release is from before 6.16.
fn older_than_kho(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let pair = numbers.next().zip(numbers.next());
    pair.is_some_and(|pair| matches!(pair, (Ok(major), Ok(minor)) if (major, minor) < (6, 16)))
}

/// A word on each string that no release has.
fn history(formats: &Formats) -> impl Iterator<Item = String> {
    formats.strings().filter_map(|string| match known(string) {
        Known::Shipped => None,
        Known::Development => Some(format!("{string} never shipped: this is a development snapshot")),
        Known::Unknown => Some(format!("{string} is not of a release that luosim knows")),
    })
}

fn contradiction(config: Option<Config>, formats: &Formats) -> Option<String> {
    let config = config?;
    let missing = |on: Option<bool>, string: &Option<String>| on == Some(true) && string.is_none();
    let what = if missing(config.kexec_handover, &formats.kho) {
        "CONFIG_KEXEC_HANDOVER is on, but there is no KHO version"
    } else if missing(config.liveupdate, &formats.luo) {
        "CONFIG_LIVEUPDATE is on, but there is no LUO version"
    } else {
        return None;
    };
    Some(format!("{what}; it may be of a form that luosim does not know"))
}
