//! From the client to the backend.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::queue::ByteQueue;
use super::{Bell, CAPACITY, CHUNK};

/// The driver is told of what was consumed in steps of this, for the sake of flow-control windows.
const CONSUMED_STEP: usize = 16 * 1024;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: Bell,
}

#[derive(Debug)]
struct State {
    queue: ByteQueue,
    end: End,
    reader: Reader,
    /// Taken by the reader since the driver asked last.
    consumed: usize,
    wants_data: Option<Waker>,
    wants_room: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The client has half-closed it.
    Finished,
    /// The client, or the connection, is gone.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Reading,
    /// Dropped: what comes is discarded.
    Gone,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left counters and wakers, which are whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two ends of a stream's way from the client.
pub(crate) fn incoming(bell: Bell) -> (Feed, Incoming) {
    let state = State {
        queue: ByteQueue::default(),
        end: End::Open,
        reader: Reader::Reading,
        consumed: 0,
        wants_data: None,
        wants_room: None,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        bell,
    });
    let incoming = Incoming {
        shared: shared.clone(),
        current: Bytes::new(),
    };
    (Feed { shared }, incoming)
}

/// The driver's end. Dropped without [`Feed::finish`], the reader sees an error.
#[derive(Debug)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
}

impl Feed {
    /// Hands data on. The driver waits for room before it does so.
    pub(crate) fn push(&self, data: Bytes) {
        let mut state = self.shared.lock();
        if state.end != End::Open {
            return;
        }
        if state.reader == Reader::Gone {
            state.consumed += data.len();
            drop(state);
            self.shared.bell.ring();
            return;
        }
        state.queue.push(data);
        let waker = state.wants_data.take();
        drop(state);
        wake(waker);
    }

    /// How many bytes may be handed on now.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.shared.lock();
        if state.reader == Reader::Gone || state.end != End::Open {
            return Poll::Ready(CAPACITY);
        }
        match CAPACITY.saturating_sub(state.queue.len()) {
            0 => {
                state.wants_room = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// The client sends no more.
    pub(crate) fn finish(&self) {
        self.end(End::Finished);
    }

    /// The client has given the stream up: what was not read yet is dropped.
    pub(crate) fn break_off(&self) {
        self.end(End::Broken);
    }

    fn end(&self, end: End) {
        let mut state = self.shared.lock();
        if state.end != End::Open {
            return;
        }
        state.end = end;
        if end == End::Broken {
            state.queue.clear();
        }
        let wakers = (state.wants_data.take(), state.wants_room.take());
        drop(state);
        wake(wakers.0);
        wake(wakers.1);
    }

    /// The bytes that the reader has taken since the last call.
    pub(crate) fn take_consumed(&self) -> usize {
        std::mem::take(&mut self.shared.lock().consumed)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.break_off();
    }
}

/// A stream from the client. Reading it gives an end of file when the client has half-closed it, and an error when
/// the client is gone or has reset the stream. Dropping it discards what still comes.
#[derive(Debug)]
pub struct Incoming {
    shared: Arc<Shared>,
    /// Taken from the queue, and not read to its end yet.
    current: Bytes,
}

impl Incoming {
    /// The next bytes as they came, without copying them; `None` at the end of file.
    ///
    /// # Errors
    /// When the client is gone, or has reset the stream.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        if self.current.is_empty() {
            std::future::poll_fn(|cx| self.poll_next(cx)).await?;
        }
        let chunk = std::mem::take(&mut self.current);
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Waits until `current` has data, or the stream has ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let Some(chunk) = state.queue.pop(CHUNK) else {
            return match state.end {
                End::Finished => Poll::Ready(Ok(())),
                End::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                End::Open => {
                    state.wants_data = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        state.consumed += chunk.len();
        let rings = state.consumed >= CONSUMED_STEP;
        // Not for every byte of room: a driver that waits should get something done when it wakes.
        let waker = (state.queue.len() <= CAPACITY / 2)
            .then(|| state.wants_room.take())
            .flatten();
        drop(state);
        wake(waker);
        if rings {
            self.shared.bell.ring();
        }
        self.current = chunk;
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Incoming {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.current.is_empty() {
            ready!(this.poll_next(cx))?;
        }
        Poll::Ready(Ok(&this.current))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().current.advance(amount);
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let available = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = available.len().min(buf.remaining());
        buf.put_slice(&available[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader = Reader::Gone;
        state.consumed += state.queue.len();
        state.queue.clear();
        let waker = state.wants_room.take();
        drop(state);
        wake(waker);
        self.shared.bell.ring();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
