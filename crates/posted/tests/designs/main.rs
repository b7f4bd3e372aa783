//! The posted designs alone, on a kernel of nothing but memory and KHO, with a handler made for the tests.

mod boundaries;
mod cells;
mod hostile;
mod model;
mod world;
