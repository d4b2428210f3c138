//! A blob's download, which can go on where it broke.

use bytes::{Buf as _, Bytes};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use tokio::sync::mpsc;

use super::endpoint::Endpoint;
use super::error::HostError;
use crate::digest::Digest;

/// How far a download got.
pub(super) struct Download<'a> {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Bytes sent to `sink`.
    pub(super) offset: u64,
    pub(super) sink: &'a mpsc::Sender<Bytes>,
}

/// Why it did not reach its end.
pub(super) enum Stopped {
    NobodyListens,
    Failed(HostError),
}

impl From<HostError> for Stopped {
    fn from(error: HostError) -> Stopped {
        Stopped::Failed(error)
    }
}

impl Download<'_> {
    /// Asks for what is missing and sends it on.
    pub(super) async fn go_on(&mut self, endpoint: &Endpoint) -> Result<(), Stopped> {
        if self.offset == self.size {
            return Ok(());
        }
        let response = endpoint
            .get(&format!("blobs/{}", self.digest), "*/*", self.offset)
            .await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let begins = if partial {
            self.check_range(header(CONTENT_RANGE).unwrap_or_default())?
        } else {
            0
        };
        let expected = self.size - begins;
        if let Some(length) = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok())
            && length > expected
        {
            return Err(HostError::TooLarge { most: self.size }.into());
        }
        // A server that does not know ranges sends all of it again.
        let mut skip = self.offset - begins;
        let mut body = response.into_body();
        while let Some(mut piece) = endpoint.transport.piece(&mut body).await? {
            let skipped = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            piece.advance(skipped);
            skip -= skipped as u64;
            if piece.is_empty() {
                continue;
            }
            let length = piece.len() as u64;
            if self.offset + length > self.size {
                return Err(HostError::TooLarge { most: self.size }.into());
            }
            self.sink
                .send(piece)
                .await
                .map_err(|_| Stopped::NobodyListens)?;
            self.offset += length;
        }
        if self.offset < self.size {
            return Err(HostError::Truncated {
                received: self.offset,
                expected: self.size,
            }
            .into());
        }
        Ok(())
    }

    /// `bytes <first>-<last>/<size>` must begin where we stopped (RFC 9110 section 14.4).
    fn check_range(&self, content_range: &str) -> Result<u64, HostError> {
        let first = content_range
            .strip_prefix("bytes ")
            .and_then(|range| range.split('-').next());
        match first.and_then(|first| first.trim().parse::<u64>().ok()) {
            Some(first) if first == self.offset => Ok(first),
            _ => Err(HostError::Range {
                offset: self.offset,
                content_range: content_range.chars().take(100).collect(),
            }),
        }
    }
}
