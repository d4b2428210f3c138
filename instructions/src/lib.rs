//! Marks, in a test, the work whose instructions `cargo xtask instructions` counts.
//!
//! Such a test's name begins with `instructions_of_`. What it needs it makes before, and what it asserts comes after:
//! neither counts.

use std::hint::black_box;

/// Does `work`, and counts it. Once in a test.
// callgrind begins to count when it sees this function's symbol, so it must have one.
#[inline(never)]
pub fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}
