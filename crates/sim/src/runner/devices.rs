//! Steps of device files, and the driver of a guest that a scenario runs in a VMM's process.

use std::collections::BTreeMap;

use luosim_abi::{Errno, KResult};
use luosim_hardware::driver::{Driver, DriverError};
use luosim_hardware::timeline::Phase;
use luosim_hardware::verify::{Invariant, Violation};
use luosim_hardware::{Bdf, Hardware};
use luosim_machine::process::Pid;
use luosim_machine::{GuestRam, Standing};
use luosim_physmem::PhysAddr;
use luosim_scenario::{Call, Op};

use super::calls::{flag, u32_of};
use super::contents::Contents;
use super::guests::Guest;
use super::{Answer, Runner};
use crate::transcript::{InvariantLine, Record};

/// Whether invariants held that were looked at by a guest's driver.
pub(super) type Driven = BTreeMap<Invariant, bool>;

/// Drivers by function.
pub(super) type Guests = BTreeMap<Bdf, Guest>;

fn bdf(call: &Call) -> KResult<Bdf> {
    let text = call.text("function").unwrap_or("");
    text.parse().map_err(|error: luosim_hardware::BdfError| Errno::EINVAL.because(error.to_string()))
}

fn u64_of(call: &Call, name: &str, default: u64) -> u64 {
    call.u64(name).unwrap_or(default)
}

fn range(call: &Call) -> (u64, u64) {
    (u64_of(call, "iova", 0), u64_of(call, "len", 0))
}

fn width(call: &Call) -> u8 {
    if call.u64("width") == Some(8) { 8 } else { 4 }
}

fn register(call: &Call) -> u16 {
    call.u64("offset").and_then(|offset| u16::try_from(offset).ok()).unwrap_or(u16::MAX)
}

fn bad_driver(error: DriverError) -> luosim_abi::Refusal {
    Errno::EFAULT.because(error.to_string())
}

impl Runner<'_> {
    /// The number behind a label that names no descriptor.
    fn number(&self, process: &str, call: &Call, name: &str) -> u32 {
        u32::try_from(self.fd(process, call, name)).unwrap_or(u32::MAX)
    }

    pub(super) fn kvm(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let vm = self.fd(process, call, "vm");
        let (fd, at) = (self.fd(process, call, "fd"), u64_of(call, "at", 0));
        let kvm = self.fd(process, call, "kvm");
        let machine = self.on();
        match call.op {
            Op::CreateVm => {
                let new = machine.create_vm(pid, kvm, u64_of(call, "type", 0))?;
                return Ok(self.made(process, call, new));
            }
            Op::GuestMemfd => {
                let (size, flags) = (u64_of(call, "size", 0), u64_of(call, "flags", 3));
                let new = machine.create_guest_memfd(pid, vm, size, flags)?;
                return Ok(self.made(process, call, new));
            }
            Op::KillVm => machine.kill_vm(pid, vm)?,
            Op::GuestPoison => machine.guest_poison(pid, fd, u64_of(call, "page", 0))?,
            Op::GuestFallocate => {
                machine.guest_fallocate(pid, fd, at, u64_of(call, "len", 0), flag(call, "punch", false))?;
            }
            Op::GuestStore => {
                let bytes = Contents::of(call, None).map(|contents| contents.bytes(at)).unwrap_or_default();
                machine.guest_store(pid, fd, at, &bytes)?;
            }
            _ => self.guest_load(pid, fd, at, call)?,
        }
        Ok(0)
    }

    fn guest_load(&mut self, pid: Pid, fd: i32, at: u64, call: &Call) -> KResult<()> {
        let want = Contents::of(call, None).map(|contents| contents.bytes(at)).unwrap_or_default();
        let mut found = vec![0; want.len()];
        self.on().guest_load(pid, fd, at, &mut found)?;
        if let Some(first) = (0..want.len()).find(|index| found[*index] != want[*index]) {
            let (found, want) = (found[first], want[first]);
            self.fail(call, format!("byte {first} of the range is {found:#04x}, expected {want:#04x}"));
        }
        Ok(())
    }

    fn made(&mut self, process: &str, call: &Call, number: i32) -> i64 {
        self.label(process, call, "as", number);
        i64::from(number)
    }

    fn numbered(&mut self, process: &str, call: &Call, number: u32) -> i64 {
        self.made(process, call, i32::try_from(number).unwrap_or(i32::MAX))
    }

    pub(super) fn iommufd(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let fd = self.fd(process, call, "iommufd");
        let (ioas, hwpt) = (self.number(process, call, "ioas"), self.number(process, call, "hwpt"));
        let file = call.get("file").map(|_| (self.fd(process, call, "file"), u64_of(call, "at", 0)));
        let token = u64_of(call, "token", 0);
        let machine = self.on();
        let new = match call.op {
            Op::IoasAlloc => machine.ioas_alloc(pid, fd)?,
            Op::HwptAlloc => machine.hwpt_alloc(pid, fd, ioas)?,
            Op::HwptRestore => machine.hwpt_restore(pid, fd, token)?,
            op => {
                match op {
                    Op::IoasMap => machine.ioas_map(pid, (fd, ioas), file, range(call))?,
                    Op::IoasUnmap => machine.ioas_unmap(pid, fd, ioas, range(call))?,
                    Op::HwptMark => machine.hwpt_mark(pid, fd, hwpt, token)?,
                    _ => machine.hwpt_destroy(pid, fd, hwpt)?,
                }
                return Ok(0);
            }
        };
        Ok(self.numbered(process, call, new))
    }

    pub(super) fn vfio(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let device = self.fd(process, call, "device");
        let object = self.number(process, call, "object");
        let (iommufd, group) = (self.fd(process, call, "iommufd"), self.fd(process, call, "group"));
        let on = flag(call, "on", false);
        let machine = self.on();
        match call.op {
            Op::VfioBindDriver => return machine.vfio_bind_driver(pid, bdf(call)?).map(i64::from),
            Op::VfioAttach => return machine.vfio_attach(pid, device, object).map(i64::from),
            Op::VfioGroupDevice => {
                let new = machine.vfio_group_device(pid, group)?;
                return Ok(self.made(process, call, new));
            }
            Op::VfioRead => {
                let value = machine.vfio_read(pid, device, register(call), width(call))?;
                return Ok(i64::from_le_bytes(value.to_le_bytes()));
            }
            Op::VfioWrite => {
                let value = u64_of(call, "value", 0);
                machine.vfio_write(pid, device, (register(call), width(call)), value)?;
            }
            Op::VfioBind => machine.vfio_bind(pid, device, iommufd)?,
            Op::VfioDetach => machine.vfio_detach(pid, device)?,
            Op::VfioIrqs => machine.vfio_irqs(pid, device, on)?,
            Op::VfioPower => machine.vfio_power(pid, device, u32_of(call, "state", 0))?,
            _ => machine.vfio_master(pid, device, on)?,
        }
        Ok(0)
    }

    pub(super) fn dma(&mut self, process: &str, pid: Pid, call: &Call) -> Answer {
        let ram = self.fd(process, call, "ram");
        if call.op == Op::DmaCheck {
            return self.dma_check(pid, ram, call);
        }
        let device = self.fd(process, call, "device");
        let base = u64_of(call, "iova", 0);
        let (pages, again) = (u64_of(call, "pages", 8), !flag(call, "once", false));
        let interrupts = flag(call, "interrupts", false);
        let function = self.on().vfio_function(pid, device)?;
        let mut driver = Driver::new(function, base);
        let work = |hw: &mut Hardware, mem: &mut GuestRam<'_>| -> Result<(), DriverError> {
            driver.start(hw, mem, interrupts)?;
            for n in 0..pages {
                driver.post_fill(mem, driver.buffers() + 4096 * n, 4096, 0x1000 + n)?;
            }
            if again {
                driver.post_loop(mem)?;
            }
            driver.ring(hw);
            Ok(())
        };
        self.on().guest_driver(pid, device, (ram, base), work)?.map_err(bad_driver)?;
        let hardware = self.on().hardware().expect("it has the device that was started");
        let guest = Guest::new(driver, base, (process, pid, ram), hardware);
        self.guests.insert(function, guest);
        Ok(0)
    }

    /// Gives how many completions are new.
    fn dma_check(&mut self, pid: Pid, ram: i32, call: &Call) -> Answer {
        let function = bdf(call)?;
        let none = || Errno::ENODEV.because(format!("no driver of a guest was started for {function}"));
        let mut guest = self.guests.remove(&function).ok_or_else(none)?;
        let looked =
            self.on().guest_memory(pid, (ram, guest.base), |mem: &mut GuestRam<'_>| guest.check(mem));
        self.guests.insert(function, guest);
        let (new, bad, wrong) = looked?.map_err(bad_driver)?;
        self.note_driven(call, &wrong, bad.is_empty());
        let count = u64::try_from(new.len()).expect("a count");
        let want = u64_of(call, "completions", 1);
        if count < want {
            self.fail(call, format!("{count} completions are new, expected {want} at least"));
        }
        if let Some(stamp) = bad.first() {
            self.fail(call, format!("memory at {:#x} does not hold the stamp of its fill", stamp.iova));
        }
        if new.windows(2).any(|pair| pair[0].seq.get() >= pair[1].seq.get())
            || new.iter().any(|c| !c.is_intact())
        {
            self.fail(call, String::from("completions are torn or out of order"));
        }
        Ok(i64::try_from(count).expect("a count"))
    }

    /// What the driver of a guest has shown: payloads are there (D5 until the device is finished, D6 after), completions come after them
    /// and once.
    fn note_driven(&mut self, call: &Call, wrong: &[Violation], whole: bool) {
        let devices = self.on().kernel().map(|kernel| kernel.core().device_files());
        let incoming = devices.is_some_and(|devices| devices.pci.incoming().next().is_some());
        let payload = if incoming { Invariant::D5 } else { Invariant::D6 };
        let held = |invariant| wrong.iter().all(|violation| violation.invariant != invariant);
        let seen = [
            (payload, whole),
            (Invariant::D10, held(Invariant::D10)),
            (Invariant::D13, held(Invariant::D13)),
        ];
        for (invariant, holds) in seen {
            *self.driven.entry(invariant).or_insert(true) &= holds;
        }
        for violation in wrong {
            self.broke(call, violation);
        }
    }

    /// D1 to D16 after the run; none without devices.
    pub(super) fn invariants(&self) -> Vec<InvariantLine> {
        let Some(machine) = self.machine.as_ref().filter(|machine| machine.hardware().is_some()) else {
            return Vec::new();
        };
        let line = |(invariant, standing): (Invariant, Standing)| {
            let standing = match self.driven.get(&invariant) {
                Some(true) if standing == Standing::NotLooked => Standing::Holds,
                Some(false) => Standing::Broken,
                _ => standing,
            };
            InvariantLine {
                name: invariant.name().to_owned(),
                standing: standing.name().to_owned(),
                about: invariant.describe().to_owned(),
            }
        };
        machine.invariants().into_iter().map(line).collect()
    }

    pub(super) fn hardware_step(&mut self, call: &Call) -> Result<(), super::RunError> {
        self.machine()?;
        let action = self.show("", call);
        match call.op {
            Op::Tick => self.on().tick(u64_of(call, "ticks", 0)),
            Op::PokeObject => {
                let name = call.text("name").unwrap_or("");
                match self.on().outgoing_object(name) {
                    Some(at) => self.on().poke_at_kexec(PhysAddr::new(at), u64_of(call, "value", 0)),
                    None => self.fail(call, format!("the kernel preserves no object `{name}`")),
                }
            }
            Op::SurpriseRemove => match (bdf(call), self.on().hardware_and_memory()) {
                (Ok(function), (Some(hardware), _)) => hardware.surprise_remove(function),
                _ => self.fail(call, String::from("the machine has no such function")),
            },
            _ => {
                self.expect_device(call);
                return Ok(());
            }
        }
        self.records.push(Record::Machine { action });
        Ok(())
    }

    fn expect_device(&mut self, call: &Call) {
        let Ok(function) = bdf(call) else {
            return self.fail(call, String::from("that is no address of a PCI function"));
        };
        let machine = self.on();
        let Some(hardware) = machine.hardware() else {
            return self.fail(call, String::from("the machine has no devices: give it a profile that has"));
        };
        let (Some(device), Some(info)) = (hardware.device(function), hardware.function(function)) else {
            return self.fail(call, format!("no device answers at {function}"));
        };
        let totals = device.totals();
        let written = phase(call).map_or(totals.bytes_written, |phase| {
            let spans = hardware.timeline().spans.into_iter().filter(|span| span.phase == phase);
            let mine = spans.flat_map(|span| span.devices).filter(|span| span.rid == info.rid);
            mine.map(|span| span.totals.bytes_written).sum()
        });
        let refused =
            hardware.units()[info.unit].faults().iter().filter(|fault| fault.rid == info.rid).count();
        let found = [
            ("faults", u64::try_from(refused).expect("a count")),
            ("drops", totals.drops),
            ("resets", totals.resets),
            ("master", u64::from(hardware.is_master(function))),
            ("translated", u64::from(hardware.page_table(machine.memory(), &info).is_ok())),
        ];
        for (name, found) in found {
            if let Some(want) = call.u64(name) {
                self.expect(call, format!("{function}: {name} {want}"), found == want, &found.to_string());
            }
        }
        if let Some(least) = call.u64("written") {
            let place = call.text("in").map(|phase| format!(" in {phase}")).unwrap_or_default();
            let what = format!("{function}: at least {least} bytes written{place}");
            self.expect(call, what, written >= least, &written.to_string());
        }
    }
}

fn phase(call: &Call) -> Option<Phase> {
    let name = call.text("in")?;
    Phase::ALL.iter().copied().find(|phase| phase.name() == name)
}
