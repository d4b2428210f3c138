//! The two streams of a forwarded connection find each other.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::protocol::parse_port;
use crate::pipe::Outgoing;
use crate::spdy::{Headers, NewStream, Stream};

/// Streams whose other half has not come. There are no more than a connection may have streams.
#[derive(Debug)]
pub(super) struct Pairs {
    timeout: Duration,
    /// By age.
    halves: VecDeque<Half>,
}

#[derive(Debug)]
struct Half {
    request: String,
    deadline: Instant,
    stream: HalfStream,
}

#[derive(Debug)]
enum HalfStream {
    Data { stream: Stream, port: u16 },
    Error(Outgoing),
}

/// A connection to forward.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) port: u16,
    pub(super) data: Stream,
    pub(super) error: Outgoing,
}

/// What a stream is for, by its headers.
#[derive(Debug, PartialEq, Eq)]
struct Purpose {
    kind: Kind,
    port: u16,
    request: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

impl Purpose {
    fn read(headers: &Headers, id: u32) -> Result<Self, String> {
        let port = headers.get("port").ok_or("\"port\" header is required")?;
        let port = parse_port(port)?;
        let kind = match headers.get("streamtype") {
            Some("data") => Kind::Data,
            Some("error") => Kind::Error,
            Some(other) => return Err(format!("invalid stream type {other:?}")),
            None => return Err("\"streamType\" header is required".to_owned()),
        };
        // Clients of old do not number their requests: there, the error stream comes first, and the data stream next.
        let request = headers.get("requestid").map(str::to_owned);
        let request = request.unwrap_or_else(|| match kind {
            Kind::Error => id.to_string(),
            Kind::Data => id.saturating_sub(2).to_string(),
        });
        Ok(Self {
            kind,
            port,
            request,
        })
    }
}

impl Pairs {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            halves: VecDeque::new(),
        }
    }

    /// Takes a stream; a pair, when it is the second of it. One that says wrongly what it is for is refused.
    pub(super) fn add(&mut self, new: NewStream, allowed: &[u16]) -> Option<Pair> {
        let purpose = match Purpose::read(new.headers(), new.id()) {
            Ok(purpose) => purpose,
            Err(reason) => {
                tracing::debug!(reason, "a stream of a port-forward was refused");
                return None;
            }
        };
        if !allowed.is_empty() && !allowed.contains(&purpose.port) {
            tracing::debug!(
                port = purpose.port,
                "a port was refused that the session is not for"
            );
            return None;
        }
        let other = self
            .halves
            .iter()
            .position(|half| half.request == purpose.request);
        if let Some(index) = other
            && self.halves[index].stream.kind() == purpose.kind
        {
            tracing::debug!(
                request = purpose.request,
                "a request has two streams of a kind"
            );
            return None;
        }
        let stream = HalfStream::accept(new, &purpose)?;
        let Some(other) = other.and_then(|index| self.halves.remove(index)) else {
            self.halves.push_back(Half {
                request: purpose.request,
                deadline: Instant::now() + self.timeout,
                stream,
            });
            return None;
        };
        stream.join(other.stream)
    }

    /// Waits until a half has waited too long, and gives it up.
    pub(super) async fn expire(&mut self) {
        let Some(oldest) = self.halves.front() else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(oldest.deadline).await;
        if let Some(Half {
            request,
            stream: HalfStream::Error(mut error),
            ..
        }) = self.halves.pop_front()
        {
            let message = format!("request {request}: timed out waiting for the data stream");
            let _ = error.send(message.into()).await;
            let _ = error.shutdown().await;
        }
    }
}

impl HalfStream {
    fn accept(new: NewStream, purpose: &Purpose) -> Option<Self> {
        let stream = new.accept()?;
        Some(match purpose.kind {
            Kind::Data => Self::Data {
                stream,
                port: purpose.port,
            },
            Kind::Error => Self::Error(stream.outgoing),
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Data { .. } => Kind::Data,
            Self::Error(_) => Kind::Error,
        }
    }

    fn join(self, other: Self) -> Option<Pair> {
        match (self, other) {
            (Self::Data { stream, port }, Self::Error(error))
            | (Self::Error(error), Self::Data { stream, port }) => Some(Pair {
                port,
                data: stream,
                error,
            }),
            _ => None,
        }
    }
}
