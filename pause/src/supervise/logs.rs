//! Streams that have something, and their ends.

use super::{Container, Supervisor};
use crate::log::{DRAIN_LIMIT, LogFile, Progress, StreamName};
use podwright_pause::protocol::Answer;

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
        let stream = &mut container.streams[index];
        let is_followed = self.fanouts.iter().any(|fanout| fanout.is_of(serial, name));
        let progress = match is_followed {
            true => stream.copy_batch(log, &mut self.buffers),
            false => stream.copy_batches(log, &mut self.buffers),
        };
        match progress {
            Progress::Read(length) => self.give_to_clients(serial, name, length),
            Progress::Drained => {}
            Progress::Ended => {
                let stream = container.streams.swap_remove(index);
                self.epoll.remove(stream.source());
                self.end_for_clients(serial, Some(name));
            }
        }
        self.tell_log(serial);
    }

    /// Tells whether a container's log has begun to fail or works again.
    fn tell_log(&mut self, serial: u32) {
        let is_it = |container: &&mut Container| container.serial == serial;
        let Some(container) = self.containers.iter_mut().find(is_it) else {
            return;
        };
        if let Some(state) = container.log.as_mut().and_then(LogFile::news) {
            let container = container.id.clone();
            self.tell_all(Answer::Log { container, state });
        }
    }

    /// Copies what an exited container's streams hold now, the last line included, however slow its clients are. Streams
    /// that other processes keep open stay watched.
    pub(super) fn drain_logs(&mut self, index: usize) {
        let container = &mut self.containers[index];
        let Some(log) = &mut container.log else {
            return;
        };
        let (buffers, epoll, fanouts) = (&mut self.buffers, &self.epoll, &mut self.fanouts);
        let serial = container.serial;
        container.streams.retain_mut(|stream| {
            let mut drained = 0;
            while drained < DRAIN_LIMIT {
                match stream.copy_batch(log, buffers) {
                    Progress::Read(length) => {
                        drained += length;
                        fanouts
                            .iter_mut()
                            .filter(|fanout| fanout.is_of(serial, stream.name()))
                            .for_each(|fanout| fanout.give(buffers.batch(length), epoll));
                    }
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
        self.tell_log(serial);
    }
}
