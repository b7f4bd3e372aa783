//! Handover memory recorded from real kernels: a folder with the compressed memory and a manifest.
//!
//! Manifests are read as far as they are needed:
//! memory size, the two address/size pairs, and what each file must look like.

use std::io::Read;
use std::path::Path;

use luosim_kho::BootParams;
use luosim_physmem::{PhysAddr, PhysMem};
use serde::Deserialize;

/// An image that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the host said.
        source: std::io::Error,
    },
    /// The manifest is not one.
    #[error("{path} is not a manifest: {why}")]
    Manifest {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The memory is not what the manifest says.
    #[error("{path} does not hold {bytes} bytes of memory: {why}")]
    Memory {
        /// The file.
        path: String,
        /// Bytes the manifest promises.
        bytes: u64,
        /// What is wrong.
        why: String,
    },
}

/// One preserved file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FileEntry {
    /// Token, decimal.
    pub token: String,
    /// Bytes.
    pub size: u64,
    /// Position.
    pub pos: u64,
    /// Seals at PRESERVE_FD.
    pub seals: u32,
    /// Digest of the contents, hexadecimal.
    pub sha256: String,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SessionEntry {
    /// Name, hexadecimal.
    pub name_hex: String,
    /// Files in order.
    pub files: Vec<FileEntry>,
}

#[derive(Clone, Debug, Deserialize)]
struct Kho {
    fdt_phys: String,
    fdt_size: u64,
    scratch_phys: String,
    scratch_size: u64,
}

/// What the manifest says.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// Kernel that wrote the memory, `7.3.4`.
    pub kernel: String,
    /// Bytes of memory.
    pub mem_bytes: u64,
    /// The sessions in order.
    #[serde(default)]
    pub sessions: Vec<SessionEntry>,
    kho: Kho,
}

/// Largest memory an image may ask for.
const MAX_MEMORY: u64 = 64 << 30;

fn hex_number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

impl Manifest {
    /// Reads `manifest.json` in `folder`.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join("manifest.json");
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ImageError::Read { path: shown.clone(), source })?;
        let bad = |why: String| ImageError::Manifest { path: shown.clone(), why };
        let manifest: Self = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        manifest.params().ok_or_else(|| bad(String::from("its addresses are not numbers")))?;
        Ok(manifest)
    }

    /// The two address/size pairs.
    #[must_use]
    pub fn params(&self) -> Option<BootParams> {
        Some(BootParams {
            fdt: PhysAddr::new(hex_number(&self.kho.fdt_phys)?),
            fdt_size: self.kho.fdt_size,
            scratch: PhysAddr::new(hex_number(&self.kho.scratch_phys)?),
            scratch_size: self.kho.scratch_size,
        })
    }
}

/// Reads the memory of the image in `folder`. Pages of zeros are not touched.
///
/// # Errors
/// [`ImageError`].
pub fn load(folder: &Path, manifest: &Manifest) -> Result<PhysMem, ImageError> {
    let plain = folder.join("ram.bin");
    let packed = folder.join("ram.zst");
    let path = if packed.exists() { &packed } else { &plain };
    let shown = path.display().to_string();
    let bytes = manifest.mem_bytes;
    let bad = |why: String| ImageError::Memory { path: shown.clone(), bytes, why };
    if bytes > MAX_MEMORY {
        return Err(bad(String::from("luosim reads images of up to 64 GiB")));
    }
    let file =
        std::fs::File::open(path).map_err(|source| ImageError::Read { path: shown.clone(), source })?;
    let mut memory = PhysMem::anonymous(bytes).map_err(|error| bad(error.to_string()))?;
    if !packed.exists() {
        fill_sparse(&mut memory, &file).map_err(bad)?;
        return Ok(memory);
    }
    let decoder = ruzstd::decoding::StreamingDecoder::new(file).map_err(|error| bad(error.to_string()))?;
    fill(&mut memory, decoder).map_err(bad)?;
    Ok(memory)
}

/// Reads a plain image; a host that knows of holes in it is asked for them.
fn fill_sparse(memory: &mut PhysMem, file: &std::fs::File) -> Result<(), String> {
    use std::os::unix::fs::FileExt;
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    if len != memory.len() {
        return Err(format!("it has {len} bytes"));
    }
    let mut page = [0u8; 4096];
    let mut at = next_data(file, 0);
    while at < len {
        file.read_exact_at(&mut page, at).map_err(|error| format!("at {at:#x}: {error}"))?;
        if page.iter().any(|byte| *byte != 0) {
            memory.write(PhysAddr::new(at), &page).map_err(|error| error.to_string())?;
        }
        at = next_data(file, at + 4096);
    }
    Ok(())
}

/// Where the next page with data begins, at or after `at`.
fn next_data(file: &std::fs::File, at: u64) -> u64 {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(found) => found & !4095,
        // No more data; or a file system that does not tell.
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        Err(_) => at,
    }
}

fn fill(memory: &mut PhysMem, mut from: impl Read) -> Result<(), String> {
    let mut page = [0u8; 4096];
    let mut at = 0;
    while at < memory.len() {
        from.read_exact(&mut page).map_err(|error| format!("it ends at {at:#x}: {error}"))?;
        if page.iter().any(|byte| *byte != 0) {
            memory.write(PhysAddr::new(at), &page).map_err(|error| error.to_string())?;
        }
        at += 4096;
    }
    match from.read(&mut page) {
        Ok(0) => Ok(()),
        Ok(_) => Err(String::from("it goes on after that")),
        Err(error) => Err(error.to_string()),
    }
}

/// Bytes of a hexadecimal text.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// Hexadecimal text of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
