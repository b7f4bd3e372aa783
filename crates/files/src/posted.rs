//! Handlers of the posted designs (crate `luosim-posted`): memory files, and luosim's test files.
//!
//! They differ from those of the merged interface in when things happen: nothing is done to a file until all is prepared,
//! and it stays as it is until the machine, the file or its session is cancelled or finished.

mod memfd;
mod test;

pub use memfd::PostedMemfd;
