//! A stream as its handler has it.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Headers;
use super::frame::Reset;
use super::state::Shared;
use crate::pipe::{Incoming, Outgoing};

/// A stream that the client has opened and that was not answered yet. Dropped without an answer, it is refused.
#[derive(Debug)]
pub(crate) struct NewStream {
    id: u32,
    headers: Headers,
    /// Taken by the answer.
    stream: Option<Stream>,
    shared: Arc<Shared>,
}

/// A stream that was accepted.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    pub(crate) reset: ResetSignal,
}

/// Tells when the client resets the stream.
#[derive(Debug)]
pub(crate) struct ResetSignal(pub(super) oneshot::Receiver<()>);

impl ResetSignal {
    /// Completes when the client has reset the stream, and never otherwise.
    pub(crate) async fn wait(self) {
        if self.0.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl NewStream {
    pub(super) fn new(id: u32, headers: Headers, stream: Stream, shared: Arc<Shared>) -> Self {
        Self {
            id,
            headers,
            stream: Some(stream),
            shared,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Tells the client that the stream is open.
    pub(crate) fn accept(mut self) -> Option<Stream> {
        let stream = self.stream.take()?;
        self.shared.reply(self.id);
        Some(stream)
    }
}

impl Drop for NewStream {
    fn drop(&mut self) {
        if self.stream.is_some() {
            self.shared.reset(self.id, Reset::Refused);
        }
    }
}
