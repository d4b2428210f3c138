//! The daemon's memory. Its heap is jemalloc's: the C library's would grow with churn, for its caches and small blocks that live keep the
//! pages around them. Most of the rest is its program.
#![allow(unsafe_code)] // mallctl(3) of jemalloc, dl_iterate_phdr(3), madvise(2)

use std::ffi::{CStr, c_char, c_void};

/// Not that of the crate's own tests, whose instructions are counted.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena: what is free in one is of no use to another. Threads cache small blocks only, for what is in them keeps its pages. What is
/// unused for a second is given back by a thread of the allocator's, which sleeps while there is nothing: a node whose clients have gone
/// makes no calls of the allocator that could do it.
const OPTIONS: &CStr =
    c"narenas:1,tcache_max:1024,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true,max_background_threads:1";

/// jemalloc reads its options from a variable of this name (jemalloc(3), TUNING), as the crate that builds it renames it.
// SAFETY: nothing else in the program has the name but jemalloc's own weak definition, which this replaces, with the same type.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: Option<&'static c_char> = {
    // SAFETY: points to a string that lives as long as the program and ends with a NUL.
    Some(unsafe { &*OPTIONS.as_ptr() })
};

/// How many arenas the allocator may have by its options; 0 when it does not say.
pub fn arenas() -> u32 {
    let mut arenas: u32 = 0;
    let mut length = size_of::<u32>();
    // SAFETY: the name ends with a NUL, and the value is an unsigned int of that length (jemalloc(3), opt.narenas).
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"opt.narenas".as_ptr(),
            (&raw mut arenas).cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    arenas
}

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
    }
}
