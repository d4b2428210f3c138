//! An answer, and what a fault makes of it.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

use super::fault::Action;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
type Chunks = BoxStream<'static, io::Result<Bytes>>;

/// How much is sent at once.
const CHUNK: usize = 64 * 1024;

/// What the registry says when it is well.
pub(super) struct Answer {
    status: StatusCode,
    headers: Vec<(&'static str, String)>,
    content: Bytes,
    challenge: String,
}

impl Answer {
    pub(super) fn status(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Bytes::new(),
            challenge: String::new(),
        }
    }

    pub(super) fn found(content: Bytes) -> Self {
        Self {
            content,
            ..Self::status(StatusCode::OK)
        }
    }

    pub(super) fn body(mut self, content: impl Into<Bytes>) -> Self {
        self.content = content.into();
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// What a 401 by a fault would demand.
    pub(super) fn challenge(mut self, challenge: String) -> Self {
        self.challenge = challenge;
        self
    }

    /// Serves `Range: bytes=FROM-` and `bytes=FROM-TO`, as pulls that resume ask.
    pub(super) fn range<B>(mut self, request: &hyper::Request<B>) -> Self {
        let length = self.content.len();
        self.headers.push(("accept-ranges", "bytes".into()));
        let asked = request
            .headers()
            .get(header::RANGE)
            .and_then(|value| value.to_str().ok());
        let Some((from, to)) = asked
            .and_then(|text| text.strip_prefix("bytes="))
            .and_then(|range| range.split_once('-'))
            .and_then(|(from, to)| Some((from.parse::<usize>().ok()?, to.parse().ok())))
        else {
            return self;
        };
        let to = to.map_or(length, |to: usize| to.saturating_add(1).min(length));
        if from >= to {
            return Self::status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header("content-range", &format!("bytes */{length}"));
        }
        self.status = StatusCode::PARTIAL_CONTENT;
        self.headers
            .push(("content-range", format!("bytes {from}-{}/{length}", to - 1)));
        self.content = self.content.slice(from..to);
        self
    }

    /// The response after `action`; an error closes the connection without one.
    pub(super) async fn send(self, action: Action, head: bool) -> io::Result<Response<Body>> {
        let declared = self.content.len();
        let (answer, chunks) = match action {
            Action::Drop => return Err(closed()),
            Action::Status(status) => return Self::bare(status, &[]),
            Action::Redirect(to) => return Self::bare(307, &[("location", &to)]),
            Action::Challenge => return Self::bare(401, &[("www-authenticate", &self.challenge)]),
            Action::Body(text) => {
                return Self::found(text.into()).response(None, None);
            }
            Action::Delay(time) => {
                tokio::time::sleep(time).await;
                (self, None)
            }
            Action::Off => (self, None),
            Action::Truncate(bytes) => {
                let kept = self.chunks(bytes).chain(stream::once(cut_off()));
                (self, Some(kept.boxed()))
            }
            Action::Stall(bytes) => {
                let kept = self.chunks(bytes).chain(stream::pending());
                (self, Some(kept.boxed()))
            }
            Action::Slow(rate) => {
                let chunks = slow(self.content.clone(), rate);
                (self, Some(chunks))
            }
            Action::Corrupt => {
                let wrong: Bytes = self.content.iter().map(|byte| !byte).collect();
                (self.body(wrong), None)
            }
            Action::Endless => {
                let zeros = stream::repeat_with(|| Ok(Bytes::from_static(&[0; CHUNK])));
                let chunks = self.chunks(u64::MAX).chain(zeros).boxed();
                return self.response(None, Some(chunks));
            }
        };
        let chunks = if head {
            Some(stream::empty().boxed())
        } else {
            chunks
        };
        answer.response(Some(declared), chunks)
    }

    fn bare(status: u16, headers: &[(&'static str, &str)]) -> io::Result<Response<Body>> {
        let status = StatusCode::from_u16(status).map_err(io::Error::other)?;
        let mut answer = Self::status(status);
        for (name, value) in headers {
            answer = answer.header(name, value);
        }
        answer.response(None, None)
    }

    /// At most `limit` bytes of the content, in pieces.
    fn chunks(&self, limit: u64) -> Chunks {
        let end = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .min(self.content.len());
        let content = self.content.slice(..end);
        let starts = (0..end).step_by(CHUNK);
        stream::iter(starts.map(move |start| Ok(content.slice(start..end.min(start + CHUNK)))))
            .boxed()
    }

    fn response(
        self,
        declared: Option<usize>,
        chunks: Option<Chunks>,
    ) -> io::Result<Response<Body>> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(
                *name,
                HeaderValue::from_str(value).map_err(io::Error::other)?,
            );
        }
        if let Some(length) = declared {
            response = response.header(header::CONTENT_LENGTH, length);
        }
        let chunks = chunks.unwrap_or_else(|| self.chunks(u64::MAX));
        let body = StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data)));
        response.body(body.boxed_unsync()).map_err(io::Error::other)
    }
}

fn closed() -> io::Error {
    io::Error::other("a fault closes the connection")
}

/// Closes the connection once what was sent before has left: hyper flushes when a body is not ready.
async fn cut_off() -> io::Result<Bytes> {
    tokio::task::yield_now().await;
    Err(closed())
}

/// Ten pieces a second.
fn slow(content: Bytes, rate: u64) -> Chunks {
    let piece = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
    stream::unfold(content, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let next = rest.split_to(piece.min(rest.len()));
        Some((Ok(next), rest))
    })
    .boxed()
}
