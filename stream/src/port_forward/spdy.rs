//! Over SPDY, also tunnelled: two streams for each forwarded connection, as many as the client likes.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::failure;
use super::pairs::{Pair, Pairs};
use crate::backend::{Backend, Duplex};
use crate::session::PortForwardSession;
use crate::spdy::{NewStream, Stream};

/// Forwards connections until the client is gone.
pub(crate) async fn over_spdy<B: Backend>(
    backend: &B,
    session: PortForwardSession,
    creation_timeout: Duration,
    mut new_streams: mpsc::UnboundedReceiver<NewStream>,
) {
    let mut pairs = Pairs::new(creation_timeout);
    let mut forwards = FuturesUnordered::new();
    loop {
        tokio::select! {
            new = new_streams.recv() => {
                let Some(new) = new else { return };
                if let Some(pair) = pairs.add(new, &session.ports) {
                    forwards.push(forward(backend, &session.sandbox, pair));
                }
            }
            Some(()) = forwards.next() => {}
            () = pairs.expire() => {}
        }
    }
}

/// One connection. A client that resets its data stream has given it up, and is told nothing.
async fn forward<B: Backend>(backend: &B, sandbox: &str, pair: Pair) {
    let Pair {
        port,
        data,
        mut error,
    } = pair;
    let Stream {
        incoming,
        outgoing,
        reset,
    } = data;
    let duplex = Duplex { incoming, outgoing };
    let result = tokio::select! {
        biased;
        () = reset.wait() => Ok(()),
        result = backend.port_forward(sandbox.to_owned(), port, duplex) => result,
    };
    if let Err(cause) = result {
        tracing::debug!(port, sandbox, %cause, "a connection could not be forwarded");
        let _ = error.send(failure(port, sandbox, &cause).into()).await;
    }
    let _ = error.shutdown().await;
}
