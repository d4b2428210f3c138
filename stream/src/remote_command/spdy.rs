//! Over SPDY: the client opens a stream for each of the process's, and one for how it ended.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::status::Outcome;
use super::{Command, Pipes, Version};
use crate::backend::Backend;
use crate::pipe::Outgoing;
use crate::session::{Stdio, StdioChoice, Terminal};
use crate::spdy::{NewStream, Stream};

/// Waits for the client's streams, lets the backend have them, and tells the client how it went.
pub(crate) async fn over_spdy<B: Backend>(
    backend: &B,
    command: Command,
    version: Version,
    creation_timeout: Duration,
    mut new_streams: mpsc::UnboundedReceiver<NewStream>,
) {
    let mut streams = ClientStreams::default();
    let expected = Expected::new(command.stdio(), version);
    let opening = streams.collect(expected, &mut new_streams);
    let outcome = match tokio::time::timeout(creation_timeout, opening).await {
        Ok(()) => {
            // Streams that come later are refused.
            drop(new_streams);
            command.run(backend, streams.pipes).await
        }
        Err(_) => Outcome::failed("timed out waiting for client to create streams".to_owned()),
    };
    if let Some(mut error) = streams.error {
        // A client that has reset it does not want to know.
        let _ = error.send(outcome.message(version).into()).await;
        let _ = error.shutdown().await;
    }
}

/// The streams that the client opens before the session begins, beside the error stream.
#[derive(Clone, Copy, Debug)]
struct Expected {
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    resize: Stdio,
}

impl Expected {
    fn new(stdio: StdioChoice, version: Version) -> Self {
        let resizes = stdio.terminal == Terminal::Attached && version >= Version::V3;
        Self {
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            resize: resizes.into(),
        }
    }
}

/// What the client has opened.
#[derive(Debug, Default)]
struct ClientStreams {
    error: Option<Outgoing>,
    pipes: Pipes,
    /// Our directions of the client's streams. Kubernetes' clients take their half-close for the end of the session, and stop
    /// reading their own stdin: it comes when the session has ended.
    unused: Vec<Outgoing>,
}

impl ClientStreams {
    /// Accepts streams until all are there.
    async fn collect(
        &mut self,
        expected: Expected,
        new_streams: &mut mpsc::UnboundedReceiver<NewStream>,
    ) {
        while !self.is_complete(expected) {
            let Some(new) = new_streams.recv().await else {
                // The connection has ended, and with it this session.
                return std::future::pending().await;
            };
            self.add(new);
        }
    }

    fn is_complete(&self, expected: Expected) -> bool {
        let there = |choice, open| choice == Stdio::Closed || open;
        self.error.is_some()
            && there(expected.stdin, self.pipes.stdin.is_some())
            && there(expected.stdout, self.pipes.stdout.is_some())
            && there(expected.stderr, self.pipes.stderr.is_some())
            && there(expected.resize, self.pipes.resize.is_some())
    }

    /// Takes a stream that there is not yet; others are refused. One that nobody asked for is accepted too: clients open
    /// what their own user asked for, and should not fail because the runtime was asked for less.
    fn add(&mut self, new: NewStream) {
        let mut incoming = |stream: Stream| {
            self.unused.push(stream.outgoing);
            stream.incoming
        };
        match new.headers().get("streamtype") {
            Some("error") => take(new, &mut self.error, |stream| stream.outgoing),
            Some("stdin") => take(new, &mut self.pipes.stdin, &mut incoming),
            Some("stdout") => take(new, &mut self.pipes.stdout, |stream| stream.outgoing),
            Some("stderr") => take(new, &mut self.pipes.stderr, |stream| stream.outgoing),
            Some("resize") => take(new, &mut self.pipes.resize, &mut incoming),
            kind => tracing::debug!(?kind, "a client opened a stream of an unexpected type"),
        }
    }
}

/// Accepts the stream, when there is none of its type yet, and keeps what is used of it.
fn take<T>(new: NewStream, place: &mut Option<T>, direction: impl FnOnce(Stream) -> T) {
    if place.is_none() {
        *place = new.accept().map(direction);
    }
}
