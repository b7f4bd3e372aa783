//! The orchestrator alone, with handlers and objects made for the tests.

mod flb;
mod freeze;
mod recorder;
mod versions;
mod world;
