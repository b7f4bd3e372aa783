//! Each session and file of a handover.

use luosim_abi::release::ReleaseId;
use luosim_preflight::{
    Boot, Fate, File, Formats, Handover, Kernel, LuoStrings, Session, Source, Survival, Verdict,
};

fn kernel(kho: &str, luo: Option<&str>, session: Option<&str>, handlers: &[&str]) -> Kernel {
    Kernel {
        source: Source::Release,
        release: None,
        formats: Formats {
            kho: Some(kho.to_owned()),
            luo: luo.map(str::to_owned),
            session: session.map(str::to_owned),
            handlers: handlers.iter().map(|handler| (*handler).to_owned()).collect(),
            memblock: Some(String::from("memblock-v1")),
            ..Formats::default()
        },
        config: None,
        built_without: false,
        warnings: Vec::new(),
    }
}

fn file(token: u64, handler: &str) -> File {
    File { handler: handler.to_owned(), token }
}

fn session(name: &str, files: &[File]) -> Session {
    Session { name: name.to_owned(), files: files.to_vec() }
}

/// Two sessions; the second has a device between two memfds.
fn handover(kho: &str, luo: &str, node: Option<&str>, memfd: &str) -> Handover {
    Handover {
        kho: kho.to_owned(),
        luo: Some(LuoStrings { root: luo.to_owned(), session: node.map(str::to_owned), flb: None }),
        sessions: vec![
            session("cache", &[file(1, memfd)]),
            session("vm", &[file(0x10, memfd), file(0x11, "vfio-pci-v1"), file(0x12, memfd)]),
        ],
        flbs: Vec::new(),
        subtrees: vec![String::from("LUO")],
    }
}

/// The fates of sessions, and of files, as letters.
fn fates(verdict: &Verdict) -> String {
    let letter = |fate: Fate| if fate == Fate::Carried { "c" } else { "l" };
    let sessions = verdict.sessions.as_ref().expect("sessions");
    let each = sessions.iter().map(|session| {
        let files: String = session.files.iter().map(|file| letter(file.fate)).collect();
        format!("{}:{files}", letter(session.fate))
    });
    each.collect::<Vec<_>>().join(" ")
}

#[test]
fn everything_is_carried_to_a_kernel_that_has_all_handlers() {
    let new = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2", "vfio-pci-v1"]);
    let verdict = Verdict::of_handover(&handover("kho-v4", "luo-v5", None, "memfd-v2"), &new, &new);
    assert_eq!((verdict.survives, verdict.boot), (Survival::All, Boot::Handover));
    assert_eq!(fates(&verdict), "c:c c:ccc");
}

#[test]
fn one_missing_handler_and_no_session_comes_back() {
    let new = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2"]);
    let verdict = Verdict::of_handover(&handover("kho-v4", "luo-v5", None, "memfd-v2"), &new, &new);
    assert_eq!((verdict.survives, verdict.boot), (Survival::Nothing, Boot::Handover));
    assert_eq!(fates(&verdict), "l:l l:lll");
    let why = verdict.sessions.unwrap()[0].why.clone().unwrap();
    assert_eq!(
        why,
        "open fails with EIO: session \"vm\", token 0x11 has handler vfio-pci-v1, which NEW has not"
    );
}

#[test]
fn in_6_19_the_files_before_it_and_the_other_sessions_come_back() {
    let new = kernel("kho-v1", Some("luo-v1"), Some("luo-session-v2"), &["memfd-v1"]);
    let from = handover("kho-v1", "luo-v1", Some("luo-session-v2"), "memfd-v1");
    let verdict = Verdict::of_handover(&from, &new, &new);
    assert_eq!((verdict.survives, verdict.boot), (Survival::Part, Boot::Handover));
    assert_eq!(fates(&verdict), "c:c c:cll");
    let files = verdict.sessions.unwrap().remove(1).files;
    assert_eq!(files[1].why.as_deref(), Some("NEW has no handler vfio-pci-v1: ENOENT"));
    assert!(files[2].why.as_deref().unwrap().contains("behind"));
}

#[test]
fn a_handler_that_no_file_needs_is_not_missed() {
    let old = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2", "vfio-pci-v1"]);
    let new = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2"]);
    let mut from = handover("kho-v4", "luo-v5", None, "memfd-v2");
    from.sessions.pop();
    assert_eq!(Verdict::between(&old, &new).survives, Survival::Part);
    assert_eq!(Verdict::of_handover(&from, &old, &new).survives, Survival::All);
}

#[test]
fn a_refusal_below_loses_every_session_for_its_reason() {
    let old = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2"]);
    for (new, boot) in [
        (kernel("kho-v3", Some("luo-v1"), Some("luo-session-v2"), &["memfd-v2"]), Boot::Cold),
        (kernel("kho-v4", Some("luo-v4"), None, &["memfd-v2"]), Boot::Panic),
        (kernel("kho-v4", None, None, &[]), Boot::LuoOff),
    ] {
        let verdict = Verdict::of_handover(&handover("kho-v4", "luo-v5", None, "memfd-v2"), &old, &new);
        assert_eq!((verdict.survives, verdict.boot), (Survival::Nothing, boot));
        assert_eq!(fates(&verdict), "l:l l:lll");
        let refusal = verdict.first_refusal().unwrap().text.clone();
        assert!(verdict.sessions.unwrap().iter().all(|session| session.why.as_ref() == Some(&refusal)));
    }
}

#[test]
fn regions_count_beside_sessions() {
    let old = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2"]);
    let mut from = handover("kho-v4", "luo-v5", None, "memfd-v2");
    from.subtrees.push(String::from("memblock"));
    assert_eq!(Verdict::of_handover(&from, &old, &old).survives, Survival::Part);
    let without = kernel("kho-v4", None, None, &[]);
    assert_eq!(Verdict::of_handover(&from, &old, &without).survives, Survival::Part);
}

#[test]
fn objects_are_lost_where_their_node_is_ignored() {
    let release = |name: &str| Kernel::of_release(ReleaseId::from_name(name).unwrap().release());
    let mut from = handover("kho-v1", "luo-v1", Some("luo-session-v2"), "memfd-v1");
    from.sessions.pop();
    from.luo.as_mut().unwrap().flb = Some(String::from("luo-flb-v1"));
    assert_eq!(Verdict::of_handover(&from, &release("6.19"), &release("6.19")).survives, Survival::All);
    from.flbs.push(String::from("iommu"));
    assert_eq!(Verdict::of_handover(&from, &release("6.19"), &release("6.19")).survives, Survival::Part);
}

#[test]
fn a_handover_of_another_kernel_is_noticed() {
    let old = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2"]);
    let from = handover("kho-v3", "luo-v1", Some("luo-session-v2"), "memfd-v2");
    let verdict = Verdict::of_handover(&from, &old, &old);
    assert_eq!(verdict.boot, Boot::Cold);
    let note = "this handover was not written by OLD: it has kho-v3 where OLD has kho-v4";
    assert!(verdict.notes.iter().any(|found| found == note), "{:?}", verdict.notes);
}

#[test]
fn an_empty_handover_loses_nothing() {
    let old = kernel("kho-v4", Some("luo-v5"), None, &["memfd-v2"]);
    let from = Handover { kho: String::from("kho-v4"), ..Handover::default() };
    let verdict = Verdict::of_handover(&from, &old, &old);
    assert_eq!(verdict.survives, Survival::All);
    assert_eq!(verdict.sessions, Some(Vec::new()));
}
