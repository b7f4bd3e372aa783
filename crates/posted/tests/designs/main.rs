//! The posted designs alone, on a kernel of nothing but memory and KHO, with a handler made for the tests.

#![expect(clippy::unwrap_used, reason = "what helps the tests stands outside of them")]

mod boundaries;
mod cells;
mod hostile;
mod model;
mod quirks;
mod world;
