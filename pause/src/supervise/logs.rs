//! Streams that have something, and their ends.

use super::Supervisor;
use crate::log::{Progress, StreamName};

/// The most that is drained from a stream before its container's exit is told: all that a pipe holds, when nobody else
/// writes to it endlessly.
const DRAIN_LIMIT: usize = 1024 * 1024;

impl Supervisor {
    /// Copies one batch: each ready stream gets its turn.
    pub(super) fn copy_log(&mut self, serial: u32, name: StreamName) {
        let Some(container) = self
            .containers
            .iter_mut()
            .find(|container| container.serial == serial)
        else {
            return;
        };
        let Some(index) = container
            .streams
            .iter()
            .position(|stream| stream.name() == name)
        else {
            return;
        };
        let Some(log) = &mut container.log else {
            return;
        };
        if container.streams[index].copy_batch(log, &mut self.buffers) == Progress::Ended {
            let stream = container.streams.swap_remove(index);
            self.epoll.remove(stream.source());
        }
    }

    /// Copies what an exited container's streams hold now, the last line included. Streams that other processes keep open
    /// stay watched.
    pub(super) fn drain_logs(&mut self, index: usize) {
        let container = &mut self.containers[index];
        let Some(log) = &mut container.log else {
            return;
        };
        let (buffers, epoll) = (&mut self.buffers, &self.epoll);
        container.streams.retain_mut(|stream| {
            let mut drained = 0;
            while drained < DRAIN_LIMIT {
                match stream.copy_batch(log, buffers) {
                    Progress::Read(length) => drained += length,
                    Progress::Drained => break,
                    Progress::Ended => {
                        epoll.remove(stream.source());
                        return false;
                    }
                }
            }
            stream.flush(log, buffers);
            true
        });
    }
}
