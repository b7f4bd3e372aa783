//! The linter and the layouts on the headers of the machine, whatever version they are of.
//!
//! What must hold of any version is tested on any; where a C compiler is there, it is asked whether sizes, offsets and
//! numbers are right, for 64-bit and for 32-bit programs. The findings themselves differ from version to version: how
//! many of each rule there are is compared where `system.txt` knows the header's digest, and said to be not tested
//! otherwise. `LUOSIM_HEADERS` names a folder of other headers (one that has `linux/` in it) to be looked at instead.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use luosim_uapi::header::{
    Find, Found, Layout, Library, Loaded, Record, Source, Tag, Target, ioctls, layout, structure,
};
use luosim_uapi::lint::{Findings, Rule, lint};
use sha2::{Digest, Sha256};

/// Headers that are looked at closely.
const CHOSEN: [&str; 16] = [
    "linux/vfio.h",
    "linux/kvm.h",
    "linux/fuse.h",
    "linux/iommufd.h",
    "fwctl/fwctl.h",
    "linux/liveupdate.h",
    "linux/vhost.h",
    "linux/userfaultfd.h",
    "linux/btrfs.h",
    "linux/fscrypt.h",
    "linux/dma-buf.h",
    "linux/gpio.h",
    "linux/input.h",
    "linux/loop.h",
    "linux/watchdog.h",
    "linux/openat2.h",
];

fn folder() -> PathBuf {
    std::env::var_os("LUOSIM_HEADERS").map_or_else(|| PathBuf::from("/usr/include"), PathBuf::from)
}

#[expect(clippy::print_stderr, reason = "what was tested depends on the machine, and should be seen")]
fn say(what: &str) {
    eprintln!("{what}");
}

fn not_tested(why: &str) {
    say(&format!("NOT TESTED: {why}"));
}

struct Files(PathBuf);

impl Find for Files {
    fn find(&mut self, _: &str, path: &str) -> Option<Found> {
        let folders =
            [self.0.clone(), self.0.join("x86_64-linux-gnu"), self.0.with_file_name("x86-linux-any")];
        let file = folders.into_iter().map(|folder| folder.join(path)).find(|file| file.is_file())?;
        let text = String::from_utf8_lossy(&std::fs::read(&file).ok()?).into_owned();
        Some(Found::New(Source { name: file.display().to_string(), text }))
    }
}

/// The chosen headers that are there.
fn chosen() -> Vec<(&'static str, Arc<Loaded>)> {
    let mut library = Library::new(Files(folder()));
    let mut found = Vec::new();
    for name in CHOSEN {
        let path = folder().join(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                found.push((name, library.read(Source { name: path.display().to_string(), text })));
            }
            Err(_) => not_tested(&format!("there is no {}", path.display())),
        }
    }
    found
}

fn of(name: &str) -> Option<(Arc<Loaded>, Findings)> {
    let (_, loaded) = chosen().into_iter().find(|(other, _)| *other == name)?;
    let findings = lint(&loaded, None);
    Some((loaded, findings))
}

fn raised(loaded: &Loaded, findings: &Findings, rule: Rule, at: &str) -> bool {
    let text = &loaded.header.text;
    findings.list.iter().any(|finding| finding.rule == rule && text[finding.span.clone()] == *at)
}

/// What every version of these headers has had, and will have, because programs use it.
#[test]
fn what_every_version_has() {
    if let Some((loaded, findings)) = of("linux/kvm.h") {
        assert!(raised(&loaded, &findings, Rule::SizeInNumber, "KVM_SET_USER_MEMORY_REGION"));
        assert!(raised(&loaded, &findings, Rule::NumberLiteral, "KVM_CREATE_VM"));
        assert!(raised(&loaded, &findings, Rule::SizeFirst, "kvm_userspace_memory_region"));
        let run = ioctls(&loaded.scope()).into_iter().find(|one| one.name == "KVM_RUN").expect("KVM_RUN");
        assert_eq!(run.number(), Ok(0xAE80));
    }
    if let Some((loaded, findings)) = of("linux/vfio.h") {
        // Its first members are argsz and flags: it was the first of the kind.
        assert!(!raised(&loaded, &findings, Rule::SizeFirst, "vfio_device_info"));
        assert!(!raised(&loaded, &findings, Rule::NoFlags, "vfio_device_info"));
        let info = ioctls(&loaded.scope()).into_iter().find(|one| one.name == "VFIO_DEVICE_GET_INFO");
        let info = info.expect("VFIO_DEVICE_GET_INFO");
        assert_eq!(info.number(), Ok(0x3B6B));
        let passed = structure(&loaded.scope(), &info).and_then(|(_, record)| record.name.clone());
        assert_eq!(passed.as_deref(), Some("vfio_device_info"), "its comment says so");
    }
    if let Some((loaded, findings)) = of("linux/iommufd.h") {
        // Who made the rules keeps them.
        for rule in
            [Rule::SizeFirst, Rule::SizeInNumber, Rule::BareArgument, Rule::NumberLiteral, Rule::NumberGap]
        {
            let broken: Vec<_> = findings.list.iter().filter(|finding| finding.rule == rule).collect();
            assert_eq!(broken, [] as [&luosim_uapi::lint::Finding; 0], "{rule}");
        }
        assert!(ioctls(&loaded.scope()).len() >= 9);
    }
    if let Some((loaded, findings)) = of("linux/fuse.h") {
        assert!(loaded.header.records.len() > 50);
        assert!(!findings.list.iter().any(|finding| finding.rule == Rule::LongInteger));
    }
}

/// The header of the releases from 7.2 on is the interface that the table of 7.2 has.
#[test]
fn the_header_of_the_orchestrator_is_the_table() {
    let Some((loaded, _)) = of("linux/liveupdate.h") else { return };
    let header = luosim_uapi::interface::of_header(&loaded);
    let table = luosim_uapi::interface::release("7.2").expect("a release");
    let diff = luosim_uapi::diff::diff(&table, &header);
    assert!(
        diff.changes.iter().all(|change| change.kind == luosim_uapi::diff::Kind::Refusals),
        "{:?}",
        diff.changes
    );
    assert_eq!(header.commands.len(), table.commands.len());
}

/// What a C compiler is to confirm of a header.
fn claims(loaded: &Loaded, target: Target) -> (String, usize) {
    let scope = loaded.scope();
    let header = &loaded.header;
    let mut out = String::from("#define offsetof(type, member) __builtin_offsetof(type, member)\n");
    let mut count = 0;
    let mut known: BTreeMap<&str, (&Record, Layout)> = BTreeMap::new();
    for record in &header.records {
        if let (Some(name), Ok(layout)) = (&record.name, layout(&scope, header, record, target)) {
            known.insert(name, (record, layout));
        }
    }
    for (name, (record, layout)) in known {
        let word = if record.tag == Tag::Union { "union" } else { "struct" };
        let _ = writeln!(out, "_Static_assert(sizeof({word} {name}) == {}, \"{name}\");", layout.room.size);
        count += 1;
        for member in layout.members.iter().filter(|member| member.bits.is_none() && !member.name.is_empty())
        {
            let (field, at) = (&member.name, member.offset);
            let _ = writeln!(
                out,
                "_Static_assert(offsetof({word} {name}, {field}) == {at}, \"{name}.{field}\");"
            );
            count += 1;
        }
    }
    if target == Target::X86_64 {
        for ioctl in ioctls(&scope) {
            if let Ok(number) = ioctl.number() {
                let _ = writeln!(out, "_Static_assert({} == {number:#x}u, \"{}\");", ioctl.name, ioctl.name);
                count += 1;
            }
        }
    }
    (out, count)
}

/// Whether the compiler agrees; nothing if it cannot compile the header at all.
fn compiles(path: &Path, claims: &str, flag: &str) -> Option<Result<(), String>> {
    let dir = tempfile::tempdir().expect("a folder");
    let run = |text: &str| {
        let file = dir.path().join("claims.c");
        std::fs::write(
            &file,
            format!("#include <stdint.h>\n#include <linux/ioctl.h>\n#include \"{}\"\n{text}", path.display()),
        )
        .expect("writable");
        let mut cc = Command::new("cc");
        cc.args(["-fsyntax-only", "-w", "-ffreestanding", flag]).arg("-I").arg(folder());
        cc.arg("-I")
            .arg(folder().join("x86_64-linux-gnu"))
            .arg("-I")
            .arg(folder().with_file_name("x86-linux-any"));
        let output = cc.arg(&file).output().ok()?;
        Some(if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        })
    };
    run("")?.ok()?;
    run(claims)
}

#[test]
fn a_compiler_agrees_with_every_layout_and_number() {
    let mut confirmed = 0;
    for (name, loaded) in chosen() {
        for (target, flag) in [(Target::X86_64, "-m64"), (Target::I386, "-m32")] {
            let (text, count) = claims(&loaded, target);
            match compiles(Path::new(&loaded.header.name), &text, flag) {
                None => not_tested(&format!("no compiler here takes {name} with {flag}")),
                Some(agreed) => {
                    assert_eq!(agreed, Ok(()), "{name} {flag}");
                    confirmed += count;
                }
            }
        }
    }
    say(&format!("a compiler confirmed {confirmed} sizes, offsets and numbers"));
}

fn counts(findings: &Findings) -> String {
    let mut by_rule: BTreeMap<Rule, usize> = BTreeMap::new();
    findings.list.iter().for_each(|finding| *by_rule.entry(finding.rule).or_default() += 1);
    by_rule.iter().map(|(rule, count)| format!("{rule} {count}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn findings_of_known_versions() {
    let known = include_str!("system.txt");
    for (name, loaded) in chosen() {
        let digest = Sha256::digest(loaded.header.text.as_bytes());
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{digest} {name}: {}", counts(&lint(&loaded, None)));
        match known.lines().find(|known| known.starts_with(&digest)) {
            Some(known) => assert_eq!(line.trim_end(), known.trim_end()),
            None => not_tested(&format!(
                "this version of {name} is in no line of system.txt; it would be\n{line}"
            )),
        }
    }
}

/// Every header below `linux/` is read without a panic, and of nearly all structures the layout is known.
#[test]
fn all_headers_are_read() {
    let mut waiting = vec![folder().join("linux")];
    let mut library = Library::new(Files(folder()));
    let (mut records, mut known) = (0u32, 0u32);
    while let Some(path) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let loaded = library.read(Source { name: path.display().to_string(), text });
            let scope = loaded.scope();
            for record in &loaded.header.records {
                records += 1;
                known += u32::from(layout(&scope, &loaded.header, record, Target::X86_64).is_ok());
            }
            let _ = lint(&loaded, None);
        }
    }
    if records == 0 {
        return not_tested("there are no headers here");
    }
    assert!(known * 100 >= records * 95, "{known} of {records} layouts are known");
}
