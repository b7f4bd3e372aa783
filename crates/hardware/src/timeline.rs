//! What devices did in each phase of a live update, in virtual time.
//!
//! The machine says which phase it is in ([`crate::Hardware::enter`]); a span ends when the next begins. Time is ticks of the
//! hardware, of [`NS_PER_TICK`] nanoseconds each: a number that makes a report readable, no measurement.

use crate::Bdf;
use crate::simdma::Totals;

/// Virtual nanoseconds of a tick: a device moves 64 bytes in it.
pub const NS_PER_TICK: u64 = 100;

luosim_abi::named! {
    /// A phase of a live update, as the guest of a virtual machine would tell them apart.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Phase {
        Run = "run", "the guest runs";
        Preserve = "preserve", "the VMM puts files into sessions";
        Freeze = "freeze", "the reboot freezes files and serialises";
        Jump = "jump", "the old kernel is gone, the new one has not started";
        EarlyBoot = "early-boot", "the new kernel takes over memory, PCI and IOMMU";
        Boot = "boot", "the new kernel comes up";
        UserSpace = "user-space", "processes start";
        Retrieve = "retrieve", "the VMM takes files back";
        Reclaim = "reclaim", "devices move from the old kernel's domain to a new one";
        Finish = "finish", "the sessions are finished";
    }
}

impl Phase {
    /// Whether the guest stands still in it: from the reboot to the end of retrieving.
    #[must_use]
    pub const fn is_blackout(self) -> bool {
        matches!(
            self,
            Self::Freeze | Self::Jump | Self::EarlyBoot | Self::Boot | Self::UserSpace | Self::Retrieve
        )
    }
}

/// What one device did in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSpan {
    /// What it puts on its requests.
    pub rid: Bdf,
    /// What it did.
    pub totals: Totals,
}

/// A phase from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which.
    pub phase: Phase,
    /// Kernel that ran or was last to run, from 0.
    pub epoch: u32,
    /// Ticks since power on at its beginning.
    pub from: u64,
    /// Ticks since power on at its end.
    pub to: u64,
    /// Devices, in the order of the layout.
    pub devices: Vec<DeviceSpan>,
    /// Requests that IOMMU units refused.
    pub refused: u64,
}

impl Span {
    /// Its length in virtual nanoseconds.
    #[must_use]
    pub fn nanoseconds(&self) -> u64 {
        (self.to - self.from).saturating_mul(NS_PER_TICK)
    }

    /// What all devices did.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.devices.iter().fold(Totals::default(), |sum, device| sum.plus(&device.totals))
    }
}

/// Spans one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// In the order of time.
    pub spans: Vec<Span>,
}

impl Timeline {
    /// The spans of a phase put together: ticks, and what all devices did.
    #[must_use]
    pub fn of(&self, phase: Phase) -> (u64, Totals) {
        let spans = self.spans.iter().filter(|span| span.phase == phase);
        spans.fold((0, Totals::default()), |(ticks, sum), span| {
            (ticks + span.to - span.from, sum.plus(&span.totals()))
        })
    }

    /// The spans, each with whether a guest stood still in it. When the first kernel comes up there is none yet: a blackout
    /// begins with a freeze.
    pub fn standstills(&self) -> impl Iterator<Item = (&Span, bool)> {
        let first =
            self.spans.iter().position(|span| span.phase == Phase::Freeze).unwrap_or(self.spans.len());
        self.spans.iter().enumerate().map(move |(at, span)| (span, at >= first && span.phase.is_blackout()))
    }

    /// Virtual nanoseconds that the guest stood still, all updates together.
    #[must_use]
    pub fn blackout(&self) -> u64 {
        self.standstills().filter(|(_, still)| *still).map(|(span, _)| span.nanoseconds()).sum()
    }

    /// The live updates, each from its freeze to the next one's. What is preserved before a freeze is for that update,
    /// whatever is still being retrieved or finished of the one before.
    #[must_use]
    pub fn updates(&self) -> Vec<Update> {
        let mut updates: Vec<Update> = Vec::new();
        let mut preserving = Vec::new();
        for span in &self.spans {
            match (span.phase, updates.last_mut()) {
                (Phase::Preserve, _) => preserving.push(span.clone()),
                (Phase::Freeze, _) => {
                    let spans = preserving.drain(..).chain([span.clone()]).collect();
                    updates.push(Update { spans });
                }
                (_, Some(update)) => update.spans.push(span.clone()),
                (_, None) => {}
            }
        }
        updates
    }
}

/// One live update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Its preserving, its freeze, and everything after it.
    pub spans: Vec<Span>,
}

/// A phase of an update, all its spans put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseAccount {
    /// Which.
    pub phase: Phase,
    /// Virtual nanoseconds.
    pub nanoseconds: u64,
    /// What the devices did.
    pub totals: Totals,
    /// Requests that IOMMU units refused.
    pub refused: u64,
}

impl Update {
    /// Whether the old kernel went: false if the reboot was refused.
    #[must_use]
    pub fn was_carried_out(&self) -> bool {
        self.spans.iter().any(|span| span.phase == Phase::Jump)
    }

    /// Virtual nanoseconds that the guest stood still.
    #[must_use]
    pub fn blackout(&self) -> u64 {
        self.spans.iter().filter(|span| span.phase.is_blackout()).map(Span::nanoseconds).sum()
    }

    /// The phases in which time passed, in the order of an update; what runs meanwhile ([`Phase::Run`]) is left out.
    #[must_use]
    pub fn phases(&self) -> Vec<PhaseAccount> {
        let account = |phase: &Phase| {
            let none = PhaseAccount { phase: *phase, nanoseconds: 0, totals: Totals::default(), refused: 0 };
            let spans = self.spans.iter().filter(|span| span.phase == *phase);
            spans.fold(none, |sum, span| PhaseAccount {
                nanoseconds: sum.nanoseconds + span.nanoseconds(),
                totals: sum.totals.plus(&span.totals()),
                refused: sum.refused + span.refused,
                ..sum
            })
        };
        let all = Phase::ALL.iter().filter(|phase| **phase != Phase::Run).map(account);
        all.filter(|account| account.nanoseconds > 0).collect()
    }

    /// What one device did while the guest stood still. A device that was renumbered is found by each of its numbers.
    #[must_use]
    pub fn device_in_blackout(&self, rid: Bdf) -> Totals {
        let spans = self.spans.iter().filter(|span| span.phase.is_blackout());
        let mine = spans.flat_map(|span| &span.devices).filter(|device| device.rid == rid);
        mine.fold(Totals::default(), |sum, device| sum.plus(&device.totals))
    }
}
