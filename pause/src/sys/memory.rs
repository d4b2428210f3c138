//! Memory that is given back when it is not needed.
#![allow(unsafe_code)] // mmap(2)

use super::{Errno, Result};
use std::ptr::NonNull;

/// A private anonymous mapping. Its pages cost nothing until they are written to.
pub(crate) struct Region {
    start: NonNull<u8>,
    length: usize,
}

impl Region {
    pub(crate) fn new(length: usize) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let start = NonNull::new(start.cast()).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self { start, length })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable, zero-filled and `length` long until `self` is dropped, and borrowed mutably here.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Gives the pages back; the bytes are zero afterwards.
    pub(crate) fn release(&mut self) {
        // SAFETY: MADV_DONTNEED on a private anonymous mapping makes its pages zero, which is valid for bytes; nobody borrows them.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_DONTNEED) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
