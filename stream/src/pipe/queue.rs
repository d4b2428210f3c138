//! A queue of bytes that keeps big chunks as they are and gathers small ones.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::CHUNK;

/// Smaller chunks are copied together: one of them must not keep the whole buffer alive that it was cut from.
const COPY_BELOW: usize = 8 * 1024;

#[derive(Debug, Default)]
pub(super) struct ByteQueue {
    chunks: VecDeque<Bytes>,
    /// What was copied and comes after the chunks.
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.len() < COPY_BELOW {
            self.push_slice(&chunk);
            return;
        }
        self.seal();
        self.len += chunk.len();
        self.chunks.push_back(chunk);
    }

    pub(super) fn push_slice(&mut self, data: &[u8]) {
        if self.tail.len() + data.len() > CHUNK {
            self.seal();
        }
        self.len += data.len();
        self.tail.extend_from_slice(data);
    }

    /// The next bytes, at most `limit` of them; `None` when there are none.
    pub(super) fn pop(&mut self, limit: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.seal();
        }
        let first = self.chunks.front_mut()?;
        let chunk = if first.len() > limit {
            first.split_to(limit)
        } else {
            self.chunks.pop_front()?
        };
        self.len -= chunk.len();
        Some(chunk)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            sizes in prop::collection::vec((0usize..20_000, any::<bool>()), 0..50),
            limits in prop::collection::vec(1usize..30_000, 1..20),
        ) {
            let mut queue = ByteQueue::default();
            let mut expected = Vec::new();
            for (index, &(size, whole)) in sizes.iter().enumerate() {
                let data = vec![index as u8; size];
                expected.extend_from_slice(&data);
                if whole { queue.push(data.into()) } else { queue.push_slice(&data) }
            }
            prop_assert_eq!(queue.len(), expected.len());
            let mut out = Vec::new();
            for &limit in limits.iter().cycle() {
                let Some(chunk) = queue.pop(limit) else { break };
                prop_assert!(!chunk.is_empty() && chunk.len() <= limit);
                out.extend_from_slice(&chunk);
                prop_assert_eq!(queue.len(), expected.len() - out.len());
            }
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn small_chunks_do_not_keep_big_buffers() {
        let mut queue = ByteQueue::default();
        let buffer = Bytes::from(vec![7; 1 << 20]);
        for at in 0..1_000 {
            queue.push(buffer.slice(at..at + 1));
        }
        assert!(buffer.is_unique(), "a chunk still refers to the buffer");
        assert_eq!(queue.pop(CHUNK).unwrap().len(), 1_000);
    }
}
