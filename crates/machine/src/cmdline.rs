//! The kernel parameters that concern live update: `kho=`, `liveupdate=`, `kho_scratch=`, `reserve_mem=`.
//!
//! Two more stand for build options and modules that a stock kernel has no parameter for: `liveupdate_test=`
//! (`CONFIG_LIVEUPDATE_TEST`) and `luosim_test=` (test files, `luosim_files::test_file`); both are off by default.
//! `luosim_free=` leaves so many frames free. `vfio_liveupdate=` leaves the handler of devices out, where the profile has it.
//!
//! They are early parameters. A value that does not parse leaves the setting as it was and is logged as
//! a malformed early option; of several good ones the last wins. Other words are kept and ignored.

use luosim_abi::kho::memblock::MAX_RESERVATIONS;
use luosim_abi::release::Release;
use luosim_kho::log::KernelLog;
use luosim_kho::reserve_mem::ReserveMem;
use luosim_kho::scratch::ScratchSpec;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `kho=`; from 6.19 on the simulated kernels are built with it on by default, before that it is off.
    pub kho: bool,
    /// `liveupdate=`; off by default, as in every release.
    pub liveupdate: bool,
    /// `kho_scratch=`.
    pub scratch: ScratchSpec,
    /// `liveupdate_test=`: the kernel's three test FLBs.
    pub test_flbs: bool,
    /// `luosim_test=`: luosim's test files.
    pub test_files: bool,
    /// `reserve_mem=`, each: at most 8.
    pub reserve: Vec<ReserveMem>,
    /// `luosim_free=`: frames left free when the kernel has booted; a kernel short of memory.
    pub free: Option<u64>,
    /// `vfio_liveupdate=`: whether the handler of devices is built in (`CONFIG_VFIO_PCI_LIVEUPDATE`); on by default.
    pub vfio: bool,
    /// `elfcorehdr=`: this is a crash kernel.
    pub crash_kernel: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        let scratch = ScratchSpec::default();
        let crash_kernel = false;
        Self {
            kho: true,
            liveupdate: false,
            scratch,
            test_flbs: false,
            test_files: false,
            reserve: Vec::new(),
            free: None,
            vfio: true,
            crash_kernel,
        }
    }
}

/// The kernel's boolean: only the first one or two letters count.
fn boolean(value: &str) -> Option<bool> {
    let mut letters = value.bytes();
    match letters.next()? {
        b'e' | b'E' | b'y' | b'Y' | b't' | b'T' | b'1' => Some(true),
        b'd' | b'D' | b'n' | b'N' | b'f' | b'F' | b'0' => Some(false),
        b'o' | b'O' => match letters.next()? {
            b'n' | b'N' => Some(true),
            b'f' | b'F' => Some(false),
            _ => None,
        },
        _ => None,
    }
}

impl Parameters {
    /// Reads a command line. Words are separated by white space; everything after `--` is for init.
    #[must_use]
    pub fn parse(cmdline: &str, release: &Release, log: &mut KernelLog) -> Self {
        let mut parameters = Self { kho: release.kho_default, ..Self::default() };
        for word in cmdline.split_ascii_whitespace().take_while(|word| *word != "--") {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            if !parameters.set(name, value, log) {
                log.warn(format!("Malformed early option '{name}'"));
            }
        }
        parameters
    }

    fn add_reservation(&mut self, value: &str) -> bool {
        let parsed = ReserveMem::parse(value).filter(|new| {
            self.reserve.len() < MAX_RESERVATIONS && self.reserve.iter().all(|other| other.name != new.name)
        });
        parsed.map(|reservation| self.reserve.push(reservation)).is_some()
    }

    /// Applies one word; `false` if it is one of ours and does not parse.
    fn set(&mut self, name: &str, value: &str, log: &mut KernelLog) -> bool {
        match name {
            "kho" => boolean(value).map(|on| self.kho = on).is_some(),
            "liveupdate" => boolean(value).map(|on| self.liveupdate = on).is_some(),
            "reserve_mem" => self.add_reservation(value),
            "liveupdate_test" => boolean(value).map(|on| self.test_flbs = on).is_some(),
            "luosim_test" => boolean(value).map(|on| self.test_files = on).is_some(),
            "vfio_liveupdate" => boolean(value).map(|on| self.vfio = on).is_some(),
            "luosim_free" => {
                self.free = value.parse().ok();
                self.free.is_some()
            }
            "elfcorehdr" => {
                self.crash_kernel = true;
                true
            }
            "kho_scratch" => match ScratchSpec::parse(value) {
                Some(spec) => {
                    log.info(spec.announce());
                    self.scratch = spec;
                    true
                }
                None => false,
            },
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use luosim_abi::release::ReleaseId;

    use super::*;

    fn parse(cmdline: &str) -> (Parameters, Vec<String>) {
        let mut log = KernelLog::default();
        let parameters = Parameters::parse(cmdline, ReleaseId::V7_3.release(), &mut log);
        (parameters, log.lines.iter().map(|line| line.text.clone()).collect())
    }

    #[test]
    fn only_the_first_letters_of_a_boolean_count() {
        for (text, value) in [
            ("on", Some(true)),
            ("ON", Some(true)),
            ("offside", Some(false)),
            ("yes", Some(true)),
            ("1", Some(true)),
            ("0x", Some(false)),
            ("enable", Some(true)),
            ("bogus", None),
            ("o", None),
            ("", None),
        ] {
            assert_eq!(boolean(text), value, "{text}");
        }
    }

    #[test]
    fn the_last_good_one_wins_and_bad_ones_are_logged() {
        let (parameters, log) = parse("quiet liveupdate=on kho=off liveupdate=bogus -- liveupdate=off");
        assert!(parameters.liveupdate && !parameters.kho);
        assert_eq!(log, ["Malformed early option 'liveupdate'"]);
        let (parameters, log) = parse("liveupdate");
        assert!(!parameters.liveupdate, "a bare word has no value");
        assert_eq!(log, ["Malformed early option 'liveupdate'"]);
    }
}
