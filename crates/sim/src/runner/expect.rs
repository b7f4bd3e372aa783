//! Expectations: what a file looks like, how a boot ended, what became of a preserved file.

use luosim_abi::KResult;
use luosim_files::shmem::Whence;
use luosim_luo::SessionName;
use luosim_machine::process::Pid;
use luosim_scenario::{Call, Op};
use sha2::{Digest, Sha256};

use super::contents::{CHUNK, Contents};
use super::{RunError, Runner};
use crate::explore::invariant::{self, Print};
use crate::golden::hex;

impl Runner<'_> {
    pub(super) fn expect_file(&mut self, process: &str, pid: Pid, call: &Call) {
        let fd = self.fd(process, call, "fd");
        let label = call.text("fd").map_or_else(|| fd.to_string(), str::to_owned);
        for check in [Self::expect_stat, Self::expect_state, Self::expect_contents] {
            if let Err(refusal) = check(self, pid, fd, &label, call) {
                self.fail(call, format!("`expect-file` of {label} cannot look: {refusal}"));
            }
        }
    }

    fn compare(&mut self, call: &Call, label: &str, param: &str, found: u64) {
        if let Some(want) = call.u64(param) {
            let show = |value: u64| match param {
                "mode" | "flags" => format!("{value:#o}"),
                "seals" => format!("{value:#x}"),
                _ => value.to_string(),
            };
            self.expect(call, format!("{param} {} of {label}", show(want)), want == found, &show(found));
        }
    }

    fn expect_stat(&mut self, pid: Pid, fd: i32, label: &str, call: &Call) -> KResult<()> {
        let stat = self.on().fstat(pid, fd)?;
        self.compare(call, label, "size", stat.size);
        self.compare(call, label, "mode", u64::from(stat.mode));
        self.compare(call, label, "blocks", stat.blocks);
        self.compare(call, label, "nlink", u64::from(stat.nlink));
        Ok(())
    }

    fn expect_state(&mut self, pid: Pid, fd: i32, label: &str, call: &Call) -> KResult<()> {
        if call.get("pos").is_some() {
            let pos = self.on().lseek(pid, fd, 0, Whence::Cur)?;
            self.compare(call, label, "pos", pos);
        }
        if call.get("seals").is_some() {
            let seals = self.on().get_seals(pid, fd)?;
            self.compare(call, label, "seals", u64::from(seals.0));
        }
        if call.get("flags").is_some() {
            let status = self.on().get_status(pid, fd)?;
            self.compare(call, label, "flags", u64::from(status));
        }
        if call.get("cloexec").is_some() {
            let cloexec = self.on().get_cloexec(pid, fd)?;
            self.compare(call, label, "cloexec", u64::from(cloexec));
        }
        if let Some(want) = call.text("link") {
            let link = self.on().readlink_fd(pid, fd)?;
            let found = String::from_utf8_lossy(&link).into_owned();
            self.expect(
                call,
                format!("link {want:?} of {label}"),
                want.as_bytes() == link,
                &format!("{found:?}"),
            );
        }
        Ok(())
    }

    fn expect_contents(&mut self, pid: Pid, fd: i32, label: &str, call: &Call) -> KResult<()> {
        let size = self.on().fstat(pid, fd)?.size;
        let start = call.u64("at").unwrap_or(0);
        if let Some(contents) = Contents::of(call, Some(size.saturating_sub(start))) {
            let differs = self.first_difference(pid, fd, start, &contents)?;
            let what = format!("{} in bytes {start}..{} of {label}", contents.text(), start + contents.len());
            let found = differs.map_or_else(String::new, |at| format!("another byte at {at}"));
            self.expect(call, what, differs.is_none(), &found);
        }
        if let Some(want) = call.bytes("sha256") {
            let found = self.digest(pid, fd)?;
            self.expect(call, format!("digest {} of {label}", hex(want)), want == found, &hex(&found));
        }
        Ok(())
    }

    /// The first byte of the file that is not as in `contents`; a short file differs at its end.
    fn first_difference(
        &mut self,
        pid: Pid,
        fd: i32,
        start: u64,
        contents: &Contents<'_>,
    ) -> KResult<Option<u64>> {
        let (mut found, mut want) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut at = 0;
        while at < contents.len() {
            let step = usize::try_from((contents.len() - at).min(64 << 10)).expect("at most a chunk");
            let got = self.on().pread(pid, fd, &mut found[..step], start + at)?;
            contents.fill(at, start + at, &mut want[..step]);
            let same = found[..got].iter().zip(&want).take_while(|(a, b)| a == b).count();
            if same < step {
                return Ok(Some(start + at + u64::try_from(same).expect("a length")));
            }
            at += u64::try_from(step).expect("a length");
        }
        Ok(None)
    }

    pub(super) fn digest(&mut self, pid: Pid, fd: i32) -> KResult<Vec<u8>> {
        let mut hash = Sha256::new();
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        loop {
            let got = self.on().pread(pid, fd, &mut buf, at)?;
            if got == 0 {
                return Ok(hash.finalize().to_vec());
            }
            hash.update(&buf[..got]);
            at += u64::try_from(got).expect("a length");
        }
    }

    pub(super) fn expect_boot(&mut self, call: &Call) {
        let want = call.text("outcome").unwrap_or("").to_owned();
        let because = call.text("because").unwrap_or("").to_owned();
        let found = self.last_boot.as_ref().map(|report| &report.outcome);
        let word = found.map_or("nothing", |outcome| outcome.word());
        let reason = found.and_then(|outcome| outcome.reason()).unwrap_or("").to_owned();
        let good = word == want && reason.contains(&because);
        let shown = if because.is_empty() { want } else { format!("{want} because of {because:?}") };
        let word = word.to_owned();
        self.expect(call, format!("boot {shown}"), good, &format!("{word}: {reason}"));
    }

    pub(super) fn expect_ledger(&mut self, call: &Call) {
        let session = call.text("session").unwrap_or("").to_owned();
        let token = call.u64("token").unwrap_or(0);
        let fate = call.text("fate").unwrap_or("").to_owned();
        let because = call.text("because").unwrap_or("").to_owned();
        let name = SessionName::from_bytes(session.as_bytes());
        let found = self
            .machine
            .as_ref()
            .and_then(|machine| machine.ledger()?.find(&name, token))
            .map(|entry| entry.fate.clone());
        let good = found
            .as_ref()
            .is_some_and(|found| found.word() == fate && found.cause().unwrap_or("").contains(&because));
        let cause = if because.is_empty() { String::new() } else { format!(" ({because:?})") };
        let shown = found.map_or_else(|| String::from("no such file in the ledger"), |fate| fate.to_string());
        self.expect(call, format!("session {session:?} token {token:#x} {fate}{cause}"), good, &shown);
    }

    pub(super) fn expect_log(&mut self, call: &Call) {
        let text = call.text("text").unwrap_or("").to_owned();
        let live = self
            .machine
            .as_ref()
            .and_then(|machine| machine.kernel())
            .map(|kernel| kernel.log().contains(&text));
        let good = live.or_else(|| Some(self.last_boot.as_ref()?.log.contains(&text))).unwrap_or(false);
        self.expect(call, format!("{text:?} in the kernel log"), good, "no such line");
    }

    /// What no program can see.
    pub(super) fn expect_inside(&mut self, call: &Call) {
        let machine = self.machine.as_ref().expect("made by the caller");
        match call.op {
            Op::Remember => self.remembered = Print::of(machine),
            Op::ExpectUnchanged => {
                let now = Print::of(machine);
                let differs = self.remembered.difference(&now);
                self.expect(call, String::from("nothing changed"), differs.is_empty(), &differs);
            }
            Op::ExpectSound => {
                let found = invariant::sound(machine).err().unwrap_or_default();
                self.expect(call, String::from("sound memory"), found.is_empty(), &found);
            }
            Op::ExpectCalls => {
                let found = invariant::calls(machine).join("; ");
                let want = call.text("text").unwrap_or("").to_owned();
                self.expect(call, format!("calls {want:?}"), want == found, &format!("{found:?}"));
            }
            _ => self.expect_frames(call),
        }
    }

    fn expect_frames(&mut self, call: &Call) {
        let machine = self.machine.as_ref().expect("made by the caller");
        let found = invariant::left(machine);
        for (name, found) in invariant::LEFT.iter().zip(found) {
            if let Some(want) = call.u64(name) {
                self.expect(call, format!("{want} frames {name}"), want == found, &found.to_string());
            }
        }
    }

    pub(super) fn expect_number(&mut self, call: &Call) {
        let want = call.u64("number").unwrap_or(0);
        let found = self
            .machine
            .as_ref()
            .and_then(|machine| machine.kernel())
            .map_or(0, |kernel| kernel.luo().number());
        self.expect(call, format!("live update number {want}"), want == found, &found.to_string());
    }

    /// Retrieves everything that the manifest of the booted image names, and compares.
    pub(super) fn retrieve_all(&mut self, call: &Call) -> Result<(), RunError> {
        let Some(manifest) = self.manifest.clone() else {
            self.fail(call, String::from("`retrieve-all` comes after `boot-image`"));
            return Ok(());
        };
        let name = "retrieve-all";
        let Ok(pid) = self.on().spawn(name) else {
            self.fail(call, String::from("the machine is down"));
            return Ok(());
        };
        let result = self.retrieve_manifest(pid, &manifest, call);
        if let Err(refusal) = result {
            self.fail(call, format!("`retrieve-all` was refused: {refusal}"));
        }
        Ok(())
    }

    fn retrieve_manifest(
        &mut self,
        pid: Pid,
        manifest: &crate::golden::Manifest,
        call: &Call,
    ) -> KResult<()> {
        let device = self.on().open(pid, luosim_abi::ioctl::DEVICE_PATH, 2, 0)?;
        for session in &manifest.sessions {
            let bytes = crate::golden::unhex(&session.name_hex).unwrap_or_default();
            let shown = SessionName::from_bytes(&bytes);
            let fd = self.on().retrieve_session(pid, device, &bytes)?;
            for file in &session.files {
                let token: u64 = file.token.parse().unwrap_or(0);
                let got = self.on().retrieve_fd(pid, fd, token)?;
                let stat = self.on().fstat(pid, got)?;
                let pos = self.on().lseek(pid, got, 0, Whence::Cur)?;
                let seals = self.on().get_seals(pid, got)?.0;
                let digest = hex(&self.digest(pid, got)?);
                let found = (stat.size, pos, seals, digest);
                let want = (file.size, file.pos, self.seals_after(file.seals), file.sha256.clone());
                let what = format!("size, position, seals and digest of token {token:#x} in {shown:?}");
                self.expect(call, what, want == found, &format!("{found:?} instead of {want:?}"));
                self.on().close(pid, got)?;
            }
            self.on().finish(pid, fd, 0)?;
            self.on().close(pid, fd)?;
        }
        self.on().close(pid, device)
    }

    /// Seals as this release gives them back.
    fn seals_after(&self, seals: u32) -> u32 {
        use luosim_abi::quirk::Quirk;
        let kernel = self.machine.as_ref().and_then(|machine| machine.kernel());
        let quirks = kernel.map(|kernel| kernel.quirks()).unwrap_or_default();
        if quirks.has(Quirk::SealsNotCarried) {
            1
        } else if seals & 0x20 != 0 && quirks.has(Quirk::ExecSealImpliesWrite) {
            seals | 0x1e
        } else {
            seals
        }
    }
}
