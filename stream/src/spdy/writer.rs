//! From the streams to the socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::flow::Exhausted;
use super::frame::{Fin, FrameHeader, GoAway, ping};
use super::state::{Phase, Shared, Side, State};
use crate::idle::IdleClock;
use crate::pipe::{CHUNK, Level};

/// What is gathered for one system call.
const BATCH: usize = 256 * 1024;
/// One stream's turn, so that many get theirs.
const TURN: usize = CHUNK;

/// Writes until the connection is closed from our side: GOAWAY, and the end of what we send.
pub(super) async fn run<W: AsyncWrite + Unpin>(
    shared: &Shared,
    mut sink: W,
    idle: &IdleClock,
) -> io::Result<()> {
    let mut batch = Batch::default();
    loop {
        let phase = {
            let mut state = shared.lock();
            let deadline = state.flow.deadline();
            state.answer(&shared.doorbell);
            state.gather(&mut batch);
            if state.flow.deadline() != deadline {
                shared.timers.notify_one();
            }
            state.phase
        };
        if batch.has_remaining() {
            let carries_data = batch.carries_data();
            sink.write_all_buf(&mut batch).await?;
            sink.flush().await?;
            shared.written.notify_one();
            // Our answers to a client that says nothing but PING are no sign of life of the session; its PINGs are.
            if carries_data {
                idle.touch();
            }
        } else if phase == Phase::Closed {
            return sink.shutdown().await;
        } else {
            shared.doorbell.wait().await;
        }
    }
}

impl State {
    /// Takes what can be sent now, a batch of it.
    fn gather(&mut self, batch: &mut Batch) {
        if self.phase == Phase::Closed {
            batch.push(self.control.take());
            return;
        }
        // Every stream that waits has a turn, and those that have more to say another, until the batch is full.
        while batch.length < BATCH
            && let Some(id) = self.next_turn()
        {
            self.serve(id, batch);
        }
        if let Some(anew) = self.flow.session_grant() {
            self.control.window_update(0, anew);
        }
        if self.phase == Phase::Closing && self.is_drained() {
            self.phase = Phase::Closed;
            self.control_first(batch);
            self.control.go_away(self.last_stream, GoAway::Ok);
            batch.push(self.control.take());
            return;
        }
        self.control_first(batch);
    }

    /// Answers go before data: a stream's SYN_REPLY before what is said on it.
    fn control_first(&mut self, batch: &mut Batch) {
        let control = self.control.take();
        if !control.is_empty() {
            batch.length += control.len();
            batch.frames.push_front(control);
        }
    }

    /// A stream's turn.
    fn serve(&mut self, id: u32, batch: &mut Batch) {
        let Some(open) = self.streams.get_mut(&id) else {
            return;
        };
        open.bell.answer();
        let consumed = open.feed.take_consumed();
        let now = Instant::now();
        if let Some(anew) = self.flow.consumed(&mut open.receive, consumed, now) {
            self.control.window_update(id, anew);
        }
        if open.local == Side::Finished {
            return;
        }
        let allowance = self.flow.allowance(open.send).unwrap_or(TURN).min(TURN);
        let data = match open.drain.level() {
            Level::Some if allowance == 0 => {
                if self.flow.exhausted(now) == Exhausted::Probe {
                    self.control.ping(ping::PROBE);
                }
                self.block(id);
                return;
            }
            Level::Some => open.drain.pop(allowance).unwrap_or_default(),
            Level::Empty => return,
            Level::Finished => Bytes::new(),
        };
        self.flow.sent(&mut open.send, data.len());
        let fin = match open.drain.level() {
            Level::Finished => Fin::Last,
            Level::Some | Level::Empty => Fin::More,
        };
        let has_more = open.drain.level() == Level::Some;
        batch.push(FrameHeader::data(id, fin, data.len()));
        batch.push(data);
        if fin == Fin::Last {
            open.local = Side::Finished;
            self.remove_closed(id);
        } else if has_more {
            self.enqueue(id);
        }
    }

    /// Whether no stream has anything to send.
    fn is_drained(&self) -> bool {
        !self.has_turns()
            && self
                .streams
                .values()
                .all(|open| open.local == Side::Finished || open.drain.level() == Level::Empty)
    }
}

/// Frames for one system call.
#[derive(Debug, Default)]
struct Batch {
    frames: VecDeque<Bytes>,
    length: usize,
}

impl Batch {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.length += bytes.len();
            self.frames.push_back(bytes);
        }
    }

    /// Control frames have their first bit set, and stand in front.
    fn carries_data(&self) -> bool {
        self.frames.len() > 1 || self.frames.iter().any(|frame| frame[0] & 0x80 == 0)
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], |frame| frame)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = self.frames.len().min(slices.len());
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
        }
        filled
    }

    fn advance(&mut self, mut amount: usize) {
        self.length -= amount;
        while let Some(first) = self.frames.front_mut() {
            if amount < first.len() {
                first.advance(amount);
                return;
            }
            amount -= first.len();
            self.frames.pop_front();
        }
        assert_eq!(amount, 0, "more was written than there was");
    }
}
