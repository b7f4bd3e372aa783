//! Recorded memory of real kernels: everything the manifests say is found, and nothing is wrong with it.

use std::path::Path;

use luosim_inspect::{Inspection, Owner};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::world::{complaints, inspected, manifest, recorded};

/// Sessions and files in the form of a manifest.
fn sessions(inspection: &Inspection) -> Value {
    let luo = inspection.report.luo.as_ref().expect("an orchestrator");
    let sessions = luo.sessions.iter().map(|session| {
        let files = session.files.iter().map(|file| {
            let memfd = file.memfd.as_ref().expect("a memory file");
            json!({
                "token": file.token.to_string(), "size": memfd.size, "pos": memfd.pos,
                "seals": memfd.seals, "sha256": memfd.sha256,
            })
        });
        json!({ "name_hex": session.name_hex, "files": files.collect::<Vec<_>>() })
    });
    sessions.collect()
}

/// What the manifest says of the sessions; `memfd-v1` keeps no seals.
fn wanted(manifest: &Value, seals: bool) -> Value {
    let sessions = manifest["sessions"].as_array().expect("sessions").iter().map(|session| {
        let files = session["files"].as_array().expect("files").iter().map(|file| {
            let mut file = file.as_object().expect("a file").clone();
            file.retain(|name, _| ["token", "size", "pos", "seals", "sha256"].contains(&name.as_str()));
            if !seals {
                file.insert(String::from("seals"), Value::Null);
            }
            Value::Object(file)
        });
        json!({ "name_hex": session["name_hex"], "files": files.collect::<Vec<_>>() })
    });
    sessions.collect()
}

fn check(folder: &Path) {
    let (manifest, inspection) = (manifest(folder), inspected(folder));
    let report = &inspection.report;
    assert_eq!(complaints(&inspection), Vec::<String>::new(), "{}", folder.display());
    let decoded = &manifest["decoded"];
    let root = report.root.as_ref().expect("a root");
    assert_eq!(json!(root.at), manifest["kho"]["fdt_phys"]);
    assert_eq!(
        (json!(root.compatible), json!(root.map_at)),
        (decoded["kho"].clone(), decoded["memory_map_phys"].clone())
    );
    let luo = report.luo.as_ref().expect("an orchestrator");
    assert_eq!(
        (json!(luo.compatible), json!(luo.number)),
        (decoded["luo"].clone(), decoded["liveupdate_num"].clone())
    );
    let flbs = luo.flbs.iter().map(|flb| json!({ "name": flb.name, "data": flb.data, "count": flb.count }));
    assert_eq!(flbs.collect::<Value>(), decoded["flbs"]);
    let areas = &report.scratch.as_ref().expect("scratch").areas;
    let areas = areas.iter().map(|area| json!([area.at, format!("{:#x}", area.bytes)]));
    assert_eq!(areas.collect::<Value>(), decoded["scratch"]);
    let metadata = report.metadata.as_ref().map(|metadata| {
        json!({ "version": metadata.version, "previous_release": metadata.release, "kexec_count": metadata.kexec_count })
    });
    assert_eq!(json!(metadata), decoded["metadata"]);
    let orders = report.map.as_ref().expect("a map").orders.iter();
    let orders = orders.map(|count| (format!("order{}", count.order), json!(count.blocks)));
    assert_eq!(Value::Object(orders.collect()), manifest["preserved"]);
    let seals = decoded["kho"] != "kho-v1";
    assert_eq!(sessions(&inspection), wanted(&manifest, seals), "{}", folder.display());
}

#[test]
fn everything_in_the_manifests_is_found() {
    for folder in recorded() {
        check(&folder);
    }
}

#[test]
fn extracted_files_have_the_recorded_contents_and_keep_their_holes() {
    for folder in recorded() {
        let inspection = inspected(&folder);
        for (index, session) in inspection.report.luo.as_ref().expect("one").sessions.iter().enumerate() {
            for (number, file) in session.files.iter().enumerate() {
                let memfd = file.memfd.as_ref().expect("a memory file");
                let to = tempfile::NamedTempFile::new().expect("a file");
                assert!(inspection.extract(index, number, to.as_file()).expect("written"));
                let bytes = std::fs::read(to.path()).expect("readable");
                let digest: String =
                    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!((bytes.len() as u64, Some(&digest)), (memfd.size, memfd.sha256.as_ref()));
            }
        }
    }
}

#[test]
fn every_preserved_page_has_an_owner() {
    for folder in recorded() {
        let inspection = inspected(&folder);
        let map = inspection.report.map.as_ref().expect("a map");
        assert_eq!(map.unowned_blocks, 0, "{}", folder.display());
        let outside = [Owner::Tracker, Owner::ScratchArray];
        let owned = inspection.owned.iter().filter(|run| !outside.contains(&run.owner));
        assert_eq!(owned.map(|run| run.pages * 4096).sum::<u64>(), map.bytes, "{}", folder.display());
    }
}
