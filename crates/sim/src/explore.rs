//! The explorer: worlds that no test author wrote, drawn from a seed, with faults; promises that are looked at after every
//! step; and the shortest scenario that breaks one.
//!
//! Contract: everything follows from the seed; no clock, no threads, no host but memory. Time limits, threads and
//! progress are the command's.

pub mod action;
pub mod campaign;
pub mod devices;
pub mod draw;
pub mod finding;
pub mod fuzz;
pub mod invariant;
pub mod options;
pub mod reference;
pub mod rng;
pub mod shrink;
pub mod turns;
pub mod world;
