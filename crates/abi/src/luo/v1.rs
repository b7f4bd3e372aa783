//! `luo-v1` (6.19, 7.0, 7.1): names in the device tree, and the fixed arrays.

/// The string of the tree's root.
pub const COMPATIBLE: &str = "luo-v1";
/// Root property, u64: the number handed to the next kernel.
pub const PROP_NUMBER: &str = "liveupdate-number";
/// Node of the sessions.
pub const NODE_SESSION: &str = "luo-session";
/// Its string. The 2 is right: no version 1 was ever on the wire.
pub const SESSION_COMPATIBLE: &str = "luo-session-v2";
/// Its property, u64: physical address of the session area.
pub const PROP_SESSION_HEADER: &str = "luo-session-header";
/// Node of the file-lifecycle-bound objects (7.0, 7.1): its string is [`super::flb::COMPATIBLE`]. Those releases
/// need it; 6.19 knows nothing of it.
pub const NODE_FLB: &str = "luo-flb";
/// Its property, u64: physical address of the page of objects.
pub const PROP_FLB_HEADER: &str = "luo-flb-header";
/// Pages of the session area, one block.
pub const SESSION_AREA_PAGES: u64 = 16;
/// Bytes before the first session record: the count.
pub const SESSION_HEADER_SIZE: u64 = 8;
/// Sessions that fit.
pub const MAX_SESSIONS: u64 = (SESSION_AREA_PAGES * 4096 - SESSION_HEADER_SIZE) / 80;
/// Pages of a session's file area, one block.
pub const FILE_AREA_PAGES: u64 = 2;
/// Files that fit.
pub const MAX_FILES: u64 = FILE_AREA_PAGES * 4096 / 64;

const _: () = {
    assert!(MAX_SESSIONS == 819);
    assert!(MAX_FILES == 128);
};
