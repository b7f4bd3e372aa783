//! The orchestrator's handover data: a device tree with arrays (`luo-v1`) or a structure with chains of
//! blocks (`luo-v5`); the session and file records are the same in both.

pub mod block;
pub mod flb;
pub mod record;
pub mod v1;
pub mod v5;
