//! What must be true after every step, by name; and what of it can be looked up in a machine without a reference.
//!
//! Contract: looking changes nothing. Which calls must succeed and what files must hold is in `reference`.

use luosim_machine::Machine;
use luosim_physmem::{FrameState, FrameUse, Pfn};

luosim_abi::named! {
    /// Something that must be true.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Invariant {
        Contents = "contents",
            "A retrieved file holds, byte for byte, what the preserved file held at the moment of the kexec, through any mixture of writes, stores through mappings, holes and resizing, before and after PRESERVE_FD.";
        Size = "size", "A retrieved file has the size that the preserved one had, and occupies its pages.";
        Position = "position", "A retrieved file has the position that the preserved description had at the reboot.";
        Seals = "seals", "A retrieved file has the seals that the preserved one had, and none that it had not.";
        Privileges = "privileges", "Nothing that was forbidden is allowed after a cycle: no seal is gone, no description is open for more, no file became executable.";
        Tokens = "tokens", "A token names one file of a session, and gives back exactly the file that was preserved under it.";
        Names = "names", "A name names one outgoing session, and gives back exactly the session that was created under it.";
        Owner = "owner", "A file is in at most one session, under one token.";
        Trace = "trace", "A call that fails, and a reboot that is refused, leaves everything as it was: frames, preserved blocks, sessions, files, and the records that the next kernel would read.";
        Loss = "loss", "A failed call consumes nothing: after a reply that could not be written back, a refusal or a lack of memory the same call works once its reason is gone.";
        Nesting = "nesting", "Handlers and bound objects are called in the documented order and in pairs: freeze and unfreeze, preserve and unpreserve, first and last file.";
        Frames = "frames", "When every process is gone and every session that came is finished, only what the kernel itself keeps is left.";
        Accounts = "accounts", "Every frame is free, allocated, preserved or reserved; the counts add up; no frame is freed twice or handed out twice.";
        Scratch = "scratch", "Nothing lies in scratch, so nothing preserved does.";
        Fate = "fate", "Every preserved file has exactly one fate in the ledger, the one that the calls made it have.";
        Again = "again", "What could be preserved in one kernel can be preserved in the next, after it was retrieved and finished.";
        Crossing = "crossing", "From one release to another either everything is given back or the documented layer refuses it; spoiled metadata is refused, never misread.";
        Answer = "answer", "Every other call answers what the documentation says: success, or the errno of the first check that fails.";
        D1 = "D1", "Frames are left alone. A frame that a preserved device can reach is not free, not allocated for anything else, and not written by a kernel, from T1 to T7.";
        D2 = "D2", "Mappings stay. Every address of the device leads to the same frame with the same permissions from T1 to T7, and every page of a preserved file lies in the same frame from T1 to T8.";
        D3 = "D3", "Tables stay. The pages of the device's page table are the same and hold the same bytes from T1 until a kernel replaces the domain at T7.";
        D4 = "D4", "DMA goes on. From T2 to T7, the replacement of the domain included, no request of the device is refused by its IOMMU or stopped by bus mastering, and a device that has work makes progress. A device that is reset in freeze writes nothing instead.";
        D5 = "D5", "What was written is there. Everything that a device wrote and completed before its memory is retrieved reads back through the retrieved file.";
        D6 = "D6", "What is written later is there. Everything that a device writes after its memory is retrieved and before the session is finished reads back too.";
        D7 = "D7", "Nothing is written elsewhere. No write of a device lands in a frame that was not mapped for it, and frames next to what is mapped hold their canaries.";
        D8 = "D8", "Others are locked out. A device that is not preserved writes nothing after the old kernel is shut down.";
        D9 = "D9", "The device is not reset. Its resets, uptime, sequence and ring position go on from T1 to T6. A device that is reset in freeze is reset once, between T1 and T2.";
        D10 = "D10", "Payload comes before completion. Whenever a completion is seen, what it completes is in memory, whole.";
        D11 = "D11", "Interrupts wait. None is delivered from T2 to T6, each that was raised was delivered, or is pending, or is covered by a pending one; after the interrupt that the VMM injects nothing is left to drain.";
        D12 = "D12", "The new kernel keeps off. Where it boots and allocates at first there is no preserved frame.";
        D13 = "D13", "Exactly once. No descriptor is executed twice or passed over, the kexec included.";
        D14 = "D14", "It ends. After the session is finished a device goes through page tables of the new kernel alone, reaches no frame that is free, and is refused where memory was unmapped.";
        D15 = "D15", "An abort is harmless. After a failed or cancelled update D2, D3 and D4 hold as if nothing had been tried, unless the device itself was reset in freeze.";
        D16 = "D16", "Identity stays. Address, requester id, domain id and tokens of a device are the same from T1 to T6.";
        Same = "same", "The same seed gives the same calls, the same answers and the same memory.";
        Alive = "alive", "luosim itself does not panic, whatever it is given.";
    }
}

impl Invariant {
    /// The invariant of DMA, as the hardware's checks call it.
    #[must_use]
    pub fn of_dma(invariant: luosim_hardware::verify::Invariant) -> Self {
        let same = |one: &&Self| one.name() == invariant.name();
        *Self::ALL.iter().find(same).expect("each invariant of DMA is one of the explorer's")
    }
}

/// Frames that are counted at the end of a kernel, by the names of `expect-frames`.
pub const LEFT: [&str; 6] = ["luo", "data", "table", "cache", "handover", "preserved"];

/// The uses that sessions and files account for, and frames preserved and not restored.
#[must_use]
pub fn left(machine: &Machine) -> [u64; 6] {
    let Some(kernel) = machine.kernel() else { return [0; 6] };
    let frames = &kernel.core().ram().frames;
    let of = |kind| frames.outstanding(kind);
    [
        of(FrameUse::Luo),
        of(FrameUse::HandlerData),
        of(FrameUse::FolioTable),
        of(FrameUse::PageCache),
        of(FrameUse::Handover),
        frames.stats().preserved,
    ]
}

/// What a failed call must leave alone, in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Print {
    left: [u64; 6],
    blocks: u64,
    outgoing: usize,
    incoming: usize,
    descriptions: usize,
    inodes: usize,
    /// Digest of the bytes in pages of sessions and files.
    records: u64,
}

impl Print {
    /// The cheap numbers; what lies in the records is not looked at.
    #[must_use]
    pub fn counts(machine: &Machine) -> Self {
        let Some(kernel) = machine.kernel() else { return Self::default() };
        let core = kernel.core();
        let files = core.open_files();
        Self {
            left: left(machine),
            blocks: core.kho().tally().map_or(0, luosim_kho::tracker::Tally::blocks),
            outgoing: kernel.luo().outgoing_sessions(),
            incoming: kernel.luo().incoming_sessions(),
            descriptions: files.table.count(),
            inodes: files.inodes.count(),
            records: 0,
        }
    }

    /// Everything, with a digest of what the next kernel would read as sessions and files.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        Self { records: digest(machine, &[FrameUse::Luo]), ..Self::counts(machine) }
    }

    /// How `after` differs, in words; nothing if it does not. What a failed call allocates for a file's contents and for
    /// the tracker's nodes it may keep, as a kernel does.
    #[must_use]
    pub fn difference(&self, after: &Self) -> String {
        let mut found = Vec::new();
        for (index, name) in LEFT.iter().enumerate().filter(|(_, name)| **name != "cache") {
            found.push((*name, self.left[index], after.left[index]));
        }
        let number = |count: usize| u64::try_from(count).expect("a count fits in 64 bits");
        found.push(("preserved blocks", self.blocks, after.blocks));
        found.push(("outgoing sessions", number(self.outgoing), number(after.outgoing)));
        found.push(("incoming sessions", number(self.incoming), number(after.incoming)));
        found.push(("open descriptions", number(self.descriptions), number(after.descriptions)));
        found.push(("memory files", number(self.inodes), number(after.inodes)));
        found.push(("digest of the records", self.records, after.records));
        let changed = found.iter().filter(|(_, before, after)| before != after);
        let words: Vec<String> =
            changed.map(|(name, before, after)| format!("{name}: {before}, now {after}")).collect();
        words.join("; ")
    }
}

/// 64 bits of the pages allocated for `uses`, with their places. No cryptography: mistakes do not aim.
#[must_use]
pub fn digest(machine: &Machine, uses: &[FrameUse]) -> u64 {
    let Some(kernel) = machine.kernel() else { return 0 };
    let ram = kernel.core().ram();
    let (mut hash, mut page) = (0xcbf2_9ce4_8422_2325u64, [0u8; 4096]);
    for pfn in (0..ram.frames.frame_count()).map(Pfn::new) {
        let FrameState::AllocatedHead(order) = ram.frames.state(pfn) else { continue };
        if !uses.contains(&ram.frames.use_of(pfn)) {
            continue;
        }
        hash = mix(hash, pfn.raw());
        for frame in pfn.raw()..pfn.raw() + order.pages() {
            ram.mem.read(Pfn::new(frame).addr(), &mut page).expect("allocated frames lie in memory");
            let words =
                page.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
            hash = words.fold(hash, mix);
        }
    }
    hash
}

/// One more word of a digest.
#[must_use]
pub fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29)
}

/// The counts of the allocator, without a sweep.
///
/// # Errors
/// What does not add up.
pub fn accounts(machine: &Machine) -> Result<(), String> {
    let Some(kernel) = machine.kernel() else { return Ok(()) };
    let stats = kernel.core().ram().frames.stats();
    if stats.free + stats.allocated + stats.preserved + stats.reserved != stats.total || stats.bad_frees > 0 {
        return Err(format!("the allocator's counts do not add up: {stats:?}"));
    }
    Ok(())
}

/// Counts recounted frame by frame, and scratch.
///
/// # Errors
/// What is wrong, in words.
pub fn sound(machine: &Machine) -> Result<(), String> {
    accounts(machine)?;
    let Some(kernel) = machine.kernel() else { return Ok(()) };
    let frames = &kernel.core().ram().frames;
    let Some(counted) = frames.recount() else {
        return Err(String::from("some frames are inside no block, or blocks overlap"));
    };
    let stats = frames.stats();
    if counted != [stats.free, stats.allocated, stats.preserved, stats.reserved] {
        return Err(format!("frames counted one by one: {counted:?}, by the allocator: {stats:?}"));
    }
    scratch(machine)
}

/// Every frame of scratch is reserved.
///
/// # Errors
/// The first that is not.
pub fn scratch(machine: &Machine) -> Result<(), String> {
    let Some(kernel) = machine.kernel() else { return Ok(()) };
    let frames = &kernel.core().ram().frames;
    for area in kernel.core().kho().scratch() {
        if let Some(pfn) = frames.first_not_reserved(area.addr.pfn(), area.size / 4096) {
            return Err(format!("frame {pfn} lies in scratch and is {}", frames.state(pfn)));
        }
    }
    Ok(())
}

/// What handlers of test files and test objects logged in this kernel: [`interesting`] lines without their beginnings.
#[must_use]
pub fn calls(machine: &Machine) -> Vec<String> {
    let Some(kernel) = machine.kernel() else { return Vec::new() };
    kernel.log().lines.iter().filter_map(|line| interesting(&line.text)).map(str::to_owned).collect()
}

/// A log line of a test file's handler, or of a test object, without its beginning.
#[must_use]
pub fn interesting(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix("luosim_test: ") {
        return Some(rest);
    }
    let rest = line.strip_prefix("liveupdate test: liveupdate-test-")?;
    rest.ends_with("was triggered").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_described() {
        let names: std::collections::BTreeSet<&str> = Invariant::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(names.len(), Invariant::ALL.len());
        assert!(Invariant::ALL.iter().all(|one| one.describe().ends_with('.')));
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let before = Print::default();
        let after = Print { outgoing: 1, ..before };
        assert_eq!(before.difference(&after), "outgoing sessions: 0, now 1");
        assert_eq!(before.difference(&before), "");
    }

    #[test]
    fn only_lines_of_test_files_and_objects_count() {
        assert_eq!(interesting("luosim_test: file 3: freeze"), Some("file 3: freeze"));
        let object = "liveupdate test: liveupdate-test-flb-v0: preserve was triggered";
        assert_eq!(interesting(object), Some("flb-v0: preserve was triggered"));
        assert_eq!(interesting("luo: something"), None);
    }
}
