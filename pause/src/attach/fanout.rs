//! One stream's way to the clients that are attached to it.

use super::backlog::Backlog;
use super::sink::{Client, Sink, Took};
use crate::log::StreamName;
use crate::sys::event::Epoll;
use crate::sys::process::uptime;

/// The clients of a stream, while it has any.
///
/// ```text
///   Open ──▶ Ended ──▶ (closed)   the rest is taken, and every client sees the end
///    └────────────────▶ (closed)  all clients are gone
/// ```
pub(crate) struct Fanout {
    /// The container's number.
    pub(crate) container: u32,
    pub(crate) stream: StreamName,
    sinks: Vec<Sink>,
    /// While there is one, the stream is not read.
    backlog: Option<Backlog>,
    feed: Feed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    Open,
    /// Nothing more comes.
    Ended,
}

impl Fanout {
    pub(crate) fn new(container: u32, stream: StreamName) -> Self {
        Self {
            container,
            stream,
            sinks: Vec::new(),
            backlog: None,
            feed: Feed::Open,
        }
    }

    /// Whether it is fed by this stream.
    pub(crate) fn is_of(&self, container: u32, stream: StreamName) -> bool {
        self.feed == Feed::Open && self.container == container && self.stream == stream
    }

    /// A new client: it gets what comes from now on, and what others still wait for is not for it.
    pub(crate) fn add(&mut self, mut sink: Sink) {
        sink.taken = self.backlog.as_ref().map_or(0, Backlog::length);
        self.sinks.push(sink);
    }

    /// Whether the stream must not be read: a client has not taken what was read before.
    pub(crate) fn holds_back(&self) -> bool {
        self.feed == Feed::Open && self.backlog.is_some()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.sinks.is_empty() || (self.feed == Feed::Ended && self.backlog.is_none())
    }

    pub(crate) fn watches(&self, token: u64) -> bool {
        self.sinks.iter().any(|sink| sink.is_watched_as(token))
    }

    /// Nothing more comes: when clients have taken the rest, they see the end.
    pub(crate) fn end(&mut self) {
        self.feed = Feed::Ended;
    }

    /// Gives a batch to every client.
    pub(crate) fn give(&mut self, batch: &[u8], epoll: &Epoll) {
        let kept = match &mut self.backlog {
            Some(backlog) => backlog.append(batch),
            None => {
                self.give_at_once(batch, epoll);
                return;
            }
        };
        match kept {
            true => self.flush(epoll),
            // What is lost to a client must not look like its output.
            false => self.close_all(epoll),
        }
    }

    fn give_at_once(&mut self, batch: &[u8], epoll: &Epoll) {
        let mut least = batch.len();
        self.keep_sinks(epoll, |sink| match sink.give(batch) {
            Took::Part(count) => {
                sink.taken = count;
                least = least.min(count);
                true
            }
            Took::Gone => false,
        });
        if least == batch.len() {
            self.sinks.iter_mut().for_each(|sink| sink.taken = 0);
            return;
        }
        let Ok(backlog) = Backlog::new(&batch[least..]) else {
            return self.close_all(epoll);
        };
        let now = uptime();
        for sink in &mut self.sinks {
            sink.taken -= least;
            if sink.taken < backlog.length() {
                sink.set_waiting(Some(now), epoll);
            }
        }
        self.backlog = Some(backlog);
    }

    /// Gives the backlog to those who wait for it.
    fn flush(&mut self, epoll: &Epoll) {
        let Some(mut backlog) = self.backlog.take() else {
            return;
        };
        let now = uptime();
        self.keep_sinks(epoll, |sink| match sink.give(backlog.rest(sink.taken)) {
            Took::Part(count) => {
                sink.taken += count;
                let since = match sink.taken < backlog.length() {
                    false => None,
                    true if count > 0 || !sink.waits() => Some(now),
                    true => return true,
                };
                sink.set_waiting(since, epoll);
                true
            }
            Took::Gone => false,
        });
        if self.sinks.iter().any(Sink::waits) {
            self.backlog = Some(backlog);
        } else {
            self.sinks.iter_mut().for_each(|sink| sink.taken = 0);
        }
    }

    /// A client has room, or is gone.
    pub(crate) fn serve(&mut self, token: u64, epoll: &Epoll) {
        // Only the end of one that waits for nothing is watched.
        self.keep_sinks(epoll, |sink| !sink.is_watched_as(token) || sink.waits());
        self.flush(epoll);
    }

    /// When the first client is dropped unless it takes something.
    pub(crate) fn deadline(&self) -> Option<i64> {
        self.sinks.iter().filter_map(Sink::deadline).min()
    }

    /// Drops the clients whose deadline has passed, though they had a last chance.
    pub(crate) fn drop_stalled(&mut self, now: i64, epoll: &Epoll) -> Vec<Client> {
        self.flush(epoll);
        let mut dropped = Vec::new();
        self.keep_sinks(epoll, |sink| {
            let is_late = sink.deadline().is_some_and(|deadline| deadline <= now);
            if is_late {
                dropped.push(sink.client);
            }
            !is_late
        });
        self.flush(epoll);
        dropped
    }

    /// Lets a client go.
    pub(crate) fn remove(&mut self, client: Client, epoll: &Epoll) {
        self.keep_sinks(epoll, |sink| sink.client != client);
        self.flush(epoll);
    }

    pub(crate) fn close_all(&mut self, epoll: &Epoll) {
        self.keep_sinks(epoll, |_| false);
        self.backlog = None;
    }

    fn keep_sinks(&mut self, epoll: &Epoll, mut keep: impl FnMut(&mut Sink) -> bool) {
        self.sinks
            .extract_if(.., |sink| !keep(sink))
            .for_each(|sink| sink.close(epoll));
    }
}
