//! simdma
