//! The next step: a deed by weight, then operands that mostly make sense. What makes sense the reference knows.

use luosim_files::test_file::Callback;
use luosim_machine::faults::Argument;

use super::action::{Action, EMPTY_NAME, ENDLESS_NAME, LONG_NAMES, Proc, Slot, Spoil};
use super::options::{DEEDS, Deed, FaultKind, Options};
use super::reference::{Kind, Reference, Session, Status};
use super::rng::Rng;

/// Draws steps for one world.
#[derive(Debug)]
pub struct Draw<'a> {
    /// The options of the seed.
    pub options: &'a Options,
    /// Its numbers.
    pub rng: &'a mut Rng,
    /// The state that the calls so far led to.
    pub world: &'a Reference,
    /// Jumps so far.
    pub kexecs: usize,
}

impl Draw<'_> {
    /// The next step; most draws mean something.
    pub fn step(&mut self) -> Action {
        let p = self.process();
        // Somebody has the device, most of the time; what came is asked for.
        if self.world.luo && !self.world.device_open && self.rng.chance(1, 2) {
            return Action::Open { p, new: self.world.free_slot(p) };
        }
        if let Some(action) = self.claim(p) {
            return action;
        }
        for _ in 0..8 {
            let deed = DEEDS[self.rng.weighted(&self.options.weights)].0;
            if let Some(action) = self.deed(p, deed) {
                return action;
            }
        }
        Action::Open { p, new: self.world.free_slot(p) }
    }

    /// What came is asked for, or the run is about empty kernels.
    fn claim(&mut self, p: Proc) -> Option<Action> {
        let waits = |session: &Session| session.files.iter().any(|file| file.status == Status::Untried);
        let mut incoming = self.world.sessions.iter().filter(|session| session.alive && !session.outgoing);
        if !incoming.any(|session| !session.taken || waits(session)) || !self.rng.chance(1, 4) {
            return None;
        }
        let deed = if self.rng.chance(1, 3) { Deed::Take } else { Deed::Retrieve };
        self.sessions(p, deed)
    }

    fn process(&mut self) -> Proc {
        let there: Vec<Proc> = (0..self.options.procs).filter(|p| self.world.exists(*p)).collect();
        self.rng.pick(&there).copied().unwrap_or(0)
    }

    fn slots(&self, p: Proc, wanted: impl Fn(Kind) -> bool) -> Vec<Slot> {
        let all =
            0..self.world.procs.get(usize::from(p)).and_then(Option::as_ref).map_or(0, |one| one.fds.len());
        let slots = all.filter_map(|slot| Slot::try_from(slot).ok());
        slots
            .filter(|slot| self.world.desc(p, *slot).is_some_and(|desc| wanted(self.world.descs[desc].kind)))
            .collect()
    }

    fn slot(&mut self, p: Proc, wanted: impl Fn(Kind) -> bool) -> Option<Slot> {
        let slots = self.slots(p, wanted);
        self.rng.pick(&slots).copied()
    }

    fn file(&mut self, p: Proc) -> Option<Slot> {
        self.slot(p, |kind| matches!(kind, Kind::File(_)))
    }

    fn test(&mut self, p: Proc) -> Option<Slot> {
        self.slot(p, |kind| matches!(kind, Kind::Test(_)))
    }

    fn argument(&mut self) -> Argument {
        if !self.options.faults.has(FaultKind::Efault) || !self.rng.chance(self.options.rate, 1000) {
            return Argument::Normal;
        }
        if self.rng.chance(1, 4) { Argument::Unmapped } else { Argument::ReadOnly }
    }

    fn odd(&mut self) -> bool {
        self.rng.chance(1, 24)
    }

    fn name(&mut self) -> u8 {
        let odd = [EMPTY_NAME, ENDLESS_NAME, LONG_NAMES, LONG_NAMES + 1];
        if self.rng.chance(1, 16) {
            return *self.rng.pick(&odd).expect("there are some");
        }
        u8::try_from(self.rng.below(u32::from(self.options.names))).expect("below 256")
    }

    fn token(&mut self) -> u64 {
        u64::from(self.rng.below(u32::from(self.options.tokens)))
    }

    fn range(&mut self) -> (u32, u32) {
        let at = self.rng.below(self.options.cells);
        let most = (self.options.cells - at).min(*self.rng.pick(&[1, 1, 8, 24]).expect("there are some"));
        (at, self.rng.between(1, most.max(1)))
    }

    fn deed(&mut self, p: Proc, deed: Deed) -> Option<Action> {
        use Deed as D;
        match deed {
            D::Memfd
            | D::TestFile
            | D::Sockets
            | D::Send
            | D::Receive
            | D::Dup
            | D::ReadOnly
            | D::Close
            | D::Fork
            | D::Exit => self.descriptors(p, deed),
            D::Truncate
            | D::Write
            | D::Allocate
            | D::Punch
            | D::Seek
            | D::Seal
            | D::Map
            | D::Store
            | D::Unmap
            | D::Handler
            | D::Look => self.files(p, deed),
            D::Create | D::Take | D::Preserve | D::Retrieve | D::Finish | D::GetName | D::Link => {
                self.sessions(p, deed)
            }
            D::Kexec | D::Return | D::Crash | D::Reset | D::FailAlloc | D::Stop | D::Race | D::Spoil => {
                self.machine(p, deed)
            }
        }
    }

    fn descriptors(&mut self, p: Proc, deed: Deed) -> Option<Action> {
        let new = self.world.free_slot(p);
        let socket = |kind| matches!(kind, Kind::Socket(..));
        Some(match deed {
            Deed::Memfd => {
                let kind = *self.rng.pick(&[0, 1, 1, 1, 2]).expect("there are some");
                Action::Memfd { p, new, kind, huge: self.rng.chance(1, 12) }
            }
            Deed::TestFile => Action::TestFile { p, new },
            Deed::Sockets => {
                let taken = self.world.procs.get(usize::from(p)).and_then(Option::as_ref);
                let end = taken.map_or(0, |one| one.fds.len()).max(usize::from(new) + 1);
                Action::Sockets { p, new, peer: Slot::try_from(end).ok()? }
            }
            Deed::Send => {
                let socket = self.slot(p, socket)?;
                Action::Send { p, socket, fd: self.slot(p, |kind| !matches!(kind, Kind::Socket(..)))? }
            }
            Deed::Receive => Action::Receive { p, socket: self.slot(p, socket)?, new },
            Deed::Dup => Action::Dup { p, fd: self.slot(p, |_| true)?, new },
            Deed::ReadOnly => Action::ReadOnly { p, fd: self.file(p)?, new },
            Deed::Close => {
                let fd = self.slot(p, |_| true)?;
                let kind = self.world.descs[self.world.desc(p, fd)?].kind;
                // Sessions are what everything hangs on: they are closed more seldom than files.
                if matches!(kind, Kind::Session(_)) && !self.rng.chance(1, 3) {
                    return None;
                }
                Action::Close { p, fd }
            }
            Deed::Fork => {
                let child = (1..self.options.procs).find(|child| !self.world.exists(*child))?;
                Action::Fork { p, child }
            }
            _ => Action::Exit { p },
        })
    }

    fn files(&mut self, p: Proc, deed: Deed) -> Option<Action> {
        let (at, cells) = self.range();
        let seed = self.rng.below(1 << 16);
        if deed == Deed::Handler || deed == Deed::Write && self.rng.chance(1, 8) {
            return self.test_file(p, deed);
        }
        let maps =
            self.world.procs.get(usize::from(p)).and_then(Option::as_ref).map_or(0, |one| one.maps.len());
        let map = Slot::try_from(self.rng.below(u32::try_from(maps).ok()?)).ok()?;
        Some(match deed {
            Deed::Truncate => {
                let fd = self.file(p)?;
                let huge = self.world.file(p, fd).is_some_and(|(inode, _)| self.world.inodes[inode].huge);
                Action::Truncate { p, fd, size: self.size(huge) }
            }
            Deed::Write => Action::Write { p, fd: self.file(p)?, at, cells, seed },
            Deed::Allocate => Action::Allocate { p, fd: self.file(p)?, at, cells },
            Deed::Punch => Action::Punch { p, fd: self.file(p)?, at, cells },
            Deed::Seek => Action::Seek { p, fd: self.file(p)?, to: self.rng.below(1 << 16) },
            Deed::Seal => {
                let seals = *self.rng.pick(&[1, 2, 4, 6, 8, 0x10, 0x20, 0x0e]).expect("there are some");
                Action::Seal { p, fd: self.file(p)?, seals }
            }
            Deed::Map => Action::Map { p, fd: self.file(p)?, new: Slot::try_from(maps).ok()? },
            Deed::Store => Action::Store { p, map, at, cells, seed },
            Deed::Unmap => Action::Unmap { p, map },
            _ => Action::Look { p, fd: self.slot(p, |kind| matches!(kind, Kind::File(_) | Kind::Test(_)))? },
        })
    }

    fn size(&mut self, huge: bool) -> u64 {
        if self.rng.chance(1, 200) {
            return if self.rng.chance(1, 2) { 16 << 40 } else { 4 << 40 };
        }
        // Room for a folio of 2 MiB, now and then.
        if huge && self.rng.chance(1, 2) {
            2 << 20
        } else {
            u64::from(self.rng.below(self.options.cells + 1)) * 512
        }
    }

    fn test_file(&mut self, p: Proc, deed: Deed) -> Option<Action> {
        let fd = self.test(p)?;
        if deed == Deed::Write {
            let at = self.rng.below(2);
            return Some(Action::Write { p, fd, at, cells: 1, seed: self.rng.below(1 << 16) });
        }
        let callback = *self.rng.pick(&Callback::ALL).expect("there are some");
        let times = *self.rng.pick(&[0, 1, 1, 2, u16::MAX]).expect("there are some");
        Some(Action::Handler { p, fd, callback, times })
    }

    fn sessions(&mut self, p: Proc, deed: Deed) -> Option<Action> {
        let new = self.world.free_slot(p);
        let arg = self.argument();
        Some(match deed {
            Deed::Create => {
                let device = self.slot(p, |kind| kind == Kind::Device)?;
                Action::Create { p, device, name: self.name(), new, arg }
            }
            Deed::Take => {
                let device = self.slot(p, |kind| kind == Kind::Device)?;
                let waiting: Vec<u8> = self.world.unclaimed().into_iter().map(|(name, _)| name).collect();
                let waiting = self.rng.pick(&waiting).copied().filter(|_| !self.rng.chance(1, 8));
                let name = match waiting {
                    Some(name) => name,
                    None if self.rng.chance(1, 4) => self.name(),
                    None => return None,
                };
                Action::Take { p, device, name, new, arg }
            }
            Deed::Preserve => self.preserve(p, arg)?,
            Deed::Retrieve => self.retrieve(p, new, arg)?,
            Deed::Finish => {
                let reserved = u32::from(self.odd());
                Action::Finish { p, session: self.session(p, self.world_incoming())?, reserved, arg }
            }
            Deed::GetName => {
                Action::GetName { p, session: self.slot(p, |kind| matches!(kind, Kind::Session(_)))? }
            }
            _ => Action::Link { p, session: self.slot(p, |kind| matches!(kind, Kind::Session(_)))? },
        })
    }

    /// Whether an incoming session is wanted, where both kinds are possible: mostly.
    fn world_incoming(&self) -> bool {
        true
    }

    /// A session of the wanted direction, and now and then any.
    fn session(&mut self, p: Proc, incoming: bool) -> Option<Slot> {
        let odd = self.odd();
        let world = self.world;
        self.slot(p, |kind| match kind {
            Kind::Session(index) => odd || world.sessions[index].outgoing != incoming,
            _ => false,
        })
    }

    fn preserve(&mut self, p: Proc, arg: Argument) -> Option<Action> {
        let (session, odd) = (self.session(p, false)?, self.odd());
        let world = self.world;
        let fresh = !self.rng.chance(1, 8);
        let good = |kind| match kind {
            Kind::File(inode) => !fresh || !world.inodes[inode].owned,
            Kind::Test(test) => !fresh || !world.tests[test].owned,
            _ => odd,
        };
        let fd = self.slot(p, good)?;
        Some(Action::Preserve { p, session, fd, token: self.token(), arg })
    }

    fn retrieve(&mut self, p: Proc, new: Slot, arg: Argument) -> Option<Action> {
        let session = self.session(p, true)?;
        let files = &self.world.sessions[self.world.session(p, session)?].files;
        let again = self.rng.chance(1, 4);
        let waiting: Vec<u64> = files
            .iter()
            .filter(|file| again || file.status == Status::Untried)
            .map(|file| file.token)
            .collect();
        let token = match self.rng.pick(&waiting).copied() {
            Some(token) => token,
            None if self.odd() => self.token(),
            None => return None,
        };
        Some(Action::Retrieve { p, session, token, new, arg })
    }

    fn machine(&mut self, p: Proc, deed: Deed) -> Option<Action> {
        Some(match deed {
            Deed::Kexec => Action::Kexec { p, plan: self.options.plan(self.kexecs + 1) },
            Deed::Return => Action::Return { p },
            Deed::Crash => Action::Crash { p, image: self.rng.chance(1, 2) },
            Deed::Reset => Action::Reset { plan: self.options.plan(self.kexecs) },
            Deed::FailAlloc => {
                Action::FailAlloc { nth: self.rng.between(1, 6), times: *self.rng.pick(&[1, 1, 9])? }
            }
            Deed::Stop => {
                let (abort, panic) =
                    (self.options.faults.has(FaultKind::Abort), self.options.faults.has(FaultKind::Panic));
                let panic = panic && (!abort || self.rng.chance(1, 4));
                Action::Stop { point: self.rng.below(self.world.points() + 1), panic }
            }
            Deed::Race => self.race(p)?,
            _ => Action::Spoil(self.spoil()?),
        })
    }

    /// A call while the next reboot serialises.
    fn race(&mut self, p: Proc) -> Option<Action> {
        let point = self.rng.below(self.world.points());
        match self.rng.below(3) {
            0 => Some(Action::CloseInReboot { p, fd: self.session(p, false)?, point }),
            1 => {
                let ((at, cells), seed) = (self.range(), self.rng.below(1 << 16));
                Some(Action::WriteInReboot { p, fd: self.file(p)?, at, cells, seed, point })
            }
            _ => Some(Action::SeekInReboot { p, fd: self.file(p)?, to: self.rng.below(1 << 16), point }),
        }
    }

    fn spoil(&mut self) -> Option<Spoil> {
        if self.rng.chance(1, 3) {
            return Some(Spoil::Chain);
        }
        if self.rng.chance(1, 2) {
            let bits = self.rng.below(64);
            let flip = *self.rng.pick(&[1, 1, 3, 0xff, u64::MAX]).expect("there are some");
            return Some(Spoil::Word { at: self.rng.below(1 << 20), flip: u64::rotate_left(flip, bits) });
        }
        let outgoing = self.world.sessions.iter().filter(|session| session.alive && session.outgoing);
        let files: Vec<(u8, u64)> = outgoing
            .flat_map(|session| session.files.iter().map(|file| (session.name, file.token)))
            .collect();
        self.rng.pick(&files).map(|(name, token)| Spoil::Folio { name: *name, token: *token })
    }
}

/// The steps after the last: everybody ends, what came is taken, read and given up, so that nothing is left.
#[must_use]
pub fn last_steps(world: &Reference) -> Vec<Action> {
    let mut steps: Vec<Action> = (0..world.max_procs)
        .filter(|p| world.procs.get(usize::from(*p)).is_some_and(Option::is_some))
        .map(|p| Action::Exit { p })
        .collect();
    steps.push(Action::Open { p: 0, new: 0 });
    let arg = Argument::Normal;
    let mut slot = 1;
    for (name, tokens) in world.unclaimed() {
        let session = slot;
        steps.push(Action::Take { p: 0, device: 0, name, new: session, arg });
        slot = slot.saturating_add(1);
        for token in tokens {
            steps.push(Action::Retrieve { p: 0, session, token, new: slot, arg });
            steps.push(Action::Close { p: 0, fd: slot });
        }
        steps.push(Action::Close { p: 0, fd: session });
    }
    steps.push(Action::Exit { p: 0 });
    steps
}
