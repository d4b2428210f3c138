//! The older form over WebSocket: two channels for each port, and one connection to each.

use std::io;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

use super::failure;
use super::protocol::{MAX_CHANNEL_PORTS, WebSocketProtocol};
use crate::backend::{Backend, Duplex};
use crate::pipe::Outgoing;
use crate::session::PortForwardSession;
use crate::websocket::{Channel, Channels, CloseSignal};

/// How the client's channels are spoken.
pub(crate) fn channels(session: &PortForwardSession, protocol: WebSocketProtocol) -> Channels {
    let ports = session.ports.len().min(MAX_CHANNEL_PORTS) as u8;
    Channels {
        count: 2 * ports,
        encoding: protocol.encoding,
        close: CloseSignal::Unknown,
        greets: None,
    }
}

/// Forwards a connection to each port, until all have ended.
pub(crate) async fn over_web_socket<B: Backend>(
    backend: &B,
    session: PortForwardSession,
    channels: Vec<Channel>,
) {
    let mut channels = channels.into_iter();
    let mut forwards = Vec::with_capacity(session.ports.len());
    for port in session.ports {
        if let (Some(data), Some(error)) = (channels.next(), channels.next()) {
            forwards.push(forward(backend, &session.sandbox, port, data, error));
        }
    }
    join_all(forwards).await;
}

/// Both channels begin by saying whose they are, in a message of its own.
async fn name(outgoing: &mut Outgoing, port: u16) -> io::Result<()> {
    outgoing.write_all(&port.to_le_bytes()).await?;
    outgoing.taken().await
}

async fn forward<B: Backend>(backend: &B, sandbox: &str, port: u16, data: Channel, error: Channel) {
    let Channel {
        incoming,
        mut outgoing,
    } = data;
    let mut error = error.outgoing;
    if name(&mut outgoing, port).await.is_err() || name(&mut error, port).await.is_err() {
        return;
    }
    let duplex = Duplex { incoming, outgoing };
    if let Err(cause) = backend.port_forward(sandbox.to_owned(), port, duplex).await {
        tracing::debug!(port, sandbox, %cause, "a connection could not be forwarded");
        let _ = error.send(failure(port, sandbox, &cause).into()).await;
    }
}
