//! luosim-sim
