//! A flattened device tree, as the kernel's readers and the inspector take it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luosim_kho::fdt::Tree;

fuzz_target!(|data: &[u8]| {
    if let Ok(tree) = Tree::parse(data) {
        // What was read can be written, and reads the same again.
        if let Ok(blob) = tree.try_to_blob() {
            assert_eq!(Tree::parse(&blob).as_ref().map(Tree::root).ok(), Some(tree.root()));
        }
    }
});
