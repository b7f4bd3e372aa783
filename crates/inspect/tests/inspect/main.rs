//! The inspector against recorded memory, synthetic sources, and hostile bytes.

mod golden;
mod sources;
mod world;
