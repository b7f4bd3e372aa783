//! Booting, resetting and the jump.

use luosim_abi::Errno;
use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_luo::Stop;
use luosim_machine::process::Pid;
use luosim_machine::{BootOptions, BootReport, Machine, Outcome};
use luosim_physmem::{PAGE_SIZE, PhysAddr};
use luosim_posted::subsystem::{Callback, Fault};
use luosim_scenario::{Call, Op};

use super::{Look, RunError, Runner, beside};
use crate::golden::{self, Manifest};
use crate::transcript::Record;

fn quirks(call: &Call, name: &str) -> Vec<Quirk> {
    let text = call.text(name).unwrap_or("");
    text.split('|').filter_map(|quirk| Quirk::from_name(quirk.trim())).collect()
}

fn lines(report: &BootReport) -> Vec<String> {
    report.log.lines.iter().map(|line| line.text.clone()).collect()
}

fn subsystem_fault(call: &Call) -> Fault {
    let callback = if call.text("in") == Some("freeze") { Callback::Freeze } else { Callback::Prepare };
    let errno = call.text("errno").and_then(Errno::from_name).unwrap_or(Errno::EIO);
    let times = call.u64("times").and_then(|times| u32::try_from(times).ok()).unwrap_or(1);
    Fault { callback, errno, times }
}

impl Runner<'_> {
    pub(super) fn boot_options(&self, call: &Call) -> (ReleaseId, BootOptions) {
        let named = call.text("release").and_then(ReleaseId::named);
        let release = self.options.release.or(named).unwrap_or(ReleaseId::V7_3);
        let mut options = BootOptions { quirks_on: quirks(call, "quirks-on"), ..BootOptions::default() };
        options.quirks_off = quirks(call, "quirks-off");
        let profile = call.text("profile").and_then(Profile::from_name);
        options.profile = self.options.profile.or(profile).unwrap_or(self.profile);
        if let Some(cmdline) = call.text("cmdline") {
            cmdline.clone_into(&mut options.cmdline);
        }
        (release, options)
    }

    pub(super) fn machine_step(&mut self, call: &Call) -> Result<(), RunError> {
        match call.op {
            Op::Boot | Op::ColdReset => {
                let (release, options) = self.boot_options(call);
                if self.machine.is_none() {
                    self.machine = Some(super::new_machine(self.memory()?, self.profile, self.phase_ticks));
                }
                if call.op == Op::ColdReset {
                    self.records
                        .push(Record::Machine { action: String::from("power off and on: memory is lost") });
                }
                self.boot_cold(release, &options);
            }
            Op::Crash => {
                let report = self.machine()?.crash();
                self.forget();
                let next = if report.is_some() { "the crash kernel boots" } else { "the machine is down" };
                self.records.push(Record::Machine { action: format!("the kernel panics; {next}") });
                if let Some(report) = report {
                    self.booted(report);
                }
            }
            Op::BootImage => self.boot_image(call)?,
            Op::RetrieveAll => self.retrieve_all(call)?,
            Op::FailAlloc | Op::StopReboot | Op::Poke | Op::FailSubsystem => self.machine_fault(call)?,
            Op::Remember | Op::ExpectUnchanged | Op::ExpectSound | Op::ExpectFrames | Op::ExpectCalls => {
                self.machine()?;
                self.expect_inside(call);
            }
            Op::Tick | Op::SurpriseRemove | Op::PokeObject | Op::ExpectDevice => self.hardware_step(call)?,
            Op::ExpectBoot => self.expect_boot(call),
            Op::ExpectLedger => self.expect_ledger(call),
            Op::ExpectLog => self.expect_log(call),
            Op::ExpectNumber => self.expect_number(call),
            op => unreachable!("`{}` is done by a process", op.spec().name),
        }
        Ok(())
    }

    fn machine_fault(&mut self, call: &Call) -> Result<(), RunError> {
        let number = |name: &str, default: u32| {
            call.u64(name).and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
        };
        let machine = self.machine()?;
        let told = match call.op {
            Op::FailSubsystem => {
                machine.fail_subsystem(call.text("name").unwrap_or(""), subsystem_fault(call))
            }
            Op::FailAlloc => machine.fail_alloc(number("nth", 1), number("times", 1)),
            Op::StopReboot => {
                let panics = call.text("how") == Some("panic");
                machine.stop_reboot(number("point", 0), if panics { Stop::Panic } else { Stop::Refuse });
                Ok(())
            }
            _ => {
                let (addr, value) = (call.u64("addr").unwrap_or(0), call.u64("value").unwrap_or(0));
                machine.poke_at_kexec(PhysAddr::new(addr), value);
                Ok(())
            }
        };
        let action = self.show("", call);
        self.records.push(Record::Machine { action });
        if let Err(refusal) = told {
            self.fail(call, format!("`{}`: {}", call.op.spec().name, refusal.reason));
        }
        Ok(())
    }

    pub(super) fn forget(&mut self) {
        self.pids.clear();
        self.labels.clear();
        self.orphan_guests();
    }

    pub(super) fn boot_cold(&mut self, release: ReleaseId, options: &BootOptions) {
        let used = std::mem::take(&mut self.used);
        let machine = self.on();
        let report = if used {
            machine.cold_boot_in_place(release, options)
        } else {
            machine.cold_reset(release, options)
        };
        self.booted(report);
    }

    pub(super) fn booted(&mut self, report: BootReport) {
        self.forget();
        let (blocks, pages) = match report.outcome {
            Outcome::Handover { blocks, pages } => (blocks, pages),
            _ => (0, 0),
        };
        self.records.push(Record::Boot {
            generation: report.generation,
            release: report.release.name.to_owned(),
            outcome: report.outcome.word().to_owned(),
            reason: report.outcome.reason().map(str::to_owned),
            blocks,
            pages,
            log: if self.quiet { Vec::new() } else { lines(&report) },
        });
        self.last_boot = Some(report);
        self.record_assumed();
    }

    fn boot_image(&mut self, call: &Call) -> Result<(), RunError> {
        let folder = beside(&self.options.base, call.text("directory").unwrap_or(""));
        let manifest = Manifest::read(&folder).map_err(|error| error.to_string())?;
        let memory = golden::load(&folder, &manifest).map_err(|error| error.to_string())?;
        let params = manifest.params().expect("checked when it was read");
        let (release, options) = self.boot_options(call);
        let mut machine = Machine::new(memory);
        let action = format!("power on with the handover memory of a real {} kernel", manifest.kernel);
        self.records.push(Record::Machine { action });
        let report = machine.boot_on_handover(params, release, &options);
        self.machine = Some(machine);
        self.manifest = Some(manifest);
        self.booted(report);
        Ok(())
    }

    pub(super) fn reboot(&mut self, process: &str, pid: Pid, call: &Call) -> Result<(), RunError> {
        let from = self.on().kernel().map_or("?", |kernel| kernel.release().name).to_owned();
        let shown = self.show(process, call);
        let mut written = Ok(());
        let look: Look<'_> = match &self.options.dump_handover {
            Some(folder) => {
                let folder = folder.join(format!("kexec-{}", self.dumps + 1));
                let written = &mut written;
                let from = from.clone();
                Box::new(move |memory, params| *written = crate::dump::write(&folder, &from, memory, params))
            }
            None => Box::new(|_, _| {}),
        };
        let state = self.posted_state();
        let result = self.machine.as_mut().expect("a process runs on it").kexec_with(pid, look);
        written?;
        let answer = result.as_ref().map(|_| 0).map_err(Clone::clone);
        self.record_call(process, pid, shown, &answer);
        self.judge(call, &answer);
        self.check_invariants(call);
        if self.on().kernel().is_none() {
            self.forget();
        }
        let Ok(report) = result else {
            self.note_state(state);
            return Ok(());
        };
        let returned = report.outcome == Outcome::Returned;
        let wanted = call.number("returns").is_some_and(|value| value != 0);
        if returned != wanted && call.error.is_none() {
            let how = if returned { "came back" } else { "did not come back" };
            self.fail(call, format!("the reboot {how}"));
        }
        if returned {
            let action = String::from("the image that was jumped to came back; the same kernel goes on");
            self.records.push(Record::Machine { action });
            self.last_boot = Some(report);
        } else {
            self.arrived(from, report);
        }
        Ok(())
    }

    /// Another kernel booted after a kexec.
    fn arrived(&mut self, from: String, report: BootReport) {
        self.dumps += 1;
        let crossing = report.crossing.clone().unwrap_or_default();
        self.records.push(Record::Kexec {
            from,
            to: report.release.name.to_owned(),
            sessions: crossing.carried.sessions,
            files: crossing.carried.files,
            blocks: crossing.tally.blocks(),
            pages: crossing.tally.pages(),
            bytes: crossing.tally.pages() * PAGE_SIZE,
            passed: crossing.passed,
        });
        self.booted(report);
    }
}
