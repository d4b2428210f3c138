//! From the backend to the client.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::queue::ByteQueue;
use super::{Bell, CAPACITY, CHUNK};

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bell: Bell,
}

#[derive(Debug)]
struct State {
    queue: ByteQueue,
    end: End,
    wants_room: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The backend writes no more.
    Finished,
    /// Nobody takes what is written.
    Broken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left counters and wakers, which are whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two ends of a stream's way to the client.
pub(crate) fn outgoing(bell: Bell) -> (Drain, Outgoing) {
    let state = State {
        queue: ByteQueue::default(),
        end: End::Open,
        wants_room: None,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        bell,
    });
    let outgoing = Outgoing {
        shared: shared.clone(),
    };
    (Drain { shared }, outgoing)
}

/// What a [`Drain`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Bytes to send.
    Some,
    /// None now.
    Empty,
    /// None, and none will come.
    Finished,
}

/// The driver's end. When it is dropped, writing is an error.
#[derive(Debug)]
pub(crate) struct Drain {
    shared: Arc<Shared>,
}

impl Drain {
    /// The next bytes, at most `limit` of them.
    pub(crate) fn pop(&self, limit: usize) -> Option<Bytes> {
        let mut state = self.shared.lock();
        let chunk = state.queue.pop(limit)?;
        // Not for every byte of room: a writer that waits should get something done when it wakes.
        let waker = (state.queue.len() <= CAPACITY / 2)
            .then(|| state.wants_room.take())
            .flatten();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(chunk)
    }

    pub(crate) fn level(&self) -> Level {
        let state = self.shared.lock();
        match state.end {
            End::Open | End::Finished if !state.queue.is_empty() => Level::Some,
            End::Open => Level::Empty,
            End::Finished | End::Broken => Level::Finished,
        }
    }

    /// Nobody will take what is written.
    pub(crate) fn break_off(&self) {
        let mut state = self.shared.lock();
        state.end = End::Broken;
        state.queue.clear();
        let waker = state.wants_room.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.break_off();
    }
}

/// A stream to the client. Writing waits while the client does not read, and is an error once it is gone or has
/// reset the stream. `shutdown` half-closes it, as does dropping it; what was written before still reaches the client.
#[derive(Debug)]
pub struct Outgoing {
    shared: Arc<Shared>,
}

impl Outgoing {
    /// Writes all of `data` without copying it.
    ///
    /// # Errors
    /// When the client is gone or has reset the stream, or after `shutdown`.
    pub async fn send(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            std::future::poll_fn(|cx| {
                let mut state = ready!(self.poll_room(cx))?;
                let amount = data.len().min(CAPACITY - state.queue.len());
                state.queue.push(data.split_to(amount));
                Poll::Ready(io::Result::Ok(()))
            })
            .await?;
            self.shared.bell.ring();
        }
        Ok(())
    }

    /// Waits until the driver has taken all that was written: what is written then is in another message of the client's.
    ///
    /// # Errors
    /// When the client is gone or has reset the stream.
    pub async fn taken(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.end == End::Broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if state.queue.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // Woken before it is empty, it waits again.
            state.wants_room = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<MutexGuard<'_, State>>> {
        let mut state = self.shared.lock();
        if state.end != End::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.queue.len() >= CAPACITY {
            state.wants_room = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(state))
    }

    fn finish(&self) {
        let mut state = self.shared.lock();
        if state.end == End::Open {
            state.end = End::Finished;
            drop(state);
            self.shared.bell.ring();
        }
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = ready!(self.poll_room(cx))?;
        let amount = buf.len().min(CAPACITY - state.queue.len()).min(CHUNK);
        state.queue.push_slice(&buf[..amount]);
        drop(state);
        self.shared.bell.ring();
        Poll::Ready(Ok(amount))
    }

    /// The driver sends what there is by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.finish();
    }
}
