//! The inspector against recorded memory, synthetic sources, and hostile bytes.

mod differences;
mod findings;
mod golden;
mod hostile;
mod sources;
mod world;
