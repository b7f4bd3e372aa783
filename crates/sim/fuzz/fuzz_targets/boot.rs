//! Every release boots on a spoiled memory.
#![no_main]

use std::cell::RefCell;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use luosim_physmem::PhysMem;
use luosim_sim::golden::{Manifest, load};
use luosim_sim::hostile::{Arena, Base, empty_params};

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(arena());
}

/// An empty memory, and the recordings in the repository.
fn arena() -> Arena {
    let mut bases = vec![Base { memory: PhysMem::anonymous(16 << 20).expect("small"), params: empty_params() }];
    for kernel in ["6.19.6", "7.1.13", "7.2.13", "7.3.4"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/data/golden/{kernel}/small"));
        let manifest = Manifest::read(&folder).expect("a manifest");
        let params = manifest.params().expect("checked when read");
        bases.push(Base { memory: load(&folder, &manifest).expect("its memory"), params });
    }
    Arena::new(bases)
}

fuzz_target!(|data: &[u8]| {
    ARENA.with_borrow_mut(|arena| arena.boot(data));
});
