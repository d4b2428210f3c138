//! What clients have not taken yet.

use crate::log::{DRAIN_LIMIT, INPUT};
use crate::sys::Result;
use crate::sys::memory::Region;

/// One batch that did not fit, and what is drained from the stream when its container exits meanwhile.
const CAPACITY: usize = INPUT + DRAIN_LIMIT + INPUT;

/// Bytes that at least one client waits for. It costs the pages that it fills, for as long as it lives.
pub(super) struct Backlog {
    region: Region,
    filled: usize,
}

impl Backlog {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let mut backlog = Self {
            region: Region::new(CAPACITY)?,
            filled: 0,
        };
        backlog.append(bytes);
        Ok(backlog)
    }

    /// Whether there was room.
    pub(super) fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.filled + bytes.len();
        match self.region.bytes().get_mut(self.filled..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled = end;
                true
            }
            None => false,
        }
    }

    pub(super) fn length(&self) -> usize {
        self.filled
    }

    /// What a client that has taken this much still waits for.
    pub(super) fn rest(&mut self, taken: usize) -> &[u8] {
        &self.region.bytes()[taken..self.filled]
    }
}
