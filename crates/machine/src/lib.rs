//! luosim-machine
