//! luosim-kho
