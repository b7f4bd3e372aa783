//! The build configuration that a kernel with `CONFIG_IKCONFIG` carries: gzip behind the marker `IKCFG_ST`.
//!
//! What is not there is `None`, which is something else than *off*: distribution kernels usually carry none.

use std::io::Read;

use serde::Serialize;

use crate::limits;

/// Options that matter for a live update; `None` where the configuration does not know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// `CONFIG_KEXEC_HANDOVER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kexec_handover: Option<bool>,
    /// `CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT`: `kho=on` need not be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kho_default_on: Option<bool>,
    /// `CONFIG_LIVEUPDATE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveupdate: Option<bool>,
    /// `CONFIG_LIVEUPDATE_MEMFD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveupdate_memfd: Option<bool>,
    /// Bytes of a page, from `CONFIG_PAGE_SHIFT` or the option of the architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
}

const MARKER: &[u8] = b"IKCFG_ST";

impl Config {
    /// The configuration embedded in these bytes. A marker without readable gzip behind it is passed over: the name
    /// occurs in the kernel's own scripts too.
    pub(crate) fn find(bytes: &[u8]) -> Option<Self> {
        // A file may repeat the marker as often as it likes; a kernel has it once.
        memchr::memmem::find_iter(bytes, MARKER).take(8).find_map(|at| {
            let packed = bytes.get(at + MARKER.len()..)?;
            packed.starts_with(&[0x1f, 0x8b]).then_some(())?;
            let mut text = Vec::new();
            flate2::bufread::GzDecoder::new(packed).take(limits::CONFIG).read_to_end(&mut text).ok()?;
            Some(Self::parse(&String::from_utf8_lossy(&text)))
        })
    }

    /// Reads a `.config`.
    fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines() {
            let off = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
            let (name, value) = match off {
                Some(name) => (name, "n"),
                None => line.split_once('=').unwrap_or((line, "")),
            };
            config.take(name, value);
        }
        config
    }

    fn take(&mut self, name: &str, value: &str) {
        let on = Some(value == "y");
        match name {
            "CONFIG_KEXEC_HANDOVER" => self.kexec_handover = on,
            "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT" => self.kho_default_on = on,
            "CONFIG_LIVEUPDATE" => self.liveupdate = on,
            "CONFIG_LIVEUPDATE_MEMFD" => self.liveupdate_memfd = on,
            "CONFIG_PAGE_SHIFT" => {
                self.page_size = value.parse().ok().and_then(|shift| 1_u32.checked_shl(shift));
            }
            "CONFIG_ARM64_4K_PAGES" if value == "y" => self.page_size = Some(4 << 10),
            "CONFIG_ARM64_16K_PAGES" if value == "y" => self.page_size = Some(16 << 10),
            "CONFIG_ARM64_64K_PAGES" if value == "y" => self.page_size = Some(64 << 10),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_off_and_unknown_are_three_things() {
        let config = Config::parse(
            "CONFIG_KEXEC_HANDOVER=y\n# CONFIG_LIVEUPDATE is not set\nCONFIG_PAGE_SHIFT=14\nCONFIG_LIVEUPDATE_X=y\n",
        );
        assert_eq!(config.kexec_handover, Some(true));
        assert_eq!(config.liveupdate, Some(false));
        assert_eq!(config.kho_default_on, None);
        assert_eq!(config.page_size, Some(16384));
    }

    #[test]
    fn a_silly_page_shift_is_none() {
        assert_eq!(Config::parse("CONFIG_PAGE_SHIFT=99\nCONFIG_ARM64_4K_PAGES=n").page_size, None);
    }

    #[test]
    fn a_marker_without_gzip_is_no_configuration() {
        assert_eq!(Config::find(b"x IKCFG_ST and IKCFG_ED"), None);
    }
}
