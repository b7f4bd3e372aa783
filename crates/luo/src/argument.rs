//! How a size-first argument is copied: the caller's structure may be shorter or longer than the kernel's.
//!
//! What the caller does not have reads as zeros; what it has beyond the known part must be zeros. A reply is as long as
//! the shorter of both. The least size and the command's own checks are the dispatcher's.

use luosim_abi::{Errno, KResult};

use crate::host::Caller;

/// Bytes per piece of the scan of an oversized argument's tail. Pieces end at page borders, so that a byte
/// before an unmapped page is still seen.
const SCAN: u64 = 4096;

/// A length in 64 bits.
pub(crate) fn len64(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}

/// Checks the tail, then copies the known part. `name` is the command's, for reasons.
///
/// # Errors
/// E2BIG: a byte beyond the known part is not zero; EFAULT.
pub fn copy_in(caller: &impl Caller, name: &str, size: u32, arg: u64, known: &mut [u8]) -> KResult<()> {
    // The buffer of the scan costs more than a whole call: ordinary sizes go without.
    if u64::from(size) > len64(known.len()) {
        check_tail(caller, name, arg, len64(known.len()), u64::from(size))?;
    }
    let given = known.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    caller.read(arg, &mut known[..given])
}

fn check_tail(caller: &impl Caller, name: &str, arg: u64, known: u64, size: u64) -> KResult<()> {
    let mut buf = [0u8; 4096];
    let mut at = known;
    while at < size {
        let addr = arg.checked_add(at).ok_or_else(|| Errno::EFAULT.because("the argument wraps around"))?;
        let step = (SCAN - addr % SCAN).min(size - at);
        let piece = &mut buf[..usize::try_from(step).expect("at most a page")];
        caller.read(addr, piece)?;
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

/// Copies a reply back, as much of it as the caller has room for.
///
/// # Errors
/// EFAULT.
pub fn copy_out(caller: &mut impl Caller, size: u32, arg: u64, reply: &[u8]) -> KResult<()> {
    let len = reply.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    caller.write(arg, &reply[..len])
}
