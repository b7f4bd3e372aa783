//! A file that claims to be memory, as `luosim inspect` takes it: ELF cores first of all, and whatever else the bytes are.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use luosim_inspect::{Options, Source, inspect};

thread_local! {
    static INPUT: RefCell<(PathBuf, File)> = RefCell::new(input());
}

/// A file in memory where the host has one.
fn input() -> (PathBuf, File) {
    let folder = PathBuf::from("/dev/shm");
    let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
    let path = folder.join(format!("luosim-fuzz-{}", std::process::id()));
    let file = File::create(&path).expect("writable");
    (path, file)
}

fuzz_target!(|data: &[u8]| {
    INPUT.with_borrow_mut(|(path, file)| {
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(data)).expect("room");
        if let Ok(source) = Source::open(path, None) {
            let inspection = inspect(source, &Options::default());
            // What the report says can be said.
            assert!(inspection.report.findings.iter().all(|finding| !finding.what.is_empty()));
        }
    });
});
