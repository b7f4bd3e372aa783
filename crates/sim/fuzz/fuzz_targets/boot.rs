//! Every release boots on a spoiled memory.
#![no_main]

use std::cell::RefCell;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use luosim_sim::hostile::Arena;

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(arena());
}

fn arena() -> Arena {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
    Arena::of_recordings(&recordings).expect("the recordings are in the repository")
}

fuzz_target!(|data: &[u8]| {
    ARENA.with_borrow_mut(|arena| arena.boot(data));
});
