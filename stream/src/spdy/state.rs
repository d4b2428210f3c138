//! What a connection's reader, writer and streams share.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::SpdyError;
use super::flow::{FlowControl, ReceiveWindow, SendWindow};
use super::frame::{ControlFrames, Fin, Reply, Reset};
use super::headers::{Encoder, HeaderError, Headers};
use super::stream::{NewStream, ResetSignal, Stream};
use crate::pipe::{Bell, Doorbell, Drain, Feed, incoming, outgoing};

/// Control frames that wait for the socket. A client that makes us answer and does not read the answers is not read either.
const MAX_BACKLOG: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) doorbell: Arc<Doorbell>,
    /// The backlog of control frames was written.
    pub(super) written: Notify,
    /// [`FlowControl::deadline`] may have changed.
    pub(super) timers: Notify,
    max_streams: usize,
    state: Mutex<State>,
}

/// Guarded as a whole: every change is a few operations on memory.
#[derive(Debug)]
pub(super) struct State {
    pub(super) streams: HashMap<u32, Open>,
    pub(super) control: ControlFrames,
    pub(super) flow: FlowControl,
    /// Streams that wait for their turn, each once.
    ready: VecDeque<u32>,
    /// Streams whose window is used up.
    blocked: HashSet<u32>,
    /// Where those that rang are gathered.
    rung: VecDeque<u32>,
    pub(super) phase: Phase,
    /// The highest that the client has opened.
    pub(super) last_stream: u32,
    encoder: Encoder,
    new_streams: mpsc::UnboundedSender<NewStream>,
}

/// The life of a connection: Serving → Closing → Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// The handler is done: what streams have is sent, then GOAWAY.
    Closing,
    /// GOAWAY is on its way, and nothing follows it.
    Closed,
}

/// A stream that is open in one direction at least.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) feed: Arc<Feed>,
    pub(super) drain: Drain,
    pub(super) bell: Bell,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    remote: Side,
    pub(super) local: Side,
    turn: Turn,
    reset: Option<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Open,
    Finished,
}

/// Whether a stream is among those that wait for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Waits,
    Over,
}

impl Shared {
    /// A connection's state, and where its new streams come out.
    pub(super) fn new(max_streams: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<NewStream>) {
        // It holds no more than `max_streams`: a stream has its place until it is answered and finished.
        let (new_streams, receiver) = mpsc::unbounded_channel();
        let state = State {
            streams: HashMap::new(),
            control: ControlFrames::default(),
            flow: FlowControl::default(),
            ready: VecDeque::new(),
            blocked: HashSet::new(),
            rung: VecDeque::new(),
            phase: Phase::Serving,
            last_stream: 0,
            encoder: Encoder::default(),
            new_streams,
        };
        let shared = Self {
            doorbell: Arc::default(),
            written: Notify::new(),
            timers: Notify::new(),
            max_streams,
            state: Mutex::new(state),
        };
        (Arc::new(shared), receiver)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock ends the connection's task, and nobody looks at the state after it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the writer finish: the handler is done.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Serving {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.doorbell.wake();
    }

    /// Whether the client must read before it is read on.
    pub(super) fn is_backlogged(&self) -> bool {
        self.lock().control.len() > MAX_BACKLOG
    }

    /// Queues frames, or changes what the writer goes by.
    pub(super) fn control(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.doorbell.wake();
    }

    /// Opens a stream for the client, or refuses it.
    pub(super) fn open(
        self: &Arc<Self>,
        id: u32,
        fin: Fin,
        reply: Reply,
        headers: Result<Headers, HeaderError>,
    ) -> Result<(), SpdyError> {
        if id == 0 {
            return Err(SpdyError::StreamZero);
        }
        let mut state = self.lock();
        // A client's streams are odd, and each higher than those before it.
        let valid = id % 2 == 1 && id > state.last_stream && reply == Reply::Wanted;
        let refusal = match &headers {
            _ if !valid => Some(Reset::Protocol),
            Err(_) => Some(Reset::Protocol),
            Ok(_) if state.phase != Phase::Serving || state.streams.len() >= self.max_streams => {
                Some(Reset::Refused)
            }
            Ok(_) => None,
        };
        state.last_stream = state.last_stream.max(id);
        let (Ok(headers), None) = (headers, refusal) else {
            state
                .control
                .rst_stream(id, refusal.unwrap_or(Reset::Protocol));
            drop(state);
            self.doorbell.wake();
            return Ok(());
        };
        let (open, stream) = self.pipes(id, fin, state.flow.stream_window());
        state.streams.insert(id, open);
        let new = NewStream::new(id, headers, stream, self.clone());
        let sent = state.new_streams.send(new);
        drop(state);
        // Nobody takes streams any more: dropping it refuses it, which needs the lock.
        drop(sent);
        Ok(())
    }

    fn pipes(&self, id: u32, fin: Fin, send: SendWindow) -> (Open, Stream) {
        let bell = Bell::new(&self.doorbell, id);
        let (feed, incoming) = incoming(bell.clone());
        let (drain, outgoing) = outgoing(bell.clone());
        let (reset, signal) = oneshot::channel();
        let remote = match fin {
            Fin::Last => {
                feed.finish();
                Side::Finished
            }
            Fin::More => Side::Open,
        };
        let open = Open {
            feed: Arc::new(feed),
            drain,
            bell,
            send,
            receive: ReceiveWindow::default(),
            remote,
            local: Side::Open,
            turn: Turn::Over,
            reset: Some(reset),
        };
        let stream = Stream {
            incoming,
            outgoing,
            reset: ResetSignal(signal),
        };
        (open, stream)
    }

    /// SYN_REPLY.
    pub(super) fn reply(&self, id: u32) {
        self.control(|state| {
            if state.streams.contains_key(&id) {
                let block = state.encoder.empty();
                state.control.syn_reply(id, &block);
            }
        });
    }

    /// Gives a stream up.
    pub(super) fn reset(&self, id: u32, reset: Reset) {
        self.control(|state| {
            if state.forget(id).is_some() {
                state.control.rst_stream(id, reset);
            }
        });
    }

    /// The client has given a stream up.
    pub(super) fn reset_by_client(&self, id: u32) {
        let open = self.lock().forget(id);
        if let Some(mut open) = open {
            // Before the pipes break: who waits for both should see the reason first.
            if let Some(reset) = open.reset.take() {
                let _ = reset.send(());
            }
            open.feed.break_off();
        }
    }

    /// The client has half-closed a stream.
    pub(super) fn finish_remote(&self, id: u32) {
        let mut state = self.lock();
        let Some(open) = state.streams.get_mut(&id) else {
            return;
        };
        open.feed.finish();
        open.remote = Side::Finished;
        let closed = state.remove_closed(id);
        drop(state);
        drop(closed);
    }

    /// Where a stream's data goes to. `None` when nobody has the stream; then it is thrown away.
    pub(super) fn feed(&self, id: u32) -> Result<Option<Arc<Feed>>, SpdyError> {
        if id == 0 {
            return Err(SpdyError::StreamZero);
        }
        let mut state = self.lock();
        if let Some(open) = state.streams.get(&id) {
            if open.remote == Side::Open {
                return Ok(Some(open.feed.clone()));
            }
            state.forget(id);
            state.control.rst_stream(id, Reset::Protocol);
        } else if id > state.last_stream || id.is_multiple_of(2) {
            state.control.rst_stream(id, Reset::InvalidStream);
        }
        // Else it is closed already, and the data was under way.
        drop(state);
        self.doorbell.wake();
        Ok(None)
    }

    /// Data of a stream was handed on.
    pub(super) fn received(&self, id: u32, length: usize) {
        let mut state = self.lock();
        let State { streams, flow, .. } = &mut *state;
        match streams.get_mut(&id) {
            Some(open) => flow.received(&mut open.receive, length),
            // It was reset in the middle of a frame.
            None => flow.discarded(length, Instant::now()),
        }
    }

    /// Data of a stream that nobody has was thrown away.
    pub(super) fn discarded(&self, length: usize) {
        let mut state = self.lock();
        state.flow.discarded(length, Instant::now());
        drop(state);
        self.timers.notify_one();
        self.doorbell.wake();
    }
}

impl State {
    /// Forgets a stream that both sides have finished.
    pub(super) fn remove_closed(&mut self, id: u32) -> Option<Open> {
        let open = self.streams.get(&id)?;
        if (open.remote, open.local) != (Side::Finished, Side::Finished) {
            return None;
        }
        self.forget(id)
    }

    /// Forgets a stream. What it has in its queue takes nothing from the connection's window any more.
    fn forget(&mut self, id: u32) -> Option<Open> {
        let open = self.streams.remove(&id)?;
        self.flow.closed(open.receive);
        Some(open)
    }

    /// Gives turns to the streams that rang.
    pub(super) fn answer(&mut self, doorbell: &Doorbell) {
        let mut rung = std::mem::take(&mut self.rung);
        doorbell.take(&mut rung);
        for id in rung.drain(..) {
            self.enqueue(id);
        }
        self.rung = rung;
    }

    /// The next stream whose turn it is.
    pub(super) fn next_turn(&mut self) -> Option<u32> {
        let id = self.ready.pop_front()?;
        if let Some(open) = self.streams.get_mut(&id) {
            open.turn = Turn::Over;
        }
        Some(id)
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn enqueue(&mut self, id: u32) {
        if let Some(open) = self.streams.get_mut(&id)
            && open.turn == Turn::Over
        {
            open.turn = Turn::Waits;
            self.ready.push_back(id);
        }
    }

    /// A stream has something to send when windows change.
    pub(super) fn block(&mut self, id: u32) {
        self.blocked.insert(id);
    }

    /// Windows have changed.
    pub(super) fn unblock(&mut self) {
        for id in std::mem::take(&mut self.blocked) {
            self.enqueue(id);
        }
    }

    /// Looks at all streams again.
    pub(super) fn enqueue_all(&mut self) {
        let all: Vec<_> = self.streams.keys().copied().collect();
        for id in all {
            self.enqueue(id);
        }
    }
}
