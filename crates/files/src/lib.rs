//! luosim-files
