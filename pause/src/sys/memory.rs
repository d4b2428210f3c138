//! Memory that is given back when it is not needed, and copies of short pieces of it.
#![allow(unsafe_code)] // mmap(2), copies without a bounds check for each part

use super::{Errno, Result};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

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

/// Copies `from` to `to`, which must be as long. For lines of logs: musl's memcpy takes longer to begin with than such a copy takes, as
/// it copies single bytes until its destination is aligned, and those at the end (its src/string/x86_64/memcpy.s).
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    const BLOCK: usize = 32;
    assert_eq!(to.len(), from.len());
    let length = from.len();
    if length >= BLOCK {
        let mut done = 0;
        while done + BLOCK < length {
            // SAFETY: `done + BLOCK` is within both.
            unsafe { copy_block::<BLOCK>(to, from, done) };
            done += BLOCK;
            // Costs no instruction. Without it the compiler makes a call of memcpy of the loop.
            compiler_fence(Ordering::SeqCst);
        }
        // What is left, and again some of what came before it.
        // SAFETY: both are at least as long as a block.
        unsafe { copy_block::<BLOCK>(to, from, length - BLOCK) };
    } else if length >= 16 {
        // SAFETY: both are at least as long.
        unsafe { copy_ends::<16>(to, from) };
    } else if length >= 8 {
        // SAFETY: as above.
        unsafe { copy_ends::<8>(to, from) };
    } else if length >= 4 {
        // SAFETY: as above.
        unsafe { copy_ends::<4>(to, from) };
    } else {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
            compiler_fence(Ordering::SeqCst);
        }
    }
}

/// Copies the first and the last N bytes, which are all of up to twice as many. Both must be at least N bytes long.
#[inline(always)]
unsafe fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    // SAFETY: the caller's promise.
    unsafe {
        copy_block::<N>(to, from, 0);
        copy_block::<N>(to, from, from.len() - N);
    }
}

/// Copies N bytes at an offset, by as few instructions as the processor has for so many. Both must have them.
#[inline(always)]
unsafe fn copy_block<const N: usize>(to: &mut [u8], from: &[u8], offset: usize) {
    // SAFETY: the caller's promise; what is borrowed mutably does not overlap the other.
    unsafe {
        let (to, from) = (to.as_mut_ptr().add(offset), from.as_ptr().add(offset));
        std::ptr::copy_nonoverlapping(from, to, N);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole_and_nothing_else() {
        let from: Vec<u8> = (1..=200).collect();
        for length in 0..=from.len() {
            let mut to = vec![0; from.len()];
            copy(&mut to[..length], &from[..length]);
            assert_eq!(to[..length], from[..length], "{length} bytes");
            assert!(to[length..].iter().all(|byte| *byte == 0), "{length} bytes");
        }
    }
}
