//! How the argument of an extensible ioctl crosses between a program and a kernel that know different sizes of it.
//!
//! The structure begins with its size as the program knows it. A kernel has a *known* size, that of its own header, and a
//! *minimum*, the end of the last member that it cannot do without. The rules are those of `copy_struct_from_user` and of
//! the subsystems that follow iommufd:
//!
//! - a size below the minimum is EINVAL;
//! - what a smaller program does not give reads as zero, which must mean: as before there was this member;
//! - what a larger program gives beyond the known size must be zero, or E2BIG;
//! - the reply is cut to the smaller of the two sizes.
//!
//! Not here: which command it is, in which order the checks stand among others, and what the argument means. The order
//! is the dispatcher's (`luosim-luo`).

use crate::{Errno, KResult};

/// Bytes per piece of the scan of an oversized argument's tail. Pieces end at page borders, so that a byte
/// before an unmapped page is still seen.
const SCAN: u64 = 4096;

/// The memory of the program that makes a call.
pub trait UserMemory {
    /// Copies `buf.len()` bytes from the program's address `addr`.
    ///
    /// # Errors
    /// EFAULT if any byte is not readable.
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()>;
    /// Copies `bytes` to the program's address `addr`.
    ///
    /// # Errors
    /// EFAULT if any byte is not writable.
    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()>;
}

/// The size that the program gives: the first word at `arg`.
///
/// # Errors
/// EFAULT.
pub fn size_word(memory: &impl UserMemory, arg: u64) -> KResult<u32> {
    let mut word = [0; 4];
    memory.read(arg, &mut word)?;
    Ok(u32::from_le_bytes(word))
}

/// Whether `size` reaches the minimum of the command `name`, in bytes.
///
/// # Errors
/// EINVAL.
pub fn check_min(name: &str, min: usize, size: u32) -> KResult<()> {
    if u64::from(size) < len64(min) {
        return Err(
            Errno::EINVAL.because(format!("{name} needs a structure of {min} bytes, size says {size}"))
        );
    }
    Ok(())
}

/// Copies the argument of the command `name` into `known`, the whole structure as the kernel knows it: first the tail is
/// checked, then the part that both know is copied, and what the program does not know is zero.
///
/// # Errors
/// E2BIG for a byte in the tail that is not zero; EFAULT.
pub fn copy_in(memory: &impl UserMemory, name: &str, size: u32, arg: u64, known: &mut [u8]) -> KResult<()> {
    // The buffer of the scan costs more than a whole call: ordinary sizes go without.
    if u64::from(size) > len64(known.len()) {
        check_tail(memory, name, arg, len64(known.len()), u64::from(size))?;
    }
    let given = given(size, known.len());
    let (given, missing) = known.split_at_mut(given);
    missing.fill(0);
    memory.read(arg, given)
}

/// Copies the reply, the whole structure as the kernel knows it, as far as the program knows it.
///
/// # Errors
/// EFAULT.
pub fn copy_out(memory: &mut impl UserMemory, size: u32, arg: u64, reply: &[u8]) -> KResult<()> {
    memory.write(arg, &reply[..given(size, reply.len())])
}

/// Bytes that both sides know.
fn given(size: u32, known: usize) -> usize {
    known.min(usize::try_from(size).unwrap_or(usize::MAX))
}

fn len64(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

fn check_tail(memory: &impl UserMemory, name: &str, arg: u64, known: u64, size: u64) -> KResult<()> {
    let mut buf = [0u8; 4096];
    let mut at = known;
    while at < size {
        let addr = arg.checked_add(at).ok_or_else(|| Errno::EFAULT.because("the argument wraps around"))?;
        let step = (SCAN - addr % SCAN).min(size - at);
        let piece = &mut buf[..usize::try_from(step).expect("at most a page")];
        memory.read(addr, piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            let why = format!(
                "size {size} of {name} is more than the {known} known bytes, and the rest is not zero"
            );
            return Err(Errno::E2BIG.because(why));
        }
        at += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from address 0x1000 on; everything else is not mapped.
    struct Bytes(Vec<u8>);

    impl Bytes {
        fn range(&self, addr: u64, len: usize) -> KResult<std::ops::Range<usize>> {
            let start = addr.checked_sub(0x1000).and_then(|at| usize::try_from(at).ok());
            let range = start.and_then(|start| Some(start..start.checked_add(len)?));
            range.filter(|range| range.end <= self.0.len()).ok_or_else(|| Errno::EFAULT.because("not mapped"))
        }
    }

    impl UserMemory for Bytes {
        fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
            buf.copy_from_slice(&self.0[self.range(addr, buf.len())?]);
            Ok(())
        }

        fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
            let range = self.range(addr, bytes.len())?;
            self.0[range].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn errno<T>(result: KResult<T>) -> Option<Errno> {
        result.err().map(|refusal| refusal.errno)
    }

    #[test]
    fn what_a_smaller_program_does_not_give_is_zero() {
        let memory = Bytes(vec![8, 0, 0, 0, 1, 2, 3, 4, 0xee, 0xee]);
        let mut known = [0xaa; 12];
        assert_eq!(size_word(&memory, 0x1000), Ok(8));
        assert_eq!(copy_in(&memory, "X", 8, 0x1000, &mut known), Ok(()));
        assert_eq!(known, [8, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0], "nothing of what lies behind is read");
    }

    #[test]
    fn what_a_larger_program_gives_must_be_zero() {
        let mut memory = Bytes(vec![7; 16]);
        memory.0[8..].fill(0);
        let mut known = [0; 8];
        assert_eq!(copy_in(&memory, "X", 16, 0x1000, &mut known), Ok(()));
        memory.0[15] = 1;
        assert_eq!(errno(copy_in(&memory, "X", 16, 0x1000, &mut known)), Some(Errno::E2BIG));
        assert_eq!(errno(copy_in(&memory, "X", 17, 0x1000, &mut known)), Some(Errno::EFAULT));
    }

    #[test]
    fn a_reply_is_cut_to_what_both_know() {
        let mut memory = Bytes(vec![0; 16]);
        assert_eq!(copy_out(&mut memory, 4, 0x1000, &[9; 8]), Ok(()));
        assert_eq!(memory.0[..8], [9, 9, 9, 9, 0, 0, 0, 0]);
        assert_eq!(copy_out(&mut memory, 16, 0x1000, &[9; 8]), Ok(()));
        assert_eq!((memory.0[7], memory.0[8]), (9, 0));
        assert_eq!(errno(copy_out(&mut memory, 4, 0x1000 + 14, &[9; 8])), Some(Errno::EFAULT));
    }

    #[test]
    fn the_minimum_is_the_least() {
        assert_eq!(check_min("X", 16, 16), Ok(()));
        assert_eq!(errno(check_min("X", 16, 15)), Some(Errno::EINVAL));
    }
}
