//! luosim-scenario
