//! Reading physical memory without owning a machine: what boot code and readers of images have in common.
//!
//! Not here: writing, and where the bytes come from. A source with holes (a core file that lacks a range)
//! answers them with [`AccessError`], as [`PhysMem`] answers what lies behind its end.

use zerocopy::{FromBytes, IntoBytes};

use crate::addr::PhysAddr;
use crate::mem::{AccessError, PhysMem};

/// Physical memory that can be read.
pub trait ReadPhys {
    /// Bytes of memory: no address from here on can be read.
    fn size(&self) -> u64;

    /// Copies memory at `addr` to `buf`.
    ///
    /// # Errors
    /// [`AccessError`]: some of it is not there. What `buf` holds then is not defined.
    fn read_bytes(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError>;

    /// Reads a structure.
    ///
    /// # Errors
    /// [`AccessError`].
    fn read_struct<T: FromBytes + IntoBytes>(&self, addr: PhysAddr) -> Result<T, AccessError>
    where
        Self: Sized,
    {
        let mut object = T::new_zeroed();
        self.read_bytes(addr, object.as_mut_bytes())?;
        Ok(object)
    }

    /// Reads a little-endian u64 at any alignment.
    ///
    /// # Errors
    /// [`AccessError`].
    fn read_word(&self, addr: PhysAddr) -> Result<u64, AccessError> {
        let mut bytes = [0; 8];
        self.read_bytes(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl ReadPhys for PhysMem {
    fn size(&self) -> u64 {
        self.len()
    }

    #[inline]
    fn read_bytes(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), AccessError> {
        self.read(addr, buf)
    }
}
