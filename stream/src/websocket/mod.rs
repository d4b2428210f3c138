//! WebSocket, RFC 6455, after its handshake: Kubernetes' channels, and a tunnel of bytes.

mod channels;
mod message;
mod tunnel;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub(crate) use channels::{Channel, Channels, Last, serve};
pub(crate) use message::{CloseSignal, Encoding};
pub(crate) use tunnel::Tunnel;

/// Bytes of a message, as the kubelet's streaming server takes them; clients send whole files in one. Messages are
/// held as a whole, so this bounds what a client can make us hold.
pub(crate) const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// What is gathered for one system call.
const WRITE_BUFFER: usize = 128 * 1024;

/// The connection as messages.
async fn messages<T: AsyncRead + AsyncWrite + Unpin>(transport: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(64 * 1024)
        .write_buffer_size(WRITE_BUFFER)
        // Messages are fed one after the other, each when the one before found its place.
        .max_write_buffer_size(usize::MAX);
    WebSocketStream::from_raw_socket(transport, Role::Server, Some(config)).await
}
