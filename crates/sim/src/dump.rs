//! Writing the memory that crosses a kexec, as a folder that a machine can boot on: `ram.bin`, sparse, where recorded
//! images have `ram.zst`, and a `manifest.json` that names the two pairs and no sessions.

use std::io::Write;
use std::path::Path;

use luosim_kho::BootParams;
use luosim_physmem::{PAGE_SIZE, PhysAddr, PhysMem};

/// Writes `ram.bin` (sparse, physical address 0 first) and `manifest.json` with the two pairs.
///
/// # Errors
/// What the host says, with the path.
pub fn write(
    folder: &Path,
    kernel: &str,
    memory: &PhysMem,
    params: Option<BootParams>,
) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(fail)?;
    let mut file = std::fs::File::create(folder.join("ram.bin")).map_err(fail)?;
    write_sparse(&mut file, memory).map_err(fail)?;
    let params = params.map(|params| {
        serde_json::json!({
            "fdt_phys": params.fdt.to_string(),
            "fdt_size": params.fdt_size,
            "scratch_phys": params.scratch.to_string(),
            "scratch_size": params.scratch_size,
        })
    });
    let manifest = serde_json::json!({ "kernel": kernel, "mem_bytes": memory.len(), "kho": params });
    let text = format!("{manifest:#}\n");
    std::fs::write(folder.join("manifest.json"), text).map_err(fail)
}

fn write_sparse(file: &mut std::fs::File, memory: &PhysMem) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut page = [0u8; 4096];
    for pfn in memory.touched().into_iter().flatten() {
        let at = PhysAddr::new(pfn * PAGE_SIZE);
        memory.read(at, &mut page).expect("inside memory");
        if page.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(at.raw()))?;
            file.write_all(&page)?;
        }
    }
    file.set_len(memory.len())
}
