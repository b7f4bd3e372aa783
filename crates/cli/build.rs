//! The command is linked at a fixed address where that is known to work: seventeen thousand relocations are a millisecond
//! of each start, and `luosim exec` is started often.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    if target == "x86_64-unknown-linux-gnu" {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
