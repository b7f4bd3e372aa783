//! Arbitrary and spoiled memories under every release: the property that the fuzzer looks for violations of, with the
//! inputs of its corpus and with inputs of our own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use luosim_sim::explore::fuzz;
use luosim_sim::explore::world::World;
use luosim_sim::hostile::Arena;
use proptest::prelude::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn arena() -> Arena {
    Arena::of_recordings(&root().join("tests/data/golden")).expect("the recordings are in the repository")
}

/// The inputs that the fuzzer starts from: each is survived, and they are what they say.
#[test]
fn the_corpus_is_survived() {
    let mut arena = arena();
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(root().join("fuzz/corpus/boot"))
        .expect("the corpus is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    let sessions: usize = inputs.iter().map(|path| arena.boot(&std::fs::read(path).expect("readable"))).sum();
    assert!(inputs.len() >= 5 && sessions >= 4 * 3, "{} inputs, {sessions} sessions", inputs.len());
}

/// The same for sequences of calls: none breaks a promise, those that once did among them.
#[test]
fn the_corpus_of_calls_keeps_every_promise() {
    let mut world = World::new(32 << 20).expect("the host has room");
    let inputs = std::fs::read_dir(root().join("fuzz/corpus/calls")).expect("the corpus is there");
    let mut count = 0;
    for entry in inputs {
        let path = entry.expect("an entry").path();
        let found = fuzz::run(&mut world, &std::fs::read(&path).expect("readable"));
        assert!(found.is_ok(), "{}\n{}", path.display(), found.expect_err("checked").scenario);
        count += 1;
    }
    assert!(count >= 2 && world.tally().steps > 50, "{count} inputs, {:?}", world.tally());
}

#[test]
fn any_input_is_survived() {
    let arena = RefCell::new(arena());
    let input = prop::collection::vec(any::<u8>(), 0..400);
    proptest!(ProptestConfig::with_cases(96), |(data in input)| {
        arena.borrow_mut().boot(&data);
    });
}
