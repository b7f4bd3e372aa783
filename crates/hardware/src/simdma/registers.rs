//! Registers of a `simdma`, as BAR0 shows them.

use luosim_physmem::PAGE_SIZE;
use zerocopy::{FromBytes, IntoBytes};

use super::SimDma;
use super::layout::{ID, MsixEntry, ctrl, reg, status};

impl SimDma {
    fn status(&self) -> u32 {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        bit(self.is_busy(), status::BUSY)
            | bit(self.fault_cnt > 0, status::FAULT)
            | bit(self.irq_pending, status::IRQ)
            | bit(self.master_off_seen, status::MASTER_OFF)
    }

    /// The aligned word at an offset; `None` where there is no register.
    pub(super) fn word(&self, offset: u16, now: u64) -> Option<u32> {
        let half = |value: u64| {
            let bytes = value.to_le_bytes();
            let from = usize::from(offset & 4);
            u32::from_le_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]])
        };
        Some(match offset {
            reg::ID => ID,
            reg::CTRL => self.ctrl,
            reg::STATUS => self.status(),
            0x10 | 0x14 => half(self.ring_iova),
            reg::RING_LEN => self.ring_len,
            reg::HEAD => self.head,
            reg::TAIL => self.tail,
            0x28 | 0x2c => half(self.cq_iova),
            0x30 | 0x34 => half(self.seq),
            0x38 | 0x3c => half(self.bytes),
            0x40 | 0x44 => half(self.fault_iova),
            reg::FAULT_CNT => self.fault_cnt,
            reg::DROP_CNT => self.drop_cnt,
            reg::RESET_CNT => self.reset_cnt,
            reg::EPOCH_SEEN => self.epoch_seen,
            0x58 | 0x5c => half(now.saturating_sub(self.reset_at)),
            0x800..=0x80c => self.table_word(offset),
            reg::MSIX_PENDING => u32::from(self.irq_pending),
            0xc04 => 0,
            _ => return None,
        })
    }

    fn table_word(&self, offset: u16) -> u32 {
        let at = usize::from(offset - reg::MSIX_TABLE);
        let bytes = &self.msix.as_bytes()[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Reads 4 bytes at a multiple of 4 or 8 at a multiple of 8. Anything else, and what is no register, is ones.
    pub(crate) fn read(&mut self, offset: u16, width: u8, now: u64, epoch: u32) -> u64 {
        self.epoch_seen = epoch;
        let word = |at: u16| self.word(at, now).unwrap_or(u32::MAX);
        match width {
            4 if is_aligned(offset, 4) => u64::from(word(offset)),
            8 if is_aligned(offset, 8) => u64::from(word(offset)) | (u64::from(word(offset + 4)) << 32),
            _ => u64::MAX,
        }
    }

    /// Writes 4 bytes at a multiple of 4 or 8 at a multiple of 8. Anything else does nothing. True if a reset is asked for.
    pub(crate) fn write(&mut self, offset: u16, width: u8, value: u64, epoch: u32) -> bool {
        self.epoch_seen = epoch;
        let bytes = value.to_le_bytes();
        let word = |from: usize| {
            u32::from_le_bytes([bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]])
        };
        match width {
            4 if is_aligned(offset, 4) => self.write_word(offset, word(0)),
            8 if is_aligned(offset, 8) => {
                let first = self.write_word(offset, word(0));
                let second = self.write_word(offset + 4, word(4));
                first || second
            }
            _ => false,
        }
    }

    fn write_word(&mut self, offset: u16, value: u32) -> bool {
        match offset {
            reg::CTRL => return self.write_ctrl(value),
            0x10 | 0x14 => self.ring_iova = with_half(self.ring_iova, offset, value),
            reg::RING_LEN => self.set_ring_len(value),
            reg::HEAD => self.head = value,
            0x28 | 0x2c => self.cq_iova = with_half(self.cq_iova, offset, value),
            0x800..=0x80c => self.write_table(offset, value),
            _ => {}
        }
        false
    }

    fn write_ctrl(&mut self, value: u32) -> bool {
        self.ctrl = value & ctrl::KEPT;
        if value & ctrl::RUN == 0 {
            self.looping = None;
        }
        value & ctrl::RESET != 0
    }

    /// Another length is another ring: places are counted anew.
    fn set_ring_len(&mut self, len: u32) {
        if len != self.ring_len {
            self.executed.clear();
            self.looping = None;
        }
        self.ring_len = len;
    }

    fn write_table(&mut self, offset: u16, value: u32) {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.msix.as_bytes());
        let at = usize::from(offset - reg::MSIX_TABLE);
        let value = if at == 12 { value & 1 } else { value };
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self.msix = MsixEntry::read_from_bytes(&bytes).expect("sixteen bytes");
    }
}

fn is_aligned(offset: u16, width: u16) -> bool {
    offset.is_multiple_of(width) && u64::from(offset) < PAGE_SIZE
}

fn with_half(whole: u64, offset: u16, value: u32) -> u64 {
    if offset & 4 == 0 {
        (whole & !0xffff_ffff) | u64::from(value)
    } else {
        (whole & 0xffff_ffff) | (u64::from(value) << 32)
    }
}
