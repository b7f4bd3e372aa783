//! luosim
fn main() {}
