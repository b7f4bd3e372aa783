//! The address of a PCI function, which is also the requester id of its transactions.
//!
//! One segment: segment 0.

use std::fmt;
use std::str::FromStr;

/// The only segment.
pub const SEGMENT: u32 = 0;

/// Bus (8 bits), device (5) and function (3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// The function `function` (0 to 7) of the device `device` (0 to 31) on bus `bus`; higher bits are cut off.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self::on(bus, ((device & 31) << 3) | (function & 7))
    }

    /// What has this device and function number on bus `bus`.
    #[must_use]
    pub const fn on(bus: u8, devfn: u8) -> Self {
        Self(((bus as u16) << 8) | devfn as u16)
    }

    /// From 16 bits: bus in 15:8, device in 7:3, function in 2:0.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The 16 bits.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Device in bits 7:3, function in 2:0.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// Device.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn() >> 3
    }

    /// Function.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn() & 7
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no address of a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not the address of a PCI function: write bus:device.function in hexadecimal, as in 01:00.0"
)]
pub struct BdfError(String);

impl FromStr for Bdf {
    type Err = BdfError;

    fn from_str(text: &str) -> Result<Self, BdfError> {
        let parse = || {
            let (bus, rest) = text.strip_prefix("0000:").unwrap_or(text).split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let number = |digits: &str| u8::from_str_radix(digits, 16).ok();
            let (bus, device, function) = (number(bus)?, number(device)?, number(function)?);
            (device < 32 && function < 8).then(|| Self::new(bus, device, function))
        };
        parse().ok_or_else(|| BdfError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bits() {
        let bdf: Bdf = "02:1f.7".parse().unwrap();
        assert_eq!((bdf.raw(), bdf.bus(), bdf.device(), bdf.function()), (0x02ff, 2, 31, 7));
        assert_eq!(bdf.to_string(), "02:1f.7");
        assert_eq!("0000:01:00.0".parse(), Ok(Bdf::new(1, 0, 0)));
        for wrong in ["", "1", "01:00", "01:20.0", "01:00.8", "x:00.0", "100:00.0"] {
            assert!(wrong.parse::<Bdf>().is_err(), "{wrong}");
        }
    }
}
