//! The daemon's memory. Its heap would grow with churn, for glibc does not give pages back between allocations that live (free(3)); and
//! most of the rest is its program.
#![allow(unsafe_code)] // mallopt(3), malloc_trim(3), dl_iterate_phdr(3), madvise(2)

use std::ffi::c_void;

/// Keeps the heap together. By default threads get arenas of their own, up to eight for each processor (mallopt(3)), and what is free
/// in one is of no use to the others. To be called before there are threads.
#[cfg(target_env = "gnu")]
pub fn keep_together() {
    // SAFETY: takes numbers only, and is called before another thread could allocate (mallopt(3) is not to race with malloc(3)).
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives the pages back on which nothing lives.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: takes no pointers, and locks the heap itself (malloc_trim(3): MT-Safe).
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give memory back by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn keep_together() {}

/// Other C libraries give memory back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

/// Unmaps the pages of the program that were needed so far: what starts a daemon is half of them, and is not needed again. What is used is
/// mapped again, sixteen pages by a fault, from the page cache.
pub(crate) fn forget_start() {
    // SAFETY: the callback has the type that is asked for, and does not unwind: it neither allocates nor calls what could panic.
    unsafe { libc::dl_iterate_phdr(Some(unmap_program), std::ptr::null_mut()) };
}

/// dl_iterate_phdr(3) tells of the program itself first; a value that is not 0 ends the iteration. Libraries are shared with others.
unsafe extern "C" fn unmap_program(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> libc::c_int {
    // SAFETY: the C library passes a valid structure, whose `dlpi_phnum` headers live as long as the program.
    let (base, headers) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object.dlpi_addr, headers)
    };
    for header in headers {
        // What was written to must stay, so the segments that may be are left alone. The loader has written to the others nowhere: Rust's
        // programs have no relocations there.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            unmap_clean(base + header.p_vaddr, header.p_memsz);
        }
    }
    1
}

/// Unmaps the whole pages of a range of the program's file.
fn unmap_clean(start: u64, bytes: u64) {
    /// A multiple of every page size up to 64 KiB: fewer pages than these are not worth a thought.
    const UNIT: u64 = 64 * 1024;
    let (first, end) = (start.next_multiple_of(UNIT), (start + bytes) / UNIT * UNIT);
    let range = usize::try_from(first).ok().zip(
        end.checked_sub(first)
            .and_then(|length| usize::try_from(length).ok()),
    );
    if let Some((first, length)) = range {
        // SAFETY: the range is within a private mapping of a file that is not written to, so that its pages come back with the
        // same content when they are touched (madvise(2), MADV_DONTNEED). What fails changes nothing.
        unsafe { libc::madvise(first as *mut c_void, length, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Bytes of this program's file that are mapped to be executed and in memory.
    fn code_in_memory() -> u64 {
        let program = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut of_code = false;
        let mut kibibytes = 0;
        for line in maps.lines() {
            if line.contains(" r-xp ") {
                of_code = line.ends_with(program.to_str().unwrap());
            } else if let Some(resident) = line.strip_prefix("Rss:") {
                let number = resident.trim().strip_suffix(" kB").unwrap();
                kibibytes += if of_code { number.parse().unwrap() } else { 0 };
                of_code = false;
            }
        }
        kibibytes * 1024
    }

    #[test]
    fn the_program_goes_on_without_the_pages_of_its_start() {
        let before = code_in_memory();
        forget_start();
        let after = code_in_memory();
        // Other tests go on meanwhile.
        assert!(
            after < before / 4 * 3,
            "{before} bytes before, {after} after"
        );
        give_back();
    }
}
