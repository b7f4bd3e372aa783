//! The orchestrator alone, with handlers and objects made for the tests.

mod flb;
mod freeze;
mod needs;
mod recorder;
mod versions;
mod world;
