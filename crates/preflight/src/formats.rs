//! The version strings of a kernel: what it writes into a handover, and what it reads.
//!
//! A kernel writes and reads one version a layer, so one set of strings serves for both directions. That a string is
//! in a kernel says that the code is built in; whether it runs is a matter of its command line.

use std::collections::BTreeSet;

use luosim_abi::release::{LuoVersion, Release};
use serde::Serialize;

use crate::Arch;

/// What decides whether two kernels understand each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Formats {
    /// The machine it runs on; `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Bytes of a page; `None` if that is not known. No string says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// KHO root tree: `kho-v4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kho: Option<String>,
    /// LUO root: `luo-v5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub luo: Option<String>,
    /// Session node of a `luo-v1` tree: `luo-session-v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// FLB node of a `luo-v1` tree: `luo-flb-v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flb: Option<String>,
    /// File handlers: `memfd-v2`, `vfio-pci-v1`.
    pub handlers: Vec<String>,
    /// File-lifecycle-bound objects that it registers.
    pub flbs: Vec<String>,
    /// Subtree of `reserve_mem=`: `memblock-v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memblock: Option<String>,
}

/// What is known of a version string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A release has it.
    Shipped,
    /// It existed between releases, in development trees only.
    Development,
    /// Newer than anything known here, or never seen.
    Unknown,
}

/// Strings of the layers above the handlers, with what became of them.
const HISTORY: &[(&str, Known)] = &[
    ("kho-v1", Known::Shipped),
    ("kho-v2", Known::Development),
    ("kho-v3", Known::Shipped),
    ("kho-v4", Known::Shipped),
    ("luo-v1", Known::Shipped),
    ("luo-v2", Known::Development),
    ("luo-v3", Known::Development),
    ("luo-v4", Known::Development),
    ("luo-v5", Known::Shipped),
    ("luo-session-v1", Known::Development),
    ("luo-session-v2", Known::Shipped),
    ("luo-flb-v1", Known::Shipped),
    ("memfd-v1", Known::Shipped),
    ("memfd-v2", Known::Shipped),
    ("memblock-v1", Known::Shipped),
    // Of the kernel's own test, with CONFIG_LIVEUPDATE_TEST.
    ("liveupdate-test-flb-v0", Known::Shipped),
    ("liveupdate-test-flb-v1", Known::Shipped),
    ("liveupdate-test-flb-v2", Known::Shipped),
];

/// What is known of a version string.
#[must_use]
pub fn known(string: &str) -> Known {
    HISTORY.iter().find(|(name, _)| *name == string).map_or(Known::Unknown, |(_, known)| *known)
}

/// File handlers by the name before their version: the one in Linux, and those that are worked on.
const HANDLERS: &[&str] = &["memfd", "vfio-pci", "iommufd", "kvm_vm_luo", "kvm_vcpu_luo", "guest_memfd_luo"];

/// File-lifecycle-bound objects with a version in their name: those of the kernel's own test, and of hugetlb.
const FLBS: &[&str] = &["liveupdate-test-flb", "hugetlb"];

/// Splits `vfio-pci-v1` into its name and version.
pub(crate) fn split(string: &str) -> Option<(&str, u32)> {
    let at = string.rfind(['-', '_'])?;
    let digits = string.get(at + 1..)?.strip_prefix('v')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = plain && (digits == "0" || !digits.starts_with('0'));
    canonical.then(|| digits.parse().ok()).flatten().map(|version| (&string[..at], version))
}

/// Whether a string is of a family that is looked for; others are not kept.
pub(crate) fn wanted(string: &str) -> bool {
    let single = ["kho", "luo", "luo-session", "luo-flb", "memblock"];
    split(string)
        .is_some_and(|(name, _)| single.contains(&name) || HANDLERS.contains(&name) || FLBS.contains(&name))
}

/// The strings of these families.
fn all(strings: &BTreeSet<String>, names: &[&str]) -> Vec<String> {
    let of_family = |string: &&String| split(string).is_some_and(|(name, _)| names.contains(&name));
    strings.iter().filter(of_family).cloned().collect()
}

impl Formats {
    /// Sorts the strings of a kernel file into their layers. Where a layer has several the highest counts, and a
    /// warning says so: no kernel has two.
    pub(crate) fn sort(strings: &BTreeSet<String>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let of = |name: &str| {
            let mut found = all(strings, &[name]);
            found.sort_by_key(|string| split(string).map(|(_, version)| version));
            found
        };
        let mut one = |name: &str| {
            let mut found = of(name);
            if found.len() > 1 {
                warnings.push(format!("it carries {}: the last of them is taken", found.join(" and ")));
            }
            found.pop()
        };
        let mut formats = Self {
            kho: one("kho"),
            luo: one("luo"),
            session: one("luo-session"),
            flb: one("luo-flb"),
            memblock: one("memblock"),
            ..Self::default()
        };
        formats.handlers = all(strings, HANDLERS);
        formats.flbs = all(strings, FLBS);
        formats.without_kho(&mut warnings);
        (formats, warnings)
    }

    /// Without KHO nothing of the rest is built: other strings are something else.
    fn without_kho(&mut self, warnings: &mut Vec<String>) {
        if self.kho.is_some() {
            return;
        }
        if self.luo.is_some() {
            warnings.push(String::from("it carries a LUO version but no KHO version: taken as without both"));
        }
        *self = Self { arch: self.arch, page_size: self.page_size, ..Self::default() };
    }

    /// The strings of a release that luosim knows, on x86-64.
    #[must_use]
    pub fn of_release(release: &Release) -> Self {
        let tree = release.luo == Some(LuoVersion::V1);
        Self {
            arch: Some(Arch::X86_64),
            page_size: Some(4096),
            kho: Some(release.kho.compatible().to_owned()),
            luo: release.luo.map(|version| version.compatible().to_owned()),
            session: tree.then(|| luosim_abi::luo::v1::SESSION_COMPATIBLE.to_owned()),
            flb: (tree && release.flb).then(|| luosim_abi::luo::flb::COMPATIBLE.to_owned()),
            handlers: release.memfd.iter().map(|version| version.compatible().to_owned()).collect(),
            flbs: Vec::new(),
            memblock: Some(String::from("memblock-v1")),
        }
    }

    /// Every string, in the order of the layers.
    pub fn strings(&self) -> impl Iterator<Item = &str> {
        let single = [&self.kho, &self.luo, &self.session, &self.flb, &self.memblock];
        let several = self.handlers.iter().chain(&self.flbs);
        single.into_iter().flatten().chain(several).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(strings: &[&str]) -> BTreeSet<String> {
        strings.iter().map(|string| (*string).to_owned()).collect()
    }

    #[test]
    fn names_and_versions_come_apart() {
        assert_eq!(split("luo-session-v2"), Some(("luo-session", 2)));
        assert_eq!(split("kvm_vm_luo_v1"), Some(("kvm_vm_luo", 1)));
        for bad in ["kho-v", "kho-v01", "kho-v+1", "kho-v99999999999", "kho-1", "v1", "kho-vx", ""] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_known_families_are_wanted() {
        for good in ["kho-v12", "luo-v4", "luo-flb-v1", "vfio-pci-v1", "liveupdate-test-flb-v0"] {
            assert!(wanted(good), "{good}");
        }
        for bad in ["xkho-v1", "kho-test-v1", "reserve-mem-v1", "arm,smmu-v3", "kho"] {
            assert!(!wanted(bad), "{bad}");
        }
    }

    #[test]
    fn strings_are_sorted_into_layers() {
        let (formats, warnings) =
            Formats::sort(&set(&["memfd-v2", "luo-v5", "kho-v4", "vfio-pci-v1", "liveupdate-test-flb-v0"]));
        assert_eq!(formats.kho.as_deref(), Some("kho-v4"));
        assert_eq!(formats.luo.as_deref(), Some("luo-v5"));
        assert_eq!(formats.handlers, ["memfd-v2", "vfio-pci-v1"]);
        assert_eq!(formats.flbs, ["liveupdate-test-flb-v0"]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn two_versions_of_a_layer_are_told() {
        let (formats, warnings) = Formats::sort(&set(&["kho-v9", "kho-v10"]));
        assert_eq!(formats.kho.as_deref(), Some("kho-v10"));
        assert_eq!(warnings, ["it carries kho-v9 and kho-v10: the last of them is taken"]);
    }

    #[test]
    fn without_kho_there_is_nothing() {
        let (formats, warnings) = Formats::sort(&set(&["luo-v5", "memfd-v2"]));
        assert_eq!(formats, Formats::default());
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn development_snapshots_are_known() {
        assert_eq!(known("kho-v2"), Known::Development);
        assert_eq!(known("luo-v3"), Known::Development);
        assert_eq!(known("kho-v4"), Known::Shipped);
        assert_eq!(known("kho-v5"), Known::Unknown);
    }
}
