//! System calls: the only unsafe code of pause. Each wrapper takes and gives owned or borrowed descriptors and slices.
//!
//! Raw numbers instead of libc functions where musl's know less than the kernel, or do more than is wanted between
//! fork and exec (musl's set*id functions, for one, would signal other threads).

pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod terminal;
pub(crate) mod title;

use std::ffi::CString;
use std::io;

/// What the system said, as errno(3) numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) type Result<T> = std::result::Result<T, Errno>;

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        // Errors made by std itself, not by the system, are those about unusable arguments.
        Self(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

/// Turns a system call's return value into a result.
fn check(returned: libc::c_long) -> Result<libc::c_long> {
    if returned < 0 {
        Err(io::Error::last_os_error().into())
    } else {
        Ok(returned)
    }
}

/// A string that outlives a system call's arguments. One with a NUL inside names nothing: EINVAL.
pub(crate) fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno(libc::EINVAL))
}

/// Paths of kernel files, with their cgroups' ids.
const SHORT: usize = 384;

/// A path or string for the length of one system call, which allocates nothing when it is short: musl's allocator maps and unmaps a
/// page for a lone allocation, which takes longer than most calls.
#[allow(clippy::large_enum_variant)] // on the stack, for a moment
enum Argument {
    Short([u8; SHORT]),
    Long(CString),
}

impl Argument {
    fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.len() >= SHORT {
            return c_string(bytes).map(Self::Long);
        }
        if bytes.contains(&0) {
            return Err(Errno(libc::EINVAL));
        }
        let mut short = [0; SHORT];
        short[..bytes.len()].copy_from_slice(bytes);
        Ok(Self::Short(short))
    }

    /// Ends with a NUL; valid as long as this is neither moved nor dropped.
    fn as_ptr(&self) -> *const libc::c_char {
        match self {
            Self::Short(short) => short.as_ptr().cast(),
            Self::Long(long) => long.as_ptr(),
        }
    }
}
