//! The daemon's heap, which glibc would let grow with churn: pages between allocations that live are not given back by free(3).
#![allow(unsafe_code)] // mallopt(3), malloc_trim(3)

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
