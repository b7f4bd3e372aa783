//! luosim-physmem
