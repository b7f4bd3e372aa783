//! Size-first arguments of the third and fourth design, with the checks in their order.
//!
//! 1. number outside the descriptor's table: EINVAL; the type byte is not looked at;
//! 2. size word unreadable: EFAULT;
//! 3. the whole number differs: ENOTTY;
//! 4. size below the least: EINVAL;
//! 5. non-zero byte beyond the known part: E2BIG; unreadable one: EFAULT; a short one is filled with zeros.

use luosim_abi::extensible::{UserMemory, check_min, copy_in, copy_out, size_word};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A command as the dispatcher knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<C> {
    pub(crate) command: C,
    pub(crate) name: &'static str,
    pub(crate) code: u32,
    pub(crate) min: usize,
}

/// Where an argument lies and how long it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Argument {
    name: &'static str,
    size: u32,
    addr: u64,
}

/// Bytes of zeros behind a reply that are written at once.
const ZEROS: usize = 4096;

/// Checks 1 to 4.
///
/// # Errors
/// As in the module's list.
pub(crate) fn find<C: Copy>(
    caller: &impl UserMemory,
    table: impl Iterator<Item = Known<C>>,
    base: u8,
    code: u32,
    addr: u64,
) -> KResult<(C, Argument)> {
    let nr = code.to_le_bytes()[0];
    let known = table.zip(0u8..).find(|(_, index)| nr.checked_sub(base) == Some(*index));
    let (known, _) = known
        .ok_or_else(|| Errno::EINVAL.because(format!("command number {nr:#04x} is not one of this file")))?;
    let size = size_word(caller, addr)?;
    let (name, want) = (known.name, known.code);
    if code != want {
        let why = format!("{code:#x} is not {name} ({want:#x}): wrong type, direction or size bits");
        return Err(Errno::ENOTTY.because(why));
    }
    check_min(name, known.min, size)?;
    Ok((known.command, Argument { name, size, addr }))
}

impl Argument {
    /// Check 5, and the structure.
    ///
    /// # Errors
    /// E2BIG; EFAULT.
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, caller: &impl UserMemory) -> KResult<T> {
        let mut known = T::new_zeroed();
        copy_in(caller, self.name, self.size, self.addr, known.as_mut_bytes())?;
        Ok(known)
    }

    /// Writes the reply, as much as the caller has room for. With quirk `reply-user-size` the kernel copies as many bytes
    /// as the caller's structure has, whatever lies behind its own; zeros here, which the caller had there too.
    ///
    /// # Errors
    /// EFAULT.
    pub(crate) fn reply<T: IntoBytes + Immutable>(
        &self,
        caller: &mut impl UserMemory,
        quirks: Quirks,
        reply: &T,
    ) -> KResult<()> {
        let bytes = reply.as_bytes();
        copy_out(caller, self.size, self.addr, bytes)?;
        if !quirks.has(Quirk::ReplyUserSize) {
            return Ok(());
        }
        let mut at = u64::try_from(bytes.len()).expect("structures are small");
        let end = u64::from(self.size);
        while at < end {
            let step = (end - at).min(ZEROS as u64);
            let addr = self.addr.checked_add(at);
            let addr = addr.ok_or_else(|| Errno::EFAULT.because("the argument wraps around"))?;
            caller.write(addr, &[0; ZEROS][..usize::try_from(step).expect("at most a page")])?;
            at += step;
        }
        Ok(())
    }
}
