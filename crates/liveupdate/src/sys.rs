//! The raw calls: numbers and structures of `linux/liveupdate.h`, and the one `ioctl(2)`.
//!
//! Every command is `_IO(0xBA, nr)`, the size is the first field of its structure. Each structure is built on our
//! own stack, so the kernel can always write its answer: RETRIEVE_SESSION loses the session when it cannot. The
//! only two `unsafe` blocks of the crate are here.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Call, Error};

/// Bytes of a name field, the terminating NUL included.
pub(crate) const NAME_FIELD: usize = 64;

/// A structure that is the argument of some commands.
///
/// # Safety
/// `#[repr(C)]`, with the size first and the layout that the kernel reads and writes for these commands, valid for
/// any bytes that it may write, and with no more bytes written than its size says.
unsafe trait Argument {}

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident, $bytes:literal { $($field:ident: $type:ty = $offset:literal,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        struct $name { size: u32, $($field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == $bytes);
            assert!(offset_of!($name, size) == 0);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };

        impl $name {
            const SIZE: u32 = $bytes;
        }

        // SAFETY: `repr(C)`, integers and bytes only, so any bytes are valid; sizes and offsets asserted above
        // are those of the kernel's header; `size` is always set to `SIZE`.
        unsafe impl Argument for $name {}
    )*};
}

arguments! {
    /// CREATE_SESSION, RETRIEVE_SESSION: `fd` is the answer.
    SessionArg, 72 { fd: i32 = 4, name: [u8; NAME_FIELD] = 8, }
    /// PRESERVE_FD: `fd` is given; RETRIEVE_FD: `fd` is the answer.
    FdArg, 16 { fd: i32 = 4, token: u64 = 8, }
    /// FINISH.
    FinishArg, 8 { reserved: u32 = 4, }
    /// GET_NAME: `name` is the answer.
    GetNameArg, 72 { reserved: u32 = 4, name: [u8; NAME_FIELD] = 8, }
}

/// `_IO(0xBA, nr)` of the commands.
const fn code(call: Call) -> Option<u16> {
    Some(match call {
        Call::CreateSession => 0xBA00,
        Call::RetrieveSession => 0xBA01,
        Call::PreserveFd => 0xBA40,
        Call::RetrieveFd => 0xBA41,
        Call::Finish => 0xBA42,
        Call::GetName => 0xBA43,
        Call::Open | Call::ReadLink => return None,
    })
}

fn ioctl<A: Argument>(fd: BorrowedFd<'_>, call: Call, argument: &mut A) -> Result<(), Error> {
    let number = code(call).ok_or(Error::from_errno(call, libc::ENOSYS))?;
    // glibc has the request unsigned long, musl int: the number fits both.
    let request = libc::Ioctl::from(number);
    // SAFETY: `fd` is open for the time of the call. `argument` is exclusively ours and, as an `Argument`, has the
    // layout of these commands and says its own size, beyond which the kernel writes nothing. On a descriptor of
    // another kind the numbers have no meaning (type 0xBA belongs to live update alone).
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 { Err(last_error(call)) } else { Ok(()) }
}

fn last_error(call: Call) -> Error {
    Error::from_errno(call, io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Takes over a descriptor that a successful call installed for us.
fn installed(call: Call, fd: RawFd) -> Result<OwnedFd, Error> {
    if fd < 0 {
        // No kernel does this; a broken emulation must not become undefined behaviour.
        return Err(Error::from_errno(call, libc::EBADF));
    }
    // SAFETY: the kernel installed `fd` in our table for this call alone; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// CREATE_SESSION or RETRIEVE_SESSION.
pub(crate) fn session(device: BorrowedFd<'_>, call: Call, name: [u8; NAME_FIELD]) -> Result<OwnedFd, Error> {
    let mut argument = SessionArg { size: SessionArg::SIZE, fd: -1, name };
    ioctl(device, call, &mut argument)?;
    installed(call, argument.fd)
}

/// PRESERVE_FD.
pub(crate) fn preserve(session: BorrowedFd<'_>, fd: RawFd, token: u64) -> Result<(), Error> {
    let mut argument = FdArg { size: FdArg::SIZE, fd, token };
    ioctl(session, Call::PreserveFd, &mut argument)
}

/// RETRIEVE_FD.
pub(crate) fn retrieve(session: BorrowedFd<'_>, token: u64) -> Result<OwnedFd, Error> {
    let mut argument = FdArg { size: FdArg::SIZE, fd: -1, token };
    ioctl(session, Call::RetrieveFd, &mut argument)?;
    installed(Call::RetrieveFd, argument.fd)
}

/// FINISH.
pub(crate) fn finish(session: BorrowedFd<'_>) -> Result<(), Error> {
    ioctl(session, Call::Finish, &mut FinishArg { size: FinishArg::SIZE, reserved: 0 })
}

/// GET_NAME: the name field as the kernel wrote it.
pub(crate) fn get_name(session: BorrowedFd<'_>) -> Result<[u8; NAME_FIELD], Error> {
    let mut argument = GetNameArg { size: GetNameArg::SIZE, reserved: 0, name: [0; NAME_FIELD] };
    ioctl(session, Call::GetName, &mut argument)?;
    Ok(argument.name)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn numbers_carry_no_direction_and_no_size() {
        assert_eq!(code(Call::CreateSession), Some(0xBA00));
        assert_eq!(code(Call::GetName), Some(0xBA43));
        assert_eq!(code(Call::Open), None);
    }

    #[test]
    fn another_file_is_no_session() {
        let null = File::open("/dev/null").unwrap();
        let error = preserve(null.as_fd(), null.as_raw_fd(), 0).unwrap_err();
        assert!(matches!(error, Error::NotASession(_)), "{error}");
        let error = session(null.as_fd(), Call::CreateSession, [1; NAME_FIELD]).unwrap_err();
        assert!(matches!(error, Error::NoDevice(_)), "{error}");
    }

    #[test]
    fn a_negative_descriptor_is_refused() {
        assert!(matches!(installed(Call::RetrieveFd, -1), Err(Error::Other(_))));
    }
}
