//! Configuration space of one function: 256 bytes, and the extended capability for access control services.
//!
//! Every bit has a rule: read-only, writable, or cleared by writing a one. What a write *causes* (a reset, a change of the
//! power state, interrupts that may now go) is told to the caller as [`Effects`]. Not modelled: I/O space, expansion ROMs,
//! BARs other than BAR0, bridge windows (a bridge passes all memory requests when its Command register lets it).

/// Bytes of configuration space.
pub const CONFIG_SIZE: u16 = 256;
/// Bytes that are kept: configuration space and one extended capability.
const KEPT: usize = 0x108;

/// Register offsets.
pub mod reg {
    /// Vendor id, u16.
    pub const VENDOR: u16 = 0x00;
    /// Device id, u16.
    pub const DEVICE: u16 = 0x02;
    /// Command, u16.
    pub const COMMAND: u16 = 0x04;
    /// Status, u16.
    pub const STATUS: u16 = 0x06;
    /// Class code and revision, u32.
    pub const CLASS: u16 = 0x08;
    /// Header type, u8.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// Base address 0, u32; the upper half of its 64 bits follows.
    pub const BAR0: u16 = 0x10;
    /// Primary bus of a bridge, u8.
    pub const PRIMARY: u16 = 0x18;
    /// Secondary bus of a bridge, u8.
    pub const SECONDARY: u16 = 0x19;
    /// Subordinate bus of a bridge, u8.
    pub const SUBORDINATE: u16 = 0x1a;
    /// Offset of the first capability, u8.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, u8: for software.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, u8.
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// Power management capability.
    pub const PM: u16 = 0x40;
    /// Power management control and status, u16.
    pub const PM_CONTROL: u16 = PM + 4;
    /// MSI-X capability; endpoints only.
    pub const MSIX: u16 = 0x50;
    /// MSI-X message control, u16.
    pub const MSIX_CONTROL: u16 = MSIX + 2;
    /// PCI Express capability.
    pub const EXPRESS: u16 = 0x60;
    /// Device capabilities, u32.
    pub const DEVICE_CAPABILITIES: u16 = EXPRESS + 4;
    /// Device control, u16.
    pub const DEVICE_CONTROL: u16 = EXPRESS + 8;
    /// Device control 2, u16.
    pub const DEVICE_CONTROL_2: u16 = EXPRESS + 0x28;
    /// Extended capability: access control services; absent in functions that need a quirk.
    pub const ACS: u16 = 0x100;
    /// Access control services: control, u16.
    pub const ACS_CONTROL: u16 = ACS + 6;
}

/// Bits of the Command register.
pub mod command {
    /// Answers memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// May issue memory requests; in a bridge, passes those from below.
    pub const MASTER: u16 = 1 << 2;
    /// Does not assert INTx.
    pub const INTX_DISABLE: u16 = 1 << 10;
    /// Bits that can be written.
    pub const WRITABLE: u16 = 0x0547;
}

/// Bits of the Status register.
pub mod status {
    /// INTx is asserted, or would be if it were not disabled.
    pub const INTERRUPT: u16 = 1 << 3;
    /// There is a list of capabilities.
    pub const CAPABILITIES: u16 = 1 << 4;
    /// A request of this function was refused.
    pub const RECEIVED_MASTER_ABORT: u16 = 1 << 13;
    /// Bits that a one clears.
    pub const CLEARED_BY_ONE: u16 = 0xf900;
}

/// Bits of other registers.
pub mod bits {
    /// Message control: the whole function is masked.
    pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
    /// Message control: MSI-X is on.
    pub const MSIX_ENABLE: u16 = 1 << 15;
    /// Power management control: the state, 0 for D0 to 3 for D3hot.
    pub const PM_STATE: u16 = 3;
    /// Power management control: D3hot to D0 keeps the state of the function.
    pub const PM_NO_SOFT_RESET: u16 = 1 << 3;
    /// Device capabilities: the function can be reset.
    pub const FUNCTION_RESET: u32 = 1 << 28;
    /// Device control: reset the function.
    pub const INITIATE_RESET: u16 = 1 << 15;
    /// Device control 2: ARI forwarding.
    pub const ARI_FORWARDING: u16 = 1 << 5;
    /// ACS control: source validation, translation blocking, redirects, upstream forwarding.
    pub const ACS_DEFAULT: u16 = 0x1d;
}

/// Vendor id of everything here.
pub const VENDOR_ID: u16 = 0x1b36;
/// Device id of a bridge.
pub const BRIDGE_ID: u16 = 0x000c;
/// Device id of a `simdma`.
pub const SIMDMA_ID: u16 = 0x5d4d;
/// Device id of a virtual function of a `simdma`.
pub const SIMDMA_VF_ID: u16 = 0x5d4e;
/// Device id of a `simdma` that isolates, but does not say so by a capability: kernels know it from a table of quirks.
pub const SIMDMA_QUIRK_ID: u16 = 0x5d51;

/// What a function is, as far as its configuration space shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A bridge.
    Bridge,
    /// A `simdma`.
    Endpoint,
    /// A virtual function.
    Virtual,
    /// A `simdma` without the capability for access control services.
    AcsQuirk,
}

/// What a write caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The function is to be reset: it was asked for, or it came back from D3hot.
    pub reset: bool,
    /// Interrupts may have become deliverable.
    pub interrupts: bool,
}

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace {
    bytes: [u8; KEPT],
    identity: Identity,
}

impl ConfigSpace {
    /// The registers as they are after power on.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut config = Self { bytes: [0; KEPT], identity };
        config.reset();
        config
    }

    /// What the function is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    fn is_bridge(&self) -> bool {
        self.identity == Identity::Bridge
    }

    /// Every register has its value after a reset.
    pub fn reset(&mut self) {
        self.bytes = [0; KEPT];
        let (device, class, header) = match self.identity {
            Identity::Bridge => (BRIDGE_ID, 0x0604_0000, 0x01),
            Identity::Endpoint => (SIMDMA_ID, 0x0880_0001, 0x80),
            Identity::Virtual => (SIMDMA_VF_ID, 0x0880_0001, 0x80),
            Identity::AcsQuirk => (SIMDMA_QUIRK_ID, 0x0880_0001, 0x00),
        };
        self.put(reg::VENDOR, &VENDOR_ID.to_le_bytes());
        self.put(reg::DEVICE, &device.to_le_bytes());
        self.put(reg::STATUS, &status::CAPABILITIES.to_le_bytes());
        self.put(reg::CLASS, &u32::to_le_bytes(class));
        self.put(reg::HEADER_TYPE, &[header]);
        self.put(reg::CAPABILITIES, &[0x40]);
        self.reset_capabilities();
    }

    fn reset_capabilities(&mut self) {
        let (after_pm, port) = if self.is_bridge() { (0x60, 4u8) } else { (0x50, 0) };
        self.put(reg::PM, &[1, after_pm, 3, 0]);
        if self.is_bridge() {
            // A bridge that lost its bus numbers in D3 would cut off everything below it.
            self.put(reg::PM_CONTROL, &bits::PM_NO_SOFT_RESET.to_le_bytes());
        } else {
            self.put(reg::BAR0, &0x4u32.to_le_bytes());
            self.put(reg::INTERRUPT_PIN, &[1]);
            self.put(reg::MSIX, &[0x11, 0x60, 0, 0]);
            self.put(reg::MSIX + 4, &0x800u32.to_le_bytes());
            self.put(reg::MSIX + 8, &0xc00u32.to_le_bytes());
            self.put(reg::DEVICE_CAPABILITIES, &bits::FUNCTION_RESET.to_le_bytes());
        }
        self.put(reg::EXPRESS, &[0x10, 0, 2 | (port << 4), 0]);
        if self.identity != Identity::AcsQuirk {
            self.put(reg::ACS, &0x0001_000du32.to_le_bytes());
            self.put(reg::ACS + 4, &[0x1f, 0]);
        }
    }

    fn put(&mut self, offset: u16, bytes: &[u8]) {
        let at = usize::from(offset);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    /// The 16 bits at an offset.
    #[must_use]
    pub fn u16(&self, offset: u16) -> u16 {
        let at = usize::from(offset);
        u16::from_le_bytes([self.byte(at), self.byte(at + 1)])
    }

    /// Reads `width` bytes (1, 2 or 4) at an aligned offset; registers that are not there read as zeros, other
    /// accesses as ones.
    #[must_use]
    pub fn read(&self, offset: u16, width: u8) -> u32 {
        if !is_aligned(offset, width) {
            return u32::MAX;
        }
        let at = usize::from(offset);
        let byte = |n: u8| if n < width { self.byte(at + usize::from(n)) } else { 0 };
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    }

    /// Writes `width` bytes (1, 2 or 4) at an aligned offset; what may not be written stays, and other accesses do
    /// nothing.
    pub fn write(&mut self, offset: u16, width: u8, value: u32) -> Effects {
        if !is_aligned(offset, width) {
            return Effects::default();
        }
        let state = self.power_state();
        let initiates = self.would_reset(offset, width, value);
        for (n, byte) in value.to_le_bytes().into_iter().enumerate().take(usize::from(width)) {
            self.write_byte(usize::from(offset) + n, byte);
        }
        let wakes = state == 3 && self.power_state() == 0;
        let soft_reset = self.u16(reg::PM_CONTROL) & bits::PM_NO_SOFT_RESET == 0;
        Effects { reset: initiates || (wakes && soft_reset), interrupts: true }
    }

    fn would_reset(&self, offset: u16, width: u8, value: u32) -> bool {
        let at = reg::DEVICE_CONTROL + 1;
        let touches = offset <= at && offset + u16::from(width) > at;
        let high = value.to_le_bytes()[usize::from(at.saturating_sub(offset).min(3))];
        touches && !self.is_bridge() && high & 0x80 != 0
    }

    fn write_byte(&mut self, at: usize, value: u8) {
        let (mask, clears) = self.rule(at);
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte = ((*byte & !mask) | (value & mask)) & !(value & clears);
        }
    }

    /// Which bits of a byte can be written, and which a one clears.
    fn rule(&self, at: usize) -> (u8, u8) {
        let Ok(at) = u16::try_from(at) else { return (0, 0) };
        let half = |base: u16, bits: u16| bits.to_le_bytes()[usize::from(at - base)];
        let bridge = self.is_bridge();
        match at {
            0x04 | 0x05 => (half(reg::COMMAND, command::WRITABLE), 0),
            0x06 | 0x07 => (0, half(reg::STATUS, status::CLEARED_BY_ONE)),
            0x11 if !bridge => (0xf0, 0),
            0x12..=0x17 if !bridge => (0xff, 0),
            0x18..=0x1a if bridge => (0xff, 0),
            0x3c => (0xff, 0),
            0x44 => (0x03, 0),
            0x53 if !bridge => (0xc0, 0),
            0x88 if bridge => (0x20, 0),
            0x106 if self.identity != Identity::AcsQuirk => (0x1f, 0),
            _ => (0, 0),
        }
    }

    /// 0 for D0, 1 to 3 for D1 to D3hot.
    #[must_use]
    pub fn power_state(&self) -> u8 {
        self.bytes[usize::from(reg::PM_CONTROL)] & 3
    }

    /// Whether Command has all of `bits` and the function is in D0.
    #[must_use]
    pub fn may(&self, bits: u16) -> bool {
        self.power_state() == 0 && self.u16(reg::COMMAND) & bits == bits
    }

    /// The BAR's address.
    #[must_use]
    pub fn bar0(&self) -> u64 {
        let half = |offset| u64::from(self.read(offset, 4));
        (half(reg::BAR0) & 0xffff_f000) | (half(reg::BAR0 + 4) << 32)
    }

    /// Bus numbers of a bridge: primary, secondary, subordinate.
    #[must_use]
    pub fn buses(&self) -> (u8, u8, u8) {
        let byte = |offset: u16| self.bytes[usize::from(offset)];
        (byte(reg::PRIMARY), byte(reg::SECONDARY), byte(reg::SUBORDINATE))
    }

    /// A request of the function was refused.
    pub(crate) fn note_abort(&mut self) {
        let status = self.u16(reg::STATUS) | status::RECEIVED_MASTER_ABORT;
        self.put(reg::STATUS, &status.to_le_bytes());
    }

    /// The line of the INTx interrupt.
    pub(crate) fn set_interrupt_status(&mut self, asserted: bool) {
        let status = self.u16(reg::STATUS) & !status::INTERRUPT;
        let bit = if asserted { status::INTERRUPT } else { 0 };
        self.put(reg::STATUS, &(status | bit).to_le_bytes());
    }
}

fn is_aligned(offset: u16, width: u8) -> bool {
    matches!(width, 1 | 2 | 4) && offset.is_multiple_of(u16::from(width)) && offset < 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_bits_stay() {
        let mut config = ConfigSpace::new(Identity::Endpoint);
        let before = config.clone();
        for offset in (0..0x200).step_by(4) {
            if ![0x04, 0x10, 0x14, 0x3c, 0x44, 0x50, 0x68, 0x104].contains(&offset) {
                assert!(!config.write(offset, 4, u32::MAX).reset);
            }
        }
        assert_eq!(config, before);
    }

    #[test]
    fn a_bar_tells_its_size() {
        let mut config = ConfigSpace::new(Identity::Endpoint);
        config.write(reg::BAR0, 4, u32::MAX);
        assert_eq!(config.read(reg::BAR0, 4), 0xffff_f004);
        config.write(reg::BAR0, 4, 0x1234_5678);
        config.write(reg::BAR0 + 4, 4, 0x2000);
        assert_eq!(config.bar0(), 0x2000_1234_5000);
    }

    #[test]
    fn status_is_cleared_by_ones() {
        let mut config = ConfigSpace::new(Identity::Endpoint);
        config.note_abort();
        config.write(reg::COMMAND, 4, u32::from(command::MASTER));
        assert_ne!(config.u16(reg::STATUS) & status::RECEIVED_MASTER_ABORT, 0);
        config.write(reg::STATUS, 2, u32::from(status::RECEIVED_MASTER_ABORT));
        assert_eq!(config.u16(reg::STATUS), status::CAPABILITIES);
        assert_eq!(config.u16(reg::COMMAND), command::MASTER);
    }

    #[test]
    fn resets_are_asked_for_by_any_width() {
        for (offset, width, value) in [(0x68, 2, 0x8000), (0x68, 4, 0x8000), (0x69, 1, 0x80)] {
            assert!(ConfigSpace::new(Identity::Endpoint).write(offset, width, value).reset, "{offset:#x}");
            assert!(!ConfigSpace::new(Identity::Bridge).write(offset, width, value).reset);
        }
        assert!(!ConfigSpace::new(Identity::Endpoint).write(0x68, 1, 0x80).reset);
        let mut config = ConfigSpace::new(Identity::Endpoint);
        assert!(!config.write(reg::PM_CONTROL, 2, 3).reset && config.power_state() == 3);
        assert!(!config.may(0));
        assert!(config.write(reg::PM_CONTROL, 2, 0).reset);
    }
}
