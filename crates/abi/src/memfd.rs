//! The memfd handler's data: one structure per file (`v1`: 6.19 and 7.0; `v2`: 7.1 and later) and a table of
//! folios that both share.

pub mod folio;
pub mod v1;
pub mod v2;
