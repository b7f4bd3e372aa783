//! A wrong bit in recorded handover memory, on the pages that are easy to name. (`luosim inspect --flip-survey` knows all.)

use std::path::{Path, PathBuf};

use luosim_abi::release::ReleaseId;
use luosim_kho::BootParams;
use luosim_physmem::PhysMem;
use luosim_sim::flips::{BITS_PER_PAGE, Row, Structure, survey};
use luosim_sim::golden::{Manifest, load};

fn small(kernel: &str) -> (PhysMem, BootParams) {
    let folder: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/golden/{kernel}/small"));
    let manifest = Manifest::read(&folder).expect("a manifest");
    (load(&folder, &manifest).expect("its memory"), manifest.params().expect("checked when read"))
}

fn root_tree(kernel: &str, release: ReleaseId) -> Row {
    let (memory, params) = small(kernel);
    let root = Structure { name: String::from("root tree"), pages: vec![params.fdt.pfn()] };
    let mut done = 0;
    let rows = survey(memory, params, release, &[root], |flips| done += flips).expect("a good recording");
    assert_eq!(done, BITS_PER_PAGE);
    rows.into_iter().next().expect("one structure")
}

#[test]
fn every_bit_of_the_root_tree() {
    let row = root_tree("7.3.4", ReleaseId::V7_3);
    assert_eq!(row.flips(), BITS_PER_PAGE);
    let [harmless, refused, panics, silent] = row.counts;
    assert!(harmless > 30_000, "most of the page is behind the tree: {row:?}");
    assert!(refused > 1500 && panics > 150, "{row:?}");
    // Who the previous kernel was: a subtree that is not found is not missed.
    assert!((1..200).contains(&silent), "{row:?}");
}

#[test]
fn a_survey_needs_a_handover_that_works() {
    let (memory, params) = small("7.3.4");
    let error = survey(memory, params, ReleaseId::V6_19, &[], |_| {}).expect_err("another kernel's");
    assert_eq!(
        error.to_string(),
        "without any flip, the handover is not taken over (KHO root kho-v4 refused by kho-v1): there is nothing to \
         compare with"
    );
}

/// The first letter of the first session's name: that session is not found, and the others are compared with
/// themselves.
#[test]
fn a_session_that_is_missing_hides_no_other() {
    let (memory, params) = small("7.3.4");
    let page = (0..memory.len() / 4096)
        .map(luosim_physmem::Pfn::new)
        .find(|pfn| {
            let mut head = [0; 22];
            memory.read(pfn.addr(), &mut head).expect("inside");
            &head[16..] == b"alpha\0"
        })
        .expect("the block of sessions");
    let sessions = Structure { name: String::from("sessions"), pages: vec![page] };
    let rows = survey(memory, params, ReleaseId::V7_3, &[sessions], |_| {}).expect("a good recording");
    assert_eq!(rows[0].counts[3], 0, "no bit of a session record goes unnoticed: {:?}", rows[0]);
    assert!(rows[0].counts[1] > 900, "{:?}", rows[0]);
}
