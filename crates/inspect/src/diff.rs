//! Two handovers compared by meaning: sessions by name, files by token, contents by what is in them.
//!
//! Addresses mean nothing, since every kernel puts things elsewhere; they are compared only when asked for. What a
//! version cannot say (seals in `memfd-v1`) differs from what another says.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Inspection;
use crate::contents::compare;
use crate::report::{Addr, File, Flb, Metadata, Name, Report, Session, seal_names};

/// Version of the form of [`Diff`].
pub const VERSION: u32 = 1;

/// What differs between two handovers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diff {
    /// [`VERSION`].
    pub version: u32,
    /// Whether nothing does.
    pub same: bool,
    /// The differences, in the order of the report.
    pub differences: Vec<Difference>,
}

/// One difference. Absent is what one side does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs: `session "vm-1", token 0x1, size`.
    pub what: String,
    /// In the first handover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    /// In the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
}

/// Compares two handovers.
#[must_use]
pub fn diff(a: &Inspection, b: &Inspection, addresses: bool) -> Diff {
    let mut compared = Compared { a, b, addresses, found: Vec::new() };
    compared.all();
    let differences = compared.found;
    Diff { version: VERSION, same: differences.is_empty(), differences }
}

struct Compared<'a> {
    a: &'a Inspection,
    b: &'a Inspection,
    addresses: bool,
    found: Vec<Difference>,
}

/// Things by their key; of two with one key the first counts, as for a reader.
fn keyed<T, K: Ord>(list: &[T], key: impl Fn(&T) -> K) -> BTreeMap<K, &T> {
    let mut map = BTreeMap::new();
    for item in list {
        map.entry(key(item)).or_insert(item);
    }
    map
}

/// The keys of both, ascending.
fn keys<'m, K: Ord, T>(a: &'m BTreeMap<K, T>, b: &'m BTreeMap<K, T>) -> Vec<&'m K> {
    let mut all: Vec<&K> = a.keys().chain(b.keys()).collect();
    all.sort();
    all.dedup();
    all
}

impl Compared<'_> {
    fn value(&mut self, what: &str, a: Option<String>, b: Option<String>) {
        if a != b {
            self.found.push(Difference { what: what.to_owned(), a, b });
        }
    }

    fn address(&mut self, what: &str, a: Option<Addr>, b: Option<Addr>) {
        if self.addresses {
            self.value(what, a.map(|at| at.to_string()), b.map(|at| at.to_string()));
        }
    }

    fn all(&mut self) {
        let (a, b) = (&self.a.report, &self.b.report);
        self.value("memory, bytes", Some(a.source.bytes.to_string()), Some(b.source.bytes.to_string()));
        let root = |report: &Report| report.root.as_ref().map(|root| root.compatible.clone());
        self.value("root, version", root(a), root(b));
        let at = |report: &Report| report.root.as_ref().map(|root| root.at);
        self.address("root, address", at(a), at(b));
        let map = |report: &Report| report.root.as_ref().and_then(|root| root.map_at);
        self.address("memory map, address", map(a), map(b));
        self.subtrees(a, b);
        self.scratch(a, b);
        self.metadata(a.metadata.as_ref(), b.metadata.as_ref());
        self.reserve_mem(a, b);
        self.luo(a, b);
    }

    fn subtrees(&mut self, a: &Report, b: &Report) {
        let list =
            |report: &Report| report.root.as_ref().map(|root| root.subtrees.clone()).unwrap_or_default();
        let (a, b) = (list(a), list(b));
        let (a, b) = (keyed(&a, |subtree| subtree.name.clone()), keyed(&b, |subtree| subtree.name.clone()));
        for name in keys(&a, &b) {
            let (a, b) = (a.get(name), b.get(name));
            let there = |side: Option<_>| side.map(|_: &&_| String::from("there"));
            self.value(&format!("subtree {name}"), there(a), there(b));
            if a.is_some() && b.is_some() {
                let what = format!("subtree {name}, address");
                self.address(&what, a.and_then(|subtree| subtree.at), b.and_then(|subtree| subtree.at));
            }
        }
    }

    fn scratch(&mut self, a: &Report, b: &Report) {
        // What is not known on one side is not compared.
        let (Some(a), Some(b)) = (&a.scratch, &b.scratch) else { return };
        let sizes = |areas: &[crate::report::Area]| {
            let sizes: Vec<String> = areas.iter().map(|area| format!("{:#x}", area.bytes)).collect();
            Some(sizes.join(", "))
        };
        self.value("scratch, sizes", sizes(&a.areas), sizes(&b.areas));
        for (index, (a, b)) in a.areas.iter().zip(&b.areas).enumerate() {
            self.address(&format!("scratch {index}, address"), Some(a.at), Some(b.at));
        }
    }

    fn metadata(&mut self, a: Option<&Metadata>, b: Option<&Metadata>) {
        let release = |side: Option<&Metadata>| side.map(|metadata| metadata.release.clone());
        self.value("metadata, release", release(a), release(b));
        let count = |side: Option<&Metadata>| side.map(|metadata| metadata.kexec_count.to_string());
        self.value("metadata, kexec count", count(a), count(b));
        let version = |side: Option<&Metadata>| side.map(|metadata| metadata.version.to_string());
        self.value("metadata, version", version(a), version(b));
    }

    fn reserve_mem(&mut self, a: &Report, b: &Report) {
        let (a, b) =
            (keyed(&a.reserve_mem, |one| one.name.clone()), keyed(&b.reserve_mem, |one| one.name.clone()));
        for name in keys(&a, &b) {
            let (a, b) = (a.get(name), b.get(name));
            let bytes = |side: Option<&&crate::report::ReserveMem>| side.map(|one| one.bytes.to_string());
            self.value(&format!("reserve_mem {name}, bytes"), bytes(a), bytes(b));
            self.address(&format!("reserve_mem {name}, address"), a.map(|one| one.at), b.map(|one| one.at));
        }
    }

    fn luo(&mut self, a: &Report, b: &Report) {
        let (a, b) = (a.luo.as_ref(), b.luo.as_ref());
        self.value("LUO, version", a.map(|luo| luo.compatible.clone()), b.map(|luo| luo.compatible.clone()));
        self.value("LUO, number", a.map(|luo| luo.number.to_string()), b.map(|luo| luo.number.to_string()));
        self.address("LUO, address", a.map(|luo| luo.at), b.map(|luo| luo.at));
        let none: (&[Session], &[Flb]) = (&[], &[]);
        let (a_sessions, a_flbs) = a.map_or(none, |luo| (&luo.sessions, &luo.flbs));
        let (b_sessions, b_flbs) = b.map_or(none, |luo| (&luo.sessions, &luo.flbs));
        self.flbs(a_flbs, b_flbs);
        let name = |session: &Session| session.name.clone();
        let (a, b) = (keyed(a_sessions, name), keyed(b_sessions, name));
        for name in keys(&a, &b) {
            self.session(name, a.get(name).copied(), b.get(name).copied());
        }
    }

    fn flbs(&mut self, a: &[Flb], b: &[Flb]) {
        let (a, b) = (keyed(a, |flb| flb.name.clone()), keyed(b, |flb| flb.name.clone()));
        for name in keys(&a, &b) {
            let shown =
                |side: Option<&&Flb>| side.map(|flb| format!("{} files, data {}", flb.count, flb.data));
            self.value(&format!("flb \"{name}\""), shown(a.get(name)), shown(b.get(name)));
        }
    }

    fn session(&mut self, name: &Name, a: Option<&Session>, b: Option<&Session>) {
        let shown = |session: &Session| format!("{} files", session.files.len());
        let what = format!("session \"{name}\"");
        let (Some(a), Some(b)) = (a, b) else {
            return self.value(&what, a.map(shown), b.map(shown));
        };
        self.address(&format!("{what}, files"), a.files_at, b.files_at);
        let token = |file: &File| file.token;
        let (a_files, b_files) = (keyed(&a.files, token), keyed(&b.files, token));
        for token in keys(&a_files, &b_files) {
            let what = format!("{what}, token {token:#x}");
            match (a_files.get(token), b_files.get(token)) {
                (Some(one), Some(other)) => self.file(&what, (a.index, one), (b.index, other)),
                (one, other) => {
                    let shown = |file: &&File| match &file.memfd {
                        Some(memfd) => format!("{}, {} bytes", file.handler, memfd.size),
                        None => file.handler.to_string(),
                    };
                    self.value(&what, one.map(shown), other.map(shown));
                }
            }
        }
    }

    fn file(&mut self, what: &str, (a_session, a): (usize, &File), (b_session, b): (usize, &File)) {
        self.value(&format!("{what}, handler"), Some(a.handler.to_string()), Some(b.handler.to_string()));
        self.address(&format!("{what}, data"), Some(a.data), Some(b.data));
        let (one, other) = (a.memfd.as_ref(), b.memfd.as_ref());
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        self.value(
            &format!("{what}, size"),
            number(one.map(|one| one.size)),
            number(other.map(|other| other.size)),
        );
        self.value(
            &format!("{what}, position"),
            number(one.map(|one| one.pos)),
            number(other.map(|other| other.pos)),
        );
        let seals = |side: Option<&crate::report::Memfd>| side.and_then(|memfd| memfd.seals).map(seal_names);
        self.value(&format!("{what}, seals"), seals(one), seals(other));
        let one = self.a.contents_of(a_session, a.index);
        let other = self.b.contents_of(b_session, b.index);
        let (Some(one), Some(other)) = (one, other) else { return };
        if let Some((first, pages)) = compare(one, other) {
            let what = format!("{what}, contents ({pages} pages, from byte {first:#x} on)");
            self.value(&what, Some(one.sha256()), Some(other.sha256()));
        }
    }
}
