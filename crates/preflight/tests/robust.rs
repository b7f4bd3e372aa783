//! Files that nobody made on purpose: no panic, no hang, no allocation without bound.

mod common;

use common::{PACKERS, arm64_image, bzimage, data, kernel, packed, zboot};
use luosim_preflight::{Kernel, Verdict};
use proptest::prelude::*;

/// Reads it, and judges it if it can be read.
fn survives(bytes: &[u8]) {
    if let Ok(kernel) = Kernel::from_bytes(bytes) {
        let verdict = Verdict::between(&kernel, &kernel);
        assert!(!verdict.layers.is_empty());
    }
}

/// Every kind of file, small.
fn files() -> Vec<Vec<u8>> {
    let image = arm64_image(16, &data(common::STRINGS, Some("CONFIG_LIVEUPDATE=y\n")));
    let mut files: Vec<Vec<u8>> = PACKERS.iter().map(|extension| packed(extension)).collect();
    files.extend(PACKERS.iter().map(|extension| bzimage(&packed(extension))));
    files.extend([kernel(), zboot(&common::gzip(&image)), image]);
    files
}

#[test]
fn every_truncation() {
    for file in files() {
        for length in 0..file.len().min(700) {
            survives(&file[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        survives(&bytes);
    }

    #[test]
    fn any_bytes_behind_any_magic(which in 0..17_usize, keep in 2..64_usize, bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
        let file = &files()[which];
        let start = &file[..keep.min(file.len())];
        survives(&[start, &bytes].concat());
    }

    #[test]
    fn flipped_bits(which in 0..17_usize, flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..6)) {
        let mut file = files().swap_remove(which);
        for (at, bit) in flips {
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
        }
        survives(&file);
    }

    #[test]
    fn bytes_replaced_in_headers(which in 0..17_usize, at in 0..0x260_usize, value in any::<[u8; 4]>()) {
        let mut file = files().swap_remove(which);
        let length = file.len();
        for (offset, byte) in value.into_iter().enumerate() {
            file[(at + offset) % length] = byte;
        }
        survives(&file);
    }

    #[test]
    fn parts_of_files_put_together(one in 0..17_usize, other in 0..17_usize, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let files = files();
        let (one, other) = (&files[one], &files[other]);
        let (a, b) = (a.index(one.len()), b.index(other.len()));
        survives(&[&one[..a], &other[b..]].concat());
    }
}
