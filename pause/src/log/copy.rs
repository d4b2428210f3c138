//! Copies of short texts.

use std::sync::atomic::{Ordering, compiler_fence};

/// What is copied by one load and store, or two.
const BLOCK: usize = 32;

/// Copies `from` to `to`, which is as long. musl's memcpy takes longer to begin with than a line of a log takes: it copies single bytes
/// until its destination is aligned, and those at the end (its src/string/x86_64/memcpy.s).
pub(super) fn copy(to: &mut [u8], from: &[u8]) {
    debug_assert_eq!(to.len(), from.len());
    if from.len() >= BLOCK {
        let blocks = to.as_chunks_mut::<BLOCK>().0.iter_mut();
        for (to, from) in blocks.zip(from.as_chunks::<BLOCK>().0) {
            *to = *from;
            // Costs no instruction. Without it the compiler makes a call of memcpy of the loop.
            compiler_fence(Ordering::SeqCst);
        }
        // What is left, and again some of what came before it.
        copy_ends::<BLOCK>(to, from);
    } else if !(copy_ends::<16>(to, from) || copy_ends::<8>(to, from) || copy_ends::<4>(to, from)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
            compiler_fence(Ordering::SeqCst);
        }
    }
}

/// Copies the first and the last N bytes, which are all of up to twice as many; false when there are fewer than N.
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
        return false;
    };
    if let Some(to) = to.first_chunk_mut::<N>() {
        *to = *first;
    }
    if let Some(to) = to.last_chunk_mut::<N>() {
        *to = *last;
    }
    true
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
