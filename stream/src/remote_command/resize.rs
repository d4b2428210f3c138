//! The terminal's sizes: JSON objects, one after the other, on a stream of their own.

use std::convert::Infallible;

use serde::Deserialize;
use tokio::sync::mpsc;

use crate::backend::TerminalSize;
use crate::pipe::Incoming;

/// Bytes of one object.
const MAX_OBJECT: usize = 1024;

/// As clients write it: Go's `remotecommand.TerminalSize`.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Where sizes come out.
pub(super) fn channel() -> (mpsc::Sender<TerminalSize>, mpsc::Receiver<TerminalSize>) {
    mpsc::channel(1)
}

/// Passes sizes on until the session ends. Of those that come faster than they are taken, the last is passed on.
pub(super) async fn forward(sizes: Option<(Incoming, mpsc::Sender<TerminalSize>)>) -> Infallible {
    if let Some((from, to)) = sizes {
        pass_on(Sizes::new(from), to).await;
    }
    std::future::pending().await
}

async fn pass_on(mut from: Sizes, to: mpsc::Sender<TerminalSize>) {
    let mut newest = None;
    let mut ended = false;
    loop {
        tokio::select! {
            size = from.next(), if !ended => match size {
                Some(size) => newest = Some(size),
                None => ended = true,
            },
            place = to.reserve(), if newest.is_some() => {
                let Ok(place) = place else { return };
                if let Some(size) = newest.take() {
                    place.send(size);
                }
            }
            else => return,
        }
    }
}

struct Sizes {
    from: Incoming,
    /// What came of the next object.
    text: Vec<u8>,
}

impl Sizes {
    fn new(from: Incoming) -> Self {
        Self {
            from,
            text: Vec::new(),
        }
    }

    /// The next size; `None` at the end, or when something else comes. Nothing is lost when it is dropped half-way.
    async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            let mut objects = serde_json::Deserializer::from_slice(&self.text).into_iter();
            match objects.next() {
                Some(Ok(Size { width, height })) => {
                    let read = objects.byte_offset();
                    self.text.drain(..read);
                    return Some(TerminalSize {
                        rows: height,
                        columns: width,
                    });
                }
                Some(Err(error)) if !error.is_eof() => {
                    tracing::debug!(%error, "a client sent something else than its terminal's size");
                    return None;
                }
                Some(Err(_)) if self.text.len() > MAX_OBJECT => return None,
                Some(Err(_)) | None => {}
            }
            let more = self.from.chunk().await.ok()??;
            self.text.extend_from_slice(&more);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::pipe::{Bell, Feed, incoming};

    fn pipe() -> (Feed, Incoming) {
        incoming(Bell::new(&Arc::default(), 1))
    }

    #[tokio::test]
    async fn sizes_come_in_any_pieces() {
        let (feed, from) = pipe();
        let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":50}";
        for byte in text {
            feed.push(Bytes::copy_from_slice(&[*byte]));
        }
        feed.finish();
        let mut sizes = Sizes::new(from);
        let size = |rows, columns| Some(TerminalSize { rows, columns });
        assert_eq!(sizes.next().await, size(24, 80));
        assert_eq!(sizes.next().await, size(50, 100));
        assert_eq!(sizes.next().await, None);
    }

    #[tokio::test]
    async fn something_else_ends_them() {
        let too_long = [&b"{\"Width\":"[..], &[b' '; MAX_OBJECT]].concat();
        for text in [
            &b"[1]"[..],
            b"{\"Width\":70000,\"Height\":1}",
            b"\xff",
            &too_long,
        ] {
            let (feed, from) = pipe();
            feed.push(Bytes::copy_from_slice(text));
            assert_eq!(Sizes::new(from).next().await, None, "{text:?}");
            drop(feed);
        }
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_last() {
        let (feed, from) = pipe();
        let (sender, mut receiver) = channel();
        for columns in 1..=1_000 {
            let text = format!("{{\"Width\":{columns},\"Height\":1}}");
            feed.push(text.into());
        }
        feed.finish();
        let mut got = Vec::new();
        let reading = async {
            while let Some(size) = receiver.recv().await {
                got.push(size.columns);
            }
        };
        tokio::join!(biased; pass_on(Sizes::new(from), sender), reading);
        assert!(got.len() <= 3, "{got:?}");
        assert_eq!(got.last(), Some(&1_000));
    }
}
