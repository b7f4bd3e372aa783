//! The linter on headers of our own: every rule, with its places and words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use luosim_uapi::header::read_alone;
use luosim_uapi::lint::{Findings, Level, Rule, lint};
use luosim_uapi::registry::Registry;

fn header(name: &str) -> String {
    let path = format!("{}/tests/headers/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `rules.h` has a type byte that another header has.
const REGISTERED: &str =
    "Code  Seq#  Include File\n'r'   16-17 linux/radio.h\n0xBA  00-FF uapi/linux/liveupdate.h\n";

fn findings(name: &str) -> (String, Findings) {
    let text = header(name);
    let findings = lint(&read_alone(name, &text), Some(&Registry::parse(REGISTERED)));
    (text, findings)
}

fn shown(name: &str) -> String {
    let (text, findings) = findings(name);
    let mut out = String::new();
    for finding in &findings.list {
        let before = &text[..finding.span.start];
        let line = before.matches('\n').count() + 1;
        let place = text[finding.span.clone()].lines().next().unwrap_or("");
        let allowed = finding.allowed.as_ref().map(|why| format!(" (allowed: {why})")).unwrap_or_default();
        let _ = writeln!(out, "{line}: {} `{place}`: {}{allowed}", finding.rule, finding.message);
    }
    out
}

#[test]
fn a_header_that_breaks_every_rule() {
    insta::assert_snapshot!(shown("rules.h"));
    let broken: BTreeSet<Rule> = findings("rules.h").1.list.iter().map(|finding| finding.rule).collect();
    let missing: Vec<_> = Rule::ALL.iter().filter(|rule| !broken.contains(*rule)).collect();
    assert_eq!(missing, [&Rule::NumberGap; 0], "rules that nothing in rules.h breaks");
}

#[test]
fn the_header_that_was_posted_first() {
    insta::assert_snapshot!(shown("posted-v2.h"));
}

/// What its review asked for, and the rules that ask for it now. Points about the code behind the header (dispatch by a
/// table, one opener, no log lines, permissions) are not the header's.
#[test]
fn every_point_of_the_review_is_raised() {
    let (text, findings) = findings("posted-v2.h");
    let raised = |rule: Rule, at: &str| {
        findings.list.iter().any(|finding| finding.rule == rule && text[finding.span.clone()].starts_with(at))
    };
    for (point, rule, at) in [
        ("a descriptor is __s32, and there is no int", Rule::FdType, "fd"),
        ("numbers in one enum", Rule::NumberLiteral, "LIVEUPDATE_IOCTL_FD_PRESERVE"),
        ("numbers in one enum", Rule::NumberLiteral, "LIVEUPDATE_IOCTL_FINISH"),
        ("tightly packed", Rule::NumberGap, "LIVEUPDATE_IOCTL_CANCEL"),
        ("kernel-doc on the structure", Rule::DocMissing, "liveupdate_fd"),
        ("kernel-doc not on the macro", Rule::DocOnMacro, "LIVEUPDATE_IOCTL_FD_RESTORE"),
        ("structures that tell their size", Rule::SizeFirst, "liveupdate_fd"),
        ("plain _IO", Rule::SizeInNumber, "LIVEUPDATE_IOCTL_FD_PRESERVE"),
        (
            "every command has a structure: no bare __u64",
            Rule::BareArgument,
            "LIVEUPDATE_IOCTL_FD_UNPRESERVE",
        ),
        ("every command has a structure: no bare enum", Rule::BareArgument, "LIVEUPDATE_IOCTL_GET_STATE"),
        ("every command has a structure", Rule::NoArgument, "LIVEUPDATE_IOCTL_PREPARE"),
        ("every command has a structure of its own", Rule::SharedStructure, "liveupdate_fd"),
        ("one command that sets the state", Rule::EventCommands, "LIVEUPDATE_IOCTL_PREPARE"),
    ] {
        assert!(raised(rule, at), "{point}: {rule} at {at}");
    }
}

#[test]
fn a_header_that_keeps_every_rule() {
    let loaded = read_alone("include/linux/liveupdate.h", &header("merged.h"));
    let findings = lint(&loaded, Some(&Registry::parse(REGISTERED)));
    assert_eq!(findings.open().collect::<Vec<_>>(), [] as [&luosim_uapi::lint::Finding; 0]);
    assert_eq!(findings.count().allowed, 4);
}

#[test]
fn rules_are_told_apart_and_say_everything() {
    let ids: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
    assert_eq!(ids.len(), Rule::ALL.len());
    for rule in Rule::ALL {
        assert_eq!(Rule::from_id(rule.id()), Some(*rule));
        for text in [rule.asks(), rule.why(), rule.fix()] {
            assert!(text.len() > 10 && text.ends_with(['.', ')']), "{rule}: {text}");
        }
    }
    assert_eq!(Rule::from_id("no-such-rule"), None);
    assert_eq!(Rule::NotUnderstood.level(), Level::Note);
}

#[test]
fn a_whole_header_may_be_allowed_something() {
    let text = "/* luosim-abi: allow-file(plain-integer, fd-type) a copy of an old one */\nstruct s { int a; int fd; };\n\
                struct t { long b; };\n";
    let findings = lint(&read_alone("x.h", text), None);
    assert_eq!((findings.count().warnings, findings.count().allowed), (1, 2));
}
